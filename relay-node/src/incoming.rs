//! Memory for requests, from before their bodies are read until they are answered: a bound in bytes for all sessions
//! together, and one for those of an account.
//!
//! A request takes its length of its account's share and of the [`Room`] first, and QUIC holds back the bytes that are
//! not read. So an account that does not read its answers, or has whole requests waiting for their turn, fills its own
//! share. Where the room is taken and somebody waits, bodies that have begun and do not come to their end give way: of
//! the account that has most in such bodies, the one that began first. So whoever sends all of a request but its last
//! byte holds up nobody but itself.

use crate::accounts::Account;
use parking_lot::Mutex;
use skytale_proto::AccountId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Wait for room after which a body gives way.
const GIVE_WAY_AFTER: Duration = Duration::from_millis(250);

/// Bytes for requests, of the whole node.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: Arc<Semaphore>,
    bodies: Mutex<Bodies>,
}

/// A request's part of the room. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// Bodies that have begun and are not whole, by account and in the order in which they began.
#[derive(Debug, Default)]
struct Bodies {
    next: u64,
    of: HashMap<AccountId, Of>,
}

/// One account's.
#[derive(Debug, Default)]
struct Of {
    bytes: usize,
    begun: BTreeMap<u64, (usize, CancellationToken)>,
}

/// A body that has begun. Dropped when it is whole, or given up.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    room: &'a Room,
    account: AccountId,
    number: u64,
    gives_way: CancellationToken,
}

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(bytes)),
            bodies: Mutex::default(),
        }
    }

    /// Takes room for a request, waiting for it: of its account's, then of the node's.
    pub(crate) async fn take(&self, account: &Account, bytes: u32) -> Taken {
        let own = acquire(&account.receive, bytes, || self.bodies.lock().give_way_of(account.id)).await;
        let all = acquire(&self.bytes, bytes, || self.bodies.lock().give_way()).await;
        Taken { _own: own, _all: all }
    }

    /// A body begins whose room was taken.
    pub(crate) fn body(&self, account: AccountId, bytes: usize) -> Body<'_> {
        let gives_way = CancellationToken::new();
        Body {
            room: self,
            account,
            number: self.bodies.lock().begin(account, bytes, gives_way.clone()),
            gives_way,
        }
    }

    /// Bytes that are free.
    pub(crate) fn free(&self) -> usize {
        self.bytes.available_permits()
    }
}

impl Body<'_> {
    /// Resolves when this body is to be given up.
    pub(crate) async fn gives_way(&self) {
        self.gives_way.cancelled().await;
    }
}

impl Drop for Body<'_> {
    fn drop(&mut self) {
        self.room.bodies.lock().end(self.account, self.number);
    }
}

impl Bodies {
    fn begin(&mut self, account: AccountId, bytes: usize, gives_way: CancellationToken) -> u64 {
        self.next += 1;
        let of = self.of.entry(account).or_default();
        of.bytes += bytes;
        of.begun.insert(self.next, (bytes, gives_way));
        self.next
    }

    /// It is whole, or has given way: then it is not there any more.
    fn end(&mut self, account: AccountId, number: u64) {
        let Some(of) = self.of.get_mut(&account) else { return };
        if let Some((bytes, _)) = of.begun.remove(&number) {
            of.bytes -= bytes;
        }
        if of.begun.is_empty() {
            self.of.remove(&account);
        }
    }

    /// Lets a request of the account with most give way: the one that began first.
    fn give_way(&mut self) {
        let most = self.of.iter().max_by_key(|(_, of)| of.bytes);
        // Without one all of them are whole: the store has them.
        if let Some(account) = most.map(|(account, _)| *account) {
            self.give_way_of(account);
        }
    }

    /// Lets a request of an account give way: the one that began first.
    fn give_way_of(&mut self, account: AccountId) {
        let first = self.of.get(&account).and_then(|of| of.begun.first_key_value());
        let Some((number, gives_way)) = first.map(|(number, (_, gives_way))| (*number, gives_way)) else {
            return;
        };
        gives_way.cancel();
        self.end(account, number);
    }
}

