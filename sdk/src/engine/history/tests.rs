use super::*;
use crate::engine::EngineConfig;
use crate::engine::costs::steps;
use crate::vault::VaultKey;
use std::path::{Path, PathBuf};

const MARKER: &[u8] = b"a-plaintext-that-is-to-be-gone";
/// Number of acknowledged messages: the first half.
const ACKED: u64 = 500;
const MESSAGES: u64 = 1_000;

fn open(path: &Path, history: Keep) -> Engine {
    let config = EngineConfig {
        history,
        ..EngineConfig::default()
    };
    Engine::open(path, VaultKey::raw([1; 32]), config).expect("opens")
}

/// Creates a vault with a channel of that many messages of another agent, one per entry, and an item in the outbox.
fn vault() -> (tempfile::TempDir, PathBuf, ChannelId) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vault.db");
    let mut engine = open(&path, Keep::All);
    let channel = engine.create_channel("test").expect("made");
    let sql = engine.vault.sql();
    let transaction = sql.unchecked_transaction().expect("begun");
    for number in 1..=MESSAGES {
        let payload = [MARKER, &number.to_be_bytes(), &[0; 2_000]].concat();
        let id = message_id(1, Offset::new(number)).expect("in range");
        sql.execute(
            "INSERT INTO message (id, frame_id, author, received_no, sent_ms, time_ms, payload)
             VALUES (?1, zeroblob(16), zeroblob(32), ?2, 0, ?3, ?4)",
            params![id, number as i64, now_ms() as i64 - 1_000, payload],
        )
        .expect("written");
    }
    sql.execute(
        "UPDATE channel SET cursor = ?1, received = ?1, kept = ?1, acked = ?2, received_acked = ?2",
        [MESSAGES as i64, ACKED as i64],
    )
    .expect("written");
    // The position is no longer the sealed one.
    sql.execute("DELETE FROM mls WHERE substr(key, 1, 1) = x'13'", [])
        .expect("deleted");
    transaction.commit().expect("committed");
    (folder, path, channel)
}

fn purge(engine: &mut Engine, channel: ChannelId, keep: Keep) -> Purged {
    let before = engine.first_kept(channel, keep).expect("known");
    let mut all = Purged::default();
    loop {
        let piece = engine.purge(channel, before, 64).expect("purged");
        all = Purged {
            messages: all.messages + piece.messages,
            bytes: all.bytes + piece.bytes,
            ..piece
        };
        if !piece.more {
            return all;
        }
    }
}

fn kept(engine: &Engine, channel: ChannelId) -> Vec<u64> {
    let messages = engine.history(channel, Offset::ZERO, u32::MAX).expect("readable");
    messages.iter().map(|message| message.offset.get()).collect()
}

/// Returns how often the marker is in the decrypted database, including free pages.
fn markers(engine: &Engine) -> usize {
    let image = engine.vault.sql().serialize("main").expect("an image");
    assert!(image.starts_with(b"SQLite format 3\0"), "decrypted");
    image.windows(MARKER.len()).filter(|window| *window == MARKER).count()
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).expect("there").len()
}

fn log_length(path: &Path) -> u64 {
    length(&path.with_file_name("vault.db-wal"))
}

#[test]
fn what_is_purged_is_gone_from_the_files_and_they_get_smaller() {
    for made_before in [false, true] {
        let (_folder, path, channel) = vault();
        let mut engine = open(&path, Keep::All);
        if made_before {
            // Like a version that did not set the mode for freeing pages.
            let sql = engine.vault.sql();
            sql.execute_batch("PRAGMA auto_vacuum = NONE; VACUUM;").expect("done");
            assert_eq!(sql.query_row("PRAGMA auto_vacuum", [], |row| row.get(0)), Ok(0));
        }
        while engine.compact().expect("compacted") {}
        assert_eq!(markers(&engine) as u64, MESSAGES);
        let before = length(&path);
        let purged = purge(&mut engine, channel, Keep::From(Offset::new(ACKED + 1)));
        let bytes = ACKED * (MARKER.len() + 8 + 2_000) as u64;
        assert_eq!((purged.messages, purged.bytes, purged.unacked), (ACKED, bytes, 0));
        assert_eq!(markers(&engine) as u64, MESSAGES - ACKED, "overwritten at once");
        assert!(log_length(&path) > 0, "the log still has the pages as they were");
        let mut rounds = 0;
        while engine.compact().expect("compacted") {
            rounds += 1;
            assert!(rounds < 100, "compacting comes to an end");
        }
        assert_eq!(log_length(&path), 0);
        assert!(length(&path) < before * 6 / 10, "{} of {before} bytes", length(&path));
        assert_eq!(kept(&engine, channel), (ACKED + 1..=MESSAGES).collect::<Vec<_>>());
        drop(engine);
        let engine = open(&path, Keep::All);
        assert_eq!(markers(&engine) as u64, MESSAGES - ACKED);
        assert_eq!(kept(&engine, channel).len() as u64, MESSAGES - ACKED);
        let sound: String = engine
            .vault
            .sql()
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .expect("checked");
        assert_eq!(sound, "ok");
    }
}

