//! The channel's machine, by examples and by any story.

use super::*;
use crate::engine::Standing;
use proptest::prelude::*;
use skytale_proto::ChannelId;

const INBOX_MAX: u64 = 10;

fn view() -> ChannelInfo {
    ChannelInfo {
        id: ChannelId::from_bytes([1; 16]),
        label: String::new(),
        state: ChannelState::Active,
        standing: Standing::Current,
        cursor: Offset::new(5),
        handshake_head: Offset::new(2),
        epoch: 1,
        unacked: 0,
        outbox: 0,
        failed: 0,
        settlements: 0,
    }
}

/// A channel that was subscribed to, and has nothing to send.
fn subscribed(now: Instant) -> WorkerState {
    let mut state = WorkerState::new(view(), INBOX_MAX, now);
    let subscribe = Step::Subscribe {
        after: Offset::new(5),
        expected: Offset::ZERO,
    };
    assert_eq!(state.next(now), Some(subscribe));
    state.on_subscribed();
    assert_eq!(state.next(now), Some(pump(PUMP_BYTES)));
    state.on_frames(0, None, now);
    assert_eq!((state.next(now), state.wake()), (None, None));
    state
}

fn live(now: Instant) -> WorkerState {
    let mut state = subscribed(now);
    assert!(!state.may_be_watched(), "it is not at its head yet");
    assert!(state.on_caught_up(), "news");
    state
}

const fn pump(bytes: usize) -> Step {
    Step::Pump { renew: false, bytes }
}

fn refusal(code: Code) -> ReadRefusal {
    ReadRefusal {
        code,
        retryable: code.is_retryable(),
        retry_after: None,
        offset: Offset::ZERO,
        by_relay: true,
    }
}

const fn refused(code: Code) -> Outcome {
    Outcome::Refused { code, retryable: true }
}

#[test]
fn a_channel_is_live_only_once_the_head_was_reached_since_it_was_subscribed_to() {
    let now = Instant::now();
    let mut state = subscribed(now);
    assert_eq!(state.followed(), Followed::Behind);
    state.on_entries(now);
    assert_eq!(state.followed(), Followed::Behind);
    state.on_caught_up();
    assert_eq!(state.followed(), Followed::Live);
    state.on_ended(now);
    assert_eq!(state.followed(), Followed::Behind);
    // What was said of the subscription before counts no more.
    state.on_caught_up();
    assert_eq!(state.followed(), Followed::Behind);
}

#[test]
fn a_channel_whose_log_is_not_there_yet_is_subscribed_to_after_its_create() {
    let now = Instant::now();
    let creating = ChannelInfo {
        state: ChannelState::Creating,
        outbox: 1,
        ..view()
    };
    let mut state = WorkerState::new(creating, INBOX_MAX, now);
    assert_eq!(state.next(now), Some(pump(PUMP_BYTES)));
    state.on_frames(1, None, now);
    let appended = Outcome::Appended { offset: Offset::new(1) };
    let decision = state.on_verdict(Some(&appended), None, now);
    assert_eq!(decision.expect, Some(Offset::new(1)));
    assert!(matches!(state.next(now), Some(Step::Subscribe { expected, .. }) if expected == Offset::new(1)));
}

#[test]
fn a_full_inbox_pauses_the_channel_until_half_of_it_is_dealt_with_or_something_is_to_be_sent() {
    let now = Instant::now();
    let with = |unacked, outbox| ChannelInfo {
        unacked,
        outbox,
        ..view()
    };
    let mut state = subscribed(now);
    state.on_caught_up();
    state.on_view(with(INBOX_MAX, 0));
    assert_eq!(state.next(now), Some(Step::Pause { unacked: INBOX_MAX }));
    assert_eq!((state.next(now), state.followed()), (None, Followed::Paused));
    state.on_view(with(INBOX_MAX / 2 + 1, 0));
    assert_eq!((state.next(now), state.followed()), (None, Followed::Paused));
    state.on_view(with(INBOX_MAX / 2, 0));
    assert!(matches!(state.next(now), Some(Step::Subscribe { .. })));

    let mut state = subscribed(now);
    state.on_view(with(INBOX_MAX, 0));
    assert!(matches!(state.next(now), Some(Step::Pause { .. })));
    state.on_view(with(INBOX_MAX, 1));
    assert!(
        matches!(state.next(now), Some(Step::Subscribe { .. })),
        "only at the head can it be sent"
    );
}

