//! A commit that some members can process and others cannot: its author encrypted its path wrongly for them. Seen from
//! such a member, its own decryption keys do not fit the ciphertext; so here its stored keys are changed instead.

use super::faults::relay::{Agent, Relay, assert_agree, channel_of, settle};
use super::*;
use ciborium::Value;

/// First bytes of keys in the `mls` table: decryption keys of an epoch, and the seal over a group's values.
const EPOCH_KEY_PAIRS: u8 = 5;
const SEAL: u8 = 19;

/// Flips a bit of each private key in a stored value. Returns the number of keys.
fn spoil(value: &mut Value, is_private: bool) -> usize {
    match value {
        Value::Bytes(bytes) if is_private && bytes.len() == 32 => {
            bytes[7] ^= 1;
            1
        }
        Value::Array(items) if is_private && items.len() == 32 => {
            if let Value::Integer(byte) = &mut items[7] {
                let spoilt = u8::try_from(*byte).expect("a byte") ^ 1;
                *byte = spoilt.into();
            }
            1
        }
        Value::Array(items) => items.iter_mut().map(|item| spoil(item, is_private)).sum(),
        Value::Map(fields) => fields
            .iter_mut()
            .map(|(name, field)| spoil(field, is_private || name.as_text() == Some("private_key")))
            .sum(),
        _ => 0,
    }
}

/// Changes the decryption keys with which an agent would process the next commit.
fn spoil_keys(agent: &mut Agent) {
    let sql = agent.engine().sql();
    let mut spoilt = 0;
    let rows: Vec<(Vec<u8>, Vec<u8>)> = sql
        .prepare("SELECT key, value FROM mls WHERE substr(key, 1, 1) = ?1")
        .expect("a query")
        .query_map([[EPOCH_KEY_PAIRS]], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("rows")
        .collect::<Result<_, _>>()
        .expect("rows");
    for (key, value) in rows {
        let mut pairs: Value = ciborium::from_reader(value.as_slice()).expect("CBOR");
        spoilt += spoil(&mut pairs, false);
        let mut value = Vec::new();
        ciborium::into_writer(&pairs, &mut value).expect("encoded");
        sql.execute("UPDATE mls SET value = ?2 WHERE key = ?1", (key, value))
            .expect("changed");
    }
    assert!(spoilt > 0);
    sql.execute("DELETE FROM mls WHERE substr(key, 1, 1) = ?1", [[SEAL]])
        .expect("unsealed");
    agent.crash();
}

#[test]
fn a_commit_that_is_valid_for_some_members_splits_no_group() {
    let relay = Relay::new();
    let (mut a, mut b, mut mallory) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut mallory]);
    spoil_keys(&mut b);
    b.send(channel, "waits");
    mallory.engine().update_keys(channel).expect("queued");
    mallory.send(channel, "who can read this?");
    settle(&relay, channel, &mut [&mut mallory]);

    // Whoever it is valid for takes it. For the others it is their own trouble, and nobody is blamed.
    settle(&relay, channel, &mut [&mut a]);
    b.take_events();
    settle(&relay, channel, &mut [&mut b]);
    let standing = |agent: &mut Agent| agent.engine().channel(channel).expect("known").standing;
    assert_eq!(standing(&mut a), Standing::Current);
    assert_eq!(standing(&mut b), Standing::OutOfSync);
    let events = b.take_events();
    let blames = |event: &Event| matches!(event, Event::Divergence { .. } | Event::HeaderLied { .. });
    assert!(!events.iter().any(blames), "{events:?}");

    // It is added again by what it asks, and in the end all agree, on members and on what was said.
    settle(&relay, channel, &mut [&mut a, &mut b, &mut mallory]);
    for agent in [&mut a, &mut b, &mut mallory] {
        assert_eq!(standing(agent), Standing::Current);
        assert_eq!(agent.engine().members(channel).expect("known").len(), 3);
        agent.send(channel, "here");
    }
    settle(&relay, channel, &mut [&mut a, &mut b, &mut mallory]);
    assert_agree(channel, &mut [&mut a, &mut b, &mut mallory]);
    let lost = b.engine().lost(Some(channel)).expect("listed");
    assert!(lost.iter().all(|lost| lost.reason == LostReason::OutOfSync) && !lost.is_empty());
    for agent in [&mut a, &mut b, &mut mallory] {
        let texts = agent.texts(channel);
        assert_eq!(texts.iter().filter(|text| *text == "waits").count(), 1, "{texts:?}");
        assert_eq!(texts.iter().filter(|text| *text == "here").count(), 3, "{texts:?}");
    }
}

/// Again and again, for one and the same member: it costs a commit each time, and the member is never shut out.
#[test]
fn who_cannot_process_commits_again_and_again_stays_a_member() {
    let relay = Relay::new();
    let (mut a, mut b, mut mallory) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut mallory]);
    for round in 0..4 {
        spoil_keys(&mut b);
        mallory.engine().update_keys(channel).expect("queued");
        settle(&relay, channel, &mut [&mut mallory, &mut a]);
        settle(&relay, channel, &mut [&mut a, &mut b, &mut mallory]);
        b.send(channel, &format!("round {round}"));
        settle(&relay, channel, &mut [&mut a, &mut b, &mut mallory]);
        assert_eq!(
            a.texts(channel).last().map(String::as_str),
            Some(format!("round {round}").as_str())
        );
        assert_agree(channel, &mut [&mut a, &mut b, &mut mallory]);
    }
}
