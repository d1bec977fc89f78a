//! A NameNode in memory that knows one file, with what a writer and a reader need, and fails on demand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use proto::erasure::Policy;
use proto::granary::namespace_server::{Namespace, NamespaceServer};
use proto::granary::*;
use proto::{Code, Error, Result};
use tonic::Status;
use tonic::transport::server::TcpIncoming;

/// The one file, and what was asked.
#[derive(Debug, Default)]
pub struct State {
    pub block_bytes: u64,
    pub replication: usize,
    /// How files are coded; `None`: replicated.
    pub policy: Option<Policy>,
    pub datanodes: Vec<DatanodeAddress>,
    pub blocks: Vec<LocatedBlock>,
    pub open: bool,
    /// Calls by name, in order, with their call ids.
    pub calls: Vec<(&'static str, u64)>,
    /// How many of the next calls of a name are answered with this code.
    pub fail_next: HashMap<&'static str, (usize, Option<Code>)>,
    pub reported_bad: Vec<String>,
    /// Where framed RPC is, as told.
    pub rpc_port: u32,
    minted: u64,
}

#[derive(Clone, Debug, Default)]
pub struct FakeNamenode {
    pub state: Arc<Mutex<State>>,
}

impl FakeNamenode {
    pub async fn start(
        block_bytes: u64,
        replication: usize,
        nodes: Vec<DatanodeAddress>,
    ) -> (Self, String) {
        let this = Self::default();
        {
            let mut state = this.state.lock().unwrap();
            state.block_bytes = block_bytes;
            state.replication = replication;
            state.datanodes = nodes;
            state.minted = 1000;
        }
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let serving = tonic::transport::Server::builder()
            .add_service(NamespaceServer::new(this.clone()))
            .serve_with_incoming(incoming.with_nodelay(Some(true)));
        tokio::spawn(serving);
        (this, address)
    }

    pub fn count(&self, call: &str) -> usize {
        self.state.lock().unwrap().calls.iter().filter(|(name, _)| *name == call).count()
    }
}

impl State {
    fn enter(&mut self, name: &'static str, caller: Option<&Caller>) -> Result<()> {
        self.calls.push((name, caller.map_or(0, |caller| caller.call_id)));
        let Some((left, code)) = self.fail_next.get_mut(name) else { return Ok(()) };
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        Err(Error::new(code.unwrap_or(Code::Unavailable), "as the test wants it"))
    }

    fn status(&self) -> FileStatus {
        FileStatus {
            inode: 20_000,
            kind: FileKind::File as i32,
            length: self.blocks.iter().map(|b| b.block.unwrap().length).sum(),
            block_bytes: self.block_bytes,
            erasure_policy: self.policy.map_or(0, |policy| policy.id.into()),
            open_for_write: self.open,
            ..Default::default()
        }
    }

    fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.minted
    }

    /// Takes the last block's length, as addBlock and complete name it.
    fn commit(&mut self, told: Option<Block>) -> Result<()> {
        match (self.blocks.last_mut(), told) {
            (None, None) => Ok(()),
            (Some(last), Some(told)) => {
                let block = last.block.as_mut().unwrap();
                if (block.id, block.generation_stamp) != (told.id, told.generation_stamp) {
                    return Err(Error::new(Code::Stale, format!("{block:?}, told {told:?}")));
                }
                block.length = told.length;
                Ok(())
            }
            (last, told) => Err(Error::new(Code::Stale, format!("{last:?}, told {told:?}"))),
        }
    }

    fn get_server_defaults(&mut self, _: GetServerDefaultsRequest) -> Result<ServerDefaults> {
        self.enter("defaults", None)?;
        let block_bytes = self.block_bytes;
        let (pool_id, rpc_port) = ("BP-test".into(), self.rpc_port);
        Ok(ServerDefaults { block_bytes, pool_id, rpc_port, ..Default::default() })
    }

    fn get_file_info(&mut self, q: PathRequest) -> Result<GetFileInfoReply> {
        self.enter("status", q.caller.as_ref())?;
        Ok(GetFileInfoReply { status: Some(self.status()) })
    }

