//! The bytes of requests: fixed for ever, and total to read.

use proto::granary::{FileStatus, TableInfo};
use proto::{BlockId, FsPath, GenerationStamp, InodeId};

use super::attribute::{
    AclEntry, AclKind, AclScope, AttributeOp as A, XAttr, XAttrMode, XAttrSpace,
};
use super::erasure::ErasureOp;
use super::node::{NodeOp, NodeWish};
use super::quota::{Limit, QuotaOp, StorageType};
use super::snapshot::SnapshotOp;
use super::{
    Block, CallId, Caller, FileRef, Op, RenameMode, Request, Verdict, decode_reply, encode_reply,
};
use crate::coding::Reader;

fn path(text: &str) -> FsPath {
    FsPath::parse(text).expect("a path")
}

/// One of each operation.
fn all_ops() -> Vec<Op> {
    let block = Block { id: BlockId(7), stamp: GenerationStamp(8), length: 9 };
    let file = FileRef { path: path("/f"), inode: Some(InodeId(5)) };
    let holder = || "h".to_owned();
    let store = || "s".to_owned();
    let table =
        TableInfo { path: "/t/a.tbl".into(), bytes: 1, slot_last: 9, ..TableInfo::default() };
    vec![
        Op::Mkdirs { path: path("/a"), mode: 0o755, unmasked: None, create_parents: true },
        Op::Create {
            path: path("/a"),
            holder: holder(),
            mode: 1,
            unmasked: None,
            overwrite: true,
            create_parents: false,
            replication: 3,
            block_bytes: 4,
            erasure: None,
        },
        Op::Append { path: path("/a"), holder: holder(), new_block: false },
        Op::AddBlock { file: file.clone(), holder: holder(), previous: Some(block) },
        Op::AbandonBlock { file: file.clone(), holder: holder(), block },
        Op::UpdateBlockForPipeline { block, holder: holder() },
        Op::UpdatePipeline { holder: holder(), old_block: block, new_block: block },
        Op::Fsync { file: file.clone(), holder: holder(), last_block_length: 3 },
        Op::Complete { file, holder: holder(), last: None },
        Op::Rename { source: path("/a"), target: path("/b"), mode: RenameMode::Replace },
        Op::Delete { path: path("/a"), recursive: true },
        Op::Link { source: path("/a"), target: path("/b") },
        Op::Truncate { path: path("/a"), length: 5, holder: holder() },
        Op::SetPermission { path: path("/a"), mode: 0o700 },
        Op::SetOwner { path: path("/a"), owner: "o".into(), group: "g".into() },
        Op::SetTimes { path: path("/a"), modified_ns: Some(-1), accessed_ns: None },
        Op::SetReplication { path: path("/a"), replication: 2 },
        Op::RecoverLease { path: path("/a"), holder: holder() },
        Op::BeginBlockRecovery { inode: InodeId(5) },
        Op::CommitBlockSynchronization {
            block,
            new_stamp: GenerationStamp(10),
            new_length: 11,
            close_file: true,
            delete_block: false,
        },
        Op::PublishVersion {
            store: store(),
            folder: path("/t"),
            tables: vec![table],
            activate: true,
            keep_versions: 2,
        },
        Op::ActivateVersion { store: store(), version: 1 },
        Op::SetVersionState { store: store(), version: 1, verdict: Verdict::Failed("why".into()) },
        Op::DeleteVersion { store: store(), version: 1 },
        Op::DeleteStore { store: store() },
    ]
}

