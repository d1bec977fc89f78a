//! One sled folder made safe to rely on, and the values of a checkpoint in it.
//!
//! sled's own flush does not survive a power cut: here its background flusher is off, a sync is its flush followed by
//! `fdatasync` on an own handle of its data file, and `conf` and the folders are synced at creation. Opening and
//! reading may panic on damage: that becomes an error. The cache is small: a checkpoint is read once, in order.
//!
//! A key is `kind u8, page u32 big-endian, part u16 big-endian`; a value is `crc32 u32, parts u16, bytes`, the
//! checksum over key, parts and bytes. Larger pages are split, so that no value leaves sled's own data file.
//!
//! Does not survive damage: it finds it. Whoever uses it has another copy.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::{Code, Error, Result, Txid};

use crate::coding::{Malformed, Reader, put_u8, put_u16, put_u32, put_u64};
use crate::journal::sync_folder;
use crate::state::State;
use crate::state::image::PageKind;

/// Bytes of one value, at most: sixteen of them, a leaf of sled's tree, stay far below its segment.
const PART_BYTES: usize = 8 << 10;
const CACHE_BYTES: u64 = 32 << 20;
/// How long, and how often, an open waits for sled's lock: 10 seconds in all.
const LOCK_WAIT: Duration = Duration::from_millis(5);
const LOCK_WAITS_MAX: u32 = 2_000;
const MANIFEST: u8 = 0;
const SECTIONS: u8 = 0x10;
const MANIFEST_VERSION: u8 = 1;
/// Bytes of a page put together from parts, at most: a list of 2^20 blocks is 4 MiB.
const PAGE_PARTS_MAX: usize = u16::MAX as usize;

/// Takes each page: kind, number, bytes.
type EachPage<'a> = &'a mut dyn FnMut(PageKind, u32, &[u8]) -> Result<(), Malformed>;

/// What a folder holds, if it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub cluster_id: [u8; 16],
    pub txid: Txid,
    /// [`PageSums::digest`].
    pub digest: u64,
}

/// A checksum per page, to know what differs and that nothing is missing.
#[derive(Clone, Default)]
pub(super) struct PageSums {
    /// By kind; 0 is a page without records.
    sums: [Vec<u32>; PageKind::ALL.len()],
    /// Parts of pages that have more than one.
    parts: BTreeMap<(u8, u32), u16>,
    digest: u64,
}

impl PageSums {
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    fn set(&mut self, kind: PageKind, page: u32, sum: u32) {
        let sums = &mut self.sums[kind as usize - 1];
        if sums.len() <= page as usize {
            sums.resize(page as usize + 1, 0);
        }
        let old = std::mem::replace(&mut sums[page as usize], sum);
        self.digest = self.digest.wrapping_sub(mix(kind, page, old));
        self.digest = self.digest.wrapping_add(mix(kind, page, sum));
    }

    /// Pages that the two do not have alike.
    pub(super) fn differences(&self, other: &Self) -> Vec<(PageKind, u32)> {
        let mut different = Vec::new();
        for kind in PageKind::ALL {
            let (mine, theirs) = (&self.sums[kind as usize - 1], &other.sums[kind as usize - 1]);
            for page in 0..mine.len().max(theirs.len()) {
                if mine.get(page).unwrap_or(&0) != theirs.get(page).unwrap_or(&0) {
                    different.push((kind, page as u32));
                }
            }
        }
        different
    }
}

