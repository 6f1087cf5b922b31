use super::*;
use skytale_proto::Code;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

mod copies;
mod disk;
mod full;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vault.db");
    (folder, path)
}

fn raw(byte: u8) -> VaultKey {
    VaultKey::raw([byte; 32])
}

fn code(result: Result<Vault, VaultError>) -> Code {
    result.map(|_| ()).expect_err("must be refused").code()
}

#[test]
fn the_file_is_not_sqlite_to_a_reader_and_holds_no_plaintext() {
    let (folder, path) = folder();
    let marker = b"a-marker-that-nobody-may-read";
    {
        let vault = Vault::open(&path, &raw(1)).expect("opens");
        vault
            .sql()
            .execute("INSERT INTO meta VALUES ('marker', ?1)", [marker.as_slice()])
            .expect("written");
    }
    let mut files = 0;
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("readable");
        assert!(!bytes.starts_with(b"SQLite format 3\0"));
        assert!(!bytes.windows(marker.len()).any(|window| window == marker));
        files += 1;
    }
    assert!(files >= 2);
    assert!(std::fs::metadata(&path).expect("a vault").len() > 4_096);
    let mode = std::fs::metadata(&path).expect("a vault").permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[test]
fn a_wrong_key_is_refused_and_harms_nothing() {
    let (_folder, path) = folder();
    let secret = Vault::open(&path, &raw(1))
        .and_then(|vault| vault.secret("identity"))
        .expect("made");
    assert_eq!(code(Vault::open(&path, &raw(2))), Code::VaultKey);
    let again = Vault::open(&path, &raw(1))
        .and_then(|vault| vault.secret("identity"))
        .expect("kept");
    assert_eq!(secret, again);
}

#[test]
fn a_plain_sqlite_file_is_refused() {
    let (_folder, path) = folder();
    let plain = Connection::open(&path).expect("plain");
    plain
        .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1);")
        .expect("written");
    drop(plain);
    assert!(
        std::fs::read(&path)
            .expect("readable")
            .starts_with(b"SQLite format 3\0")
    );
    assert_eq!(code(Vault::open(&path, &raw(1))), Code::VaultKey);
}

#[test]
fn a_second_open_is_refused_while_the_first_lasts() {
    let (_folder, path) = folder();
    let first = Vault::open(&path, &raw(1)).expect("opens");
    assert_eq!(code(Vault::open(&path, &raw(1))), Code::VaultInUse);
    drop(first);
    Vault::open(&path, &raw(1)).expect("opens again");
}

#[test]
fn a_vault_of_a_newer_version_is_refused() {
    let (_folder, path) = folder();
    Vault::open(&path, &raw(1))
        .expect("opens")
        .sql()
        .pragma_update(None, "user_version", schema::VERSION + 1)
        .expect("written");
    assert_eq!(code(Vault::open(&path, &raw(1))), Code::VaultVersion);
}

#[test]
fn a_passphrase_opens_what_it_made_and_needs_its_parameters() {
    let (_folder, path) = folder();
    let key = VaultKey::passphrase("correct horse");
    let secret = Vault::open(&path, &key)
        .and_then(|vault| vault.secret("identity"))
        .expect("made");
    let again = Vault::open(&path, &key)
        .and_then(|vault| vault.secret("identity"))
        .expect("kept");
    assert_eq!(secret, again);
    let wrong = VaultKey::passphrase("incorrect horse");
    assert_eq!(code(Vault::open(&path, &wrong)), Code::VaultKey);
    std::fs::remove_file(key::beside(&path, "kdf")).expect("removed");
    assert_eq!(code(Vault::open(&path, &key)), Code::VaultKey);
}

#[test]
fn a_key_file_is_made_for_its_owner_alone_and_refused_when_others_may_read_it() {
    let (folder, path) = folder();
    let file = folder.path().join("vault.key");
    let key = VaultKey::file(&file);
    let secret = Vault::open(&path, &key)
        .and_then(|vault| vault.secret("identity"))
        .expect("made");
    let again = Vault::open(&path, &key)
        .and_then(|vault| vault.secret("identity"))
        .expect("kept");
    assert_eq!(secret, again);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("set");
    assert_eq!(code(Vault::open(&path, &key)), Code::VaultKey);
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(code(Vault::open(&path, &key)), Code::VaultKey);
}

#[test]
fn keys_are_not_printed() {
    let printed = format!("{:?} {:?}", raw(0xab), VaultKey::passphrase("correct horse"));
    assert!(!printed.contains("horse") && !printed.contains("171"));
}

