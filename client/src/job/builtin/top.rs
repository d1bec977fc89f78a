//! Lists of the most frequent: bounded memory, a defined order (count descending, then name ascending).

use std::collections::BTreeSet;

/// The greatest by count, at most so many.
#[derive(Debug)]
pub(super) struct Top {
    limit: usize,
    /// Worst first: an entry is `(count, name with the order turned around)`.
    best: BTreeSet<(u64, std::cmp::Reverse<Vec<u8>>)>,
}

impl Top {
    pub fn new(limit: usize) -> Self {
        Self { limit, best: BTreeSet::new() }
    }

    /// Sees a name, which it has not seen before.
    pub fn add(&mut self, name: &[u8], count: u64) {
        if self.best.len() == self.limit {
            let Some((least, worst)) = self.best.first() else { return };
            if (count, std::cmp::Reverse(name)) <= (*least, std::cmp::Reverse(worst.0.as_slice())) {
                return;
            }
            self.best.pop_first();
        }
        self.best.insert((count, std::cmp::Reverse(name.to_vec())));
    }

    /// Takes in another list.
    pub fn merge(&mut self, other: Self) {
        other.best.into_iter().for_each(|(count, name)| self.add(&name.0, count));
    }

    /// The list, best first.
    pub fn into_list(self) -> Vec<(Vec<u8>, u64)> {
        self.best.into_iter().rev().map(|(count, name)| (name.0, count)).collect()
    }
}

/// The list of several lists, best first.
pub(super) fn merged(limit: usize, lists: Vec<Top>) -> Vec<(Vec<u8>, u64)> {
    let mut all = Top::new(limit);
    lists.into_iter().for_each(|list| all.merge(list));
    all.into_list()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_merge_to_the_head_of_the_whole_sorted_list(
            counts in prop::collection::btree_map("[ab]{0,3}", 0u64..4, 0..20),
            limit in 0usize..10, parts in 1usize..4,
        ) {
            let mut lists: Vec<Top> = (0..parts).map(|_| Top::new(limit)).collect();
            for (index, (name, count)) in counts.iter().enumerate() {
                lists[index % parts].add(name.as_bytes(), *count);
            }
            let mut expected: Vec<(Vec<u8>, u64)> =
                counts.iter().map(|(name, count)| (name.clone().into_bytes(), *count)).collect();
            expected.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
            expected.truncate(limit);
            prop_assert_eq!(merged(limit, lists), expected);
        }
    }
}
