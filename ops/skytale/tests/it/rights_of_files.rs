//! Files of servers are their user's alone, and secrets that others can open are refused.

use crate::node::{ANY_PORT, Node};
use crate::process::{Place, Running};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).expect("there").permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
}

/// A folder that every user of this machine can enter, as one in /etc is. The tests' own temporary folder may be private.
fn everybodys() -> tempfile::TempDir {
    let enters = |folder: &Path| mode(folder) & 0o001 != 0;
    let own = std::env::temp_dir();
    let above = [
        own.as_path(),
        Path::new("/tmp"),
        Path::new("/var/tmp"),
        Path::new("/dev/shm"),
    ]
    .into_iter()
    .filter_map(|folder| folder.canonicalize().ok())
    .find(|folder| folder.ancestors().all(enters))
    .expect("a temporary folder that every user can enter");
    let folder = tempfile::tempdir_in(above).expect("a folder");
    set_mode(folder.path(), 0o755);
    folder
}

/// All that is in a folder, itself too.
fn all_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(all_in(&path)),
            false => found.push(path),
        }
    }
    found
}

#[test]
fn a_node_s_data_is_its_users_alone_also_in_a_folder_that_was_open() {
    let mut place = Place::new();
    let node = place.path("node");
    for folder in [node.clone(), node.join("relay"), node.join("relay/log")] {
        std::fs::create_dir_all(&folder).expect("made");
        set_mode(&folder, 0o755);
    }
    let line = ["--json", "dev", "--dir", "node"].into_iter().chain(ANY_PORT);
    let mut running = Running::start(place.command(line), &place.path("dev.log"));
    let told: Value = running.json();
    place.set("SKYTALE_API_URL", told["api_url"].as_str().expect("a URL"));
    place.set("SKYTALE_API_KEY", told["api_key"].as_str().expect("a key"));
    let node_like = Node { place, running, told };
    node_like.join("alice");
    node_like.agent("alice", &["channel", "create", "plans"]);
    node_like.agent("alice", &["channel", "send", "plans", "kept private"]);
    let kept = all_in(&node);
    assert!(kept.iter().any(|path| path.ends_with("segments")), "{kept:?}");
    assert!(kept.iter().any(|path| path.ends_with("api.db")), "{kept:?}");
    for path in kept {
        assert_eq!(mode(&path) & 0o077, 0, "{} is {:o}", path.display(), mode(&path));
    }
    let vaults = all_in(node_like.place.path(".").as_path());
    for path in vaults
        .iter()
        .filter(|path| path.to_string_lossy().contains("alice.vault"))
    {
        assert_eq!(mode(path) & 0o077, 0, "{} is {:o}", path.display(), mode(path));
    }
    assert_eq!(node_like.running.stop("TERM").0, 0);
}

#[test]
fn a_secret_that_other_users_can_open_is_refused_at_the_start_and_by_the_check() {
    let place = Place::new();
    let folder = everybodys();
    let secret = folder.path().join("relay-secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").expect("written");
    set_mode(&secret, 0o644);
    let config = |prefix: &str| {
        place.write(
            "skytale.toml",
            &format!(
                "[relay]\ndata_dir = 'relay'\nlisten = '127.0.0.1:0'\napi_url = 'http://127.0.0.1:1'\nrelay_secret = '{prefix}{}'\n\
                 [relay.admin]\nlisten = '127.0.0.1:0'\n",
                secret.display()
            ),
        );
    };
    config("file:");
    for line in [&["relay"][..], &["config", "check", "relay"][..]] {
        let ran = place.run([&["--config", "skytale.toml"], line].concat());
        assert_ne!(ran.code, 0, "{line:?}");
        let command = format!("chmod 600 {}", secret.display());
        for said in ["SKY-6005", "0644", "relay.relay_secret", &command] {
            assert!(
                ran.stderr.contains(said) || ran.stdout.contains(said),
                "{line:?}: {said}: {ran:?}"
            );
        }
    }
    assert!(!place.path("relay").exists(), "nothing was begun");
    config("shared-file:");
    let ran = place.run(["--config", "skytale.toml", "config", "check", "relay"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    config("file:");
    set_mode(&secret, 0o600);
    let ran = place.run(["--config", "skytale.toml", "config", "check", "relay"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // Out of reach: nobody else enters the folder.
    set_mode(&secret, 0o644);
    set_mode(folder.path(), 0o700);
    let ran = place.run(["--config", "skytale.toml", "config", "check", "relay"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn keys_of_certificates_and_accounts_that_other_users_can_open_are_refused_too() {
    const REFUSED: &str = "can be opened by other users";
    let place = Place::new();
    let folder = everybodys();
    let file = folder.path().join("in-the-open");
    std::fs::write(&file, "").expect("written");
    set_mode(&file, 0o644);
    let certificate = place.write("certificate.pem", "");
    let keys = [
        ("relay", "relay.https.key_file", "relay.https.certificate_file"),
        ("bridge", "bridge.tls.key_file", "bridge.tls.certificate_file"),
        ("bridge", "bridge.accounts_file", "bridge.tls.client_roots_file"),
    ];
    for (server, key, other) in keys {
        let check = |prefix: &str| {
            let shown = [certificate.display().to_string(), format!("{prefix}{}", file.display())];
            let settings = [format!("{other}={}", shown[0]), format!("{key}={}", shown[1])];
            let ran = place.run(["config", "check", server, "--set", &settings[0], "--set", &settings[1]]);
            assert_ne!(ran.code, 0, "nothing else is set: {ran:?}");
            ran.stdout + &ran.stderr
        };
        for prefix in ["", "file:"] {
            let said = check(prefix);
            let command = format!("chmod 600 {}", file.display());
            for part in [REFUSED, "0644", key, &command] {
                assert!(said.contains(part), "{key}: {part}: {said}");
            }
        }
        assert!(!check("shared-file:").contains(REFUSED), "{key}");
        set_mode(&file, 0o600);
        assert!(!check("").contains(REFUSED), "{key}");
        set_mode(&file, 0o644);
    }
}
