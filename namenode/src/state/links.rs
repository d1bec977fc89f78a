//! Where a file's names are: the folders of files that have several names.
//!
//! A file with one name knows its folder (`Inode::parent`); for the others this table has one folder per name, in no
//! particular order. It is not stored: loading a checkpoint visits every name and builds it again.
//!
//! Always holds: it has exactly the files with more than one name, each with as many folders as names; the parent of
//! a file is one of them.

use std::collections::BTreeMap;

use super::State;
use super::slab::NONE;

/// See the module.
#[derive(Default)]
pub(crate) struct Links {
    folders: BTreeMap<u32, Vec<u32>>,
}

impl State {
    /// The folders that have a name of a file, one per name.
    pub(super) fn folders_of_file(&self, file: u32) -> &[u32] {
        match self.links.folders.get(&file) {
            Some(folders) => folders,
            None => std::slice::from_ref(&self.inodes.get(file).parent),
        }
    }

    /// A file got one more name, in this folder.
    pub(super) fn add_link(&mut self, file: u32, folder: u32) {
        self.preserve(file);
        let inode = self.inodes.get_mut(file);
        inode.links += 1;
        self.links.folders.entry(file).or_insert_with(|| vec![inode.parent]).push(folder);
    }

    /// A file that keeps other names lost the one in this folder.
    pub(super) fn drop_link(&mut self, file: u32, folder: u32) {
        let inode = self.inodes.get_mut(file);
        let Some(folders) = self.links.folders.get_mut(&file) else {
            unreachable!("a file with several names is in the table");
        };
        if let Some(at) = folders.iter().position(|&of| of == folder) {
            folders.swap_remove(at);
        }
        if let Some(&other) = folders.first()
            && !folders.contains(&inode.parent)
        {
            inode.parent = other;
        }
        if folders.len() <= 1 {
            self.links.folders.remove(&file);
        }
        self.preserve(file);
        self.inodes.get_mut(file).links -= 1;
    }

    /// A name of a file or folder went from one folder to another.
    pub(super) fn move_link(&mut self, slot: u32, from: u32, to: u32) {
        if let Some(folders) = self.links.folders.get_mut(&slot)
            && let Some(at) = folders.iter().position(|&of| of == from)
        {
            folders[at] = to;
        }
        self.inodes.get_mut(slot).parent = to;
    }

    /// While a checkpoint is loaded: this folder has a name of this file.
    pub(super) fn found_name(&mut self, file: u32, folder: u32) {
        if self.inodes.get(file).links > 1 {
            self.links.folders.entry(file).or_default().push(folder);
        }
        // An earlier version let a file forget its folder when one of several names went.
        if self.inodes.get(file).parent == NONE {
            self.inodes.get_mut(file).parent = folder;
        }
    }
}
