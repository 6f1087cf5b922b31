//! Clients with a session that do what they must not, each answered with its code, while others are served.

use crate::client::{Client, Gone, Wire, closed, soon};
use crate::fixture::{Fixture, claim, commit, create, frame, key_package, message};
use crate::key_packages::ask;
use crate::witness::Witness;
use bytes::Bytes;
use iroh::endpoint::VarInt;
use skytale_proto::session::{
    AppendOpen, AppendRequest, AppendResponse, Hello, KeyPackageCount, KeyPackagesOpen, KeyPackagesResponse, Open,
    Subscribe, SubscribeEvent, append_response, control_request, key_packages_request, key_packages_response, open,
    subscribe_event,
};
use skytale_proto::{AccountId, ChannelId, ChannelMode, Code, Detail, Frame, Offset, limits};

async fn append_code(client: &Client, frame: &Frame) -> Option<Code> {
    client
        .append(frame)
        .await
        .err()
        .and_then(|refusal| refusal.known_code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_operation_needs_its_scope() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let (owner, full) = fixture.agent().await;
    let channel = fixture.channel(&owner, &full).await;
    let (bare, none) = fixture.agent_with(|claims| claims.scope = "other:thing".into()).await;
    let missing = Some(Code::ScopeMissing);

    assert_eq!(
        append_code(&none, &create(ChannelId::generate(), bare.id)).await,
        missing
    );
    assert_eq!(append_code(&none, &message(channel, bare.id, 1, "")).await, missing);
    assert_eq!(
        append_code(&none, &commit(channel, bare.id, 1, &[], &[])).await,
        missing
    );
    let account = fixture.account;
    let raw = frame(channel.log(), bare.id, 0, Detail::Raw { account }, "");
    assert_eq!(append_code(&none, &raw).await, missing);
    assert_eq!(append_code(&none, &key_package(bare.id, false)).await, missing);
    assert_eq!(none.replay(channel.log(), Offset::ZERO).await.code(), missing);
    assert_eq!(none.replay(bare.id.log(), Offset::ZERO).await.code(), missing);
    let mut packages = none.key_packages().await;
    let claimed = claim(owner.id, bare.id).encoded().clone();
    for request in [
        key_packages_request::Request::Claim(claimed),
        key_packages_request::Request::Count(KeyPackageCount {}),
    ] {
        let key_packages_response::Outcome::Refusal(refusal) = ask(&mut packages, request).await else {
            panic!("a refusal")
        };
        assert_eq!(refusal.known_code(), missing);
    }
    witness.is_served().await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_for_one_channel_opens_no_other() {
    let fixture = Fixture::new().await;
    let (owner, full) = fixture.agent().await;
    let here = fixture.channel(&owner, &full).await;
    let there = fixture.channel(&owner, &full).await;
    let (guest, client) = fixture
        .agent_with(|claims| claims.scope = format!("relay:append@{here} relay:replay@{here}"))
        .await;
    for channel in [here, there] {
        full.append(&commit(channel, owner.id, 1, &[guest.id], &[]))
            .await
            .expect("added");
    }
    assert_eq!(append_code(&client, &message(here, guest.id, 2, "")).await, None);
    assert_eq!(
        append_code(&client, &message(there, guest.id, 2, "")).await,
        Some(Code::ScopeMissing)
    );
    assert_eq!(client.replay(here.log(), Offset::FIRST).await.offsets(), vec![2, 3]);
    assert_eq!(
        client.replay(there.log(), Offset::FIRST).await.code(),
        Some(Code::ScopeMissing)
    );
    // Its own log is its own, whatever channels are named. Nobody has claimed a package of it: there is nothing.
    let own = client.replay(guest.id.log(), Offset::ZERO).await;
    assert_eq!((own.entries.len(), own.code()), (0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_on_the_roster_neither_reads_nor_appends() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let (mallory, m) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    a.append(&message(channel, alice.id, 1, "secret"))
        .await
        .expect("appended");
    for after in [0, 1, 2] {
        let read = m.replay(channel.log(), Offset::new(after)).await;
        assert_eq!((read.entries.len(), read.code()), (0, Some(Code::NotMember)));
    }
    let followed = m.subscribe(channel.log(), Offset::new(2), true).await.until_end().await;
    assert_eq!(followed.code(), Some(Code::NotMember));
    assert_eq!(
        append_code(&m, &message(channel, mallory.id, 1, "hi")).await,
        Some(Code::NotMember)
    );
    let joins = commit(channel, mallory.id, 1, &[mallory.id], &[]);
    assert_eq!(append_code(&m, &joins).await, Some(Code::NotMember));
    let others = m.replay(alice.id.log(), Offset::ZERO).await;
    assert_eq!((others.entries.len(), others.code()), (0, Some(Code::NotMember)));
    witness.is_served().await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_not_the_agents_to_append_are_refused_and_the_stream_goes_on() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let (mallory, m) = fixture.agent().await;
    let channel = fixture.channel(&mallory, &m).await;
    let foreign = AccountId::generate();
    let raw_create = Detail::Create {
        mode: ChannelMode::Raw,
        account: Some(foreign),
        policy: None,
    };
    let welcome = Detail::Welcome {
        channel,
        offset: Offset::FIRST,
        returns: false,
    };
    let cases = [
        (message(channel, alice.id, 1, "as alice"), Code::AuthorMismatch),
        (
            frame(ChannelId::generate().log(), mallory.id, 0, raw_create, ""),
            Code::AuthorMismatch,
        ),
        (
            frame(channel.log(), mallory.id, 0, Detail::Raw { account: foreign }, ""),
            Code::AuthorMismatch,
        ),
        (
            frame(channel.log(), mallory.id, 0, Detail::Trim { up_to: Offset::FIRST }, ""),
            Code::KindRefused,
        ),
        (
            frame(mallory.id.log(), mallory.id, 0, welcome.clone(), ""),
            Code::KindRefused,
        ),
        (frame(alice.id.log(), mallory.id, 0, welcome, ""), Code::KindRefused),
        (
            frame(
                alice.id.log(),
                mallory.id,
                0,
                Detail::KeyPackage {
                    last_resort: true,
                    account: Some(fixture.account),
                },
                "",
            ),
            Code::KindRefused,
        ),
        (claim(alice.id, mallory.id), Code::KindRefused),
        (create(channel, mallory.id), Code::LogExists),
        (message(ChannelId::generate(), mallory.id, 1, ""), Code::UnknownLog),
    ];
    let mut appends = m.appends().await;
    for (frame, wanted) in cases {
        appends.send(&frame).await.expect("sent");
        assert_eq!(appends.verdict().await, Some(wanted), "{:?}", frame.header());
    }
    for garbage in [Bytes::new(), Bytes::from_static(&[0xff; 40])] {
        appends.0.say(&AppendRequest { frame: garbage }).await.expect("sent");
        assert_eq!(appends.verdict().await, Some(Code::FrameMalformed));
    }
    let huge = AppendRequest {
        frame: vec![0; limits::FRAME_BYTES_MAX + 1].into(),
    };
    appends.0.say(&huge).await.expect("sent");
    assert_eq!(appends.verdict().await, Some(Code::FrameTooLarge));
    appends
        .send(&message(channel, mallory.id, 1, "mine"))
        .await
        .expect("sent");
    assert_eq!(appends.verdict().await, None);
    assert_eq!(a.replay(alice.id.log(), Offset::ZERO).await.entries.len(), 0);
}

/// Returns the code with which each kind of stream refuses bytes that are no request.
async fn refused(wire: &mut Wire, stream: &str) -> Option<Code> {
    let code = |refusal: skytale_proto::session::Refusal| refusal.known_code();
    match stream {
        "append" => match wire.hear::<AppendResponse>().await.expect("answered").outcome {
            Some(append_response::Outcome::Refusal(refusal)) => code(refusal),
            other => panic!("{other:?}"),
        },
        "key packages" => match wire.hear::<KeyPackagesResponse>().await.expect("answered").outcome {
            Some(key_packages_response::Outcome::Refusal(refusal)) => code(refusal),
            other => panic!("{other:?}"),
        },
        _ => match wire.hear::<SubscribeEvent>().await.expect("answered").event {
            Some(subscribe_event::Event::Refusal(refusal)) => code(refusal),
            other => panic!("{other:?}"),
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_messages_end_their_stream_and_nothing_else() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let garbage: &[u8] = &[0, 0, 0, 3, 0xff, 0xff, 0xff];
    let over = u32::try_from(limits::MESSAGE_BYTES_MAX + 1)
        .expect("small")
        .to_be_bytes();
    let append = || open::Stream::Append(AppendOpen {});
    let packages = || open::Stream::KeyPackages(KeyPackagesOpen {});

    for (stream, name) in [(append(), "append"), (packages(), "key packages")] {
        for (bytes, wanted) in [(garbage, Code::MessageMalformed), (&over, Code::MessageTooLarge)] {
            let mut wire = a.open(stream.clone()).await;
            wire.say_bytes(bytes).await.expect("sent");
            assert_eq!(refused(&mut wire, name).await, Some(wanted), "{name}");
            assert_eq!(wire.hear::<AppendResponse>().await, Err(Gone::Finished));
        }
        // Cut inside a message.
        let mut wire = a.open(stream).await;
        wire.say_bytes(&[0, 0, 1, 0, 1, 2]).await.expect("sent");
        wire.send.finish().expect("open");
        assert_eq!(refused(&mut wire, name).await, Some(Code::MessageMalformed), "{name}");
    }
    let no_log = open::Stream::Subscribe(Subscribe {
        log: Bytes::from_static(b"no log id"),
        ..Subscribe::default()
    });
    let mut wire = a.open(no_log).await;
    assert_eq!(refused(&mut wire, "subscribe").await, Some(Code::MessageMalformed));

    // An Open that cannot be read: the kind is not known, so the stream is given back with the code.
    let second_hello = Open {
        stream: Some(open::Stream::Hello(Hello::default())),
    };
    let opens: [(Bytes, Code); 4] = [
        (
            Bytes::from_static(&[0, 0, 0, 3, 0xff, 0xff, 0xff]),
            Code::MessageMalformed,
        ),
        (Bytes::from_static(&[0, 1, 0, 0]), Code::MessageTooLarge),
        (Bytes::from_static(&[0, 0, 0, 0]), Code::MessageMalformed),
        (
            skytale_proto::session::frame_message(&second_hello),
            Code::MessageMalformed,
        ),
    ];
    for (bytes, wanted) in opens {
        let mut wire = Wire::open(&a.connection).await.expect("a stream");
        wire.say_bytes(&bytes).await.expect("sent");
        assert_eq!(wire.abandoned().await, Some(wanted));
    }
    fixture.channel(&alice, &a).await;
    witness.is_served().await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_control_stream_ends_the_session() {
    let fixture = Fixture::new().await;
    let (_, mut a) = fixture.agent().await;
    a.control
        .say_bytes(&[0, 0, 0, 3, 0xff, 0xff, 0xff])
        .await
        .expect("sent");
    assert_eq!(a.refused().await, Some(Code::MessageMalformed));
    assert_eq!(closed(&a.connection).await, Some(Code::MessageMalformed));
    let (_, mut b) = fixture.agent().await;
    b.control.say_bytes(&[0xff; 4]).await.expect("sent");
    assert_eq!(b.refused().await, Some(Code::MessageTooLarge));
    let (_, mut c) = fixture.agent().await;
    c.request(control_request::Request::TokenRefresh(Default::default()))
        .await
        .expect("sent");
    assert_eq!(c.refused().await, Some(Code::TokenMalformed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_inside_a_message_leave_nothing_behind() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    for _ in 0..200 {
        let mut appends = a.appends().await;
        appends
            .send(&message(channel, alice.id, 1, "whole"))
            .await
            .expect("sent");
        assert_eq!(appends.verdict().await, None);
        appends.0.say_bytes(&[0, 0x10, 0, 0, 1, 2, 3]).await.expect("sent");
        appends.0.send.reset(VarInt::from_u32(7)).expect("open");
        let mut packages = a.key_packages().await;
        packages.say_bytes(&[0, 0x10, 0, 0, 1, 2, 3]).await.expect("sent");
        packages.send.reset(VarInt::from_u32(7)).expect("open");
    }
    // Two hundred requests of a megabyte were begun and dropped: their bytes in flight are free again.
    let frame = message(channel, alice.id, 1, vec![1; 1_000_000]);
    assert_eq!(append_code(&a, &frame).await, None);
    assert_eq!(a.replay(channel.log(), Offset::ZERO).await.entries.len(), 202);
    witness.is_served().await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_frees_its_subscription() {
    let mut config = crate::fixture::config();
    config.limits.streams_max = 4;
    let fixture = Fixture::with(config).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    for _ in 0..40 {
        let mut follow = a.subscribe(channel.log(), Offset::ZERO, true).await;
        // A refusal for too many streams would be an error here.
        soon(async {
            while follow.event().await.is_err() {
                follow = a.subscribe(channel.log(), Offset::ZERO, true).await;
            }
        })
        .await;
        follow.wire.receive.stop(VarInt::from_u32(0)).expect("open");
        follow.wire.send.finish().expect("open");
    }
}

/// Numbers that look random and are the same each time (xorshift64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_of_all_kinds_hurts_nobody_else() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let mut noise = Noise(0x5eed_5eed_5eed_5eed);
    let frame = message(channel, alice.id, 1, "damaged");
    for round in 0..600 {
        let open = match noise.below(4) {
            0 => open::Stream::Append(AppendOpen {}),
            1 => open::Stream::KeyPackages(KeyPackagesOpen {}),
            2 => open::Stream::Subscribe(Subscribe {
                log: channel.log().to_bytes().into(),
                after: noise.below(3),
                follow: noise.below(2) == 0,
                limit: noise.below(5),
            }),
            _ => open::Stream::Hello(Hello::default()),
        };
        let mut wire = a.open(open).await;
        // Bytes, bytes behind a length that fits them, or a true frame with a byte turned over.
        let length = noise.below(300);
        let mut bytes = noise.bytes(length);
        if noise.below(2) == 0 {
            bytes.splice(0..0, u32::try_from(length).expect("short").to_be_bytes());
        }
        if noise.below(3) == 0 {
            let request = AppendRequest {
                frame: frame.encoded().clone(),
            };
            bytes = skytale_proto::session::frame_message(&request).to_vec();
            let at = 4 + noise.below(bytes.len() as u64 - 4) as usize;
            bytes[at] ^= 1 << noise.below(8);
        }
        // The stream may be stopped already.
        let _ = wire.say_bytes(&bytes).await;
        match noise.below(3) {
            0 => drop(wire.send.finish()),
            1 => drop(wire.send.reset(VarInt::from_u32(7))),
            _ => drop(wire.receive.stop(VarInt::from_u32(7))),
        }
        if round % 100 == 0 {
            witness.is_served().await;
        }
    }
    assert!(a.connection.close_reason().is_none());
    assert_eq!(append_code(&a, &message(channel, alice.id, 1, "sound")).await, None);
    witness.leave().await;
}
