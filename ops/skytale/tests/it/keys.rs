//! The NATS keys of relay nodes are changed and revoked while the nodes run, as docs/operating-a-fleet.md says.

use crate::nats::{HANGING, Servers, append, channel, frame, no_remarks};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::Value;
use skytale_log_store::{FleetStore, LogStore as _};
use skytale_proto::{ChannelId, Detail};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const NODES: [&str; 3] = ["relay-1", "relay-2", "relay-3"];

/// Appends without a pause, each of which must be taken.
struct Author {
    channel: ChannelId,
    appended: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Author {
    async fn start(store: Arc<FleetStore>) -> Self {
        let channel = channel(&store).await;
        let (appended, stop) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let (appended, stop) = (appended.clone(), stop.clone());
            async move {
                while !stop.load(Ordering::Relaxed) {
                    let accepted = append(&store, frame(channel, Detail::Message, b"meanwhile")).await;
                    let accepted = accepted.expect("no append fails");
                    let count = appended.fetch_add(1, Ordering::Relaxed) + 1;
                    assert_eq!(accepted.offset.get(), count, "none is lost, and none is twice");
                }
            }
        });
        Self {
            channel,
            appended,
            stop,
            task,
        }
    }

    /// Waits until more was appended.
    async fn goes_on(&self) {
        let (before, begun) = (self.appended.load(Ordering::Relaxed), Instant::now());
        while self.appended.load(Ordering::Relaxed) < before + 10 {
            assert!(!self.task.is_finished() && begun.elapsed() < HANGING, "it has stopped");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) -> (ChannelId, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no append failed");
        (self.channel, self.appended.load(Ordering::Relaxed))
    }
}

