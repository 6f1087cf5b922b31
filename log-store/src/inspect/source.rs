//! The segments of a store, in order.

use super::InspectError;
use crate::local::OpenError;
use crate::local::folder::Folder;
use crate::local::segment::{Extent, Scan, SegmentFile, Segments, Step, Unsealed};
use std::path::Path;
use std::sync::Arc;

/// A stopped store, locked against a node starting; or one that a node may be writing to.
pub(super) struct Source {
    folder: Folder,
    segments: Segments,
    /// Segments to read, and how each ends.
    extents: Vec<(u32, Extent, u64)>,
}

impl Source {
    pub(super) fn open(dir: &Path) -> Result<Self, InspectError> {
        Self::over(Folder::open_to_inspect(dir)?)
    }

    /// Opens the data of a node that may be running: up to its last whole batch of this moment.
    pub(super) fn open_running(dir: &Path) -> Result<Self, InspectError> {
        Self::over(Folder::open_to_follow(dir)?)
    }

    fn over(folder: Folder) -> Result<Self, InspectError> {
        let (segments, unsealed) = Segments::find(&folder.segments(), folder.id)?;
        let mut extents: Vec<(u32, Extent, u64)> = segments
            .sealed()
            .into_iter()
            .map(|(sequence, info)| {
                let before = info.trailer.map_or(0, |trailer| trailer.first_batch.saturating_sub(1));
                (sequence, info.extent(), before)
            })
            .collect();
        if let Some(Unsealed {
            sequence,
            header: Some(_),
        }) = unsealed
        {
            extents.push((sequence, Extent::Last, 0));
        }
        Ok(Self {
            folder,
            segments,
            extents,
        })
    }

    /// Returns the number of segments.
    pub(super) const fn len(&self) -> usize {
        self.extents.len()
    }

    /// The first segment's number.
    pub(super) fn first(&self) -> Option<u32> {
        self.extents.first().map(|(sequence, _, _)| *sequence)
    }

    pub(super) fn segment(&self, index: usize) -> Result<Option<(Arc<SegmentFile>, Extent, u64)>, InspectError> {
        let Some((sequence, extent, before)) = self.extents.get(index).copied() else {
            return Ok(None);
        };
        let path = self.segments.path(sequence);
        let file = self.segments.file(sequence).map_err(OpenError::io("open", &path))?;
        Ok(Some((file, extent, before)))
    }

    /// Gives every step of every segment to `each`.
    pub(super) fn walk(
        &self,
        mut each: impl FnMut(&SegmentFile, Step) -> Result<(), InspectError>,
    ) -> Result<(), InspectError> {
        for index in 0..self.len() {
            let Some((file, extent, before)) = self.segment(index)? else {
                break;
            };
            let mut scan =
                Scan::new(file.clone(), self.folder.id, extent, 0, before).map_err(InspectError::read(&file.path))?;
            while let Some(step) = scan.next().map_err(InspectError::read(&file.path))? {
                each(&file, step)?;
            }
        }
        Ok(())
    }

    pub(super) const fn segments(&self) -> &Segments {
        &self.segments
    }

    pub(super) const fn folder(&self) -> &Folder {
        &self.folder
    }
}
