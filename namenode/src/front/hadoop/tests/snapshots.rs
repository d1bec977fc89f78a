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

/// What a part tells: lists of paths, with targets.
fn told(part: &SnapshotDiffReportListingProto) -> [Vec<String>; 3] {
    let line = |entry: &SnapshotDiffReportListingEntryProto| {
        let path = String::from_utf8_lossy(&entry.fullpath).into_owned();
        match &entry.target_path {
            Some(target) => format!("{path} -> {}", String::from_utf8_lossy(target)),
            None => path,
        }
    };
    [&part.modified_entries, &part.created_entries, &part.deleted_entries]
        .map(|entries| entries.iter().map(line).collect())
}

#[tokio::test]
async fn a_difference_in_parts_has_the_ids_by_which_clients_put_it_together() {
    let world = World::new().await;
    world.mkdirs("/d/from/a").await;
    world.mkdirs("/d/gone").await;
    world.allow("/d").await;
    let _: CreateSnapshotResponseProto = world.ask("createSnapshot", &make("/d", Some("s1"))).await;
    let delete = DeleteRequestProto { src: "/d/gone".into(), recursive: true };
    let _: DeleteResponseProto = world.ask("delete", &delete).await;
    let rename = RenameRequestProto { src: "/d/from/a".into(), dst: "/d/b".into() };
    let _: RenameResponseProto = world.ask("rename", &rename).await;
    world.mkdirs("/d/new").await;
    let _: CreateSnapshotResponseProto = world.ask("createSnapshot", &make("/d", Some("s2"))).await;
    let listing = |from: &str, to: &str, cursor| GetSnapshotDiffReportListingRequestProto {
        snapshot_root: "/d".into(),
        from_snapshot: from.into(),
        to_snapshot: to.into(),
        cursor,
    };
    let ask = async |from: &str, to: &str| -> SnapshotDiffReportListingProto {
        let reply: GetSnapshotDiffReportListingResponseProto =
            world.ask("getSnapshotDiffReportListing", &listing(from, to, None)).await;
        reply.diff_report
    };
    let part = ask("s1", "s2").await;
    let [modified, created, deleted] = told(&part);
    assert_eq!(
        (&modified[..], &created[..]),
        (&["", "from"].map(String::from)[..], &["new".into()][..])
    );
    assert_eq!(deleted, ["gone", "from/a -> b"]);
    assert!(part.is_from_earlier && !ask("s2", "s1").await.is_from_earlier);
    assert_eq!(told(&ask("s2", "s1").await), told(&part), "always from the earlier to the later");
    // What is told among a folder's changes has the id of that folder, which is told itself.
    let [root, from] = &part.modified_entries[..] else { panic!("{part:?}") };
    assert!(root.is_reference && root.file_id == Some(root.dir_id));
    assert_eq!(part.created_entries[0].dir_id, root.dir_id);
    assert_eq!(part.deleted_entries[0].dir_id, root.dir_id);
    assert_eq!(part.deleted_entries[1].dir_id, from.dir_id);
    assert!(part.deleted_entries[1].is_reference);
    assert_eq!(part.cursor.map(|cursor| cursor.index), Some(-1), "nothing is left");
    let cursor = SnapshotDiffReportCursorProto { start_path: "gone".into(), index: 1 };
    let stale = listing("s1", "s2", Some(cursor));
    assert_eq!(world.refused("getSnapshotDiffReportListing", &stale).await, "SnapshotException");
}

