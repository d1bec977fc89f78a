//! ClientNamenodeProtocol: quotas, and sums over trees.
//!
//! Numbers are those of HDFS: no quota is 2^64 - 1 (-1 in Java), and so is clearing one; 2^63 - 1 leaves a limit as it
//! is. The root, which has no limit of names here unless one is set, shows 2^63 - 1.

use proto::hadoop::hdfs::*;
use proto::{Code, Error, FsPath};

use super::Asked;
use super::errors::{Answered, Failure};
use crate::op::quota::{Limit, QuotaOp, STORAGE_TYPES, StorageType};
use crate::state::{Limits, Quota};

/// Java's Long.MAX_VALUE: the limit stays.
const KEEP: u64 = i64::MAX as u64;
/// Java's -1: there is no limit.
const NONE: u64 = u64::MAX;
/// What every client knows; one that is newer is told only where it is limited.
const TYPES_TOLD: [StorageType; 3] = [StorageType::Disk, StorageType::Ssd, StorageType::Archive];

pub async fn set_quota(
    asked: Asked,
    request: SetQuotaRequestProto,
) -> Answered<SetQuotaResponseProto> {
    let call = asked.enter()?;
    let (names, space) = (request.namespace_quota, request.storagespace_quota);
    let illegal = || {
        let message =
            format!("Illegal value for nsQuota or ssQuota : {} and {}", names as i64, space as i64);
        Failure::java(ipc::exceptions::ILLEGAL_ARGUMENT, message)
    };
    let op = QuotaOp::Set {
        path: asked.path(&request.path)?,
        names: limit(names).ok_or_else(illegal)?,
        space: limit(space).ok_or_else(illegal)?,
        storage: match request.storage_type {
            None => None,
            Some(number) => Some(storage_type(number)?),
        },
    };
    match asked.node.change_quota(call, op).await {
        Ok(()) => Ok(SetQuotaResponseProto {}),
        Err(error) => Err(refusal(error, &request.path)),
    }
}

/// The words that HDFS has where its own are what scripts look for.
fn refusal(error: Error, path: &str) -> Failure {
    match error.code {
        Code::NotFound => {
            let message = format!("Directory does not exist: {path}");
            Failure::java(ipc::exceptions::FILE_NOT_FOUND, message)
        }
        Code::NotFolder => {
            let message = format!("`{path}': Is not a directory");
            Failure::java(ipc::exceptions::PATH_NOT_DIRECTORY, message)
        }
        Code::InvalidArgument => Failure::java(ipc::exceptions::ILLEGAL_ARGUMENT, error.message),
        _ => Failure::from(error),
    }
}

fn limit(value: u64) -> Option<Limit> {
    match value {
        KEEP => Some(Limit::Keep),
        NONE => Some(Limit::Clear),
        _ if value > KEEP => None,
        _ => Some(Limit::Set(value)),
    }
}

fn storage_type(number: i32) -> Answered<StorageType> {
    let known = u8::try_from(number).ok().and_then(StorageType::from_number);
    known.ok_or_else(|| {
        Error::new(Code::InvalidArgument, format!("there is no type {number} of storage")).into()
    })
}

pub async fn get_quota_usage(
    asked: Asked,
    request: GetQuotaUsageRequestProto,
) -> Answered<GetQuotaUsageResponseProto> {
    let (caller, _) = asked.enter()?;
    let path = asked.path(&request.path)?;
    let (used, quota) = asked.node.quota_usage(&caller, &path).await?;
    let (names, space) = shown(&path, quota.as_ref());
    Ok(GetQuotaUsageResponseProto {
        usage: QuotaUsageProto {
            file_and_directory_count: used.names,
            quota: names,
            space_consumed: used.space,
            space_quota: space,
            type_quota_infos: Some(by_type(quota.as_ref(), used.space)),
        },
    })
}

pub async fn get_content_summary(
    asked: Asked,
    request: GetContentSummaryRequestProto,
) -> Answered<GetContentSummaryResponseProto> {
    let (caller, _) = asked.enter()?;
    let path = asked.path(&request.path)?;
    let sum = asked.node.summary(&caller, &path).await?;
    let (names, space) = shown(&path, sum.quota.as_ref());
    Ok(GetContentSummaryResponseProto {
        summary: ContentSummaryProto {
            length: sum.length,
            file_count: sum.files,
            directory_count: sum.folders,
            quota: names,
            space_consumed: sum.space,
            space_quota: space,
            type_quota_infos: Some(by_type(sum.quota.as_ref(), sum.space)),
            snapshot_length: Some(sum.kept.length),
            snapshot_file_count: Some(sum.kept.files),
            snapshot_directory_count: Some(sum.kept.folders),
            snapshot_space_consumed: Some(sum.kept.space),
            erasure_coding_policy: Some(asked.node.coding_shown(&caller, &path)?),
        },
    })
}

/// The limits of names and of space as HDFS shows them.
fn shown(path: &FsPath, quota: Option<&Quota>) -> (u64, u64) {
    let limits = quota.map_or_else(Limits::default, |quota| quota.limits);
    let unlimited = if path.is_root() { KEEP } else { NONE };
    (limits.names.unwrap_or(unlimited), limits.space.unwrap_or(NONE))
}

/// Limits and use by type of storage: all that is used is on disks.
fn by_type(quota: Option<&Quota>, space: u64) -> StorageTypeQuotaInfosProto {
    let limits = quota.map_or_else(Limits::default, |quota| quota.limits);
    let told = |kind: StorageType, limit: Option<u64>| StorageTypeQuotaInfoProto {
        r#type: Some(kind as i32),
        quota: limit.unwrap_or(NONE),
        consumed: if kind == StorageType::Disk { space } else { 0 },
    };
    let type_quota_info = STORAGE_TYPES
        .into_iter()
        .zip(limits.types)
        .filter(|(kind, limit)| limit.is_some() || TYPES_TOLD.contains(kind))
        .map(|(kind, limit)| told(kind, limit));
    StorageTypeQuotaInfosProto { type_quota_info: type_quota_info.collect() }
}
