//! `skytale audit`: the actions in the account.

use super::{Session, agents};
use crate::agent::AgentArgs;
use crate::client;
use crate::names::Names;
use crate::output::{Human, Outcome, Style, table};
use crate::time::utc;
use serde::Serialize;
use skytale_proto::AgentId;
use skytale_proto::rest::{AuditEvent, AuditPage};
use skytale_sdk::internals::net::Method;
use std::fmt;

/// Events that the API gives at once.
const PAGE_MAX: u32 = 200;
/// Events that are shown at most.
const LIMIT_MAX: u32 = 100_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show so many events, the newest first.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
    limit: u32,
    /// Begin before this event: its id, as the end of a list shows it.
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    let client = client::account(&session.loaded)?;
    let asking = async {
        let (mut events, mut next) = (Vec::new(), args.before.clone());
        let mut left = args.limit;
        loop {
            let page: AuditPage = client
                .call(Method::Get, &path(left, next.as_deref()), None::<&()>)
                .await
                .map_err(client::failed(&session.loaded))?;
            left = left.saturating_sub(u32::try_from(page.events.len()).unwrap_or(u32::MAX));
            events.extend(page.events);
            next = page.next;
            if left == 0 || next.is_none() {
                return Ok(Listed {
                    events,
                    next,
                    names: Names::default(),
                });
            }
        }
    };
    let listed = session.shutdown.unless(asking).await?;
    session.output.give(&Listed {
        names: agents::names(&session, &args.agent).await,
        ..listed
    })
}

fn path(limit: u32, before: Option<&str>) -> String {
    let limit = limit.min(PAGE_MAX);
    match before {
        // It is a part of a URL: another text than an id must not become something else there.
        Some(before) => {
            let plain: String = before
                .chars()
                .filter(|char| char.is_ascii_alphanumeric() || *char == '-')
                .collect();
            format!("/v1/audit?limit={limit}&before={plain}")
        }
        None => format!("/v1/audit?limit={limit}"),
    }
}

#[derive(Serialize)]
struct Listed {
    events: Vec<AuditEvent>,
    /// Value for `--before` to get older events; null if there are none.
    next: Option<String>,
    #[serde(skip)]
    names: Names,
}

impl Listed {
    /// `agent:0123...` with the name beside it.
    fn target(&self, target: &str) -> String {
        let agent = target.strip_prefix("agent:").and_then(|id| id.parse::<AgentId>().ok());
        match agent {
            Some(agent) => format!("agent:{}", self.names.long(&agent)),
            None => target.to_owned(),
        }
    }
}

impl Human for Listed {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.events.is_empty() {
            return writeln!(to, "no events");
        }
        let rows = self.events.iter().map(|event| {
            vec![
                utc(event.at_s),
                match event.count {
                    1 => event.action.clone(),
                    count => format!("{} ({count} times, last {})", event.action, utc(event.last_at_s)),
                },
                event.code.clone().unwrap_or_default(),
                event.actor.clone(),
                self.target(&event.target),
            ]
        });
        table(to, style, &["time", "action", "refused", "by", "on"], rows)?;
        match &self.next {
            Some(next) => writeln!(to, "{} `--before {next}` shows older ones", style.dim("more:")),
            None => Ok(()),
        }
    }
}