#[tokio::test]
async fn a_long_difference_comes_in_parts_that_make_the_whole() {
    const FOLDERS: usize = 600;
    let world = World::new().await;
    let long = "x".repeat(250);
    world.mkdirs(&format!("/d{}", format!("/{long}").repeat(8))).await;
    world.allow("/d").await;
    let _: CreateSnapshotResponseProto = world.ask("createSnapshot", &make("/d", Some("s1"))).await;
    for number in 0..FOLDERS {
        world.mkdirs(&format!("/d{}/{number}", format!("/{long}").repeat(8))).await;
    }
    let _: CreateSnapshotResponseProto = world.ask("createSnapshot", &make("/d", Some("s2"))).await;
    let (mut cursor, mut parts, mut created) = (None, 0, Vec::new());
    loop {
        let request = GetSnapshotDiffReportListingRequestProto {
            snapshot_root: "/d".into(),
            from_snapshot: "s1".into(),
            to_snapshot: "s2".into(),
            cursor,
        };
        let reply: GetSnapshotDiffReportListingResponseProto =
            world.ask("getSnapshotDiffReportListing", &request).await;
        parts += 1;
        created.extend(told(&reply.diff_report)[1].clone());
        let next = reply.diff_report.cursor.unwrap();
        if next.index == -1 && next.start_path.is_empty() {
            break;
        }
        cursor = Some(next);
    }
    created.sort();
    created.dedup();
    assert_eq!((created.len(), parts), (FOLDERS, 2));
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

#[tokio::test]
async fn what_is_done_under_a_snapshot_gets_hdfs_classes_and_attributes_are_those_of_then() {
    let world = World::new().await;
    world.mkdirs("/d/sub").await;
    world.mkdirs("/plain").await;
    world.allow("/d").await;
    let x = XAttrProto { namespace: 0, name: "x".into(), value: Some(vec![1].into()) };
    let set = |value: u8| SetXAttrRequestProto {
        src: "/d/sub".into(),
        x_attr: Some(XAttrProto { value: Some(vec![value].into()), ..x.clone() }),
        flag: Some(3),
    };
    let _: SetXAttrResponseProto = world.ask("setXAttr", &set(1)).await;
    let _: CreateSnapshotResponseProto = world.ask("createSnapshot", &make("/d", Some("s"))).await;
    let _: SetXAttrResponseProto = world.ask("setXAttr", &set(2)).await;
    let get = GetXAttrsRequestProto { src: "/d/.snapshot/s/sub".into(), x_attrs: vec![] };
    let got: GetXAttrsResponseProto = world.ask("getXAttrs", &get).await;
    assert_eq!(got.x_attrs[0].value.as_deref(), Some(&[1][..]));
    let acl = GetAclStatusRequestProto { src: "/d/.snapshot/s/sub".into() };
    let _: GetAclStatusResponseProto = world.ask("getAclStatus", &acl).await;
    let acl = GetAclStatusRequestProto { src: "/d/.snapshot/s/none".into() };
    assert_eq!(world.refused("getAclStatus", &acl).await, "FileNotFoundException");
    let read_only = "SnapshotAccessControlException";
    for path in ["/d/.snapshot", "/d/.snapshot/x", "/d/.snapshot/s/x", "/d/.snapshot/s/.snapshot"] {
        assert_eq!(world.refused("create", &super::files::create(path)).await, read_only, "{path}");
        let lease = RecoverLeaseRequestProto { src: path.into(), client_name: "x".into() };
        assert_eq!(world.refused("recoverLease", &lease).await, read_only, "{path}");
    }
    let mkdir = |path: &str, create_parent| MkdirsRequestProto {
        src: path.into(),
        masked: FsPermissionProto { perm: 0o755 },
        create_parent,
        ..Default::default()
    };
    let class = world.refused("mkdirs", &mkdir("/plain/.snapshot/x", false)).await;
    assert_eq!(class, "FileNotFoundException");
    let class = world.refused("mkdirs", &mkdir("/plain/.snapshot/x", true)).await;
    assert_eq!(class, "HadoopIllegalArgumentException");
    let rename = Rename2RequestProto {
        src: "/plain".into(),
        dst: "/none/.snapshot/x".into(),
        overwrite_dest: false,
        ..Default::default()
    };
    assert_eq!(world.refused("rename2", &rename).await, "FileNotFoundException");
    let list = |path: &str| GetListingRequestProto {
        src: path.into(),
        start_after: vec![].into(),
        need_location: false,
    };
    let class = world.refused("getListing", &list("/d/.snapshot/s/.snapshot")).await;
    assert_eq!(class, "SnapshotException");
}
