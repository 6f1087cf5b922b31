//! No plaintext and no key leaves where it belongs: the whole path is driven with known markers at TRACE, and everything
//! that was written is searched for them.

use crate::node::{Node, text};
use crate::process::Place;
use std::path::{Path, PathBuf};

const PLAINTEXT: &str = "marker-plaintext-Qx7wLr2T";
const PASSPHRASE: &str = "marker-passphrase-Zk4mVd9P";

#[test]
fn neither_plaintext_nor_keys_are_in_any_output_or_file_of_the_servers() {
    let mut node = Node::start("trace");
    let key = text(&node.told["api_key"]);
    node.place.set("SKYTALE_LOG", "trace");
    node.place.set("SKYTALE_VAULT_PASSPHRASE", PASSPHRASE);
    let mut outputs = Outputs::default();
    let mut run = |place: &Place, agent: &str, line: &[&str]| {
        let vault = format!("{agent}.vault");
        let ran = place.run(line.iter().chain(&["--vault", &vault, "--timeout-s", "240"]));
        assert_eq!(
            ran.code,
            0,
            "{line:?}: {}",
            &ran.stderr[ran.stderr.len().saturating_sub(2_000)..]
        );
        outputs.add(&line.join(" "), &ran.stderr);
        ran.stdout
    };
    run(&node.place, "alice", &["init"]);
    run(&node.place, "bob", &["init"]);
    let bob = run(&node.place, "bob", &["whoami", "--id"]).trim().to_owned();
    let channel = run(&node.place, "alice", &["channel", "create", "plans"])
        .trim()
        .to_owned();
    run(&node.place, "alice", &["channel", "add", "plans", &bob]);
    run(&node.place, "alice", &["channel", "send", "plans", PLAINTEXT]);
    run(&node.place, "alice", &["channel", "rotate", "plans"]);
    let read = run(&node.place, "bob", &["channel", "read", &channel]);
    assert!(read.contains(PLAINTEXT), "the path carries the marker: {read}");

    let vaults: Vec<PathBuf> = ["alice.vault", "bob.vault"]
        .iter()
        .map(|name| node.place.path(name))
        .collect();
    let Node { place, running, .. } = node;
    let dev_log = running.stderr();
    assert!(
        dev_log.contains("TRACE") && outputs.all().contains("TRACE"),
        "traces were written"
    );
    assert_eq!(running.stop("TERM").0, 0);
    outputs.add("dev", &dev_log);

    // The secret part of the API key: its beginning names the key, and may be shown.
    let (_, secret) = key.rsplit_once('_').expect("sk_live_<id>_<secret>");
    for (name, output) in &outputs.0 {
        for marker in [PLAINTEXT, PASSPHRASE, secret] {
            assert!(!output.contains(marker), "`{marker}` is in the output of `{name}`");
        }
    }
    // The key file is what its owner keeps; everything else that the servers wrote is searched.
    let files = files(&place.path("node"));
    assert!(
        files.iter().any(|file| file.ends_with("api.db")) && files.len() > 4,
        "{files:?}"
    );
    for file in files.iter().filter(|file| !file.ends_with("api-key")).chain(&vaults) {
        let bytes = std::fs::read(file).expect("read");
        for marker in [PLAINTEXT, PASSPHRASE, secret] {
            let found = bytes.windows(marker.len()).any(|window| window == marker.as_bytes());
            assert!(!found, "`{marker}` is in {}", file.display());
        }
    }
}

#[derive(Default)]
struct Outputs(Vec<(String, String)>);

impl Outputs {
    fn add(&mut self, name: &str, output: &str) {
        self.0.push((name.to_owned(), output.to_owned()));
    }

    fn all(&self) -> String {
        self.0.iter().map(|(_, output)| output.as_str()).collect()
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir)
        .expect("read")
        .map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}
