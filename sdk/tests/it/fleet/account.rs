//! Accounting of what agents saw: every message once and in order for all, on one log.

use super::nodes::Fleet;
use crate::agent::world::{assert_same, soon, transcript};
use parking_lot::Mutex;
use skytale_history::{Entry, EntryKind, Event, check};
use skytale_proto::{AgentId, ChannelId, Frame, FrameId, Kind, Offset, Record};
use skytale_sdk::{Agent, Channel, Messages};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Agents that talk in one channel, with a record of everything.
pub(crate) struct Account {
    channels: Vec<Channel>,
    agents: Vec<AgentId>,
    written: Arc<Mutex<Vec<Event>>>,
    acknowledgements: Mutex<JoinSet<()>>,
    readers: Vec<Reader>,
}

/// A task that reads an agent's inbox.
struct Reader {
    /// The number of messages that it must reach, once that is known.
    count: watch::Sender<Option<usize>>,
    shown: JoinHandle<Vec<FrameId>>,
}

impl Account {
    /// Creates the account of agents in a channel, each with its own handle.
    pub(crate) fn of(agents: &[Agent], channels: &[Channel]) -> Self {
        let readers = channels.iter().map(|channel| {
            let (count, reached) = watch::channel(None);
            let shown = tokio::spawn(read(channel.messages(), reached));
            Reader { count, shown }
        });
        Self {
            channels: channels.to_vec(),
            agents: agents.iter().map(Agent::id).collect(),
            written: Arc::default(),
            acknowledgements: Mutex::default(),
            readers: readers.collect(),
        }
    }

    /// Sends as the agent with this number, one call at a time. It is never refused.
    pub(crate) async fn send(&self, number: usize, text: String) {
        let (agent, channel) = (self.agents[number], self.channels[number].id());
        let sent = self.channels[number].send(text).await.expect("taken");
        let frame = sent.frame_id();
        self.written.lock().push(Event::Sent { agent, channel, frame });
        let written = Arc::clone(&self.written);
        self.acknowledgements.lock().spawn(async move {
            let delivered = sent.delivered().await.expect("delivered");
            let offset = delivered.offset().expect("a message has a place");
            written.lock().push(Event::Acknowledged {
                agent,
                channel,
                frame,
                offset,
            });
        });
    }

    /// Returns the number of messages sent so far.
    pub(crate) fn sent(&self) -> usize {
        let is_sent = |event: &&Event| matches!(event, Event::Sent { .. });
        self.written.lock().iter().filter(is_sent).count()
    }

    /// Waits until everything is delivered, and checks it.
    pub(crate) async fn settle(self, fleet: &Fleet) {
        let mut acknowledgements = std::mem::take(&mut *self.acknowledgements.lock());
        let all = async {
            while let Some(done) = acknowledgements.join_next().await {
                done.expect("acknowledged");
            }
        };
        soon("all acknowledged", all).await;
        let messages = assert_same(&self.channels).await;
        let count = self.sent();
        assert_eq!(messages.len(), count, "each message is there once");
        let mut expected: Vec<Vec<FrameId>> = Vec::new();
        for (agent, reader) in self.agents.iter().zip(&self.readers) {
            let others = messages.iter().filter(|message| message.author != *agent);
            let others: Vec<FrameId> = others.map(|message| message.frame_id).collect();
            reader.count.send_replace(Some(others.len()));
            expected.push(others);
        }
        let log = log_of(fleet, self.channels[0].id()).await;
        let agents = self.channels.iter().zip(&self.agents);
        for ((channel, agent), (reader, expected)) in agents.zip(self.readers.into_iter().zip(expected)) {
            let shown = soon("a reader", reader.shown).await.expect("read");
            assert_eq!(shown, expected, "the inbox gave each once, in order");
            let mut written = self.written.lock().clone();
            written.extend(shown_to(channel, *agent, &log, &written).await);
            *self.written.lock() = written;
        }
        let faults = check(&self.written.lock());
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

/// Reads an inbox until it has given so many messages, and acknowledges.
async fn read(mut messages: Messages, mut count: watch::Receiver<Option<usize>>) -> Vec<FrameId> {
    let mut read = Vec::new();
    loop {
        let message = tokio::select! {
            biased;
            message = messages.next() => message.expect("the agent is open"),
            () = reached(&mut count, read.len()) => return read,
        };
        message.ack().await.expect("acknowledged");
        read.push(message.frame_id);
    }
}

/// Resolves when this many messages are all that must come, and a moment without another one has passed.
async fn reached(count: &mut watch::Receiver<Option<usize>>, read: usize) {
    let is_reached = |count: &Option<usize>| count.is_some_and(|count| read >= count);
    if count.wait_for(is_reached).await.is_err() {
        // The account was dropped: its test has failed.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// The log as it is.
async fn log_of(fleet: &Fleet, channel: ChannelId) -> HashMap<Offset, Frame> {
    let (mut log, mut after) = (HashMap::new(), Offset::ZERO);
    loop {
        let batch = fleet
            .log
            .read(channel.log(), after, 1 << 20, u64::MAX)
            .await
            .expect("read");
        if batch.last == after {
            return log;
        }
        after = batch.last;
        for record in batch.records {
            for record in Record::decode_batch(record) {
                let record = record.expect("a record");
                log.insert(record.offset, Frame::decode(record.payload).expect("a frame"));
            }
        }
    }
}

/// Returns the entries that an agent was shown: messages from its history, and others (commits, for example) from the
/// log. Its digest proves that the agent processed the same entries.
async fn shown_to(channel: &Channel, agent: AgentId, log: &HashMap<Offset, Frame>, written: &[Event]) -> Vec<Event> {
    let sent: HashSet<FrameId> = written
        .iter()
        .filter_map(|event| match event {
            Event::Sent { frame, .. } => Some(*frame),
            _ => None,
        })
        .collect();
    let (id, at) = (channel.id(), channel.cursor().await.expect("a cursor"));
    let messages: HashMap<Offset, _> = transcript(channel)
        .await
        .into_iter()
        .map(|message| (message.offset, message))
        .collect();
    let from = messages.keys().min().copied().unwrap_or(at.next());
    let mut events = vec![Event::Reads {
        agent,
        channel: id,
        from,
    }];
    let mut offset = from;
    while offset <= at {
        let frame = &log[&offset];
        let header = frame.header();
        let entry = match messages.get(&offset) {
            Some(message) => Some(Entry {
                offset,
                frame: message.frame_id,
                author: message.author,
                parent: header.parent,
                kind: EntryKind::Message,
                digest: String::from_utf8(message.payload.to_vec()).expect("text"),
            }),
            // A message that is missing.
            None if sent.contains(&header.id) => None,
            None => Some(Entry {
                offset,
                frame: header.id,
                author: header.author,
                parent: header.parent,
                kind: match header.kind() {
                    Kind::Commit => EntryKind::Commit,
                    Kind::Proposal => EntryKind::Proposal,
                    Kind::Create => EntryKind::Create,
                    _ => EntryKind::Other,
                },
                digest: "not a message".into(),
            }),
        };
        events.extend(entry.map(|entry| Event::Delivered {
            agent,
            channel: id,
            entry,
        }));
        offset = offset.next();
    }
    events.push(Event::Finished { agent, channel: id, at });
    events
}
