//! DataNodes: streams and their epochs, blocks being written, recoveries.

use std::time::{Duration, Instant};

use proto::Code;
use proto::granary::*;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_later_stream_of_a_uuid_ends_the_earlier_one() {
    let world = World::new().await;
    let mut old = Datanode::attach(&world, "dn1", 1).await;
    let new = Datanode::attach(&world, "dn1", 1).await;
    assert!(new.registered.epoch > old.registered.epoch);
    assert_eq!(old.end().await, Code::Stale);
    new.beat().await;
    let status = world.until("one DataNode lives", |s| s.datanodes.iter().any(|d| d.alive)).await;
    assert_eq!(status.datanodes.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_of_another_cluster_or_without_registration_is_refused() {
    let world = World::new().await;
    let foreign = DatanodeRegister { cluster_id: "other".into(), ..register("dn1", 1) };
    let refused = Datanode::attach_as(&world, foreign).await.err().expect("refused");
    assert_eq!(proto::Error::from(refused).code, Code::Incompatible);
    let mut own = register("dn1", 1);
    own.cluster_id = world.handle().cluster_id().to_owned();
    let node = Datanode::attach_as(&world, own).await.unwrap();
    assert_eq!(node.registered.pool_id, world.handle().pool_id());
    let (up, stream) = tokio::sync::mpsc::channel(1);
    let beat = datanode_up::Message::Heartbeat(DatanodeHeartbeat::default());
    up.send(DatanodeUp { message: Some(beat) }).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let mut down = world.datanodes().attach(stream).await.unwrap().into_inner();
    assert_eq!(code(down.message().await), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn complete_waits_for_the_report_and_answers_as_soon_as_it_comes() {
    let mut world = World::with(|config| config.complete_hold_ms = 15_000).await;
    let node = Datanode::attach(&world, "dn1", 1).await;
    world.create("/f").await;
    let block = Block { length: 5, ..world.add_block("/f", None).await.block.unwrap() };
    let mut fs = world.fs.clone();
    let since = Instant::now();
    let asked = tokio::spawn(async move { fs.complete(complete("/f", Some(block))).await });
    // The report of another length does not do.
    node.report(Block { length: 4, ..block }, ReplicaState::Finalized).await;
    node.beat().await;
    world.until("the first report is in", |s| s.datanodes[0].replicas == 1).await;
    assert!(!asked.is_finished());
    node.report(block, ReplicaState::Finalized).await;
    assert!(asked.await.unwrap().unwrap().into_inner().completed);
    assert!(since.elapsed() < Duration::from_secs(10), "it was woken, not timed out");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_report_complete_says_no_and_add_block_not_yet() {
    let mut world = World::with(|config| config.complete_hold_ms = 50).await;
    let _node = Datanode::attach(&world, "dn1", 1).await;
    world.create("/f").await;
    let block = Block { length: 5, ..world.add_block("/f", None).await.block.unwrap() };
    assert!(!world.complete("/f", Some(block)).await);
    let next = world.fs.add_block(add_block("/f", Some(block))).await;
    assert_eq!(code(next), Code::NotReplicatedYet);
    assert!(world.stat("/f").await.unwrap().open_for_write);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_shortly_after_a_start_is_to_be_asked_for_again() {
    let mut world = World::with(|config| config.safemode_extension_ms = 60_000).await;
    world.create("/f").await;
    let error = proto::Error::from(world.fs.add_block(add_block("/f", None)).await.unwrap_err());
    assert_eq!((error.code, error.kind()), (Code::Unavailable, proto::Kind::Retry), "{error}");
    let _node = Datanode::attach(&world, "dn1", 1).await;
    assert_eq!(world.add_block("/f", None).await.locations.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_without_a_datanode_to_take_it_is_refused_with_the_counts() {
    let mut world = World::with(|config| config.safemode_extension_ms = 0).await;
    world.create("/f").await;
    let status = world.fs.add_block(add_block("/f", None)).await.unwrap_err();
    let error = proto::Error::from(status);
    assert_eq!(error.code, Code::NotEnoughDatanodes);
    assert!(error.message.contains("0 DataNodes are alive"), "{error}");
    let _node = Datanode::attach(&world, "dn1", 1).await;
    let excluding = AddBlockRequest { excluded: vec!["dn1".into()], ..add_block("/f", None) };
    let error = proto::Error::from(world.fs.add_block(excluding).await.unwrap_err());
    assert!(error.message.contains("1 excluded"), "{error}");
    assert!(world.locate("/f").await.blocks.is_empty(), "no block was minted for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_pipeline_goes_on_with_a_new_stamp_and_the_old_replica_is_deleted() {
    let mut world = World::with(|config| config.replication = 2).await;
    let mut nodes =
        [Datanode::attach(&world, "dn1", 1).await, Datanode::attach(&world, "dn2", 2).await];
    // Nothing is deleted because of a replica on a node that has not yet told all that it holds.
    for node in &nodes {
        node.report_in_full(&[]).await;
    }
    world.create("/f").await;
    let located = world.add_block("/f", None).await;
    assert_eq!(located.locations.len(), 2);
    let old = located.block.unwrap();
    let ask =
        UpdateBlockForPipelineRequest { caller: boss(), block: Some(old), holder: "w".into() };
    let new = world.fs.update_block_for_pipeline(ask).await.unwrap().into_inner().block.unwrap();
    assert!(new.generation_stamp > old.generation_stamp);
    let third = Datanode::attach(&world, "dn3", 3).await;
    third.report_in_full(&[]).await;
    let more = GetAdditionalDatanodeRequest {
        caller: boss(),
        path: "/f".into(),
        holder: "w".into(),
        block: Some(old),
        existing: vec!["dn1".into()],
        excluded: vec!["dn2".into()],
        wanted: 1,
        ..Default::default()
    };
    let pipeline = world.fs.get_additional_datanode(more).await.unwrap().into_inner().locations;
    let uuids: Vec<String> = pipeline.into_iter().map(|at| at.uuid).collect();
    assert_eq!(uuids, ["dn1", "dn3"]);
    let new = Block { length: 7, ..new };
    let update = UpdatePipelineRequest {
        caller: boss(),
        holder: "w".into(),
        old_block: Some(old),
        new_block: Some(new),
        datanodes: uuids,
    };
    world.fs.update_pipeline(update).await.unwrap();
    nodes[1].report(Block { length: 7, ..old }, ReplicaState::Finalized).await;
    nodes[0].report(new, ReplicaState::Finalized).await;
    third.report(new, ReplicaState::Finalized).await;
    assert!(world.complete("/f", Some(new)).await);
    world.until("both are in", |s| s.stats.unwrap().under_replicated_blocks == 0).await;
    let told = nodes[1].commands("a deletion", |c| !c.invalidate.is_empty()).await;
    assert_eq!(
        (told.invalidate[0].id, told.invalidate[0].generation_stamp),
        (old.id, old.generation_stamp)
    );
    let places = world.locate("/f").await.blocks[0].locations.clone();
    assert!(places.len() == 2 && places.iter().all(|at| at.uuid != "dn2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_replica_is_not_handed_out_while_there_is_a_good_one() {
    let mut world = World::with(|config| config.replication = 2).await;
    let nodes =
        [Datanode::attach(&world, "dn1", 1).await, Datanode::attach(&world, "dn2", 2).await];
    let block = world.write(&nodes[0], "/f", 9).await;
    nodes[1].report(block, ReplicaState::Finalized).await;
    world.until("both are in", |s| s.stats.unwrap().under_replicated_blocks == 0).await;
    let bad = BadReplica { block: Some(block), datanode: "dn1".into() };
    let message = ReportBadBlocksRequest { caller: boss(), replicas: vec![bad] };
    world.fs.report_bad_blocks(message).await.unwrap();
    let located = world.locate("/f").await.blocks[0].clone();
    assert_eq!((located.locations.len(), located.locations[0].uuid.as_str()), (1, "dn2"));
    assert!(!located.corrupt);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_writers_file_is_recovered_and_an_old_outcome_is_refused() {
    let mut world = World::with(|config| {
        config.lease_soft_limit_ms = 50;
        config.lease_hard_limit_ms = 100;
    })
    .await;
    let mut node = Datanode::attach(&world, "dn1", 1).await;
    world.create("/f").await;
    let block = world.add_block("/f", None).await.block.unwrap();
    node.report(Block { length: 3, ..block }, ReplicaState::BeingWritten).await;
    let told = node.commands("a recovery", |c| !c.recover.is_empty()).await.recover;
    assert_eq!(told[0].block.unwrap().id, block.id);
    assert_eq!(told[0].replicas[0].uuid, "dn1");
    let outcome = |stamp| CommitBlockSynchronizationRequest {
        block: Some(block),
        new_generation_stamp: stamp,
        new_length: 3,
        close_file: true,
        delete_block: false,
        datanodes: vec!["dn1".into()],
        units: Default::default(),
    };
    let old = outcome(block.generation_stamp);
    assert!(world.datanodes().commit_block_synchronization(old).await.is_err());
    assert!(world.stat("/f").await.unwrap().open_for_write);
    let stamp = told[0].new_generation_stamp;
    world.datanodes().commit_block_synchronization(outcome(stamp)).await.unwrap();
    let status = world.stat("/f").await.unwrap();
    assert_eq!((status.length, status.open_for_write), (3, false));
    let settled = Block { id: block.id, generation_stamp: stamp, length: 3 };
    node.report(settled, ReplicaState::Finalized).await;
    world.until("it is there", |s| s.stats.unwrap().missing_blocks == 0).await;
    assert_eq!(world.locate("/f").await.blocks[0].block, Some(settled));
    let late = world.fs.complete(complete("/f", Some(block))).await;
    assert!(late.is_err() || !late.unwrap().into_inner().completed, "the writer lost it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_does_not_come_back_is_led_by_another_under_a_newer_stamp() {
    let mut world = World::with(|config| {
        config.replication = 2;
        config.lease_soft_limit_ms = 50;
        config.lease_hard_limit_ms = 100;
        config.block_recovery_timeout_ms = 100;
    })
    .await;
    let mut nodes =
        [Datanode::attach(&world, "dn1", 1).await, Datanode::attach(&world, "dn2", 2).await];
    world.create("/f").await;
    world.add_block("/f", None).await;
    let [one, two] = &mut nodes;
    let (one, two) = tokio::join!(
        one.commands("a recovery", |c| !c.recover.is_empty()),
        two.commands("a recovery", |c| !c.recover.is_empty())
    );
    assert_ne!(one.recover[0].new_generation_stamp, two.recover[0].new_generation_stamp);
    assert_eq!(one.recover[0].replicas.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_block_that_nobody_ever_wrote_goes_and_the_file_is_closed() {
    let mut world = World::with(|config| {
        config.lease_soft_limit_ms = 300;
        config.lease_hard_limit_ms = 1_000;
        config.heartbeat_interval_ms = 50;
        config.datanode_suspect_after_ms = 100;
        config.datanode_dead_after_ms = 200;
    })
    .await;
    let node = Datanode::attach(&world, "dn1", 1).await;
    world.create("/f").await;
    world.add_block("/f", None).await;
    drop(node);
    world.until("the block is gone", |s| s.stats.unwrap().blocks == 0).await;
    let status = world.stat("/f").await.unwrap();
    assert_eq!((status.length, status.open_for_write), (0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_takes_over_after_the_soft_limit_only() {
    let mut world = World::with(|config| config.lease_soft_limit_ms = 400).await;
    let node = Datanode::attach(&world, "dn1", 1).await;
    let block = world.write(&node, "/f", 9).await;
    let append = |holder: &str| AppendRequest {
        caller: boss(),
        path: "/f".into(),
        holder: holder.into(),
        ..Default::default()
    };
    let opened = world.fs.append(append("one")).await.unwrap().into_inner();
    assert_eq!(opened.last_block.unwrap().block, Some(block));
    assert_eq!(code(world.fs.append(append("two")).await), Code::FileOpenElsewhere);
    let until = Instant::now() + Duration::from_millis(700);
    while Instant::now() < until {
        let renew = RenewLeaseRequest { caller: boss(), holder: "one".into() };
        world.fs.renew_lease(renew).await.unwrap();
        assert_eq!(code(world.fs.append(append("two")).await), Code::FileOpenElsewhere);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut node = node;
    let taking = async {
        loop {
            // First refused, then refused because the block is being recovered.
            assert_eq!(code(world.fs.append(append("two")).await), Code::FileOpenElsewhere);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told = tokio::select! {
        told = node.commands("a recovery", |c| !c.recover.is_empty()) => told,
        () = taking => unreachable!("it goes on for ever"),
    };
    let outcome = CommitBlockSynchronizationRequest {
        block: told.recover[0].block,
        new_generation_stamp: told.recover[0].new_generation_stamp,
        new_length: 9,
        close_file: true,
        ..Default::default()
    };
    world.datanodes().commit_block_synchronization(outcome).await.unwrap();
    world.fs.append(append("two")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_report_is_taken_in_and_what_no_file_has_is_deleted() {
    let mut world = World::new().await;
    let mut node = Datanode::attach(&world, "dn1", 1).await;
    let kept = world.write(&node, "/a", 5).await;
    let lost = world.write(&node, "/b", 6).await;
    let foreign = Block { id: lost.id + 1_000_000, generation_stamp: 1, length: 1 };
    node.report_in_full(&[kept, foreign]).await;
    world.until("one is missing", |s| s.stats.unwrap().missing_blocks == 1).await;
    let told = node.commands("a deletion", |c| !c.invalidate.is_empty()).await.invalidate;
    assert_eq!((told.len(), told[0].id), (1, foreign.id));
    assert!(world.locate("/b").await.blocks[0].locations.is_empty());
    assert_eq!(world.locate("/a").await.blocks[0].locations.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_that_does_not_read_does_not_stop_others() {
    let mut world = World::with(|config| config.replication = 2).await;
    // It never reads what comes down.
    let _deaf = Datanode::attach(&world, "deaf", 1).await;
    let mut node = Datanode::attach(&world, "dn2", 2).await;
    for number in 0..200 {
        let path = format!("/d/{number}");
        world.write(&node, &path, 1).await;
    }
    let delete = DeleteRequest { caller: boss(), path: "/d".into(), recursive: true };
    world.fs.delete(delete).await.unwrap();
    let mut deleted = 0;
    while deleted < 200 {
        let told = node.commands("deletions", |c| !c.invalidate.is_empty()).await;
        deleted += told.invalidate.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_recovered_at_once_when_asked_for_also_by_its_holder() {
    for holder in ["w", "another"] {
        let mut world = World::new().await;
        let mut node = Datanode::attach(&world, "dn1", 1).await;
        world.create("/f").await;
        let block = world.add_block("/f", None).await.block.unwrap();
        node.report(block, ReplicaState::BeingWritten).await;
        let ask = RecoverLeaseRequest { caller: boss(), path: "/f".into(), holder: holder.into() };
        assert!(!world.fs.recover_lease(ask.clone()).await.unwrap().into_inner().closed);
        let told = node.commands("a recovery", |c| !c.recover.is_empty()).await.recover;
        let outcome = CommitBlockSynchronizationRequest {
            block: told[0].block,
            new_generation_stamp: told[0].new_generation_stamp,
            new_length: 4,
            close_file: true,
            datanodes: vec!["dn1".into()],
            ..Default::default()
        };
        world.datanodes().commit_block_synchronization(outcome).await.unwrap();
        assert!(world.fs.recover_lease(ask).await.unwrap().into_inner().closed);
        let located = world.locate("/f").await;
        assert_eq!(located.blocks[0].locations[0].uuid, "dn1", "there before it reports");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_inside_a_block_is_led_by_a_holder_and_closes_the_file() {
    let mut world = World::new().await;
    let mut node = Datanode::attach(&world, "dn1", 1).await;
    world.write(&node, "/f", 100).await;
    let cut = TruncateRequest { caller: boss(), path: "/f".into(), length: 40, holder: "t".into() };
    assert!(!world.fs.truncate(cut).await.unwrap().into_inner().done);
    let told = node.commands("a recovery", |c| !c.recover.is_empty()).await.recover;
    assert_eq!(told[0].new_length, Some(40));
    let outcome = CommitBlockSynchronizationRequest {
        block: told[0].block,
        new_generation_stamp: told[0].new_generation_stamp,
        new_length: 40,
        close_file: true,
        datanodes: vec!["dn1".into()],
        ..Default::default()
    };
    world.datanodes().commit_block_synchronization(outcome).await.unwrap();
    let status = world.stat("/f").await.unwrap();
    assert_eq!((status.length, status.open_for_write), (40, false));
}
