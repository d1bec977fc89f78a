//! Sessions: one writer of one replica, from set-up to finish.
//!
//! A session streams packets into a lane of its volume's threads, so that receiving and writing overlap; what waits is
//! bounded in bytes. A takeover (a new pipeline, a recovery, a deletion) tells the session to stop and waits until its
//! last job is done. What holds: when a session has ended, nothing of it touches the files; a transfer that did not
//! finish leaves nothing; a finish is acknowledged only after data, checksums and the final names are durable.

use std::sync::{Arc, Mutex};

use proto::{BlockId, Code, Error, GenerationStamp, Result, limits};
use tokio::sync::{Semaphore, oneshot};
use transfer::{Checksum, Packet};

use super::disks::Disk;
use super::{Store, finalized_paths};
use crate::claims::Claim;
use crate::disk::Lane;
use crate::files::{Paths, Piece, ReplicaFiles, Run, Wrote};
use crate::index::Touch;
use crate::layout::{self, Folder};
use crate::map::{Compact, Slot};
use crate::open_replica::{OpenReplica, Place, WriterPass, paths_at};
use crate::replica::{Expected, Replica, State};
use crate::volume::Promise;

/// What a writer wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Write a new block of at most `bytes` (0: unknown).
    Create {
        /// Its generation.
        stamp: GenerationStamp,
        /// How much space it may take.
        bytes: u64,
        /// What its bytes are stored with.
        checksum: Checksum,
    },
    /// Take a copy of a replica.
    Transfer {
        /// Its generation.
        stamp: GenerationStamp,
        /// How much space it may take.
        bytes: u64,
        /// What its bytes are stored with.
        checksum: Checksum,
    },
    /// Continue a finished replica.
    Append(Change),
    /// Set up an append again.
    RecoverAppend(Change),
    /// Set up the close again.
    RecoverClose(Change),
    /// Go on in the middle of a block with other DataNodes.
    RecoverStreaming {
        /// The generation that the writer knows.
        asked: GenerationStamp,
        /// The generation that goes on.
        new: GenerationStamp,
        /// The lengths between which the replica must be.
        expected: Expected,
    },
}

/// A change of generation of a replica of known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The generation that the writer knows.
    pub asked: GenerationStamp,
    /// The generation that goes on.
    pub new: GenerationStamp,
    /// Bytes that the replica must have.
    pub length: u64,
}

/// One writer of one replica.
pub struct WriteSession {
    store: Arc<Store>,
    block: BlockId,
    replica: Arc<OpenReplica>,
    files: Arc<Mutex<ReplicaFiles>>,
    lane: Lane,
    pass: WriterPass,
    permits: Arc<Semaphore>,
    permits_max: u32,
    promise: Arc<Mutex<Option<Promise>>>,
    discard: bool,
}

/// Permits count in units of this many bytes.
const PERMIT_BYTES: usize = 4 << 10;
/// Packets that wait, whatever their size, cost at least this many permits.
const PERMITS_MIN: u32 = 1;
/// Space asked for a block whose size the writer did not tell.
const UNKNOWN_BYTES: u64 = limits::PACKET_BYTES_NATIVE as u64;

impl Store {
    /// Begins to write a replica. Errors leave it as it was.
    pub async fn begin_write(
        self: &Arc<Self>,
        block: BlockId,
        purpose: Purpose,
    ) -> Result<WriteSession> {
        let claim = self.claims.claim(block).await;
        match purpose {
            Purpose::Create { stamp, bytes, checksum } => {
                let replica = Replica::create(block, stamp);
                self.begin_new(claim, replica, Place::Rbw, bytes, checksum).await
            }
            Purpose::Transfer { stamp, bytes, checksum } => {
                let replica = Replica::open_temporary(block, stamp);
                self.begin_new(claim, replica, Place::Tmp, bytes, checksum).await
            }
            Purpose::Append(c) => {
                let change = move |r: &mut Replica| r.append(c.asked, c.new, c.length);
                self.reopen(claim, c.asked, c.new, change).await
            }
            Purpose::RecoverAppend(c) => {
                let change = move |r: &mut Replica| r.recover_append(c.asked, c.new, c.length);
                self.reopen(claim, c.asked, c.new, change).await
            }
            Purpose::RecoverClose(c) => {
                let change = move |r: &mut Replica| r.recover_close(c.asked, c.new, c.length);
                self.reopen(claim, c.asked, c.new, change).await
            }
            Purpose::RecoverStreaming { asked, new, expected } => {
                let change = move |r: &mut Replica| r.recover_streaming(asked, new, expected);
                self.reopen(claim, asked, new, change).await
            }
        }
    }

