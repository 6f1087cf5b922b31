//! Description of a workload: rates, sizes, fan-out, absences.

use crate::event::{Agent, Channel, Event, Frame, What};
use hdrhistogram::Histogram;
use skytale_proto::ChannelMode;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// The most buckets of a series: with more, each becomes twice as long.
const BUCKETS_MAX: usize = 120;
const FIRST_BUCKET: Duration = Duration::from_millis(100);

/// A count over time, in buckets of equal length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    bucket: Duration,
    values: Vec<u64>,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            bucket: FIRST_BUCKET,
            values: Vec::new(),
        }
    }
}

impl Series {
    /// Adds to the bucket of a time.
    pub fn add(&mut self, at: Duration, count: u64) {
        let index = loop {
            let index = at.as_nanos() / self.bucket.as_nanos();
            match usize::try_from(index) {
                Ok(index) if index < BUCKETS_MAX => break index,
                _ => self.halve(),
            }
        };
        if self.values.len() <= index {
            self.values.resize(index + 1, 0);
        }
        if let Some(value) = self.values.get_mut(index) {
            *value += count;
        }
    }

    fn halve(&mut self) {
        self.bucket *= 2;
        self.values = self.values.chunks(2).map(|pair| pair.iter().sum()).collect();
    }

    /// The length of a bucket.
    pub const fn bucket(&self) -> Duration {
        self.bucket
    }

    /// Returns the count of each bucket.
    pub fn values(&self) -> &[u64] {
        &self.values
    }

    /// Returns the count of each bucket, a second.
    pub fn per_second(&self) -> impl Iterator<Item = f64> {
        self.values
            .iter()
            .map(|value| *value as f64 / self.bucket.as_secs_f64())
    }
}

/// A distribution.
#[derive(Clone, Debug)]
pub struct Spread(Histogram<u64>);

impl Default for Spread {
    fn default() -> Self {
        // Three digits over any u64: this never fails.
        #[allow(clippy::expect_used, reason = "the digits are a constant that is allowed")]
        Self(Histogram::new(3).expect("3 digits"))
    }
}

impl Spread {
    /// Adds a value.
    pub fn add(&mut self, value: u64) {
        // It grows as it must, up to any u64.
        let _ = self.0.record(value);
    }

    /// Returns the number of values.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The least value that a share of all values does not exceed. `share` is 0 to 1.
    pub fn quantile(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }

    /// The greatest.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }
}

/// Description of a workload.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Events.
    pub events: u64,
    /// Time from the start to the last event.
    pub duration: Duration,
    /// Events by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Bytes of all bodies.
    pub body_bytes: u64,
    /// Bytes of all bodies, as often as they are delivered to members other than the author.
    pub delivered_bytes: u64,
    /// Agents that do something.
    pub agents: usize,
    /// Channels.
    pub channels: usize,
    /// Messages and raw frames, over time.
    pub messages: Series,
    /// Bytes of appended bodies, over time.
    pub bytes: Series,
    /// Sessions that began, over time.
    pub connects: Series,
    /// Bodies of messages and raw frames, in bytes.
    pub message_bytes: Spread,
    /// Readers of each message other than its author. Those of raw channels are not known.
    pub fan_out: Spread,
    /// Messages of each channel.
    pub channel_messages: Spread,
    /// Absences of agents, in milliseconds.
    pub away_ms: Spread,
    /// Entries that readers had missed when they subscribed.
    pub backlog: Spread,
    /// Agents online at once, at most.
    pub online_max: usize,
    /// Refusals, by code.
    pub refused: BTreeMap<u32, u64>,
    /// The greatest number of messages in any second of the workload's clock.
    pub second_max: u64,
}

/// Gathers a [`Summary`].
#[derive(Debug, Default)]
pub struct Summarizer {
    summary: Summary,
    rosters: HashMap<Channel, HashSet<Agent>>,
    raw: HashSet<Channel>,
    messages: HashMap<Channel, u64>,
    agents: HashSet<Agent>,
    online: BTreeSet<Agent>,
    gone: HashMap<Agent, Duration>,
    second: (u64, u64),
}

