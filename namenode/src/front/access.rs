//! Who may call what: the one table of methods, and the one place where a caller's identity is taken from a message.
//!
//! The table says who may call a method at all and whether it changes the namespace (and so is refused in safe
//! mode). What a caller may do to a path is decided by the state, by owner, group and mode. User names are taken from
//! the message as they are: there is no authentication yet, as in Hadoop's "simple" mode.

use std::collections::BTreeMap;

use proto::limits::PRINCIPAL_BYTES_MAX;
use proto::{Code, Error, Result, granary};

use crate::config::{Config, parse_groups};
use crate::op::{CallId, Caller};

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever can connect: no user is named.
    Anyone,
    /// A caller with a valid user name.
    User,
    /// A superuser.
    Superuser,
}

macro_rules! methods {
    ($($name:ident = $text:literal, $who:ident, $changes:literal;)*) => {
        /// Every method, of gRPC and of HDFS's protocols.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "named as the methods are")]
        pub enum Method { $($name,)* }

        /// Every method, in the order of their numbers.
        pub const METHODS: &[Method] = &[$(Method::$name,)*];

        impl Method {
            /// `Service.Method`.
            pub fn name(self) -> &'static str { match self { $(Self::$name => $text,)* } }
            /// Who may call it.
            pub fn who(self) -> Who { match self { $(Self::$name => Who::$who,)* } }
            /// Whether it is refused in safe mode.
            pub fn changes(self) -> bool { match self { $(Self::$name => $changes,)* } }
        }
    };
}

