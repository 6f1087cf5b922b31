//! Appending and reading: what an honest agent gets.

use crate::client::Gone;
use crate::fixture::{Fixture, claim, commit, config, create, frame, key_package, message};
use crate::key_packages::claimed;
use skytale_proto::session::{Durability, subscribe_event};
use skytale_proto::{ChannelId, ChannelMode, Code, Detail, Frame, Kind, Offset};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_told_its_limits_and_what_an_answer_means() {
    let fixture = Fixture::new().await;
    let (_, client) = fixture.agent().await;
    let limits = client.started.limits.expect("limits");
    let configured = config().limits;
    assert_eq!(limits.streams_max, configured.streams_max);
    assert_eq!(
        limits.append_in_flight_bytes_max,
        configured.append_in_flight_bytes_max as u64
    );
    assert_eq!(limits.frames_per_second, configured.frames_per_second);
    assert_eq!(client.started.durability(), Durability::Volatile);
    assert_eq!(client.started.keepalive_ms, config().session.keepalive_ms);
    assert!(client.started.time_ms > 1_600_000_000_000);
    assert!(client.started.token_expires_s > client.started.time_ms / 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_added_reads_its_welcome_then_the_channel_and_follows_it() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let (bob, b) = fixture.agent().await;
    b.append(&key_package(bob.id, false)).await.expect("offered");
    claimed(&a, &claim(bob.id, alice.id)).await;
    let channel = fixture.channel(&alice, &a).await;
    let bundle = commit(channel, alice.id, 1, &[bob.id], &[]);
    assert_eq!(a.append(&bundle).await.expect("appended").offset, 2);
    assert_eq!(
        a.append(&message(channel, alice.id, 2, "one"))
            .await
            .expect("appended")
            .offset,
        3
    );

    let welcomes = b.replay(bob.id.log(), Offset::ZERO).await;
    assert_eq!(
        (welcomes.offsets(), welcomes.caught_up, welcomes.gone),
        (vec![1, 2, 3], Some(Offset::new(3)), Gone::Finished)
    );
    let welcome = Frame::decode(welcomes.entries[2].payload.clone()).expect("a frame");
    assert_eq!(
        welcome.header().detail,
        Detail::Welcome {
            channel,
            offset: Offset::new(2),
            returns: false,
        }
    );

    let mut follow = b.subscribe(channel.log(), Offset::FIRST, true).await;
    assert_eq!(follow.caught_up().await, Offset::new(3));
    let entry = follow.entry().await.expect("the bundle");
    assert_eq!((entry.offset, &entry.payload), (Offset::new(2), bundle.encoded()));
    assert_eq!(follow.entry().await.expect("one").offset, Offset::new(3));
    for offset in 4..20 {
        let author = if offset % 2 == 0 { (&alice, &a) } else { (&bob, &b) };
        let frame = message(channel, author.0.id, 2, format!("live {offset}"));
        assert_eq!(author.1.append(&frame).await.expect("appended").offset, offset);
        let entry = follow.entry().await.expect("live");
        assert_eq!((entry.offset, &entry.payload), (Offset::new(offset), frame.encoded()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_pipelined_and_answered_in_their_order() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let channel = ChannelId::generate();
    let mut appends = a.appends().await;
    appends.send(&create(channel, alice.id)).await.expect("sent");
    for n in 0..1_000 {
        // Every tenth is of an epoch that never was.
        let parent = if n % 10 == 9 { 7 } else { 1 };
        appends
            .send(&message(channel, alice.id, parent, vec![0; n]))
            .await
            .expect("sent");
    }
    appends.0.send.finish().expect("open");
    assert_eq!(appends.answer().await.expect("answered").expect("created").offset, 1);
    let mut offset = 1;
    for n in 0..1_000 {
        let answer = appends.answer().await.expect("answered");
        if n % 10 == 9 {
            let refusal = answer.expect_err("stale");
            assert_eq!(
                (refusal.known_code(), refusal.offset, refusal.retryable),
                (Some(Code::StaleEpoch), 1, true)
            );
        } else {
            offset += 1;
            assert_eq!(answer.expect("appended").offset, offset);
        }
    }
    assert_eq!(appends.answer().await, Err(Gone::Finished));
    let replayed = a.replay(channel.log(), Offset::ZERO).await;
    assert_eq!(replayed.offsets(), (1..=offset).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_comes_again_is_answered_with_its_first_offset() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let frame = message(channel, alice.id, 1, "once");
    let first = a.append(&frame).await.expect("appended");
    a.append(&message(channel, alice.id, 1, "other"))
        .await
        .expect("appended");
    let again = a.append(&frame).await.expect("appended");
    assert_eq!((first.duplicate, again.duplicate), (false, true));
    assert_eq!((first.offset, first.time_ms), (again.offset, again.time_ms));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_away_gets_each_entry_after_its_cursor_once() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    for n in 2..=600u64 {
        a.append(&message(channel, alice.id, 1, vec![0; 2_000]))
            .await
            .map(|appended| assert_eq!(appended.offset, n))
            .expect("appended");
    }
    for after in [0, 1, 299, 599, 600] {
        let replayed = a.replay(channel.log(), Offset::new(after)).await;
        assert_eq!(replayed.offsets(), (after + 1..=600).collect::<Vec<_>>());
        assert_eq!(
            (replayed.caught_up, replayed.gone),
            (Some(Offset::new(600)), Gone::Finished)
        );
    }
    let limited = a
        .subscribe_limited(channel.log(), Offset::new(10), true, 25)
        .await
        .until_end()
        .await;
    assert_eq!(limited.offsets(), (11..=35).collect::<Vec<_>>());
    assert_eq!((limited.caught_up, limited.gone), (None, Gone::Finished));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_keep_to_their_bound_and_one_large_entry_goes_alone() {
    let mut config = config();
    config.limits.batch_bytes_max = 10_000;
    let fixture = Fixture::with(config).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    for bytes in [3_000, 3_000, 3_000, 500_000, 3_000] {
        a.append(&message(channel, alice.id, 1, vec![0; bytes]))
            .await
            .expect("appended");
    }
    let mut subscription = a.subscribe(channel.log(), Offset::ZERO, false).await;
    let mut sizes = Vec::new();
    while let Ok(event) = subscription.event().await {
        if let subscribe_event::Event::Batch(batch) = event {
            sizes.push(batch.records.len());
        }
    }
    assert_eq!(sizes.iter().filter(|bytes| **bytes > 10_000).count(), 1, "{sizes:?}");
    assert!(sizes.len() >= 3, "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_own_log_is_there_before_its_first_entry() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let (bob, b) = fixture.agent().await;
    let mut own = b.subscribe(bob.id.log(), Offset::ZERO, true).await;
    assert_eq!(own.caught_up().await, Offset::ZERO);
    b.append(&key_package(bob.id, false)).await.expect("offered");
    assert_eq!(own.entry().await.expect("a package").offset, Offset::FIRST);
    claimed(&a, &claim(bob.id, alice.id)).await;
    let channel = fixture.channel(&alice, &a).await;
    a.append(&commit(channel, alice.id, 1, &[bob.id], &[]))
        .await
        .expect("appended");
    for (offset, kind) in [(2, Kind::KeyPackageClaim), (3, Kind::Welcome)] {
        let entry = own.entry().await.expect("an entry");
        let frame = Frame::decode(entry.payload).expect("a frame");
        assert_eq!((entry.offset, frame.header().kind()), (Offset::new(offset), kind));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_past_the_head_and_a_log_that_is_none_are_told_apart() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let beyond = a.replay(channel.log(), Offset::new(5)).await;
    assert_eq!(
        (beyond.code(), beyond.refusal.map(|refusal| refusal.offset)),
        (Some(Code::CursorBeyondHead), Some(1))
    );
    let unknown = a.replay(ChannelId::generate().log(), Offset::ZERO).await;
    assert_eq!(unknown.code(), Some(Code::UnknownLog));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_channel_is_its_accounts() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let (bob, b) = fixture.agent().await;
    let (_, foreign) = fixture
        .agent_with(|claims| claims.acct = skytale_proto::AccountId::generate())
        .await;
    let channel = ChannelId::generate();
    let account = fixture.account;
    let detail = Detail::Create {
        mode: ChannelMode::Raw,
        account: Some(account),
        policy: None,
    };
    a.append(&frame(channel.log(), alice.id, 0, detail, ""))
        .await
        .expect("created");
    b.append(&frame(channel.log(), bob.id, 0, Detail::Raw { account }, "hello"))
        .await
        .expect("appended");
    assert_eq!(b.replay(channel.log(), Offset::ZERO).await.offsets(), vec![1, 2]);
    let refused = foreign.replay(channel.log(), Offset::ZERO).await;
    assert_eq!(refused.code(), Some(Code::NotMember));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_agent_reads_up_to_its_removal_and_no_further() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let (bob, b) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    a.append(&commit(channel, alice.id, 1, &[bob.id], &[]))
        .await
        .expect("added");
    let live = b.subscribe(channel.log(), Offset::FIRST, true).await;
    a.append(&message(channel, alice.id, 2, "for bob too"))
        .await
        .expect("appended");
    a.append(&commit(channel, alice.id, 2, &[], &[bob.id]))
        .await
        .expect("removed");
    a.append(&message(channel, alice.id, 4, "not for bob"))
        .await
        .expect("appended");

    let live = live.until_end().await;
    assert_eq!((live.offsets(), live.code()), (vec![2, 3, 4], Some(Code::NotMember)));
    let late = b.replay(channel.log(), Offset::FIRST).await;
    assert_eq!((late.offsets(), late.code()), (vec![2, 3, 4], Some(Code::NotMember)));
    assert_eq!(late.refusal.map(|refusal| refusal.offset), Some(0));
    let refused = b
        .append(&message(channel, bob.id, 4, "still here"))
        .await
        .expect_err("not a member");
    assert_eq!(refused.known_code(), Some(Code::NotMember));

    // Added again: what was said in between stays closed, and the refusal says where to go on.
    a.append(&commit(channel, alice.id, 4, &[bob.id], &[]))
        .await
        .expect("added again");
    a.append(&message(channel, alice.id, 6, "welcome back"))
        .await
        .expect("appended");
    let gap = b.replay(channel.log(), Offset::FIRST).await;
    assert_eq!((gap.offsets(), gap.code()), (vec![2, 3, 4], Some(Code::NotMember)));
    let next = Offset::new(gap.refusal.expect("refused").offset);
    assert_eq!(next, Offset::new(6));
    assert_eq!(b.replay(channel.log(), next.previous()).await.offsets(), vec![6, 7]);
}
