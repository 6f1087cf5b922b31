//! Injected faults of the vault in the middle of a call: a refused write, a full disk, an unreadable value. The call is
//! undone completely, in memory, too; repeated after the fault, it takes full effect exactly once.

use super::*;
use relay::{Agent, FRAMES_BYTES, Relay, assert_agree, channel_of, settle};
use rusqlite::Connection;
use skytale_proto::Record;

/// Shared with the integration tests, with access to the database.
#[path = "../../tests/it/engine/relay.rs"]
#[allow(dead_code)]
pub(crate) mod relay;

impl Engine {
    /// The vault's database.
    pub(crate) fn sql(&self) -> &Connection {
        self.vault.sql()
    }
}

/// All kinds of writes to all tables that a channel's life touches.
const WRITES: [&str; 15] = [
    "INSERT ON message",
    "DELETE ON message",
    "INSERT ON channel",
    "UPDATE ON channel",
    "INSERT ON mls",
    "DELETE ON mls",
    "INSERT ON digest",
    "INSERT ON outbox",
    "UPDATE ON outbox",
    "DELETE ON outbox",
    "INSERT ON meta",
    "INSERT ON pending_join",
    "DELETE ON pending_join",
    "INSERT ON key_package",
    "UPDATE ON key_package",
];

/// An agent whose vault refuses one kind of write, the first time in each call.
struct Victim {
    agent: Agent,
    write: &'static str,
    refused: u32,
}

impl Victim {
    fn new(write: &'static str) -> Self {
        Self {
            agent: Agent::new(),
            write,
            refused: 0,
        }
    }

    /// Makes a call whose write may be refused; if it was, repeats the call.
    fn call<T>(&mut self, call: impl Fn(&mut Engine) -> Result<T, EngineError>) -> T {
        let engine = self.agent.engine();
        let trigger = format!(
            "CREATE TEMP TRIGGER refusal BEFORE {} BEGIN SELECT RAISE(ABORT, 'refused'); END",
            self.write
        );
        engine.sql().execute_batch(&trigger).expect("made");
        let first = call(engine);
        engine.sql().execute_batch("DROP TRIGGER refusal").expect("gone");
        match first {
            Ok(value) => value,
            Err(error) => {
                assert_eq!(error.code(), Code::VaultIo, "{error}");
                assert!(error.is_retryable());
                assert!(engine.sql().is_autocommit(), "the transaction is over");
                self.refused += 1;
                call(engine).expect("the cause is gone")
            }
        }
    }

    fn stock_up(&mut self, relay: &Relay) {
        let (live, last_resort) = relay.key_packages(self.agent.id());
        for frame in self.call(|engine| engine.key_packages_wanted(live, last_resort)) {
            let (id, outcome) = (frame.header().id, relay.outcome(frame));
            self.call(|engine| engine.key_package_outcome(id, outcome));
        }
    }

    /// Reads and appends everything available; returns whether there was anything.
    fn drive(&mut self, relay: &Relay, channel: ChannelId) -> bool {
        let id = self.agent.id();
        let records = relay.readable(id.log(), id, self.agent.engine().agent_cursor());
        self.process(|engine| engine.process_agent_entries(&records));
        for join in self.call(|engine| engine.pending_joins()) {
            let records = relay.readable(join.channel.log(), id, join.offset.previous());
            let events = self.call(|engine| engine.join(join.channel, &records[0]));
            self.agent.events.extend(events);
        }
        let Ok(info) = self.agent.engine().channel(channel) else {
            return false;
        };
        if info.state == ChannelState::Left {
            return false;
        }
        let records = relay.readable(channel.log(), id, info.cursor);
        self.process(|engine| engine.process_entries(channel, &records));
        let next = self.call(|engine| {
            let _ = engine.reached_head(channel)?;
            engine.next_frames(channel, FRAMES_BYTES)
        });
        self.agent.events.extend(next.events);
        let busy = !records.is_empty() || !next.frames.is_empty();
        for frame in next.frames {
            let (id, outcome) = (frame.frame.header().id, relay.outcome(frame.frame));
            let events = self.call(|engine| engine.outcome(channel, id, outcome));
            self.agent.events.extend(events);
        }
        busy
    }

    fn process(&mut self, process: impl Fn(&mut Engine) -> Result<Processed, EngineError>) {
        let processed = self.call(process);
        assert_eq!(processed.gap, None);
        self.agent.events.extend(processed.events);
    }
}

