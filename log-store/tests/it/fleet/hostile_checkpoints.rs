//! An attacker with one node's keys writes arbitrary checkpoints: no node takes them, none stops for them, and that
//! node is named.

use super::checkpoints::{EVERY, extent, one_shard, purged_with, the_same};
use super::cluster::Account;
use super::nodes::{agree, reaches};
use super::script::*;
use crate::local::script::ALICE;
use async_nats::jetstream;
use nkeys::{KeyPair, KeyPairType};
use skytale_log_store::fleet::{FleetConfig, Keeper, Signer};
use skytale_log_store::{Access, FleetStore, LogStore as _};
use skytale_proto::{AgentId, ChannelId, Offset};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MALLORY: AgentId = AgentId::from_bytes([0xbb; 32]);
const RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// A word, up to the chain; and the chain.
const CHAIN_AT: usize = 40;
const HASH_AT: usize = CHAIN_AT + 32;
const REPEATED_AT: usize = HASH_AT + 32;
const KEY_BYTES: usize = 1 + 56;
const SIGNATURE_BYTES: usize = 64;

/// A key that the fleet knows as a node's, in the hands of somebody else.
struct Thief {
    account: Account,
    context: jetstream::Context,
    pair: KeyPair,
}

impl Thief {
    async fn of(account: &Account) -> Self {
        let seed = *blake3::hash(account.user.as_bytes()).as_bytes();
        let pair = KeyPair::new_from_raw(KeyPairType::User, seed).expect("a key");
        let signer = Signer::new(&pair.seed().expect("a seed")).expect("a signer");
        account.knows("mallory", &signer);
        Self {
            account: account.clone(),
            context: account.context().await.expect("JetStream"),
            pair,
        }
    }

    async fn subject(&self, sequence: u64, last: &str) -> String {
        let stream = self.account.stream("SKYTALE_LOG_0_0").await;
        let made = stream.cached_info().created.unix_timestamp_nanos();
        format!("skytale.checkpoint.0.0.{made:016x}.{sequence:020}.{last}")
    }

    async fn put(&self, sequence: u64, last: &str, payload: Vec<u8>) {
        let subject = self.subject(sequence, last).await;
        let sent = self.context.publish(subject, payload.into()).await.expect("sent");
        sent.await.expect("in the stream");
    }

