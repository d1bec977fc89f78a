//! Starting, stopping, and what is there afterwards.

use proto::Code;
use proto::granary::*;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_lives_from_create_to_delete_across_a_restart() {
    let mut world = World::new().await;
    let mut node = Datanode::attach(&world, "dn1", 1).await;
    node.commands("report in full", |c| c.report_in_full).await;
    node.report_in_full(&[]).await;
    assert!(world.mkdir("/a/b").await);
    assert!(!world.mkdir("/a/b").await, "it is there already");
    let status = world.create("/a/b/f").await;
    assert!(status.open_for_write && status.replication == 1 && status.block_bytes == MIB);
    let first = world.add_block("/a/b/f", None).await;
    assert_eq!((first.offset, first.locations[0].uuid.as_str()), (0, "dn1"));
    let first = Block { length: MIB, ..first.block.unwrap() };
    node.report(first, ReplicaState::Finalized).await;
    let second = world.add_block("/a/b/f", Some(first)).await;
    assert_eq!(second.offset, MIB);
    let second = Block { length: 10, ..second.block.unwrap() };
    node.report(second, ReplicaState::Finalized).await;
    let done = world.fs.complete(complete("/a/b/f", Some(second))).await.unwrap().into_inner();
    assert_eq!((done.completed, done.status.unwrap().length), (true, MIB + 10));
    let located = world.locate("/a/b/f").await;
    assert!(!located.under_construction && located.last_block_complete);
    let sizes: Vec<u64> = located.blocks.iter().map(|b| b.block.unwrap().length).collect();
    assert_eq!(sizes, [MIB, 10]);
    assert!(located.blocks.iter().all(|block| block.locations[0].uuid == "dn1"));

    let cluster = world.handle().cluster_id().to_owned();
    world.restart().await;
    assert_eq!(world.handle().cluster_id(), cluster);
    let status = world.stat("/a/b/f").await.unwrap();
    assert_eq!((status.length, status.open_for_write), (MIB + 10, false));
    assert!(world.locate("/a/b/f").await.blocks[0].locations.is_empty(), "nobody reported yet");
    let rename = RenameRequest {
        caller: boss(),
        source: "/a/b/f".into(),
        target: "/a/g".into(),
        mode: RenameMode::NoReplace as i32,
    };
    assert_eq!(code(world.fs.rename(rename.clone()).await), Code::SafeMode);
    let mut node = Datanode::attach(&world, "dn1", 1).await;
    node.report_in_full(&[first, second]).await;
    world.until("safe mode ends", |status| !status.safe_mode).await;
    world.fs.rename(rename).await.unwrap();
    assert_eq!(world.locate("/a/g").await.blocks[1].locations[0].uuid, "dn1");

    let delete = DeleteRequest { caller: boss(), path: "/a".into(), recursive: true };
    assert!(world.fs.delete(delete.clone()).await.unwrap().into_inner().deleted);
    assert!(!world.fs.delete(delete).await.unwrap().into_inner().deleted);
    let told = node.commands("deletions", |c| !c.invalidate.is_empty()).await.invalidate;
    let ids: Vec<u64> = told.iter().map(|block| block.id).collect();
    assert_eq!(ids, [first.id, second.id]);
    assert_eq!(world.status().await.stats.unwrap().blocks, 0);
    assert!(world.stat("/a").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_gets_the_first_reply_also_after_a_restart() {
    let mut world = World::new().await;
    world.mkdir("/d").await;
    let call = world.new_call();
    let delete = DeleteRequest { caller: call, path: "/d".into(), recursive: false };
    assert!(world.fs.delete(delete.clone()).await.unwrap().into_inner().deleted);
    assert!(world.fs.delete(delete.clone()).await.unwrap().into_inner().deleted);
    world.restart().await;
    assert!(world.fs.delete(delete).await.unwrap().into_inner().deleted);
    let call = world.new_call();
    let another = DeleteRequest { caller: call, path: "/d".into(), recursive: false };
    assert!(!world.fs.delete(another).await.unwrap().into_inner().deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_folder_and_a_port_in_use_are_refused_by_name() {
    let world = World::new().await;
    let refused = |config| async { namenode::start(config).await.err().expect("it is refused") };
    let error = refused(world.config.clone()).await;
    assert!(error.message.contains("namenode.dir") && error.message.contains("in use"), "{error}");
    let elsewhere = tempfile::tempdir().unwrap();
    let mut config = config(&elsewhere);
    config.grpc_addr = world.handle().grpc_addr().to_string();
    let error = refused(config.clone()).await;
    let expected = format!("namenode.grpc_addr {} is in use", config.grpc_addr);
    assert!(error.message.starts_with(&expected), "{error}");
    config.grpc_addr = "nonsense".into();
    let error = refused(config).await;
    assert!(error.message.starts_with("namenode.grpc_addr nonsense"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_open_streams_and_frees_the_folder() {
    let mut world = World::new().await;
    let mut node = Datanode::attach(&world, "dn1", 1).await;
    let since = std::time::Instant::now();
    world.handle.take().unwrap().shutdown().await.unwrap();
    assert_eq!(node.end().await, Code::Unavailable);
    assert!(since.elapsed() < WAIT);
    let handle = namenode::start(world.config.clone()).await.unwrap();
    handle.shutdown().await.unwrap();
}
