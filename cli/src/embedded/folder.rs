//! The folder of an embedded cluster: its lock, and `cluster.json`, which tells other commands where it listens.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, Result};

const LOCK: &str = "up.lock";
const FILE: &str = "cluster.json";
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where an embedded cluster listens: all are `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// The process that runs it.
    pub pid: u32,
    /// The NameNode's gRPC service: what `--cluster` takes.
    pub namenode: String,
    /// The NameNode's HTTP pages.
    pub http: String,
    /// Hadoop's RPC.
    pub hadoop_rpc: String,
    /// The Redis protocol.
    pub redis: String,
    /// The kvserve's gRPC service.
    pub kvserve_grpc: String,
    /// The kvserve's HTTP pages.
    pub kvserve_http: String,
    /// The DataNodes' data ports.
    pub datanodes: Vec<String>,
}

impl ClusterFile {
    /// Reads the file of the cluster in this folder.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let file = File::open(&path).map_err(|error| {
            let message = format!("{}: {error}: no cluster runs in this folder", path.display());
            Failure::new(Exit::Unreachable, message)
                .hint(format!("start one with `granary up --dir {}`", dir.display()))
        })?;
        let mut text = String::new();
        let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| Failure::io(path.display(), &error))?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::new(Exit::Failure, format!("{}: {error}", path.display())))
    }
}

/// A folder that this process alone uses.
pub struct Folder {
    dir: PathBuf,
    /// Held for as long as this lives.
    _lock: File,
    announced: Option<ClusterFile>,
}

impl Folder {
    /// Makes the folder if it is not there, and locks it.
    pub fn open(dir: &Path) -> Result<Self> {
        let fail = |error: std::io::Error| Failure::io(format!("--dir {}", dir.display()), &error);
        if dir.exists() && !dir.is_dir() {
            let message = format!("--dir {}: is a file, not a folder", dir.display());
            return Err(Failure::usage(message));
        }
        std::fs::create_dir_all(dir).map_err(fail)?;
        let dir = std::fs::canonicalize(dir).map_err(fail)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(LOCK))
            .map_err(fail)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(in_use(&dir));
        }
        Ok(Self { dir, _lock: lock, announced: None })
    }

    /// The folder of one role, as configuration holds it.
    pub fn role(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::usage(format!("--dir {}: the path is not UTF-8", self.dir.display()))
        })
    }

    /// Tells other commands where the cluster listens.
    pub fn announce(&mut self, file: ClusterFile) -> Result<()> {
        let text = serde_json::to_vec_pretty(&file).expect("plain values serialise");
        let (path, temporary) = (self.dir.join(FILE), self.dir.join("cluster.json.new"));
        let written = File::create(&temporary)
            .and_then(|mut out| out.write_all(&text).and_then(|()| out.sync_all()))
            .and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|error| Failure::io(path.display(), &error))?;
        self.announced = Some(file);
        Ok(())
    }

    /// What was announced. Panics before that.
    pub fn announced(&self) -> &ClusterFile {
        self.announced.as_ref().expect("announced when started")
    }

    /// Takes the announcement back: the cluster stops.
    pub fn retract(&mut self) {
        // Best effort: a stale file names a cluster that does not answer, and the next start replaces it.
        std::fs::remove_file(self.dir.join(FILE)).ok();
    }
}

fn in_use(dir: &Path) -> Failure {
    let by = ClusterFile::read(dir).map_or_else(
        |_| "another process".to_owned(),
        |file| format!("process {}, which listens at {}", file.pid, file.namenode),
    );
    Failure::new(Exit::Conflict, format!("--dir {}: in use by {by}", dir.display()))
        .hint(format!("commands reach it with --cluster {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> ClusterFile {
        let addr = |port: u16| format!("127.0.0.1:{port}");
        ClusterFile {
            pid: 1,
            namenode: addr(1),
            http: addr(2),
            hadoop_rpc: addr(3),
            redis: addr(4),
            kvserve_grpc: addr(5),
            kvserve_http: addr(6),
            datanodes: vec![addr(7)],
        }
    }

    #[test]
    fn a_folder_in_use_is_refused_and_says_by_whom() {
        let temp = tempfile::tempdir().unwrap();
        let mut first = Folder::open(temp.path()).unwrap();
        first.announce(file()).unwrap();
        let failure = Folder::open(temp.path()).err().unwrap();
        assert_eq!(failure.exit, Exit::Conflict);
        assert!(failure.message.contains("process 1, which listens at 127.0.0.1:1"), "{failure}");
        drop(first);
        assert!(Folder::open(temp.path()).is_ok());
    }

    #[test]
    fn an_announcement_is_read_back_until_it_is_retracted() {
        let temp = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(temp.path()).unwrap();
        folder.announce(file()).unwrap();
        assert_eq!(ClusterFile::read(temp.path()).unwrap(), file());
        folder.retract();
        assert_eq!(ClusterFile::read(temp.path()).unwrap_err().exit, Exit::Unreachable);
    }
}
