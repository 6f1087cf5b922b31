//! Announces to SLIM nodes on peer links which names they can reach through the bridge. Pure.
//!
//! ```text
//!   links ── subscribe ──> names ─┬─ pending of node A ──> Subscribe, Unsubscribe, in turn
//!   members that are away ────────┘
//! ```
//!
//! A stock node sends a frame over a link only if the name was announced on it. So the bridge announces to each node the names that links other
//! than its own are subscribed to, if its account may send to them. A channel's names stay announced while a member is
//! away: frames from behind the node reach the log for it.
//!
//! Names that carry no text, or text that hashes to something else, are not announced.

use crate::policy::Rules;
use crate::routing::LinkId;
use crate::wire::{EncodedName, FullName, Name, Prefix};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Names of members that are away, at most. Beyond it, the account with the most of them loses its oldest: they are no
/// longer announced.
const AWAY_MAX: usize = 16_384;

/// Message to a node about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    /// The name.
    pub name: Name,
    /// The subscription's id.
    pub id: u64,
    /// Subscribe, or unsubscribe.
    pub add: bool,
}

/// All names that can be announced, and all nodes.
#[derive(Debug, Default)]
pub struct Peers {
    names: BTreeMap<EncodedName, Known>,
    /// The names that each link is subscribed to, with the members that joined a channel by them.
    links: HashMap<LinkId, BTreeMap<EncodedName, BTreeSet<FullName>>>,
    nodes: BTreeMap<LinkId, Node>,
    away: Absences,
}

/// Members that are away, by account, in the order in which they left.
#[derive(Debug, Default)]
struct Absences {
    accounts: BTreeMap<Arc<str>, BTreeMap<u64, (EncodedName, FullName)>>,
    count: usize,
    next: u64,
}

/// Place of an absence in [`Absences`].
#[derive(Clone, Debug)]
struct Absence {
    account: Arc<str>,
    number: u64,
}

impl Absences {
    fn add(&mut self, account: &Arc<str>, route: EncodedName, member: FullName) -> Absence {
        let number = self.next;
        self.next += 1;
        self.count += 1;
        let list = self.accounts.entry(Arc::clone(account)).or_default();
        list.insert(number, (route, member));
        Absence {
            account: Arc::clone(account),
            number,
        }
    }

    fn remove(&mut self, absence: &Absence) {
        if let Some(list) = self.accounts.get_mut(&absence.account)
            && list.remove(&absence.number).is_some()
        {
            self.count -= 1;
            if list.is_empty() {
                self.accounts.remove(&absence.account);
            }
        }
    }

    /// The one that is given up next, where there are too many.
    fn excess(&self) -> Option<(EncodedName, FullName)> {
        let most = self.accounts.values().max_by_key(|list| list.len());
        let oldest = most?.first_key_value()?.1;
        (self.count > AWAY_MAX).then_some(*oldest)
    }
}

#[derive(Debug)]
struct Known {
    name: Name,
    links: BTreeSet<LinkId>,
    away: BTreeMap<FullName, Absence>,
}

#[derive(Debug)]
struct Node {
    rules: Rules,
    told_max: usize,
    next_id: u64,
    told: BTreeMap<EncodedName, (u64, Name)>,
    pending: BTreeSet<EncodedName>,
    /// Names beyond `told_max`, not announced. When a name is withdrawn, one of them takes its place.
    skipped: BTreeSet<EncodedName>,
    sending: Option<EncodedName>,
    /// It reads too slowly to be waited for.
    is_behind: bool,
}

impl Peers {
    /// A node's link is up. Its subscription ids count up from `first_id`; at most `told_max` names are announced to it.
    pub fn node_up(&mut self, link: LinkId, rules: Rules, first_id: u64, told_max: usize) {
        let node = Node {
            rules,
            told_max,
            next_id: first_id,
            told: BTreeMap::new(),
            pending: self.names.keys().copied().collect(),
            skipped: BTreeSet::new(),
            sending: None,
            is_behind: false,
        };
        self.nodes.insert(link, node);
    }

    /// The links of all nodes.
    pub fn nodes(&self) -> impl Iterator<Item = LinkId> {
        self.nodes.keys().copied()
    }

    /// A link has subscribed to a name.
    pub fn subscribed(&mut self, link: LinkId, name: &Name) {
        let (Some(route), Some(_)) = (name.route(), name.components()) else {
            return;
        };
        let known = self.names.entry(route).or_insert_with(|| Known {
            name: name.compact(),
            links: BTreeSet::new(),
            away: BTreeMap::new(),
        });
        if known.links.insert(link) {
            self.links.entry(link).or_default().insert(route, BTreeSet::new());
            self.changed(route);
        }
    }

