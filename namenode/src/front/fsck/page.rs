//! The page `/fsck`: what Java's `hdfs fsck` asks and prints.
//!
//! The caller is whom the query names (`ugi`, or `user.name`), as everywhere without authentication. The report is
//! streamed while the check goes on, so that its size does not matter, and ends with the line that the client takes
//! its exit code from.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{ConnectInfo, Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use proto::granary::{self, DatanodeAddress};
use proto::{BlockId, Code, Error, FsPath, Result};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use webhdfs::port::Peer;

use super::events::Event;
use super::text::{Shown, Surroundings, Text};
use super::{Mend, Wanted, check, found_block};
use crate::front::access::Method;
use crate::front::node::Node;
use crate::front::volatile::now_ns;
use crate::op::Caller;

/// Who asks if nobody is named, as in HDFS.
const NOBODY: &str = "dr.who";
/// Text is sent on in pieces of about this.
const PIECE_BYTES: usize = 32 << 10;
/// Pieces that wait to be sent.
const PIECES_MAX: usize = 4;
/// Broken blocks in one answer; the client asks again for more.
const BROKEN_MAX: usize = 100;
/// Block ids in one question.
const BLOCK_IDS_MAX: usize = 1_000;

type Answers = HashMap<String, String>;

/// Answers `GET /fsck`.
pub async fn fsck(
    Shared(node): Shared<Arc<Node>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(query): Query<Answers>,
) -> Response {
    let since = Instant::now();
    let from = format!("/{}", peer.remote.ip().to_canonical());
    let answered = answer(&node, &from, &query).await;
    let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    node.volatile.metrics.called(Method::Fsck, answered.is_err(), micros);
    match answered {
        Ok(body) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response(),
        Err(error) => (status_of(&error), format!("{error}\n")).into_response(),
    }
}

