//! Servers with a link between each two of them, and links from a node to each.

use super::super::cluster::{Account, Cluster};
use skytale_wire::{Cut, Link};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Waiting for longer is hanging.
pub(crate) const HANGING: Duration = Duration::from_secs(90);

/// Three servers that reach each other by links alone.
pub(crate) struct Wired {
    pub(crate) cluster: Cluster,
    /// From each server that dials to each that is dialled.
    between: HashMap<(usize, usize), Link>,
}

fn link(to: SocketAddr) -> Link {
    Link::open(to).expect("a link")
}

impl Wired {
    pub(crate) async fn cluster() -> Self {
        let mut between = HashMap::new();
        let cluster = Cluster::start_through(|from, to, address| {
            let opened = between.entry((from, to)).or_insert_with(|| link(address));
            opened.port()
        });
        let cluster = cluster.await;
        Self { cluster, between }
    }

    /// Three regions of one server each. Gateways tell each other by which addresses they reach the others: so each link is for
    /// the one region that dials by it.
    pub(crate) async fn regions() -> Self {
        let mut between = HashMap::new();
        let cluster = Cluster::start_regions_through(|from, to, address| {
            let greeting = format!("\"gateway\":\"r{from}\"");
            let link = Link::open_for(address, greeting.as_bytes()).expect("a link");
            between.entry((from, to)).or_insert(link).port()
        });
        let cluster = cluster.await;
        Self { cluster, between }
    }

    /// The links between a server and all others, no matter which side dials.
    pub(crate) fn around(&self, server: usize) -> impl Iterator<Item = &Link> {
        let ends = move |(from, to): &(usize, usize)| *from == server || *to == server;
        self.between
            .iter()
            .filter(move |(pair, _)| ends(pair))
            .map(|(_, link)| link)
    }

    /// The links between two servers, no matter which side dials.
    pub(crate) fn between(&self, one: usize, other: usize) -> impl Iterator<Item = &Link> {
        [(one, other), (other, one)]
            .into_iter()
            .filter_map(|pair| self.between.get(&pair))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Link> {
        self.between.values()
    }

    pub(crate) fn mend(&self) {
        self.all().for_each(Link::mend);
    }

    /// Returns the servers' reports: whom each sees, and their logs.
    pub(crate) async fn told(&self) -> String {
        let mut seen = Vec::new();
        for server in 0..3 {
            seen.push(self.cluster.sees(server).await);
        }
        format!("they see {seen:?}\n{}", self.cluster.logs())
    }

    /// Waits until each server sees so many others, by its own account.
    pub(crate) async fn sees(&self, expected: [usize; 3]) {
        let begun = Instant::now();
        loop {
            let mut seen = Vec::new();
            for server in 0..3 {
                // A busy server may be too slow to say: then it is not known yet.
                seen.push(self.cluster.sees(server).await.ok().map(|others| others.len()));
            }
            if seen.into_iter().eq(expected.map(Some)) {
                return;
            }
            assert!(begun.elapsed() < HANGING, "{}", self.told().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Links of a node to each server's port for clients.
pub(crate) struct Lines(pub(crate) Vec<Link>);

impl Lines {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let to = |port: &u16| link(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
        Self(cluster.ports.iter().map(to).collect())
    }

    /// An account as the node reaches it.
    pub(crate) fn account(&self, account: &Account) -> Account {
        let ports: Vec<u16> = self.0.iter().map(Link::port).collect();
        account.through(&ports)
    }

    pub(crate) fn cut(&self, cut: Cut) {
        self.0.iter().for_each(|link| link.cut(cut));
    }

    pub(crate) fn mend(&self) {
        self.0.iter().for_each(Link::mend);
    }

    /// Leaves the node one server to talk to, or the others: the rest refuses it.
    pub(crate) fn leave(&self, which: impl Fn(usize) -> bool) {
        for (server, link) in self.0.iter().enumerate() {
            if which(server) {
                link.mend();
            } else {
                link.cut(Cut::Reset);
            }
        }
    }
}

/// Waits until a stream is led, and gives by whom.
pub(crate) async fn led(account: &Account, stream: &str) -> usize {
    let begun = Instant::now();
    loop {
        if let Some(leader) = leader_of(account, stream).await {
            return leader;
        }
        assert!(begun.elapsed() < HANGING, "nobody leads {stream}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn leader_of(account: &Account, stream: &str) -> Option<usize> {
    let context = account.context().await.ok()?;
    let mut stream = context.get_stream(stream).await.ok()?;
    let leader = stream.info().await.ok()?.cluster.as_ref()?.leader.clone()?;
    leader.strip_prefix('n')?.parse().ok()
}
