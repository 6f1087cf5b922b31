//! Watch streams: they report what is ready, to those who may read it alone, and their cost is bounded.

use crate::client::{Client, Gone, Wire, soon};
use crate::fixture::{Fixture, commit, config, message};
use crate::witness::Witness;
use bytes::{BufMut as _, Bytes, BytesMut};
use skytale_proto::session::{Subscribe, WatchEvent, WatchOpen, WatchRequest, open};
use skytale_proto::{AccountId, ChannelId, Code, Offset, limits};
use std::collections::BTreeSet;

fn adds(channels: &[(ChannelId, u64)]) -> WatchRequest {
    let mut add = BytesMut::new();
    for (channel, after) in channels {
        add.put_slice(channel.as_bytes());
        add.put_u64_le(*after);
    }
    WatchRequest {
        add: add.freeze(),
        ..WatchRequest::default()
    }
}

fn removes(channel: ChannelId) -> WatchRequest {
    WatchRequest {
        remove: Bytes::copy_from_slice(channel.as_bytes()),
        ..WatchRequest::default()
    }
}

fn listed(bytes: &[u8]) -> BTreeSet<ChannelId> {
    let (channels, rest) = bytes.as_chunks::<16>();
    assert!(rest.is_empty());
    channels.iter().copied().map(ChannelId::from_bytes).collect()
}

/// A client's watch stream.
struct Watch(Wire);

impl Watch {
    async fn open(client: &Client) -> Self {
        Self(client.open(open::Stream::Watch(WatchOpen {})).await)
    }

    async fn ask(&mut self, request: &WatchRequest) {
        self.0.say(request).await.expect("sent");
    }

    async fn event(&mut self) -> Result<WatchEvent, Gone> {
        self.0.hear().await
    }

    /// Waits until so many channels are ready.
    async fn ready(&mut self, count: usize) -> BTreeSet<ChannelId> {
        let mut ready = BTreeSet::new();
        while ready.len() < count {
            let event = soon(self.event()).await.expect("an event");
            assert_eq!(event.refusal, None);
            for channel in listed(&event.ready) {
                assert!(ready.insert(channel), "told twice");
            }
        }
        ready
    }

