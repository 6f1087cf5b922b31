//! Conversion of a tap's files to one workload.

use super::Window;
use crate::complete::Completer;
use crate::event::{Agent, Channel, Event, What};
use crate::file::Header;
use crate::ids::Sample;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::time::Duration;

/// Joins files of a tap, which must come in the order of their names, each with its events.
///
/// Agents and channels of another life of the node are others: numbers of two lives have nothing to do with each other.
#[derive(Debug)]
pub struct TapCapture {
    window: Window,
    sample: Sample,
    /// Draws which channels are in the sample.
    lots: RandomState,
    /// Agents that have to do with a channel in the sample, by life.
    sampled: HashSet<(u64, Agent)>,
    life: Option<u64>,
    /// The start of the file that is read, unix microseconds.
    begins_us: u64,
    completer: Completer,
    agents: HashMap<(u64, Agent), Agent>,
    channels: HashMap<(u64, Channel), Channel>,
    start_us: Option<u64>,
    last_us: u64,
    made_up: u64,
}

/// A file that is not one of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a file of a tap: its header does not say when it began and of which life it is")]
pub struct NotOfATap;

impl TapCapture {
    /// A capture of a window of time, and of a share of all channels, which are drawn.
    pub fn new(window: Window, sample: Sample) -> Self {
        Self {
            window,
            sample,
            lots: RandomState::new(),
            sampled: HashSet::new(),
            life: None,
            begins_us: 0,
            completer: Completer::with_all_sessions(),
            agents: HashMap::new(),
            channels: HashMap::new(),
            start_us: None,
            last_us: 0,
            made_up: 0,
        }
    }

    /// Whether [`TapCapture::learn`] is needed before: where not all channels are captured.
    pub fn learns(&self) -> bool {
        self.sample != Sample::ALL
    }

    /// Learns from an event which agents have to do with channels in the sample. To be called for all events before the first
    /// [`TapCapture::event`].
    pub fn learn(&mut self, header: &Header, event: &Event) -> Result<(), NotOfATap> {
        let life = header.part.ok_or(NotOfATap)?.life_ms;
        let (mut agents, mut has) = (Vec::new(), false);
        event
            .what
            .names(|agent| agents.push(agent), |channel| has |= self.has(life, channel));
        if has {
            self.sampled.extend(agents.into_iter().map(|agent| (life, agent)));
        }
        Ok(())
    }

    fn has(&self, life: u64, channel: Channel) -> bool {
        let drawn = self.lots.hash_one((life, channel)) as f64 / u64::MAX as f64;
        self.sample == Sample::ALL || drawn < self.sample.share()
    }

    /// Returns the time of the first event, unix milliseconds.
    pub fn start_ms(&self) -> Option<u64> {
        self.start_us.map(|us| us / 1_000)
    }

    /// Returns the number of events that represent a state before the capture, or an unknown one.
    pub const fn made_up(&self) -> u64 {
        self.made_up + self.completer.made_up()
    }

    /// Begins with a file.
    pub fn file(&mut self, header: &Header, out: &mut Vec<Event>) -> Result<(), NotOfATap> {
        let (Some(part), Some(start_ms)) = (header.part, header.start_ms) else {
            return Err(NotOfATap);
        };
        self.begins_us = start_ms.saturating_mul(1_000);
        if self.life.is_some_and(|life| life != part.life_ms) {
            let mut left = Vec::new();
            if self.start_us.is_some() {
                let at = self.time(self.last_us);
                self.completer.restarted(at, &mut left);
            }
            self.tell(left, out);
            self.made_up += self.completer.made_up();
            self.completer = Completer::with_all_sessions();
        }
        self.life = Some(part.life_ms);
        Ok(())
    }

    /// Gives what an event of the file becomes to `out`, in order.
    pub fn event(&mut self, event: Event, out: &mut Vec<Event>) {
        let Some(life) = self.life else { return };
        if self.learns() && !self.is_sampled(life, &event.what) {
            return;
        }
        let us = self
            .begins_us
            .saturating_add(u64::try_from(event.at.as_micros()).unwrap_or(u64::MAX));
        if !self.window.holds(us / 1_000) {
            self.completer.observe(&event);
            return;
        }
        self.last_us = self.last_us.max(us);
        let at = self.time(us);
        let mut told = Vec::new();
        self.completer.event(Event { at, what: event.what }, &mut told);
        self.tell(told, out);
    }

    fn is_sampled(&self, life: u64, what: &What) -> bool {
        let (mut agents, mut channels) = (true, true);
        what.names(
            |agent| agents &= self.sampled.contains(&(life, agent)),
            |channel| channels &= self.has(life, channel),
        );
        agents && channels
    }