methods! {
    // method = name on the wire, who may call it, whether it changes the namespace
    GetServerDefaults = "Namespace.GetServerDefaults", Anyone, false;
    GetFileInfo = "Namespace.GetFileInfo", User, false;
    GetListing = "Namespace.GetListing", User, false;
    GetBlockLocations = "Namespace.GetBlockLocations", User, false;
    GetContentSummary = "Namespace.GetContentSummary", User, false;
    GetFsStats = "Namespace.GetFsStats", Anyone, false;
    Mkdirs = "Namespace.Mkdirs", User, true;
    Create = "Namespace.Create", User, true;
    Append = "Namespace.Append", User, true;
    AddBlock = "Namespace.AddBlock", User, true;
    AbandonBlock = "Namespace.AbandonBlock", User, true;
    GetAdditionalDatanode = "Namespace.GetAdditionalDatanode", User, true;
    UpdateBlockForPipeline = "Namespace.UpdateBlockForPipeline", User, true;
    UpdatePipeline = "Namespace.UpdatePipeline", User, true;
    Fsync = "Namespace.Fsync", User, true;
    Complete = "Namespace.Complete", User, true;
    RenewLease = "Namespace.RenewLease", User, false;
    RecoverLease = "Namespace.RecoverLease", User, true;
    ReportBadBlocks = "Namespace.ReportBadBlocks", User, false;
    Rename = "Namespace.Rename", User, true;
    Delete = "Namespace.Delete", User, true;
    Link = "Namespace.Link", User, true;
    Truncate = "Namespace.Truncate", User, true;
    SetPermission = "Namespace.SetPermission", User, true;
    SetOwner = "Namespace.SetOwner", User, true;
    SetTimes = "Namespace.SetTimes", User, true;
    SetReplication = "Namespace.SetReplication", User, true;
    ExchangeContent = "Namespace.ExchangeContent", User, true;
    SetXAttr = "Namespace.SetXAttr", User, true;
    RemoveXAttr = "Namespace.RemoveXAttr", User, true;
    GetXAttrs = "Namespace.GetXAttrs", User, false;
    ListXAttrs = "Namespace.ListXAttrs", User, false;
    ModifyAclEntries = "Namespace.ModifyAclEntries", User, true;
    RemoveAclEntries = "Namespace.RemoveAclEntries", User, true;
    RemoveDefaultAcl = "Namespace.RemoveDefaultAcl", User, true;
    RemoveAcl = "Namespace.RemoveAcl", User, true;
    SetAcl = "Namespace.SetAcl", User, true;
    GetAclStatus = "Namespace.GetAclStatus", User, false;
    SetStoragePolicy = "Namespace.SetStoragePolicy", User, true;
    UnsetStoragePolicy = "Namespace.UnsetStoragePolicy", User, true;
    GetStoragePolicy = "Namespace.GetStoragePolicy", User, false;
    GetStoragePolicies = "Namespace.GetStoragePolicies", Anyone, false;
    Concat = "Namespace.Concat", User, true;
    DatanodesAttach = "Datanodes.Attach", Anyone, false;
    CommitBlockSynchronization = "Datanodes.CommitBlockSynchronization", Anyone, true;
    PublishVersion = "Catalogue.PublishVersion", User, true;
    ListStores = "Catalogue.ListStores", User, false;
    GetStore = "Catalogue.GetStore", User, false;
    ActivateVersion = "Catalogue.ActivateVersion", User, true;
    DeleteVersion = "Catalogue.DeleteVersion", User, true;
    DeleteStore = "Catalogue.DeleteStore", User, true;
    CatalogueAttach = "Catalogue.Attach", Anyone, false;
    GetStatus = "Admin.GetStatus", Anyone, false;
    SetSafeMode = "Admin.SetSafeMode", Superuser, false;
    SetQuota = "Admin.SetQuota", User, true;
    GetQuotaUsage = "Hadoop.GetQuotaUsage", User, false;
    Fsck = "Http.Fsck", User, false;
    GetDatanodeReport = "Hadoop.GetDatanodeReport", Superuser, false;
    ListCorruptFileBlocks = "Hadoop.ListCorruptFileBlocks", Superuser, false;
    GetSafeMode = "Hadoop.GetSafeMode", User, false;
    Checkpoint = "Admin.Checkpoint", Superuser, false;
    NameNodeAdmin = "Hadoop.NameNodeAdmin", Superuser, false;
    GetUpgradeStatus = "Hadoop.GetUpgradeStatus", User, false;
    CheckFiles = "Admin.CheckFiles", User, false;
    ListOpenFiles = "Admin.ListOpenFiles", Superuser, false;
    AllowSnapshot = "Hadoop.AllowSnapshot", User, true;
    DisallowSnapshot = "Hadoop.DisallowSnapshot", User, true;
    CreateSnapshot = "Hadoop.CreateSnapshot", User, true;
    DeleteSnapshot = "Hadoop.DeleteSnapshot", User, true;
    RenameSnapshot = "Hadoop.RenameSnapshot", User, true;
    GetSnapshottableFolders = "Hadoop.GetSnapshottableDirListing", User, false;
    GetSnapshots = "Hadoop.GetSnapshotListing", User, false;
    GetSnapshotDiff = "Hadoop.GetSnapshotDiffReport", User, false;
    ListQuotas = "Admin.ListQuotas", Superuser, false;
    CheckAccess = "Hadoop.CheckAccess", User, false;
    CreateSymlink = "Hadoop.CreateSymlink", User, true;
    ErasureCodingRead = "Hadoop.ErasureCodingRead", User, false;
    ErasureCodingSet = "Hadoop.ErasureCodingSet", User, true;
    GetOwnState = "Hadoop.GetOwnState", Anyone, false;
    EncryptionZones = "Hadoop.EncryptionZones", User, false;
    EncryptionAdmin = "Hadoop.EncryptionAdmin", Superuser, false;
    Tokens = "Hadoop.Tokens", User, false;
    Caches = "Hadoop.Caches", User, false;
    CachesAdmin = "Hadoop.CachesAdmin", User, true;
    ServiceAdmin = "Hadoop.ServiceAdmin", Superuser, false;
    GetGroups = "Hadoop.GetGroups", Anyone, false;
    Refresh = "Hadoop.Refresh", Superuser, false;
    ChangeNodes = "Admin.ChangeNodes", Superuser, true;
    ListNodes = "Admin.ListNodes", Superuser, false;
    RepairFiles = "Admin.RepairFiles", Superuser, true;
    Balance = "Admin.Balance", Superuser, false;
    ErasureCodingAdmin = "Hadoop.ErasureCodingAdmin", Superuser, true;
}

/// Turns the caller of a message into one that permissions can be checked for.
#[derive(Debug)]
pub struct Access {
    superuser: String,
    supergroup: String,
    permissions_enabled: bool,
    groups: BTreeMap<String, Vec<String>>,
}

impl Access {
    /// By these settings, which were checked; `superuser` is never empty.
    pub fn new(config: &Config, superuser: String) -> Self {
        let parsed = config.groups.iter().filter_map(|entry| parse_groups(entry));
        let groups = parsed
            .map(|(user, groups)| (user.to_owned(), groups.into_iter().map(String::from).collect()))
            .collect();
        Self {
            superuser,
            supergroup: config.supergroup.clone(),
            permissions_enabled: config.permissions_enabled,
            groups,
        }
    }

