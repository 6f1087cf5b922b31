//! Problems of the servers, by their answers.

use super::clock;
use super::commands::Commands;
use super::gather::{Address, Facts, Found, JetStream, Server, Servers, Silence};
use super::majority;
use super::report::{Finding, ServerReport, Severity};
use crate::fleet::config::MESSAGE_OVERHEAD_BYTES;
use skytale_proto::limits;
use std::collections::{BTreeMap, BTreeSet};

/// The oldest version with atomic batches.
const VERSION_MIN: (u32, u32) = (2, 12);
/// A store with less room than this, two batches, takes appends by chance.
const FULL_BYTES: u64 = 2 << 20;
/// Less room than one in so many is reported.
const NEARLY_FULL: u64 = 7;
const START: &str = "start it again on its machine: systemctl start skytale-nats";
const RESTART: &str = "then restart it on its machine: systemctl restart skytale-nats";

/// All findings about servers.
pub(super) fn judge(facts: &Facts, commands: &Commands) -> Vec<Finding> {
    let mut findings = Vec::new();
    let silent = silent(facts);
    addresses(facts, silent.len(), &mut findings);
    match &facts.servers {
        Servers::NotAsked => {}
        Servers::Unknown(reason) => findings.push(unknown(reason)),
        Servers::Known(servers) => {
            for (name, copies) in &silent {
                findings.push(silent_server(name, *copies, commands));
            }
            for server in servers {
                one(server, commands, &mut findings);
            }
            versions(servers, &mut findings);
            majority::judge(servers, silent.len(), &mut findings);
            meta(servers, &silent, &mut findings);
        }
    }
    payloads(facts, &mut findings);
    clock::judge(facts, &mut findings);
    findings
}

/// All servers, as they are reported.
pub(super) fn report(facts: &Facts) -> Vec<ServerReport> {
    let mut reports: BTreeMap<String, ServerReport> = BTreeMap::new();
    for greeting in facts
        .addresses
        .iter()
        .filter_map(|address| address.greeting.as_ref().ok())
    {
        let report = ServerReport {
            name: greeting.name.clone(),
            answers: true,
            version: Some(greeting.version.clone()),
            ..ServerReport::default()
        };
        reports.insert(greeting.name.clone(), report);
    }
    let leader = facts
        .answering()
        .iter()
        .find_map(|server| server.jetstream.as_ref()?.meta_leader.clone());
    for server in facts.answering() {
        let there = server.jetstream.as_ref();
        let report = ServerReport {
            name: server.name.clone(),
            cluster: server.cluster.clone(),
            answers: true,
            version: Some(server.version.clone()),
            jetstream: Some(there.is_some()),
            sync_always: there.map(|there| there.sync_always),
            stored_bytes: there.map(|there| there.stored),
            stored_bytes_max: there.and_then(|there| there.stored_max),
            clock_ahead_ms: server.clock.map(|clock| clock.ahead_ms),
            leads_meta: leader.as_ref().map(|leader| *leader == server.name),
        };
        reports.insert(server.name.clone(), report);
    }
    for name in silent(facts).into_keys() {
        let report = ServerReport {
            name: name.clone(),
            ..ServerReport::default()
        };
        reports.entry(name).or_insert(report);
    }
    reports.into_values().collect()
}

/// Servers that the others or a stream know and that do not answer, each with how many streams have a copy there.
fn silent(facts: &Facts) -> BTreeMap<String, usize> {
    let Servers::Known(servers) = &facts.servers else {
        return BTreeMap::new();
    };
    let answering: BTreeSet<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let mut known = BTreeMap::new();
    // Of a server that was removed or has just come the leader knows, and not yet the others.
    let leads = |server: &&Server| {
        let there = server.jetstream.as_ref();
        there.is_some_and(|there| there.meta_leader.as_ref() == Some(&server.name))
    };
    let leader = servers.iter().find(leads).map(std::slice::from_ref);
    for there in leader
        .unwrap_or(servers)
        .iter()
        .filter_map(|server| server.jetstream.as_ref())
    {
        for name in there.meta_leader.iter().chain(&there.meta_peers) {
            known.entry(facts.name_of(name)).or_insert(0);
        }
    }
    for looked in &facts.streams {
        let Found::There(info, _) = &looked.found else { continue };
        let cluster = info.cluster.iter();
        let names = cluster.flat_map(|cluster| {
            let replicas = cluster.replicas.iter().map(|peer| &peer.name);
            cluster
                .leader
                .iter()
                .filter(|leader| !leader.is_empty())
                .chain(replicas)
        });
        for name in names {
            *known.entry(facts.name_of(name)).or_insert(0) += 1;
        }
    }
    known.retain(|name, _| !answering.contains(name.as_str()));
    known
}

