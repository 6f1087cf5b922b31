//! `skytale relay fleet`: the relay nodes, as the API knows them.

use super::Session;
use crate::client;
use crate::output::{Human, Outcome, Style, table};
use crate::time::utc;
use serde::Serialize;
use skytale_proto::rest::{Fleet, FleetRelay, RelayState};
use skytale_sdk::internals::net::Method;
use std::fmt;

/// Pages that are read, at most.
const PAGES_MAX: usize = 1_000;

pub(crate) async fn run(session: &Session) -> Outcome {
    let client = client::operator(&session.loaded)?;
    let mut relays = Vec::new();
    let mut path = "/v1/fleet".to_owned();
    for _ in 0..PAGES_MAX {
        let page: Fleet = client
            .call(Method::Get, &path, None::<&()>)
            .await
            .map_err(client::failed(&session.loaded))?;
        relays.extend(page.relays);
        match page.next {
            Some(next) => path = format!("/v1/fleet?after={next}"),
            None => break,
        }
    }
    session.output.give(&Listed { relays })
}

#[derive(Serialize)]
struct Listed {
    relays: Vec<FleetRelay>,
}

impl Human for Listed {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.relays.is_empty() {
            return writeln!(
                to,
                "no enrolled relay node has been heard of; `skytale relay enrol` lets one in"
            );
        }
        let rows = self.relays.iter().map(|relay| {
            let state = match relay.state {
                RelayState::Live => "live".to_owned(),
                RelayState::Behind => "behind".to_owned(),
                RelayState::Draining => "draining".to_owned(),
                RelayState::Missing => format!("missing since {}", utc(relay.seen_s)),
            };
            let state = match &relay.twin {
                Some(twin) => format!("{state}; its key is also used at {}", twin.addresses.join(", ")),
                None => state,
            };
            let lag = relay
                .load
                .lag
                .iter()
                .map(|shard| shard.messages)
                .max()
                .unwrap_or_default();
            vec![
                relay.label.clone(),
                relay.endpoint.to_string().chars().take(16).collect(),
                relay.region.to_string(),
                state,
                format!("{}/{}", relay.load.agents, relay.load.agents_max),
                relay.load.appends_per_second.to_string(),
                relay.load.reads_per_second.to_string(),
                lag.to_string(),
                relay.version.clone(),
            ]
        });
        let head = [
            "label",
            "endpoint",
            "region",
            "state",
            "agents",
            "appends/s",
            "reads/s",
            "lag",
            "version",
        ];
        table(to, style, &head, rows)
    }
}
