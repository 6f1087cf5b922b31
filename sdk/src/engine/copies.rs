//! Copying files of a vault in use: `cp` under a running agent.
//!
//! The database and its write-ahead log are then of different moments, or each of several. If a checkpoint came in
//! between, the copy mixes pages of two moments: each is authentic, and often everything read from the history fits.
//! Most such copies have an inconsistent structure. In some the structure fits, but the value of a group is half old
//! and half new; the seal of a group detects those.

use super::faults::relay::{Agent, Relay, channel_of, settle};
use super::*;
use crate::vault::VaultKey;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Bytes of a file copied between two actions of the agent, in a slow copy.
const SLICE_BYTES: usize = 4 * 4_096;
/// Intervals between checkpoints of the write-ahead log, in pages.
const CHECKPOINTS: [u32; 3] = [24, 200, 500];
/// Number of copies made with each of them.
const COPIES: usize = 32;

/// Outcome of opening a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// Opened, and each group is consistent.
    Usable,
    /// Refused when it was opened.
    Refused,
    /// Opened; the group of a channel is refused.
    GroupRefused,
}

fn key() -> VaultKey {
    VaultKey::raw([7; 32])
}

/// Encodes a channel's group as in keys.
fn group(channel: ChannelId) -> Vec<u8> {
    crate::mls::in_keys(&crate::mls::group_id(channel, 0))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns a channel and its group, as stored in the vault.
fn state(engine: &Engine, channel: ChannelId) -> rusqlite::Result<Vec<u8>> {
    let query = "SELECT cursor, head, epoch, encrypted_no, accepted_no, received FROM channel WHERE id = ?1";
    let position: [i64; 6] = engine.sql().query_row(query, [channel.as_bytes()], |row| {
        Ok([
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(3)?,
            row.get(4)?,
            row.get(5)?,
        ])
    })?;
    let mut all: Vec<u8> = position.iter().flat_map(|number| number.to_be_bytes()).collect();
    let query = "SELECT key, value FROM mls WHERE instr(key, ?1) > 0 ORDER BY key";
    let mut statement = engine.sql().prepare(query)?;
    let mut rows = statement.query([group(channel)])?;
    while let Some(row) = rows.next()? {
        all.extend(row.get::<_, Vec<u8>>(0)?);
        all.extend(row.get::<_, Vec<u8>>(1)?);
    }
    Ok(Digest::hash_frame(&all).to_vec())
}

/// A working agent, with its past states.
struct Busy {
    relay: Relay,
    agent: Agent,
    other: Agent,
    channels: [ChannelId; 2],
    steps: usize,
    states: HashSet<Vec<u8>>,
}

impl Busy {
    fn new(checkpoint: u32) -> Self {
        let relay = Relay::new();
        let (mut agent, mut other) = (Agent::new(), Agent::new());
        let channels = [(); 2].map(|()| channel_of(&relay, &mut [&mut agent, &mut other]));
        let pragma = format!("PRAGMA wal_autocheckpoint = {checkpoint}");
        agent.engine().sql().execute_batch(&pragma).expect("set");
        let mut busy = Self {
            relay,
            agent,
            other,
            channels,
            steps: 0,
            states: HashSet::new(),
        };
        busy.note();
        busy
    }

    fn note(&mut self) {
        for channel in self.channels {
            self.states.insert(state(self.agent.engine(), channel).expect("read"));
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        let (number, channel) = (self.steps, self.channels[self.steps % 2]);
        if number % 3 != 1 {
            self.agent.send(channel, &"x".repeat(number * 37 % 4_000));
        }
        if number % 3 != 0 {
            self.other.send(channel, "b");
        }
        if number % 11 == 0 {
            self.other.engine().update_keys(channel).expect("queued");
        }
        settle(&self.relay, channel, &mut [&mut self.agent, &mut self.other]);
        self.note();
    }

    /// Copies a file at once, or a slice at a time while the agent works.
    fn copy(&mut self, from: &Path, to: &Path, slowly: bool) {
        let (mut at, mut copied) = (0, Vec::new());
        loop {
            let bytes = std::fs::read(from).unwrap_or_default();
            let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            let length = if slowly {
                rest.len().min(SLICE_BYTES)
            } else {
                rest.len()
            };
            copied.extend_from_slice(&rest[..length]);
            at += length;
            if slowly {
                self.step();
            }
        }
        std::fs::write(to, copied).expect("written");
    }
}

#[test]
fn a_copy_of_a_vault_in_use_is_of_one_moment_and_known_as_a_copy_or_refused() {
    let mut found = BTreeMap::<_, u32>::new();
    for checkpoint in CHECKPOINTS {
        let mut busy = Busy::new(checkpoint);
        let folder = tempfile::tempdir().expect("a folder");
        let vault = busy.agent.folder().join("vault.db");
        for round in 0..COPIES {
            let copy = folder.path().join(format!("copy-{round}.db"));
            let slowly = round % 8 == 7;
            let mut files = ["", "-wal"];
            if round % 2 == 0 {
                files.reverse();
            }
            for file in files {
                busy.copy(&beside(&vault, file), &beside(&copy, file), slowly);
                for _ in 0..1 + round / 8 {
                    busy.step();
                }
            }
            *found.entry(judge(&copy, &busy, slowly)).or_default() += 1;
        }
    }
    for what in [Found::Usable, Found::Refused] {
        assert!(found.contains_key(&what), "{what:?} is not among {found:?}");
    }
}

#[test]
fn a_channel_whose_group_is_of_two_moments_is_refused_alone() {
    let mut busy = Busy::new(2_048);
    let [spoiled, sound] = busy.channels;
    // The group's message secrets: keys derived from them have already been used.
    let query = "SELECT value FROM mls WHERE substr(key, 1, 1) = x'12' AND instr(key, ?1) > 0";
    let secrets = |busy: &mut Busy| -> Vec<u8> {
        let read = busy
            .agent
            .engine()
            .sql()
            .query_row(query, [group(spoiled)], |row| row.get(0));
        read.expect("read")
    };
    let early = secrets(&mut busy);
    (0..6).for_each(|_| busy.step());
    let late = secrets(&mut busy);
    assert_ne!(early, late);
    let put = |busy: &mut Busy, value: &[u8]| {
        let update = "UPDATE mls SET value = ?2 WHERE substr(key, 1, 1) = x'12' AND instr(key, ?1) > 0";
        let done = busy.agent.engine().sql().execute(update, (group(spoiled), value));
        assert_eq!(done, Ok(1));
    };
    put(&mut busy, &early);
    for _ in 0..2 {
        busy.agent.crash();
        let engine = busy.agent.engine();
        let error = engine.send(spoiled, b"twice under one key").expect_err("refused");
        assert_eq!(error.code(), Code::VaultDamaged, "{error}");
        assert!(!error.is_retryable());
        assert!(error.to_string().contains(&spoiled.to_string()), "{error}");
        assert_eq!(engine.channels().expect("listed").len(), 2);
        assert!(!engine.history(spoiled, Offset::ZERO, 10).expect("readable").is_empty());
        assert!(engine.outbox(spoiled).expect("listed").is_empty());
        engine.send(sound, b"fine").expect("sent");
        settle(&busy.relay, sound, &mut [&mut busy.agent, &mut busy.other]);
    }
    put(&mut busy, &late);
    busy.agent.crash();
    busy.agent.send(spoiled, "sound again");
    settle(&busy.relay, spoiled, &mut [&mut busy.agent, &mut busy.other]);
    assert_eq!(
        busy.other.texts(spoiled).last().map(String::as_str),
        Some("sound again")
    );
}

/// Judges a copy. With `anywhere`, the log was copied slowly and may end anywhere: before the channels were created, or
/// in the middle of a step.
fn judge(copy: &Path, busy: &Busy, anywhere: bool) -> Found {
    let mut engine = match Engine::open(copy, key(), EngineConfig::default()) {
        Ok(engine) => engine,
        Err(error) => {
            assert_eq!(error.code(), Code::VaultDamaged, "{error}");
            return Found::Refused;
        }
    };
    // Its own new channel works, whatever is wrong with the others.
    let own = engine.create_channel("mine").expect("made");
    engine.send(own, b"mine").expect("sent");
    let listed = engine.channels().expect("listed");
    let has = |channel: &ChannelId| listed.iter().any(|info| info.id == *channel);
    assert!(anywhere || busy.channels.iter().all(has));
    let mut refused = 0;
    for channel in busy.channels.into_iter().filter(has) {
        engine.history(channel, Offset::ZERO, u32::MAX).expect("readable");
        let copied = state(&engine, channel).expect("readable");
        match engine.send(channel, b"mine") {
            Ok(_) => {
                assert!(anywhere || busy.states.contains(&copied), "a state that never was");
                let standing = engine.channel(channel).expect("known").standing;
                assert_eq!(standing, Standing::Renewing, "it is a copy");
            }
            Err(error) => {
                assert_eq!(error.code(), Code::VaultDamaged, "{error}");
                assert!(error.to_string().contains(&channel.to_string()), "{error}");
                refused += 1;
            }
        }
    }
    engine.send(own, b"still").expect("sent");
    if refused > 0 {
        Found::GroupRefused
    } else {
        Found::Usable
    }
}
