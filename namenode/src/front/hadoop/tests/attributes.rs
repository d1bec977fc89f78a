//! Attributes, access control lists, storage policies and concat, as HDFS's clients ask for them.

use ipc::exceptions as class;
use proto::hadoop::hdfs::acl_entry_proto::{AclEntryScopeProto, AclEntryTypeProto};
use proto::hadoop::hdfs::x_attr_proto::XAttrNamespaceProto;
use proto::hadoop::hdfs::*;

use super::World;

impl World {
    async fn make_folder(&self, path: &str) {
        let request = MkdirsRequestProto {
            src: path.into(),
            masked: FsPermissionProto { perm: 0o755 },
            create_parent: true,
            unmasked: Some(FsPermissionProto { perm: 0o777 }),
        };
        let _: MkdirsResponseProto = self.ask_as("boss", "mkdirs", &request).await.unwrap();
    }

    async fn flags(&self, path: &str) -> (u32, u32) {
        let request = GetFileInfoRequestProto { src: path.into() };
        let info: GetFileInfoResponseProto =
            self.ask_as("boss", "getFileInfo", &request).await.unwrap();
        let status = info.fs.unwrap();
        (status.flags(), status.permission.perm)
    }
}

fn xattr(space: XAttrNamespaceProto, name: &str, value: &[u8]) -> XAttrProto {
    let value = (!value.is_empty()).then(|| value.to_vec().into());
    XAttrProto { namespace: space as i32, name: name.into(), value }
}