    /// The superuser's name.
    pub fn superuser(&self) -> &str {
        &self.superuser
    }

    /// Checks the caller of a method. Errors: `InvalidArgument` for a user name or client id that is none,
    /// `PermissionDenied`.
    pub fn check(
        &self,
        method: Method,
        caller: Option<granary::Caller>,
    ) -> Result<(Caller, Option<CallId>)> {
        let message = caller.unwrap_or_default();
        if method.who() == Who::Anyone {
            return Ok((Caller::default(), None));
        }
        check_principal("the caller's user name", &message.user)?;
        let call_id = call_id(&message)?;
        let caller = self.caller(message.user);
        if method.who() == Who::Superuser && !caller.superuser {
            return Err(Error::new(
                Code::PermissionDenied,
                format!("Access denied for user {}. Superuser privilege is required", caller.user),
            ));
        }
        Ok((caller, call_id))
    }

    /// The groups that a user is in.
    pub fn groups_of(&self, user: &str) -> Vec<String> {
        self.groups.get(user).cloned().unwrap_or_else(|| vec![user.to_owned()])
    }

    fn caller(&self, user: String) -> Caller {
        let groups = self.groups_of(&user);
        let superuser = !self.permissions_enabled
            || user == self.superuser
            || groups.contains(&self.supergroup);
        Caller { user, groups, superuser }
    }
}

/// Checks a name of a user, group, lease holder or store. `what` is told in the error.
pub fn check_principal(what: &str, name: &str) -> Result<()> {
    let why = match name {
        "" => "is empty".to_owned(),
        _ if name.len() > PRINCIPAL_BYTES_MAX => {
            format!("has {} bytes, at most {PRINCIPAL_BYTES_MAX}", name.len())
        }
        _ if name.contains(char::is_control) => {
            format!("{name:?} contains a control character")
        }
        _ => return Ok(()),
    };
    Err(Error::new(Code::InvalidArgument, format!("{what} {why}")))
}

fn call_id(message: &granary::Caller) -> Result<Option<CallId>> {
    if message.client_id.is_empty() {
        return Ok(None);
    }
    let client = <[u8; 16]>::try_from(&message.client_id[..]).map_err(|_| {
        Error::new(
            Code::InvalidArgument,
            format!("the caller's client_id has {} bytes, expected 16", message.client_id.len()),
        )
    })?;
    Ok(Some(CallId { client, call: message.call_id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let groups = vec!["alice=staff,web".into(), "root2=supergroup".into()];
        Access::new(&Config { groups, ..Default::default() }, "boss".into())
    }

    fn caller(user: &str) -> Option<granary::Caller> {
        Some(granary::Caller { user: user.into(), ..Default::default() })
    }

    #[test]
    fn user_names_that_are_none_are_refused() {
        for bad in ["", "a\0b", "a\nb", &"x".repeat(256)] {
            let error = access().check(Method::GetFileInfo, caller(bad)).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{bad:?}");
        }
        assert!(access().check(Method::GetFileInfo, None).is_err());
        assert!(access().check(Method::GetFsStats, None).is_ok());
    }

    #[test]
    fn groups_come_from_the_settings_or_are_named_as_the_user() {
        let check = |user: &str| access().check(Method::GetFileInfo, caller(user)).unwrap().0;
        assert_eq!(check("alice").groups, ["staff", "web"]);
        assert_eq!(check("bob").groups, ["bob"]);
        let superusers = ["boss", "root2", "alice", "bob"].map(|user| check(user).superuser);
        assert_eq!(superusers, [true, true, false, false]);
    }

    #[test]
    fn what_is_for_superusers_is_denied_to_others() {
        let error = access().check(Method::SetSafeMode, caller("bob")).unwrap_err();
        assert_eq!(error.code, Code::PermissionDenied);
        assert!(access().check(Method::SetSafeMode, caller("boss")).is_ok());
    }

    #[test]
    fn a_client_id_has_sixteen_bytes_or_none() {
        let with = |client_id: Vec<u8>| {
            let client_id = client_id.into();
            let message = granary::Caller { user: "u".into(), client_id, call_id: 7 };
            access().check(Method::Mkdirs, Some(message)).map(|(_, call)| call)
        };
        assert_eq!(with(vec![]).unwrap(), None);
        assert_eq!(with(vec![1; 16]).unwrap(), Some(CallId { client: [1; 16], call: 7 }));
        assert!(with(vec![1; 15]).is_err());
    }
}
