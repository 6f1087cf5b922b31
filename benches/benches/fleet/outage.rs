//! Time without acknowledgements when a server dies or is taken away: through a node, and by a bare publisher to the
//! same stream that tries every 100 ms. Both wait for the same election, so that the difference is the node's own.

use crate::FRAME_BYTES;
use crate::common::settings;
use anyhow::{Context as _, bail};
use async_nats::jetstream;
use futures_util::StreamExt as _;
use skytale_benches::frames::{Channel, nobody};
use skytale_benches::versus::{Bench, median, sized};
use skytale_log_store::LogStore as _;
use skytale_log_store::cluster::{Account, Cluster};
use skytale_log_store::fleet::{FleetConfig, FleetStore, NatsConfig};
use skytale_proto::LogId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Time from one append, or attempt at one, to the next.
const PACE: Duration = Duration::from_millis(20);
/// Time that the bare publisher waits for an acknowledgement, and pause between two attempts.
const BARE_TIMEOUT: Duration = Duration::from_millis(250);
const BARE_PAUSE: Duration = Duration::from_millis(100);
/// Time for which all is watched after the fault.
const WATCHED: Duration = Duration::from_secs(15);

/// Fault of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Its process is killed.
    Killed,
    /// It is asked to end (SIGTERM).
    Ended,
    /// It is asked to be a lame duck (`nats-server --signal ldm`), and killed five seconds later.
    LameDuck,
    /// The stream's leader is asked to step down; a second later it is killed.
    SteppedDown,
    /// It stalls for eight seconds.
    Frozen,
}

/// Server that it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The leader of the shard's stream.
    Leader,
    /// A follower that has the consumer of the node.
    Consumer,
    /// A follower that has not.
    Follower,
    /// The server that the node and the bare publisher are connected to.
    Connected,
}

const CASES: [(&str, Victim, Fault); 8] = [
    ("leader killed", Victim::Leader, Fault::Killed),
    (
        "follower with the node's consumer killed",
        Victim::Consumer,
        Fault::Killed,
    ),
    ("another follower killed", Victim::Follower, Fault::Killed),
    ("connected server killed", Victim::Connected, Fault::Killed),
    ("leader frozen for 8 s", Victim::Leader, Fault::Frozen),
    ("leader ended (SIGTERM)", Victim::Leader, Fault::Ended),
    ("leader a lame duck, then killed", Victim::Leader, Fault::LameDuck),
    ("leader stepped down, then killed", Victim::Leader, Fault::SteppedDown),
];

pub(crate) fn run(bench: &mut Bench, runtime: &Runtime, cluster: &Cluster) -> anyhow::Result<()> {
    let rounds = sized(5, 1);
    let mut gaps: Vec<Vec<Gaps>> = CASES.iter().map(|_| Vec::new()).collect();
    let account = cluster.account();
    for round in 0..rounds {
        // All kinds in turn, so that what else happens on the machine happens to all.
        for (index, (name, victim, fault)) in CASES.into_iter().enumerate() {
            let one = runtime.block_on(one(cluster, &account, victim, fault));
            let one = one.with_context(|| format!("{name}, round {round}"))?;
            gaps[index].push(one);
        }
    }
    bench.note("longest time without an acknowledgement, in seconds: median (least .. greatest)".to_owned());
    bench.note(format!(
        "{:<42} {:>22} {:>22} {:>22} {:>8} {:>6}",
        "", "through a node", "bare publisher", "at another node", "added", "meta"
    ));
    for ((name, ..), gaps) in CASES.iter().zip(&gaps) {
        let column = |of: fn(&Gaps) -> f64| {
            let values = || gaps.iter().map(of);
            let least = values().fold(f64::INFINITY, f64::min);
            format!(
                "{:.2} ({least:.2} .. {:.2})",
                median(values()),
                values().fold(0.0, f64::max)
            )
        };
        bench.note(format!(
            "{name:<42} {:>22} {:>22} {:>22} {:>8.2} {:>6}",
            column(|gaps| gaps.node),
            column(|gaps| gaps.bare),
            column(|gaps| gaps.other),
            median(gaps.iter().map(|gaps| gaps.node - gaps.bare)),
            gaps.iter().filter(|gaps| gaps.meta).count(),
        ));
    }
    bench.note("added: median of the differences of each fault; at another node: from one entry to the next at a reader there; meta: \
                how often the server also led the cluster's meta group");
    Ok(())
}

