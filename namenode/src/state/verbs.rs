//! The verbs that work on names and attributes: mkdirs, delete, link, setPermission, setOwner, setTimes,
//! setReplication.
//!
//! Semantics follow HDFS where it has the verb. Removing a tree is iterative, so that its depth costs no stack; the
//! blocks that go with it are effects in the order of the names.

use proto::limits::{PRINCIPAL_BYTES_MAX, REPLICATION_MAX};
use proto::{Code, Error, FsPath, InodeId, Result};

use super::inodes::{Body, Inode};
use super::interned::{Layout, Permission};
use super::permissions::{EXECUTE, READ, WRITE, denied};
use super::quotas::{Charge, Usage, signed};
use super::snapshots::demand_no_reserved_name;
use super::tree::not_found;
use super::{ROOT, State};
use crate::op::{Caller, Effect, Op, Reply};

/// Names of one file, at most.
const LINKS_MAX: u32 = 65_000;
const MODE_MASK: u32 = 0o7777;

/// The mode that was asked for something new.
#[derive(Clone, Copy)]
pub(super) struct NewMode {
    /// After the caller's umask.
    pub masked: u16,
    /// Before it, if the caller told: the umask does not count where there is a default ACL.
    pub unmasked: Option<u16>,
}

impl NewMode {
    /// A mode without a umask.
    pub(super) fn plain(mode: u16) -> Self {
        Self { masked: mode, unmasked: None }
    }

    /// Folders that are made on the way can be entered and written by their owner, and have no special bits.
    pub(super) fn with_owner_writing(self) -> Self {
        let of_parent = |mode: u16| mode & 0o777 | 0o300;
        Self { masked: of_parent(self.masked), unmasked: self.unmasked.map(of_parent) }
    }
}

fn error<T>(code: Code, message: String) -> Result<T> {
    Err(Error::new(code, message))
}

impl State {
    pub(super) fn plan_verb(&self, caller: &Caller, op: &Op) -> Result<Option<Reply>> {
        match op {
            Op::Mkdirs { path, create_parents, .. } => {
                let missing = self.plan_mkdirs(caller, path, *create_parents)?.1;
                Ok((missing == 0).then_some(Reply::Created(false)))
            }
            Op::Rename { source, target, mode } => {
                let plan = self.plan_rename(caller, source, target, *mode)?;
                Ok(plan.is_none().then_some(Reply::Done))
            }
            Op::Delete { path, recursive } => {
                let found = self.plan_delete(caller, path, *recursive)?;
                Ok(found.is_none().then_some(Reply::Deleted(false)))
            }
            Op::Link { source, target } => self.plan_link(caller, source, target).map(|_| None),
            Op::SetPermission { path, .. } => self.plan_set_permission(caller, path).map(|_| None),
            Op::SetOwner { path, owner, group } => {
                self.plan_set_owner(caller, path, owner, group).map(|_| None)
            }
            Op::SetTimes { path, .. } => self.plan_set_times(caller, path).map(|_| None),
            Op::SetReplication { path, replication } => {
                self.plan_set_replication(caller, path, *replication).map(|_| None)
            }
            _ => unreachable!("State::plan sends only these here"),
        }
    }