fn addresses(facts: &Facts, silent: usize, findings: &mut Vec<Finding>) {
    let of = |address: &Address, severity, check, found: &str, means: &str, mend: Vec<String>| Finding {
        severity,
        check,
        subject: address.url.clone(),
        found: found.to_owned(),
        means: means.to_owned(),
        mend,
    };
    let answers = facts
        .addresses
        .iter()
        .filter(|address| address.greeting.is_ok())
        .count();
    for address in &facts.addresses {
        match &address.greeting {
            Ok(_) => {}
            Err(Silence::Denied(error)) => findings.push(of(
                address,
                Severity::Critical,
                "key-refused",
                &format!("the server refuses `relay.fleet.nats_key`: {error}"),
                "Relay nodes with this key append nothing at this server, and read what they have followed.",
                vec![
                    "write the servers' users: skytale fleet nats --inventory inventory.toml --out conf".to_owned(),
                    "copy conf/SERVER/accounts.conf to the server's machine, then there: systemctl reload skytale-nats"
                        .to_owned(),
                ],
            )),
            Err(Silence::Nobody(error)) => {
                let severity = if answers == 0 {
                    Severity::Critical
                } else {
                    Severity::Warning
                };
                let means = if answers == 0 {
                    "No configured server answers: no append is taken, and reads get what relay nodes have followed."
                } else {
                    "Relay nodes connect to the other servers of their configuration."
                };
                let mut mend = vec!["start the server on its machine: systemctl start skytale-nats".to_owned()];
                if silent == 0 {
                    mend.push(
                        "if there is no such server any more, take its address out of `relay.fleet.nats`".to_owned(),
                    );
                }
                findings.push(of(
                    address,
                    severity,
                    "address-silent",
                    &format!("no server answers: {error}"),
                    means,
                    mend,
                ));
            }
        }
    }
}

fn unknown(reason: &str) -> Finding {
    Finding {
        severity: Severity::Unknown,
        check: "servers-unknown",
        subject: "all servers".to_owned(),
        found: format!("the system account cannot be asked: {reason}"),
        means: "Nobody knows whether servers sync before they acknowledge, whether JetStream runs on each, how full their \
                stores are, and what their clocks say."
            .to_owned(),
        mend: vec![
            "name a key of the system account in `relay.fleet.sync_key`: the node's relay-sync.nk, or operator-system.nk"
                .to_owned(),
        ],
    }
}

fn silent_server(name: &str, copies: usize, commands: &Commands) -> Finding {
    let id = Commands::peer(name);
    Finding {
        severity: Severity::Warning,
        check: "server-silent",
        subject: name.to_owned(),
        found: format!("the cluster knows this server, and it does not answer; {copies} of the fleet's streams have a copy there"),
        means: "Appends and reads go on while a majority of each stream's copies is there: with three copies, the next server \
                that is lost stops appends."
            .to_owned(),
        mend: vec![
            START.to_owned(),
            format!("if its machine is lost, start a server of the same name with an empty store (conf/{id}): JetStream copies its streams to it"),
            format!(
                "to replace it by a server of another name, start that one, and then: {}",
                commands.server(&format!("cluster peer-remove {id}"))
            ),
        ],
    }
}