    async fn begin_new(
        self: &Arc<Self>,
        claim: Claim,
        replica: Replica,
        place: Place,
        bytes: u64,
        checksum: Checksum,
    ) -> Result<WriteSession> {
        let block = claim.block();
        if place == Place::Tmp
            && let Some(slot) = self.map.get(block).filter(|slot| left_behind(slot, &replica))
        {
            // What the cluster has left behind makes room for a copy of the current generation.
            if let Slot::Open(open) = &slot {
                open.stop_writer(self.takeover_wait).await?;
            }
            let store = self.clone();
            let pool = self.disk(slot.volume()).volume.pool().clone();
            pool.run(move || store.delete_now(block, &slot)).await?;
        }
        if let Some(slot) = self.map.get(block) {
            return Err(Error::new(
                Code::AlreadyExists,
                match &slot {
                    Slot::Finalized(c) => format!("{block} exists, finished, with {}", c.stamp),
                    Slot::Open(open) => format!("{} exists", open.replica().name()),
                },
            ));
        }
        let bytes = if bytes == 0 { UNKNOWN_BYTES } else { bytes.min(limits::BLOCK_BYTES_MAX) };
        let (disk, promise) = self.disks.choose(bytes)?;
        let volume = disk.volume.clone();
        let open = Arc::new(OpenReplica::new(&volume, replica, place, None));
        let (store, made) = (self.clone(), open.clone());
        volume
            .pool()
            .clone()
            .run(move || {
                let files = ReplicaFiles::create(&volume, made.paths(), checksum)?;
                let pass = made.begin_writing();
                store.put(block, Slot::Open(made.clone()));
                Ok(store.session(claim, made, files, pass, Some(promise)))
            })
            .await
    }

    /// Takes over a replica: stops its writer, changes its state by `change`, and opens its files in rbw. Whoever comes
    /// with an older stamp than the replica's does not even stop its writer.
    async fn reopen(
        self: &Arc<Self>,
        claim: Claim,
        asked: GenerationStamp,
        new: GenerationStamp,
        change: impl FnOnce(&mut Replica) -> Result<()>,
    ) -> Result<WriteSession> {
        let block = claim.block();
        let slot = self.map.get(block).ok_or_else(|| {
            Error::new(Code::NotFound, format!("{block} has no replica on this DataNode"))
        })?;
        let volume = self.disk(slot.volume()).volume.clone();
        volume.check()?;
        let mut replica = match &slot {
            Slot::Finalized(c) => Replica::finalized(block, c.stamp, u64::from(c.length)),
            Slot::Open(open) => {
                open.replica().check_stamps(asked, new)?;
                open.stop_writer(self.takeover_wait).await?;
                // It can't have finished the replica meanwhile: that takes the claim.
                open.replica()
            }
        };
        let before = replica.written();
        change(&mut replica)?;
        let promise = volume.promise(UNKNOWN_BYTES)?;
        let store = self.clone();
        let pool = volume.pool().clone();
        pool.run(move || {
            let (open, files) = match &slot {
                Slot::Finalized(old) => store.reopen_finalized(block, *old, replica)?,
                Slot::Open(open) => {
                    let files = reopen_open(open, replica, before)?;
                    store.put(block, slot.clone());
                    (open.clone(), files)
                }
            };
            let pass = open.begin_writing();
            Ok(store.session(claim, open, files, pass, Some(promise)))
        })
        .await
    }

