//! Offset of a server's clock from this machine's.

use super::gather::{Facts, Found};
use super::report::{Finding, Severity};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Clocks that are further apart are reported.
const APART_MAX: Duration = Duration::from_secs(1);
/// Clocks that are further apart are critical: grants end, and entries are given up, by the time of the server.
const FAR_APART: Duration = Duration::from_secs(60);

/// A server's clock against this machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Clock {
    /// Offset, in milliseconds, positive if it is ahead.
    pub(super) ahead_ms: i64,
    /// Possible error of the offset: half the time of question and answer.
    pub(super) within_ms: i64,
}

impl Clock {
    /// Reads the clock that a server reported between two moments here.
    pub(super) fn read(said: &str, asked: SystemTime, answered: SystemTime) -> Option<Self> {
        let said = async_nats::datetime::parse_rfc3339(said).ok()?;
        let said_ms = i64::try_from(said.unix_timestamp_nanos() / 1_000_000).ok()?;
        let (asked_ms, answered_ms) = (unix_ms(asked)?, unix_ms(answered)?);
        Some(Self {
            ahead_ms: said_ms - (asked_ms + answered_ms) / 2,
            within_ms: (answered_ms - asked_ms).max(0) / 2 + 1,
        })
    }

    /// Whether it is certainly further off.
    fn is_off_by(self, limit: Duration) -> bool {
        let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        self.ahead_ms.saturating_abs() > limit.saturating_add(self.within_ms)
    }

    /// Describes it in words.
    fn describe(self) -> String {
        let seconds = self.ahead_ms.unsigned_abs() as f64 / 1e3;
        let way = if self.ahead_ms < 0 { "behind" } else { "ahead of" };
        format!("{seconds:.1} s {way}")
    }
}

/// Findings about clocks: one that is off is its server's, all of them together are this machine's.
pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    let mut clocks: BTreeMap<&str, Clock> = BTreeMap::new();
    for server in facts.answering() {
        clocks.extend(server.clock.map(|clock| (server.name.as_str(), clock)));
    }
    for looked in &facts.streams {
        let Found::There(info, Some(clock)) = &looked.found else {
            continue;
        };
        // The leader answers.
        if let Some(leader) = info.cluster.as_ref().and_then(|cluster| cluster.leader.as_deref()) {
            clocks.entry(leader).or_insert(*clock);
        }
    }
    let off: Vec<(&str, Clock)> = clocks.iter().map(|(name, clock)| (*name, *clock)).collect();
    let off: Vec<(&str, Clock)> = off
        .into_iter()
        .filter(|(_, clock)| clock.is_off_by(APART_MAX))
        .collect();
    let severity = |clock: Clock| {
        if clock.is_off_by(FAR_APART) {
            Severity::Critical
        } else {
            Severity::Warning
        }
    };
    let set = "set the clock by NTP, and see that it stays: timedatectl set-ntp true".to_owned();
    let (least, most) = (
        off.iter().map(|(_, clock)| clock.ahead_ms).min().unwrap_or(0),
        off.iter().map(|(_, clock)| clock.ahead_ms).max().unwrap_or(0),
    );
    let together = u128::from(most.abs_diff(least)) <= APART_MAX.as_millis();
    if let (Some((_, clock)), true) = (off.first(), off.len() > 1 && off.len() == clocks.len() && together) {
        findings.push(Finding {
            severity: severity(*clock),
            check: "clock",
            subject: "this machine".to_owned(),
            found: format!("all servers' clocks are {} this machine's", clock.describe()),
            means: "If a relay node or the API runs here, it takes tokens for ended or for not begun.".to_owned(),
            mend: vec![set],
        });
        return;
    }
    for (name, clock) in off {
        findings.push(Finding {
            severity: severity(clock),
            check: "clock",
            subject: name.to_owned(),
            found: format!("its clock is {} this machine's", clock.describe()),
            means: "Entries of streams that it leads carry its time: invites end, and entries are given up, too early or too late."
                .to_owned(),
            mend: vec![format!("on its machine: {set}")],
        });
    }
}

fn unix_ms(time: SystemTime) -> Option<i64> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_only_where_the_time_of_the_answer_does_not_explain_it() {
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        let read = |asked, answered| Clock::read("1970-01-01T00:01:00.500Z", at(asked), at(answered)).expect("a clock");
        let near = read(60_000, 61_000);
        assert_eq!((near.ahead_ms, near.is_off_by(APART_MAX)), (0, false));
        // Three seconds ahead, and the answer took four.
        assert!(!read(55_500, 59_500).is_off_by(APART_MAX));
        let far = read(57_000, 57_200);
        assert_eq!(far.ahead_ms, 3_400);
        assert!(far.is_off_by(APART_MAX) && !far.is_off_by(FAR_APART));
        assert_eq!(far.describe(), "3.4 s ahead of");
        assert_eq!(read(70_000, 70_000).describe(), "9.5 s behind");
        assert_eq!(Clock::read("yesterday", at(0), at(0)), None);
    }
}
