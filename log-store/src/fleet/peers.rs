//! Messages between the nodes of a fleet, beside the streams: their times, and their positions in the streams.
//!
//! ```text
//!   skytale.node.here   every five seconds, when a node has (again) found NATS, and when another one asks
//!   skytale.node.ask    from a node that wants to hear the others now
//!
//!   here:  "skyN" | version u8 | node 16 | unix milliseconds u64 | shards u32 | shards x (shard u32, stream u64, sequence u64)
//! ```
//!
//! Numbers are little-endian. None of it decides what an entry is: that is the streams' alone. It decides what a
//! node *refrains from*. Where another node has followed a stream further than the stream goes, the stream was put back to
//! an older copy, and nothing is added to it (`guard.rs`). And entries are given up by a time that a majority of clocks has
//! reached, not by this node's own (`clock.rs`).
//!
//! A message is lost where nobody listens, and that is no harm: the next one says the same.

use super::clock::{Clocks, Voice};
use super::node::Node;
use super::shards::ShardId;
use super::streams;
use async_nats::client::{Request, RequestErrorKind};
use async_nats::{Client, Message};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

const HERE: &str = "skytale.node.here";
const ASK: &str = "skytale.node.ask";
const MAGIC: &[u8; 4] = b"skyN";
const VERSION: u8 = 1;
const FIXED_BYTES: usize = 4 + 1 + 16 + 8 + 4;
const SHARD_BYTES: usize = 4 + 8 + 8;

/// Interval at which a node reports its position.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(5);
/// Interval at which it checks whether it has reached NATS again.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Answers to one question, at least so far apart: nodes may ask all at once.
const ANSWER_EVERY: Duration = Duration::from_millis(50);
/// Time within which a node that has just started hears the others, if there are any.
const HEARD_WITHIN: Duration = Duration::from_millis(300);
/// Time that it waits for others that are there, or were lately, before it believes a stream without them.
const PATIENCE: Duration = Duration::from_secs(3);
/// Nodes that are remembered, at most.
const NODES_MAX: usize = 1_024;

/// A node's id in these messages: of its process, and of no use elsewhere.
pub(super) type NodeNumber = [u8; 16];

/// Report of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Here {
    node: NodeNumber,
    time_ms: u64,
    /// The followed stream of each shard, by its number, and the position in it.
    followed: BTreeMap<u32, Place>,
}

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Tells a stream from one of the same name.
    pub(super) stream: u64,
    pub(super) sequence: u64,
}

impl Here {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(FIXED_BYTES + self.followed.len() * SHARD_BYTES);
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        out.put_slice(&self.node);
        out.put_u64_le(self.time_ms);
        out.put_u32_le(u32::try_from(self.followed.len()).unwrap_or(u32::MAX));
        for (shard, place) in &self.followed {
            out.put_u32_le(*shard);
            out.put_u64_le(place.stream);
            out.put_u64_le(place.sequence);
        }
        out.freeze()
    }

    /// `None` for any other bytes, and for those of a later version.
    fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < FIXED_BYTES || bytes.split_to(4).as_ref() != MAGIC || bytes.get_u8() != VERSION {
            return None;
        }
        let mut node = NodeNumber::default();
        bytes.copy_to_slice(&mut node);
        let time_ms = bytes.get_u64_le();
        let shards = bytes.get_u32_le() as usize;
        if bytes.len() != shards.checked_mul(SHARD_BYTES)? {
            return None;
        }
        let followed = (0..shards).map(|_| {
            let shard = bytes.get_u32_le();
            let (stream, sequence) = (bytes.get_u64_le(), bytes.get_u64_le());
            (shard, Place { stream, sequence })
        });
        let followed = followed.collect();
        Some(Self {
            node,
            time_ms,
            followed,
        })
    }
}

/// Reports heard from the others.
pub(super) struct Peers {
    me: NodeNumber,
    /// The fleet's shards: nothing is remembered of others.
    shards: BTreeSet<u32>,
    heard: Mutex<Heard>,
    pub(super) clocks: Mutex<Clocks>,
    /// The last question.
    asked: Mutex<Asked>,
    /// Somebody was heard.
    news: Notify,
    /// Says where this node is, now.
    tell: Notify,
}