/// Gaps of one fault, in seconds.
struct Gaps {
    node: f64,
    bare: f64,
    other: f64,
    meta: bool,
}

async fn one(cluster: &Cluster, account: &Account, victim: Victim, fault: Fault) -> anyhow::Result<Gaps> {
    let context = account.context().await.map_err(anyhow::Error::msg)?;
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    // The stream, or its leader, may not exist yet: a node that opens makes it so.
    let store = open(account, None, folders[0].path()).await?;
    let stream = store.shard_of(&nobody(0).log()).context("a shard")?.stream();
    store.close().await?;
    let leader = leader(&context, &stream).await?;
    let (here, elsewhere) = match victim {
        Victim::Connected => ((leader + 1) % 3, (leader + 1) % 3),
        // Not connected to what fails.
        Victim::Leader => ((leader + 1) % 3, (leader + 2) % 3),
        Victim::Consumer | Victim::Follower => (leader, leader),
    };
    // Consumers are placed by the servers: until the node's is where it has to be.
    let (store, target) = loop {
        let store = open(account, Some(here), folders[0].path()).await?;
        let at = consumer(&context, &stream).await?;
        let target = match victim {
            Victim::Leader => leader,
            Victim::Connected => here,
            Victim::Consumer => at,
            Victim::Follower => 3 - leader - at,
        };
        let fits = match victim {
            Victim::Consumer | Victim::Follower => at != leader,
            Victim::Leader | Victim::Connected => true,
        };
        if fits {
            break (Arc::new(store), target);
        }
        store.close().await?;
    };
    // A node that only reads there: on a server that stays.
    let other_here = (0..3).find(|server| *server != target).unwrap_or(elsewhere);
    let other = open(account, Some(other_here), folders[1].path()).await?;
    let channels = [
        Channel::create(&*store, nobody(1), &[]).await?,
        Channel::create(&*store, nobody(2), &[]).await?,
    ];
    let meta = meta_leader(cluster).await? == format!("n{target}");

    let end = CancellationToken::new();
    let ours = tokio::spawn(append(store.clone(), channels[0], end.clone()));
    let bare = tokio::spawn(publish(
        bare_client(account, here).await?,
        &store,
        channels[1],
        end.clone(),
    )?);
    let seen = watch(&other, channels[0].log, end.clone()).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let from = Instant::now();
    match fault {
        Fault::Killed => cluster.kill(target),
        Fault::Ended => cluster.signal(target, "TERM"),
        Fault::LameDuck => {
            cluster.signal(target, "USR2");
            tokio::time::sleep(Duration::from_secs(5)).await;
            cluster.kill(target);
        }
        Fault::SteppedDown => {
            let step_down = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
            context.client().request(step_down, "".into()).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.kill(target);
        }
        Fault::Frozen => {
            cluster.signal(target, "STOP");
            tokio::time::sleep(Duration::from_secs(8)).await;
            cluster.signal(target, "CONT");
        }
    }
    tokio::time::sleep_until((from + WATCHED).into()).await;
    end.cancel();
    let gaps = Gaps {
        node: longest(&ours.await??, from),
        bare: longest(&bare.await??, from),
        other: longest(&seen.await?, from),
        meta,
    };
    store.close().await?;
    other.close().await?;
    if fault != Fault::Frozen {
        cluster.kill(target);
        cluster.run(target);
    }
    cluster.settled().await;
    Ok(gaps)
}

/// The longest time between two of these, from the last one before the fault on.
fn longest(times: &[Instant], from: Instant) -> f64 {
    let begun = times.iter().rposition(|time| *time <= from).unwrap_or_default();
    let gaps = times[begun..].windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64());
    let last = times
        .last()
        .map_or(WATCHED, |last| (from + WATCHED).saturating_duration_since(*last));
    // If nothing came any more, all of the rest.
    gaps.fold(last.as_secs_f64(), f64::max)
}

/// A node of one shard; connected to a server, and to whichever answers after that.
async fn open(account: &Account, here: Option<usize>, folder: &std::path::Path) -> anyhow::Result<FleetStore> {
    let settings = settings(account, folder, 1);
    let nats = match here {
        // The others are reported with the server.
        Some(here) => NatsConfig {
            servers: vec![account.servers[here].clone()],
            ..settings.nats
        },
        None => settings.nats,
    };
    let store = FleetStore::open(FleetConfig { nats, ..settings }).await?;
    store.ready().await?;
    Ok(store)
}

