//! Checking files: which blocks have too few good replicas, or none.
//!
//! | module | owns |
//! |---|---|
//! | `events` | what a check finds, in order, and the sums of it |
//! | `text` | the report that HDFS's `fsck` prints |
//! | `wire` | events as messages of gRPC |
//! | `page` | the `/fsck` page that Java's `hdfs fsck` reads |
//!
//! A check goes through a tree in slices of entries, and through a file in slices of blocks; between two slices the
//! namespace is free. What it finds goes into a bounded channel: whoever reads slowly slows the check, and whoever
//! goes away ends it. So its memory does not grow with the tree.
//!
//! Folders are entered with the caller's permissions. Nothing is changed unless broken files are to be moved or
//! deleted; then each such change is an ordinary operation in the caller's name.

mod events;
pub mod page;
mod text;
pub mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::erasure::Policy;
use proto::{BlockId, Code, Error, FsPath, InodeId, Result};
use tokio::sync::mpsc;

pub use events::{Event, FoundBlock, FoundFile, Sums};

use super::node::{Node, truth_of};
use crate::cluster::datanodes::NodeIndex;
use crate::cluster::locate::Fate;
use crate::op::{BlockState, Caller, Op, RenameMode};
use crate::state::{BlockInfo, State};

/// Entries of the tree that are looked at under one lock.
const ENTRIES_PER_SLICE: usize = 500;
/// Blocks of a file that are looked at under one lock.
const BLOCKS_PER_SLICE: usize = 500;
/// Blocks of the whole cluster that are looked at under one lock, when looking for broken ones.
const SEARCH_PER_SLICE: u32 = 20_000;
/// Events that wait for whoever reads them.
const EVENTS_MAX: usize = 256;
/// Checks at once.
pub const CHECKS_MAX: usize = 8;
/// Where broken files are moved.
const LOST_AND_FOUND: &str = "/lost+found";

/// What becomes of a file with missing or damaged blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mend {
    /// Nothing.
    #[default]
    Leave,
    /// It moves under `/lost+found`, by its whole path.
    Move,
    /// It is deleted.
    Delete,
}

/// What a check looks at and does.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Every block is told, with where it is.
    pub blocks: bool,
    /// Files that are being written are checked too; else they are counted alone.
    pub open: bool,
    /// What becomes of broken files.
    pub mend: Mend,
    /// What a block lacks is copied before all else, what it has too many of is deleted.
    pub repair: bool,
    /// As if these nodes died now.
    pub without: Vec<NodeIndex>,
}

/// A block without a good replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which block.
    pub block: BlockId,
    /// A path of its file.
    pub path: String,
}

/// Begins a check; the events come until the channel ends. Fails at once if too many are under way.
pub fn check(
    node: &Arc<Node>,
    caller: Caller,
    path: FsPath,
    wanted: Wanted,
) -> Result<mpsc::Receiver<Event>> {
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let permit = Arc::clone(&node.volatile.checks).try_acquire_owned().map_err(|_| {
        let message = format!("{CHECKS_MAX} checks are under way: wait for one to end");
        Error::new(Code::Overloaded, message)
    })?;
    let mut check = Check { node: Arc::clone(node), caller, wanted, events, sums: Sums::default() };
    tokio::spawn(async move {
        let last = match check.run(&path).await {
            Ok(()) => Event::Sums(Box::new(check.sums)),
            Err(Stopped::Failed(error)) => Event::Failed(error),
            Err(Stopped::NobodyReads) => return,
        };
        // Whoever asked may have gone away.
        let _gone = check.events.send(last).await;
        drop(permit);
    });
    Ok(receiver)
}

/// Why a check ended early.
enum Stopped {
    Failed(Error),
    NobodyReads,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An entry of the tree, taken down under the lock.
enum Entry {
    Folder(String),
    File(FoundFile, InodeId),
}

struct Check {
    node: Arc<Node>,
    caller: Caller,
    wanted: Wanted,
    events: mpsc::Sender<Event>,
    sums: Sums,
}

impl Check {
    async fn run(&mut self, path: &FsPath) -> std::result::Result<(), Stopped> {
        let mut entries = Vec::new();
        let mut walker = self.node.log.read(|state| {
            let (slot, walker) = state.begin_walk(&self.caller, path)?;
            entries.push(entry(state, path.as_str(), slot));
            state.demand_listing(&self.caller, slot, path)?;
            Ok::<_, Error>(walker)
        })?;
        let mut more = true;
        while more || !entries.is_empty() {
            for entry in entries.drain(..) {
                match entry {
                    Entry::Folder(path) => {
                        self.sums.folders += 1;
                        self.tell(Event::Folder(path)).await?;
                    }
                    Entry::File(file, inode) => self.file(file, inode).await?,
                }
            }
            if more {
                more = self.node.log.read(|state| {
                    state.walk_on(&mut walker, ENTRIES_PER_SLICE, &mut |path, slot| {
                        entries.push(entry(state, path, slot));
                        let parsed = FsPath::parse(path)?;
                        state.demand_listing(&self.caller, slot, &parsed)
                    })
                })?;
            }
        }
        Ok(())
    }

