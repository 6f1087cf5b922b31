//! Checks of one account's key at the API, while another account has keys hashed.
//!
//! The victim asks for relay nodes with its key, one request after another, with a pause between them. The flood is of requests that
//! cost the API a hash of 19 MiB each: keys that are made and revoked again, or wrong keys. The API has the processor that a relay node
//! has in the other cases, and its database is SQLite on this machine's disk. The limits are those by default, and the flood comes
//! from 16 addresses.

use crate::FLOODED;
use crate::pairs::Measured;
use crate::places::{Places, micros, times};
use anyhow::Context as _;
use hdrhistogram::Histogram;
use secrecy::ExposeSecret as _;
use skytale_api::{Api, ApiConfig};
use skytale_benches::versus::{Bench, sized, wanted};
use skytale_proto::rest::{CreateAccount, CreatedAccount, CreatedKey};
use skytale_sdk::internals::net::Method;
use skytale_sdk::{ApiClient, ApiKey};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Pause between two requests of the victim: it stays within its key's rate.
const PAUSE: Duration = Duration::from_millis(12);
/// Requests of the flood at once, each from an address of its own.
const FLOOD: u8 = 16;

/// Requests of the flood.
#[derive(Clone, Copy)]
enum Flood {
    Made,
    Wrong,
}

/// Measures all cases that are wanted.
pub(crate) fn measure_all(bench: &mut Bench, places: &Places) -> anyhow::Result<()> {
    for (of, flood) in [("keys made and revoked", Flood::Made), ("wrong keys", Flood::Wrong)] {
        let name = format!("isolation/key checks, flood of {of}");
        if wanted(&name) {
            measure(bench, places, name, flood)?;
        }
    }
    Ok(())
}

fn measure(bench: &mut Bench, places: &Places, name: String, kind: Flood) -> anyhow::Result<()> {
    // The clients of the flood want one, although they use none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir()?;
    let database = format!("sqlite:{}", folder.path().join("api.db").display());
    let api = places.node.block_on(Api::start(ApiConfig::dev(database)))?;
    let url = format!("http://{}", api.local_addr());
    let operator = client(&url, ApiKey::operator(api.admin_secret().expose_secret())?)?;
    let account = |org: &'static str| {
        let operator = operator.clone();
        places.victims.block_on(async move {
            let request = CreateAccount { org: org.parse()? };
            let made: CreatedAccount = operator.call(Method::Post, "/v1/accounts", Some(&request)).await?;
            anyhow::Ok(made.key.secret)
        })
    };
    let (victim, mallory) = (account("victim")?, account("mallory")?);
    let victim = client(&url, ApiKey::new(&victim)?)?;
    let hashed = Arc::new(AtomicU64::new(0));
    let times = Measured::in_turn(|side| {
        let mut flood = Vec::new();
        if side == FLOODED {
            let before = hashed.load(Ordering::Relaxed);
            for number in 0..FLOOD {
                let from = IpAddr::from(Ipv4Addr::new(127, 0, 1, number));
                let client = reqwest::Client::builder().local_address(from).build()?;
                let (url, key, hashed) = (url.clone(), mallory.clone(), hashed.clone());
                flood.push(
                    places
                        .flood
                        .spawn(async move { go_on(kind, &client, &url, &key, &hashed).await }),
                );
            }
            while hashed.load(Ordering::Relaxed) < before + u64::from(FLOOD) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let asking = victim.clone();
        let measured = places
            .node
            .block_on(places.victims.spawn(async move { checks(&asking).await }))??;
        for task in flood {
            task.abort();
        }
        Ok(measured)
    })?;
    let [quiet, under] = &times.all;
    bench.note(format!(
        "{name}: quiet p50 {:.0} µs, p99 {:.0} µs; flooded p50 {:.0} µs, p99 {:.0} µs; {} requests of the flood were answered",
        micros(quiet, 0.5),
        micros(quiet, 0.99),
        micros(under, 0.5),
        micros(under, 0.99),
        hashed.load(Ordering::Relaxed),
    ));
    times.add_to(bench, name);
    places.node.block_on(api.shutdown());
    Ok(())
}

fn client(url: &str, key: ApiKey) -> anyhow::Result<ApiClient> {
    ApiClient::new(url, key).context("a client")
}

/// How long each of several requests with a key takes.
async fn checks(victim: &ApiClient) -> anyhow::Result<Histogram<u64>> {
    let mut times = times()?;
    for _ in 0..sized(400, 50) {
        let begun = Instant::now();
        victim.relays().await?;
        times.saturating_record(u64::try_from(begun.elapsed().as_nanos())?);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
}

/// Sends such requests without a pause, whatever the answers are.
async fn go_on(
    kind: Flood,
    client: &reqwest::Client,
    url: &str,
    key: &str,
    answered: &AtomicU64,
) -> anyhow::Result<()> {
    let (id, _) = key.rsplit_once('_').context("a key")?;
    let wrong = format!("{id}_{}", "A".repeat(52));
    loop {
        match kind {
            Flood::Made => {
                let request = serde_json::json!({ "label": "flood", "scopes": ["relay:append"] });
                let made = client.post(format!("{url}/v1/keys")).bearer_auth(key).json(&request);
                let made = made.send().await?;
                if made.status().is_success() {
                    let made: CreatedKey = made.json().await?;
                    let ended = client.delete(format!("{url}/v1/keys/{}", made.key.id)).bearer_auth(key);
                    ended.send().await?;
                }
            }
            Flood::Wrong => {
                client
                    .get(format!("{url}/v1/relays"))
                    .bearer_auth(&wrong)
                    .send()
                    .await?;
            }
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}
