//! Authors who append as an outbox does, and what they learned.

use super::super::nodes::reaches;
use super::super::script::*;
use super::{random, say};
use skytale_log_store::{FleetStore, LogStore as _, StoreError};
use skytale_proto::{AgentId, ChannelId, Detail, Frame, FrameId, LogId, Offset, Record};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(90);

/// A frame that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    pub(super) log: LogId,
    pub(super) offset: Offset,
    pub(super) id: FrameId,
    /// It was an entry before, by an attempt that was not answered.
    pub(super) again: bool,
    /// Agents that it welcomes.
    pub(super) recipients: Vec<AgentId>,
}

impl Acknowledged {
    pub(super) fn line(&self) -> String {
        let recipients: Vec<String> = self.recipients.iter().map(ToString::to_string).collect();
        format!(
            "acked {} {} {} {} .",
            self.log,
            self.offset,
            self.id,
            recipients.join(",")
        )
    }

    /// A line that a kill cut off has no dot at its end, and promises nothing.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["acked", log, offset, id, recipients, "."] = words[..] else {
            return None;
        };
        let recipients = recipients.split(',').filter(|recipient| !recipient.is_empty());
        Some(Self {
            log: log.parse().expect("a log id"),
            offset: Offset::new(offset.parse().expect("an offset")),
            id: id.parse().expect("a frame id"),
            again: false,
            recipients: recipients.map(|id| id.parse().expect("an agent id")).collect(),
        })
    }
}

/// Callback by which an author reports acknowledged frames, at once.
pub(super) type Tell = Arc<dyn Fn(&Acknowledged) + Send + Sync>;

/// Authors at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    authors: Vec<(Arc<AtomicU64>, JoinHandle<Vec<Acknowledged>>)>,
}

struct Author {
    node: Arc<FleetStore>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    tell: Tell,
    acknowledged: Vec<Acknowledged>,
}

impl Load {
    /// Some authors at each node.
    pub(super) fn start(nodes: &[&Arc<FleetStore>], authors: usize) -> Self {
        Self::start_telling(nodes, authors, Arc::new(|_| {}))
    }

