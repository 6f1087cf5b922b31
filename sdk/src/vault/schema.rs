//! The database's tables. Persisted: each change is a new version with its own step.

use super::VaultError;
use rusqlite::Connection;

/// The version that this crate writes.
pub(crate) const VERSION: u32 = 9;

/// The step to each version from the previous one.
const STEPS: [&str; VERSION as usize] = [V1, V2, V3, V4, V5, V6, V7, V8, V9];

/// - `message.id` is the channel's number and the offset in one integer ([`message_id`](super::message_id)), so that
///   the history of a channel is one run of the table and needs no second index.
/// - `outbox.frame` is NULL as long as the intent is not encrypted for the current handshake head.
const V1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE mls (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE channel (
    no INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    label TEXT NOT NULL,
    state INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    head INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    digest BLOB,
    encrypted_no INTEGER NOT NULL,
    accepted_no INTEGER NOT NULL,
    acked INTEGER NOT NULL,
    received INTEGER NOT NULL,
    received_acked INTEGER NOT NULL
);
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    frame_id BLOB NOT NULL,
    author BLOB NOT NULL,
    received_no INTEGER,
    sent_ms INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE outbox (
    channel INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    frame_id BLOB NOT NULL,
    sent_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    encrypted_no INTEGER NOT NULL,
    intent BLOB NOT NULL,
    frame BLOB,
    UNIQUE (channel, seq)
);
CREATE INDEX outbox_frame_id ON outbox (channel, frame_id);
CREATE TABLE failed (
    channel INTEGER NOT NULL,
    frame_id BLOB NOT NULL,
    code INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    intent BLOB NOT NULL,
    UNIQUE (channel, frame_id)
);
CREATE TABLE unreadable (
    channel INTEGER NOT NULL,
    at INTEGER NOT NULL,
    frame_id BLOB,
    reason TEXT NOT NULL,
    PRIMARY KEY (channel, at)
) WITHOUT ROWID;
CREATE TABLE digest (
    channel INTEGER NOT NULL,
    last INTEGER NOT NULL,
    first INTEGER NOT NULL,
    hashes BLOB NOT NULL,
    UNIQUE (channel, last)
);
CREATE TABLE divergence (
    channel INTEGER NOT NULL,
    author BLOB NOT NULL,
    at INTEGER NOT NULL,
    ours BLOB,
    theirs BLOB NOT NULL,
    PRIMARY KEY (channel, author)
) WITHOUT ROWID;
CREATE TABLE pending_join (
    no INTEGER PRIMARY KEY,
    channel BLOB NOT NULL,
    at INTEGER NOT NULL,
    UNIQUE (channel, at)
);
CREATE TABLE key_package (
    frame_id BLOB PRIMARY KEY,
    reference BLOB NOT NULL,
    made_ms INTEGER NOT NULL,
    last_resort INTEGER NOT NULL,
    frame BLOB
) WITHOUT ROWID;
";

/// - The last refusal of an intent by a relay node, and the number of refusals.
/// - Own messages are found by their frame's id.
const V2: &str = "
ALTER TABLE outbox ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN refused_code INTEGER;
ALTER TABLE outbox ADD COLUMN refused_ms INTEGER;
CREATE INDEX message_own ON message (frame_id) WHERE received_no IS NULL;
";

/// - Hashes of an intent's frames that were encrypted again, 32 bytes each: the log may have one of those.
const V3: &str = "
ALTER TABLE outbox ADD COLUMN earlier BLOB;
";

/// - A channel's standing with its group (`standing`: see `Standing`), and the progress of its recovery.
/// - `reboot` is the number of the group in the channel; `removed` lists agents, 32 bytes each.
/// - Entries that were lost, and members' requests to rejoin.
/// - The digest leaves Trims out since this version: those kept before are of another kind.
/// - Values of groups are sealed, in the table that they are in. A version that knows no seals would break them.
/// - The time of a failure. NULL if an earlier version did not store it.
/// - Evidence that a channel's log went back. Once that was accepted (`settled`): the offset, the messages replaced by
///   other entries (`replaced`), and the undone changes of the group (`undone`), as recorded in `change` and `leaving`.
///   `purged` has ids of messages that were purged from the history, for as long as their entries' digests are kept.
///   `applied_hash` is the hash of the last commit that the group applied.
/// - Additions that wait until the agent to be added has KeyPackages.
/// - The expiry of a KeyPackage, and its offset in the agent's log: NULL if unknown.
const V4: &str = "
ALTER TABLE channel ADD COLUMN reboot INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN standing INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE channel ADD COLUMN missed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN unsure INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN doubted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN joined INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN applied INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN removed BLOB NOT NULL DEFAULT x'';
ALTER TABLE channel ADD COLUMN applied_hash BLOB;
UPDATE channel SET applied = head;
UPDATE channel SET digest = NULL;
DELETE FROM digest;
CREATE TABLE lost (
    channel INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    PRIMARY KEY (channel, first)
) WITHOUT ROWID;
CREATE TABLE rollback (channel INTEGER PRIMARY KEY, kept INTEGER NOT NULL, cursor INTEGER NOT NULL);
CREATE TABLE settled (
    channel INTEGER NOT NULL,
    word_ms INTEGER NOT NULL,
    word_head INTEGER NOT NULL,
    settled_ms INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    PRIMARY KEY (channel, word_ms)
) WITHOUT ROWID;
CREATE TABLE replaced (
    channel INTEGER NOT NULL,
    frame_id BLOB NOT NULL,
    at INTEGER NOT NULL,
    author BLOB NOT NULL,
    own INTEGER NOT NULL,
    acked INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (channel, frame_id)
);
CREATE TABLE change (
    channel INTEGER NOT NULL,
    at INTEGER NOT NULL,
    agent BLOB NOT NULL,
    added INTEGER NOT NULL,
    PRIMARY KEY (channel, at, agent)
) WITHOUT ROWID;
CREATE TABLE leaving (
    channel INTEGER NOT NULL,
    agent BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (channel, agent)
) WITHOUT ROWID;
CREATE TABLE purged (
    channel INTEGER NOT NULL,
    at INTEGER NOT NULL,
    frame_id BLOB NOT NULL,
    PRIMARY KEY (channel, at)
) WITHOUT ROWID;
CREATE TABLE undone (
    channel INTEGER NOT NULL,
    agent BLOB NOT NULL,
    added INTEGER NOT NULL,
    PRIMARY KEY (channel, agent)
) WITHOUT ROWID;
CREATE TABLE rejoin (
    channel INTEGER NOT NULL,
    agent BLOB NOT NULL,
    at INTEGER NOT NULL,
    key_package BLOB NOT NULL,
    applied INTEGER NOT NULL,
    refused BLOB NOT NULL,
    PRIMARY KEY (channel, agent)
) WITHOUT ROWID;
ALTER TABLE failed ADD COLUMN failed_ms INTEGER;
ALTER TABLE key_package ADD COLUMN expires_ms INTEGER;
ALTER TABLE key_package ADD COLUMN at INTEGER;
CREATE TABLE deferred (
    channel INTEGER NOT NULL,
    agent BLOB NOT NULL,
    since_ms INTEGER NOT NULL,
    refused_code INTEGER,
    refused_ms INTEGER,
    PRIMARY KEY (channel, agent)
) WITHOUT ROWID;
";

/// - Names that this agent gives to other agents.
/// - Ids that the application gave to messages, so that sending one again refers to the same message (`once`).
const V5: &str = "
CREATE TABLE contact (name TEXT PRIMARY KEY, agent BLOB NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE once (
    channel INTEGER NOT NULL,
    id TEXT NOT NULL,
    frame_id BLOB NOT NULL,
    PRIMARY KEY (channel, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX once_frame_id ON once (channel, frame_id);
";

/// - Properties of messages. NULL if there are none.
/// - The decision about a Welcome (see `Decision`), and the Welcome's author.
/// - Channels that were declined, and that the agent is leaving.
/// - The accounts of agents that claimed KeyPackages.
/// - Evidence that a channel's roster differs from the group's membership. See `Drift`.
const V6: &str = "
ALTER TABLE message ADD COLUMN properties BLOB;
ALTER TABLE outbox ADD COLUMN properties BLOB;
ALTER TABLE failed ADD COLUMN properties BLOB;
ALTER TABLE replaced ADD COLUMN properties BLOB;
ALTER TABLE pending_join ADD COLUMN decision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pending_join ADD COLUMN adder BLOB;
ALTER TABLE pending_join ADD COLUMN account BLOB;
ALTER TABLE pending_join ADD COLUMN members INTEGER;
ALTER TABLE pending_join ADD COLUMN held_ms INTEGER NOT NULL DEFAULT 0;
CREATE TABLE declined (channel INTEGER PRIMARY KEY);
CREATE TABLE claimer (agent BLOB PRIMARY KEY, account BLOB NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
ALTER TABLE channel ADD COLUMN drift BLOB NOT NULL DEFAULT x'';
";

/// - The time since which an addition that holds back messages has been refused for a reason of its agent. NULL if it
///   was not. The outbox has a kind of intents (13) that earlier versions do not know.
/// - Channels that this agent was added to and that the application has not accepted. Earlier ones without a label
///   count as such; channels that the agent itself created begin at the first entry.
/// - The cause why an entry is unreadable, as a number (see `UnreadableCause`): 0 for entries recorded by earlier
///   versions.
const V7: &str = "
ALTER TABLE deferred ADD COLUMN held_ms INTEGER;
ALTER TABLE unreadable ADD COLUMN cause INTEGER NOT NULL DEFAULT 0;
CREATE TABLE invitation (
    channel INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    adder BLOB,
    since_ms INTEGER NOT NULL
);
INSERT INTO invitation (channel, at, since_ms)
    SELECT no, joined, 0 FROM channel
    WHERE label = '' AND state IN (2, 3) AND joined > 1 AND no NOT IN (SELECT channel FROM declined);
";

/// - Items of the outbox by their kind, except messages (2), of which there may be very many.
/// - Channels by their label.
/// - The number of messages in each channel's history (`kept`).
const V8: &str = "
CREATE INDEX outbox_change ON outbox (channel, kind, seq) WHERE kind <> 2;
CREATE INDEX channel_label ON channel (label);
ALTER TABLE channel ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
UPDATE channel SET kept = (SELECT count(*) FROM message WHERE id > (no << 40) AND id < ((no + 1) << 40));
";

/// - Time since which this agent is leaving a declined channel, unix milliseconds; 0 until it is first looked at.
const V9: &str = "
ALTER TABLE declined ADD COLUMN since_ms INTEGER NOT NULL DEFAULT 0;
";

/// Refuses a database that is not a vault, or is of a newer version.
pub(super) fn refuse_foreign(connection: &Connection) -> Result<(), VaultError> {
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        0 => Err(VaultError::damaged("no vault is in the file")),
        1..=VERSION => Ok(()),
        _ => Err(VaultError::Version { found, known: VERSION }),
    }
}

/// Refuses a vault that cannot be used without a migration to [`VERSION`].
pub(super) fn refuse_other(connection: &Connection) -> Result<(), VaultError> {
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found == VERSION {
        true => Ok(()),
        false => Err(VaultError::Version { found, known: VERSION }),
    }
}

/// Migrates the tables to [`VERSION`]; refuses a newer vault.
pub(crate) fn migrate(connection: &Connection) -> Result<(), VaultError> {
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > VERSION {
        return Err(VaultError::Version { found, known: VERSION });
    }
    for (version, step) in (1..).zip(STEPS).skip(found as usize) {
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}