#[test]
fn a_message_id_is_its_channel_and_offset() {
    let id = message_id(7, Offset::new(12)).expect("in range");
    assert_eq!(message_offset(id), Offset::new(12));
    assert!(id > message_id(6, Offset::new(u64::from(u32::MAX))).expect("in range"));
    assert!(message_id(1, Offset::new(1 << 40)).is_err());
}

#[test]
fn a_transaction_is_synced_unless_it_can_be_had_again() {
    let (_folder, path) = folder();
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    let setting = || -> i64 {
        let read = vault.sql().query_row("PRAGMA synchronous", [], |row| row.get(0));
        read.expect("known")
    };
    for (durability, number) in [(Durability::Now, 2), (Durability::Later, 1), (Durability::Now, 2)] {
        let transaction = vault.begin(durability).expect("begun");
        assert_eq!(setting(), number);
        transaction.commit().expect("committed");
    }
}

#[test]
fn a_vault_of_an_older_version_is_brought_up_with_what_it_holds() {
    let (_folder, path) = folder();
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    // As the first version left it.
    vault
        .sql()
        .execute_batch(
            "DROP INDEX outbox_change;
             DROP INDEX channel_label;
             ALTER TABLE channel DROP COLUMN kept;
             DROP TABLE declined;
             DROP TABLE claimer;
             ALTER TABLE pending_join DROP COLUMN decision;
             ALTER TABLE pending_join DROP COLUMN adder;
             ALTER TABLE pending_join DROP COLUMN account;
             ALTER TABLE pending_join DROP COLUMN members;
             ALTER TABLE pending_join DROP COLUMN held_ms;
             ALTER TABLE message DROP COLUMN properties;
             ALTER TABLE outbox DROP COLUMN properties;
             ALTER TABLE failed DROP COLUMN properties;
             DROP TABLE contact;
             DROP TABLE once;
             DROP INDEX message_own;
             ALTER TABLE outbox DROP COLUMN refusals;
             ALTER TABLE outbox DROP COLUMN refused_code;
             ALTER TABLE outbox DROP COLUMN refused_ms;
             ALTER TABLE outbox DROP COLUMN earlier;
             ALTER TABLE failed DROP COLUMN failed_ms;
             DROP TABLE deferred;
             DROP TABLE lost;
             DROP TABLE rejoin;
             DROP TABLE rollback;
             DROP TABLE settled;
             DROP TABLE replaced;
             DROP TABLE change;
             DROP TABLE undone;
             DROP TABLE leaving;
             DROP TABLE purged;
             ALTER TABLE channel DROP COLUMN reboot;
             ALTER TABLE channel DROP COLUMN standing;
             ALTER TABLE channel DROP COLUMN since;
             ALTER TABLE channel DROP COLUMN reason;
             ALTER TABLE channel DROP COLUMN missed;
             ALTER TABLE channel DROP COLUMN asked;
             ALTER TABLE channel DROP COLUMN unsure;
             ALTER TABLE channel DROP COLUMN doubted;
             ALTER TABLE channel DROP COLUMN joined;
             ALTER TABLE channel DROP COLUMN applied;
             ALTER TABLE channel DROP COLUMN removed;
             ALTER TABLE channel DROP COLUMN applied_hash;
             ALTER TABLE channel DROP COLUMN drift;
             ALTER TABLE unreadable DROP COLUMN cause;
             DROP TABLE invitation;
             ALTER TABLE key_package DROP COLUMN expires_ms;
             ALTER TABLE key_package DROP COLUMN at;
             INSERT INTO key_package VALUES (x'01', x'02', 6, 0, NULL);
             INSERT INTO outbox VALUES (1, 1, 2, x'01', 5, 0, 0, x'02', NULL);
             INSERT INTO message VALUES (1, x'01', x'02', NULL, 3, 4, x'05');
             PRAGMA user_version = 1;",
        )
        .expect("written");
    drop(vault);
    for _ in 0..2 {
        let vault = Vault::open(&path, &raw(1)).expect("opens");
        let query = "SELECT sent_ms, refusals, refused_code, earlier FROM outbox";
        let outbox: (i64, i64, Option<i64>, Option<Vec<u8>>) = vault
            .sql()
            .query_row(query, [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .expect("read");
        assert_eq!(outbox, (5, 0, None, None));
        let query = "SELECT payload FROM message INDEXED BY message_own WHERE received_no IS NULL AND frame_id = x'01'";
        let payload: Vec<u8> = vault.sql().query_row(query, [], |row| row.get(0)).expect("read");
        assert_eq!(payload, [5]);
        let query = "SELECT made_ms, expires_ms, at FROM key_package";
        let package: (i64, Option<i64>, Option<i64>) = vault
            .sql()
            .query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .expect("read");
        assert_eq!(package, (6, None, None));
        let version: u32 = vault
            .sql()
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .expect("known");
        assert_eq!(version, schema::VERSION);
    }
}

#[test]
fn channels_without_a_label_that_others_made_are_invitations_in_a_vault_of_before() {
    let (_folder, path) = folder();
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    let channel = |no: i64, label: &str, state: i64, joined: i64| {
        vault
            .sql()
            .execute(
                "INSERT INTO channel (no, id, label, state, cursor, head, epoch, encrypted_no, accepted_no, acked, received,
                                      received_acked, joined)
                 VALUES (?1, randomblob(16), ?2, ?3, 9, 9, 1, 0, 0, 0, 0, 0, ?4)",
                (no, label, state, joined),
            )
            .expect("written");
    };
    // Its own, one that has a label, two that others made, one that was left, one that was declined.
    for (no, label, state, joined) in [
        (1, "", 2, 1),
        (2, "plans", 2, 5),
        (3, "", 2, 6),
        (4, "", 3, 7),
        (5, "", 4, 8),
    ] {
        channel(no, label, state, joined);
    }
    channel(6, "", 3, 9);
    vault
        .sql()
        .execute_batch(
            "ALTER TABLE declined DROP COLUMN since_ms;
             INSERT INTO declined VALUES (6);
             DROP INDEX outbox_change;
             DROP INDEX channel_label;
             ALTER TABLE channel DROP COLUMN kept;
             DROP TABLE invitation;
             ALTER TABLE unreadable DROP COLUMN cause;
             ALTER TABLE deferred DROP COLUMN held_ms;
             INSERT INTO unreadable (channel, at, reason) VALUES (3, 7, 'why');
             PRAGMA user_version = 6;",
        )
        .expect("written");
    drop(vault);
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    let mut invitations = vault
        .sql()
        .prepare("SELECT channel, at, adder FROM invitation ORDER BY channel")
        .expect("a query");
    let found: Vec<(i64, i64, Option<Vec<u8>>)> = invitations
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .expect("read")
        .collect::<Result<_, _>>()
        .expect("read");
    assert_eq!(found, [(3, 6, None), (4, 7, None)]);
    let cause: i64 = vault
        .sql()
        .query_row("SELECT cause FROM unreadable", [], |row| row.get(0))
        .expect("read");
    assert_eq!(cause, 0);
}

fn values(vault: &Vault) -> u64 {
    let count = vault
        .sql()
        .query_row("SELECT count(*) FROM meta WHERE key LIKE 'ahead%'", [], |row| {
            row.get::<_, i64>(0)
        });
    u64::try_from(count.expect("counted")).expect("a count")
}

#[test]
fn pages_that_are_written_ahead_of_a_commit_are_nothing_without_it() {
    let (folder, path) = folder();
    let marker = b"a-marker-that-nobody-may-read";
    let value = marker.repeat(40);
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    let write = |number: u32| {
        let row = rusqlite::params![format!("ahead-{number}"), value];
        vault
            .sql()
            .execute("INSERT INTO meta VALUES (?1, ?2)", row)
            .expect("written");
    };
    let log = folder.path().join("vault.db-wal");
    // The write-ahead log may begin again at its start: what differs counts.
    let bytes = || std::fs::read(&log).expect("readable");
    for (round, commits) in [false, true].into_iter().enumerate() {
        let transaction = vault.begin(Durability::Now).expect("begun");
        for number in 0..200 {
            write(number);
        }
        let before = bytes();
        vault.sql().cache_flush().expect("written ahead");
        let after = bytes();
        let same = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before == after)
            .count();
        assert!(after.len() - same > 200_000, "pages are on their way to the disk");
        // What a process that opens the vault after a crash finds.
        let crashed = folder.path().join(format!("crashed-{round}"));
        std::fs::create_dir(&crashed).expect("a folder");
        let copied = crashed.join("vault.db");
        std::fs::copy(&path, &copied).expect("copied");
        std::fs::copy(&log, crashed.join("vault.db-wal")).expect("copied");
        let ahead = std::fs::read(crashed.join("vault.db-wal")).expect("readable");
        assert!(!ahead.windows(marker.len()).any(|window| window == marker));
        assert_eq!(values(&Vault::open(&copied, &raw(1)).expect("opens")), 0);
        match commits {
            false => drop(transaction),
            true => transaction.commit().expect("committed"),
        }
        assert_eq!(values(&vault), if commits { 200 } else { 0 });
    }
    drop(vault);
    assert_eq!(values(&Vault::open(&path, &raw(1)).expect("opens")), 200);
}
