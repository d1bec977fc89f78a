//! The Unix socket: the same requests as over TCP, and op 87, which hands over a replica's open files.
//!
//! Only finished replicas are handed over: their files change no more, except that an append moves on from them; what
//! was there stays there, and a reader that meets the changed checksum of the last chunk comes back by the network.

use std::sync::Arc;

use proto::hadoop::hdfs::OpRequestShortCircuitAccessProto;
use proto::{Code, Error, Result};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::watch;
use transfer::op::Request;
use transfer::short_circuit;

use super::{Active, After, DataServer, READ_BUFFER_BYTES, Wire, block_of, stopped};
use crate::store::ReplicaReader;

/// Serves one connection.
pub async fn serve(server: Arc<DataServer>, stream: UnixStream, stop: watch::Receiver<bool>) {
    let (reader, writer) = stream.into_split();
    let reader = BufReader::with_capacity(READ_BUFFER_BYTES, reader);
    let mut wire = Wire { reader, writer };
    loop {
        let Some(request) = server.next_request(&mut wire, &stop).await else { return };
        let Request::ShortCircuitFds(request) = request else {
            let after = tokio::select! {
                after = server.serve_request(&mut wire, request) => after,
                () = stopped(stop.clone()) => return,
            };
            if after == After::Close {
                return;
            }
            continue;
        };
        // The descriptors travel over the whole socket. Nothing was read ahead: the client waits for the reply.
        let mut stream = wire
            .reader
            .into_inner()
            .reunite(wire.writer)
            .expect("both halves are of this connection");
        let handing = hand_over(&server, &mut stream, request);
        let result = tokio::select! {
            result = handing => result,
            () = stopped(stop.clone()) => return,
        };
        if let Err(error) = result {
            tracing::debug!(%error, "open files could not be handed over");
            return;
        }
        let (reader, writer) = stream.into_split();
        wire = Wire { reader: BufReader::with_capacity(READ_BUFFER_BYTES, reader), writer };
    }
}

async fn hand_over(
    server: &DataServer,
    stream: &mut UnixStream,
    request: OpRequestShortCircuitAccessProto,
) -> Result<()> {
    let _active = Active::begin(&server.counters);
    match open(server, &request).await {
        Ok(reader) => {
            let (data, meta) = reader.files();
            short_circuit::send_files(stream, data, meta).await
        }
        Err(error) => short_circuit::send_error(stream, &error).await,
    }
}

async fn open(
    server: &DataServer,
    request: &OpRequestShortCircuitAccessProto,
) -> Result<ReplicaReader> {
    let (block, stamp) = block_of(&server.store, &request.header.block)?;
    let store = server.store.clone();
    let pool = store.pool_of(block, stamp)?;
    let reader = pool.run(move || store.open_reader(block, stamp)).await?;
    if !reader.is_finalized() {
        return Err(Error::new(
            Code::Unsupported,
            format!("{block} is still written: read it through the DataNode"),
        ));
    }
    Ok(reader)
}
