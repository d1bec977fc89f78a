//! Striped files over the native protocol: block groups, their units on DataNodes, writers that lose some.

use proto::erasure::Policy;
use proto::granary::*;
use proto::{BlockId, Code};

use crate::http::get;
use crate::world::*;

const POLICY: &str = "RS-3-2-1024k";

fn policy() -> Policy {
    Policy::by_name(POLICY).expect("built in")
}

async fn nodes(world: &World, count: u32) -> Vec<Datanode> {
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(Datanode::attach(world, &format!("dn{number}"), number).await);
    }
    nodes
}

async fn create(world: &mut World, path: &str) -> FileStatus {
    let message = CreateRequest {
        caller: boss(),
        path: path.into(),
        holder: "w".into(),
        mode: 0o644,
        create_parents: true,
        erasure_policy: Some(policy().id.into()),
        ..Default::default()
    };
    world.fs.create(message).await.unwrap().into_inner().status.unwrap()
}

fn unit(group: Block, unit: u8) -> Block {
    let id = BlockId(group.id).of_unit(unit).0;
    Block { id, length: policy().unit_bytes(group.length, unit), ..group }
}

fn stats(status: &ClusterStatus) -> FsStats {
    status.stats.unwrap()
}

/// Which of `nodes` a location is.
fn number(location: &DatanodeAddress) -> usize {
    location.uuid[2..].parse::<usize>().unwrap() - 1
}

