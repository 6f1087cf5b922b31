//! A relay that shows two members different logs: detection, and blame.

use super::relay::{Agent, Relay, channel_of, settle};
use skytale_proto::{AgentId, ChannelId, Digest, Frame, Header, Offset, Record};
use skytale_sdk::{Divergence, Event, Standing};

/// The one divergence among events, none of which blames an author.
fn told(events: &[Event]) -> Divergence {
    let blames = |event: &Event| matches!(event, Event::HeaderLied { .. });
    assert!(!events.iter().any(blames), "{events:?}");
    let mut found = events.iter().filter_map(|event| match event {
        Event::Divergence {
            offset,
            author,
            ours,
            theirs,
            ..
        } => Some(Divergence::new(*offset, *author, *ours, *theirs)),
        _ => None,
    });
    let first = found.next().unwrap_or_else(|| panic!("no divergence in {events:?}"));
    assert_eq!(found.next(), None);
    first
}

fn digest_at(relay: &Relay, channel: ChannelId, offset: Offset) -> Digest {
    let log = channel.log();
    let records = relay.entries(log, Offset::ZERO);
    let shown = records.iter().take_while(|record| record.offset <= offset);
    shown.fold(Digest::genesis(&log), |digest, record| {
        digest.next_hashed(record.offset, &Digest::hash_frame(&record.payload))
    })
}

#[test]
fn different_commits_on_two_sides_are_found_at_the_next_commit() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let (fork, log) = (relay.moment(), channel.log());
    // On one side the log goes on with two commits of `a`, on the other with one of `b`, at the same offset.
    for _ in 0..2 {
        a.engine().update_keys(channel).expect("queued");
        settle(&relay, channel, &mut [&mut a]);
    }
    let head = relay.head(log);
    let (theirs, shown) = (
        digest_at(&relay, channel, head.previous()),
        relay.entries(log, head.previous()),
    );
    relay.go_back(fork);
    b.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut b]);
    b.take_events();
    assert_eq!(relay.head(log), head.previous());
    let ours = digest_at(&relay, channel, head.previous());

    // Its keys open nothing of what `a` appends, and the parent is an offset at which `b`, too, has a commit.
    let processed = b.engine().process_entries(channel, &shown).expect("processed");
    let divergence = told(&processed.events);
    assert_eq!(
        divergence,
        Divergence::new(head.previous(), a.id(), Some(ours), Some(theirs))
    );
    assert_eq!(b.engine().divergences(channel).expect("listed"), [divergence]);
    b.crash();
    assert_eq!(b.engine().divergences(channel).expect("listed"), [divergence]);
}

#[test]
fn a_commit_that_is_applied_says_what_its_author_saw() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let (fork, log) = (relay.moment(), channel.log());
    a.send(channel, "shown to a alone");
    settle(&relay, channel, &mut [&mut a]);
    let at = relay.head(log);
    a.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut a]);
    let commit = relay.entries(log, at);
    // `b` is shown a message of its own there, and then the commit.
    relay.go_back(fork);
    b.send(channel, "shown to b alone");
    settle(&relay, channel, &mut [&mut b]);
    b.take_events();
    let epoch = b.engine().epoch(channel).expect("known");
    let processed = b.engine().process_entries(channel, &commit).expect("processed");
    let divergence = told(&processed.events);
    assert_eq!((divergence.offset, divergence.author), (at, a.id()));
    assert!(divergence.ours.is_some() && divergence.theirs.is_some() && divergence.ours != divergence.theirs);
    // The change to the group is as good as any: members keep their secrets together while they ask who is right.
    assert_eq!(b.engine().epoch(channel).expect("known"), epoch + 1);
    assert_eq!(b.engine().channel(channel).expect("known").standing, Standing::Current);
}

/// Returns a frame with another parent, like a relay that alters a header.
fn with_parent(record: &Record, parent: Offset) -> Record {
    let frame = Frame::decode(record.payload.clone()).expect("a frame");
    let header = Header {
        parent,
        ..frame.header().clone()
    };
    let frame = Frame::new(header, frame.body().clone()).expect("a frame");
    Record {
        payload: frame.encoded().clone(),
        ..record.clone()
    }
}

#[test]
fn a_parent_that_the_rule_forbids_is_the_relays_doing() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let cursor = b.engine().cursor(channel).expect("known");
    a.send(channel, "under a parent that is yet to come");
    settle(&relay, channel, &mut [&mut a]);
    let [sent] = &relay.entries(channel.log(), cursor)[..] else {
        panic!("one entry");
    };
    let ahead = Offset::new(sent.offset.get() + 3);
    let forged = with_parent(sent, ahead);
    let processed = b.engine().process_entries(channel, &[forged]).expect("processed");
    let expected = Divergence::new(ahead, a.id(), None, None);
    assert_eq!(told(&processed.events), expected);
    assert_eq!(b.engine().divergences(channel).expect("listed"), [expected]);
    let problems = b.engine().problems(Some(channel)).expect("listed");
    assert!(
        (problems.iter()).any(|problem| problem.describe().contains("a change to the group")),
        "{problems:?}"
    );
}

#[test]
fn a_junk_commit_teaches_a_new_member_no_digest() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    // A commit of another channel of the same members: its bytes say an offset and a digest, and open for nobody here.
    let other = channel_of(&relay, &mut [&mut a, &mut b]);
    a.engine().update_keys(other).expect("queued");
    settle(&relay, other, &mut [&mut a]);
    let records = relay.entries(other.log(), Offset::ZERO);
    let stranger = Frame::decode(records.last().expect("a commit").payload.clone()).expect("a frame");
    let mut c = Agent::new();
    c.stock_up(&relay);
    let package = a.claim(&relay, c.id());
    a.engine().add(channel, vec![package]).expect("queued");
    a.push(&relay, channel);
    let head = relay.head(channel.log());
    let header = Header {
        log: channel.log(),
        author: b.id(),
        parent: head,
        ..stranger.header().clone()
    };
    let junk = Frame::new(header, stranger.body().clone()).expect("a frame");
    relay.append(junk).expect("the relay reads no MLS");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    a.send(channel, "to all");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    assert_eq!(c.texts(channel), ["to all"]);
    // The one who came knows no digest before a member that it can read says one: then all agree.
    let none: [Divergence; 0] = [];
    assert_eq!(c.engine().divergences(channel).expect("listed"), none);
}

#[test]
fn whose_name_is_on_a_forged_commit_is_not_blamed() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let cursor = b.engine().cursor(channel).expect("known");
    a.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut a]);
    let [commit] = &relay.entries(channel.log(), cursor)[..] else {
        panic!("one entry");
    };
    let frame = Frame::decode(commit.payload.clone()).expect("a frame");
    // One byte of the digest that it says, which is in clear, is changed on the way.
    let mut body = frame.body().to_vec();
    let said = digest_at(&relay, channel, cursor);
    let at = body
        .windows(32)
        .position(|bytes| bytes == said.as_bytes())
        .expect("the digest is in clear");
    body[at] ^= 1;
    let changed = Frame::new(frame.header().clone(), body).expect("a frame");
    let record = Record {
        payload: changed.encoded().clone(),
        ..commit.clone()
    };
    let processed = b.engine().process_entries(channel, &[record]).expect("processed");
    let author: AgentId = told(&processed.events).author;
    assert_eq!(author, a.id());
    let unreadable = |event: &Event| matches!(event, Event::EntryUnreadable { .. });
    assert!(processed.events.iter().any(unreadable), "{:?}", processed.events);
}
