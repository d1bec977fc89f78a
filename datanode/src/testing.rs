//! What several tests use: stores in temporary folders, blocks written and read without a network, crash images.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proto::{BlockId, GenerationStamp, Result};
use transfer::{Checksum, Packet, PacketHeader, SealedPacket};

use crate::config::Config;
use crate::files::Wrote;
use crate::store::{LoadSummary, Purpose, Store, WriteSession};

/// Settings of a DataNode with this volume, free ports, no reserve, and a NameNode that is not there.
pub fn config(volume: &Path) -> Config {
    Config {
        namenode: "127.0.0.1:1".into(),
        volumes: vec![volume.to_owned()],
        data_addr: "127.0.0.1:0".into(),
        control_addr: "127.0.0.1:0".into(),
        ipc_addr: "127.0.0.1:0".into(),
        http_addr: "127.0.0.1:0".into(),
        reserved_bytes: 0,
        stall_timeout_ms: 5_000,
        takeover_timeout_ms: 5_000,
        visible_wait_ms: 0,
        index_interval_ms: 3_600_000,
        ..Config::default()
    }
}

/// Opens a store on this volume.
pub fn open(volume: &Path) -> (Arc<Store>, LoadSummary) {
    Store::open(&config(volume)).unwrap()
}

/// Bytes that differ from place to place and from seed to seed.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let byte = |at: usize| {
        let mixed = (at as u64 ^ (seed << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as u8
    };
    (0..length).map(byte).collect()
}

/// A packet as it is received.
pub fn packet(offset: u64, data: &[u8], seqno: i64, sync: bool) -> Packet {
    let header = PacketHeader { offset_in_block: offset, seqno, last: false, data_len: 0, sync };
    received(SealedPacket::new(header, Checksum::NATIVE, Bytes::copy_from_slice(data)))
}

/// What comes out at the other end of a connection.
pub fn received(sealed: SealedPacket) -> Packet {
    let mut frame = BytesMut::from(&sealed.head[..]);
    frame.extend_from_slice(&sealed.data);
    Packet::decode(frame.freeze()).unwrap()
}

/// Hands bytes to a session and waits until they are written. They count as acknowledged.
pub async fn write(session: &WriteSession, offset: u64, data: &[u8], sync: bool) -> Result<Wrote> {
    let run = session.write(vec![packet(offset, data, 0, sync)], Checksum::NATIVE).await?;
    let run = run.await.unwrap();
    let wrote = match run.failed {
        Some(error) => return Err(error),
        None => run.wrote[0],
    };
    session.replica().acked(wrote);
    Ok(wrote)
}

/// Writes and finishes a block.
pub async fn write_block(store: &Arc<Store>, block: u64, stamp: u64, data: &[u8]) -> Result<()> {
    let stamp = GenerationStamp(stamp);
    let purpose = Purpose::Create { stamp, bytes: data.len() as u64, checksum: Checksum::NATIVE };
    let session = store.begin_write(BlockId(block), purpose).await?;
    write(&session, 0, data, false).await?;
    session.finish().await?.await.unwrap()?;
    Ok(())
}

/// Reads all that is visible of a block and verifies it as a client would.
pub fn read_block(store: &Arc<Store>, block: u64, stamp: u64) -> Result<Vec<u8>> {
    let reader = store.open_reader(BlockId(block), GenerationStamp(stamp))?;
    let mut data = vec![0; reader.length() as usize];
    let mut sums = Vec::new();
    reader.read(0, &mut data, &mut sums)?;
    Checksum::NATIVE
        .verify(&data, &sums)
        .map_err(|mismatch| mismatch.into_error(format_args!("blk_{block}"), 0))?;
    Ok(data)
}

/// Copies a folder as it is now: what a killed process leaves.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let (source, target) = (item.path(), to.join(item.file_name()));
        if item.file_type().unwrap().is_dir() {
            copy_tree(&source, &target);
        } else if item.file_type().unwrap().is_file() {
            std::fs::copy(&source, &target).unwrap();
        }
    }
}

/// Waits until `done`, or panics after ten seconds.
pub async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
