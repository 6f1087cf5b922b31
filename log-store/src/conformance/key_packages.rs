//! KeyPackages: offered, claimed, counted.

use super::Store;
use super::script::*;
use crate::{ClaimedPackage, KeyPackageStock, Refused};
use skytale_proto::{ClaimRule, limits};
use std::collections::BTreeSet;
use std::sync::Arc;

fn single(offset: u64) -> Option<ClaimedPackage> {
    Some(ClaimedPackage {
        offset: at(offset),
        last_resort: false,
    })
}

fn last_resort(offset: u64) -> Option<ClaimedPackage> {
    Some(ClaimedPackage {
        offset: at(offset),
        last_resort: true,
    })
}

fn count(live: u32, last_resort: bool) -> KeyPackageStock {
    KeyPackageStock { live, last_resort }
}

/// Packages are given in the order in which they were offered, each to one claim.
pub async fn claims_take_the_oldest_package_first(store: Store) {
    for _ in 0..3 {
        let offered = accept(&store, &key_package(BOB, false)).await;
        assert_eq!(offered.claimed, None);
    }
    assert_eq!(accept(&store, &claim(BOB, ALICE)).await.claimed, single(1));
    accept(&store, &key_package(BOB, false)).await;
    assert_eq!(accept(&store, &claim(BOB, CAROL)).await.claimed, single(2));
    assert_eq!(accept(&store, &claim(BOB, BOB)).await.claimed, single(3));
    assert_eq!(stock(&store, BOB).await, count(1, false));
    assert_eq!(accept(&store, &claim(BOB, ALICE)).await.claimed, single(5));
    assert_eq!(stock(&store, BOB).await, count(0, false));
    assert_eq!(stock(&store, ALICE).await, count(0, false));
}

/// The last resort waits until the stock is empty, however old it is, and is given any number of times.
pub async fn the_last_resort_is_given_when_nothing_else_is_left_and_stays(store: Store) {
    accept(&store, &key_package(BOB, true)).await;
    accept(&store, &key_package(BOB, false)).await;
    assert_eq!(stock(&store, BOB).await, count(1, true));
    assert_eq!(accept(&store, &claim(BOB, ALICE)).await.claimed, single(2));
    for _ in 0..3 {
        assert_eq!(accept(&store, &claim(BOB, ALICE)).await.claimed, last_resort(1));
    }
    assert_eq!(stock(&store, BOB).await, count(0, true));
}

/// One last resort an agent: the newest.
pub async fn a_new_last_resort_replaces_the_old_one(store: Store) {
    accept(&store, &key_package(BOB, true)).await;
    assert_eq!(accept(&store, &claim(BOB, ALICE)).await.claimed, last_resort(1));
    accept(&store, &key_package(BOB, true)).await;
    assert_eq!(accept(&store, &claim(BOB, ALICE)).await.claimed, last_resort(3));
    assert_eq!(stock(&store, BOB).await, count(0, true));
}

/// A claim with nothing in stock is refused, and is no entry.
pub async fn a_claim_with_nothing_in_stock_is_refused(store: Store) {
    assert_eq!(refuse(&store, &claim(BOB, ALICE)).await, Refused::KeyPackagesExhausted);
    accept(&store, &key_package(BOB, false)).await;
    accept(&store, &claim(BOB, ALICE)).await;
    assert_eq!(refuse(&store, &claim(BOB, ALICE)).await, Refused::KeyPackagesExhausted);
    assert_eq!(head(&store, BOB.log()).await, at(2));
}

/// The stock is bounded, the last resort included; replacing that one is no growth.
pub async fn a_full_stock_takes_no_more(store: Store) {
    accept(&store, &key_package(BOB, true)).await;
    for _ in 1..limits::KEY_PACKAGES_MAX {
        accept(&store, &key_package(BOB, false)).await;
    }
    assert_eq!(refuse(&store, &key_package(BOB, false)).await, Refused::KeyPackagesFull);
    accept(&store, &key_package(BOB, true)).await;
    assert_eq!(refuse(&store, &key_package(BOB, false)).await, Refused::KeyPackagesFull);
    accept(&store, &claim(BOB, ALICE)).await;
    accept(&store, &key_package(BOB, false)).await;
    assert_eq!(
        stock(&store, BOB).await,
        count(limits::KEY_PACKAGES_MAX as u32 - 1, true)
    );
}

