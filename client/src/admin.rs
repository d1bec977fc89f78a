//! What operators ask: safe mode, quotas, checks of files, open files, snapshots, erasure coding, checkpoints.

use proto::granary::admin_client::AdminClient;
use proto::granary::set_safe_mode_request::Action;
use proto::granary::*;
use proto::{Error, FsPath, Result};
use tokio_stream::StreamExt;

use crate::fs::Fs;

/// What a check of files looks at and does.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Every block is told, with where it is.
    pub blocks: bool,
    /// Files that are being written are checked, too.
    pub open: bool,
    /// What becomes of broken files.
    pub mend: Mend,
    /// What a block lacks is copied before all else, what it has too many of is deleted.
    pub repair: bool,
    /// As if these DataNodes died now: uuids, hosts with their data ports, or hosts.
    pub without: Vec<String>,
}

/// What becomes of a file with missing or damaged blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mend {
    /// Nothing.
    #[default]
    Leave,
    /// It moves under `/lost+found`.
    Move,
    /// It is deleted.
    Delete,
}

impl Fs {
    /// Wants DataNodes to go for good, to be away for a time (until then, in nanoseconds since 1970-01-01 UTC), or
    /// neither any more. Each is named by its uuid, its host with the data port, or its host.
    pub async fn change_nodes(
        &self,
        action: change_nodes_request::Action,
        nodes: Vec<String>,
        until_ns: i64,
    ) -> Result<()> {
        let caller = self.namenode().caller();
        let request = ChangeNodesRequest { caller, action: action as i32, nodes, until_ns };
        self.namenode()
            .admin("change nodes", request, async |mut stub, q| stub.change_nodes(q).await)
            .await?;
        Ok(())
    }

    /// What is wanted of DataNodes, by name.
    pub async fn node_wishes(&self) -> Result<Vec<NodeWish>> {
        let request = ListNodesRequest { caller: self.namenode().caller() };
        let reply = self
            .namenode()
            .admin("list nodes", request, async |mut stub, q| stub.list_nodes(q).await)
            .await?;
        Ok(reply.wishes)
    }

    /// Starts or stops the balancer, or only tells how it is. 0 stands for the default of threshold and rate.
    pub async fn balance(
        &self,
        action: balance_request::Action,
        threshold_percent: u32,
        bytes_per_second: u64,
    ) -> Result<BalanceStatus> {
        let caller = self.namenode().caller();
        let action = action as i32;
        let request = BalanceRequest { caller, action, threshold_percent, bytes_per_second };
        self.namenode().admin("balance", request, async |mut stub, q| stub.balance(q).await).await
    }

    /// Asks for, enters or leaves safe mode; gives whether it is on.
    pub async fn safe_mode(&self, action: Action) -> Result<bool> {
        let caller = self.namenode().caller();
        let request = SetSafeModeRequest { caller, action: action as i32 };
        let reply = self
            .namenode()
            .admin("set safe mode", request, async |mut stub, q| stub.set_safe_mode(q).await)
            .await?;
        Ok(reply.safe_mode)
    }

    /// Sets limits of a folder: what is `None` stays. With a type of storage (Hadoop's number of it) `space` is for
    /// that type alone.
    pub async fn set_quota(
        &self,
        path: &FsPath,
        names: Option<QuotaLimit>,
        space: Option<QuotaLimit>,
        storage_type: u32,
    ) -> Result<()> {
        let caller = self.namenode().caller();
        let path = path.to_string();
        let request = SetQuotaRequest { caller, path, names, space, storage_type };
        self.namenode()
            .admin("set a quota", request, async |mut stub, q| stub.set_quota(q).await)
            .await?;
        Ok(())
    }

    /// Folders with a quota after the one with this inode (0: from the first); empty at the end.
    pub async fn quotas_after(&self, after_inode: u64) -> Result<Vec<FolderQuota>> {
        let request = ListQuotasRequest { caller: self.namenode().caller(), after_inode };
        let reply = self
            .namenode()
            .admin("list quotas", request, async |mut stub, q| stub.list_quotas(q).await)
            .await?;
        Ok(reply.quotas)
    }

    /// A page of the files that are being written under a folder, after the one with this inode; and whether there
    /// are more.
    pub async fn open_files_after(
        &self,
        path: &FsPath,
        after_inode: u64,
    ) -> Result<(Vec<OpenFile>, bool)> {
        let caller = self.namenode().caller();
        let request = ListOpenFilesRequest { caller, after_inode, path: path.to_string() };
        let reply = self
            .namenode()
            .admin("list open files", request, async |mut stub, q| stub.list_open_files(q).await)
            .await?;
        Ok((reply.files, reply.more))
    }

