//! Which inode numbers the kernel knows, and by which names. Pure.
//!
//! The kernel speaks of inodes, the NameNode of paths. Each inode here has a count of the lookups
//! that the kernel has not yet taken back (`forget`), and its names: pairs of a parent's inode and
//! a component. A path is found by walking up, so renaming a folder changes one pair, and
//! everything below it has its new path.
//!
//! What always holds: a pair belongs to one inode at most; an inode's parents are in the map as
//! long as it is; an inode is dropped when the kernel has forgotten it and no child names it as
//! parent, so the map is as large as the kernel's own cache. Numbers are the NameNode's, except
//! that the root is 1, as the kernel wants it.

use std::collections::HashMap;

use proto::FsPath;
use proto::ids::InodeId;
use proto::limits::PATH_DEPTH_MAX;

/// The kernel's number for the root.
pub(crate) const ROOT: u64 = 1;

/// The kernel's number for the NameNode's inode. The root's number and 1 change places, so that no
/// two inodes meet.
pub(crate) fn number_of(inode: u64) -> u64 {
    const ROOT_ID: u64 = InodeId::ROOT.0;
    match inode {
        ROOT_ID => ROOT,
        ROOT => ROOT_ID,
        other => other,
    }
}

/// A name's place: the folder that holds it, and the component.
type Place = (u64, Box<str>);

#[derive(Debug, Default)]
struct Node {
    /// Lookups that the kernel has not taken back.
    lookups: u64,
    /// Names of other inodes that have this one as parent.
    children: u64,
    /// Known names, the one learnt last at the end. Several for hard links, none after an unlink.
    names: Vec<Place>,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct InodeMap {
    nodes: HashMap<u64, Node>,
    places: HashMap<Place, u64>,
}

impl InodeMap {
    pub(crate) fn new() -> Self {
        let root = Node { lookups: 1, ..Node::default() };
        Self { nodes: HashMap::from([(ROOT, root)]), places: HashMap::new() }
    }

    /// The kernel is told that `name` in `parent` is `number`: that counts as a lookup. Nothing is
    /// noted for a parent that the kernel does not know, which it never asks about.
    pub(crate) fn looked_up(&mut self, parent: u64, name: &str, number: u64) {
        if !self.nodes.contains_key(&parent) || number == ROOT {
            return;
        }
        let place = (parent, Box::from(name));
        self.nodes.entry(number).or_default().lookups += 1;
        self.attach(place, number);
    }

    /// The kernel takes back so many lookups.
    pub(crate) fn forget(&mut self, number: u64, lookups: u64) {
        if number == ROOT {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups = node.lookups.saturating_sub(lookups);
            self.drop_if_unused(number);
        }
    }

    /// Nothing has this name any more. Its inode stays as long as the kernel knows it.
    pub(crate) fn removed(&mut self, parent: u64, name: &str) {
        let place = (parent, Box::from(name));
        if let Some(number) = self.places.remove(&place) {
            let node = self.nodes.get_mut(&number).expect("a place names an inode of the map");
            node.names.retain(|other| *other != place);
            self.release_parent(parent);
            self.drop_if_unused(number);
        }
    }

    /// A name became another one, in place of what had it.
    pub(crate) fn renamed(&mut self, from: (u64, &str), to: (u64, &str)) {
        let source = self.places.get(&(from.0, Box::from(from.1))).copied();
        let Some(number) = source else { return self.removed(to.0, to.1) };
        if from == to {
            return;
        }
        if self.places.get(&(to.0, Box::from(to.1))) == Some(&number) {
            // Two names of one inode: POSIX says that nothing happens, and both stay.
            return;
        }
        // The new name first: the inode never is without one, so nothing is dropped on the way.
        if self.nodes.contains_key(&to.0) {
            self.attach((to.0, Box::from(to.1)), number);
        }
        self.removed(from.0, from.1);
    }

    /// A path that leads to the inode, if it still has a name.
    pub(crate) fn path(&self, number: u64) -> Option<FsPath> {
        let mut names = Vec::new();
        let mut at = number;
        while at != ROOT {
            let (parent, name) = self.nodes.get(&at)?.names.last()?;
            names.push(name.as_ref());
            at = *parent;
            if names.len() > PATH_DEPTH_MAX {
                return None;
            }
        }
        names.push("");
        names.reverse();
        let text = names.join("/");
        FsPath::parse(if text.is_empty() { "/" } else { &text }).ok()
    }

    /// The folder that holds the inode's name; the root's is itself.
    pub(crate) fn parent(&self, number: u64) -> u64 {
        let name = self.nodes.get(&number).and_then(|node| node.names.last());
        name.map_or(ROOT, |(parent, _)| *parent)
    }

    /// Gives a place to an inode, and takes it from the one that had it.
    fn attach(&mut self, place: Place, number: u64) {
        let before = self.places.insert(place.clone(), number);
        if before == Some(number) {
            return;
        }
        self.nodes.entry(number).or_default().names.push(place.clone());
        match before {
            // The parent's count stays: one child for another.
            Some(before) => {
                let node = self.nodes.get_mut(&before).expect("a place names an inode of the map");
                node.names.retain(|other| *other != place);
                self.drop_if_unused(before);
            }
            None => {
                let parent = self.nodes.get_mut(&place.0).expect("the caller has looked for it");
                parent.children += 1;
            }
        }
    }

    fn release_parent(&mut self, parent: u64) {
        let node = self.nodes.get_mut(&parent).expect("parents are in the map");
        node.children = node.children.checked_sub(1).expect("each name was counted once");
        self.drop_if_unused(parent);
    }

