//! Folder entries against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::state::names::Nodes;
use crate::state::slab::{NONE, Slab};

fn listed(nodes: &Nodes, root: u32, after: &str) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    nodes.visit(root, after.as_bytes(), &mut |name, slot| {
        found.push((String::from_utf8(name.to_vec()).unwrap(), slot));
        true
    });
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn entries_agree_with_a_map(
        steps in prop::collection::vec((any::<bool>(), 0u32..400, prop::sample::select(vec![1usize, 9, 60, 240])), 1..900),
        after in 0u32..400,
    ) {
        let mut nodes: Nodes = Slab::new();
        let mut root = NONE;
        let mut model = BTreeMap::new();
        for (add, number, width) in steps {
            let name = format!("{number:0width$}");
            if add && !model.contains_key(&name) {
                root = nodes.add(root, name.as_bytes(), number);
                model.insert(name, number);
            } else if let Some(name) = model.keys().nth(number as usize).cloned() {
                model.remove(&name);
                root = nodes.take(root, name.as_bytes());
            }
        }
        let all: Vec<_> = model.iter().map(|(name, &slot)| (name.clone(), slot)).collect();
        prop_assert_eq!(listed(&nodes, root, ""), all);
        let after = format!("{after:09}");
        let rest: Vec<_> = model.iter().filter(|(name, _)| **name > after).collect();
        prop_assert_eq!(listed(&nodes, root, &after).len(), rest.len());
        prop_assert_eq!(nodes.count_after(root, after.as_bytes()), rest.len() as u64);
        for (name, slot) in &model {
            prop_assert_eq!(nodes.find(root, name.as_bytes()), Some(*slot));
        }
        let mut dropped = Vec::new();
        nodes.drop_tree(root, &mut |slot| dropped.push(slot));
        prop_assert_eq!(dropped.len(), model.len());
        prop_assert_eq!(nodes.len(), 0, "no node is left behind");
    }
}
