//! Raw logs over a real relay node.

use crate::agent::world::{World, soon};
use skytale_proto::{ChannelId, Offset};
use skytale_sdk::RelaySource;
use skytale_sdk::internals::raw::{RawClient, RawConfig, RawItem, RawReader};
use zeroize::Zeroizing;

async fn client(world: &World, number: u8) -> RawClient {
    RawClient::open(RawConfig {
        identity: Zeroizing::new([number; 32]),
        endpoint: Zeroizing::new([number + 100; 32]),
        tokens: world.mint.provider(),
        relays: RelaySource::Fixed(vec![world.relay.clone()]),
        region: None,
        network: Default::default(),
    })
    .await
    .expect("a client")
}

/// The bodies of the next entries that have one.
async fn bodies(reader: &mut RawReader, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let item = soon("entries", reader.next()).await.expect("read").expect("more");
        if let RawItem::Entries(entries) = item {
            for entry in entries {
                bodies.extend(entry.body.map(|body| String::from_utf8_lossy(&body).into_owned()));
            }
        }
    }
    bodies
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn bodies_become_entries_in_order_each_once_though_the_relay_is_restarted() {
    let world = World::new().await;
    let (writing, reading) = (client(&world, 1).await, client(&world, 2).await);
    let channel = ChannelId::generate();
    // The reader is there before the log is.
    let mut reader = reading.reader(channel, Offset::ZERO);
    let writer = writing.writer(channel);
    let sending = tokio::spawn(async move {
        let mut pending = Vec::new();
        for number in 0..3_000_u32 {
            pending.push(writer.append(number.to_string().into()).await.expect("queued"));
        }
        let mut offsets = Vec::new();
        for one in pending {
            offsets.push(one.outcome().await.expect("accepted").offset.get());
        }
        offsets
    });
    assert_eq!(bodies(&mut reader, 100).await[..100], numbered(0..100));
    let last = reader.last();
    world.stop_relay().await;
    world.start_relay().await;
    // The same reader goes on; another one takes up a cursor.
    let all = soon("receipts", sending).await.expect("no panic");
    assert_eq!(all, (2..3_002).collect::<Vec<u64>>(), "dense, behind the Create");
    let from = u32::try_from(last.get() - 1).expect("small");
    assert_eq!(
        bodies(&mut reader, (3_000 - from) as usize).await,
        numbered(from..3_000)
    );
    let mut again = reading.reader(channel, Offset::new(2_001)).up_to_head(None);
    assert_eq!(bodies(&mut again, 1_000).await, numbered(2_000..3_000));
    let status = reading.status(channel).await.expect("a status").expect("a log");
    assert_eq!(status.head, Offset::new(3_001), "messages count, too");
    writing.close().await;
    reading.close().await;
    world.stop_relay().await;
}

#[tokio::test]
async fn a_reader_behind_what_is_kept_is_told_and_goes_on() {
    let world = World::new().await;
    let client = client(&world, 1).await;
    let channel = ChannelId::generate();
    let writer = client.writer(channel);
    for number in 0..5_u32 {
        let pending = writer.append(number.to_string().into()).await.expect("queued");
        pending.outcome().await.expect("accepted");
    }
    world.trim(channel.log()).await;
    writer.append("new".into()).await.expect("queued");
    let mut reader = client.reader(channel, Offset::new(1));
    let first = soon("an item", reader.next()).await.expect("read");
    assert_eq!(first, Some(RawItem::Trimmed { first: Offset::new(7) }));
    assert_eq!(bodies(&mut reader, 1).await, ["new"]);
    client.close().await;
    world.stop_relay().await;
}

#[tokio::test]
async fn what_can_never_be_appended_is_refused_and_the_rest_goes_on() {
    let world = World::new().await;
    let client = client(&world, 1).await;
    let writer = client.writer(ChannelId::generate());
    let large = writer.append(vec![0; 2 * 1024 * 1024].into()).await.expect("queued");
    let small = writer.append("small".into()).await.expect("queued");
    let refused = soon("a refusal", large.outcome()).await.expect_err("too large");
    assert_eq!(refused.code(), skytale_proto::Code::FrameTooLarge);
    soon("a receipt", small.outcome()).await.expect("accepted");
    assert!(client.status(ChannelId::generate()).await.expect("an answer").is_none());
    client.close().await;
    let closed = writer.append("late".into()).await;
    assert!(closed.is_err());
    world.stop_relay().await;
}
