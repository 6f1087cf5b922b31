//! Services around links: health, reflection, API keys, admin HTTP.

use crate::hostile::assert_status;
use crate::wire::{Client, channel, name, open};
use crate::world::{TestBridge, World, soon};
use secrecy::ExposeSecret as _;
use skytale_api::{Api, ApiConfig};
use skytale_bridge::policy::{Policy, Rules};
use skytale_bridge::{AuthConfig, BridgeConfig};
use skytale_proto::rest::{CreateAccount, CreateKey, CreatedAccount, CreatedKey};
use skytale_sdk::internals::net::Method;
use skytale_sdk::{ApiClient, ApiKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test(flavor = "multi_thread")]
async fn health_says_whether_there_is_a_relay_node() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let mut health = HealthClient::new(channel(&bridge.endpoint()).await);
    let mut wait = async |wanted: ServingStatus| {
        soon("the status", async {
            loop {
                let request = HealthCheckRequest {
                    service: "dataplane.proto.v1.DataPlaneService".into(),
                };
                let answer = health.check(request).await.map(|answer| answer.into_inner().status());
                if answer.is_ok_and(|status| status == wanted) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
    };
    wait(ServingStatus::Serving).await;
    world.kill_relay();
    wait(ServingStatus::NotServing).await;
    world.start_relay().await;
    wait(ServingStatus::Serving).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_shows_the_data_plane() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let mut reflection = ServerReflectionClient::new(channel(&bridge.endpoint()).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = reflection
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("an answer");
    let message = answer.into_inner().message().await.expect("a message").expect("one");
    let Some(MessageResponse::ListServicesResponse(list)) = message.message_response else {
        panic!("{message:?}");
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(
        names.contains(&"dataplane.proto.v1.DataPlaneService".into()),
        "{names:?}"
    );
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_is_an_account_as_long_as_it_is_in_force() {
    let world = World::new().await;
    let database = world.dir.path().join("api.db");
    let config = ApiConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        ..ApiConfig::dev(format!("sqlite:{}", database.display()))
    };
    let api = Api::start(config).await.expect("an API");
    let url = format!("http://{}", api.local_addr());
    let operator = ApiKey::operator(api.admin_secret().expose_secret()).expect("a secret");
    let operator = ApiClient::new(&url, operator).expect("a client");
    let request = CreateAccount {
        org: "acme".parse().expect("a name"),
    };
    let created: CreatedAccount = operator
        .call(Method::Post, "/v1/accounts", Some(&request))
        .await
        .expect("an account");
    let mut policy = Policy::default();
    policy.accounts.insert(
        format!("key:{}", created.key.key.id),
        Rules {
            names: vec!["org/ns/*".parse().expect("a pattern")],
            destinations: Vec::new(),
            node: false,
        },
    );
    let auth = AuthConfig {
        api_url: Some(url.clone()),
        policy,
        ..AuthConfig::default()
    };
    let mut config = BridgeConfig::new(([127, 0, 0, 1], 0).into());
    config.times.key_ms = 200;
    config.limits.links_per_account_max = 3;
    let bridge = TestBridge::start(config, auth, None, 1, &world).await;
    let connection = channel(&bridge.endpoint()).await;
    let own = name("alice", Some(1));
    let mut client = Client::over(connection.clone(), Some(&created.key.secret))
        .await
        .expect("a link");
    client.subscribe(&own, &own).await.expect("its names");
    // Not the last one: it holds a single bit of the key.
    let mut wrong = created.key.secret.clone();
    let at = wrong.len() - 10;
    let other = if wrong[at..].starts_with('A') { "B" } else { "A" };
    wrong.replace_range(at..=at, other);
    let status = open(connection.clone(), Some(&wrong))
        .await
        .map(|_| ())
        .expect_err("refused");
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status:?}");
    assert!(!status.message().contains(&wrong));
    // Two links of a second key end when it is revoked, and those of the first go on.
    let owner = ApiClient::new(&url, ApiKey::new(&created.key.secret).expect("a key")).expect("a client");
    let request = CreateKey {
        label: "second".into(),
        scopes: vec!["relay:append".into()],
        expires_s: None,
    };
    let second: CreatedKey = owner
        .call(Method::Post, "/v1/keys", Some(&request))
        .await
        .expect("a key");
    let mut links = Vec::new();
    for _ in 0..2 {
        let link = Client::over(connection.clone(), Some(&second.secret)).await;
        links.push(link.expect("a link"));
    }
    // All keys of an account have its limits together.
    let over = open(connection.clone(), Some(&second.secret)).await.map(|_| ());
    assert_status(&over.expect_err("refused"), tonic::Code::ResourceExhausted, "SKY-7005");
    let path = format!("/v1/keys/{}", second.key.id);
    let () = owner.call(Method::Delete, &path, None::<&()>).await.expect("revoked");
    for link in &mut links {
        let status = link.ended().await;
        assert_status(&status, tonic::Code::Unauthenticated, "SKY-7007");
    }
    let status = open(connection, Some(&second.secret))
        .await
        .map(|_| ())
        .expect_err("refused");
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status:?}");
    // Without the API, nobody new comes in and links go on.
    api.shutdown().await;
    tokio::time::sleep(std::time::Duration::from_millis(1_000)).await;
    client.subscribe(&own, &own).await.expect("the link goes on");
    let status = open(channel(&bridge.endpoint()).await, Some(&created.key.secret))
        .await
        .map(|_| ())
        .expect_err("not known");
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_http_says_ready_and_renders_metrics() {
    let world = World::new().await;
    let bridge = world
        .bridge_with(1, |config| config.admin_listen = Some(([127, 0, 0, 1], 0).into()))
        .await;
    let admin = bridge.admin();
    let get = async |path: &str| {
        let mut socket = tokio::net::TcpStream::connect(admin).await.expect("a socket");
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status: u16 = head[9..12].parse().expect("a status");
        (status, body.to_owned())
    };
    soon("ready", async {
        while get("/readyz").await.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(get("/livez").await.1, "alive\n");
    assert_eq!(get("/metrics").await, (200, "some_metric 1\n".into()));
    world.kill_relay();
    soon("not ready", async {
        while get("/readyz").await.0 != 503 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    bridge.stop().await;
}