    fn reopen_finalized(
        &self,
        block: BlockId,
        old: Compact,
        replica: Replica,
    ) -> Result<(Arc<OpenReplica>, ReplicaFiles)> {
        let disk = self.disk(old.volume());
        let volume = &disk.volume;
        let from = finalized_paths(volume, block, old.stamp);
        let mut files = ReplicaFiles::open(volume, from.clone(), u64::from(old.length))?;
        let tail_sum = files.tail_sum();
        let open = Arc::new(OpenReplica::new(volume, replica, Place::Rbw, tail_sum));
        let to = open.paths();
        let touch = disk.touch(block)?;
        move_files(disk, &from, &to)?;
        files.moved(to);
        self.changed_after(disk, block, touch, || self.put(block, Slot::Open(open.clone())));
        Ok((open, files))
    }

    /// Changes the map between a touch and its end, so that an index flush misses nothing.
    pub(super) fn changed_after(
        &self,
        disk: &Disk,
        block: BlockId,
        touch: Touch,
        change: impl FnOnce(),
    ) {
        change();
        self.changed(disk, block);
        disk.index.finish(touch);
    }

    fn session(
        self: &Arc<Self>,
        _claim: Claim,
        replica: Arc<OpenReplica>,
        files: ReplicaFiles,
        pass: WriterPass,
        promise: Option<Promise>,
    ) -> WriteSession {
        let permits = usize::try_from(self.write_queue_bytes).unwrap_or(usize::MAX) / PERMIT_BYTES;
        let permits = u32::try_from(permits.clamp(1, 1 << 20)).expect("clamped");
        let block = replica.replica().block();
        WriteSession {
            store: self.clone(),
            block,
            lane: replica.volume().pool().lane(),
            replica,
            files: Arc::new(Mutex::new(files)),
            pass,
            permits: Arc::new(Semaphore::new(permits as usize)),
            permits_max: permits,
            promise: Arc::new(Mutex::new(promise)),
            discard: false,
        }
    }

    /// Makes the files of an open replica durable under their final names and puts it into the map. Blocks; the block
    /// is claimed.
    pub(super) fn finish_now(
        &self,
        open: &Arc<OpenReplica>,
        files: &mut ReplicaFiles,
        stamp: GenerationStamp,
    ) -> Result<Wrote> {
        let block = open.replica().block();
        let disk = self.disk(open.volume().number());
        let length = files.written();
        let compact_length = u32::try_from(length).ok();
        let compact_length =
            compact_length.filter(|_| length <= limits::BLOCK_BYTES_MAX).ok_or_else(|| {
                Error::new(
                    Code::InvalidArgument,
                    format!("{block} has {length} bytes, at most {}", limits::BLOCK_BYTES_MAX),
                )
            })?;
        files.give_back()?;
        files.sync()?;
        let touch = disk.touch(block)?;
        let folder = match disk.volume.prepare_folder(Folder::of(block)) {
            Ok(folder) => folder,
            Err(error) => {
                // Nothing was changed yet: the replica stays as it is.
                disk.index.finish(touch);
                return Err(error);
            }
        };
        let from = files.paths().clone();
        let to = Paths::new(&folder, block, stamp);
        move_files(disk, &from, &to)?;
        disk.volume.sync_folder(&folder)?;
        if files.may_have_record() {
            remove_if_there(disk, &from.synced)?;
        }
        files.moved(to);
        let compact = Compact::new(stamp, compact_length, disk.volume.number());
        self.changed_after(disk, block, touch, || self.put(block, Slot::Finalized(compact)));
        Ok(Wrote { end: length, tail_sum: files.tail_sum() })
    }

    /// Removes what a transfer that did not finish, or a set-up that failed, leaves.
    fn discard_now(&self, block: BlockId, open: &Arc<OpenReplica>) {
        let slot = Slot::Open(open.clone());
        if self.map.get(block).is_some_and(|now| now.is_same(&slot))
            && let Err(error) = self.delete_now(block, &slot)
        {
            tracing::warn!(%block, %error, "an abandoned replica could not be removed");
        }
    }
}

impl WriteSession {
    /// The replica that is written.
    pub fn replica(&self) -> &Arc<OpenReplica> {
        &self.replica
    }

    /// Returns when another takes over the replica: then this session must be dropped.
    pub async fn stopped(&self) {
        let mut stop = self.pass.stop.clone();
        // The sender lives in the replica as long as this session is its writer.
        drop(stop.wait_for(|stop| *stop).await);
    }

