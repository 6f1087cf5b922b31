//! Whether the node can do its work, and if not, why.

use crate::node::Shared;
use serde::Serialize;
use std::path::Path;

/// The body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// True where there are no reasons against it.
    pub(crate) ready: bool,
    /// Why it is not ready.
    pub(crate) reasons: Vec<Reason>,
    /// Free space where the log lies, in bytes, where that is watched.
    pub(crate) disk_free_bytes: Option<u64>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reason {
    /// What was looked at: `store`, `trust`, `disk` or `drain`.
    pub(crate) check: &'static str,
    /// What was found.
    pub(crate) detail: String,
}

/// Looks at everything.
pub(crate) fn report(node: &Shared) -> Report {
    let mut reasons = Vec::new();
    let mut not = |check, detail: String| reasons.push(Reason { check, detail });
    if let Some(why) = node.store.stopped().borrow().as_ref() {
        not("store", format!("the store takes no appends: {why}"));
    }
    for problem in node.trust.problems() {
        not("trust", problem.to_string());
    }
    if node.is_draining() {
        not("drain", "the node is about to stop".into());
    }
    let mut disk_free_bytes = None;
    if let Some(folder) = &node.config.data_dir {
        match free_bytes(folder) {
            Ok(free) => {
                disk_free_bytes = Some(free);
                let min = node.config.disk_free_bytes_min;
                if free < min {
                    not(
                        "disk",
                        format!("{free} bytes are free in {}, below {min}", folder.display()),
                    );
                }
            }
            Err(error) => not("disk", format!("{} cannot be looked at: {error}", folder.display())),
        }
    }
    Report {
        ready: reasons.is_empty(),
        reasons,
        disk_free_bytes,
    }
}

fn free_bytes(folder: &Path) -> std::io::Result<u64> {
    let status = rustix::fs::statvfs(folder)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_known_for_a_folder_that_is_there() {
        assert!(free_bytes(&std::env::temp_dir()).expect("it is there") > 0);
        assert!(free_bytes(Path::new("/no such folder")).is_err());
    }
}
