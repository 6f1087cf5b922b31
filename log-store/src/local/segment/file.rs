//! A segment's file, open for reading: where each record is in it.

use super::super::folder::StoreId;
use super::groups::{Groups, read_record};
use super::{Footer, SegmentHeader, Trailer};
use skytale_proto::record::KIND_ENTRY;
use skytale_proto::{LogId, Offset, Record};
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// A segment's file, open for reading. One that was opened before the segment was regrouped goes on as it was.
pub(crate) struct SegmentFile {
    pub(crate) sequence: u32,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    header: Option<SegmentHeader>,
    layout: Layout,
}

/// How records lie in a segment's file.
pub(super) enum Layout {
    /// As they were written.
    Written,
    /// By log. With where the footer is; `None` where the directory had to be made from the records.
    Grouped { groups: Groups, footer_at: Option<u32> },
}

impl SegmentFile {
    /// Opens a segment's file to read it. Of a regrouped one, the directory is read.
    pub(crate) fn open(path: PathBuf, sequence: u32, store: &StoreId) -> io::Result<Self> {
        let file = File::open(&path)?;
        let header = SegmentHeader::read(&file, &path, sequence, store).ok().flatten();
        let layout = match &header {
            Some(header) if header.grouped => grouped(&file, header, &path)?,
            _ => Layout::Written,
        };
        Ok(Self {
            sequence,
            path,
            file,
            header,
            layout,
        })
    }

    /// Whether its records lie by log.
    pub(crate) const fn is_grouped(&self) -> bool {
        matches!(self.layout, Layout::Grouped { .. })
    }

    /// The file's header, if it is whole.
    pub(super) const fn header(&self) -> Option<&SegmentHeader> {
        self.header.as_ref()
    }

    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns where consecutive entries of a log are in the file, which were written at these places. 0 for one that is
    /// not here.
    pub(crate) fn places(&self, log: &LogId, first: Offset, written: Vec<u32>) -> io::Result<Vec<u32>> {
        match &self.layout {
            Layout::Written => Ok(written),
            Layout::Grouped { groups, .. } => groups.places(&self.file, log, first, written.len()),
        }
    }

    /// Looks for an entry that is not where it should be. `None` where there is nowhere else to look.
    pub(crate) fn find(&self, log: &LogId, offset: Offset) -> io::Result<Option<u32>> {
        match &self.layout {
            Layout::Written => Ok(None),
            Layout::Grouped { groups, .. } => groups.find(&self.file, log, offset),
        }
    }

    /// The entry of a log that was written at a place, if it is whole.
    pub(crate) fn entry(&self, log: &LogId, offset: Offset, written: u32) -> io::Result<Option<Record>> {
        let length = self.file.metadata()?.len();
        let place = self.places(log, offset, vec![written])?;
        for at in place.into_iter().chain(self.find(log, offset)?) {
            let record = read_record(&self.file, at, length)?;
            let record = record.filter(|record| record.kind == KIND_ENTRY && record.offset == offset);
            if record.is_some() {
                return Ok(record);
            }
        }
        Ok(None)
    }

    /// Returns the problem of what says where a regrouped segment's records are, if there is one. Its entries are found all
    /// the same. Reads the whole file.
    pub(crate) fn directory_problem(&self) -> io::Result<Option<String>> {
        let (Layout::Grouped { groups, footer_at }, Some(header)) = (&self.layout, &self.header) else {
            return Ok(None);
        };
        let walked = Groups::walk(&self.file, &header.store)?;
        let is_whole =
            footer_at.is_some() && groups.agrees(&walked, &self.file, &header.store)? && self.footer()?.is_some();
        let problem = "its directory, a table, its footer or its trailer is damaged; its records are found without";
        Ok((!is_whole).then(|| problem.to_owned()))
    }

    /// The footer and the trailer of a sealed segment. `None` where one of them is damaged.
    pub(crate) fn footer(&self) -> io::Result<Option<(Footer, Trailer)>> {
        let Some(header) = &self.header else { return Ok(None) };
        let length = self.file.metadata()?.len();
        let Some(trailer) = Trailer::read(&self.file, length, header)? else {
            return Ok(None);
        };
        let at = match &self.layout {
            Layout::Written => trailer.footer_at,
            Layout::Grouped {
                footer_at: Some(at), ..
            } => *at,
            Layout::Grouped { footer_at: None, .. } => return Ok(None),
        };
        let footer = Footer::read(&self.file, at, length, &trailer)?;
        Ok(footer.map(|footer| (footer, trailer)))
    }
}

fn grouped(file: &File, header: &SegmentHeader, path: &std::path::Path) -> io::Result<Layout> {
    let length = file.metadata()?.len();
    if let Some(trailer) = Trailer::read(file, length, header)?
        && let Some((groups, end)) = Groups::read(file, trailer.groups_at, length)?
        && groups.written_end == trailer.footer_at
    {
        return Ok(Layout::Grouped {
            groups,
            footer_at: Some(end),
        });
    }
    tracing::error!(file = %path.display(), "the directory of a regrouped segment is damaged; it is made from the records");
    Ok(Layout::Grouped {
        groups: Groups::walk(file, &header.store)?,
        footer_at: None,
    })
}