/// Lets all of them read and append until nothing is left to do.
fn settle_with(relay: &Relay, channel: ChannelId, victim: &mut Victim, others: &mut [&mut Agent]) {
    for _ in 0..1_000 {
        settle(relay, channel, others);
        if !victim.drive(relay, channel) {
            return;
        }
    }
    panic!("the agents do not come to rest");
}

/// Runs a channel's whole life, with a victim among its members. Returns the number of refused calls.
fn life(write: &'static str) -> u32 {
    let relay = Relay::new();
    let (mut a, mut c, mut d) = (Agent::new(), Agent::new(), Agent::new());
    let mut victim = Victim::new(write);
    victim.stock_up(&relay);
    c.stock_up(&relay);
    d.stock_up(&relay);
    // The victim is not an admin, but removes members.
    let channel = channel_of(&relay, &mut [&mut a]);
    let packages = vec![a.claim(&relay, victim.agent.id()), a.claim(&relay, c.id())];
    a.engine().add(channel, packages).expect("queued");
    settle_with(&relay, channel, &mut victim, &mut [&mut a, &mut c]);

    let mut sent = Vec::new();
    for round in 0..4 {
        a.send(channel, &format!("a {round}"));
        c.send(channel, &format!("c {round}"));
        let text = format!("victim {round}");
        sent.push(victim.call(|engine| engine.send(channel, text.as_bytes())));
        match round {
            0 => sent.push(victim.call(|engine| engine.update_keys(channel))),
            1 => {
                let package = victim.agent.claim(&relay, d.id());
                sent.push(victim.call(|engine| engine.add(channel, vec![package.clone()])));
            }
            2 => {
                a.engine().update_keys(channel).expect("queued");
                let id = d.id();
                sent.push(victim.call(|engine| engine.remove(channel, &[id])));
            }
            _ => {
                c.engine().leave(channel).expect("queued");
            }
        }
        settle_with(&relay, channel, &mut victim, &mut [&mut a, &mut c, &mut d]);
        victim.call(|engine| engine.ack(channel, Offset::MAX));
    }
    victim.call(|engine| engine.relabel(channel, "renamed"));

    // Each message once, in the same order, with the same digest; nothing failed, nothing is unreadable.
    assert_eq!(victim.agent.history(channel).len(), 12);
    assert_eq!(victim.agent.transcript(channel), a.transcript(channel));
    assert_agree(channel, &mut [&mut victim.agent, &mut a]);
    let engine = victim.agent.engine();
    assert_eq!(engine.members(channel).expect("known").len(), 2);
    assert_eq!(engine.unreadable(Some(channel), Offset::ZERO, 10).expect("listed"), []);
    assert_eq!(engine.failed(channel).expect("listed"), []);
    let info = engine.channel(channel).expect("known");
    assert_eq!((info.outbox, info.unacked, info.label.as_str()), (0, 0, "renamed"));
    let events = victim.agent.take_events();
    for id in sent {
        let delivered = |event: &&Event| matches!(event, Event::Delivered { frame_id, .. } if *frame_id == id);
        assert_eq!(events.iter().filter(delivered).count(), 1, "told once");
    }
    let received = |event: &&Event| matches!(event, Event::Message { .. });
    assert_eq!(events.iter().filter(received).count(), 8);

    // It is also complete on disk.
    victim.agent.crash();
    assert_agree(channel, &mut [&mut victim.agent, &mut a]);
    assert_eq!(victim.call(|engine| engine.purge(channel, Offset::MAX, 5)).messages, 5);
    assert_eq!(victim.agent.history(channel).len(), 7);
    victim.call(|engine| engine.leave(channel));
    settle_with(&relay, channel, &mut victim, &mut [&mut a]);
    let info = victim.agent.engine().channel(channel).expect("known");
    assert_eq!((info.state, info.outbox), (ChannelState::Left, 0));
    assert_eq!(a.engine().members(channel).expect("known"), [a.id()]);
    victim.refused
}

#[test]
fn a_write_that_is_refused_in_any_call_is_undone_and_the_call_can_be_made_again() {
    for write in WRITES {
        assert!(life(write) > 0, "{write}: no call was refused");
    }
}

