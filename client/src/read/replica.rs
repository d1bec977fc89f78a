//! One replica: its files on this machine, or its DataNode over TCP. Either way, verified bytes in order.
//!
//! A DataNode whose Unix socket is on this machine hands over the replica's open files; the client then reads and
//! verifies them itself, without the DataNode. What holds: the same checks as over TCP. Files that a reader holds stay
//! readable when the DataNode deletes the replica or stops. If handing over does not work for a block, TCP is used.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use proto::granary::{Block, DatanodeAddress};
use proto::{Code, Error, Result};
use rustix::io::ReadWriteFlags;
use transfer::reader::{BlockReader, ReadRange};
use transfer::short_circuit::{self, ReplicaFiles};
use transfer::{Checksum, ChecksumKind, Peer, meta};

use super::OpenFile;
use crate::fs::Fs;
use crate::plan::Piece;

/// Bytes that are read from a local file at once.
const LOCAL_STEP_BYTES: u64 = 1 << 20;
/// Open replicas that one reader keeps.
const LOCAL_REPLICAS_MAX: usize = 16;

/// Bytes of one replica.
#[derive(Debug)]
pub(crate) enum ReplicaReader {
    /// Through the replica's files.
    Local(LocalReader),
    /// Through its DataNode.
    Remote(Box<RemoteReader>),
}

impl ReplicaReader {
    /// Opens the replica at `location` to read `piece` of `block`.
    pub(crate) async fn open(
        file: &Arc<OpenFile>,
        location: &DatanodeAddress,
        block: Block,
        piece: Piece,
    ) -> Result<Self> {
        if file.local.may_try(location, block.id)
            && let Some(replica) = file.local.get(&file.fs, location, block).await
        {
            let end = piece.offset_in_block + piece.length;
            let position = piece.offset_in_block;
            return Ok(Self::Local(LocalReader { replica, position, end }));
        }
        let peer = Peer::from_address(location)?;
        let range = ReadRange {
            pool_id: file.fs.server_defaults().pool_id.clone(),
            client: file.fs.holder().to_owned(),
            block,
            offset: piece.offset_in_block,
            length: piece.length,
        };
        let reader = RemoteReader::open(file.fs.clone(), &peer, &range).await?;
        Ok(Self::Remote(Box::new(reader)))
    }

    /// The next bytes; `None` at the end of the piece.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Local(reader) => reader.next().await,
            Self::Remote(reader) => reader.next().await,
        }
    }
}

/// A read through a DataNode.
#[derive(Debug)]
pub(crate) struct RemoteReader {
    reader: BlockReader,
}

impl RemoteReader {
    async fn open(fs: Fs, peer: &Peer, range: &ReadRange) -> Result<Self> {
        Ok(Self { reader: BlockReader::open(fs.pool(), peer, range).await? })
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        self.reader.next().await
    }
}

/// A read of a replica's files.
#[derive(Debug)]
pub(crate) struct LocalReader {
    replica: Arc<LocalReplica>,
    position: u64,
    end: u64,
}

impl LocalReader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let length = (self.end - self.position).min(LOCAL_STEP_BYTES);
        let bytes = self.replica.clone().read(self.position, length).await?;
        self.position += length;
        Ok(Some(bytes))
    }
}

/// The open files of a replica on this machine.
#[derive(Debug)]
pub(crate) struct LocalReplica {
    files: ReplicaFiles,
    checksum: Checksum,
    block: Block,
}

impl LocalReplica {
    fn new(files: ReplicaFiles, block: Block) -> Result<Self> {
        let mut header = [0; meta::HEADER_BYTES];
        files
            .meta
            .read_exact_at(&mut header, 0)
            .map_err(|error| Error::io("read the checksum file's header", &error))?;
        let checksum = meta::decode_header(&header)?;
        if checksum.kind() == ChecksumKind::Null {
            return Err(Error::new(Code::Incompatible, "the replica has no checksums"));
        }
        Ok(Self { files, checksum, block })
    }