    async fn refused(&mut self) -> Option<Code> {
        let event = soon(self.event()).await.expect("an event");
        assert!(event.ready.is_empty() && event.refused.is_empty());
        event.refusal.expect("a refusal").known_code()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_tells_which_of_many_channels_have_something_to_read() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let mut channels = Vec::new();
    for _ in 0..40 {
        channels.push(fixture.channel(&alice, &a).await);
    }
    let mut watch = Watch::open(&a).await;
    // The last two have an entry after the cursor, or a cursor past their head.
    let mut cursors: Vec<_> = channels.iter().map(|channel| (*channel, 1)).collect();
    cursors[38].1 = 0;
    cursors[39].1 = 9;
    watch.ask(&adds(&cursors)).await;
    assert_eq!(watch.ready(2).await, channels[38..].iter().copied().collect());
    watch.ask(&removes(channels[7])).await;
    for channel in &channels[5..10] {
        a.append(&message(*channel, alice.id, 1, "hi")).await.expect("appended");
    }
    let expected: BTreeSet<_> = [5, 6, 8, 9].map(|number| channels[number]).into();
    assert_eq!(watch.ready(4).await, expected);
    // Once: from then on it is read, and watched after another cursor.
    a.append(&message(channels[5], alice.id, 1, "again"))
        .await
        .expect("appended");
    a.append(&message(channels[11], alice.id, 1, "hi"))
        .await
        .expect("appended");
    assert_eq!(watch.ready(1).await, [channels[11]].into());
    watch.ask(&adds(&[(channels[5], 3), (channels[6], 1)])).await;
    assert_eq!(watch.ready(1).await, [channels[6]].into());
    a.append(&message(channels[5], alice.id, 1, "and again"))
        .await
        .expect("appended");
    assert_eq!(watch.ready(1).await, [channels[5]].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_read_a_channel_learns_nothing_by_watching_it() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let (bob, b) = fixture.agent().await;
    let (_, bare) = fixture.agent_with(|claims| claims.scope = "other:thing".into()).await;
    let channel = fixture.channel(&alice, &a).await;
    let nowhere = ChannelId::generate();
    for client in [&b, &bare] {
        let mut watch = Watch::open(client).await;
        watch.ask(&adds(&[(channel, 1), (nowhere, 0)])).await;
        // At once, as a subscription would be refused at once.
        assert_eq!(watch.ready(2).await, [channel, nowhere].into());
        a.append(&message(channel, alice.id, 1, "secret"))
            .await
            .expect("appended");
        watch.0.send.finish().expect("open");
        assert!(matches!(soon(watch.event()).await, Err(Gone::Finished)), "nothing more");
    }
    // A removed agent learns that, and no more.
    a.append(&commit(channel, alice.id, 1, &[bob.id], &[]))
        .await
        .expect("added");
    let mut watch = Watch::open(&b).await;
    watch.ask(&adds(&[(channel, 4)])).await;
    a.append(&commit(channel, alice.id, 4, &[], &[bob.id]))
        .await
        .expect("removed");
    assert_eq!(watch.ready(1).await, [channel].into());
    watch.ask(&adds(&[(channel, 5)])).await;
    assert_eq!(watch.ready(1).await, [channel].into());
    assert_eq!(
        b.replay(channel.log(), Offset::new(5)).await.code(),
        Some(Code::NotMember)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_channels_that_an_accounts_agents_watch_are_counted_together() {
    const OWN: usize = 100;
    let mut config = config();
    config.limits.account_watched_max = Some(5);
    let fixture = Fixture::with(config).await;
    let account = AccountId::generate();
    let mut sessions = Vec::new();
    for (more, refused) in [(3, 0), (3, 1)] {
        let (agent, client) = fixture.agent_with(|claims| claims.acct = account).await;
        let mut all = Vec::new();
        for _ in 0..OWN + more {
            all.push((fixture.channel(&agent, &client).await, 1));
        }
        let mut watch = Watch::open(&client).await;
        watch.ask(&adds(&all)).await;
        if refused > 0 {
            let event = soon(watch.event()).await.expect("an event");
            let refusal = event.refusal.expect("a refusal");
            assert_eq!(refusal.known_code(), Some(Code::TooManyWatched));
            assert!(refusal.message.contains("an account 5 together"), "{}", refusal.message);
            assert_eq!(
                listed(&event.refused),
                all[OWN + 2..].iter().map(|(channel, _)| *channel).collect()
            );
        } else {
            // All that was asked before is done.
            watch.ask(&adds(&[(ChannelId::generate(), 1)])).await;
            assert_eq!(watch.ready(1).await.len(), 1);
        }
        sessions.push((client, watch));
    }
    // Another account notices nothing of that.
    let (bob, b) = fixture.agent().await;
    let channel = fixture.channel(&bob, &b).await;
    let mut watch = Watch::open(&b).await;
    watch.ask(&adds(&[(channel, 1)])).await;
    b.append(&message(channel, bob.id, 1, "hi")).await.expect("appended");
    assert_eq!(watch.ready(1).await, [channel].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_watches_as_many_channels_as_it_may_and_is_told_which_it_does_not() {
    let mut config = config();
    config.limits.watched_max = 3;
    let fixture = Fixture::with(config).await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    assert_eq!(a.started.limits.as_ref().expect("limits").watched_max, 3);
    let mut channels = Vec::new();
    for _ in 0..5 {
        channels.push(fixture.channel(&alice, &a).await);
    }
    let all: Vec<_> = channels.iter().map(|channel| (*channel, 1)).collect();
    let mut watch = Watch::open(&a).await;
    watch.ask(&adds(&all)).await;
    let event = soon(watch.event()).await.expect("an event");
    let refusal = event.refusal.expect("a refusal");
    assert_eq!(refusal.known_code(), Some(Code::TooManyWatched));
    assert!(refusal.message.contains("at most 3 channels"), "{}", refusal.message);
    assert_eq!(listed(&event.refused), channels[3..].iter().copied().collect());
    // The others are watched, and make room.
    watch.ask(&removes(channels[0])).await;
    watch.ask(&adds(&all[3..4])).await;
    a.append(&message(channels[3], alice.id, 1, "hi"))
        .await
        .expect("appended");
    assert_eq!(watch.ready(1).await, [channels[3]].into());
    witness.is_served().await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_not_of_the_protocol_end_the_stream_and_nothing_else() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let short = WatchRequest {
        add: Bytes::from_static(&[1; 23]),
        ..WatchRequest::default()
    };
    let over = WatchRequest {
        remove: Bytes::from(vec![1; 16 * (limits::WATCHED_AT_ONCE_MAX + 1)]),
        ..WatchRequest::default()
    };
    for request in [short, over] {
        let mut watch = Watch::open(&a).await;
        watch.ask(&adds(&[(channel, 1)])).await;
        watch.ask(&request).await;
        assert_eq!(watch.refused().await, Some(Code::MessageMalformed));
    }
    let mut watch = Watch::open(&a).await;
    let _ = watch.0.say_bytes(&u32::MAX.to_be_bytes()).await;
    assert_eq!(watch.refused().await, Some(Code::MessageTooLarge));
    let mut watch = Watch::open(&a).await;
    let _ = watch.0.say_bytes(&[0, 0, 0, 2, 0xff, 0xff]).await;
    assert_eq!(watch.refused().await, Some(Code::MessageMalformed));
    // One at a time: a second one costs nothing.
    let mut first = Watch::open(&a).await;
    first.ask(&adds(&[(channel, 0)])).await;
    assert_eq!(first.ready(1).await, [channel].into());
    for _ in 0..20 {
        let mut second = Watch::open(&a).await;
        assert_eq!(second.refused().await, Some(Code::TooManyStreams));
    }
    first.ask(&adds(&[(channel, 1)])).await;
    a.append(&message(channel, alice.id, 1, "hi")).await.expect("appended");
    assert_eq!(first.ready(1).await, [channel].into());
    witness.is_served().await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_come_and_go_without_end_leave_nothing_behind() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let mut watch = Watch::open(&a).await;
    // Ids of no channel, none of which is kept, and one channel that is watched again and again.
    for _ in 0..20 {
        let mut named: Vec<_> = (0..limits::WATCHED_AT_ONCE_MAX - 1)
            .map(|_| (ChannelId::generate(), 0))
            .collect();
        named.push((channel, 1));
        watch.ask(&adds(&named)).await;
        let ready = watch.ready(limits::WATCHED_AT_ONCE_MAX - 1).await;
        assert!(!ready.contains(&channel));
    }
    a.append(&message(channel, alice.id, 1, "hi")).await.expect("appended");
    assert_eq!(watch.ready(1).await, [channel].into());
    let subscribe = open::Stream::Subscribe(Subscribe {
        log: channel.log().to_bytes().into(),
        after: 1,
        ..Subscribe::default()
    });
    a.open(subscribe).await;
    witness.is_served().await;
    witness.leave().await;
}
