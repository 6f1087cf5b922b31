//! Backups, restores, and copied files.

use super::*;
use crate::vault::lock::log_of;
use mark::Lineage;
use std::time::Duration;

fn note(vault: &Vault, name: &str) {
    vault.keep(name, b"1").expect("kept");
}

fn has(vault: &Vault, name: &str) -> bool {
    vault.kept(name).expect("read").is_some()
}

fn lineage(vault: &Vault) -> Lineage {
    mark::lineage(vault.sql()).expect("known")
}

fn copy(from: &Path, to: &Path, suffixes: &[&str]) {
    for suffix in suffixes {
        let name = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        std::fs::copy(name(from), name(to)).expect("copied");
    }
}

#[test]
fn a_backup_is_whole_encrypted_private_and_holds_what_is_there_now() {
    let (folder, path) = folder();
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    note(&vault, "before");
    let file = folder.path().join("backup");
    let made = vault.backup(&file, false).expect("made");
    note(&vault, "after");
    assert_eq!((made.path.as_path(), &made.key), (file.as_path(), &BackupKey::Raw));
    let found = std::fs::metadata(&file).expect("there");
    assert_eq!((found.len(), found.permissions().mode() & 0o777), (made.bytes, 0o600));
    assert!(!std::fs::read(&file).expect("read").starts_with(b"SQLite format 3\0"));
    assert!(!folder.path().join("backup.partial").exists() && !folder.path().join("backup-journal").exists());

    assert!(matches!(vault.backup(&file, false), Err(VaultError::Exists { .. })));
    assert!(has(&vault, "after"), "the vault is as usable as before");
    let before = std::fs::read(&file).expect("read");
    vault.backup(&file, true).expect("made again");
    assert_ne!(std::fs::read(&file).expect("read"), before);
    drop(vault);

    let target = folder.path().join("restored.db");
    assert_eq!(code(Vault::open(&file, &raw(2))), Code::VaultKey);
    restore(&file, &target, &raw(1), false).expect("restored");
    let restored = Vault::open(&target, &raw(1)).expect("opens");
    assert!(has(&restored, "before") && has(&restored, "after") && !has(&restored, "backup"));
    assert!(restored.restored().expect("known").is_some());
}

#[test]
fn a_backup_does_not_go_over_the_vault_s_own_files() {
    let (folder, path) = folder();
    let key_file = folder.path().join("key");
    let vault = Vault::open(&path, &VaultKey::file(&key_file)).expect("opens");
    note(&vault, "kept");
    let link = folder.path().join("link");
    std::fs::hard_link(&path, &link).expect("linked");
    let own = ["lock", "reserve", "kdf", "key"].map(|suffix| key::beside(&path, suffix));
    for target in own.iter().chain([&path, &log_of(&path), &key_file, &link]) {
        let refused = vault.backup(target, true).expect_err("refused");
        assert_eq!(refused.code(), Code::Environment, "{}", target.display());
    }
    let nowhere = folder.path().join("nowhere/backup");
    assert_eq!(
        vault.backup(&nowhere, false).expect_err("no folder").code(),
        Code::VaultIo
    );
    drop(vault);
    assert!(has(
        &Vault::open(&path, &VaultKey::file(key_file)).expect("opens"),
        "kept"
    ));
}

#[test]
fn a_backup_of_a_vault_with_a_passphrase_takes_its_parameters_with_it() {
    let (folder, path) = folder();
    let key = VaultKey::passphrase("correct horse");
    let vault = Vault::open(&path, &key).expect("opens");
    note(&vault, "kept");
    let file = folder.path().join("backup");
    let made = vault.backup(&file, false).expect("made");
    let parameters = folder.path().join("backup.kdf");
    assert_eq!(
        made.key,
        BackupKey::Passphrase {
            parameters: parameters.clone()
        }
    );
    drop(vault);

    // Another machine: nothing of the vault is there.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let target = elsewhere.path().join("vault.db");
    let wrong = VaultKey::passphrase("incorrect horse");
    assert_eq!(
        restore(&file, &target, &wrong, false).expect_err("refused").code(),
        Code::VaultKey
    );
    assert!(!target.exists() && !key::beside(&target, "kdf").exists());
    restore(&file, &target, &key, false).expect("restored");
    assert!(has(&Vault::open(&target, &key).expect("opens"), "kept"));

    std::fs::remove_file(&parameters).expect("removed");
    let refused = restore(&file, &elsewhere.path().join("another.db"), &key, false).expect_err("refused");
    assert_eq!(refused.code(), Code::VaultKey);
    assert!(refused.to_string().contains("backup.kdf"), "{refused}");
}

