//! The gRPC service Replicas: visible lengths, and the two steps of a block recovery.

use std::sync::Arc;

use proto::granary::replicas_server::Replicas;
use proto::granary::{
    Block, GetVisibleLengthReply, GetVisibleLengthRequest, InitReplicaRecoveryReply,
    InitReplicaRecoveryRequest, ReplicaState, UpdateReplicaUnderRecoveryReply,
    UpdateReplicaUnderRecoveryRequest,
};
use proto::{BlockId, Code, Error, GenerationStamp, Result};
use tonic::{Request, Response, Status};

use crate::store::{Store, reported_state};

/// The service.
pub struct ReplicasService {
    /// What it serves.
    pub store: Arc<Store>,
}

impl ReplicasService {
    fn block(&self, pool_id: &str, block: Option<Block>) -> Result<(BlockId, GenerationStamp)> {
        self.store.check_pool(pool_id)?;
        let block =
            block.ok_or_else(|| Error::new(Code::InvalidArgument, "the request names no block"))?;
        Ok((BlockId(block.id), GenerationStamp(block.generation_stamp)))
    }
}

#[tonic::async_trait]
impl Replicas for ReplicasService {
    async fn get_visible_length(
        &self,
        request: Request<GetVisibleLengthRequest>,
    ) -> std::result::Result<Response<GetVisibleLengthReply>, Status> {
        let request = request.into_inner();
        let (block, stamp) = self.block(&request.pool_id, request.block)?;
        let length = self.store.visible_length(block, stamp)?;
        Ok(Response::new(GetVisibleLengthReply { length }))
    }

    async fn init_replica_recovery(
        &self,
        request: Request<InitReplicaRecoveryRequest>,
    ) -> std::result::Result<Response<InitReplicaRecoveryReply>, Status> {
        let request = request.into_inner();
        let (block, asked) = self.block(&request.pool_id, request.block)?;
        let recovery = GenerationStamp(request.recovery_stamp);
        let info = self.store.init_recovery(block, asked, recovery).await?;
        let told = info.and_then(|info| Some((info, reported_state(info.state)?)));
        Ok(Response::new(match told {
            None => InitReplicaRecoveryReply::default(),
            Some((info, state)) => InitReplicaRecoveryReply {
                found: true,
                block: Some(Block {
                    id: block.0,
                    generation_stamp: info.stamp.0,
                    length: info.length,
                }),
                state: ReplicaState::into(state),
            },
        }))
    }

    async fn update_replica_under_recovery(
        &self,
        request: Request<UpdateReplicaUnderRecoveryRequest>,
    ) -> std::result::Result<Response<UpdateReplicaUnderRecoveryReply>, Status> {
        let request = request.into_inner();
        let (block, _) = self.block(&request.pool_id, request.block)?;
        let recovery = GenerationStamp(request.recovery_stamp);
        self.store.finish_recovery(block, recovery, request.new_length).await?;
        Ok(Response::new(UpdateReplicaUnderRecoveryReply {}))
    }
}
