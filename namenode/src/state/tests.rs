//! The rules of the namespace, one claim per test.

mod acls;
mod attributes;
mod concat;
mod erasure;
mod files;
mod names;
mod quotas;
mod stores;

use proto::granary::FileStatus;
use proto::{Code, FsPath, Result};

use super::State;
use crate::op::{Caller, Effect, Op, RenameMode, Reply, Request};

/// A state with a clock.
pub(super) struct World {
    pub state: State,
    pub now: i64,
    pub effects: Vec<Effect>,
}

pub(super) fn path(text: &str) -> FsPath {
    FsPath::parse(text).unwrap()
}

pub(super) fn root() -> Caller {
    Caller::superuser("root")
}

pub(super) fn create_op(text: &str, holder: &str, overwrite: bool) -> Op {
    Op::Create {
        path: path(text),
        holder: holder.into(),
        mode: 0o644,
        unmasked: None,
        overwrite,
        create_parents: true,
        replication: 3,
        block_bytes: 4096,
        erasure: None,
    }
}

impl World {
    pub fn new() -> Self {
        Self { state: State::new("root"), now: 0, effects: Vec::new() }
    }

    /// Applies, and checks that preview said the same and that errors change nothing.
    pub fn run(&mut self, caller: &Caller, op: Op) -> Result<Reply> {
        self.now += 1;
        let request = Request { caller: caller.clone(), call_id: None, now_ns: self.now, op };
        let previewed = self.state.preview(&request);
        let txid = self.state.txid();
        let before = self.state.digest_without_txid();
        let mut effects = Vec::new();
        let reply = self.state.apply(&request, &mut effects);
        assert_eq!(self.state.txid(), txid.next());
        match (&previewed, &reply) {
            (Err(early), Err(late)) => assert_eq!(early, late),
            (Ok(Some(early)), Ok(late)) => assert_eq!(early, late),
            (Ok(None), Ok(_)) => {}
            _ => panic!("preview says {previewed:?}, apply {reply:?}"),
        }
        if !matches!(previewed, Ok(None)) {
            assert!(effects.is_empty() && before == self.state.digest_without_txid());
        }
        self.effects.extend(effects);
        reply
    }

    pub fn ok(&mut self, op: Op) -> Reply {
        self.run(&root(), op).unwrap()
    }

    pub fn code(&mut self, op: Op) -> Code {
        self.run(&root(), op).unwrap_err().code
    }

    pub fn status(&self, text: &str) -> Option<FileStatus> {
        self.state.status(&root(), &path(text)).unwrap()
    }

    pub fn mkdirs(&mut self, text: &str, mode: u32) {
        self.ok(Op::Mkdirs { path: path(text), mode, unmasked: None, create_parents: true });
    }
}

impl State {
    /// The digest as if no transaction had been applied.
    fn digest_without_txid(&mut self) -> u64 {
        let txid = std::mem::take(&mut self.counters.txid);
        let digest = self.digest();
        self.counters.txid = txid;
        digest
    }
}

fn delete(text: &str, recursive: bool) -> Op {
    Op::Delete { path: path(text), recursive }
}

fn rename(source: &str, target: &str, mode: RenameMode) -> Op {
    Op::Rename { source: path(source), target: path(target), mode }
}

#[test]
fn permissions_follow_the_table() {
    let mut world = World::new();
    let ann = Caller { user: "ann".into(), groups: vec!["staff".into()], superuser: false };
    let bob = Caller { user: "bob".into(), groups: vec!["staff".into()], superuser: false };
    let eve = Caller::user("eve");
    world.mkdirs("/d", 0o755);
    world.ok(Op::SetOwner { path: path("/d"), owner: "ann".into(), group: "staff".into() });
    // mode of /d, then who may look into it, list it, and make a file in it: ann, bob, eve.
    for (mode, look, list, make) in [
        (0o777, [true; 3], [true; 3], [true; 3]),
        (0o750, [true, true, false], [true, true, false], [true, false, false]),
        (0o570, [true, true, false], [true, true, false], [false, true, false]),
        (0o077, [false, true, true], [false, true, true], [false, true, true]),
        (0o711, [true, true, true], [true, false, false], [true, false, false]),
        (0o666, [false; 3], [false; 3], [false; 3]),
    ] {
        world.ok(Op::SetPermission { path: path("/d"), mode });
        for (at, caller) in [&ann, &bob, &eve].into_iter().enumerate() {
            let looked = world.state.status(caller, &path("/d/x"));
            assert_eq!(looked.is_ok(), look[at], "{mode:o} {} looks", caller.user);
            let listed = world.state.list(caller, &path("/d"), "", 0);
            assert_eq!(listed.is_ok(), list[at], "{mode:o} {} lists", caller.user);
            let made = world.run(caller, create_op("/d/x", "h", false));
            assert_eq!(made.is_ok(), make[at], "{mode:o} {} makes", caller.user);
            if let Err(error) = made {
                assert_eq!(error.code, Code::PermissionDenied);
                assert!(error.message.contains(&caller.user), "{error:?}");
            }
            world.ok(delete("/d/x", false));
        }
    }
}

