//! The entries of folders: a B+tree per folder, of nodes of about a kilobyte, from names to inode slots.
//!
//! A node is one allocation: level, count, an offset per entry, then the entries in the order of their names, each
//! `length u8, name, slot u32`. Leaves (level 0) name inodes; above, an entry names the node that begins at its name
//! (the first entry's name is not looked at). A node takes the memory that its entries need, so a split costs
//! nothing; a node that overflows at its end, as names in sequence make it, keeps what it has and opens the next.
//!
//! Always holds: names in a tree are unique and ordered by their bytes; no node is empty; an inner root has at least
//! two children.
//!
//! Does not know permissions, nor what an inode is.

use super::slab::{NONE, Record, Slab};
use crate::coding::{Malformed, Reader, put_u16};

/// Bytes beyond which a node splits.
const NODE_BYTES_MAX: usize = 1024;
/// Below this, a leaf that shrank is merged with a neighbour, if the two fit in three quarters of a node.
const NODE_BYTES_SMALL: usize = NODE_BYTES_MAX / 4;
/// Memory of a node grows in steps of this.
const GROW_BYTES: usize = 64;
/// The deepest tree that a checkpoint may hold.
const LEVEL_MAX: u8 = 32;
const HEAD: usize = 3;

/// One node. The empty one is a free slot.
#[derive(Default, Clone)]
pub(crate) struct Node {
    bytes: Vec<u8>,
}

impl Record for Node {
    const PAGE_SLOTS: u32 = 4;

    fn is_vacant(&self) -> bool {
        self.bytes.is_empty()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u16(out, self.bytes.len() as u16);
        out.extend_from_slice(&self.bytes);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let length = usize::from(r.u16()?);
        let malformed = r.malformed("a well-formed folder node");
        let bytes = r.take(length, "a folder node")?;
        let mut node = Self { bytes: Vec::with_capacity(rounded(length)) };
        node.bytes.extend_from_slice(bytes);
        if node.is_vacant() || node.is_sound() { Ok(node) } else { Err(malformed) }
    }

    fn heap_bytes(&self) -> usize {
        // 8: what a general-purpose allocator adds.
        self.bytes.capacity() + 8
    }
}

fn rounded(length: usize) -> usize {
    length.div_ceil(GROW_BYTES) * GROW_BYTES
}

impl Node {
    fn of(level: u8, entries: &[(Vec<u8>, u32)]) -> Self {
        let mut node = Self { bytes: vec![level, 0, 0] };
        for (at, (name, slot)) in entries.iter().enumerate() {
            node.insert(at, name, *slot);
        }
        node
    }

    pub(super) fn level(&self) -> u8 {
        self.bytes[0]
    }

    pub(super) fn count(&self) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[1], self.bytes[2]]))
    }

    fn offset(&self, at: usize) -> usize {
        let place = HEAD + at * 2;
        usize::from(u16::from_le_bytes([self.bytes[place], self.bytes[place + 1]]))
    }

    fn set_offset(&mut self, at: usize, offset: usize) {
        let place = HEAD + at * 2;
        self.bytes[place..place + 2].copy_from_slice(&(offset as u16).to_le_bytes());
    }

    fn set_count(&mut self, count: usize) {
        self.bytes[1..HEAD].copy_from_slice(&(count as u16).to_le_bytes());
    }

    /// Where the entries begin.
    fn base(&self) -> usize {
        HEAD + self.count() * 2
    }

    pub(super) fn entry(&self, at: usize) -> (&[u8], u32) {
        let start = self.base() + self.offset(at);
        let end = start + 1 + usize::from(self.bytes[start]);
        let slot = self.bytes[end..end + 4].try_into().expect("an entry ends with its slot");
        (&self.bytes[start + 1..end], u32::from_le_bytes(slot))
    }

    fn set_slot(&mut self, at: usize, slot: u32) {
        let start = self.base() + self.offset(at);
        let end = start + 1 + usize::from(self.bytes[start]);
        self.bytes[end..end + 4].copy_from_slice(&slot.to_le_bytes());
    }

    /// Entries before the first whose name is at or after `name`, and whether that is `name`.
    fn search(&self, name: &[u8]) -> (usize, bool) {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = (low + high) / 2;
            match self.entry(middle).0.cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return (middle, true),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        (low, false)
    }

    /// The child of an inner node that covers `name`.
    fn child_at(&self, name: &[u8]) -> usize {
        match self.search(name) {
            (at, true) => at,
            (at, false) => at.saturating_sub(1),
        }
    }

    fn insert(&mut self, at: usize, name: &[u8], slot: u32) {
        let count = self.count();
        let offset = if at < count { self.offset(at) } else { self.bytes.len() - self.base() };
        let size = 1 + name.len() + 4;
        let place = self.base() + offset + 2;
        let length = self.bytes.len();
        let grown = length + 2 + size;
        if grown > self.bytes.capacity() {
            self.bytes.reserve_exact(rounded(grown) - length);
        }
        self.bytes.resize(grown, 0);
        // The new offset opens a gap of two bytes, the new entry one of `size`.
        self.bytes.copy_within(place - 2..length, place + size);
        let index = HEAD + at * 2;
        self.bytes.copy_within(index..place - 2, index + 2);
        self.bytes[place] = u8::try_from(name.len()).expect("a name has at most 255 bytes");
        self.bytes[place + 1..place + 1 + name.len()].copy_from_slice(name);
        self.bytes[place + 1 + name.len()..place + size].copy_from_slice(&slot.to_le_bytes());
        self.set_count(count + 1);
        self.set_offset(at, offset);
        for later in at + 1..=count {
            let moved = self.offset(later) + size;
            self.set_offset(later, moved);
        }
    }

    fn remove(&mut self, at: usize) {
        let count = self.count();
        let size = 1 + self.entry(at).0.len() + 4;
        let start = self.base() + self.offset(at);
        for later in at + 1..count {
            let moved = self.offset(later) - size;
            self.set_offset(later, moved);
        }
        self.bytes.drain(start..start + size);
        let index = HEAD + at * 2;
        self.bytes.drain(index..index + 2);
        self.set_count(count - 1);
        self.bytes.shrink_to(rounded(self.bytes.len()));
    }

    fn entries(&self) -> Vec<(Vec<u8>, u32)> {
        (0..self.count())
            .map(|at| {
                let (name, slot) = self.entry(at);
                (name.to_vec(), slot)
            })
            .collect()
    }

    /// Whether offsets and names are as `insert` makes them: what is read from a disk may be anything.
    fn is_sound(&self) -> bool {
        if self.bytes.len() < HEAD || self.level() > LEVEL_MAX {
            return false;
        }
        let (count, base) = (self.count(), self.base());
        let mut end = base;
        for at in 0..count {
            if base > self.bytes.len() || base + self.offset(at) != end || end >= self.bytes.len() {
                return false;
            }
            end += 1 + usize::from(self.bytes[end]) + 4;
            if end > self.bytes.len() {
                return false;
            }
        }
        let ordered = (usize::from(self.level() > 0) + 1..count)
            .all(|at| self.entry(at - 1).0 < self.entry(at).0);
        count > 0 && end == self.bytes.len() && ordered
    }
}

