//! Cost of idle links. The bridge is a process of its own, so that its memory is separate from the clients'.

use crate::wire::{Client, name, to_group};
use skytale_bridge::wire::proto::SessionMessageType as Kind;
use skytale_bridge::{AuthConfig, Bridge, BridgeConfig};
use skytale_proto::Code;
use skytale_sdk::internals::raw::{RawClient, RawConfig};
use skytale_sdk::{RelaySource, Token, TokenError, TokenFn, TokenSource};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

const CHILD: &str = "SKYTALE_BRIDGE_CHILD";
const LINKS: u64 = 2_000;
const LINK_BYTES_MAX: u64 = 128 * 1024;

/// The bridge's process. It has no relay node: names of applications need none.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let tokens = TokenFn::new(|_| async { Err::<Token, _>(TokenError::new(Code::ApiBusy, "there is no API")) });
    let client = RawClient::open(RawConfig {
        identity: Zeroizing::new([1; 32]),
        endpoint: Zeroizing::new([2; 32]),
        tokens: TokenSource::new(tokens),
        relays: RelaySource::Directory,
        region: None,
        network: Default::default(),
    })
    .await
    .expect("a client");
    let auth = AuthConfig {
        everyone: true,
        ..AuthConfig::default()
    };
    let config = BridgeConfig::new(([127, 0, 0, 1], 0).into());
    let bridge = Bridge::start(config, auth, None, client, None).await.expect("a bridge");
    #[allow(clippy::print_stdout, reason = "the starter reads it")]
    {
        println!("bridge at {}", bridge.local_addr());
    }
    // Until the test is gone.
    let _ = tokio::io::stdin().read(&mut [0]).await;
    std::process::exit(0);
}

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    let kib = line.split_whitespace().nth(1).expect("a number");
    kib.parse::<u64>().expect("a number") * 1024
}

/// Returns the time for which they are up: `SKYTALE_STAND_S` seconds, 1 without it. Pings go out each 30 s.
fn stand() -> Duration {
    let seconds = std::env::var("SKYTALE_STAND_S").map_or(1, |text| text.parse().expect("seconds"));
    Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_links_stand_and_cost_little() {
    let mut bridge = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "bridge_child", "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(bridge.stdout.take().expect("piped")).lines();
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("bridge at ").map(|(_, address)| address.to_owned()))
        .expect("an address");
    let endpoint = format!("http://{address}");
    let mut links = Vec::new();
    for number in 0..10 {
        links.push(link(&endpoint, number).await);
    }
    let before = resident_bytes(bridge.id());
    for number in 10..LINKS {
        links.push(link(&endpoint, number).await);
    }
    let each = (resident_bytes(bridge.id()).saturating_sub(before)) / (LINKS - 10);
    println!("{each} bytes an idle link");
    assert!(each < LINK_BYTES_MAX, "{each} bytes a link");
    tokio::time::sleep(stand()).await;
    // They are: each hears what is sent to it.
    let sender = Client::connect(&endpoint).await;
    for (number, link) in (0..).zip(&mut links) {
        let to = name("idle", Some(number));
        sender
            .send(to_group(&name("sender", Some(LINKS)), &to, Kind::Heartbeat, "there?"))
            .await;
        assert_eq!(link.texts(1).await, ["there?"]);
    }
    let each = resident_bytes(bridge.id()).saturating_sub(before) / (LINKS - 10);
    println!("{each} bytes a link that has heard one frame");
    assert!(each < LINK_BYTES_MAX, "{each} bytes a link");
    drop(bridge.stdin.take());
    bridge.wait().expect("it ends");
}

async fn link(endpoint: &str, number: u64) -> Client {
    let own = name("idle", Some(number));
    let mut client = Client::connect(endpoint).await;
    client.subscribe(&own, &own).await.expect("subscribed");
    client
}
