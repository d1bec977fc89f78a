//! Whose folder this is: the lock that one process holds, and the identity that was chosen when it was made.
//!
//! `identity` is a text of lines `name = value`: format, cluster_id, superuser. It is written once, under another
//! name first, and never changed. A folder of a newer format, or without an identity but with data, is refused.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use proto::limits::PRINCIPAL_BYTES_MAX;
use proto::{Code, Error, Result};

use crate::journal::sync_folder;

const FORMAT: &str = "1";
const IDENTITY_BYTES_MAX: u64 = 4_096;

/// What was chosen when the folder was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub cluster_id: [u8; 16],
    pub superuser: String,
}

/// Makes the folder if it is not there, locks it, and reads or chooses its identity.
pub(super) fn claim(dir: &Path, superuser: &str) -> Result<(Identity, File)> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(format!("make {}", dir.display()), &e))?;
    let path = dir.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| Error::io(format!("open {}", path.display()), &e))?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let message = format!(
                "the NameNode folder {} is in use by another process: stop it, or choose another folder",
                dir.display()
            );
            return Err(Error::new(Code::Unavailable, message));
        }
        Err(error) => return Err(Error::io(format!("lock {}", path.display()), &error.into())),
    }
    let path = dir.join("identity");
    if path.exists() {
        return Ok((read(&path)?, lock));
    }
    if dir.join("journal").exists() || dir.join("checkpoint").exists() {
        let message = format!("{} has data but no file `identity`: restore it", dir.display());
        return Err(Error::new(Code::Corrupt, message));
    }
    let identity = choose(superuser)?;
    write(dir, &path, &identity)?;
    Ok((identity, lock))
}

fn choose(superuser: &str) -> Result<Identity> {
    let bad = superuser.is_empty()
        || superuser.len() > PRINCIPAL_BYTES_MAX
        || superuser.contains(['\n', '\r']);
    if bad {
        let message = format!("superuser {superuser:?}: must be 1 to 255 bytes on one line");
        return Err(Error::new(Code::InvalidArgument, message));
    }
    let cluster_id = *uuid::Uuid::new_v4().as_bytes();
    Ok(Identity { cluster_id, superuser: superuser.to_owned() })
}

fn write(dir: &Path, path: &Path, identity: &Identity) -> Result<()> {
    let text = format!(
        "format = {FORMAT}\ncluster_id = {}\nsuperuser = {}\n",
        uuid::Uuid::from_bytes(identity.cluster_id),
        identity.superuser
    );
    let temporary = dir.join("identity.tmp");
    File::create(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|e| Error::io(format!("write {}", path.display()), &e))?;
    sync_folder(dir)
}

fn read(path: &Path) -> Result<Identity> {
    let io = |e: std::io::Error| Error::io(format!("read {}", path.display()), &e);
    if std::fs::metadata(path).map_err(io)?.len() > IDENTITY_BYTES_MAX {
        return Err(malformed(path, "at most 4096 bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.ok_or_else(|| malformed(path, &format!("a line `{name} = ...`")))
    };
    let format = field("format")?;
    if format != FORMAT {
        let message = format!(
            "{} is of format {format}, this Granary knows {FORMAT}: use the version that wrote it",
            path.display()
        );
        return Err(Error::new(Code::Incompatible, message));
    }
    let cluster_id = uuid::Uuid::parse_str(field("cluster_id")?)
        .map_err(|_| malformed(path, "a UUID as cluster_id"))?;
    let superuser = field("superuser")?.to_owned();
    Ok(Identity { cluster_id: *cluster_id.as_bytes(), superuser })
}

fn malformed(path: &Path, expected: &str) -> Error {
    Error::new(Code::Corrupt, format!("{}: expected {expected}", path.display()))
}
