//! A node's word for what a shard's logs are at one sequence: it has folded all messages up to there itself.
//!
//! ```text
//!  "skytaleV" | version u32 | shard u32 | stream u64 | sequence u64 | time_ms u64 | chain 32 | hash 32 | repeated_after u64
//!  | length u64 | parts u32 | parts x BLAKE3 32 | key length u8 | public key | Ed25519 signature of all before 64
//! ```
//!
//! Numbers are little-endian. A checkpoint's bytes follow from the sequence alone (`checkpoint.rs`), so nodes that have
//! folded the same vouch for the same hash, and a reader of enough known nodes' statements need not believe any single
//! one. Persisted: keep stable.

use super::signer::{Names, Signer, is_signed};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};

const MAGIC: &[u8; 8] = b"skytaleV";
const VERSION: u32 = 1;
const SIGNATURE_BYTES: usize = 64;
const FIXED_BYTES: usize = 8 + 4 + 4 + 8 * 3 + 64 + 8 + 8 + 4;
/// A checkpoint is stored in messages of so many bytes; the last one may be shorter.
pub(super) const PART_BYTES: usize = 512 * 1024;

/// Identifies a checkpoint's bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    /// The hash of all messages up to its sequence.
    pub(super) chain: [u8; 32],
    /// BLAKE3 of its bytes.
    pub(super) hash: [u8; 32],
    /// Message after which its repeated messages begin.
    pub(super) repeated_after: u64,
    /// Its length in bytes.
    pub(super) length: u64,
    /// BLAKE3 of each part.
    pub(super) parts: Vec<[u8; 32]>,
}

impl Object {
    pub(super) fn of(bytes: &[u8], chain: [u8; 32], repeated_after: u64) -> Self {
        Self {
            chain,
            hash: *blake3::hash(bytes).as_bytes(),
            repeated_after,
            length: bytes.len() as u64,
            parts: bytes
                .chunks(PART_BYTES)
                .map(|part| *blake3::hash(part).as_bytes())
                .collect(),
        }
    }
}

/// Statement of one node on one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vouch {
    pub(super) shard: u32,
    pub(super) stream: u64,
    pub(super) sequence: u64,
    /// Time of the statement by the fleet's clock, or the time of the last message, whichever is later; unix
    /// milliseconds.
    pub(super) time_ms: u64,
    pub(super) object: Object,
}

impl Vouch {
    pub(super) fn encode(&self, signer: &Signer) -> Result<Bytes, String> {
        let object = &self.object;
        let mut out = BytesMut::with_capacity(FIXED_BYTES + object.parts.len() * 32 + 1 + 56 + SIGNATURE_BYTES);
        out.put_slice(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(self.shard);
        for number in [self.stream, self.sequence, self.time_ms] {
            out.put_u64_le(number);
        }
        out.put_slice(&object.chain);
        out.put_slice(&object.hash);
        out.put_u64_le(object.repeated_after);
        out.put_u64_le(object.length);
        out.put_u32_le(u32::try_from(object.parts.len()).unwrap_or(u32::MAX));
        object.parts.iter().for_each(|part| out.put_slice(part));
        let key = signer.public().as_bytes();
        out.put_u8(u8::try_from(key.len()).map_err(|_| "a key that is too long".to_owned())?);
        out.put_slice(key);
        let signature = signer.sign(&out)?;
        out.put_slice(&signature);
        Ok(out.freeze())
    }

    /// Decodes the bytes of [`Vouch::encode`], with the public key that signed them.
    pub(super) fn decode(bytes: &Bytes) -> Result<(Self, String), &'static str> {
        let end = bytes.len().checked_sub(SIGNATURE_BYTES).ok_or("cut short")?;
        let (signed, signature) = (bytes.slice(..end), bytes.slice(end..));
        let mut rest = signed.clone();
        if rest.len() < FIXED_BYTES || rest.split_to(8).as_ref() != MAGIC {
            return Err("no word of a node");
        }
        if rest.get_u32_le() != VERSION {
            return Err("of a version that this program does not read");
        }
        let shard = rest.get_u32_le();
        let (stream, sequence, time_ms) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
        let mut object = Object {
            chain: [0; 32],
            hash: [0; 32],
            repeated_after: 0,
            length: 0,
            parts: Vec::new(),
        };
        rest.copy_to_slice(&mut object.chain);
        rest.copy_to_slice(&mut object.hash);
        object.repeated_after = rest.get_u64_le();
        object.length = rest.get_u64_le();
        let parts = rest.get_u32_le() as usize;
        if rest.len() / 32 < parts {
            return Err("cut short");
        }
        if object.length.div_ceil(PART_BYTES as u64) != parts as u64 {
            return Err("of another length than its parts");
        }
        for _ in 0..parts {
            let mut part = [0; 32];
            rest.copy_to_slice(&mut part);
            object.parts.push(part);
        }
        let key = rest.try_get_u8().map_err(|_| "cut short")? as usize;
        if rest.len() != key {
            return Err("longer or shorter than it says");
        }
        let key = String::from_utf8(rest.to_vec()).map_err(|_| "signed by no key")?;
        if !is_signed(&key, &signed, &signature) {
            return Err("its signature does not fit");
        }
        let vouch = Self {
            shard,
            stream,
            sequence,
            time_ms,
            object,
        };
        Ok((vouch, key))
    }
}

