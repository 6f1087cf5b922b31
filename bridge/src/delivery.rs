//! Progress of one link in one channel. Pure.
//!
//! ```text
//!            confirmed          handed             head
//!   log  ────────┴─────────────────┴─────────────────┴──>
//!                 read by the        in the link's      not sent
//!                 client's node      queue or beyond
//! ```
//!
//! SLIM has no acknowledgement between a node and its client. But a node answers each Unsubscribe that carries an id, in
//! the order in which it reads its stream. So after frames the bridge sends an Unsubscribe of a name that nobody has: a
//! *barrier*. Its answer, whatever it says, proves that the client's process has read all that was sent before it. The
//! member's cursor moves then and not earlier: a frame in the queue or in the kernel when the link breaks is sent again.
//!
//! The cursor also waits for a second (`confirm_ms`) in which the link must stay up: a process that is killed has not
//! given its application its last messages.
//!
//! So delivery is **at least once**. A live process that reconnects drops messages that it has had: MLS refuses a
//! ciphertext whose key was used, and in reliable sessions the message id tells. A process that was killed may show its
//! application again the messages of its last second: SLIM does not keep its receiving keys. Messages that an
//! application leaves in SLIM's queue for longer than that second are lost if the process is killed: SLIM keeps no
//! inbox, and the bridge cannot see that far.

use crate::wire::FullName;
use std::collections::BTreeMap;

/// State of a member when it joined on this link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// It has everything up to this offset.
    pub after: u64,
    /// The head at that time: until there it is replayed.
    pub head: u64,
}

/// The state of one link in one channel.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    members: BTreeMap<FullName, u64>,
    handed: u64,
    confirmed: u64,
    replay_until: u64,
    barrier: Option<(u64, u64)>,
}

impl Delivery {
    /// A member joins. Gives whether reading must go back: it has less than what this link was given.
    pub fn join(&mut self, member: FullName, start: Start) -> bool {
        let first = self.members.is_empty();
        self.members.insert(member, start.after);
        self.replay_until = self.replay_until.max(start.head);
        let back = first || start.after < self.handed;
        if back {
            self.handed = start.after;
            self.confirmed = start.after;
            // The answer to an earlier one would confirm messages that are about to be sent again.
            self.barrier = None;
        }
        back
    }

    /// A member leaves. Gives whether it was the last.
    pub fn leave(&mut self, member: &FullName) -> bool {
        self.members.remove(member);
        self.members.is_empty()
    }

    /// Returns the number of members on this link.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Whether a member is on this link.
    pub fn has(&self, member: &FullName) -> bool {
        self.members.contains_key(member)
    }

    /// Whether all that sits on this link has sent a frame itself: `source` is the only member.
    pub fn is_all(&self, source: &FullName) -> bool {
        self.members.len() == 1 && self.members.contains_key(source)
    }

    /// The offset up to which entries were handed to the link.
    pub const fn handed(&self) -> u64 {
        self.handed
    }

    /// The entry at an offset was handed to the link, or is not for it. Gives whether it was part of the replay.
    pub fn hand(&mut self, offset: u64) -> bool {
        debug_assert!(offset > self.handed, "entries are handed in order");
        self.handed = self.handed.max(offset);
        offset <= self.replay_until
    }

    /// Whether everything up to the head at the time of the newest join was handed over.
    pub const fn is_replayed(&self) -> bool {
        self.handed >= self.replay_until
    }

    /// The log has given up the entries before `first`: it cannot be handed over.
    pub const fn trimmed(&mut self, first: u64) {
        if self.handed + 1 < first {
            self.handed = first - 1;
        }
    }

    /// Whether a barrier should be sent now: something was handed over, and none is under way.
    pub const fn wants_barrier(&self) -> bool {
        self.barrier.is_none() && self.confirmed < self.handed
    }

    /// A barrier with this id goes out behind the messages handed over.
    pub const fn barrier_sent(&mut self, id: u64) {
        self.barrier = Some((id, self.handed));
    }

    /// A barrier was answered. Gives the members and the offset that they have now.
    pub fn answered(&mut self, id: u64) -> Option<(Vec<FullName>, u64)> {
        let (sent, offset) = self.barrier?;
        if sent != id {
            return None;
        }
        self.barrier = None;
        self.confirmed = self.confirmed.max(offset);
        Some((self.members.keys().copied().collect(), self.confirmed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALICE: FullName = FullName {
        prefix: [1, 2, 3],
        id: 1,
    };
    const BOB: FullName = FullName {
        prefix: [1, 2, 3],
        id: 2,
    };

    #[test]
    fn what_is_handed_over_is_received_when_a_later_barrier_is_answered() {
        let mut delivery = Delivery::default();
        assert!(delivery.join(ALICE, Start { after: 5, head: 7 }));
        assert!(!delivery.is_replayed() && !delivery.wants_barrier());
        assert!(delivery.hand(6));
        delivery.barrier_sent(1);
        assert!(delivery.hand(7) && delivery.is_replayed());
        assert!(!delivery.hand(8), "live");
        assert!(!delivery.wants_barrier(), "one at a time");
        assert_eq!(delivery.answered(9), None, "another one's answer");
        assert_eq!(delivery.answered(1), Some((vec![ALICE], 6)));
        assert_eq!(delivery.answered(1), None, "once");
        assert!(delivery.wants_barrier());
    }

    #[test]
    fn a_member_that_joins_further_behind_brings_the_link_back() {
        let mut delivery = Delivery::default();
        delivery.join(ALICE, Start { after: 5, head: 5 });
        delivery.hand(6);
        delivery.barrier_sent(1);
        assert!(delivery.join(BOB, Start { after: 2, head: 6 }));
        assert_eq!(delivery.answered(1), None, "it said nothing of what Bob has");
        assert_eq!(delivery.handed(), 2);
        assert!(!delivery.is_all(&ALICE));
        assert!(!delivery.leave(&BOB) && delivery.leave(&ALICE));
    }

    proptest! {
        #[test]
        fn a_cursor_never_passes_what_was_sent_before_an_answered_barrier(steps in proptest::collection::vec((0..3u8, 1..4u64), 0..60)) {
            let mut delivery = Delivery::default();
            delivery.join(ALICE, Start { after: 0, head: 0 });
            let (mut id, mut outstanding, mut proven) = (0, None, 0);
            for (kind, number) in steps {
                match kind {
                    0 => {
                        let next = delivery.handed() + number;
                        delivery.hand(next);
                    }
                    1 if delivery.wants_barrier() => {
                        id += 1;
                        outstanding = Some((id, delivery.handed()));
                        delivery.barrier_sent(id);
                    }
                    _ => if let Some((id, at)) = outstanding.take() {
                        proven = at;
                        prop_assert_eq!(delivery.answered(id), Some((vec![ALICE], at)));
                    }
                }
                prop_assert!(proven <= delivery.handed());
            }
        }
    }
}