/// What a page adds to the digest: nothing if it is empty, else the finaliser of splitmix64 over its place and sum.
fn mix(kind: PageKind, page: u32, sum: u32) -> u64 {
    if sum == 0 {
        return 0;
    }
    let mut x = u64::from(page) << 32 | u64::from(sum);
    x = x.wrapping_add((kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// An open folder.
pub(super) struct Store {
    path: PathBuf,
    db: sled::Db,
    data: File,
}

fn key(kind: u8, page: u32, part: u16) -> [u8; 7] {
    let (page, part) = (page.to_be_bytes(), part.to_be_bytes());
    [kind, page[0], page[1], page[2], page[3], part[0], part[1]]
}

fn encode_part(key: &[u8], parts: u16, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(6 + bytes.len());
    put_u32(&mut out, 0);
    put_u16(&mut out, parts);
    out.extend_from_slice(bytes);
    let crc = part_crc(key, &out);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode_part<'a>(key: &[u8], value: &'a [u8]) -> Result<(u16, &'a [u8]), Malformed> {
    let mut r = Reader::new(value);
    let crc = r.u32()?;
    let parts = r.u16()?;
    if crc != part_crc(key, value) {
        return Err(Malformed { offset: 0, expected: "a value with its checksum" });
    }
    Ok((parts, &value[6..]))
}

fn part_crc(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&value[4..]);
    hasher.finalize()
}

impl Store {
    /// Makes the folder anew: what was in it is removed.
    pub(super) fn create(path: &Path) -> Result<Self> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove {}", path.display()), &error));
            }
            _ => {}
        }
        let store = Self::open(path)?;
        store.sync()?;
        sync_file(&path.join("conf"))?;
        sync_folder(path)?;
        if let Some(parent) = path.parent() {
            sync_folder(parent)?;
        }
        Ok(store)
    }

    /// Opens the folder.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let db = open_unlocked(path, &config)?;
        let file = path.join("db");
        let data =
            File::open(&file).map_err(|e| Error::io(format!("open {}", file.display()), &e))?;
        Ok(Self { path: path.to_owned(), db, data })
    }

    /// Makes everything written so far durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.run("flush", || self.db.flush())?;
        rustix::fs::fdatasync(&self.data).map_err(|e| self.io("sync", &e.into()))
    }

    /// Writes one page; empty bytes remove it.
    pub(super) fn put_page(
        &self,
        sums: &mut PageSums,
        kind: PageKind,
        page: u32,
        bytes: &[u8],
    ) -> Result<()> {
        let number = kind as u8;
        let before = match sums.parts.remove(&(number, page)) {
            Some(parts) => usize::from(parts),
            None => 1,
        };
        let parts = self.put_parts(number, page, bytes)?;
        for part in parts..before {
            let key = key(number, page, part as u16);
            self.run("remove", || self.db.remove(key))?;
        }
        if parts > 1 {
            sums.parts.insert((number, page), parts as u16);
        }
        let sum = if bytes.is_empty() { 0 } else { crc32fast::hash(bytes).max(1) };
        sums.set(kind, page, sum);
        Ok(())
    }

    fn put_parts(&self, kind: u8, page: u32, bytes: &[u8]) -> Result<usize> {
        let parts = bytes.len().div_ceil(PART_BYTES);
        if parts > PAGE_PARTS_MAX {
            let message = format!("a page of {} bytes does not fit in a checkpoint", bytes.len());
            return Err(Error::new(Code::LimitExceeded, message));
        }
        for (part, chunk) in bytes.chunks(PART_BYTES).enumerate() {
            let key = key(kind, page, part as u16);
            let value = encode_part(&key, parts as u16, chunk);
            self.run("write", || self.db.insert(key, value))?;
        }
        Ok(parts)
    }

    /// Writes the sections: pages of their own kind, each of a part.
    pub(super) fn put_sections(&self, bytes: &[u8]) -> Result<()> {
        let chunks = bytes.len().div_ceil(PART_BYTES);
        for (page, chunk) in bytes.chunks(PART_BYTES).enumerate() {
            self.put_parts(SECTIONS, page as u32, chunk)?;
        }
        // What a larger image left behind.
        let first = key(SECTIONS, chunks as u32, 0);
        let end = [SECTIONS + 1];
        self.run("remove old sections", || {
            for old in self.db.range(&first[..]..&end[..]).keys() {
                self.db.remove(old?)?;
            }
            Ok(())
        })
    }

    pub(super) fn remove_manifest(&self) -> Result<()> {
        self.run("remove the manifest", || self.db.remove(key(MANIFEST, 0, 0))).map(|_| ())
    }

    pub(super) fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let mut bytes = Vec::new();
        put_u8(&mut bytes, MANIFEST_VERSION);
        bytes.extend_from_slice(&manifest.cluster_id);
        put_u64(&mut bytes, manifest.txid.0);
        put_u64(&mut bytes, manifest.digest);
        self.put_parts(MANIFEST, 0, &bytes).map(|_| ())
    }

    /// The manifest, if one was written.
    pub(super) fn manifest(&self) -> Result<Option<Manifest>> {
        let key = key(MANIFEST, 0, 0);
        let Some(value) = self.run("read the manifest", || self.db.get(key))? else {
            return Ok(None);
        };
        let decoded = decode_part(&key, &value).and_then(|(_, bytes)| decode_manifest(bytes));
        decoded.map(Some).map_err(|why| self.damaged("manifest", &why))
    }

    /// Reads everything and checks it against the manifest.
    pub(super) fn load(&self, cluster_id: [u8; 16]) -> Result<(State, PageSums)> {
        let missing = Malformed { offset: 0, expected: "a manifest" };
        let manifest = self.manifest()?.ok_or_else(|| self.damaged("manifest", &missing))?;
        if manifest.cluster_id != cluster_id {
            let message = format!("{} belongs to another cluster", self.path.display());
            return Err(Error::new(Code::Incompatible, message));
        }
        let mut state = State::blank();
        let mut sections = Vec::new();
        let sums =
            self.scan(&mut sections, &mut |kind, page, bytes| state.load_page(kind, page, bytes))?;
        let checked = state
            .load_sections(&sections)
            .and_then(|()| self.check(&manifest, &sums, &state))
            .and_then(|()| state.finish_loading());
        checked.map_err(|why| self.damaged("content", &why))?;
        Ok((state, sums))
    }

    fn check(&self, manifest: &Manifest, sums: &PageSums, state: &State) -> Result<(), Malformed> {
        if sums.digest() != manifest.digest {
            return Err(Malformed { offset: 0, expected: "pages that add up to the manifest" });
        }
        if state.txid() != manifest.txid {
            return Err(Malformed {
                offset: 0,
                expected: "sections of the manifest's transaction",
            });
        }
        Ok(())
    }

    /// Reads all pages for their checksums alone.
    pub(super) fn sums(&self) -> Result<PageSums> {
        self.scan(&mut Vec::new(), &mut |_, _, _| Ok(()))
    }

    /// Hands every page to `each`, in order, and collects the sections.
    fn scan(&self, sections: &mut Vec<u8>, each: EachPage<'_>) -> Result<PageSums> {
        let mut sums = PageSums::default();
        let mut page = Assembly::default();
        let mut failed = None;
        self.run("read", || {
            for entry in self.db.iter() {
                let (key, value) = entry?;
                let taken = page.take(&key, &value).and_then(|whole| match whole {
                    Some((SECTIONS, number)) => {
                        let expected = Malformed { offset: 0, expected: "sections in sequence" };
                        if number as usize != sections.len() / PART_BYTES {
                            return Err(expected);
                        }
                        sections.extend_from_slice(&page.bytes);
                        Ok(())
                    }
                    Some((kind, number)) => {
                        let unknown = Malformed { offset: 0, expected: "a known kind of page" };
                        let kind = PageKind::from_number(kind).ok_or(unknown)?;
                        sums.set(kind, number, crc32fast::hash(&page.bytes).max(1));
                        if page.parts > 1 {
                            sums.parts.insert((kind as u8, number), page.parts);
                        }
                        each(kind, number, &page.bytes)
                    }
                    None => Ok(()),
                });
                if let Err(why) = taken {
                    failed = Some(self.damaged(&format!("value {key:02x?}"), &why));
                    break;
                }
            }
            Ok(())
        })?;
        failed.map_or(Ok(sums), Err)
    }

    fn damaged(&self, what: &str, why: &Malformed) -> Error {
        let message = format!("{}: damaged {what}: {why}", self.path.display());
        Error::new(Code::Corrupt, message)
    }

    fn io(&self, what: &str, error: &std::io::Error) -> Error {
        Error::io(format!("{what} {}", self.path.display()), error)
    }

    fn run<T>(&self, what: &str, work: impl FnOnce() -> sled::Result<T>) -> Result<T> {
        guarded(&self.path, what, work)
    }
}

