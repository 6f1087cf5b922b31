//! The process is killed at any time: what it acknowledged is there, in order, once.
//!
//! The tests run their own binary again as the writer; `ops/test/os-crash.sh` runs the same writer on a file system
//! whose durable bytes it copies, and the same check on the copy. The environment sets the child's work:
//!
//! | variable | means |
//! |---|---|
//! | `SKYTALE_TEST_STORE` | the store's folder |
//! | `SKYTALE_TEST_ROLE` | `write` or `check` |
//! | `SKYTALE_TEST_ACKED` | for `check`: the file that the writer's output went to |
//! | `SKYTALE_TEST_NO_SYNC` | for `write`: acknowledge without making anything durable |

use super::script::*;
use skytale_log_store::{LocalConfig, LocalStore, LogStore as _};
use skytale_proto::{AgentId, ChannelId, Frame, FrameId, LogId, Offset};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const STORE: &str = "SKYTALE_TEST_STORE";
const ROLE: &str = "SKYTALE_TEST_ROLE";
const ACKED: &str = "SKYTALE_TEST_ACKED";
const NO_SYNC: &str = "SKYTALE_TEST_NO_SYNC";
const KILLS: u32 = 12;
/// Kills until a segment was regrouped, at most: a slow disk takes little in each run.
const KILLS_MAX: u32 = 100;
const WRITERS: u8 = 32;

fn config(dir: &Path) -> LocalConfig {
    LocalConfig {
        segment_bytes: if std::env::var_os(NO_SYNC).is_some() {
            64 << 20
        } else {
            512 << 10
        },
        cache_bytes: 64 * 1024,
        states_max: 8,
        // Segments are rewritten all the time.
        regroup_bytes_per_second: u64::MAX,
        ..LocalConfig::new(dir)
    }
}

/// The child: what the environment says. Without it, nothing.
#[test]
fn child() {
    let (Ok(dir), Ok(role)) = (std::env::var(STORE), std::env::var(ROLE)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    match role.as_str() {
        "write" => runtime.block_on(write(Path::new(&dir))),
        "check" => {
            let acked = std::env::var(ACKED).expect("the acknowledged entries");
            let acked = std::fs::read_to_string(acked).expect("read");
            let found = runtime.block_on(check(Path::new(&dir), &Acked::parse(&acked)));
            println!("\n{} acknowledged, {} lost", found.acknowledged, found.lost.len());
            println!("{} segments regrouped", grouped(Path::new(&dir)));
            assert!(
                found.lost.is_empty(),
                "lost: {:?}",
                &found.lost[..found.lost.len().min(5)]
            );
        }
        other => panic!("no such role: {other}"),
    }
}

/// Appends without end, and prints what was acknowledged.
async fn write(dir: &Path) {
    let store = match std::env::var_os(NO_SYNC) {
        None => open(config(dir)).await,
        Some(_) => LocalStore::open_without_sync(config(dir))
            .await
            .expect("the store opens"),
    };
    let store = Arc::new(store);
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write_one(store.clone(), writer)));
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("goes on until it is killed");
    }
}

/// One writer: channels with messages, and now and then a bundle.
async fn write_one(store: Arc<LocalStore>, writer: u8) {
    loop {
        let channel = ChannelId::generate();
        let mut parent = 1;
        acknowledged(&store, &create(channel)).await;
        for index in 0..200u8 {
            if index % 50 == 49 {
                let agent = AgentId::from_bytes([writer.wrapping_mul(8).wrapping_add(index / 50 + 10); 32]);
                acknowledged(&store, &key_package(agent, false)).await;
                acknowledged(&store, &claim(agent)).await;
                parent = acknowledged(&store, &bundle(channel, parent, &[agent])).await.get();
            }
            let body = vec![index; usize::from(index) * 20];
            acknowledged(&store, &message(channel, parent, &body)).await;
        }
    }
}

async fn acknowledged(store: &LocalStore, frame: &Frame) -> Offset {
    let accepted = accept(store, frame).await;
    let header = frame.header();
    let line = format!("\nacked {} {} {} .\n", header.log, accepted.offset, header.id);
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .expect("printed");
    accepted.offset
}

/// Acknowledgement that a writer reported.
#[derive(Default)]
struct Acked {
    logs: BTreeMap<LogId, BTreeMap<Offset, FrameId>>,
}

