//! Authors at every node and readers at each, all the time; and in the end what all learned, checked.

use super::super::nodes::{agree, reaches, records};
use super::super::script::*;
use super::author::{Author, Shared};
use super::chance::Chance;
use super::reader::Reader;
use super::wires::HANGING;
use skytale_history::check;
use skytale_log_store::{FleetStore, LogStore as _};
use skytale_proto::{AgentId, ChannelId, Detail, Frame, FrameId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Authors of each channel at each node.
const AUTHORS: u8 = 2;

/// Load that runs while something is cut.
pub(crate) struct Load {
    shared: Arc<Shared>,
    readers_over: Arc<AtomicBool>,
    authors: Vec<JoinHandle<Author>>,
    readers: Vec<(ChannelId, JoinHandle<Reader>)>,
}

const fn author(node: u8, number: u8) -> AgentId {
    let mut bytes = [7; 32];
    (bytes[0], bytes[1]) = (node, number);
    AgentId::from_bytes(bytes)
}

const fn reader(number: u8) -> AgentId {
    AgentId::from_bytes([200 + number; 32])
}

impl Load {
    /// Makes the channels, and begins.
    pub(crate) async fn begin(nodes: &[&Arc<FleetStore>], channels: &[ChannelId], chance: &mut Chance) -> Self {
        let nodes: Vec<Arc<FleetStore>> = nodes.iter().map(|node| Arc::clone(node)).collect();
        let shared = Arc::new(Shared {
            acknowledged: nodes.iter().map(|_| AtomicU64::new(0)).collect(),
            over: AtomicBool::new(false),
            nodes: nodes.clone(),
        });
        let mut load = Self {
            shared,
            readers_over: Arc::default(),
            authors: Vec::new(),
            readers: Vec::new(),
        };
        for &channel in channels {
            load.channel(&nodes, channel, chance).await;
        }
        for node in 0..nodes.len() {
            load.goes_on(node).await;
        }
        load
    }

    async fn channel(&mut self, nodes: &[Arc<FleetStore>], channel: ChannelId, chance: &mut Chance) {
        let everyone: Vec<(usize, AgentId)> = (0..nodes.len())
            .flat_map(|node| (0..AUTHORS).map(move |number| (node, author(node as u8, number))))
            .collect();
        accept(&nodes[0], &create(channel)).await;
        let added = frame_of(channel, &everyone);
        accept(&nodes[0], &added).await;
        for node in nodes {
            reaches(node, channel.log(), at(2)).await;
        }
        for (node, agent) in everyone {
            let author = Author::new(agent, channel, node, self.shared.clone(), chance.split());
            self.authors.push(tokio::spawn(author.write()));
        }
        let each = nodes.iter().map(|node| vec![node.clone()]);
        for (number, nodes) in (0..).zip(each.chain([nodes.to_vec()])) {
            let reader = Reader::new(reader(number), channel, nodes, chance.split());
            let reading = tokio::spawn(reader.read(self.readers_over.clone()));
            self.readers.push((channel, reading));
        }
    }

    /// Waits until some more is acknowledged at a node.
    pub(crate) async fn goes_on(&self, node: usize) {
        let acknowledged = || self.shared.acknowledged[node].load(Ordering::Relaxed);
        let (before, begun) = (acknowledged(), Instant::now());
        while acknowledged() < before + 3 {
            let dead = self.authors.iter().any(JoinHandle::is_finished)
                || self.readers.iter().any(|(_, reader)| reader.is_finished());
            if dead {
                return;
            }
            assert!(
                begun.elapsed() < HANGING,
                "node {node} takes nothing: {:?}",
                self.shared.nodes[node].health()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        eprintln!("node {node} goes on after {:.1?}", begun.elapsed());
    }

    /// Stops the authors when all that they sent is acknowledged, lets the readers read to the end, and checks what all learned.
    pub(crate) async fn check(self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let nodes = &self.shared.nodes;
        let mut history = Vec::new();
        let mut welcomed = Vec::new();
        for author in self.authors {
            let author = tokio::time::timeout(2 * HANGING, author).await.expect("all goes out");
            let author = author.expect("the author ends");
            history.extend(author.events);
            welcomed.extend(
                author
                    .welcomed
                    .into_iter()
                    .map(|(agent, offset)| (agent, author.channel, offset)),
            );
        }
        self.readers_over.store(true, Ordering::Relaxed);
        let mut digests = Vec::new();
        for (channel, reader) in self.readers {
            let reader = reader.await.expect("the reader ends");
            let mut head = at(0);
            for node in nodes {
                head = head.max(
                    agree(&nodes[0], node, channel.log())
                        .await
                        .last()
                        .expect("entries")
                        .offset,
                );
            }
            let reader = reader.finish(head).await;
            digests.push((channel, reader.digest));
            history.extend(reader.events);
        }
        for (channel, digest) in &digests {
            let same = digests
                .iter()
                .filter(|(of, _)| of == channel)
                .all(|(_, other)| other == digest);
            assert!(same, "readers of {channel} have other digests");
        }
        let faults = check(&history);
        assert!(
            faults.is_empty(),
            "{} faults, the first: {:#?}",
            faults.len(),
            &faults[..faults.len().min(3)]
        );
        for (agent, channel, offset) in welcomed {
            for node in nodes {
                reaches(node, agent.log(), at(3)).await;
                let ids: Vec<FrameId> = records(node, agent.log())
                    .await
                    .iter()
                    .map(|record| Frame::decode(record.payload.clone()).expect("a frame").header().id)
                    .collect();
                assert_eq!(
                    ids[2..],
                    [FrameId::of_welcome(&channel, offset, &agent)],
                    "a Welcome, once"
                );
            }
        }
        for node in nodes {
            assert_eq!(node.health().stopped, None);
            node.close().await.expect("closed");
        }
        let acknowledged: Vec<u64> = self
            .shared
            .acknowledged
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        eprintln!("{} events, acknowledged at each node: {acknowledged:?}", history.len());
    }
}

fn frame_of(channel: ChannelId, everyone: &[(usize, AgentId)]) -> Frame {
    let mut adds: Vec<AgentId> = everyone.iter().map(|(_, agent)| *agent).collect();
    adds.sort();
    let detail = Detail::Commit {
        adds,
        removes: Vec::new(),
        recipients: Vec::new(),
        roster: None,
        policy: None,
    };
    crate::local::script::frame(channel.log(), crate::local::script::ALICE, 1, detail, b"everyone")
}
