//! The bytes of a journal segment, and making one.
//!
//! A segment is `<first txid, 20 digits>.log`: a header of 64 bytes, then batches, then zeros to its end. A batch is a
//! head of 32 bytes and its requests, each with its length; one CRC32 covers head and requests and begins with the
//! segment's salt, so that bytes a user chose can never pass for a batch.
//!
//! A segment is made under another name, zero-filled, synced and renamed: a file of the right name has a whole
//! header. See docs/formats/journal.md.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proto::{Code, Error, Result, Txid};

use super::Place;
use crate::coding::{Malformed, Reader, put_u32, put_u64};

const MAGIC: &[u8; 8] = b"GRNJRNL1";
const VERSION: u32 = 1;
/// Where the first batch begins.
pub(crate) const HEADER_BYTES: u64 = 64;
const BATCH_MAGIC: u32 = 0x4842_4e47; // "GNBH"
/// Bytes of a batch's head.
pub(super) const BATCH_HEAD_BYTES: usize = 32;
/// Bytes of requests in one batch at most: the largest request and what is drained beside it.
pub(super) const BATCH_BYTES_MAX: usize = 64 << 20;
/// Batches begin at multiples of this.
pub(super) const BATCH_ALIGN: u64 = 8;
const SPARE: &str = "spare.tmp";
const FILL_BYTES: usize = 1 << 20;

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub cluster_id: [u8; 16],
    pub first: Txid,
    pub segment_bytes: u64,
    /// Begins every batch's checksum.
    pub salt: u64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut out = Vec::with_capacity(HEADER_BYTES as usize);
        out.extend_from_slice(MAGIC); // 0
        put_u32(&mut out, VERSION); // 8
        put_u32(&mut out, 0); // 12: reserved
        out.extend_from_slice(&self.cluster_id); // 16
        put_u64(&mut out, self.first.0); // 32
        put_u64(&mut out, self.segment_bytes); // 40
        put_u64(&mut out, self.salt); // 48
        put_u32(&mut out, 0); // 56: reserved
        let crc = crc32fast::hash(&out);
        put_u32(&mut out, crc); // 60
        out.try_into().expect("the fields add up to the header")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let bad = |expected| Malformed { offset: 0, expected };
        if r.take(8, "a magic number")? != MAGIC {
            return Err(bad("the magic number GRNJRNL1"));
        }
        let version = r.u32()?;
        let reserved = r.u32()?;
        let header = Self {
            cluster_id: r.id16()?,
            first: Txid(r.u64()?),
            segment_bytes: r.u64()?,
            salt: r.u64()?,
        };
        let reserved = reserved | r.u32()?;
        let crc = crc32fast::hash(&bytes[..r.offset()]);
        if r.u32()? != crc {
            return Err(bad("a header with its checksum"));
        }
        if version != VERSION || reserved != 0 {
            return Err(bad("version 1 (a newer Granary wrote this)"));
        }
        Ok(header)
    }
}

/// Bytes that a batch takes in the file.
pub(super) fn batch_bytes(requests: &[Vec<u8>]) -> u64 {
    let payload: usize = requests.iter().map(|request| 4 + request.len()).sum();
    (BATCH_HEAD_BYTES + payload).next_multiple_of(BATCH_ALIGN as usize) as u64
}

/// Appends a batch: magic, payload bytes, first txid, count, reserved, CRC32; then length and bytes of each request;
/// then zeros to a multiple of eight.
pub(super) fn encode_batch(salt: u64, first: Txid, requests: &[Vec<u8>], out: &mut Vec<u8>) {
    let start = out.len();
    put_u32(out, BATCH_MAGIC); // 0
    let payload: usize = requests.iter().map(|request| 4 + request.len()).sum();
    put_u32(out, u32::try_from(payload).expect("the log bounds a batch")); // 4
    put_u64(out, first.0); // 8
    put_u32(out, requests.len() as u32); // 16
    put_u64(out, 0); // 20: reserved
    put_u32(out, 0); // 28: the checksum
    for request in requests {
        put_u32(out, request.len() as u32);
        out.extend_from_slice(request);
    }
    let crc = batch_crc(salt, &out[start..]);
    out[start + 28..start + 32].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + batch_bytes(requests) as usize, 0);
}

fn batch_crc(salt: u64, batch: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&batch[..28]);
    hasher.update(&batch[BATCH_HEAD_BYTES..]);
    hasher.finalize()
}

/// A batch as it stands in a segment.
pub(super) struct Batch<'a> {
    pub first: Txid,
    pub requests: Vec<&'a [u8]>,
    /// Bytes it takes in the file.
    pub bytes: u64,
}

/// Reads a batch from the beginning of `bytes`. Total.
pub(super) fn decode_batch(salt: u64, bytes: &[u8]) -> Result<Batch<'_>, Malformed> {
    let mut r = Reader::new(bytes);
    let bad = |offset, expected| Malformed { offset, expected };
    if r.u32()? != BATCH_MAGIC {
        return Err(bad(0, "the magic number of a batch"));
    }
    let payload = r.u32()? as usize;
    let first = Txid(r.u64()?);
    let count = r.u32()? as usize;
    let reserved = r.u64()?;
    let crc = r.u32()?;
    if payload > BATCH_BYTES_MAX || payload > r.remaining() || count > payload / 4 {
        return Err(bad(4, "a batch that fits in its segment"));
    }
    let end = BATCH_HEAD_BYTES + payload;
    if crc != batch_crc(salt, &bytes[..end]) || reserved != 0 {
        return Err(bad(28, "a batch with its checksum"));
    }
    let mut r = Reader::new(&bytes[BATCH_HEAD_BYTES..end]);
    let requests = (0..count).map(|_| r.bytes(payload)).collect::<Result<Vec<_>, Malformed>>()?;
    r.end()?;
    Ok(Batch { first, requests, bytes: (end as u64).next_multiple_of(BATCH_ALIGN) })
}

