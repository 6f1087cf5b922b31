//! Subscriptions, and the links to which a frame goes.
//!
//! ```text
//!   prefix ─ id ─ link ─ subscription ids     an exact id: the links subscribed with it
//!          └ any ─ ...                        no id: every link with a subscription under the prefix
//! ```
//!
//! A frame never goes back to the link that it came on. Fanout 1 picks one of those who match, in turn.

use crate::wire::{EncodedName, Prefix};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A link, by its number in this process. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Reason why a subscription was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The link has as many as it may.
    #[error("too many subscriptions on one link")]
    TooMany,
    /// There is no such subscription.
    #[error("no such subscription")]
    Unknown,
}

/// Subscriptions of all links.
#[derive(Debug, Default)]
pub struct Routes {
    prefixes: HashMap<Prefix, Entry>,
    links: HashMap<LinkId, LinkRoutes>,
}

#[derive(Debug, Default)]
struct LinkRoutes {
    count: usize,
    prefixes: BTreeSet<Prefix>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Subscriptions by id (`None` for those without one), then by link.
    ids: BTreeMap<Option<u128>, BTreeMap<LinkId, BTreeSet<u64>>>,
    /// Counts up with each frame that goes to one link alone.
    turn: usize,
}

impl Routes {
    /// Takes a subscription. The same one twice is one. `limit` bounds those of a link.
    pub fn subscribe(
        &mut self,
        link: LinkId,
        name: EncodedName,
        subscription: u64,
        limit: usize,
    ) -> Result<(), RouteError> {
        let own = self.links.entry(link).or_default();
        let known = self
            .prefixes
            .get(&name.prefix)
            .and_then(|entry| entry.ids.get(&name.id))
            .and_then(|links| links.get(&link))
            .is_some_and(|ids| ids.contains(&subscription));
        if known {
            return Ok(());
        }
        if own.count >= limit {
            return Err(RouteError::TooMany);
        }
        own.count += 1;
        own.prefixes.insert(name.prefix);
        let entry = self.prefixes.entry(name.prefix).or_default();
        entry
            .ids
            .entry(name.id)
            .or_default()
            .entry(link)
            .or_default()
            .insert(subscription);
        Ok(())
    }

    /// Ends a subscription. Gives whether the link still has another one of the same name.
    pub fn unsubscribe(&mut self, link: LinkId, name: EncodedName, subscription: u64) -> Result<bool, RouteError> {
        let entry = self.prefixes.get_mut(&name.prefix).ok_or(RouteError::Unknown)?;
        let links = entry.ids.get_mut(&name.id).ok_or(RouteError::Unknown)?;
        let ids = links.get_mut(&link).ok_or(RouteError::Unknown)?;
        if !ids.remove(&subscription) {
            return Err(RouteError::Unknown);
        }
        let remains = !ids.is_empty();
        if !remains {
            links.remove(&link);
            if links.is_empty() {
                entry.ids.remove(&name.id);
            }
        }
        let of_prefix = entry.ids.values().any(|links| links.contains_key(&link));
        if entry.ids.is_empty() {
            self.prefixes.remove(&name.prefix);
        }
        if let Some(own) = self.links.get_mut(&link) {
            own.count -= 1;
            if !of_prefix {
                own.prefixes.remove(&name.prefix);
            }
        }
        Ok(remains)
    }

    /// A link is gone, with all its subscriptions.
    pub fn drop_link(&mut self, link: LinkId) {
        let Some(own) = self.links.remove(&link) else {
            return;
        };
        for prefix in own.prefixes {
            if let Some(entry) = self.prefixes.get_mut(&prefix) {
                entry.ids.retain(|_, links| {
                    links.remove(&link);
                    !links.is_empty()
                });
                if entry.ids.is_empty() {
                    self.prefixes.remove(&prefix);
                }
            }
        }
    }

    /// Subscriptions of a link.
    pub fn count(&self, link: LinkId) -> usize {
        self.links.get(&link).map_or(0, |own| own.count)
    }

    /// Whether a link has a subscription under a prefix.
    pub fn has(&self, link: LinkId, prefix: &Prefix) -> bool {
        self.links.get(&link).is_some_and(|own| own.prefixes.contains(prefix))
    }

    /// Whether a link is subscribed so that a frame to `name` reaches it.
    pub fn reaches(&self, link: LinkId, name: EncodedName) -> bool {
        self.prefixes.get(&name.prefix).is_some_and(|entry| match name.id {
            Some(_) => entry.ids.get(&name.id).is_some_and(|links| links.contains_key(&link)),
            None => entry.ids.values().any(|links| links.contains_key(&link)),
        })
    }

    /// The ids of a prefix that a link is subscribed to.
    pub fn ids(&self, link: LinkId, prefix: &Prefix) -> BTreeSet<u128> {
        self.prefixes.get(prefix).map_or_else(BTreeSet::new, |entry| {
            entry
                .ids
                .iter()
                .filter(|(_, links)| links.contains_key(&link))
                .filter_map(|(id, _)| *id)
                .collect()
        })
    }

