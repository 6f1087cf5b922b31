//! Any frames in any order, against the fold itself.

use super::Store;
use super::script::*;
use crate::{Accepted, AppendError, Effects, LogState, PendingAppend, Refused, StoreError, Verdict};
use bytes::Bytes;
use skytale_proto::{AgentId, ChannelId, Detail, Frame, FrameId, Header, LogId, Offset};
use std::collections::HashMap;

const STORIES: u64 = 8;
const FRAMES: u32 = 600;

/// Random frames on several logs, many in flight: each has the verdict that the fold gives, and afterwards every log
/// reads, counts and admits as the fold says. The stories are the same in every run.
pub async fn any_frames_in_any_order_have_the_folds_verdicts(store: Store) {
    for seed in 1..=STORIES {
        let mut dice = Dice(seed);
        let mut story = Story::new(seed);
        for _ in 0..FRAMES {
            let frame = story.next(&mut dice);
            // Which comes first on an agent's log, a Welcome or a frame in flight beside its bundle, is for the store
            // to say: so nothing is.
            let alone = matches!(&frame.header().detail, Detail::Commit { recipients, .. } if !recipients.is_empty());
            if alone || story.in_flight.len() as u64 > dice.below(64) {
                story.settle(&store).await;
            }
            let pending = queue(&store, &frame).await;
            let expected = story.expect(&frame);
            story.in_flight.push((pending, expected));
            if alone {
                story.settle(&store).await;
            }
        }
        story.settle(&store).await;
        story.compare(&store).await;
    }
}

/// The fold's verdicts on each log, and the frames on their way to the store.
struct Story {
    agents: [AgentId; 4],
    channels: [ChannelId; 3],
    logs: HashMap<LogId, Told>,
    sent: Vec<Frame>,
    in_flight: Vec<(PendingAppend, Expected)>,
}

/// A log as the fold tells it.
struct Told {
    state: LogState,
    ids: HashMap<FrameId, Offset>,
    frames: Vec<Frame>,
}

type Expected = Result<Accepted, Refused>;

impl Story {
    fn new(seed: u64) -> Self {
        Self {
            // Agents of this story alone: their logs are empty.
            agents: [0, 1, 2, 3].map(|number| agent(seed as u32 * 4 + number)),
            channels: [(); 3].map(|()| ChannelId::generate()),
            logs: HashMap::new(),
            sent: Vec::new(),
            in_flight: Vec::new(),
        }
    }

    fn told(&mut self, log: LogId) -> &mut Told {
        self.logs.entry(log).or_insert_with(|| Told {
            state: LogState::new(log),
            ids: HashMap::new(),
            frames: Vec::new(),
        })
    }

    /// A frame that has some chance of being accepted where the log is now.
    fn next(&mut self, dice: &mut Dice) -> Frame {
        let author = *dice.pick(&self.agents);
        let owner = *dice.pick(&self.agents[..2]);
        let (channel, raw_channel) = (*dice.pick(&self.channels[..2]), self.channels[2]);
        let state = &self.told(channel.log()).state;
        let (exists, head) = (state.head() > Offset::ZERO, state.handshake_head().get().max(1));
        let roster: Vec<AgentId> = state.roster().collect();
        let parent = if dice.below(6) == 0 {
            dice.below(head + 2).max(1)
        } else {
            head
        };
        let frame = match dice.below(20) {
            _ if !exists => create(channel, author),
            0 => create_raw(raw_channel, author),
            1..=4 => {
                let author = *dice.pick(&roster);
                let (adds, removes): (Vec<_>, Vec<_>) = self
                    .agents
                    .into_iter()
                    .filter(|agent| *agent != author && dice.below(3) == 0)
                    .partition(|agent| !roster.contains(agent));
                if dice.below(8) == 0 {
                    // The wrong way round.
                    commit(channel, author, parent, &removes, &adds)
                } else {
                    commit(channel, author, parent, &adds, &removes)
                }
            }
            5 => proposal(channel, author, parent),
            6..=9 => message(channel, *dice.pick(&roster), parent),
            10 => message(channel, author, parent),
            11..=12 => raw(raw_channel, author, *dice.pick(&[ACCOUNT, ACCOUNT, OTHER_ACCOUNT])),
            13..=14 => key_package(owner, dice.below(5) == 0),
            15..=16 => claim(owner, author),
            17 => {
                let log = *dice.pick(&[channel.log(), raw_channel.log(), owner.log()]);
                let state = &self.told(log).state;
                let first = state.first_available().get();
                // Mostly a few entries, sometimes more than there are.
                trim(log, first.saturating_sub(1).max(1) + dice.below(12))
            }
            _ if self.sent.is_empty() => claim(owner, author),
            _ => dice.pick(&self.sent).clone(),
        };
        self.sent.push(frame.clone());
        frame
    }

