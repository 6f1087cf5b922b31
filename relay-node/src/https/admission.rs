//! Admission of connections, and its end.
//!
//! A connection is let in with a token that holds and names the endpoint that the connection proves to be. It may outlive
//! the token for as long as the agent has a session here, which has shown later tokens; and it ends, as the session does,
//! when the API key behind its token is revoked.

use crate::metrics;
use crate::node::Shared;
use crate::session::of_endpoint;
use iroh::EndpointId;
use iroh_relay::server::clients::Clients;
use iroh_relay::server::{Access, AccessControl, ClientRequest, ConnectionId};
use parking_lot::Mutex;
use skytale_proto::Code;
use skytale_proto::session::Refusal;
use skytale_proto::token::Claims;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Interval between checks whether admitted connections may stay.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The agents' connections.
#[derive(Debug, Default)]
pub(super) struct Table {
    admitted: Mutex<HashMap<ConnectionId, (EndpointId, Claims)>>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.admitted.lock().len()
    }

    /// Lets one in, where its account has not as many others as it may have. The endpoint's own older one goes by itself.
    fn admit(
        &self,
        connection: ConnectionId,
        endpoint: EndpointId,
        claims: Claims,
        account_max: usize,
    ) -> Result<(), Refusal> {
        let mut admitted = self.admitted.lock();
        let is_another = |(of, other): &&(EndpointId, Claims)| other.acct == claims.acct && *of != endpoint;
        if admitted.values().filter(is_another).count() >= account_max {
            let why = "the account has as many connections to this relay node over HTTPS as it may have";
            return Err(Refusal::because(Code::AccountConnections, why));
        }
        admitted.insert(connection, (endpoint, claims));
        Ok(())
    }

    /// Those that may not stay.
    fn over(&self, may_stay: impl Fn(&Claims) -> bool) -> Vec<(EndpointId, ConnectionId)> {
        let admitted = self.admitted.lock();
        let over = admitted.iter().filter(|(_, (_, claims))| !may_stay(claims));
        over.map(|(connection, (endpoint, _))| (*endpoint, *connection))
            .collect()
    }
}

/// Lets in an agent that proves to be the endpoint of its token.
#[derive(Debug)]
pub(super) struct OfToken {
    pub(super) claims: Claims,
    /// Connections that an account may have here.
    pub(super) account_max: usize,
    pub(super) table: Arc<Table>,
}

impl AccessControl for OfToken {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        let proven = request.endpoint_id();
        let endpoint = skytale_proto::EndpointId::from_bytes(*proven.as_bytes());
        let claims = of_endpoint(self.claims.clone(), &endpoint);
        match claims.and_then(|claims| {
            self.table
                .admit(request.connection_id(), proven, claims, self.account_max)
        }) {
            Ok(()) => Access::Allow,
            Err(refusal) => {
                metrics::refused(refusal.known_code());
                Access::Deny {
                    reason: Some(refusal.message),
                }
            }
        }
    }

    fn on_disconnect(&self, _: EndpointId, connection: ConnectionId) {
        self.table.admitted.lock().remove(&connection);
    }
}

/// Lets in this node's own endpoint.
#[derive(Debug)]
pub(super) struct OfNode(pub(super) EndpointId);

impl AccessControl for OfNode {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        if request.endpoint_id() == self.0 {
            Access::Allow
        } else {
            Access::Deny { reason: None }
        }
    }
}

/// Ends the connections of those who may no longer stay.
pub(super) async fn keep(table: Arc<Table>, clients: Clients, node: Arc<Shared>, stop: CancellationToken) {
    let mut turns = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            () = stop.cancelled() => return,
        }
        let now = node.clock.tokens_s();
        let serves = node.trust.barred().is_none();
        let may_stay = |claims: &Claims| {
            serves && !node.trust.is_revoked(claims) && (now < claims.exp || node.sessions.has(&claims.sub))
        };
        for (endpoint, connection) in table.over(may_stay) {
            clients.disconnect(endpoint, Some(connection));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use iroh::SecretKey;
    use iroh_relay::http::ProtocolVersion;

    #[test]
    fn the_node_s_own_port_lets_in_the_node_s_key_alone() {
        let own = SecretKey::generate().public();
        let lets_in = |endpoint| {
            let (parts, ()) = axum::http::Request::new(()).into_parts();
            let request = ClientRequest::new(endpoint, ProtocolVersion::V2, parts);
            OfNode(own).on_connect(&request).now_or_never() == Some(Access::Allow)
        };
        assert!(lets_in(own));
        assert!(!lets_in(SecretKey::generate().public()));
    }
}
