//! Telling a bad sector from a bad disk: what a failed read means, and a look whether a volume works.
//!
//! A probe reads the volume's identity, and writes, syncs, reads and removes a small file. What always holds: a volume
//! that does not pass is out of service when this returns; one that is only full, or one process with too many open files,
//! passes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use proto::{Code, Error, Result};

use super::Volume;
use crate::identity::Identity;

/// Failed reads of replicas after which a volume is out of service.
const READ_ERRORS_MAX: u64 = 16;
/// The file that a probe writes.
const PROBE_NAME: &str = "probe";
const PROBE_BYTES: &[u8; 16] = b"granary probes.\n";

impl Volume {
    /// The error of a read of one replica. A sector that can't be read is damage to that replica, and `Corrupt`, if the
    /// disk takes and gives back bytes elsewhere; otherwise, and after [`READ_ERRORS_MAX`] of them, the volume is out of
    /// service.
    pub fn read_error(&self, what: impl std::fmt::Display, error: &io::Error) -> Error {
        if error.raw_os_error() != Some(libc::EIO) || self.is_failed() {
            return self.io_error(what, error);
        }
        let errors = self.read_errors.fetch_add(1, Ordering::Relaxed) + 1;
        if errors >= READ_ERRORS_MAX {
            return self.io_error(format_args!("{what} (error number {errors})"), error);
        }
        match self.probe() {
            Ok(()) => Error::new(Code::Corrupt, format!("{what}: {error}")),
            Err(told) => told,
        }
    }

    /// Looks whether the volume is there and takes and gives back bytes. If not, it is out of service. Blocks.
    pub fn probe(&self) -> Result<()> {
        self.check()?;
        let identity = Identity::load(&self.root).inspect_err(|error| self.fail(&error.message))?;
        if identity.as_ref().map(|identity| &identity.volume_uuid)
            != Some(&self.identity().volume_uuid)
        {
            let why = format!("{} is no longer the volume that it was", self.root.display());
            self.fail(&why);
            return Err(Error::new(Code::Io, why));
        }
        let path = self.root.join(PROBE_NAME);
        let tried = || -> io::Result<()> {
            let file =
                File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
            file.write_all_at(PROBE_BYTES, 0)?;
            file.sync_data()?;
            let mut back = [0; PROBE_BYTES.len()];
            file.read_exact_at(&mut back, 0)?;
            match back == *PROBE_BYTES {
                true => std::fs::remove_file(&path),
                false => Err(io::Error::from_raw_os_error(libc::EIO)),
            }
        };
        match tried() {
            Ok(()) => Ok(()),
            // A full disk, or one process with too many open files, is no failed one.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOSPC | libc::EDQUOT | libc::EMFILE | libc::ENFILE | libc::ENOMEM)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(self.sync_error(format_args!("probe {}", path.display()), &error)),
        }
    }
}