#[test]
fn attributes_are_changed_by_those_who_may() {
    let mut world = World::new();
    let ann = Caller { user: "ann".into(), groups: vec!["staff".into()], superuser: false };
    let bob = Caller::user("bob");
    world.mkdirs("/d", 0o777);
    world.run(&ann, create_op("/d/f", "h", false)).unwrap();
    assert_eq!(world.status("/d/f").unwrap().owner, "ann");
    assert_eq!(world.status("/d/f").unwrap().group, "supergroup", "the folder's group");
    let chmod = || Op::SetPermission { path: path("/d/f"), mode: 0o600 };
    let chown = |owner: &str, group: &str| Op::SetOwner {
        path: path("/d/f"),
        owner: owner.into(),
        group: group.into(),
    };
    assert!(world.run(&bob, chmod()).is_err());
    assert!(world.run(&ann, chmod()).is_ok());
    assert!(world.run(&ann, chown("bob", "")).is_err(), "only a superuser gives away");
    assert!(world.run(&ann, chown("", "other")).is_err(), "not in that group");
    assert!(world.run(&ann, chown("", "staff")).is_ok());
    assert!(world.run(&root(), chown("bob", "other")).is_ok());
    assert!(world.state.block_locations(&ann, &path("/d/f"), 0, 1).is_err(), "it is bob's now");
}

#[test]
fn a_sticky_folder_guards_entries_from_all_but_their_owners() {
    let mut world = World::new();
    let (ann, bob) = (Caller::user("ann"), Caller::user("bob"));
    world.mkdirs("/tmp", 0o1777);
    world.run(&ann, create_op("/tmp/a", "h", false)).unwrap();
    assert_eq!(world.run(&bob, delete("/tmp/a", false)).unwrap_err().code, Code::PermissionDenied);
    let steal = rename("/tmp/a", "/tmp/b", RenameMode::NoReplace);
    assert_eq!(world.run(&bob, steal).unwrap_err().code, Code::PermissionDenied);
    assert_eq!(world.run(&ann, delete("/tmp/a", false)), Ok(Reply::Deleted(true)));
}

#[test]
fn a_tree_goes_only_if_every_full_folder_in_it_may_be_emptied() {
    let mut world = World::new();
    let ann = Caller::user("ann");
    world.mkdirs("/d", 0o777);
    world
        .run(
            &ann,
            Op::Mkdirs { path: path("/d/t"), mode: 0o755, unmasked: None, create_parents: true },
        )
        .unwrap();
    world.mkdirs("/d/t/inner", 0o755);
    world.ok(create_op("/d/t/inner/f", "h", false));
    assert!(world.run(&ann, delete("/d/t", true)).is_err());
    world.ok(Op::SetPermission { path: path("/d/t/inner"), mode: 0o1777 });
    let refused = world.run(&ann, delete("/d/t", true)).unwrap_err().message;
    assert!(refused.starts_with("Permission denied by sticky bit: user=ann"), "{refused}");
    world.ok(delete("/d/t/inner/f", false));
    assert!(world.run(&ann, delete("/d/t", true)).is_ok(), "an empty folder asks nothing");
}

/// The bug: what was asked for was looked up before the caller's rights were, so that a stranger got other answers
/// for what is there than for what is not, where HDFS refuses both.
#[test]
fn who_may_not_change_a_folder_does_not_learn_what_is_in_it() {
    let mut world = World::new();
    let ann = Caller::user("ann");
    world.mkdirs("/d/full/x", 0o755);
    world.mkdirs("/open", 0o777);
    world.ok(create_op("/d/f", "h", false));
    world.run(&ann, create_op("/open/f", "h", false)).unwrap();
    let replicate = Op::SetReplication { path: path("/d"), replication: 1 };
    let concat = |target, source| Op::Concat { target: path(target), sources: vec![path(source)] };
    for op in [
        delete("/d/none", true),
        delete("/d/full", false),
        rename("/d/none", "/open/a", RenameMode::Into),
        rename("/open/none", "/d/a", RenameMode::NoReplace),
        rename("/d/none", "/d/none", RenameMode::Into),
        replicate,
        concat("/d", "/open/f"),
    ] {
        let code = world.run(&ann, op.clone()).unwrap_err().code;
        assert_eq!(code, Code::PermissionDenied, "{op:?}");
    }
    assert_eq!(world.run(&ann, delete("/open/none", true)), Ok(Reply::Deleted(false)));
    let under_a_file = rename("/open/f/x", "/open/a", RenameMode::Into);
    assert_eq!(world.run(&ann, under_a_file).unwrap_err().code, Code::NotFound);
}

