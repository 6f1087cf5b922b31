//! The same small workloads run against each peer and against ours, and what agents saw is verified.

use anyhow::Context as _;
use skytale_benches::peers::{JetStream, Ours, Postgres, Redis, ours};
use skytale_load::run::{Ran, RunConfig, run};
use skytale_load::target::Target;
use skytale_workload::plan::{Knobs, Plan};
use skytale_workload::synth::{Profile, Size, synthesize};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pairs that talk, and readers that go, miss a backlog and come back.
const PROFILES: [Profile; 2] = [Profile::ChattyPair, Profile::ReconnectStorm];

fn plan(profile: Profile) -> anyhow::Result<Arc<Plan>> {
    let size = Size {
        duration: Duration::from_secs(2),
        agents: 12,
        messages_per_second: 100,
    };
    Ok(Arc::new(Plan::new(synthesize(profile, size, 3)?, &Knobs::default())?))
}

async fn passes<T: Target>(target: Arc<T>, plan: Arc<Plan>) -> anyhow::Result<Ran> {
    let config = RunConfig::of(plan.duration);
    let name = target.name();
    let (appends, channels) = (plan.appends(), u64::from(plan.channels));
    let ran = run(target, plan, &config, CancellationToken::new(), |_| {}).await?;
    assert_eq!(
        ran.faults,
        Vec::<String>::new(),
        "{name}: {:?} {:?}",
        ran.totals,
        ran.verified
    );
    let (totals, verified) = (&ran.totals, &ran.verified);
    assert_eq!(totals.acknowledged, appends, "{name}: {totals:?} {:?}", ran.refusals);
    assert_eq!((totals.again, totals.given_up), (0, 0), "{name}: {totals:?}");
    assert_eq!(verified.channels, channels, "{name}");
    assert_eq!(verified.readers_short, 0, "{name}: {verified:?}");
    assert!(
        verified.readers > 0 && totals.delivered > verified.entries,
        "{name}: {verified:?}"
    );
    assert!(verified.entries > 100, "{name}: {verified:?}");
    Ok(ran)
}

#[tokio::test(flavor = "multi_thread")]
async fn jetstream_passes() -> anyhow::Result<()> {
    for profile in PROFILES {
        let server = JetStream::start(&std::env::temp_dir()).await?;
        passes(Arc::new(server), plan(profile)?).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_passes() -> anyhow::Result<()> {
    for profile in PROFILES {
        let server = Redis::start(&std::env::temp_dir()).await?;
        passes(Arc::new(server), plan(profile)?).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_passes() -> anyhow::Result<()> {
    for profile in PROFILES {
        let server = Postgres::start(&std::env::temp_dir()).await?;
        passes(Arc::new(server), plan(profile)?).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_passes() -> anyhow::Result<()> {
    for profile in PROFILES {
        let node = Ours::start(&std::env::temp_dir()).await?;
        let plan = plan(profile)?;
        let target = Arc::new(ours::target(node.address(), plan.agents).await?);
        passes(Arc::clone(&target), plan).await?;
        target.close().await;
        node.stop().await.context("the node stops")?;
    }
    Ok(())
}
