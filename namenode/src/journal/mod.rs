//! The journal: requests in the order of their transaction ids, in preallocated segments, each batch synced at once.
//!
//! | module | owns |
//! |---|---|
//! | `segment` | the bytes of a segment: header, batches; making one |
//! | `replay` | reading a folder of segments; telling a torn tail from damage |
//!
//! Here: appending. A batch is one write and one `fdatasync` into space that is already zero-filled, so that the
//! file's size never changes and the sync writes data alone. A batch that does not fit opens the next segment, which
//! a thread has prepared meanwhile.
//!
//! Always holds: a batch is written only after the one before it is synced, so only the last batch of the journal
//! can be torn. A failed write or sync poisons the journal: nothing is ever retried. A segment that can't be made
//! (no space) fails the batch before a byte of it is written, and poisons nothing.
//!
//! See docs/formats/journal.md.

mod replay;
mod segment;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use proto::{Code, Error, Result, Txid};

pub(crate) use replay::{Replayed, replay};
pub(crate) use segment::sync_folder;
use segment::{HEADER_BYTES, Header, batch_bytes, list_segments};

/// Bytes of a segment at least.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// Where the journal is and how large its segments are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub folder: PathBuf,
    pub segment_bytes: u64,
    pub cluster_id: [u8; 16],
}

/// The end of the journal, to append to.
pub(crate) struct Journal {
    place: Place,
    file: File,
    path: PathBuf,
    header: Header,
    /// Where the next batch goes.
    offset: u64,
    next: Txid,
    failed: Option<Error>,
    spares: Option<mpsc::Receiver<Result<PathBuf>>>,
    batch: Vec<u8>,
}

impl Journal {
    /// Goes on where a replay ended: in the last segment, whose torn tail is zeroed first, or in a new one.
    pub(crate) fn resume(place: Place, replayed: &Replayed, next: Txid) -> Result<Self> {
        segment::remove_spares(&place.folder)?;
        let (file, path, header, offset) = match &replayed.tail {
            Some(tail) if tail.next == next => {
                let file = segment::open_for_writing(&tail.path)?;
                segment::zero_from(&file, &tail.path, tail.offset)?;
                (file, tail.path.clone(), tail.header.clone(), tail.offset)
            }
            _ => segment::create(&place, next, 0)?,
        };
        Ok(Self {
            place,
            file,
            path,
            header,
            offset,
            next,
            failed: None,
            spares: None,
            batch: Vec::new(),
        })
    }

    /// The transaction that the next request gets.
    pub(crate) fn next(&self) -> Txid {
        self.next
    }

    /// Why the journal is closed for good, if it is.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Makes requests durable as one batch: all or, after a crash in between, none of them. Gives the bytes written.
    /// An empty batch marks an orderly stop: it shows that what is before it was synced.
    pub(crate) fn append(&mut self, requests: &[Vec<u8>]) -> Result<u64> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut batch = std::mem::take(&mut self.batch);
        let result = self.append_batch(requests, &mut batch);
        batch.clear();
        self.batch = batch;
        result
    }

    fn append_batch(&mut self, requests: &[Vec<u8>], batch: &mut Vec<u8>) -> Result<u64> {
        let bytes = batch_bytes(requests);
        if self.offset + bytes > self.header.segment_bytes {
            self.next_segment(bytes)?;
        }
        segment::encode_batch(self.header.salt, self.next, requests, batch);
        let written = self
            .file
            .write_all_at(batch, self.offset)
            .and_then(|()| rustix::fs::fdatasync(&self.file).map_err(std::io::Error::from));
        if let Err(error) = written {
            return Err(self.poison("write or sync", &error));
        }
        self.offset += bytes;
        self.next = Txid(self.next.0 + requests.len() as u64);
        if self.spares.is_none() && self.offset * 2 > self.header.segment_bytes {
            self.prepare_spare();
        }
        Ok(bytes)
    }

    fn poison(&mut self, what: &str, error: &std::io::Error) -> Error {
        let message = format!(
            "journal {}: {what} at offset {} failed: {error}. Nothing after {} is accepted; mend the disk, then \
             restart the NameNode",
            self.path.display(),
            self.offset,
            Txid(self.next.0 - 1)
        );
        let error = Error::new(Code::Io, message);
        self.failed = Some(error.clone());
        error
    }

    fn next_segment(&mut self, batch_bytes: u64) -> Result<()> {
        let spare = self.spares.take().and_then(|spares| spares.recv().ok());
        let fits = HEADER_BYTES + batch_bytes <= self.place.segment_bytes;
        let (file, path, header, offset) = match spare {
            Some(Ok(spare)) if fits => segment::activate(&self.place, &spare, self.next)?,
            _ => segment::create(&self.place, self.next, batch_bytes)?,
        };
        (self.file, self.path, self.header, self.offset) = (file, path, header, offset);
        Ok(())
    }

    /// Fills the next segment with zeros on another thread, so that no caller waits for it.
    fn prepare_spare(&mut self) {
        let (send, receive) = mpsc::sync_channel(1);
        let place = self.place.clone();
        let work = move || {
            if send.send(segment::make_spare(&place)).is_err() {
                tracing::debug!("the journal was closed before its spare segment was ready");
            }
        };
        match std::thread::Builder::new().name("journal-spare".into()).spawn(work) {
            Ok(_) => self.spares = Some(receive),
            Err(error) => tracing::warn!(%error, "no thread to prepare a journal segment"),
        }
    }

    /// Accepts nothing more.
    pub(crate) fn close(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    #[cfg(test)]
    pub(crate) fn replace_file(&mut self, file: File) {
        self.file = file;
    }
}

/// Removes segments that hold nothing after `kept`: a checkpoint has it all. The last segment stays.
pub(crate) fn prune(folder: &Path, kept: Txid) -> Result<usize> {
    let segments = list_segments(folder)?;
    let mut removed = 0;
    for pair in segments.windows(2) {
        if pair[1].0.0 > kept.0 + 1 {
            break;
        }
        std::fs::remove_file(&pair[0].1)
            .map_err(|e| Error::io(format!("remove {}", pair[0].1.display()), &e))?;
        removed += 1;
    }
    if removed > 0 {
        sync_folder(folder)?;
    }
    Ok(removed)
}