/// One of each operation of the families that have a tag of their own and another inside.
fn family_ops() -> Vec<(u8, Op)> {
    let quota =
        |names, space, storage| Op::Quota(QuotaOp::Set { path: path("/a"), names, space, storage });
    let name = || "n".to_owned();
    let (space, mode) = (XAttrSpace::Trusted, XAttrMode::Replace);
    let xattr = XAttr { space, name: name(), value: vec![1, 2] };
    let (scope, kind) = (AclScope::Default, AclKind::Group);
    let entry = AclEntry { scope, kind, name: name(), permission: 5 };
    vec![
        (41, quota(Limit::Set(5), Limit::Clear, None)),
        (41, quota(Limit::Keep, Limit::Set(9), Some(StorageType::Disk))),
        (42, Op::Snapshot(SnapshotOp::Allow { path: path("/a") })),
        (42, Op::Snapshot(SnapshotOp::Disallow { path: path("/a") })),
        (42, Op::Snapshot(SnapshotOp::Create { path: path("/a"), name: String::new() })),
        (42, Op::Snapshot(SnapshotOp::Delete { path: path("/a"), name: "s".into() })),
        (
            42,
            Op::Snapshot(SnapshotOp::Rename { path: path("/a"), from: "s".into(), to: "t".into() }),
        ),
        // Two families, and later forms of mkdirs and create.
        (40, Op::Attribute(A::SetXAttr { path: path("/a"), raw: true, xattr, mode })),
        (40, Op::Attribute(A::RemoveXAttr { path: path("/a"), raw: false, space, name: name() })),
        (40, Op::Attribute(A::ModifyAclEntries { path: path("/a"), entries: vec![entry] })),
        (40, Op::Attribute(A::RemoveAclEntries { path: path("/a"), entries: vec![] })),
        (40, Op::Attribute(A::RemoveDefaultAcl { path: path("/a") })),
        (40, Op::Attribute(A::RemoveAcl { path: path("/a") })),
        (40, Op::Attribute(A::SetAcl { path: path("/a"), entries: vec![] })),
        (40, Op::Attribute(A::SetStoragePolicy { path: path("/a"), policy: 7 })),
        (43, Op::Concat { target: path("/a"), sources: vec![path("/b"), path("/c")] }),
        (
            44,
            Op::Mkdirs {
                path: path("/a"),
                mode: 0o755,
                unmasked: Some(0o777),
                create_parents: true,
            },
        ),
        (
            45,
            Op::Create {
                path: path("/a"),
                holder: name(),
                mode: 1,
                unmasked: Some(2),
                overwrite: true,
                create_parents: false,
                replication: 3,
                block_bytes: 4,
                erasure: None,
            },
        ),
        (26, Op::Append { path: path("/a"), holder: "h".into(), new_block: true }),
        (46, create_coded(None)),
        (46, create_coded(Some(0o777))),
        (47, Op::Node(NodeOp::Wish { node: name(), wish: NodeWish::Decommission })),
        (47, Op::Node(NodeOp::Wish { node: name(), wish: NodeWish::Maintenance { until_ns: 9 } })),
        (47, Op::Node(NodeOp::Forget { node: name() })),
        (46, Op::Erasure(ErasureOp::SetPolicy { path: path("/a"), policy: 1 })),
        (46, Op::Erasure(ErasureOp::UnsetPolicy { path: path("/a") })),
        (46, Op::Erasure(ErasureOp::Enable { policy: 5, enabled: true })),
        (
            46,
            Op::Erasure(ErasureOp::Exchange {
                target: path("/a"),
                source: path("/b"),
                inode: InodeId(5),
                modified_ns: -6,
            }),
        ),
        // The second form of an operation that has two.
        (10, Op::Rename { source: path("/a"), target: path("/b"), mode: RenameMode::Into }),
    ]
}

fn create_coded(unmasked: Option<u32>) -> Op {
    Op::Create {
        path: path("/a"),
        holder: "h".into(),
        mode: 1,
        unmasked,
        overwrite: true,
        create_parents: false,
        replication: 3,
        block_bytes: 4,
        erasure: Some(2),
    }
}

pub(crate) fn every_op() -> Vec<Op> {
    all_ops().into_iter().chain(family_ops().into_iter().map(|(_, op)| op)).collect()
}

pub(crate) fn request(op: Op) -> Request {
    let caller = Caller { user: "u".into(), groups: vec!["g".into()], superuser: false };
    let call_id = Some(CallId { client: [3; 16], call: 4 });
    Request { caller, call_id, now_ns: 5, op }
}

