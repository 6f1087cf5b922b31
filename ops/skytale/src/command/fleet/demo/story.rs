//! Events of the demonstration, in order.

use super::Args;
use super::dice::Dice;
use super::faults::{Fault, Spans};
use super::judge;
use super::kinds::Kind;
use super::report::{FaultReport, Meanwhile, Report};
use super::traffic::Traffic;
use super::trials::Newcomers;
use crate::agent::failed;
use crate::command::Session;
use crate::fleet::{Layout, Machine, Watch};
use crate::output::{Context as _, Failure, Outcome};
use crate::stage::{Actor, Ledger, PATIENCE, Timeline};
use skytale_history::{check, write_line};
use skytale_log_store::fleet::Shards;
use skytale_proto::{AgentId, ChannelId, Code, Offset, Region};
use skytale_sdk::NetworkConfig;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, Instant};

/// Names of those who talk.
const NAMES: [&str; 16] = [
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "ken", "liam", "mallory",
    "niaj", "olivia", "peggy",
];
/// Pause before a fault, at least and at most; and after the last.
const PEACE: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];

/// Runs it all, and judges.
pub(super) async fn tell(
    args: &Args,
    kinds: &[Kind],
    layout: &Layout,
    session: &Session,
    dir: &Path,
) -> Outcome<Report> {
    let timeline = Timeline::new(session.output);
    let seed = args.seed.unwrap_or_else(Dice::any_seed);
    let mut dice = Dice::new(seed);
    timeline.say(format_args!("--seed {seed} has the same faults again"));
    let mut machine = Machine::start(&dir.join("fleet"), layout, |text| timeline.say(text)).await?;
    let key = machine.api.create_account().await?;
    let client = machine.api.client(&key)?;
    for node in &machine.nodes {
        machine.api.registered(&client, node.relay.endpoint()).await?;
    }
    let several = machine.nats.regions.len() > 1;
    let mut actors = Vec::new();
    for (number, name) in NAMES.iter().take(usize::from(args.agents)).enumerate() {
        let region = several.then(|| machine.nats.regions[number % machine.nats.regions.len()].number);
        actors.push(Actor::enter(dir, name, &client, region, NetworkConfig::default()).await?);
    }
    let home = Region(machine.nats.regions[0].number);
    let channel = gather(&mut actors, home).await?;
    timeline.say(format_args!("{} agents are in channel {channel}", actors.len()));

    let mut channels = Vec::new();
    for actor in &actors {
        channels.push((actor.agent.id(), actor.channel(channel).await?));
    }
    let authors = actors.iter().map(|actor| actor.agent.id()).collect();
    let contents = *blake3::hash(channel.as_bytes()).as_bytes();
    let ledger = Ledger::new(contents, args.payload_bytes as usize, authors);
    let mut traffic = Traffic::start(channels, ledger, args.rate);
    timeline.say(format_args!(
        "each sends {} messages a second, and changes its keys every two seconds",
        args.rate
    ));
    let nodes = Watch::default().look(&machine.nodes).await;
    let mut report = Report {
        seed,
        regions: machine.nats.regions.len(),
        nodes: machine.nodes.len(),
        streams: nodes.iter().map(|node| node.streams).sum(),
        mirrors: nodes.iter().map(|node| node.mirrors).sum(),
        payload_bytes: args.payload_bytes,
        ..Report::default()
    };
    let stream = stream_of(&machine, channel)?;
    let spans = Spans {
        fault: Duration::from_secs(u64::from(args.fault_s)),
        pause: Duration::from_secs(u64::from(args.pause_s)),
    };
    let mut newcomers = Newcomers {
        dir: dir.to_owned(),
        client,
        count: 0,
    };
    let mut kinds = kinds.to_vec();
    for _ in 0..args.rounds {
        dice.shuffle(&mut kinds);
        for kind in &kinds {
            tokio::time::sleep(dice.between(PEACE[0], PEACE[1])).await;
            let fault = Fault::plan(*kind, &machine, &mut dice, spans, &stream).await?;
            report
                .faults
                .push(suffer(&mut machine, &mut newcomers, &traffic, &timeline, &fault).await?);
        }
    }
    tokio::time::sleep(PEACE[1]).await;
    traffic.finish().await?;
    timeline.say("nothing more is sent, and all that was sent is in the log");
    compare(&mut report, &mut actors, channel, &traffic).await?;
    machine.ready().await?;
    let logs: Vec<_> = machine.nodes.iter().map(|node| node.log()).collect();
    report.denied = machine.nats.denied();
    report.given_up = machine.nats.given_up().await?;
    machine.stop().await?;
    timeline.say("everyone has stopped; what they have is compared");
    let mut events = Vec::new();
    for (node, log) in logs.iter().enumerate() {
        let replica = judge::replica(node, log, channel)?;
        report.given_up = report.given_up.max(replica.given_up);
        let kept = replica.events;
        if node == 0 {
            let mut seen = std::mem::take(&mut traffic.seen.lock().events);
            // Agents greet new members of their own accord; these messages come before all that were sent.
            events.extend(judge::greetings(&kept, &seen));
            events.append(&mut seen);
        }
        report.entries = report.entries.max(kept.len() as u64 - 2);
        events.extend(kept);
    }
    if args.keep {
        let file = dir.join("history.jsonl");
        let writing = || format!("cannot write {}", file.display());
        let mut out = BufWriter::new(File::create(&file).failing(Code::Environment, writing)?);
        for event in &events {
            write_line(event, &mut out).failing(Code::Environment, writing)?;
        }
    }
    report.contradictions = check(&events).iter().map(ToString::to_string).collect();
    report.judge();
    Ok(report)
}