/// Time at which the others were asked.
#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    /// Connection to NATS, counted from the first; 0 before the first question.
    connection: u64,
    /// Somebody listened to the first question.
    anybody: bool,
}

#[derive(Default)]
struct Heard {
    /// Furthest position of any node in each shard's stream. A stream never gets shorter, so that this stays true.
    furthest: BTreeMap<u32, Place>,
    nodes: BTreeMap<NodeNumber, Instant>,
}

impl Peers {
    pub(super) fn new(shards: &[ShardId], tolerance: Duration) -> Self {
        let mut me = NodeNumber::default();
        // Without randomness two nodes may take each other for themselves, and hear less.
        let _ = getrandom::fill(&mut me);
        Self {
            me,
            shards: shards.iter().map(|shard| shard.number()).collect(),
            heard: Mutex::default(),
            clocks: Mutex::new(Clocks::new(tolerance)),
            asked: Mutex::new(Asked {
                at: Instant::now(),
                connection: 0,
                anybody: false,
            }),
            news: Notify::new(),
            tell: Notify::new(),
        }
    }

    /// Returns the furthest position of another node in this very stream, as far as is known.
    pub(super) fn furthest(&self, shard: ShardId, stream: u64) -> Option<u64> {
        let heard = self.heard.lock();
        let place = heard.furthest.get(&shard.number())?;
        (place.stream == stream).then_some(place.sequence)
    }

    /// Returns the number of other nodes that were heard lately.
    pub(super) fn others(&self) -> usize {
        let heard = self.heard.lock();
        heard.nodes.values().filter(|at| at.elapsed() < 3 * TELL_EVERY).count()
    }

    /// Whether all who were heard lately have answered the last question.
    fn is_answered(&self, asked: Asked) -> bool {
        let heard = self.heard.lock();
        let lately = |at: &&Instant| **at + 3 * TELL_EVERY > asked.at;
        let mut nodes = heard.nodes.values().filter(lately).peekable();
        match nodes.peek() {
            None => !asked.anybody,
            Some(_) => nodes.all(|at| *at >= asked.at),
        }
    }

    fn hear(&self, here: Here, now_ms: u64) {
        if here.node == self.me {
            return;
        }
        let mut heard = self.heard.lock();
        if heard.nodes.len() >= NODES_MAX && !heard.nodes.contains_key(&here.node) {
            let oldest = heard.nodes.iter().min_by_key(|(_, at)| **at).map(|(node, _)| *node);
            oldest.and_then(|oldest| heard.nodes.remove(&oldest));
        }
        heard.nodes.insert(here.node, Instant::now());
        self.news.notify_waiters();
        let ours = here.followed.into_iter();
        for (shard, place) in ours.filter(|(shard, _)| self.shards.contains(shard)) {
            let furthest = heard.furthest.entry(shard).or_insert(place);
            // A stream that was made later takes the place of the one before.
            if (place.stream, place.sequence) > (furthest.stream, furthest.sequence) {
                *furthest = place;
            }
        }
        drop(heard);
        self.clocks.lock().hear(Voice::Node(here.node), here.time_ms, now_ms);
    }
}

