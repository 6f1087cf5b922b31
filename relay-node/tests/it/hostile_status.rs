//! Questions for what a log has given up, from those who must not know: each refused with its code, while others are served.

use crate::client::{Client, Wire, soon};
use crate::fixture::{Fixture, claim, commit, config, frame, key_package, message};
use crate::hostile_claims::claimed;
use crate::witness::Witness;
use bytes::Bytes;
use skytale_log_store::{LogStore, MemoryStore};
use skytale_proto::session::{
    LogStatus, LogStatusRequest, LogStatusResponse, Open, log_status_response::Outcome, open,
};
use skytale_proto::{AgentId, ChannelId, Code, Detail, LogId, Offset};
use std::sync::Arc;
use tokio::task::JoinSet;

fn question(log: impl Into<Bytes>) -> open::Stream {
    open::Stream::LogStatus(LogStatusRequest { log: log.into() })
}

async fn answer(wire: &mut Wire) -> Result<LogStatus, Option<Code>> {
    let answer: LogStatusResponse = wire.hear().await.expect("answered");
    match answer.outcome.expect("an outcome") {
        Outcome::Status(status) => Ok(status),
        Outcome::Refusal(refusal) => Err(refusal.known_code()),
    }
}

/// Asks for a log's status.
async fn ask(client: &Client, log: LogId) -> Result<LogStatus, Option<Code>> {
    let mut wire = client.open(question(log.to_bytes())).await;
    answer(&mut wire).await
}

