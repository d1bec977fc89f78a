//! Quotas and sums over trees.

use proto::hadoop::hdfs::*;

use super::{Nothing, World};

const KEEP: u64 = i64::MAX as u64;
const NONE: u64 = u64::MAX;

fn set(path: &str, names: u64, space: u64) -> SetQuotaRequestProto {
    SetQuotaRequestProto {
        path: path.into(),
        namespace_quota: names,
        storagespace_quota: space,
        storage_type: None,
    }
}

impl World {
    async fn set_quota(&self, path: &str, names: u64, space: u64) {
        let _: SetQuotaResponseProto = self.ask("setQuota", &set(path, names, space)).await;
    }

    async fn summary(&self, path: &str) -> ContentSummaryProto {
        let request = GetContentSummaryRequestProto { path: path.into() };
        self.ask::<GetContentSummaryResponseProto>("getContentSummary", &request).await.summary
    }

    async fn usage(&self, path: &str) -> QuotaUsageProto {
        let request = GetQuotaUsageRequestProto { path: path.into() };
        self.ask::<GetQuotaUsageResponseProto>("getQuotaUsage", &request).await.usage
    }
}

#[tokio::test]
async fn a_quota_is_set_shown_enforced_and_cleared() {
    let world = World::new().await;
    world.mkdirs("/q/a").await;
    world.set_quota("/q", 2, KEEP).await;
    world.set_quota("/q", KEEP, 1 << 20).await;
    let sum = world.summary("/q").await;
    assert_eq!((sum.quota, sum.space_quota, sum.directory_count), (2, 1 << 20, 2));
    let usage = world.usage("/q").await;
    assert_eq!((usage.file_and_directory_count, usage.quota), (2, 2));
    let mkdirs = MkdirsRequestProto {
        src: "/q/b/c/d".into(),
        masked: FsPermissionProto { perm: 0o755 },
        create_parent: true,
        unmasked: None,
    };
    let refused = world.ask_as::<Nothing>("boss", "mkdirs", &mkdirs).await.err().unwrap();
    assert!(refused.class.ends_with("NSQuotaExceededException"), "{refused:?}");
    assert!(refused.message.ends_with("quota=2 file count=3"), "{refused:?}");
    world.set_quota("/q", NONE, NONE).await;
    let sum = world.summary("/q").await;
    assert_eq!((sum.quota, sum.space_quota), (NONE, NONE));
}

#[tokio::test]
async fn the_root_shows_hdfs_default_limit_of_names() {
    let world = World::new().await;
    let sum = world.summary("/").await;
    assert_eq!((sum.quota, sum.space_quota, sum.directory_count), (KEEP, NONE, 1));
    assert_eq!(world.usage("/").await.quota, KEEP);
    assert_eq!(world.refused("setQuota", &set("/", NONE, KEEP)).await, "IllegalArgumentException");
}

#[tokio::test]
async fn quotas_are_refused_as_hdfs_refuses_them() {
    let world = World::new().await;
    world.mkdirs("/q").await;
    for (path, names, class) in
        [("/none", 5, "FileNotFoundException"), ("/q", KEEP + 1, "IllegalArgumentException")]
    {
        assert_eq!(world.refused("setQuota", &set(path, names, KEEP)).await, class);
    }
    let denied = world.ask_as::<Nothing>("bob", "setQuota", &set("/q", 5, KEEP)).await;
    let denied = denied.err().unwrap();
    assert!(denied.class.ends_with("AccessControlException"));
    assert_eq!(denied.message, "Access denied for user bob. Superuser privilege is required");
}

#[tokio::test]
async fn a_quota_for_a_type_of_storage_is_shown_with_what_disks_hold() {
    let world = World::new().await;
    world.mkdirs("/q").await;
    let request = SetQuotaRequestProto {
        storage_type: Some(StorageTypeProto::Ssd as i32),
        ..set("/q", KEEP, 7)
    };
    let _: SetQuotaResponseProto = world.ask("setQuota", &request).await;
    let types = world.usage("/q").await.type_quota_infos.unwrap().type_quota_info;
    let shown: Vec<_> = types.iter().map(|t| (t.r#type.unwrap(), t.quota)).collect();
    assert_eq!(shown, [(1, NONE), (2, 7), (3, NONE)]);
}
