//! Problems of the streams, mirrors and buckets, by the answers.

use super::commands::Commands;
use super::gather::{Facts, Found, Looked, Role, Servers};
use super::report::{Finding, Severity, StreamReport};
use crate::fleet::bucket::loses;
use crate::fleet::config::FleetConfig;
use crate::fleet::shards::Shards;
use crate::fleet::streams::{problem, wanted};
use async_nats::jetstream::stream::{Config, Info, PeerInfo};
use skytale_proto::Region;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Streams that one finding names.
const NAMED_MAX: usize = 4;
/// A leader hears from each copy every second.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
/// A copy, or a mirror, that is further behind is not just the slowest under load.
const BEHIND: u64 = 1_000;
/// A mirror hears from its origin every few seconds, also when nothing is appended.
const MIRROR_HEARS_WITHIN: Duration = Duration::from_secs(30);

/// All findings about streams.
pub(super) fn judge(config: &FleetConfig, shards: &Shards, facts: &Facts, commands: &Commands) -> Vec<Finding> {
    let judge = Judge {
        config,
        shards,
        facts,
        commands,
        well: well(facts),
    };
    let mut groups = Groups::default();
    for looked in &facts.streams {
        judge.one(looked, &mut groups);
    }
    groups.findings()
}

/// All streams, as they are reported.
pub(super) fn report(facts: &Facts) -> Vec<StreamReport> {
    let reports = facts.streams.iter().map(|looked| {
        let (state, info) = match &looked.found {
            Found::There(info, _) => ("there", Some(info)),
            Found::Missing => ("missing", None),
            Found::Silent(_) => ("silent", None),
        };
        let cluster = info.and_then(|info| info.cluster.as_ref());
        StreamReport {
            name: looked.name.clone(),
            kind: match looked.role {
                Role::Log(_) => "log",
                Role::Mirror(..) => "mirror",
                Role::Checkpoints(_) => "checkpoints",
            },
            state,
            leader: cluster.and_then(|cluster| cluster.leader.clone()),
            copies: cluster.map_or_else(Vec::new, |cluster| {
                cluster.replicas.iter().map(|peer| peer.name.clone()).collect()
            }),
            last: info.map(|info| info.state.last_sequence),
        }
    });
    reports.collect()
}

/// Servers that answer and have JetStream; `None` where that is unknown.
fn well(facts: &Facts) -> Option<BTreeSet<&str>> {
    match &facts.servers {
        Servers::Known(servers) => {
            let well = servers.iter().filter(|server| server.jetstream.is_some());
            Some(well.map(|server| server.name.as_str()).collect())
        }
        _ => None,
    }
}

/// Findings of the same kind about several streams are one.
#[derive(Default)]
struct Groups(BTreeMap<(Severity, &'static str, String), (Finding, Vec<String>)>);

impl Groups {
    fn add(&mut self, finding: Finding) {
        let key = (finding.severity, finding.check, finding.found.clone());
        let subject = finding.subject.clone();
        self.0
            .entry(key)
            .or_insert_with(|| (finding, Vec::new()))
            .1
            .push(subject);
    }

    fn findings(self) -> Vec<Finding> {
        let findings = self.0.into_values().map(|(mut finding, subjects)| {
            let more = subjects.len().saturating_sub(NAMED_MAX);
            finding.subject = subjects.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
            if more > 0 {
                finding.subject.push_str(&format!(" and {more} more"));
            }
            finding
        });
        findings.collect()
    }
}

struct Judge<'a> {
    config: &'a FleetConfig,
    shards: &'a Shards,
    facts: &'a Facts,
    commands: &'a Commands,
    /// The servers that answer with JetStream; `None` where that is unknown.
    well: Option<BTreeSet<&'a str>>,
}

/// Facts known of one stream.
struct Said<'a> {
    groups: &'a mut Groups,
    name: &'a str,
}

impl Said<'_> {
    fn find(
        &mut self,
        severity: Severity,
        check: &'static str,
        found: impl Into<String>,
        means: &str,
        mend: Vec<String>,
    ) {
        self.groups.add(Finding {
            severity,
            check,
            subject: self.name.to_owned(),
            found: found.into(),
            means: means.to_owned(),
            mend,
        });
    }
}

