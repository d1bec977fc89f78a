//! Access control lists against a plain statement of POSIX.1e: a map of entries, and the algorithm of its section
//! 23.1.5 (draft 17) over it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::{Code, Result};

use super::{World, create_op, path, rename, root};
use crate::op::attribute::{AclEntry, AclKind, AclScope, AttributeOp};
use crate::op::{Caller, Op, RenameMode, Reply};
use crate::state::State;

use AclKind::{Group, Mask, Other, User};
use AclScope::{Access, Default};

pub(super) fn entry(text: &str) -> AclEntry {
    let (scope, rest) = match text.strip_prefix("default:") {
        Some(rest) => (Default, rest),
        None => (Access, text),
    };
    let mut parts = rest.split(':');
    let kind = match parts.next().unwrap() {
        "user" => User,
        "group" => Group,
        "mask" => Mask,
        "other" => Other,
        kind => panic!("{kind}"),
    };
    let name = parts.next().unwrap().to_owned();
    let permission = parts.next().map_or(0, |letters| {
        let bits = letters.chars().zip([4, 2, 1]);
        bits.map(|(letter, bit)| if letter == '-' { 0 } else { bit }).sum()
    });
    AclEntry { scope, kind, name, permission }
}

pub(super) fn entries(texts: &[&str]) -> Vec<AclEntry> {
    texts.iter().map(|text| entry(text)).collect()
}

pub(super) fn modify(at: &str, texts: &[&str]) -> Op {
    Op::Attribute(AttributeOp::ModifyAclEntries { path: path(at), entries: entries(texts) })
}

fn remove(at: &str, texts: &[&str]) -> Op {
    Op::Attribute(AttributeOp::RemoveAclEntries { path: path(at), entries: entries(texts) })
}

fn set(at: &str, texts: &[&str]) -> Op {
    Op::Attribute(AttributeOp::SetAcl { path: path(at), entries: entries(texts) })
}

fn chmod(at: &str, mode: u32) -> Op {
    Op::SetPermission { path: path(at), mode }
}

/// The mode and the entries beyond it, as `getfacl` would show them.
fn shown(state: &State, at: &str) -> (u32, Vec<String>) {
    let status = state.acl_status(&root(), &path(at)).unwrap();
    (status.mode, status.entries.iter().map(crate::state::attributes::acl::shown).collect())
}

fn member(user: &str, groups: &[&str]) -> Caller {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Caller { user: user.into(), groups, superuser: false }
}

#[test]
fn a_named_entry_is_limited_by_the_mask_which_the_group_bits_show() {
    let mut world = World::new();
    world.mkdirs("/d", 0o700);
    world.ok(modify("/d", &["user:ann:rwx", "group:web:r-x"]));
    assert_eq!(
        shown(&world.state, "/d"),
        (0o770, vec!["user:ann:rwx".into(), "group::---".into(), "group:web:r-x".into()])
    );
    assert!(world.status("/d").unwrap().has_acl);
    let makes = |world: &mut World, caller: &Caller| {
        let made = world.run(caller, create_op(&format!("/d/{}", caller.user), "h", true));
        made.map(|_| ()).map_err(|error| error.message)
    };
    assert_eq!(makes(&mut world, &member("ann", &[])), Ok(()));
    assert_eq!(
        makes(&mut world, &member("bob", &["web"])).unwrap_err(),
        "Permission denied: user=bob, access=WRITE, inode=\"/d\":root:supergroup:drwxrwx---"
    );
    world.ok(chmod("/d", 0o750));
    assert!(makes(&mut world, &member("ann", &[])).is_err(), "chmod lowers the mask");
    assert_eq!(shown(&world.state, "/d").1[0], "user:ann:rwx", "and leaves the entry");
    world.ok(Op::Attribute(AttributeOp::RemoveAcl { path: path("/d") }));
    assert_eq!(shown(&world.state, "/d"), (0o700, vec![]), "the group's own entry is back");
    assert!(!world.status("/d").unwrap().has_acl);
}