#[test]
fn a_refused_log_is_tried_again_later_and_the_code_says_what_else_is_done() {
    let now = Instant::now();
    let decide = |code| {
        let mut state = subscribed(now);
        let decision = state.on_read_refused(&refusal(code), now);
        assert_eq!(state.next(now), None);
        let again = state.wake().expect("it is tried again");
        assert!(again > now && again <= now + RETRY.1, "{code}");
        assert!(matches!(state.next(again), Some(Step::Subscribe { .. })), "{code}");
        (decision.tell, decision.move_on, again - now > RETRY.0)
    };
    let (told, quiet, soon, late) = (true, false, false, true);
    assert_eq!(decide(Code::Draining), (quiet, false, soon));
    assert_eq!(decide(Code::CursorBeyondHead), (quiet, false, soon));
    assert_eq!(decide(Code::UnknownLog), (told, false, soon));
    assert_eq!(decide(Code::NotMember), (told, false, soon));
    assert_eq!(decide(Code::CatchingUp), (told, false, soon));
    assert_eq!(decide(Code::Trimmed), (told, false, late));

    // After several, another relay node may be better; then a log that is too short is reported, too.
    let mut state = subscribed(now);
    let decisions = [(); 3].map(|()| state.on_read_refused(&refusal(Code::CursorBeyondHead), now));
    assert_eq!(
        decisions.map(|decision| (decision.tell, decision.move_on)),
        [(false, false), (false, false), (true, true)]
    );
    // On this side it is no relay node's fault.
    let mut state = subscribed(now);
    for _ in 0..5 {
        let refusal = ReadRefusal {
            by_relay: false,
            ..refusal(Code::StoreStopped)
        };
        assert!(!state.on_read_refused(&refusal, now).move_on);
    }
}

#[test]
fn what_keeps_a_channel_from_being_read_again_and_again_is_told_as_lasting_until_something_comes() {
    let now = Instant::now();
    let refused = |code, times: usize| {
        let mut state = subscribed(now);
        let mut asks = Vec::new();
        for _ in 0..times {
            asks.push(state.on_read_refused(&refusal(code), now).ask);
        }
        (state, asks)
    };
    // A relay node that is only behind says so a few times.
    assert_eq!(refused(Code::CursorBeyondHead, 4).0.followed(), Followed::Behind);
    let (mut state, asks) = refused(Code::CursorBeyondHead, 5);
    assert_eq!(state.followed(), Followed::Refused(Code::CursorBeyondHead));
    assert!(asks[..4].iter().all(|ask| *ask == Ask::Nothing), "{asks:?}");
    assert!(matches!(asks[4], Ask::Short(_)), "{asks:?}");
    state.on_entries(now);
    assert_eq!(state.followed(), Followed::Behind);

    for code in [Code::NotMember, Code::Trimmed] {
        assert_eq!(refused(code, 2).0.followed(), Followed::Behind, "{code}");
        assert_eq!(refused(code, 3).0.followed(), Followed::Refused(code), "{code}");
    }
    let (mut state, _) = refused(Code::UnknownLog, 5);
    assert_eq!(state.followed(), Followed::Refused(Code::UnknownLog));
    state.on_moved_on(now);
    assert_eq!(state.followed(), Followed::Behind);
    // It must be the same again and again, and what passes by itself is waited for.
    let (mut state, _) = refused(Code::UnknownLog, 4);
    state.on_read_refused(&refusal(Code::CursorBeyondHead), now);
    assert_eq!(state.followed(), Followed::Behind);
    assert_eq!(refused(Code::CatchingUp, 20).0.followed(), Followed::Behind);

    // A damaged group keeps nobody waiting; a disk that is full for a while is waited for.
    let mut state = subscribed(now);
    for _ in 0..3 {
        state.on_vault_failed(Code::VaultDamaged, now);
    }
    assert_eq!(state.followed(), Followed::Refused(Code::VaultDamaged));
    let mut state = subscribed(now);
    for _ in 0..20 {
        state.on_vault_failed(Code::VaultFull, now);
    }
    assert_eq!(state.followed(), Followed::Behind);
}

