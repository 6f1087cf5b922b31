//! Report at the end of a fleet's demonstration.

use super::kinds::Kind;
use super::traffic::Answer;
use crate::output::{Human, Style, table};
use crate::stage::{AgentReport, Agreement};
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant};

/// The figures. Fields are stable.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    /// Whether everything held.
    pub ok: bool,
    /// Whether what all learned and have fits one log.
    pub is_one_log: bool,
    /// Seed of the faults.
    pub seed: u64,
    pub regions: usize,
    pub nodes: usize,
    /// Shards that the nodes followed by their own streams when all began, over all nodes.
    pub streams: u64,
    /// Shards of other regions that they followed by mirrors.
    pub mirrors: u64,
    /// Messages sent.
    pub sent: u64,
    pub payload_bytes: u32,
    /// Messages that are in the transcript of an agent as they were sent, over all agents.
    pub delivered: u64,
    /// Number expected.
    pub expected: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    /// Messages that nobody sent.
    pub foreign: u64,
    /// Epochs that the group passed.
    pub epochs: u64,
    pub faults: Vec<FaultReport>,
    /// Contradictions in what agents learned and nodes kept.
    pub contradictions: Vec<String>,
    /// Refusals of NATS servers to relay nodes for want of a right.
    pub denied: Vec<String>,
    /// Entries of the channel, or messages of streams, given up as too old: none should be.
    pub given_up: u64,
    /// Entries that the nodes kept, each the same.
    pub entries: u64,
    pub digests_agree: bool,
    pub transcripts_agree: bool,
    pub agents: Vec<AgentReport>,
}

/// One fault.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FaultReport {
    pub kind: Kind,
    pub what: String,
    /// Its duration, in seconds; of a restart and of keys, nothing.
    pub lasted_s: Option<f64>,
    #[serde(flatten)]
    pub meanwhile: Meanwhile,
}

/// Experience of authors from the beginning of a fault until all was mended and each one's messages went through again.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Meanwhile {
    /// Length of that time, in seconds.
    pub took_s: f64,
    /// The longest time in it in which no author saw a message in the log, in seconds.
    pub silence_s: f64,
    /// The longest that an author waited for one message, in seconds.
    pub longest_wait_s: f64,
    /// Messages that were seen in the log.
    pub answered: usize,
}

impl Meanwhile {
    /// Computes it from the observations in a stretch of time.
    pub(super) fn of(from: Instant, to: Instant, answers: &[Answer]) -> Self {
        let mut within: Vec<&Answer> = answers
            .iter()
            .filter(|answer| (from..=to).contains(&answer.at))
            .collect();
        within.sort_by_key(|answer| answer.at);
        let (mut last, mut silence) = (from, Duration::ZERO);
        for answer in &within {
            silence = silence.max(answer.at - last);
            last = answer.at;
        }
        silence = silence.max(to - last);
        let waited = within.iter().map(|answer| answer.waited).max().unwrap_or(to - from);
        Self {
            took_s: (to - from).as_secs_f64(),
            silence_s: silence.as_secs_f64(),
            longest_wait_s: waited.as_secs_f64(),
            answered: within.len(),
        }
    }
}

impl Report {
    /// Judges: everything that must hold.
    pub(super) fn judge(&mut self) {
        let agreement = Agreement::of(&self.agents, self.sent);
        self.delivered = agreement.found.delivered;
        self.lost = agreement.found.lost;
        self.duplicated = agreement.found.duplicated;
        self.out_of_order = agreement.found.out_of_order;
        self.foreign = agreement.found.foreign;
        self.expected = agreement.expected;
        self.digests_agree = agreement.digests;
        self.transcripts_agree = agreement.transcripts;
        self.is_one_log = agreement.holds() && self.contradictions.is_empty() && self.given_up == 0;
        self.ok = self.is_one_log && self.denied.is_empty();
    }
}