#[test]
fn lists_that_are_none_are_refused_in_hdfs_words() {
    let mut world = World::new();
    world.ok(create_op("/f", "h", false));
    world.mkdirs("/d", 0o755);
    let many: Vec<_> = (0..33).map(|n| format!("user:u{n}:r--")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    world.ok(modify("/d", &["user:ann:rwx"]));
    let (full, over) = (&many[..28], &many[..29]);
    world.ok(modify("/f", full));
    for (op, message) in [
        (modify("/f", &["default:user:ann:r--"]), "only directories may have a default ACL."),
        (remove("/d", &["mask:"]), "mask is required and cannot be deleted."),
        (remove("/d", &["user:"]), "the user, group and other entries are required."),
        (set("/d", &["user:ann:r--"]), "the user, group and other entries are required."),
        (modify("/d", &["mask:x:r--"]), "this entry type must not have a name: mask:x:r--."),
        (
            modify("/d", &["user:x:r--", "user:x:rw-"]),
            "multiple entries with same scope, type and name.",
        ),
        (modify("/d", over), "ACL has 34 access entries, which exceeds maximum of 32."),
        (modify("/d", &many), "ACL has 33 access entries, which exceeds maximum of 32."),
    ] {
        let at = if format!("{op:?}").contains("\"/f\"") { "/f" } else { "/d" };
        let error = world.run(&root(), op).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert_eq!(error.message, format!("Invalid ACL: {message} Path: {at}"));
    }
    assert_eq!(
        world.run(&member("ann", &[]), modify("/d", &["user:ann:rwx"])).unwrap_err().message,
        "Permission denied. user=ann is not the owner of inode=/d"
    );
}

#[test]
fn new_entries_inherit_defaults_limited_by_the_mode_before_the_umask() {
    let mut world = World::new();
    world.mkdirs("/d", 0o755);
    world.ok(modify("/d", &["default:user:ann:rwx", "default:group::r-x"]));
    let filled = ["default:user::rwx", "default:user:ann:rwx", "default:group::r-x"];
    let filled = filled.into_iter().chain(["default:mask::rwx", "default:other::r-x"]);
    let filled: Vec<_> = filled.map(String::from).collect();
    assert_eq!(shown(&world.state, "/d"), (0o755, filled.clone()), "the rest is filled in");
    let mkdir = |at: &str, mode, unmasked| Op::Mkdirs {
        path: path(at),
        mode,
        unmasked,
        create_parents: true,
    };
    world.ok(mkdir("/d/s/t", 0o755, Some(0o777)));
    let mut below = vec!["user:ann:rwx".to_owned(), "group::r-x".into()];
    below.extend(filled);
    assert_eq!(shown(&world.state, "/d/s"), (0o775, below.clone()));
    assert_eq!(shown(&world.state, "/d/s/t"), (0o775, below.clone()));
    world.ok(mkdir("/d/old", 0o755, None));
    assert_eq!(shown(&world.state, "/d/old"), (0o755, below), "a client without the field");
    world.ok(create_op("/d/f", "h", false));
    assert_eq!(
        shown(&world.state, "/d/f"),
        (0o644, vec!["user:ann:rwx".into(), "group::r-x".into()])
    );
    world.ok(rename("/d/f", "/f", RenameMode::NoReplace));
    assert!(world.status("/f").unwrap().has_acl, "a rename keeps it");
    world.mkdirs("/plain", 0o755);
    world.ok(modify("/plain", &["default:user::rwx", "default:group::r-x", "default:other::---"]));
    world.ok(create_op("/plain/f", "h", false));
    assert_eq!(shown(&world.state, "/plain/f"), (0o640, vec![]), "three defaults leave a mode");
    assert_eq!(world.state.attributes.acls.len(), 4, "equal lists are kept once");
    world.ok(super::delete("/d", true));
    world.ok(super::delete("/plain", true));
    world.ok(super::delete("/f", true));
    assert_eq!(world.state.attributes.acls.len() + world.state.attributes.records.len(), 0);
}

/// All entries of a folder, its mode's included.
#[derive(Clone, Debug, PartialEq)]
struct Model(BTreeMap<(AclScope, AclKind, String), u8>);

impl Model {
    fn get(&self, scope: AclScope, kind: AclKind, name: &str) -> Option<u8> {
        self.0.get(&(scope, kind, name.to_owned())).copied()
    }

    fn put(&mut self, entry: &AclEntry) {
        self.0.insert((entry.scope, entry.kind, entry.name.clone()), entry.permission);
    }

    fn take(&mut self, entry: &AclEntry) -> bool {
        self.0.remove(&(entry.scope, entry.kind, entry.name.clone())).is_some()
    }

    fn of_scope(&self, scope: AclScope) -> impl Iterator<Item = (&AclKind, &String, &u8)> {
        self.0.iter().filter(move |(key, _)| key.0 == scope).map(|((_, k, n), p)| (k, n, p))
    }

    /// After a change: defaults are filled in, masks recomputed where the change did not name them.
    fn settle(&mut self, changed: &[AclScope], masks_named: &[AclScope]) -> bool {
        let others = |(kind, ..): &(&AclKind, &String, &u8)| **kind != Mask;
        if self.of_scope(Default).any(|e| others(&e)) {
            for kind in [User, Group, Other] {
                if self.get(Default, kind, "").is_none()
                    && let Some(permission) = self.get(Access, kind, "")
                {
                    self.0.insert((Default, kind, String::new()), permission);
                }
            }
        } else {
            self.0.remove(&(Default, Mask, String::new()));
        }
        for scope in [Access, Default] {
            let named = self.of_scope(scope).any(|(_, name, _)| !name.is_empty());
            let has = self.get(scope, Mask, "").is_some();
            if named && !has && masks_named.contains(&scope) {
                return false;
            }
            let touched = changed.contains(&scope) && !masks_named.contains(&scope);
            if (named || has) && (touched || !has) {
                let limited = self.of_scope(scope).filter(|(kind, name, _)| {
                    **kind == Group || **kind == User && !name.is_empty()
                });
                let union = limited.fold(0, |union, (_, _, bits)| union | bits);
                self.0.insert((scope, Mask, String::new()), union);
            }
        }
        [User, Group, Other].into_iter().all(|kind| self.get(Access, kind, "").is_some())
    }

    /// What the change makes of it; `None` if it is refused.
    fn after(&self, change: &Change) -> Option<Self> {
        let mut new = self.clone();
        let scopes = |spec: &[AclEntry]| spec.iter().map(|e| e.scope).collect::<Vec<_>>();
        let masks = |spec: &[AclEntry]| {
            spec.iter().filter(|e| e.kind == Mask).map(|e| e.scope).collect::<Vec<_>>()
        };
        let sound = match change {
            Change::Modify(spec) => {
                spec.iter().for_each(|entry| new.put(entry));
                new.settle(&scopes(spec), &masks(spec))
            }
            Change::Remove(spec) => {
                let there: Vec<_> = spec.iter().filter(|e| new.take(e)).cloned().collect();
                new.settle(&scopes(&there), &masks(&there))
            }
            Change::Set(spec) if spec.is_empty() => return self.after(&Change::RemoveAll),
            Change::Set(spec) => {
                let replaced = scopes(spec);
                new.0.retain(|key, _| !replaced.contains(&key.0));
                spec.iter().for_each(|entry| new.put(entry));
                new.settle(&replaced, &masks(spec))
            }
            Change::RemoveAll => {
                new.0.retain(|(scope, kind, name), _| {
                    *scope == Access && *kind != Mask && name.is_empty()
                });
                true
            }
            Change::RemoveDefault => {
                new.0.retain(|key, _| key.0 == Access);
                true
            }
            Change::Mode(mode) => {
                let group = if new.get(Access, Mask, "").is_some() { Mask } else { Group };
                for (kind, shift) in [(User, 6), (group, 3), (Other, 0)] {
                    let bits = (mode >> shift & 7) as u8;
                    new.0.insert((Access, kind, String::new()), bits);
                }
                true
            }
        };
        sound.then_some(new)
    }

    /// The access check of POSIX.1e, for a caller who is no superuser.
    fn permits(&self, owner: &str, group: &str, caller: &Caller, wanted: u8) -> bool {
        let grants = |bits: u8| bits & wanted == wanted;
        let mask = self.get(Access, Mask, "").unwrap_or(7);
        if caller.user == owner {
            return grants(self.get(Access, User, "").unwrap());
        }
        if let Some(bits) = self.get(Access, User, &caller.user) {
            return grants(bits & mask);
        }
        let group_entries = self.of_scope(Access).filter(|(kind, name, _)| {
            let name = if name.is_empty() { group } else { name.as_str() };
            **kind == Group && caller.groups.iter().any(|mine| mine == name)
        });
        let mut group_entries = group_entries.peekable();
        if group_entries.peek().is_some() {
            return group_entries.any(|(_, _, bits)| grants(bits & mask));
        }
        grants(self.get(Access, Other, "").unwrap())
    }
}

#[derive(Clone, Debug)]
enum Change {
    Modify(Vec<AclEntry>),
    Remove(Vec<AclEntry>),
    Set(Vec<AclEntry>),
    RemoveAll,
    RemoveDefault,
    Mode(u32),
}

impl Change {
    fn op(&self) -> Op {
        let path = path("/d");
        Op::Attribute(match self.clone() {
            Self::Modify(entries) => AttributeOp::ModifyAclEntries { path, entries },
            Self::Remove(entries) => AttributeOp::RemoveAclEntries { path, entries },
            Self::Set(entries) => AttributeOp::SetAcl { path, entries },
            Self::RemoveAll => AttributeOp::RemoveAcl { path },
            Self::RemoveDefault => AttributeOp::RemoveDefaultAcl { path },
            Self::Mode(mode) => return Op::SetPermission { path, mode },
        })
    }
}

fn spec() -> impl Strategy<Value = Vec<AclEntry>> {
    let scope = prop_oneof![2 => Just(Access), 1 => Just(Default)];
    let whom = prop::sample::select(vec![
        (User, ""),
        (User, "ann"),
        (User, "bob"),
        (Group, ""),
        (Group, "staff"),
        (Group, "web"),
        (Mask, ""),
        (Other, ""),
    ]);
    let entries = prop::collection::btree_map((scope, whom), 0u8..8, 0..6);
    entries.prop_map(|entries| {
        let entry = |((scope, (kind, name)), permission): ((AclScope, (AclKind, &str)), u8)| {
            AclEntry { scope, kind, name: name.to_owned(), permission }
        };
        entries.into_iter().map(entry).collect()
    })
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => spec().prop_map(Change::Modify),
        3 => spec().prop_map(Change::Remove),
        3 => spec().prop_map(Change::Set),
        2 => spec().prop_map(|mut entries| {
            let whole = entries_of_mode();
            entries.retain(|e| !whole.iter().any(|w| (w.scope, w.kind, &w.name) == (e.scope, e.kind, &e.name)));
            entries.extend(whole);
            Change::Set(entries)
        }),
        1 => Just(Change::RemoveAll),
        1 => Just(Change::RemoveDefault),
        3 => (0u32..0o1000).prop_map(Change::Mode),
    ]
}

