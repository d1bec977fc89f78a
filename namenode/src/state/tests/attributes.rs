//! Extended attributes and storage policies, and all attributes through replays, reloads and damage.

use proptest::prelude::*;
use proto::{Code, Result};

use super::acls::{entries, modify};
use super::{World, create_op, delete, path, rename, root};
use crate::op::attribute::{
    AttributeOp, UNREADABLE_BY_SUPERUSER, XATTR_BYTES_MAX, XATTRS_MAX, XAttr, XAttrMode, XAttrSpace,
};
use crate::op::{Caller, Op, RenameMode, Reply, Request};
use crate::state::State;
use crate::state::image::PageKind;
use crate::state::slab::Side;

use XAttrSpace::{Raw, Security, System, Trusted, User};

fn xattr(space: XAttrSpace, name: &str, value: &[u8]) -> XAttr {
    XAttr { space, name: name.into(), value: value.to_vec() }
}

fn put(at: &str, xattr: XAttr) -> Op {
    let mode = XAttrMode::CreateOrReplace;
    Op::Attribute(AttributeOp::SetXAttr { path: path(at), raw: false, xattr, mode })
}

fn take(at: &str, space: XAttrSpace, name: &str) -> Op {
    Op::Attribute(AttributeOp::RemoveXAttr { path: path(at), raw: false, space, name: name.into() })
}

fn policy(at: &str, policy: u8) -> Op {
    Op::Attribute(AttributeOp::SetStoragePolicy { path: path(at), policy })
}

fn names(state: &State, caller: &Caller, at: &str, raw: bool) -> Result<Vec<String>> {
    let all = state.xattrs(caller, &path(at), raw, &[])?;
    let listed = state.xattr_names(caller, &path(at), raw)?;
    assert_eq!(all.iter().map(|x| (x.space, x.name.clone())).collect::<Vec<_>>(), listed);
    Ok(all.iter().map(XAttr::full_name).collect())
}

#[test]
fn the_space_decides_who_may_set_and_see_an_attribute() {
    let mut world = World::new();
    let (ann, eve) = (Caller::user("ann"), Caller::user("eve"));
    world.mkdirs("/d", 0o777);
    world.run(&ann, create_op("/d/f", "h", false)).unwrap();
    for (caller, space, raw, works) in [
        (&ann, User, false, true),
        (&eve, User, false, false),
        (&root(), User, false, true),
        (&ann, Trusted, false, false),
        (&root(), Trusted, false, true),
        (&root(), Security, false, false),
        (&root(), System, false, false),
        (&root(), Raw, false, false),
        (&root(), Raw, true, true),
        (&ann, Raw, true, false),
    ] {
        let (xattr, mode) = (xattr(space, "a", b"v"), XAttrMode::CreateOrReplace);
        let op = AttributeOp::SetXAttr { path: path("/d/f"), raw, xattr, mode };
        let set = world.run(caller, Op::Attribute(op));
        assert_eq!(set.is_ok(), works, "{} {space:?} {raw} {set:?}", caller.user);
        assert!(set.is_ok() || set.unwrap_err().code == Code::PermissionDenied);
    }
    assert_eq!(names(&world.state, &ann, "/d/f", false).unwrap(), ["user.a"]);
    assert_eq!(names(&world.state, &eve, "/d/f", false).unwrap(), ["user.a"], "may read it");
    let all = names(&world.state, &root(), "/d/f", true).unwrap();
    assert_eq!(all, ["raw.a", "trusted.a", "user.a"], "the newest first");
    assert!(names(&world.state, &ann, "/d/f", true).is_err());
    let denied = world.run(&eve, take("/d/f", User, "a")).unwrap_err();
    assert_eq!(denied.code, Code::PermissionDenied);
    let hidden = world.state.xattrs(&ann, &path("/d/f"), false, &[(Trusted, "a".into())]);
    assert_eq!(hidden.unwrap_err().message, "User doesn't have permission for xattr: trusted.a");
    world.ok(Op::SetPermission { path: path("/d"), mode: 0o1777 });
    assert!(world.run(&ann, put("/d", xattr(User, "a", b""))).is_err(), "sticky: the owner's");
}