/// All folders' entries. A folder is named by the slot of its root node, [`NONE`] if it is empty.
pub(crate) type Nodes = Slab<Node>;

impl Nodes {
    /// The inode slot that `name` has.
    pub(crate) fn find(&self, root: u32, name: &[u8]) -> Option<u32> {
        if root == NONE {
            return None;
        }
        let mut node = self.get(root);
        while node.level() > 0 {
            node = self.get(node.entry(node.child_at(name)).1);
        }
        let (at, found) = node.search(name);
        found.then(|| node.entry(at).1)
    }

    /// Adds a name that is not there yet; gives the root.
    pub(crate) fn add(&mut self, root: u32, name: &[u8], slot: u32) -> u32 {
        if root == NONE {
            return self.insert(Node::of(0, &[(name.to_vec(), slot)]));
        }
        let trail = self.descend(root, name);
        let (leaf, _) = *trail.last().expect("a tree has a leaf");
        let (at, found) = self.get(leaf).search(name);
        assert!(!found, "a name is added once");
        self.get_mut(leaf).insert(at, name, slot);
        self.split_upwards(&trail, at, root)
    }

    /// Removes a name that is there; gives the root.
    pub(crate) fn take(&mut self, root: u32, name: &[u8]) -> u32 {
        let mut trail = self.descend(root, name);
        let (leaf, at) = trail.pop().expect("a tree has a leaf");
        assert!(self.get(leaf).search(name) == (at, true), "a name is removed once");
        self.get_mut(leaf).remove(at);
        if self.get(leaf).count() > 0 {
            self.merge_leaf(&trail, leaf);
        } else {
            Slab::remove(self, leaf);
            while let Some((inner, at)) = trail.pop() {
                self.get_mut(inner).remove(at);
                if self.get(inner).count() > 0 {
                    return self.lower_root(root);
                }
                Slab::remove(self, inner);
            }
            return NONE;
        }
        self.lower_root(root)
    }

    /// Visits names after `after` (all, for "") in order, until `visit` says no.
    pub(crate) fn visit(
        &self,
        root: u32,
        after: &[u8],
        visit: &mut dyn FnMut(&[u8], u32) -> bool,
    ) -> bool {
        if root == NONE {
            return true;
        }
        let node = self.get(root);
        if node.level() == 0 {
            let (at, found) = node.search(after);
            return (at + usize::from(found)..node.count()).all(|at| {
                let (name, slot) = node.entry(at);
                visit(name, slot)
            });
        }
        (node.child_at(after)..node.count()).all(|at| self.visit(node.entry(at).1, after, visit))
    }

    /// Puts another inode under a name that is there.
    pub(crate) fn replace(&mut self, root: u32, name: &[u8], slot: u32) {
        let (leaf, at) = *self.descend(root, name).last().expect("a tree has a leaf");
        let node = self.get_mut(leaf);
        assert!(node.search(name) == (at, true), "only a name that is there is replaced");
        node.set_slot(at, slot);
    }

