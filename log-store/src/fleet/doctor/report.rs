//! Result of an examination. The shapes are what `skytale fleet doctor --json` prints: fields may be added.

use serde::Serialize;

/// Names of all checks, as they are in [`Finding::check`]. Stable.
pub const CHECKS: &[&str] = &[
    "address-silent",
    "key-refused",
    "servers-unknown",
    "server-silent",
    "no-majority",
    "server-version",
    "versions-differ",
    "max-payload",
    "jetstream-disabled",
    "sync-interval",
    "store-full",
    "clock",
    "meta-leader",
    "meta-quorum",
    "stream-silent",
    "stream-missing",
    "stream-settings",
    "stream-leader",
    "stream-placement",
    "replicas-fewer",
    "copy-missing",
    "copy-behind",
    "mirror-missing",
    "mirror-behind",
    "checkpoints-missing",
    "rights",
    "unpurged",
    "checkpoint-doubtful",
    "checkpoint-unattested",
];

/// Result of an examination.
#[derive(Clone, Debug, Serialize)]
pub struct Examination {
    /// Nothing was found.
    pub ok: bool,
    /// Findings, the worst first.
    pub findings: Vec<Finding>,
    /// The servers that are known.
    pub servers: Vec<ServerReport>,
    /// The streams of the fleet: logs, mirrors, checkpoints.
    pub streams: Vec<StreamReport>,
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Agents notice it, or a crash now could lose acknowledged entries.
    Critical,
    /// Agents notice nothing. One more fault would be critical.
    Warning,
    /// It could not be checked.
    Unknown,
}

impl Severity {
    /// Returns its printed name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Severity.
    pub severity: Severity,
    /// Check that found it: one of [`CHECKS`].
    pub check: &'static str,
    /// The servers or streams that it is about.
    pub subject: String,
    /// The finding.
    pub found: String,
    /// Its meaning for agents.
    pub means: String,
    /// Steps to fix it, in order: commands, or steps on the server's machine.
    pub mend: Vec<String>,
}

/// One server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerReport {
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: Option<String>,
    /// It answers.
    pub answers: bool,
    /// Its version.
    pub version: Option<String>,
    /// JetStream is enabled there; `None` where that is unknown.
    pub jetstream: Option<bool>,
    /// `sync_interval` is `always`; `None` where that is unknown.
    pub sync_always: Option<bool>,
    /// Bytes that its streams take.
    pub stored_bytes: Option<u64>,
    /// Bytes that they may take: `max_file`.
    pub stored_bytes_max: Option<u64>,
    /// Offset of its clock from this machine's, in milliseconds, positive if it is ahead.
    pub clock_ahead_ms: Option<i64>,
    /// It leads JetStream's meta group.
    pub leads_meta: Option<bool>,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// Its name.
    pub name: String,
    /// `log`, `mirror` or `checkpoints`.
    pub kind: &'static str,
    /// `there`, `missing` or `silent`.
    pub state: &'static str,
    /// The server that leads it.
    pub leader: Option<String>,
    /// The servers of its other copies.
    pub copies: Vec<String>,
    /// Its last sequence.
    pub last: Option<u64>,
}