    pub(super) fn start_telling(nodes: &[&Arc<FleetStore>], authors: usize, tell: Tell) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let of_each = nodes.iter().flat_map(|node| (0..authors).map(|_| (*node).clone()));
        let authors = of_each.map(|node| {
            let count = Arc::new(AtomicU64::new(0));
            let mut author = Author {
                node,
                stop: stop.clone(),
                count: count.clone(),
                tell: tell.clone(),
                acknowledged: Vec::new(),
            };
            let work = tokio::spawn(async move {
                while author.channel().await.is_some() {}
                author.acknowledged
            });
            (count, work)
        });
        Self {
            authors: authors.collect(),
            stop,
        }
    }

    /// Waits until each author learned of one more frame.
    pub(super) async fn goes_on(&self) {
        let begun = Instant::now();
        for (count, _) in &self.authors {
            let before = count.load(Ordering::Relaxed);
            while count.load(Ordering::Relaxed) == before {
                assert!(begun.elapsed() < HANGING, "it does not go on");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Returns the acknowledgements of each author, in its order.
    pub(super) async fn finish(self) -> Vec<Vec<Acknowledged>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = Vec::new();
        for (_, work) in self.authors {
            told.push(work.await.expect("the author ends"));
        }
        told
    }
}

impl Author {
    /// A channel, with bundles among its messages; `None` at the end.
    async fn channel(&mut self) -> Option<()> {
        let channel = ChannelId::generate();
        self.append(&create(channel)).await?;
        let mut parent = 1;
        for round in 0..Self::channel_length() {
            if round % 20 == 19 {
                let joiners = [someone(), someone()];
                for joiner in joiners {
                    self.append(&key_package(joiner, false)).await?;
                    self.append(&claim(joiner)).await?;
                }
                parent = self.append(&bundle(channel, parent, &joiners)).await?.get();
            }
            let length = usize::from(round % 60) * 40;
            self.append(&message(channel, parent, &vec![round; length])).await?;
        }
        Some(())
    }

    /// Some channels are long enough to be in several segments.
    fn channel_length() -> u8 {
        if random(3) == 0 { 240 } else { 40 }
    }

    /// Appends until it is acknowledged. `None` at the end, or where it cannot be.
    async fn append(&mut self, frame: &Frame) -> Option<Offset> {
        while !self.stop.load(Ordering::Relaxed) {
            let accepted = match append(&self.node, frame).await {
                Ok(accepted) => accepted,
                Err(error) if error.code().is_retryable() => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                // The scenario finds out why.
                Err(error) => {
                    say(format_args!("an author gives up: {error}"));
                    return None;
                }
            };
            let header = frame.header();
            let acknowledged = Acknowledged {
                log: header.log,
                offset: accepted.offset,
                id: header.id,
                again: accepted.duplicate,
                recipients: match &header.detail {
                    Detail::Commit { recipients, .. } => recipients.clone(),
                    _ => Vec::new(),
                },
            };
            (self.tell)(&acknowledged);
            self.acknowledged.push(acknowledged);
            self.count.fetch_add(1, Ordering::Relaxed);
            return Some(accepted.offset);
        }
        None
    }
}

/// All that was acknowledged, by author.
#[derive(Default)]
pub(super) struct History {
    authors: Vec<Vec<Acknowledged>>,
}

impl History {
    pub(super) fn add(&mut self, authors: Vec<Vec<Acknowledged>>) {
        for author in &authors {
            let mut last: HashMap<LogId, Offset> = HashMap::new();
            for acknowledged in author {
                let before = last.insert(acknowledged.log, acknowledged.offset);
                assert!(before < Some(acknowledged.offset), "an author's order");
            }
        }
        self.authors.extend(authors);
    }

    /// Frames acknowledged.
    pub(super) fn len(&self) -> usize {
        self.authors.iter().map(Vec::len).sum()
    }

    /// Frames whose first attempt got there, and was not answered.
    pub(super) fn again(&self) -> usize {
        self.all().filter(|acknowledged| acknowledged.again).count()
    }

    fn all(&self) -> impl Iterator<Item = &Acknowledged> {
        self.authors.iter().flatten()
    }

    /// The logs of all that was acknowledged, and of those who were welcomed.
    pub(super) fn logs(&self) -> BTreeSet<LogId> {
        let recipients = self.all().flat_map(|acknowledged| &acknowledged.recipients);
        let channels = self.all().map(|acknowledged| acknowledged.log);
        channels.chain(recipients.map(|recipient| recipient.log())).collect()
    }

    /// Returns the acknowledged frames that are missing, although their places were not given up; frames in a log twice
    /// are asserted not to be.
    pub(super) async fn lost(&self, store: &FleetStore) -> Vec<(LogId, FrameId)> {
        let mut logs: BTreeMap<LogId, (Offset, HashMap<FrameId, Offset>)> = BTreeMap::new();
        for log in self.logs() {
            let (first, records) = kept(store, log).await;
            let mut places = HashMap::new();
            for record in records {
                let id = Frame::decode(record.payload).expect("a frame").header().id;
                assert_eq!(places.insert(id, record.offset), None, "an entry twice in {log}");
            }
            logs.insert(log, (first, places));
        }
        let mut lost = Vec::new();
        for acknowledged in self.all() {
            let (first, places) = &logs[&acknowledged.log];
            if acknowledged.offset >= *first && places.get(&acknowledged.id) != Some(&acknowledged.offset) {
                lost.push((acknowledged.log, acknowledged.id));
            }
            for recipient in &acknowledged.recipients {
                let channel = acknowledged.log.channel().expect("a channel");
                let welcome = FrameId::of_welcome(&channel, acknowledged.offset, recipient);
                let (first, places) = &logs[&recipient.log()];
                // A recipient has one Welcome alone.
                if *first == Offset::FIRST && !places.contains_key(&welcome) {
                    lost.push((recipient.log(), welcome));
                }
            }
        }
        lost
    }

    /// Nothing is lost at either, both serve, and they have the same.
    pub(super) async fn holds(&self, one: &FleetStore, two: &FleetStore) {
        for store in [one, two] {
            assert_eq!(store.health().stopped, None);
        }
        the_same(one, two, &self.logs()).await;
        let lost = self.lost(one).await;
        assert!(
            lost.is_empty(),
            "acknowledged, and lost: {} of {}: {lost:?}",
            lost.len(),
            self.len()
        );
    }
}

/// The entries of a log that were not given up, and where they begin.
pub(super) async fn kept(store: &FleetStore, log: LogId) -> (Offset, Vec<Record>) {
    let mut found: Vec<Record> = Vec::new();
    let mut after = Offset::ZERO;
    loop {
        match store.read(log, after, 1 << 20, 1_000).await {
            Ok(batch) => {
                for record in batch.records.into_iter().flat_map(Record::decode_batch) {
                    let record = record.expect("a whole record");
                    after = after.next();
                    assert_eq!(record.offset, after, "dense");
                    found.push(record);
                }
                if batch.last == batch.head {
                    let first = found.first().map_or(after.next(), |record| record.offset);
                    return (first, found);
                }
            }
            // Given up while it was read: the rest is read once more.
            Err(StoreError::Trimmed { first }) => {
                found.clear();
                after = first.previous();
            }
            Err(error) => panic!("{log}: {error}"),
        }
    }
}

/// Two nodes have the same entries of all logs, as soon as both have got there.
pub(super) async fn the_same(one: &FleetStore, two: &FleetStore, logs: &BTreeSet<LogId>) {
    for log in logs {
        let mut head = Offset::ZERO;
        for store in [one, two] {
            head = head.max(*store.watch_head(*log).await.expect("a watch").borrow());
        }
        reaches(one, *log, head).await;
        reaches(two, *log, head).await;
        let begun = Instant::now();
        let (one, two) = loop {
            let (one, two) = (kept(one, *log).await, kept(two, *log).await);
            // One has given up more than the other for as long as the other has not followed the Trim.
            if one.0 == two.0 {
                break (one.1, two.1);
            }
            assert!(
                begun.elapsed() < HANGING,
                "{log} begins at {} and at {}",
                one.0.get(),
                two.0.get()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(one == two, "the nodes differ in {log}");
    }
}