    /// A link has no subscription to a name any more.
    pub fn unsubscribed(&mut self, link: LinkId, route: EncodedName) {
        if let Some(known) = self.names.get_mut(&route)
            && known.links.remove(&link)
        {
            if let Some(names) = self.links.get_mut(&link) {
                names.remove(&route);
            }
            self.changed(route);
        }
    }

    /// A member has joined a channel by a name, and its link announces that.
    pub fn joined(&mut self, link: LinkId, route: EncodedName, member: FullName) {
        if let Some(members) = self.links.get_mut(&link).and_then(|names| names.get_mut(&route)) {
            members.insert(member);
        }
        self.back(route, member);
    }

    /// A link of an account has ended. Members of channels on it are away now.
    pub fn link_down(&mut self, link: LinkId, account: &Arc<str>) {
        self.nodes.remove(&link);
        for (route, members) in self.links.remove(&link).unwrap_or_default() {
            for member in members {
                self.gone_away(route, member, account);
            }
            self.unsubscribed(link, route);
        }
    }

    fn gone_away(&mut self, route: EncodedName, member: FullName, account: &Arc<str>) {
        let Some(known) = self.names.get_mut(&route) else {
            return;
        };
        let away = &mut self.away;
        known
            .away
            .entry(member)
            .or_insert_with(|| away.add(account, route, member));
        while let Some((route, member)) = self.away.excess() {
            self.back(route, member);
        }
    }

    /// A member is no longer away from a name.
    fn back(&mut self, route: EncodedName, member: FullName) {
        if let Some(known) = self.names.get_mut(&route)
            && let Some(absence) = known.away.remove(&member)
        {
            self.away.remove(&absence);
            self.changed(route);
        }
    }

    /// A member has left a channel for good.
    pub fn left(&mut self, prefix: Prefix, member: FullName) {
        let (first, last) = (None, Some(u128::MAX));
        let all = EncodedName { prefix, id: first }..=EncodedName { prefix, id: last };
        let names: Vec<EncodedName> = self
            .names
            .range(all)
            .filter(|(_, known)| known.away.contains_key(&member))
            .map(|(route, _)| *route)
            .collect();
        for route in names {
            self.back(route, member);
        }
    }

    fn changed(&mut self, route: EncodedName) {
        let known = self.names.get(&route);
        let is_gone = known.is_none_or(|known| known.links.is_empty() && known.away.is_empty());
        for node in self.nodes.values_mut() {
            if is_gone && !node.told.contains_key(&route) {
                // There is nothing to tell: names that come and go pile up nowhere.
                node.pending.remove(&route);
                node.skipped.remove(&route);
            } else {
                node.pending.insert(route);
            }
        }
        if is_gone {
            self.names.remove(&route);
        }
    }

    /// Returns the number of names that a node does not learn of, because it has as many as it may.
    pub fn skipped(&self, link: LinkId) -> usize {
        self.nodes.get(&link).map_or(0, |node| node.skipped.len())
    }

    /// The next thing to tell a node. It counts as told when [`Peers::sent`] is called.
    pub fn next(&mut self, link: LinkId) -> Option<Tell> {
        let node = self.nodes.get_mut(&link)?;
        while let Some(route) = node.pending.pop_first() {
            let reachable = self.names.get(&route).filter(|known| {
                let reached = !known.away.is_empty() || known.links.iter().any(|other| *other != link);
                reached && node.rules.may_send_to(&known.name)
            });
            let tell = match (reachable, node.told.contains_key(&route)) {
                (Some(known), false) if node.told.len() < node.told_max => {
                    let id = node.next_id;
                    node.next_id = node.next_id.wrapping_add(1).max(1);
                    node.told.insert(route, (id, known.name.clone()));
                    Some(Tell {
                        name: known.name.clone(),
                        id,
                        add: true,
                    })
                }
                (Some(_), false) => {
                    node.skipped.insert(route);
                    None
                }
                (None, true) => {
                    let instead = node.skipped.pop_first();
                    node.pending.extend(instead);
                    node.told.remove(&route).map(|(id, name)| Tell { name, id, add: false })
                }
                _ => None,
            };
            if tell.is_some() {
                node.sending = Some(route);
                return tell;
            }
        }
        node.is_behind = false;
        None
    }

    /// The last result of [`Peers::next`] is in the node's queue.
    pub fn sent(&mut self, link: LinkId) {
        if let Some(node) = self.nodes.get_mut(&link) {
            node.sending = None;
        }
    }

