//! Live delivery: from the append on one connection to the entry on another, against a bare iroh echo.
//!
//! The echo crosses the network as often (there and back) and carries the same bytes, but decides nothing, keeps
//! nothing and serves one connection. Over the local store an entry is delivered only once it is synced to disk; so there
//! is a second limit beside it: an echo, then a write and fdatasync of the same bytes.

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use skytale_benches::bare::{Bare, BareServer, Echo};
use skytale_benches::client::{Agent, Appends, Client, Subscription};
use skytale_benches::frames::Channel;
use skytale_benches::relay::Relay;
use skytale_benches::stopwatch::Took;
use skytale_benches::versus::{Aim, Bench, Case, Side, Work, sized};
use skytale_log_store::{LocalConfig, LocalStore, LogStore, MemoryStore};
use skytale_sdk::NetworkConfig;
use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;
use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// An encoded frame, in bytes.
const FRAME_BYTES: usize = 1_024;

fn main() -> anyhow::Result<()> {
    let mut bench =
        Bench::new("live: append to subscriber on another connection, against an iroh echo of the same bytes");
    let runtime = Runtime::new()?;
    measure(
        &mut bench,
        &runtime,
        "live/memory store",
        Arc::new(MemoryStore::new()),
        None,
    )?;

    let folder = tempfile::tempdir()?;
    let store = runtime.block_on(LocalStore::open(LocalConfig::new(folder.path())))?;
    let store: Arc<dyn LogStore> = Arc::new(store);
    measure(&mut bench, &runtime, "live/local store", store.clone(), None)?;
    let sync = BareSync::new(&folder.path().join("bare"))?;
    measure(
        &mut bench,
        &runtime,
        "live/local store, echo + fdatasync",
        store.clone(),
        Some(sync),
    )?;
    runtime.block_on(store.close())?;
    without_udp(&mut bench, &runtime)?;
    bench.close();
    Ok(())
}

/// Measures the time of an agent to a session if UDP gets no answer, and if it does.
fn without_udp(bench: &mut Bench, runtime: &Runtime) -> anyhow::Result<()> {
    let rounds = sized(20, 3);
    // Nothing that a socket of [::1] sends reaches a node on 127.0.0.1.
    let blocked = NetworkConfig::bound_to((Ipv6Addr::LOCALHOST, 0).into());
    let relay = runtime.block_on(Relay::start(Arc::new(MemoryStore::new())))?;
    for (name, network) in [
        ("first session, UDP answers", NetworkConfig::default()),
        ("first session, UDP gets no answer: over HTTPS", blocked),
    ] {
        let mut times = times()?;
        for _ in 0..rounds {
            let began = Instant::now();
            runtime.block_on(async {
                let client = relay.raw_client(network.clone()).await?;
                while !client.is_connected() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                times.saturating_record(nanos(began.elapsed()));
                client.close().await;
                anyhow::Ok(())
            })?;
        }
        note(bench, name, &times);
    }
    runtime.block_on(relay.shutdown());
    Ok(())
}

/// One message after another, in turn with one echo after another.
fn measure(
    bench: &mut Bench,
    runtime: &Runtime,
    name: &str,
    store: Arc<dyn LogStore>,
    sync: Option<BareSync>,
) -> anyhow::Result<()> {
    let setup = RefCell::new(runtime.block_on(Setup::new(store))?);
    let sync = RefCell::new(sync);
    let times = RefCell::new([times()?, times()?]);
    let rounds = sized(100, 20);
    // A turn is the median of many, so that a pair is not one lucky packet against one unlucky.
    let turn = |side: Side| {
        let mut round = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let took = {
                let mut setup = setup.borrow_mut();
                runtime.block_on(async {
                    match side {
                        Side::Ours => setup.deliver().await.expect("delivered"),
                        Side::Limit => setup.echo().await.expect("echoed"),
                    }
                })
            };
            let index = usize::from(side == Side::Limit);
            times.borrow_mut()[index].saturating_record(nanos(took));
            let synced = match &mut *sync.borrow_mut() {
                Some(sync) if side == Side::Limit => sync.sync().expect("synced"),
                _ => Duration::ZERO,
            };
            round.push(took + synced);
        }
        round.sort_unstable();
        Took::wall(round[round.len() / 2])
    };
    let case = Case {
        name: name.into(),
        work: Work::Latency,
        aim: if sync.borrow().is_some() {
            Aim::None
        } else {
            Aim::AtMost(3.0)
        },
        pairs: sized(20, 10),
    };
    bench.versus(case, turn);
    let times = times.into_inner();
    note(bench, &format!("{name}: delivery"), &times[0]);
    note(bench, &format!("{name}: echo"), &times[1]);
    if let Some(sync) = sync.into_inner() {
        note(bench, &format!("{name}: fdatasync"), &sync.times);
    }
    runtime.block_on(setup.into_inner().end());
    Ok(())
}