    async fn tell(&self, event: Event) -> std::result::Result<(), Stopped> {
        self.events.send(event).await.map_err(|_| Stopped::NobodyReads)
    }

    async fn file(
        &mut self,
        mut file: FoundFile,
        inode: InodeId,
    ) -> std::result::Result<(), Stopped> {
        if file.open && !self.wanted.open {
            self.sums.open(&file);
            return Ok(());
        }
        self.sums.file(&file);
        self.tell(Event::File(Box::new(file.clone()))).await?;
        let mut index = 0;
        while let Some(blocks) = self.slice(inode, index) {
            for block in blocks {
                index += 1;
                file.count(&block);
                let bad = block.is_damaged() || block.is_short() || block.is_misplaced();
                self.sums.block(&block, self.node.config.replication_min);
                if bad {
                    self.tell(Event::Bad(Box::new(block))).await?;
                }
            }
        }
        self.sums.file_checked(&file);
        let broken = file.missing > 0 || file.damaged > 0;
        self.tell(Event::FileChecked(Box::new(file.clone()))).await?;
        if self.wanted.blocks {
            let mut index = 0;
            while let Some(blocks) = self.slice(inode, index) {
                for block in blocks {
                    index += 1;
                    self.tell(Event::Block(Box::new(block))).await?;
                }
            }
            self.tell(Event::BlocksTold).await?;
        }
        if broken && !file.open {
            self.mend(&file.path).await?;
        }
        Ok(())
    }

    /// Blocks of a file from this one on; `None` at the end, and if the file is gone.
    fn slice(&self, inode: InodeId, from: usize) -> Option<Vec<FoundBlock>> {
        let node = &self.node;
        let racks = node.volatile.cluster(|cluster, _| cluster.datanodes.racks());
        let found = node.log.read(|state| {
            let slot = state.slot_of_inode(inode)?;
            let blocks = state.blocks_of(slot).get(from..)?;
            let infos = blocks.iter().take(BLOCKS_PER_SLICE).map(|&slot| state.block_info(slot));
            let look = |(at, info)| {
                let mut found = found_block(node, from + at, &info, racks);
                self.look_closer(&info, &mut found);
                found
            };
            Some(infos.enumerate().map(look).collect::<Vec<_>>())
        });
        found.filter(|blocks| !blocks.is_empty())
    }

    /// What would be left of a block without some nodes; and its repair, if that is wanted.
    fn look_closer(&self, info: &BlockInfo, found: &mut FoundBlock) {
        let wanted = &self.wanted;
        if !found.complete || (!wanted.repair && wanted.without.is_empty()) {
            return;
        }
        let truth = truth_of(info);
        self.node.volatile.cluster(|cluster, _| {
            found.without = cluster.fate_without(info.id, &truth, &wanted.without);
            found.repairing = wanted.repair && cluster.repair_now(info.id, &truth);
        });
    }

