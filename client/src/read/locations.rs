//! Where a file's blocks are: fetched from the NameNode in windows, kept by offset.
//!
//! What holds: known blocks do not overlap; the length never changes but by [`Locations::refresh`]; of a file that is being written it counts the
//! bytes of the last block that a DataNode says readers may see.
#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use proto::granary::replicas_client::ReplicasClient;
use proto::granary::{
    DatanodeAddress, FileStatus, GetBlockLocationsRequest, GetVisibleLengthRequest, LocatedBlock,
    LocatedBlocks,
};
use proto::{Code, Error, FsPath, Result};
use tonic::transport::Endpoint;

use crate::fs::{Fs, expect_file, incomplete};

/// Blocks that are asked for at once.
const WINDOW_BLOCKS: u64 = 256;
/// Blocks that are kept per open file.
const KEPT_BLOCKS_MAX: usize = 4_096;

/// The known blocks of one open file.
#[derive(Debug)]
pub(crate) struct Locations {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    status: FileStatus,
    length: u64,
    /// By offset in the file. Lengths are right, that of a block being written included.
    blocks: BTreeMap<u64, LocatedBlock>,
}

impl Locations {
    pub(crate) async fn open(fs: &Fs, path: &FsPath) -> Result<Self> {
        Ok(Self { known: Mutex::new(fetch_head(fs, path).await?) })
    }

    pub(crate) async fn refresh(&self, fs: &Fs, path: &FsPath) -> Result<()> {
        let fresh = fetch_head(fs, path).await?;
        *self.lock() = fresh;
        Ok(())
    }

    pub(crate) fn length(&self) -> u64 {
        self.lock().length
    }

    pub(crate) fn status(&self) -> FileStatus {
        self.lock().status.clone()
    }

    /// The block that holds the byte at `offset`.
    pub(crate) async fn block_at(
        &self,
        fs: &Fs,
        path: &FsPath,
        offset: u64,
    ) -> Result<LocatedBlock> {
        if let Some(block) = self.lock().block_at(offset) {
            return Ok(block);
        }
        self.fetch_anew(fs, path, offset).await
    }

    /// Asks the NameNode again where the block at `offset` is (and those after it).
    pub(crate) async fn fetch_anew(
        &self,
        fs: &Fs,
        path: &FsPath,
        offset: u64,
    ) -> Result<LocatedBlock> {
        let window = WINDOW_BLOCKS.saturating_mul(self.status().block_bytes.max(1));
        let reply = fetch(fs, path, offset, window).await?;
        let mut known = self.lock();
        let inode = reply.status.as_ref().map_or(0, |status| status.inode);
        if inode != known.status.inode {
            return Err(Error::new(
                Code::Stale,
                format!("{path} was replaced by another file while it was being read"),
            ));
        }
        if known.blocks.len() + reply.blocks.len() > KEPT_BLOCKS_MAX {
            known.blocks.clear();
        }
        let length = known.length;
        known.add(reply.blocks, length)?;
        known.block_at(offset).ok_or_else(|| {
            Error::new(
                Code::Stale,
                format!("{path} has no byte at {offset} any more, expected {length} bytes"),
            )
        })
    }

    /// Every block, in order.
    pub(crate) async fn all(&self, fs: &Fs, path: &FsPath) -> Result<Vec<LocatedBlock>> {
        let length = self.length();
        let (mut blocks, mut offset) = (Vec::new(), 0);
        while offset < length {
            let block = self.block_at(fs, path, offset).await?;
            offset = block.offset + length_of(&block);
            blocks.push(block);
        }
        Ok(blocks)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panics while holding the locations")
    }
}

impl Known {
    fn block_at(&self, offset: u64) -> Option<LocatedBlock> {
        let (begin, block) = self.blocks.range(..=offset).next_back()?;
        (offset < begin + length_of(block)).then(|| block.clone())
    }