    /// Hands verified packets to the disk, in one visit; waits only while too much waits there. The receiver gets the
    /// outcome.
    ///
    /// `sent`: what the packets' checksums are.
    pub async fn write(
        &self,
        packets: Vec<Packet>,
        sent: Checksum,
    ) -> Result<oneshot::Receiver<Run>> {
        let end = packets.iter().map(|packet| packet.header().end()).max().unwrap_or(0);
        if end > limits::BLOCK_BYTES_MAX {
            return Err(Error::new(
                Code::InvalidArgument,
                format!(
                    "{}: a packet up to byte {end}, a block has at most {}",
                    self.block,
                    limits::BLOCK_BYTES_MAX
                ),
            ));
        }
        let bytes: usize = packets.iter().map(|packet| packet.frame().len()).sum();
        let units = u32::try_from(bytes / PERMIT_BYTES).unwrap_or(u32::MAX);
        let units = units.clamp(PERMITS_MIN, self.permits_max);
        let permit = self.permits.clone().acquire_many_owned(units).await;
        let permit = permit.expect("the semaphore is never closed");
        let (send, receive) = oneshot::channel();
        let (files, replica, promise) =
            (self.files.clone(), self.replica.clone(), self.promise.clone());
        self.lane.push(move || {
            let run = write_packets(&packets, sent, &files, &replica, &promise);
            // The packets' memory is given back before the next ones are let in.
            drop(packets);
            drop(permit);
            drop(send.send(run));
        })?;
        Ok(receive)
    }

    /// Finishes the replica behind the packets that were handed over. The receiver gets the outcome.
    pub async fn finish(&self) -> Result<oneshot::Receiver<Result<Wrote>>> {
        let claim = tokio::select! {
            claim = self.store.claims.claim(self.block) => claim,
            () = self.stopped() => return Err(self.taken_over()),
        };
        let (send, receive) = oneshot::channel();
        let (store, replica, files) =
            (self.store.clone(), self.replica.clone(), self.files.clone());
        self.lane.push(move || {
            let stamp = replica.replica().stamp();
            let result =
                lock(&files).and_then(|mut files| store.finish_now(&replica, &mut files, stamp));
            if result.is_ok() {
                replica.lock().replica.finish();
            }
            drop(claim);
            drop(send.send(result));
        })?;
        Ok(receive)
    }

    /// A transfer of a replica being written has brought it all: a pipeline may go on with it.
    pub async fn promote(&self) -> Result<oneshot::Receiver<Result<Wrote>>> {
        let claim = tokio::select! {
            claim = self.store.claims.claim(self.block) => claim,
            () = self.stopped() => return Err(self.taken_over()),
        };
        let (send, receive) = oneshot::channel();
        let (store, replica, files) =
            (self.store.clone(), self.replica.clone(), self.files.clone());
        self.lane.push(move || {
            let result = lock(&files).and_then(|mut files| store.promote_now(&replica, &mut files));
            drop(claim);
            drop(send.send(result));
        })?;
        Ok(receive)
    }

    /// The set-up failed: leave nothing of a replica that was made for it.
    pub fn discard(mut self) {
        self.discard = self.replica.replica().written() == 0;
    }

    fn taken_over(&self) -> Error {
        Error::new(Code::Stale, format!("{} was taken over by another", self.block))
    }
}

impl Drop for WriteSession {
    fn drop(&mut self) {
        let (store, replica, block) = (self.store.clone(), self.replica.clone(), self.block);
        let (number, discard) = (self.pass.number(), self.discard);
        let end = move || {
            if discard || replica.replica().state() == State::Temporary {
                store.discard_now(block, &replica);
            }
            replica.end_writing(number);
        };
        // Refused only when the DataNode stops: then no job is left that this one would have to wait for, and what
        // is not removed now is removed at the next start.
        if self.lane.push(end).is_err() {
            self.replica.end_writing(number);
        }
    }
}