impl Node {
    /// The connection to NATS that there is now, counted from the first. The streams' state on an earlier one proves
    /// nothing about their state now.
    pub(super) fn connection(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Asks for the first time, before this node listens to questions itself: so the servers know whether anybody does.
    async fn ask_first(&self) {
        while self.connected().is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let question = Request::new()
            .payload(Bytes::copy_from_slice(&self.peers.me))
            .timeout(Some(ANSWER_EVERY));
        let (at, connection) = (Instant::now(), self.connection());
        let asked = self.client.send_request(ASK, question).await;
        // The answers go to all, and none to the question.
        let anybody = !matches!(asked, Err(error) if error.kind() == RequestErrorKind::NoResponders);
        *self.peers.asked.lock() = Asked {
            at,
            connection,
            anybody,
        };
        self.peers.news.notify_waiters();
    }

    /// Waits until the other nodes have been heard on this connection: those who were heard lately; or, after the first
    /// question, those that answer.
    pub(super) async fn hear_others(&self) {
        let (peers, connection) = (&self.peers, self.connection());
        let is_new = {
            let mut asked = peers.asked.lock();
            let is_new = asked.connection > 0 && asked.connection != connection;
            if is_new {
                *asked = Asked {
                    at: Instant::now(),
                    connection,
                    anybody: false,
                };
            }
            is_new
        };
        if is_new {
            send(&self.client, ASK, Bytes::copy_from_slice(&peers.me)).await;
            peers.tell.notify_one();
        }
        let all = async {
            loop {
                let news = peers.news.notified();
                let asked = *peers.asked.lock();
                if asked.connection > 0 && peers.is_answered(asked) {
                    // Of several that are new to this node the first to answer may know the least.
                    return asked.anybody.then_some(asked.at + HEARD_WITHIN);
                }
                news.await;
            }
        };
        // Those who do not answer may be gone.
        if let Ok(Some(until)) = tokio::time::timeout(PATIENCE, all).await {
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Tells and listens until the node ends.
pub(super) async fn tell_all(node: Arc<Node>) {
    let Ok(mut here) = node.client.subscribe(HERE).await else {
        return tracing::warn!("the other nodes of the fleet cannot be heard");
    };
    let first = async {
        node.ask_first().await;
        node.client.subscribe(ASK).await
    };
    // Those who answer are heard meanwhile: messages of a subscription are kept until they are taken.
    let ask = tokio::select! {
        () = node.ended.cancelled() => return,
        ask = first => ask,
    };
    let Ok(mut ask) = ask else {
        return tracing::warn!("the other nodes of the fleet cannot be heard");
    };
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = Turn {
        node: &node,
        told: None,
        asked: 0,
    };
    loop {
        tokio::select! {
            () = node.ended.cancelled() => return,
            _ = looks.tick() => turn.look().await,
            Some(message) = here.next() => turn.hear(message),
            Some(message) = ask.next() => turn.answer(&message).await,
            () = node.peers.tell.notified() => turn.tell().await,
        }
    }
}

/// State of one node's reports.
struct Turn<'a> {
    node: &'a Arc<Node>,
    told: Option<Instant>,
    /// Shard whose leader is asked for the time next.
    asked: usize,
}

impl Turn<'_> {
    async fn look(&mut self) {
        if self.node.connected().is_err() {
            return;
        }
        let asked = self.node.peers.asked.lock().connection;
        if asked != self.node.connection() {
            self.node.handles.values().for_each(|shard| shard.look.notify_one());
        }
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.tell().await;
        }
    }

    /// Says where this node is, and asks one of the servers how late it is.
    async fn tell(&mut self) {
        let node = self.node;
        self.told = Some(Instant::now());
        let followed = node.handles.values().filter_map(|shard| {
            let place = *shard.place.lock();
            (place.sequence > 0).then(|| (shard.id.number(), place))
        });
        let here = Here {
            node: node.peers.me,
            time_ms: node.config.now_ms(),
            followed: followed.collect(),
        };
        send(&node.client, HERE, here.encode()).await;
        let shards = node.shards.all();
        self.asked = (self.asked + 1) % shards.len().max(1);
        if let Some(shard) = shards.get(self.asked) {
            let (node, stream) = (Arc::clone(node), shard.stream());
            self.node.tasks.spawn(async move {
                let asked = node.config.now_ms();
                let Some((server, time_ms)) = streams::server_time(&node.context, &stream).await else {
                    return;
                };
                let answered = node.config.now_ms();
                // It was that late somewhere between the question and the answer.
                let now_ms = asked / 2 + answered / 2;
                node.peers.clocks.lock().hear(Voice::Server(server), time_ms, now_ms);
                node.judge_clocks();
            });
        }
        node.judge_clocks();
    }

    fn hear(&self, message: Message) {
        let Some(here) = Here::decode(message.payload) else {
            return;
        };
        let node = self.node;
        node.peers.hear(here, node.config.now_ms());
    }

    async fn answer(&mut self, message: &Message) {
        let is_mine = message.payload.as_ref() == self.node.peers.me;
        if !is_mine && self.told.is_none_or(|told| told.elapsed() >= ANSWER_EVERY) {
            self.tell().await;
        }
    }
}

/// Asks all nodes for their positions, and listens to the answers for so long.
pub(super) async fn overhear(
    client: &Client,
    within: Duration,
    mut hear: impl FnMut(NodeNumber, u64, BTreeMap<u32, Place>),
) -> Result<(), String> {
    let mut here = client.subscribe(HERE).await.map_err(|error| error.to_string())?;
    let mut me = NodeNumber::default();
    let _ = getrandom::fill(&mut me);
    send(client, ASK, Bytes::copy_from_slice(&me)).await;
    client.flush().await.map_err(|error| error.to_string())?;
    let until = Instant::now() + within;
    let mut nodes = BTreeSet::new();
    while let Ok(Some(message)) = tokio::time::timeout_at(until, here.next()).await {
        if let Some(said) = Here::decode(message.payload)
            && (nodes.contains(&said.node) || nodes.len() < NODES_MAX)
        {
            nodes.insert(said.node);
            hear(said.node, said.time_ms, said.followed);
        }
    }
    Ok(())
}

async fn send(client: &Client, subject: &'static str, payload: Bytes) {
    if let Err(error) = client.publish(subject, payload).await {
        tracing::debug!(%error, "cannot reach the other nodes of the fleet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn here(node: u8, followed: &[(u32, u64, u64)]) -> Here {
        let place = |(shard, stream, sequence): &(u32, u64, u64)| {
            (
                *shard,
                Place {
                    stream: *stream,
                    sequence: *sequence,
                },
            )
        };
        Here {
            node: [node; 16],
            time_ms: 7,
            followed: followed.iter().map(place).collect(),
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_heard_and_any_other_bytes_are_not(
            followed in proptest::collection::vec((any::<u32>(), any::<u64>(), any::<u64>()), 0..6),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let told = here(3, &followed);
            let encoded = told.encode();
            prop_assert_eq!(Here::decode(encoded.clone()), Some(told));
            prop_assert_eq!(Here::decode(encoded.slice(..cut.index(encoded.len()))), None);
            let _ = Here::decode(bytes.clone().into());
            let with_head: Vec<u8> = encoded[..5].iter().copied().chain(bytes).collect();
            let _ = Here::decode(with_head.into());
        }
    }

    #[test]
    fn the_furthest_place_of_the_newest_stream_counts() {
        let shard = ShardId {
            region: skytale_proto::Region(0),
            index: 3,
        };
        let peers = Peers::new(&[shard], Duration::from_secs(30));
        let number = shard.number();
        peers.hear(here(1, &[(number, 5, 40)]), 7);
        peers.hear(here(2, &[(number, 5, 30)]), 7);
        assert_eq!(peers.furthest(shard, 5), Some(40));
        assert_eq!(peers.furthest(shard, 4), None, "another stream");
        peers.hear(here(1, &[(number, 6, 2)]), 7);
        assert_eq!((peers.furthest(shard, 5), peers.furthest(shard, 6)), (None, Some(2)));
        peers.hear(
            Here {
                node: peers.me,
                ..here(0, &[(number, 6, 9)])
            },
            7,
        );
        assert_eq!(peers.furthest(shard, 6), Some(2), "its own words are no news");
        let made_up: Vec<(u32, u64, u64)> = (1_000..2_000).map(|shard| (shard, 1, 1)).collect();
        peers.hear(here(3, &made_up), 7);
        assert_eq!(
            peers.heard.lock().furthest.len(),
            1,
            "nothing of shards that the fleet has not"
        );
    }
}