/// Gives up a log's entries up to and with an offset, as an operator does.
async fn trim(store: &MemoryStore, log: LogId, up_to: u64) {
    let up_to = Offset::new(up_to);
    let trim = frame(log, AgentId::from_bytes([0; 32]), 0, Detail::Trim { up_to }, "");
    let pending = store.append(trim).await.expect("taken");
    pending.verdict().await.expect("trimmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_log_gave_up_is_told_to_those_on_its_roster_alone() {
    let store = Arc::new(MemoryStore::new());
    let fixture = Fixture::over(config(), store.clone()).await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let (bob, b) = fixture.agent().await;
    let (stranger, s) = fixture.agent().await;
    let (_, bare) = fixture.agent_with(|claims| claims.scope = "other:thing".into()).await;
    let channel = fixture.channel(&alice, &a).await;
    let log = channel.log();
    b.append(&key_package(bob.id, false)).await.expect("offered");
    claimed(&a, &claim(bob.id, alice.id)).await.expect("given");
    a.append(&commit(channel, alice.id, 1, &[bob.id], &[]))
        .await
        .expect("added");
    a.append(&message(channel, alice.id, 2, "said"))
        .await
        .expect("appended");
    trim(&store, log, 2).await;
    trim(&store, log, 4).await;
    let status = ask(&a, log).await.expect("told");
    let told = |status: &LogStatus| (status.head, status.first, status.given_up, status.handshake_head);
    assert_eq!(told(&status), (5, 5, 3, 2));
    assert_eq!(ask(&b, log).await.as_ref(), Ok(&status));
    assert_eq!(ask(&s, log).await, Err(Some(Code::NotMember)));
    assert_eq!(ask(&bare, log).await, Err(Some(Code::ScopeMissing)));
    assert_eq!(ask(&s, ChannelId::generate().log()).await, Err(Some(Code::UnknownLog)));
    // An agent's own log is its own: its Welcomes say which channels it is in.
    trim(&store, bob.id.log(), 3).await;
    let own = ask(&b, bob.id.log()).await.expect("told");
    assert_eq!((own.first, own.welcomes.len()), (4, 24));
    for client in [&a, &s] {
        assert_eq!(ask(client, bob.id.log()).await, Err(Some(Code::NotMember)));
    }
    assert_eq!(
        ask(&s, stranger.id.log()).await,
        Ok(LogStatus {
            first: 1,
            ..LogStatus::default()
        })
    );

    // A removed agent whose entries are gone learns nothing; one that is back does.
    a.append(&commit(channel, alice.id, 2, &[], &[bob.id]))
        .await
        .expect("removed");
    assert_eq!(ask(&b, log).await, Err(Some(Code::NotMember)));
    trim(&store, log, 6).await;
    assert_eq!(ask(&b, log).await, Err(Some(Code::NotMember)));
    a.append(&commit(channel, alice.id, 6, &[bob.id], &[]))
        .await
        .expect("added");
    assert_eq!(ask(&b, log).await.map(|status| status.handshake_head), Ok(8));
    witness.is_served().await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_make_no_sense_are_refused_one_by_one() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let log = channel.log().to_bytes();
    let no_log: [Bytes; 5] = [
        Bytes::new(),
        Bytes::from_static(b"no log id"),
        Bytes::copy_from_slice(&log[..log.len() - 1]),
        [&log[..], &[0]].concat().into(),
        vec![0xff; 1_000].into(),
    ];
    for log in no_log {
        let mut wire = a.open(question(log)).await;
        assert_eq!(answer(&mut wire).await, Err(Some(Code::MessageMalformed)));
    }
    // A question that is longer than any has to be is not even read.
    let mut wire = a.open(question(vec![0; 1 << 20])).await;
    assert_eq!(wire.abandoned().await, Some(Code::MessageTooLarge));
    // Bytes behind a question are ignored: it is answered, and the stream is over.
    let mut wire = Wire::open(&a.connection).await.expect("a stream");
    let stream = Some(question(log.to_vec()));
    wire.say(&Open { stream }).await.expect("sent");
    // The relay node may have ended the stream by then.
    let _ = wire.say_bytes(&[0xff; 4_096]).await;
    assert!(answer(&mut wire).await.is_ok());
    assert!(wire.hear::<LogStatusResponse>().await.is_err());
    assert!(ask(&a, channel.log()).await.is_ok(), "the session goes on");
    witness.is_served().await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_questions_is_answered_within_its_own_streams() {
    let mut config = config();
    config.limits.streams_max = 16;
    let fixture = Fixture::with(config).await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    // Streams that ask nothing fill its share; a question beyond them is refused.
    let mut silent = Vec::new();
    for _ in 0..16 {
        let mut wire = Wire::open(&a.connection).await.expect("a stream");
        wire.say_bytes(&[0]).await.expect("sent");
        silent.push(wire);
    }
    soon(async {
        loop {
            let mut wire = a.open(question(channel.log().to_bytes())).await;
            // Some of the silent ones may not have come yet: the last one to come is refused.
            match wire.hear::<LogStatusResponse>().await {
                Ok(_) => tokio::task::yield_now().await,
                Err(gone) => return assert_eq!(gone.code(), Some(Code::TooManyStreams)),
            }
        }
    })
    .await;
    witness.is_served().await;
    for mut wire in silent {
        drop(wire.send.finish());
    }
    soon(async {
        while a
            .open(question(channel.log().to_bytes()))
            .await
            .hear::<LogStatusResponse>()
            .await
            .is_err()
        {}
    })
    .await;

    // Thousands of questions, for logs that there are not and that are others': each is answered, or refused for there
    // being too many at once.
    let a = Arc::new(a);
    let mut asking = JoinSet::new();
    for round in 0..8 {
        let (a, others) = (a.clone(), channel.log());
        asking.spawn(async move {
            let mut refused = 0;
            for number in 0..250 {
                let log = if (round + number) % 3 == 0 {
                    others
                } else {
                    ChannelId::generate().log()
                };
                let mut wire = a.open(question(log.to_bytes())).await;
                match wire.hear::<LogStatusResponse>().await {
                    Ok(answer) => match answer.outcome.expect("an outcome") {
                        Outcome::Status(_) => assert_eq!(log, others),
                        Outcome::Refusal(refusal) => assert_eq!(refusal.known_code(), Some(Code::UnknownLog)),
                    },
                    Err(gone) => {
                        assert_eq!(gone.code(), Some(Code::TooManyStreams));
                        refused += 1;
                    }
                }
            }
            refused
        });
    }
    witness.is_served().await;
    let mut refused = 0;
    while let Some(done) = asking.join_next().await {
        refused += done.expect("asked");
    }
    assert!(refused < 2_000, "some are answered");
    assert!(ask(&a, channel.log()).await.is_ok());
    witness.leave().await;
}