#[test]
fn attributes_are_created_replaced_bounded_and_removed_in_hdfs_words() {
    let mut world = World::new();
    world.ok(create_op("/f", "h", false));
    let set = |name: &str, mode| {
        let xattr = xattr(User, name, b"v");
        Op::Attribute(AttributeOp::SetXAttr { path: path("/f"), raw: false, xattr, mode })
    };
    let refused = |world: &mut World, op| world.run(&root(), op).unwrap_err().message;
    assert_eq!(
        refused(&mut world, set("a", XAttrMode::Replace)),
        "XAttr: a does not exist. The CREATE flag must be specified."
    );
    world.ok(set("a", XAttrMode::Create));
    assert_eq!(
        refused(&mut world, set("a", XAttrMode::Create)),
        "XAttr: a already exists. The REPLACE flag must be specified."
    );
    world.ok(set("a", XAttrMode::Replace));
    let large = vec![0; XATTR_BYTES_MAX - 1];
    world.ok(put("/f", xattr(User, "b", &large)));
    assert_eq!(
        refused(&mut world, put("/f", xattr(User, "cc", &large))),
        "The XAttr is too big. The maximum combined size of the name and value is 16384, but the \
         total size is 16385"
    );
    for n in 2..XATTRS_MAX {
        world.ok(set(&format!("n{n}"), XAttrMode::Create));
    }
    assert_eq!(
        refused(&mut world, set("more", XAttrMode::Create)),
        "Cannot add additional XAttr to inode, would exceed limit of 32"
    );
    world.ok(set("a", XAttrMode::CreateOrReplace));
    let missing = world.state.xattrs(&root(), &path("/f"), false, &[(User, "zz".into())]);
    let missing = missing.unwrap_err();
    assert_eq!(missing.code, Code::NoSuchAttribute);
    assert_eq!(missing.message, "At least one of the attributes provided was not found.");
    world.ok(take("/f", User, "b"));
    assert_eq!(
        refused(&mut world, take("/f", User, "b")),
        "No matching attributes found for remove operation"
    );
    assert_eq!(world.code(put("/none", xattr(User, "a", b""))), Code::NotFound);
}

#[test]
fn a_file_that_superusers_may_not_read_stays_so() {
    let mut world = World::new();
    world.mkdirs("/d", 0o777);
    let ann = Caller::user("ann");
    world.run(&ann, create_op("/d/f", "h", false)).unwrap();
    let mark = |value: &[u8]| xattr(Security, UNREADABLE_BY_SUPERUSER, value);
    assert!(world.run(&ann, put("/d/f", mark(b"v"))).is_err(), "it has no value");
    assert!(world.run(&root(), put("/d", mark(b""))).is_err(), "files only");
    world.run(&ann, put("/d/f", mark(b""))).unwrap();
    let read = |world: &World, caller: &Caller| {
        world.state.block_locations(caller, &path("/d/f"), 0, 1).map(|_| ())
    };
    assert_eq!(read(&world, &ann), Ok(()));
    assert_eq!(read(&world, &root()).unwrap_err().code, Code::PermissionDenied);
    assert!(world.run(&ann, take("/d/f", Security, UNREADABLE_BY_SUPERUSER)).is_err());
}

