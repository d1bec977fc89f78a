//! One more DataNode for a pipeline that has lost too many.
//!
//! The NameNode chooses a node, a survivor sends it what it has of the block (op 86), and it joins at the pipeline's
//! end. The policy is HDFS's default: a file of three or more replicas whose block is down to half of them, or has
//! bytes that a reader or a sync already counts on. It is an effort, not a demand: if no node can be had, the block
//! goes on with the survivors, and the NameNode mends it after it is closed.

use proto::granary::{Block, DatanodeAddress, GetAdditionalDatanodeRequest};
use proto::hadoop::hdfs::OpTransferBlockProto;
use proto::{Error, Result};
use tokio::io::AsyncWriteExt;
use transfer::connection::{Connection, Peer, datanode_info, within};
use transfer::op::{self, Request};

use super::Target;

/// Files of fewer replicas never wait for a replacement.
const REPLICAS_MIN: usize = 3;
/// A survivor may need so many times the ordinary patience to send a block on.
const PATIENCE: u64 = 10;

/// Whether a block should get another DataNode. `counted_on`: it holds bytes from before this writer, or flushed ones.
pub(super) fn is_wanted(wanted: usize, left: usize, counted_on: bool) -> bool {
    wanted >= REPLICAS_MIN && left > 0 && left < wanted && (left <= wanted / 2 || counted_on)
}

/// Brings one more DataNode to the survivors' state. Gives it, or `None` if there is none to be had.
pub(super) async fn recruit(
    target: &Target,
    block: &Block,
    survivors: &[DatanodeAddress],
    failed: Vec<String>,
) -> Option<DatanodeAddress> {
    let found = match choose(target, block, survivors, failed).await {
        Ok(found) => found?,
        Err(error) => {
            tracing::info!(block = block.id, %error, "no other DataNode for the pipeline");
            return None;
        }
    };
    for survivor in survivors {
        match send(target, block, survivor, &found).await {
            Ok(()) => {
                tracing::info!(
                    block = block.id,
                    node = found.uuid,
                    "a DataNode joins the pipeline"
                );
                return Some(found);
            }
            Err(error) => tracing::info!(block = block.id, %error, "a block was not sent on"),
        }
    }
    None
}

async fn choose(
    target: &Target,
    block: &Block,
    survivors: &[DatanodeAddress],
    excluded: Vec<String>,
) -> Result<Option<DatanodeAddress>> {
    let existing: Vec<String> = survivors.iter().map(|node| node.uuid.clone()).collect();
    let request = GetAdditionalDatanodeRequest {
        caller: target.fs.namenode().caller(),
        path: target.path.to_string(),
        inode: target.inode,
        holder: target.fs.holder().to_owned(),
        block: Some(*block),
        existing: existing.clone(),
        excluded,
        wanted: 1,
    };
    let namenode = target.fs.namenode();
    let located = namenode
        .namespace(
            "get additional DataNode",
            "GetAdditionalDatanode",
            request,
            async |mut stub, q| stub.get_additional_datanode(q).await,
        )
        .await?;
    Ok(located.locations.into_iter().find(|node| !existing.contains(&node.uuid)))
}

/// Has `survivor` send its replica to `to`.
async fn send(
    target: &Target,
    block: &Block,
    survivor: &DatanodeAddress,
    to: &DatanodeAddress,
) -> Result<()> {
    let peer = Peer::from_address(survivor)?;
    let pool_id = &target.fs.server_defaults().pool_id;
    let request = Request::TransferBlock(Box::new(OpTransferBlockProto {
        header: op::client_header(pool_id, block, target.fs.holder()),
        targets: vec![datanode_info(to)],
        target_storage_types: vec![1], // DISK
        target_storage_ids: Vec::new(),
    }));
    let timeouts = target.fs.timeouts();
    let mut connection = Connection::dial(&peer, timeouts).await?;
    let what = format!("transfer of blk_{} from {peer} to {}:{}", block.id, to.host, to.data_port);
    within(timeouts.idle_ms.saturating_mul(PATIENCE), what, async {
        let stream = &mut connection.stream;
        stream.write_all(&request.encode()).await.map_err(|e| Error::io("send", &e))?;
        op::check(&op::read_response(stream).await?)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::is_wanted;

    #[test]
    fn half_a_pipeline_is_filled_up_and_more_only_if_its_bytes_are_counted_on() {
        for (wanted, left, counted_on, expected) in [
            (3, 2, false, false),
            (3, 1, false, true),
            (3, 2, true, true),
            (3, 3, true, false),
            (3, 0, true, false),
            (2, 1, true, false),
            (4, 2, false, true),
            (1, 1, true, false),
        ] {
            assert_eq!(is_wanted(wanted, left, counted_on), expected, "{left} of {wanted}");
        }
    }
}
