//! Counting refusals of a relay node. Pure.

use skytale_proto::Code;

/// Number of consecutive refusals after which another relay node may be better.
const REFUSALS_BORNE: u32 = 3;

/// Consecutive refusals, of one task and kind, that another relay node may not give.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals(u32);

/// Result of counting a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Not counted: it concerns the agent or the log, so any relay node would refuse.
    No,
    /// Counted: another relay node may not refuse.
    Yes,
    /// Counted, and there were so many in a row that the agent looks for another relay node.
    TooMany,
}

impl Refusals {
    pub(super) const fn new() -> Self {
        Self(0)
    }

    /// Resets the count: there was no refusal, or not by the relay node.
    pub(super) const fn reset(&mut self) {
        self.0 = 0;
    }

    pub(super) const fn any(&self) -> bool {
        self.0 > 0
    }

    /// Whether another relay node may be better.
    pub(super) const fn are_too_many(&self) -> bool {
        self.0 >= REFUSALS_BORNE
    }

    pub(super) const fn count(&mut self, code: Code) -> Counted {
        if !may_be_better_elsewhere(code) {
            return Counted::No;
        }
        self.0 = self.0.saturating_add(1);
        match self.are_too_many() {
            true => Counted::TooMany,
            false => Counted::Yes,
        }
    }
}

/// Whether a refusal concerns the relay node, its data or its connections, and not the agent or the log.
const fn may_be_better_elsewhere(code: Code) -> bool {
    match code {
        Code::RateLimited | Code::AccountRateLimited | Code::AccountStored | Code::Draining | Code::TooManyStreams => {
            false
        }
        Code::CursorBeyondHead | Code::StoreCorrupt | Code::AccountStreams => true,
        code => code.holds_log(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_relay_node_may_not_have_is_borne_a_few_times() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.count(Code::HomeUnreachable), Counted::Yes);
        assert_eq!(refusals.count(Code::HomeUnreachable), Counted::Yes);
        assert_eq!(refusals.count(Code::CursorBeyondHead), Counted::TooMany);
        assert_eq!(refusals.count(Code::StoreStopped), Counted::TooMany);
        refusals.reset();
        assert!(!refusals.any());
        assert_eq!(refusals.count(Code::CatchingUp), Counted::Yes);
    }

    #[test]
    fn what_any_relay_node_would_say_does_not_count() {
        let mut refusals = Refusals::default();
        for code in [
            Code::NotMember,
            Code::RateLimited,
            Code::AccountRateLimited,
            Code::AccountStored,
            Code::Draining,
            Code::Trimmed,
        ] {
            assert_eq!(refusals.count(code), Counted::No, "{code}");
        }
        assert!(!refusals.any());
    }
}
