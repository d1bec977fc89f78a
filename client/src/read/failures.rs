//! What follows from a replica that could not be read: it is logged, remembered and, if it is damaged, reported.

use proto::granary::{BadReplica, Block, DatanodeAddress, ReportBadBlocksRequest};
use proto::{Code, Error};

use super::OpenFile;

/// Notes that a replica failed. Tells whether its DataNode may be asked for it again, over TCP: files that it handed
/// over may be gone where the DataNode itself still has an answer.
pub(super) fn note(
    file: &OpenFile,
    location: &DatanodeAddress,
    block: Block,
    error: &Error,
) -> bool {
    tracing::info!(
        block = block.id,
        node = location.uuid,
        %error,
        "a replica can't be read; another one is tried"
    );
    let local = file.local.give_up(block.id);
    match error.code {
        Code::Corrupt => report(file, location, block),
        Code::Unavailable | Code::Timeout | Code::Incompatible => {
            file.fs.note_bad_node(&location.uuid);
        }
        _ => {}
    }
    local && error.code != Code::Corrupt
}

/// Tells the NameNode of a damaged replica, in the background: the read goes on meanwhile.
fn report(file: &OpenFile, location: &DatanodeAddress, block: Block) {
    let fs = file.fs.clone();
    let request = ReportBadBlocksRequest {
        caller: fs.namenode().caller(),
        replicas: vec![BadReplica { block: Some(block), datanode: location.uuid.clone() }],
    };
    tokio::spawn(async move {
        let told = fs
            .namenode()
            .namespace("report bad blocks", "ReportBadBlocks", request, async |mut stub, q| {
                stub.report_bad_blocks(q).await
            })
            .await;
        if let Err(error) = told {
            tracing::warn!(block = block.id, %error, "a damaged replica was not reported");
        }
    });
}