/// Whether a batch could begin here: a cheap look before a checksum is computed.
pub(super) fn looks_like_batch(bytes: &[u8]) -> bool {
    bytes.starts_with(&BATCH_MAGIC.to_le_bytes())
}

/// Segments of a folder, by first transaction.
pub(super) fn list_segments(folder: &Path) -> Result<Vec<(Txid, PathBuf)>> {
    let what = || format!("list the journal {}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(what(), &e))? {
        let path = entry.map_err(|e| Error::io(what(), &e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if name == SPARE {
            continue;
        }
        let first = name.strip_suffix(".log").filter(|digits| digits.len() == 20);
        match first.and_then(|digits| digits.parse().ok()) {
            Some(first) => found.push((Txid(first), path)),
            None => {
                let message = format!(
                    "{} is not a journal segment (20 digits and .log): move it away",
                    path.display()
                );
                return Err(Error::new(Code::Corrupt, message));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn segment_path(place: &Place, first: Txid) -> PathBuf {
    place.folder.join(format!("{:020}.log", first.0))
}

/// Makes the segment that begins with `first`, large enough for a batch of `batch_bytes`, and opens it.
pub(super) fn create(
    place: &Place,
    first: Txid,
    batch_bytes: u64,
) -> Result<(File, PathBuf, Header, u64)> {
    let bytes = place.segment_bytes.max(HEADER_BYTES + batch_bytes);
    let spare = fill(place, bytes)?;
    activate(place, &spare, first)
}

/// Makes a zero-filled file of a segment's usual size under a temporary name.
pub(super) fn make_spare(place: &Place) -> Result<PathBuf> {
    fill(place, place.segment_bytes)
}

fn fill(place: &Place, bytes: u64) -> Result<PathBuf> {
    let path = place.folder.join(SPARE);
    let filled = fill_file(&path, bytes);
    if let Err(error) = filled {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "an unfinished journal segment stays");
        }
        return Err(Error::io(format!("make a journal segment {}", path.display()), &error));
    }
    Ok(path)
}

fn fill_file(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) | Ok(()) => {}
        Err(error) => return Err(error.into()),
    }
    let zeros = vec![0; FILL_BYTES.min(bytes as usize)];
    let mut at = 0;
    while at < bytes {
        let step = (bytes - at).min(zeros.len() as u64) as usize;
        file.write_all_at(&zeros[..step], at)?;
        at += step as u64;
    }
    file.sync_all()
}

/// Gives a filled file its header and its name.
pub(super) fn activate(
    place: &Place,
    spare: &Path,
    first: Txid,
) -> Result<(File, PathBuf, Header, u64)> {
    let path = segment_path(place, first);
    let what = |e: &std::io::Error| Error::io(format!("begin segment {}", path.display()), e);
    if path.exists() {
        let message = format!("{} exists already: the journal has two ends", path.display());
        return Err(Error::new(Code::Internal, message));
    }
    let file = open_for_writing(spare)?;
    let segment_bytes = file.metadata().map_err(|e| what(&e))?.len();
    let salt = uuid::Uuid::new_v4().as_u64_pair().0;
    let header = Header { cluster_id: place.cluster_id, first, segment_bytes, salt };
    file.write_all_at(&header.encode(), 0).map_err(|e| what(&e))?;
    file.sync_all().map_err(|e| what(&e))?;
    std::fs::rename(spare, &path).map_err(|e| what(&e))?;
    sync_folder(&place.folder)?;
    Ok((file, path, header, HEADER_BYTES))
}

pub(super) fn open_for_writing(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| Error::io(format!("open {}", path.display()), &e))
}

/// Makes everything from `offset` to the end zero and durable, touching only what is not zero yet.
pub(super) fn zero_from(file: &File, path: &Path, offset: u64) -> Result<()> {
    let what = |e: std::io::Error| Error::io(format!("clean the end of {}", path.display()), &e);
    let end = file.metadata().map_err(what)?.len();
    let mut buffer = vec![0; FILL_BYTES];
    let zeros = vec![0; FILL_BYTES];
    let mut at = offset;
    while at < end {
        let step = (end - at).min(FILL_BYTES as u64) as usize;
        file.read_exact_at(&mut buffer[..step], at).map_err(what)?;
        if buffer[..step].iter().any(|&byte| byte != 0) {
            file.write_all_at(&zeros[..step], at).map_err(what)?;
        }
        at += step as u64;
    }
    file.sync_all().map_err(what)
}

/// Removes a spare that a crash left behind.
pub(super) fn remove_spares(folder: &Path) -> Result<()> {
    match std::fs::remove_file(folder.join(SPARE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}/{SPARE}", folder.display()), &error))
        }
        _ => Ok(()),
    }
}

/// Makes names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io(format!("sync the folder {}", folder.display()), &e))
}