fn status_of(error: &Error) -> StatusCode {
    match error.code {
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::InvalidArgument | Code::InvalidPath => StatusCode::BAD_REQUEST,
        Code::Overloaded | Code::SafeMode | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn answer(node: &Arc<Node>, from: &str, query: &Answers) -> Result<Body> {
    let user = query.get("ugi").or_else(|| query.get("user.name"));
    // "user,group,group" was sent by clients before users had proper names.
    let user = user.and_then(|names| names.split(',').next()).filter(|name| !name.is_empty());
    let caller = granary::Caller { user: user.unwrap_or(NOBODY).to_owned(), ..Default::default() };
    let (caller, _) = node.enter(Method::Fsck, Some(caller))?;
    let path = FsPath::parse(query.get("path").map_or("/", String::as_str))?;
    if let Some(ids) = query.get("blockId") {
        return blocks(node, from, &caller, ids).map(Body::from);
    }
    if query.contains_key("listcorruptfileblocks") {
        let after = query.get("startblockafter").map_or("0", String::as_str);
        return broken(node, &caller, &path, after).await.map(Body::from);
    }
    report(node, from, caller, path, query).map(Body::from_stream)
}

/// The report of a check, as a stream of its pieces.
fn report(
    node: &Arc<Node>,
    from: &str,
    caller: Caller,
    path: FsPath,
    query: &Answers,
) -> Result<impl tokio_stream::Stream<Item = std::io::Result<Bytes>> + use<>> {
    let has = |name: &str| query.contains_key(name);
    let shown = Shown {
        files: has("files"),
        blocks: has("blocks"),
        locations: has("locations") || has("replicadetails"),
        racks: has("racks"),
        open: has("openforwrite"),
    };
    let mend = match (has("move"), has("delete")) {
        (_, true) => Mend::Delete,
        (true, false) => Mend::Move,
        (false, false) => Mend::Leave,
    };
    let wanted =
        Wanted { blocks: shown.files && shown.blocks, open: shown.open, mend, ..Wanted::default() };
    let (datanodes, racks) =
        node.volatile.cluster(|cluster, _| (cluster.datanodes.living(), cluster.datanodes.racks()));
    let around = Surroundings {
        pool_id: node.pool_id.clone(),
        replication: node.config.replication,
        replication_min: node.config.replication_min,
        datanodes,
        racks,
    };
    let head = format!(
        "FSCK started by {} (auth:SIMPLE) from {from} for path {path} at {}\n",
        caller.user,
        date(now_ns())
    );
    let events = check(node, caller, path.clone(), wanted)?;
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    tokio::spawn(write(head, path, Text::new(shown, around), events, pieces));
    Ok(ReceiverStream::new(receiver).map(Ok))
}

async fn write(
    mut out: String,
    path: FsPath,
    mut text: Text,
    mut events: mpsc::Receiver<Event>,
    pieces: mpsc::Sender<Bytes>,
) {
    let since = Instant::now();
    let ended = || {
        format!("FSCK ended at {} in {} milliseconds", date(now_ns()), since.elapsed().as_millis())
    };
    while let Some(event) = events.recv().await {
        match event {
            Event::Sums(sums) => {
                text.sums(&sums, &mut out);
                let health = if sums.is_healthy() { "HEALTHY" } else { "CORRUPT" };
                let ended = ended();
                out.push_str(&format!(
                    "{ended}\n\n\nThe filesystem under path '{path}' is {health}"
                ));
            }
            Event::Failed(error) if error.code == Code::NotFound => {
                out.push_str(&format!("\n\nPath '{path}' does not exist"));
            }
            Event::Failed(error) => {
                let ended = ended();
                out.push_str(&format!("{ended}\n{error}\n\n\nFsck on path '{path}' FAILED"));
            }
            event => text.tell(&event, &mut out),
        }
        if out.len() >= PIECE_BYTES && pieces.send(std::mem::take(&mut out).into()).await.is_err() {
            return;
        }
    }
    // Whoever asked may have gone away.
    let _gone = pieces.send(out.into()).await;
}

/// `-list-corruptfileblocks`: the next broken blocks, with the cookie to go on from.
async fn broken(node: &Node, caller: &Caller, path: &FsPath, after: &str) -> Result<String> {
    demand_superuser(caller, "list the broken blocks")?;
    let cookie = after.parse().map_err(|_| {
        Error::new(Code::InvalidArgument, format!("startblockafter {after:?} is no cookie"))
    })?;
    let (found, next) = node.broken_blocks(path, cookie, BROKEN_MAX).await;
    let end = node.log.read(crate::state::State::block_slots_end);
    let mut out = format!("Cookie:\t{}\n", next.unwrap_or(end.max(cookie)));
    for broken in &found {
        out.push_str(&format!("blk_{}\t{}\n", broken.block.0.cast_signed(), broken.path));
    }
    let count = match found.len() {
        0 if cookie == 0 => "no".to_owned(),
        0 => "no more".to_owned(),
        count => count.to_string(),
    };
    out.push_str(&format!("\n\nThe filesystem under path '{path}' has {count} CORRUPT files\n\n"));
    Ok(out)
}

/// `-blockId`: what is known of single blocks.
fn blocks(node: &Node, from: &str, caller: &Caller, ids: &str) -> Result<String> {
    demand_superuser(caller, "look at single blocks")?;
    let started = date(now_ns());
    let mut out =
        format!("FSCK started by {} (auth:SIMPLE) from {from} at {started}\n\n", caller.user);
    for id in ids.split_whitespace().take(BLOCK_IDS_MAX) {
        let number = id.strip_prefix("blk_").unwrap_or(id).split('_').next().unwrap_or(id);
        // Java shows the ids of block groups as negative.
        let number = number.parse::<i64>().map(i64::cast_unsigned).or_else(|_| number.parse());
        let number = BlockId(number.map_err(|_| {
            Error::new(Code::InvalidArgument, format!("Incorrect blockId format: {id}"))
        })?);
        let known = node.log.read(|state| {
            let whole = if number.is_striped() { number.group() } else { number };
            let info = state.block(whole)?;
            let path = state.path_of(info.inode).map_or_else(String::new, |path| path.to_string());
            Some((found_block(node, 0, &info, 0), path))
        });
        let Some((found, path)) = known else {
            out.push_str(&format!("Block {id} does not exist\n"));
            continue;
        };
        let live = found.live;
        out.push_str(&format!(
            "Block Id: {id}\nBlock belongs to: {path}\nNo. of Expected Replica: {}\n\
             No. of live Replica: {live}\nNo. of excess Replica: {}\nNo. of stale Replica: 0\n\
             No. of decommission Replica: 0\nNo. of corrupted Replica: {}\n",
            found.wanted,
            live.saturating_sub(found.wanted),
            if found.damaged { found.nodes.len() } else { 0 }
        ));
        for node in &found.nodes {
            out.push_str(&replica_line(node, found.damaged));
        }
    }
    Ok(out)
}

fn replica_line(node: &DatanodeAddress, damaged: bool) -> String {
    let state = if damaged { "CORRUPT" } else { "HEALTHY" };
    format!("Block replica on datanode/rack: {}{} is {state}\n", node.host, node.rack)
}

fn demand_superuser(caller: &Caller, what: &str) -> Result<()> {
    if caller.superuser {
        return Ok(());
    }
    let message = format!(
        "Access denied for user {}. Superuser privilege is required to {what}",
        caller.user
    );
    Err(Error::new(Code::PermissionDenied, message))
}

/// A time as Java prints it: `Sat Nov 21 15:33:45 UTC 2026`.
fn date(ns: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = ns.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years: years then end with the leap day.
    let since = days + 719_468;
    let (era, of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 2, 0) } else { (month - 10, 1) };
    format!(
        "{} {} {day:02} {:02}:{:02}:{:02} UTC {}",
        DAYS[days.rem_euclid(7) as usize],
        MONTHS[month as usize],
        second / 3_600,
        second / 60 % 60,
        second % 60,
        era * 400 + year + carry
    )
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn a_date_is_written_as_java_does() {
        for (seconds, text) in [
            (0, "Thu Jan 01 00:00:00 UTC 1970"),
            (951_782_400, "Tue Feb 29 00:00:00 UTC 2000"),
            (1_795_275_225, "Sat Nov 21 15:33:45 UTC 2026"),
            (4_107_542_399, "Sun Feb 28 23:59:59 UTC 2100"),
        ] {
            assert_eq!(date(seconds * 1_000_000_000), text);
        }
    }
}