/// Puts pages together from parts that come in order.
#[derive(Default)]
struct Assembly {
    at: Option<(u8, u32)>,
    parts: u16,
    taken: u16,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Takes a part; gives kind and number of the page that it completes, whose bytes are then in `bytes`.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<Option<(u8, u32)>, Malformed> {
        let bad = |expected| Malformed { offset: 0, expected };
        let (parts, bytes) = decode_part(key, value)?;
        let mut r = Reader::new(key);
        let kind = r.u8()?;
        let page = u32::from_be_bytes(r.take(4, "a page")?.try_into().expect("four bytes"));
        let part = u16::from_be_bytes(r.take(2, "a part")?.try_into().expect("two bytes"));
        r.end()?;
        if kind == MANIFEST {
            return Ok(None);
        }
        if part == 0 && self.taken == self.parts {
            (self.at, self.parts, self.taken) = (Some((kind, page)), parts, 0);
            self.bytes.clear();
        }
        if self.at != Some((kind, page)) || part != self.taken || parts != self.parts || parts == 0
        {
            return Err(bad("the parts of a page in sequence"));
        }
        self.bytes.extend_from_slice(bytes);
        self.taken += 1;
        Ok((self.taken == self.parts).then_some((kind, page)))
    }
}

fn decode_manifest(bytes: &[u8]) -> Result<Manifest, Malformed> {
    let mut r = Reader::new(bytes);
    let malformed = r.malformed("version 1 of a manifest");
    if r.u8()? != MANIFEST_VERSION {
        return Err(malformed);
    }
    let manifest = Manifest { cluster_id: r.id16()?, txid: Txid(r.u64()?), digest: r.u64()? };
    r.end()?;
    Ok(manifest)
}

/// Opens sled once its lock is free. A folder closed in this process a moment ago stays locked until sled's own
/// threads let go of it, after its last handle is gone; nobody else opens it, as the NameNode's folder is locked.
#[allow(clippy::disallowed_methods, reason = "opening is a shell: it waits for other threads")]
fn open_unlocked(path: &Path, config: &sled::Config) -> Result<sled::Db> {
    for _ in 0..LOCK_WAITS_MAX {
        match guarded(path, "open", || config.open()) {
            Err(error) if error.message.contains("could not acquire lock") => {
                std::thread::sleep(LOCK_WAIT);
            }
            opened => return opened,
        }
    }
    let message = format!("checkpoint {}: another process holds it open", path.display());
    Err(Error::new(Code::Unavailable, message))
}

/// Runs sled, which may panic on damaged files.
fn guarded<T>(path: &Path, what: &str, work: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    let failed = |why: String| {
        let message = format!("checkpoint {}: {what}: {why}", path.display());
        Error::new(Code::Corrupt, message)
    };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) if error.kind() != std::io::ErrorKind::Other => {
            Err(Error::io(format!("checkpoint {}: {what}", path.display()), &error))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("sled panicked: its files are damaged".to_owned())),
    }
}

fn sync_file(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io(format!("sync {}", path.display()), &e))
}