    pub(super) fn perform_verb(
        &mut self,
        caller: &Caller,
        now: i64,
        op: &Op,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply> {
        match op {
            Op::Mkdirs { .. } => self.mkdirs(caller, now, op),
            Op::Rename { source, target, mode } => {
                if let Some(plan) = self.plan_rename(caller, source, target, *mode)? {
                    self.rename(now, source, &plan, effects);
                }
                Ok(Reply::Done)
            }
            Op::Delete { path, recursive } => {
                let Some((slot, folder)) = self.plan_delete(caller, path, *recursive)? else {
                    return Ok(Reply::Deleted(false));
                };
                self.detach(folder, path.name().expect("the root is not deleted"), now);
                self.remove_tree(slot, folder, now, effects);
                Ok(Reply::Deleted(true))
            }
            Op::Link { source, target } => {
                let (slot, folder) = self.plan_link(caller, source, target)?;
                let name = target.name().expect("a link is not the root");
                self.attach_link(folder, name, slot, now);
                Ok(Reply::File(Box::new(self.status_of(slot, name))))
            }
            Op::SetPermission { path, mode } => {
                let slot = self.plan_set_permission(caller, path)?;
                let mode = (*mode & MODE_MASK) as u16;
                self.set_permission(slot, Permission { mode, ..self.permission(slot) }, now);
                Ok(Reply::Done)
            }
            Op::SetOwner { path, owner, group } => {
                let slot = self.plan_set_owner(caller, path, owner, group)?;
                let mut permission = self.permission(slot);
                if !owner.is_empty() {
                    permission.owner = self.interned.name(owner);
                }
                if !group.is_empty() {
                    permission.group = self.interned.name(group);
                }
                self.set_permission(slot, permission, now);
                Ok(Reply::Done)
            }
            Op::SetTimes { path, modified_ns, accessed_ns } => {
                let slot = self.plan_set_times(caller, path)?;
                self.preserve(slot);
                let inode = self.inodes.get_mut(slot);
                inode.modified_ns = modified_ns.unwrap_or(inode.modified_ns);
                inode.accessed_ns = accessed_ns.unwrap_or(inode.accessed_ns);
                inode.changed_ns = now;
                Ok(Reply::Done)
            }
            Op::SetReplication { path, replication } => {
                let slot = self.plan_set_replication(caller, path, *replication)?;
                self.set_replication(slot, *replication, now, effects);
                Ok(Reply::Done)
            }
            _ => unreachable!("State::perform sends only these here"),
        }
    }

    /// The deepest existing folder, and how many components are to be made.
    fn plan_mkdirs(
        &self,
        caller: &Caller,
        path: &FsPath,
        create_parents: bool,
    ) -> Result<(u32, usize)> {
        let walk = self.walk(caller, path)?;
        if let Some(slot) = walk.target {
            if !self.inodes.get(slot).is_folder() {
                return error(Code::AlreadyExists, format!("{path} exists and is a file"));
            }
            if !create_parents {
                return error(Code::AlreadyExists, format!("{path} exists"));
            }
            return Ok((slot, 0));
        }
        self.plan_new_entry(caller, path, walk.folder, walk.missing, create_parents)?;
        self.demand_names(walk.folder, walk.missing)?;
        Ok((walk.folder, walk.missing))
    }

    /// Whether the caller may make what `missing` components of `path` name, in `folder`.
    pub(super) fn plan_new_entry(
        &self,
        caller: &Caller,
        path: &FsPath,
        folder: u32,
        missing: usize,
        create_parents: bool,
    ) -> Result<()> {
        self.demand(caller, folder, WRITE, path)?;
        if missing > 1 && !create_parents {
            let parent = path.parent().unwrap_or_else(FsPath::root);
            return error(
                Code::NotFound,
                format!("{parent}, the folder of {path}, does not exist"),
            );
        }
        demand_no_reserved_name(path)
    }

    fn mkdirs(&mut self, caller: &Caller, now: i64, op: &Op) -> Result<Reply> {
        let Op::Mkdirs { path, mode, unmasked, create_parents } = op else {
            unreachable!("called for mkdirs alone");
        };
        let (folder, missing) = self.plan_mkdirs(caller, path, *create_parents)?;
        if missing > 0 {
            let bits = |mode: u32| (mode & MODE_MASK) as u16;
            let mode = NewMode { masked: bits(*mode), unmasked: unmasked.map(bits) };
            let for_parents = mode.with_owner_writing();
            let folder =
                self.make_parents(&caller.user, now, path, folder, missing, |_| for_parents);
            let name = path.name().expect("the root exists");
            self.make_folder(&caller.user, now, folder, name, mode);
        }
        Ok(Reply::Created(missing > 0))
    }

    /// Makes all but the last of the `missing` components, with a mode from the parent's.
    pub(super) fn make_parents(
        &mut self,
        owner: &str,
        now: i64,
        path: &FsPath,
        folder: u32,
        missing: usize,
        mode: impl Fn(u16) -> NewMode,
    ) -> u32 {
        let depth = path.components().count();
        let made = path.components().take(depth - 1).skip(depth - missing);
        made.fold(folder, |folder, name| {
            let mode = mode(self.permission(folder).mode);
            self.make_folder(owner, now, folder, name, mode)
        })
    }

    pub(super) fn make_folder(
        &mut self,
        owner: &str,
        now: i64,
        parent: u32,
        name: &str,
        mode: NewMode,
    ) -> u32 {
        let (mode, acl) = self.inherited(parent, mode.masked, mode.unmasked, true);
        let permission = self.new_permission(owner, parent, mode);
        let slot = self.add_inode(Inode::folder(self.next_inode(), parent, permission, now));
        self.attach(parent, name, slot, now);
        self.charge(&[Charge { folder: parent, names: 1, space: 0 }]);
        self.hand_down(slot, parent, acl);
        slot
    }

    /// The interned permission of a new entry: its group is that of the folder.
    pub(super) fn new_permission(&mut self, owner: &str, parent: u32, mode: u16) -> u32 {
        let group = self.permission(parent).group;
        let owner = self.interned.name(owner);
        self.interned.permissions.number(Permission { owner, group, mode })
    }

    /// Gives a file one more name, and charges it there.
    pub(super) fn attach_link(&mut self, folder: u32, name: &str, slot: u32, now: i64) {
        self.attach(folder, name, slot, now);
        self.add_link(slot, folder);
        self.inodes.get_mut(slot).changed_ns = now;
        if self.is_counted(folder) {
            let space = signed(self.space_of(slot));
            self.charge(&[Charge { folder, names: 1, space }]);
        }
    }

    /// Adds a name to a folder. The inode's own links, and quotas, are the caller's business.
    pub(super) fn attach(&mut self, folder: u32, name: &str, slot: u32, now: i64) {
        self.preserve_entries(folder);
        let is_folder = self.inodes.get(slot).is_folder();
        let root = self.nodes.add(self.inodes.get(folder).body, name.as_bytes(), slot);
        let folder = self.inodes.get_mut(folder);
        folder.body = root;
        folder.count_child(is_folder, 1);
        folder.modified_ns = now;
        folder.changed_ns = now;
    }

    /// Takes a name out of a folder. The inode's own links, and quotas, are the caller's business.
    pub(super) fn detach(&mut self, folder_slot: u32, name: &str, now: i64) {
        self.preserve_entries(folder_slot);
        let body = self.inodes.get(folder_slot).body;
        let slot = self.nodes.find(body, name.as_bytes()).expect("a name is detached once");
        let is_folder = self.inodes.get(slot).is_folder();
        let root = self.nodes.take(body, name.as_bytes());
        let folder = self.inodes.get_mut(folder_slot);
        folder.body = root;
        folder.count_child(is_folder, -1);
        folder.modified_ns = now;
        folder.changed_ns = now;
    }

    /// Drops what a detached name meant: a file loses a link, and with the last one its blocks; a folder goes with
    /// all that is under it. `from` is the folder that had the name: its quotas get back what was used.
    pub(super) fn remove_tree(
        &mut self,
        slot: u32,
        from: u32,
        now: i64,
        effects: &mut Vec<Effect>,
    ) {
        let counted = self.is_counted(from);
        let mut freed = Usage::default();
        let mut gone = Vec::new();
        let mut pending = vec![(slot, from)];
        while let Some((slot, folder)) = pending.pop() {
            if counted {
                freed.names += 1;
            }
            if counted && !self.inodes.get(slot).is_folder() {
                freed.space = freed.space.saturating_add(self.space_of(slot));
            }
            if !self.inodes.get(slot).is_folder() {
                self.remove_link(slot, folder, now, effects);
                continue;
            }
            let first = pending.len();
            match self.bequeath(slot, &mut freed, effects) {
                Some(folders) => pending.extend(folders.into_iter().map(|child| (child, slot))),
                None => {
                    let body = self.inodes.get(slot).body;
                    self.nodes.drop_tree(body, &mut |child| pending.push((child, slot)));
                }
            }
            pending[first..].reverse();
            self.counters.folders -= 1;
            self.forget_snapshottable(slot);
            gone.push(slot);
        }
        // Not before: what is looked up on the way from a file with other names is still there.
        gone.into_iter().for_each(|folder| self.forget_inode(folder));
        let (names, space) = (-signed(freed.names), -signed(freed.space));
        self.charge(&[Charge { folder: from, names, space }]);
    }

    fn remove_link(&mut self, slot: u32, folder: u32, now: i64, effects: &mut Vec<Effect>) {
        let inode = self.inodes.get(slot);
        if inode.links > 1 {
            self.drop_link(slot, folder);
            self.inodes.get_mut(slot).changed_ns = now;
            return;
        }
        let id = InodeId(inode.id);
        if let Some(lease) = self.leases.remove(id) {
            effects.push(Effect::LeaseGone { inode: id, holder: lease.holder });
        }
        self.let_blocks_go(slot, effects);
        self.free_list(slot);
        self.counters.files -= 1;
        self.forget_inode(slot);
    }

    /// Frees the list of a file's blocks; the file is about to go.
    pub(super) fn free_list(&mut self, slot: u32) {
        if let Body::List(list) = self.inodes.get(slot).blocks() {
            self.lists.remove(list);
        }
    }

    fn forget_inode(&mut self, slot: u32) {
        self.drop_attributes(slot);
        let inode = self.inodes.remove(slot);
        if inode.has_quota() {
            self.quotas.forget(inode.id);
        }
        self.inode_slots.remove(inode.id - InodeId::ROOT.0);
        self.settle_kept(inode.id, &[]);
    }

    /// Drops a block's record. Its place in a file is the caller's business.
    pub(super) fn forget_block(&mut self, slot: u32, effects: &mut Vec<Effect>) {
        let block = self.block_info(slot).block();
        self.blocks.remove(slot);
        self.unindex_block(block.id);
        effects.push(Effect::BlockRemoved { block, slot });
    }

    /// The inode and its folder; `None` if there is nothing to delete.
    fn plan_delete(
        &self,
        caller: &Caller,
        path: &FsPath,
        recursive: bool,
    ) -> Result<Option<(u32, u32)>> {
        let walk = match self.walk(caller, path) {
            Err(error) if error.code == Code::ParentNotFolder => return Ok(None),
            walk => walk?,
        };
        self.demand_entry(caller, &walk, path)?;
        let Some(slot) = walk.target.filter(|&slot| slot != ROOT) else { return Ok(None) };
        self.catalogue.demand_unguarded(path)?;
        self.demand_no_snapshots(slot, path)?;
        let inode = self.inodes.get(slot);
        if inode.is_folder() && inode.children() > 0 {
            self.demand_whole_tree(caller, slot, path)?;
            if !recursive {
                let message =
                    format!("{path} has {} entries; delete recursively", inode.children());
                return error(Code::NotEmpty, message);
            }
        }
        Ok(Some((slot, walk.folder)))
    }

    /// Every folder of the tree that has entries must grant everything, as HDFS has it, and a sticky one must not
    /// guard any of them.
    fn demand_whole_tree(&self, caller: &Caller, slot: u32, path: &FsPath) -> Result<()> {
        let mut pending = if caller.superuser { Vec::new() } else { vec![slot] };
        while let Some(slot) = pending.pop() {
            let inode = self.inodes.get(slot);
            if !inode.is_folder() || inode.children() == 0 {
                continue;
            }
            self.demand(caller, slot, READ | WRITE | EXECUTE, path)?;
            let sticky = self.is_guarded(caller, slot);
            let mut kept = None;
            self.nodes.visit(inode.body, b"", &mut |_, child| {
                pending.push(child);
                kept = Some(child).filter(|&child| sticky && !self.owns(caller, child));
                kept.is_none()
            });
            if let Some(child) = kept {
                return Err(self.guarded(caller, slot, child, path));
            }
        }
        Ok(())
    }

    fn plan_link(&self, caller: &Caller, source: &FsPath, target: &FsPath) -> Result<(u32, u32)> {
        let slot = self.existing_file(caller, source)?;
        if self.inodes.get(slot).links >= LINKS_MAX {
            return error(Code::LimitExceeded, format!("{source} has {LINKS_MAX} names already"));
        }
        if !self.owns(caller, slot) {
            self.demand(caller, slot, READ | WRITE, source)?;
        }
        let walk = self.walk(caller, target)?;
        if walk.target.is_some() {
            return error(Code::AlreadyExists, format!("{target} exists"));
        }
        self.catalogue.demand_unguarded(target)?;
        self.plan_new_entry(caller, target, walk.folder, walk.missing, false)?;
        if self.is_counted(walk.folder) {
            let space = signed(self.space_of(slot));
            self.demand_room(&[Charge { folder: walk.folder, names: 1, space }])?;
        }
        Ok((slot, walk.folder))
    }

    fn plan_set_permission(&self, caller: &Caller, path: &FsPath) -> Result<u32> {
        let (slot, _) = self.existing(caller, path)?;
        self.demand_owner(caller, slot, path)?;
        Ok(slot)
    }

    fn plan_set_owner(
        &self,
        caller: &Caller,
        path: &FsPath,
        owner: &str,
        group: &str,
    ) -> Result<u32> {
        if owner.len().max(group.len()) > PRINCIPAL_BYTES_MAX {
            let message = format!("an owner or group over {PRINCIPAL_BYTES_MAX} bytes");
            return error(Code::InvalidArgument, message);
        }
        let (slot, _) = self.existing(caller, path)?;
        self.demand_owner(caller, slot, path)?;
        if caller.superuser {
            return Ok(slot);
        }
        if !owner.is_empty() && owner != caller.user {
            return Err(denied(format!(
                "User {} is not a super user (non-super user cannot change owner).",
                caller.user
            )));
        }
        if !group.is_empty() && !caller.groups.iter().any(|mine| mine == group) {
            return Err(denied(format!("User {} does not belong to {group}", caller.user)));
        }
        Ok(slot)
    }

    fn plan_set_times(&self, caller: &Caller, path: &FsPath) -> Result<u32> {
        let (slot, _) = self.existing(caller, path)?;
        self.demand(caller, slot, WRITE, path)?;
        Ok(slot)
    }

    fn plan_set_replication(
        &self,
        caller: &Caller,
        path: &FsPath,
        replication: u32,
    ) -> Result<u32> {
        if replication == 0 || replication > REPLICATION_MAX {
            let message = format!("replication {replication}: must be 1 to {REPLICATION_MAX}");
            return error(Code::InvalidArgument, message);
        }
        let walk = self.walk(caller, path)?;
        let slot = walk.target.ok_or_else(|| not_found(path))?;
        self.demand(caller, slot, WRITE, path)?;
        if self.inodes.get(slot).is_folder() {
            return error(Code::IsFolder, format!("{path} is a folder: it has no replicas"));
        }
        if self.layout(slot).policy != 0 {
            let message = format!("{path} is erasure coded: it has no replicas");
            return error(Code::Unsupported, message);
        }
        let charges = self.file_charges(slot, self.space_to_replicate(slot, replication));
        self.demand_room(&charges)?;
        Ok(slot)
    }

    /// How much more, or less, space a file takes with another replication.
    fn space_to_replicate(&self, slot: u32, replication: u32) -> i64 {
        if self.quotas.is_empty() {
            return 0;
        }
        let before = self.space_of(slot);
        let bytes = before / u64::from(self.replication_of(slot).max(1));
        let replication = replication.max(self.replication_of_copies(slot));
        signed(bytes.saturating_mul(u64::from(replication))) - signed(before)
    }

    fn set_permission(&mut self, slot: u32, permission: Permission, now: i64) {
        self.preserve(slot);
        let number = self.interned.permissions.number(permission);
        let inode = self.inodes.get_mut(slot);
        inode.permission = number;
        inode.changed_ns = now;
    }

    fn set_replication(&mut self, slot: u32, replication: u32, now: i64, out: &mut Vec<Effect>) {
        self.preserve(slot);
        self.charge_file(slot, self.space_to_replicate(slot, replication));
        let old = *self.interned.layouts.get(self.inodes.get(slot).layout);
        let layout = self.interned.layouts.number(Layout { replication, ..old });
        let inode = self.inodes.get_mut(slot);
        inode.layout = layout;
        inode.changed_ns = now;
        self.tell_replications(slot, out);
    }
}
