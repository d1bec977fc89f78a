//! Files that are written and read: create, blocks, append, truncate, leases, locations. DataNodes are played.

use proto::granary::{self, DatanodeAddress, DatanodeRegister, ReplicaState, VolumeStatus};
use proto::{BlockId, GenerationStamp};

use super::*;
use crate::cluster::datanodes::Registration;
use crate::cluster::replicas::Reported;
use crate::front::hadoop::blocks::demand_whole_range;
use crate::front::node::look_up;

pub(super) const HOLDER: &str = "DFSClient_1";
pub(super) const MIB: u64 = 1 << 20;

impl World {
    /// A DataNode that has nothing yet.
    pub(super) fn datanode(&self, number: u32) -> Registration {
        let volume = VolumeStatus {
            capacity_bytes: 1 << 40,
            remaining_bytes: 1 << 40,
            ..Default::default()
        };
        let address = DatanodeAddress {
            uuid: format!("dn{number}"),
            host: format!("10.0.0.{number}"),
            data_port: 9_866,
            ipc_port: 9_867,
            ..Default::default()
        };
        let message = DatanodeRegister {
            address: Some(address),
            volumes: vec![volume],
            ..Default::default()
        };
        self.service.0.volatile.cluster(|cluster, now_ms| {
            let at = cluster.register(now_ms, message).unwrap();
            cluster.report_chunk(now_ms, at.index, at.epoch, 1, 0).unwrap();
            cluster.report_part(at.index, at.epoch, &[], true, &|_| None).unwrap();
            at
        })
    }

    /// A DataNode has finished a replica.
    pub(super) fn stored(&self, at: &Registration, block: &ExtendedBlockProto) {
        let replica = Reported {
            id: BlockId(block.block_id),
            stamp: GenerationStamp(block.generation_stamp),
            length: block.num_bytes(),
            state: ReplicaState::Finalized,
        };
        self.service.0.log.read(|state| {
            self.service.0.volatile.cluster(|cluster, now_ms| {
                let truth = |id| look_up(state, id);
                cluster.changes(now_ms, at.index, at.epoch, &[replica], &truth).unwrap();
            });
        });
    }

    pub(super) async fn create(&self, path: &str) -> HdfsFileStatusProto {
        self.ask::<CreateResponseProto>("create", &create(path)).await.fs.unwrap()
    }

    pub(super) async fn add_block(
        &self,
        path: &str,
        previous: Option<ExtendedBlockProto>,
    ) -> LocatedBlockProto {
        self.ask::<AddBlockResponseProto>("addBlock", &add_block(path, HOLDER, previous))
            .await
            .block
    }

    /// A closed file of one block.
    async fn file(&self, at: &Registration, path: &str, length: u64) -> ExtendedBlockProto {
        self.create(path).await;
        let mut block = self.add_block(path, None).await.b;
        block.num_bytes = Some(length);
        self.stored(at, &block);
        let reply: CompleteResponseProto =
            self.ask("complete", &complete(path, Some(block.clone()))).await;
        assert!(reply.result);
        block
    }

    pub(super) async fn locate(&self, path: &str) -> LocatedBlocksProto {
        let request = locations(path);
        self.ask::<GetBlockLocationsResponseProto>("getBlockLocations", &request)
            .await
            .locations
            .unwrap()
    }
}

pub(super) fn create(path: &str) -> CreateRequestProto {
    CreateRequestProto {
        src: path.into(),
        masked: FsPermissionProto { perm: 0o644 },
        client_name: HOLDER.into(),
        create_flag: CreateFlagProto::Create as u32,
        create_parent: true,
        replication: 1,
        block_size: MIB,
        ..Default::default()
    }
}

pub(super) fn add_block(
    path: &str,
    holder: &str,
    previous: Option<ExtendedBlockProto>,
) -> AddBlockRequestProto {
    AddBlockRequestProto {
        src: path.into(),
        client_name: holder.into(),
        previous,
        ..Default::default()
    }
}

pub(super) fn complete(path: &str, last: Option<ExtendedBlockProto>) -> CompleteRequestProto {
    CompleteRequestProto { src: path.into(), client_name: HOLDER.into(), last, file_id: None }
}

fn locations(path: &str) -> GetBlockLocationsRequestProto {
    GetBlockLocationsRequestProto { src: path.into(), offset: 0, length: 10 * MIB }
}