#[test]
fn a_storage_policy_is_inherited_until_one_is_set() {
    let mut world = World::new();
    world.ok(create_op("/d/s/f", "h", false));
    let of = |world: &World, at: &str| {
        let policy = world.state.storage_policy(&root(), &path(at)).unwrap();
        (policy.name, world.status(at).unwrap().storage_policy)
    };
    assert_eq!(of(&world, "/d/s/f"), ("HOT", 0));
    world.ok(policy("/d", 2));
    assert_eq!(of(&world, "/d/s/f"), ("COLD", 2));
    world.ok(policy("/d/s/f", 5));
    assert_eq!(of(&world, "/d/s/f"), ("WARM", 5));
    world.ok(policy("/d/s/f", 0));
    world.ok(policy("/d", 0));
    assert_eq!(of(&world, "/d/s/f"), ("HOT", 0));
    assert_eq!(world.state.attributes.records.len(), 0);
    assert_eq!(world.code(policy("/d", 3)), Code::InvalidArgument);
    let late = world.run(&root(), policy("/d/s/f", 15)).unwrap_err();
    assert_eq!(
        late.message,
        "Policy BlockStoragePolicy{LAZY_PERSIST:15, storageTypes=[RAM_DISK, DISK], \
         creationFallbacks=[DISK], replicationFallbacks=[DISK]} cannot be set after file creation."
    );
    world.ok(policy("/d", 15));
    world.ok(create_op("/d/lazy", "h", false));
    world.ok(rename("/d/lazy", "/lazy", RenameMode::NoReplace));
    assert_eq!(of(&world, "/lazy"), ("LAZY_PERSIST", 15), "it is the file's own");
    let change = world.run(&root(), policy("/lazy", 7)).unwrap_err();
    assert_eq!(
        change.message,
        "Existing policy LAZY_PERSIST cannot be changed after file creation."
    );
}

#[test]
fn a_repeated_set_is_answered_once() {
    let mut world = World::new();
    world.ok(create_op("/f", "h", false));
    let (xattr, mode) = (xattr(User, "a", b"v"), XAttrMode::Create);
    let op = Op::Attribute(AttributeOp::SetXAttr { path: path("/f"), raw: false, xattr, mode });
    let call_id = Some(crate::op::CallId { client: [1; 16], call: 1 });
    let request = Request { caller: root(), call_id, now_ns: 9, op };
    for _ in 0..2 {
        assert_eq!(world.state.apply(&request, &mut Vec::new()), Ok(Reply::Done));
    }
}

#[derive(Clone, Debug)]
struct Step(u8, String, String, u8);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || prop::sample::select(vec!["/a", "/a/b", "/a/b/c", "/d", "/d/b"]);
    let step = (0u8..12, at(), at(), any::<u8>());
    let step = step.prop_map(|(kind, at, to, n)| Step(kind, at.into(), to.into(), n));
    prop::collection::vec(step, 1..60)
}