#[test]
fn a_full_disk_loses_nothing_and_the_agent_goes_on_when_there_is_room() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let large = |number: u8| vec![number; 100_000];
    for number in 0..20 {
        a.engine().send(channel, &large(number)).expect("queued");
        if number % 5 == 4 {
            a.engine().update_keys(channel).expect("queued");
        }
    }
    settle(&relay, channel, &mut [&mut a]);

    let limit = |engine: &Engine, pages: i64| {
        let sql = engine.sql();
        sql.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| {
            row.get::<_, i64>(0)
        })
        .expect("set");
    };
    let pages: i64 = b
        .engine()
        .sql()
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .expect("known");
    limit(b.engine(), pages + 8);
    let before = b.engine().channel(channel).expect("known");
    let digest = b.engine().digest(channel).expect("known");
    let records = relay.readable(channel.log(), b.id(), before.cursor);
    for _ in 0..3 {
        let error = b.engine().process_entries(channel, &records).expect_err("no room");
        assert_eq!(error.code(), Code::VaultFull, "{error}");
        assert!(error.is_retryable());
        let error = b.engine().send(channel, &large(0)).expect_err("no room");
        assert_eq!(error.code(), Code::VaultFull, "{error}");
        assert_eq!(b.engine().channel(channel).expect("known"), before);
        assert_eq!(b.engine().digest(channel).expect("known"), digest);
    }
    // Messages that still fit are accepted, in order.
    b.engine().send(channel, b"small").expect("fits");

    limit(b.engine(), 1_000_000);
    b.engine().send(channel, b"large enough").expect("fits");
    settle(&relay, channel, &mut [&mut b, &mut a]);
    let history = b.history(channel);
    let payloads: Vec<_> = history.iter().map(|message| message.payload.clone()).collect();
    assert_eq!(payloads.len(), 22);
    assert!((0..20).all(|number| payloads[usize::from(number)] == large(number)));
    assert_eq!(
        payloads[20..],
        [Bytes::from_static(b"small"), Bytes::from_static(b"large enough")]
    );
    assert_eq!(ids(&mut a, channel), ids(&mut b, channel));
    assert_agree(channel, &mut [&mut a, &mut b]);
    assert_eq!(
        b.engine().unreadable(Some(channel), Offset::ZERO, 10).expect("listed"),
        []
    );
}

fn ids(agent: &mut Agent, channel: ChannelId) -> Vec<(Offset, FrameId)> {
    let messages = agent.history(channel).into_iter();
    messages.map(|message| (message.offset, message.frame_id)).collect()
}

/// First bytes of keys in the groups' storage: private keys of an epoch, and of KeyPackages.
const EPOCH_KEYS: u8 = 5;
const KEY_PACKAGES: u8 = 1;

/// Makes values of the groups' storage unreadable, and returns the original ones.
fn spoil(engine: &Engine, kind: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    let sql = engine.sql();
    let mut statement = sql
        .prepare("SELECT key, value FROM mls WHERE substr(key, 1, 1) = ?1")
        .expect("prepared");
    let values = statement
        .query_map([[kind].as_slice()], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .expect("read");
    assert!(!values.is_empty());
    sql.execute(
        "UPDATE mls SET value = x'ff' WHERE substr(key, 1, 1) = ?1",
        [[kind].as_slice()],
    )
    .expect("written");
    values
}

fn restore(engine: &Engine, values: Vec<(Vec<u8>, Vec<u8>)>) {
    for (key, value) in values {
        engine
            .sql()
            .execute("UPDATE mls SET value = ?2 WHERE key = ?1", (key, value))
            .expect("written");
    }
}

/// Processes entries without the keys, which fails, and then with the keys, which succeeds.
fn spoiled(b: &mut Agent, channel: ChannelId, records: &[Record]) -> Vec<Event> {
    let before = b.engine().channel(channel).expect("known");
    let values = spoil(b.engine(), EPOCH_KEYS);
    for _ in 0..2 {
        let error = b.engine().process_entries(channel, records).expect_err("no keys");
        assert_eq!(error.code(), Code::VaultDamaged, "{error}");
        assert_eq!(b.engine().channel(channel).expect("known"), before);
    }
    restore(b.engine(), values);
    let processed = b.engine().process_entries(channel, records).expect("processed");
    let unreadable = b.engine().unreadable(Some(channel), Offset::ZERO, 10).expect("listed");
    assert_eq!(unreadable, [], "the entry was not to blame");
    processed.events
}

#[test]
fn a_merge_of_an_own_commit_that_fails_halfway_is_undone_and_done_again() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let rotated = b.engine().update_keys(channel).expect("queued");
    b.push(&relay, channel);
    a.send(channel, "before");
    settle(&relay, channel, &mut [&mut a]);
    let cursor = b.engine().cursor(channel).expect("known");
    let records = relay.readable(channel.log(), b.id(), cursor);
    // Merging reads the epoch's keys when the group has let go of the commit that was pending.
    let events = spoiled(&mut b, channel, &records);
    let delivered = |event: &&Event| matches!(event, Event::Delivered { frame_id, .. } if *frame_id == rotated);
    assert_eq!(events.iter().filter(delivered).count(), 1);
    b.send(channel, "after");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.texts(channel), ["before", "after"]);
    assert_agree(channel, &mut [&mut a, &mut b]);
    assert_eq!(b.engine().epoch(channel).expect("known"), 2);
}

