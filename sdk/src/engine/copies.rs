//! Files of a vault in use, copied a piece at a time while the agent works: what `cp` does under a running agent.

use super::faults::relay::{Agent, Relay, channel_of, settle};
use super::*;
use crate::vault::VaultKey;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Pages of the database that are copied between two things that the agent does.
const SLICE_BYTES: usize = 4 * 4_096;

/// In which order the two files are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    DatabaseFirst,
    LogFirst,
    DatabaseAlone,
}

/// What becomes of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// Opened, usable, marked as restored.
    Usable,
    /// Refused when it was opened.
    Refused,
    /// Opened; the group of a channel is refused.
    GroupRefused,
}

fn key() -> VaultKey {
    VaultKey::Raw(Zeroizing::new([7; 32]))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Copies a file as it is while `work` goes on.
fn copy_slowly(from: &Path, to: &Path, mut work: impl FnMut()) {
    let mut at = 0;
    let mut copied = Vec::new();
    loop {
        let bytes = std::fs::read(from).unwrap_or_default();
        let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else {
            break;
        };
        copied.extend_from_slice(&rest[..rest.len().min(SLICE_BYTES)]);
        at += SLICE_BYTES;
        work();
    }
    std::fs::write(to, copied).expect("written");
}

#[test]
fn a_copy_of_a_vault_in_use_is_usable_and_known_as_a_copy_or_refused_by_its_name() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channels: Vec<_> = (0..2).map(|_| channel_of(&relay, &mut [&mut a, &mut b])).collect();
    let quiet = a.engine().create_channel("quiet").expect("made");
    // Often, as in a vault that is used much.
    a.engine().sql().execute_batch("PRAGMA wal_autocheckpoint = 24").expect("set");
    let vault = a.folder().join("vault.db");
    let folder = tempfile::tempdir().expect("a folder");
    let mut found = BTreeMap::<_, u32>::new();
    let mut number = 0_u32;
    let mut work = |a: &mut Agent| {
        number += 1;
        let channel = channels[number as usize % 2];
        a.send(channel, &format!("a {number} {}", "x".repeat(number as usize * 37 % 4_000)));
        b.send(channel, "b");
        match number % 7 {
            0 => drop(b.engine().update_keys(channel).expect("queued")),
            3 => drop(a.engine().update_keys(channel).expect("queued")),
            5 => {
                let before = a.engine().cursor(channel).expect("known");
                a.engine().ack(channel, before).expect("acknowledged");
                let _ = a.engine().purge(channel, before, 20).expect("purged");
            }
            _ => {}
        }
        settle(&relay, channel, &mut [a, &mut b]);
    };
    for round in 0..COPIES {
        let order = [Order::DatabaseFirst, Order::LogFirst, Order::DatabaseAlone][round % 3];
        let copy = folder.path().join(format!("copy-{round}.db"));
        let (log, copied_log) = (beside(&vault, "-wal"), beside(&copy, "-wal"));
        if order == Order::LogFirst {
            copy_slowly(&log, &copied_log, || work(&mut a));
        }
        copy_slowly(&vault, &copy, || work(&mut a));
        if order == Order::DatabaseFirst {
            copy_slowly(&log, &copied_log, || work(&mut a));
        }
        *found.entry((order, judge(&copy, &channels, quiet))).or_default() += 1;
    }
    println!("{found:#?}");
    assert!(found.keys().any(|(_, found)| *found != Found::Refused));
}

/// As many as there are orders, a few times.
const COPIES: usize = 60;

fn judge(copy: &Path, channels: &[ChannelId], quiet: ChannelId) -> Found {
    let mut engine = match Engine::open(copy, key(), EngineConfig::default()) {
        Ok(engine) => engine,
        Err(error) => {
            println!("refused: {error}");
            assert_eq!(error.code(), Code::VaultDamaged, "{error}");
            return Found::Refused;
        }
    };
    assert!(engine.vault.restored().expect("known").is_some(), "it is a copy");
    let listed = engine.channels().expect("listed");
    let has = |channel: &ChannelId| listed.iter().any(|info| info.id == *channel);
    if has(&quiet) {
        engine.send(quiet, b"another channel").expect("stands alone");
    }
    let mut result = Found::Usable;
    for channel in channels.iter().filter(|channel| has(channel)) {
        engine.history(*channel, Offset::ZERO, u32::MAX).expect("readable");
        if let Err(error) = engine.send(*channel, b"mine") {
            println!("group refused: {error}");
            assert_eq!(error.code(), Code::VaultDamaged, "{error}");
            assert!(error.to_string().contains(&channel.to_string()), "{error}");
            result = Found::GroupRefused;
        }
    }
    if has(&quiet) {
        engine.send(quiet, b"still").expect("stands alone");
    }
    result
}
