//! Fetching ahead: a task reads the rest of the file into a bounded queue while the caller consumes.

use std::sync::Arc;

use bytes::Bytes;
use proto::Result;
use tokio::sync::mpsc;

use super::OpenFile;
use super::stream::RangeStream;

/// A task that fetches. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    queue: mpsc::Receiver<Result<Bytes>>,
    task: tokio::task::AbortHandle,
}

impl ReadAhead {
    /// Fetches `length` bytes from `offset` on, at most `read_ahead_bytes` before they are asked for.
    pub(crate) fn start(file: Arc<OpenFile>, offset: u64, length: u64) -> Self {
        let config = file.fs.config();
        let packets = config.read_ahead_bytes / u64::from(proto::limits::PACKET_BYTES_NATIVE);
        let (sender, queue) = mpsc::channel(usize::try_from(packets).unwrap_or(1).clamp(1, 1024));
        let task = tokio::spawn(async move {
            let mut stream = RangeStream::new(file, offset, length);
            while let Some(item) = stream.next().await.transpose() {
                let failed = item.is_err();
                if sender.send(item).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { queue, task: task.abort_handle() }
    }

    /// The next bytes; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        self.queue.recv().await.transpose()
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.task.abort();
    }
}