fn set_request(path: &str, xattr: XAttrProto, flag: u32) -> SetXAttrRequestProto {
    SetXAttrRequestProto { src: path.into(), x_attr: Some(xattr), flag: Some(flag) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_set_xattr_is_answered_and_another_is_refused() {
    let world = World::new().await;
    world.make_folder("/d").await;
    let request = set_request("/d", xattr(XAttrNamespaceProto::User, "a", b"v"), 1);
    let call = world.new_call();
    for _ in 0..2 {
        let done = world.ask_again::<SetXAttrResponseProto>("boss", call, "setXAttr", &request);
        assert_eq!(done.await, Ok(SetXAttrResponseProto {}));
    }
    let refused = world.ask_as::<SetXAttrResponseProto>("boss", "setXAttr", &request).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.class, class::IO);
    assert_eq!(refused.message, "XAttr: a already exists. The REPLACE flag must be specified.");
    let mut none = request.clone();
    none.flag = Some(0);
    let none = world.ask_as::<SetXAttrResponseProto>("boss", "setXAttr", &none).await.unwrap_err();
    assert_eq!(none.class, class::HADOOP_ILLEGAL_ARGUMENT);
    assert_eq!(none.message, "A flag must be specified.");
    let get = GetXAttrsRequestProto {
        src: "/d".into(),
        x_attrs: vec![xattr(XAttrNamespaceProto::User, "b", b"")],
    };
    let missing = world.ask_as::<GetXAttrsResponseProto>("boss", "getXAttrs", &get).await;
    assert_eq!(missing.unwrap_err().class, class::IO);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_raw_space_is_seen_by_paths_under_reserved_raw_and_by_superusers() {
    let world = World::new().await;
    world.make_folder("/d").await;
    let raw = xattr(XAttrNamespaceProto::Raw, "r", b"1");
    let plain = set_request("/d", raw.clone(), 1);
    let denied =
        world.ask_as::<SetXAttrResponseProto>("boss", "setXAttr", &plain).await.unwrap_err();
    assert_eq!(denied.class, class::ACCESS_CONTROL);
    assert_eq!(denied.message, "User doesn't have permission for xattr: raw.r");
    let under = set_request("/.reserved/raw/d", raw.clone(), 1);
    let done = world.ask_as::<SetXAttrResponseProto>("boss", "setXAttr", &under).await;
    done.unwrap();
    let all = |src: &str| GetXAttrsRequestProto { src: src.into(), x_attrs: vec![] };
    for (path, expected) in [("/d", vec![]), ("/.reserved/raw/d", vec![raw])] {
        let found = world.ask_as::<GetXAttrsResponseProto>("boss", "getXAttrs", &all(path)).await;
        assert_eq!(found.unwrap().x_attrs, expected);
    }
    let info = GetFileInfoRequestProto { src: "/.reserved/raw/d".into() };
    let found = world.ask_as::<GetFileInfoResponseProto>("boss", "getFileInfo", &info).await;
    assert!(found.unwrap().fs.is_some());
    let ann = world.ask_as::<GetFileInfoResponseProto>("ann", "getFileInfo", &info).await;
    assert_eq!(ann.unwrap_err().class, class::ACCESS_CONTROL);
}

fn entry(scope: AclEntryScopeProto, kind: AclEntryTypeProto, name: &str) -> AclEntryProto {
    AclEntryProto {
        r#type: kind as i32,
        scope: scope as i32,
        permissions: 7,
        name: (!name.is_empty()).then(|| name.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_told_by_a_flag_and_inherited_without_the_umask() {
    let world = World::new().await;
    world.make_folder("/d").await;
    assert_eq!(world.flags("/d").await, (0, 0o755));
    let named = entry(AclEntryScopeProto::Default, AclEntryTypeProto::User, "ann");
    let request = ModifyAclEntriesRequestProto { src: "/d".into(), acl_spec: vec![named] };
    let done = world.ask_as::<ModifyAclEntriesResponseProto>("boss", "modifyAclEntries", &request);
    done.await.unwrap();
    world.make_folder("/d/s").await;
    assert_eq!(world.flags("/d/s").await, (1, 0o775));
    let get = GetAclStatusRequestProto { src: "/d/s".into() };
    let status: GetAclStatusResponseProto =
        world.ask_as("ann", "getAclStatus", &get).await.unwrap();
    let scopes: Vec<_> = status.result.entries.iter().map(|entry| entry.scope).collect();
    assert_eq!(scopes, [0, 0, 1, 1, 1, 1, 1]);
    assert_eq!(status.result.permission.unwrap().perm, 0o775);
    let mask = entry(AclEntryScopeProto::Access, AclEntryTypeProto::Mask, "x");
    let request = ModifyAclEntriesRequestProto { src: "/d".into(), acl_spec: vec![mask] };
    let refused =
        world.ask_as::<ModifyAclEntriesResponseProto>("boss", "modifyAclEntries", &request).await;
    assert_eq!(refused.unwrap_err().class, class::ACL);
    let remove = RemoveAclRequestProto { src: "/d/s".into() };
    let denied = world.ask_as::<RemoveAclResponseProto>("ann", "removeAcl", &remove).await;
    assert_eq!(denied.unwrap_err().class, class::ACCESS_CONTROL);
    let done = world.ask_as::<RemoveAclResponseProto>("boss", "removeAcl", &remove).await;
    done.unwrap();
    assert_eq!(world.flags("/d/s").await, (0, 0o755), "the group's own entry is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_policies_are_listed_set_and_inherited() {
    let world = World::new().await;
    world.make_folder("/d/s").await;
    let list = GetStoragePoliciesRequestProto {};
    let all: GetStoragePoliciesResponseProto =
        world.ask_as("ann", "getStoragePolicies", &list).await.unwrap();
    let ids: Vec<_> = all.policies.iter().map(|policy| policy.policy_id).collect();
    assert_eq!(ids, [1, 2, 5, 7, 10, 12, 15]);
    let set = async |name: &str| {
        let request = SetStoragePolicyRequestProto { src: "/d".into(), policy_name: name.into() };
        world.ask_as::<SetStoragePolicyResponseProto>("boss", "setStoragePolicy", &request).await
    };
    set("cold").await.unwrap();
    let wrong = set("x").await.unwrap_err();
    assert_eq!(wrong.class, class::HADOOP_ILLEGAL_ARGUMENT);
    assert_eq!(wrong.message, "Cannot find a block policy with the name x");
    let get = GetStoragePolicyRequestProto { path: "/d/s".into() };
    let found: GetStoragePolicyResponseProto =
        world.ask_as("ann", "getStoragePolicy", &get).await.unwrap();
    assert_eq!(found.storage_policy.name, "COLD");
    let info = GetFileInfoRequestProto { src: "/d/s".into() };
    let info: GetFileInfoResponseProto = world.ask_as("ann", "getFileInfo", &info).await.unwrap();
    assert_eq!(info.fs.unwrap().storage_policy, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn concat_names_its_class() {
    let world = World::new().await;
    world.make_folder("/d").await;
    let request = ConcatRequestProto { trg: "/d/t".into(), srcs: vec!["/d/s".into()] };
    let missing =
        world.ask_as::<ConcatResponseProto>("boss", "concat", &request).await.unwrap_err();
    assert_eq!(missing.class, class::FILE_NOT_FOUND);
    assert_eq!(missing.message, "File does not exist: /d/t");
    let none = ConcatRequestProto { trg: "/d".into(), srcs: vec![] };
    let none = world.ask_as::<ConcatResponseProto>("boss", "concat", &none).await.unwrap_err();
    assert_eq!(none.class, class::ILLEGAL_ARGUMENT);
}
