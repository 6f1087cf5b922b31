//! Whether the node can do its work, and if not, why.

use crate::node::Shared;
use crate::trust::Problem;
use serde::Serialize;
use skytale_proto::rest::ShardLag;
use std::path::Path;

/// Messages of a shard that a replica may be behind and still be taken for caught up. The relay directory sends agents
/// elsewhere above the same number.
const LAG_MAX: u64 = 10_000;

/// The body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// True where there are no reasons against it.
    pub(crate) ready: bool,
    /// Reasons why it is not ready.
    pub(crate) reasons: Vec<Reason>,
    /// Conditions that need attention, though the node does its work.
    pub(crate) remarks: Vec<Reason>,
    /// Lag of the store behind the streams that it follows, by shard; empty if it follows nothing.
    pub(crate) lag: Vec<ShardLag>,
    /// Free space where the log lies, in bytes, where that is watched.
    pub(crate) disk_free_bytes: Option<u64>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reason {
    /// Name of the check: `store`, `trust`, `disk`, `drain`, `clock`, `enrolment`, `directory` or `limits`.
    pub(crate) check: &'static str,
    /// The finding.
    pub(crate) detail: String,
}

/// Looks at everything.
pub(crate) fn report(node: &Shared) -> Report {
    let mut reasons = Vec::new();
    let mut not = |check, detail: String| reasons.push(Reason { check, detail });
    let store = node.store.readiness();
    for problem in store.problems {
        not("store", problem);
    }
    if let Some(worst) = store
        .lag
        .iter()
        .max_by_key(|lag| lag.messages)
        .filter(|lag| lag.messages > LAG_MAX)
    {
        not(
            "store",
            format!(
                "the replica is far behind: {} messages in shard {}/{}",
                worst.messages, worst.region, worst.shard
            ),
        );
    }
    // A node that may serve without the API for a while is ready meanwhile.
    let (stale, unserved) = node.trust.problems();
    if unserved {
        for problem in &stale {
            not("trust", problem.to_string());
        }
    }
    if let Some(barred) = node.trust.barred() {
        not("enrolment", barred.detail());
    }
    if let Some(problem) = node.clock.problem() {
        not("clock", problem);
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
    let twin = node.presence.twin();
    let remark = |check| move |detail| Reason { check, detail };
    let remarks = store.remarks.into_iter().map(remark("store"));
    Report {
        ready: reasons.is_empty(),
        reasons,
        remarks: remarks
            .chain(node.presence.problem().map(remark("directory")))
            .chain(twin.map(remark("enrolment")))
            .chain(stale.into_iter().filter(|_| !unserved).map(told_of_trust))
            .chain(node.trust.prefers_availability().map(remark("trust")))
            .chain(node.clock.remarks().into_iter().map(remark("clock")))
            .chain(node.limited.remarks().into_iter().map(remark("limits")))
            .collect(),
        lag: store.lag,
        disk_free_bytes,
    }
}

fn told_of_trust(problem: Problem) -> Reason {
    Reason {
        check: "trust",
        detail: problem.to_string(),
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