impl Summarizer {
    /// Takes the next event.
    pub fn add(&mut self, event: &Event) {
        let summary = &mut self.summary;
        summary.events += 1;
        summary.duration = event.at;
        *summary.kinds.entry(event.what.kind()).or_default() += 1;
        event.what.names(
            |agent| {
                self.agents.insert(agent);
            },
            |channel| {
                self.messages.entry(channel).or_default();
            },
        );
        match &event.what {
            What::Append {
                author,
                body_bytes,
                frame,
            } => self.append(event.at, *author, *body_bytes, frame),
            What::Connect(agent) => {
                summary.connects.add(event.at, 1);
                self.online.insert(*agent);
                summary.online_max = summary.online_max.max(self.online.len());
                if let Some(since) = self.gone.remove(agent) {
                    let away = event.at.saturating_sub(since).as_millis();
                    summary.away_ms.add(u64::try_from(away).unwrap_or(u64::MAX));
                }
            }
            What::Disconnect(agent) => {
                self.online.remove(agent);
                self.gone.insert(*agent, event.at);
            }
            What::Subscribe { behind, .. } => summary.backlog.add(*behind),
            What::Token(_) => {}
            What::Refused { code, .. } => *summary.refused.entry(code.number()).or_default() += 1,
        }
    }

    fn append(&mut self, at: Duration, author: Agent, body_bytes: u32, frame: &Frame) {
        let bytes = u64::from(body_bytes);
        self.summary.body_bytes += bytes;
        self.summary.bytes.add(at, bytes);
        let Some(channel) = frame.channel() else { return };
        let roster = self.rosters.entry(channel).or_default();
        roster.insert(author);
        match frame {
            Frame::Create {
                mode: ChannelMode::Raw, ..
            } => {
                self.raw.insert(channel);
            }
            Frame::Commit { adds, removes, .. } => {
                roster.extend(adds);
                roster.retain(|agent| !removes.contains(agent));
            }
            _ => {}
        }
        let readers = roster.len().saturating_sub(1) as u64;
        self.summary.delivered_bytes += bytes * readers;
        if matches!(frame, Frame::Message(_) | Frame::Raw(_)) {
            self.summary.messages.add(at, 1);
            self.summary.message_bytes.add(bytes);
            *self.messages.entry(channel).or_default() += 1;
            if !self.raw.contains(&channel) {
                self.summary.fan_out.add(readers);
            }
            let (second, count) = &mut self.second;
            if *second != at.as_secs() {
                (*second, *count) = (at.as_secs(), 0);
            }
            *count += 1;
            self.summary.second_max = self.summary.second_max.max(*count);
        }
    }

    /// The summary of all that was added.
    pub fn finish(mut self) -> Summary {
        self.summary.agents = self.agents.len();
        self.summary.channels = self.messages.len();
        for count in self.messages.values() {
            self.summary.channel_messages.add(*count);
        }
        self.summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::{Profile, Size, synthesize};

    fn summary(profile: Profile) -> Summary {
        let size = Size {
            duration: Duration::from_secs(60),
            agents: 41,
            messages_per_second: 50,
        };
        let mut summarizer = Summarizer::default();
        for event in synthesize(profile, size, 3).expect("a size") {
            summarizer.add(&event);
        }
        summarizer.finish()
    }

    #[test]
    fn a_fan_out_has_its_readers_and_a_storm_its_backlog() {
        let fan_out = summary(Profile::FanOut);
        assert_eq!((fan_out.agents, fan_out.channels, fan_out.online_max), (41, 1, 41));
        assert_eq!((fan_out.fan_out.quantile(0.0), fan_out.fan_out.max()), (40, 40));
        assert_eq!(fan_out.messages.values().iter().sum::<u64>(), fan_out.kinds["message"]);
        let rate = fan_out.kinds["message"] as f64 / 54.0;
        assert!((40.0..60.0).contains(&rate), "{rate}");
        assert!(fan_out.second_max as f64 > rate && fan_out.second_max < 120);
        let storm = summary(Profile::ReconnectStorm);
        assert_eq!(storm.away_ms.len(), 40);
        assert!(
            (35_900..=36_100).contains(&storm.away_ms.quantile(0.5)),
            "{}",
            storm.away_ms.quantile(0.5)
        );
        assert!(storm.backlog.max() > 300);
    }

    #[test]
    fn a_series_keeps_its_sum_as_it_grows() {
        let mut series = Series::default();
        for second in 0..10_000 {
            series.add(Duration::from_secs(second), 3);
        }
        assert_eq!(series.values().iter().sum::<u64>(), 30_000);
        assert!(series.values().len() <= BUCKETS_MAX && series.values().len() > BUCKETS_MAX / 2);
        let middle = series.per_second().nth(10).expect("a bucket");
        assert!((2.9..=3.1).contains(&middle), "{middle}");
    }
}
