//! The targets, and one run against one of them.

use anyhow::Context as _;
use skytale_benches::peers::{JetStream, Postgres, Redis, ours};
use skytale_benches::process::Process;
use skytale_benches::served::Served;
use skytale_load::run::{Ran, RunConfig, run};
use skytale_load::target::Target;
use skytale_workload::plan::Plan;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The variable that tells a child of this program to be a relay node, and where its data is.
pub(crate) const NODE: &str = "SKYTALE_PEERS_NODE";

/// A target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Which {
    Ours,
    JetStream,
    Redis,
    Postgres,
}

impl Which {
    const ALL: [Self; 4] = [Self::Ours, Self::JetStream, Self::Redis, Self::Postgres];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::JetStream => "jetstream",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|which| which.name() == text);
        found.ok_or_else(|| format!("no target {text}; there are ours, jetstream, redis, postgres"))
    }
}

/// Result of one run.
#[derive(Debug)]
pub(crate) struct Once {
    pub(crate) ran: Ran,
    /// Processor time of the server, from before the run to its end.
    pub(crate) server: Duration,
}

/// Runs a plan against a fresh server, whose data is in a folder of its own in `dir`.
pub(crate) async fn once(which: Which, plan: &Arc<Plan>, config: &RunConfig, dir: &Path) -> anyhow::Result<Once> {
    match which {
        Which::Ours => {
            let folder = ours::folder(dir)?;
            let store = folder.path().to_str().context("a folder with a name in UTF-8")?;
            let node = Served::start(NODE, store)?;
            let target = Arc::new(ours::target(node.address(), plan.agents).await?);
            let once = measure(Arc::clone(&target), &node.process(), plan, config).await;
            target.close().await;
            node.end()?;
            once
        }
        Which::JetStream => {
            let target = JetStream::start(dir).await?;
            let process = target.server().process();
            measure(Arc::new(target), &process, plan, config).await
        }
        Which::Redis => {
            let target = Redis::start(dir).await?;
            let process = target.server().process();
            measure(Arc::new(target), &process, plan, config).await
        }
        Which::Postgres => {
            let target = Postgres::start(dir).await?;
            let process = target.server().process();
            measure(Arc::new(target), &process, plan, config).await
        }
    }
}

async fn measure<T: Target>(
    target: Arc<T>,
    server: &Process,
    plan: &Arc<Plan>,
    config: &RunConfig,
) -> anyhow::Result<Once> {
    let before = server.cpu_with_children()?;
    let ran = run(
        target.clone(),
        Arc::clone(plan),
        config,
        CancellationToken::new(),
        |_| {},
    )
    .await?;
    let server = server.cpu_with_children()?.saturating_sub(before);
    Ok(Once { ran, server })
}
