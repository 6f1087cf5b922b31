//! A member whose machine crashes, and one whose does not.

use super::agent_process::{AgentProcess, Role, Told};
use super::disk::Disk;
use super::random_time;
use crate::agent::world::{World, agent_config, channel_of, reach, soon, texts, transcript};
use skytale_proto::{ChannelId, Code, FrameId, Offset};
use skytale_sdk::{Agent, AgentConfig, Channel, LostReason, Standing, UnreadableEntry};
use std::collections::BTreeSet;
use std::fmt::{Display, Formatter};
use std::path::PathBuf;
use std::time::Duration;

/// Alice's machine is reliable; bob's crashes.
pub(super) struct Pair {
    pub(super) world: World,
    pub(super) alice: Option<Agent>,
    pub(super) id: ChannelId,
    pub(super) vault: PathBuf,
    /// Messages that bob's vault accepted, by his output.
    queued: BTreeSet<FrameId>,
    /// Messages that he saw delivered.
    delivered: BTreeSet<(FrameId, Offset)>,
    /// The last message that he has acknowledged.
    acked: Offset,
    /// Number of messages that he saw fail with an unknown outcome.
    pub(super) doubtful: usize,
}

/// Closes an agent cleanly.
pub(super) async fn close(agent: Agent) {
    soon("closed", agent.close(Duration::from_secs(20))).await;
}

/// Waits until a channel has the wanted standing.
pub(super) async fn stands(channel: &Channel, wanted: Standing) {
    let waiting = async {
        while channel.info().await.expect("known").standing != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(&format!("to be {wanted:?}"), waiting).await;
}

/// Progress of bob's recoveries when his machine crashed.
pub(super) struct Way {
    opened_ms: u64,
    took_ms: u64,
    not_begun: u32,
    out_of_sync: u32,
    back: u32,
}

impl Display for Way {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "it takes {} ms; of the crashes {} came before it was begun, {} on the way, {} when it was done",
            self.took_ms, self.not_begun, self.out_of_sync, self.back
        )
    }
}

impl Pair {
    /// Creates a pair in a channel. With `bob_first`, bob recreates the group if both are out of sync.
    pub(super) async fn new(disk: &Disk, name: &str, bob_first: Option<bool>) -> Self {
        let world = World::new().await;
        let alice = world.agent("alice").await;
        let (mut vault, mut bob);
        for number in 0.. {
            vault = disk.live().join(name).join(format!("bob-{number}.vault"));
            std::fs::create_dir_all(vault.parent().expect("a folder")).expect("made");
            let config = agent_config(vault.clone(), world.mint.provider(), world.relay.clone());
            bob = Agent::open(config).await.expect("opened");
            // In turn by their ids.
            if bob_first.is_none_or(|first| (bob.id() < alice.id()) == first) {
                bob.connect().await.expect("a socket");
                soon("current", bob.caught_up()).await.expect("current");
                let channels = channel_of(&[&alice, &bob]).await;
                let id = channels[0].id();
                drop(channels);
                soon("all out", bob.flushed()).await.expect("flushed");
                close(bob).await;
                return Self {
                    world,
                    alice: Some(alice),
                    id,
                    vault,
                    queued: BTreeSet::new(),
                    delivered: BTreeSet::new(),
                    acked: Offset::ZERO,
                    doubtful: 0,
                };
            }
            close(bob).await;
            // An id of alice's that is one of the smallest takes hundreds of these.
            std::fs::remove_dir_all(vault.parent().expect("a folder")).expect("removed");
        }
        unreachable!("one of two ids is the smaller one")
    }

    pub(super) fn config(&self) -> AgentConfig {
        agent_config(self.vault.clone(), self.world.mint.provider(), self.world.relay.clone())
    }

    pub(super) fn told(&self) -> Told {
        Told {
            vault: self.vault.clone(),
            channel: self.id,
            relay: self.world.relay.clone(),
            file: self.vault.with_extension("backup"),
        }
    }

    pub(super) fn start(&self, role: Role, prefix: &str, disk: &Disk) -> AgentProcess {
        AgentProcess::start(role, &self.told(), prefix, disk.outside())
    }

    pub(super) async fn alices(&self) -> Channel {
        let alice = self.alice.as_ref().expect("open");
        alice.channel(self.id).await.expect("in the vault")
    }