/// A checkpoint that enough known nodes vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attested {
    pub(super) sequence: u64,
    /// The middle one of the times that its nodes say; of an even number, the later.
    pub(super) time_ms: u64,
    pub(super) object: Object,
    /// Nodes that vouch for it.
    pub(super) nodes: BTreeSet<String>,
}

/// Statements of nodes on one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// Oldest first.
    pub(super) attested: Vec<Attested>,
    /// Sequences at which known nodes contradict each other, and how.
    pub(super) doubtful: BTreeMap<u64, String>,
    /// Every sequence that anything was written for.
    pub(super) seen: BTreeSet<u64>,
    /// Words that do not count: of unknown nodes, or not readable.
    pub(super) ignored: usize,
}

/// Statement on a sequence, with its author if it can be one.
pub(super) type Said = (u64, Option<(Vouch, String)>);

/// Words of one node on a shard that are heard, at most. One node's words take no room from another's.
const WORDS_MAX: usize = 1 << 17;
/// States that one node may vouch for at one sequence: with two it contradicts itself, and more say nothing new.
const STATES_MAX: usize = 2;
/// Sequences that are remembered, at most.
const SEEN_MAX: usize = 1 << 20;

/// Statements as they are read. What is kept of them is bounded by the number of known nodes, whoever writes.
pub(super) struct Hearing<'a> {
    names: &'a Names,
    judged: Judged,
    claims: BTreeMap<u64, BTreeMap<Object, BTreeMap<String, u64>>>,
    /// Words of each node that were heard.
    words: BTreeMap<String, usize>,
}

impl<'a> Hearing<'a> {
    pub(super) fn new(names: &'a Names) -> Self {
        Self {
            names,
            judged: Judged::default(),
            claims: BTreeMap::new(),
            words: BTreeMap::new(),
        }
    }

    pub(super) fn hear(&mut self, (sequence, word): Said) {
        if self.judged.seen.len() < SEEN_MAX {
            self.judged.seen.insert(sequence);
        }
        if !word.is_some_and(|(vouch, key)| self.takes(sequence, vouch, &key)) {
            self.judged.ignored += 1;
        }
    }

