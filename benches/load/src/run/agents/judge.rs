//! Whether agents have what was sent: each message once, in its place, the same for all.

use super::Stage;
use super::payload::Head;
use parking_lot::Mutex;
use skytale_history::Fault;
use skytale_proto::{AgentId, ChannelId, FrameId, Offset};
use skytale_sdk::agent::{Agent, AgentConfig};
use skytale_sdk::channel::Channel;
use skytale_sdk::engine::Message;
use skytale_sdk::vault::VaultKey;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Faults that are kept in words.
const FAULTS_MAX: usize = 1_000;
/// Messages read from a vault at once.
const PAGE: u32 = 512;

/// Gathers what must be so, and judges when all is over.
#[derive(Debug, Default)]
pub(super) struct Judge {
    faults: Mutex<(Vec<String>, u64)>,
    /// Messages that their authors know to be in the log.
    acknowledged: Mutex<BTreeMap<ChannelId, Vec<Acknowledged>>>,
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) channels: u64,
    pub(super) entries: u64,
    pub(super) readers: u64,
}

/// A message's author, its frame, and where it stands.
type Acknowledged = (AgentId, FrameId, Offset);

/// What a message is, beside where it stands.
type Told = (FrameId, AgentId, [u8; 32]);

impl Judge {
    pub(super) fn fault(&self, fault: impl ToString) {
        let mut faults = self.faults.lock();
        faults.1 += 1;
        if faults.0.len() < FAULTS_MAX {
            let text = fault.to_string();
            faults.0.push(text);
        }
    }

    pub(super) fn faults(&self) -> (Vec<String>, u64) {
        self.faults.lock().clone()
    }

    pub(super) fn acknowledged(&self, channel: ChannelId, author: AgentId, frame: FrameId, offset: Offset) {
        self.acknowledged
            .lock()
            .entry(channel)
            .or_default()
            .push((author, frame, offset));
    }

    /// Reads every vault, and compares.
    pub(super) async fn seen(&self, stage: &Stage) -> Seen {
        let mut logs: BTreeMap<ChannelId, BTreeMap<Offset, Told>> = BTreeMap::new();
        let mut histories: Vec<(AgentId, ChannelId, Vec<Offset>, Offset)> = Vec::new();
        for number in 0..stage.base.plan.agents {
            let vault = stage.vault(number);
            if !vault.exists() {
                continue;
            }
            match open(stage, number).await {
                Ok(agent) => {
                    self.read(stage, number, &agent, &mut logs, &mut histories).await;
                    agent.close(std::time::Duration::ZERO).await;
                }
                Err(error) => self.fault(format!("agent {number}: its vault cannot be opened: {error}")),
            }
        }
        for (agent, channel, offsets, cursor) in &histories {
            let (Some(log), Some(first)) = (logs.get(channel), offsets.first()) else {
                continue;
            };
            let has: std::collections::HashSet<&Offset> = offsets.iter().collect();
            for (offset, (frame, ..)) in log.range(first..=cursor) {
                if !has.contains(offset) {
                    self.fault(Fault::Missing {
                        channel: *channel,
                        agent: *agent,
                        frame: *frame,
                        offset: *offset,
                    });
                }
            }
        }
        for (channel, all) in self.acknowledged.lock().iter() {
            let log = logs.get(channel);
            for (author, frame, offset) in all {
                if log
                    .and_then(|log| log.get(offset))
                    .is_none_or(|(found, ..)| found != frame)
                {
                    self.fault(Fault::Missing {
                        channel: *channel,
                        agent: *author,
                        frame: *frame,
                        offset: *offset,
                    });
                }
            }
        }
        Seen {
            channels: logs.len() as u64,
            entries: logs.values().map(|log| log.len() as u64).sum(),
            readers: histories.len() as u64,
        }
    }

    async fn read(
        &self,
        stage: &Stage,
        number: u32,
        agent: &Agent,
        logs: &mut BTreeMap<ChannelId, BTreeMap<Offset, Told>>,
        histories: &mut Vec<(AgentId, ChannelId, Vec<Offset>, Offset)>,
    ) {
        let id = agent.id();
        let channels = match agent.channels().await {
            Ok(channels) => channels,
            Err(error) => return self.fault(format!("{id}: its channels cannot be listed: {error}")),
        };
        for info in channels {
            let Ok(channel) = agent.channel(info.id).await else {
                continue;
            };
            let (messages, cursor) = match (history(&channel).await, channel.cursor().await) {
                (Ok(messages), Ok(cursor)) => (messages, cursor),
                _ => {
                    self.fault(format!("{id}: its history of {} cannot be read", info.id));
                    continue;
                }
            };
            let log = logs.entry(info.id).or_default();
            let mut numbers: HashMap<u32, (FrameId, u64)> = HashMap::new();
            for message in &messages {
                let told = (message.frame_id, message.author, blake3::hash(&message.payload).into());
                let known = *log.entry(message.offset).or_insert(told);
                if known != told {
                    self.fault(Fault::Fork {
                        channel: info.id,
                        offset: message.offset,
                        first: known.0,
                        second: told.0,
                    });
                }
                let Some(head) = Head::of(&message.payload) else {
                    self.fault(Fault::Invented {
                        channel: info.id,
                        agent: message.author,
                        frame: message.frame_id,
                        offset: message.offset,
                    });
                    continue;
                };
                if let Some((earlier, before)) = numbers.insert(head.agent, (message.frame_id, head.number))
                    && before >= head.number
                {
                    self.fault(Fault::Order {
                        channel: info.id,
                        agent: message.author,
                        earlier: message.frame_id,
                        later: earlier,
                    });
                }
            }
            let gauge = stage
                .gauges
                .lock()
                .iter()
                .find(|gauge| gauge.agent == number && gauge.channel == info.id)
                .cloned();
            let (count, given) = gauge.map_or((0, 0), |gauge| {
                (gauge.count.load(Ordering::Relaxed), gauge.given.load(Ordering::Relaxed))
            });
            let due = messages
                .iter()
                .filter(|message| !message.own && message.offset.get() <= given)
                .count() as u64;
            if due != count {
                self.fault(format!(
                    "{id}: its application was given {count} messages of {}, and {due} were due",
                    info.id
                ));
            }
            histories.push((
                id,
                info.id,
                messages.iter().map(|message| message.offset).collect(),
                cursor,
            ));
        }
    }
}

async fn history(channel: &Channel) -> Result<Vec<Message>, skytale_sdk::agent::AgentError> {
    let (mut all, mut after) = (Vec::new(), Offset::ZERO);
    loop {
        let page = channel.history(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = last.offset;
        all.extend(page);
    }
}

/// Opens an agent's vault, or makes it.
pub(super) async fn open(stage: &Stage, agent: u32) -> Result<Agent, skytale_sdk::agent::AgentError> {
    let vault = stage.vault(agent);
    let key = VaultKey::File(vault.with_extension("key"));
    let mut config = AgentConfig::new(vault, key, Arc::new(stage.config.api.clone())).with_sharing(false);
    config.network = stage.config.network.clone();
    Agent::open(config).await
}