fn one(server: &Server, commands: &Commands, findings: &mut Vec<Finding>) {
    let mut find = |severity, check, found: String, means: &str, mend: Vec<String>| {
        findings.push(Finding {
            severity,
            check,
            subject: server.name.clone(),
            found,
            means: means.to_owned(),
            mend,
        });
    };
    if version(&server.version).is_some_and(|version| version < VERSION_MIN) {
        find(
            Severity::Critical,
            "server-version",
            format!(
                "it runs nats-server {}, which has no atomic batches (2.12)",
                server.version
            ),
            "Appends to streams that it leads are refused.",
            vec![format!("install nats-server 2.12 or later; {RESTART}")],
        );
    }
    let Some(there) = &server.jetstream else {
        find(
            Severity::Warning,
            "jetstream-disabled",
            "the server runs, and JetStream is disabled: its store's disk is full or broken, or it is not configured"
                .to_owned(),
            "Its copies of streams take nothing. Appends go on while a majority of each stream's copies is there.",
            vec![
                "see why in its log, and make room on the file system of its `store_dir`".to_owned(),
                RESTART.to_owned(),
            ],
        );
        return;
    };
    if !there.sync_always {
        find(
            Severity::Critical,
            "sync-interval",
            "`sync_interval` is not `always`".to_owned(),
            "A crash of several machines at once loses messages that were acknowledged. So relay nodes do not start, and those \
             that run take no more appends (SKY-1014), unless allow_weaker is set.",
            vec![
                "set `sync_interval: always` in the `jetstream` block of its nats-server.conf".to_owned(),
                RESTART.to_owned(),
            ],
        );
    }
    store(server, there, commands, findings);
}

/// Checks the servers' maximum payloads, as far as they are known.
fn payloads(facts: &Facts, findings: &mut Vec<Finding>) {
    let needed = (limits::FRAME_BYTES_MAX + MESSAGE_OVERHEAD_BYTES) as u64;
    let greetings = facts
        .addresses
        .iter()
        .filter_map(|address| address.greeting.as_ref().ok());
    let greetings = greetings.map(|greeting| (&greeting.name, greeting.max_payload));
    let said = facts
        .answering()
        .iter()
        .filter_map(|server| Some((&server.name, server.max_payload?)));
    let taken: BTreeMap<&String, u64> = greetings.chain(said).collect();
    for (name, taken) in taken.into_iter().filter(|(_, taken)| *taken < needed) {
        findings.push(Finding {
            severity: Severity::Critical,
            check: "max-payload",
            subject: name.clone(),
            found: format!("it takes messages of {taken} bytes, and a frame may have {needed}"),
            means: "Relay nodes do not start at it, and large frames are refused.".to_owned(),
            mend: vec![
                "set `max_payload: 2MB` in its nats-server.conf".to_owned(),
                "then on its machine: systemctl reload skytale-nats".to_owned(),
            ],
        });
    }
}

fn store(server: &Server, there: &JetStream, commands: &Commands, findings: &mut Vec<Finding>) {
    let Some(most) = there.stored_max else { return };
    let free = most.saturating_sub(there.stored);
    let full = free < FULL_BYTES.max(most / 100);
    if !full && free >= most / NEARLY_FULL {
        return;
    }
    let (severity, means) = if full {
        (
            Severity::Critical,
            "Streams that it leads take no more appends: they are refused as retryable (SKY-1022), and authors keep them.",
        )
    } else {
        (
            Severity::Warning,
            "When it is full, streams that it leads take no more appends.",
        )
    };
    findings.push(Finding {
        severity,
        check: "store-full",
        subject: server.name.clone(),
        found: format!(
            "its streams take {} of {most} bytes (`max_file`), {free} are free",
            there.stored
        ),
        means: means.to_owned(),
        mend: vec![
            format!("raise `max_file` in its nats-server.conf if its disk has room; {RESTART}"),
            "or keep entries for a shorter time: `relay.retention_s` of all nodes".to_owned(),
            format!(
                "or add a server, and move copies there, one stream at a time: {}",
                commands.stream(&format!("cluster peer-remove STREAM {}", server.name))
            ),
        ],
    });
}