    fn get_block_locations(&mut self, q: GetBlockLocationsRequest) -> Result<LocatedBlocks> {
        self.enter("locate", q.caller.as_ref())?;
        Ok(LocatedBlocks {
            status: Some(self.status()),
            blocks: self.blocks.clone(),
            under_construction: self.open,
            last_block: self.blocks.last().cloned(),
            last_block_complete: !self.open,
        })
    }

    fn create(&mut self, q: CreateRequest) -> Result<CreateReply> {
        self.enter("create", q.caller.as_ref())?;
        self.blocks.clear();
        self.open = true;
        Ok(CreateReply { status: Some(self.status()) })
    }

    fn append(&mut self, q: AppendRequest) -> Result<AppendReply> {
        self.enter("append", q.caller.as_ref())?;
        self.open = true;
        let last = self.blocks.last().cloned();
        let is_open = |b: &LocatedBlock| b.block.unwrap().length < self.block_bytes;
        let last_block = last.filter(|b| self.policy.is_none() && is_open(b));
        Ok(AppendReply { status: Some(self.status()), last_block })
    }

    fn add_block(&mut self, q: AddBlockRequest) -> Result<LocatedBlock> {
        self.enter("add", q.caller.as_ref())?;
        self.commit(q.previous)?;
        let mut locations = self.datanodes.clone();
        locations.retain(|node| !q.excluded.contains(&node.uuid));
        locations.truncate(self.policy.map_or(self.replication, |policy| policy.units().into()));
        if locations.len() < self.policy.map_or(1, |policy| policy.data_units.into()) {
            return Err(Error::new(Code::NotEnoughDatanodes, "no DataNode is left"));
        }
        let offset = self.status().length;
        let number = self.mint();
        let id = if self.policy.is_some() { 1 << 63 | number << 4 } else { number };
        let block = Some(Block { id, generation_stamp: self.mint(), length: 0 });
        let erasure_policy = self.policy.map_or(0, |policy| policy.id.into());
        let units = match self.policy {
            Some(_) => (0..locations.len() as u8).collect::<Vec<_>>().into(),
            None => bytes::Bytes::new(),
        };
        let located =
            LocatedBlock { block, offset, locations, erasure_policy, units, ..Default::default() };
        self.blocks.push(located.clone());
        Ok(located)
    }

    fn abandon_block(&mut self, q: AbandonBlockRequest) -> Result<Empty> {
        self.enter("abandon", q.caller.as_ref())?;
        let last = self.blocks.pop().unwrap();
        assert_eq!(last.block.unwrap().id, q.block.unwrap().id);
        Ok(Empty {})
    }

    fn update_block_for_pipeline(
        &mut self,
        q: UpdateBlockForPipelineRequest,
    ) -> Result<LocatedBlock> {
        self.enter("stamp", q.caller.as_ref())?;
        let block = Block { generation_stamp: self.mint(), ..q.block.unwrap() };
        Ok(LocatedBlock { block: Some(block), ..Default::default() })
    }

    fn update_pipeline(&mut self, q: UpdatePipelineRequest) -> Result<Empty> {
        self.enter("pipeline", q.caller.as_ref())?;
        let nodes = self.datanodes.clone();
        let last = self.blocks.last_mut().unwrap();
        let (old, new) = (q.old_block.unwrap(), q.new_block.unwrap());
        assert_eq!(last.block.unwrap().generation_stamp, old.generation_stamp);
        assert!(new.generation_stamp > old.generation_stamp);
        last.block = Some(new);
        if let Some(policy) = self.policy {
            assert_eq!(q.datanodes.len(), usize::from(policy.units()));
            let known = |uuid: &String| nodes.iter().find(|node| node.uuid == *uuid).cloned();
            let units = q.datanodes.iter().zip(0u8..);
            let (locations, units): (_, Vec<u8>) =
                units.filter_map(|(uuid, unit)| Some((known(uuid)?, unit))).unzip();
            (last.locations, last.units) = (locations, units.into());
            return Ok(Empty {});
        }
        last.locations = nodes.into_iter().filter(|n| q.datanodes.contains(&n.uuid)).collect();
        Ok(Empty {})
    }

