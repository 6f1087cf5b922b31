//! The vault's file: backups, and a disk that is full.

use crate::node::{Node, text};
use crate::process::{Place, Ran};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_backup_is_restored_on_another_machine_and_a_vault_is_not_overwritten() {
    let node = Node::start("warn");
    let place = &node.place;
    let agent = node.join("a");
    node.agent("a", &["channel", "create", "before"]);
    let made = place.json(&["vault", "backup", "a.backup", "--vault", "a.vault"]);
    assert_eq!(
        (made["file"].as_str(), made["key"].as_str()),
        (Some("a.backup"), Some("file"))
    );
    let key_file = text(&made["key_file"]);
    assert!(key_file.ends_with("a.vault.key"), "{made}");
    let found = std::fs::metadata(place.path("a.backup")).expect("there");
    assert_eq!(
        (found.permissions().mode() & 0o777, Some(found.len())),
        (0o600, made["bytes"].as_u64())
    );
    node.agent("a", &["channel", "create", "after"]);

    let refused = |arguments: &[&str], exit: i32, code: &str| {
        let ran = place.run(std::iter::once(&"--json").chain(arguments));
        assert_eq!(
            (ran.code, ran.failure()["code"].as_str()),
            (exit, Some(code)),
            "{}",
            ran.stderr
        );
        text(&ran.failure()["help"])
    };
    let help = refused(&["vault", "backup", "a.backup", "--vault", "a.vault"], 3, "SKY-6002");
    assert!(help.contains("--force"), "{help}");
    refused(
        &["vault", "backup", "a.vault", "--force", "--vault", "a.vault"],
        3,
        "SKY-6002",
    );
    let help = refused(&["vault", "restore", "a.backup", "--vault", "a.vault"], 3, "SKY-6002");
    assert!(help.contains("--force") && help.contains("moved aside"), "{help}");
    // Another machine has no key.
    let help = refused(&["vault", "restore", "a.backup", "--vault", "b.vault"], 3, "SKY-5002");
    assert!(help.contains("--vault-key-file"), "{help}");
    assert!(!place.path("b.vault").exists());

    let labels = |vault: &str, key: &str| {
        let line = [
            "channel",
            "list",
            "--offline",
            "--vault",
            vault,
            "--vault-key-file",
            key,
        ];
        let listed = place.json(&line)["channels"].clone();
        let rows = listed.as_array().expect("a list").clone();
        rows.iter().map(|row| text(&row["label"])).collect::<Vec<_>>()
    };
    let with_key = ["--vault-key-file", &key_file];
    let line = [&["vault", "restore", "a.backup", "--vault", "b.vault"], &with_key[..]].concat();
    let restored = place.json(&line);
    assert_eq!(restored["backup_ms"], made["at_ms"]);
    assert!(restored["replaced"].is_null());
    assert_eq!(labels("b.vault", &key_file), ["before"]);
    let line = [&["whoami", "--id", "--vault", "b.vault"], &with_key[..]].concat();
    assert_eq!(place.run(line).stdout.trim(), agent);

    let restored = place.json(&["vault", "restore", "a.backup", "--force", "--vault", "a.vault"]);
    let replaced = text(&restored["replaced"]);
    assert_eq!(labels("a.vault", &key_file), ["before"]);
    assert_eq!(labels(&replaced, &key_file), ["before", "after"]);

    let ran = place.run(["vault", "backup", "a.backup", "--force", "--vault", "a.vault"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("a.vault.key") && ran.stdout.contains("skytale vault restore"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_backup_of_a_vault_with_a_passphrase_is_two_files() {
    let mut place = Place::new();
    place.set("SKYTALE_VAULT_PASSPHRASE", "correct horse");
    place.json(&["init", "--offline", "--vault", "a.vault"]);
    let made = place.json(&["vault", "backup", "a.backup", "--vault", "a.vault"]);
    assert_eq!(text(&made["key_parameters"]), "a.backup.kdf");
    place.json(&["vault", "restore", "a.backup", "--vault", "b.vault"]);
    place.json(&["whoami", "--vault", "b.vault"]);
    place.set("SKYTALE_VAULT_PASSPHRASE", "incorrect horse");
    let ran = place.run(["--json", "vault", "restore", "a.backup", "--vault", "c.vault"]);
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (3, Some("SKY-5002")),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_damaged_vault_is_named_with_what_to_do() {
    let place = Place::new();
    place.json(&["init", "--offline", "--vault", "a.vault"]);
    place.json(&["vault", "backup", "a.backup", "--vault", "a.vault"]);
    let path = place.path("a.vault");
    let mut bytes = std::fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 16] {
        *byte ^= 1;
    }
    std::fs::write(&path, bytes).expect("written");
    let ran = place.run(["--json", "channel", "list", "--offline", "--vault", "a.vault"]);
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (7, Some("SKY-5021")),
        "{}",
        ran.stderr
    );
    assert!(
        text(&ran.failure()["help"]).contains("skytale vault restore"),
        "{}",
        ran.stderr
    );
    place.json(&["vault", "restore", "a.backup", "--force", "--vault", "a.vault"]);
    place.json(&["channel", "list", "--offline", "--vault", "a.vault"]);
}

/// A small file system in memory, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir(at).expect("made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"])
            .arg(at)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(output) => {
                eprintln!("not mounted: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                eprintln!("not mounted: {error}");
                None
            }
        }
    }

    fn fill(&self) {
        let file = File::options().create(true).append(true).open(self.0.join("ballast"));
        let mut file = file.expect("made");
        for bytes in [64 * 1024, 4 * 1024] {
            while file.write_all(&vec![1; bytes]).is_ok() {}
        }
    }

    fn make_room(&self) {
        // Cut first: a process that is just being started may have the file open.
        let ballast = File::options().write(true).open(self.0.join("ballast"));
        ballast.and_then(|file| file.set_len(0)).expect("cut");
        std::fs::remove_file(self.0.join("ballast")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_an_agent_reads_purges_and_goes_on() {
    let node = Node::start("warn");
    let Some(disk) = Disk::mount(&node.place.path("disk")) else {
        return;
    };
    let bob = (node.join("alice"), node.join("disk/bob")).1;
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    let long = "x".repeat(200_000);
    for _ in 0..10 {
        let line = [
            "channel",
            "send",
            "plans",
            "--vault",
            "alice.vault",
            "--timeout-s",
            "120",
        ];
        let ran = node.place.run_with(line, long.as_bytes());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    assert_eq!(node.read("disk/bob", &[&channel]).len(), 10);
    disk.fill();

    let run = |arguments: &[&str]| -> Ran {
        let agent = ["--vault", "disk/bob.vault", "--timeout-s", "120"];
        node.place.run(["--json"].iter().chain(arguments).chain(&agent))
    };
    assert_eq!(node.read("disk/bob", &[&channel, "--offline"]).len(), 10);
    let listed = run(&["channel", "list", "--offline"]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    for _ in 0..2 {
        let ran = run(&["channel", "send", &channel, &long[..100_000], "--queue"]);
        assert_eq!(
            (ran.code, ran.failure()["code"].as_str()),
            (6, Some("SKY-5020")),
            "{}",
            ran.stderr
        );
        assert!(text(&ran.failure()["help"]).contains("purge"), "{}", ran.stderr);
    }
    let outbox = run(&["channel", "outbox"]);
    assert!(
        outbox.stdout.contains("\"outbox\":[]"),
        "nothing is half done: {}",
        outbox.stdout
    );

    // To be purged they have to be read; both work without room.
    assert_eq!(node.read("disk/bob", &[&channel, "--unread", "--offline"]).len(), 10);
    let before = std::fs::metadata(disk.0.join("bob.vault")).expect("there").len();
    let ran = run(&["channel", "purge", &channel, "--all"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("\"messages\":10"), "{}", ran.stdout);
    let after = std::fs::metadata(disk.0.join("bob.vault")).expect("there").len();
    assert!(after + 1_500_000 < before, "{before} bytes became {after}");

    disk.make_room();
    node.agent("alice", &["channel", "send", "plans", "last"]);
    assert_eq!(node.read("disk/bob", &[&channel]), ["last"]);
    node.agent("disk/bob", &["channel", "send", &channel, "thanks"]);
    assert_eq!(
        node.read("alice", &["plans"]).last().map(String::as_str),
        Some("thanks")
    );
}
