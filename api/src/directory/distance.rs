//! Distances between regions.

use std::collections::HashMap;

/// Pairs of regions in one table.
const PAIRS_MAX: usize = 4_096;

/// Distances between regions, in a unit of the operator's choice: milliseconds of a round trip, mostly. The same both
/// ways, and nothing within a region. Regions without an entry are further apart than those with one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distances(HashMap<(u8, u8), u32>);

impl Distances {
    /// Parses entries of the form `1-2=80`. The error names the problem.
    pub(crate) fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut table = HashMap::new();
        for entry in entries {
            let (pair, distance) = parse(entry).ok_or_else(|| {
                let shown = skytale_proto::shown(entry, 40);
                format!("has `{shown}`; an entry is two different regions and their distance, as in `1-2=80`")
            })?;
            if table.insert(pair, distance).is_some() {
                return Err(format!("has the regions {} and {} twice", pair.0, pair.1));
            }
            if table.len() > PAIRS_MAX {
                return Err(format!("has more than {PAIRS_MAX} entries"));
            }
        }
        Ok(Self(table))
    }

    /// Returns the distance from one region to another.
    pub(crate) fn between(&self, one: u8, other: u8) -> u32 {
        if one == other {
            return 0;
        }
        self.0.get(&ordered(one, other)).copied().unwrap_or(u32::MAX)
    }
}

const fn ordered(one: u8, other: u8) -> (u8, u8) {
    if one < other { (one, other) } else { (other, one) }
}

fn parse(entry: &str) -> Option<((u8, u8), u32)> {
    let (pair, distance) = entry.split_once('=')?;
    let (one, other) = pair.split_once('-')?;
    let (one, other) = (one.trim().parse().ok()?, other.trim().parse().ok()?);
    (one != other).then_some((ordered(one, other), distance.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_the_same_both_ways_and_far_where_it_is_not_known() {
        let distances = Distances::parse(["1-2=80", " 3 - 1 = 0"]).unwrap();
        assert_eq!((distances.between(1, 2), distances.between(2, 1)), (80, 80));
        assert_eq!((distances.between(1, 3), distances.between(7, 7)), (0, 0));
        assert_eq!(distances.between(2, 3), u32::MAX);
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for wrong in [
            &["1-2"][..],
            &["1=2"],
            &["1-1=0"],
            &["1-256=4"],
            &["1-2=-1"],
            &["a-b=1"],
            &["1-2=3", "2-1=3"],
        ] {
            assert!(Distances::parse(wrong.iter().copied()).is_err(), "{wrong:?}");
        }
        let many: Vec<String> = (0..=255u8)
            .flat_map(|one| (one.saturating_add(1)..=255).map(move |other| format!("{one}-{other}=1")))
            .filter(|entry| Distances::parse([entry.as_str()]).is_ok())
            .collect();
        assert!(Distances::parse(many.iter().map(String::as_str)).is_err(), "bounded");
    }
}
