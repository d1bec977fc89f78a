//! Java's exception classes: what an error is called towards Hadoop's clients, by RPC and by WebHDFS alike.
//!
//! Clients decide by the class: whether to retry, to fail over, or which exception a program gets. [`class_of`] is the
//! one table from our codes; where HDFS tells the same code by different classes, the [`Verb`] decides. The messages
//! are ours: no client reads them, but people do.
//!
//! It does not know transports: RPC puts the class into a header, WebHDFS into a RemoteException with an HTTP status.

use proto::{Code, Error};

macro_rules! classes {
    ($($name:ident = $class:literal;)*) => {
        $(#[doc = concat!("`", $class, "`")] pub const $name: &str = $class;)*
    };
}

classes! {
    IO = "java.io.IOException";
    FILE_NOT_FOUND = "java.io.FileNotFoundException";
    ILLEGAL_ARGUMENT = "java.lang.IllegalArgumentException";
    RUNTIME = "java.lang.RuntimeException";
    SECURITY = "java.lang.SecurityException";
    UNSUPPORTED = "java.lang.UnsupportedOperationException";
    ALREADY_EXISTS = "org.apache.hadoop.fs.FileAlreadyExistsException";
    INVALID_PATH = "org.apache.hadoop.fs.InvalidPathException";
    PARENT_NOT_DIRECTORY = "org.apache.hadoop.fs.ParentNotDirectoryException";
    PATH_NOT_DIRECTORY = "org.apache.hadoop.fs.PathIsNotDirectoryException";
    NOT_EMPTY = "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException";
    CHECKSUM = "org.apache.hadoop.fs.ChecksumException";
    HADOOP_ILLEGAL_ARGUMENT = "org.apache.hadoop.HadoopIllegalArgumentException";
    ALREADY_BEING_CREATED = "org.apache.hadoop.hdfs.protocol.AlreadyBeingCreatedException";
    SPACE_QUOTA = "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException";
    NAME_QUOTA = "org.apache.hadoop.hdfs.protocol.NSQuotaExceededException";
    TYPE_QUOTA = "org.apache.hadoop.hdfs.protocol.QuotaByStorageTypeExceededException";
    SNAPSHOT = "org.apache.hadoop.hdfs.protocol.SnapshotException";
    SNAPSHOT_ACCESS = "org.apache.hadoop.hdfs.protocol.SnapshotAccessControlException";
    ACL = "org.apache.hadoop.hdfs.protocol.AclException";
    BLOCK_MISSING = "org.apache.hadoop.hdfs.BlockMissingException";
    LEASE_EXPIRED = "org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException";
    NOT_REPLICATED_YET = "org.apache.hadoop.hdfs.server.namenode.NotReplicatedYetException";
    SAFE_MODE = "org.apache.hadoop.hdfs.server.namenode.SafeModeException";
    RETRIABLE = "org.apache.hadoop.ipc.RetriableException";
    STANDBY = "org.apache.hadoop.ipc.StandbyException";
    VERSION_MISMATCH = "org.apache.hadoop.ipc.RPC$VersionMismatch";
    RPC_SERVER = "org.apache.hadoop.ipc.RpcServerException";
    NO_SUCH_PROTOCOL = "org.apache.hadoop.ipc.RpcNoSuchProtocolException";
    SASL = "javax.security.sasl.SaslException";
    NO_SUCH_METHOD = "org.apache.hadoop.ipc.RpcNoSuchMethodException";
    ACCESS_CONTROL = "org.apache.hadoop.security.AccessControlException";
    AUTHORIZATION = "org.apache.hadoop.security.authorize.AuthorizationException";
}

/// What was asked, as far as it decides the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Making a file or folder.
    Create,
    /// Writing more to a file that is there: append, truncate, concat.
    Append,
    /// Renaming.
    Rename,
    /// Snapshots: making, renaming, deleting, comparing.
    Snapshot,
    /// Access control lists.
    Acl,
    /// Extended attributes.
    XAttr,
    /// Everything else.
    Other,
}

