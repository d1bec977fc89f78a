//! The file system as a folder: a FUSE mount, without libfuse.
//!
//! ```text
//! kernel -- /dev/fuse --> ops --> names, contents --> client::Fs
//!                                  |         |
//!                          inode_map      open_files, sequential, folder
//!                     numbers <-> paths   writers, readers, pages
//! ```
//!
//! Thin: what POSIX asks and the file system can do is passed on, everything else is answered with
//! the errno that programs know: writes that do not go on at a file's end are `EOPNOTSUPP`,
//! symbolic links and special files `EPERM`, extended attributes `EOPNOTSUPP`, and a file that was
//! removed while it is open can be read on, but not written and read back (`ESTALE`). The kernel checks
//! permissions by the modes it is shown. What a program wrote is complete and durable when its
//! `close` (or `fsync`) returned, and what it opens is what was closed before.
//!
//! ```no_run
//! # async fn example(fs: client::Fs) -> client::Result<()> {
//! let runtime = tokio::runtime::Handle::current();
//! let session = mount::mount(fs, runtime, "/mnt/granary".as_ref(), mount::Options::default())?;
//! session.unmount().await?;
//! # Ok(())
//! # }
//! ```

mod attributes;
mod contents;
mod errno;
mod folder;
mod inode_map;
mod names;
mod open_files;
mod ops;
mod owners;
mod sequential;
mod session;

use serde::{Deserialize, Serialize};

pub use session::{Session, mount};

/// Settings of a mount. Every field has a safe default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Milliseconds that the kernel may keep names and attributes before it asks again. Changes by
    /// other clients show after it at the latest.
    pub attribute_ttl_ms: u64,
    /// Lets other users than the one who mounts in. Permissions are checked by mode, owner and
    /// group.
    pub allow_other: bool,
    /// Refuses every change.
    pub read_only: bool,
    /// Bytes that the kernel reads ahead of a program that reads from front to back. Set as root
    /// only.
    pub read_ahead_bytes: u64,
    /// Milliseconds that unmounting waits for open files to be closed on the DataNodes.
    pub unmount_timeout_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            attribute_ttl_ms: 1000,
            allow_other: false,
            read_only: false,
            read_ahead_bytes: 4 << 20,
            unmount_timeout_ms: 10_000,
        }
    }
}
