//! The settings of an engine.

use super::{Clock, Keep};
use std::time::Duration;

/// Settings of an engine. Every value has a default that suits a single agent on a small machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Ciphertexts are padded to a multiple of this many bytes, which hides their length. 0 disables padding.
    pub padding_bytes: usize,
    /// KeyPackages are offered when fewer than this many single-use ones are left.
    pub key_packages_low: u32,
    /// Number of single-use KeyPackages on offer after that. At most
    /// [`KEY_PACKAGES_MAX`](skytale_proto::limits::KEY_PACKAGES_MAX) less the last resort.
    pub key_packages_target: u32,
    /// Lifetime of this agent's KeyPackages, and the maximum age of another agent's KeyPackage that this agent uses.
    /// The agent replaces its own within half of the lifetime, unless that is shorter than an hour.
    pub key_package_lifetime: Duration,
    /// Maximum number of messages in one channel's outbox.
    pub outbox_messages_max: u64,
    /// Maximum bytes of payload in one channel's outbox.
    pub outbox_bytes_max: u64,
    /// Number of messages that are encrypted ahead of their delivery. Later messages are encrypted when these are
    /// delivered, so that a commit in between costs little.
    pub encrypted_ahead_max: u32,
    /// Number of rebuilds of a commit after which it fails: each time, another commit came first.
    pub commit_attempts_max: u32,
    /// Amount of acknowledged history that each channel keeps. Older messages are removed from time to time.
    pub history: Keep,
    /// Maximum number of channels whose group is kept in memory. Other groups are loaded on use.
    pub channels_loaded_max: usize,
    /// Whether this agent, when its turn comes, corrects a log's roster that a lying header has made differ from the
    /// group.
    pub correct_rosters: bool,
    /// Whether these corrections remove the members whose headers lied.
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
