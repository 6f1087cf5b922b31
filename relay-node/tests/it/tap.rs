//! The tap: what a node did, read back from its files.

use crate::client::{Agent, Client, soon};
use crate::fixture::{Fixture, claim, commit, config, create, frame, key_package, message};
use crate::key_packages::ask;
use skytale_proto::session::key_packages_request::Request;
use skytale_proto::session::{control_event, key_packages_response::Outcome};
use skytale_proto::{ChannelId, ChannelMode, Code, Detail, Offset};
use skytale_relay_node::RelayConfig;
use skytale_workload::{Agent as Number, Channel, Event, Frame, Log, Reader, Source, What};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn tapped(dir: &Path) -> RelayConfig {
    let mut config = config();
    config.tap.dir = Some(dir.to_owned());
    config
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// Reads the files, also while the node writes them.
fn read(dir: &Path) -> Vec<What> {
    let mut events = Vec::new();
    for path in files(dir) {
        // A file that has just been made is empty.
        let Ok(mut reader) = Reader::new(File::open(path).expect("there")) else {
            continue;
        };
        assert_eq!(reader.header().source, Source::Tap);
        assert!(reader.header().start_ms.is_some());
        while let Some(Event { what, .. }) = reader.next_event().expect("a workload") {
            events.push(what);
        }
    }
    events
}

async fn leave(fixture: &Fixture, client: Client) {
    let left = fixture.node.sessions() - 1;
    client.leave();
    soon(async {
        while fixture.node.sessions() > left {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

const fn append(author: Number, body_bytes: u32, frame: Frame) -> What {
    What::Append {
        author,
        body_bytes,
        frame,
    }
}

const fn refused(agent: Number, code: Code) -> What {
    What::Refused { agent, code }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agents_do_is_on_the_tap_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("tap");
    let fixture = Fixture::with(tapped(&dir)).await;
    let [a, b, e] = [0, 1, 2].map(Number);
    let of = Channel(0);
    let mut wanted = Vec::new();

    // Sessions.
    let (alice, mut alices) = fixture.agent().await;
    let (bob, bobs) = fixture.agent().await;
    let (eve, eves) = fixture.agent().await;
    for agent in [a, b, e] {
        wanted.extend([What::Token(agent), What::Connect(agent)]);
    }

    // KeyPackages, and claims of them.
    bobs.append(&key_package(bob.id, true)).await.expect("offered");
    wanted.push(append(b, 11, Frame::KeyPackage { last_resort: true }));
    let mut claims = alices.key_packages().await;
    let claimed = claim(bob.id, alice.id);
    for _ in 0..2 {
        // The second time it is the same claim.
        let outcome = ask(&mut claims, Request::Claim(claimed.encoded().clone())).await;
        assert!(matches!(outcome, Outcome::Claimed(_)));
    }
    wanted.push(append(a, 0, Frame::Claim(b)));
    let outcome = ask(&mut claims, Request::Claim(claim(eve.id, alice.id).encoded().clone())).await;
    assert!(matches!(outcome, Outcome::Refusal(_)));
    wanted.push(refused(a, Code::KeyPackagesExhausted));

    // Appends, accepted and refused; what comes again is no other one.
    let channel = fixture.channel(&alice, &alices).await;
    wanted.push(append(
        a,
        6,
        Frame::Create {
            channel: of,
            mode: ChannelMode::Mls,
        },
    ));
    alices
        .append(&commit(channel, alice.id, 1, &[bob.id], &[]))
        .await
        .expect("added");
    let added = Frame::Commit {
        channel: of,
        adds: vec![b],
        removes: vec![],
        recipients: vec![b],
    };
    wanted.push(append(a, 6, added));
    let again = message(channel, alice.id, 2, vec![7; 1_234]);
    for _ in 0..2 {
        alices.append(&again).await.expect("appended");
    }
    wanted.push(append(a, 1_234, Frame::Message(of)));
    bobs.append(&message(channel, bob.id, 1, "stale"))
        .await
        .expect_err("refused");
    wanted.push(refused(b, Code::StaleEpoch));
    eves.append(&message(channel, eve.id, 2, "from outside"))
        .await
        .expect_err("refused");
    wanted.push(refused(e, Code::NotMember));
    eves.append(&message(channel, alice.id, 2, "as another"))
        .await
        .expect_err("refused");
    wanted.push(refused(e, Code::AuthorMismatch));
    bobs.append(&frame(channel.log(), bob.id, 2, Detail::Proposal, "propose"))
        .await
        .expect("appended");
    wanted.push(append(b, 7, Frame::Proposal(of)));
    bobs.append(&frame(channel.log(), bob.id, 2, Detail::Rejoin, "again"))
        .await
        .expect("appended");
    wanted.push(append(b, 5, Frame::Rejoin(of)));

    // Subscriptions, accepted and refused.
    let mut follow = bobs.subscribe(channel.log(), Offset::new(2), true).await;
    assert_eq!(follow.caught_up().await, Offset::new(5));
    wanted.push(What::Subscribe {
        agent: b,
        log: Log::Channel(of),
        behind: 3,
        follow: true,
    });
    // Bob's own log: the KeyPackage, the claim, the Welcome.
    assert_eq!(bobs.replay(bob.id.log(), Offset::new(1)).await.offsets(), [2, 3]);
    wanted.push(What::Subscribe {
        agent: b,
        log: Log::Agent(b),
        behind: 2,
        follow: false,
    });
    for log in [channel.log(), alice.id.log()] {
        assert_eq!(eves.replay(log, Offset::ZERO).await.code(), Some(Code::NotMember));
        wanted.push(refused(e, Code::NotMember));
    }
    let nowhere = ChannelId::generate().log();
    assert_eq!(eves.replay(nowhere, Offset::ZERO).await.code(), Some(Code::UnknownLog));
    wanted.push(refused(e, Code::UnknownLog));

    // Tokens.
    alices.refresh(fixture.token(&alice)).await.expect("sent");
    let event = alices.event().await.expect("an event");
    assert!(matches!(event, control_event::Event::TokenAccepted(_)), "{event:?}");
    wanted.push(What::Token(a));
    alices.refresh(fixture.token(&bob)).await.expect("sent");
    assert_eq!(alices.refused().await, Some(Code::TokenSubject));
    wanted.push(refused(a, Code::TokenSubject));
    // An agent without a valid token is a stranger; a valid token names its agent, wherever it is shown.
    let stranger = Agent::new().await;
    let made_up = Client::start(&stranger, &fixture.relay(), "no token").await;
    assert!(made_up.is_err());
    let stolen = Client::start(&stranger, &fixture.relay(), &fixture.token(&eve)).await;
    assert_eq!(
        stolen.err().and_then(|refused| refused.closed),
        Some(Code::TokenEndpoint)
    );
    wanted.push(refused(e, Code::TokenEndpoint));

    // Ends.
    for (client, agent) in [(bobs, b), (eves, e)] {
        leave(&fixture, client).await;
        wanted.push(What::Disconnect(agent));
    }
    soon(fixture.node.shutdown()).await;
    wanted.push(What::Disconnect(a));

    assert_eq!(read(&dir), wanted);
    let paths = files(&dir);
    assert_eq!(paths.len(), 1);
    let mut reader = Reader::new(File::open(&paths[0]).expect("there")).expect("a workload");
    while reader.next_event().expect("an event").is_some() {}
    assert_eq!(reader.end(), Some(&skytale_workload::End::Whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_appends_are_on_the_tap_one_by_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = Fixture::with(tapped(folder.path())).await;
    let (alice, client) = fixture.agent().await;
    let channel = fixture.channel(&alice, &client).await;
    let mut appends = client.appends().await;
    for size in 1..=500 {
        // Every tenth comes before its time.
        let parent = if size % 10 == 0 { 7 } else { 1 };
        appends
            .send(&message(channel, alice.id, parent, vec![0; size]))
            .await
            .expect("sent");
    }
    for size in 1..=500 {
        assert_eq!(appends.verdict().await.is_some(), size % 10 == 0);
    }
    // The stream ends with this.
    appends.0.say_bytes(&[0xff; 4]).await.expect("sent");
    assert_eq!(appends.verdict().await, Some(Code::MessageTooLarge));
    soon(fixture.node.shutdown()).await;
    let mut events = read(folder.path());
    assert_eq!(events.pop(), Some(What::Disconnect(Number(0))));
    assert_eq!(events.pop(), Some(refused(Number(0), Code::MessageTooLarge)));
    let events = events.split_off(3);
    assert_eq!(events.len(), 500);
    for (event, size) in events.into_iter().zip(1..) {
        match event {
            What::Append { body_bytes, .. } => assert!(body_bytes == size && size % 10 > 0),
            event => assert!(matches!(event, What::Refused { .. }) && size % 10 == 0, "{event:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_connects_again_ends_its_session_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = Fixture::with(tapped(folder.path())).await;
    let (alice, first) = fixture.agent().await;
    let mut clients = vec![first];
    for _ in 0..5 {
        clients.push(fixture.session(&alice, &fixture.claims(&alice)).await);
    }
    soon(fixture.node.shutdown()).await;
    let agent = Number(0);
    let mut sessions = read(folder.path());
    assert_eq!(sessions.iter().filter(|what| **what == What::Token(agent)).count(), 6);
    sessions.retain(|what| *what != What::Token(agent));
    let wanted = [What::Connect(agent), What::Disconnect(agent)];
    assert_eq!(sessions.len(), 12);
    assert!(sessions.chunks(2).all(|two| two == wanted), "{sessions:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_folder_there_is_no_tap() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config();
    assert_eq!(config.tap.dir, None);
    config.data_dir = Some(folder.path().to_owned());
    let fixture = Fixture::with(config).await;
    let (alice, client) = fixture.agent().await;
    fixture.channel(&alice, &client).await;
    soon(fixture.node.shutdown()).await;
    // The accounts' usage is not the tap's.
    assert_eq!(files(folder.path()), [folder.path().join("usage")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written_does_not_hurt_the_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("tap");
    fs::write(&dir, "a file").expect("written");
    let fixture = Fixture::with(tapped(&dir)).await;
    let (alice, client) = fixture.agent().await;
    let channel = fixture.channel(&alice, &client).await;
    for _ in 0..100 {
        client
            .append(&message(channel, alice.id, 1, "on and on"))
            .await
            .expect("appended");
    }
    assert_eq!(client.replay(channel.log(), Offset::ZERO).await.entries.len(), 101);
    soon(fixture.node.shutdown()).await;
    assert_eq!(fs::read(&dir).expect("as it was"), b"a file");
    crate::fixture::nothing_panicked();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_without_a_word_leaves_files_that_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = Fixture::with(tapped(folder.path())).await;
    let (alice, client) = fixture.agent().await;
    let channel = ChannelId::generate();
    client.append(&create(channel, alice.id)).await.expect("created");
    client
        .append(&message(channel, alice.id, 1, "the last"))
        .await
        .expect("appended");
    let agent = Number(0);
    let wanted = [
        What::Token(agent),
        What::Connect(agent),
        append(
            agent,
            6,
            Frame::Create {
                channel: Channel(0),
                mode: ChannelMode::Mls,
            },
        ),
        append(agent, 8, Frame::Message(Channel(0))),
    ];
    // Nobody has to end it: it is on the disk by itself.
    soon(async {
        while read(folder.path()).len() < wanted.len() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let files: Vec<_> = files(folder.path())
        .iter()
        .map(|path| fs::read(path).expect("readable"))
        .collect();
    let mut reader = Reader::new(files[0].as_slice()).expect("a workload");
    while reader.next_event().expect("an event").is_some() {}
    assert_eq!(reader.end(), Some(&skytale_workload::End::Cut));
    drop(fixture.node);
    assert_eq!(read(folder.path())[..wanted.len()], wanted);
    client.leave();
}
