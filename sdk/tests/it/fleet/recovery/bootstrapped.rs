//! Members that return to a node that started with a checkpoint, after the streams were trimmed before it.

use super::super::replicas::{Replicas, account, channel_at, close, settings, store};
use crate::agent::world::{channel_of, event, reach, soon, texts, transcript};
use bytes::Bytes;
use skytale_log_store::LogStore as _;
use skytale_log_store::cluster::Account;
use skytale_log_store::fleet::Keeper;
use skytale_proto::{AgentId, ChannelId, ChannelMode, Detail, Frame, FrameId, Header, Offset};
use skytale_sdk::{Agent, Channel, Event, LostReason, Standing};
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const RETENTION: Duration = Duration::from_secs(2);
/// Time that a keeper listens for the nodes.
const HEARS_FOR: Duration = Duration::from_millis(300);

async fn say(from: &Channel, to: &[&Channel], text: &'static str) -> Offset {
    let sent = from.send(text).await.expect("queued");
    let offset = soon(text, sent.delivered())
        .await
        .expect("delivered")
        .offset()
        .expect("a place");
    for reader in to {
        reach(reader, offset).await;
        assert_eq!(texts(&transcript(reader).await).last().map(String::as_str), Some(text));
    }
    offset
}

async fn is_current(channel: &Channel) {
    let waiting = async {
        while channel.info().await.expect("known").standing != Standing::Current {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("current", waiting).await;
}

/// The first and the last message of the one stream.
async fn extent(account: &Account) -> (u64, u64) {
    let context = account.context().await.expect("JetStream");
    let mut stream = context.get_stream("SKYTALE_LOG_0_0").await.expect("the stream");
    let state = &stream.info().await.expect("its state").state;
    (state.first_sequence, state.last_sequence)
}

/// Enforces the retention until all that is in the streams now is purged from them.
async fn give_up_all(account: &Account) {
    let (_, last) = extent(account).await;
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(account, dir.path(), Some(RETENTION)).await;
    let channel = ChannelId::generate();
    let author = AgentId::from_bytes([77; 32]);
    let filler = |parent, detail| {
        let header = Header {
            log: channel.log(),
            id: FrameId::generate(),
            author,
            parent,
            detail,
        };
        Frame::new(header, Bytes::from_static(b"others go on")).expect("a frame")
    };
    let mode = ChannelMode::Mls;
    let create = filler(
        Offset::ZERO,
        Detail::Create {
            mode,
            account: None,
            policy: None,
        },
    );
    let pending = store.append(create).await.expect("taken");
    soon("made", pending.verdict()).await.expect("made");
    let purged = Box::pin(async {
        while extent(account).await.0 <= last {
            // Checkpoints come with messages.
            let pending = store
                .append(filler(Offset::FIRST, Detail::Message))
                .await
                .expect("taken");
            pending.verdict().await.expect("appended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let keeper = Keeper::new(settings(account, dir.path(), Some(RETENTION))).hearing_for(HEARS_FOR);
    let kept = CancellationToken::new();
    let keeping = Box::pin(keeper.run(&kept, |_| {}));
    soon("all purged", async {
        tokio::select! {
            () = purged => {}
            () = keeping => unreachable!("nobody ends it"),
        }
    })
    .await;
    soon("closed", store.close()).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_begins_with_a_checkpoint_leads_members_back_and_tells_them_what_is_gone() {
    let account = account().await;
    let before = Replicas::start(&account, 2).await;
    let names = ["alice", "bob", "carol"];
    let mut agents = Vec::new();
    for (number, name) in names.iter().enumerate() {
        agents.push(before.agent(name, number % 2).await);
    }
    let [alice, bob, carol] = &agents[..] else {
        unreachable!()
    };
    let room = channel_of(&[alice, bob, carol]).await;
    let quiet = channel_of(&[alice, bob]).await;
    say(&room[0], &[&room[1], &room[2]], "all are here").await;
    say(&quiet[0], &[&quiet[1]], "nothing comes after this").await;
    for agent in &agents {
        soon("all out", agent.flushed()).await.expect("flushed");
        soon("all there", agent.caught_up()).await.expect("current");
    }
    // Bob misses messages and no commit of a third channel; of the room he misses a commit, too.
    let talk = channel_of(&[alice, bob]).await;
    say(&talk[1], &[&talk[0]], "bob is here").await;
    soon("all out", alice.flushed()).await.expect("flushed");
    soon("bob current", bob.caught_up()).await.expect("current");
    let cursors = [
        room[1].cursor().await.expect("a cursor"),
        talk[1].cursor().await.expect("a cursor"),
    ];
    bob.disconnect().await;
    // Trims of Trims: what the last one gave up is not what was said last.
    for _ in 0..3 {
        before.trim(quiet[0].id().log()).await;
    }
    let last_said = say(&talk[0], &[], "bob does not hear this").await;
    say(&room[0], &[&room[2]], "nor this").await;
    let rotated = room[0].rotate().await.expect("queued");
    soon("rotated", rotated.delivered()).await.expect("delivered");
    say(&room[2], &[&room[0]], "nor this by carol").await;
    // Carol adds him elsewhere: the Welcome waits in his own log, and goes with it.
    let other = carol.create_channel("other").await.expect("made");
    let added = soon("added", other.add(&[bob.id()])).await.expect("claimed");
    let welcomed = soon("delivered", added.delivered()).await.expect("delivered");
    assert!(welcomed.offset().is_some());
    soon("all out", carol.flushed()).await.expect("flushed");
    let ids = [room[0].id(), quiet[0].id(), talk[0].id(), other.id()];
    let bob_id = bob.id();
    drop((room, quiet, talk, other));
    for agent in agents {
        close(agent).await;
    }
    // The vaults stay, the nodes and all that they had on their disks do not.
    let kept = tempfile::tempdir().expect("a folder");
    move_vaults(before.fleet.dir.path(), kept.path());
    before.end().await;
    give_up_all(&account).await;

    let after = Replicas::start(&account, 2).await;
    move_vaults(kept.path(), after.fleet.dir.path());
    let bob = after.open("bob", 0).await;
    assert_eq!(bob.id(), bob_id);
    let (mut events, mut all_events) = (bob.events(), bob.events());
    bob.connect().await.expect("a socket");
    // He rejoins what he must while those who can answer come later, to the other node.
    let alice = after.agent("alice", 1).await;
    let carol = after.agent("carol", 1).await;
    soon("bob current", bob.caught_up()).await.expect("current");
    let [room, quiet, talk, other] = ids;

    // Of the room a commit is gone: he hears of it, and is back.
    let told = event(
        &mut events,
        "entries of the room lost",
        |event| matches!(event, Event::EntriesLost { channel: Some(channel), .. } if *channel == room),
    );
    let Event::EntriesLost { first, reason, .. } = told.await else {
        unreachable!()
    };
    assert_eq!((first, reason), (cursors[0].next(), LostReason::Trimmed));
    is_back(room, &bob, &[&alice, &carol], "bob is back").await;

    // Of the talk messages alone: he goes on without anybody's help.
    let ours = channel_at(&bob, talk).await;
    let lost = ours.lost().await.expect("listed");
    let ranges: Vec<_> = lost.iter().map(|lost| (lost.first, lost.last, lost.reason)).collect();
    assert_eq!(ranges, [(cursors[1].next(), last_said, LostReason::Trimmed)]);
    is_back(talk, &bob, &[&alice], "bob goes on").await;

    // Of the quiet one nothing that he had not read: the checkpoint tells that Trims alone are gone.
    let ours = channel_at(&bob, quiet).await;
    assert_eq!(ours.lost().await.expect("listed"), []);
    is_back(quiet, &bob, &[&alice], "still quiet").await;
    assert_eq!(ours.epoch().await.expect("known"), 1, "nothing was done to the group");

    // The Welcome is gone from his log, and the checkpoint remembers it.
    let joined = event(
        &mut events,
        "rejoined elsewhere",
        |event| matches!(event, Event::Rejoined { channel, .. } if *channel == other),
    );
    let Event::Rejoined { by, .. } = joined.await else {
        unreachable!()
    };
    assert_eq!(by, carol.id());
    is_back(other, &bob, &[&carol], "bob is in the other one").await;

    // He can be added again: what was in his stock is gone from the streams, and known to the checkpoint or replaced.
    let again = channel_of(&[&alice, &bob]).await;
    say(&again[0], &[&again[1]], "added once more").await;
    drop(ours);
    for agent in [alice, bob, carol] {
        close(agent).await;
    }
    while let Some(event) = soon("events end", all_events.next()).await {
        if let Event::OutOfSync { channel, .. } | Event::Rejoined { channel, .. } = event {
            assert!([room, other].contains(&channel), "{event:?}");
        }
    }
    after.end().await;
}

/// A member is current in a channel and talks with the others.
async fn is_back(id: ChannelId, who: &Agent, others: &[&Agent], text: &'static str) {
    let ours = channel_at(who, id).await;
    is_current(&ours).await;
    let mut theirs = Vec::new();
    for other in others {
        theirs.push(channel_at(other, id).await);
    }
    let readers: Vec<&Channel> = theirs.iter().collect();
    say(&ours, &readers, text).await;
    let mut members = vec![who.id()];
    members.extend(others.iter().map(|other| other.id()));
    members.sort_unstable();
    for (channel, other) in readers.iter().zip(others) {
        assert_eq!(channel.members().await.expect("known"), members);
        say(channel, &[&ours], "it is read").await;
        let digests = (
            ours.digest().await.expect("known"),
            channel.digest().await.expect("known"),
        );
        assert_eq!(digests.0, digests.1, "{}", other.id());
        assert_eq!(
            channel.epoch().await.expect("known"),
            ours.epoch().await.expect("known")
        );
    }
    assert_eq!(ours.unreadable(Offset::ZERO, 10).await.expect("listed"), []);
    assert_eq!(ours.divergences().await.expect("listed"), []);
}

/// Moves the files themselves: a copy would count as one.
fn move_vaults(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).expect("listed") {
        let path = file.expect("a file").path();
        let name = path.file_name().expect("a name");
        if name.to_string_lossy().contains(".vault") {
            std::fs::rename(&path, to.join(name)).expect("moved");
        }
    }
}