impl Acked {
    fn parse(text: &str) -> Self {
        let mut acked = Self::default();
        for line in text.lines() {
            acked.take(line);
        }
        acked
    }

    /// A line that the kill cut off has no dot at its end, and promises nothing.
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["acked", log, offset, id, "."] = words[..] {
            let log = log.parse().expect("a log id");
            let offset = Offset::new(offset.parse().expect("an offset"));
            let twice = self
                .logs
                .entry(log)
                .or_default()
                .insert(offset, id.parse().expect("a frame id"));
            assert_eq!(twice, None, "one offset was acknowledged twice");
        }
    }
}

/// Segments that are regrouped: their headers say so.
fn grouped(dir: &Path) -> usize {
    let is_grouped = |path: &std::path::PathBuf| std::fs::read(path).expect("read").get(20) == Some(&1);
    segments(dir).iter().filter(|path| is_grouped(path)).count()
}

struct Found {
    acknowledged: usize,
    lost: Vec<(LogId, Offset)>,
}

/// Compares a store with what was acknowledged. Order, density and doubles are asserted; losses are given.
async fn check(dir: &Path, acked: &Acked) -> Found {
    let store = open(config(dir)).await;
    assert_eq!(*store.stopped().borrow(), None);
    let mut found = Found {
        acknowledged: 0,
        lost: Vec::new(),
    };
    let mut welcomes: HashMap<LogId, HashSet<FrameId>> = HashMap::new();
    for (log, entries_acked) in &acked.logs {
        let present = entries(&store, *log, Offset::ZERO).await.expect("read");
        let mut ids = HashSet::new();
        let mut at_offset = HashMap::new();
        for record in present {
            let frame = Frame::decode(record.payload).expect("a frame");
            let header = frame.header();
            assert_eq!(header.log, *log);
            assert!(ids.insert(header.id), "twice in {log}: {}", header.id);
            at_offset.insert(record.offset, header.id);
            if let skytale_proto::Detail::Commit { recipients, .. } = &header.detail {
                for recipient in recipients {
                    let channel = log.channel().expect("a channel");
                    let id = FrameId::of_welcome(&channel, record.offset, recipient);
                    welcomes.entry(recipient.log()).or_default().insert(id);
                }
            }
        }
        for (offset, id) in entries_acked {
            found.acknowledged += 1;
            if at_offset.get(offset) != Some(id) {
                found.lost.push((*log, *offset));
            }
        }
    }
    for (log, expected) in welcomes {
        let mut present = HashSet::new();
        for record in entries(&store, log, Offset::ZERO).await.expect("read") {
            let frame = Frame::decode(record.payload).expect("a frame");
            assert!(present.insert(frame.header().id), "a Welcome twice");
        }
        assert!(expected.is_subset(&present), "a bundle's Welcome is missing");
    }
    close(store).await;
    found
}

fn start_writer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "local::crash::child", "--nocapture"])
        .env(STORE, dir)
        .env(ROLE, "write")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the writer starts")
}

/// Lets a writer run until it has acknowledged something and a while longer, and kills it.
fn run_and_kill(dir: &Path, acked: &mut Acked, longer: Duration) {
    let mut child = start_writer(dir);
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut first = None;
    for line in lines.by_ref() {
        let line = line.expect("read");
        acked.take(&line);
        if line.starts_with("acked") {
            first = Some(line);
            break;
        }
    }
    assert!(first.is_some(), "the writer ended before it acknowledged anything");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(longer);
        child.kill().expect("SIGKILL");
        child.wait().expect("gone");
    });
    for line in lines {
        acked.take(&line.expect("read"));
    }
    killer.join().expect("killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_acknowledged() {
    let dir = TempDir::new().expect("a folder");
    let mut acked = Acked::default();
    let mut kill = 0;
    while kill < KILLS || grouped(dir.path()) == 0 {
        assert!(kill < KILLS_MAX, "it was not killed while it regrouped");
        // A random id is as good a source of a random time as any.
        let random = ChannelId::generate().as_bytes()[15];
        run_and_kill(dir.path(), &mut acked, Duration::from_millis(u64::from(random)));
        if kill % 4 == 3 {
            std::fs::remove_dir_all(dir.path().join("index")).expect("removed");
        }
        let found = check(dir.path(), &acked).await;
        assert!(found.lost.is_empty(), "kill {kill}: lost {:?}", found.lost);
        assert!(found.acknowledged > 0);
        kill += 1;
    }
}