    /// Allows, disallows, makes, removes or renames snapshots of a folder; gives the path of one that was made.
    pub async fn change_snapshots(
        &self,
        path: &FsPath,
        action: change_snapshots_request::Action,
        name: &str,
        new_name: &str,
    ) -> Result<String> {
        let request = ChangeSnapshotsRequest {
            caller: self.namenode().caller(),
            path: path.to_string(),
            action: action as i32,
            name: name.to_owned(),
            new_name: new_name.to_owned(),
        };
        let reply = self
            .namenode()
            .admin("snapshot", request, async |mut stub, q| stub.change_snapshots(q).await)
            .await?;
        Ok(reply.path)
    }

    /// The folders that may have snapshots: those of this user, or all for a superuser.
    pub async fn snapshottable_folders(&self) -> Result<Vec<SnapshottableFolder>> {
        let request =
            ListSnapshotsRequest { caller: self.namenode().caller(), path: String::new() };
        let reply = self
            .namenode()
            .admin("list snapshots", request, async |mut stub, q| stub.list_snapshots(q).await)
            .await?;
        Ok(reply.folders)
    }

    /// The snapshots of a folder, in the order of their making.
    pub async fn snapshots(&self, path: &FsPath) -> Result<Vec<Snapshot>> {
        let caller = self.namenode().caller();
        let request = ListSnapshotsRequest { caller, path: path.to_string() };
        let reply = self
            .namenode()
            .admin("list snapshots", request, async |mut stub, q| stub.list_snapshots(q).await)
            .await?;
        Ok(reply.snapshots)
    }

    /// What differs between two snapshots of a folder; an empty name is the folder as it is.
    pub async fn snapshot_diff(
        &self,
        path: &FsPath,
        from: &str,
        to: &str,
    ) -> Result<Vec<SnapshotDifference>> {
        let request = DiffSnapshotsRequest {
            caller: self.namenode().caller(),
            path: path.to_string(),
            from: from.to_owned(),
            to: to.to_owned(),
        };
        let reply = self
            .namenode()
            .admin("compare snapshots", request, async |mut stub, q| stub.diff_snapshots(q).await)
            .await?;
        Ok(reply.differences)
    }

    /// How a file is coded, or what new files in a folder get, and which policies there are; of an empty path the
    /// policies alone.
    pub async fn erasure_coding(&self, path: Option<&FsPath>) -> Result<GetErasureCodingReply> {
        let path = path.map(FsPath::to_string).unwrap_or_default();
        let request = GetErasureCodingRequest { caller: self.namenode().caller(), path };
        self.namenode()
            .admin("get erasure coding", request, async |mut stub, q| {
                stub.get_erasure_coding(q).await
            })
            .await
    }

    /// Sets or removes a folder's policy (0: replicated), or enables or disables a policy (then without a path).
    pub async fn change_erasure_coding(
        &self,
        action: change_erasure_coding_request::Action,
        path: Option<&FsPath>,
        policy: u32,
    ) -> Result<()> {
        let request = ChangeErasureCodingRequest {
            caller: self.namenode().caller(),
            action: action as i32,
            path: path.map(FsPath::to_string).unwrap_or_default(),
            policy,
        };
        self.namenode()
            .admin("change erasure coding", request, async |mut stub, q| {
                stub.change_erasure_coding(q).await
            })
            .await?;
        Ok(())
    }

    /// Writes a checkpoint of the namespace and waits for it; gives its transaction.
    pub async fn checkpoint(&self) -> Result<u64> {
        let request = CheckpointRequest { caller: self.namenode().caller() };
        let reply = self
            .namenode()
            .admin("checkpoint", request, async |mut stub, q| stub.checkpoint(q).await)
            .await?;
        Ok(reply.txid)
    }

    /// Checks every file of a tree. `each` gets what is found, the sums last; its error ends the check. Is not
    /// repeated if the connection breaks.
    pub async fn check_files<E: From<Error>>(
        &self,
        path: &FsPath,
        options: CheckOptions,
        mut each: impl FnMut(check_files_event::Event) -> Result<(), E>,
    ) -> Result<(), E> {
        let mend = match options.mend {
            Mend::Leave => check_files_request::Mend::Unspecified,
            Mend::Move => check_files_request::Mend::Move,
            Mend::Delete => check_files_request::Mend::Delete,
        };
        let request = CheckFilesRequest {
            caller: self.namenode().caller(),
            path: path.to_string(),
            blocks: options.blocks,
            open: options.open,
            mend: mend as i32,
            repair: options.repair,
            without: options.without,
        };
        let mut stub = AdminClient::new(self.namenode().channel());
        let mut events = stub.check_files(request).await.map_err(Error::from)?.into_inner();
        while let Some(message) = events.next().await {
            if let Some(event) = message.map_err(Error::from)?.event {
                each(event)?;
            }
        }
        Ok(())
    }
}
