//! Regions that are cut off at their gateways, and regions that are far apart.

use super::super::cluster::Account;
use super::super::nodes::{agree, reaches};
use super::super::regions::{agent_of, followers, in_region, is_followed_anew};
use super::super::script::*;
use super::chance::Chance;
use super::load::Load;
use super::wires::{HANGING, Wired};
use skytale_log_store::fleet::FleetConfig;
use skytale_log_store::{FleetStore, LogStore as _};
use skytale_proto::{ChannelId, Code, Frame, Region};
use skytale_wire::Cut;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

fn patient(account: &Account, here: u8, dir: &Path) -> FleetConfig {
    FleetConfig {
        alarm_after: Duration::from_secs(60),
        ..in_region(account, here, dir)
    }
}

/// An append to another region is refused at last, and in a way that its author may try again.
async fn refused(store: &FleetStore, frame: &Frame) {
    let refused = async {
        // Frames that were on their way when the region was cut off may still get there.
        while let Ok(accepted) = append(store, frame).await {
            assert!(accepted.offset > at(0));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let told = tokio::time::timeout(HANGING, refused).await;
    assert!(told.is_ok(), "a region that is cut off takes appends");
    let code = append(store, frame).await.map_err(|error| error.code());
    assert_eq!(code, Err(Code::HomeUnreachable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_cut_off_at_its_gateways_is_read_elsewhere_and_loses_nothing() {
    let mut chance = Chance::new("a region cut off");
    let wired = Wired::regions().await;
    let account = wired.cluster.account();
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let home = Arc::new(open(patient(&account, 0, dirs[0].path())).await);
    let away = Arc::new(open(patient(&account, 1, dirs[1].path())).await);
    let (theirs, ours) = (ChannelId::generate_in(Region(0)), ChannelId::generate_in(Region(1)));
    let unheard = ChannelId::generate_in(Region(0));
    accept(&home, &create(unheard)).await;
    reaches(&away, unheard.log(), at(1)).await;
    let load = Load::begin(&[&home, &away], &[theirs, ours], &mut chance).await;
    let mut kept = Vec::new();
    for round in 0..rounds(2) as usize {
        let cut = [Cut::Silent, Cut::Reset, Cut::Held][round % 3];
        // A channel of this region, to which somebody of the other will be added.
        let (joined, invited) = (ChannelId::generate_in(Region(0)), agent_of(&home, 1));
        accept(&home, &create(joined)).await;
        claimed(&home, &[invited]).await;
        let invitation = bundle(joined, 1, &[invited]);
        // First the home of what is appended, then the region of the mirror.
        eprintln!("{cut:?} around region {}", round % 2);
        wired.around(round % 2).for_each(|link| link.cut(cut));
        let frame = message(unheard, 1, b"kept by its author");
        refused(&away, &frame).await;
        kept.push(frame);
        // The commit gets into its log, and the Welcome not where it belongs: that is not an acknowledgement.
        let told = append(&home, &invitation).await.map_err(|error| error.code());
        assert!(matches!(told, Err(code) if code.is_retryable()), "{told:?}");
        // Each goes on with the channels of its own region, and reads all: the readers see to that.
        load.goes_on(0).await;
        load.goes_on(1).await;
        let lasts = chance.between(Duration::from_millis(100), Duration::from_secs(3));
        tokio::time::sleep(lasts).await;
        wired.mend();
        wired.sees([2, 2, 2]).await;
        load.goes_on(0).await;
        load.goes_on(1).await;
        taken_at_last(&home, &invitation).await;
        assert_eq!(
            agree(&home, &away, joined.log()).await.len(),
            2,
            "created, and one commit"
        );
        assert_eq!(
            agree(&home, &away, invited.log()).await.len(),
            3,
            "a package, a claim, one Welcome"
        );
    }
    for frame in &kept {
        taken_at_last(&away, frame).await;
    }
    let entries = agree(&home, &away, unheard.log()).await;
    let ids: HashSet<_> = entries
        .iter()
        .map(|record| Frame::decode(record.payload.clone()).expect("a frame").header().id)
        .collect();
    assert_eq!(
        (entries.len(), ids.len()),
        (1 + kept.len(), 1 + kept.len()),
        "each once"
    );
    load.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_stands_still_is_left_and_taken_again_when_it_keeps_up() {
    const MIRROR: &str = "SKYTALE_LOG_0_0_IN_1";
    let wired = Wired::regions().await;
    // The home, and its own region's mirror, are reached by the third region: they lose each other, and nobody loses them.
    let account = wired.cluster.account();
    let third = account.through(&wired.cluster.ports[2..]);
    let dir = TempDir::new().expect("a folder");
    let config = |verify_every| {
        let mut config = patient(&account, 1, dir.path());
        config.verify_every = verify_every;
        config.nats.servers.clone_from(&third.servers);
        config
    };
    // It is left for what does not come by it: nobody looks at the stream.
    let node = open(config(Duration::from_secs(3_600))).await;
    let channel = ChannelId::generate_in(Region(0));
    accept(&node, &create(channel)).await;
    is_followed_anew(&third, MIRROR, &HashSet::new()).await;
    wired.between(0, 1).for_each(|link| link.cut(Cut::Held));
    taken_at_last(&node, &message(channel, 1, b"not by the mirror")).await;
    wired.mend();
    node.close().await.expect("closed");

    // And it is taken again at a look.
    let node = open(config(Duration::from_secs(5))).await;
    for round in 0..u64::from(rounds(2)) {
        is_followed_anew(&third, MIRROR, &HashSet::new()).await;
        let before = followers(&third, MIRROR).await;
        wired.between(0, 1).for_each(|link| link.cut(Cut::Held));
        taken_at_last(&node, &message(channel, 1, b"not by the mirror")).await;
        taken_at_last(&node, &message(channel, 1, b"nor this one")).await;
        wired.mend();
        is_followed_anew(&third, MIRROR, &before).await;
        taken_at_last(&node, &message(channel, 1, b"by the mirror again")).await;
        reaches(&node, channel.log(), at(2 + 3 * (round + 1))).await;
    }
    assert_eq!(node.health().stopped, None);
    node.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_far_apart_agree_and_what_is_sent_at_once_travels_together() {
    const FRAMES: u64 = 240;
    let wired = Wired::regions().await;
    let account = wired.cluster.account();
    for (one, other, each_way) in [(0, 1, 40), (0, 2, 80), (1, 2, 80)] {
        let each_way = Duration::from_millis(each_way);
        wired.between(one, other).for_each(|link| link.delay(each_way));
    }
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let home = Arc::new(open(patient(&account, 0, dirs[0].path())).await);
    let away = Arc::new(open(patient(&account, 1, dirs[1].path())).await);
    // A channel, a Welcome from region to region, a KeyPackage and who takes it, each made where it is not at home.
    let channel = ChannelId::generate_in(Region(0));
    let (bob, carol) = (agent_of(&home, 1), agent_of(&home, 0));
    accept(&away, &create(channel)).await;
    claimed(&away, &[bob, carol]).await;
    accept(&away, &bundle(channel, 1, &[bob, carol])).await;
    accept(&home, &key_package(bob, false)).await;
    let package = accept(&away, &claim(bob)).await.claimed.expect("a package");
    assert!(!package.last_resort);
    // Frames sent while a batch is on its way are the next batch.
    let mut pending = Vec::new();
    for number in 0..FRAMES {
        let frame = message(channel, 2, &number.to_le_bytes());
        pending.push(away.append(frame).await.expect("queued"));
    }
    for (append, expected) in pending.into_iter().zip(3..) {
        assert_eq!(append.verdict().await.expect("accepted").offset, at(expected));
    }
    for log in [channel.log(), bob.log(), carol.log()] {
        assert!(!agree(&home, &away, log).await.is_empty());
    }
    let near = account.through(&wired.cluster.ports[..1]);
    let stream = near.stream("SKYTALE_LOG_0_0").await;
    let last = stream.cached_info().state.last_sequence;
    let mut batches = HashSet::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        // One alone is in no batch.
        let batch = message.headers.get("Nats-Batch-Id").map(ToString::to_string);
        batches.insert(batch.unwrap_or_else(|| sequence.to_string()));
    }
    assert!(last > FRAMES);
    assert!(
        (batches.len() as u64) < last / 8,
        "{last} messages in {} batches",
        batches.len()
    );
    for store in [home, away] {
        store.close().await.expect("closed");
    }
}