fn encoded(request: &Request) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(&mut out);
    out
}

#[test]
fn golden_bytes_of_a_request() {
    let mut expected = vec![1]; // version
    expected.extend([1, 0, 0, 0, b'u']); // user
    expected.extend([1, 0]); // groups
    expected.extend([1, 0, 0, 0, b'g']);
    expected.push(0); // superuser
    expected.push(1); // has a call id
    expected.extend([3; 16]); // client
    expected.extend([4, 0, 0, 0, 0, 0, 0, 0]); // call
    expected.extend([5, 0, 0, 0, 0, 0, 0, 0]); // now
    expected.push(11); // tag of delete
    expected.extend([2, 0, 0, 0, b'/', b'a']); // path
    expected.push(1); // recursive
    assert_eq!(encoded(&request(Op::Delete { path: path("/a"), recursive: true })), expected);
}

#[test]
fn tags_are_the_numbers_one_to_twenty_five_in_order_and_those_of_the_families() {
    let head = encoded(&request(Op::DeleteStore { store: "s".into() })).len() - 6;
    for (at, op) in all_ops().into_iter().enumerate() {
        assert_eq!(usize::from(encoded(&request(op))[head]), at + 1);
    }
    for (tag, op) in family_ops() {
        assert_eq!(encoded(&request(op))[head], tag);
    }
}

#[test]
fn every_request_survives_its_bytes() {
    for op in every_op() {
        let request = request(op);
        assert_eq!(Request::decode(&encoded(&request)), Ok(request));
    }
}

#[test]
fn a_request_cut_short_or_with_a_tail_is_an_error() {
    for op in every_op() {
        let mut bytes = encoded(&request(op));
        for length in 0..bytes.len() {
            assert!(Request::decode(&bytes[..length]).is_err());
        }
        bytes.push(0);
        assert!(Request::decode(&bytes).is_err());
    }
}

#[test]
fn a_flipped_bit_gives_an_error_or_another_request_never_a_panic() {
    for op in every_op() {
        let good = request(op);
        let bytes = encoded(&good);
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            if let Ok(other) = Request::decode(&bad) {
                assert_ne!(other, good, "every bit counts");
                assert_eq!(encoded(&other), bad, "there is one encoding of a request");
            }
        }
    }
}

#[test]
fn damaged_replies_are_errors_or_other_replies() {
    let reply = super::Reply::Recovering {
        closed: false,
        recovery: Some(super::BlockRecovery {
            block: Block { id: BlockId(1), stamp: GenerationStamp(2), length: 3 },
            new_stamp: GenerationStamp(4),
            new_length: Some(5),
            inode: InodeId(6),
            policy: 0,
        }),
    };
    let mut bytes = Vec::new();
    encode_reply(&reply, &mut bytes);
    assert_eq!(decode_reply(&mut Reader::new(&bytes)), Ok(reply));
    for length in 0..bytes.len() {
        assert!(decode_reply(&mut Reader::new(&bytes[..length])).is_err());
    }
}

#[test]
fn a_kept_status_tells_of_its_list_and_policy_in_the_byte_of_the_open_flag() {
    let status = FileStatus {
        open_for_write: true,
        has_acl: true,
        storage_policy: 15,
        erasure_policy: 5,
        links: 7,
        ..FileStatus::default()
    };
    let mut bytes = Vec::new();
    encode_reply(&super::Reply::File(Box::new(status.clone())), &mut bytes);
    let at = bytes.len() - 5;
    assert_eq!(bytes[at], 1 | 2 | 15 << 4);
    let read = |bytes: &[u8]| decode_reply(&mut Reader::new(bytes));
    assert_eq!(read(&bytes), Ok(super::Reply::File(Box::new(status))));
    bytes[at] |= 4;
    assert!(read(&bytes).is_err(), "a bit that means nothing");
}
