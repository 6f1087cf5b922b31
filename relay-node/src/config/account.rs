//! Default limits of one account.

use super::LimitsConfig;
use skytale_proto::limits;

/// Connections of one network that have not said Hello, where nothing else is set: enough for many agents behind one address.
pub const ADDRESS_CONNECTIONS_MAX: u32 = 256;

/// An account's rates, in those of one agent, where nothing else is set.
const ACCOUNT_RATES: u32 = 4;

/// Sessions of an account, at least, where nothing else is set: a node with few places is one account's.
const ACCOUNT_CONNECTIONS_MIN: u32 = 64;

/// Streams of an account, for each of its sessions, where nothing else is set.
const ACCOUNT_STREAMS: u32 = 16;

/// Channels that an account watches, for each of its sessions, where nothing else is set.
const ACCOUNT_WATCHED: u32 = 100;

impl LimitsConfig {
    /// Frames that an account may append a second.
    pub(crate) fn account_frames_per_second(&self) -> u32 {
        let default = self.frames_per_second.saturating_mul(ACCOUNT_RATES);
        self.account_frames_per_second.unwrap_or(default)
    }

    /// Bytes that an account may append a second.
    pub(crate) fn account_bytes_per_second(&self) -> u64 {
        let default = self.bytes_per_second.saturating_mul(ACCOUNT_RATES.into());
        self.account_bytes_per_second.unwrap_or(default)
    }

    /// Commits that an account may append to one channel a minute.
    pub(crate) fn account_commits_per_minute(&self) -> u32 {
        let default = self.commits_per_minute.saturating_mul(limits::ACCOUNT_COMMITS);
        self.account_commits_per_minute.unwrap_or(default)
    }

    /// Sessions of an account at once.
    pub(crate) fn account_connections_max(&self) -> usize {
        let default = (self.connections_max / 2).max(ACCOUNT_CONNECTIONS_MIN);
        self.account_connections_max.unwrap_or(default) as usize
    }

    /// Streams of an account at once: as many as one session may have, at least.
    pub(crate) fn account_streams_max(&self) -> usize {
        let default = self.of_sessions(ACCOUNT_STREAMS).max(self.streams_max as usize);
        self.account_streams_max.map_or(default, |streams| streams as usize)
    }

    /// Channels that an account watches at once: as many as one session may watch, at least.
    pub(crate) fn account_watched_max(&self) -> usize {
        let default = self.of_sessions(ACCOUNT_WATCHED).max(self.watched_max as usize);
        self.account_watched_max.map_or(default, |channels| channels as usize)
    }

    fn of_sessions(&self, each: u32) -> usize {
        self.account_connections_max().saturating_mul(each as usize)
    }

    /// Requests of an account, in bytes. The largest one always fits, and another one beside it.
    pub(crate) fn account_receive_bytes_max(&self) -> usize {
        let default = (self.receive_bytes_max / 2).max(2 * limits::MESSAGE_BYTES_MAX);
        self.account_receive_bytes_max.unwrap_or(default)
    }
}
