//! Events while an agent is away.

use super::super::super::relay::accept_in;
use super::player::{Way, within};
use super::report::Row;
use super::scene::{Scene, Wanted, settled, staged};
use crate::agent::{current, failed};
use crate::command::Session;
use crate::local::{copy_folder, replace_folder};
use crate::output::{Failure, Outcome};
use crate::stage::{PATIENCE, Timeline};
use skytale_proto::Code;
use std::path::Path;
use std::time::{Duration, Instant};

/// Length of a long absence.
const LONG: Duration = Duration::from_secs(100 * 24 * 3_600);
/// Messages that retention is to take.
const OVERTAKEN: usize = 20;

/// Nothing is lost, and nothing special leads back.
const PLAIN: Wanted = Wanted { loss: false, way: None };

/// Plays all of them.
pub(super) async fn play(session: &Session, dir: &Path, timeline: &Timeline) -> Outcome<Vec<Row>> {
    let small = toml::toml! {
        [store]
        segment_bytes = 8_192
    };
    let mut short = small.clone();
    short.insert("retention_s".into(), toml::Value::Integer(5));
    let mut rows = Vec::new();
    let node = |name: &str| dir.join(name);
    rows.extend(
        staged(session, node("retention"), short, async |scene| {
            retention(scene, timeline).await
        })
        .await?,
    );
    let usual = toml::Table::new;
    rows.extend(
        staged(session, node("restored"), usual(), async |scene| {
            restored(scene, timeline).await
        })
        .await?,
    );
    rows.extend(
        staged(session, node("behind"), usual(), async |scene| {
            behind(scene, timeline).await
        })
        .await?,
    );
    rows.extend(
        staged(session, node("long"), usual(), async |scene| {
            long(scene, timeline).await
        })
        .await?,
    );
    rows.extend(
        staged(session, node("node"), small, async |scene| {
            node_restored(scene, timeline).await
        })
        .await?,
    );
    Ok(rows)
}