    /// The links that a frame goes to: all that match, but not `from`.
    pub fn all(&self, name: EncodedName, from: Option<LinkId>) -> Vec<LinkId> {
        let Some(entry) = self.prefixes.get(&name.prefix) else {
            return Vec::new();
        };
        let mut links: Vec<LinkId> = match name.id {
            Some(_) => entry
                .ids
                .get(&name.id)
                .map(|links| links.keys().copied().collect())
                .unwrap_or_default(),
            None => entry.ids.values().flat_map(|links| links.keys().copied()).collect(),
        };
        links.sort_unstable();
        links.dedup();
        links.retain(|link| Some(*link) != from);
        links
    }

    /// The next one in turn of those that match, but not `from`.
    pub fn one(&mut self, name: EncodedName, from: Option<LinkId>) -> Option<LinkId> {
        let links = self.all(name, from);
        let entry = self.prefixes.get_mut(&name.prefix)?;
        let place = entry.turn.checked_rem(links.len())?;
        entry.turn = entry.turn.wrapping_add(1);
        links.get(place).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);
    const C: LinkId = LinkId(3);

    fn name(prefix: u64, id: Option<u128>) -> EncodedName {
        EncodedName {
            prefix: [prefix; 3],
            id,
        }
    }

    fn routes(given: &[(LinkId, EncodedName)]) -> Routes {
        let mut routes = Routes::default();
        for (link, name) in given {
            routes.subscribe(*link, *name, 1, 100).expect("taken");
        }
        routes
    }

    #[test]
    fn an_id_matches_its_subscribers_and_no_id_matches_all_under_the_prefix() {
        let routes = routes(&[
            (A, name(1, Some(7))),
            (B, name(1, Some(8))),
            (C, name(1, None)),
            (C, name(2, Some(7))),
        ]);
        assert_eq!(routes.all(name(1, Some(7)), None), [A]);
        assert_eq!(routes.all(name(1, None), None), [A, B, C]);
        assert_eq!(routes.all(name(1, Some(9)), None), []);
        assert_eq!(routes.all(name(3, None), None), []);
    }

    #[test]
    fn a_frame_never_goes_back() {
        let mut routes = routes(&[(A, name(1, Some(7))), (B, name(1, Some(7)))]);
        assert_eq!(routes.all(name(1, Some(7)), Some(A)), [B]);
        assert_eq!(routes.one(name(1, None), Some(B)), Some(A));
        routes.drop_link(B);
        assert_eq!(routes.one(name(1, None), Some(A)), None);
    }

    #[test]
    fn anycast_takes_turns() {
        let mut routes = routes(&[(A, name(1, Some(1))), (B, name(1, Some(2))), (C, name(1, Some(3)))]);
        let mut seen: Vec<_> = (0..6).filter_map(|_| routes.one(name(1, None), None)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [A, A, B, B, C, C]);
    }

    #[test]
    fn a_link_has_as_many_subscriptions_as_it_may_and_no_more() {
        let mut routes = Routes::default();
        for number in 0..10 {
            let taken = routes.subscribe(A, name(number, None), number, 8);
            assert_eq!(taken.is_ok(), number < 8, "{number}");
        }
        assert_eq!(
            routes.subscribe(A, name(1, None), 1, 8),
            Ok(()),
            "the same one is not another"
        );
        assert!(
            routes.subscribe(B, name(1, None), 1, 8).is_ok(),
            "others are not affected"
        );
    }

    proptest! {
        #[test]
        fn routes_are_what_a_list_of_subscriptions_says(
            steps in proptest::collection::vec((0..4u8, 1..4u64, 0..3u64, 0..3u128, 1..3u64), 0..80),
            ask in (0..3u64, 0..3u128),
        ) {
            let (mut routes, mut list) = (Routes::default(), BTreeSet::new());
            for (kind, link, prefix, id, subscription) in steps {
                let (link, name) = (LinkId(link), name(prefix, (id > 0).then_some(id)));
                match kind {
                    0 | 1 => {
                        routes.subscribe(link, name, subscription, 1_000).expect("taken");
                        list.insert((link, name, subscription));
                    }
                    2 => {
                        let had = list.remove(&(link, name, subscription));
                        let more = list.iter().any(|(l, n, _)| *l == link && *n == name);
                        let told = routes.unsubscribe(link, name, subscription);
                        prop_assert_eq!(told, if had { Ok(more) } else { Err(RouteError::Unknown) });
                    }
                    _ => {
                        routes.drop_link(link);
                        list.retain(|(l, _, _)| *l != link);
                    }
                }
            }
            let (prefix, id) = ask;
            let asked = name(prefix, (id > 0).then_some(id));
            let mut expected: Vec<LinkId> = list
                .iter()
                .filter(|(_, n, _)| n.prefix == asked.prefix && (asked.id.is_none() || n.id == asked.id))
                .map(|(link, _, _)| *link)
                .collect();
            expected.dedup();
            prop_assert_eq!(routes.all(asked, None), expected);
            for link in [A, B, C] {
                let has = list.iter().any(|(l, n, _)| *l == link && n.prefix == asked.prefix);
                prop_assert_eq!(routes.has(link, &asked.prefix), has);
                prop_assert_eq!(routes.count(link), list.iter().filter(|(l, _, _)| *l == link).count());
            }
            if list.is_empty() {
                prop_assert!(routes.prefixes.is_empty());
            }
        }
    }
}
