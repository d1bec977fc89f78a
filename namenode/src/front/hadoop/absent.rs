//! ClientNamenodeProtocol: what this NameNode has none of. Encryption zones, caches, tokens, upgrades, edits to read.
//!
//! Where nothing is a true answer (no zone, no cache, no upgrade, no token on a cluster without security), it is given:
//! tools ask on the way to something else. What would have to do something is refused, with the reason.

use ipc::exceptions;
use proto::hadoop::hdfs::*;

use super::Asked;
use super::errors::{Answered, Failure};

fn unsupported<R>(what: &str) -> Answered<R> {
    Err(Failure::java(
        exceptions::UNSUPPORTED,
        format!("{what}: Granary's NameNode has no such thing"),
    ))
}

// ---- Encryption zones.

pub fn get_ez_for_path(
    asked: &Asked,
    _: GetEzForPathRequestProto,
) -> Answered<GetEzForPathResponseProto> {
    asked.enter()?;
    Ok(GetEzForPathResponseProto { zone: None })
}

pub fn list_encryption_zones(
    asked: &Asked,
    _: ListEncryptionZonesRequestProto,
) -> Answered<ListEncryptionZonesResponseProto> {
    asked.enter()?;
    Ok(ListEncryptionZonesResponseProto { zones: Vec::new(), has_more: false })
}

pub fn create_encryption_zone(
    asked: &Asked,
    request: CreateEncryptionZoneRequestProto,
) -> Answered<CreateEncryptionZoneResponseProto> {
    asked.enter()?;
    let message =
        format!("{} cannot become an encryption zone: there is no key provider", request.src);
    Err(Failure::java(exceptions::IO, message))
}

pub fn reencrypt_encryption_zone(
    asked: &Asked,
    request: ReencryptEncryptionZoneRequestProto,
) -> Answered<ReencryptEncryptionZoneResponseProto> {
    asked.enter()?;
    Err(Failure::java(exceptions::IO, format!("{} is no encryption zone", request.zone)))
}

pub fn list_reencryption_status(
    asked: &Asked,
    _: ListReencryptionStatusRequestProto,
) -> Answered<ListReencryptionStatusResponseProto> {
    asked.enter()?;
    Ok(ListReencryptionStatusResponseProto { statuses: Vec::new(), has_more: false })
}

pub fn get_data_encryption_key(
    asked: &Asked,
    _: GetDataEncryptionKeyRequestProto,
) -> Answered<GetDataEncryptionKeyResponseProto> {
    asked.enter()?;
    Ok(GetDataEncryptionKeyResponseProto { data_encryption_key: None })
}

// ---- Tokens: a NameNode without security gives none, and clients go on without.

pub fn get_delegation_token(
    asked: &Asked,
    _: GetDelegationTokenRequestProto,
) -> Answered<GetDelegationTokenResponseProto> {
    asked.enter()?;
    Ok(GetDelegationTokenResponseProto { token: None })
}

pub fn renew_delegation_token(
    asked: &Asked,
    _: RenewDelegationTokenRequestProto,
) -> Answered<RenewDelegationTokenResponseProto> {
    asked.enter()?;
    Err(Failure::java(INVALID_TOKEN, "this NameNode gave no token"))
}

pub fn cancel_delegation_token(
    asked: &Asked,
    _: CancelDelegationTokenRequestProto,
) -> Answered<CancelDelegationTokenResponseProto> {
    asked.enter()?;
    Err(Failure::java(INVALID_TOKEN, "this NameNode gave no token"))
}

const INVALID_TOKEN: &str = "org.apache.hadoop.security.token.SecretManager$InvalidToken";

// ---- Caches in the memory of DataNodes.

pub fn list_cache_directives(
    asked: &Asked,
    _: ListCacheDirectivesRequestProto,
) -> Answered<ListCacheDirectivesResponseProto> {
    asked.enter()?;
    Ok(ListCacheDirectivesResponseProto { elements: Vec::new(), has_more: false })
}

pub fn list_cache_pools(
    asked: &Asked,
    _: ListCachePoolsRequestProto,
) -> Answered<ListCachePoolsResponseProto> {
    asked.enter()?;
    Ok(ListCachePoolsResponseProto { entries: Vec::new(), has_more: false })
}

pub fn add_cache_directive(
    _: &Asked,
    _: AddCacheDirectiveRequestProto,
) -> Answered<AddCacheDirectiveResponseProto> {
    unsupported("addCacheDirective")
}

pub fn modify_cache_directive(
    _: &Asked,
    _: ModifyCacheDirectiveRequestProto,
) -> Answered<ModifyCacheDirectiveResponseProto> {
    unsupported("modifyCacheDirective")
}

pub fn remove_cache_directive(
    _: &Asked,
    _: RemoveCacheDirectiveRequestProto,
) -> Answered<RemoveCacheDirectiveResponseProto> {
    unsupported("removeCacheDirective")
}

pub fn add_cache_pool(
    _: &Asked,
    _: AddCachePoolRequestProto,
) -> Answered<AddCachePoolResponseProto> {
    unsupported("addCachePool")
}

pub fn modify_cache_pool(
    _: &Asked,
    _: ModifyCachePoolRequestProto,
) -> Answered<ModifyCachePoolResponseProto> {
    unsupported("modifyCachePool")
}

pub fn remove_cache_pool(
    _: &Asked,
    _: RemoveCachePoolRequestProto,
) -> Answered<RemoveCachePoolResponseProto> {
    unsupported("removeCachePool")
}

// ---- What reads or moves data of the NameNode's own.

/// Asked by superusers alone, as in HDFS.
pub fn get_edits_from_txid(
    asked: &Asked,
    _: GetEditsFromTxidRequestProto,
) -> Answered<GetEditsFromTxidResponseProto> {
    asked.enter()?;
    unsupported("getEditsFromTxid (the stream of events, inotify)")
}

pub fn get_batched_listing(
    _: &Asked,
    _: GetBatchedListingRequestProto,
) -> Answered<GetBatchedListingResponseProto> {
    unsupported("getBatchedListing")
}

pub fn satisfy_storage_policy(
    _: &Asked,
    _: SatisfyStoragePolicyRequestProto,
) -> Answered<SatisfyStoragePolicyResponseProto> {
    unsupported("satisfyStoragePolicy")
}
