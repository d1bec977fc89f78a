//! The catalogue: publish, flip, roll back, retain, delete.

use proto::Code;
use proto::granary::TableInfo;

use super::{World, create_op, path, root};
use crate::op::{Caller, FileRef, Op, Reply, Verdict};

impl World {
    /// A closed, empty table in a folder.
    fn table(&mut self, text: &str) {
        self.ok(create_op(text, "h", true));
        let file = FileRef { path: path(text), inode: None };
        self.ok(Op::Complete { file, holder: "h".into(), last: None });
    }

    fn publish(&mut self) -> u64 {
        self.table("/out/part-0.tbl");
        let Reply::Version(number) = self.ok(publish_op(&["part-0.tbl"])) else { panic!("number") };
        self.ok(Op::Delete { path: path("/out"), recursive: true });
        number
    }

    fn ready(&mut self, version: u64) {
        let op = Op::SetVersionState { store: "s".into(), version, verdict: Verdict::Ready };
        self.ok(op);
        self.ok(activate(version));
    }

    fn versions(&self) -> Vec<u64> {
        self.state.store("s").unwrap().versions.keys().copied().collect()
    }
}

fn publish_op(names: &[&str]) -> Op {
    let table =
        |name: &&str| TableInfo { path: (*name).to_owned(), slot_last: 9, ..TableInfo::default() };
    Op::PublishVersion {
        store: "s".into(),
        folder: path("/out"),
        tables: names.iter().map(table).collect(),
        activate: true,
        keep_versions: 2,
    }
}

fn activate(version: u64) -> Op {
    Op::ActivateVersion { store: "s".into(), version }
}

#[test]
fn a_published_version_outlives_its_source_and_is_sealed() {
    let mut world = World::new();
    world.table("/out/part-0.tbl");
    world.ok(Op::Link { source: path("/out/part-0.tbl"), target: path("/mine") });
    assert_eq!(world.ok(publish_op(&["part-0.tbl"])), Reply::Version(1));
    world.ok(Op::Delete { path: path("/out"), recursive: true });
    assert!(world.status("/stores/s/v1/part-0.tbl").is_some());
    assert_eq!(
        world.state.store("s").unwrap().versions[&1].tables[0].path,
        "/stores/s/v1/part-0.tbl"
    );
    let append = Op::Append { path: path("/mine"), holder: "h".into(), new_block: false };
    assert_eq!(world.code(append), Code::PermissionDenied, "another name of the same table");
    for guarded in ["/stores", "/stores/s", "/stores/s/v1/part-0.tbl"] {
        let op = Op::Delete { path: path(guarded), recursive: true };
        assert_eq!(world.code(op), Code::PermissionDenied, "{guarded}");
    }
}

#[test]
fn a_version_that_does_not_fit_its_files_is_refused() {
    let mut world = World::new();
    world.table("/out/a.tbl");
    world.table("/out/x/a.tbl");
    world.table("/else.tbl");
    world.ok(create_op("/out/open.tbl", "h", true));
    for (names, code) in [
        (&[][..], Code::InvalidArgument),
        (&["none.tbl"], Code::NotFound),
        (&["a.tbl", "x/a.tbl"], Code::InvalidArgument),
        (&["/else.tbl"], Code::InvalidArgument),
        (&["../else.tbl"], Code::InvalidPath),
        (&["open.tbl"], Code::FileOpenElsewhere),
        (&["x"], Code::IsFolder),
    ] {
        assert_eq!(world.code(publish_op(names)), code, "{names:?}");
    }
    assert!(world.state.store("s").is_none());
}

#[test]
fn flips_and_rollbacks_keep_current_and_previous() {
    let mut world = World::new();
    assert_eq!(world.publish(), 1);
    assert_eq!(world.code(activate(1)), Code::Stale, "not ready yet");
    assert_eq!(world.code(activate(0)), Code::NotFound, "nothing to return to");
    world.ready(1);
    assert_eq!(world.publish(), 2);
    world.ready(2);
    assert_eq!(world.ok(activate(0)), Reply::Version(1));
    let store = world.state.store("s").unwrap();
    assert_eq!((store.current, store.previous), (1, 2));
    // keep_versions is 2, and neither current nor previous may go.
    assert_eq!(world.publish(), 3);
    assert_eq!(world.versions(), [1, 2, 3]);
    world.ready(3);
    assert_eq!(world.versions(), [1, 3]);
    assert!(world.status("/stores/s/v2").is_none());
    let delete = |version| Op::DeleteVersion { store: "s".into(), version };
    assert_eq!(world.code(delete(3)), Code::InvalidArgument);
    world.ok(delete(1));
    assert_eq!(world.state.store("s").unwrap().previous, 0);
    world.ok(Op::DeleteStore { store: "s".into() });
    assert!(world.status("/stores/s").is_none());
    assert_eq!(world.state.counts().files, 0, "the last names of the tables went");
}

#[test]
fn a_store_is_changed_by_its_owner_and_superusers_alone() {
    let mut world = World::new();
    let (ann, eve) = (Caller::user("ann"), Caller::user("eve"));
    world.mkdirs("/out", 0o777);
    world.table("/out/a.tbl");
    world.run(&ann, publish_op(&["a.tbl"])).unwrap();
    assert_eq!(world.status("/stores/s").unwrap().owner, "root");
    assert!(world.run(&eve, publish_op(&["a.tbl"])).is_err());
    assert!(world.run(&eve, Op::DeleteStore { store: "s".into() }).is_err());
    let verdict = Op::SetVersionState { store: "s".into(), version: 1, verdict: Verdict::Ready };
    assert!(world.run(&ann, verdict.clone()).is_err(), "the controller's business");
    world.run(&root(), verdict).unwrap();
    world.run(&ann, activate(1)).unwrap();
}
