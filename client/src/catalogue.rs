//! The catalogue of stores and versions: a thin wrapper of the Catalogue service.

use proto::Result;
use proto::granary::{
    ActivateVersionRequest, DeleteStoreRequest, DeleteVersionRequest, GetStoreRequest,
    ListStoresRequest, PublishVersionRequest, Store, TableInfo,
};

use crate::fs::Fs;
use proto::FsPath;

/// Stores and their versions. Cheap to clone; made by [`Fs::catalogue`].
#[derive(Clone, Debug)]
pub struct Catalogue {
    fs: Fs,
}

/// A new version of a store, to be published.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// The store; made if it is new.
    pub store: String,
    /// The folder of the tables.
    pub folder: FsPath,
    /// The tables; each path lies in `folder`.
    pub tables: Vec<TableInfo>,
    /// Whether to make the version current as soon as it is ready.
    pub activate: bool,
    /// Versions that servers keep; 0 leaves the setting as it is.
    pub keep_versions: u32,
}

impl Catalogue {
    pub(crate) fn new(fs: Fs) -> Self {
        Self { fs }
    }

    /// All stores, by name.
    pub async fn list_stores(&self) -> Result<Vec<Store>> {
        let namenode = self.fs.namenode();
        let request = ListStoresRequest { caller: namenode.caller() };
        let reply = namenode
            .catalogue("list stores", request, async |mut stub, q| stub.list_stores(q).await)
            .await?;
        Ok(reply.stores)
    }

    /// One store. `NotFound` if there is none of that name.
    pub async fn get_store(&self, store: &str) -> Result<Store> {
        let namenode = self.fs.namenode();
        let request = GetStoreRequest { caller: namenode.caller(), store: store.to_owned() };
        namenode
            .catalogue("get a store", request, async |mut stub, q| stub.get_store(q).await)
            .await
    }

    /// Adds a version, in one operation: its tables are linked into the store's own folder. Gives its number.
    pub async fn publish(&self, version: NewVersion) -> Result<u64> {
        let namenode = self.fs.namenode();
        let request = PublishVersionRequest {
            caller: namenode.caller(),
            store: version.store,
            folder: version.folder.to_string(),
            tables: version.tables,
            activate: version.activate,
            keep_versions: version.keep_versions,
        };
        let reply = namenode
            .catalogue("publish", request, async |mut stub, q| stub.publish_version(q).await)
            .await?;
        Ok(reply.version)
    }

    /// Makes a ready version current; 0 is the previous one (a rollback).
    pub async fn activate(&self, store: &str, version: u64) -> Result<Store> {
        let namenode = self.fs.namenode();
        let caller = namenode.caller();
        let request = ActivateVersionRequest { caller, store: store.to_owned(), version };
        namenode
            .catalogue("activate", request, async |mut stub, q| stub.activate_version(q).await)
            .await
    }

    /// Deletes a version that is not current.
    pub async fn delete_version(&self, store: &str, version: u64) -> Result<Store> {
        let namenode = self.fs.namenode();
        let caller = namenode.caller();
        let request = DeleteVersionRequest { caller, store: store.to_owned(), version };
        namenode
            .catalogue("delete", request, async |mut stub, q| stub.delete_version(q).await)
            .await
    }

    /// Deletes a store with all its versions.
    pub async fn delete_store(&self, store: &str) -> Result<()> {
        let namenode = self.fs.namenode();
        let request = DeleteStoreRequest { caller: namenode.caller(), store: store.to_owned() };
        namenode
            .catalogue("delete", request, async |mut stub, q| stub.delete_store(q).await)
            .await?;
        Ok(())
    }
}
