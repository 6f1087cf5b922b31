//! The fleet's keeper: purges the streams up to checkpoints, and writes nothing. No serving node has its key.
//!
//! ```text
//!   relay nodes   append, trim, vouch for checkpoints     may not purge
//!   the keeper    reads checkpoints, purges               may not publish to any stream
//! ```
//!
//! It purges a stream up to a checkpoint C only where all of this holds:
//!
//! - C is older than the retention, by this machine's clock *and* by a majority of clocks;
//! - enough known nodes vouch for C and for a later checkpoint D, and both can be read: a node may begin with C;
//! - all that C has is trimmed in D, and the checkpoints up to D say without a gap which messages are repeated;
//! - every node that was heard has followed the stream beyond C, and at least one was heard.
//!
//! Then it gives up the checkpoints before C. Each round has a connection of its own, so that a key that was
//! changed is used from the next round on.

use super::bucket::{self, Bucket};
use super::checkpoint::Checkpoint;
use super::clock::{Clocks, Voice};
use super::config::{FleetConfig, NatsAuth};
use super::connect::connect_once;
use super::error::OpenError;
use super::mirror;
use super::peers::{self, Place};
use super::retention::{is_older, is_unpurged};
use super::rights;
use super::shards::{ShardId, Shards};
use super::streams::{self, Found, stream_id};
use super::vouch::{Attested, covered};
use async_nats::jetstream;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::Info;
use skytale_proto::{LogId, Offset};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time to listen to nodes: longer than the interval between two messages of a node.
const HEARS_FOR: Duration = Duration::from_secs(6);
/// Checkpoints that are looked at for one that may be purged up to, in a round.
const CANDIDATES_MAX: usize = 4;

/// The keeper of a fleet.
#[derive(Clone, Debug)]
pub struct Keeper {
    /// The fleet; `nats.auth` is the keeper's own key.
    config: FleetConfig,
    hears_for: Duration,
}

/// Result of a round for one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The shard.
    pub shard: ShardId,
    /// The checkpoint up to which the stream was purged in this round, and how many messages went.
    pub purged: Option<(u64, u64)>,
    /// Reason why it was not, if that needs attention.
    pub problem: Option<String>,
    /// Its stream has messages that are far older than the retention.
    pub is_unpurged: bool,
}

/// One round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeeperRound {
    /// Relay nodes that were heard.
    pub nodes: usize,
    /// Result for each shard.
    pub shards: Vec<Kept>,
}

/// Positions heard from the nodes.
#[derive(Default)]
struct Heard {
    /// Lower bound for the position of each node.
    nodes: BTreeMap<peers::NodeNumber, BTreeMap<u32, Place>>,
}

impl Heard {
    /// Returns the position up to which all nodes have followed a shard's stream; `None` if one has not followed it, or
    /// nobody was heard.
    fn followed_by_all(&self, shard: ShardId, stream: u64) -> Option<u64> {
        let places = self.nodes.values().map(|followed| {
            let place = followed.get(&shard.number())?;
            (place.stream == stream).then_some(place.sequence)
        });
        places.min()?
    }
}

impl Keeper {
    /// The keeper of a fleet: `config.nats.auth` is its own key, and no node's.
    pub const fn new(config: FleetConfig) -> Self {
        Self {
            config,
            hears_for: HEARS_FOR,
        }
    }

    /// The same, listening to the nodes for so long in each round: for tests, whose nodes answer at once.
    #[must_use]
    pub const fn hearing_for(mut self, hears_for: Duration) -> Self {
        self.hears_for = hears_for;
        self
    }

    /// Keeps until `ended` is cancelled. `told` gets each round; the next one tries again what failed.
    pub async fn run(&self, ended: &CancellationToken, mut told: impl FnMut(Result<&KeeperRound, &OpenError>)) {
        loop {
            let round = tokio::select! {
                round = self.round() => round,
                () = ended.cancelled() => return,
            };
            match &round {
                Ok(round) => tracing::debug!(nodes = round.nodes, "a round of the keeper"),
                Err(error) => tracing::warn!(%error, "this round of the keeper failed; it is tried again"),
            }
            told(round.as_ref());
            tokio::select! {
                () = tokio::time::sleep(self.config.retention_every) => {}
                () = ended.cancelled() => return,
            }
        }
    }

    /// Whether the servers take the key, and it has a keeper's rights.
    pub async fn check(&self) -> Result<(), OpenError> {
        let (client, shards) = self.connect().await?;
        self.check_rights(&client, &shards).await
    }

