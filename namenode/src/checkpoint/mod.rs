//! Checkpoints: the state as of a transaction, in two sled folders that are written in turn.
//!
//! | module | owns |
//! |---|---|
//! | `store` | one sled folder made safe: values with checksums, parts of bounded size, real syncs |
//!
//! A checkpoint writes the pages that changed since the same folder was last written, while operations go on: the
//! pages are frozen as of one transaction, and encoded a few at a time (see `state::slab`). The manifest names the
//! transaction and a digest over all pages; a folder whose pages do not add up to it is damaged.
//!
//! Always holds: while one folder is written, the other is whole. A journal segment is removed only when both
//! folders are newer than what it holds.
//!
//! Opening takes the newest folder that verifies. One that does not is wiped when its turn to be written comes.
//! See docs/formats/checkpoint.md.

mod store;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use proto::{Code, Error, Result, Txid};

use crate::state::State;
use crate::state::image::PageKind;
use crate::state::slab::{PageImage, Side};
use store::{Manifest, PageSums, Store};

/// Pages encoded under one hold of the state's lock: some hundreds of microseconds.
const PAGES_PER_HOLD: usize = 128;

/// What one of the two folders holds.
struct Folder {
    path: PathBuf,
    store: Option<Store>,
    /// The transaction of its manifest, if it has a good one.
    txid: Option<Txid>,
    content: Content,
}

enum Content {
    /// Checksums of its pages are known, and the state knows which of them changed since.
    Known(PageSums),
    /// It was not read in full: to be compared with what was loaded before it is written.
    Unread,
    /// Empty or damaged: everything is to be written, into a new folder.
    Worthless,
}

/// Both folders.
pub(crate) struct Checkpoints {
    cluster_id: [u8; 16],
    folders: [Folder; 2],
    /// Sums of the folder that was loaded, to compare an unread one with.
    loaded: Option<PageSums>,
}

/// What opening found.
pub(crate) struct Opened {
    pub checkpoints: Checkpoints,
    /// The newest good state, if there is one.
    pub state: Option<State>,
    /// What was wrong with folders that were passed over.
    pub damage: Vec<Error>,
}

