//! Open files handed over a Unix socket, so that a client on the DataNode's machine reads without the DataNode.
//!
//! The client sends op 87 ([`Request::ShortCircuitFds`]) on the DataNode's Unix socket; the DataNode answers with a
//! reply and, if that is SUCCESS, one byte that carries two file descriptors (SCM_RIGHTS): data, then checksums. What
//! holds: exactly two descriptors are accepted, and any others that come along are closed; nothing is read beyond the
//! byte, so that the next request may follow on the same connection. The files are open for reading only: the
//! DataNode's task. No shared memory is used.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use proto::granary::Block;
use proto::hadoop::hdfs::{OpRequestShortCircuitAccessProto, StatusProto};
use proto::{Code, Error, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::connection::{Timeouts, within};
use crate::op::{self, Request};

/// The version of this exchange that is spoken (HDFS's number).
pub const ACCESS_VERSION: u32 = 1;
/// Descriptors that are received at most; those beyond two are closed.
const FDS_MAX: usize = 8;

/// The open files of a replica.
#[derive(Debug)]
pub struct ReplicaFiles {
    /// The block's bytes.
    pub data: File,
    /// The checksum file: see [`crate::meta`].
    pub meta: File,
}

/// Asks the DataNode behind the Unix socket `socket` for the open files of a replica.
///
/// `NotFound` if there is no such socket or replica; `Unavailable` or `Timeout` if nobody answers there.
pub async fn request(
    socket: &Path,
    pool_id: &str,
    block: &Block,
    timeouts: &Timeouts,
) -> Result<ReplicaFiles> {
    let what = format!("short-circuit read of blk_{} through {}", block.id, socket.display());
    within(timeouts.connect_ms, what, async {
        let mut stream =
            UnixStream::connect(socket).await.map_err(|error| Error::io("connect", &error))?;
        request_on(&mut stream, pool_id, block).await
    })
    .await
}

/// Asks over a connected socket.
pub async fn request_on(
    stream: &mut UnixStream,
    pool_id: &str,
    block: &Block,
) -> Result<ReplicaFiles> {
    let message = Request::ShortCircuitFds(OpRequestShortCircuitAccessProto {
        header: op::base_header(pool_id, block),
        max_version: ACCESS_VERSION,
        slot_id: None,
        supports_receipt_verification: None,
    });
    stream.write_all(&message.encode()).await.map_err(|e| Error::io("send the request", &e))?;
    let reply = op::read_response(stream).await?;
    op::check(&reply)?;
    receive_files(stream).await
}

/// The DataNode's answer: SUCCESS and the two files.
pub async fn send_files(stream: &mut UnixStream, data: &File, meta: &File) -> Result<()> {
    let mut reply = op::response(StatusProto::Success);
    reply.short_circuit_access_version = Some(ACCESS_VERSION);
    let reply = op::encode_delimited(&reply);
    stream.write_all(&reply).await.map_err(|e| Error::io("send the reply", &e))?;
    stream
        .async_io(Interest::WRITABLE, || send_fds(stream.as_fd(), [data.as_fd(), meta.as_fd()]))
        .await
        .map_err(|error| Error::io("send file descriptors", &error))
}

/// The DataNode's answer: why not.
pub async fn send_error(stream: &mut UnixStream, error: &Error) -> Result<()> {
    let reply = op::encode_delimited(&op::error_response(error));
    stream.write_all(&reply).await.map_err(|e| Error::io("send the reply", &e))
}

fn send_fds(socket: BorrowedFd<'_>, fds: [BorrowedFd<'_>; 2]) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "the space is for two");
    let sent = sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    assert_eq!(sent, 1, "a byte is sent whole");
    Ok(())
}

async fn receive_files(stream: &UnixStream) -> Result<ReplicaFiles> {
    let fds = stream
        .async_io(Interest::READABLE, || receive_fds(stream.as_fd()))
        .await
        .map_err(|error| Error::io("receive file descriptors", &error))?;
    let count = fds.len();
    let [data, meta] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| {
        Error::new(Code::Incompatible, format!("{count} file descriptors, expected 2"))
    })?;
    Ok(ReplicaFiles { data: File::from(data), meta: File::from(meta) })
}

fn receive_fds(socket: BorrowedFd<'_>) -> std::io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::with_capacity(2);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(fds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file.rewind().unwrap();
        file
    }

    fn block() -> Block {
        Block { id: 7, generation_stamp: 1001, length: 4 }
    }

    async fn asked(stream: &mut UnixStream) -> u64 {
        match op::read_request(stream).await.unwrap().unwrap() {
            Request::ShortCircuitFds(m) => m.header.block.block_id,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn two_open_files_cross_the_socket_and_the_next_request_may_follow() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let serve = async {
            for round in 0..2u8 {
                assert_eq!(asked(&mut server).await, 7);
                let (data, meta) = (file(&[b'd', round]), file(&[b'm', round]));
                send_files(&mut server, &data, &meta).await.unwrap();
            }
        };
        let ask = async {
            for round in 0..2u8 {
                let files = request_on(&mut client, "BP", &block()).await.unwrap();
                for (mut file, letter) in [(files.data, b'd'), (files.meta, b'm')] {
                    let mut text = Vec::new();
                    file.read_to_end(&mut text).unwrap();
                    assert_eq!(text, [letter, round]);
                }
            }
        };
        tokio::join!(serve, ask);
    }

    #[tokio::test]
    async fn a_refusal_reaches_the_client_as_it_was() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let sent = Error::new(Code::NotFound, "blk_7 is not here");
        let serve = async {
            asked(&mut server).await;
            send_error(&mut server, &sent).await.unwrap();
        };
        let block = block();
        let ((), answer) = tokio::join!(serve, request_on(&mut client, "BP", &block));
        assert_eq!(answer.unwrap_err(), sent);
    }

    #[tokio::test]
    async fn a_success_without_descriptors_is_an_error() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let serve = async {
            asked(&mut server).await;
            let reply = op::encode_delimited(&op::response(StatusProto::Success));
            server.write_all(&reply).await.unwrap();
            server.write_all(&[0]).await.unwrap();
        };
        let block = block();
        let ((), answer) = tokio::join!(serve, request_on(&mut client, "BP", &block));
        assert_eq!(answer.unwrap_err().code, Code::Incompatible);
    }

    #[tokio::test]
    async fn a_missing_socket_is_told_as_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("none.sock");
        let error = request(&socket, "BP", &block(), &Timeouts::default()).await.unwrap_err();
        assert_eq!(error.code, Code::NotFound);
        assert!(error.message.contains("none.sock"), "{error}");
    }
}
