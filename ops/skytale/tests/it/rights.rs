//! Damage that a thief of the fleet's keys can do, with the real servers as `skytale fleet nats` configures them: none
//! with a relay node's keys, and with the keeper's key only purges that it may make.

use crate::nats::{HANGING, Servers, append, channel, finding, frame, no_remarks};
use async_nats::{Client, HeaderMap, jetstream};
use serde_json::{Value, json};
use skytale_log_store::LogStore as _;
use skytale_log_store::fleet::{FleetConfig, Keeper, KeyFile, NatsAuth, NatsConfig};
use skytale_proto::Detail;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time to wait for an answer that does not come: the servers refuse a publish without one.
const NO_ANSWER: Duration = Duration::from_millis(400);

/// Returns the contents of every stream of the fleet: its first and last message, and the number of messages.
async fn held(servers: &Servers) -> BTreeMap<String, (u64, u64, u64)> {
    let context = jetstream::new(servers.operator(false).await);
    let mut found = BTreeMap::new();
    let mut names = context.stream_names();
    let mut all = Vec::new();
    while let Some(name) = futures_util::StreamExt::next(&mut names).await {
        all.push(name.expect("a name"));
    }
    for name in all {
        let stream = context.get_stream(&name).await.expect("the stream");
        let state = &stream.cached_info().state;
        found.insert(name, (state.first_sequence, state.last_sequence, state.messages));
    }
    found
}

/// All that was there is there: nothing went from any beginning, and no stream is gone.
async fn nothing_is_gone(servers: &Servers, before: &BTreeMap<String, (u64, u64, u64)>, after: &str) {
    // Time for work that a server does later than it answers.
    tokio::time::sleep(NO_ANSWER).await;
    let now = held(servers).await;
    for (name, (first, last, messages)) in before {
        let (first_now, last_now, messages_now) =
            now.get(name).unwrap_or_else(|| panic!("{name} is gone after {after}"));
        assert_eq!(first, first_now, "{name} after {after}");
        assert!(
            last_now >= last && messages_now >= messages,
            "{name} after {after}: {now:?}"
        );
    }
}

/// Returns a server's answer, if there is one.
async fn asked(client: &Client, subject: &str, headers: Option<HeaderMap>, payload: Value) -> Option<Value> {
    asked_within(NO_ANSWER, client, subject, headers, payload).await
}

/// Returns a server's answer, which must come.
async fn answered(client: &Client, subject: &str, payload: Value) -> Option<Value> {
    asked_within(HANGING, client, subject, None, payload).await
}

async fn asked_within(
    within: Duration,
    client: &Client,
    subject: &str,
    headers: Option<HeaderMap>,
    payload: Value,
) -> Option<Value> {
    let payload = match payload {
        Value::Null => Vec::new(),
        payload => payload.to_string().into_bytes(),
    };
    let mut request = async_nats::client::Request::new()
        .payload(payload.into())
        .timeout(Some(within));
    if let Some(headers) = headers {
        request = request.headers(headers);
    }
    let answer = client.send_request(subject.to_owned(), request).await.ok()?;
    Some(serde_json::from_slice(&answer.payload).unwrap_or(Value::Null))
}

