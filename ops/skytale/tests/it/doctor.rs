//! `skytale fleet doctor`, on real servers that lack something; and the documented ways to mend it.

use crate::fleet::{fleet, place};
use crate::full_disk::Disk;
use crate::nats::{HANGING, Servers, append, channel, finding, frame};
use crate::node::text;
use crate::process::Place;
use async_nats::jetstream;
use serde_json::{Value, json};
use skytale_log_store::LogStore as _;
use skytale_proto::Detail;
use std::time::{Duration, Instant};

fn mends(finding: &Value) -> String {
    let steps = finding["mend"].as_array().expect("a list");
    steps.iter().map(text).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_that_is_well_gives_no_finding_and_one_that_lost_a_server_names_it() {
    let mut servers = Servers::start(&["relay-1"]);
    let store = servers.node("relay-1").await;
    channel(&store).await;
    let found = servers.diagnosed(&[]);
    let told = found["servers"].as_array().expect("a list");
    assert_eq!(told.len(), 3);
    for server in told {
        for (key, value) in [("answers", true), ("jetstream", true), ("sync_always", true)] {
            assert_eq!(server[key], value, "{key}: {found:#}");
        }
        // Half of what the answer took is in it.
        assert!(server["clock_ahead_ms"].is_i64(), "{found:#}");
        assert_eq!(server["stored_bytes_max"], 1_u64 << 30);
    }
    assert_eq!(told.iter().filter(|server| server["leads_meta"] == true).count(), 1);
    let streams = found["streams"].as_array().expect("a list");
    let logs: Vec<&Value> = streams.iter().filter(|stream| stream["kind"] == "log").collect();
    assert_eq!(logs.len(), 2);
    assert!(
        logs.iter()
            .all(|log| log["copies"].as_array().is_some_and(|copies| copies.len() == 2))
    );

    servers.servers[2].kill();
    let found = servers.diagnosed(&["server-silent", "address-silent"]);
    let silent = finding(&found, "server-silent");
    assert_eq!(
        (&silent["subject"], &silent["severity"]),
        (&json!("eu-3"), &json!("warning"))
    );
    assert!(
        text(&silent["found"]).contains("2 of the fleet's streams"),
        "{silent:#}"
    );
    assert!(mends(silent).contains("systemctl start skytale-nats"), "{silent:#}");
    let command = format!(
        "nats -s {} --nkey operator-system.nk server cluster peer-remove eu-3",
        servers.servers[0].url()
    );
    assert!(mends(silent).contains(&command), "{silent:#}");
    assert_eq!(finding(&found, "address-silent")["subject"], servers.servers[2].url());

    // A person reads the same.
    let begun = Instant::now();
    loop {
        let ran = servers.place.run(["--config", "node.toml", "fleet", "doctor"]);
        assert_eq!(ran.code, 7, "{}", ran.stderr);
        assert!(
            ran.stdout.contains(&command) && ran.stdout.contains("warning server-silent: eu-3"),
            "{}",
            ran.stdout
        );
        if ran.stderr.contains("2 findings: 2 warning") {
            break;
        }
        // A moment without a leader is a finding, too.
        assert!(begun.elapsed() < HANGING, "{}", ran.stderr);
    }

    servers.run(2);
    servers.diagnosed(&[]);

    // Two of three: nobody leads.
    servers.servers[1].kill();
    servers.servers[2].kill();
    let begun = Instant::now();
    let found = loop {
        let (code, found) = servers.doctor(&[]);
        assert_eq!(code, 7);
        let has = |check: &str| {
            let mut findings = found["findings"].as_array().expect("a list").iter();
            findings.any(|one| one["check"] == check && one["severity"] == "critical")
        };
        if has("meta-leader") && has("stream-leader") {
            break found;
        }
        assert!(begun.elapsed() < HANGING, "{found:#}");
    };
    assert!(
        mends(finding(&found, "meta-leader")).contains("until 2 of 3 answer"),
        "{found:#}"
    );
    assert!(text(&finding(&found, "stream-leader")["means"]).contains("SKY-1022"));
    servers.servers[0].kill();
    let (code, found) = servers.doctor(&[]);
    assert_eq!(code, 7);
    assert_eq!(finding(&found, "servers-unknown")["severity"], "unknown");
    assert_eq!(finding(&found, "address-silent")["severity"], "critical");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_does_not_sync_or_takes_small_messages_is_named_with_the_setting() {
    let mut servers = Servers::start(&["relay-1"]);
    let store = servers.node("relay-1").await;
    store.close().await.expect("closed");
    servers.diagnosed(&[]);
    let file = servers.dir(1).join("nats-server.conf");
    let well = std::fs::read_to_string(&file).expect("its settings");
    let ill = well
        .replace("sync_interval: always", "sync_interval: \"2m\"")
        .replace("max_payload: 2MB", "max_payload: 1MB");
    std::fs::write(&file, ill).expect("written");
    servers.servers[1].kill();
    servers.run(1);
    let found = servers.diagnosed(&["sync-interval", "max-payload"]);
    for (check, setting) in [
        ("sync-interval", "sync_interval: always"),
        ("max-payload", "max_payload: 2MB"),
    ] {
        let one = finding(&found, check);
        assert_eq!(
            (&one["subject"], &one["severity"]),
            (&json!("eu-2"), &json!("critical"))
        );
        assert!(mends(one).contains(setting), "{one:#}");
    }

    // A user that may not ask reports that nobody knows.
    let operator = servers.place.path("conf/operator.nk");
    let option = format!("relay.fleet.sync_key=file:{}", operator.display());
    let (code, found) = servers.doctor(&["--set", &option]);
    assert_eq!(code, 7);
    assert_eq!(finding(&found, "servers-unknown")["severity"], "unknown");
    assert!(
        !found.to_string().contains("sync-interval"),
        "unknown is not wrong: {found:#}"
    );
    assert!(
        found["servers"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|server| server["sync_always"].is_null())
    );

    std::fs::write(&file, well).expect("written");
    servers.servers[1].kill();
    servers.run(1);
    servers.diagnosed(&[]);
}

/// Sends the request of `nats server cluster peer-remove`: again, while another server is still joining (10202).
async fn remove(servers: &Servers, name: &str) {
    let question = json!({ "peer": name }).to_string();
    let operator = servers.operator(true).await;
    let begun = Instant::now();
    loop {
        let removed = operator.request("$JS.API.SERVER.REMOVE", question.clone().into()).await;
        let removed: Value = serde_json::from_slice(&removed.expect("answered").payload).expect("JSON");
        if removed["success"] == true {
            return;
        }
        assert_eq!(removed["error"]["err_code"], 10_202, "{removed}");
        assert!(begun.elapsed() < HANGING, "{removed}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A server has a copy of each log.
fn has_copies(found: &Value, name: &str) {
    let streams = found["streams"].as_array().expect("a list").iter();
    let mut logs = streams.filter(|stream| stream["kind"] == "log");
    let has = |stream: &Value| {
        let copies = stream["copies"].as_array().expect("a list");
        stream["leader"] == name || copies.contains(&json!(name))
    };
    assert!(logs.all(has), "{name}: {found:#}");
}

/// As docs/operating-a-fleet.md says, under "A NATS server that does not come back".
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_lost_is_removed_and_a_new_one_gets_its_copies() {
    let mut servers = Servers::start(&["relay-1"]);
    let store = servers.node("relay-1").await;
    let channel = channel(&store).await;
    let mut appended = 1;
    let mut more = async || {
        let accepted = append(&store, frame(channel, Detail::Message, b"kept"))
            .await
            .expect("appended");
        appended += 1;
        assert_eq!(accepted.offset.get(), appended, "nothing was lost");
        appended
    };
    more().await;
    servers.diagnosed(&[]);
    servers.servers[2].kill();
    servers.diagnosed(&["server-silent", "address-silent"]);
    more().await;

    remove(&servers, "eu-3").await;
    let found = servers.diagnosed(&["copy-missing", "meta-quorum", "address-silent", "no-majority"]);
    let missing = finding(&found, "copy-missing");
    assert!(
        text(&missing["subject"]).starts_with("SKYTALE_LOG_0_0, SKYTALE_LOG_0_1"),
        "{missing:#}"
    );
    assert!(mends(missing).contains("start a server in cluster eu"), "{missing:#}");
    more().await;

    servers.replace(2, "eu-4");
    has_copies(&servers.diagnosed(&[]), "eu-4");
    more().await;

    // The other way round: the new one first.
    servers.servers[1].kill();
    servers.replace(1, "eu-5");
    let found = servers.diagnosed(&["server-silent"]);
    assert_eq!(finding(&found, "server-silent")["subject"], "eu-2");
    more().await;
    remove(&servers, "eu-2").await;
    has_copies(&servers.diagnosed(&[]), "eu-5");
    let last = more().await;
    let head = store.watch_head(channel.log()).await.expect("a head");
    assert_eq!(head.borrow().get(), last);
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_was_deleted_or_edited_is_named_with_what_brings_it_back() {
    let servers = Servers::start(&["relay-1"]);
    let found = servers.diagnosed(&["stream-missing"]);
    assert!(
        mends(finding(&found, "stream-missing")).contains("start a relay node"),
        "no fleet yet"
    );
    let store = servers.node("relay-1").await;
    channel(&store).await;
    store.close().await.expect("closed");
    servers.diagnosed(&[]);

    let context = jetstream::new(servers.operator(false).await);
    let mut stream = context.get_stream("SKYTALE_LOG_0_0").await.expect("the stream");
    let mut config = stream.info().await.expect("its settings").config.clone();
    config.max_age = Duration::from_secs(3_600);
    config.num_replicas = 1;
    context.update_stream(config).await.expect("edited");
    let found = servers.diagnosed(&["stream-settings", "replicas-fewer"]);
    assert!(
        mends(finding(&found, "stream-settings")).contains("stream edit SKYTALE_LOG_0_0 --max-age"),
        "{found:#}"
    );
    assert!(
        mends(finding(&found, "replicas-fewer")).contains("stream edit SKYTALE_LOG_0_0 --replicas 3"),
        "{found:#}"
    );

    context.delete_stream("SKYTALE_LOG_0_0").await.expect("deleted");
    let found = servers.diagnosed(&["stream-missing"]);
    let missing = finding(&found, "stream-missing");
    assert_eq!(
        (&missing["subject"], &missing["severity"]),
        (&json!("SKYTALE_LOG_0_0"), &json!("critical"))
    );
    assert!(mends(missing).contains("stream restore"), "{missing:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_is_full_is_told_with_its_limit() {
    let servers = Servers::start_with(&["relay-1"], "16MB", None);
    servers.node("relay-1").await.close().await.expect("closed");
    let mut config = servers.settings("relay-1");
    config.append_timeout = Duration::from_secs(3);
    let store = skytale_log_store::FleetStore::open(config).await.expect("it opens");
    store.ready().await.expect("it follows");
    let channel = channel(&store).await;
    let body = vec![7; 900_000];
    let refused = loop {
        if let Err(error) = append(&store, frame(channel, Detail::Message, &body)).await {
            break error;
        }
    };
    assert!(refused.code().is_retryable(), "{refused}");
    let begun = Instant::now();
    loop {
        let (_, found) = servers.doctor(&[]);
        let findings = found["findings"].as_array().expect("a list");
        let full = findings
            .iter()
            .filter(|one| one["check"] == "store-full" && one["severity"] == "critical");
        if full.clone().count() > 0 {
            assert!(
                full.clone().all(|one| mends(one).contains("raise `max_file`")),
                "{found:#}"
            );
            break;
        }
        assert!(begun.elapsed() < HANGING, "{found:#}");
    }
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_whose_disk_is_full_has_no_jetstream_and_the_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = Disk::mounted(folder.path().join("disk"), 24) else {
        return;
    };
    let mut servers = Servers::start_with(&["relay-1"], "1GB", Some(folder.path().join("disk/data")));
    let store = servers.node("relay-1").await;
    let channel = channel(&store).await;
    servers.diagnosed(&[]);
    let body = vec![7; 900_000];
    let mut appended = 0;
    let begun = Instant::now();
    loop {
        // The server that leads may be the one that is full: then it hands over.
        match append(&store, frame(channel, Detail::Message, &body)).await {
            Ok(_) => appended += 1,
            Err(error) => assert!(error.code().is_retryable(), "{error}"),
        }
        if appended >= 40 {
            break;
        }
        assert!(begun.elapsed() < HANGING, "{appended} appended");
    }
    let found = servers.diagnosed(&["jetstream-disabled"]);
    let disabled = finding(&found, "jetstream-disabled");
    assert_eq!(
        (&disabled["subject"], &disabled["severity"]),
        (&json!("eu-3"), &json!("warning"))
    );
    disk.grow(200);
    servers.servers[2].kill();
    servers.run(2);
    servers.diagnosed(&[]);
    store.close().await.expect("closed");
    drop(servers);
}

/// The value of a server's setting, without its quotes.
fn setting(place: &Place, server: &str, name: &str) -> String {
    let file = place.path(&format!("fleet/nats/{server}/nats-server.conf"));
    let text = std::fs::read_to_string(file).expect("its settings");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .expect("the setting");
    line.trim_matches([' ', ':', '"']).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn regions_are_examined_with_their_mirrors() {
    let mut place = place();
    let running = fleet(&mut place, &["--regions", "3"]);
    let listens = |server: &str| format!("nats://{}", setting(&place, server, "listen"));
    let urls = ["eu-1", "eu-2", "eu-3"].map(listens);
    let config = format!(
        "[relay]\nregion = 1\n[relay.fleet]\nnats = {urls:?}\nnats_key = \"file:fleet/nats/nodes/relay-1/relay.nk\"\n\
         sync_key = \"file:fleet/nats/nodes/relay-1/relay-sync.nk\"\nregions = [\"1=2@eu\", \"2=2@us\", \"3=2@ap\"]\n\
         checkpoint_every = 1000\n"
    );
    place.write("node.toml", &config);
    let begun = Instant::now();
    let examined = |well: &dyn Fn(&Value) -> bool| loop {
        let ran = place.run(["--config", "node.toml", "--json", "fleet", "doctor"]);
        let found: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        if well(&found) {
            return found;
        }
        assert!(begun.elapsed() < HANGING, "{found:#}");
    };
    let found = examined(&|found| found["ok"] == true);
    let of_kind = |kind: &str| {
        let streams = found["streams"].as_array().expect("a list").iter();
        streams
            .filter(|stream| stream["kind"] == kind && stream["state"] == "there")
            .count()
    };
    assert_eq!((of_kind("log"), of_kind("mirror")), (6, 12));
    assert_eq!(
        found["servers"].as_array().map(Vec::len),
        Some(9),
        "those of all regions"
    );

    let operator = std::fs::read_to_string(place.path("fleet/nats/operator.nk")).expect("a seed");
    let operator = async_nats::ConnectOptions::with_nkey(operator.trim().to_owned());
    let context = jetstream::new(operator.connect(&urls[0]).await.expect("connected"));
    context.delete_stream("SKYTALE_LOG_1_0_IN_2").await.expect("deleted");
    let found = examined(&|found| found["ok"] == false);
    let missing = finding(&found, "mirror-missing");
    assert_eq!(
        (&missing["subject"], &missing["severity"]),
        (&json!("SKYTALE_LOG_1_0_IN_2"), &json!("warning"))
    );
    assert!(
        mends(missing).contains("restart a relay node of region 2"),
        "{missing:#}"
    );
    assert_eq!(running.stop("INT").0, 0);
}

#[test]
fn every_check_is_documented() {
    let text = include_str!("../../../../docs/operating-a-fleet.md");
    for check in skytale_log_store::fleet::doctor::CHECKS {
        assert!(text.contains(&format!("`{check}`")), "{check}");
    }
}

#[test]
fn a_node_that_keeps_its_log_alone_has_no_fleet_to_check() {
    let place = Place::new();
    let ran = place.run(["--json", "fleet", "doctor"]);
    let failure = ran.failure();
    assert_eq!((ran.code, failure["code"].as_str()), (3, Some("SKY-6001")), "{failure}");
    assert!(text(&failure["help"]).contains("--config"), "{failure}");
}
