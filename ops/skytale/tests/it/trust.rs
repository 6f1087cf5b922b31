//! The API's keys and tokens hold at every node of a fleet: real servers, nodes and API.

use crate::fleet::{fleet, place};
use crate::full_disk::get;
use crate::node::text;
use crate::process::{Place, Running, free_port};
use futures_util::future::BoxFuture;
use nkeys::{KeyPair, KeyPairType};
use skytale_proto::rest::Jwks;
use skytale_proto::{AgentId, Code};
use skytale_sdk::internals::net::Method;
use skytale_sdk::internals::net::ProofSigner;
use skytale_sdk::internals::net::relay::{Endpoint, Session};
use skytale_sdk::{ApiClient, ApiKey, NetworkConfig, Relay, RelayError, Token, TokenError, TokenSource, TokenSubject};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Nodes of the fleet.
const NODES: usize = 3;
/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(120);

/// An agent's key.
struct Identity(KeyPair);

impl ProofSigner for Identity {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 64], TokenError>> {
        let signature = self.0.sign(message).expect("signed");
        Box::pin(async move { Ok(signature.try_into().expect("64 bytes")) })
    }
}

fn identity() -> (AgentId, Identity) {
    let pair = KeyPair::new_from_raw(KeyPairType::User, [7; 32]).expect("a key");
    let public = data_encoding::BASE32_NOPAD.decode(pair.public_key().as_bytes());
    let public = public.expect("base 32");
    // A prefix of one byte, the key, a checksum of two.
    let id = public[1..33].try_into().expect("32 bytes");
    (AgentId::from_bytes(id), Identity(pair))
}

/// An API with an operator's secret, over a fleet's streams, and nodes that believe it.
struct Operated {
    place: Place,
    url: String,
    /// The enrolment and the admin address of each node.
    nodes: Vec<(String, String)>,
    _servers: Vec<Running>,
}

impl Operated {
    fn start() -> Self {
        let mut place = place();
        let streams = fleet(&mut place, &["--nodes", "1"]);
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let secret = |byte: &str| byte.repeat(32);
        place.write(
            "api.toml",
            &format!(
                "api_url = '{url}'\nadmin_secret = '{admin}'\n[api]\nadmin.listen = '127.0.0.1:0'\nlisten = '127.0.0.1:{port}'\nurl = '{url}'\n\
                 database = 'sqlite:api.db'\nadmin_secret = '{admin}'\nrelay_secret = '{relay}'\n\
                 key_encryption_key = '{kek}'\n",
                admin = secret("a7"),
                relay = secret("r5"),
                kek = secret("c3"),
            ),
        );
        let line = ["--json", "--config", "api.toml", "api"];
        let mut api = Running::start(place.command(line), &place.path("api.log"));
        api.json();
        place.set("SKYTALE_CONFIG", "api.toml");
        // Not the API that started the streams.
        place.set("SKYTALE_API_URL", &url);
        let mut servers = vec![streams, api];
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let file = format!("node-{number}.toml");
            let label = format!("node-{number}");
            let made = place.json(&["relay", "enrol", &label]);
            let key = text(&made["secret"]);
            place.write(
                &file,
                &settings(&place.path("fleet/relay-1/relay.toml"), number, &url, &key),
            );
            let line = ["--json", "--config", &file, "relay"];
            let mut node = Running::start(place.command(line), &place.path(&format!("node-{number}.log")));
            let admin = text(&node.json()["admin"]);
            nodes.push((text(&made["enrolment"]["id"]), admin));
            servers.push(node);
        }
        Self {
            place,
            url,
            nodes,
            _servers: servers,
        }
    }

    fn client(&self, key: ApiKey) -> ApiClient {
        ApiClient::new(&self.url, key).expect("a client")
    }
}

/// The settings of a node over the same streams as another one.
fn settings(of: &Path, number: usize, api: &str, key: &str) -> String {
    let text = std::fs::read_to_string(of).expect("a relay node's settings");
    let mut settings: toml::Table = text.parse().expect("TOML");
    let relay = settings["relay"].as_table_mut().expect("a section");
    // Its port is that one's.
    relay.remove("https");
    let texts = [
        ("data_dir", format!("node-{number}")),
        ("listen", "127.0.0.1:0".into()),
        ("api_url", api.to_owned()),
        ("issuer", api.to_owned()),
        ("relay_secret", key.to_owned()),
    ];
    relay.extend(texts.map(|(key, text)| (key.to_owned(), toml::Value::String(text))));
    settings.to_string()
}

/// A session at a node.
async fn session(
    endpoint: &Endpoint,
    relay: &Relay,
    subject: &TokenSubject,
    token: &Token,
    provider: &TokenSource,
) -> Result<Session, RelayError> {
    let connecting = Session::connect(endpoint, relay, subject.clone(), token.clone(), provider.clone());
    tokio::time::timeout(HANGING, connecting).await.expect("answered")
}

