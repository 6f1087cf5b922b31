//! A node's process is killed at any time: what it acknowledged is in the streams, its replica goes on where it stood, and the
//! others never notice.
//!
//! The tests run their own binary again as the node; the environment says which servers and which folder it has.

use super::cluster::Account;
use super::nodes::agree;
use super::script::*;
use skytale_log_store::{FleetStore, LogStore as _};
use skytale_proto::{AgentId, ChannelId, Frame, FrameId, LogId, Offset};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const FOLDER: &str = "SKYTALE_TEST_FLEET_FOLDER";
const USER: &str = "SKYTALE_TEST_FLEET_USER";
const SERVERS: &str = "SKYTALE_TEST_FLEET_SERVERS";
const KILLS: u32 = 5;
const WRITERS: u32 = 6;

/// The child: a node that appends without end, and prints what was acknowledged. Without the environment's words, nothing.
#[test]
fn child() {
    let (Ok(folder), Ok(user), Ok(servers)) = (std::env::var(FOLDER), std::env::var(USER), std::env::var(SERVERS))
    else {
        return;
    };
    let account = Account {
        user,
        servers: servers.split(',').map(str::to_owned).collect(),
        nodes_file: Path::new(&folder).join("nodes"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = Arc::new(open(settings(&account, Path::new(&folder))).await);
        let writers = (0..WRITERS).map(|_| tokio::spawn(write(store.clone())));
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("goes on until it is killed");
        }
    });
}

async fn write(store: Arc<FleetStore>) {
    loop {
        let channel = ChannelId::generate();
        acknowledged(&store, &create(channel)).await;
        let mut parent = 1;
        for round in 0..40u8 {
            if round % 10 == 9 {
                let joiners = [someone(), someone()];
                for joiner in joiners {
                    acknowledged(&store, &key_package(joiner, false)).await;
                    acknowledged(&store, &claim(joiner)).await;
                }
                parent = acknowledged(&store, &bundle(channel, parent, &joiners)).await.get();
            }
            acknowledged(&store, &message(channel, parent, &[round; 500])).await;
        }
    }
}

async fn acknowledged(store: &FleetStore, frame: &Frame) -> Offset {
    let accepted = accept(store, frame).await;
    let header = frame.header();
    let recipients: Vec<String> = match &header.detail {
        skytale_proto::Detail::Commit { recipients, .. } => recipients.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let line = format!(
        "\nacked {} {} {} {} .\n",
        header.log,
        accepted.offset,
        header.id,
        recipients.join(",")
    );
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .expect("printed");
    accepted.offset
}

/// Acknowledgement that the child reported.
#[derive(Default)]
struct Acked {
    logs: BTreeMap<LogId, HashMap<Offset, FrameId>>,
    welcomes: Vec<(AgentId, FrameId)>,
}

impl Acked {
    /// A line that the kill cut off has no dot at its end, and promises nothing.
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["acked", log, offset, id, recipients, "."] = words[..] {
            let log: LogId = log.parse().expect("a log id");
            let offset = Offset::new(offset.parse().expect("an offset"));
            let twice = self
                .logs
                .entry(log)
                .or_default()
                .insert(offset, id.parse().expect("a frame id"));
            assert_eq!(twice, None, "one offset was acknowledged twice");
            for recipient in recipients.split(',').filter(|recipient| !recipient.is_empty()) {
                let recipient: AgentId = recipient.parse().expect("an agent id");
                let channel = log.channel().expect("a channel");
                self.welcomes
                    .push((recipient, FrameId::of_welcome(&channel, offset, &recipient)));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_comes_back_with_what_the_others_have() {
    let (account, _streams) = shared_account().await;
    let (mine, other) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let witness = open(settings(&account, other.path())).await;
    let mut acked = Acked::default();
    for kill in 0..rounds(KILLS) {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "fleet::killed::child", "--nocapture"])
            .env(FOLDER, mine.path())
            .env(USER, &account.user)
            .env(SERVERS, account.servers.join(","))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the node starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut begun = false;
        for line in lines.by_ref() {
            let line = line.expect("read");
            acked.take(&line);
            // The first node is not killed before a bundle is acknowledged, however slow the disks are.
            begun = line.starts_with("acked") && !acked.welcomes.is_empty();
            if begun {
                break;
            }
        }
        assert!(begun, "the node ended before it acknowledged enough");
        let random = u64::from(ChannelId::generate().as_bytes()[15]);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200 + 4 * random));
            child.kill().expect("SIGKILL");
            child.wait().expect("gone");
        });
        for line in lines {
            acked.take(&line.expect("read"));
        }
        killer.join().expect("killed");
        if kill % 2 == 1 {
            std::fs::remove_dir_all(mine.path().join("index")).expect("removed");
        }
        let back = open(settings(&account, mine.path())).await;
        for (log, offsets) in &acked.logs {
            let entries = agree(&back, &witness, *log).await;
            for (offset, id) in offsets {
                let record = entries
                    .get(offset.get() as usize - 1)
                    .expect("acknowledged, and not there");
                let frame = Frame::decode(record.payload.clone()).expect("a frame");
                assert_eq!((record.offset, frame.header().id), (*offset, *id));
            }
        }
        for (recipient, id) in &acked.welcomes {
            let entries = agree(&back, &witness, recipient.log()).await;
            let ids: Vec<FrameId> = entries
                .iter()
                .map(|record| Frame::decode(record.payload.clone()).expect("a frame").header().id)
                .collect();
            assert_eq!(ids[2..], [*id], "an acknowledged bundle's Welcome, once");
        }
        back.close().await.expect("closed");
    }
    assert!(!acked.welcomes.is_empty(), "bundles were acknowledged");
    witness.close().await.expect("closed");
}