    /// The time from the start; never before an earlier event's.
    fn time(&mut self, us: u64) -> Duration {
        let start = *self.start_us.get_or_insert(us);
        Duration::from_micros(us.max(self.last_us).saturating_sub(start))
    }

    fn tell(&mut self, events: Vec<Event>, out: &mut Vec<Event>) {
        let life = self.life.unwrap_or_default();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (agents, channels) = (&mut self.agents, &mut self.channels);
        out.extend(events.into_iter().map(|event| Event {
            at: event.at,
            what: event.what.map(
                |agent| {
                    let next = Agent(number(agents.len()));
                    *agents.entry((life, agent)).or_insert(next)
                },
                |channel| {
                    let next = Channel(number(channels.len()));
                    *channels.entry((life, channel)).or_insert(next)
                },
            ),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{Part, Source};
    use crate::plan::{Knobs, Plan};
    use crate::synth::{Profile, Size, synthesize};

    fn header(life_ms: u64) -> Header {
        let mut header = Header::new(Source::Tap, "test");
        header.start_ms = Some(life_ms);
        header.part = Some(Part { life_ms, number: 0 });
        header
    }

    fn traffic() -> Vec<Event> {
        let size = Size {
            duration: Duration::from_secs(30),
            agents: 24,
            messages_per_second: 40,
        };
        synthesize(Profile::NightlyTeam, size, 5).expect("a size")
    }

    fn captured(capture: &mut TapCapture, lives: &[(u64, Vec<Event>)]) -> Vec<Event> {
        let mut out = Vec::new();
        for (life_ms, events) in lives {
            for event in events {
                capture.learn(&header(*life_ms), event).expect("of a tap");
            }
        }
        for (life_ms, events) in lives {
            capture.file(&header(*life_ms), &mut out).expect("of a tap");
            for event in events {
                capture.event(event.clone(), &mut out);
            }
        }
        assert!(out.is_sorted_by_key(|event| event.at));
        out
    }

    fn count(events: &[Event], kind: &str) -> usize {
        events.iter().filter(|event| event.what.kind() == kind).count()
    }

    #[test]
    fn a_whole_life_is_captured_as_it_is_and_lives_are_apart() {
        let events = traffic();
        let mut capture = TapCapture::new(Window::default(), Sample::ALL);
        assert!(captured(&mut capture, &[(1_000, events.clone())]) == events);
        assert_eq!((capture.start_ms(), capture.made_up()), (Some(1_000), 0));

        let mut capture = TapCapture::new(Window::default(), Sample::ALL);
        let both = captured(&mut capture, &[(1_000, events.clone()), (61_000, events.clone())]);
        let plan = Plan::new(both, &Knobs::default()).expect("a plan");
        let end = events[events.len() - 1].at + Duration::from_secs(60);
        assert_eq!((plan.agents, plan.duration), (48, end));
        assert_eq!(count(&plan.events, "connect") - count(&plan.events, "disconnect"), 24);
        let mut capture = TapCapture::new(Window::default(), Sample::ALL);
        let other = Header::new(Source::Tap, "test");
        assert_eq!(capture.file(&other, &mut Vec::new()), Err(NotOfATap));
    }

    #[test]
    fn a_window_begins_with_who_was_online() {
        let events = traffic();
        let window = Window {
            from_ms: Some(26_000),
            until_ms: None,
        };
        let mut capture = TapCapture::new(window, Sample::ALL);
        let late = captured(&mut capture, &[(1_000, events.clone())]);
        assert!(capture.made_up() > 0);
        let in_window: Vec<Event> = events
            .into_iter()
            .filter(|event| event.at >= Duration::from_secs(25))
            .collect();
        assert_eq!(count(&late, "message"), count(&in_window, "message"));
        let plan = Plan::new(late, &Knobs::default()).expect("a plan");
        assert_eq!(
            (plan.channels, plan.agents, count(&plan.events, "connect")),
            (3, 24, 24)
        );
    }

    #[test]
    fn a_sample_is_of_channels_and_of_those_who_have_to_do_with_them() {
        let (mut some, rounds) = (0, 40);
        for _ in 0..rounds {
            let mut capture = TapCapture::new(Window::default(), Sample::new(0.5).expect("a share"));
            let part = captured(&mut capture, &[(1_000, traffic())]);
            let created = count(&part, "create");
            let agents: HashSet<u32> = part
                .iter()
                .filter_map(|event| match &event.what {
                    What::Connect(agent) => Some(agent.0),
                    _ => None,
                })
                .collect();
            assert_eq!(agents.len(), created * 8);
            some += created;
        }
        // Of 120 channels; five standard deviations.
        assert!((30..90).contains(&some), "{some}");
    }
}