/// The connections of all servers: the key of each, and how many times it was made.
async fn connections(servers: &Servers) -> BTreeMap<(String, u64), String> {
    let client = servers.operator(true).await;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.expect("subscribed");
    let question = client.publish_with_reply("$SYS.REQ.SERVER.PING.CONNZ", inbox, r#"{"auth":true}"#.into());
    question.await.expect("asked");
    let mut found = BTreeMap::new();
    for _ in &servers.servers {
        let answer = tokio::time::timeout(HANGING, answers.next())
            .await
            .expect("in time")
            .expect("an answer");
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        let server = answer["server"]["name"].as_str().expect("a name").to_owned();
        for connection in answer["data"]["connections"].as_array().into_iter().flatten() {
            let id = connection["cid"].as_u64().expect("an id");
            let user = connection["authorized_user"].as_str().unwrap_or_default().to_owned();
            found.insert((server.clone(), id), user);
        }
    }
    found
}

fn public(seed: &Path) -> String {
    let seed = std::fs::read_to_string(seed).expect("a seed");
    nkeys::KeyPair::from_seed(seed.trim()).expect("a seed").public_key()
}

/// Waits until nobody is connected with these keys, and somebody with each of those.
async fn moved(servers: &Servers, away: &[String], to: &[String]) {
    let begun = Instant::now();
    loop {
        let now: Vec<String> = connections(servers).await.into_values().collect();
        if !away.iter().any(|key| now.contains(key)) && to.iter().all(|key| now.contains(key)) {
            return;
        }
        assert!(begun.elapsed() < HANGING, "{away:?} to {to:?}: {now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn keys_of(servers: &Servers, node: &str) -> [String; 2] {
    ["relay", "relay-sync"].map(|key| public(&servers.key(node, key)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_keys_of_all_nodes_are_changed_one_after_the_other_and_no_append_fails() {
    let servers = Servers::start(&NODES);
    let stores: Vec<Arc<FleetStore>> = join_all(NODES.map(|node| servers.node(node)))
        .await
        .into_iter()
        .map(Arc::new)
        .collect();
    let authors = join_all(stores.iter().map(|store| Author::start(store.clone()))).await;
    let before = NODES.map(|node| keys_of(&servers, node));
    let relay_keys = |keys: &[[String; 2]; 3]| keys.concat();
    assert_eq!(
        relay_keys(&before)
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        6,
        "each has its own"
    );
    moved(&servers, &[], &relay_keys(&before)).await;

    // Both are valid.
    let written = servers.write(&["--rotate", "all"]);
    assert!(
        written["nodes"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|node| node["old_keys"] == true)
    );
    for server in &servers.servers {
        server.reload();
        authors[0].goes_on().await;
    }
    for (node, before) in NODES.iter().zip(&before) {
        servers.hand_over(node);
        let now = keys_of(&servers, node);
        assert!(!before.iter().any(|key| now.contains(key)));
        moved(&servers, before, &now).await;
        for author in &authors {
            author.goes_on().await;
        }
    }
    let now = NODES.map(|node| keys_of(&servers, node));

    // The old ones end. Nobody who has a new one is disconnected.
    let old = servers.made_key("relay-1", "relay.old");
    let stolen = std::fs::read_to_string(&old).expect("a seed");
    let kept = connections(&servers).await;
    servers.write(&["--retire", "all"]);
    servers.reload();
    let stolen_file = servers.place.write("stolen.nk", &stolen);
    let begun = Instant::now();
    for server in 0..3 {
        while servers.connect(server, &stolen_file).await.is_some() {
            assert!(begun.elapsed() < HANGING, "an old key is taken still");
        }
    }
    for author in &authors {
        author.goes_on().await;
    }
    let after = connections(&servers).await;
    for (connection, user) in kept.iter().filter(|(_, user)| relay_keys(&now).contains(user)) {
        assert_eq!(
            after.get(connection),
            Some(user),
            "a reload ends no connection of another user"
        );
    }
    servers.diagnosed(&[]);

    for (author, store) in authors.into_iter().zip(&stores) {
        let (channel, appended) = author.end().await;
        let head = store.watch_head(channel.log()).await.expect("a head");
        assert_eq!(head.borrow().get(), appended);
        no_remarks(store).await;
    }
    for store in stores {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_a_server_does_not_know_is_not_used_and_the_node_says_so() {
    let servers = Servers::start(&["relay-1"]);
    let store = Arc::new(servers.node("relay-1").await);
    let author = Author::start(store.clone()).await;
    let before = keys_of(&servers, "relay-1");
    let remarked = async |what: &str| {
        let begun = Instant::now();
        loop {
            let remarks = store.readiness().remarks;
            let is = remarks
                .iter()
                .any(|remark| remark.contains(what) && remark.contains("relay.nk"));
            if is || (what.is_empty() && remarks.is_empty()) {
                return;
            }
            assert!(begun.elapsed() < HANGING, "{what}: {remarks:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Two servers know it, and one does not yet.
    servers.write(&["--rotate", "relay-1"]);
    servers.servers[0].reload();
    servers.servers[1].reload();
    let written = std::fs::read(servers.key("relay-1", "relay")).expect("a seed");
    servers.hand_over("relay-1");
    remarked("refuse it").await;
    author.goes_on().await;
    moved(&servers, &keys_of(&servers, "relay-1"), &before).await;
    // No key at all.
    std::fs::write(servers.key("relay-1", "relay"), "half a ke").expect("written");
    remarked("no seed of an NKey").await;
    author.goes_on().await;
    std::fs::write(servers.key("relay-1", "relay"), &written).expect("written");
    servers.hand_over("relay-1");
    servers.servers[2].reload();
    moved(&servers, &before, &keys_of(&servers, "relay-1")).await;
    remarked("").await;
    author.goes_on().await;
    author.end().await;
    // Neither an unfinished change is begun again, nor that of a node that there is not.
    for (node, said) in [("relay-1", "--retire relay-1"), ("relay-9", "relay-1")] {
        let line = [
            "--json",
            "fleet",
            "nats",
            "--inventory",
            "inventory.toml",
            "--out",
            "conf",
            "--rotate",
            node,
        ];
        let ran = servers.place.run(line);
        let failure = ran.failure();
        assert_eq!((ran.code, failure["code"].as_str()), (3, Some("SKY-6001")), "{failure}");
        assert!(
            failure["help"].as_str().is_some_and(|help| help.contains(said)),
            "{failure}"
        );
    }
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revoked_node_is_refused_at_once_and_no_other_notices() {
    let mut servers = Servers::start(&NODES);
    let stores: Vec<Arc<FleetStore>> = join_all(NODES.map(|node| servers.node(node)))
        .await
        .into_iter()
        .map(Arc::new)
        .collect();
    let authors = join_all(stores[..2].iter().map(|store| Author::start(store.clone()))).await;
    let keys = NODES.map(|node| keys_of(&servers, node));
    moved(&servers, &[], &keys.concat()).await;
    let kept = connections(&servers).await;

    servers.nodes.pop();
    servers.write(&[]);
    servers.reload();
    moved(&servers, &keys[2], &[]).await;
    for key in ["relay", "relay-sync"] {
        for server in 0..3 {
            assert!(
                servers.connect(server, &servers.key("relay-3", key)).await.is_none(),
                "{key}"
            );
        }
    }
    let after = connections(&servers).await;
    for (connection, user) in kept.iter().filter(|(_, user)| keys[..2].concat().contains(user)) {
        assert_eq!(
            after.get(connection),
            Some(user),
            "a reload ends no connection of another user"
        );
    }
    for author in authors {
        author.goes_on().await;
        author.end().await;
    }
    // It says why.
    let begun = Instant::now();
    while !stores[2]
        .readiness()
        .remarks
        .iter()
        .any(|remark| remark.contains("refuse it"))
    {
        assert!(begun.elapsed() < HANGING, "{:?}", stores[2].readiness());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!stores[2].readiness().problems.is_empty(), "it is not ready");
    servers.nodes = vec!["relay-3".into()];
    let begun = Instant::now();
    loop {
        let (code, found) = servers.doctor(&[]);
        assert_eq!(code, 7);
        let findings = found["findings"].as_array().expect("a list");
        let mut refused = findings.iter().filter(|finding| finding["check"] == "key-refused");
        if let Some(refused) = refused.next() {
            assert_eq!(refused["severity"], "critical", "{found:#}");
            break;
        }
        assert!(begun.elapsed() < HANGING, "{found:#}");
    }
}
