//! Snapshots in checkpoints: damage is found, and nothing that was read from a disk makes later code fail.

use super::model::{Rng, some_state};
use crate::coding::Malformed;
use crate::op::Op;
use crate::op::snapshot::SnapshotOp;
use crate::state::image::PageKind;
use crate::state::slab::{NONE, PageImage, Side};
use crate::state::tests::{World, create_op, path};
use crate::state::{ROOT, State};

/// What a checkpoint writes of a state.
pub(super) struct Written {
    pages: Vec<(PageKind, PageImage)>,
    sections: Vec<u8>,
}

pub(super) fn write(state: &mut State) -> Written {
    state.mark_all_dirty(Side::A);
    let sections = state.freeze(Side::A);
    let mut pages = Vec::new();
    for kind in PageKind::ALL {
        let images = state.encode_frozen(kind, 0, usize::MAX);
        state.thaw(kind, &images);
        pages.extend(images.into_iter().map(|image| (kind, image)));
    }
    Written { pages, sections }
}

pub(super) fn load(written: &Written) -> Result<State, Malformed> {
    let mut loaded = State::blank();
    for (kind, (page, bytes)) in &written.pages {
        loaded.load_page(*kind, *page, bytes)?;
    }
    loaded.load_sections(&written.sections)?;
    loaded.finish_loading()?;
    Ok(loaded)
}

/// `/d` with two snapshots, one of which shares, and a file that lives in both and nowhere else.
fn world() -> World {
    let mut world = World::new();
    for file in ["/d/sub/f", "/d/g", "/d/gone"] {
        world.ok(create_op(file, "h", false));
    }
    world.ok(Op::Snapshot(SnapshotOp::Allow { path: path("/d") }));
    for name in ["s1", "s2"] {
        world.ok(Op::Snapshot(SnapshotOp::Create { path: path("/d"), name: name.into() }));
    }
    world.ok(Op::Delete { path: path("/d/gone"), recursive: false });
    world
}

/// The error that loading gives after this was done to the state.
fn refused(damage: impl FnOnce(&mut State)) -> &'static str {
    let mut world = world();
    assert!(load(&write(&mut world.state)).is_ok());
    damage(&mut world.state);
    match load(&write(&mut world.state)) {
        Err(malformed) => malformed.expected,
        Ok(_) => panic!("the damage was not found"),
    }
}

/// A frozen inode: a folder, or a file.
fn frozen(state: &State, folder: bool, shares: bool) -> u32 {
    let fits = |slot: &u32| {
        let inode = state.inodes.get(*slot);
        let kind = inode.is_folder() == folder && inode.shared_from().is_some() == shares;
        inode.is_frozen() && kind
    };
    (0..state.inodes.end()).find(fits).expect("there is one")
}

#[test]
fn what_does_not_fit_together_is_refused_by_name() {
    let live = |state: &State, name: &[u8]| {
        let d = state.nodes.find(state.inodes.get(ROOT).body, b"d").unwrap();
        state.nodes.find(state.inodes.get(d).body, name).unwrap()
    };
    assert_eq!(
        refused(|state| {
            let folder = frozen(state, true, true);
            state.inodes.get_mut(folder).share(ROOT);
        }),
        "a folder that is shared, of the same inode, with its own entries"
    );
    assert_eq!(
        refused(|state| {
            let folder = frozen(state, true, true);
            state.inodes.get_mut(folder).own(NONE);
        }),
        "as many names as children"
    );
    assert_eq!(
        refused(|state| {
            let file = frozen(state, false, false);
            state.inodes.get_mut(file).length = 1;
        }),
        "a file as long as its blocks"
    );
    assert_eq!(
        refused(|state| {
            let file = frozen(state, false, false);
            state.inodes.get_mut(file).parent = ROOT;
        }),
        "an inode of known parent, permission and layout"
    );
    assert_eq!(
        refused(|state| {
            let (g, body) = (live(state, b"g"), state.inodes.get(ROOT).body);
            let root = state.nodes.add(body, b"twice", g);
            state.inodes.get_mut(ROOT).body = root;
            state.inodes.get_mut(ROOT).count_child(false, 1);
        }),
        "one name of what has one"
    );
    assert_eq!(
        refused(|state| {
            let file = frozen(state, false, false);
            let root = state.nodes.add(state.inodes.get(ROOT).body, b"thawed", file);
            state.inodes.get_mut(ROOT).body = root;
            state.inodes.get_mut(ROOT).count_child(false, 1);
        }),
        "what is frozen in what is frozen"
    );
    assert_eq!(
        refused(|state| {
            let sub = live(state, b"sub");
            state.inodes.get_mut(sub).set_snapshottable(true);
        }),
        "a snapshottable folder that is on the list"
    );
    assert_eq!(
        refused(|state| {
            let g = live(state, b"g");
            state.bind_block(g, 0, 0);
        }),
        "a bound of a block that a file has"
    );
    assert_eq!(
        refused(|state| {
            let id = state.inodes.get(frozen(state, false, false)).id;
            state.inodes.get_mut(live(state, b"g")).id = id;
            let sub = live(state, b"sub");
            let f = state.nodes.find(state.inodes.get(sub).body, b"f").unwrap();
            state.inodes.get_mut(f).id = id;
        }),
        "an inode id that was given once"
    );
}

#[test]
fn any_changed_byte_gives_an_error_or_a_state_that_can_be_read() {
    let mut world = world();
    let written = write(&mut world.state);
    let (mut refused, mut loaded) = (0, 0);
    let mut try_one = |written: &Written| match load(written) {
        Err(_) => refused += 1,
        Ok(state) => {
            loaded += 1;
            // Whatever was changed can be looked at.
            state.digest();
        }
    };
    for at in 0..written.pages.len() {
        for byte in 0..written.pages[at].1.1.len() {
            let (kind, (page, mut bytes)) = written.pages[at].clone();
            bytes[byte] ^= 1 << (byte % 8);
            let mut pages = written.pages.clone();
            pages[at] = (kind, (page, bytes));
            try_one(&Written { pages, sections: written.sections.clone() });
        }
    }
    for byte in 0..written.sections.len() {
        let mut sections = written.sections.clone();
        sections[byte] ^= 1 << (byte % 8);
        try_one(&Written { pages: written.pages.clone(), sections });
    }
    assert!(refused > loaded, "{refused} refused, {loaded} loaded");
}

#[test]
fn random_damage_to_a_state_of_every_kind_gives_an_error_or_a_state_that_can_be_read() {
    let mut rng = Rng::new(7);
    for seed in 1..=4 {
        let mut state = some_state(seed);
        let written = write(&mut state);
        assert!(load(&written).is_ok());
        for _ in 0..250 {
            let mut pages = written.pages.clone();
            let mut sections = written.sections.clone();
            let at = rng.next(pages.len() as u64 + 1) as usize;
            let bytes = pages.get_mut(at).map_or(&mut sections, |(_, (_, bytes))| bytes);
            let byte = rng.next(bytes.len() as u64) as usize;
            let Some(byte) = bytes.get_mut(byte) else { continue };
            *byte = rng.next(256) as u8;
            if let Ok(state) = load(&Written { pages, sections }) {
                state.digest();
            }
        }
    }
}
