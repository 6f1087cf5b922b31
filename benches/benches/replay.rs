//! Replay of one channel through the relay node, against a bare iroh stream of the same bytes.
//!
//! Entries are 1 KiB. Readers far behind are served from segments, where the channel's entries are alone, or with
//! those of 3 or 99 others between them, or from segments that were regrouped; a reader near the head is served from memory. Both sides are read by the same
//! loop, which counts bytes. Before that each replay is read once with every checksum and offset checked; a row says
//! what that costs the reader.

use anyhow::ensure;
use skytale_benches::bare::{Bare, BareServer};
use skytale_benches::client::{Agent, Client};
use skytale_benches::frames::{Channel, append_windowed, nobody};
use skytale_benches::relay::Relay;
use skytale_benches::stopwatch::{Stopwatch, Took};
use skytale_benches::versus::{Aim, Bench, Case, Side, Work, sized};
use skytale_log_store::{LocalConfig, LocalStore, LogStore};
use skytale_proto::AgentId;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// An encoded frame, in bytes.
const FRAME_BYTES: usize = 1_024;
const MIB: usize = 1024 * 1024;
/// Appends in flight while the logs are filled.
const WINDOW: usize = 2_048;

fn main() -> anyhow::Result<()> {
    let mut bench = Bench::new("replay: one channel through the relay node, against an iroh stream of the same bytes");
    let runtime = Runtime::new()?;
    let folder = tempfile::tempdir()?;
    let open = |name: &str| {
        let config = LocalConfig {
            // Segments stay as they were written until a store is asked to regroup them.
            regroup_bytes_per_second: 0,
            ..LocalConfig::new(folder.path().join(name))
        };
        runtime.block_on(LocalStore::open(config))
    };
    let store: Arc<dyn LogStore> = Arc::new(open("as-written")?);

    let reader = runtime.block_on(Agent::new())?;
    let without_udp = runtime.block_on(Agent::without_udp())?;
    let readers = [reader.id, without_udp.id];
    let fill = |channels, mib| runtime.block_on(fill_store(store.as_ref(), &readers, channels, mib));
    // The last one stays in memory, and no other does.
    let alone = fill(1, sized(64, 8))?;
    let of_4 = fill(4, sized(32, 4))?;
    let of_100 = fill(100, sized(8, 1))?;
    fill(1, 40)?;
    let recent = fill(2, 8)?;

    let relay = runtime.block_on(Relay::start(store.clone()))?;
    let client = runtime.block_on(relay.session(&reader))?;
    let server = runtime.block_on(BareServer::start())?;
    let bare = runtime.block_on(Bare::connect(server.address()))?;
    let setup = Setup {
        runtime: &runtime,
        client: &client,
        bare: &bare,
    };
    setup.measure(&mut bench, "segments, alone", &alone, true)?;
    setup.measure(&mut bench, "segments, 1 of 4", &of_4, false)?;
    setup.measure(&mut bench, "segments, 1 of 100", &of_100, false)?;
    let regrouped = Arc::new(open("regrouped")?);
    let of_100 = runtime.block_on(async {
        let of_100 = fill_store(regrouped.as_ref(), &readers, 100, sized(8, 1)).await?;
        // Seals the segment with its last entries.
        fill_store(regrouped.as_ref(), &readers, 1, 72).await?;
        let done = regrouped.regroup().await?;
        ensure!(done.segments > 0, "{done:?}");
        anyhow::Ok(of_100)
    })?;
    let second = runtime.block_on(Relay::start(regrouped.clone()))?;
    let of_second = runtime.block_on(second.session(&reader))?;
    let from_regrouped = Setup {
        client: &of_second,
        ..setup
    };
    from_regrouped.measure(&mut bench, "regrouped segments, 1 of 100", &of_100, false)?;
    setup.measure(&mut bench, "memory, 1 of 2", &recent, true)?;

    let over_https = runtime.block_on(relay.https_session(&without_udp))?;
    let by_https = Setup {
        client: &over_https,
        ..setup
    };
    setup.versus_https(&mut bench, &by_https, &recent)?;

    over_https.leave();
    client.leave();
    of_second.leave();
    runtime.block_on(relay.shutdown());
    runtime.block_on(second.shutdown());
    runtime.block_on(store.close())?;
    runtime.block_on(regrouped.close())?;
    bench.close();
    Ok(())
}

/// A channel to replay.
#[derive(Clone, Copy)]
struct Filled {
    channel: Channel,
    entries: u64,
}

