//! Readers: at one node, or at any with the same cursor.

use super::chance::Chance;
use super::wires::HANGING;
use skytale_history::{Entry, EntryKind, Event};
use skytale_log_store::{FleetStore, LogStore as _, StoreError};
use skytale_proto::{AgentId, ChannelId, Detail, Digest, Frame, Offset, Record};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One that reads a channel from its beginning.
pub(crate) struct Reader {
    pub(crate) agent: AgentId,
    channel: ChannelId,
    nodes: Vec<Arc<FleetStore>>,
    cursor: Offset,
    chance: Chance,
    pub(crate) digest: Digest,
    pub(crate) events: Vec<Event>,
}

impl Reader {
    /// It asks any of the nodes, each time another.
    pub(crate) fn new(agent: AgentId, channel: ChannelId, nodes: Vec<Arc<FleetStore>>, chance: Chance) -> Self {
        Self {
            agent,
            channel,
            nodes,
            cursor: Offset::ZERO,
            chance,
            digest: Digest::genesis(&channel.log()),
            events: vec![Event::Reads {
                agent,
                channel,
                from: Offset::FIRST,
            }],
        }
    }

    /// Reads until it is asked to stop.
    pub(crate) async fn read(mut self, over: Arc<AtomicBool>) -> Self {
        while !over.load(Ordering::Relaxed) {
            if !self.step().await {
                let pause = self.chance.between(Duration::from_millis(1), Duration::from_millis(30));
                tokio::time::sleep(pause).await;
            }
        }
        self
    }

    /// Reads on to an offset, and says so.
    pub(crate) async fn finish(mut self, at: Offset) -> Self {
        let begun = Instant::now();
        while self.cursor < at {
            if !self.step().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(
                begun.elapsed() < HANGING,
                "{} is not shown what is after {}",
                self.agent,
                self.cursor
            );
        }
        self.events.push(Event::Finished {
            agent: self.agent,
            channel: self.channel,
            at: self.cursor,
        });
        self
    }

    /// Asks one node once; whether there was something.
    async fn step(&mut self) -> bool {
        let node = self.nodes[self.chance.below(self.nodes.len())].clone();
        let batch = match node.read(self.channel.log(), self.cursor, 64 * 1024, 100).await {
            Ok(batch) => batch,
            // Its cursor is right, whoever is behind: that may take a while, and must not be called wrong.
            Err(StoreError::CatchingUp { .. } | StoreError::HomeUnreachable { .. }) if self.nodes.len() > 1 => {
                return false;
            }
            Err(error) => panic!("{} cannot read on after {}: {error}", self.agent, self.cursor),
        };
        for record in batch.records.into_iter().flat_map(Record::decode_batch) {
            self.shown(&record.expect("a whole record"));
        }
        assert_eq!(batch.last, self.cursor);
        batch.last < batch.head
    }

    fn shown(&mut self, record: &Record) {
        let frame = Frame::decode(record.payload.clone()).expect("a frame");
        let header = frame.header();
        self.cursor = record.offset;
        self.digest = self.digest.next(record.offset, &record.payload);
        self.events.push(Event::Delivered {
            agent: self.agent,
            channel: self.channel,
            entry: Entry {
                offset: record.offset,
                frame: header.id,
                author: header.author,
                parent: header.parent,
                kind: match header.detail {
                    Detail::Create { .. } => EntryKind::Create,
                    Detail::Commit { .. } => EntryKind::Commit,
                    Detail::Proposal => EntryKind::Proposal,
                    Detail::Message => EntryKind::Message,
                    _ => EntryKind::Other,
                },
                // The entry's time is the same everywhere, too.
                digest: format!("{:?} at {}", Digest::hash_frame(&record.payload), record.time_ms),
            },
        });
    }
}
