use super::*;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

fn agent() -> impl Strategy<Value = AgentId> {
    any::<[u8; 32]>().prop_map(AgentId::from_bytes)
}

fn channel() -> impl Strategy<Value = ChannelId> {
    any::<[u8; 16]>().prop_map(ChannelId::from_bytes)
}

fn account() -> impl Strategy<Value = AccountId> {
    any::<[u8; 16]>().prop_map(AccountId::from_bytes)
}

fn policy() -> impl Strategy<Value = Policy> {
    (0..32u8, btree_set(agent(), 0..4)).prop_map(|(bits, admins)| Policy::from_parts(bits, admins).expect("a policy"))
}

fn offset() -> impl Strategy<Value = Offset> {
    (1..=u64::MAX).prop_map(Offset::new)
}

fn claim_rule() -> impl Strategy<Value = ClaimRule> {
    prop_oneof![
        Just(ClaimRule::Account),
        Just(ClaimRule::Anyone),
        (vec(account(), 0..4), vec(agent(), 0..4)).prop_map(|(accounts, agents)| {
            Allowed::new(accounts, agents).map_or(ClaimRule::Account, ClaimRule::Listed)
        }),
    ]
}

fn detail() -> impl Strategy<Value = Detail> {
    prop_oneof![
        Just(Detail::Create {
            mode: ChannelMode::Mls,
            account: None,
            policy: None,
        }),
        policy().prop_map(|policy| Detail::Create {
            mode: ChannelMode::Mls,
            account: None,
            policy: Some(policy),
        }),
        account().prop_map(|account| Detail::Create {
            mode: ChannelMode::Raw,
            account: Some(account),
            policy: None,
        }),
        (
            btree_set(agent(), 0..5),
            btree_set(agent(), 0..5),
            0..5usize,
            prop::option::of(policy())
        )
            .prop_map(|(adds, removes, welcomed, policy)| {
                Detail::Commit {
                    recipients: adds.iter().copied().take(welcomed).collect(),
                    adds: adds.into_iter().collect(),
                    removes: removes.into_iter().collect(),
                    roster: None,
                    policy,
                }
            }),
        Just(Detail::Proposal),
        Just(Detail::Rejoin),
        Just(Detail::Message),
        offset().prop_map(|up_to| Detail::Trim { up_to }),
        account().prop_map(|account| Detail::Raw { account }),
        (any::<bool>(), proptest::option::of(account()))
            .prop_map(|(last_resort, account)| Detail::KeyPackage { last_resort, account }),
        proptest::option::of(account()).prop_map(|account| Detail::KeyPackageClaim { account }),
        (account(), claim_rule()).prop_map(|(account, rule)| Detail::KeyPackagePolicy { account, rule }),
        (channel(), offset(), any::<bool>()).prop_map(|(channel, offset, returns)| Detail::Welcome {
            channel,
            offset,
            returns
        }),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (channel(), agent(), any::<[u8; 16]>(), agent(), offset(), detail()).prop_map(
        |(channel, owner, id, author, parent, detail)| Header {
            log: if detail.kind().fits(&channel.log()) {
                channel.log()
            } else {
                owner.log()
            },
            id: FrameId::from_bytes(id),
            author,
            parent: match detail.kind() {
                kind if kind.is_under_handshake_rule() => parent,
                _ => Offset::ZERO,
            },
            detail,
        },
    )
}

proptest! {
    #[test]
    fn a_frame_comes_back_as_it_was(header in header(), body in vec(any::<u8>(), 0..200)) {
        let frame = Frame::new(header.clone(), body.clone())?;
        prop_assert_eq!(frame.header(), &header);
        prop_assert_eq!(frame.body(), &body);
        prop_assert_eq!(Frame::decode(frame.encoded().clone())?, frame);
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode(bytes.into());
    }

    #[test]
    fn a_damaged_frame_is_a_frame_or_an_error(header in header(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = Frame::new(header, vec![1, 2, 3])?.encoded().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = Frame::decode(bytes.into());
    }
}

fn message(log: LogId) -> Header {
    Header {
        log,
        id: FrameId::generate(),
        author: AgentId::from_bytes([1; 32]),
        parent: Offset::FIRST,
        detail: Detail::Message,
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_on_both_sides() {
    let channel = ChannelId::generate();
    let new = Frame::new(message(channel.log()), vec![0; limits::FRAME_BYTES_MAX]);
    assert_eq!(new.map_err(|error| error.code()), Err(Code::FrameTooLarge));
    let decoded = Frame::decode(vec![0; limits::FRAME_BYTES_MAX + 1].into());
    assert_eq!(decoded.map_err(|error| error.code()), Err(Code::FrameTooLarge));
}

#[test]
fn a_message_has_no_place_on_an_agents_log() {
    let header = message(AgentId::from_bytes([3; 32]).log());
    assert!(matches!(
        Frame::new(header, Bytes::new()),
        Err(FrameError::Field { field: "kind", .. })
    ));
}

#[test]
fn a_roster_that_is_told_whole_fits_the_commit_and_has_one_encoding() {
    let [a, b, c] = [1, 2, 3].map(|number| AgentId::from_bytes([number; 32]));
    let told = |roster: &[AgentId], adds: &[AgentId], removes: &[AgentId]| {
        let detail = Detail::Commit {
            adds: adds.to_vec(),
            removes: removes.to_vec(),
            recipients: Vec::new(),
            roster: Some(roster.to_vec()),
            policy: None,
        };
        let header = Header {
            author: a,
            detail,
            ..message(ChannelId::generate().log())
        };
        Frame::new(header.clone(), Bytes::new()).map(|frame| assert_eq!(*frame.header(), header))
    };
    assert_eq!(told(&[a, b, c], &[c], &[]), Ok(()));
    assert_eq!(told(&[a, b], &[b], &[b, c]), Ok(()));
    for (roster, adds, removes) in [
        (&[b, a][..], &[][..], &[][..]),
        (&[a, a], &[], &[]),
        (&[b], &[], &[]),
        (&[a], &[b], &[]),
        (&[a, b], &[], &[b]),
    ] {
        assert!(matches!(
            told(roster, adds, removes),
            Err(FrameError::Field { field: "roster", .. })
        ));
    }
}

#[test]
fn a_welcome_goes_only_to_who_is_added() {
    let header = Header {
        detail: Detail::Commit {
            adds: vec![],
            removes: vec![],
            recipients: vec![AgentId::from_bytes([9; 32])],
            roster: None,
            policy: None,
        },
        ..message(ChannelId::generate().log())
    };
    assert!(matches!(
        Frame::new(header, Bytes::new()),
        Err(FrameError::Field {
            field: "recipients",
            ..
        })
    ));
}

/// One rule has one encoding, and a list goes with no rule but its own.
#[test]
fn a_policy_with_a_list_out_of_place_or_out_of_order_is_refused() {
    let owner = AgentId::from_bytes([3; 32]);
    let header = Header {
        log: owner.log(),
        author: owner,
        parent: Offset::ZERO,
        detail: Detail::KeyPackagePolicy {
            account: AccountId::from_bytes([1; 16]),
            rule: ClaimRule::Anyone,
        },
        ..message(owner.log())
    };
    let with = |change: fn(&mut wire::FrameHeader)| {
        let mut wire = to_wire(&header);
        change(&mut wire);
        from_wire(wire)
    };
    assert_eq!(with(|_| {}).as_ref(), Ok(&header));
    let refused: [fn(&mut wire::FrameHeader); 7] = [
        |wire| wire.claim_by = 0,
        |wire| wire.account.clear(),
        |wire| wire.claim_accounts = vec![1; 16].into(),
        |wire| wire.claim_by = 2,
        |wire| (wire.claim_by, wire.claim_accounts) = (2, vec![1; 17].into()),
        |wire| (wire.claim_by, wire.claim_agents) = (2, vec![1; 64].into()),
        |wire| (wire.claim_by, wire.claim_accounts) = (2, vec![1; 16 * (limits::CLAIM_RULE_MAX + 1)].into()),
    ];
    for (number, change) in refused.into_iter().enumerate() {
        assert!(with(change).is_err(), "{number}");
    }
}
