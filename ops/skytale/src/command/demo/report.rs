//! Report at the end of a demonstration.

use crate::output::{Human, Style};
use crate::stage::{AgentReport, Agreement};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// The figures. Fields are stable.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    /// Whether everything held.
    pub ok: bool,
    /// Messages sent.
    pub sent: u64,
    /// Bytes of one message.
    pub payload_bytes: u64,
    /// Messages that are in the transcript of an agent as they were sent, over all agents.
    pub delivered: u64,
    /// Number expected: each message at each agent.
    pub expected: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    /// Messages that nobody sent.
    pub foreign: u64,
    /// Epochs that the group passed while one agent was away.
    pub epochs: u64,
    /// Membership and key changes.
    pub changes: u64,
    /// Number of times that the relay node was killed.
    pub relay_kills: u64,
    /// Time from the first message to the last one in the log, with the changes and the crash in between, in seconds.
    pub exchange_s: f64,
    /// Time from opening its vault to being current, in seconds.
    pub catch_up_s: f64,
    /// Messages that were caught up on.
    pub catch_up_messages: u64,
    pub catch_up_messages_per_s: f64,
    /// Megabytes (10^6) of payload.
    pub catch_up_mb_per_s: f64,
    /// Whether the relay node's log is whole: checksums, density, the rule of the log.
    pub log_is_whole: bool,
    /// Bytes that the relay node's log takes, with its index.
    pub disk_bytes: u64,
    pub disk_bytes_per_payload_byte: f64,
    /// Whether all digests are the same.
    pub digests_agree: bool,
    /// Whether all transcripts are the same.
    pub transcripts_agree: bool,
    pub agents: Vec<AgentReport>,
    /// Folder of the data, if it was kept.
    pub kept: Option<String>,
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
        self.ok = agreement.holds() && self.log_is_whole;
    }

    /// Sets the figures that follow from a time.
    pub(super) fn caught_up(&mut self, took: Duration, messages: u64) {
        self.catch_up_s = took.as_secs_f64();
        self.catch_up_messages = messages;
        let seconds = self.catch_up_s.max(1e-9);
        self.catch_up_messages_per_s = messages as f64 / seconds;
        self.catch_up_mb_per_s = (messages * self.payload_bytes) as f64 / 1e6 / seconds;
    }
}

impl Human for Report {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let agents = self.agents.len() as u64;
        let zero = |count: u64| {
            if count == 0 {
                style.good("0")
            } else {
                style.bad(&grouped(count))
            }
        };
        let mut row = |name: &str, value: String| writeln!(to, "  {name:<28}{value}");
        row(
            "messages sent",
            format!("{} of {} bytes", grouped(self.sent), grouped(self.payload_bytes)),
        )?;
        row(
            "delivered",
            format!(
                "{} of {} ({} agents)",
                grouped(self.delivered),
                grouped(self.expected),
                agents
            ),
        )?;
        row("lost", zero(self.lost))?;
        row("duplicated", zero(self.duplicated))?;
        row("out of order", zero(self.out_of_order))?;
        if self.foreign > 0 {
            row("altered or foreign", zero(self.foreign))?;
        }
        row(
            "epochs passed",
            format!("{} ({} membership and key changes)", self.epochs, self.changes),
        )?;
        row(
            "relay node killed",
            match self.relay_kills {
                1 => "once, with SIGKILL".to_owned(),
                kills => format!("{kills} times, with SIGKILL"),
            },
        )?;
        row("exchange took", format!("{:.2} s", self.exchange_s))?;
        row(
            "catch-up",
            format!(
                "{:.2} s for {} messages: {} messages/s, {:.1} MB/s",
                self.catch_up_s,
                grouped(self.catch_up_messages),
                grouped(self.catch_up_messages_per_s as u64),
                self.catch_up_mb_per_s
            ),
        )?;
        row(
            "on disk",
            format!(
                "{} bytes, {:.2} per payload byte",
                grouped(self.disk_bytes),
                self.disk_bytes_per_payload_byte
            ),
        )?;
        let log = if self.log_is_whole {
            style.good("whole")
        } else {
            style.bad("damaged")
        };
        row("the log, checked again", log)?;
        writeln!(to)?;
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
        if let Some(kept) = &self.kept {
            writeln!(to, "  data kept in {kept}")?;
        }
        if self.ok {
            writeln!(
                to,
                "  {} all agents have the same log and the same messages, each exactly once",
                style.good("ok:")
            )
        } else {
            writeln!(
                to,
                "  {} what was sent and what the agents have is not the same",
                style.bad("MISMATCH:")
            )
        }
    }
}

/// `12,345`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Comparison;

    fn agent(digest: &str, transcript: &str, delivered: u64) -> AgentReport {
        AgentReport {
            name: "alice".into(),
            agent: "00".into(),
            cursor: 7,
            digest: Some(digest.into()),
            transcript: transcript.into(),
            compared: Comparison {
                delivered,
                ..Comparison::default()
            },
        }
    }

    fn judged(agents: Vec<AgentReport>) -> Report {
        let mut report = Report {
            sent: 5,
            log_is_whole: true,
            agents,
            ..Report::default()
        };
        report.judge();
        report
    }

    #[test]
    fn it_is_good_only_when_all_agents_have_the_same_and_all_of_it() {
        assert!(judged(vec![agent("d", "t", 5), agent("d", "t", 5)]).ok);
        assert!(!judged(vec![agent("d", "t", 5), agent("e", "t", 5)]).ok);
        assert!(!judged(vec![agent("d", "t", 5), agent("d", "u", 5)]).ok);
        assert!(!judged(vec![agent("d", "t", 5), agent("d", "t", 4)]).ok);
        assert!(!judged(vec![]).ok);
        let mut nameless = agent("d", "t", 5);
        nameless.digest = None;
        assert!(!judged(vec![nameless.clone(), nameless]).ok);
    }

    #[test]
    fn numbers_are_grouped_for_the_eye() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }
}