fn op_of(Step(kind, at, to, n): &Step) -> Op {
    let user = format!("u{}", n % 5);
    let mode = u32::from(*n) * 7 % 0o1000;
    match kind {
        0 => Op::Mkdirs { path: path(at), mode, unmasked: Some(0o777), create_parents: true },
        1 | 2 => create_op(at, "h", true),
        3 => delete(at, true),
        4 => rename(at, to, RenameMode::Replace),
        5 => Op::Link { source: path(at), target: path(to) },
        6 => put(at, xattr(User, &user, &[*n; 3])),
        7 => take(at, User, &user),
        8 => modify(at, &[&format!("user:{user}:r-x"), "group:web:rw-"]),
        9 => modify(at, &[&format!("default:user:{user}:r-x")]),
        10 => Op::Attribute(AttributeOp::RemoveAclEntries {
            path: path(at),
            entries: entries(&[&format!("user:{user}:"), &format!("default:user:{user}:")]),
        }),
        _ => policy(at, [0, 2, 7, 15][usize::from(n % 4)]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn attributes_are_the_same_after_a_replay_and_a_reload_in_between(
        first in steps(),
        second in steps(),
    ) {
        let mut world = World::new();
        let mut asked = Vec::new();
        let mut run = |state: &mut State, steps: &[Step]| {
            for step in steps {
                let now_ns = asked.len() as i64;
                let request = Request { caller: root(), call_id: None, now_ns, op: op_of(step) };
                let _may_fail = state.apply(&request, &mut Vec::new());
                asked.push(request);
            }
        };
        run(&mut world.state, &first);
        let digest = world.state.digest();
        let mut reloaded = world.state.reloaded();
        prop_assert_eq!(reloaded.digest(), digest);
        run(&mut reloaded, &second);
        let mut replayed = State::new("root");
        for request in &asked {
            let _may_fail = replayed.apply(request, &mut Vec::new());
        }
        prop_assert_eq!(replayed.digest(), reloaded.digest());
        prop_assert_eq!(replayed.attributes.acls.len(), reloaded.attributes.acls.len());
        let used: std::collections::BTreeSet<_> =
            replayed.attributes.records.iter().filter_map(|(_, a)| a.acl.clone()).collect();
        prop_assert_eq!(used.len(), replayed.attributes.acls.len(), "no list is left behind");
    }
}

type Pages = Vec<(PageKind, u32, Vec<u8>)>;

/// A state with one of everything, its sections, its other pages, and its page of attributes.
fn with_attributes() -> (State, Vec<u8>, Pages, Vec<u8>) {
    let mut world = World::new();
    world.mkdirs("/d", 0o755);
    world.ok(create_op("/f", "h", false));
    world.ok(modify("/d", &["user:ann:rwx", "default:user:bob:r-x"]));
    world.ok(put("/f", xattr(User, "a", b"value")));
    world.ok(put("/f", xattr(Trusted, "b", b"")));
    world.ok(policy("/f", 5));
    let mut state = world.state;
    let sections = state.freeze(Side::A);
    let mut pages = Vec::new();
    let mut attributes = Vec::new();
    for kind in PageKind::ALL {
        for (page, bytes) in state.encode_frozen(kind, 0, usize::MAX) {
            if kind == PageKind::Attributes {
                attributes = bytes;
            } else {
                pages.push((kind, page, bytes));
            }
        }
    }
    state.unfreeze();
    (state, sections, pages, attributes)
}

fn load(
    sections: &[u8],
    pages: &[(PageKind, u32, Vec<u8>)],
    attributes: &[u8],
) -> Result<State, crate::coding::Malformed> {
    let mut state = State::blank();
    for (kind, page, bytes) in pages {
        state.load_page(*kind, *page, bytes)?;
    }
    state.load_page(PageKind::Attributes, 0, attributes)?;
    state.load_sections(sections)?;
    state.finish_loading()?;
    Ok(state)
}

#[test]
fn damaged_attributes_are_refused_or_are_other_attributes() {
    let (state, sections, pages, attributes) = with_attributes();
    let loaded = load(&sections, &pages, &attributes).unwrap();
    assert_eq!(loaded.digest(), state.digest());
    for length in 0..attributes.len() {
        assert!(load(&sections, &pages, &attributes[..length]).is_err(), "cut at {length}");
    }
    for bit in 0..attributes.len() * 8 {
        let mut bad = attributes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = load(&sections, &pages, &bad) {
            assert_ne!(other.digest(), state.digest(), "every bit counts");
        }
    }
}

#[test]
fn golden_bytes_of_a_page_of_attributes() {
    let (_, _, _, attributes) = with_attributes();
    let mut expected = vec![2, 0, 0, 0]; // the folder's slot, 1, plus one
    expected.push(0); // no storage policy
    expected.push(1); // there is an ACL
    expected.push(2); // access entries
    expected.extend([7 << 4, 2, 0, 0, 0]); // user ann (name 2): rwx
    expected.extend([5 << 4 | 1, 255, 255, 255, 255]); // the owning group: r-x
    expected.push(5); // default entries
    expected.extend([7 << 4, 255, 255, 255, 255]); // the owner
    expected.extend([5 << 4, 3, 0, 0, 0]); // user bob (name 3): r-x
    expected.extend([5 << 4 | 1, 255, 255, 255, 255]); // the owning group
    expected.extend([5 << 4 | 2, 255, 255, 255, 255]); // the mask
    expected.extend([5 << 4 | 3, 255, 255, 255, 255]); // others
    expected.push(0); // no extended attributes
    expected.extend([3, 0, 0, 0]); // the file's slot, 2, plus one
    expected.push(5); // WARM
    expected.push(0); // no ACL
    expected.push(2); // extended attributes
    expected.extend([1, 1, 0, 0, 0, b'b', 0, 0, 0, 0]); // trusted.b, no value
    expected.extend([0, 1, 0, 0, 0, b'a', 5, 0, 0, 0]); // user.a ...
    expected.extend(b"value"); // ... and its value
    assert_eq!(attributes, expected);
}