#[test]
fn after_a_refused_frame_the_outbox_goes_out_in_order_on_another_stream_one_frame_first() {
    let now = Instant::now();
    let mut state = subscribed(now);
    state.on_woken();
    assert_eq!(state.next(now), Some(pump(PUMP_BYTES)));
    state.on_frames(3, None, now);
    let first = state.on_verdict(Some(&refused(Code::HomeUnreachable)), None, now);
    let pause = first.tell_held.expect("told");
    for _ in 0..2 {
        // Nothing new goes out before each of them has its verdict.
        assert_eq!(state.next(now + Duration::from_secs(60)), None);
        let behind = state.on_verdict(Some(&refused(Code::HomeUnreachable)), None, now);
        assert_eq!(behind, AppendDecision::default(), "those behind are refused like it");
    }
    assert_eq!(state.next(now), None);
    let again = state.wake().expect("it is tried again");
    assert_eq!(again, now + pause);
    let probe = Step::Pump { renew: true, bytes: 1 };
    assert_eq!(state.next(again), Some(probe));
    state.on_renewed();
    state.on_frames(1, None, again);
    assert_eq!(state.next(again), None, "one shows whether it is taken again");
    let appended = Outcome::Appended { offset: Offset::new(9) };
    assert_eq!(state.on_verdict(Some(&appended), None, again).tell_held, None);
    assert_eq!(state.next(again), Some(pump(PUMP_BYTES)), "and then all of it");
}

#[test]
fn a_wait_that_the_relay_node_asks_for_is_kept_and_does_not_count_against_it() {
    let now = Instant::now();
    let mut state = subscribed(now);
    state.on_frames(1, None, now);
    let asked = Duration::from_secs(20);
    let decision = state.on_verdict(Some(&refused(Code::RateLimited)), Some(asked), now);
    assert_eq!(decision, AppendDecision::default());
    assert!(state.wake().is_some_and(|at| at >= now + asked));
}

#[test]
fn refused_frames_are_tried_soon_where_others_are_taken() {
    let now = Instant::now();
    let mut state = subscribed(now);
    for _ in 0..10 {
        state.on_frames(1, None, now);
        state.on_verdict(Some(&refused(Code::HomeUnreachable)), None, now);
        state.on_renewed();
    }
    assert!(state.wake().is_some_and(|at| at > now + RETRY_LIVE));
    state.on_entries(now);
    assert!(state.wake().is_some_and(|at| at <= now + RETRY_LIVE));
}

#[test]
fn nothing_is_appended_in_a_session_that_is_about_to_be_left() {
    let now = Instant::now();
    let mut state = subscribed(now);
    state.on_woken();
    state.on_leaving(true);
    assert_eq!((state.next(now), state.wake()), (None, None));
}

#[test]
fn a_turn_is_taken_when_it_comes_and_not_twice() {
    let now = Instant::now();
    let mut state = subscribed(now);
    state.on_frames(0, Some(4), now);
    let at = state.wake().expect("a turn");
    assert!(at > now);
    assert_eq!(state.next(now), None);
    assert_eq!(state.next(at), Some(Step::TakeTurn));
    assert_eq!(state.next(at), Some(pump(PUMP_BYTES)));
    state.on_frames(0, None, at);
    assert_eq!((state.next(at), state.wake()), (None, None));
}

#[test]
fn members_that_joined_together_replace_their_leaves_one_after_the_other() {
    let now = Instant::now();
    let mut waits: Vec<Duration> = (0..1_000)
        .map(|_| {
            let mut state = live(now);
            state.on_refresh_due(Some(1_000), now);
            let at = state.wake().expect("a time");
            // Commits of others do not begin the wait again.
            state.on_refresh_due(Some(1_000), now + Duration::from_secs(1));
            assert_eq!(state.wake(), Some(at));
            assert_eq!(state.next(at), Some(Step::Refresh));
            at - now
        })
        .collect();
    waits.sort();
    assert!(waits[999] <= 1_000 * REFRESH_EACH);
    for (tenth, waits) in waits.chunks(100).enumerate() {
        // A tenth of them in each tenth of the time, about.
        let middle = REFRESH_EACH.mul_f64(100.0 * tenth as f64 + 50.0);
        assert!(
            waits[50].abs_diff(middle) < 100 * REFRESH_EACH,
            "{tenth}: {:?}",
            waits[50]
        );
    }
    let mut state = live(now);
    state.on_refresh_due(Some(40), now);
    state.on_refresh_due(None, now);
    assert_eq!(state.wake(), None, "another commit has done it");
}

#[test]
fn a_channel_that_was_left_is_done() {
    let now = Instant::now();
    let mut state = subscribed(now);
    state.on_view(ChannelInfo {
        state: ChannelState::Left,
        ..view()
    });
    assert_eq!((state.next(now), state.followed()), (Some(Step::Done), Followed::Left));
}

