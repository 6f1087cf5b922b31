//! Usage of this node by each account: bytes that may still be stored, and channels made within a day.
//!
//! Counted by the hour. An hour's bytes count until the store says that it keeps nothing from then ([`LogStore::given_up_ms`]), so
//! retention by age and by size both make room. Frames that the log refused, and those that it had already, count where the store
//! keeps them ([`LogStore::keeps_refused`]).
//!
//! The counters are a node's own: it counts the bytes from its sessions, and in a fleet each node counts for itself.
//! They are written to a file from time to time and when the node stops; after a crash the last half a minute is not
//! counted, and without the file everything begins at 0. They say how much an account may add, never what an entry is.
//!
//! [`LogStore::given_up_ms`]: skytale_log_store::LogStore::given_up_ms
//! [`LogStore::keeps_refused`]: skytale_log_store::LogStore::keeps_refused

use crate::rate::welcomes_of;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skytale_proto::session::Refusal;
use skytale_proto::{AccountId, Code, Detail, Header};
use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::warn;

const FILE: &str = "usage";
const VERSION: u32 = 1;
const HOUR_MS: u64 = 3_600_000;
const DAY_HOURS: u64 = 24;
/// Hours that are kept apart for one account; older ones are counted together, as long as the newest of them.
const HOURS_MAX: usize = 1_024;
/// A Welcome with its record and its place in the index, about, in bytes.
const WELCOME_BYTES: u64 = 512;
/// Time after which an agent offers a frame again if its account has as many bytes stored as it may.
const STORED_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Hours by which clocks of a store and its node may differ.
const SLACK_HOURS: u64 = 1;

/// Usage of all accounts.
#[derive(Debug)]
pub(crate) struct Usage {
    accounts: Mutex<Counted>,
    file: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Counted {
    by_id: HashMap<AccountId, Hours>,
    /// It differs from the file.
    changed: bool,
}

/// One account's, by hours since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Hours {
    hours: BTreeMap<u64, Caused>,
    /// All of their bytes.
    #[serde(skip)]
    bytes: u64,
}

/// Usage by one request, or by an hour's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Caused {
    pub(crate) bytes: u64,
    pub(crate) channels: u32,
}

/// Quotas of an account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quotas {
    /// Stored at once.
    pub(crate) bytes: u64,
    /// Made within a day.
    pub(crate) channels: u32,
}

/// Quota that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    Bytes,
    Channels,
}

/// Charge for a request, to be taken back if it caused nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    account: AccountId,
    hour: u64,
    caused: Caused,
    /// The frame's own bytes.
    frame_bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    accounts: HashMap<AccountId, Hours>,
}

/// Returns the usage by a frame of so many bytes: itself, its Welcomes, and its channel if it makes one.
pub(crate) fn caused_by(header: &Header, bytes: usize) -> Caused {
    let welcomes = welcomes_of(header) as u64;
    Caused {
        bytes: bytes as u64 + welcomes * WELCOME_BYTES,
        channels: u32::from(matches!(header.detail, Detail::Create { .. })),
    }
}

impl Charge {
    /// The charge for a frame of so many bytes.
    pub(crate) const fn of_frame(self, bytes: usize) -> Self {
        Self {
            frame_bytes: bytes as u64,
            ..self
        }
    }
}

impl Exceeded {
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Bytes => {
                let why = "the account has as many bytes stored at this relay node as it may have";
                Refusal::because(Code::AccountStored, why).after(STORED_RETRY_AFTER)
            }
            Self::Channels => {
                let why = "the account has made as many channels at this relay node as it may in a day";
                Refusal::because(Code::AccountChannels, why)
            }
        }
    }
}

