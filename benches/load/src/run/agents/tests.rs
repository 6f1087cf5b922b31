//! A stage without a relay node, and what is known on it.

use super::{AgentsConfig, Judge, Stage};
use crate::run::RunConfig;
use crate::run::shared::Base;
use parking_lot::Mutex;
use skytale_proto::{ChannelId, Offset};
use skytale_sdk::{ApiClient, ApiKey, NetworkConfig};
use skytale_workload::plan::{Knobs, Plan};
use skytale_workload::{Agent, Channel, Event, Frame, What};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(super) const ROOM: ChannelId = ChannelId::from_bytes([7; 16]);
/// Agents on the stage.
const AGENTS: usize = 3;

/// A stage with three agents and a channel, whose API cannot be reached.
pub(super) async fn stage(dir: &Path) -> Arc<Stage> {
    stage_at(dir, "http://127.0.0.1:1").await
}

/// The same, with an API of this URL.
pub(super) async fn stage_at(dir: &Path, api: &str) -> Arc<Stage> {
    let message = What::Append {
        author: Agent(0),
        body_bytes: 200,
        frame: Frame::Message(Channel(0)),
    };
    let connects = (0..AGENTS as u32).map(|agent| What::Connect(Agent(agent)));
    let events = connects.chain(std::iter::repeat_n(message, 8)).map(|what| Event {
        at: Duration::ZERO,
        what,
    });
    let plan = Plan::new(events.collect(), &Knobs::default()).expect("a plan");
    let config = RunConfig::of(plan.duration);
    let stop = CancellationToken::new();
    let base = Base::begin(Arc::new(plan), &config, &stop).await;
    let key = ApiKey::new("sk_live_0123456789").expect("an API key");
    Arc::new(Stage {
        ids: (0..AGENTS).map(|_| watch::Sender::new(None)).collect(),
        rooms: vec![watch::Sender::new(None)],
        last: Mutex::default(),
        gauges: Mutex::default(),
        present: Mutex::default(),
        judge: Judge::default(),
        base: base.expect("it begins"),
        config: AgentsConfig {
            dir: dir.to_owned(),
            api: ApiClient::new(api, key).expect("a client"),
            network: NetworkConfig::default(),
        },
    })
}

fn at(offset: u64) -> Offset {
    Offset::new(offset)
}

#[tokio::test]
async fn an_agent_that_was_added_is_short_until_it_joins_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let stage = stage(dir.path()).await;
    stage.present.lock().online.insert(1);
    stage.changed(1, ROOM, at(50), true);
    assert_eq!(stage.short(), 1);
    let gauge = stage.gauge(1, ROOM);
    gauge.stays.lock().joined(at(50));
    assert_eq!(stage.short(), 0);
    // Removed, and added again.
    stage.changed(1, ROOM, at(60), false);
    assert_eq!(stage.short(), 0);
    stage.changed(1, ROOM, at(70), true);
    assert_eq!(stage.short(), 1);
    gauge.stays.lock().left(at(60));
    gauge.stays.lock().joined(at(70));
    assert_eq!(stage.short(), 0);
    // It was a member already.
    stage.changed(1, ROOM, at(75), true);
    assert_eq!(stage.short(), 0);
    // The one that added it tells so later than the one that removed it.
    stage.changed(1, ROOM, at(90), false);
    stage.changed(1, ROOM, at(80), true);
    assert_eq!(stage.short(), 0);
}

#[tokio::test]
async fn an_agent_need_not_be_given_what_was_sent_before_it_joined() {
    let dir = tempfile::tempdir().expect("a folder");
    let stage = stage(dir.path()).await;
    let gauge = stage.gauge(1, ROOM);
    gauge.reads.store(true, Ordering::Relaxed);
    gauge.stays.lock().joined(at(50));
    stage.is_entry(0, ROOM, 40);
    assert_eq!(stage.short(), 0);
    stage.is_entry(0, ROOM, 51);
    assert_eq!(stage.short(), 1);
    gauge.given.store(51, Ordering::Relaxed);
    assert_eq!(stage.short(), 0);
}