#[test]
fn a_watched_channel_stays_current_and_reads_when_it_is_woken_or_sends() {
    let now = Instant::now();
    let mut state = live(now);
    assert!(state.may_be_watched());
    state.on_watched();
    assert_eq!((state.next(now), state.wake()), (None, None));
    assert_eq!(state.followed(), Followed::Live);
    state.on_woken_up(true, now);
    assert!(matches!(state.next(now), Some(Step::Subscribe { .. })));
    state.on_no_seat();
    assert_eq!((state.next(now), state.wake()), (None, None));
    state.on_seat(now);
    assert!(matches!(state.next(now), Some(Step::Subscribe { .. })));
    state.on_subscribed();
    assert_eq!(state.followed(), Followed::Live, "it only gave its seat away");
    state.on_entries(now);
    assert!(!state.on_caught_up(), "no news");
    state.on_frames(0, None, now);
    state.on_watched();
    state.on_view(ChannelInfo { outbox: 1, ..view() });
    assert_eq!(state.next(now), Some(Step::Unwatch));
    assert!(matches!(state.next(now), Some(Step::Subscribe { .. })));
}

#[test]
fn a_relay_node_that_wakes_a_channel_for_nothing_is_heeded_less_and_less() {
    let mut now = Instant::now();
    let mut state = live(now);
    let mut waited = Duration::ZERO;
    for _ in 0..20 {
        state.on_watched();
        state.on_woken_up(true, now);
        if let Some(at) = state.wake() {
            waited += at - now;
            now = at;
        }
        assert!(matches!(state.next(now), Some(Step::Subscribe { .. })));
        state.on_subscribed();
        state.on_caught_up();
    }
    assert!(waited > RETRY.1, "{waited:?}");
    state.on_entries(now);
    state.on_frames(0, None, now);
    state.on_watched();
    state.on_woken_up(true, now);
    assert!(matches!(state.next(now), Some(Step::Subscribe { .. })), "at once");
}

/// A channel whose log went back, as its operator has confirmed, with two messages to acknowledge.
fn unacked(now: Instant) -> WorkerState {
    let mut state = subscribed(now);
    state.on_evidence(true);
    state.on_view(ChannelInfo { unacked: 2, ..view() });
    assert_eq!(state.next(now), Some(Step::Settle));
    assert!(state.may_wait_for_reader(now));
    state.on_unacked(now);
    assert!(state.waits_for_reader());
    assert_eq!(
        (state.next(now), state.wake()),
        (None, Some(now + HOLD_MAX)),
        "the log is not read"
    );
    assert_eq!(state.followed(), Followed::Paused);
    state
}

#[test]
fn a_log_that_went_back_is_not_read_until_all_is_acknowledged() {
    let now = Instant::now();
    let mut state = unacked(now);
    state.on_view(ChannelInfo { unacked: 1, ..view() });
    state.on_woken();
    assert_ne!(state.next(now), Some(Step::Settle));
    state.on_view(view());
    assert_eq!(state.next(now), Some(Step::Settle));
    state.on_settled();
    state.on_moved_on(now);
    assert!(matches!(state.next(now), Some(Step::Subscribe { .. })));
}

#[test]
fn a_log_that_went_back_is_not_waited_with_for_a_reader_that_is_gone_or_that_sends() {
    let now = Instant::now();
    let mut state = unacked(now);
    state.on_reader_gone();
    assert_eq!(state.next(now), Some(Step::Settle));

    let mut state = unacked(now);
    state.on_view(ChannelInfo {
        unacked: 2,
        outbox: 1,
        ..view()
    });
    assert_eq!(state.next(now), Some(Step::Settle));
    // It is the engine's own: the application waits for nothing.
    state.on_unacked(now);
    assert_eq!(state.next(now), None);
    state.on_view(ChannelInfo {
        unacked: 2,
        outbox: 2,
        ..view()
    });
    assert_eq!(state.next(now), Some(Step::Settle));
    state.on_unacked(now);
    let late = now + HOLD_MAX;
    assert_eq!(state.next(late), Some(Step::Settle), "nor for ever");
    assert!(!state.may_wait_for_reader(late));
}

