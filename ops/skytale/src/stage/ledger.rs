//! Ledger of sent messages, and the check whether a reader has exactly those. Pure: the same seed gives the same
//! messages, so that a reader's transcript is checked byte by byte against the intended messages, not against another
//! reader's copy.

use skytale_proto::{AgentId, Offset};

/// The shortest payload: author, number and a little content.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 32;
/// Author and number, in bytes.
const HEAD_BYTES: usize = 12;

/// The messages of a run.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    seed: [u8; 32],
    payload_bytes: usize,
    authors: Vec<AgentId>,
    /// Number of messages that each author has sent.
    sent: Vec<u64>,
}

/// Comparison of a reader's transcript.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Messages that are there as they were sent.
    pub delivered: u64,
    /// Messages that were sent and are not there.
    pub lost: u64,
    /// Messages that are there again.
    pub duplicated: u64,
    /// Messages that come before an earlier one of the same author.
    pub out_of_order: u64,
    /// Messages that nobody sent.
    pub foreign: u64,
}

impl Comparison {
    /// Whether the transcript is exactly the sent messages.
    pub(crate) const fn is_exact(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.out_of_order == 0 && self.foreign == 0
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.foreign += other.foreign;
    }
}

impl Ledger {
    pub(crate) fn new(seed: [u8; 32], payload_bytes: usize, authors: Vec<AgentId>) -> Self {
        assert!(payload_bytes >= PAYLOAD_BYTES_MIN, "the command line refuses less");
        Self {
            seed,
            payload_bytes,
            sent: vec![0; authors.len()],
            authors,
        }
    }

    /// The next message of an author, who is known by its place in the list of authors.
    pub(crate) fn next(&mut self, author: usize) -> Vec<u8> {
        let payload = self.payload(author, self.sent[author]);
        self.sent[author] += 1;
        payload
    }

    /// Returns the number of sent messages.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// Returns the number of messages that an agent sent.
    pub(crate) fn sent_by(&self, agent: &AgentId) -> u64 {
        self.authors
            .iter()
            .position(|author| author == agent)
            .map_or(0, |author| self.sent[author])
    }

    fn payload(&self, author: usize, number: u64) -> Vec<u8> {
        let mut payload = vec![0; self.payload_bytes];
        let (head, body) = payload.split_at_mut(HEAD_BYTES);
        head[..4].copy_from_slice(&u32::try_from(author).unwrap_or(u32::MAX).to_le_bytes());
        head[4..].copy_from_slice(&number.to_le_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(head);
        hasher.finalize_xof().fill(body);
        payload
    }

    /// Returns the author of this payload, and its number among the author's; `None` if nobody sent it.
    fn find(&self, author: &AgentId, payload: &[u8]) -> Option<(usize, u64)> {
        let (place, number) = (payload.get(..4)?, payload.get(4..HEAD_BYTES)?);
        let place = u32::from_le_bytes(place.try_into().ok()?) as usize;
        let number = u64::from_le_bytes(number.try_into().ok()?);
        let known = self.authors.get(place) == Some(author) && number < self.sent[place];
        (known && self.payload(place, number) == payload).then_some((place, number))
    }
}

/// Reads a transcript in the order of the log and compares.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    ledger: &'a Ledger,
    seen: Vec<Vec<bool>>,
    last: Vec<Option<u64>>,
    found: Comparison,
    transcript: blake3::Hasher,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(ledger: &'a Ledger) -> Self {
        let seen = ledger
            .sent
            .iter()
            .map(|sent| vec![false; usize::try_from(*sent).unwrap_or(usize::MAX)]);
        Self {
            seen: seen.collect(),
            last: vec![None; ledger.authors.len()],
            found: Comparison::default(),
            transcript: blake3::Hasher::new(),
            ledger,
        }
    }

    /// The next message of the transcript.
    pub(crate) fn message(&mut self, offset: Offset, author: &AgentId, payload: &[u8]) {
        self.transcript.update(&offset.get().to_le_bytes());
        self.transcript.update(author.as_bytes());
        self.transcript.update(&(payload.len() as u64).to_le_bytes());
        self.transcript.update(payload);
        let Some((place, number)) = self.ledger.find(author, payload) else {
            self.found.foreign += 1;
            return;
        };
        // `find` gives numbers that were sent, and no machine has more messages than addresses.
        let seen = &mut self.seen[place][usize::try_from(number).unwrap_or(usize::MAX)];
        if std::mem::replace(seen, true) {
            self.found.duplicated += 1;
            return;
        }
        self.found.delivered += 1;
        if self.last[place].is_some_and(|last| number < last) {
            self.found.out_of_order += 1;
        }
        self.last[place] = self.last[place].max(Some(number));
    }

    /// The comparison, and a hash of the whole transcript.
    pub(crate) fn finish(mut self) -> (Comparison, blake3::Hash) {
        self.found.lost = self.seen.iter().flatten().filter(|seen| !**seen).count() as u64;
        (self.found, self.transcript.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sent = (AgentId, Vec<u8>);

    fn run() -> (Ledger, Vec<Sent>) {
        let authors = vec![AgentId::from_bytes([1; 32]), AgentId::from_bytes([2; 32])];
        let mut ledger = Ledger::new([9; 32], 64, authors.clone());
        let sent = (0..10)
            .map(|number| (authors[number % 2], ledger.next(number % 2)))
            .collect();
        (ledger, sent)
    }

    fn compare(ledger: &Ledger, messages: &[Sent]) -> (Comparison, blake3::Hash) {
        let mut reading = Reading::new(ledger);
        for (offset, (author, payload)) in messages.iter().enumerate() {
            reading.message(Offset::new(offset as u64 + 1), author, payload);
        }
        reading.finish()
    }

    #[test]
    fn what_was_sent_compares_exactly() {
        let (ledger, sent) = run();
        let (found, _) = compare(&ledger, &sent);
        assert!(found.is_exact());
        assert_eq!(
            (found.delivered, ledger.sent(), ledger.sent_by(&sent[0].0)),
            (10, 10, 5)
        );
    }

    #[test]
    fn a_lost_a_repeated_a_swapped_and_an_altered_message_are_each_found() {
        let (ledger, sent) = run();
        let (_, whole) = compare(&ledger, &sent);
        let of = |change: &dyn Fn(&mut Vec<Sent>)| {
            let mut changed = sent.clone();
            change(&mut changed);
            let (found, transcript) = compare(&ledger, &changed);
            assert_ne!(transcript, whole);
            (
                found.delivered,
                found.lost,
                found.duplicated,
                found.out_of_order,
                found.foreign,
            )
        };
        assert_eq!(of(&|messages| drop(messages.remove(3))), (9, 1, 0, 0, 0));
        assert_eq!(of(&|messages| messages.push(sent[3].clone())), (10, 0, 1, 0, 0));
        assert_eq!(of(&|messages| messages.swap(0, 2)), (10, 0, 0, 1, 0));
        assert_eq!(of(&|messages| messages[4].1[40] ^= 1), (9, 1, 0, 0, 1));
        // The right words under another's name.
        assert_eq!(of(&|messages| messages[4].0 = messages[5].0), (9, 1, 0, 0, 1));
    }
}