#[test]
fn a_restore_replaces_a_vault_only_when_told_to_and_keeps_the_old_one_with_its_log() {
    let (folder, path) = folder();
    let file = folder.path().join("backup");
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    note(&vault, "before");
    vault.backup(&file, false).expect("made");
    note(&vault, "after");
    let refused = restore(&file, &path, &raw(1), true).expect_err("it is open");
    assert_eq!(refused.code(), Code::VaultInUse);

    // The vault is left with a write-ahead log, as by a process that was killed.
    let (main, log) = (
        std::fs::read(&path).expect("read"),
        std::fs::read(log_of(&path)).expect("read"),
    );
    assert!(!log.is_empty());
    drop(vault);
    std::fs::write(&path, main).expect("written");
    std::fs::write(log_of(&path), log).expect("written");

    let refused = restore(&file, &path, &raw(1), false).expect_err("it exists");
    assert!(matches!(refused, VaultError::Exists { .. }), "{refused}");
    assert_eq!(
        restore(&file, &path, &raw(2), true).expect_err("another key").code(),
        Code::VaultKey
    );
    let done = restore(&file, &path, &raw(1), true).expect("restored");
    assert!(done.backup_ms.is_some());
    assert!(!log_of(&path).exists(), "the old log is not applied to the new file");
    let restored = Vault::open(&path, &raw(1)).expect("opens");
    assert!(has(&restored, "before") && !has(&restored, "after"));
    drop(restored);

    let aside = Vault::open(&done.replaced.expect("kept"), &raw(1)).expect("opens");
    assert!(
        has(&aside, "before") && has(&aside, "after"),
        "with what was in its log"
    );
}

#[test]
fn what_is_no_sound_backup_is_refused_and_the_vault_stays() {
    let (folder, path) = folder();
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    vault
        .sql()
        .execute_batch("INSERT INTO message VALUES (1, x'01', x'02', NULL, 3, 4, zeroblob(100000), NULL)")
        .expect("written");
    let file = folder.path().join("backup");
    vault.backup(&file, false).expect("made");
    note(&vault, "kept");
    drop(vault);

    let try_it = |file: &Path| restore(file, &path, &raw(1), true).expect_err("refused");
    let mut bytes = std::fs::read(&file).expect("read");
    bytes[60_000] ^= 1;
    let broken = folder.path().join("broken");
    std::fs::write(&broken, &bytes).expect("written");
    assert_eq!(try_it(&broken).code(), Code::VaultDamaged);
    std::fs::write(&broken, &bytes[..50_000]).expect("written");
    assert_eq!(try_it(&broken).code(), Code::VaultDamaged);
    std::fs::write(&broken, []).expect("written");
    assert_eq!(try_it(&broken).code(), Code::Environment);
    std::fs::write(&broken, b"no backup").expect("written");
    assert_eq!(try_it(&broken).code(), Code::VaultKey);
    assert_eq!(try_it(&folder.path().join("nothing")).code(), Code::VaultIo);
    assert_eq!(try_it(folder.path()).code(), Code::Environment);
    assert_eq!(try_it(&path).code(), Code::Environment, "the vault itself");
    std::fs::copy(&file, &broken).expect("copied");
    std::fs::write(log_of(&broken), b"something").expect("written");
    assert_eq!(try_it(&broken).code(), Code::Environment);
    // A database with the right key that is no vault.
    std::fs::remove_file(log_of(&broken)).expect("removed");
    std::fs::remove_file(&broken).expect("removed");
    let other = Connection::open(&broken).expect("opens");
    unlock(&other, &Zeroizing::new([1; 32])).expect("keyed");
    other.execute_batch("CREATE TABLE t (x)").expect("made");
    drop(other);
    assert_eq!(try_it(&broken).code(), Code::VaultDamaged);

    let names = std::fs::read_dir(folder.path()).expect("a folder");
    for name in names.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")) {
        assert!(
            !name.contains("replaced") && !name.contains("restoring"),
            "{name} is left"
        );
    }
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    assert!(has(&vault, "kept") && vault.restored().expect("known").is_none());
}

