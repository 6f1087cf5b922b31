//! Whether agents have the sent messages: each message once, in its place, the same for all.

use super::Stage;
use super::payload::Head;
use parking_lot::Mutex;
use skytale_history::Fault;
use skytale_proto::{AgentId, ChannelId, FrameId, Offset};
use skytale_sdk::{Agent, AgentConfig, AgentError, Channel, Message, VaultKey};
use std::collections::{BTreeMap, HashMap, HashSet};
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

/// Scope of the comparison.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) channels: u64,
    pub(super) entries: u64,
    pub(super) readers: u64,
    /// Readers of these whose memberships are not known: whether they were given all cannot be judged.
    pub(super) unjudged: u64,
}

/// Messages of a channel in an agent's vault.
struct History {
    agent: AgentId,
    channel: ChannelId,
    offsets: HashSet<Offset>,
    /// The stretches of the log in which the agent was a member, if they are known.
    stretches: Option<Vec<(Offset, Offset)>>,
}

/// A message's author, its frame, and where it is.
type Acknowledged = (AgentId, FrameId, Offset);

/// Identity of a message, beside its offset.
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
        let mut histories = Vec::new();
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
        let mut unjudged = 0;
        for history in &histories {
            let Some(stretches) = &history.stretches else {
                unjudged += 1;
                tracing::warn!(agent = %history.agent, channel = %history.channel, "memberships are not known");
                continue;
            };
            let Some(log) = logs.get(&history.channel) else {
                continue;
            };
            for (offset, frame) in unseen(log, &history.offsets, stretches) {
                self.fault(Fault::Missing {
                    channel: history.channel,
                    agent: history.agent,
                    frame,
                    offset,
                });
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
            unjudged,
        }
    }

    async fn read(
        &self,
        stage: &Stage,
        number: u32,
        agent: &Agent,
        logs: &mut BTreeMap<ChannelId, BTreeMap<Offset, Told>>,
        histories: &mut Vec<History>,
    ) {
        let id = agent.id();
        let channels = match agent.channels().await {
            Ok(channels) => channels,
            Err(error) => return self.fault(format!("{id}: its channels cannot be listed: {error}")),
        };
        for info in channels {
            self.read_channel(stage, number, agent, info.id, logs, histories).await;
        }
    }

    async fn read_channel(
        &self,
        stage: &Stage,
        number: u32,
        agent: &Agent,
        channel: ChannelId,
        logs: &mut BTreeMap<ChannelId, BTreeMap<Offset, Told>>,
        histories: &mut Vec<History>,
    ) {
        let id = agent.id();
        let read = async {
            let handle = agent.channel(channel).await?;
            Ok::<_, AgentError>((history(&handle).await?, handle.cursor().await?))
        };
        let (messages, cursor) = match read.await {
            Ok(read) => read,
            Err(error) => return self.fault(format!("{id}: its history of {channel} cannot be read: {error}")),
        };
        let log = logs.entry(channel).or_default();
        let mut numbers: HashMap<u32, (FrameId, u64)> = HashMap::new();
        for message in &messages {
            let told = (message.frame_id, message.author, blake3::hash(&message.payload).into());
            let known = *log.entry(message.offset).or_insert(told);
            if known != told {
                self.fault(Fault::Fork {
                    channel,
                    offset: message.offset,
                    first: known.0,
                    second: told.0,
                });
            }
            let Some(head) = Head::of(&message.payload) else {
                self.fault(Fault::Invented {
                    channel,
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
                    channel,
                    agent: message.author,
                    earlier: message.frame_id,
                    later: earlier,
                });
            }
        }
        let gauge = stage.known_gauge(number, channel);
        let (count, given) = gauge.as_ref().map_or((0, 0), |gauge| {
            (gauge.count.load(Ordering::Relaxed), gauge.given.load(Ordering::Relaxed))
        });
        let due = messages
            .iter()
            .filter(|message| !message.own && message.offset.get() <= given)
            .count() as u64;
        if due != count {
            self.fault(format!(
                "{id}: its application was given {count} messages of {channel}, and {due} were due"
            ));
        }
        histories.push(History {
            agent: id,
            channel,
            offsets: messages.iter().map(|message| message.offset).collect(),
            stretches: gauge.and_then(|gauge| gauge.stays.lock().stretches(cursor)),
        });
    }
}

/// Messages of a log that an agent does not have, although it was a member when they were sent.
fn unseen(
    log: &BTreeMap<Offset, Told>,
    has: &HashSet<Offset>,
    stretches: &[(Offset, Offset)],
) -> Vec<(Offset, FrameId)> {
    let due = stretches.iter().flat_map(|(first, last)| log.range(first..=last));
    due.filter(|(offset, _)| !has.contains(offset))
        .map(|(offset, (frame, ..))| (*offset, *frame))
        .collect()
}

async fn history(channel: &Channel) -> Result<Vec<Message>, AgentError> {
    let (mut all, mut after) = (Vec::new(), Offset::ZERO);
    loop {
        let page = channel.history(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = last.offset;
        all.extend(page);
    }
}

/// Opens an agent's vault, or makes it.
pub(super) async fn open(stage: &Stage, agent: u32) -> Result<Agent, AgentError> {
    let vault = stage.vault(agent);
    let key = VaultKey::file(vault.with_extension("key"));
    let mut config = AgentConfig::new(vault, key, stage.config.api.clone()).with_sharing(false);
    config.network = stage.config.network.clone();
    Agent::open(config).await
}

#[cfg(test)]
mod tests {
    use super::super::tests::stage;
    use super::*;

    fn at(offset: u64) -> Offset {
        Offset::new(offset)
    }

    #[test]
    fn an_agent_that_was_removed_and_added_again_need_not_have_what_was_sent_meanwhile() {
        let frame = |number: u64| FrameId::from_bytes([number as u8; 16]);
        let author = AgentId::from_bytes([1; 32]);
        let log: BTreeMap<_, _> = (1..=30)
            .map(|number| (at(number), (frame(number), author, [0; 32])))
            .collect();
        let stretches = [(at(2), at(10)), (at(20), at(30))];
        let has: HashSet<_> = (2..=10).chain(20..=30).map(at).collect();
        assert_eq!(unseen(&log, &has, &stretches), []);
        // One is missing in each stretch, and at both ends of one.
        let has: HashSet<_> = (3..=9).chain(20..=24).chain(26..=30).map(at).collect();
        let expected = [2, 10, 25].map(|number| (at(number), frame(number)));
        assert_eq!(unseen(&log, &has, &stretches), expected);
    }

    #[tokio::test]
    async fn a_channel_that_cannot_be_opened_is_a_fault() {
        let dir = tempfile::tempdir().expect("a folder");
        let stage = stage(dir.path()).await;
        let agent = open(&stage, 0).await.expect("a vault");
        let unknown = ChannelId::from_bytes([9; 16]);
        let (mut logs, mut histories) = (BTreeMap::new(), Vec::new());
        let read = stage
            .judge
            .read_channel(&stage, 0, &agent, unknown, &mut logs, &mut histories);
        read.await;
        let (faults, count) = stage.judge.faults();
        assert_eq!(count, 1);
        assert!(faults[0].contains("cannot be read"), "{faults:?}");
    }
}