fn entries_of_mode() -> Vec<AclEntry> {
    entries(&["user::rwx", "group::r-x", "other::r--"])
}

/// The whole list as the state tells it.
fn told(state: &State) -> Model {
    let status = state.acl_status(&root(), &path("/d")).unwrap();
    let has_access = status.entries.iter().any(|e| e.scope == Access);
    let group = if has_access { Mask } else { Group };
    let mut model = Model(BTreeMap::new());
    for (kind, shift) in [(User, 6), (group, 3), (Other, 0)] {
        let bits = (status.mode >> shift & 7) as u8;
        model.0.insert((Access, kind, String::new()), bits);
    }
    status.entries.iter().for_each(|entry| model.put(entry));
    model
}

fn check(world: &World, model: &Model) -> Result<()> {
    let callers = [
        member("olga", &["staff"]),
        member("ann", &["staff"]),
        member("bob", &[]),
        member("carl", &["own", "web"]),
        member("dora", &["staff", "web"]),
        member("eve", &["none"]),
    ];
    let (slot, _) = world.state.existing(&root(), &path("/d"))?;
    for caller in &callers {
        for wanted in 0..8 {
            assert_eq!(
                world.state.may(caller, slot, u16::from(wanted)),
                model.permits("olga", "own", caller, wanted),
                "{caller:?} wants {wanted} of {model:?}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn lists_and_permissions_agree_with_posix_1e_after_any_changes(
        changes in prop::collection::vec(changes(), 1..12),
    ) {
        let mut world = World::new();
        world.mkdirs("/d", 0o750);
        world.ok(Op::SetOwner { path: path("/d"), owner: "olga".into(), group: "own".into() });
        let mut model = told(&world.state);
        for change in &changes {
            let reply = world.run(&root(), change.op());
            match model.after(change) {
                Some(after) => {
                    prop_assert_eq!(reply, Ok(Reply::Done), "{:?} of {:?}", change, model);
                    model = after;
                }
                None => prop_assert!(reply.is_err(), "{:?} of {:?}", change, model),
            }
            prop_assert_eq!(&told(&world.state), &model);
            check(&world, &model).unwrap();
        }
        let reloaded = World { state: world.state.reloaded(), ..World::new() };
        prop_assert_eq!(&told(&reloaded.state), &model);
    }
}