    /// Reads and verifies `length` bytes at `position`, which lie in the block.
    ///
    /// What the page cache holds is read at once; otherwise a thread that may wait for the disk reads.
    async fn read(self: Arc<Self>, position: u64, length: u64) -> Result<Bytes> {
        let chunk = self.checksum.chunk_bytes() as u64;
        let begin = position / chunk * chunk;
        let end = (position + length).next_multiple_of(chunk).min(self.block.length);
        let data_bytes = usize::try_from(end - begin).expect("a step is small");
        let sum_bytes = self.checksum.sum_bytes(data_bytes);
        let sums_at = meta::sum_offset(self.checksum, begin / chunk);
        let mut data = BytesMut::zeroed(data_bytes);
        let mut sums = vec![0; sum_bytes];
        let data_done = read_cached(&self.files.data, &mut data, begin);
        let sums_done = read_cached(&self.files.meta, &mut sums, sums_at);
        if data_done < data_bytes || sums_done < sum_bytes {
            let this = self.clone();
            (data, sums) = tokio::task::spawn_blocking(move || {
                let ReplicaFiles { data: data_file, meta: meta_file } = &this.files;
                data_file.read_exact_at(&mut data[data_done..], begin + data_done as u64)?;
                meta_file.read_exact_at(&mut sums[sums_done..], sums_at + sums_done as u64)?;
                Ok::<_, std::io::Error>((data, sums))
            })
            .await
            .map_err(|error| Error::new(Code::Internal, format!("local read: {error}")))?
            .map_err(|error| self.read_error(begin, &error))?;
        }
        self.checksum.verify(&data, &sums).map_err(|mismatch| {
            mismatch.into_error(format_args!("blk_{} in its file", self.block.id), begin)
        })?;
        let from = (position - begin) as usize;
        Ok(data.freeze().slice(from..from + length as usize))
    }

    fn read_error(&self, at: u64, error: &std::io::Error) -> Error {
        let what = format!("read blk_{} at offset {at} in its file", self.block.id);
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::new(Code::Corrupt, format!("{what}: it is too short"))
            }
            _ => Error::io(what, error),
        }
    }
}

/// Reads what is in the page cache, without waiting for a disk; gives the number of bytes.
fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        let mut slices = [IoSliceMut::new(&mut buffer[done..])];
        match rustix::io::preadv2(file, &mut slices, offset + done as u64, ReadWriteFlags::NOWAIT) {
            Ok(count) if count > 0 => done += count,
            // The end, not cached, or a file system that can't tell: the waiting read says which.
            _ => break,
        }
    }
    done
}

/// The local replicas that one open file has at hand.
#[derive(Debug)]
pub(crate) struct LocalReplicas {
    enabled: bool,
    state: Mutex<LocalState>,
}

#[derive(Debug, Default)]
struct LocalState {
    /// Whether a socket path exists on this machine.
    sockets: HashMap<String, bool>,
    open: HashMap<u64, Arc<LocalReplica>>,
    /// Blocks that are read over TCP from now on.
    given_up: HashSet<u64>,
}

impl LocalReplicas {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, state: Mutex::default() }
    }

    /// Whether the DataNode has a socket on this machine.
    pub(crate) fn is_local(&self, location: &DatanodeAddress) -> bool {
        if !self.enabled || location.local_socket.is_empty() {
            return false;
        }
        let mut state = self.lock();
        if let Some(&known) = state.sockets.get(&location.local_socket) {
            return known;
        }
        let exists = Path::new(&location.local_socket).exists();
        state.sockets.insert(location.local_socket.clone(), exists);
        exists
    }

    /// Whether the replica's files may be asked for.
    fn may_try(&self, location: &DatanodeAddress, block_id: u64) -> bool {
        self.is_local(location) && !self.lock().given_up.contains(&block_id)
    }

    /// The replica's files; `None` if they are not to be had, which is remembered.
    async fn get(
        &self,
        fs: &Fs,
        location: &DatanodeAddress,
        block: Block,
    ) -> Option<Arc<LocalReplica>> {
        if let Some(replica) = self.lock().open.get(&block.id)
            && replica.block == block
        {
            return Some(replica.clone());
        }
        let socket = Path::new(&location.local_socket);
        let pool_id = &fs.server_defaults().pool_id;
        let files = short_circuit::request(socket, pool_id, &block, fs.timeouts()).await;
        let replica = files.and_then(|files| LocalReplica::new(files, block));
        let mut state = self.lock();
        match replica {
            Ok(replica) => {
                if state.open.len() >= LOCAL_REPLICAS_MAX {
                    state.open.clear();
                }
                let replica = Arc::new(replica);
                state.open.insert(block.id, replica.clone());
                Some(replica)
            }
            Err(error) => {
                tracing::debug!(block = block.id, %error, "read over TCP instead");
                state.given_up.insert(block.id);
                None
            }
        }
    }

    /// A block is not read through its files any more. Tells whether it was.
    pub(crate) fn give_up(&self, block_id: u64) -> bool {
        let mut state = self.lock();
        let was_open = state.open.remove(&block_id).is_some();
        if was_open {
            state.given_up.insert(block_id);
        }
        was_open
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LocalState> {
        self.state.lock().expect("nobody panics while holding the map")
    }
}