impl Judge<'_> {
    fn one(&self, looked: &Looked, groups: &mut Groups) {
        let mut said = Said {
            groups,
            name: &looked.name,
        };
        match &looked.found {
            Found::Silent(reason) => self.silent(looked.role, reason, &mut said),
            Found::Missing => self.missing(looked.role, &mut said),
            Found::There(info, _) => {
                self.copies(looked.role, info, &mut said);
                match looked.role {
                    Role::Log(shard) => {
                        let wanted = wanted(shard, self.shards, self.config);
                        self.settings(&info.config, &wanted, &mut said);
                        self.placement(info, shard.region, &mut said);
                    }
                    Role::Mirror(shard, region) => {
                        self.placement(info, region, &mut said);
                        self.mirror(info, &shard.stream(), &mut said);
                    }
                    Role::Checkpoints(region) => {
                        self.placement(info, region, &mut said);
                        if let Some(problem) = loses(&info.config) {
                            said.find(
                                Severity::Critical,
                                "stream-settings",
                                problem,
                                "Whoever has a relay node's key could take checkpoints away. Relay nodes write none there.",
                                vec![format!(
                                    "see {}; where nothing was purged yet, remove it: a relay node makes it again",
                                    self.commands.stream(&format!("info {}", looked.name))
                                )],
                            );
                        }
                    }
                }
            }
        }
    }

    fn silent(&self, role: Role, reason: &str, said: &mut Said<'_>) {
        let (severity, means) = match role {
            Role::Log(_) => (
                Severity::Critical,
                "Appends to its channels are refused as retryable (SKY-1022), and authors keep them. Reads get what relay nodes \
                 have followed.",
            ),
            Role::Mirror(..) => (
                Severity::Warning,
                "Relay nodes of its region follow the stream itself, from afar.",
            ),
            Role::Checkpoints(_) => (
                Severity::Warning,
                "No checkpoint is written or read: an empty relay node may be unable to join, and nothing is given up.",
            ),
        };
        said.find(
            severity,
            "stream-silent",
            format!("it does not answer: {reason}"),
            means,
            vec![
                "start the servers that do not answer: systemctl start skytale-nats".to_owned(),
                format!("if all do, see its servers: {}", self.commands.stream("report")),
            ],
        );
    }

    fn missing(&self, role: Role, said: &mut Said<'_>) {
        let others = self.facts.streams.iter();
        let mut logs = others.filter(|looked| matches!(looked.role, Role::Log(_)));
        match role {
            Role::Log(_) if logs.clone().all(|looked| matches!(looked.found, Found::Missing)) => said.find(
                Severity::Critical,
                "stream-missing",
                "no stream of the fleet exists",
                "There is no log yet, or all of it is gone: relay nodes that followed it stop with SKY-1014.",
                vec![
                    "of a new fleet: start a relay node, which makes the streams".to_owned(),
                    format!("of a fleet that had them: {}", self.commands.stream("restore BACKUP-DIR")),
                ],
            ),
            Role::Log(_) => said.find(
                Severity::Critical,
                "stream-missing",
                "the stream does not exist, and others of the fleet do",
                "Relay nodes that followed it have stopped (SKY-1014) and serve reads alone. Delete nothing of theirs: they have \
                 what the stream had.",
                vec![
                    format!("restore it from a backup: {}", self.commands.stream("restore BACKUP-DIR")),
                    "then restart the relay nodes one after the other: systemctl restart skytale-relay".to_owned(),
                ],
            ),
            Role::Mirror(shard, region) => {
                let origin = logs.any(|looked| looked.role == Role::Log(shard) && matches!(looked.found, Found::There(..)));
                if origin && self.has_begun(region) {
                    said.find(
                        Severity::Warning,
                        "mirror-missing",
                        format!("the mirror in region {} does not exist", region.0),
                        "Relay nodes of that region follow the stream itself, from afar: while regions are cut off from each \
                         other they get nothing of it.",
                        vec![format!(
                            "restart a relay node of region {}, which makes it: systemctl restart skytale-relay",
                            region.0
                        )],
                    );
                }
            }
            Role::Checkpoints(region) => self.no_checkpoints(region, said),
        }
    }

    /// Whether relay nodes run in a region, as far as one can see: they have made mirrors there, or its cluster is its own.
    fn has_begun(&self, region: Region) -> bool {
        let mirrors = self.facts.streams.iter();
        let mut mirrors = mirrors.filter(|looked| matches!(looked.role, Role::Mirror(_, at) if at == region));
        let cluster = |of: Region| self.config.placement(of).and_then(|placement| placement.cluster);
        let shared = self.config.regions.iter().filter(|other| other.region != region);
        let shared = shared.filter(|other| cluster(other.region) == cluster(region)).count() > 0;
        !shared || self.config.here == Some(region) || mirrors.any(|looked| matches!(looked.found, Found::There(..)))
    }

    fn no_checkpoints(&self, region: Region, said: &mut Said<'_>) {
        let infos = self
            .facts
            .streams
            .iter()
            .filter_map(|looked| match (&looked.role, &looked.found) {
                (Role::Log(shard), Found::There(info, _)) if shard.region == region => Some(info),
                _ => None,
            });
        let (mut given_up, mut due) = (false, false);
        for info in infos {
            given_up |= info.state.first_sequence > 1;
            due |= info.state.last_sequence > 2 * self.config.checkpoint_every;
        }
        let mend = vec!["see why in the logs of the relay nodes, which write them".to_owned()];
        if given_up {
            said.find(
                Severity::Critical,
                "checkpoints-missing",
                "there is no stream of checkpoints, and streams no longer have their beginning",
                "A relay node without data, or far behind, cannot join. Those that run go on.",
                mend,
            );
        } else if due {
            said.find(
                Severity::Warning,
                "checkpoints-missing",
                "there is no stream of checkpoints, and one is due",
                "An empty relay node reads everything, and nothing is given up.",
                mend,
            );
        }
    }

    fn settings(&self, found: &Config, wanted: &Config, said: &mut Said<'_>) {
        if found.num_replicas < wanted.num_replicas {
            let severity = if self.config.allow_weaker {
                Severity::Warning
            } else {
                Severity::Critical
            };
            let edit = format!("edit {} --replicas {} --force", said.name, wanted.num_replicas);
            said.find(
                severity,
                "replicas-fewer",
                format!(
                    "it is kept in {} copies, and the configuration says {}",
                    found.num_replicas, wanted.num_replicas
                ),
                "Losing a server can lose what was acknowledged. Relay nodes do not start, unless allow_weaker is set.",
                vec![self.commands.stream(&edit)],
            );
        }
        let Some(problem) = problem(found, wanted, true) else {
            return;
        };
        let other_metadata = wanted
            .metadata
            .iter()
            .any(|(key, value)| found.metadata.get(key) != Some(value));
        let mend = if other_metadata {
            vec![
                "set `relay.fleet.regions` and `relay.fleet.checkpoint_every` of this configuration to what the stream says"
                    .to_owned(),
            ]
        } else {
            let limits = "--max-age=-1 --max-bytes=-1 --max-msgs=-1 --max-msgs-per-subject=-1 --allow-batch --force";
            vec![
                self.commands.stream(&format!("edit {} {limits}", said.name)),
                format!(
                    "what cannot be edited: see {}",
                    self.commands.stream(&format!("info {}", said.name))
                ),
            ]
        };
        said.find(
            Severity::Critical,
            "stream-settings",
            problem,
            "Relay nodes with this configuration do not start. What a server gives up by itself is lost to readers that are behind.",
            mend,
        );
    }

    fn placement(&self, info: &Info, region: Region, said: &mut Said<'_>) {
        let wanted = self.config.placement(region).and_then(|placement| placement.cluster);
        let found = info.cluster.as_ref().and_then(|cluster| cluster.name.clone());
        if let (Some(wanted), Some(found)) = (wanted, found)
            && wanted != found
        {
            let edit = format!("edit {} --cluster {wanted} --force", said.name);
            said.find(
                Severity::Warning,
                "stream-placement",
                format!("it is kept in cluster {found}, and the configuration says {wanted}"),
                "Appends, or reads, of its region cross to another region.",
                vec![self.commands.stream(&edit)],
            );
        }
    }

    fn copies(&self, role: Role, info: &Info, said: &mut Said<'_>) {
        let Some(cluster) = &info.cluster else { return };
        let step_down = self.commands.stream(&format!("cluster step-down {}", said.name));
        let leader = cluster.leader.as_deref().filter(|leader| !leader.is_empty());
        if leader.is_none() {
            let severity = match role {
                Role::Log(_) => Severity::Critical,
                _ => Severity::Warning,
            };
            said.find(
                severity,
                "stream-leader",
                "no server leads it",
                "Nothing is appended to it until one does: appends to its channels are refused as retryable (SKY-1022), and authors keep them.",
                vec![
                    "start the servers that do not answer: systemctl start skytale-nats".to_owned(),
                    "if all answer, wait a few seconds for an election, then run `skytale fleet doctor` again"
                        .to_owned(),
                ],
            );
            return;
        }
        let there = 1 + cluster.replicas.len();
        if there < info.config.num_replicas {
            said.find(
                Severity::Warning,
                "copy-missing",
                format!("{there} servers have a copy, and {} should", info.config.num_replicas),
                "Appends go on. The next server that is lost may stop them.",
                vec![format!(
                    "start a server in cluster {}, under a new name or an old one: JetStream gives it the missing copies by itself",
                    cluster.name.as_deref().unwrap_or("of the stream")
                )],
            );
        }
        for peer in cluster.replicas.iter().filter(|peer| self.is_told(peer)) {
            if let Some(problem) = behind(peer) {
                said.find(
                    Severity::Warning,
                    "copy-behind",
                    format!("the copy at {} {problem}", peer.name),
                    "Appends rest on the other copies.",
                    vec![
                        "wait, if its server has just started or is under load".to_owned(),
                        format!("if it does not catch up: {step_down}"),
                    ],
                );
            }
        }
    }

    /// Whether a copy is reported by itself: that of a server that does not answer is reported with the server.
    fn is_told(&self, peer: &PeerInfo) -> bool {
        self.well.as_ref().is_none_or(|well| well.contains(peer.name.as_str()))
    }

    fn mirror(&self, info: &Info, origin: &str, said: &mut Said<'_>) {
        let found = match (&info.config.mirror, &info.mirror) {
            (None, _) => Some("it is no mirror".to_owned()),
            (Some(source), _) if source.name != origin => Some(format!("it is a mirror of {}", source.name)),
            (_, None) => None,
            (_, Some(source)) if source.lag > BEHIND => {
                Some("it is more than 1,000 messages behind its stream".to_owned())
            }
            (_, Some(source)) if source.active.is_none_or(|heard| heard > MIRROR_HEARS_WITHIN) => {
                Some("it does not hear from its stream".to_owned())
            }
            _ => None,
        };
        if let Some(found) = found {
            said.find(
                Severity::Warning,
                "mirror-behind",
                found,
                "Relay nodes of its region follow the stream itself, from afar, until it keeps up again.",
                vec![
                    "see that the gateways between the regions are up: `skytale fleet doctor` in the other region"
                        .to_owned(),
                    format!(
                        "if they are: {}",
                        self.commands.stream(&format!("cluster step-down {}", said.name))
                    ),
                ],
            );
        }
    }
}

/// Returns the problem of a copy, as its leader reports it.
fn behind(peer: &PeerInfo) -> Option<String> {
    if peer.offline || peer.active.is_zero() || peer.active > HEARD_WITHIN {
        return Some("is not heard by its leader".to_owned());
    }
    let lag = peer.lag.unwrap_or(0);
    (!peer.current && lag > BEHIND).then(|| "is more than 1,000 operations behind".to_owned())
}