/// Waits for room. While there is none, bodies give way.
#[allow(clippy::expect_used)]
async fn acquire(room: &Arc<Semaphore>, bytes: u32, give_way: impl Fn()) -> OwnedSemaphorePermit {
    if let Ok(permit) = room.clone().try_acquire_many_owned(bytes) {
        return permit;
    }
    let mut taken = Box::pin(room.clone().acquire_many_owned(bytes));
    loop {
        tokio::select! {
            biased;
            permit = &mut taken => return permit.expect("the semaphore is never closed"),
            () = sleep(GIVE_WAY_AFTER) => give_way(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Accounts;
    use crate::config::LimitsConfig;
    use crate::usage::Usage;

    fn accounts() -> [AccountId; 2] {
        [AccountId::generate(), AccountId::generate()]
    }

    /// An account with a share of so many bytes.
    fn account(id: AccountId, bytes: usize) -> Arc<Account> {
        let limits = LimitsConfig {
            account_receive_bytes_max: Some(bytes),
            ..LimitsConfig::default()
        };
        Accounts::new(&limits, Usage::in_memory()).of(id)
    }

    #[test]
    fn of_the_account_with_most_the_first_gives_way() {
        let (room, [busy, quiet]) = (Room::new(1_000), accounts());
        let earliest = room.body(quiet, 100);
        let bodies = [room.body(busy, 60), room.body(busy, 60)];
        let is_over = |body: &Body<'_>| body.gives_way.is_cancelled();
        room.bodies.lock().give_way();
        assert!(is_over(&bodies[0]) && !is_over(&bodies[1]) && !is_over(&earliest));
        room.bodies.lock().give_way();
        assert!(is_over(&earliest), "now the other account has most");
        drop(bodies);
        room.bodies.lock().give_way();
        drop(earliest);
        assert!(room.bodies.lock().of.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_room_of_bodies_that_do_not_end() {
        let (room, [busy, quiet]) = (Room::new(1_000), accounts());
        let (of_busy, of_quiet) = (account(busy, 1_000), account(quiet, 1_000));
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push((room.take(&of_busy, 100).await, room.body(busy, 100)));
        }
        let stalled = async {
            // Each one that gives way lets its room go.
            for (permit, body) in held {
                body.gives_way().await;
                drop((permit, body));
            }
        };
        let wants = room.take(&of_quiet, 350);
        tokio::pin!(stalled, wants);
        let taken = tokio::select! {
            taken = &mut wants => taken,
            () = &mut stalled => panic!("no more than are needed"),
        };
        assert_eq!(room.free(), 50);
        drop(taken);
        assert_eq!(room.free(), 400);
    }

    #[tokio::test(start_paused = true)]
    async fn whole_requests_keep_their_room() {
        let (room, [one, other]) = (Room::new(100), accounts().map(|id| account(id, 100)));
        let whole = room.take(&one, 100).await;
        let wants = room.take(&other, 1);
        tokio::pin!(wants);
        let waited = tokio::time::timeout(Duration::from_secs(60), &mut wants).await;
        assert!(waited.is_err(), "nothing to give way");
        drop(whole);
        drop(wants.await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_with_whole_requests_fills_its_own_share_alone() {
        let (room, [busy, quiet]) = (Room::new(1_000), accounts());
        let (of_busy, of_quiet) = (account(busy, 250), account(quiet, 250));
        let whole = room.take(&of_busy, 200).await;
        let stalled = (room.take(&of_busy, 50).await, room.body(busy, 50));
        let wants = room.take(&of_busy, 50);
        tokio::pin!(wants);
        assert!(tokio::time::timeout(GIVE_WAY_AFTER / 2, &mut wants).await.is_err());
        assert_eq!(room.free(), 750, "what it waits for is no other's");
        drop(room.take(&of_quiet, 250).await);
        // Its own that do not end give way to its own.
        let gives_way = async {
            stalled.1.gives_way().await;
            drop(stalled);
        };
        let (taken, ()) = tokio::join!(wants, gives_way);
        drop((taken, whole));
        assert_eq!(room.free(), 1_000);
    }
}