#[test]
fn what_was_not_acknowledged_stays_whatever_is_asked_for() {
    for keep in [
        Keep::Newest(0),
        Keep::Newest(10),
        Keep::Younger(Duration::ZERO),
        Keep::From(Offset::MAX),
    ] {
        let (_folder, path, channel) = vault();
        let mut engine = open(&path, Keep::All);
        let info = engine.channel(channel).expect("known");
        let purged = purge(&mut engine, channel, keep);
        assert_eq!(purged.messages, ACKED, "{keep:?}");
        let spared = if keep == Keep::Newest(10) { 10 } else { 0 };
        assert_eq!(purged.unacked, MESSAGES - ACKED - spared, "{keep:?}");
        assert_eq!(
            engine.inbox(channel, Offset::ZERO, u32::MAX).expect("readable").len() as u64,
            MESSAGES - ACKED
        );
        assert_eq!(
            engine.channel(channel).expect("known"),
            info,
            "the cursor and the outbox are as they were"
        );
        // Once they are acknowledged they go, too.
        engine.ack(channel, Offset::MAX).expect("acked");
        let _ = purge(&mut engine, channel, keep);
        assert_eq!(kept(&engine, channel).len() as u64, spared, "{keep:?}");
    }
}

#[test]
fn each_way_to_keep_keeps_what_it_says() {
    let (_folder, path, channel) = vault();
    let mut engine = open(&path, Keep::All);
    engine.ack(channel, Offset::MAX).expect("acked");
    for keep in [
        Keep::All,
        Keep::Newest(MESSAGES),
        Keep::Younger(Duration::from_secs(3_600)),
        Keep::From(Offset::ZERO),
    ] {
        assert_eq!(purge(&mut engine, channel, keep), Purged::default(), "{keep:?}");
    }
    let _ = purge(&mut engine, channel, Keep::From(Offset::new(100)));
    assert_eq!(kept(&engine, channel).first(), Some(&100));
    let _ = purge(&mut engine, channel, Keep::Newest(50));
    assert_eq!(kept(&engine, channel), (MESSAGES - 49..=MESSAGES).collect::<Vec<_>>());
    let _ = purge(&mut engine, channel, Keep::Younger(Duration::from_millis(1)));
    assert!(kept(&engine, channel).is_empty());
}

#[test]
fn the_setting_is_held_to_in_small_pieces_and_the_file_comes_down() {
    let (_folder, path, channel) = vault();
    let mut engine = open(&path, Keep::All);
    assert!(!engine.retain(64).expect("nothing to do"));
    assert_eq!(kept(&engine, channel).len() as u64, MESSAGES);
    while engine.compact().expect("compacted") {}
    let before = length(&path);
    drop(engine);

    let mut engine = open(&path, Keep::Newest(600));
    let mut pieces = 0;
    while engine.retain(64).expect("tidied") {
        pieces += 1;
        assert!(pieces < 100);
    }
    assert_eq!(kept(&engine, channel), (MESSAGES - 599..=MESSAGES).collect::<Vec<_>>());
    assert!(pieces >= 400 / 64);
    assert_eq!(log_length(&path), 0);
    assert!(length(&path) < before * 8 / 10);
    assert_eq!(markers(&engine), 600);
    // Nothing has happened since: nothing is looked at.
    assert!(!engine.retain(64).expect("nothing to do"));

    drop(engine);
    let mut engine = open(&path, Keep::Younger(Duration::from_millis(1)));
    while engine.retain(64).expect("tidied") {}
    assert_eq!(
        kept(&engine, channel).first(),
        Some(&(ACKED + 1)),
        "the rest is not acknowledged"
    );
    engine.ack(channel, Offset::MAX).expect("acked");
    while engine.retain(64).expect("tidied") {}
    assert!(kept(&engine, channel).is_empty());
    assert_eq!(markers(&engine), 0);
}