fn append(path: &str, holder: &str, flag: CreateFlagProto) -> AppendRequestProto {
    AppendRequestProto { src: path.into(), client_name: holder.into(), flag: Some(flag as u32) }
}

fn truncate(path: &str, new_length: u64) -> TruncateRequestProto {
    TruncateRequestProto { src: path.into(), new_length, client_name: HOLDER.into() }
}

#[tokio::test]
async fn create_is_refused_by_its_table() {
    let world = World::new().await;
    world.mkdirs("/d").await;
    world.create("/open").await;
    let closed = world.create("/closed").await;
    assert!(closed.file_id() > 0 && closed.length == 0);
    let reply: CompleteResponseProto = world.ask("complete", &complete("/closed", None)).await;
    assert!(reply.result);
    let other = |path: &str| CreateRequestProto { client_name: "other".into(), ..create(path) };
    for (request, class) in [
        (create("/closed"), "FileAlreadyExistsException"),
        (create("/d"), "FileAlreadyExistsException"),
        (other("/open"), "AlreadyBeingCreatedException"),
        (CreateRequestProto { create_parent: false, ..create("/none/x") }, "FileNotFoundException"),
        (create("/closed/x"), "ParentNotDirectoryException"),
        (CreateRequestProto { block_size: 100, ..create("/x") }, "IOException"),
        (CreateRequestProto { replication: 0, ..create("/x") }, "IOException"),
        (CreateRequestProto { replication: 1_000, ..create("/x") }, "IOException"),
        (CreateRequestProto { create_flag: 2, ..create("/x") }, "FileNotFoundException"),
        (create("/a:b"), "InvalidPathException"),
        (create("/.reserved/x"), "HadoopIllegalArgumentException"),
        (
            create(&format!("/{}", "x".repeat(300))),
            "FSLimitException$PathComponentTooLongException",
        ),
    ] {
        assert_eq!(world.refused("create", &request).await, class, "{}", request.src);
    }
    let ec =
        CreateRequestProto { ec_policy_name: Some("RS-LEGACY-6-3-1024k".into()), ..create("/x") };
    assert_eq!(world.refused("create", &ec).await, "HadoopIllegalArgumentException");
}

#[tokio::test]
async fn create_over_a_file_that_is_open_elsewhere_gives_a_new_one() {
    let world = World::new().await;
    let first = world.create("/f").await;
    let over = CreateRequestProto { client_name: "other".into(), create_flag: 3, ..create("/f") };
    let second = world.ask::<CreateResponseProto>("create", &over).await.fs.unwrap();
    assert_ne!(first.file_id, second.file_id);
    assert_eq!(world.refused("complete", &complete("/f", None)).await, "LeaseExpiredException");
}

