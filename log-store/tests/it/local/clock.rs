//! A machine's clock that leaps takes nothing from a log, unless it stays where it leapt to.

use super::script::*;
use skytale_log_store::local::{Clocks, Retention};
use skytale_log_store::{LocalConfig, LocalStore, LogStore as _};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A store that keeps entries for thirty days, on a machine whose clocks are moved by hand.
fn thirty_days(dir: &Path, clocks: &Clocks, bytes: Option<u64>) -> LocalConfig {
    LocalConfig {
        retention: Retention {
            age: Some(DAY * 30),
            bytes,
            check_every: HOUR,
        },
        clocks: clocks.clone(),
        ..small(dir)
    }
}

async fn dropped(store: &LocalStore) -> u64 {
    store.enforce_retention().await.expect("enforced")
}

/// A store with several sealed segments.
async fn filled(config: &LocalConfig) -> LocalStore {
    let store = open(config.clone()).await;
    channel_with(&store, 200, &[5; 900]).await;
    assert!(segments(&config.dir).len() > 3);
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_leaps_for_a_minute_takes_no_segment_and_is_remarked() {
    let (dir, clocks) = (TempDir::new().expect("a folder"), Clocks::by_hand());
    let store = filled(&thirty_days(dir.path(), &clocks, None)).await;
    assert_eq!(store.readiness().remarks, Vec::<String>::new());
    clocks.leap(DAY * 40);
    assert_eq!(dropped(&store).await, 0);
    let readiness = store.readiness();
    assert_eq!(readiness.problems, Vec::<String>::new());
    let [remark] = &readiness.remarks[..] else {
        panic!("one remark: {readiness:?}");
    };
    assert!(
        remark.contains("40 d 0 h ahead") && remark.contains("60 min more"),
        "{remark}"
    );
    // Entries written meanwhile have the leapt time, and take nothing with them either.
    channel_with(&store, 50, &[5; 900]).await;
    clocks.pass(MINUTE + MINUTE / 4);
    assert_eq!(dropped(&store).await, 0);
    clocks.leap_back(DAY * 40);
    assert_eq!(dropped(&store).await, 0);
    assert_eq!(store.readiness().remarks, Vec::<String>::new());
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leap_that_lasts_an_hour_is_the_time() {
    let (dir, clocks) = (TempDir::new().expect("a folder"), Clocks::by_hand());
    let store = filled(&thirty_days(dir.path(), &clocks, None)).await;
    clocks.leap(DAY * 40);
    for _ in 0..59 {
        assert_eq!(dropped(&store).await, 0);
        clocks.pass(MINUTE);
    }
    assert_eq!(dropped(&store).await, 0);
    clocks.pass(MINUTE);
    assert!(dropped(&store).await > 3);
    assert_eq!(store.readiness().remarks, Vec::<String>::new());
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_that_passes_is_believed_at_once_and_a_clock_that_goes_back_delays() {
    let (dir, clocks) = (TempDir::new().expect("a folder"), Clocks::by_hand());
    let store = filled(&thirty_days(dir.path(), &clocks, None)).await;
    clocks.pass(DAY * 40);
    clocks.leap_back(DAY * 20);
    assert_eq!(dropped(&store).await, 0);
    let remarks = store.readiness().remarks;
    assert!(
        remarks.iter().any(|remark| remark.contains("20 d 0 h behind")),
        "{remarks:?}"
    );
    clocks.leap(DAY * 20);
    assert!(dropped(&store).await > 3);
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_opened_with_a_wrong_clock_gives_nothing_up() {
    let (dir, clocks) = (TempDir::new().expect("a folder"), Clocks::by_hand());
    let config = thirty_days(dir.path(), &clocks, None);
    close(filled(&config).await).await;
    clocks.leap(DAY * 40);
    for round in 0..4 {
        // The entry has the wrong time. An older version left no time behind, and the newest entry's counts.
        let remove_clock = round == 0;
        if remove_clock {
            fs::remove_file(dir.path().join("CLOCK")).expect("it was written");
        }
        let store = open(config.clone()).await;
        channel_with(&store, 20, &[5; 900]).await;
        clocks.pass(MINUTE);
        assert_eq!(dropped(&store).await, 0, "round {round}");
        assert_eq!(store.readiness().remarks.len(), 1);
        close(store).await;
    }
    let store = open(config).await;
    dropped(&store).await;
    clocks.pass(HOUR);
    assert!(
        dropped(&store).await > 3,
        "a node that was down for long trims an hour later"
    );
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_in_bytes_holds_whatever_the_clock_shows() {
    let (dir, clocks) = (TempDir::new().expect("a folder"), Clocks::by_hand());
    let store = filled(&thirty_days(dir.path(), &clocks, Some(64 * 1024))).await;
    clocks.leap(DAY * 40);
    assert!(dropped(&store).await > 0);
    let kept = segments(dir.path()).len();
    assert!(kept > 1, "{kept}");
    assert_eq!(dropped(&store).await, 0);
    close(store).await;
}
