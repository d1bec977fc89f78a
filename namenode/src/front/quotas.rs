//! Quotas and sums over trees, for all front ends.
//!
//! A tree is summed up in slices, with the namespace free for others in between: a sum over what changes meanwhile is
//! of no single moment, as in HDFS.

use proto::granary::{self, *};
use proto::{Code, Error, FsPath, Result};

use super::access::Method;
use super::node::{Node, path};
use crate::op::quota::{Limit, QuotaOp, STORAGE_TYPES, StorageType};
use crate::op::{CallId, Caller, Op};
use crate::state::{Quota, TreeSummary, Usage};

/// Entries of a tree that are visited under one lock.
pub(super) const SLICE_ENTRIES: usize = 5_000;
/// Folders with quotas in one reply.
const QUOTAS_MAX: usize = 1_000;

impl Node {
    /// Sums over what a path names. Needs `r` and `x` on every folder.
    pub(super) async fn summary(&self, caller: &Caller, path: &FsPath) -> Result<TreeSummary> {
        let mut sum = self.log.read(|state| state.begin_summary(caller, path))?;
        while self.log.read(|state| state.sum_on(caller, path, &mut sum, SLICE_ENTRIES))? {
            tokio::task::yield_now().await;
        }
        Ok(sum.sum)
    }

    /// What a path's tree uses, with its quota: at once where a quota counts it, else by a sum.
    pub(super) async fn quota_usage(
        &self,
        caller: &Caller,
        path: &FsPath,
    ) -> Result<(Usage, Option<Quota>)> {
        if let Some(quota) = self.log.read(|state| state.quota(caller, path))? {
            return Ok((quota.used, Some(quota)));
        }
        let sum = self.summary(caller, path).await?;
        Ok((Usage { names: sum.files + sum.folders, space: sum.space }, None))
    }

    /// Changes the limits of a folder.
    pub(super) async fn change_quota(
        &self,
        call: (Caller, Option<CallId>),
        op: QuotaOp,
    ) -> Result<()> {
        self.propose(call, Op::Quota(op)).await.map(|_| ())
    }

    pub(super) async fn get_content_summary(
        &self,
        message: PathRequest,
        _: Option<std::net::IpAddr>,
    ) -> Result<ContentSummary> {
        let (caller, _) = self.enter(Method::GetContentSummary, message.caller)?;
        let sum = self.summary(&caller, &path(&message.path)?).await?;
        Ok(ContentSummary {
            length: sum.length,
            files: sum.files,
            folders: sum.folders,
            space_consumed: sum.space,
            quota: sum.quota.as_ref().map(quota_message),
            snapshot_length: sum.kept.length,
            snapshot_files: sum.kept.files,
            snapshot_folders: sum.kept.folders,
            snapshot_space_consumed: sum.kept.space,
        })
    }

    pub(super) async fn set_quota(&self, message: SetQuotaRequest) -> Result<SetQuotaReply> {
        let call = self.enter(Method::SetQuota, message.caller)?;
        let storage = match message.storage_type {
            0 => None,
            number => Some(storage_type(number)?),
        };
        let op = QuotaOp::Set {
            path: path(&message.path)?,
            names: limit("names", message.names.as_ref())?,
            space: limit("space", message.space.as_ref())?,
            storage,
        };
        self.change_quota(call, op).await?;
        Ok(SetQuotaReply {})
    }

    pub(super) fn list_quotas(&self, message: ListQuotasRequest) -> Result<ListQuotasReply> {
        self.enter(Method::ListQuotas, message.caller)?;
        let quotas = self.log.read(|state| {
            let found = state.quotas_after(message.after_inode, QUOTAS_MAX);
            let named = found.into_iter().filter_map(|(inode, quota)| {
                let path = state.path_of(inode)?.to_string();
                Some(FolderQuota { path, inode: inode.0, quota: Some(quota_message(&quota)) })
            });
            named.collect()
        });
        Ok(ListQuotasReply { quotas })
    }
}

fn storage_type(number: u32) -> Result<StorageType> {
    let known = u8::try_from(number).ok().and_then(StorageType::from_number);
    known.ok_or_else(|| {
        Error::new(Code::InvalidArgument, format!("there is no type {number} of storage"))
    })
}

fn limit(what: &str, message: Option<&QuotaLimit>) -> Result<Limit> {
    match message.map(|limit| (limit.clear, limit.value)) {
        None => Ok(Limit::Keep),
        Some((true, None)) => Ok(Limit::Clear),
        Some((false, Some(value))) => Ok(Limit::Set(value)),
        Some(_) => {
            let message = format!("the limit of {what} must be cleared, or be a value");
            Err(Error::new(Code::InvalidArgument, message))
        }
    }
}

fn quota_message(quota: &Quota) -> granary::Quota {
    let types = STORAGE_TYPES.iter().zip(quota.limits.types).filter_map(|(kind, limit)| {
        Some(TypeQuota { storage_type: *kind as u32, name: kind.name().to_owned(), limit: limit? })
    });
    granary::Quota {
        names: quota.limits.names,
        space: quota.limits.space,
        names_used: quota.used.names,
        space_used: quota.used.space,
        types: types.collect(),
    }
}
