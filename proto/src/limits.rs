//! Every limit, as a named constant. Configuration may lower or raise those marked *default*;
//! the others belong to a format.

use std::time::Duration;

/// An encoded frame, in bytes (format).
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// A session message, in bytes, without its length prefix (format).
pub const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A session message before the session has started: a token and little else, in bytes (format).
pub const HELLO_BYTES_MAX: usize = 16 * 1024;
/// Maximum bytes of an Open that is no Hello: it names a log and a few numbers (format).
pub const OPEN_BYTES_MAX: usize = 1_024;
/// A token, in bytes (format).
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Scopes in one token, and channels named by one scope (format).
pub const TOKEN_SCOPES_MAX: usize = 64;
/// Agents added and removed by one commit, each (format).
pub const ROSTER_CHANGE_MAX: usize = 4_096;
/// Agents on a roster (format: the fold refuses what goes past it).
pub const ROSTER_MAX: usize = 10_000;
/// Admins that a channel's policy lists (format).
pub const ADMINS_MAX: usize = 256;
/// Stretches of a channel's log that the fold remembers as readable by agents, those who left included (format: an add
/// that goes past it is refused as a full roster; a trim makes room).
pub const ROSTER_HISTORY_MAX: usize = 100_000;
/// Live KeyPackages of one agent, last resort included (format: the fold refuses what goes past it).
pub const KEY_PACKAGES_MAX: usize = 100;
/// Unspent claims on one agent's log for which the fold remembers the package, so that a claim sent again gets the same one;
/// the oldest are forgotten first (format).
pub const CLAIMS_REMEMBERED_MAX: usize = 1_024;
/// Single-use KeyPackages of one agent that the agents of one account may hold without having added the agent with them, and
/// agents of the account that may hold its last resort so (format: past the first the last resort is given, past the
/// second the fold refuses).
pub const CLAIMS_BY_ACCOUNT_MAX: usize = 8;
/// Unspent claims on one agent's log by other accounts than its own, in all (format: the fold refuses what goes past it).
pub const CLAIMS_BY_OTHERS_MAX: usize = 256;
/// Accounts and agents that an agent may list as those who may claim its KeyPackages (format).
pub const CLAIM_RULE_MAX: usize = 256;
/// Channels whose newest Welcome an agent's log remembers after the entry was given up (format).
pub const WELCOMES_REMEMBERED_MAX: usize = 1_024;

/// Channels named by one request or event of a watch stream (format).
pub const WATCHED_AT_ONCE_MAX: usize = 4_096;

/// Append requests in flight on one connection, in bytes (default).
pub const APPEND_IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Streams open at once on one connection (default).
pub const STREAMS_MAX: u32 = 4_096;
/// Channels that one session watches at once (default).
pub const WATCHED_MAX: u32 = 32_768;
/// Records in one batch of a subscription, in bytes; one record larger than that goes alone (default).
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Frames an agent may append a second, sustained (default).
pub const FRAMES_PER_SECOND: u32 = 2_000;
/// Bytes an agent may append a second, sustained (default).
pub const BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;
/// Commits an agent may append to one channel a minute, sustained, and at once (default).
pub const COMMITS_PER_MINUTE: u32 = 60;
/// Commits all agents of an account may append to one channel a minute, in those of one agent (default).
pub const ACCOUNT_COMMITS: u32 = 5;
/// Maximum lifetime of a token (format).
pub const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(3_600);
/// Clock difference forgiven when a token's times are checked (format).
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);
/// A relay node whose clock is certainly further than this from its reference sends agents elsewhere: before it would
/// refuse their tokens.
pub const CLOCK_WRONG_BEYOND: Duration = Duration::from_secs(20);
/// It takes them again once its clock may be as near as this.
pub const CLOCK_RIGHT_WITHIN: Duration = Duration::from_secs(10);
/// Retention of entries (default).
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Silence after which each side sends a ping; twice that and the path is taken for dead (default).
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// Maximum time from a connection to its Hello (default).
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between the heartbeats of an enrolled relay node to the relay directory (default; the answer gives the
/// value in force).
pub const RELAY_HEARTBEAT: Duration = Duration::from_secs(5);
/// Heartbeats that a relay node may miss before it leaves the directory.
pub const RELAY_HEARTBEATS_MISSED_MAX: u32 = 3;
/// Relay nodes named beside a token.
pub const RELAYS_NAMED_MAX: u32 = 8;
/// Time that a revocation stays in the feed that relay nodes follow: until the last token that it ends has expired,
/// whatever clocks differ by, and ten minutes (format of a promise).
pub const REVOCATIONS_KEPT: Duration =
    Duration::from_secs(TOKEN_LIFETIME_MAX.as_secs() + 2 * CLOCK_SKEW_MAX.as_secs() + 600);
/// Maximum age of the relay's view of revocations before `/readyz` reports it (format of a promise: a revoked key ends
/// its sessions within this time).
pub const REVOCATION_WITHIN: Duration = Duration::from_secs(30);