#[test]
fn a_commit_of_another_that_cannot_be_processed_for_want_of_keys_is_not_to_blame() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.send(channel, "before");
    a.engine().update_keys(channel).expect("queued");
    a.send(channel, "after");
    settle(&relay, channel, &mut [&mut a]);
    let cursor = b.engine().cursor(channel).expect("known");
    let records = relay.readable(channel.log(), b.id(), cursor);
    assert_eq!(records.len(), 3);
    let events = spoiled(&mut b, channel, &records);
    let received = |event: &&Event| matches!(event, Event::Message { .. });
    assert_eq!(events.iter().filter(received).count(), 2, "each told once");
    assert_eq!(b.texts(channel), ["before", "after"]);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_agree(channel, &mut [&mut a, &mut b]);
}

#[test]
fn a_welcome_whose_keys_cannot_be_read_stays_pending() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a]);
    b.stock_up(&relay);
    let package = a.claim(&relay, b.id());
    a.engine().add(channel, vec![package]).expect("queued");
    settle(&relay, channel, &mut [&mut a]);
    let values = spoil(b.engine(), KEY_PACKAGES);
    let records = relay.readable(b.id().log(), b.id(), Offset::ZERO);
    let processed = b.engine().process_agent_entries(&records).expect("processed");
    assert_eq!(processed.gap, None);
    let pending = b.engine().pending_joins().expect("listed");
    let bundle = relay.readable(channel.log(), b.id(), pending[0].offset.previous());
    for _ in 0..2 {
        let error = b.engine().join(channel, &bundle[0]).expect_err("no keys");
        assert_eq!(error.code(), Code::VaultDamaged, "{error}");
        assert_eq!(b.engine().pending_joins().expect("listed"), pending);
    }
    restore(b.engine(), values);
    settle(&relay, channel, &mut [&mut b, &mut a]);
    a.send(channel, "welcome");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(channel), ["welcome"]);
    assert_eq!(b.engine().unreadable(None, Offset::ZERO, 10).expect("listed"), []);
}

#[test]
fn a_member_that_alone_cannot_apply_a_commit_says_so_and_is_added_again() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    let earlier: Vec<u8> = b
        .engine()
        .sql()
        .query_row("SELECT value FROM mls WHERE substr(key, 1, 1) = x'05'", [], |row| {
            row.get(0)
        })
        .expect("read");
    b.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    // To its HPKE keys the next commit is garbage: they are of an epoch that has passed.
    let sql = b.engine().sql();
    sql.execute("UPDATE mls SET value = ?1 WHERE substr(key, 1, 1) = x'05'", [earlier])
        .expect("written");
    sql.execute("DELETE FROM mls WHERE substr(key, 1, 1) = x'13'", [])
        .expect("unsealed");
    b.crash();
    a.engine().update_keys(channel).expect("queued");
    a.send(channel, "not for b");
    settle(&relay, channel, &mut [&mut a, &mut c]);
    b.send(channel, "held");
    b.take_events();
    settle(&relay, channel, &mut [&mut b]);
    let events = b.take_events();
    assert!(
        events.iter().any(|event| matches!(event, Event::OutOfSync { .. })),
        "{events:?}"
    );
    assert_eq!(
        b.engine().channel(channel).expect("known").standing,
        Standing::OutOfSync
    );
    assert!(a.texts(channel).len() == 1, "what b sends is held");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    let events = b.take_events();
    let back = |event: &Event| matches!(event, Event::Rejoined { missed: 1, .. });
    assert!(events.iter().any(back), "{events:?}");
    assert_eq!(b.texts(channel), ["held"]);
    assert_eq!(c.texts(channel), ["not for b", "held"]);
    assert_agree(channel, &mut [&mut a, &mut b, &mut c]);
    let lost = b.engine().lost(Some(channel)).expect("listed");
    assert_eq!(
        lost.iter().map(|lost| lost.reason).collect::<Vec<_>>(),
        [LostReason::OutOfSync]
    );
}
