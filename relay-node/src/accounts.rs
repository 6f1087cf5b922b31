//! State shared by one account's sessions on this node: room for requests, streams and watched channels, and the account's usage.

use crate::config::LimitsConfig;
use crate::pace::{Costs, Pace};
use crate::usage::Usage;
use parking_lot::Mutex;
use skytale_proto::AccountId;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// One account, for as long as it has sessions.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: AccountId,
    /// Bytes of requests that its sessions may have in flight, together.
    pub(crate) receive: Arc<Semaphore>,
    /// Streams that its sessions may have open, together, beside a few of each session.
    pub(crate) streams: Arc<Semaphore>,
    /// Channels that they may watch, together, beside some of each session.
    pub(crate) watched: Arc<Semaphore>,
    /// How fast its appends are read.
    pub(crate) pace: Pace,
}

/// All accounts that have sessions.
#[derive(Debug)]
pub(crate) struct Accounts {
    by_id: Mutex<HashMap<AccountId, Arc<Account>>>,
    receive_bytes_max: usize,
    streams_max: usize,
    watched_max: usize,
    costs: Costs,
    /// Usage of accounts. It outlives their sessions.
    pub(crate) usage: Usage,
}

impl Accounts {
    pub(crate) fn new(limits: &LimitsConfig, usage: Usage) -> Self {
        Self {
            by_id: Mutex::default(),
            receive_bytes_max: limits.account_receive_bytes_max(),
            streams_max: limits.account_streams_max(),
            watched_max: limits.account_watched_max(),
            costs: Costs::new(limits),
            usage,
        }
    }

    /// The account with an id.
    pub(crate) fn of(&self, id: AccountId) -> Arc<Account> {
        let mut by_id = self.by_id.lock();
        let account = by_id.entry(id).or_insert_with(|| {
            Arc::new(Account {
                id,
                receive: Arc::new(Semaphore::new(self.receive_bytes_max)),
                streams: Arc::new(Semaphore::new(self.streams_max)),
                watched: Arc::new(Semaphore::new(self.watched_max)),
                pace: Pace::new(self.costs),
            })
        });
        account.clone()
    }

    /// Forgets those that have no session, and nothing in flight.
    pub(crate) fn forget_idle(&self) {
        let max = self.receive_bytes_max;
        let is_idle =
            |account: &Arc<Account>| Arc::strong_count(account) == 1 && account.receive.available_permits() == max;
        self.by_id.lock().retain(|_, account| !is_idle(account));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_kept_while_a_session_has_it() {
        let limits = LimitsConfig {
            account_receive_bytes_max: Some(100),
            ..LimitsConfig::default()
        };
        let accounts = Accounts::new(&limits, Usage::in_memory());
        let (one, other) = (AccountId::generate(), AccountId::generate());
        let held = accounts.of(one);
        let in_flight = accounts.of(other).receive.clone().try_acquire_many_owned(10);
        accounts.forget_idle();
        assert!(Arc::ptr_eq(&held, &accounts.of(one)));
        assert_eq!(
            accounts.of(other).receive.available_permits(),
            90,
            "its room is not given twice"
        );
        drop((held, in_flight));
        accounts.forget_idle();
        assert!(accounts.by_id.lock().is_empty());
    }
}
