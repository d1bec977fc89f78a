//! Names: looking, listing, making, moving, deleting.

use super::*;

fn rename(source: &str, target: &str) -> RenameRequestProto {
    RenameRequestProto { src: source.into(), dst: target.into() }
}

fn rename2(source: &str, target: &str, overwrite: bool) -> Rename2RequestProto {
    Rename2RequestProto {
        src: source.into(),
        dst: target.into(),
        overwrite_dest: overwrite,
        move_to_trash: None,
    }
}

fn delete(path: &str, recursive: bool) -> DeleteRequestProto {
    DeleteRequestProto { src: path.into(), recursive }
}

#[tokio::test]
async fn what_is_missing_is_an_empty_reply_and_no_error() {
    let world = World::new().await;
    assert_eq!(world.stat("/none").await, None);
    assert_eq!(world.stat("/none/below").await, None);
    assert_eq!(world.list("/none", "").await, None);
    assert_eq!(world.stat(&format!("/{}", "x".repeat(300))).await, None);
    let gone = GetFileInfoRequestProto { src: "/.reserved/.inodes/99999".into() };
    assert_eq!(world.refused("getFileInfo", &gone).await, "FileNotFoundException");
    assert_eq!(
        world.refused("getFileInfo", &GetFileInfoRequestProto { src: "x".into() }).await,
        "InvalidPathException"
    );
}

#[tokio::test]
async fn a_folder_is_told_as_hdfs_tells_it() {
    let world = World::new().await;
    world.mkdirs("/a/b").await;
    let status = world.stat("/a").await.unwrap();
    assert_eq!(status.file_type(), hdfs_file_status_proto::FileType::IsDir);
    assert!(status.path.is_empty() && status.length == 0);
    assert_eq!((status.owner.as_str(), status.group.as_str()), ("boss", "supergroup"));
    assert_eq!((status.permission.perm, status.children_num), (0o755, Some(1)));
    let by_inode = format!("/.reserved/.inodes/{}", status.file_id());
    assert_eq!(world.stat(&by_inode).await.unwrap().file_id, status.file_id);
    let child = world.stat("/a/b").await.unwrap();
    assert_eq!(world.stat(&format!("{by_inode}/b")).await.unwrap().file_id, child.file_id);
}

#[tokio::test]
async fn a_listing_goes_on_after_a_name() {
    let world = World::new().await;
    for number in 0..1_005 {
        world.mkdirs(&format!("/d/{number:04}")).await;
    }
    let first = world.list("/d", "").await.unwrap();
    assert_eq!((first.partial_listing.len(), first.remaining_entries), (1_000, 5));
    assert_eq!(&first.partial_listing[0].path[..], b"0000");
    let rest = world.list("/d", "0999").await.unwrap();
    assert_eq!((rest.partial_listing.len(), rest.remaining_entries), (5, 0));
    assert_eq!(world.list("/d", "1004").await.unwrap().partial_listing, vec![]);
}

#[tokio::test]
async fn the_older_rename_moves_into_a_folder_and_says_false() {
    let world = World::new().await;
    world.mkdirs("/a").await;
    world.mkdirs("/into").await;
    let ask = async |source: &str, target: &str| {
        world.ask::<RenameResponseProto>("rename", &rename(source, target)).await.result
    };
    assert!(ask("/a", "/into").await);
    assert!(world.stat("/into/a").await.is_some() && world.stat("/a").await.is_none());
    for (source, target) in [
        ("/none", "/x"),
        ("/into", "/into/a"),
        ("/into", "/into"),
        ("/into", "/none/x"),
        ("/", "/x"),
    ] {
        assert!(!ask(source, target).await, "{source} to {target}");
    }
}

#[tokio::test]
async fn a_repeated_rename_gets_the_first_answer() {
    let world = World::new().await;
    world.mkdirs("/a").await;
    let call = world.new_call();
    for _ in 0..2 {
        let reply: RenameResponseProto =
            world.ask_again("boss", call, "rename", &rename("/a", "/b")).await.unwrap();
        assert!(reply.result);
    }
    assert!(world.stat("/b").await.unwrap().children_num == Some(0), "not moved into itself");
    assert!(!world.ask::<RenameResponseProto>("rename", &rename("/a", "/b")).await.result);
}

#[tokio::test]
async fn the_newer_rename_tells_its_errors_by_class() {
    let world = World::new().await;
    world.mkdirs("/a/x").await;
    world.mkdirs("/b/y").await;
    for (source, target, overwrite, class) in [
        ("/none", "/x", false, "FileNotFoundException"),
        ("/a", "/none/x", false, "FileNotFoundException"),
        ("/a", "/b", false, "FileAlreadyExistsException"),
        ("/a", "/a", true, "FileAlreadyExistsException"),
        ("/a", "/a/x/y", true, "IOException"),
        ("/a", "/b", true, "IOException"),
        ("/", "/x", true, "IOException"),
    ] {
        let request = rename2(source, target, overwrite);
        assert_eq!(world.refused("rename2", &request).await, class, "{source} to {target}");
    }
    world.ask::<Rename2ResponseProto>("rename2", &rename2("/a", "/b/y", true)).await;
    assert!(world.stat("/b/y/x").await.is_some());
}

#[tokio::test]
async fn delete_says_false_where_there_is_nothing_to_delete() {
    let world = World::new().await;
    world.mkdirs("/a/x").await;
    let call = world.new_call();
    assert_eq!(
        world.refused("delete", &delete("/a", false)).await,
        "PathIsNotEmptyDirectoryException"
    );
    for _ in 0..2 {
        let reply: DeleteResponseProto =
            world.ask_again("boss", call, "delete", &delete("/a", true)).await.unwrap();
        assert!(reply.result, "a repeated call gets the first answer");
    }
    for path in ["/a", "/", "/none/below"] {
        assert!(
            !world.ask::<DeleteResponseProto>("delete", &delete(path, true)).await.result,
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_may_not_be_done_is_an_access_control_exception() {
    let world = World::new().await;
    let error =
        world.ask_as::<DeleteResponseProto>("eve", "mkdirs", &mkdir("/x")).await.unwrap_err();
    assert_eq!(error.class, "org.apache.hadoop.security.AccessControlException");
}

fn mkdir(path: &str) -> MkdirsRequestProto {
    MkdirsRequestProto {
        src: path.into(),
        masked: FsPermissionProto { perm: 0o755 },
        create_parent: true,
        unmasked: None,
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_are_an_error() {
    let world = World::new().await;
    let bad = GetBlockLocationsRequestProto { src: "\u{7}".repeat(9), offset: 1, length: 2 };
    assert_eq!(world.refused("rename2", &bad).await, "RpcServerException");
}
