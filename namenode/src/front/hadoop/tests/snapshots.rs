//! Snapshots, as Hadoop's clients ask for them.

use proto::hadoop::hdfs::*;

use super::{Nothing, World};

fn make(root: &str, name: Option<&str>) -> CreateSnapshotRequestProto {
    CreateSnapshotRequestProto {
        snapshot_root: root.into(),
        snapshot_name: name.map(str::to_owned),
    }
}

fn diff(root: &str, from: &str, to: &str) -> GetSnapshotDiffReportRequestProto {
    GetSnapshotDiffReportRequestProto {
        snapshot_root: root.into(),
        from_snapshot: from.into(),
        to_snapshot: to.into(),
    }
}

impl World {
    async fn allow(&self, root: &str) {
        let request = AllowSnapshotRequestProto { snapshot_root: root.into() };
        let _: AllowSnapshotResponseProto = self.ask("allowSnapshot", &request).await;
    }

    async fn names(&self, path: &str) -> Vec<String> {
        let listing = self.list(path, "").await.expect("it is there");
        let name = |entry: &HdfsFileStatusProto| String::from_utf8(entry.path.to_vec()).unwrap();
        listing.partial_listing.iter().map(name).collect()
    }
}

#[tokio::test]
async fn a_snapshot_is_made_shown_compared_renamed_and_removed() {
    let world = World::new().await;
    world.mkdirs("/d/sub").await;
    world.allow("/d").await;
    assert_eq!(world.stat("/d").await.unwrap().flags, Some(8));
    let made: CreateSnapshotResponseProto =
        world.ask("createSnapshot", &make("/d", Some("s1"))).await;
    assert_eq!(made.snapshot_path, "/d/.snapshot/s1");
    let made: CreateSnapshotResponseProto = world.ask("createSnapshot", &make("/d", None)).await;
    assert!(made.snapshot_path.starts_with("/d/.snapshot/s2"), "{made:?}");
    world.mkdirs("/d/new").await;
    assert_eq!(world.names("/d/.snapshot/s1").await, ["sub"]);
    let report: GetSnapshotDiffReportResponseProto =
        world.ask("getSnapshotDiffReport", &diff("/d", "s1", "")).await;
    let entries = report.diff_report.diff_report_entries;
    let told = |entry: &SnapshotDiffReportEntryProto| {
        (entry.modification_label.clone(), String::from_utf8(entry.fullpath.to_vec()).unwrap())
    };
    let expected = [("M", ""), ("+", "new")].map(|(label, path)| (label.into(), path.into()));
    assert_eq!(entries.iter().map(told).collect::<Vec<_>>(), expected);
    let rename = RenameSnapshotRequestProto {
        snapshot_root: "/d".into(),
        snapshot_old_name: "s1".into(),
        snapshot_new_name: "first".into(),
    };
    let _: RenameSnapshotResponseProto = world.ask("renameSnapshot", &rename).await;
    let listing = GetSnapshotListingRequestProto { snapshot_root: "/d".into() };
    let found: GetSnapshotListingResponseProto = world.ask("getSnapshotListing", &listing).await;
    let found = found.snapshot_list.unwrap().snapshot_listing;
    assert_eq!(found.iter().map(|s| s.snapshot_id).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(
        (&found[0].dir_status.path[..], &found[0].parent_fullpath[..]),
        (&b"first"[..], &b"/d"[..])
    );
    let all: GetSnapshottableDirListingResponseProto =
        world.ask("getSnapshottableDirListing", &GetSnapshottableDirListingRequestProto {}).await;
    let all = all.snapshottable_dir_list.unwrap().snapshottable_dir_listing;
    assert_eq!((all[0].snapshot_number, all[0].snapshot_quota), (2, 65_536));
    let remove = |name: &str| DeleteSnapshotRequestProto {
        snapshot_root: "/d".into(),
        snapshot_name: name.into(),
    };
    let _: DeleteSnapshotResponseProto = world.ask("deleteSnapshot", &remove("first")).await;
    assert_eq!(world.refused("deleteSnapshot", &remove("first")).await, "SnapshotException");
    assert!(world.stat("/d/.snapshot/first").await.is_none());
}

#[tokio::test]
async fn refusals_are_of_the_classes_that_hdfs_has() {
    let world = World::new().await;
    world.mkdirs("/d/sub").await;
    let allow = |path: &str| AllowSnapshotRequestProto { snapshot_root: path.into() };
    let refused = world.ask_as::<Nothing>("ann", "allowSnapshot", &allow("/d")).await;
    assert!(refused.unwrap_err().class.ends_with("AccessControlException"));
    assert_eq!(world.refused("allowSnapshot", &allow("/none")).await, "FileNotFoundException");
    assert_eq!(world.refused("createSnapshot", &make("/d", None)).await, "SnapshotException");
    world.allow("/d").await;
    assert_eq!(world.refused("allowSnapshot", &allow("/d/sub")).await, "SnapshotException");
    assert_eq!(
        world.refused("createSnapshot", &make("/d", Some("a/b"))).await,
        "InvalidPathException"
    );
    let _: CreateSnapshotResponseProto = world.ask("createSnapshot", &make("/d", Some("s"))).await;
    let delete = DeleteRequestProto { src: "/d".into(), recursive: true };
    assert_eq!(world.refused("delete", &delete).await, "SnapshotException");
    let inside = DeleteRequestProto { src: "/d/.snapshot/s/sub".into(), recursive: true };
    assert_eq!(world.refused("delete", &inside).await, "SnapshotAccessControlException");
    assert_eq!(
        world.refused("getSnapshotDiffReport", &diff("/d", "s", "none")).await,
        "SnapshotException"
    );
}

#[tokio::test]
async fn a_repeated_call_gets_the_first_ones_answer() {
    let world = World::new().await;
    world.mkdirs("/d").await;
    world.allow("/d").await;
    let call = world.new_call();
    let first: CreateSnapshotResponseProto =
        world.ask_again("boss", call, "createSnapshot", &make("/d", None)).await.unwrap();
    let second: CreateSnapshotResponseProto =
        world.ask_again("boss", call, "createSnapshot", &make("/d", None)).await.unwrap();
    assert_eq!(first.snapshot_path, second.snapshot_path);
    assert_eq!(world.names("/d/.snapshot").await.len(), 1);
}