#[test]
fn a_question_that_cannot_be_answered_now_is_retried_before_the_log_is_read_but_not_for_ever() {
    let mut now = Instant::now();
    let mut state = WorkerState::new(view(), INBOX_MAX, now);
    state.on_evidence(true);
    state.on_evidence(false);
    for _ in 1..SETTLE_MAX {
        assert_eq!(state.next(now), Some(Step::Settle), "what was evidence still is");
        state.on_settle_failed(None, now);
        assert!(!matches!(state.next(now), Some(Step::Settle | Step::Subscribe { .. })));
        state.on_frames(0, None, now);
        now = state.wake().expect("it is retried");
    }
    assert_eq!(state.next(now), Some(Step::Settle));
    state.on_settle_failed(None, now);
    assert!(matches!(state.next(now), Some(Step::Subscribe { .. })));
}

/// Something that happens to a channel.
#[derive(Clone, Debug)]
enum Story {
    Pass(u64),
    Acked(u64),
    Received(u64),
    Queued(u64),
    CaughtUp,
    Ended,
    ReadRefused(Code),
    VaultFailed,
    Leaving(bool),
    Verdict(Option<Outcome>),
    Seats(bool),
    GiveWay,
    Woken(bool),
    WentBack(bool),
    IsRead(bool),
    Refuses(bool),
    Confirms(bool),
}

fn story() -> impl Strategy<Value = Vec<Story>> {
    let code = prop_oneof![
        Just(Code::Draining),
        Just(Code::CursorBeyondHead),
        Just(Code::NotMember),
        Just(Code::Trimmed),
        Just(Code::CatchingUp),
    ];
    let outcome = prop_oneof![
        (1..100u64).prop_map(|at| Outcome::Appended {
            offset: Offset::new(at)
        }),
        Just(refused(Code::HomeUnreachable)),
        Just(refused(Code::RateLimited)),
        Just(Outcome::Refused {
            code: Code::FrameTooLarge,
            retryable: false
        }),
        Just(Outcome::StaleEpoch { head: Offset::new(3) }),
    ];
    let event = prop_oneof![
        (0..5_000u64).prop_map(Story::Pass),
        (0..20u64).prop_map(Story::Acked),
        (1..8u64).prop_map(Story::Received),
        (1..5u64).prop_map(Story::Queued),
        Just(Story::CaughtUp),
        Just(Story::Ended),
        code.prop_map(Story::ReadRefused),
        Just(Story::VaultFailed),
        any::<bool>().prop_map(Story::Leaving),
        proptest::option::of(outcome).prop_map(Story::Verdict),
        any::<bool>().prop_map(Story::Seats),
        Just(Story::GiveWay),
        any::<bool>().prop_map(Story::Woken),
        any::<bool>().prop_map(Story::WentBack),
        any::<bool>().prop_map(Story::IsRead),
        any::<bool>().prop_map(Story::Refuses),
        any::<bool>().prop_map(Story::Confirms),
    ];
    proptest::collection::vec(event, 1..120)
}

