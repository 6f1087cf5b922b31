//! Appends that were refused although nothing is wrong with their frames: an author's order must survive it.
//!
//! An author that has frames on their way learns of one refusal after the other, and sends again what was refused. So that none
//! of its frames passes one that was refused before it, an append that was asked for before a refusal of its log was reported is
//! refused, too. Refusals are counted. An append remembers the count at which it was asked for, a log the one of its last
//! refusal.

use parking_lot::Mutex;
use skytale_proto::LogId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Logs whose refusals are remembered one by one, at most.
const LOGS_MAX: usize = 4_096;

/// Refusals so far.
#[derive(Default)]
pub(crate) struct Refusals {
    count: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    logs: HashMap<LogId, u64>,
    /// No log takes an append that was asked for before this.
    floor: u64,
}

impl Refusals {
    /// The count for an append that is asked for now.
    pub(crate) fn now(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// An append to a log was refused, and its author told so.
    pub(crate) fn add(&self, log: LogId) {
        let mut told = self.told.lock();
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        if told.logs.len() >= LOGS_MAX && !told.logs.contains_key(&log) {
            told.logs.clear();
            told.floor = count;
        }
        told.logs.insert(log, count);
    }

    /// All that were asked for before now are refused, of whatever log.
    #[cfg(feature = "fleet")]
    pub(crate) fn add_all(&self) {
        let mut told = self.told.lock();
        told.logs.clear();
        told.floor = self.count.fetch_add(1, Ordering::AcqRel) + 1;
    }

    /// Whether an append to a log that was asked for at this count is refused, because others were.
    pub(crate) fn is_before(&self, log: &LogId, asked: u64) -> bool {
        // None since: nothing to look up.
        if asked == self.now() {
            return false;
        }
        let told = self.told.lock();
        asked < told.floor || told.logs.get(log).is_some_and(|count| asked < *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::ChannelId;

    #[test]
    fn what_was_asked_for_before_a_refusal_of_its_log_is_refused_and_nothing_else() {
        let (one, other) = (ChannelId::generate().log(), ChannelId::generate().log());
        let refusals = Refusals::default();
        let before = refusals.now();
        refusals.add(one);
        assert!(refusals.is_before(&one, before));
        assert!(!refusals.is_before(&other, before));
        assert!(!refusals.is_before(&one, refusals.now()));
        for _ in 0..=LOGS_MAX {
            refusals.add(ChannelId::generate().log());
        }
        // Forgotten one by one, and so for all.
        assert!(refusals.is_before(&one, before) && refusals.is_before(&other, before));
        assert!(!refusals.is_before(&one, refusals.now()));
    }

    #[cfg(feature = "fleet")]
    #[test]
    fn what_was_asked_for_before_all_were_refused_is_refused_and_what_comes_later_is_not() {
        let (one, other) = (ChannelId::generate().log(), ChannelId::generate().log());
        let refusals = Refusals::default();
        let before = refusals.now();
        refusals.add_all();
        let between = refusals.now();
        assert!(refusals.is_before(&one, before) && refusals.is_before(&other, before));
        assert!(!refusals.is_before(&one, between) && !refusals.is_before(&other, between));
        // The first author learns: what another one asked for since is not its own.
        refusals.add(one);
        assert!(refusals.is_before(&one, between) && !refusals.is_before(&other, between));
    }
}
