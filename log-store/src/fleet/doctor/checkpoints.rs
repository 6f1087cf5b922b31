//! Judges the answers on vouchers of nodes, purges of streams, and rights of the node's key.

use super::gather::{Facts, Found, Role};
use super::report::{Finding, Severity};
use crate::fleet::config::FleetConfig;
use crate::fleet::retention::is_unpurged;
use crate::fleet::shards::ShardId;
use std::time::Duration;

/// Streams that one finding names.
const NAMED_MAX: usize = 4;

/// All findings about checkpoints, purges and rights.
pub(super) fn judge(config: &FleetConfig, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(rights(facts));
    findings.extend(unpurged(config, facts, config.now_ms()));
    findings.extend(doubtful(facts));
    findings.extend(unattested(config, facts));
    findings
}

fn named(shards: &[ShardId]) -> String {
    let mut text = shards
        .iter()
        .take(NAMED_MAX)
        .map(|shard| shard.stream())
        .collect::<Vec<_>>()
        .join(", ");
    if shards.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", shards.len() - NAMED_MAX));
    }
    text
}

fn rights(facts: &Facts) -> Option<Finding> {
    let (found, severity) = match facts.rights.as_ref()? {
        Ok(problems) if problems.is_empty() => return None,
        Ok(problems) => (problems.join("; "), Severity::Critical),
        Err(problem) => (
            format!(
                "the servers do not say what this key may do ({problem}), as with an accounts.conf of an earlier version"
            ),
            Severity::Warning,
        ),
    };
    Some(Finding {
        severity,
        check: "rights",
        subject: "the key in relay.fleet.nats_key".to_owned(),
        found,
        means: "With rights of an earlier version, whoever steals a relay node's key can purge streams; without those of this version, \
                nobody vouches for checkpoints, and nothing is given up."
            .to_owned(),
        mend: vec![
            "run `skytale fleet nats` with your inventory, and copy each server's accounts.conf and nats-server.conf to its machine".to_owned(),
            "then reload each server: systemctl reload skytale-nats".to_owned(),
        ],
    })
}

fn unpurged(config: &FleetConfig, facts: &Facts, now_ms: u64) -> Option<Finding> {
    let retention = config.retention?;
    let late = facts
        .streams
        .iter()
        .filter_map(|looked| match (&looked.role, &looked.found) {
            (Role::Log(shard), Found::There(info, _))
                if is_unpurged(info, retention, now_ms, config.retention_every) =>
            {
                Some(*shard)
            }
            _ => None,
        });
    let late: Vec<ShardId> = late.collect();
    (!late.is_empty()).then(|| Finding {
        severity: Severity::Warning,
        check: "unpurged",
        subject: named(&late),
        found: format!(
            "it has messages that are older than {} times the retention of {}",
            1.75,
            shown(retention)
        ),
        means: "Readers do not get them. They fill the servers' disks, and a new relay node reads them.".to_owned(),
        mend: vec![
            "see that the keeper runs, and what it says: systemctl status skytale-keeper".to_owned(),
            "it waits for relay nodes that have not followed: stop those that are gone for good".to_owned(),
        ],
    })
}

fn shown(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 172_800 => format!("{} days", seconds / 86_400),
        seconds => format!("{seconds} s"),
    }
}

fn doubtful(facts: &Facts) -> Vec<Finding> {
    let all = facts.checkpoints.iter().filter_map(|(shard, judged)| {
        let judged = judged.as_ref().ok()?;
        let (sequence, problem) = judged.doubtful.iter().next_back()?;
        Some((shard, sequence, problem, judged.doubtful.len()))
    });
    let findings = all.map(|(shard, sequence, problem, count)| Finding {
        severity: Severity::Critical,
        check: "checkpoint-doubtful",
        subject: shard.stream(),
        found: match count {
            1 => format!("at {sequence}, {problem}"),
            count => format!("at {count} checkpoints nodes contradict each other; the last, at {sequence}: {problem}"),
        },
        means: "No node uses a state that too few nodes vouch for. Either somebody has a node's signing key, or a node has folded \
                something else than the others."
            .to_owned(),
        mend: vec![
            "compare the named nodes: stop the one that no other agrees with, move its `log` folder aside, and start it again".to_owned(),
            "if it goes on: take that node out of the inventory, run `skytale fleet nats`, and give all nodes the new fleet-nodes file"
                .to_owned(),
        ],
    });
    findings.collect()
}

fn unattested(config: &FleetConfig, facts: &Facts) -> Option<Finding> {
    let without = facts.checkpoints.iter().filter_map(|(shard, judged)| {
        let judged = judged.as_ref().ok()?;
        let first = facts
            .streams
            .iter()
            .find_map(|looked| match (&looked.role, &looked.found) {
                (Role::Log(of), Found::There(info, _)) if of == shard => Some(info.state.first_sequence),
                _ => None,
            })?;
        let begins = judged.attested.iter().any(|attested| attested.sequence + 1 == first);
        (first > 1 && !begins).then_some(*shard)
    });
    let without: Vec<ShardId> = without.collect();
    (!without.is_empty()).then(|| Finding {
        severity: Severity::Critical,
        check: "checkpoint-unattested",
        subject: named(&without),
        found: format!(
            "it no longer has its beginning, and there is no checkpoint before it that {} known nodes vouch for",
            config.witnesses
        ),
        means: "A relay node without data, or far behind, cannot join (SKY-1033). Those that run go on.".to_owned(),
        mend: vec![
            "see that `relay.fleet.nodes_file` is the fleet-nodes that `skytale fleet nats` wrote, and names all nodes".to_owned(),
            "if the fleet had fewer nodes until now, set `relay.fleet.witnesses` to 1 for the nodes that join, until the streams were \
             purged once more"
                .to_owned(),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::super::gather::Servers;
    use super::*;
    use crate::fleet::vouch::Judged;
    use skytale_proto::Region;

    #[test]
    fn old_rights_and_contradicting_nodes_are_critical() {
        let shard = ShardId {
            region: Region(0),
            index: 0,
        };
        let mut judged = Judged::default();
        judged
            .doubtful
            .insert(40, "relay-2 against relay-1, relay-3".to_owned());
        let mut facts = Facts {
            addresses: Vec::new(),
            servers: Servers::NotAsked,
            streams: Vec::new(),
            rights: Some(Ok(vec!["this node's NATS key may purge".to_owned()])),
            checkpoints: vec![(shard, Ok(judged))],
        };
        let found = rights(&facts).expect("a finding");
        assert_eq!((found.severity, found.check), (Severity::Critical, "rights"));
        let found = doubtful(&facts).remove(0);
        assert!(found.found.contains("at 40, relay-2 against"), "{found:?}");
        facts.rights = Some(Ok(Vec::new()));
        assert_eq!(rights(&facts), None);
        facts.rights = Some(Err("no answer".to_owned()));
        assert!(rights(&facts).is_some_and(|found| found.found.contains("earlier version")));
    }
}