    /// Folds a frame, and the Welcomes it causes.
    fn expect(&mut self, frame: &Frame) -> Expected {
        let (expected, effects) = self.fold(frame)?;
        for welcome in effects.welcomes {
            let welcome = Frame::new(welcome, Bytes::new()).expect("a frame");
            // If the recipient does not know the author, there is none.
            match self.fold(&welcome) {
                Ok(_) | Err(Refused::WelcomeUnclaimed) => {}
                Err(refused) => panic!("a Welcome is refused: {refused}"),
            }
        }
        Ok(expected)
    }

    fn fold(&mut self, frame: &Frame) -> Result<(Accepted, Effects), Refused> {
        let Header { log, id, .. } = *frame.header();
        let told = self.told(log);
        let accepted = |offset, duplicate, claimed| Accepted {
            offset,
            // The store's clock decides it; not compared.
            time_ms: 0,
            duplicate,
            claimed,
        };
        match told.state.apply(frame.header(), told.ids.get(&id).copied()) {
            Verdict::Appended { offset, effects } => {
                told.ids.insert(id, offset);
                told.frames.push(frame.clone());
                Ok((accepted(offset, false, effects.claimed), effects))
            }
            Verdict::Duplicate { offset } => {
                let claimed = told.state.claimed_by(offset);
                Ok((accepted(offset, true, claimed), Effects::default()))
            }
            Verdict::Refused(refused) => Err(refused),
        }
    }

    /// Waits for all that is in flight.
    async fn settle(&mut self, store: &Store) {
        for (pending, expected) in self.in_flight.drain(..) {
            let verdict = pending.verdict().await.map(|accepted| {
                let duplicate = expected.as_ref().is_ok_and(|expected| expected.duplicate);
                assert!(duplicate_fits(store, &accepted, duplicate), "{accepted:?}");
                Accepted {
                    time_ms: 0,
                    duplicate,
                    ..accepted
                }
            });
            assert_eq!(verdict, expected.map_err(AppendError::from));
        }
    }

    async fn compare(&self, store: &Store) {
        for (log, told) in &self.logs {
            let state = &told.state;
            assert_eq!(head(store, *log).await, state.head());
            let gone = state.first_available().previous();
            if gone > Offset::ZERO {
                let error = store.read(*log, gone.previous(), ALL_BYTES, ALL_ENTRIES).await;
                let first = gone.next();
                assert_eq!(error, Err(StoreError::Trimmed { first }));
            }
            let kept: Vec<Bytes> = read_all(store, *log, gone.get())
                .await
                .into_iter()
                .map(|record| record.payload)
                .collect();
            let frames = told.frames.iter().skip(gone.get() as usize);
            assert!(
                kept.iter().eq(frames.map(Frame::encoded)),
                "{log} has the frames that were accepted"
            );
            for agent in self.agents {
                for after in 0..=state.head().get() {
                    let expected = state.access(agent, ACCOUNT, at(after));
                    assert_eq!(access(store, *log, agent, after).await, expected);
                }
            }
        }
        for agent in self.agents {
            let state = self.logs.get(&agent.log()).map(|told| told.state.key_packages());
            assert_eq!(stock(store, agent).await, state.unwrap_or_default());
        }
    }
}

/// Numbers that look random and are the same in every run (splitmix64, Steele, Lea and Flood 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