#[test]
fn a_restore_that_was_interrupted_is_undone_or_ended_by_whoever_opens_the_vault() {
    for renamed in [false, true] {
        let (folder, path) = folder();
        let file = folder.path().join("backup");
        let vault = Vault::open(&path, &raw(1)).expect("opens");
        note(&vault, "before");
        vault.backup(&file, false).expect("made");
        note(&vault, "after");
        let (main, log) = (
            std::fs::read(&path).expect("read"),
            std::fs::read(log_of(&path)).expect("read"),
        );
        drop(vault);
        // What a restore prepares.
        let ready = folder.path().join("ready");
        restore(&file, &ready, &raw(1), false).expect("restored");
        std::fs::write(&path, main).expect("written");
        std::fs::write(log_of(&path), log).expect("written");
        let restoring = key::beside(&path, "restoring");
        std::fs::rename(ready, &restoring).expect("renamed");
        Lock::take(&path).expect("free").say_restoring().expect("said");
        if renamed {
            std::fs::rename(&restoring, &path).expect("renamed");
        }

        for _ in 0..2 {
            let vault = Vault::open(&path, &raw(1)).expect("opens");
            assert!(has(&vault, "before"));
            assert_eq!(has(&vault, "after"), !renamed, "renamed: {renamed}");
            assert_eq!(vault.restored().expect("known").is_some(), renamed);
            assert!(!restoring.exists());
        }
    }
}

#[test]
fn a_backup_that_is_copied_to_a_vault_s_place_counts_as_restored() {
    let (folder, path) = folder();
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    let file = folder.path().join("backup");
    vault.backup(&file, false).expect("made");
    let first = lineage(&vault);
    drop(vault);
    std::fs::copy(&file, &path).expect("copied");
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    let restored = vault.restored().expect("known").expect("restored");
    assert_eq!(restored.lineage, lineage(&vault));
    assert_ne!(restored.lineage, first);
    drop(vault);
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    assert_eq!(vault.restored().expect("known"), Some(restored), "until it is cleared");

    // Cleared in a transaction; not if it was restored again in between.
    let transaction = vault.begin(Durability::Now).expect("begun");
    restored.clear(&transaction).expect("cleared");
    drop(transaction);
    assert!(vault.restored().expect("known").is_some(), "rolled back");
    let again = mark::set_restored(vault.sql()).expect("set");
    restored.clear(vault.sql()).expect("cleared");
    assert_eq!(vault.restored().expect("known"), Some(again));
    again.clear(vault.sql()).expect("cleared");
    assert_eq!(vault.restored().expect("known"), None);
    drop(vault);
    assert_eq!(
        Vault::open(&path, &raw(1)).expect("opens").restored().expect("known"),
        None
    );
}

#[test]
fn files_that_were_copied_count_as_restored_and_those_that_were_left_here_do_not() {
    let all: &[&str] = &["", "-wal", ".lock"];
    // (what is copied, of a vault that is open, whether that is reported)
    let cases: [(&[&str], bool, bool); 6] = [
        (all, true, true),
        (&["", "-wal"], true, true),
        (&[""], true, true),
        (&[""], false, true),
        // The copy of a folder in which nothing is open is as good as the folder: what it is behind, the log tells.
        (&["", ".lock"], false, false),
        (&["", ".lock"], true, true),
    ];
    for (suffixes, open, told) in cases {
        let (folder, path) = folder();
        let vault = Vault::open(&path, &raw(1)).expect("opens");
        note(&vault, "kept");
        vault.empty_log().expect("emptied");
        note(&vault, "last");
        let copied = folder.path().join("copy.db");
        if open {
            copy(&path, &copied, suffixes);
        }
        drop(vault);
        if !open {
            copy(&path, &copied, suffixes);
            let modified = std::fs::metadata(&path)
                .and_then(|found| found.modified())
                .expect("known");
            let file = std::fs::File::options().write(true).open(&copied).expect("there");
            file.set_modified(modified).expect("as `cp -p` does");
        }
        let case = format!("{suffixes:?}, open: {open}");
        let vault = Vault::open(&copied, &raw(1)).expect("opens");
        assert!(has(&vault, "kept"), "{case}");
        assert_eq!(vault.restored().expect("known").is_some(), told, "{case}");
        drop(vault);
        let vault = Vault::open(&path, &raw(1)).expect("opens");
        assert_eq!(vault.restored().expect("known"), None, "{case}: the original");
    }
}