impl Human for Report {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let rows = self.faults.iter().map(|fault| {
            vec![
                fault.what.clone(),
                fault
                    .lasted_s
                    .map_or_else(|| "-".into(), |lasted| format!("{lasted:.1}")),
                format!("{:.1}", fault.meanwhile.took_s),
                format!("{:.2}", fault.meanwhile.silence_s),
                format!("{:.2}", fault.meanwhile.longest_wait_s),
                fault.meanwhile.answered.to_string(),
            ]
        });
        writeln!(to)?;
        let heads = [
            "fault",
            "lasted s",
            "mended in s",
            "without service s",
            "longest wait s",
            "messages meanwhile",
        ];
        table(to, style, &heads, rows)?;
        writeln!(to)?;
        let zero = |count: u64| {
            if count == 0 {
                style.good("0")
            } else {
                style.bad(&count.to_string())
            }
        };
        let mut row = |name: &str, value: String| writeln!(to, "  {name:<32}{value}");
        row("relay nodes", format!("{} in {} region(s)", self.nodes, self.regions))?;
        if self.mirrors > 0 {
            let follow = format!("{} by mirrors, {} by streams", self.mirrors, self.streams);
            row("shards followed at first", follow)?;
        }
        row(
            "messages sent",
            format!("{} of {} bytes", self.sent, self.payload_bytes),
        )?;
        row(
            "delivered",
            format!("{} of {} ({} agents)", self.delivered, self.expected, self.agents.len()),
        )?;
        row("lost", zero(self.lost))?;
        row("duplicated", zero(self.duplicated))?;
        row("out of order", zero(self.out_of_order))?;
        if self.foreign > 0 {
            row("altered or foreign", zero(self.foreign))?;
        }
        row("epochs passed", self.epochs.to_string())?;
        row("entries, the same on all nodes", self.entries.to_string())?;
        if self.given_up > 0 {
            row("given up as too old", zero(self.given_up))?;
        }
        row("contradictions", zero(self.contradictions.len() as u64))?;
        row("rights that were missing", zero(self.denied.len() as u64))?;
        writeln!(to)?;
        for contradiction in self.contradictions.iter().chain(&self.denied) {
            writeln!(to, "  {} {contradiction}", style.bad("!"))?;
        }
        for agent in &self.agents {
            let digest = agent.digest.as_deref().unwrap_or("unknown");
            writeln!(
                to,
                "  {:<8}at {:<8}digest {}  transcript {}",
                agent.name,
                agent.cursor,
                &digest[..digest.len().min(16)],
                &agent.transcript[..agent.transcript.len().min(16)],
            )?;
        }
        writeln!(to)?;
        if self.ok {
            let said = "all agents and all nodes have the same log and the same messages, each exactly once";
            writeln!(to, "  {} {said}", style.good("ok:"))
        } else if self.is_one_log {
            let said = "relay nodes lack a right at the NATS servers, or ask for more than they should";
            writeln!(to, "  {} {said}", style.bad("DENIED:"))
        } else {
            let said = "what was sent, what was acknowledged and what there is do not fit";
            writeln!(to, "  {} {said}", style.bad("MISMATCH:"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_to_the_edges_of_the_fault() {
        let from = Instant::now();
        let at = |ms: u64, waited: u64| Answer {
            author: 0,
            at: from + Duration::from_millis(ms),
            waited: Duration::from_millis(waited),
        };
        let to = from + Duration::from_secs(10);
        let seen = Meanwhile::of(from, to, &[at(4_000, 300), at(1_000, 20), at(12_000, 9_000)]);
        assert_eq!((seen.silence_s, seen.longest_wait_s, seen.answered), (6.0, 0.3, 2));
        let silent = Meanwhile::of(from, to, &[]);
        assert_eq!(
            (silent.silence_s, silent.longest_wait_s, silent.answered),
            (10.0, 10.0, 0)
        );
    }
}
