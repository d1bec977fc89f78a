//! A replica that is not finished: its state, its writer, and what readers may see of it.
//!
//! The state changes under a short lock. A writer is one session; a takeover tells it to stop and waits until it is
//! gone, and only then changes anything. What holds: at most one writer; `tail_sum`, when known, is the checksum of
//! the partial chunk that ends at the visible length.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::{Code, Error, Result};
use tokio::sync::{Notify, watch};

use crate::files::{Paths, Wrote};
use crate::layout::{self, Folder};
use crate::replica::{Replica, State};
use crate::volume::Volume;

/// In which folder an unfinished replica's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Being written, or waiting for recovery.
    Rbw,
    /// Of a transfer.
    Tmp,
    /// Finished before a recovery began.
    Finalized,
}

/// A replica that is not finished.
pub struct OpenReplica {
    volume: Arc<Volume>,
    inner: Mutex<Inner>,
    writer_gone: Notify,
}

/// What changes of it.
pub struct Inner {
    /// Its state.
    pub replica: Replica,
    /// Where its files are.
    pub place: Place,
    /// The checksum of the partial chunk that ends at the visible length; `None`: as in the checksum file.
    pub tail_sum: Option<u32>,
    writer: Option<Writer>,
    writers: u64,
}

struct Writer {
    number: u64,
    stop: watch::Sender<bool>,
}

/// The right to write a replica, until told to stop.
pub struct WriterPass {
    number: u64,
    /// Becomes true when another takes over.
    pub stop: watch::Receiver<bool>,
}

impl OpenReplica {
    /// A replica without a writer.
    pub fn new(
        volume: &Arc<Volume>,
        replica: Replica,
        place: Place,
        tail_sum: Option<u32>,
    ) -> Self {
        Self {
            volume: volume.clone(),
            inner: Mutex::new(Inner { replica, place, tail_sum, writer: None, writers: 0 }),
            writer_gone: Notify::new(),
        }
    }

    /// Where it is.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Its state, for a short look or change.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding a replica")
    }

    /// A copy of its state.
    pub fn replica(&self) -> Replica {
        self.lock().replica.clone()
    }

    /// Where its files are now.
    pub fn paths(&self) -> Paths {
        let inner = self.lock();
        paths_at(&self.volume, inner.place, &inner.replica)
    }

    /// Makes the caller its writer. There must be none.
    pub fn begin_writing(&self) -> WriterPass {
        let mut inner = self.lock();
        assert!(inner.writer.is_none(), "the earlier writer was stopped");
        inner.writers += 1;
        let number = inner.writers;
        let (stop, told) = watch::channel(false);
        inner.writer = Some(Writer { number, stop });
        WriterPass { number, stop: told }
    }

    /// The writer is gone: nothing of it will touch the files any more.
    pub fn end_writing(&self, number: u64) {
        let mut inner = self.lock();
        if inner.writer.as_ref().is_some_and(|writer| writer.number == number) {
            inner.writer = None;
            drop(inner);
            self.writer_gone.notify_waiters();
        }
    }

    /// Whether somebody writes it.
    pub fn has_writer(&self) -> bool {
        self.lock().writer.is_some()
    }

    /// Tells the writer, if there is one, to stop.
    pub fn evict_writer(&self) -> bool {
        let inner = self.lock();
        inner.writer.as_ref().is_some_and(|writer| !writer.stop.send_replace(true))
    }

    /// Stops the writer, if there is one, and waits until it is gone.
    pub async fn stop_writer(&self, wait: Duration) -> Result<()> {
        let gone = async {
            loop {
                let mut gone = std::pin::pin!(self.writer_gone.notified());
                gone.as_mut().enable();
                match &self.lock().writer {
                    None => return,
                    Some(writer) => {
                        writer.stop.send_replace(true);
                    }
                }
                gone.await;
            }
        };
        tokio::time::timeout(wait, gone).await.map_err(|_| {
            Error::new(
                Code::Timeout,
                format!(
                    "the writer of {} did not stop within {} ms",
                    self.replica().name(),
                    wait.as_millis()
                ),
            )
        })
    }

    /// The files came this far.
    pub fn wrote(&self, wrote: Wrote) {
        self.lock().replica.wrote(wrote.end);
    }

    /// Everyone from here on acknowledged the bytes up to this point.
    pub fn acked(&self, wrote: Wrote) {
        let mut inner = self.lock();
        if inner.replica.state() == State::BeingWritten && wrote.end >= inner.replica.visible() {
            inner.replica.acked(wrote.end);
            inner.tail_sum = wrote.tail_sum;
        }
    }
}

impl WriterPass {
    /// Which of the replica's writers this is.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// Where the files of a replica in this state are.
pub fn paths_at(volume: &Volume, place: Place, replica: &Replica) -> Paths {
    let folder: PathBuf = match place {
        Place::Rbw => layout::rbw_path(volume.root()),
        Place::Tmp => layout::tmp_path(volume.root()),
        Place::Finalized => Folder::of(replica.block()).path(volume.root()),
    };
    Paths::new(&folder, replica.block(), replica.stamp())
}