    /// Takes a word of a known node; false where it is none, or one too many.
    fn takes(&mut self, sequence: u64, vouch: Vouch, key: &str) -> bool {
        let Some(name) = self.names.get(key) else { return false };
        let said = |times: &BTreeMap<String, u64>| times.contains_key(name);
        if let Some(objects) = self.claims.get(&sequence) {
            // Said again after a restart: the first time counts.
            if objects.get(&vouch.object).is_some_and(said) {
                return true;
            }
            if objects.values().filter(|times| said(times)).count() >= STATES_MAX {
                return false;
            }
        }
        let words = self.words.entry(name.clone()).or_default();
        if *words >= WORDS_MAX {
            return false;
        }
        *words += 1;
        let objects = self.claims.entry(sequence).or_default();
        let times = objects.entry(vouch.object).or_default();
        times.insert(name.clone(), vouch.time_ms);
        true
    }

    /// Judges the statements. Nobody is believed alone: a checkpoint counts where `witnesses` known nodes vouch for the
    /// same bytes.
    pub(super) fn judge(self, witnesses: usize) -> Judged {
        judge(self.judged, self.claims, witnesses)
    }
}

fn judge(
    mut judged: Judged,
    claims: BTreeMap<u64, BTreeMap<Object, BTreeMap<String, u64>>>,
    witnesses: usize,
) -> Judged {
    for (sequence, objects) in claims {
        if objects.len() > 1 {
            let sides = objects.values().map(|times| {
                let names: Vec<&str> = times.keys().map(String::as_str).collect();
                names.join(", ")
            });
            let sides: Vec<String> = sides.collect();
            let problem = format!("nodes vouch for different states: {}", sides.join(" against "));
            judged.doubtful.insert(sequence, problem);
        }
        let mut enough = objects.into_iter().filter(|(_, times)| times.len() >= witnesses.max(1));
        // If two states have enough nodes each, none is believed.
        if let (Some((object, times)), None) = (enough.next(), enough.next()) {
            let mut all: Vec<u64> = times.values().copied().collect();
            all.sort_unstable();
            judged.attested.push(Attested {
                sequence,
                time_ms: all.get(all.len() / 2).copied().unwrap_or(u64::MAX),
                object,
                nodes: times.into_keys().collect(),
            });
        }
    }
    judged
}