/// Has the nodes of some units report them finalized.
async fn report(nodes: &[Datanode], located: &LocatedBlock, group: Block, units: &[u8]) {
    for (location, at) in located.locations.iter().zip(&located.units) {
        if units.contains(at) && unit(group, *at).length > 0 {
            nodes[number(location)].report(unit(group, *at), ReplicaState::Finalized).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_striped_file_gets_groups_of_units_on_different_nodes_and_is_found_by_unit() {
    let mut world = World::new().await;
    let nodes = nodes(&world, 6).await;
    let status = create(&mut world, "/f").await;
    assert_eq!((status.erasure_policy, status.replication), (policy().id.into(), 1));
    let located = world.add_block("/f", None).await;
    let group = located.block.unwrap();
    assert_eq!(group.id, BlockId::FIRST_GROUP.0);
    assert_eq!(located.erasure_policy, u32::from(policy().id));
    assert_eq!(located.units[..], [0, 1, 2, 3, 4]);
    let mut uuids: Vec<_> = located.locations.iter().map(|at| at.uuid.clone()).collect();
    uuids.sort();
    uuids.dedup();
    assert_eq!(uuids.len(), 5, "five different nodes");

    let full = Block { length: 3 * MIB, ..group };
    report(&nodes, &located, full, &[0, 1, 2, 3, 4]).await;
    let next = world.add_block("/f", Some(full)).await;
    assert_eq!(next.block.unwrap().id, group.id + BlockId::GROUP_STEP);
    assert_eq!(next.offset, 3 * MIB);
    let last = Block { length: MIB + 5, ..next.block.unwrap() };
    report(&nodes, &next, last, &[0, 1, 2, 3, 4]).await;
    assert!(world.complete("/f", Some(last)).await);
    let found = world.locate("/f").await;
    assert_eq!(found.status.unwrap().length, 4 * MIB + 5);
    assert_eq!(found.blocks.len(), 2);
    assert_eq!(found.blocks[0].units[..], [0, 1, 2, 3, 4]);
    assert_eq!(found.blocks[1].units[..], [0, 1, 3, 4], "unit 2 has no byte");
    assert!(!found.blocks[1].corrupt);
    let summary = PathRequest { caller: boss(), path: "/f".into() };
    let summary = world.fs.get_content_summary(summary).await.unwrap().into_inner();
    let space = policy().group_space(3 * MIB) + policy().group_space(MIB + 5);
    assert_eq!(summary.space_consumed, space, "parity counts");
    let status = world.until("all is well", |s| stats(s).under_replicated_blocks == 0).await;
    let counted = stats(&status);
    assert_eq!((counted.blocks, counted.missing_blocks), (2, 0), "a group is one block");
    let bean = "/jmx?qry=Hadoop:service=NameNode,name=ECBlockGroupsState";
    let bean = get(world.handle().http_addr(), bean).await;
    assert!(bean.contains("\"TotalECBlockGroups\":2"), "{bean}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_goes_on_without_m_units_and_what_they_hold_is_fenced() {
    let mut world = World::with(|config| config.complete_hold_ms = 50).await;
    let nodes = nodes(&world, 5).await;
    create(&mut world, "/f").await;
    let located = world.add_block("/f", None).await;
    let old = located.block.unwrap();
    let ask =
        UpdateBlockForPipelineRequest { caller: boss(), block: Some(old), holder: "w".into() };
    let stamped = world.fs.update_block_for_pipeline(ask).await.unwrap().into_inner();
    assert_eq!((stamped.units.len(), stamped.locations.len()), (5, 5));
    let new = stamped.block.unwrap();
    let mut datanodes: Vec<String> = located.locations.iter().map(|at| at.uuid.clone()).collect();
    datanodes[1].clear();
    datanodes[4].clear();
    let update = UpdatePipelineRequest {
        caller: boss(),
        holder: "w".into(),
        old_block: Some(old),
        new_block: Some(new),
        datanodes,
    };
    world.fs.update_pipeline(update).await.unwrap();
    let last = Block { length: 2 * MIB + 9, ..new };
    report(&nodes, &located, last, &[0, 2]).await;
    assert!(!world.complete("/f", Some(last)).await, "two of three needed units");
    report(&nodes, &located, last, &[3]).await;
    assert!(world.complete("/f", Some(last)).await);
    let found = world.locate("/f").await;
    assert_eq!(found.blocks[0].units[..], [0, 2, 3]);
    // The lost units come back under the stamp that they were begun with.
    let lost = number(&located.locations[1]);
    let stale = Block { length: MIB, generation_stamp: old.generation_stamp, ..unit(last, 1) };
    nodes[lost].report(stale, ReplicaState::WaitingRecovery).await;
    nodes[lost].beat().await;
    world.until("it is in", |s| s.datanodes[lost].replicas == 1).await;
    assert_eq!(world.locate("/f").await.blocks[0].units[..], [0, 2, 3], "a stale unit is not read");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_nodes_for_the_data_units_are_refused_and_fewer_than_all_are_enough() {
    let mut world = World::with(|config| config.safemode_extension_ms = 0).await;
    let mut nodes = nodes(&world, 2).await;
    create(&mut world, "/f").await;
    let refused = world.fs.add_block(add_block("/f", None)).await;
    assert_eq!(code(refused), Code::NotEnoughDatanodes);
    nodes.push(Datanode::attach(&world, "dn3", 3).await);
    nodes.push(Datanode::attach(&world, "dn4", 4).await);
    let located = world.add_block("/f", None).await;
    assert_eq!(located.units[..], [0, 1, 2, 3]);
    let last = Block { length: 9, ..located.block.unwrap() };
    report(&nodes, &located, last, &[0, 3]).await;
    assert!(world.complete("/f", Some(last)).await, "one unit is enough for a cell");
    let lacks =
        |s: &ClusterStatus| (stats(s).under_replicated_blocks, stats(s).missing_blocks) == (1, 0);
    world.until("two units lack", lacks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_and_its_units_are_known_again_after_a_restart_and_go_with_their_file() {
    let mut world = World::with(|config| config.safemode_extension_ms = 0).await;
    let five = nodes(&world, 5).await;
    create(&mut world, "/f").await;
    let located = world.add_block("/f", None).await;
    let last = Block { length: 3 * MIB, ..located.block.unwrap() };
    report(&five, &located, last, &[0, 1, 2, 3, 4]).await;
    assert!(world.complete("/f", Some(last)).await);
    drop(five);
    world.restart().await;
    let status = world.status().await;
    assert!(!status.safe_mode_reason.is_empty(), "a group without units is not safe");
    let mut five = nodes(&world, 5).await;
    for (location, at) in located.locations.iter().zip(&located.units) {
        five[number(location)].report_in_full(&[unit(last, *at)]).await;
    }
    world.until("safe mode ends", |s| s.safe_mode_reason.is_empty()).await;
    assert_eq!(world.locate("/f").await.blocks[0].units[..], [0, 1, 2, 3, 4]);
    let gone = DeleteRequest { caller: boss(), path: "/f".into(), recursive: false };
    world.fs.delete(gone).await.unwrap();
    for (location, at) in located.locations.iter().zip(&located.units) {
        let id = unit(last, *at).id;
        let node = &mut five[number(location)];
        node.commands("its unit goes", |c| c.invalidate.iter().any(|block| block.id == id)).await;
    }
}

/// What a check of one file finds: the file, and its blocks.
async fn check(world: &World, path: &str) -> (CheckedFile, Vec<CheckedBlock>) {
    let message =
        CheckFilesRequest { caller: boss(), path: path.into(), blocks: true, ..Default::default() };
    let mut events = world.admin().check_files(message).await.unwrap().into_inner();
    let (mut file, mut blocks) = (None, Vec::new());
    while let Some(event) = events.message().await.unwrap() {
        match event.event.unwrap() {
            check_files_event::Event::File(found) => file = Some(found),
            check_files_event::Event::Block(found) => blocks.push(found),
            _ => {}
        }
    }
    (file.unwrap(), blocks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_groups_by_their_good_units_and_how_many_are_needed() {
    let mut world = World::with(|config| config.safemode_extension_ms = 0).await;
    let nodes = nodes(&world, 5).await;
    create(&mut world, "/f").await;
    let located = world.add_block("/f", None).await;
    let last = Block { length: 3 * MIB, ..located.block.unwrap() };
    report(&nodes, &located, last, &[0, 1, 3]).await;
    assert!(world.complete("/f", Some(last)).await);
    let (file, blocks) = check(&world, "/f").await;
    assert_eq!((file.erasure_policy, file.replication), (policy().id.into(), 1));
    assert_eq!((file.missing_blocks, file.short_blocks), (0, 1));
    assert_eq!((blocks[0].wanted, blocks[0].live, blocks[0].needed), (5, 3, 3));
    assert_eq!(blocks[0].units[..], [0, 1, 3]);
    let corrupt = unit(last, 1);
    nodes[number(&located.locations[1])].report(corrupt, ReplicaState::Corrupt).await;
    world.until("it is in", |s| stats(s).missing_blocks == 1).await;
    let (file, blocks) = check(&world, "/f").await;
    assert_eq!((file.missing_blocks, file.damaged_blocks, file.short_blocks), (1, 1, 0));
    assert_eq!((blocks[0].live, blocks[0].damaged), (2, true));
    assert!(world.locate("/f").await.blocks[0].corrupt);
    let page = "/fsck?ugi=boss&path=%2F&files=1&blocks=1&locations=1";
    let text = get(world.handle().http_addr(), page).await;
    assert!(
        text.contains("/f 3145728 bytes, erasure-coded: policy=RS-3-2-1024k, 1 block(s):"),
        "{text}"
    );
    assert!(text.contains("Status: CORRUPT"), "{text}");
    assert!(text.contains("blk_-9223372036854775808_"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_given_to_folders_and_a_files_content_is_exchanged() {
    let mut world = World::new().await;
    let nodes = nodes(&world, 5).await;
    world.mkdir("/d").await;
    let change = |action, policy: u32| ChangeErasureCodingRequest {
        caller: boss(),
        action,
        path: "/d".into(),
        policy,
    };
    use change_erasure_coding_request::Action;
    let id = u32::from(policy().id);
    let mut admin = world.admin();
    admin.change_erasure_coding(change(Action::Set as i32, id)).await.unwrap();
    let ask = GetErasureCodingRequest { caller: boss(), path: "/d".into() };
    let told = admin.get_erasure_coding(ask).await.unwrap().into_inner();
    assert_eq!((told.policy, told.own, told.policies.len()), (id, Some(id), 5));
    assert!(told.policies.iter().any(|policy| policy.name == POLICY && policy.enabled));
    let missing = admin.change_erasure_coding(change(Action::Unspecified as i32, id)).await;
    assert_eq!(code(missing), Code::InvalidArgument);

    let old = world.write(&nodes[0], "/plain", 9).await;
    world.create("/d/coded").await;
    let located = world.add_block("/d/coded", None).await;
    let new = Block { length: 9, ..located.block.unwrap() };
    report(&nodes, &located, new, &[0, 3, 4]).await;
    assert!(world.complete("/d/coded", Some(new)).await);
    let read = world.stat("/plain").await.unwrap();
    let exchange = |inode| ExchangeContentRequest {
        caller: boss(),
        target: "/plain".into(),
        source: "/d/coded".into(),
        inode,
        modified_ns: read.modified_ns,
    };
    assert_eq!(code(world.fs.exchange_content(exchange(1)).await), Code::Stale);
    world.fs.exchange_content(exchange(read.inode)).await.unwrap();
    let found = world.locate("/plain").await;
    assert_eq!(found.blocks[0].block.unwrap().id, new.id);
    assert_eq!(found.blocks[0].units[..], [0, 3, 4]);
    assert_eq!(world.locate("/d/coded").await.blocks[0].block.unwrap().id, old.id);
    world.restart().await;
    assert_eq!(world.stat("/plain").await.unwrap().erasure_policy, id);
    assert_eq!(world.stat("/d").await.unwrap().erasure_policy, id);
}