/// The class that Hadoop's clients expect for an error.
pub fn class_of(error: &Error, verb: Verb) -> &'static str {
    match error.code {
        Code::NotFound => FILE_NOT_FOUND,
        Code::AlreadyExists if verb == Verb::Snapshot => SNAPSHOT,
        Code::AlreadyExists if verb == Verb::XAttr => IO,
        Code::AlreadyExists => ALREADY_EXISTS,
        Code::ParentNotFolder if verb == Verb::Create || verb == Verb::Rename => {
            PARENT_NOT_DIRECTORY
        }
        // What is under a file does not exist: only who makes something asks for the reason.
        Code::ParentNotFolder => FILE_NOT_FOUND,
        Code::IsFolder if verb == Verb::Create => ALREADY_EXISTS,
        Code::IsFolder | Code::NotEmpty if verb == Verb::Rename => IO,
        Code::IsFolder => FILE_NOT_FOUND,
        Code::NotFolder if verb == Verb::Create => ALREADY_EXISTS,
        Code::NotFolder if verb == Verb::Rename => IO,
        Code::NotFolder => PARENT_NOT_DIRECTORY,
        Code::NotEmpty => NOT_EMPTY,
        Code::InvalidPath => INVALID_PATH,
        Code::InvalidArgument if verb == Verb::Create || verb == Verb::Rename => IO,
        Code::InvalidArgument if verb == Verb::Acl => ACL,
        Code::InvalidArgument if verb == Verb::Snapshot => SNAPSHOT,
        Code::InvalidArgument => HADOOP_ILLEGAL_ARGUMENT,
        Code::PermissionDenied => ACCESS_CONTROL,
        Code::FileOpenElsewhere => ALREADY_BEING_CREATED,
        Code::LeaseExpired => LEASE_EXPIRED,
        Code::SafeMode => SAFE_MODE,
        Code::NotReplicatedYet => NOT_REPLICATED_YET,
        Code::Unavailable | Code::Timeout | Code::Overloaded => RETRIABLE,
        Code::NotResponsible => STANDBY,
        Code::Corrupt => CHECKSUM,
        Code::BlockMissing => BLOCK_MISSING,
        Code::NamespaceQuota => NAME_QUOTA,
        Code::SpaceQuota => SPACE_QUOTA,
        Code::TypeQuota => TYPE_QUOTA,
        Code::Snapshot => SNAPSHOT,
        Code::ReadOnlySnapshot => SNAPSHOT_ACCESS,
        Code::Unsupported => UNSUPPORTED,
        _ => IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: Code, verb: Verb) -> &'static str {
        class_of(&Error::new(code, ""), verb)
    }

    #[test]
    fn a_folder_in_the_way_is_told_by_what_was_asked() {
        assert_eq!(class(Code::IsFolder, Verb::Create), ALREADY_EXISTS);
        assert_eq!(class(Code::IsFolder, Verb::Other), FILE_NOT_FOUND);
        assert_eq!(class(Code::IsFolder, Verb::Append), FILE_NOT_FOUND);
    }

    #[test]
    fn what_is_under_a_file_can_neither_be_made_nor_found() {
        assert_eq!(class(Code::ParentNotFolder, Verb::Create), PARENT_NOT_DIRECTORY);
        assert_eq!(class(Code::ParentNotFolder, Verb::Other), FILE_NOT_FOUND);
        assert_eq!(class(Code::ParentNotFolder, Verb::XAttr), FILE_NOT_FOUND);
    }

    #[test]
    fn what_passes_is_retried_and_what_does_not_is_not() {
        assert_eq!(class(Code::Unavailable, Verb::Other), RETRIABLE);
        assert_eq!(class(Code::NotReplicatedYet, Verb::Other), NOT_REPLICATED_YET);
        assert_eq!(class(Code::Internal, Verb::Other), IO);
    }
}
