//! Rows in the order of their keys: in sled, or in memory while there is no room on the disk.

use parking_lot::RwLock;
use sled::IVec;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory of a row besides its key and value, about.
const ROW_BYTES: usize = 64;

/// Rows in the order of their keys.
pub(super) enum Table {
    Disk(sled::Tree),
    Memory(Memory),
}

/// Rows in memory.
pub(super) struct Memory {
    rows: RwLock<BTreeMap<IVec, IVec>>,
    /// Bytes that all tables of the index take.
    bytes: Arc<AtomicUsize>,
}

/// A row.
type Row = Result<(IVec, IVec), sled::Error>;

impl Table {
    /// An empty table in memory, whose bytes are counted there.
    pub(super) fn in_memory(bytes: &Arc<AtomicUsize>) -> Self {
        Self::Memory(Memory {
            rows: RwLock::default(),
            bytes: bytes.clone(),
        })
    }

    pub(super) fn insert(&self, key: impl AsRef<[u8]>, value: impl Into<IVec>) -> Result<(), sled::Error> {
        match self {
            Self::Disk(tree) => tree.insert(key, value).map(drop),
            Self::Memory(memory) => {
                let (key, value) = (IVec::from(key.as_ref()), value.into());
                memory
                    .bytes
                    .fetch_add(key.len() + value.len() + ROW_BYTES, Ordering::Relaxed);
                let key_bytes = key.len();
                if let Some(old) = memory.rows.write().insert(key, value) {
                    memory.freed(key_bytes + old.len());
                }
                Ok(())
            }
        }
    }

    pub(super) fn remove(&self, key: impl AsRef<[u8]>) -> Result<(), sled::Error> {
        match self {
            Self::Disk(tree) => tree.remove(key).map(drop),
            Self::Memory(memory) => {
                if let Some(old) = memory.rows.write().remove(key.as_ref()) {
                    memory.freed(key.as_ref().len() + old.len());
                }
                Ok(())
            }
        }
    }

    pub(super) fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<IVec>, sled::Error> {
        match self {
            Self::Disk(tree) => tree.get(key),
            Self::Memory(memory) => Ok(memory.rows.read().get(key.as_ref()).cloned()),
        }
    }

    /// The last row before a key.
    pub(super) fn get_lt(&self, key: impl AsRef<[u8]>) -> Result<Option<(IVec, IVec)>, sled::Error> {
        match self {
            Self::Disk(tree) => tree.get_lt(key),
            Self::Memory(memory) => {
                let below = (Bound::Unbounded, Bound::Excluded(key.as_ref()));
                let rows = memory.rows.read();
                let last = rows.range::<[u8], _>(below).next_back();
                Ok(last.map(|(key, value)| (key.clone(), value.clone())))
            }
        }
    }

    /// The rows from a key on, and before another.
    pub(super) fn range(&self, from: Vec<u8>, before: Option<Vec<u8>>) -> impl Iterator<Item = Row> + '_ {
        let mut next = Bound::Included(IVec::from(from.as_slice()));
        let mut disk = match self {
            Self::Disk(tree) => Some(match &before {
                Some(before) => tree.range(from..before.clone()),
                None => tree.range(from..),
            }),
            Self::Memory(_) => None,
        };
        std::iter::from_fn(move || match (self, &mut disk) {
            (Self::Memory(memory), _) => {
                let before = before.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let row = memory.first((next.as_ref().map(AsRef::as_ref), before))?;
                next = Bound::Excluded(row.0.clone());
                Some(Ok(row))
            }
            (Self::Disk(_), Some(rows)) => rows.next(),
            (Self::Disk(_), None) => None,
        })
    }

    /// All rows.
    pub(super) fn iter(&self) -> impl Iterator<Item = Row> + '_ {
        self.range(Vec::new(), None)
    }
}

impl Memory {
    fn first(&self, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Option<(IVec, IVec)> {
        if let (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(before)) = range
            && from >= before
        {
            return None;
        }
        let rows = self.rows.read();
        let (key, value) = rows.range::<[u8], _>(range).next()?;
        Some((key.clone(), value.clone()))
    }

    fn freed(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes + ROW_BYTES, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_table_in_memory_says_what_one_on_the_disk_says(
            changes in proptest::collection::vec((any::<bool>(), proptest::collection::vec(0..4u8, 1..4), any::<u8>()), 1..60),
            from in proptest::collection::vec(0..4u8, 0..4),
            before in proptest::option::of(proptest::collection::vec(0..4u8, 1..4)),
        ) {
            let db = sled::Config::new().temporary(true).open()?;
            let bytes = Arc::default();
            let (disk, memory) = (Table::Disk(db.open_tree("rows")?), Table::in_memory(&bytes));
            for (inserted, key, value) in changes {
                for table in [&disk, &memory] {
                    if inserted {
                        table.insert(&key, vec![value; usize::from(value)])?;
                    } else {
                        table.remove(&key)?;
                    }
                }
                prop_assert_eq!(disk.get(&key)?, memory.get(&key)?);
                prop_assert_eq!(disk.get_lt(&key)?, memory.get_lt(&key)?);
            }
            let before = before.filter(|before| *before >= from);
            let rows = |table: &Table| table.range(from.clone(), before.clone()).collect::<Result<Vec<_>, _>>();
            prop_assert_eq!(rows(&disk)?, rows(&memory)?);
            let all = memory.iter().collect::<Result<Vec<_>, _>>()?;
            let expected: usize = all.iter().map(|(key, value)| key.len() + value.len() + ROW_BYTES).sum();
            prop_assert_eq!(bytes.load(Ordering::Relaxed), expected);
        }
    }
}
