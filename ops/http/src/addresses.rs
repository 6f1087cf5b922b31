//! Connections that have not shown whose they are, by the network that they come from: nobody is known yet but an
//! address.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// With one of so many of a network's places taken, its further connections must show that they receive at their
/// address: a client that makes up another's address takes no more of its places than these.
const UNPROVEN_PART: u32 = 4;

/// Number of connections of each network that have not shown whose they are.
#[derive(Clone, Debug)]
pub struct Addresses {
    begun: Arc<Mutex<HashMap<IpAddr, u32>>>,
    /// Limit for a network.
    max: u32,
    /// Whether this machine's own connections count.
    loopback: bool,
}

/// A connection that has not shown whose it is. Dropped when it has, or is gone.
#[derive(Debug)]
pub struct Begun(Option<(Addresses, IpAddr)>);

/// Decision on a connection.
#[derive(Debug)]
pub enum Entry {
    /// It may begin.
    Begun(Begun),
    /// It has to show first that it receives at its address.
    Unproven,
    /// Its network has as many as it may have.
    Full,
}

impl Addresses {
    /// Makes it with so many for each network; `None` is the default, and no bound for loopback.
    pub fn new(max: Option<u32>, default: u32) -> Self {
        Self {
            begun: Arc::default(),
            max: max.unwrap_or(default),
            loopback: max.is_some(),
        }
    }

    /// A connection from an address begins. `proven`: its peer receives there.
    pub fn enter(&self, address: IpAddr, proven: bool) -> Entry {
        let network = network(address);
        if network.is_loopback() && !self.loopback {
            return Entry::Begun(Begun(None));
        }
        let mut begun = self.begun.lock();
        let count = begun.get(&network).copied().unwrap_or_default();
        if !proven && count >= self.max / UNPROVEN_PART {
            return Entry::Unproven;
        }
        if count >= self.max {
            return Entry::Full;
        }
        begun.insert(network, count + 1);
        Entry::Begun(Begun(Some((self.clone(), network))))
    }

    /// Returns the number of connections that are counted.
    pub fn count(&self) -> usize {
        self.begun.lock().values().map(|count| *count as usize).sum()
    }
}

impl Begun {
    /// One that does not count by its address.
    pub const fn elsewhere() -> Self {
        Self(None)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some((addresses, network)) = self.0.take() else {
            return;
        };
        let mut begun = addresses.begun.lock();
        if let Some(count) = begun.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                begun.remove(&network);
            }
        }
    }
}

/// Returns the customer that an address stands for: in IPv6 one customer has a /64 at least (RFC 6177).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        loopback if loopback.is_loopback() => loopback,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn begun(entry: Entry) -> Begun {
        match entry {
            Entry::Begun(begun) => begun,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_network_has_a_bound_and_takes_nothing_from_another() {
        let addresses = Addresses::new(None, 8);
        let mut held: Vec<Begun> = (0..8)
            .map(|host| begun(addresses.enter(at(&format!("2001:db8::{host}")), true)))
            .collect();
        assert!(matches!(addresses.enter(at("2001:db8::ffff"), true), Entry::Full));
        held.push(begun(addresses.enter(at("2001:db8:0:1::1"), true)));
        held.push(begun(addresses.enter(at("192.0.2.1"), true)));
        assert_eq!(addresses.count(), 10);
        held.remove(0);
        held.push(begun(addresses.enter(at("2001:db8::ffff"), true)));
        drop(held);
        assert!(addresses.begun.lock().is_empty());
    }

    #[test]
    fn made_up_addresses_leave_places_to_those_that_receive_there() {
        let addresses = Addresses::new(None, 8);
        let held: Vec<Begun> = (0..2).map(|_| begun(addresses.enter(at("192.0.2.1"), false))).collect();
        assert!(matches!(addresses.enter(at("192.0.2.1"), false), Entry::Unproven));
        let proven: Vec<Begun> = (0..6).map(|_| begun(addresses.enter(at("192.0.2.1"), true))).collect();
        assert!(matches!(addresses.enter(at("192.0.2.1"), true), Entry::Full));
        drop((held, proven));
    }

    #[test]
    fn this_machine_counts_only_where_a_number_is_set() {
        let by_default = Addresses::new(None, 1);
        let held: Vec<Begun> = (0..9).map(|_| begun(by_default.enter(at("127.0.0.1"), true))).collect();
        assert_eq!(by_default.count(), 0);
        drop(held);
        let set = Addresses::new(Some(1), 256);
        let _held = begun(set.enter(at("::1"), true));
        assert!(matches!(set.enter(at("::1"), true), Entry::Full));
    }

    #[test]
    fn one_network_of_ipv6_is_one_asker() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