/// The first makes a channel and adds the others.
async fn gather(actors: &mut [Actor], home: Region) -> Outcome<ChannelId> {
    let founder = &actors[0].agent;
    let channel = founder.create_channel_in("fleet", home).await;
    let channel = channel.map_err(failed("cannot make the channel"))?;
    let others: Vec<AgentId> = actors[1..].iter().map(|actor| actor.agent.id()).collect();
    let sent = channel
        .add(&others)
        .await
        .map_err(failed("cannot add to the channel"))?;
    match tokio::time::timeout(PATIENCE, sent.delivered()).await {
        Ok(delivered) => delivered.map_err(failed("the others cannot be added"))?,
        Err(_) => {
            return Err(Failure::new(
                Code::Mismatch,
                "the others were neither added nor refused",
            ));
        }
    };
    let (id, head) = (
        channel.id(),
        channel.cursor().await.map_err(failed("cannot read the cursor"))?,
    );
    for actor in actors {
        actor.joined(id).await?;
        let handle = actor.channel(id).await?;
        actor.reach(&handle, head, |_| {}).await?;
        actor.listen(id).await?;
    }
    Ok(id)
}

/// The stream that holds a channel.
fn stream_of(machine: &Machine, channel: ChannelId) -> Outcome<String> {
    let regions = machine.nats.regions.iter();
    let shards = Shards::new(regions.map(|region| (Region(region.number), region.shards)));
    let shard = shards.and_then(|shards| shards.of(&channel.log()));
    let shard = shard.ok_or_else(|| Failure::new(Code::Mismatch, format!("{channel} has no shard")))?;
    Ok(shard.stream())
}

/// Lets a fault happen, and waits until it is mended: all is current, and what each author sends goes through again.
async fn suffer(
    machine: &mut Machine,
    newcomers: &mut Newcomers,
    traffic: &Traffic,
    timeline: &Timeline,
    fault: &Fault,
) -> Outcome<FaultReport> {
    let what = &fault.what;
    timeline.say(match fault.lasts {
        Some(lasts) => format!("{what}, for {:.1} s", lasts.as_secs_f64()),
        None => what.clone(),
    });
    let from = Instant::now();
    fault.happen(machine, newcomers, traffic).await?;
    machine.nats.ready().await?;
    machine.ready().await?;
    let mended = Instant::now();
    traffic.answered_since(mended, what).await?;
    let meanwhile = Meanwhile::of(from, Instant::now(), &traffic.seen.lock().answers);
    timeline.say(format_args!(
        "mended; {:.2} s without service, {:.2} s the longest wait",
        meanwhile.silence_s, meanwhile.longest_wait_s
    ));
    Ok(FaultReport {
        kind: fault.kind,
        what: what.clone(),
        lasted_s: fault.lasts.map(|lasts| lasts.as_secs_f64()),
        meanwhile,
    })
}

/// Waits until every agent has everything, and compares it with the sent messages.
async fn compare(report: &mut Report, actors: &mut [Actor], channel: ChannelId, traffic: &Traffic) -> Outcome {
    let ledger = traffic.ledger.lock().clone();
    let mut head = Offset::ZERO;
    for actor in actors.iter() {
        let handle = actor.channel(channel).await?;
        head = head.max(handle.cursor().await.map_err(failed("cannot read the cursor"))?);
        report.epochs = report
            .epochs
            .max(handle.epoch().await.map_err(failed("cannot read the epoch"))?);
    }
    for actor in actors.iter() {
        let handle = actor.channel(channel).await?;
        actor.reach(&handle, head, |_| {}).await?;
    }
    report.sent = ledger.sent();
    for actor in actors.iter_mut() {
        actor.given(ledger.sent() - ledger.sent_by(&actor.agent.id())).await?;
        report.agents.push(actor.report(channel, &ledger).await?);
    }
    Ok(())
}
