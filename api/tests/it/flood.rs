//! A flood of keys costs the memory of the hashes that run at once, and no more.

use crate::child::Process;
use crate::database::{Backend, Database};
use crate::harness::{Client, NOTHING, on_both};
use reqwest::{Method, StatusCode};
use skytale_proto::Code;
use tokio::task::JoinSet;

/// Requests at once. Unbounded they would take 19 MiB each, 5.7 GiB in all.
const FLOOD: usize = 300;
/// Memory of two hashes (38 MiB), and of the process around them.
const GROWTH_KIB_MAX: u64 = 128 * 1024;

on_both! {
    async fn a_flood_of_keys_takes_bounded_memory_and_is_told_to_come_back(backend: Backend) {
        let database = Database::new(backend).await;
        let process = Process::start(&database, 8).await;
        let key = process.client.account("acme").await.key.secret;
        let before_kib = process.peak_kib();
        let mut tasks = JoinSet::new();
        for n in 0..FLOOD {
            let client = process.client.clone();
            // Half of them for the id of a key that is there.
            let id = if n % 2 == 0 { key[8..40].to_owned() } else { format!("{n:032x}") };
            let guess = format!("sk_live_{id}_{}", "A".repeat(52));
            tasks.spawn(async move { client.get("/v1/agents", &guess).await });
        }
        // Meanwhile others are served.
        for _ in 0..10 {
            let alive = process.client.try_call(Method::GET, "/readyz", None, NOTHING).await.unwrap();
            assert_eq!(alive.status, StatusCode::OK);
        }
        let answers = tasks.join_all().await;
        let (busy, checked): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE);
        assert!(!busy.is_empty() && !checked.is_empty(), "{} busy, {} checked", busy.len(), checked.len());
        for answer in busy {
            let answer = answer.refused(Code::ApiBusy);
            assert_eq!(answer.retry_after_s(), Some(1));
        }
        for answer in checked {
            answer.refused(Code::KeyUnknown);
        }
        let grown_kib = process.peak_kib() - before_kib;
        eprintln!("{FLOOD} keys at once: {grown_kib} KiB more");
        assert!(grown_kib < GROWTH_KIB_MAX, "{grown_kib} KiB");
        served(&process.client, &key).await;
        process.stop();
    }
}

async fn served(client: &Client, key: &str) {
    assert!(client.get("/v1/agents", key).await.status.is_success());
}