/// Whether a request did what it says.
fn is_done(answer: Option<&Value>) -> bool {
    answer.is_some_and(|answer| answer.get("error").is_none())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_a_relay_nodes_keys_nothing_can_be_taken_away() {
    let servers = Servers::start(&["relay-1", "relay-2"]);
    let (one, two) = (servers.node("relay-1").await, servers.node("relay-2").await);
    let channel = channel(&one).await;
    for _ in 0..20 {
        append(&one, frame(channel, Detail::Message, b"kept"))
            .await
            .expect("appended");
    }
    // Something in each stream, as a node writes it; with an empty body, which as a request would purge all.
    let node = servers
        .connect(0, &servers.made_key("relay-1", "relay"))
        .await
        .expect("connected");
    for subject in ["skytale.log.0.0.mark", "skytale.log.0.1.mark"] {
        assert!(
            is_done(answered(&node, subject, Value::Null).await.as_ref()),
            "{subject}"
        );
    }
    let context = jetstream::new(
        servers
            .connect(0, &servers.made_key("relay-1", "relay"))
            .await
            .expect("connected"),
    );
    // A checkpoint's stream, as nodes make it, with something in it.
    let wanted = jetstream::stream::Config {
        name: "SKYTALE_CHECKPOINTS_0".into(),
        subjects: vec!["skytale.checkpoint.0.>".into()],
        num_replicas: 3,
        deny_delete: true,
        ..Default::default()
    };
    context.create_stream(wanted).await.expect("a node makes it");
    // A stream that was just made has no leader for a moment.
    for attempt in 0.. {
        let sent = context
            .publish("skytale.checkpoint.0.0.0.0.word", "a word".into())
            .await
            .expect("sent");
        match sent.await {
            Ok(_) => break,
            Err(error) => assert!(attempt < 100, "not in the stream: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = held(&servers).await;
    assert_eq!(before.len(), 3, "{before:?}");
    assert!(before.values().all(|(_, _, messages)| *messages > 0), "{before:?}");

    let sync = servers
        .connect(0, &servers.made_key("relay-1", "relay-sync"))
        .await
        .expect("connected");
    for stream in before.keys() {
        let api = |what: &str| format!("$JS.API.STREAM.{what}.{stream}");
        for (what, payload) in [
            ("PURGE", Value::Null),
            ("PURGE", json!({"seq": 5})),
            ("PURGE", json!({"filter": "skytale.log.0.>"})),
            ("PURGE", json!({"keep": 1})),
            ("DELETE", Value::Null),
            ("MSG.DELETE", json!({"seq": 1})),
            ("MSG.DELETE", json!({"seq": 1, "no_erase": true})),
            (
                "UPDATE",
                json!({"name": stream, "max_msgs": 1, "allow_rollup_hdrs": true}),
            ),
            (
                "CREATE",
                json!({"name": stream, "max_msgs": 1, "allow_rollup_hdrs": true}),
            ),
            ("CREATE", json!({"name": stream, "max_age": 1_000_000_000})),
            ("RESTORE", json!({"config": {"name": stream}})),
            ("PEER.REMOVE", json!({"peer": "eu-1"})),
        ] {
            let answer = asked(&node, &api(what), None, payload.clone()).await;
            assert!(!is_done(answer.as_ref()), "{what} {payload} of {stream}: {answer:?}");
        }
    }
    nothing_is_gone(&servers, &before, "what the API offers").await;

    // A message that takes the place of others.
    for subject in [
        "skytale.log.0.0.mark",
        "skytale.log.0.1.mark",
        "skytale.checkpoint.0.0.0.0.word",
    ] {
        for (name, value) in [
            ("Nats-Rollup", "all"),
            ("Nats-Rollup", "sub"),
            ("Nats-TTL", "1s"),
            ("Nats-Schedule-Target", "x"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value);
            let answer = asked(&node, subject, Some(headers), Value::Null).await;
            assert!(
                name == "Nats-Schedule-Target" || !is_done(answer.as_ref()),
                "{name}: {value} at {subject}: {answer:?}"
            );
        }
    }
    nothing_is_gone(&servers, &before, "messages that roll others up").await;

    // An answer that is sent where it is a request: servers check no rights on the subject of an answer.
    for stream in before.keys() {
        for what in [
            "PURGE",
            "DELETE",
            "MSG.DELETE",
            "UPDATE",
            "LEADER.STEPDOWN",
            "PEER.REMOVE",
        ] {
            let target = format!("$JS.API.STREAM.{what}.{stream}");
            for subject in [
                "skytale.log.0.0.mark".to_owned(),
                "skytale.log.0.1.mark".to_owned(),
                "$JS.API.INFO".to_owned(),
                format!("$JS.API.STREAM.INFO.{stream}"),
                "$SYS.REQ.USER.INFO".to_owned(),
            ] {
                let sent = node.publish_with_reply(subject, target.clone(), "".into()).await;
                sent.expect("sent");
            }
            let got = node.publish_with_reply(format!("$JS.API.STREAM.MSG.GET.{stream}"), target, "{\"seq\":1}".into());
            got.await.expect("sent");
        }
        // And messages of a consumer, whose bodies are empty: a mark is.
        let consumer = json!({"stream_name": stream, "config": {
            "name": "evil", "ack_policy": "none", "deliver_policy": "all", "mem_storage": true
        }});
        let made = answered(&node, &format!("$JS.API.CONSUMER.CREATE.{stream}.evil"), consumer).await;
        assert!(is_done(made.as_ref()), "{made:?}");
        for _ in 0..5 {
            let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.evil");
            let target = format!("$JS.API.STREAM.PURGE.{stream}");
            node.publish_with_reply(next, target, "1".into()).await.expect("sent");
        }
        let pushed = json!({"stream_name": stream, "config": {
            "name": "pushed", "ack_policy": "none", "deliver_policy": "all", "deliver_subject": format!("$JS.API.STREAM.PURGE.{stream}")
        }});
        asked(&node, &format!("$JS.API.CONSUMER.CREATE.{stream}.pushed"), None, pushed).await;
    }
    node.flush().await.expect("flushed");
    nothing_is_gone(&servers, &before, "answers that are sent to the API").await;

    // The key that asks whether servers sync.
    for subject in [
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.SERVER.PING.JSZ",
        "$SYS.REQ.SERVER.PING.VARZ",
        "$SYS.REQ.USER.INFO",
    ] {
        for target in [
            "$JS.API.ACCOUNT.PURGE.SKYTALE",
            "$JS.API.META.LEADER.STEPDOWN",
            "$JS.API.SERVER.REMOVE",
        ] {
            sync.publish_with_reply(subject, target, "".into()).await.expect("sent");
        }
    }
    sync.flush().await.expect("flushed");
    for target in ["$JS.API.ACCOUNT.PURGE.SKYTALE", "$JS.API.STREAM.PURGE.SKYTALE_LOG_0_0"] {
        let answer = asked(&sync, target, None, Value::Null).await;
        assert!(!is_done(answer.as_ref()), "{target}: {answer:?}");
    }
    nothing_is_gone(&servers, &before, "answers of servers").await;
    for store in [one, two] {
        // And the nodes have all the rights that they need.
        no_remarks(&store).await;
        store.close().await.expect("closed");
    }
}

fn keeper(servers: &Servers, key: &std::path::Path, retention: Duration) -> Keeper {
    let settings = servers.settings("relay-1");
    Keeper::new(FleetConfig {
        nats: NatsConfig {
            auth: NatsAuth::NKeyFile(KeyFile::new(key)),
            ..settings.nats.clone()
        },
        checkpoint_every: 20,
        retention: Some(retention),
        ..settings
    })
    .hearing_for(Duration::from_secs(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_keepers_key_purges_and_writes_nothing_and_a_nodes_key_is_no_keepers() {
    let servers = Servers::start(&["relay-1"]);
    servers.hand_over("relay-1");
    let retention = Duration::from_secs(2);
    let settings = FleetConfig {
        checkpoint_every: 20,
        retention: Some(retention),
        retention_every: Duration::from_millis(200),
        ..servers.settings("relay-1")
    };
    let store = skytale_log_store::FleetStore::open(settings).await.expect("it opens");
    store.ready().await.expect("it follows");
    let channel = channel(&store).await;
    let shard = store.shard_of(&channel.log()).expect("a shard").stream();
    let key = servers.place.path("conf/keeper/keeper.nk");
    let client = servers.connect(0, &key).await.expect("the keeper may connect");
    for subject in [
        "skytale.log.0.0.mark",
        "skytale.log.0.1.mark",
        "skytale.checkpoint.0.0.0.0.word",
        "skytale.node.here",
    ] {
        let answer = asked(&client, subject, None, Value::Null).await;
        assert!(!is_done(answer.as_ref()), "{subject}: {answer:?}");
    }
    let answer = asked(&client, &format!("$JS.API.STREAM.DELETE.{shard}"), None, Value::Null).await;
    assert!(!is_done(answer.as_ref()), "{answer:?}");

    let no_keeper = keeper(&servers, &servers.made_key("relay-1", "relay"), retention)
        .round()
        .await;
    let error = no_keeper.expect_err("no keeper's rights");
    assert_eq!(error.code(), skytale_proto::Code::KeeperRights, "{error}");
    let keeper = keeper(&servers, &key, retention);
    let begun = Instant::now();
    loop {
        let round = keeper.round().await.expect("a round");
        if round.shards.iter().any(|kept| kept.purged.is_some()) {
            break;
        }
        assert!(begun.elapsed() < HANGING, "{round:?}");
        for _ in 0..10 {
            append(&store, frame(channel, Detail::Message, b"to be given up"))
                .await
                .expect("appended");
        }
    }
    assert!(held(&servers).await[&shard].0 > 1);
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_with_the_rights_of_an_earlier_version_are_named() {
    let servers = Servers::start(&["relay-1"]);
    let store = servers.node("relay-1").await;
    store.close().await.expect("closed");
    servers.diagnosed(&[]);
    // As it was: a node may purge, and asks whether servers sync as a user of the system account.
    for server in 0..3 {
        let file = servers.dir(server).join("accounts.conf");
        let text = std::fs::read_to_string(&file).expect("its accounts");
        let old = text.replace(
            "    \"$JS.API.STREAM.CREATE.SKYTALE_LOG_0_0\"",
            "    \"$JS.API.STREAM.CREATE.SKYTALE_LOG_0_0\"\n    \"$JS.API.STREAM.PURGE.SKYTALE_LOG_0_0\"",
        );
        assert_ne!(old, text);
        std::fs::write(&file, old).expect("written");
    }
    servers.reload();
    let found = servers.diagnosed(&["rights"]);
    let rights = finding(&found, "rights");
    assert_eq!(rights["severity"], "critical");
    assert!(
        rights["found"]
            .as_str()
            .is_some_and(|found| found.contains("STREAM.PURGE.SKYTALE_LOG_0_0")),
        "{rights:#}"
    );
    servers.write(&[]);
    servers.reload();
    servers.diagnosed(&[]);
}
