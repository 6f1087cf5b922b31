//! Events of a demonstration, in order.

use super::Args;
use super::disk;
use super::report::{Report, grouped};
use crate::agent::failed;
use crate::command::Session;
use crate::local::LocalApi;
use crate::output::{Context as _, Failure, Outcome, Progress};
use crate::stage::{Actor, Ledger, PATIENCE, RelayProcess, Timeline, settings};
use skytale_proto::{AgentId, ChannelId, Code, Offset, Policy};
use skytale_sdk::{ApiClient, Channel, NetworkConfig, Sent};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Names of those who send.
const SENDERS: [&str; 16] = [
    "alice", "bob", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "ken", "liam", "mallory", "niaj",
    "olivia", "peggy", "rupert",
];
/// The one who is away.
const AWAY: &str = "carol";
/// Those who come and go meanwhile.
const GUESTS: [&str; 3] = ["guest-1", "guest-2", "guest-3"];
/// Messages that an author may have sent and not seen in the log.
const IN_FLIGHT_MAX: usize = 512;
/// Messages sent in one call.
const SEND_AT_ONCE: u64 = 64;
/// Time for which the relay node stays dead.
const DEAD_FOR: Duration = Duration::from_millis(500);

/// Everything on the stage.
struct Stage {
    timeline: Timeline,
    relay: RelayProcess,
    channel: ChannelId,
    senders: Vec<Actor>,
    guests: Vec<Actor>,
    /// The guests that are in the channel, as their places.
    present: Vec<usize>,
    ledger: Ledger,
    changes: u64,
    kills: u64,
}