    /// One round over all shards.
    pub async fn round(&self) -> Result<KeeperRound, OpenError> {
        let config = &self.config;
        let Some(retention) = config.retention else {
            return Err(OpenError::Config {
                problem: "relay.retention_s is 0: nothing is ever given up, and there is nothing to purge".into(),
            });
        };
        let (client, shards) = self.connect().await?;
        self.check_rights(&client, &shards).await?;
        let context = ContextBuilder::new()
            .timeout(config.request_timeout)
            .build(client.clone());
        let (heard, mut clocks) = self.hear(&client).await?;
        let mut infos = BTreeMap::new();
        for &shard in shards.all() {
            let asked = config.now_ms();
            if let Some((server, time_ms)) = streams::server_time(&context, &shard.stream()).await {
                clocks.hear(Voice::Server(server), time_ms, asked / 2 + config.now_ms() / 2);
            }
            let info = match streams::find(&context, &shard.stream()).await {
                Ok(Found::There(info)) => Ok(*info),
                Ok(Found::Missing) => Err("its stream is missing".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            infos.insert(shard, info);
        }
        let judged = clocks.judge();
        let own = config.now_ms();
        // The earlier of the two: neither this machine's clock nor the others' makes anything old by itself.
        let now_ms = match judged {
            Some(judged) if !judged.is_wrong => Ok(own.min(own.saturating_add_signed(judged.ahead_ms))),
            Some(_) => Err("this machine's clock is not the fleet's: set it (NTP)".to_owned()),
            None => Err("no other clock answers".to_owned()),
        };
        let mut round = KeeperRound {
            nodes: heard.nodes.len(),
            shards: Vec::new(),
        };
        for (shard, info) in infos {
            let mut kept = Kept {
                shard,
                purged: None,
                problem: None,
                is_unpurged: false,
            };
            let done = match (&info, &now_ms) {
                (Ok(info), Ok(now_ms)) => {
                    kept.is_unpurged = is_unpurged(info, retention, *now_ms, config.retention_every);
                    self.keep(&context, shard, info, &heard, retention, *now_ms).await
                }
                (Err(problem), _) | (_, Err(problem)) => Err(problem.clone()),
            };
            match done {
                Ok(purged) => kept.purged = purged,
                Err(problem) => {
                    tracing::warn!(%shard, %problem, "nothing was purged; it is tried again in the next round");
                    kept.problem = Some(problem);
                }
            }
            round.shards.push(kept);
        }
        Ok(round)
    }

    async fn connect(&self) -> Result<(async_nats::Client, Shards), OpenError> {
        let config = &self.config;
        let shards = config.shards().map_err(|problem| OpenError::Config { problem })?;
        if let Some(problem) = config.known_nodes.problem() {
            return Err(OpenError::Config { problem });
        }
        if let NatsAuth::NKeyFile(file) = &config.nats.auth {
            file.load().await?;
        }
        let client = connect_once(
            &config.nats,
            &config.nats.servers,
            &config.nats.auth,
            config.request_timeout,
        )
        .await?;
        Ok((client, shards))
    }

    async fn check_rights(&self, client: &async_nats::Client, shards: &Shards) -> Result<(), OpenError> {
        let Some(shard) = shards.all().first().copied() else {
            return Ok(());
        };
        let asked = rights::ask(client, self.config.request_timeout).await;
        let problems = match asked {
            Ok(rights) => rights::of_keeper(&rights, shard, shard.region),
            Err(problem) => vec![format!("its rights cannot be asked for: {problem}")],
        };
        if problems.is_empty() {
            return Ok(());
        }
        Err(OpenError::NoKeeper {
            problem: problems.join("; "),
        })
    }

    /// Hears where the nodes are, and how late it is there.
    async fn hear(&self, client: &async_nats::Client) -> Result<(Heard, Clocks), OpenError> {
        let config = &self.config;
        let (mut heard, mut clocks) = (Heard::default(), Clocks::new(config.clock_tolerance));
        peers::overhear(client, self.hears_for, |node, time_ms, followed| {
            clocks.hear(Voice::Node(node), time_ms, config.now_ms());
            let places = heard.nodes.entry(node).or_insert_with(|| followed.clone());
            // Of several reports in a node's name, the least: that keeps more.
            places.retain(|shard, _| followed.contains_key(shard));
            for (shard, place) in places {
                if let Some(said) = followed.get(shard) {
                    *place = if said.stream == place.stream && said.sequence < place.sequence {
                        *said
                    } else {
                        *place
                    };
                }
            }
        })
        .await
        .map_err(OpenError::jetstream("hear the relay nodes"))?;
        Ok((heard, clocks))
    }

    /// Purges one shard, if that may be; gives the checkpoint up to which, and how many messages went.
    async fn keep(
        &self,
        context: &jetstream::Context,
        shard: ShardId,
        info: &Info,
        heard: &Heard,
        retention: Duration,
        now_ms: u64,
    ) -> Result<Option<(u64, u64)>, String> {
        let (config, stream) = (&self.config, stream_id(info));
        for region in config.regions.iter().filter(|region| region.region != shard.region) {
            mirror::purge(context, shard, region.region, info.state.first_sequence).await?;
        }
        match streams::find(context, &bucket::stream(shard.region)).await {
            Ok(Found::There(_)) => {}
            // Made with the first checkpoint.
            Ok(Found::Missing) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
        let bucket = Bucket::there(context, config, shard.region)?;
        let judged = bucket.judged(shard, stream).await?;
        for (sequence, problem) in &judged.doubtful {
            tracing::error!(%shard, sequence, %problem, "a forged checkpoint, or a node that has folded something else");
        }
        let first = info.state.first_sequence;
        let mut purged = None;
        let Some((newest, older)) = judged.attested.split_last() else {
            return Ok(None);
        };
        let old = older
            .iter()
            .rev()
            .filter(|listed| listed.sequence >= first && is_older(listed.time_ms, retention, now_ms));
        let candidates: Vec<&Attested> = old.take(CANDIDATES_MAX).collect();
        if !candidates.is_empty() {
            let followed = heard
                .followed_by_all(shard, stream)
                .ok_or_else(|| match heard.nodes.len() {
                    0 => "no relay node was heard".to_owned(),
                    nodes => format!("of {nodes} relay nodes, one has not followed the stream yet"),
                })?;
            let Some(later) = bucket.get(shard, stream, newest).await? else {
                return Ok(None);
            };
            for chosen in candidates {
                if chosen.sequence > followed || covered(&judged.attested, chosen.sequence) < newest.sequence {
                    continue;
                }
                if let Some(checkpoint) = bucket.get(shard, stream, chosen).await?
                    && all_trimmed(&later, &checkpoint)
                {
                    purged = Some((chosen.sequence, purge(context, shard, chosen.sequence).await?));
                    break;
                }
            }
        }
        // The checkpoint that the stream's first message follows stays: a node begins there.
        let begins = purged.map_or_else(|| first.saturating_sub(1), |(chosen, _)| chosen);
        for sequence in judged.seen.range(..begins) {
            bucket.purge(shard, stream, *sequence).await?;
        }
        Ok(purged)
    }
}

async fn purge(context: &jetstream::Context, shard: ShardId, up_to: u64) -> Result<u64, String> {
    let stream = context.get_stream_no_info(shard.stream()).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let purged = stream.purge().sequence(up_to + 1).await;
    let purged = purged.map_err(|error| error.to_string())?.purged;
    tracing::info!(%shard, up_to, messages = purged, "purged the stream up to a checkpoint");
    Ok(purged)
}

/// Whether all entries that an earlier checkpoint had are given up in a later one.
fn all_trimmed(later: &Checkpoint, earlier: &Checkpoint) -> bool {
    let firsts: BTreeMap<LogId, Offset> = later
        .logs
        .iter()
        .map(|log| (log.log(), log.state().first_available()))
        .collect();
    earlier
        .logs
        .iter()
        .all(|log| firsts.get(&log.log()).is_some_and(|first| *first > log.state().head()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::Region;

    #[test]
    fn nothing_is_purged_that_a_node_has_not_followed_or_that_nobody_speaks_for() {
        let shard = ShardId {
            region: Region(0),
            index: 1,
        };
        let at = |sequence| Place { stream: 7, sequence };
        let mut heard = Heard::default();
        assert_eq!(heard.followed_by_all(shard, 7), None);
        heard.nodes.insert([1; 16], BTreeMap::from([(shard.number(), at(90))]));
        heard.nodes.insert([2; 16], BTreeMap::from([(shard.number(), at(40))]));
        assert_eq!(heard.followed_by_all(shard, 7), Some(40));
        assert_eq!(heard.followed_by_all(shard, 8), None, "another stream of that name");
        heard.nodes.insert([3; 16], BTreeMap::new());
        assert_eq!(heard.followed_by_all(shard, 7), None, "one is still at the beginning");
    }
}
