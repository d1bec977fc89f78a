//! Every bound that more than one crate must agree on, with its unit in the name, tied to its neighbours below.

/// Bytes of one component of a path.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a whole path.
pub const PATH_BYTES_MAX: usize = 8_000;
/// Components of a path.
pub const PATH_DEPTH_MAX: usize = 1_000;
/// Bytes of a user, group, lease holder or store name.
pub const PRINCIPAL_BYTES_MAX: usize = 255;

/// Bytes of a block that a file gets if nobody says otherwise.
pub const BLOCK_BYTES_DEFAULT: u64 = 128 << 20;
/// The smallest block size a file may ask for, in bytes.
pub const BLOCK_BYTES_MIN: u64 = 4 << 10;
/// The largest block size, in bytes.
pub const BLOCK_BYTES_MAX: u64 = 2 << 30;
/// Replicas of a block that a file may ask for.
pub const REPLICATION_MAX: u32 = 512;
/// Replicas of a block if nobody says otherwise.
pub const REPLICATION_DEFAULT: u32 = 3;
/// Blocks of one file.
pub const FILE_BLOCKS_MAX: u64 = 1 << 40;

/// Bytes under one checksum on disk and on the wire (HDFS's default).
pub const CHECKSUM_CHUNK_BYTES: u32 = 512;
/// Data bytes of a packet between native peers.
pub const PACKET_BYTES_NATIVE: u32 = 1 << 20;
/// The largest packet (header, checksums and data) that anyone accepts, in bytes (HDFS's limit).
pub const PACKET_BYTES_MAX: u32 = 16 << 20;
/// The largest DataTransferProtocol request or reply message, in bytes.
pub const TRANSFER_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The largest gRPC message between Granary's own processes, in bytes.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Entries of one reply to a listing.
pub const LISTING_ENTRIES_MAX: u32 = 1_000;
/// Replicas in one chunk of a full report.
pub const REPORT_CHUNK_REPLICAS_MAX: usize = 100_000;

/// Bytes of a key of a table.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a value of a table.
pub const VALUE_BYTES_MAX: usize = 64 << 20;
/// Redis Cluster slots: CRC16(key) mod this.
pub const SLOTS: u16 = 16_384;

/// A writer that has not renewed its lease for so long may be replaced by another, in milliseconds.
pub const LEASE_SOFT_LIMIT_MS: u64 = 60_000;
/// A writer that has not renewed its lease for so long is recovered by the NameNode, in milliseconds.
pub const LEASE_HARD_LIMIT_MS: u64 = 20 * 60_000;
/// How often a writer renews its lease, in milliseconds.
pub const LEASE_RENEW_INTERVAL_MS: u64 = 20_000;

const _: () = assert!(NAME_BYTES_MAX < PATH_BYTES_MAX, "a name fits in a path");
const _: () = assert!(PACKET_BYTES_NATIVE * 2 <= PACKET_BYTES_MAX, "checksums fit beside the data");
const _: () =
    assert!(PACKET_BYTES_NATIVE.is_multiple_of(CHECKSUM_CHUNK_BYTES), "packets hold whole chunks");
const _: () = assert!(
    BLOCK_BYTES_MIN.is_multiple_of(CHECKSUM_CHUNK_BYTES as u64),
    "blocks hold whole chunks"
);
const _: () =
    assert!(BLOCK_BYTES_MIN <= BLOCK_BYTES_DEFAULT && BLOCK_BYTES_DEFAULT <= BLOCK_BYTES_MAX);
const _: () =
    assert!(LEASE_RENEW_INTERVAL_MS * 2 < LEASE_SOFT_LIMIT_MS, "one lost renewal is harmless");
const _: () = assert!(LEASE_SOFT_LIMIT_MS < LEASE_HARD_LIMIT_MS);
