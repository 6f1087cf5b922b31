//! A connection, from its first byte to its last.
//!
//! [`connection`] admits it and ends it, [`control`] drives the control stream by the rule of [`state`], and the other
//! streams are served by [`append`], [`subscribe`], [`watch`] and [`key_packages`].

mod append;
mod connection;
mod control;
mod end;
mod hello;
mod key_packages;
mod line;
mod registry;
mod state;
mod status;
mod streams;
mod subscribe;
mod watch;

pub(crate) use connection::{serve, turn_away};
pub(crate) use end::Ending;
pub(crate) use registry::Sessions;
pub(crate) use state::of_endpoint;

use crate::accounts::Account;
use crate::endpoint;
use crate::node::Shared;
use crate::rate::{Cost, Over};
use crate::usage::{self, Charge, Exceeded};
use parking_lot::RwLock;
use skytale_proto::session::Refusal;
use skytale_proto::token::Claims;
use skytale_proto::{AgentId, Detail, Header};
use skytale_workload::tap::Fact;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Batches that wait to be sent have this part of what may be on its way.
const BATCHES_OF_SENT: u64 = 4;
/// A batch, at least, however many are sent at once, in bytes.
const BATCH_BYTES_MIN: usize = 16 * 1024;

/// State shared by the streams of one session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) node: Arc<Shared>,
    /// The agent: the same for the session's whole life.
    pub(crate) agent: AgentId,
    /// The agent's account: the same for the session's whole life.
    pub(crate) account: Arc<Account>,
    claims: RwLock<Arc<Claims>>,
    pub(crate) end: Arc<end::EndSignal>,
    /// Bytes of requests that may be in flight.
    pub(crate) in_flight: Arc<Semaphore>,
    subscriptions: AtomicUsize,
    /// Whether there is a watch stream.
    watching: AtomicBool,
    /// The agent was asked to go elsewhere.
    going: AtomicBool,
    /// Streams open beside the control stream.
    streams: Arc<AtomicUsize>,
}

impl Session {
    fn new(node: Arc<Shared>, claims: Claims) -> Self {
        let in_flight = node.config.limits.append_in_flight_bytes_max;
        Self {
            agent: claims.sub,
            account: node.accounts.of(claims.acct),
            claims: RwLock::new(Arc::new(claims)),
            end: Arc::default(),
            in_flight: Arc::new(Semaphore::new(in_flight)),
            subscriptions: AtomicUsize::new(0),
            watching: AtomicBool::new(false),
            going: AtomicBool::new(false),
            streams: Arc::default(),
            node,
        }
    }

    /// The claims of the token in force.
    pub(crate) fn claims(&self) -> Arc<Claims> {
        self.claims.read().clone()
    }

    fn refresh(&self, claims: Claims) {
        *self.claims.write() = Arc::new(claims);
    }

    /// Takes a frame of so many bytes from the rates of the agent and its account, and counts its usage.
    fn charge(&self, header: &Header, cost: Cost) -> Result<Charge, Refusal> {
        let taken = self.node.rates.take(&self.agent, &self.account.id, cost);
        let charged = taken.map_err(Over::refusal).and_then(|()| {
            self.count(header, cost.bytes).inspect_err(|_| {
                if matches!(header.detail, Detail::Commit { .. }) {
                    self.node
                        .rates
                        .commit_refused(&self.agent, &self.account.id, &header.log);
                }
            })
        });
        charged.inspect_err(|refusal| self.node.limited.note(refusal.known_code()))
    }

    fn count(&self, header: &Header, bytes: usize) -> Result<Charge, Refusal> {
        let node = &self.node;
        let caused = usage::caused_by(header, bytes);
        let now_ms = node.clock.now().unix_ms;
        node.accounts
            .usage
            .take(self.account.id, caused, node.quotas, now_ms)
            .map(|charge| charge.of_frame(bytes))
            .map_err(Exceeded::refusal)
    }

    /// Records a fact of now about the agent, where there is a tap.
    fn tap(&self, fact: impl FnOnce(AgentId) -> Fact) {
        if let Some(tap) = &self.node.tap {
            tap.put_now(fact(self.agent));
        }
    }

    /// Records a fact of a moment ago about the agent, where there is a tap.
    fn tap_at(&self, at: Instant, fact: impl FnOnce(AgentId) -> Fact) {
        if let Some(tap) = &self.node.tap {
            tap.put_at(at, fact(self.agent));
        }
    }

    /// Records a refusal of something that the agent asked for, where there is a tap.
    fn tap_refusal(&self, refusal: &Refusal) {
        if let Some(tap) = &self.node.tap {
            tap.refused(self.agent, refusal.known_code());
        }
    }

    /// Whether the agent was asked to go elsewhere: nothing new is taken from it.
    fn is_going(&self) -> bool {
        self.going.load(Ordering::Relaxed)
    }

    /// Returns the maximum size of a subscription's next batch, in bytes.
    fn batch_bytes_max(&self) -> usize {
        let limits = &self.node.config.limits;
        let own = limits.replay_bytes_max / self.subscriptions.load(Ordering::Relaxed).max(1);
        let sending = self.node.sending.load(Ordering::Relaxed);
        let of_all = endpoint::share(limits.send_bytes_max / BATCHES_OF_SENT, sending);
        let of_all = usize::try_from(of_all).unwrap_or(usize::MAX).max(BATCH_BYTES_MIN);
        own.min(of_all).min(limits.batch_bytes_max)
    }
}

/// Counts one more, for as long as it is there.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