fn versions(servers: &[Server], findings: &mut Vec<Finding>) {
    let versions: BTreeSet<&str> = servers.iter().map(|server| server.version.as_str()).collect();
    if versions.len() < 2 {
        return;
    }
    let shown = servers
        .iter()
        .map(|server| format!("{} {}", server.name, server.version));
    findings.push(Finding {
        severity: Severity::Warning,
        check: "versions-differ",
        subject: "all servers".to_owned(),
        found: format!("servers run several versions: {}", shown.collect::<Vec<_>>().join(", ")),
        means: "Nothing during an upgrade. Not meant to last.".to_owned(),
        mend: vec![format!(
            "install the same version on all, one after the other; {RESTART}"
        )],
    });
}

fn meta(servers: &[Server], silent: &BTreeMap<String, usize>, findings: &mut Vec<Finding>) {
    let groups: Vec<&JetStream> = servers.iter().filter_map(|server| server.jetstream.as_ref()).collect();
    let size = groups.iter().map(|there| there.meta_size).max().unwrap_or(0);
    if size == 0 {
        // A server alone has no group.
        return;
    }
    let quorum = size / 2 + 1;
    let present = groups.len();
    let leader = groups.iter().find_map(|there| there.meta_leader.as_deref());
    let leads = leader.is_some_and(|leader| servers.iter().any(|server| server.name == leader));
    let missing = || silent.keys().cloned().collect::<Vec<_>>().join(", ");
    if !leads {
        let found = match leader {
            Some(leader) => format!("its leader is {leader}, which does not answer"),
            None => "it has no leader".to_owned(),
        };
        let mend = if present >= quorum {
            vec!["wait a few seconds for an election, then run `skytale fleet doctor` again".to_owned()]
        } else {
            vec![format!("start servers until {quorum} of {size} answer ({})", missing())]
        };
        findings.push(Finding {
            severity: Severity::Critical,
            check: "meta-leader",
            subject: "JetStream's meta group".to_owned(),
            found: format!("{found}; {present} of its {size} servers answer, and {quorum} are needed"),
            means: "Streams with a leader take appends. No stream, mirror or consumer can be made: relay nodes do not start, and \
                    those that lose their place in a stream wait."
                .to_owned(),
            mend,
        });
    } else if present <= quorum && size > 1 && silent.is_empty() && present == servers.len() {
        findings.push(Finding {
            severity: Severity::Warning,
            check: "meta-quorum",
            subject: "JetStream's meta group".to_owned(),
            found: format!("{present} of its {size} servers answer, and all of these are needed"),
            means: "The next server that is lost stops it: no stream, mirror or consumer can be made then.".to_owned(),
            mend: vec![
                "start another server of the fleet, under a new name or an old one: it joins by itself".to_owned(),
            ],
        });
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches('v').split('.');
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::super::gather::{Looked, Role};
    use super::*;
    use std::time::SystemTime;

    fn server(name: &str, change: impl FnOnce(&mut JetStream)) -> Server {
        let mut there = JetStream {
            sync_always: true,
            stored: 0,
            stored_max: Some(1 << 30),
            meta_leader: Some("n1".into()),
            meta_peers: ["n1", "n2", "n3"].map(str::to_owned).into(),
            meta_size: 3,
        };
        change(&mut there);
        Server {
            name: name.into(),
            version: "2.15.1".into(),
            max_payload: Some(2 << 20),
            jetstream: Some(there),
            ..Server::default()
        }
    }

    fn found(servers: Vec<Server>) -> Vec<(&'static str, String, Severity)> {
        let facts = Facts {
            addresses: Vec::new(),
            servers: Servers::Known(servers),
            streams: Vec::new(),
            rights: None,
            checkpoints: Vec::new(),
        };
        let commands = Commands::for_tests();
        let findings = judge(&facts, &commands).into_iter();
        findings
            .map(|finding| (finding.check, finding.subject, finding.severity))
            .collect()
    }

    fn three(change: impl FnOnce(&mut JetStream)) -> Vec<Server> {
        vec![server("n1", |_| {}), server("n2", |_| {}), server("n3", change)]
    }

    #[test]
    fn servers_that_are_well_give_no_finding() {
        assert_eq!(found(three(|_| {})), []);
    }

    #[test]
    fn what_one_server_lacks_names_it_and_how_bad_that_is() {
        use Severity::{Critical, Warning};
        let one = |servers| {
            let found = found(servers);
            let [(check, subject, severity)] = &found[..] else {
                panic!("{found:?}")
            };
            assert_eq!(subject, "n3");
            (*check, *severity)
        };
        assert_eq!(
            one(three(|there| there.sync_always = false)),
            ("sync-interval", Critical)
        );
        assert_eq!(one(three(|there| there.stored = 1 << 30)), ("store-full", Critical));
        assert_eq!(one(three(|there| there.stored = 900 << 20)), ("store-full", Warning));
        let mut servers = three(|_| {});
        servers[2].jetstream = None;
        assert_eq!(one(servers), ("jetstream-disabled", Warning));
        let mut servers = three(|_| {});
        servers[2].max_payload = Some(1 << 20);
        assert_eq!(one(servers), ("max-payload", Critical));
        let mut servers = three(|_| {});
        servers.pop();
        assert_eq!(one(servers), ("server-silent", Warning));
    }

    #[test]
    fn without_a_majority_nobody_leads_and_it_is_said_which_servers_to_start() {
        let alone = vec![server("n2", |there| there.meta_leader = None)];
        let checks = found(alone);
        assert_eq!(
            checks.iter().map(|(check, ..)| *check).collect::<Vec<_>>(),
            ["server-silent", "server-silent", "meta-leader"]
        );
        // Two left of two need each other.
        let two = ["n1", "n2"].map(|name| {
            server(name, |there| {
                there.meta_size = 2;
                there.meta_peers.truncate(2);
            })
        });
        assert!(found(two.into()).iter().any(|(check, ..)| *check == "meta-quorum"));
    }

    #[test]
    fn a_server_that_one_knows_by_its_id_alone_is_told_once_and_by_its_name() {
        let unknown = "Server name unknown at this time (peerID: 0mEq0i5Q)";
        let servers = three(|_| {}).into_iter().map(|mut server| {
            if let Some(there) = &mut server.jetstream {
                there.meta_peers.push(unknown.to_owned());
            }
            server
        });
        let looked = |name: &str| Looked {
            role: Role::Checkpoints(skytale_proto::Region(0)),
            name: "S".into(),
            found: Found::Missing,
            ids: vec![("0mEq0i5Q".to_owned(), name.to_owned())],
        };
        let mut facts = Facts {
            addresses: Vec::new(),
            servers: Servers::Known(servers.collect()),
            streams: vec![looked(unknown)],
            rights: None,
            checkpoints: Vec::new(),
        };
        assert_eq!(silent(&facts).into_keys().collect::<Vec<_>>(), [unknown]);
        facts.streams.push(looked("n4"));
        assert_eq!(silent(&facts).into_keys().collect::<Vec<_>>(), ["n4"]);
    }

    #[test]
    fn an_old_version_is_critical_and_two_versions_are_told() {
        let mut servers = three(|_| {});
        servers[2].version = "2.10.9".into();
        let checks: Vec<_> = found(servers).into_iter().map(|(check, ..)| check).collect();
        assert_eq!(checks, ["server-version", "versions-differ"]);
        assert_eq!(version("2.15.1"), Some((2, 15)));
        assert_eq!(version("v2.12.0-RC.1"), Some((2, 12)));
        assert_eq!(version("dev"), None);
    }

    #[test]
    fn one_clock_that_is_off_is_that_servers_and_all_of_them_are_this_machines() {
        let at = |server: &mut Server, ahead_ms| server.clock = Some(Clock { ahead_ms, within_ms: 5 });
        let mut servers = three(|_| {});
        servers.iter_mut().for_each(|server| at(server, 3));
        at(&mut servers[2], -90_000);
        assert_eq!(found(servers), [("clock", "n3".to_owned(), Severity::Critical)]);
        let mut servers = three(|_| {});
        servers.iter_mut().for_each(|server| at(server, 5_000));
        assert_eq!(
            found(servers),
            [("clock", "this machine".to_owned(), Severity::Warning)]
        );
        let now = SystemTime::now();
        assert_eq!(Clock::read("", now, now), None);
    }
}
