//! Who a volume is: `identity.toml` in its folder, and the lock that keeps a second process out.
//!
//! A volume belongs to one DataNode of one cluster for ever. The cluster and pool ids are empty until the NameNode
//! told them, and are then never changed. A file of a newer format is refused, not guessed at.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use proto::{Code, Error, Result};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// The format of a volume's folders and files that this version writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// The name of the identity file.
pub const IDENTITY_NAME: &str = "identity.toml";
const IDENTITY_BYTES_MAX: u64 = 64 << 10;

/// Who a volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The format of the volume's folders and files.
    pub format_version: u32,
    /// The DataNode it belongs to.
    pub datanode_uuid: String,
    /// The volume itself.
    pub volume_uuid: String,
    /// The cluster; empty until the NameNode told it.
    #[serde(default)]
    pub cluster_id: String,
    /// The block pool that clients name; empty until the NameNode told it.
    #[serde(default)]
    pub pool_id: String,
}

impl Identity {
    /// Reads a volume's identity; `None` if it has none yet.
    pub fn load(root: &Path) -> Result<Option<Self>> {
        let path = root.join(IDENTITY_NAME);
        let name = path.display().to_string();
        match std::fs::metadata(&path) {
            Ok(found) if found.len() > IDENTITY_BYTES_MAX => {
                return Err(Error::new(
                    Code::Corrupt,
                    format!("{name} has {} bytes, at most {IDENTITY_BYTES_MAX}", found.len()),
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format_args!("look at {name}"), &error)),
        }
        let bytes = std::fs::read(&path).map_err(|e| Error::io(format_args!("read {name}"), &e))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| Error::new(Code::Corrupt, format!("{name}: {error}")))?;
        let identity: Self = toml::from_str(text)
            .map_err(|error| Error::new(Code::Corrupt, format!("{name}: {error}")))?;
        if identity.format_version != FORMAT_VERSION {
            return Err(Error::new(
                Code::Incompatible,
                format!(
                    "{name} has format version {}, this program knows {FORMAT_VERSION}",
                    identity.format_version
                ),
            ));
        }
        if identity.datanode_uuid.is_empty() || identity.volume_uuid.is_empty() {
            return Err(Error::new(Code::Corrupt, format!("{name} names no DataNode or volume")));
        }
        Ok(Some(identity))
    }

    /// Writes it durably: a temporary file, synced, renamed, the folder synced.
    pub fn store(&self, root: &Path) -> Result<()> {
        let text = toml::to_string(self).expect("plain text fields always serialise");
        persist(root, IDENTITY_NAME, text.as_bytes())
    }
}

/// Replaces `root/name` durably: after a crash it has its old bytes or the new ones.
pub fn persist(root: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let temporary = root.join(format!("{name}.new"));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, root.join(name))?;
        File::open(root)?.sync_all()
    };
    write().map_err(|error| Error::io(format_args!("write {}", root.join(name).display()), &error))
}

/// Takes the lock of a volume's folder; it is released when the file is closed, at the latest by the process's end.
pub fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| Error::io(format_args!("open {}", path.display()), &error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
        if errno == rustix::io::Errno::WOULDBLOCK {
            return Error::new(
                Code::FileOpenElsewhere,
                format!(
                    "{} is locked: another process uses this folder. Stop it, or set \
                     datanode.volumes to another folder",
                    path.display()
                ),
            );
        }
        Error::io(format_args!("lock {}", path.display()), &errno.into())
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Identity {
        Identity {
            format_version: FORMAT_VERSION,
            datanode_uuid: "d".into(),
            volume_uuid: "v".into(),
            cluster_id: String::new(),
            pool_id: String::new(),
        }
    }

    #[test]
    fn an_identity_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(folder.path()).unwrap(), None);
        sample().store(folder.path()).unwrap();
        assert_eq!(Identity::load(folder.path()).unwrap(), Some(sample()));
    }

    #[test]
    fn a_newer_or_damaged_identity_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Identity { format_version: 2, ..sample() }.store(folder.path()).unwrap();
        assert_eq!(Identity::load(folder.path()).unwrap_err().code, Code::Incompatible);
        for bytes in [&b""[..], b"\xff", b"format_version = 1", b"x = ["] {
            std::fs::write(folder.path().join(IDENTITY_NAME), bytes).unwrap();
            assert_eq!(Identity::load(folder.path()).unwrap_err().code, Code::Corrupt);
        }
    }

    #[test]
    fn a_second_lock_on_a_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        let error = lock(folder.path()).unwrap_err();
        assert!(error.message.contains("another process"), "{error}");
        drop(held);
        lock(folder.path()).unwrap();
    }
}