/// Runs it all, and judges.
pub(super) async fn tell(args: &Args, session: &Session, dir: &Path) -> Outcome<Report> {
    let timeline = Timeline::new(session.output);
    let api = LocalApi::start(dir, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let playing = Box::pin(on_stage(args, dir, &api, timeline));
    let told = session.shutdown.unless(playing).await;
    let stopped = api.stop().await;
    let report = told?;
    stopped?;
    Ok(report)
}

async fn on_stage(args: &Args, dir: &Path, api: &LocalApi, timeline: Timeline) -> Outcome<Report> {
    let relay = RelayProcess::start(&dir.join("relay"), settings(api)).await?;
    let key = api.create_account().await?;
    let client = api.client(&key)?;
    api.registered(&client, relay.endpoint()).await?;
    timeline.say(format_args!(
        "a node runs: API at {}, relay node {} as process {}; one account, one API key",
        api.url,
        &relay.endpoint().to_string()[..10],
        relay.id()
    ));
    let (mut stage, mut away) = gather(args, dir, &client, timeline, relay).await?;
    let channel = away.channel(stage.channel).await?;
    let left_at = channel.cursor().await.map_err(failed("cannot read the cursor"))?;
    let left_in = channel.epoch().await.map_err(failed("cannot read the epoch"))?;
    drop(channel);
    away.go_away().await?;
    stage
        .timeline
        .say(format_args!("{AWAY} goes away, at offset {left_at} in epoch {left_in}"));

    let began = Instant::now();
    let head = stage.exchange(args).await?;
    let exchange_s = began.elapsed().as_secs_f64();

    let report = catch_up(&mut stage, &mut away, head, left_at).await?;
    let mut report = Report {
        payload_bytes: args.payload_bytes,
        exchange_s,
        ..report
    };
    report.caught_up(Duration::from_secs_f64(report.catch_up_s), report.catch_up_messages);
    report.epochs = report.epochs.saturating_sub(left_in);

    for actor in stage.senders.iter_mut().chain([&mut away]) {
        let others = stage.ledger.sent() - stage.ledger.sent_by(&actor.agent.id());
        actor.given(others).await?;
        report.agents.push(actor.report(stage.channel, &stage.ledger).await?);
    }
    for guest in &mut stage.guests {
        guest.go_away().await?;
    }
    stage.relay.stop().await?;
    let stored = disk::measure(&dir.join("relay/log"))?;
    report.log_is_whole = stored.is_whole;
    report.disk_bytes = stored.bytes;
    report.disk_bytes_per_payload_byte = stored.bytes as f64 / (report.sent * report.payload_bytes).max(1) as f64;
    report.judge();
    stage.timeline.say("everyone has stopped; what they have is compared");
    Ok(report)
}

/// Makes the agents and the channel.
async fn gather(
    args: &Args,
    dir: &Path,
    client: &ApiClient,
    timeline: Timeline,
    relay: RelayProcess,
) -> Outcome<(Stage, Actor)> {
    let network = || NetworkConfig::default().with_transport(args.transport.into());
    let mut senders = Vec::new();
    for name in SENDERS.iter().take(usize::try_from(args.senders).unwrap_or(1)) {
        senders.push(Actor::enter(dir, name, client, None, network()).await?);
    }
    let mut away = Actor::enter(dir, AWAY, client, None, network()).await?;
    let mut guests = Vec::new();
    if args.changes > 0 {
        for name in GUESTS {
            guests.push(Actor::enter(dir, name, client, None, network()).await?);
        }
    }
    let names: Vec<_> = senders.iter().chain([&away]).map(|actor| actor.name.as_str()).collect();
    timeline.say(format_args!(
        "{} are online, each with a vault and an endpoint of its own",
        names.join(", ")
    ));

    let founder = &senders[0];
    let channel = founder
        .agent
        .create_channel_with("demo", None, &Policy::open(founder.agent.id()))
        .await
        .map_err(failed("cannot make the channel"))?;
    let others: Vec<AgentId> = senders[1..]
        .iter()
        .chain([&away])
        .map(|actor| actor.agent.id())
        .collect();
    settled(
        channel
            .add(&others)
            .await
            .map_err(failed("cannot add to the channel"))?,
    )
    .await?;
    let (id, head) = (
        channel.id(),
        channel.cursor().await.map_err(failed("cannot read the cursor"))?,
    );
    for actor in senders.iter_mut().chain([&mut away]) {
        actor.joined(id).await?;
        let handle = actor.channel(id).await?;
        actor.reach(&handle, head, |_| {}).await?;
        actor.listen(id).await?;
    }
    timeline.say(format_args!(
        "{} made channel {id} and added the others",
        senders[0].name
    ));
    let authors = senders.iter().map(|actor| actor.agent.id()).collect();
    let seed = *blake3::hash(id.as_bytes()).as_bytes();
    let payload_bytes = usize::try_from(args.payload_bytes).failing(Code::Usage, || "payloads are too large".into())?;
    let stage = Stage {
        timeline,
        relay,
        channel: id,
        senders,
        guests,
        present: Vec::new(),
        ledger: Ledger::new(seed, payload_bytes, authors),
        changes: 0,
        kills: 0,
    };
    Ok((stage, away))
}

async fn settled(sent: Sent) -> Outcome<Option<Offset>> {
    match timeout(PATIENCE, sent.delivered()).await {
        Ok(delivered) => delivered
            .map(|delivered| delivered.offset())
            .map_err(failed("what was sent was refused")),
        Err(_) => Err(Failure::new(
            Code::Mismatch,
            "what was sent was neither delivered nor refused",
        )),
    }
}

impl Stage {
    /// The exchange: messages, changes, and the death of the relay node. Gives the offset of the last entry.
    async fn exchange(&mut self, args: &Args) -> Outcome<Offset> {
        let mut channels = Vec::new();
        for sender in &self.senders {
            channels.push(sender.channel(self.channel).await?);
        }
        let names: Vec<_> = self.senders.iter().map(|actor| actor.name.clone()).collect();
        self.timeline.say(format_args!(
            "{} {} {} messages of {} bytes",
            names.join(" and "),
            if names.len() == 1 { "sends" } else { "exchange" },
            grouped(args.messages),
            grouped(args.payload_bytes)
        ));
        let bar = self.timeline.bar(args.messages, "messages in the log");
        let mut flight: Vec<Vec<Sent>> = channels.iter().map(|_| Vec::new()).collect();
        let mut delivered = 0;
        // Small enough that changes and the relay node's deaths fall between messages.
        let at_once = SEND_AT_ONCE
            .min(args.messages / (args.changes.max(args.kills) + 2))
            .max(1);
        while self.ledger.sent() < args.messages {
            // Spread evenly: the n-th of N when n/(N+1) of the messages are on their way.
            let due = |count: u64| self.ledger.sent() * (count + 1) / args.messages.max(1);
            let (change_due, kill_due) = (due(args.changes), due(args.kills));
            if self.changes < args.changes && change_due > self.changes {
                self.change(&channels, &bar).await?;
            }
            if self.kills < args.kills && kill_due > self.kills {
                self.kill_relay(&bar).await?;
            }
            let author = usize::try_from(self.ledger.sent() / at_once).unwrap_or(0) % channels.len();
            let left = args.messages - self.ledger.sent();
            let payloads = (0..left.min(at_once))
                .map(|_| self.ledger.next(author).into())
                .collect();
            let sent = channels[author]
                .send_many(payloads)
                .await
                .map_err(failed("cannot send"))?;
            flight[author].extend(sent);
            let over = flight[author].len().saturating_sub(IN_FLIGHT_MAX);
            let oldest: Vec<_> = flight[author].drain(..over).collect();
            delivered += arrived(oldest).await?;
            bar.set(delivered);
        }
        while self.changes < args.changes {
            self.change(&channels, &bar).await?;
        }
        for sent in flight {
            delivered += arrived(sent).await?;
            bar.set(delivered);
        }
        bar.clear();
        let mut head = Offset::ZERO;
        for channel in &channels {
            head = head.max(channel.cursor().await.map_err(failed("cannot read the cursor"))?);
        }
        for (sender, channel) in self.senders.iter().zip(&channels) {
            sender.reach(channel, head, |_| {}).await?;
        }
        self.timeline.say(format_args!(
            "all {} messages are in the log, its head is {head}",
            grouped(delivered)
        ));
        Ok(head)
    }

    /// One membership or key change, made by the senders in turn: guests come and go, keys are replaced.
    async fn change(&mut self, channels: &[Channel], bar: &Progress) -> Outcome {
        let number = usize::try_from(self.changes).unwrap_or(0);
        let by = number % channels.len();
        let (channel, name) = (&channels[by], &self.senders[by].name);
        let what = "cannot change the group";
        let (sent, told) = match number % 4 {
            0 if !self.guests.is_empty() => {
                let place = (number / 4) % self.guests.len();
                let guest = &self.guests[place];
                self.present.push(place);
                (
                    channel.add(&[guest.agent.id()]).await,
                    format!("{name} adds {}", guest.name),
                )
            }
            2 if !self.present.is_empty() => {
                let guest = &self.guests[self.present.remove(0)];
                (
                    channel.remove(&[guest.agent.id()]).await,
                    format!("{name} removes {}", guest.name),
                )
            }
            _ => (channel.rotate().await, format!("{name} replaces its keys")),
        };
        settled(sent.map_err(failed(what))?).await?;
        self.changes += 1;
        let epoch = channel.epoch().await.map_err(failed(what))?;
        self.timeline.say_above(bar, format_args!("{told}: epoch {epoch}"));
        Ok(())
    }

    async fn kill_relay(&mut self, bar: &Progress) -> Outcome {
        let id = self.relay.id();
        self.relay.kill().await?;
        self.timeline
            .say_above(bar, format_args!("the relay node (process {id}) is killed: SIGKILL"));
        tokio::time::sleep(DEAD_FOR).await;
        self.relay.restart().await?;
        self.kills += 1;
        let id = self.relay.id();
        self.timeline
            .say_above(bar, format_args!("the relay node is started again, as process {id}"));
        Ok(())
    }
}

async fn arrived(sent: Vec<Sent>) -> Outcome<u64> {
    let count = sent.len() as u64;
    for sent in sent {
        settled(sent).await?;
    }
    Ok(count)
}

/// The one who was away comes back and becomes current.
async fn catch_up(stage: &mut Stage, away: &mut Actor, head: Offset, left_at: Offset) -> Outcome<Report> {
    let missed = head.get() - left_at.get();
    stage
        .timeline
        .say(format_args!("{AWAY} comes back, {} entries behind", grouped(missed)));
    let bar = stage.timeline.bar(missed, "entries caught up");
    let began = Instant::now();
    away.come_back(stage.channel).await?;
    let channel = away.channel(stage.channel).await?;
    away.reach(&channel, head, |cursor| {
        bar.set(cursor.get().saturating_sub(left_at.get()))
    })
    .await?;
    let took = began.elapsed();
    bar.clear();
    let epoch = channel.epoch().await.map_err(failed("cannot read the epoch"))?;
    stage.timeline.say(format_args!(
        "{AWAY} is current after {:.2} s, in epoch {epoch}",
        took.as_secs_f64()
    ));
    Ok(Report {
        sent: stage.ledger.sent(),
        epochs: epoch,
        changes: stage.changes,
        relay_kills: stage.kills,
        catch_up_s: took.as_secs_f64(),
        catch_up_messages: stage.ledger.sent(),
        ..Report::default()
    })
}
