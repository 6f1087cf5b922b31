//! The agent's KeyPackages on offer: their age, and their replacement.
//!
//! A relay node hands out single-use packages in the order in which they were offered, so the oldest is at the head of
//! the queue. Packages cannot be withdrawn, but they can be claimed: the owner claims its own packages until the head
//! is fresh, and offers new ones at the end. Nobody else can get a package that its owner has claimed.

use super::clock::{CLOCKS_DIFFER_MAX, millis};
use super::transact::Tx;
use super::{Engine, EngineError};
use crate::mls::Life;
use crate::vault::{Durability, VaultError, integer, unsigned};
use rusqlite::{OptionalExtension, Row, params};
use skytale_proto::{FrameId, Offset};
use std::time::Duration;

/// KeyPackages with a shorter life than this are not replaced for their age: their owner would do little else.
const RENEWED_LIFE_MIN: Duration = Duration::from_secs(3_600);

/// The time by which packages are judged, and the lifetime of new ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shelf {
    pub(super) now_ms: u64,
    /// Time by this machine's clock only, so that no relay node can cause private keys to be deleted.
    pub(super) own_ms: u64,
    pub(super) lifetime_ms: u64,
}

/// The single-use packages on offer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OnOffer {
    /// Number of packages to be replaced.
    pub(super) due: u32,
    /// Whether the next package in the queue is one of them.
    pub(super) head_is_due: bool,
}

impl Shelf {
    /// Returns the lifetime of a package that is made now.
    pub(super) const fn life(self) -> Life {
        Life {
            made_s: self.now_ms / 1_000,
            expires_s: self.now_ms.saturating_add(self.lifetime_ms) / 1_000,
        }
    }

    /// Whether a package must be replaced: half of its life has passed, or it was made by a wrong clock.
    fn is_due(self, made_ms: u64, expires_ms: Option<u64>) -> bool {
        if self.lifetime_ms < millis(RENEWED_LIFE_MIN) {
            return false;
        }
        let expires_ms = expires_ms
            .unwrap_or(u64::MAX)
            .min(made_ms.saturating_add(self.lifetime_ms));
        let half_ms = made_ms.saturating_add(expires_ms.saturating_sub(made_ms) / 2);
        self.now_ms >= half_ms || made_ms > self.now_ms.saturating_add(millis(CLOCKS_DIFFER_MAX))
    }
}

impl Engine {
    /// Records a relay node's time, unix milliseconds. The later of its and this machine's clock determines the age of
    /// KeyPackages. Not stored.
    pub fn relay_time(&mut self, relay_ms: u64) {
        self.clocks.hear(relay_ms);
    }

    /// Whether the relay's next single-use KeyPackage must be replaced, given how many are left. If so, claim it
    /// ([`Engine::claim_frame`] of this agent itself), and check [`Engine::key_package_was_due`] whether to continue.
    pub fn key_package_is_due(&self, live: u32) -> Result<bool, EngineError> {
        let shelf = self.shelf();
        let (on_offer, _) = self.transact(Durability::Later, |tx| tx.on_offer(shelf, live))?;
        Ok(on_offer.head_is_due)
    }

    /// Whether a KeyPackage that this agent has claimed of itself was due for replacement. If not, others have claimed
    /// packages meanwhile, and the head of the queue is fresh. Its private keys stay, like those of any claimed
    /// package: a relay node's answer is no proof that no Welcome is in flight.
    pub fn key_package_was_due(&self, frame_id: FrameId) -> Result<bool, EngineError> {
        let shelf = self.shelf();
        let known = self
            .vault
            .sql()
            .prepare_cached("SELECT made_ms, expires_ms FROM key_package WHERE frame_id = ?1")?
            .query_row([frame_id.as_bytes()], |row| Ok(read(row)))
            .optional()?
            .transpose()?;
        Ok(known.is_none_or(|(made_ms, expires_ms)| shelf.is_due(made_ms, expires_ms)))
    }

    pub(super) fn shelf(&self) -> Shelf {
        Shelf {
            now_ms: self.clocks.now_ms(),
            own_ms: self.clocks.own_ms(),
            lifetime_ms: millis(self.config.key_package_lifetime),
        }
    }
}

impl Tx<'_> {
    /// Judges the `live` single-use packages that the relay has left: the ones offered last. If the vault knows fewer,
    /// the unknown ones are the oldest, and their private keys are gone.
    pub(super) fn on_offer(&self, shelf: Shelf, live: u32) -> Result<OnOffer, EngineError> {
        let packages: Vec<(u64, Option<u64>)> = self
            .sql
            .prepare_cached(
                "SELECT made_ms, expires_ms FROM key_package WHERE NOT last_resort AND frame IS NULL AND coalesce(at, 1) > 0
                 ORDER BY at DESC, frame_id DESC LIMIT ?1",
            )?
            .query_map([live], |row| Ok(read(row)))?
            .collect::<Result<Result<_, _>, _>>()??;
        let known = u32::try_from(packages.len()).unwrap_or(u32::MAX);
        let unknown = live.saturating_sub(known);
        let is_due = |(made_ms, expires_ms): &(u64, Option<u64>)| shelf.is_due(*made_ms, *expires_ms);
        let due = packages.iter().filter(|package| is_due(package)).count();
        Ok(OnOffer {
            due: unknown.saturating_add(u32::try_from(due).unwrap_or(u32::MAX)),
            head_is_due: unknown > 0 || packages.last().is_some_and(is_due),
        })
    }

    /// Whether the last resort on offer must be replaced.
    pub(super) fn last_resort_is_due(&self, shelf: Shelf) -> Result<bool, EngineError> {
        let newest = self
            .sql
            .prepare_cached(
                "SELECT made_ms, expires_ms FROM key_package WHERE last_resort AND frame IS NULL
                 ORDER BY at DESC, frame_id DESC LIMIT 1",
            )?
            .query_row([], |row| Ok(read(row)))
            .optional()?
            .transpose()?;
        Ok(newest.is_none_or(|(made_ms, expires_ms)| shelf.is_due(made_ms, expires_ms)))
    }

    /// Handles a KeyPackage in the agent's log. An unknown one was made by a lost vault, or by a later state of this
    /// one: nobody has its private keys, so it must be replaced.
    pub(super) fn key_package_in_log(
        &self,
        frame_id: FrameId,
        last_resort: bool,
        at: Offset,
        shelf: Shelf,
    ) -> Result<(), EngineError> {
        if self.key_package_offered(frame_id, at)? {
            return Ok(());
        }
        let now = integer(shelf.now_ms)?;
        self.sql
            .prepare_cached(
                "INSERT INTO key_package (frame_id, reference, made_ms, last_resort, expires_ms, at)
                 VALUES (?1, x'', ?2, ?3, ?2, ?4)",
            )?
            .execute(params![frame_id.as_bytes(), now, last_resort, integer(at.get())?])?;
        Ok(())
    }
}

fn read(row: &Row<'_>) -> Result<(u64, Option<u64>), VaultError> {
    Ok((
        unsigned(row.get(0)?)?,
        row.get::<_, Option<i64>>(1)?.map(unsigned).transpose()?,
    ))
}