#[test]
fn an_older_copy_that_is_put_back_over_the_vault_counts_as_restored() {
    let (folder, path) = folder();
    let copied = folder.path().join("copy.db");
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    note(&vault, "first");
    drop(vault);
    std::fs::copy(&path, &copied).expect("copied");
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    note(&vault, "second");
    drop(vault);
    // The clock of a file system may be coarse.
    std::thread::sleep(Duration::from_millis(20));
    std::fs::copy(&copied, &path).expect("put back");
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    assert!(has(&vault, "first") && !has(&vault, "second"));
    assert!(vault.restored().expect("known").is_some());
}

#[test]
fn a_vault_of_a_version_without_these_marks_is_no_copy() {
    let (_folder, path) = folder();
    drop(Vault::open(&path, &raw(1)).expect("opens"));
    std::fs::write(key::beside(&path, "lock"), []).expect("as it was left");
    assert_eq!(
        Vault::open(&path, &raw(1)).expect("opens").restored().expect("known"),
        None
    );
}

#[test]
fn a_vault_whose_pages_do_not_belong_together_is_refused_as_damaged_and_left_as_it_is() {
    let (folder, path) = folder();
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    let insert = |from: i64, to: i64| {
        vault
            .sql()
            .execute(
                "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
                 INSERT INTO message SELECT i, x'01', x'02', NULL, 3, 4, zeroblob(9000), NULL FROM n",
                [from, to],
            )
            .expect("written");
    };
    insert(1, 50);
    vault.empty_log().expect("emptied");
    let early = std::fs::read(&path).expect("read");
    vault
        .sql()
        .execute("DELETE FROM message WHERE id % 3 = 0", [])
        .expect("deleted");
    insert(100, 200);
    vault.empty_log().expect("emptied");
    drop(vault);
    let late = std::fs::read(&path).expect("read");

    // The first half as it was, the second as it became: each page is authentic.
    let half = early.len() / 8_192 * 4_096;
    let mixed = [&early[..half], &late[half..]].concat();
    let copied = folder.path().join("copy.db");
    std::fs::write(&copied, &mixed).expect("written");
    for _ in 0..2 {
        let error = Vault::open(&copied, &raw(1)).map(|_| ()).expect_err("damaged");
        assert_eq!(error.code(), Code::VaultDamaged, "{error}");
    }
    let left = std::fs::read(&copied).expect("read");
    assert!(left == mixed, "{} bytes became {}", mixed.len(), left.len());
}

#[test]
fn what_others_put_in_the_way_of_a_backup_is_not_written_to() {
    let (folder, path) = folder();
    let vault = Vault::open(&path, &raw(1)).expect("opens");
    let (file, partial) = (folder.path().join("backup"), folder.path().join("backup.partial"));
    let mine = folder.path().join("mine");
    std::fs::write(&mine, b"mine").expect("written");
    std::os::unix::fs::symlink(&mine, &partial).expect("linked");
    vault.backup(&file, false).expect("made");
    assert_eq!(std::fs::read(&mine).expect("read"), b"mine");
    assert!(file.symlink_metadata().expect("there").is_file());

    // What a backup that was killed has left is no obstacle; one that is being written is.
    std::fs::write(&partial, b"left").expect("written");
    let other = std::fs::File::open(&partial).expect("there");
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    assert_eq!(vault.backup(&file, true).expect_err("busy").code(), Code::Environment);
    drop(other);
    vault.backup(&file, true).expect("made");
    assert!(!partial.exists());
}