impl Usage {
    /// Opens the usage in a data folder. Parts that cannot be read begin at 0.
    pub(crate) fn open(folder: Option<&Path>) -> Self {
        let file = folder.map(|folder| folder.join(FILE));
        let by_id = match file.as_deref().map(read) {
            Some(Ok(by_id)) => by_id,
            Some(Err(error)) => {
                warn!(%error, "what accounts have stored cannot be read, and is counted from 0");
                HashMap::new()
            }
            None => HashMap::new(),
        };
        Self {
            accounts: Mutex::new(Counted { by_id, changed: false }),
            file,
        }
    }

    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self::open(None)
    }

    /// Counts what a request is about to cause, if the account may.
    pub(crate) fn take(
        &self,
        account: AccountId,
        caused: Caused,
        quotas: Quotas,
        now_ms: u64,
    ) -> Result<Charge, Exceeded> {
        let hour = now_ms / HOUR_MS;
        let mut counted = self.accounts.lock();
        let hours = counted.by_id.entry(account).or_default();
        if hours.bytes.saturating_add(caused.bytes) > quotas.bytes {
            return Err(Exceeded::Bytes);
        }
        if caused.channels > 0 && hours.channels_of_a_day(hour) + caused.channels > quotas.channels {
            return Err(Exceeded::Channels);
        }
        hours.add(hour, caused);
        counted.changed = true;
        Ok(Charge {
            account,
            hour,
            caused,
            frame_bytes: 0,
        })
    }

    /// A request caused nothing after all.
    pub(crate) fn take_back(&self, charge: Charge) {
        let mut counted = self.accounts.lock();
        if let Some(hours) = counted.by_id.get_mut(&charge.account) {
            hours.take_back(charge.hour, charge.caused);
            counted.changed = true;
        }
    }

    /// The log refused a frame, or had it already: it caused nothing, except for its own bytes where the store keeps them.
    pub(crate) fn refused(&self, charge: Charge, is_kept: bool) {
        let kept = if is_kept { charge.frame_bytes } else { 0 };
        let caused = Caused {
            bytes: charge.caused.bytes.saturating_sub(kept),
            ..charge.caused
        };
        self.take_back(Charge { caused, ..charge });
    }

    /// Forgets bytes that are no longer stored, and writes the rest down. Blocks.
    pub(crate) fn tidy(&self, given_up_ms: u64, now_ms: u64) {
        let before = (given_up_ms / HOUR_MS).saturating_sub(SLACK_HOURS);
        let day = (now_ms / HOUR_MS).saturating_sub(DAY_HOURS);
        let (file, accounts) = {
            let mut counted = self.accounts.lock();
            counted.by_id.retain(|_, hours| {
                hours.forget(before, day);
                !hours.hours.is_empty()
            });
            let Some(file) = self.file.as_deref().filter(|_| counted.changed) else {
                return;
            };
            counted.changed = false;
            (file, counted.by_id.clone())
        };
        let version = VERSION;
        if let Err(error) = write(file, &File { version, accounts }) {
            warn!(%error, file = %file.display(), "what accounts have stored cannot be written down");
            self.accounts.lock().changed = true;
        }
    }

    /// Returns the bytes counted for an account.
    #[cfg(test)]
    fn bytes(&self, account: AccountId) -> u64 {
        self.accounts.lock().by_id.get(&account).map_or(0, |hours| hours.bytes)
    }
}

impl Hours {
    fn add(&mut self, hour: u64, caused: Caused) {
        let of = self.hours.entry(hour).or_default();
        of.bytes += caused.bytes;
        of.channels = of.channels.saturating_add(caused.channels);
        self.bytes += caused.bytes;
        if self.hours.len() > HOURS_MAX
            && let Some((_, oldest)) = self.hours.pop_first()
            && let Some(mut next) = self.hours.first_entry()
        {
            next.get_mut().bytes += oldest.bytes;
        }
    }

    fn take_back(&mut self, hour: u64, caused: Caused) {
        let Some(of) = self.hours.get_mut(&hour) else { return };
        let bytes = caused.bytes.min(of.bytes);
        of.bytes -= bytes;
        of.channels = of.channels.saturating_sub(caused.channels);
        self.bytes -= bytes;
    }

    fn channels_of_a_day(&self, now: u64) -> u32 {
        let day = self.hours.range(now.saturating_sub(DAY_HOURS) + 1..);
        day.fold(0, |sum, (_, caused)| sum.saturating_add(caused.channels))
    }

    /// Forgets bytes from before an hour, which are no longer stored, and channels from before a day, which do not
    /// count as made.
    fn forget(&mut self, before: u64, day: u64) {
        for (_, caused) in self.hours.range_mut(..before) {
            self.bytes -= caused.bytes;
            caused.bytes = 0;
        }
        let is_over = |hour: u64, caused: &Caused| caused.bytes == 0 && (caused.channels == 0 || hour < day);
        self.hours.retain(|hour, caused| !is_over(*hour, caused));
    }
}

