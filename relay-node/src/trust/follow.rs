//! Keeping up with the API: keys, revocations, and this node's place in the relay directory.

use crate::node::Shared;
use crate::session::Ending;
use crate::trust::api::ApiError;
use crate::trust::{Api, Barred};
use skytale_proto::Code;
use skytale_proto::rest::Relay;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// Pages of revocations read at one go.
const PAGES_MAX: usize = 1_000;
/// Interval between checks whether the node may still serve.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Ending of sessions when it may not.
const UNSERVED: Ending = Ending::new(
    Code::TrustStale,
    "this relay node has been without the API for longer than it serves so",
);

/// Fetches the keys again and again, and early for tokens that name one that is not known.
pub(crate) async fn follow_keys(node: Arc<Shared>, api: Arc<Api>) {
    let trust = &node.config.trust;
    let mut failing = Failing::new("keys");
    loop {
        let fetched = node.trust.fetch_keys(&api).await;
        failing.note(fetched.as_ref().err());
        // Without keys nothing starts: after a failure the next try does not wait a whole turn.
        let wait_ms = match fetched {
            Ok(is_new) => {
                node.trust.keep(is_new).await;
                trust.keys_every_ms
            }
            Err(_) => trust.keys_refetch_after_ms.min(trust.keys_every_ms),
        };
        node.trust
            .keys_due(Instant::now() + Duration::from_millis(wait_ms))
            .await;
    }
}

/// Asks for revocations again and again, and ends the sessions of keys that were revoked.
pub(crate) async fn follow_revocations(node: Arc<Shared>, api: Arc<Api>) {
    let mut failing = Failing::new("revocations");
    let mut after = Cursor::default();
    loop {
        let asked = Instant::now();
        let followed = revocations(&node, &api, &mut after).await;
        heard(&node, About::Revocations, asked, followed.as_ref().map(|_| ()));
        match &followed {
            Ok(is_new) => node.trust.keep(*is_new).await,
            Err(error) if !error.is_retryable() => node.trust.denied(),
            Err(_) => {}
        }
        failing.note(followed.as_ref().err());
        sleep(Duration::from_millis(node.config.trust.revocations_every_ms)).await;
    }
}

/// Subject of a request to the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Revocations.
    Revocations,
    /// To keep this node in the relay directory.
    Heartbeat,
}

/// The API answered a question of the time `asked` that showed this node's key: it lets the node serve, or it does not, and
/// then every session ends.
pub(crate) fn heard(node: &Shared, about: About, asked: Instant, answered: Result<(), &ApiError>) {
    let before = node.trust.barred();
    node.trust.heard(about, asked, answered);
    match node.trust.barred() {
        now if now == before => {}
        Some(barred) => {
            warn!(sessions = node.sessions.len(), "{}", barred.detail());
            if barred == Barred::Revoked {
                // Restarted while the API is away, it would serve again.
                node.trust.forget_kept();
            }
            node.sessions.end_all(&barred.ending());
        }
        None => info!("the API lets this node serve again"),
    }
}

/// Ends the sessions when the node has been without the API for longer than it may serve so.
pub(crate) async fn end_unserved(node: Arc<Shared>) {
    let mut was_served = true;
    loop {
        let problem = node.trust.unserved();
        if let Some(problem) = &problem {
            if was_served && node.sessions.len() > 0 {
                warn!(%problem, sessions = node.sessions.len(), "nobody is served until the API answers");
            }
            // Again each time: one may have begun in the moment before.
            node.sessions.end_all(&UNSERVED);
        }
        was_served = problem.is_none();
        sleep(LOOK_EVERY).await;
    }
}

/// Asks for revocations up to now; whether anything new was.
async fn revocations(node: &Shared, api: &Api, after: &mut Cursor) -> Result<bool, ApiError> {
    let mut is_new = false;
    for _ in 0..PAGES_MAX {
        let page = api.revocations(after.keys, after.agents).await?;
        let new = node.trust.revoke(&page);
        if !new.is_empty() {
            info!(keys = new.keys.len(), agents = new.agents.len(), "revoked by the API");
            node.sessions.end_revoked(&new);
            is_new = true;
        }
        let next = Cursor {
            keys: follow_from(after.keys, page.next, page.start_over),
            agents: follow_from(after.agents, page.agents_next, page.agents_start_over),
        };
        let moved = next != *after;
        *after = next;
        if (page.revocations.is_empty() && page.agents.is_empty()) || !moved {
            node.trust.revocations_heard();
            break;
        }
    }
    Ok(is_new)
}

/// Returns the number from which to ask on. A number goes back only if the API says that its feed starts over.
const fn follow_from(after: u64, next: u64, start_over: bool) -> u64 {
    if start_over || next > after { next } else { after }
}

/// Progress in the feeds of revoked keys and of ended agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    keys: u64,
    agents: u64,
}

/// Tells the relay directory where this node is, again and again.
pub(crate) async fn register(node: Arc<Shared>, api: Arc<Api>, relay: Relay) {
    let mut failing = Failing::new("registration");
    loop {
        failing.note(api.register(&relay).await.as_ref().err());
        sleep(Duration::from_millis(node.config.trust.register_every_ms)).await;
    }
}

/// Says once that something began to fail, and once that it works again.
struct Failing {
    what: &'static str,
    failing: bool,
}

impl Failing {
    const fn new(what: &'static str) -> Self {
        Self { what, failing: false }
    }

    /// Notes how it went.
    fn note(&mut self, error: Option<&ApiError>) {
        match error {
            Some(error) if !self.failing => warn!(what = self.what, %error, "the API cannot be followed"),
            Some(_) => {}
            None if self.failing => info!(what = self.what, "the API is followed again"),
            None => {}
        }
        self.failing = error.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_back_only_where_the_feed_begins_anew() {
        assert_eq!(follow_from(3, 5, false), 5);
        assert_eq!(follow_from(5, 3, false), 5);
        assert_eq!(follow_from(5, 3, true), 3);
    }
}