/// A vault with a channel of that many small messages of another agent, of which so many are acknowledged.
fn small(messages: u64, acked: u64, keep: Keep) -> (tempfile::TempDir, Engine, ChannelId) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = open(&folder.path().join("vault.db"), Keep::All);
    let channel = engine.create_channel("test").expect("made");
    let fill = format!(
        "BEGIN;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {messages})
             INSERT INTO message (id, frame_id, author, received_no, sent_ms, time_ms, payload)
             SELECT (1 << 40) + i, zeroblob(16), zeroblob(32), i, 0, i, zeroblob(20) FROM n;
         UPDATE channel SET cursor = {messages}, received = {messages}, kept = {messages},
                            acked = {acked}, received_acked = {acked};
         DELETE FROM mls WHERE substr(key, 1, 1) = x'13';
         COMMIT;"
    );
    engine.vault.sql().execute_batch(&fill).expect("filled");
    drop(engine);
    let engine = open(&folder.path().join("vault.db"), keep);
    (folder, engine, channel)
}

#[test]
fn a_purge_reads_what_it_deletes_and_not_what_it_keeps() {
    let cost = |messages: u64| {
        let (_folder, mut engine, channel) = small(messages, messages, Keep::All);
        let (found, before) = steps(&mut engine, |engine| {
            let keep = Keep::Newest(messages - 10);
            engine.first_kept(channel, keep).expect("known")
        });
        assert_eq!(before, Offset::new(11));
        let (purged, done) = steps(&mut engine, |engine| {
            engine.purge(channel, before, 256).expect("purged")
        });
        assert_eq!((done.messages, done.more), (10, false));
        [found, purged]
    };
    let (few, many) = (cost(500), cost(20_000));
    for (few, many) in few.into_iter().zip(many) {
        assert!(many <= few + few / 4 + 8, "{many} steps, and {few} with few");
    }
}

#[test]
fn a_setting_for_histories_does_not_read_what_is_not_acknowledged() {
    for keep in [Keep::Newest(10), Keep::Younger(Duration::from_secs(60))] {
        let cost = |messages: u64| {
            let (_folder, mut engine, channel) = small(messages, 20, keep);
            let (cost, ()) = steps(&mut engine, |engine| while engine.retain(256).expect("tidied") {});
            assert_eq!(kept(&engine, channel).first(), Some(&21));
            cost
        };
        let (few, many) = (cost(500), cost(20_000));
        assert!(many <= few + few / 4 + 8, "{keep:?}: {many} steps, and {few} with few");
    }
}

#[test]
fn the_number_of_kept_messages_is_as_many_as_there_are() {
    let (_folder, mut engine, channel) = small(500, 300, Keep::All);
    let counted = |engine: &Engine| {
        let (position, no) = one(engine.vault.sql(), channel).expect("known");
        let there: u64 = engine
            .vault
            .sql()
            .query_row("SELECT count(*) FROM message WHERE id >> 40 = ?1", [no], |row| {
                row.get(0)
            })
            .expect("counted");
        assert_eq!(position.kept, there);
        there
    };
    assert_eq!(counted(&engine), 500);
    engine.members(channel).expect("loaded");
    let _ = purge(&mut engine, channel, Keep::Newest(350));
    assert_eq!(counted(&engine), 350);
    // The loaded channel knows it, too.
    engine.ack(channel, Offset::new(400)).expect("acked");
    assert_eq!(counted(&engine), 350);
    let _ = purge(&mut engine, channel, Keep::From(Offset::MAX));
    assert_eq!(counted(&engine), 100);
}