impl Store {
    fn promote_now(&self, open: &Arc<OpenReplica>, files: &mut ReplicaFiles) -> Result<Wrote> {
        let disk = self.disk(open.volume().number());
        let replica = open.replica();
        let to = paths_at(&disk.volume, Place::Rbw, &replica);
        move_files(disk, &files.paths().clone(), &to)?;
        files.moved(to);
        files.sync_open()?;
        let wrote = Wrote { end: files.written(), tail_sum: files.tail_sum() };
        {
            let mut inner = open.lock();
            inner.replica.promote();
            inner.place = Place::Rbw;
            inner.tail_sum = wrote.tail_sum;
        }
        self.put(replica.block(), Slot::Open(open.clone()));
        Ok(wrote)
    }
}

/// Whether a replica is of an older generation than the copy that comes. Not so one under a recovery that may lead to a
/// newer one: a copy at the recovery's stamp is made when that is over, and went on without this replica.
fn left_behind(slot: &Slot, copy: &Replica) -> bool {
    let awaited = match slot {
        Slot::Finalized(_) => None,
        Slot::Open(open) => open.replica().recovery_stamp(),
    };
    awaited.is_none_or(|recovery| recovery <= copy.stamp())
        && super::slot_stamp(slot) < copy.stamp()
}

/// Cuts an open replica's files to what the new state says and gives the checksum file its new name.
fn reopen_open(open: &Arc<OpenReplica>, replica: Replica, before: u64) -> Result<ReplicaFiles> {
    let volume = open.volume();
    let from = open.paths();
    let mut files = ReplicaFiles::open(volume, from.clone(), replica.written())?;
    volume.subtract_used(before - replica.written());
    let to = Paths::new(&layout::rbw_path(volume.root()), replica.block(), replica.stamp());
    rename(volume, &from.meta, &to.meta)?;
    // A record of an earlier sync stays: what it speaks of was acknowledged and is never cut.
    files.moved(to);
    let mut inner = open.lock();
    inner.replica = replica;
    inner.tail_sum = files.tail_sum();
    drop(inner);
    Ok(files)
}

fn write_packets(
    packets: &[Packet],
    sent: Checksum,
    files: &Mutex<ReplicaFiles>,
    replica: &OpenReplica,
    promise: &Mutex<Option<Promise>>,
) -> Run {
    let mut files = match lock(files) {
        Ok(files) => files,
        Err(error) => return Run::failed(error),
    };
    let before = files.written();
    let as_stored = sent == files.checksum();
    let pieces: Vec<Piece<'_>> = packets
        .iter()
        .map(|packet| {
            let offset = packet.header().offset_in_block;
            let begins_a_chunk = offset.is_multiple_of(sent.chunk_bytes() as u64);
            let sums = (as_stored && begins_a_chunk).then(|| packet.sums());
            Piece { offset, data: packet.data(), sums }
        })
        .collect();
    let run = files.write_run(&pieces);
    let fresh = files.written() - before;
    replica.volume().add_used(fresh);
    if let Some(promise) = promise.lock().expect("nobody panics while holding it").as_mut() {
        promise.spend(fresh);
    }
    let sync = packets[..run.wrote.len()].iter().any(|packet| packet.header().sync);
    if sync && let Err(error) = files.sync_open() {
        return Run::failed(error);
    }
    if let Some(&wrote) = run.wrote.last() {
        replica.wrote(wrote);
    }
    run
}

fn lock(files: &Mutex<ReplicaFiles>) -> Result<std::sync::MutexGuard<'_, ReplicaFiles>> {
    files
        .lock()
        .map_err(|_| Error::new(Code::Internal, "an earlier write of this replica panicked"))
}

/// Moves both files, checksums first: see `load` for what a crash in between leads to.
pub(super) fn move_files(disk: &Disk, from: &Paths, to: &Paths) -> Result<()> {
    rename(&disk.volume, &from.meta, &to.meta)?;
    rename(&disk.volume, &from.data, &to.data).inspect_err(|error| {
        // Half a move is what only a restart can mend.
        disk.volume.fail(&error.message);
    })
}

fn rename(
    volume: &crate::volume::Volume,
    from: &std::path::Path,
    to: &std::path::Path,
) -> Result<()> {
    if from == to {
        return Ok(());
    }
    std::fs::rename(from, to)
        .map_err(|error| volume.io_error(format_args!("rename {}", from.display()), &error))
}

fn remove_if_there(disk: &Disk, path: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(disk.volume.io_error(format_args!("remove {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}