#[test]
fn a_new_signing_key_reaches_every_node_and_a_revoked_key_opens_none() {
    let mut operated = Operated::start();
    let account = operated.place.json(&["account", "create", "acme"]);
    operated.place.set("SKYTALE_API_KEY", text(&account["key"]["secret"]));
    let worker = operated.place.json(&["key", "create", "--label", "worker"]);
    let client = operated.client(ApiKey::new(text(&worker["secret"])).expect("a key"));
    let operator = operated.client(ApiKey::operator("a7".repeat(32)).expect("a secret"));

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let any = "127.0.0.1:0".parse().expect("an address");
        let endpoint = Endpoint::bind(&Zeroizing::new([9; 32]), NetworkConfig::bound_to(any))
            .await
            .expect("an endpoint");
        let (agent, identity) = identity();
        let subject = TokenSubject::new(agent, endpoint.id(), Arc::new(identity));
        let token = client.token(&subject).await.expect("a token");
        let listed = token.relays().iter();
        let nodes: Vec<Relay> = listed
            .map(|relay| Relay::from_directory(relay).expect("an address"))
            .collect();
        assert_eq!(nodes.len(), NODES, "the token names every node");
        let provider = TokenSource::new(client.clone());
        for node in &nodes {
            let session = session(&endpoint, node, &subject, &token, &provider).await;
            session.expect("a session").close().await;
        }

        // The API signs with another key, four times in a row, and no node refuses one of them once; what an old one signed
        // holds until it ends.
        let mut newer = token.clone();
        for number in 1..=4 {
            let keys: Jwks = operator
                .call(Method::Post, "/v1/signing-keys", None::<&()>)
                .await
                .expect("rotated");
            assert_eq!(keys.keys.len(), number + 1);
            newer = client.token(&subject).await.expect("a token");
            for node in &nodes {
                let with_the_newest = session(&endpoint, node, &subject, &newer, &provider).await;
                with_the_newest.expect("a session").close().await;
            }
        }
        let mut sessions = Vec::new();
        for node in &nodes {
            let with_the_old = session(&endpoint, node, &subject, &token, &provider).await;
            with_the_old.expect("a session").close().await;
            let with_the_newest = session(&endpoint, node, &subject, &newer, &provider).await;
            sessions.push(with_the_newest.expect("a session"));
        }

        // The key that both tokens came from is revoked: what runs ends, and nothing begins, anywhere.
        let revoked = operated.place.json(&["key", "revoke", &text(&worker["key"]["id"])]);
        assert_eq!(revoked["revoked"], worker["key"]["id"]);
        for session in &sessions {
            let ended = tokio::time::timeout(HANGING, session.ended()).await.expect("ended");
            assert_eq!(ended.code(), Code::TokenRevoked, "{ended}");
        }
        for node in &nodes {
            for token in [&token, &newer] {
                let refused = session(&endpoint, node, &subject, token, &provider).await;
                assert_eq!(refused.err().map(|error| error.code()), Some(Code::TokenRevoked));
            }
        }
        endpoint.close().await;
    });
}

#[test]
fn an_agent_of_a_node_that_is_revoked_goes_on_at_another() {
    let mut operated = Operated::start();
    let account = operated.place.json(&["account", "create", "acme"]);
    operated.place.set("SKYTALE_API_KEY", text(&account["key"]["secret"]));
    let place = &operated.place;
    let alice = |arguments: &[&str]| {
        let mut line = arguments.to_vec();
        line.extend(["--vault", "alice.vault", "--timeout-s", "120"]);
        place.json(&line)
    };
    alice(&["init"]);
    alice(&["channel", "create", "plans"]);
    // Holds a session, and lets commands beside it work through that.
    let tail = ["--json", "channel", "tail", "plans", "--vault", "alice.vault"];
    let _tail = Running::start(place.command(tail), &place.path("tail.log"));
    let serving = |besides: Option<usize>| {
        let has_session = |at: &usize| {
            let (_, metrics) = get(&operated.nodes[*at].1, "/metrics");
            Some(*at) != besides && metrics.contains("\nskytale_relay_sessions 1\n")
        };
        for _ in 0..1_200 {
            if let Some(at) = (0..NODES).find(has_session) {
                return at;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!(
            "no node has the session: {}",
            std::fs::read_to_string(place.path("tail.log")).unwrap_or_default()
        );
    };
    let first = serving(None);
    place.json(&["relay", "revoke", &operated.nodes[first].0]);
    let second = serving(Some(first));
    assert_ne!(first, second);
    alice(&["channel", "send", "plans", "over there"]);
    let (status, body) = get(&operated.nodes[first].1, "/readyz");
    assert_eq!(status, "503");
    assert!(body.contains("SKY-4021"), "{body}");
}
