//! The channel digest, and enough of its past to compare with digests of others.

use super::{EngineError, RollbackWord};
use crate::vault::{VaultError, integer, unsigned};
use rusqlite::Connection;
use skytale_proto::{Detail, Digest, Frame, LogId, Offset, Record};
use std::collections::VecDeque;

/// Number of offsets before the cursor whose digest is kept. An older digest is not compared when it arrives.
pub(super) const OFFSETS_MAX: usize = 4_096;
const HASH_BYTES: usize = 32;

type Hash = [u8; HASH_BYTES];

/// Stands for a Trim's hash. No frame has this one.
const PASSED: Hash = [0; HASH_BYTES];

/// The digests of the last entries. In a channel whose digest this agent does not know yet, the hashes of their frames,
/// from which the digests follow once it knows one.
#[derive(Debug)]
pub(super) struct Window {
    /// The offset that the first hash belongs to.
    first: u64,
    hashes: VecDeque<Hash>,
    /// The digest at the last offset, if it is known.
    digest: Option<Digest>,
    /// Number of hashes at the end that are not in the database yet.
    unsaved: usize,
    /// Whether the database has outdated values, which must be rewritten.
    rewrite: bool,
}

/// Result of comparing a member's digest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// The same digest, or one too old to compare.
    Agrees,
    /// Another digest at that offset; `None` if this agent has received nothing there yet.
    Differs { ours: Option<Digest> },
}

impl Window {
    /// Creates the window of a channel that this agent creates: it knows the digest from the start.
    pub(super) fn genesis(log: &LogId) -> Self {
        Self::empty(Offset::ZERO, Some(Digest::genesis(log)))
    }

    /// Creates the window of a channel that this agent joins by the bundle at `offset`.
    pub(super) fn joined(offset: Offset) -> Self {
        Self::empty(offset, None)
    }