    /// Whether everything about a name has been announced to each node that keeps up.
    pub fn is_told(&self, route: &EncodedName) -> bool {
        self.nodes
            .values()
            .all(|node| node.is_behind || !(node.pending.contains(route) || node.sending.as_ref() == Some(route)))
    }

    /// Waits no longer for nodes that were not told of a name, until they have caught up.
    pub fn give_up(&mut self, route: &EncodedName) {
        for node in self.nodes.values_mut() {
            node.is_behind |= node.pending.contains(route) || node.sending.as_ref() == Some(route);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Encoded, component_hash};
    use bytes::Bytes;
    use proptest::prelude::*;

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);
    const NODE: LinkId = LinkId(3);

    fn name(service: &str, id: u64) -> Name {
        let parts = ["org", "ns", service];
        Name {
            encoded: Some(Encoded {
                prefix: parts.map(component_hash),
                id: Some((0, id)),
            }),
            strings: Some(parts.map(|part| Bytes::copy_from_slice(part.as_bytes()))),
        }
    }

    fn route(name: &Name) -> EncodedName {
        name.route().expect("a route")
    }

    fn account(name: &str) -> Arc<str> {
        name.into()
    }

    fn member(id: u128) -> FullName {
        FullName { prefix: [9; 3], id }
    }

    fn node(peers: &mut Peers) {
        peers.node_up(NODE, Rules::everything(), 100, 1_000);
    }

    /// All that there is to tell.
    fn told(peers: &mut Peers, link: LinkId) -> Vec<(Name, bool)> {
        let mut told = Vec::new();
        while let Some(tell) = peers.next(link) {
            told.push((tell.name, tell.add));
            peers.sent(link);
        }
        told
    }

    #[test]
    fn a_node_is_told_of_names_of_others_and_not_of_its_own() {
        let mut peers = Peers::default();
        let (alice, bob) = (name("alice", 1), name("bob", 2));
        peers.subscribed(A, &alice);
        node(&mut peers);
        assert_eq!(told(&mut peers, NODE), [(alice.clone(), true)]);
        peers.subscribed(NODE, &bob);
        assert_eq!(told(&mut peers, NODE), []);
        peers.subscribed(B, &bob);
        peers.subscribed(B, &alice);
        assert_eq!(told(&mut peers, NODE), [(bob.clone(), true)], "each once");
        peers.unsubscribed(A, route(&alice));
        assert_eq!(told(&mut peers, NODE), [], "another one still has it");
        peers.link_down(B, &account("a"));
        let mut gone = told(&mut peers, NODE);
        gone.sort_by_key(|(name, _)| route(name));
        let mut both = [(alice, false), (bob, false)];
        both.sort_by_key(|(name, _)| route(name));
        assert_eq!(gone, both);
    }

    #[test]
    fn a_node_is_told_what_its_account_may_send_to_and_no_more() {
        let mut peers = Peers::default();
        let rules = Rules {
            names: vec!["org/ns/own".parse().expect("a pattern")],
            destinations: vec!["org/ns/shared".parse().expect("a pattern")],
            node: true,
        };
        peers.node_up(NODE, rules, 1, 2);
        // The text of one name with the hash of another, and a name without text.
        let mut forged = name("secret", 1);
        forged.strings = name("shared", 1).strings;
        let mut silent = name("shared", 2);
        silent.strings = None;
        for other in [&name("secret", 1), &forged, &silent, &name("shared", 3)] {
            peers.subscribed(A, other);
        }
        assert_eq!(told(&mut peers, NODE), [(name("shared", 3), true)]);
        for id in 4..10 {
            peers.subscribed(A, &name("own", id));
        }
        assert_eq!(told(&mut peers, NODE).len(), 1, "its limit is 2");
        assert_eq!(peers.skipped(NODE), 5);
        // If one goes, another takes its place; those that go before they are announced leave nothing behind.
        peers.unsubscribed(A, route(&name("shared", 3)));
        peers.unsubscribed(A, route(&name("own", 9)));
        let next = told(&mut peers, NODE);
        assert_eq!(next.iter().map(|(_, add)| *add).collect::<Vec<_>>(), [false, true]);
        assert_eq!(peers.skipped(NODE), 3);
        peers.link_down(A, &account("a"));
        assert_eq!(told(&mut peers, NODE).len(), 2);
        assert_eq!(peers.skipped(NODE), 0);
    }

