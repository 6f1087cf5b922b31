//! A set of offsets kept as ranges.

use skytale_proto::Offset;

/// Most ranges kept. A reader without a fault has one for each time it was added to the channel.
const SPANS_MAX: usize = 256;

/// Offsets as sorted ranges that do not touch, both ends included.
#[derive(Default)]
pub(super) struct Spans(Vec<(Offset, Offset)>);

impl Spans {
    pub(super) fn contains(&self, offset: Offset) -> bool {
        // Readers ask for entries after all ranges, nearly always.
        self.0.last().is_some_and(|(_, end)| offset <= *end)
            && self.0.iter().any(|(start, end)| (*start..=*end).contains(&offset))
    }

    pub(super) fn insert(&mut self, offset: Offset) {
        if let Some((_, end)) = self.0.last_mut()
            && end.next() == offset
        {
            *end = offset;
            return;
        }
        let index = self.0.partition_point(|(_, end)| *end < offset);
        if self.0.get(index).is_some_and(|(start, _)| *start <= offset) {
            return;
        }
        self.0.insert(index, (offset, offset));
        self.join(index);
        if let Some(before) = index.checked_sub(1) {
            self.join(before);
        }
        if self.0.len() > SPANS_MAX {
            // The hole between the two oldest is forgotten; the gap was named when it was seen.
            let (_, end) = self.0.remove(1);
            self.0[0].1 = end;
        }
    }

    /// Joins a range with the one after it if they touch.
    fn join(&mut self, index: usize) {
        if let (Some(&(_, end)), Some(&(start, next_end))) = (self.0.get(index), self.0.get(index + 1))
            && end.next() == start
        {
            self.0[index].1 = next_end;
            self.0.remove(index + 1);
        }
    }

    /// The ranges between `from` and `to`, both included, that are not in the set.
    pub(super) fn holes(&self, from: Offset, to: Offset) -> Vec<(Offset, Offset)> {
        let mut holes = Vec::new();
        let mut next = from;
        for &(start, end) in &self.0 {
            if end < next {
                continue;
            }
            if start > to {
                break;
            }
            if next < start {
                holes.push((next, start.previous()));
            }
            next = end.next();
        }
        if next <= to {
            holes.push((next, to));
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_hold_what_a_set_holds(offsets in prop::collection::vec(1_u64..60, 0..80)) {
            let mut spans = Spans::default();
            let mut set = BTreeSet::new();
            for offset in offsets {
                spans.insert(Offset::new(offset));
                set.insert(offset);
            }
            let holes = spans.holes(Offset::new(5), Offset::new(50));
            for offset in 1..60 {
                prop_assert_eq!(spans.contains(Offset::new(offset)), set.contains(&offset));
                let in_hole = holes.iter().any(|(start, end)| (start.get()..=end.get()).contains(&offset));
                prop_assert_eq!(in_hole, (5..=50).contains(&offset) && !set.contains(&offset));
            }
        }
    }

    #[test]
    fn the_number_of_ranges_is_bounded() {
        let mut spans = Spans::default();
        for offset in 1..=3 * SPANS_MAX as u64 {
            spans.insert(Offset::new(2 * offset));
        }
        assert_eq!(spans.0.len(), SPANS_MAX);
        assert!(spans.contains(Offset::new(6 * SPANS_MAX as u64)));
    }
}