    /// The last of what was written, as anybody may read it, as soon as it is there.
    async fn read(&self, sequence: u64, last: &str) -> Vec<u8> {
        let (subject, begun) = (self.subject(sequence, last).await, Instant::now());
        loop {
            let stream = self
                .context
                .get_stream_no_info("SKYTALE_CHECKPOINTS_0")
                .await
                .expect("a stream");
            if let Ok(found) = stream.get_last_raw_message_by_subject(&subject).await {
                return found.payload.to_vec();
            }
            assert!(begun.elapsed() < HANGING, "nothing at {subject}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A word for other bytes, signed with a key.
    fn word(true_word: &[u8], chain: Option<[u8; 32]>, bytes: &[u8], pair: &KeyPair) -> Vec<u8> {
        let mut word = true_word[..REPEATED_AT + 8].to_vec();
        if let Some(chain) = chain {
            word[CHAIN_AT..HASH_AT].copy_from_slice(&chain);
        }
        word[HASH_AT..REPEATED_AT].copy_from_slice(blake3::hash(bytes).as_bytes());
        word.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        word.extend_from_slice(&1u32.to_le_bytes());
        word.extend_from_slice(blake3::hash(bytes).as_bytes());
        word.push(56);
        word.extend_from_slice(pair.public_key().as_bytes());
        let signature = pair.sign(&word).expect("signed");
        word.extend_from_slice(&signature);
        word
    }
}

/// A checkpoint in which one agent stands for another, with a hash that fits.
fn with_another_member(checkpoint: &[u8], old: AgentId, new: AgentId) -> Vec<u8> {
    let mut body = checkpoint[..checkpoint.len() - 32].to_vec();
    let mut changed = 0;
    for place in 0..body.len() - 31 {
        if body[place..place + 32] == *old.as_bytes() {
            body[place..place + 32].copy_from_slice(new.as_bytes());
            changed += 1;
        }
    }
    assert!(changed > 0, "the roster is in it");
    let hash = blake3::hash(&body);
    body.extend_from_slice(hash.as_bytes());
    body
}

/// Waits until a node names somebody in a remark.
async fn names(store: &FleetStore, who: &str) {
    let begun = Instant::now();
    while !store.readiness().remarks.iter().any(|remark| remark.contains(who)) {
        assert!(begun.elapsed() < HANGING, "{:?}", store.readiness());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_roster_with_the_true_chain_is_skipped_and_named() {
    let purged = purged_with(2).await;
    let account = &purged.account;
    let thief = Thief::of(account).await;
    let begins = extent(account).await.0 - 1;
    let (true_word, checkpoint) = (thief.read(begins, "word").await, thief.read(begins, "part").await);
    assert_eq!(
        true_word.len(),
        REPEATED_AT + 8 + 8 + 4 + 32 + KEY_BYTES + SIGNATURE_BYTES
    );
    let forged = with_another_member(&checkpoint, ALICE, MALLORY);
    thief.put(begins, "part", forged.clone()).await;
    let word = Thief::word(&true_word, None, &forged, &thief.pair);
    for _ in 0..5 {
        thief.put(begins, "word", word.clone()).await;
    }
    // And as many as one likes, by keys that are nobody's.
    for _ in 0..20 {
        let word = Thief::word(&true_word, None, &forged, &KeyPair::new_user());
        thief.put(begins, "word", word).await;
    }

    let two_of = |dir: &TempDir| FleetConfig {
        witnesses: 2,
        ..one_shard(account, dir, Some(RETENTION))
    };
    let empty = TempDir::new().expect("a folder");
    let fresh = open(two_of(&empty)).await;
    let whole = open(two_of(&purged.dir)).await;
    let log = purged.channel.log();
    the_same(&whole, &fresh, &[log]).await;
    for store in [&fresh, &whole] {
        let access = store.access(log, MALLORY, ACCOUNT, Offset::ZERO).await;
        assert!(matches!(access, Ok(Access::NotMember { .. })), "{access:?}");
        let access = store.access(log, ALICE, ACCOUNT, Offset::ZERO).await;
        assert!(
            !matches!(access, Ok(Access::NotMember { .. } | Access::UnknownLog)),
            "{access:?}"
        );
        names(store, "mallory").await;
        assert_eq!(store.health().stopped, None);
    }
    // A node that began with a checkpoint vouches for the same bytes as one that has folded everything.
    let (begun, from) = (Instant::now(), extent(account).await.1);
    let next = (from / EVERY + 2) * EVERY;
    while extent(account).await.1 <= next {
        accept(&whole, &message(purged.channel, purged.parent, b"later")).await;
    }
    loop {
        let words = checkpoints(account, 0, "word").await;
        let there = words
            .iter()
            .find(|(subject, _)| subject.ends_with(&format!("{next:020}.word")));
        if there.is_some_and(|(_, count)| *count >= 2) {
            break;
        }
        assert!(begun.elapsed() < HANGING, "{words:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for store in [&fresh, &whole] {
        let doubtful = store.health().doubtful;
        assert!(
            doubtful.iter().all(|(_, sequence, _)| *sequence == begins),
            "{doubtful:?}"
        );
    }
    for store in [fresh, whole] {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_at_the_next_boundary_stops_nobody_and_keeps_no_checkpoint_from_being_made() {
    let (account, _streams) = shared_account().await;
    let dirs = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let two_of = |dir: &TempDir| FleetConfig {
        witnesses: 2,
        ..one_shard(&account, dir, Some(RETENTION))
    };
    let thief = Thief::of(&account).await;
    let one = open(two_of(&dirs[0])).await;
    let two = open(two_of(&dirs[1])).await;
    let channel = ChannelId::generate();
    accept(&one, &create(channel)).await;
    reaches(&two, channel.log(), at(1)).await;
    while extent(&account).await.1 < EVERY {
        accept(&one, &message(channel, 1, b"up to the first")).await;
    }
    let true_word = thief.read(EVERY, "word").await;
    // Before anybody is there: junk, and a signed word for another history.
    for boundary in [2 * EVERY, 3 * EVERY] {
        thief.put(boundary, "part", b"junk".to_vec()).await;
        thief.put(boundary, "word", b"junk".to_vec()).await;
        let mut place = true_word.clone();
        place[24..32].copy_from_slice(&boundary.to_le_bytes());
        let word = Thief::word(&place, Some([7; 32]), b"another history", &thief.pair);
        thief.put(boundary, "word", word).await;
    }
    while extent(&account).await.1 < 5 * EVERY {
        accept(&one, &message(channel, 1, b"on and on")).await;
    }
    agree(&one, &two, channel.log()).await;
    let begun = Instant::now();
    loop {
        let words = checkpoints(&account, 0, "word").await;
        // Two of the thief, and two of the nodes.
        let at = |boundary: u64| {
            words
                .iter()
                .find(|(subject, _)| subject.ends_with(&format!("{boundary:020}.word")))
        };
        if at(2 * EVERY).is_some_and(|(_, count)| *count >= 4) && at(4 * EVERY).is_some_and(|(_, count)| *count >= 2) {
            break;
        }
        assert!(begun.elapsed() < HANGING, "{words:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for store in [one, two] {
        names(&store, "mallory").await;
        let health = store.health();
        assert_eq!((health.stopped, health.halted), (None, Vec::new()));
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_nodes_that_have_seen_another_history_stop_a_node_and_one_alone_does_not() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let config = FleetConfig {
        witnesses: 2,
        ..one_shard(&account, &dir, None)
    };
    let thief = Thief::of(&account).await;
    let store = open(config).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    while extent(&account).await.1 < EVERY {
        accept(&store, &message(channel, 1, b"up to the first")).await;
    }
    let true_word = thief.read(EVERY, "word").await;
    let second = KeyPair::new_user();
    let signer = Signer::new(&second.seed().expect("a seed")).expect("a signer");
    account.knows("another", &signer);
    let at_boundary = |boundary: u64, pair: &KeyPair| {
        let mut place = true_word.clone();
        place[24..32].copy_from_slice(&boundary.to_le_bytes());
        Thief::word(&place, Some([7; 32]), b"another history", pair)
    };
    thief.put(2 * EVERY, "word", at_boundary(2 * EVERY, &thief.pair)).await;
    while extent(&account).await.1 < 3 * EVERY - 1 {
        accept(&store, &message(channel, 1, b"one alone")).await;
    }
    assert_eq!(store.health().stopped, None);
    // More than one boundary ahead: a message may be in the stream twice, and the words must be there first.
    let next = (extent(&account).await.1 / EVERY + 2) * EVERY;
    for pair in [&thief.pair, &second] {
        thief.put(next, "word", at_boundary(next, pair)).await;
    }
    // It stops while frames of several authors are on their way: all of them are answered.
    let authors = (0..4).map(async |_| while append(&store, &message(channel, 1, b"one of many")).await.is_ok() {});
    tokio::time::timeout(HANGING, futures_util::future::join_all(authors))
        .await
        .expect("every append is answered");
    let reason = why_stopped(&store).await;
    assert!(reason.contains("diverged"), "{reason}");
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_one_nodes_word_nothing_is_given_up() {
    let (account, _streams) = shared_account().await;
    let dirs = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let retention = Duration::from_secs(1);
    let two_of = |dir: &TempDir| FleetConfig {
        witnesses: 2,
        ..one_shard(&account, dir, Some(retention))
    };
    let thief = Thief::of(&account).await;
    let one = open(two_of(&dirs[0])).await;
    let channel = ChannelId::generate();
    accept(&one, &create(channel)).await;
    while extent(&account).await.1 < 2 * EVERY {
        accept(&one, &message(channel, 1, b"one node vouches")).await;
    }
    // The thief adds a word to each: for states in which all is trimmed, or of its own.
    for boundary in [EVERY, 2 * EVERY] {
        let (true_word, checkpoint) = (thief.read(boundary, "word").await, thief.read(boundary, "part").await);
        let forged = with_another_member(&checkpoint, ALICE, MALLORY);
        thief.put(boundary, "part", forged.clone()).await;
        thief
            .put(boundary, "word", Thief::word(&true_word, None, &forged, &thief.pair))
            .await;
    }
    tokio::time::sleep(2 * retention).await;
    let keeper = Keeper::new(two_of(&dirs[0])).hearing_for(HEARS_FOR);
    let round = keeper.round().await.expect("a round");
    assert!(round.shards.iter().all(|kept| kept.purged.is_none()), "{round:?}");
    assert_eq!(extent(&thief.account).await.0, 1);
    let status = one.status(channel.log()).await.expect("a status");
    assert_eq!(status.first, Offset::FIRST, "and no reader loses anything");

    // With a second node there are two words, and what is old goes.
    let two = open(two_of(&dirs[1])).await;
    let _keeper = Keeping::start(two_of(&dirs[0]));
    let begun = Instant::now();
    while extent(&account).await.0 == 1 {
        assert!(begun.elapsed() < HANGING, "nothing is purged");
        accept(&one, &message(channel, 1, b"two nodes vouch")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for store in [one, two] {
        assert_eq!(store.health().stopped, None);
        store.close().await.expect("closed");
    }
}