    /// A tree of the same names, with the inodes that `slots` gives in the order of the names; gives its root.
    pub(crate) fn copy_tree(&mut self, root: u32, slots: &mut impl Iterator<Item = u32>) -> u32 {
        if root == NONE {
            return NONE;
        }
        let mut node = self.get(root).clone();
        for at in 0..node.count() {
            let slot = if node.level() == 0 {
                slots.next().expect("an inode for each name")
            } else {
                let child = node.entry(at).1;
                self.copy_tree(child, slots)
            };
            node.set_slot(at, slot);
        }
        self.insert(node)
    }

    /// How many names come after `after`.
    pub(crate) fn count_after(&self, root: u32, after: &[u8]) -> u64 {
        if root == NONE {
            return 0;
        }
        let node = self.get(root);
        if node.level() == 0 {
            let (at, found) = node.search(after);
            return (node.count() - at - usize::from(found)) as u64;
        }
        (node.child_at(after)..node.count())
            .map(|at| self.count_after(node.entry(at).1, after))
            .sum()
    }

    /// Frees a whole tree, handing each inode slot to `each` in the order of names.
    pub(crate) fn drop_tree(&mut self, root: u32, each: &mut dyn FnMut(u32)) {
        if root == NONE {
            return;
        }
        let node = Slab::remove(self, root);
        for at in 0..node.count() {
            let slot = node.entry(at).1;
            if node.level() == 0 { each(slot) } else { self.drop_tree(slot, each) }
        }
    }

    /// The nodes from the root to the leaf that covers `name`, each with the entry taken.
    fn descend(&self, root: u32, name: &[u8]) -> Vec<(u32, usize)> {
        let mut trail = Vec::with_capacity(4);
        let mut slot = root;
        loop {
            let node = self.get(slot);
            if node.level() == 0 {
                trail.push((slot, node.search(name).0));
                return trail;
            }
            let at = node.child_at(name);
            trail.push((slot, at));
            slot = node.entry(at).1;
        }
    }

    /// Splits the leaf at the end of `trail` if it is too large, and what overflows above it. `inserted` is where
    /// the leaf's newest entry is.
    fn split_upwards(&mut self, trail: &[(u32, usize)], inserted: usize, root: u32) -> u32 {
        let mut inserted = inserted;
        for depth in (0..trail.len()).rev() {
            let (slot, _) = trail[depth];
            let node = self.get(slot);
            if node.bytes.len() <= NODE_BYTES_MAX {
                return root;
            }
            let (level, entries) = (node.level(), node.entries());
            let cut = split_place(&entries, inserted);
            let right = Node::of(level, &entries[cut..]);
            *self.get_mut(slot) = Node::of(level, &entries[..cut]);
            let right_slot = self.insert(right);
            let separator = &entries[cut].0;
            if depth == 0 {
                let children = [(entries[0].0.clone(), slot), (separator.clone(), right_slot)];
                return self.insert(Node::of(level + 1, &children));
            }
            let (parent, at) = trail[depth - 1];
            self.get_mut(parent).insert(at + 1, separator, right_slot);
            inserted = at + 1;
        }
        root
    }

    /// Joins a leaf that has become small with its right or left neighbour under the same parent.
    fn merge_leaf(&mut self, trail: &[(u32, usize)], leaf: u32) {
        let Some(&(parent, at)) = trail.last() else { return };
        let size = self.get(leaf).bytes.len();
        if size >= NODE_BYTES_SMALL {
            return;
        }
        let count = self.get(parent).count();
        for (left_at, right_at) in [(at, at + 1), (at.wrapping_sub(1), at)] {
            if left_at >= count || right_at >= count {
                continue;
            }
            let (left, right) =
                (self.get(parent).entry(left_at).1, self.get(parent).entry(right_at).1);
            let together = self.get(left).bytes.len() + self.get(right).bytes.len();
            if together <= NODE_BYTES_MAX * 3 / 4 {
                let moved = Slab::remove(self, right);
                let target = self.get_mut(left);
                for (name, slot) in moved.entries() {
                    target.insert(target.count(), &name, slot);
                }
                self.get_mut(parent).remove(right_at);
                return;
            }
        }
    }

    /// An inner root with one child gives way to it.
    fn lower_root(&mut self, root: u32) -> u32 {
        let mut root = root;
        while self.get(root).level() > 0 && self.get(root).count() == 1 {
            let child = self.get(root).entry(0).1;
            Slab::remove(self, root);
            root = child;
        }
        root
    }
}

/// Where to cut an overflowing node: at its end if the newest entry is there, else in the middle of its bytes.
fn split_place(entries: &[(Vec<u8>, u32)], inserted: usize) -> usize {
    if inserted + 1 == entries.len() {
        return entries.len() - 1;
    }
    let total: usize = entries.iter().map(|(name, _)| name.len() + 7).sum();
    let mut sum = 0;
    let cut = entries.iter().position(|(name, _)| {
        sum += name.len() + 7;
        sum * 2 >= total
    });
    cut.unwrap_or(0).clamp(1, entries.len() - 1)
}
