//! A node whose disk fills: it goes on serving readers, starts again as it is, and takes what waits when there is room.

use crate::node::{ANY_PORT, text};
use crate::process::{Place, Ran, Running};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Long enough for a slow machine; what takes longer hangs.
const WITHIN: Duration = Duration::from_secs(300);
const LINES: usize = 45;
const LINE_BYTES: usize = 900_000;

/// A tmpfs on a folder. Unmounted when dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `None`, with a reason printed, where this user may not mount.
    pub(crate) fn mounted(at: PathBuf, mib: u32) -> Option<Self> {
        std::fs::create_dir(&at).expect("a folder");
        let options = format!("size={mib}m,mode=700");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&at)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(at)),
            Ok(output) => {
                eprintln!("skipped: no tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("skipped: no tmpfs: {error}");
                None
            }
        }
    }

    pub(crate) fn grow(&self, mib: u32) {
        let options = format!("remount,size={mib}m");
        let grown = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(grown.expect("mount").success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// `skytale dev`, with its data on the disk; and what it said.
fn dev(place: &mut Place, log: &str) -> (Running, String) {
    let arguments = ["--json", "--log", "warn", "dev", "--dir", "node"];
    let mut running = Running::start(place.command(arguments.into_iter().chain(ANY_PORT)), &place.path(log));
    let told = running.json();
    place.set("SKYTALE_API_URL", text(&told["api_url"]));
    place.set("SKYTALE_API_KEY", text(&told["api_key"]));
    (running, text(&told["relay"]["admin"]))
}

/// The status and body of a GET.
pub(crate) fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.split(' ').nth(1).expect("a status").to_owned(), body.to_owned())
}

fn run(place: &Place, agent: &str, arguments: &[&str], timeout_s: &str) -> Ran {
    let vault = format!("{agent}.vault");
    let mut line = vec!["--json"];
    line.extend(arguments);
    line.extend(["--vault", &vault, "--timeout-s", timeout_s]);
    place.run(line)
}

fn json(place: &Place, agent: &str, arguments: &[&str]) -> Value {
    let ran = run(place, agent, arguments, "120");
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

/// The numbers of the lines that an agent reads.
fn numbers(place: &Place, agent: &str) -> Vec<usize> {
    let ran = run(place, agent, &["channel", "read", "room", "--unread"], "120");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let number = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let text = line["text"].as_str().expect("a text");
        text.trim_start_matches('x').parse().expect("a number")
    };
    ran.stdout.lines().map(number).collect()
}

fn lines(path: &Path) {
    let lines: Vec<String> = (0..LINES)
        .map(|line| format!("{}{line}", "x".repeat(LINE_BYTES)))
        .collect();
    std::fs::write(path, lines.join("\n")).expect("written");
}

#[test]
fn a_node_whose_disk_fills_serves_readers_starts_again_and_takes_what_waits_when_there_is_room() {
    let mut place = Place::new();
    let Some(disk) = Disk::mounted(place.path("node"), 40) else {
        return;
    };
    let (node, admin) = dev(&mut place, "dev.log");
    let [_, bob, carol] = ["alice", "bob", "carol"].map(|agent| text(&json(&place, agent, &["init"])["agent"]));
    let made = json(&place, "alice", &["channel", "create", "room"]);
    json(&place, "alice", &["channel", "add", "room", &bob, &carol]);
    for agent in ["bob", "carol"] {
        assert!(numbers_of_nothing(&place, agent, &text(&made["channel"])));
    }

    lines(&place.path("lines"));
    let send = ["channel", "send", "room", "--lines", "--file", "lines"];
    let sent = run(&place, "alice", &send, "40");
    assert_eq!(
        (sent.code, text(&sent.failure()["code"])),
        (9, "SKY-1024".into()),
        "{}",
        sent.stderr
    );
    let (status, body) = get(&admin, "/readyz");
    assert!(
        status == "503" && body.contains("until there is room"),
        "{status} {body}"
    );
    assert!(get(&admin, "/metrics").1.contains("skytale_store_full 1"));
    let read = numbers(&place, "bob");
    assert!(!read.is_empty() && read.len() < LINES, "{read:?}");
    assert!(read.iter().copied().eq(0..read.len()), "{read:?}");

    // It ends as it should, and starts on the full disk.
    assert_eq!(node.stop("INT").0, 0);
    let (node, admin) = dev(&mut place, "dev-again.log");
    assert!(numbers(&place, "carol").iter().copied().eq(0..read.len()));
    let one = run(&place, "alice", &["channel", "send", "room", "45"], "15");
    assert_eq!(
        (one.code, text(&one.failure()["code"])),
        (9, "SKY-1024".into()),
        "{}",
        one.stderr
    );
    // The API, whose database is on the same disk, is there too.
    assert_eq!(json(&place, "bob", &["whoami"])["agent"], bob.as_str());
    assert_eq!(place.json(&["key", "list"])["keys"].as_array().map(Vec::len), Some(1));

    // Room is made, and nobody restarts anything.
    disk.grow(120);
    let begun = Instant::now();
    while get(&admin, "/readyz").0 != "200" {
        assert!(begun.elapsed() < WITHIN, "{:?}", get(&admin, "/readyz"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let last = run(&place, "alice", &["channel", "send", "room", "46"], "240");
    assert_eq!(last.code, 0, "{}", last.stderr);
    assert!(numbers(&place, "bob").iter().copied().eq(read.len()..LINES + 2));
    assert!(numbers(&place, "carol").iter().copied().eq(read.len()..LINES + 2));
    assert_eq!(node.stop("INT").0, 0);
}

/// Whether the agent is a member and has read all there is: nothing.
fn numbers_of_nothing(place: &Place, agent: &str, channel: &str) -> bool {
    let ran = run(place, agent, &["channel", "read", channel, "--unread"], "120");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    json(place, agent, &["channel", "label", channel, "room"]);
    ran.stdout.is_empty()
}