    #[test]
    fn a_channels_names_stay_while_a_member_is_away() {
        let mut peers = Peers::default();
        node(&mut peers);
        let (room, own) = (name("room", 7), name("alice", 1));
        peers.subscribed(A, &room);
        peers.subscribed(A, &own);
        told(&mut peers, NODE);
        for id in [1, 2] {
            peers.joined(A, route(&room), member(id));
        }
        peers.link_down(A, &account("a"));
        assert_eq!(told(&mut peers, NODE), [(own, false)]);
        // One comes back and stays away from nothing; the other leaves for good.
        peers.subscribed(B, &room);
        peers.joined(B, route(&room), member(1));
        peers.unsubscribed(B, route(&room));
        assert_eq!(told(&mut peers, NODE), []);
        peers.left(route(&room).prefix, member(2));
        assert_eq!(told(&mut peers, NODE), [(room, false)]);
        assert!(peers.names.is_empty());
    }

    #[test]
    fn members_that_are_away_are_bounded_and_one_account_takes_no_others_places() {
        let mut peers = Peers::default();
        node(&mut peers);
        let (room, other) = (name("room", 7), name("room", 8));
        let mut away = |room: &Name, id: u128, owner: &str| {
            peers.subscribed(A, room);
            peers.joined(A, route(room), member(id));
            peers.link_down(A, &account(owner));
        };
        away(&other, 1, "few");
        for id in 0..AWAY_MAX as u128 + 10 {
            away(&room, id, "many");
        }
        // One that comes and goes takes no more than its own place.
        for _ in 0..100 {
            away(&other, 1, "few");
        }
        assert_eq!(peers.away.count, AWAY_MAX);
        let kept = |name: &Name| peers.names[&route(name)].away.len();
        assert_eq!((kept(&other), kept(&room)), (1, AWAY_MAX - 1));
        assert!(!peers.names[&route(&room)].away.contains_key(&member(0)), "the oldest");
    }

    #[test]
    fn names_that_come_and_go_pile_up_for_no_node() {
        let mut peers = Peers::default();
        node(&mut peers);
        for id in 0..1_000 {
            peers.subscribed(A, &name("own", id));
            peers.unsubscribed(A, route(&name("own", id)));
        }
        assert!(peers.nodes[&NODE].pending.is_empty());
        assert!(peers.names.is_empty());
    }

    #[test]
    fn a_node_that_reads_nothing_is_waited_for_once() {
        let mut peers = Peers::default();
        node(&mut peers);
        let (one, two) = (name("one", 1), name("two", 2));
        peers.subscribed(A, &one);
        assert!(!peers.is_told(&route(&one)));
        assert!(peers.next(NODE).is_some());
        assert!(!peers.is_told(&route(&one)), "not in its queue yet");
        peers.give_up(&route(&one));
        assert!(peers.is_told(&route(&one)));
        peers.subscribed(A, &two);
        assert!(peers.is_told(&route(&two)), "still behind");
        peers.sent(NODE);
        told(&mut peers, NODE);
        peers.unsubscribed(A, route(&two));
        assert!(!peers.is_told(&route(&two)), "it has caught up");
    }

    proptest! {
        #[test]
        fn a_node_knows_in_the_end_what_others_have(steps in proptest::collection::vec((0..4u8, 1..4u64, 0..4u64), 0..60)) {
            let mut peers = Peers::default();
            let mut list = BTreeSet::new();
            let mut known = BTreeSet::new();
            node(&mut peers);
            let hear = |peers: &mut Peers, known: &mut BTreeSet<EncodedName>, most: usize| {
                for _ in 0..most {
                    let Some(tell) = peers.next(NODE) else { break };
                    let changed = if tell.add { known.insert(route(&tell.name)) } else { known.remove(&route(&tell.name)) };
                    assert!(changed, "told twice");
                    peers.sent(NODE);
                }
            };
            for (kind, link, id) in steps {
                let (link, name) = (LinkId(link), name("service", id));
                match kind {
                    0 => {
                        peers.subscribed(link, &name);
                        list.insert((link, route(&name)));
                    }
                    1 => {
                        peers.unsubscribed(link, route(&name));
                        list.remove(&(link, route(&name)));
                    }
                    2 if link != NODE => {
                        peers.link_down(link, &account("a"));
                        list.retain(|(other, _)| *other != link);
                    }
                    _ => hear(&mut peers, &mut known, 2),
                }
            }
            hear(&mut peers, &mut known, usize::MAX);
            let wanted: BTreeSet<EncodedName> =
                list.iter().filter(|(link, _)| *link != NODE).map(|(_, route)| *route).collect();
            prop_assert_eq!(known, wanted);
        }
    }
}
