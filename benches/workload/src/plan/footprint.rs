//! Size of a plan, known before it is built.

use super::{Layer, PlanError};
use crate::event::{Event, Frame, What};
use skytale_proto::ChannelMode;

/// Number of agents named by commits that take about the memory of one event.
const NAMES_PER_EVENT: u64 = 32;

/// An event names two agents at most (an author and whose KeyPackage it claims) besides those that count as names, and one channel.
/// So whatever fits numbers its agents and channels in 32 bits.
const _: () = assert!(super::EVENTS_MAX as u64 * (NAMES_PER_EVENT + 2) < u32::MAX as u64);

/// Memory of events. Sums and products saturate: they are over any limit then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Footprint {
    events: u64,
    /// Agents in the lists of commits.
    names: u64,
}

impl Footprint {
    pub(super) fn of(events: &[Event]) -> Self {
        events
            .iter()
            .fold(Self::default(), |size, event| size.and(Self::one(event)))
    }

    fn one(event: &Event) -> Self {
        let names = match &event.what {
            What::Append {
                frame:
                    Frame::Commit {
                        adds,
                        removes,
                        recipients,
                        ..
                    },
                ..
            } => adds.len() + removes.len() + recipients.len(),
            _ => 0,
        };
        Self {
            events: 1,
            names: names as u64,
        }
    }

    /// Returns the part that [`readers::add`](super::readers::add) adds to a layer.
    pub(super) fn of_readers(layer: &Layer, count: u32) -> Self {
        let readers = Self {
            // A token, a session and a subscription each.
            events: u64::from(count) * 3,
            names: 0,
        };
        let commits = Self {
            events: u64::from(count.div_ceil(super::readers::ADDS_MAX)),
            names: u64::from(count) * 2,
        };
        let created = layer.events.iter().filter_map(|event| match &event.what {
            What::Append {
                frame: Frame::Create { mode, .. },
                ..
            } => Some(*mode),
            _ => None,
        });
        created.fold(Self::default(), |size, mode| match mode {
            ChannelMode::Mls => size.and(readers).and(commits),
            _ => size.and(readers),
        })
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_add(other.events),
            names: self.names.saturating_add(other.names),
        }
    }

    pub(super) const fn times(self, count: u32) -> Self {
        Self {
            events: self.events.saturating_mul(count as u64),
            names: self.names.saturating_mul(count as u64),
        }
    }

    /// In events.
    const fn weight(self) -> u64 {
        self.events.saturating_add(self.names / NAMES_PER_EVENT)
    }

    /// Refuses a plan over the limit, in the number of copies of it that the plan is to have.
    pub(super) const fn must_fit(self, copies: u32, events_max: u64) -> Result<(), PlanError> {
        let events = self.times(copies).weight();
        if events > events_max {
            return Err(PlanError::TooMany { events });
        }
        Ok(())
    }
}
