//! Planned failures of a store's files: for tests that cannot have a disk of their own.

use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::sync::Arc;

/// The error of a step that ends the process.
const CRASH: i32 = i32::MIN;

/// Request to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskStep {
    /// Half of a batch was written, and the other half is to be.
    Batch,
    /// A batch is to be synced.
    Sync,
    /// A segment's space is to be reserved.
    Reserve,
    /// A segment's footer is to be written.
    Seal,
    /// A new segment's header is to be written.
    Begin,
    /// Rows are to be put into the index on the disk.
    Index,
    /// A regrouped segment is written in part.
    Regroup,
    /// A regrouped segment is to be synced.
    RegroupSync,
    /// A regrouped segment is durable, and is to get its name.
    RegroupSwitch,
    /// A regrouped segment has its name, and that is to be made durable.
    RegroupSwitched,
}

/// Planned failures of a store's files. Clones share it. Empty, and without cost, outside of tests.
#[derive(Clone, Default)]
pub struct DiskFaults {
    planned: Option<Arc<Mutex<Planned>>>,
}

#[derive(Default)]
struct Planned {
    faults: Vec<(DiskStep, i32, u32)>,
    free_bytes: Option<u64>,
}

impl DiskFaults {
    /// Faults that can be planned.
    #[cfg(feature = "faulty")]
    pub fn on_demand() -> Self {
        Self {
            planned: Some(Arc::default()),
        }
    }

    /// Fails the next `times` of a step with an error of the system.
    #[cfg(feature = "faulty")]
    pub fn fail(&self, step: DiskStep, error: i32, times: u32) {
        if let Some(planned) = &self.planned {
            let mut planned = planned.lock();
            planned.faults.retain(|(known, ..)| *known != step);
            planned.faults.push((step, error, times));
        }
    }

    /// Ends the process, as a crash does, when a step is due.
    #[cfg(feature = "faulty")]
    pub fn crash(&self, step: DiskStep) {
        self.fail(step, CRASH, 1);
    }

    /// Says how many bytes are free, whatever the disk says; `None` asks the disk again.
    #[cfg(feature = "faulty")]
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        if let Some(planned) = &self.planned {
            planned.lock().free_bytes = bytes;
        }
    }

    /// Fails where a fault is due.
    pub(crate) fn check(&self, step: DiskStep) -> io::Result<()> {
        let Some(planned) = &self.planned else { return Ok(()) };
        let mut planned = planned.lock();
        let due = |(due, _, times): &&mut (DiskStep, i32, u32)| *due == step && *times > 0;
        match planned.faults.iter_mut().find(due) {
            Some((_, CRASH, _)) => std::process::abort(),
            Some((_, error, times)) => {
                *times -= 1;
                Err(io::Error::from_raw_os_error(*error))
            }
            None => Ok(()),
        }
    }

    /// Returns the planned number of free bytes, if there is one.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        self.planned.as_ref()?.lock().free_bytes
    }

    /// Whether anything can be planned.
    pub(crate) const fn is_some(&self) -> bool {
        self.planned.is_some()
    }
}

impl PartialEq for DiskFaults {
    fn eq(&self, other: &Self) -> bool {
        match (&self.planned, &other.planned) {
            (Some(one), Some(another)) => Arc::ptr_eq(one, another),
            (one, another) => one.is_none() && another.is_none(),
        }
    }
}

impl Eq for DiskFaults {}

impl fmt::Debug for DiskFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_some() { "on demand" } else { "none" })
    }
}
