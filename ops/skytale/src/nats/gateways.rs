//! The links between regions: links that their gateways are joined by, so that a region can be cut off from the others.

use super::inventory::Region;
use crate::output::{Context as _, Outcome};
use skytale_proto::Code;
use skytale_wire::{Cut, Link};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Ports at which the servers of one region (by its name) find a server of another (by its name), if they are not those
/// that it listens on.
pub(crate) type Detours = BTreeMap<(String, String), u16>;

/// The links between all regions.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    ways: Vec<Way>,
}

/// Way from the servers of one region to one server of another.
#[derive(Debug)]
struct Way {
    from: usize,
    to: usize,
    link: Link,
}

impl Gateways {
    /// Links from each region to each server of the others, and where they are.
    pub(super) fn between(regions: &[Region]) -> Outcome<(Self, Detours)> {
        let (mut ways, mut detours) = (Vec::new(), Detours::new());
        for (from, region) in regions.iter().enumerate() {
            for (to, other) in regions.iter().enumerate().filter(|(to, _)| *to != from) {
                for server in &other.servers {
                    let target = SocketAddr::from(([127, 0, 0, 1], server.ports.gateway));
                    let link = Link::open(target).failing(Code::Environment, || "cannot open a link".into())?;
                    detours.insert((region.name.clone(), server.name.clone()), link.address().port());
                    ways.push(Way { from, to, link });
                }
            }
        }
        Ok((Self { ways }, detours))
    }

    /// Cuts a region off from all others, both ways.
    pub(super) fn cut(&self, region: usize, how: Cut) {
        self.of(region).for_each(|way| way.link.cut(how));
    }

    /// And mends it.
    pub(super) fn mend(&self, region: usize) {
        self.of(region).for_each(|way| way.link.mend());
    }

    fn of(&self, region: usize) -> impl Iterator<Item = &Way> {
        let touches = move |way: &&Way| way.from == region || way.to == region;
        self.ways.iter().filter(touches)
    }
}