    fn empty(cursor: Offset, digest: Option<Digest>) -> Self {
        Self {
            first: cursor.next().get(),
            hashes: VecDeque::new(),
            digest,
            unsaved: 0,
            rewrite: true,
        }
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns the first entry whose digest is kept.
    pub(super) const fn first(&self) -> Offset {
        Offset::new(self.first)
    }

    /// Adds the next entry.
    pub(super) fn push(&mut self, offset: Offset, frame: &[u8]) {
        let hash = Digest::hash_frame(frame);
        self.digest = self.digest.map(|digest| digest.next_hashed(offset, &hash));
        self.hashes
            .push_back(self.digest.map_or(hash, |digest| *digest.as_bytes()));
        self.bound();
    }

    fn bound(&mut self) {
        self.unsaved += 1;
        if self.hashes.len() > OFFSETS_MAX {
            self.hashes.pop_front();
            self.first += 1;
            self.unsaved = self.unsaved.min(self.hashes.len());
        }
    }

    /// Adds the next entry, a Trim, which does not change the digest.
    pub(super) fn pass(&mut self, offset: Offset) {
        debug_assert_eq!(offset.get(), self.first + self.hashes.len() as u64);
        self.hashes
            .push_back(self.digest.map_or(PASSED, |digest| *digest.as_bytes()));
        self.bound();
    }

    /// Skips lost entries. If they were only Trims, the digest stays the same; else it becomes unknown.
    pub(super) fn skip(&mut self, cursor: Offset, trims_alone: bool) {
        *self = Self::empty(cursor, self.digest.filter(|_| trims_alone));
        if let Some(digest) = self.digest {
            // Members' digests at the cursor itself are compared, too.
            self.first = cursor.get();
            self.hashes.push_back(*digest.as_bytes());
            self.unsaved = 1;
        }
    }

    /// Removes the entries after `kept`: the log has others there.
    pub(super) fn cut(&mut self, log: &LogId, kept: Offset) {
        let first = self.first;
        if kept == Offset::ZERO {
            *self = Self::genesis(log);
            return;
        }
        if kept.get() + 1 >= first + self.hashes.len() as u64 {
            return;
        }
        let left = (kept.get() + 1).saturating_sub(first);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        self.hashes.truncate(left);
        let digest = match self.digest {
            Some(_) => self
                .at(kept)
                .or_else(|| (first == 1 && left == 0).then(|| Digest::genesis(log))),
            None => None,
        };
        if left == 0 {
            self.first = kept.next().get();
        }
        self.digest = digest;
        self.unsaved = self.hashes.len();
        self.rewrite = true;
    }

    /// Returns the known entries of the log, to be compared with its present ones.
    pub(super) fn fork(&self, log: &LogId) -> Fork {
        let hashes: Vec<Hash> = self.hashes.iter().copied().collect();
        // Before the first hash nothing is known, unless it is the log's first.
        let (base, digest) = match self.digest {
            Some(_) if self.first == 1 => (Offset::ZERO, Some(Digest::genesis(log))),
            Some(digest) => (
                Offset::new(self.first),
                Some(self.hashes.front().map_or(digest, |hash| Digest::from_bytes(*hash))),
            ),
            None => (Offset::new(self.first).previous(), None),
        };
        let base = base.min(Offset::new(self.first + self.hashes.len() as u64).previous());
        Fork {
            first: self.first,
            hashes,
            digest,
            same: base,
            differs: false,
            denied: false,
        }
    }

    /// Compares with a member's digest at an offset; adopts it if none is known.
    pub(super) fn compare(&mut self, offset: Offset, theirs: &Digest) -> Compared {
        let end = self.first + self.hashes.len() as u64;
        if offset.get() >= end {
            // At `end - 1` with no hash kept: the cursor itself, right after a join.
            if self.digest.is_none() && self.hashes.is_empty() && offset.get() + 1 == end {
                self.digest = Some(*theirs);
                return Compared::Agrees;
            }
            return Compared::Differs { ours: None };
        }
        match self.digest {
            None => {
                self.adopt(offset, theirs);
                Compared::Agrees
            }
            Some(_) => match self.at(offset) {
                Some(ours) if ours != *theirs => Compared::Differs { ours: Some(ours) },
                _ => Compared::Agrees,
            },
        }
    }

    /// Whether this is known to be the digest at an offset.
    pub(super) fn has(&self, offset: Offset, digest: &Digest) -> bool {
        self.digest.is_some() && self.at(offset) == Some(*digest)
    }

    fn at(&self, offset: Offset) -> Option<Digest> {
        let index = usize::try_from(offset.get().checked_sub(self.first)?).ok()?;
        self.hashes.get(index).copied().map(Digest::from_bytes)
    }

    fn adopt(&mut self, offset: Offset, theirs: &Digest) {
        // The digest at `first - 1` is usable like one in the window: all hashes after it are kept.
        let Some(known) = (offset.get() + 1).checked_sub(self.first) else {
            return;
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(self.hashes.len());
        let mut digest = *theirs;
        let mut digests = VecDeque::with_capacity(self.hashes.len() - known + 1);
        let mut first = self.first + known as u64;
        for (hash, at) in self.hashes.iter().skip(known).zip(first..) {
            if *hash != PASSED {
                digest = digest.next_hashed(Offset::new(at), hash);
            }
            digests.push_back(*digest.as_bytes());
        }
        if known > 0 {
            digests.push_front(*theirs.as_bytes());
            first -= 1;
        }
        *self = Self {
            first,
            unsaved: digests.len(),
            hashes: digests,
            digest: Some(digest),
            rewrite: true,
        };
    }

    pub(super) fn load(
        sql: &Connection,
        channel_no: i64,
        cursor: Offset,
        digest: Option<Digest>,
    ) -> Result<Self, EngineError> {
        let mut window = Self::empty(cursor, digest);
        window.rewrite = false;
        let mut statement = sql.prepare_cached("SELECT first, hashes FROM digest WHERE channel = ?1 ORDER BY last")?;
        let mut rows = statement.query([channel_no])?;
        let mut next = None;
        while let Some(row) = rows.next()? {
            let (first, bytes): (u64, Vec<u8>) = (unsigned(row.get(0)?)?, row.get(1)?);
            let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
            if !rest.is_empty() || next.is_some_and(|next| next != first) {
                return Err(VaultError::damaged("digests").into());
            }
            if next.is_none() {
                window.first = first;
            }
            next = Some(first + hashes.len() as u64);
            window.hashes.extend(hashes);
        }
        if next.is_some_and(|next| next != cursor.next().get()) {
            return Err(VaultError::damaged("digests end elsewhere than the cursor").into());
        }
        let excess = window.hashes.len().saturating_sub(OFFSETS_MAX);
        window.hashes.drain(..excess);
        window.first += excess as u64;
        Ok(window)
    }

    pub(super) fn save(&mut self, sql: &Connection, channel_no: i64) -> Result<(), EngineError> {
        if self.rewrite {
            sql.prepare_cached("DELETE FROM digest WHERE channel = ?1")?
                .execute([channel_no])?;
            self.unsaved = self.hashes.len();
            self.rewrite = false;
        }
        if self.unsaved == 0 {
            return Ok(());
        }
        let skipped = self.hashes.len() - self.unsaved;
        let mut bytes = Vec::with_capacity(self.unsaved * HASH_BYTES);
        self.hashes
            .iter()
            .skip(skipped)
            .for_each(|hash| bytes.extend_from_slice(hash));
        let first = self.first + skipped as u64;
        let last = self.first + self.hashes.len() as u64 - 1;
        sql.prepare_cached("INSERT INTO digest (channel, last, first, hashes) VALUES (?1, ?2, ?3, ?4)")?
            .execute((channel_no, integer(last)?, integer(first)?, bytes))?;
        sql.prepare_cached("DELETE FROM digest WHERE channel = ?1 AND last < ?2")?
            .execute((channel_no, integer(self.first)?))?;
        self.unsaved = 0;
        Ok(())
    }
}

/// Finds the offset where a log has other entries than an agent was shown. It is fed the log's entries from
/// [`Fork::after`] on.
#[derive(Debug, Clone)]
pub struct Fork {
    first: u64,
    hashes: Vec<Hash>,
    /// The digest at `same`, if the channel's digests are known.
    digest: Option<Digest>,
    same: Offset,
    differs: bool,
    denied: bool,
}

impl Fork {
    /// Returns where to read on. Up to there the log is assumed to be the same.
    pub const fn after(&self) -> Offset {
        self.same
    }

    /// Whether the log has another entry after [`Fork::after`] than this agent was shown.
    pub const fn differs(&self) -> bool {
        self.differs
    }

    /// Records that this agent is not on the relay node's roster: it joined by an entry that is gone.
    pub const fn deny(&mut self) {
        self.denied = true;
    }

    /// Records that the relay node has no such log: none of it was kept.
    pub const fn gone(&mut self) {
        self.denied = true;
        self.same = Offset::ZERO;
    }

    /// See [`Fork::deny`].
    pub(super) const fn is_denied(&self) -> bool {
        self.denied
    }

    /// Whether more entries are needed.
    pub fn is_open(&self) -> bool {
        !self.differs && !self.denied && self.same.get() + 1 < self.first + self.hashes.len() as u64
    }

    /// Returns the last entry that this agent was shown and that the log, which ends at `head`, had kept. An entry
    /// after the one named by the operator may be equal because its author appended it again.
    pub(super) fn kept(&self, head: Offset, word: &RollbackWord) -> Offset {
        let kept = self.same.min(head);
        match self.differs || self.denied || kept < self.same || self.is_open() || self.hashes.is_empty() {
            true => kept.min(word.head),
            false => kept,
        }
    }

    /// Skips trimmed entries before `first`: they cannot be compared.
    pub fn skip_to(&mut self, first: Offset) {
        let base = first.previous();
        if base <= self.same || base.get() >= self.first + self.hashes.len() as u64 {
            return;
        }
        if self.digest.is_some() {
            self.digest = self.at(base).map(Digest::from_bytes);
        }
        self.same = base;
    }

    /// Compares the next entries of the log. Entries that do not follow [`Fork::after`] are skipped.
    pub fn feed(&mut self, records: &[Record]) {
        for record in records {
            if !self.is_open() {
                return;
            }
            if record.offset != self.same.next() {
                continue;
            }
            let is_trim = Frame::decode(record.payload.clone())
                .is_ok_and(|frame| matches!(frame.header().detail, Detail::Trim { .. }));
            let hash = Digest::hash_frame(&record.payload);
            let now = match (self.digest, is_trim) {
                (Some(digest), true) => *digest.as_bytes(),
                (Some(digest), false) => *digest.next_hashed(record.offset, &hash).as_bytes(),
                (None, true) => PASSED,
                (None, false) => hash,
            };
            if self.at(record.offset) != Some(now) {
                self.differs = true;
                return;
            }
            self.digest = self.digest.map(|_| Digest::from_bytes(now));
            self.same = record.offset;
        }
    }

    fn at(&self, offset: Offset) -> Option<Hash> {
        let index = usize::try_from(offset.get().checked_sub(self.first)?).ok()?;
        self.hashes.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::ChannelId;

    fn log() -> LogId {
        ChannelId::from_bytes([1; 16]).log()
    }

    fn run(window: &mut Window, offsets: std::ops::RangeInclusive<u64>) {
        for offset in offsets {
            window.push(Offset::new(offset), &offset.to_le_bytes());
        }
    }

    #[test]
    fn a_joined_member_comes_to_the_digest_of_those_who_were_there() {
        for told in 5..=9 {
            let (mut member, mut joined) = (Window::genesis(&log()), Window::joined(Offset::new(5)));
            run(&mut member, 1..=9);
            run(&mut joined, 6..=9);
            let theirs = match told {
                5 => {
                    let mut early = Window::genesis(&log());
                    run(&mut early, 1..=5);
                    early.digest()
                }
                _ => member.at(Offset::new(told)),
            };
            let theirs = theirs.expect("known");
            assert_eq!(joined.digest(), None);
            assert_eq!(joined.compare(Offset::new(told), &theirs), Compared::Agrees);
            assert_eq!(joined.digest(), member.digest(), "told at {told}");
            run(&mut member, 10..=10);
            run(&mut joined, 10..=10);
            assert_eq!(joined.digest(), member.digest());
        }
    }

    #[test]
    fn a_member_told_right_after_it_joined_takes_the_digest_at_its_cursor() {
        let (mut member, mut joined) = (Window::genesis(&log()), Window::joined(Offset::new(5)));
        run(&mut member, 1..=5);
        let theirs = member.digest().expect("known");
        assert_eq!(joined.compare(Offset::new(5), &theirs), Compared::Agrees);
        assert_eq!(joined.digest(), Some(theirs));
    }

    #[test]
    fn another_digest_and_an_offset_not_seen_are_told_apart_from_an_old_one() {
        let mut window = Window::genesis(&log());
        run(&mut window, 1..=5_000);
        let other = Digest::from_bytes([7; 32]);
        assert!(matches!(
            window.compare(Offset::new(4_999), &other),
            Compared::Differs { ours: Some(_) }
        ));
        assert_eq!(
            window.compare(Offset::new(5_001), &other),
            Compared::Differs { ours: None }
        );
        assert_eq!(window.compare(Offset::new(3), &other), Compared::Agrees);
    }
}
