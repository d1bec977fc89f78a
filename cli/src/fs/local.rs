//! Local files and streams, read and written on threads of their own, so that a slow disk or pipe holds up nobody.
//!
//! Between thread and task lie at most [`CHUNKS_MAX`] chunks of [`CHUNK_BYTES`].

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::failure::{Failure, Result};

const CHUNK_BYTES: usize = 1 << 20;
const CHUNKS_MAX: usize = 4;

/// A local file or standard input, chunk by chunk.
pub struct Source {
    name: String,
    chunks: mpsc::Receiver<std::io::Result<Bytes>>,
}

impl Source {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::start("standard input".into(), std::io::stdin()));
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::io(&name, &error))?;
        Ok(Self::start(name, file))
    }

    fn start(name: String, mut from: impl Read + Send + 'static) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        tokio::task::spawn_blocking(move || {
            loop {
                let mut buffer = vec![0; CHUNK_BYTES];
                let chunk = fill(&mut from, &mut buffer);
                let last = !matches!(chunk, Ok(CHUNK_BYTES));
                let chunk = chunk.map(|length| {
                    buffer.truncate(length);
                    Bytes::from(buffer)
                });
                // Nobody wants the rest: the copy has failed.
                if sender.blocking_send(chunk).is_err() || last {
                    return;
                }
            }
        });
        Self { name, chunks }
    }

    /// The next chunk; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.chunks.recv().await {
            Some(Ok(chunk)) if !chunk.is_empty() => Ok(Some(chunk)),
            Some(Err(error)) => Err(Failure::io(&self.name, &error)),
            _ => Ok(None),
        }
    }
}

/// Reads until the buffer is full or the end is reached.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match from.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Whether this is neither a file nor a folder, but a device, a pipe or a socket: it is written to, never replaced.
pub fn is_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir())
}

/// A local file that appears under its name when it is whole and on stable storage, or not at all. A device or a pipe
/// gets the bytes as they come.
pub struct Target {
    path: PathBuf,
    /// What is renamed at the end; `None` for a device.
    temporary: Option<PathBuf>,
    chunks: Option<mpsc::Sender<Bytes>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    done: bool,
}

impl Target {
    /// Begins to write what will be `path`.
    pub fn create(path: &Path) -> Result<Self> {
        let temporary = (!is_device(path)).then(|| beside(path));
        let file = match &temporary {
            Some(temporary) => File::create(temporary),
            None => File::options().write(true).open(path),
        };
        // The user did not choose the temporary name, and reads of the one that was.
        let mut file = file.map_err(|error| Failure::io(path.display(), &error))?;
        let sync = temporary.is_some();
        let (sender, mut chunks) = mpsc::channel::<Bytes>(CHUNKS_MAX);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                file.write_all(&chunk)?;
            }
            if sync { file.sync_all() } else { Ok(()) }
        });
        let path = path.to_owned();
        Ok(Self { path, temporary, chunks: Some(sender), thread: Some(thread), done: false })
    }

    /// Adds bytes.
    pub async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let chunks = self.chunks.as_ref().expect("open until finish");
        if chunks.send(chunk).await.is_err() {
            return self.ended().await; // the thread has failed
        }
        Ok(())
    }

    /// Makes the file appear under its name.
    pub async fn finish(mut self) -> Result<()> {
        self.ended().await?;
        self.done = true;
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let fail = |error: std::io::Error| Failure::io(self.path.display(), &error);
        if let Err(error) = std::fs::rename(temporary, &self.path) {
            self.done = false;
            return Err(fail(error));
        }
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)
    }

    async fn ended(&mut self) -> Result<()> {
        self.chunks = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = thread.await.expect("the writing thread does not panic");
        ended.map_err(|error| Failure::io(self.path.display(), &error))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let (false, Some(temporary)) = (self.done, &self.temporary) {
            // Best effort: the file may not have been made.
            std::fs::remove_file(temporary).ok();
        }
    }
}

/// `.name._COPYING_` beside `path`.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let short: String = name.chars().take(48).collect();
    path.with_file_name(format!(".{short}.{}._COPYING_", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn a_copy_appears_when_it_is_whole_and_equal() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        let content: Vec<u8> = (0..2_500_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&from, &content).unwrap();
        run(async {
            let mut source = Source::open(&from).unwrap();
            let mut target = Target::create(&to).unwrap();
            while let Some(chunk) = source.next().await.unwrap() {
                target.write(chunk).await.unwrap();
                assert!(!to.exists());
            }
            target.finish().await.unwrap();
        });
        assert_eq!(std::fs::read(&to).unwrap(), content);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_copy_that_is_given_up_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        run(async {
            let mut target = Target::create(&temp.path().join("to")).unwrap();
            target.write(Bytes::from_static(b"half")).await.unwrap();
        });
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_device_is_written_to_and_stays_a_device() {
        let temp = tempfile::tempdir().unwrap();
        let link = temp.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        run(async {
            let mut target = Target::create(&link).unwrap();
            target.write(Bytes::from_static(b"gone")).await.unwrap();
            target.finish().await.unwrap();
        });
        assert!(is_device(&link) && link.is_symlink());
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_source_that_is_not_there_is_not_found() {
        let failure = Source::open(Path::new("/nowhere/file")).err().unwrap();
        assert_eq!(failure.exit, crate::failure::Exit::NotFound);
        assert!(failure.message.starts_with("/nowhere/file: "), "{failure}");
    }
}