    /// Drops the inode, and then its parents, as long as nothing needs them.
    fn drop_if_unused(&mut self, number: u64) {
        let mut candidates = vec![number];
        while let Some(number) = candidates.pop() {
            let unused = |node: &Node| node.lookups == 0 && node.children == 0;
            if number == ROOT || !self.nodes.get(&number).is_some_and(unused) {
                continue;
            }
            let node = self.nodes.remove(&number).expect("it was just seen");
            for place in node.names {
                let parent = self.nodes.get_mut(&place.0).expect("parents are in the map");
                parent.children = parent.children.checked_sub(1).expect("counted once");
                candidates.push(place.0);
                self.places.remove(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(map: &InodeMap, number: u64) -> Option<String> {
        map.path(number).map(|p| p.as_str().to_owned())
    }

    /// `/a` = 10, `/a/b` = 11, `/a/b/f` = 12.
    fn tree() -> InodeMap {
        let mut map = InodeMap::new();
        map.looked_up(ROOT, "a", 10);
        map.looked_up(10, "b", 11);
        map.looked_up(11, "f", 12);
        map
    }

    #[test]
    fn the_root_is_one_and_no_two_inodes_share_a_number() {
        assert_eq!(number_of(InodeId::ROOT.0), 1);
        assert_eq!(number_of(1), InodeId::ROOT.0);
        assert_eq!(number_of(20_000), 20_000);
        assert_eq!(path(&InodeMap::new(), ROOT).as_deref(), Some("/"));
    }

    #[test]
    fn a_renamed_folder_moves_all_below_it() {
        let mut map = tree();
        map.renamed((ROOT, "a"), (ROOT, "z"));
        assert_eq!(path(&map, 12).as_deref(), Some("/z/b/f"));
        map.renamed((10, "b"), (ROOT, "b"));
        assert_eq!(path(&map, 12).as_deref(), Some("/b/f"));
        assert_eq!(map.parent(11), ROOT);
    }

    #[test]
    fn a_rename_over_a_file_leaves_the_old_one_without_a_name() {
        let mut map = tree();
        map.looked_up(11, "g", 13);
        map.renamed((11, "g"), (11, "f"));
        assert_eq!(path(&map, 13).as_deref(), Some("/a/b/f"));
        assert_eq!(path(&map, 12), None);
        map.forget(12, 1);
        assert_eq!(map.nodes.len(), 4);
    }

    #[test]
    fn an_inode_stays_until_the_kernel_forgot_every_lookup() {
        let mut map = tree();
        map.looked_up(11, "f", 12);
        map.forget(12, 1);
        assert_eq!(path(&map, 12).as_deref(), Some("/a/b/f"));
        map.forget(12, 1);
        assert_eq!(path(&map, 12), None);
        assert_eq!((map.nodes.len(), map.places.len()), (3, 2));
    }

    #[test]
    fn a_forgotten_folder_stays_while_children_need_it() {
        let mut map = tree();
        map.forget(10, 1);
        map.forget(11, 1);
        assert_eq!(path(&map, 12).as_deref(), Some("/a/b/f"));
        map.forget(12, 1);
        assert_eq!((map.nodes.len(), map.places.len()), (1, 0));
    }

    #[test]
    fn a_hard_link_keeps_its_other_name_after_an_unlink() {
        let mut map = tree();
        map.looked_up(ROOT, "link", 12);
        assert_eq!(path(&map, 12).as_deref(), Some("/link"));
        map.removed(ROOT, "link");
        assert_eq!(path(&map, 12).as_deref(), Some("/a/b/f"));
        map.renamed((11, "f"), (11, "f"));
        assert_eq!(path(&map, 12).as_deref(), Some("/a/b/f"));
        map.removed(11, "f");
        assert_eq!(path(&map, 12), None);
        map.forget(12, 2);
        assert!(!map.nodes.contains_key(&12));
    }

    #[test]
    fn a_name_that_now_means_another_inode_is_taken_from_the_old_one() {
        let mut map = tree();
        map.looked_up(11, "f", 99);
        assert_eq!(path(&map, 12), None);
        assert_eq!(path(&map, 99).as_deref(), Some("/a/b/f"));
    }

    #[test]
    fn any_sequence_of_calls_keeps_the_counts_true() {
        // Small linear congruential walk over few names and numbers, so that they meet often.
        let mut state = 12345u64;
        let mut next = |n: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let names = ["a", "b", "c"];
        let mut map = InodeMap::new();
        for _ in 0..50_000 {
            // A parent has a lower number than its children, so that no loop arises, as on the
            // NameNode.
            let parent = 1 + next(6);
            let child = parent + 1 + next(3);
            let (name, other) = (names[next(3) as usize], names[next(3) as usize]);
            match next(5) {
                0 | 1 => map.looked_up(parent, name, child),
                2 => map.forget(child, 1 + next(2)),
                3 => map.removed(parent, name),
                _ => map.renamed((parent, name), (parent, other)),
            }
            for (number, node) in &map.nodes {
                let children = map.places.keys().filter(|(parent, _)| parent == number).count();
                assert_eq!(node.children, children as u64);
                assert!(*number == ROOT || node.lookups > 0 || node.children > 0);
                assert!(node.names.iter().all(|place| map.places.get(place) == Some(number)));
            }
            assert!(map.places.values().all(|number| map.nodes.contains_key(number)));
        }
    }
}
