//! The settings of an engine.

use super::{Clock, Keep};
use std::time::Duration;

/// How an engine behaves. Every value has a default that suits a single agent on a small machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Ciphertexts are padded to a multiple of this many bytes, so that their length says less. 0 is no padding.
    pub padding_bytes: usize,
    /// KeyPackages are offered when fewer than this many single-use ones are left.
    pub key_packages_low: u32,
    /// How many single-use KeyPackages an agent has on offer after that. At most
    /// [`KEY_PACKAGES_MAX`](skytale_proto::limits::KEY_PACKAGES_MAX) less the last resort.
    pub key_packages_target: u32,
    /// How long a KeyPackage of this agent may be used, and how old one of another may be that this agent uses. The agent
    /// replaces its own before half of it has passed, unless it is shorter than an hour.
    pub key_package_lifetime: Duration,
    /// Messages that may wait in one channel's outbox.
    pub outbox_messages_max: u64,
    /// Bytes of payload that may wait in one channel's outbox.
    pub outbox_bytes_max: u64,
    /// Messages that are encrypted ahead of their delivery. What is behind them is encrypted when they are delivered,
    /// so that a commit in between costs little.
    pub encrypted_ahead_max: u32,
    /// How often a commit is rebuilt because others came first, before it is given up.
    pub commit_attempts_max: u32,
    /// How much of each channel's history is kept, of what the application has acknowledged. Older
    /// messages are removed now and then.
    pub history: Keep,
    /// Channels whose group is kept in memory. The others are loaded when they are used.
    pub channels_loaded_max: usize,
    /// Whether this agent corrects a log's roster that a header has made another one than the group, when its turn comes.
    pub correct_rosters: bool,
    /// Whether its corrections remove the members whose headers lied.
    pub remove_liars: bool,
    /// The clock by which the age of KeyPackages is judged.
    pub clock: Clock,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            padding_bytes: 64,
            key_packages_low: 20,
            key_packages_target: 50,
            key_package_lifetime: Duration::from_secs(90 * 24 * 3_600),
            outbox_messages_max: 100_000,
            outbox_bytes_max: 256 * 1024 * 1024,
            encrypted_ahead_max: 256,
            commit_attempts_max: 128,
            history: Keep::All,
            channels_loaded_max: 256,
            correct_rosters: true,
            remove_liars: true,
            clock: Clock::default(),
        }
    }
}
