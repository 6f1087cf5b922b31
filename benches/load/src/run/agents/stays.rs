//! Stays of an agent in a channel.

use skytale_proto::Offset;

/// The stretches of a channel's log in which an agent was a member, as its own events say.
#[derive(Clone, Debug, Default)]
pub(super) struct Stays {
    /// The first and the last offset. A stay without a last one goes on.
    stays: Vec<(Offset, Option<Offset>)>,
    /// Events were lost, or contradict each other.
    is_unknown: bool,
}

impl Stays {
    /// The agent made the channel, or was added by the commit at this offset.
    pub(super) fn joined(&mut self, offset: Offset) {
        // It cannot join again before it has left.
        self.is_unknown |= self.is_in();
        self.stays.push((offset, None));
    }

    /// The agent is in the group again after it could not follow it. It need not have left.
    pub(super) fn rejoined(&mut self, offset: Offset) {
        if !self.is_in() {
            self.stays.push((offset, None));
        }
    }

    /// The commit at this offset removed the agent.
    pub(super) fn left(&mut self, offset: Offset) {
        match self.stays.last_mut() {
            Some((_, last @ None)) => *last = Some(offset),
            _ => self.is_unknown = true,
        }
    }

    /// Events were lost: the known ones may not be all.
    pub(super) const fn lost(&mut self) {
        self.is_unknown = true;
    }

    pub(super) const fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// Returns the place of the agent's last join.
    pub(super) fn last_join(&self) -> Option<Offset> {
        self.stays.last().map(|(first, _)| *first)
    }

    /// The first and the last offset of each stay, up to the agent's cursor. `None` if they are not known.
    pub(super) fn stretches(&self, cursor: Offset) -> Option<Vec<(Offset, Offset)>> {
        if self.is_unknown || self.stays.is_empty() {
            return None;
        }
        let stretches = self.stays.iter().map(|(first, last)| (*first, last.unwrap_or(cursor)));
        Some(stretches.filter(|(first, last)| first <= last).collect())
    }

    fn is_in(&self) -> bool {
        self.stays.last().is_some_and(|(_, last)| last.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Offset {
        Offset::new(offset)
    }

    #[test]
    fn an_agent_that_was_removed_and_added_again_has_two_stretches() {
        let mut stays = Stays::default();
        assert_eq!(stays.stretches(at(9)), None);
        stays.joined(at(2));
        assert_eq!(stays.stretches(at(9)), Some(vec![(at(2), at(9))]));
        stays.left(at(10));
        stays.joined(at(20));
        assert_eq!(stays.last_join(), Some(at(20)));
        assert_eq!(stays.stretches(at(30)), Some(vec![(at(2), at(10)), (at(20), at(30))]));
        // It went on in the group: no new stay.
        stays.rejoined(at(25));
        assert_eq!(stays.stretches(at(30)), Some(vec![(at(2), at(10)), (at(20), at(30))]));
    }

    #[test]
    fn stays_with_lost_events_are_not_known() {
        let mut stays = Stays::default();
        stays.joined(at(2));
        let mut lost = stays.clone();
        lost.lost();
        assert_eq!(lost.stretches(at(9)), None);
        // It was removed in between.
        stays.joined(at(5));
        assert_eq!(stays.stretches(at(9)), None);
        let mut stays = Stays::default();
        stays.left(at(5));
        assert_eq!(stays.stretches(at(9)), None);
    }
}
