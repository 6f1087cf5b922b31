//! Places for connections. Where all are taken, one gives way: of the network that has most, the connection that has been open for
//! longest. So whoever opens many and leaves them idle keeps nobody else out.

use parking_lot::Mutex;
use skytale_http::addresses::network;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Interval between two connections that give way.
const GIVE_WAY_EVERY: Duration = Duration::from_millis(20);

/// Places for connections. Clones are the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    of: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
}

/// A connection's place. Free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    network: IpAddr,
    number: u64,
    gives_way: CancellationToken,
    _free: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            taken: Arc::default(),
        }
    }

    /// Waits until there is a place, and has others give way for it. `None` never comes: the semaphore is not closed.
    pub(crate) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        let mut free = Box::pin(Arc::clone(&self.free).acquire_owned());
        loop {
            tokio::select! {
                biased;
                free = &mut free => return free.ok(),
                () = sleep(GIVE_WAY_EVERY) => self.taken.lock().give_way(),
            }
        }
    }

    /// A place for a connection from an address.
    pub(crate) fn take(&self, address: IpAddr, free: OwnedSemaphorePermit) -> Place {
        let (network, gives_way) = (network(address), CancellationToken::new());
        let mut taken = self.taken.lock();
        taken.next += 1;
        let number = taken.next;
        taken.of.entry(network).or_default().insert(number, gives_way.clone());
        Place {
            places: self.clone(),
            network,
            number,
            gives_way,
            _free: free,
        }
    }
}

impl Place {
    /// Resolves when the connection is to end after the request that it has begun, if it has.
    pub(crate) async fn gives_way(&self) {
        self.gives_way.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().remove(self.network, self.number);
    }
}

impl Taken {
    fn give_way(&mut self) {
        let most = self.of.iter().max_by_key(|(_, open)| open.len());
        let oldest = most.and_then(|(network, open)| Some((*network, *open.keys().next()?)));
        if let Some((network, number)) = oldest
            && let Some(gives_way) = self.remove(network, number)
        {
            gives_way.cancel();
        }
    }

    fn remove(&mut self, network: IpAddr, number: u64) -> Option<CancellationToken> {
        let open = self.of.get_mut(&network)?;
        let gives_way = open.remove(&number);
        if open.is_empty() {
            self.of.remove(&network);
        }
        gives_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_network_with_most_gives_way_to_others() {
        let places = Places::new(4);
        let [busy, quiet]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let take = async |address| places.take(address, places.free().await.unwrap());
        let kept = take(quiet).await;
        let oldest = take(busy).await;
        let others = [take(busy).await, take(busy).await];
        // A connection ends when it is to give way.
        let ends = tokio::spawn(async move {
            oldest.gives_way().await;
        });
        let another = take(quiet).await;
        ends.await.unwrap();
        assert!(!kept.gives_way.is_cancelled(), "the other network keeps its own");
        drop((kept, others, another));
        assert!(places.taken.lock().of.is_empty());
    }
}