    /// Takes blocks up to `length` bytes of the file; each must have a length and an offset that make sense.
    fn add(&mut self, blocks: Vec<LocatedBlock>, length: u64) -> Result<()> {
        for mut located in blocks {
            let offset = located.offset;
            let block =
                located.block.as_mut().ok_or_else(|| incomplete("get block locations", "block"))?;
            block.length = block.length.min(length.saturating_sub(offset));
            if block.length > 0 {
                // A file whose content was coded anew has other blocks in the same place.
                let end = offset.saturating_add(block.length);
                let overlaps = |begin: u64, known: &LocatedBlock| {
                    begin < end && offset < begin.saturating_add(length_of(known))
                };
                self.blocks.retain(|begin, known| !overlaps(*begin, known));
                self.blocks.insert(offset, located);
            }
        }
        Ok(())
    }
}

/// Bytes of a located block.
pub(crate) fn length_of(located: &LocatedBlock) -> u64 {
    located.block.as_ref().map_or(0, |block| block.length)
}

async fn fetch(fs: &Fs, path: &FsPath, offset: u64, length: u64) -> Result<LocatedBlocks> {
    let caller = fs.namenode().caller();
    let request = GetBlockLocationsRequest { caller, path: path.to_string(), offset, length };
    fs.namenode()
        .namespace("locate blocks", "GetBlockLocations", request, async |mut stub, q| {
            stub.get_block_locations(q).await
        })
        .await
}

/// The file's status, its length and its first blocks.
async fn fetch_head(fs: &Fs, path: &FsPath) -> Result<Known> {
    let block_bytes = fs.server_defaults().block_bytes.max(1);
    let reply = fetch(fs, path, 0, WINDOW_BLOCKS.saturating_mul(block_bytes)).await?;
    let status = reply.status.ok_or_else(|| incomplete("get block locations", "status"))?;
    expect_file(path, &status)?;
    let mut blocks = reply.blocks;
    let mut length = status.length;
    if let Some(mut last) = reply.last_block.filter(|_| !reply.last_block_complete) {
        // Of a block group readers see what its writer told the NameNode: it is finished by then.
        let visible = match last.erasure_policy {
            0 => visible_length(fs, path, &last).await?,
            _ => length_of(&last),
        };
        let block = last.block.as_mut().ok_or_else(|| incomplete("locate blocks", "block"))?;
        block.length = visible;
        length = last.offset.saturating_add(visible);
        blocks.retain(|block| block.offset != last.offset);
        blocks.push(last);
    }
    let mut known = Known { status, length, blocks: BTreeMap::new() };
    known.add(blocks, length)?;
    Ok(known)
}

/// How many bytes of a block that is being written readers may see: as any of its DataNodes says.
///
/// A block that no DataNode has heard of yet has none. DataNodes that can't be reached are an error only if all are.
async fn visible_length(fs: &Fs, path: &FsPath, located: &LocatedBlock) -> Result<u64> {
    let block = located.block.ok_or_else(|| incomplete("get block locations", "block"))?;
    let mut said = Vec::new();
    let mut unknown = located.locations.is_empty();
    for location in &located.locations {
        let request = GetVisibleLengthRequest {
            pool_id: fs.server_defaults().pool_id.clone(),
            block: Some(block),
        };
        match ask_visible_length(fs, location, request).await {
            Ok(length) => return Ok(length),
            Err(error) if error.code == Code::NotFound => unknown = true,
            Err(error) => said.push(format!("{}: {error}", location.host)),
        }
    }
    if unknown && said.is_empty() {
        return Ok(0);
    }
    Err(Error::new(
        Code::BlockMissing,
        format!(
            "{path} is being written, and no DataNode tells the length of blk_{}: [{}]",
            block.id,
            said.join("; ")
        ),
    ))
}

async fn ask_visible_length(
    fs: &Fs,
    location: &DatanodeAddress,
    request: GetVisibleLengthRequest,
) -> Result<u64> {
    let config = fs.config();
    let address = format!("http://{}:{}", location.host, location.control_port);
    let endpoint = Endpoint::from_shared(address)
        .map_err(|error| Error::new(Code::InvalidArgument, error.to_string()))?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
        .timeout(Duration::from_millis(config.call_timeout_ms));
    let reply = ReplicasClient::new(endpoint.connect_lazy()).get_visible_length(request).await?;
    Ok(reply.into_inner().length)
}