/// What a checkpoint took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The transaction that the checkpoint holds.
    pub txid: Txid,
    /// Pages written.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Checkpoints {
    /// Opens both folders under `folder` and loads the newest good state.
    pub(crate) fn open(folder: &std::path::Path, cluster_id: [u8; 16]) -> Result<Opened> {
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::io(format!("make {}", folder.display()), &e))?;
        let mut damage = Vec::new();
        let mut folders = [
            look(folder.join("a"), cluster_id, &mut damage)?,
            look(folder.join("b"), cluster_id, &mut damage)?,
        ];
        let mut order = [0, 1];
        order.sort_by_key(|&at| std::cmp::Reverse(folders[at].txid));
        let mut state = None;
        let mut loaded = None;
        for at in order {
            let found = &mut folders[at];
            let (Some(txid), Some(store)) = (found.txid, &found.store) else { continue };
            if state.is_some() {
                continue;
            }
            match store.load(cluster_id) {
                Ok((whole, sums)) => {
                    state = Some(whole);
                    loaded = Some(sums.clone());
                    found.content = Content::Known(sums);
                }
                Err(error) if error.code == Code::Incompatible => return Err(error),
                Err(error) => {
                    damage.push(error.context(format!("checkpoint of {txid}")));
                    found.txid = None;
                    found.content = Content::Worthless;
                }
            }
        }
        Ok(Opened { checkpoints: Self { cluster_id, folders, loaded }, state, damage })
    }

    /// The transaction of the newest good checkpoint; 0 if there is none.
    pub(crate) fn newest(&self) -> Txid {
        self.folders.iter().filter_map(|folder| folder.txid).max().unwrap_or_default()
    }

    /// What both folders hold: the journal is needed from the next transaction on.
    pub(crate) fn oldest(&self) -> Txid {
        let txids = self.folders.iter().map(|folder| folder.txid.unwrap_or_default());
        txids.min().unwrap_or_default()
    }

    /// Writes what changed into the folder whose turn it is. On an error that folder counts as damaged; the other
    /// one stays as it was.
    pub(crate) fn write(&mut self, state: &RwLock<State>, stop: &AtomicBool) -> Result<Written> {
        let side = if self.folders[0].txid <= self.folders[1].txid { Side::A } else { Side::B };
        let result = self.write_side(side, state, stop);
        if result.is_err() {
            let folder = &mut self.folders[side as usize];
            (folder.txid, folder.content) = (None, Content::Worthless);
            write_lock(state)?.unfreeze();
        }
        result
    }

    fn write_side(
        &mut self,
        side: Side,
        state: &RwLock<State>,
        stop: &AtomicBool,
    ) -> Result<Written> {
        self.prepare(side, state)?;
        let folder = &mut self.folders[side as usize];
        let store = folder.store.as_ref().expect("prepared");
        let Content::Known(sums) = &mut folder.content else { unreachable!("prepared") };
        folder.txid = None;
        store.remove_manifest()?;
        let (sections, txid) = {
            let mut state = write_lock(state)?;
            (state.freeze(side), state.txid())
        };
        let mut written = Written { txid, ..Written::default() };
        for kind in PageKind::ALL {
            let mut from = 0;
            loop {
                let images = read_lock(state)?.encode_frozen(kind, from, PAGES_PER_HOLD);
                let saved = write_lock(state)?.thaw(kind, &images);
                put_all(store, sums, kind, &saved, &mut written)?;
                put_all(store, sums, kind, &images, &mut written)?;
                let Some((last, _)) = images.last() else { break };
                from = last + 1;
                if stop.load(Ordering::Relaxed) {
                    let message = "the checkpoint was given up: the NameNode stops";
                    return Err(Error::new(Code::Unavailable, message));
                }
            }
        }
        store.put_sections(&sections)?;
        let manifest = Manifest { cluster_id: self.cluster_id, txid, digest: sums.digest() };
        store.put_manifest(&manifest)?;
        store.sync()?;
        folder.txid = Some(txid);
        Ok(written)
    }

    /// Afterwards the folder is open, its sums are known, and the state knows every page it lacks.
    fn prepare(&mut self, side: Side, state: &RwLock<State>) -> Result<()> {
        let folder = &mut self.folders[side as usize];
        if matches!(folder.content, Content::Unread)
            && let (Some(store), Some(loaded)) = (&folder.store, &self.loaded)
        {
            match store.sums() {
                Ok(sums) => {
                    let mut state = write_lock(state)?;
                    for (kind, page) in sums.differences(loaded) {
                        state.mark_dirty(side, kind, page);
                    }
                    folder.content = Content::Known(sums);
                }
                Err(error) => {
                    tracing::warn!(%error, "a checkpoint folder is damaged: it is written anew");
                    folder.content = Content::Worthless;
                }
            }
        }
        if !matches!(folder.content, Content::Known(_)) || folder.store.is_none() {
            folder.store = None;
            folder.store = Some(Store::create(&folder.path)?);
            folder.content = Content::Known(PageSums::default());
            write_lock(state)?.mark_all_dirty(side);
        }
        Ok(())
    }
}

/// Opens a folder as far as its manifest. One that is in use is an error and no damage.
fn look(path: PathBuf, cluster_id: [u8; 16], damage: &mut Vec<Error>) -> Result<Folder> {
    let mut folder = Folder { path, store: None, txid: None, content: Content::Worthless };
    if !folder.path.exists() {
        return Ok(folder);
    }
    let found = Store::open(&folder.path).and_then(|store| {
        let manifest = store.manifest()?;
        Ok((store, manifest))
    });
    match found {
        Ok((store, Some(manifest))) if manifest.cluster_id == cluster_id => {
            folder.store = Some(store);
            folder.txid = Some(manifest.txid);
            folder.content = Content::Unread;
        }
        Ok((_, Some(_))) => {
            let message = format!("{} belongs to another cluster", folder.path.display());
            damage.push(Error::new(Code::Incompatible, message));
        }
        Ok((_, None)) => {
            let message = format!(
                "{} holds no whole checkpoint: one was being written when the NameNode stopped, or it is damaged",
                folder.path.display()
            );
            damage.push(Error::new(Code::Corrupt, message));
        }
        Err(error) if error.code == Code::Unavailable => return Err(error),
        Err(error) => damage.push(error),
    }
    Ok(folder)
}

fn put_all(
    store: &Store,
    sums: &mut PageSums,
    kind: PageKind,
    images: &[PageImage],
    written: &mut Written,
) -> Result<()> {
    for (page, bytes) in images {
        store.put_page(sums, kind, *page, bytes)?;
        written.pages += 1;
        written.bytes += bytes.len() as u64;
    }
    Ok(())
}

fn broken() -> Error {
    Error::new(Code::Internal, "the state is broken: an operation panicked. Restart the NameNode")
}

fn read_lock(state: &RwLock<State>) -> Result<std::sync::RwLockReadGuard<'_, State>> {
    state.read().map_err(|_| broken())
}

fn write_lock(state: &RwLock<State>) -> Result<std::sync::RwLockWriteGuard<'_, State>> {
    state.write().map_err(|_| broken())
}
