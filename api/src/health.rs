//! Whether the database can do its work, looked at by a write.
//!
//! A database that answers may still take no writes: a standby after a failover, a full disk, a file system that went
//! read-only. So each process writes one number, every few seconds and when somebody asks for its readiness, and says in its
//! log when that begins to fail and when it works again.

use crate::metrics;
use crate::store::{Store, Trouble};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Interval between checks of the database, if nobody asks.
const EVERY: Duration = Duration::from_secs(5);
/// A look that is younger than this answers, too.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Maximum time for a check.
const PATIENCE: Duration = Duration::from_secs(3);
/// A full disk may have room for the number and for nothing else: a request that found it full is remembered for so long.
const FULL_REMEMBERED: Duration = Duration::from_secs(10);

/// Result of the checks.
#[derive(Debug, Default)]
pub(crate) struct Health {
    looked: Mutex<Option<Looked>>,
    full: parking_lot::Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, Debug)]
struct Looked {
    at: Instant,
    trouble: Option<Trouble>,
}

impl Health {
    /// A request found this.
    pub(crate) fn met(&self, trouble: Trouble) {
        if trouble == Trouble::Full {
            *self.full.lock() = Some(Instant::now());
        }
    }

    /// The trouble with the database, as of a second ago at most.
    pub(crate) async fn trouble(&self, store: &Store) -> Option<Trouble> {
        let mut looked = self.looked.lock().await;
        if let Some(looked) = *looked
            && looked.at.elapsed() < AGE_MAX
        {
            return looked.trouble;
        }
        let before = looked.and_then(|looked| looked.trouble);
        let found = self.look(store).await;
        let trouble = found.as_ref().err().map(|(trouble, _)| *trouble);
        *looked = Some(Looked {
            at: Instant::now(),
            trouble,
        });
        metrics::ready(trouble.is_none());
        match found {
            Err((trouble, why)) if before != Some(trouble) => {
                tracing::error!(code = %trouble.code(), why, "{}", trouble.detail());
            }
            Ok(()) if before.is_some() => tracing::info!("the database takes writes again"),
            _ => {}
        }
        trouble
    }

    async fn look(&self, store: &Store) -> Result<(), (Trouble, String)> {
        let wrote = match tokio::time::timeout(PATIENCE, store.probe()).await {
            Ok(wrote) => wrote.map_err(|error| (error.trouble().unwrap_or(Trouble::Away), error.to_string())),
            Err(_) => match store.reach().await {
                Ok(()) => Err((Trouble::Busy, "no write in time".to_owned())),
                Err(error) => Err((Trouble::Away, error)),
            },
        };
        if let Err((Trouble::ReadOnly, _)) = &wrote {
            // The rights of a connection were settled when it began. The next ones check once more.
            store.renew_connections();
        }
        wrote?;
        let full = self.full.lock().is_some_and(|at| at.elapsed() < FULL_REMEMBERED);
        if full {
            return Err((Trouble::Full, "a request found the disk full a moment ago".to_owned()));
        }
        Ok(())
    }

    /// Looks again and again.
    pub(crate) async fn keep(&self, store: &Store, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                _ = self.trouble(store) => {}
            }
        }
    }
}