/// Returns the sequence up to which the checkpoints after one say which messages were repeated, without a gap.
pub(super) fn covered(listed: &[Attested], from: u64) -> u64 {
    let later = listed.iter().filter(|listed| listed.sequence > from);
    later.fold(from, |covered, listed| {
        if listed.object.repeated_after <= covered {
            listed.sequence
        } else {
            covered
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nkeys::KeyPair;
    use proptest::prelude::*;

    fn signer() -> Signer {
        Signer::new(&KeyPair::new_user().seed().expect("a seed")).expect("a signer")
    }

    fn vouch(sequence: u64, bytes: &[u8], time_ms: u64) -> Vouch {
        Vouch {
            shard: 3,
            stream: 7,
            sequence,
            time_ms,
            object: Object::of(bytes, [9; 32], sequence.saturating_sub(20)),
        }
    }

    #[test]
    fn a_word_comes_back_with_its_key_and_not_with_a_bit_changed() {
        let signer = signer();
        let said = vouch(40, &vec![5; PART_BYTES + 1], 11);
        assert_eq!(said.object.parts.len(), 2);
        let bytes = said.encode(&signer).expect("signed");
        assert_eq!(Vouch::decode(&bytes), Ok((said, signer.public().to_owned())));
        for place in 0..bytes.len() {
            let mut other = bytes.to_vec();
            other[place] ^= 1;
            assert!(Vouch::decode(&other.into()).is_err(), "byte {place}");
        }
        for end in 0..bytes.len() {
            assert!(Vouch::decode(&bytes.slice(..end)).is_err());
        }
    }

    #[test]
    fn one_key_is_believed_nothing_alone_however_often_it_speaks() {
        let names: Names = [("A", "one"), ("B", "two"), ("C", "three")]
            .map(|(key, name)| (key.to_owned(), name.to_owned()))
            .into();
        let said = |key: &str, sequence, bytes: &[u8], time_ms| -> Said {
            (sequence, Some((vouch(sequence, bytes, time_ms), key.to_owned())))
        };
        let mut all = vec![
            said("A", 20, b"true", 5),
            said("B", 20, b"true", 900),
            said("C", 20, b"true", 7),
            said("A", 40, b"true", 5),
            said("C", 40, b"forged", 5),
            said("B", 40, b"true", 6),
            // Nobody else has said anything here.
            said("C", 60, b"forged", 5),
            (60, None),
        ];
        all.extend((0..100).map(|_| said("C", 60, b"forged", 5)));
        all.extend((0..100).map(|number| said(&format!("X{number}"), 60, b"forged", 5)));
        let judge = |said: Vec<Said>| {
            let mut hearing = Hearing::new(&names);
            said.into_iter().for_each(|said| hearing.hear(said));
            hearing.judge(2)
        };
        let judged = judge(all.clone());
        let sequences: Vec<u64> = judged.attested.iter().map(|attested| attested.sequence).collect();
        assert_eq!(sequences, [20, 40]);
        assert_eq!(judged.attested[0].time_ms, 7, "no clock decides alone");
        assert_eq!(judged.attested[1].object.hash, *blake3::hash(b"true").as_bytes());
        assert_eq!(judged.doubtful.keys().copied().collect::<Vec<_>>(), [40]);
        assert!(judged.doubtful[&40].contains("three"), "{judged:?}");
        assert_eq!(judged.ignored, 101);
        // Two liars against two: nobody is believed.
        all.extend([said("B", 40, b"forged", 5)]);
        let sequences = |judged: Judged| judged.attested.iter().map(|one| one.sequence).collect::<Vec<_>>();
        assert_eq!(sequences(judge(all)), [20]);
    }

    #[test]
    fn a_node_that_writes_more_than_anybody_reads_hides_no_other() {
        let names: Names = [("A", "one"), ("B", "two"), ("C", "three")]
            .map(|(key, name)| (key.to_owned(), name.to_owned()))
            .into();
        let said = |key: &str, sequence, bytes: &[u8]| (sequence, Some((vouch(sequence, bytes, 5), key.to_owned())));
        let mut hearing = Hearing::new(&names);
        // Words of nobody, of one node at every sequence, and of one about many states of one sequence.
        for sequence in 0..=SEEN_MAX as u64 {
            hearing.hear((sequence, None));
        }
        for sequence in 0..=WORDS_MAX as u64 {
            hearing.hear(said("C", sequence, b"forged"));
        }
        let before = hearing.judged.ignored;
        for number in 0..1_000_u32 {
            hearing.hear(said("B", 30, &number.to_le_bytes()));
        }
        assert_eq!(hearing.judged.ignored - before, 1_000 - STATES_MAX);
        for key in ["A", "B"] {
            hearing.hear(said(key, 20, b"true"));
        }
        let kept: usize = hearing
            .claims
            .values()
            .flat_map(BTreeMap::values)
            .map(BTreeMap::len)
            .sum();
        assert_eq!(kept, WORDS_MAX + STATES_MAX + 2);
        assert_eq!(hearing.judged.seen.len(), SEEN_MAX);
        let attested: Vec<u64> = hearing.judge(2).attested.iter().map(|one| one.sequence).collect();
        assert_eq!(attested, [20]);
    }

    #[test]
    fn a_gap_ends_what_is_known_of_repeated_messages() {
        let listed = |sequence, repeated_after| Attested {
            sequence,
            time_ms: 0,
            object: Object::of(b"", [0; 32], repeated_after),
            nodes: BTreeSet::new(),
        };
        let all = [listed(20, 0), listed(40, 20), listed(80, 40), listed(120, 100)];
        assert_eq!(covered(&all, 20), 80);
        assert_eq!(covered(&all, 120), 120);
        assert_eq!(covered(&all[..1], 20), 20);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_word_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Vouch::decode(&bytes.into());
        }
    }
}