fn note(bench: &mut Bench, name: &str, times: &Histogram<u64>) {
    if times.is_empty() {
        return;
    }
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    bench.note(format!(
        "{name}: p50 {:.0} µs, p90 {:.0} µs, p99 {:.0} µs, of {}",
        at(0.5),
        at(0.9),
        at(0.99),
        times.len()
    ));
}

fn times() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1_000, 10_000_000_000, 3).context("bounds of a histogram")
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Bare write and sync of a frame's bytes.
struct BareSync {
    file: File,
    times: Histogram<u64>,
}

impl BareSync {
    /// In a file whose space is reserved beforehand, as the store's segments are.
    fn new(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 64 * 1024 * 1024)?;
        file.sync_all()?;
        Ok(Self { file, times: times()? })
    }

    fn sync(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.file.write_all(&[0x5a; FRAME_BYTES])?;
        self.file.sync_data()?;
        let took = begun.elapsed();
        self.times.saturating_record(nanos(took));
        Ok(took)
    }
}

/// A relay node with an author and a subscriber, and an echo beside it.
struct Setup {
    relay: Relay,
    channel: Channel,
    clients: [Client; 2],
    appends: Appends,
    subscription: Subscription,
    echo: Echo,
    _bare: (BareServer, Bare),
}

impl Setup {
    async fn new(store: Arc<dyn LogStore>) -> anyhow::Result<Self> {
        let (author, reader) = (Agent::new().await?, Agent::new().await?);
        let channel = Channel::create(store.as_ref(), author.id, &[reader.id]).await?;
        let relay = Relay::start(store).await?;
        let clients = [relay.session(&author).await?, relay.session(&reader).await?];
        let appends = clients[0].appends().await?;
        let mut subscription = clients[1].subscribe(channel.log, channel.parent, true).await?;
        subscription.caught_up().await?;
        let server = BareServer::start().await?;
        let bare = Bare::connect(server.address()).await?;
        let echo = bare.echo().await?;
        Ok(Self {
            relay,
            channel,
            clients,
            appends,
            subscription,
            echo,
            _bare: (server, bare),
        })
    }

    /// Measures the time from before a frame is sent to after it has come to the subscriber. Its acknowledgement is
    /// waited for after that.
    async fn deliver(&mut self) -> anyhow::Result<Duration> {
        let frame = self.channel.message(FRAME_BYTES)?;
        let begun = Instant::now();
        self.appends.send(&frame).await?;
        let offset = self.subscription.entries().await?;
        let took = begun.elapsed();
        anyhow::ensure!(
            self.appends.accepted().await? == offset,
            "the entry delivered is the one appended"
        );
        Ok(took)
    }

    async fn echo(&mut self) -> anyhow::Result<Duration> {
        let bytes = Bytes::from(vec![0x5a; FRAME_BYTES]);
        let begun = Instant::now();
        self.echo.round_trip(bytes).await?;
        Ok(begun.elapsed())
    }

    async fn end(self) {
        self.clients.into_iter().for_each(Client::leave);
        self.relay.shutdown().await;
    }
}
