//! A node, the messages there, and an agent's copy of them.

use super::player::{Player, Way, within};
use super::report::Row;
use crate::agent::failed;
use crate::command::Session;
use crate::local::LocalApi;
use crate::output::{Failure, Outcome};
use crate::stage::{RelayProcess, settings};
use skytale_proto::{AgentId, ChannelId, Code, Offset};
use skytale_sdk::{ApiClient, Channel, Sent, Standing};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Messages read from a vault at once.
const PAGE: u32 = 512;
/// Each message is that long: a few of them fill a small segment.
const TEXT_BYTES: usize = 600;

pub(super) struct Scene {
    pub dir: PathBuf,
    pub relay: RelayProcess,
    client: ApiClient,
    said: Vec<Said>,
}

/// A message in the log.
struct Said {
    channel: ChannelId,
    offset: Offset,
    author: AgentId,
    text: Vec<u8>,
}

/// Result that a return must show, or it does not prove its point.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// Whether messages are reported as lost.
    pub loss: bool,
    /// Way by which it gets back.
    pub way: Option<Way>,
}

/// Plays on a node of its own, with these settings beside the usual ones.
pub(super) async fn staged(
    session: &Session,
    dir: PathBuf,
    special: toml::Table,
    play: impl AsyncFnOnce(&mut Scene) -> Outcome<Vec<Row>>,
) -> Outcome<Vec<Row>> {
    crate::local::private_folder(&dir)?;
    let api = LocalApi::start(&dir, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let played = session.shutdown.unless(async {
        let mut settings = settings(&api);
        settings.extend(special);
        let relay = RelayProcess::start(&dir.join("relay"), settings).await?;
        let client = api.client(&api.create_account().await?)?;
        api.registered(&client, relay.endpoint()).await?;
        let mut scene = Scene {
            dir,
            relay,
            client,
            said: Vec::new(),
        };
        let rows = play(&mut scene).await?;
        scene.relay.stop().await?;
        Ok(rows)
    });
    let played = played.await;
    api.stop().await?;
    played
}

impl Scene {
    pub(super) async fn enter(&self, name: &'static str) -> Outcome<Player> {
        Player::enter(&self.dir, name, &self.client).await
    }

    /// A channel with these agents; all of them are in it.
    pub(super) async fn channel(&mut self, players: &[&Player]) -> Outcome<ChannelId> {
        let [founder, others @ ..] = players else {
            return Err(Failure::new(Code::Usage, "a channel needs somebody"));
        };
        let channel = founder.agent.create_channel("").await;
        let channel = channel.map_err(failed("cannot make a channel"))?;
        let ids: Vec<_> = others.iter().map(|player| player.agent.id()).collect();
        settled(channel.add(&ids).await.map_err(failed("cannot add to a channel"))?).await?;
        let said = self.say(founder, channel.id(), 1).await?;
        for other in others {
            other.reach(channel.id(), said).await?;
        }
        Ok(channel.id())
    }

    /// Returns the number of messages so far.
    pub(super) fn said(&self) -> usize {
        self.said.len()
    }

    /// Sends messages and waits until they are in the log. Gives where the last one is kept.
    pub(super) async fn say(&mut self, who: &Player, channel: ChannelId, count: usize) -> Outcome<Offset> {
        let handle = who.channel(channel).await?;
        let texts: Vec<Vec<u8>> = (0..count).map(|place| self.text(who, place)).collect();
        let payloads = texts.iter().cloned().map(Into::into).collect();
        let sent = handle.send_many(payloads).await.map_err(failed("cannot send"))?;
        let mut last = Offset::ZERO;
        for (sent, text) in sent.into_iter().zip(texts) {
            let offset = settled(sent).await?;
            last = offset.ok_or_else(|| Failure::new(Code::Mismatch, "a message was not needed"))?;
            self.said.push(Said {
                channel,
                offset: last,
                author: who.agent.id(),
                text,
            });
        }
        Ok(last)
    }

    /// No two are the same.
    fn text(&self, who: &Player, place: usize) -> Vec<u8> {
        let mut text = format!("{} says message {} ", who.name, self.said.len() + place);
        while text.len() < TEXT_BYTES {
            text.push('.');
        }
        text.into_bytes()
    }

    /// An agent has come back, at `began`. Both it and a member that was there say something, and what both have is judged.
    /// `since` is how much had been said when it went away.
    pub(super) async fn returned(
        &mut self,
        event: &'static str,
        (back, witness): (&mut Player, &Player),
        (channel, since): (ChannelId, usize),
        began: Instant,
        wanted: Wanted,
    ) -> Outcome<Row> {
        let here = self.say(back, channel, 1).await?;
        let took_s = began.elapsed().as_secs_f64();
        let welcome = self.say(witness, channel, 1).await?;
        let (mine, theirs) = (back.channel(channel).await?, witness.channel(channel).await?);
        back.reach(channel, welcome).await?;
        witness.reach(channel, here).await?;
        let mut row = self.compare(&mine, since).await?;
        row.event = event;
        row.took_s = took_s;
        let other = self.compare(&theirs, since).await?;
        if other.untold + other.twice + other.foreign > 0 {
            row.problems
                .push(format!("{} has something else than was sent", witness.name));
        }
        let agree = async {
            loop {
                let (mine, theirs) = (digest(&mine).await?, digest(&theirs).await?);
                if mine.is_some() && mine == theirs {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(|| format!("{event}: the digests are not the same"), agree).await?;
        for channel in [&mine, &theirs] {
            let divergences = channel
                .divergences()
                .await
                .map_err(failed("cannot read what differs"))?;
            if !divergences.is_empty() {
                row.problems.push("the agents were shown different logs".into());
            }
        }
        let info = mine.info().await.map_err(failed("cannot read a channel"))?;
        if info.standing != Standing::Current {
            row.problems.push(format!("its standing is {:?}", info.standing));
        }
        if (row.told_lost > 0) != wanted.loss {
            row.problems.push(match wanted.loss {
                true => "nothing was lost, so this shows nothing".into(),
                false => "something was lost that must not be".into(),
            });
        }
        if let Some(way) = wanted.way
            && !back.went(channel, way)
        {
            let problem = format!("it did not get back in this way: {}", way.describe());
            row.problems.push(problem);
        }
        row.state = match wanted.way {
            Some(way) => format!("current: {}", way.describe()),
            None => "current".into(),
        };
        Ok(row)
    }

    /// Compares an agent's messages with all that were sent in a channel since then. Messages shown twice are counted
    /// from the beginning.
    pub(super) async fn compare(&self, channel: &Channel, since: usize) -> Outcome<Row> {
        let what = "cannot read the history";
        let mut shown: HashMap<(AgentId, Vec<u8>), u64> = HashMap::new();
        let mut after = Offset::ZERO;
        loop {
            let messages = channel.history(after, PAGE).await.map_err(failed(what))?;
            let Some(last) = messages.last() else { break };
            after = last.offset;
            for message in messages {
                *shown.entry((message.author, message.payload.to_vec())).or_default() += 1;
            }
        }
        let lost = channel.lost().await.map_err(failed(what))?;
        let unreadable = channel.unreadable(Offset::ZERO, PAGE).await.map_err(failed(what))?;
        let told = |offset: Offset| {
            lost.iter().any(|lost| lost.first <= offset && offset <= lost.last)
                || unreadable.iter().any(|entry| entry.offset == offset)
        };
        let mut row = Row {
            lost: lost
                .iter()
                .map(|lost| format!("{} to {}: {}", lost.first, lost.last, lost.reason.describe()))
                .collect(),
            ..Row::default()
        };
        for (number, said) in self.said.iter().enumerate() {
            if said.channel != channel.id() {
                continue;
            }
            let times = shown.remove(&(said.author, said.text.clone())).unwrap_or_default();
            row.twice += u64::from(times > 1);
            if number < since {
                continue;
            }
            row.sent += 1;
            match times {
                0 if told(said.offset) => row.told_lost += 1,
                0 => row.untold += 1,
                _ => row.read += 1,
            }
        }
        row.foreign = shown.values().sum();
        Ok(row)
    }

    /// The relay node's segment files, by name.
    pub(super) fn segments(&self) -> Outcome<Vec<PathBuf>> {
        let mut found = Vec::new();
        find(&self.relay.dir().join("log"), &mut found);
        found.sort();
        match found.is_empty() {
            true => Err(Failure::new(Code::Environment, "the relay node has no segments")),
            false => Ok(found),
        }
    }
}

fn find(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "seg") {
            found.push(path);
        }
    }
}

async fn digest(channel: &Channel) -> Outcome<Option<skytale_proto::Digest>> {
    let read = channel.digest().await;
    Ok(read.map_err(failed("cannot read the digest"))?.1)
}

/// Waits until sent messages are in the log.
pub(super) async fn settled(sent: Sent) -> Outcome<Option<Offset>> {
    let delivered = async {
        let delivered = sent.delivered().await;
        delivered.map_err(failed("what was sent was refused"))
    };
    let never = || "what was sent was neither delivered nor refused".to_owned();
    Ok(within(never, delivered).await?.offset())
}
