//! Refusals of a relay node, counted. Pure.

use skytale_proto::Code;

/// After so many refusals in a row another relay node may be better.
const REFUSALS_BORNE: u32 = 3;

/// Refusals in a row that another relay node may not have, of one task and kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals(u32);

/// What a refusal was counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// It is about the agent or the log: any relay node would say so.
    No,
    /// Another relay node may not have it.
    Yes,
    /// So many of them came in a row that another relay node is to be looked for.
    TooMany,
}

impl Refusals {
    pub(super) const fn new() -> Self {
        Self(0)
    }

    /// It was not refused, or not by the relay node.
    pub(super) const fn reset(&mut self) {
        self.0 = 0;
    }

    pub(super) const fn any(&self) -> bool {
        self.0 > 0
    }

    /// Another relay node may be better.
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

/// Whether a refusal is about the relay node, or what it has and can reach, and not about the agent or the log.
const fn may_be_better_elsewhere(code: Code) -> bool {
    match code {
        Code::RateLimited | Code::AccountRateLimited | Code::AccountStored | Code::Draining | Code::TooManyStreams => {
            false
        }
        Code::CursorBeyondHead | Code::StoreCorrupt => true,
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
