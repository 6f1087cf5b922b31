//! A full disk.

use super::disk::Disk;
use super::*;

const MESSAGES: i64 = 20;
const MESSAGE_BYTES: i64 = 100_000;

fn insert(vault: &Vault, id: i64, bytes: i64) -> Result<(), VaultError> {
    let transaction = vault.begin(Durability::Now)?;
    transaction.execute(
        "INSERT INTO message VALUES (?1, x'01', x'02', NULL, 3, 4, randomblob(?2), NULL)",
        [id, bytes],
    )?;
    Ok(transaction.commit()?)
}

fn delete(vault: &Vault, id: i64) -> Result<(), VaultError> {
    let transaction = vault.begin(Durability::Later)?;
    transaction.execute("DELETE FROM message WHERE id = ?1", [id])?;
    Ok(transaction.commit()?)
}

/// Reads all messages, and returns their number.
fn read(vault: &Vault) -> i64 {
    let mut statement = vault.sql().prepare("SELECT payload FROM message").expect("prepared");
    let mut rows = statement.query([]).expect("read");
    let mut count = 0;
    while let Some(row) = rows.next().expect("read") {
        assert!(!row.get::<_, Vec<u8>>(0).expect("bytes").is_empty());
        count += 1;
    }
    count
}

fn reserve_bytes(path: &Path) -> u64 {
    std::fs::metadata(key::beside(path, "reserve")).map_or(0, |found| found.len())
}

fn filled(disk: &Disk) -> PathBuf {
    let path = disk.path().join("vault.db");
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    for id in 0..MESSAGES {
        insert(&vault, id, MESSAGE_BYTES).expect("written");
    }
    drop(vault);
    assert_eq!(reserve_bytes(&path), reserve::RESERVE_BYTES);
    disk.fill();
    path
}

#[test]
fn on_a_full_disk_a_vault_is_read_and_emptied_and_goes_on_when_there_is_room() {
    let Some(disk) = Disk::of("size=32m") else { return };
    let path = filled(&disk);
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    assert_eq!(read(&vault), MESSAGES);
    for _ in 0..3 {
        let error = insert(&vault, 100, 2 * MESSAGE_BYTES).expect_err("no room");
        assert_eq!(error.code(), Code::VaultFull, "{error}");
        assert!(vault.sql().is_autocommit(), "the transaction is over");
        assert_eq!(read(&vault), MESSAGES);
    }

    // All that there is, with no room but the reserve.
    let mut released = 0;
    for id in 0..MESSAGES {
        if let Err(error) = delete(&vault, id) {
            assert_eq!(error.code(), Code::VaultFull, "{error}");
            released += 1;
            vault.make_room();
            delete(&vault, id).expect("the reserve is enough");
            vault.make_room();
        }
    }
    assert!(released > 0, "the reserve was not needed");
    while vault.compact().expect("compacted") {}
    assert_eq!(read(&vault), 0);
    assert!(std::fs::metadata(&path).expect("there").len() < 200_000);
    assert_eq!(reserve_bytes(&path), reserve::RESERVE_BYTES, "kept for the next time");
    insert(&vault, 100, 2).expect("there is room");
    drop(vault);
    assert_eq!(read(&Vault::open(&path, &raw(1)).expect("opens")), 1);
}

#[test]
fn a_vault_that_was_killed_on_a_full_disk_is_opened_and_emptied() {
    let Some(disk) = Disk::of("size=32m") else { return };
    let path = disk.path().join("vault.db");
    let killed = Vault::open(&path, &raw(1)).expect("opens");
    for id in 0..MESSAGES {
        insert(&killed, id, MESSAGE_BYTES).expect("written");
    }
    assert!(lock::has_log(&path));
    disk.fill();
    // As a process that is killed leaves it: locks are the process's, files stay.
    let left = ["vault.db", "vault.db-wal", "vault.db.lock"].map(|name| {
        let bytes = std::fs::read(disk.path().join(name)).expect("read");
        (disk.path().join(name), bytes)
    });
    drop(killed);
    disk.make_room();
    for (path, bytes) in left {
        std::fs::write(path, bytes).expect("written");
    }
    disk.fill();

    let vault = Vault::open(&path, &raw(1)).expect("opens");
    assert_eq!(read(&vault), MESSAGES);
    assert_eq!(vault.restored().expect("known"), None, "killed, and not copied");
    for id in 0..MESSAGES {
        if delete(&vault, id).is_err() {
            vault.make_room();
            delete(&vault, id).expect("the reserve is enough");
            vault.make_room();
        }
    }
    while vault.compact().expect("compacted") {}
    assert_eq!(read(&vault), 0);
    insert(&vault, 100, 2).expect("there is room");
}

#[test]
fn where_not_even_a_file_can_be_made_a_vault_is_read() {
    let Some(disk) = Disk::of("size=32m,nr_inodes=5") else {
        return;
    };
    let path = filled(&disk);
    // Root, vault, lock, reserve, ballast: no file is left for a write-ahead log, or for anything else.
    std::fs::remove_file(key::beside(&path, "reserve")).expect("removed");
    std::fs::write(disk.path().join("another"), []).expect("the last file");
    for _ in 0..2 {
        let vault = Vault::open(&path, &raw(1)).expect("opens");
        assert_eq!(read(&vault), MESSAGES);
        assert_eq!(insert(&vault, 100, 1).expect_err("read only").code(), Code::VaultFull);
        assert_eq!(vault.compact().expect_err("read only").code(), Code::VaultFull);
        drop(vault);
        assert_eq!(code(Vault::open(&path, &raw(2))), Code::VaultKey);
    }
    disk.make_room();
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    insert(&vault, 100, 1).expect("there is room");
    assert_eq!(read(&vault), MESSAGES + 1);
    assert_eq!(vault.restored().expect("known"), None);
}

#[test]
fn the_reserve_is_as_much_as_there_is_room_for() {
    let Some(disk) = Disk::of("size=9m") else { return };
    let reserve = Reserve::of(&disk.path().join("vault.db"));
    reserve.keep();
    assert_eq!(reserve_bytes(&disk.path().join("vault.db")), reserve::RESERVE_BYTES / 2);
    assert!(reserve.release());
    assert!(!reserve.release());
    disk.fill();
    reserve.keep();
    assert_eq!(reserve_bytes(&disk.path().join("vault.db")), 0);
    disk.make_room();
    reserve.keep();
    assert_eq!(reserve_bytes(&disk.path().join("vault.db")), reserve::RESERVE_BYTES / 2);
}

/// The same by SQLite's own limit, if nothing can be mounted.
#[test]
fn a_database_that_may_not_grow_says_that_it_is_full_and_is_whole() {
    let (_folder, path) = folder();
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    insert(&vault, 1, MESSAGE_BYTES).expect("written");
    let limit = |pages: u64| {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        vault.sql().query_row(&pragma, [], |_| Ok(())).expect("set");
    };
    limit(vault.number("PRAGMA page_count").expect("known"));
    let error = insert(&vault, 2, MESSAGE_BYTES).expect_err("no room");
    assert_eq!(error.code(), Code::VaultFull, "{error}");
    assert!(error.code().is_retryable());
    delete(&vault, 1).expect("what frees space needs none");
    insert(&vault, 2, MESSAGE_BYTES / 2).expect("there is room");
    limit(1_000_000);
    insert(&vault, 3, MESSAGE_BYTES).expect("there is room");
    assert_eq!(read(&vault), 2);
}
