//! Decides which of two processes that show a relay node's key has the node's place in the directory. Pure.
//!
//! Each process of a relay node has an id of its own. A restart and a copy of the node's files on a second machine look
//! alike at first: another process with the same key. The difference is whether the earlier one is still heard.
//!
//! ```text
//!  nobody has the place, or its process missed its heartbeats ──> the other one takes it
//!  the same addresses ──> it takes it: a process restarted in place ──> the earlier one is heard again: it takes it back
//!  other addresses    ──> it is refused until the earlier one has missed its heartbeats; both learn of it
//! ```

use skytale_proto::InstanceId;

/// The process that has the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// `None` for a node of a version that does not tell it.
    pub instance: Option<InstanceId>,
    /// Process whose place it took under the same addresses.
    pub displaced: Option<InstanceId>,
    /// The other one, if there was another one.
    pub twin: Option<InstanceId>,
    /// Whether it has missed no more heartbeats than it may.
    pub is_live: bool,
}

/// The process that wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    pub instance: Option<InstanceId>,
    /// Whether it is reached at the holder's addresses.
    pub same_addresses: bool,
}

/// The process that has it from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The claimant, as before.
    Keeps,
    /// The claimant. `displaced` may still be there.
    Takes { displaced: Option<InstanceId> },
    /// The claimant, whose place it was. The holder is its twin now.
    TakesBack,
    /// The holder. The claimant is its twin.
    Refused,
}

/// Judges a claim.
pub(crate) fn claim(holder: Option<Holder>, claimant: Claimant) -> Claim {
    let Some(holder) = holder else {
        return Claim::Takes { displaced: None };
    };
    if claimant.instance == holder.instance {
        return Claim::Keeps;
    }
    if !holder.is_live {
        return Claim::Takes { displaced: None };
    }
    if claimant.instance.is_some() && claimant.instance == holder.displaced {
        return Claim::TakesBack;
    }
    let was_refused = claimant.instance.is_some() && claimant.instance == holder.twin;
    if claimant.same_addresses && !was_refused {
        return Claim::Takes {
            displaced: holder.instance,
        };
    }
    Claim::Refused
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<InstanceId> = Some(InstanceId::from_bytes([1; 16]));
    const B: Option<InstanceId> = Some(InstanceId::from_bytes([2; 16]));
    const C: Option<InstanceId> = Some(InstanceId::from_bytes([3; 16]));
    const LIVE: Holder = Holder {
        instance: A,
        displaced: None,
        twin: None,
        is_live: true,
    };

    const fn from(instance: Option<InstanceId>, same_addresses: bool) -> Claimant {
        Claimant {
            instance,
            same_addresses,
        }
    }

    #[test]
    fn a_second_machine_is_refused_while_the_first_is_heard() {
        assert_eq!(claim(None, from(B, false)), Claim::Takes { displaced: None });
        assert_eq!(claim(Some(LIVE), from(A, false)), Claim::Keeps);
        assert_eq!(claim(Some(LIVE), from(B, false)), Claim::Refused);
        let silent = Holder { is_live: false, ..LIVE };
        assert_eq!(claim(Some(silent), from(B, false)), Claim::Takes { displaced: None });
    }

    #[test]
    fn a_restart_in_place_waits_for_nothing_and_a_copy_that_looks_like_one_is_found_out() {
        assert_eq!(claim(Some(LIVE), from(B, true)), Claim::Takes { displaced: A });
        let restarted = Holder {
            instance: B,
            displaced: A,
            ..LIVE
        };
        assert_eq!(claim(Some(restarted), from(B, true)), Claim::Keeps);
        // It crashed and was started once more.
        assert_eq!(claim(Some(restarted), from(C, true)), Claim::Takes { displaced: B });
        // The first one was there all the time.
        assert_eq!(claim(Some(restarted), from(A, true)), Claim::TakesBack);
        let back = Holder { twin: B, ..LIVE };
        assert_eq!(claim(Some(back), from(B, true)), Claim::Refused);
        assert_eq!(claim(Some(back), from(A, true)), Claim::Keeps);
    }

    #[test]
    fn a_node_that_does_not_tell_is_a_process_like_any() {
        let old = Holder { instance: None, ..LIVE };
        assert_eq!(claim(Some(old), from(None, false)), Claim::Keeps);
        assert_eq!(claim(Some(old), from(B, true)), Claim::Takes { displaced: None });
        assert_eq!(claim(Some(old), from(B, false)), Claim::Refused);
        assert_eq!(claim(Some(LIVE), from(None, false)), Claim::Refused);
    }
}