/// Claims from many tasks at once take each package once.
pub async fn each_package_is_claimed_once_by_concurrent_claims(store: Store) {
    for _ in 0..80 {
        accept(&store, &key_package(BOB, false)).await;
    }
    let claimants = [ALICE, BOB, CAROL, DAVE].map(|claimant| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..25 {
                if let Ok(accepted) = append(&store, &claim(BOB, claimant)).await {
                    let package = accepted.claimed.expect("an accepted claim takes a package");
                    assert!(!package.last_resort);
                    taken.push(package.offset);
                }
            }
            taken
        })
    });
    let mut taken = Vec::new();
    for claimant in claimants {
        taken.extend(claimant.await.expect("a claimant"));
    }
    let each: BTreeSet<_> = taken.iter().copied().collect();
    assert_eq!(taken.len(), 80);
    assert!(each.into_iter().eq((1..=80).map(at)));
    assert_eq!(stock(&store, BOB).await, count(0, false));
}

/// A claim whose answer was lost is sent again: the same package, and no other is used up.
pub async fn a_claim_sent_again_takes_the_same_package(store: Store) {
    for _ in 0..3 {
        accept(&store, &key_package(BOB, false)).await;
    }
    let (first, second) = (claim(BOB, ALICE), claim(BOB, CAROL));
    let pending = [
        queue(&store, &first).await,
        queue(&store, &first).await,
        queue(&store, &second).await,
        queue(&store, &first).await,
    ];
    let mut claimed = Vec::new();
    for append in pending {
        claimed.push(append.verdict().await.expect("accepted").claimed);
    }
    assert_eq!(claimed, [single(1), single(1), single(2), single(1)]);
    assert_eq!(again(&store, &second).await.claimed, single(2));
    assert_eq!(stock(&store, BOB).await, count(1, false));
}

/// A package that is no longer kept is no longer in stock.
pub async fn trimmed_packages_are_not_given(store: Store) {
    accept(&store, &key_package(BOB, true)).await;
    for _ in 0..3 {
        accept(&store, &key_package(BOB, false)).await;
    }
    accept(&store, &trim(BOB.log(), 3)).await;
    assert_eq!(stock(&store, BOB).await, count(1, false));
    assert_eq!(accept(&store, &claim(BOB, ALICE)).await.claimed, single(4));
    assert_eq!(refuse(&store, &claim(BOB, ALICE)).await, Refused::KeyPackagesExhausted);
}

/// An agent that may not claim gets nothing, and a policy by anybody but the owner has no effect.
pub async fn claims_are_the_owners_to_allow(store: Store) {
    accept(&store, &key_package_of(BOB, ACCOUNT, false)).await;
    accept(&store, &key_package_of(BOB, ACCOUNT, false)).await;
    let stranger = claim_as(BOB, CAROL, OTHER_ACCOUNT);
    assert_eq!(refuse(&store, &stranger).await, Refused::ClaimNotAllowed);
    let forged = frame(
        BOB.log(),
        CAROL,
        0,
        skytale_proto::Detail::KeyPackagePolicy {
            account: OTHER_ACCOUNT,
            rule: ClaimRule::Anyone,
        },
        "",
    );
    assert_eq!(refuse(&store, &forged).await, Refused::NotMember);
    assert_eq!(refuse(&store, &stranger).await, Refused::ClaimNotAllowed);
    assert_eq!(accept(&store, &claim_as(BOB, ALICE, ACCOUNT)).await.claimed, single(1));
    accept(&store, &policy(BOB, ACCOUNT, ClaimRule::Anyone)).await;
    assert_eq!(accept(&store, &stranger).await.claimed, single(2));
    assert_eq!(again(&store, &stranger).await.claimed, single(2));
    assert_eq!(stock(&store, BOB).await, count(0, false));
}

/// Pipelined or one by one, an account's claims without end make few entries, and the last of them get the same answer.
pub async fn claims_without_end_make_few_entries(store: Store) {
    accept(&store, &key_package_of(BOB, ACCOUNT, true)).await;
    for _ in 0..20 {
        accept(&store, &key_package_of(BOB, ACCOUNT, false)).await;
    }
    accept(&store, &policy(BOB, ACCOUNT, ClaimRule::Anyone)).await;
    let before = head(&store, BOB.log()).await.get();
    let mut pending = Vec::new();
    for _ in 0..200 {
        pending.push(queue(&store, &claim_as(BOB, CAROL, OTHER_ACCOUNT)).await);
    }
    let mut answers = Vec::new();
    for append in pending {
        answers.push(append.verdict().await.expect("given"));
    }
    let share = limits::CLAIMS_BY_ACCOUNT_MAX;
    assert_eq!(head(&store, BOB.log()).await, at(before + share as u64 + 1));
    assert!(answers[share..].iter().all(|answer| answer.claimed == last_resort(1)));
    assert!(
        answers[share + 1..]
            .iter()
            .all(|answer| answer.duplicate && answer.offset == answers[share].offset)
    );
    assert_eq!(stock(&store, BOB).await, count(20 - share as u32, true));
}