proptest! {
    #[test]
    fn a_channel_never_wakes_for_nothing_and_never_waits_for_ever(story in story()) {
        let mut now = Instant::now();
        let mut view = view();
        let mut state = WorkerState::new(view.clone(), INBOX_MAX, now);
        // What the shell has.
        let (mut subscription, mut in_flight, mut leaving, mut held) = (false, 0_u64, false, false);
        let (mut seats, mut waits, mut watched) = (true, false, false);
        // The relay node has said that this agent is not on the roster: if it says so for long, the log may have gone back.
        let mut denied = false;
        let (mut is_read, mut refuses, mut confirms) = (true, false, true);
        for happens in story {
            match happens {
                Story::Pass(ms) => now += Duration::from_millis(ms),
                Story::Acked(count) => {
                    view.unacked = view.unacked.saturating_sub(count);
                    state.on_view(view.clone());
                    state.on_woken();
                }
                Story::Received(count) if subscription => {
                    view.unacked += count;
                    state.on_view(view.clone());
                    state.on_entries(now);
                }
                Story::Queued(count) => {
                    view.outbox += count;
                    state.on_view(view.clone());
                    state.on_woken();
                }
                Story::CaughtUp if subscription => {
                    state.on_caught_up();
                }
                // Other channels take the seats, and give them back.
                Story::Seats(free) => {
                    seats = free;
                    if free && waits {
                        waits = false;
                        state.on_seat(now);
                    }
                }
                Story::GiveWay if subscription && state.may_be_watched() => {
                    prop_assert!(view.outbox == 0 && in_flight == 0);
                    (subscription, watched) = (false, true);
                    state.on_watched();
                }
                Story::Woken(is_ready) if watched => {
                    watched = false;
                    state.on_woken_up(is_ready, now);
                }
                Story::WentBack(is) => {
                    denied |= is;
                    state.on_evidence(is);
                }
                Story::Refuses(is) => refuses = is,
                Story::Confirms(is) => confirms = is,
                Story::IsRead(is) => {
                    is_read = is;
                    if !is {
                        state.on_reader_gone();
                    }
                }
                Story::Ended if subscription => {
                    subscription = false;
                    state.on_ended(now);
                }
                Story::ReadRefused(code) if subscription => {
                    subscription = false;
                    denied |= code == Code::NotMember;
                    state.on_read_refused(&refusal(code), now);
                }
                Story::VaultFailed => {
                    (subscription, waits, watched) = (false, false, false);
                    state.on_vault_failed(Code::VaultDamaged, now);
                }
                Story::Leaving(is) => {
                    leaving = is;
                    state.on_leaving(is);
                }
                Story::Verdict(outcome) if in_flight > 0 => {
                    in_flight -= 1;
                    if let Some(Outcome::Refused { code, retryable: true }) = outcome {
                        held |= code.holds_log();
                    }
                    if matches!(outcome, Some(Outcome::Appended { .. } | Outcome::Refused { retryable: false, .. })) {
                        view.outbox = view.outbox.saturating_sub(1);
                    }
                    state.on_view(view.clone());
                    state.on_verdict(outcome.as_ref(), None, now);
                }
                _ => {}
            }
            // All that is to be done now is done in few steps.
            let mut steps = 0;
            while let Some(step) = state.next(now) {
                steps += 1;
                prop_assert!(steps < 10, "{:?}", state);
                match step {
                    Step::Done => prop_assert!(false, "nobody left"),
                    Step::Pause { unacked } => {
                        prop_assert!(unacked >= INBOX_MAX && view.outbox == 0);
                        (subscription, waits, watched) = (false, false, false);
                    }
                    Step::Subscribe { after, .. } => {
                        prop_assert!(!subscription && !waits && !watched, "one at a time");
                        prop_assert_eq!(after, view.cursor);
                        match seats {
                            true => {
                                subscription = true;
                                state.on_subscribed();
                            }
                            false => {
                                waits = true;
                                state.on_no_seat();
                            }
                        }
                    }
                    Step::TakeTurn | Step::Reboot | Step::Refresh => {}
                    Step::Unwatch => {
                        prop_assert!(watched && view.outbox > 0);
                        watched = false;
                    }
                    Step::Settle => {
                        prop_assert!(denied, "there is no evidence");
                        let is_held = is_read && state.may_wait_for_reader(now) && view.unacked > 0 && view.outbox == 0;
                        if refuses {
                            state.on_settle_failed(None, now);
                        } else if !confirms {
                            state.on_settled();
                        } else {
                            (subscription, waits, watched) = (false, false, false);
                            if is_held {
                                state.on_unacked(now);
                            } else {
                                state.on_settled();
                                state.on_moved_on(now);
                            }
                        }
                    }
                    Step::Pump { renew, bytes } => {
                        prop_assert!(!leaving);
                        prop_assert_eq!(renew, held, "a held log goes on on another stream");
                        prop_assert!(!renew || in_flight == 0, "with nothing on its way");
                        if renew {
                            held = false;
                            state.on_renewed();
                        }
                        let given = match bytes {
                            1 => view.outbox.saturating_sub(in_flight).min(1),
                            _ => view.outbox.saturating_sub(in_flight),
                        };
                        in_flight += given;
                        let count = usize::try_from(given).expect("few");
                        state.on_frames(count, None, now);
                    }
                }
            }
            prop_assert!(state.wake().is_none_or(|at| at > now), "it does not wake for nothing");
            // What it waits for can come: entries, a time, a verdict, an acknowledgement.
            let paused = state.followed() == Followed::Paused;
            prop_assert!(subscription || paused || waits || watched || state.wake().is_some());
            prop_assert!(!watched || state.followed() == Followed::Live, "it is at its head");
            if state.waits_for_reader() {
                prop_assert!(is_read && view.unacked > 0 && view.outbox == 0, "somebody can end it");
                prop_assert!(!subscription && !waits && !watched, "the log is not read meanwhile");
            }
            prop_assert_eq!((waits, watched), (state.reading == Reading::Waiting, state.reading == Reading::Watched));
            prop_assert_eq!(subscription, matches!(state.reading, Reading::Replay | Reading::Live));
            let idle = view.outbox == in_flight || leaving || in_flight > 0 || state.wake().is_some();
            prop_assert!(idle, "what is to be sent is sent: {:?}", state);
        }
    }
}