/// Fills channels with so many MiB each, one entry of each in turn, and gives the first of them.
async fn fill_store(store: &dyn LogStore, readers: &[AgentId], channels: u32, mib: usize) -> anyhow::Result<Filled> {
    let mut filled = Vec::new();
    for number in 0..channels {
        filled.push(Channel::create(store, nobody(number), readers).await?);
    }
    let entries = mib * MIB / FRAME_BYTES;
    let turns = filled.iter().cycle().take(entries * filled.len());
    let frames = turns.map_while(|channel| channel.message(FRAME_BYTES).ok());
    append_windowed(store, frames, WINDOW).await?;
    Ok(Filled {
        channel: filled[0],
        entries: entries as u64,
    })
}

#[derive(Clone, Copy)]
struct Setup<'a> {
    runtime: &'a Runtime,
    client: &'a Client,
    bare: &'a Bare,
}

impl Setup<'_> {
    fn measure(&self, bench: &mut Bench, name: &str, filled: &Filled, decoded: bool) -> anyhow::Result<()> {
        let stream_bytes = self.check(filled)?;
        let case = |name: String, aim| Case {
            name,
            work: Work::Elements {
                count: filled.entries,
                bytes: FRAME_BYTES as u64,
            },
            aim,
            pairs: 10,
        };
        bench.versus(case(format!("replay/{name}"), Aim::AtLeast(0.7)), |side| match side {
            Side::Ours => self.replay(filled, stream_bytes),
            Side::Limit => self.receive(stream_bytes),
        });
        if decoded {
            bench.versus(case(format!("replay/{name}, decoded"), Aim::None), |side| match side {
                Side::Ours => self.replay_decoded(filled),
                Side::Limit => self.receive(stream_bytes),
            });
        }
        Ok(())
    }

    /// The same replay by an agent without UDP, against one that has it.
    fn versus_https(&self, bench: &mut Bench, by_https: &Self, filled: &Filled) -> anyhow::Result<()> {
        let stream_bytes = by_https.check(filled)?;
        let case = Case {
            name: "replay/memory, over HTTPS against UDP".into(),
            work: Work::Elements {
                count: filled.entries,
                bytes: FRAME_BYTES as u64,
            },
            aim: Aim::None,
            pairs: 10,
        };
        bench.versus(case, |side| match side {
            Side::Ours => by_https.replay(filled, stream_bytes),
            Side::Limit => self.replay(filled, stream_bytes),
        });
        Ok(())
    }

    /// Reads the channel once and checks all of it; gives the stream's length in bytes.
    fn check(&self, filled: &Filled) -> anyhow::Result<u64> {
        self.runtime.block_on(async {
            let (log, after) = (filled.channel.log, filled.channel.parent);
            let replayed = self.client.subscribe(log, after, false).await?.to_end().await?;
            ensure!(
                replayed.entries == filled.entries,
                "{replayed:?} of {} entries",
                filled.entries
            );
            self.client.subscribe(log, after, false).await?.drain().await
        })
    }

    fn replay(&self, filled: &Filled, stream_bytes: u64) -> Took {
        let stopwatch = Stopwatch::start();
        let drained = self.runtime.block_on(async {
            let subscription = self
                .client
                .subscribe(filled.channel.log, filled.channel.parent, false)
                .await?;
            subscription.drain().await
        });
        let took = stopwatch.took();
        let drained = drained.expect("the relay node serves the replay");
        // Batches may be cut elsewhere, and each has a few bytes before it.
        assert!(
            drained.abs_diff(stream_bytes) < stream_bytes / 100,
            "{drained} of {stream_bytes} bytes"
        );
        took
    }

    fn replay_decoded(&self, filled: &Filled) -> Took {
        let stopwatch = Stopwatch::start();
        let replayed = self.runtime.block_on(async {
            let subscription = self
                .client
                .subscribe(filled.channel.log, filled.channel.parent, false)
                .await?;
            subscription.to_end().await
        });
        let took = stopwatch.took();
        assert_eq!(
            replayed.expect("the relay node serves the replay").entries,
            filled.entries
        );
        took
    }

    fn receive(&self, bytes: u64) -> Took {
        let stopwatch = Stopwatch::start();
        let received = self.runtime.block_on(self.bare.receive(bytes));
        let took = stopwatch.took();
        received.expect("the bare endpoint serves the stream");
        took
    }
}