/// The log no longer keeps the messages sent meanwhile.
async fn retention(scene: &mut Scene, timeline: &Timeline) -> Outcome<Vec<Row>> {
    let (alice, mut bob) = (scene.enter("alice").await?, scene.enter("bob").await?);
    let quiet = scene.channel(&[&alice, &bob]).await?;
    let room = scene.channel(&[&alice, &bob]).await?;
    let changed = scene.channel(&[&alice, &bob]).await?;
    bob.go_away().await;
    let since = scene.said();
    timeline.say("retention: bob goes away; alice replaces her keys in one channel, writes in two, and not in a third");
    let rotated = alice.channel(changed).await?.rotate().await;
    settled(rotated.map_err(failed("cannot replace keys"))?).await?;
    scene.say(&alice, room, OVERTAKEN).await?;
    scene.say(&alice, changed, OVERTAKEN).await?;
    let mut segments = scene.segments()?;
    // The last one is open: it is not given up.
    segments.pop();
    let given_up = async {
        while segments.iter().any(|segment| segment.exists()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    within(|| "the relay node does not give up its old entries".into(), given_up).await?;
    scene.say(&alice, changed, 3).await?;
    scene.say(&alice, room, 3).await?;
    timeline.say("retention: the relay node has given up what was written; bob comes back");
    let began = Instant::now();
    bob.come_back().await?;
    let mut rows = Vec::new();
    let rejoined = Wanted {
        loss: true,
        way: Some(Way::Rejoin),
    };
    let gone = Wanted { loss: true, way: None };
    for (event, channel, wanted) in [
        ("retention passed: messages are gone", room, gone),
        ("retention passed: a change to the group is gone", changed, rejoined),
        ("retention passed: a quiet channel beside them", quiet, PLAIN),
    ] {
        let row = scene.returned(event, (&mut bob, &alice), (channel, since), began, wanted);
        rows.push(row.await?);
    }
    // The agent's own log was overtaken, too: it has keys on offer again.
    current(&bob.agent, PATIENCE).await?;
    bob.go_away().await;
    let mut alice = alice;
    alice.go_away().await;
    Ok(rows)
}

/// A vault is put back to before some of what its agent sent.
async fn restored(scene: &mut Scene, timeline: &Timeline) -> Outcome<Vec<Row>> {
    let (mut alice, mut bob) = (scene.enter("alice").await?, scene.enter("bob").await?);
    let room = scene.channel(&[&bob, &alice]).await?;
    let copy = scene.dir.join("copy");
    alice.go_away().await;
    alice.copy_vault(&copy)?;
    let since = scene.said();
    alice.come_back().await?;
    scene.say(&alice, room, 3).await?;
    alice.go_away().await;
    alice.put_back(&copy)?;
    timeline.say("vault: alice's vault was copied, sent 3 messages, and is put back; she comes back and sends 5");
    let began = Instant::now();
    alice.come_back().await?;
    scene.say(&alice, room, 5).await?;
    let wanted = Wanted {
        loss: true,
        way: Some(Way::NewKeys),
    };
    let event = "vault restored: behind 3 messages of its own";
    let row = scene.returned(event, (&mut alice, &bob), (room, since), began, wanted);
    let row = row.await?;
    alice.go_away().await;
    bob.go_away().await;
    Ok(vec![row])
}

/// A vault is put back to before a commit of its own, which it then cannot apply: nobody can who made it elsewhere.
async fn behind(scene: &mut Scene, timeline: &Timeline) -> Outcome<Vec<Row>> {
    let (mut alice, mut bob) = (scene.enter("alice").await?, scene.enter("bob").await?);
    let room = scene.channel(&[&bob, &alice]).await?;
    let copy = scene.dir.join("copy");
    alice.go_away().await;
    alice.copy_vault(&copy)?;
    let since = scene.said();
    alice.come_back().await?;
    let rotated = alice.channel(room).await?.rotate().await;
    settled(rotated.map_err(failed("cannot replace keys"))?).await?;
    scene.say(&alice, room, 2).await?;
    alice.go_away().await;
    scene.say(&bob, room, 3).await?;
    alice.put_back(&copy)?;
    timeline.say("commit: alice's vault is put back behind a change to the group that only her other copy could apply");
    let began = Instant::now();
    alice.come_back().await?;
    let wanted = Wanted {
        loss: true,
        way: Some(Way::Rejoin),
    };
    let event = "a commit that this vault cannot apply (its own, of a later copy)";
    let row = scene.returned(event, (&mut alice, &bob), (room, since), began, wanted);
    let row = row.await?;
    alice.go_away().await;
    bob.go_away().await;
    Ok(vec![row])
}

/// 100 days pass by the agents' clocks.
async fn long(scene: &mut Scene, timeline: &Timeline) -> Outcome<Vec<Row>> {
    let (mut alice, mut bob) = (scene.enter("alice").await?, scene.enter("bob").await?);
    let room = scene.channel(&[&alice, &bob]).await?;
    bob.go_away().await;
    let since = scene.said();
    alice.go_away().await;
    alice.ahead = LONG;
    alice.come_back().await?;
    scene.say(&alice, room, 10).await?;
    let other = alice.agent.create_channel("").await;
    let other = other.map_err(failed("cannot make a channel"))?;
    let bob_id = bob.agent.id();
    match other.add(&[bob_id]).await {
        Err(error) if error.code() == Code::KeyPackageExpired => {}
        Err(error) => return Err(failed("cannot add to a channel")(error)),
        Ok(_) => {
            let what = "an agent was added by keys that have expired";
            return Err(Failure::new(Code::Mismatch, what));
        }
    }
    timeline
        .say("time: bob is away for 100 days; alice writes, and cannot add him to another channel: his keys expired");
    bob.ahead = LONG;
    let began = Instant::now();
    bob.come_back().await?;
    let event = "100 days away: in a channel that it was in";
    let row = scene.returned(event, (&mut bob, &alice), (room, since), began, PLAIN);
    let mut rows = vec![row.await?];
    current(&bob.agent, PATIENCE).await?;
    let (since, began) = (scene.said(), Instant::now());
    settled(other.add(&[bob_id]).await.map_err(failed("cannot add to a channel"))?).await?;
    let first = scene.say(&alice, other.id(), 2).await?;
    bob.reach(other.id(), first).await?;
    let event = "100 days away: added, once its keys are fresh";
    let row = scene.returned(event, (&mut bob, &alice), (other.id(), since), began, PLAIN);
    rows.push(row.await?);
    alice.go_away().await;
    bob.go_away().await;
    Ok(rows)
}

/// A relay node's folder is put back to an earlier time, someone writes who had not read the lost messages, and the
/// operator accepts it: all go on with the node's messages, and the lost ones are sent again.
async fn node_restored(scene: &mut Scene, timeline: &Timeline) -> Outcome<Vec<Row>> {
    let (mut alice, mut bob) = (scene.enter("alice").await?, scene.enter("bob").await?);
    let mut dave = scene.enter("dave").await?;
    let room = scene.channel(&[&alice, &bob, &dave]).await?;
    dave.go_away().await;
    scene.relay.drain().await?;
    let (folder, copy) = (scene.relay.dir().to_owned(), scene.dir.join("copy"));
    copy_folder(&folder, &copy)?;
    scene.relay.restart().await?;
    let since = scene.said();
    let seen = scene.say(&alice, room, 2).await?;
    bob.reach(room, seen).await?;
    alice.go_away().await;
    bob.go_away().await;
    scene.relay.drain().await?;
    replace_folder(&folder, &copy)?;
    scene.relay.restart().await?;
    timeline
        .say("node: the relay node's folder is put back to before 2 messages; dave, who had not read them, sends 4");
    dave.come_back().await?;
    // One after another: each message tells the digest of what its author had seen by then.
    for _ in 0..4 {
        scene.say(&dave, room, 1).await?;
    }
    bob.come_back().await?;
    let channel = bob.channel(room).await?;
    let found = async {
        loop {
            let found = channel
                .divergences()
                .await
                .map_err(failed("cannot read what differs"))?;
            if let Some(divergence) = found.first() {
                return Ok(divergence.offset);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let at = within(|| "bob does not notice that he was shown another log".into(), found).await?;
    timeline.say(format!(
        "node: bob finds at offset {at} that he was shown another log; the operator accepts what was put back"
    ));
    bob.go_away().await;
    scene.relay.drain().await?;
    accept_in(&folder).await?;
    scene.relay.restart().await?;
    alice.come_back().await?;
    let began = Instant::now();
    bob.come_back().await?;
    let event = "node restored from an older copy, which its operator accepts";
    let row = scene.returned(event, (&mut bob, &alice), (room, since), began, PLAIN);
    let mut row = row.await?;
    row.diverged_at = Some(at.get());
    row.state = format!("current: settled what differed from offset {at}");
    for player in [&mut alice, &mut bob, &mut dave] {
        player.go_away().await;
    }
    Ok(vec![row])
}