#[tokio::test]
async fn a_repeated_create_gets_the_same_file() {
    let world = World::new().await;
    let call = world.new_call();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let reply: CreateResponseProto =
            world.ask_again("boss", call, "create", &create("/f")).await.unwrap();
        ids.push(reply.fs.unwrap().file_id());
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_file_is_written_and_located() {
    let world = World::new().await;
    let at = world.datanode(1);
    world.create("/f").await;
    let first = world.add_block("/f", None).await;
    assert_eq!(first.locs[0].id.datanode_uuid, "dn1");
    assert_eq!((first.locs[0].id.xfer_port, first.locs[0].id.ipc_port), (9_866, 9_867));
    assert_eq!((first.storage_types.len(), first.storage_i_ds.len()), (1, 1));
    let again = world.add_block("/f", None).await;
    assert_eq!(again.b, first.b, "an untouched block is given again");
    let open = world.locate("/f").await;
    assert!(open.under_construction && !open.is_last_block_complete);
    assert_eq!((open.file_length, open.last_block.unwrap().b.block_id), (0, first.b.block_id));
    let full = ExtendedBlockProto { num_bytes: Some(MIB), ..first.b };
    let waiting = add_block("/f", HOLDER, Some(full.clone()));
    assert_eq!(world.refused("addBlock", &waiting).await, "NotReplicatedYetException");
    let early: CompleteResponseProto =
        world.ask("complete", &complete("/f", Some(full.clone()))).await;
    assert!(!early.result, "no replica was reported yet");
    world.stored(&at, &full);
    let second = world.add_block("/f", Some(full)).await;
    assert_eq!(second.offset, MIB);
    let last = ExtendedBlockProto { num_bytes: Some(7), ..second.b };
    world.stored(&at, &last);
    for _ in 0..2 {
        let reply: CompleteResponseProto =
            world.ask("complete", &complete("/f", Some(last.clone()))).await;
        assert!(reply.result, "also when it is closed already");
    }
    let closed = world.locate("/f").await;
    assert_eq!((closed.file_length, closed.blocks.len()), (MIB + 7, 2));
    assert!(!closed.under_construction && closed.is_last_block_complete);
    let info: GetLocatedFileInfoResponseProto = world
        .ask(
            "getLocatedFileInfo",
            &GetLocatedFileInfoRequestProto { src: Some("/f".into()), need_block_token: None },
        )
        .await;
    assert_eq!(info.fs.unwrap().locations.unwrap().blocks, closed.blocks);
}

#[tokio::test]
async fn who_does_not_hold_the_lease_is_told_so() {
    let world = World::new().await;
    world.datanode(1);
    world.mkdirs("/d").await;
    world.create("/f").await;
    let block = world.add_block("/f", None).await.b;
    let wrong = || "somebody".to_owned();
    assert_eq!(
        world.refused("addBlock", &add_block("/f", "x", None)).await,
        "LeaseExpiredException"
    );
    assert_eq!(
        world.refused("addBlock", &add_block("/none", "x", None)).await,
        "LeaseExpiredException"
    );
    assert_eq!(
        world.refused("addBlock", &add_block("/d", "x", None)).await,
        "LeaseExpiredException"
    );
    let request = CompleteRequestProto { client_name: wrong(), ..complete("/f", None) };
    assert_eq!(world.refused("complete", &request).await, "LeaseExpiredException");
    assert_eq!(world.refused("complete", &complete("/none", None)).await, "LeaseExpiredException");
    let request = FsyncRequestProto { src: "/none".into(), client: wrong(), ..Default::default() };
    assert_eq!(world.refused("fsync", &request).await, "LeaseExpiredException");
    let request = UpdateBlockForPipelineRequestProto { block: block.clone(), client_name: wrong() };
    assert_eq!(world.refused("updateBlockForPipeline", &request).await, "LeaseExpiredException");
    // A block that is gone is no question of leases.
    let gone = ExtendedBlockProto { block_id: 1 << 40, ..block.clone() };
    let request = UpdateBlockForPipelineRequestProto { block: gone, client_name: wrong() };
    assert_eq!(world.refused("updateBlockForPipeline", &request).await, "IOException");
    let request = AbandonBlockRequestProto {
        b: block.clone(),
        src: "/f".into(),
        holder: wrong(),
        file_id: None,
    };
    assert_eq!(world.refused("abandonBlock", &request).await, "LeaseExpiredException");
    let pool = ExtendedBlockProto { pool_id: "BP-other".into(), ..block };
    assert_eq!(
        world.refused("addBlock", &add_block("/f", HOLDER, Some(pool))).await,
        "IOException"
    );
}

#[tokio::test]
async fn a_failed_pipeline_goes_on_under_a_new_stamp() {
    let world = World::new().await;
    let (a, _) = (world.datanode(1), world.datanode(2));
    world.create("/f").await;
    let old = world.add_block("/f", None).await.b;
    let request =
        UpdateBlockForPipelineRequestProto { block: old.clone(), client_name: HOLDER.into() };
    let minted: UpdateBlockForPipelineResponseProto =
        world.ask("updateBlockForPipeline", &request).await;
    let new = ExtendedBlockProto { num_bytes: Some(5), ..minted.block.b };
    assert!(new.generation_stamp > old.generation_stamp && new.block_id == old.block_id);
    let request = UpdatePipelineRequestProto {
        client_name: HOLDER.into(),
        old_block: old,
        new_block: new.clone(),
        new_nodes: vec![DatanodeIdProto { datanode_uuid: "dn1".into(), ..Default::default() }],
        storage_i_ds: vec!["DS-dn1".into()],
    };
    world.ask::<UpdatePipelineResponseProto>("updatePipeline", &request).await;
    world.stored(&a, &new);
    assert!(
        world.ask::<CompleteResponseProto>("complete", &complete("/f", Some(new))).await.result
    );
    assert_eq!(world.stat("/f").await.unwrap().length, 5);
}

/// The bug this guards against: the call failed, and with it a client that is set to go on with what is left.
#[tokio::test]
async fn without_a_datanode_to_add_the_old_pipeline_is_named_again() {
    // A NameNode that no longer waits for DataNodes to come back after its own start.
    let world = World::with(|config| config.safemode_extension_ms = 0).await;
    world.datanode(1);
    world.create("/f").await;
    let block = world.add_block("/f", None).await;
    let mut request = GetAdditionalDatanodeRequestProto {
        src: "/f".into(),
        blk: block.b,
        existings: block.locs.clone(),
        excludes: vec![],
        num_additional_nodes: 1,
        client_name: HOLDER.into(),
        ..Default::default()
    };
    let reply: GetAdditionalDatanodeResponseProto =
        world.ask("getAdditionalDatanode", &request).await;
    assert_eq!(reply.block.locs, block.locs);
    world.datanode(2);
    let reply: GetAdditionalDatanodeResponseProto =
        world.ask("getAdditionalDatanode", &request).await;
    assert_eq!(reply.block.locs.len(), 2);
    request.excludes = vec![reply.block.locs[1].clone()];
    let reply: GetAdditionalDatanodeResponseProto =
        world.ask("getAdditionalDatanode", &request).await;
    assert_eq!(reply.block.locs, block.locs);
}

#[tokio::test]
async fn append_reopens_the_last_block_or_begins_one_of_its_own() {
    let world = World::new().await;
    let at = world.datanode(1);
    world.mkdirs("/d").await;
    let block = world.file(&at, "/f", 7).await;
    for (path, class) in [("/none", "FileNotFoundException"), ("/d", "FileAlreadyExistsException")]
    {
        let request = append(path, HOLDER, CreateFlagProto::Append);
        assert_eq!(world.refused("append", &request).await, class);
    }
    let request = append("/f", HOLDER, CreateFlagProto::NewBlock);
    let reply: AppendResponseProto = world.ask("append", &request).await;
    assert_eq!((reply.block, reply.stat.unwrap().length), (None, 7));
    let fresh = world.add_block("/f", None).await;
    assert_eq!(fresh.offset, 7);
    let last = ExtendedBlockProto { num_bytes: Some(3), ..fresh.b };
    world.stored(&at, &last);
    assert!(
        world
            .ask::<CompleteResponseProto>("complete", &complete("/f", Some(last.clone())))
            .await
            .result
    );
    let lengths: Vec<u64> =
        world.locate("/f").await.blocks.iter().map(|at| at.b.num_bytes()).collect();
    assert_eq!(lengths, [7, 3]);
    let request = append("/f", HOLDER, CreateFlagProto::Append);
    let reply: AppendResponseProto = world.ask("append", &request).await;
    assert_eq!(reply.block.unwrap().b.block_id, last.block_id);
    assert_ne!(last.block_id, block.block_id);
    let other = append("/f", "other", CreateFlagProto::Append);
    assert_eq!(world.refused("append", &other).await, "AlreadyBeingCreatedException");
    assert_eq!(world.refused("truncate", &truncate("/f", 1)).await, "AlreadyBeingCreatedException");
}

#[tokio::test]
async fn truncate_at_a_blocks_end_is_done_at_once_and_beyond_the_file_is_refused() {
    let world = World::new().await;
    let at = world.datanode(1);
    world.file(&at, "/f", 7).await;
    assert_eq!(
        world.refused("truncate", &truncate("/f", 8)).await,
        "HadoopIllegalArgumentException"
    );
    assert_eq!(world.refused("truncate", &truncate("/none", 0)).await, "FileNotFoundException");
    assert!(world.ask::<TruncateResponseProto>("truncate", &truncate("/f", 7)).await.result);
    assert!(!world.ask::<TruncateResponseProto>("truncate", &truncate("/f", 3)).await.result);
    assert_eq!(world.stat("/f").await.unwrap().length, 3);
    world.file(&at, "/g", 7).await;
    assert!(world.ask::<TruncateResponseProto>("truncate", &truncate("/g", 0)).await.result);
}

/// HDFS's clients take an answer for the whole range: it was cut silently at 20,000 blocks.
#[tokio::test]
async fn a_range_of_blocks_is_answered_whole_and_in_pages_to_who_asks_on() {
    let world = World::new().await;
    let at = world.datanode(1);
    for name in ["/f", "/g", "/h"] {
        world.file(&at, name, 7).await;
    }
    let concat = ConcatRequestProto { trg: "/f".into(), srcs: vec!["/g".into(), "/h".into()] };
    let _: ConcatResponseProto = world.ask("concat", &concat).await;
    let offsets = |located: &granary::LocatedBlocks| {
        located.blocks.iter().map(|block| block.offset).collect::<Vec<_>>()
    };
    let page = |offset| {
        let message = granary::GetBlockLocationsRequest {
            caller: Some(granary::Caller { user: "root".into(), ..Default::default() }),
            path: "/f".into(),
            offset,
            length: 100,
        };
        world.service.0.locate_blocks(message, None, 2).unwrap()
    };
    let (first, count) = page(0);
    assert_eq!((offsets(&first), count), (vec![0, 7], 3));
    let (rest, count) = page(14);
    assert_eq!((offsets(&rest), count), (vec![14], 1));
    assert_eq!(world.locate("/f").await.blocks.len(), 3);
    assert!(demand_whole_range("/f", 3, 3).is_ok());
    assert!(demand_whole_range("/f", 2, 3).is_err());
}

#[tokio::test]
async fn locations_of_what_is_no_file_are_a_file_not_found() {
    let world = World::new().await;
    world.mkdirs("/d").await;
    world.create("/f").await;
    for path in ["/none", "/d", "/f/below"] {
        let class = world.refused("getBlockLocations", &locations(path)).await;
        assert_eq!(class, "FileNotFoundException", "{path}");
        let request = IsFileClosedRequestProto { src: path.into() };
        assert_eq!(world.refused("isFileClosed", &request).await, "FileNotFoundException");
        let request = GetPreferredBlockSizeRequestProto { filename: path.into() };
        assert_eq!(world.refused("getPreferredBlockSize", &request).await, "FileNotFoundException");
    }
    let negative = GetBlockLocationsRequestProto { offset: u64::MAX, ..locations("/f") };
    let class = world.refused("getBlockLocations", &negative).await;
    assert_eq!(class, "HadoopIllegalArgumentException");
    assert!(world.locate("/f").await.blocks.is_empty());
}

#[tokio::test]
async fn a_lease_is_recovered_and_the_file_is_closed() {
    let world = World::new().await;
    world.create("/f").await;
    let closed = async || {
        let request = IsFileClosedRequestProto { src: "/f".into() };
        world.ask::<IsFileClosedResponseProto>("isFileClosed", &request).await.result
    };
    assert!(!closed().await);
    world
        .ask::<RenewLeaseResponseProto>(
            "renewLease",
            &RenewLeaseRequestProto { client_name: HOLDER.into(), namespaces: vec![] },
        )
        .await;
    let open: ListOpenFilesResponseProto =
        world.ask("listOpenFiles", &ListOpenFilesRequestProto::default()).await;
    assert_eq!(
        (open.entries[0].path.as_str(), open.entries[0].client_name.as_str()),
        ("/f", HOLDER)
    );
    let request = RecoverLeaseRequestProto { src: "/f".into(), client_name: "other".into() };
    assert!(world.ask::<RecoverLeaseResponseProto>("recoverLease", &request).await.result);
    assert!(closed().await);
}

#[tokio::test]
async fn a_listing_carries_locations_if_they_are_wanted() {
    let world = World::new().await;
    let at = world.datanode(1);
    let block = world.file(&at, "/d/f", 7).await;
    let request =
        GetListingRequestProto { src: "/d".into(), start_after: Bytes::new(), need_location: true };
    let page = world.ask::<GetListingResponseProto>("getListing", &request).await.dir_list.unwrap();
    let located = page.partial_listing[0].locations.clone().unwrap();
    assert_eq!((located.file_length, located.blocks[0].b.block_id), (7, block.block_id));
    let of_file = world.list("/d/f", "").await.unwrap();
    assert!(of_file.partial_listing.len() == 1 && of_file.partial_listing[0].path.is_empty());
}

#[tokio::test]
async fn a_block_goes_where_its_writer_would_like_it() {
    let world = World::new().await;
    for number in 1..6 {
        world.datanode(number);
    }
    let near = AddBlockFlagProto::NoLocalWrite as i32;
    for number in [4, 2] {
        let path = format!("/f{number}");
        world.create(&path).await;
        let wish =
            vec!["nowhere:1".into(), "10.0.0.9:9866".into(), format!("10.0.0.{number}:9866")];
        let request = AddBlockRequestProto {
            favored_nodes: wish,
            flags: vec![near],
            ..add_block(&path, HOLDER, None)
        };
        let block = world.ask::<AddBlockResponseProto>("addBlock", &request).await.block;
        assert_eq!(block.locs[0].id.datanode_uuid, format!("dn{number}"));
    }
}
