//! A cut is a cut: servers have no way to each other but the links.

use super::wires::{HANGING, Wired};
use skytale_wire::{Cut, Link};
use std::time::{Duration, Instant};

/// Time for which servers are watched, to see that they find no other way: they try again each second.
const WATCHED: Duration = Duration::from_secs(3);
/// More than a link takes to hand on, or to drop, what it took before it was cut.
const IN_HAND: Duration = Duration::from_millis(500);

async fn partitions(wired: &Wired) {
    wired.sees([2, 2, 2]).await;
    assert!(wired.all().any(|link| link.carried().0 > 0));
    wired.around(1).for_each(|link| link.cut(Cut::Reset));
    wired.sees([1, 0, 1]).await;
    tokio::time::sleep(WATCHED).await;
    wired.sees([1, 0, 1]).await;
    // Nor do the others go on where the two of them are cut off from each other.
    wired.between(0, 2).for_each(|link| link.cut(Cut::Reset));
    wired.sees([0, 0, 0]).await;
    tokio::time::sleep(WATCHED).await;
    wired.sees([0, 0, 0]).await;
    wired.mend();
    wired.sees([2, 2, 2]).await;
    // A silent cut shows in no list of connections: but nothing gets through, and all start over.
    let accepted = |wired: &Wired| -> u64 { wired.all().map(Link::accepted).sum() };
    wired.around(1).for_each(|link| link.cut(Cut::Silent));
    // Bytes that a link had in hand may still be counted.
    tokio::time::sleep(IN_HAND).await;
    let (before, carried) = (accepted(wired), wired.around(1).map(Link::carried).collect::<Vec<_>>());
    tokio::time::sleep(WATCHED).await;
    assert_eq!(carried, wired.around(1).map(Link::carried).collect::<Vec<_>>());
    wired.mend();
    // Until a server notices that its connections are gone, it still lists them.
    let mended = Instant::now();
    while accepted(wired) <= before {
        assert!(
            mended.elapsed() < HANGING,
            "what was cut silently goes on, with a hole in it"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wired.cluster.settled().await;
    wired.sees([2, 2, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_a_cluster_have_no_way_around_their_links() {
    Box::pin(partitions(&Wired::cluster().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_have_no_way_around_their_links() {
    Box::pin(partitions(&Wired::regions().await)).await;
}