    fn fsync(&mut self, q: FsyncRequest) -> Result<Empty> {
        self.enter("fsync", q.caller.as_ref())?;
        if self.policy.is_some() {
            self.blocks.last_mut().unwrap().block.as_mut().unwrap().length = q.last_block_length;
        }
        Ok(Empty {})
    }

    fn complete(&mut self, q: CompleteRequest) -> Result<CompleteReply> {
        let failed = self.enter("complete", q.caller.as_ref());
        if let Err(error) = failed {
            if error.code == Code::NotReplicatedYet {
                return Ok(CompleteReply { completed: false, status: None });
            }
            return Err(error);
        }
        self.commit(q.last)?;
        self.open = false;
        Ok(CompleteReply { completed: true, status: Some(self.status()) })
    }

    fn renew_lease(&mut self, q: RenewLeaseRequest) -> Result<Empty> {
        self.enter("renew", q.caller.as_ref())?;
        Ok(Empty {})
    }

    fn report_bad_blocks(&mut self, q: ReportBadBlocksRequest) -> Result<Empty> {
        self.enter("bad", q.caller.as_ref())?;
        self.reported_bad.extend(q.replicas.into_iter().map(|bad| bad.datanode));
        Ok(Empty {})
    }

    fn delete(&mut self, q: DeleteRequest) -> Result<DeleteReply> {
        self.enter("delete", q.caller.as_ref())?;
        self.blocks.clear();
        Ok(DeleteReply { deleted: true })
    }
}

macro_rules! namespace {
    (answered { $($name:ident($q:ty) -> $r:ty;)* } refused { $($none:ident($nq:ty) -> $nr:ty;)* }) => {
        #[tonic::async_trait]
        impl Namespace for FakeNamenode {
            $(async fn $name(
                &self,
                request: tonic::Request<$q>,
            ) -> std::result::Result<tonic::Response<$r>, Status> {
                let mut state = self.state.lock().unwrap();
                state.$name(request.into_inner()).map(tonic::Response::new).map_err(Status::from)
            })*
            $(async fn $none(
                &self,
                _: tonic::Request<$nq>,
            ) -> std::result::Result<tonic::Response<$nr>, Status> {
                Err(Status::unimplemented(stringify!($none)))
            })*
        }
    };
}

namespace! {
    answered {
    get_server_defaults(GetServerDefaultsRequest) -> ServerDefaults;
    get_file_info(PathRequest) -> GetFileInfoReply;
    get_block_locations(GetBlockLocationsRequest) -> LocatedBlocks;
    create(CreateRequest) -> CreateReply;
    append(AppendRequest) -> AppendReply;
    add_block(AddBlockRequest) -> LocatedBlock;
    abandon_block(AbandonBlockRequest) -> Empty;
    update_block_for_pipeline(UpdateBlockForPipelineRequest) -> LocatedBlock;
    update_pipeline(UpdatePipelineRequest) -> Empty;
    fsync(FsyncRequest) -> Empty;
    complete(CompleteRequest) -> CompleteReply;
    renew_lease(RenewLeaseRequest) -> Empty;
    report_bad_blocks(ReportBadBlocksRequest) -> Empty;
    delete(DeleteRequest) -> DeleteReply;
    }
    refused {
    get_listing(GetListingRequest) -> GetListingReply;
    get_content_summary(PathRequest) -> ContentSummary;
    get_fs_stats(GetFsStatsRequest) -> FsStats;
    mkdirs(MkdirsRequest) -> MkdirsReply;
    get_additional_datanode(GetAdditionalDatanodeRequest) -> LocatedBlock;
    recover_lease(RecoverLeaseRequest) -> RecoverLeaseReply;
    rename(RenameRequest) -> Empty;
    link(LinkRequest) -> FileStatus;
    truncate(TruncateRequest) -> TruncateReply;
    set_permission(SetPermissionRequest) -> Empty;
    set_owner(SetOwnerRequest) -> Empty;
    set_times(SetTimesRequest) -> Empty;
    set_replication(SetReplicationRequest) -> Empty;
    exchange_content(ExchangeContentRequest) -> Empty;
    }
}