fn read(path: &Path) -> io::Result<HashMap<AccountId, Hours>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error),
    };
    let mut file: File = serde_json::from_slice(&bytes)?;
    if file.version != VERSION {
        let problem = format!("{} is of version {}, not {VERSION}", path.display(), file.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    for hours in file.accounts.values_mut() {
        hours.bytes = hours
            .hours
            .values()
            .fold(0, |sum, caused| sum.saturating_add(caused.bytes));
    }
    Ok(file.accounts)
}

/// Puts it in the place of the last one: it is there whole or not at all.
fn write(path: &Path, file: &File) -> io::Result<()> {
    let json = serde_json::to_vec(file)?;
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&json)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTAS: Quotas = Quotas {
        bytes: 1_000,
        channels: 2,
    };
    const NOW: u64 = 500_000 * HOUR_MS;

    fn bytes(bytes: u64) -> Caused {
        Caused { bytes, channels: 0 }
    }

    fn channel() -> Caused {
        Caused { bytes: 1, channels: 1 }
    }

    #[test]
    fn bytes_count_until_the_store_keeps_them_no_more() {
        let (usage, account) = (Usage::in_memory(), AccountId::generate());
        usage.take(account, bytes(600), QUOTAS, NOW).expect("room");
        let later = NOW + 5 * HOUR_MS;
        usage.take(account, bytes(400), QUOTAS, later).expect("room");
        let over = usage.take(account, bytes(1), QUOTAS, later).expect_err("none left");
        assert_eq!(over, Exceeded::Bytes);
        let other = AccountId::generate();
        usage.take(other, bytes(1_000), QUOTAS, later).expect("its own");
        usage.tidy(NOW + 1, later);
        assert_eq!(usage.bytes(account), 1_000, "not all of that hour is given up");
        usage.tidy(NOW + 3 * HOUR_MS, later);
        assert_eq!(usage.bytes(account), 400);
        usage.take(account, bytes(600), QUOTAS, later).expect("room again");
    }

    #[test]
    fn what_caused_nothing_is_taken_back() {
        let (usage, account) = (Usage::in_memory(), AccountId::generate());
        let charge = usage.take(account, bytes(1_000), QUOTAS, NOW).expect("room");
        usage.take_back(charge);
        for _ in 0..5 {
            usage.take_back(usage.take(account, channel(), QUOTAS, NOW).expect("room"));
        }
        assert_eq!(usage.bytes(account), 0);
        usage.tidy(0, NOW);
        assert!(usage.accounts.lock().by_id.is_empty());
    }

    #[test]
    fn a_refused_frame_counts_where_the_store_keeps_it() {
        let (usage, account) = (Usage::in_memory(), AccountId::generate());
        let caused = Caused {
            bytes: 900,
            channels: 1,
        };
        let charge = || usage.take(account, caused, QUOTAS, NOW).expect("room").of_frame(400);
        usage.refused(charge(), false);
        assert_eq!(usage.bytes(account), 0);
        for refused in [400, 800] {
            let caused = Caused {
                bytes: 500,
                channels: 1,
            };
            let charge = usage.take(account, caused, Quotas { bytes: 2_000, ..QUOTAS }, NOW);
            usage.refused(charge.expect("no channel was made").of_frame(400), true);
            assert_eq!(usage.bytes(account), refused);
        }
        assert_eq!(
            usage.take(account, bytes(201), QUOTAS, NOW).err(),
            Some(Exceeded::Bytes)
        );
    }

    #[test]
    fn channels_count_for_a_day() {
        let (usage, account) = (Usage::in_memory(), AccountId::generate());
        for _ in 0..2 {
            usage.take(account, channel(), QUOTAS, NOW).expect("room");
        }
        let day = NOW + 23 * HOUR_MS;
        let over = usage.take(account, channel(), QUOTAS, day).expect_err("none left");
        assert_eq!(over, Exceeded::Channels);
        usage.tidy(0, day);
        assert!(
            usage.take(account, channel(), QUOTAS, day).is_err(),
            "tidying makes no room"
        );
        usage.take(account, bytes(1), QUOTAS, day).expect("messages go on");
        usage
            .take(account, channel(), QUOTAS, NOW + 24 * HOUR_MS)
            .expect("another day");
    }

    #[test]
    fn hours_kept_apart_have_a_bound() {
        let (usage, account) = (Usage::in_memory(), AccountId::generate());
        let quotas = Quotas {
            bytes: u64::MAX,
            ..QUOTAS
        };
        for hour in 0..2 * HOURS_MAX as u64 {
            usage
                .take(account, bytes(1), quotas, NOW + hour * HOUR_MS)
                .expect("room");
        }
        assert_eq!(usage.accounts.lock().by_id[&account].hours.len(), HOURS_MAX);
        assert_eq!(usage.bytes(account), 2 * HOURS_MAX as u64);
    }

    #[test]
    fn a_restart_forgets_nothing_that_was_written_down() {
        let folder = tempfile::tempdir().expect("a folder");
        let account = AccountId::generate();
        let usage = Usage::open(Some(folder.path()));
        usage.take(account, bytes(700), QUOTAS, NOW).expect("room");
        usage.take(account, channel(), QUOTAS, NOW).expect("room");
        usage.tidy(0, NOW);
        let again = Usage::open(Some(folder.path()));
        assert_eq!(again.bytes(account), 701);
        assert_eq!(
            again.take(account, bytes(300), QUOTAS, NOW).err(),
            Some(Exceeded::Bytes)
        );
        // One that is damaged stops nobody.
        std::fs::write(folder.path().join(FILE), b"{").expect("written");
        assert_eq!(Usage::open(Some(folder.path())).bytes(account), 0);
    }
}