    async fn mend(&self, path: &str) -> std::result::Result<(), Stopped> {
        let source = FsPath::parse(path)?;
        let call = || (self.caller.clone(), None);
        match self.wanted.mend {
            Mend::Leave => return Ok(()),
            Mend::Delete => {
                self.node.may_change()?;
                self.node.propose(call(), Op::Delete { path: source, recursive: false }).await?;
            }
            Mend::Move => {
                self.node.may_change()?;
                let target = FsPath::parse(&format!("{LOST_AND_FOUND}{path}"))?;
                let parent = target.parent().unwrap_or_else(FsPath::root);
                let mkdirs =
                    Op::Mkdirs { path: parent, mode: 0o755, create_parents: true, unmasked: None };
                self.node.propose(call(), mkdirs).await?;
                let mode = RenameMode::NoReplace;
                self.node.propose(call(), Op::Rename { source, target, mode }).await?;
            }
        }
        tracing::warn!(path, mend = ?self.wanted.mend, by = %self.caller.user, "a broken file");
        self.tell(Event::Mended(self.wanted.mend, path.to_owned())).await
    }
}

fn entry(state: &State, path: &str, slot: u32) -> Entry {
    let inode = state.inodes.get(slot);
    if inode.is_folder() {
        return Entry::Folder(path.to_owned());
    }
    let file = FoundFile {
        path: path.to_owned(),
        length: inode.length,
        blocks: state.blocks_of(slot).len() as u64,
        open: inode.is_open(),
        coding: state.layout(slot).coding(),
        replication: state.layout(slot).replication,
        ..FoundFile::default()
    };
    Entry::File(file, InodeId(inode.id))
}

/// A block and its replicas, in a cluster of so many racks. Called under the state's lock.
fn found_block(node: &Node, index: usize, info: &BlockInfo, racks: usize) -> FoundBlock {
    let truth = truth_of(info);
    if let Some(policy) = Policy::by_id(info.policy) {
        return found_group(node, index, info, (policy, racks));
    }
    let (nodes, damaged) =
        node.volatile.cluster(|cluster, _| cluster.live_locations(info.id, &truth));
    // HDFS's default placement asks for two racks if there are two.
    let asked = racks.min(2).min(info.replication as usize);
    let in_racks: BTreeSet<&str> = nodes.iter().map(|node| node.rack.as_str()).collect();
    FoundBlock {
        index,
        block: info.block(),
        complete: info.state == BlockState::Complete,
        wanted: info.replication,
        live: if damaged { 0 } else { nodes.len() as u32 },
        damaged,
        racks_lacking: asked.saturating_sub(in_racks.len()),
        without: Fate::Untouched,
        repairing: false,
        needed: 1,
        units: Vec::new(),
        nodes,
    }
}

/// A block group and its units, in a cluster of so many racks: they should stand in as many as there are.
fn found_group(
    node: &Node,
    index: usize,
    info: &BlockInfo,
    (policy, racks): (Policy, usize),
) -> FoundBlock {
    let (nodes, units, damaged) = node.volatile.cluster(|cluster, _| {
        let (nodes, units, _) = cluster.group_locations(info.id, &truth_of(info));
        (nodes, units, cluster.has_damaged_unit(info.id))
    });
    let mut different = units.clone();
    different.dedup();
    let (live, needed) = (different.len() as u32, u32::from(policy.units_needed(info.length)));
    let wanted = if needed == 0 { 0 } else { needed + u32::from(policy.parity_units) };
    let in_racks: BTreeSet<&str> = nodes.iter().map(|node| node.rack.as_str()).collect();
    FoundBlock {
        index,
        block: info.block(),
        complete: info.state == BlockState::Complete,
        wanted,
        live,
        needed,
        damaged: damaged && live < needed,
        racks_lacking: racks.min(wanted as usize).saturating_sub(in_racks.len()),
        without: Fate::Untouched,
        repairing: false,
        nodes,
        units,
    }
}

impl Node {
    /// Whether the namespace may be changed: not in safe mode.
    pub(super) fn may_change(&self) -> Result<()> {
        self.volatile.cluster(|cluster, _| cluster.check_may_change())
    }

    /// Files under a path that have a block without a good replica, from this cookie on; and the cookie to go on
    /// from, `None` when all blocks were looked at.
    pub(super) async fn broken_blocks(
        &self,
        path: &FsPath,
        mut cookie: u32,
        limit: usize,
    ) -> (Vec<Broken>, Option<u32>) {
        let mut broken = Vec::new();
        loop {
            let next = self.log.read(|state| {
                let end = state.block_slots_end().min(cookie.saturating_add(SEARCH_PER_SLICE));
                for slot in cookie..end {
                    if broken.len() == limit {
                        return Some(slot);
                    }
                    broken.extend(self.broken_at(state, slot, path));
                }
                (end < state.block_slots_end()).then_some(end)
            });
            match next {
                None => return (broken, None),
                Some(slot) if broken.len() == limit => return (broken, Some(slot)),
                Some(slot) => cookie = slot,
            }
            tokio::task::yield_now().await;
        }
    }

    fn broken_at(&self, state: &State, slot: u32, path: &FsPath) -> Option<Broken> {
        let info = state.block_at(slot).filter(|info| info.state == BlockState::Complete)?;
        if !found_block(self, 0, &info, 0).is_missing() {
            return None;
        }
        let of = state.path_of(info.inode).filter(|of| of == path || path.contains(of))?;
        Some(Broken { block: info.id, path: of.to_string() })
    }
}