#[test]
fn rename_follows_its_table() {
    use RenameMode::{NoReplace, Replace};
    let mut world = World::new();
    world.mkdirs("/full/x", 0o755);
    world.mkdirs("/empty", 0o755);
    world.ok(create_op("/file", "h", false));
    world.ok(create_op("/other", "h", false));
    for (source, target, mode, code) in [
        ("/", "/a", Replace, Code::InvalidArgument),
        ("/file", "/", Replace, Code::InvalidArgument),
        ("/none", "/a", Replace, Code::NotFound),
        ("/file", "/none/a", Replace, Code::NotFound),
        ("/file", "/other/a", Replace, Code::ParentNotFolder),
        ("/file", "/file", Replace, Code::AlreadyExists),
        ("/file", "/other", NoReplace, Code::AlreadyExists),
        ("/full", "/full/x/y", Replace, Code::LimitExceeded),
        ("/file", "/empty", Replace, Code::IsFolder),
        ("/empty", "/file", Replace, Code::NotFolder),
        ("/empty", "/full", Replace, Code::NotEmpty),
    ] {
        assert_eq!(world.code(rename(source, target, mode)), code, "{source} -> {target}");
    }
    let inode = world.status("/file").unwrap().inode;
    world.ok(rename("/file", "/other", Replace));
    assert_eq!(world.status("/other").unwrap().inode, inode);
    assert_eq!(world.status("/file"), None);
    world.ok(rename("/full", "/empty", Replace));
    assert_eq!(world.status("/empty").unwrap().children, 1);
    assert_eq!(world.state.path_of(proto::InodeId(inode)), Some(path("/other")));
}

#[test]
fn the_older_rename_goes_into_a_folder_that_exists() {
    use RenameMode::Into;
    let mut world = World::new();
    world.mkdirs("/into", 0o755);
    world.ok(create_op("/file", "h", false));
    world.ok(create_op("/other", "h", false));
    assert_eq!(world.code(rename("/file", "/other", Into)), Code::AlreadyExists);
    assert_eq!(world.code(rename("/into", "/into", Into)), Code::LimitExceeded);
    assert_eq!(world.code(rename("/none", "/none", Into)), Code::NotFound);
    world.ok(rename("/file", "/file", Into));
    world.ok(rename("/file", "/into", Into));
    assert!(world.status("/into/file").is_some() && world.status("/file").is_none());
    world.ok(create_op("/file", "h", false));
    assert_eq!(world.code(rename("/file", "/into", Into)), Code::AlreadyExists);
    world.ok(rename("/file", "/new", Into));
    assert!(world.status("/new").is_some());
}

#[test]
fn a_hard_link_keeps_the_file_until_its_last_name_goes() {
    let mut world = World::new();
    world.ok(create_op("/a", "h", false));
    let inode = world.status("/a").unwrap().inode;
    world.ok(Op::Link { source: path("/a"), target: path("/b") });
    assert_eq!(world.status("/b").map(|status| (status.inode, status.links)), Some((inode, 2)));
    world.ok(rename("/a", "/b", RenameMode::Replace));
    assert_eq!(world.status("/a"), None);
    assert_eq!(world.status("/b").map(|status| (status.inode, status.links)), Some((inode, 1)));
    world.ok(delete("/b", false));
    assert_eq!(world.state.counts().files, 0);
    world.mkdirs("/d", 0o755);
    assert_eq!(world.code(Op::Link { source: path("/d"), target: path("/e") }), Code::IsFolder);
}

#[test]
fn a_deep_tree_is_deleted_without_recursion() {
    let mut world = World::new();
    let names: Vec<_> = (0..900).map(|_| "d").collect();
    world.now += 1;
    let op = Op::Mkdirs {
        path: path(&format!("/{}", names.join("/"))),
        mode: 0o755,
        unmasked: None,
        create_parents: true,
    };
    world.ok(op);
    world.ok(delete("/d", true));
    assert_eq!(world.state.counts().folders, 1);
}