    pub(super) async fn alice_says(&self, text: &str) {
        let sent = self.alices().await.send(text.to_owned()).await.expect("queued");
        soon(text, sent.delivered()).await.expect("delivered");
    }

    /// Records bob's output.
    pub(super) fn heard(&mut self, lines: &[String]) {
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let offset = |word: &str| Offset::new(word.parse().expect("an offset"));
            match words[..] {
                ["queued", id] => drop(self.queued.insert(id.parse().expect("an id"))),
                ["delivered", id, at] => drop(self.delivered.insert((id.parse().expect("an id"), offset(at)))),
                ["acked", at] => self.acked = self.acked.max(offset(at)),
                _ => {}
            }
        }
    }

    /// Forgets bob's output about messages that are no longer in his vault, because it was replaced.
    pub(super) fn forget(&mut self) {
        self.queued.clear();
        self.delivered.clear();
        self.acked = Offset::ZERO;
    }

    /// Checks the state after a crash: bob's vault opens and has everything promised; he becomes current, and both have
    /// read the same.
    pub(super) async fn holds(&mut self) {
        let bob = Agent::open(self.config()).await.expect("the vault opens");
        let channel = bob.channel(self.id).await.expect("in the vault");
        let known: BTreeSet<FrameId> = self.known_to(&channel).await;
        let missing: Vec<_> = self.queued.difference(&known).collect();
        assert!(
            missing.is_empty(),
            "taken, and not in the vault after the crash: {missing:?}"
        );
        let unacked = channel.inbox(Offset::ZERO, u32::MAX).await.expect("listed");
        let again: Vec<_> = unacked.iter().filter(|message| message.offset <= self.acked).collect();
        assert!(
            again.is_empty(),
            "acknowledged, and given again after the crash: {again:?}"
        );

        bob.connect().await.expect("a socket");
        stands(&channel, Standing::Current).await;
        soon("all out", bob.flushed()).await.expect("flushed");
        soon("current", bob.caught_up()).await.expect("current");
        let sent = channel.send("bob is back").await.expect("queued");
        let delivered = soon("delivered", sent.delivered()).await.expect("delivered");
        let theirs = self.alices().await;
        reach(&theirs, delivered.offset().expect("a place")).await;
        self.alice_says("so he is").await;
        reach(&channel, theirs.cursor().await.expect("a cursor")).await;

        // Messages encrypted before an earlier crash, which may be among lost entries, are not sent again, and are
        // reported.
        for failed in channel.failed().await.expect("listed") {
            assert_eq!(failed.code, Code::DeliveryUnknown);
            let was_delivered = self.delivered.iter().any(|(id, _)| *id == failed.frame_id);
            assert!(
                !was_delivered,
                "told to be delivered, and then not to be known: {failed:?}"
            );
            // Or the crash came before he could report that it was accepted.
            self.queued.remove(&failed.frame_id);
            self.doubtful += 1;
            channel.dismiss(failed.frame_id).await.expect("dismissed");
        }

        // All other messages of bob: once, at the reported offset, read by both. No key was used for two of them, or
        // the second would be unreadable.
        let (ours, read) = (transcript(&channel).await, transcript(&theirs).await);
        for messages in [&ours, &read] {
            let ids: BTreeSet<FrameId> = messages.iter().map(|message| message.frame_id).collect();
            assert_eq!(ids.len(), messages.len(), "a message twice");
            let missing: Vec<_> = self.queued.difference(&ids).collect();
            assert!(missing.is_empty(), "sent, and not read: {missing:?}");
            for (id, offset) in &self.delivered {
                let at = messages.iter().find(|message| message.frame_id == *id);
                assert_eq!(
                    at.map(|message| message.offset),
                    Some(*offset),
                    "told to be delivered there"
                );
            }
        }
        // Alice can read everything; bob everything except Welcomes that another copy of his vault had requested.
        assert_eq!(theirs.unreadable(Offset::ZERO, 10).await.expect("listed"), []);
        let unreadable = channel.unreadable(Offset::ZERO, 100).await.expect("listed");
        let not_his = |entry: &UnreadableEntry| entry.reason.starts_with("its Welcome cannot be used");
        assert!(unreadable.iter().all(not_his), "{unreadable:?}");
        for channel in [&channel, &theirs] {
            assert_eq!(channel.divergences().await.expect("listed"), []);
            assert_eq!(channel.members().await.expect("known").len(), 2);
        }
        assert_eq!(
            channel.epoch().await.expect("known"),
            theirs.epoch().await.expect("known")
        );
        assert_eq!(texts(&ours).last().map(String::as_str), Some("so he is"));
        drop(channel);
        close(bob).await;
    }

    /// A vault that was not replaced has lost nothing to another copy.
    pub(super) async fn has_no_copy(&self) {
        let bob = Agent::open(self.config()).await.expect("the vault opens");
        let channel = bob.channel(self.id).await.expect("there");
        assert_eq!(channel.unreadable(Offset::ZERO, 10).await.expect("listed"), []);
        let lost = channel.lost().await.expect("listed");
        drop(channel);
        assert!(lost.iter().all(|lost| lost.reason != LostReason::OtherCopy), "{lost:?}");
        close(bob).await;
    }

    /// Returns the channel's standing after a crash, read from a copy of the vault, and the offset of its last
    /// handshake.
    pub(super) async fn peek(&self, disk: &Disk) -> (Standing, Offset) {
        let folder = tempfile::tempdir_in(disk.outside()).expect("a folder");
        let name = self.vault.file_name().expect("a name").to_string_lossy().into_owned();
        // An empty lock does not record how the vault was closed, so that the copy does not count as one.
        std::fs::write(folder.path().join(format!("{name}.lock")), "").expect("written");
        for suffix in ["", "-wal"] {
            let file = self.vault.with_file_name(format!("{name}{suffix}"));
            if file.exists() {
                std::fs::copy(&file, folder.path().join(format!("{name}{suffix}"))).expect("copied");
            }
        }
        let mut config = self.config();
        config.vault = folder.path().join(name);
        let copy = Agent::open(config).await.expect("the vault opens");
        let channel = copy.channel(self.id).await.expect("in the vault");
        let info = channel.info().await.expect("known");
        drop(channel);
        close(copy).await;
        (info.standing, info.handshake_head)
    }

    /// Crashes bob's machine during his recovery, at a random moment: after his vault is open, or after the start of
    /// his process. Records his progress.
    pub(super) async fn crash_on_the_way(&mut self, disk: &Disk, way: &mut Way, prefix: &str, from_open: bool) {
        let (_, before) = self.peek(disk).await;
        let bob = self.start(Role::Talk, prefix, disk);
        let mut up_to_ms = way.took_ms;
        if from_open {
            bob.says("open", 1).await;
            up_to_ms -= way.opened_ms.min(up_to_ms);
        }
        tokio::time::sleep(random_time(up_to_ms * 5 / 4 + 2)).await;
        let said = disk.crash(bob);
        self.heard(&said);
        match self.peek(disk).await {
            (Standing::Current, head) if head > before => way.back += 1,
            (Standing::Current, _) => way.not_begun += 1,
            (Standing::OutOfSync, _) => way.out_of_sync += 1,
            other => panic!("{other:?}"),
        }
    }

    /// Measures the time of a recovery without a crash.
    pub(super) async fn time_way(&mut self, disk: &Disk) -> Way {
        let bob = self.start(Role::Talk, "0", disk);
        let opened_ms = bob.takes_ms("open", 1).await;
        let took_ms = bob.takes_ms("delivered", 1).await;
        let said = bob.kill();
        self.heard(&said);
        self.holds().await;
        Way {
            opened_ms,
            took_ms,
            not_begun: 0,
            out_of_sync: 0,
            back: 0,
        }
    }

    /// Returns the messages of a vault: in its history, its outbox, or its failed sends.
    pub(super) async fn known_to(&self, channel: &Channel) -> BTreeSet<FrameId> {
        let history = transcript(channel).await.into_iter().map(|message| message.frame_id);
        let outbox = channel.outbox().await.expect("listed").into_iter();
        let failed = channel.failed().await.expect("listed").into_iter();
        history
            .chain(outbox.map(|queued| queued.frame_id))
            .chain(failed.map(|failed| failed.frame_id))
            .collect()
    }

    /// Returns messages that bob has reported as accepted.
    pub(super) fn queued(&self) -> &BTreeSet<FrameId> {
        &self.queued
    }
}