async fn bare_client(account: &Account, here: usize) -> anyhow::Result<async_nats::Client> {
    let options = async_nats::ConnectOptions::with_user_and_password(account.user.clone(), "secret".into())
        .ping_interval(Duration::from_secs(1));
    Ok(options.connect(&account.servers[here]).await?)
}

/// The server that leads a stream.
async fn leader(context: &jetstream::Context, stream: &str) -> anyhow::Result<usize> {
    for _ in 0..100 {
        if let Ok(stream) = context.get_stream(stream).await
            && let Some(leader) = stream
                .cached_info()
                .cluster
                .as_ref()
                .and_then(|cluster| cluster.leader.as_deref())
        {
            return number(leader);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("{stream} has no leader")
}

/// The server that has the newest consumer of a stream.
async fn consumer(context: &jetstream::Context, stream: &str) -> anyhow::Result<usize> {
    let stream = context.get_stream(stream).await?;
    let mut newest = None;
    let mut consumers = stream.consumers();
    while let Some(info) = consumers.next().await {
        let info = info?;
        if newest.as_ref().is_none_or(|(created, _)| *created < info.created) {
            let at = info.cluster.as_ref().and_then(|cluster| cluster.leader.clone());
            newest = Some((info.created, at));
        }
    }
    let (_, at) = newest.context("a consumer")?;
    number(&at.context("the consumer's server")?)
}

/// `n2` is server 2.
fn number(name: &str) -> anyhow::Result<usize> {
    Ok(name.trim_start_matches('n').parse()?)
}

/// The name of the server that leads the cluster's meta group, as the servers say.
async fn meta_leader(cluster: &Cluster) -> anyhow::Result<String> {
    let addresses: Vec<String> = cluster
        .ports
        .iter()
        .map(|port| format!("nats://127.0.0.1:{port}"))
        .collect();
    let options = async_nats::ConnectOptions::with_user_and_password("sys".into(), "secret".into());
    let client = options.connect(&addresses[..]).await?;
    let answer = client.request("$SYS.REQ.SERVER.PING.JSZ", "".into()).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
    Ok(answer["data"]["meta_cluster"]["leader"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

/// Appends one frame after another, each until it is accepted. Gives when each was.
async fn append(store: Arc<FleetStore>, channel: Channel, end: CancellationToken) -> anyhow::Result<Vec<Instant>> {
    let mut times = Vec::new();
    while !end.is_cancelled() {
        let frame = channel.message(FRAME_BYTES)?;
        let accepted = async {
            loop {
                match store.append(frame.clone()).await?.verdict().await {
                    Ok(_) => return anyhow::Ok(()),
                    Err(error) if error.code().is_retryable() => tokio::time::sleep(PACE).await,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        tokio::select! {
            accepted = accepted => accepted?,
            () = end.cancelled() => break,
        }
        times.push(Instant::now());
        tokio::time::sleep(PACE).await;
    }
    Ok(times)
}

/// Publishes one frame after another without a node, each until it is acknowledged. Gives when each was.
fn publish(
    client: async_nats::Client,
    store: &FleetStore,
    channel: Channel,
    end: CancellationToken,
) -> anyhow::Result<impl Future<Output = anyhow::Result<Vec<Instant>>> + Send + 'static> {
    let subject = store.shard_of(&channel.log).context("a shard")?.subject(&channel.log);
    Ok(async move {
        let mut times = Vec::new();
        while !end.is_cancelled() {
            let frame = channel.message(FRAME_BYTES)?;
            loop {
                let sent = client.request(subject.clone(), frame.encoded().clone());
                if let Ok(Ok(answer)) = tokio::time::timeout(BARE_TIMEOUT, sent).await
                    && String::from_utf8_lossy(&answer.payload).contains("\"seq\"")
                {
                    break;
                }
                if end.is_cancelled() {
                    return Ok(times);
                }
                tokio::time::sleep(BARE_PAUSE).await;
            }
            times.push(Instant::now());
            tokio::time::sleep(PACE).await;
        }
        Ok(times)
    })
}

/// Notes when a reader at a node sees entries.
async fn watch(store: &FleetStore, log: LogId, end: CancellationToken) -> anyhow::Result<JoinHandle<Vec<Instant>>> {
    let mut head = store.watch_head(log).await?;
    Ok(tokio::spawn(async move {
        let mut times = vec![Instant::now()];
        loop {
            tokio::select! {
                changed = head.changed() => if changed.is_err() { return times },
                () = end.cancelled() => return times,
            }
            times.push(Instant::now());
        }
    }))
}
