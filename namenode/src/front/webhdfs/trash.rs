//! GETTRASHROOT and GETTRASHROOTS: where the trash of users is, by Hadoop's rule `/user/<name>/.Trash`.
//!
//! The NameNode keeps no trash: clients move there what they delete. Looks by the client protocol, in the name of who asks,
//! page by page; what he may not see is not told.

use ::webhdfs::Result;
use bytes::Bytes;
use proto::hadoop::hdfs::hdfs_file_status_proto::FileType;
use proto::hadoop::hdfs::*;
use serde_json::{Value, json};

use super::Ask;

/// Above the users' folders.
const HOMES: &str = "/user";

/// The folder of who asks.
pub(super) fn home(ask: &Ask) -> String {
    format!("{HOMES}/{}", ask.identity.user)
}

/// GETTRASHROOT: where it would be.
pub(super) fn root(ask: &Ask) -> Value {
    json!({"Path": trash_in(&home(ask))})
}

/// GETTRASHROOTS: what there is, of who asks or of all users. As in HDFS, what he may not look at is left out.
pub(super) async fn roots(ask: &Ask) -> Result<Value> {
    let mut found = Vec::new();
    if !ask.params.boolean("allusers", false)? {
        found.extend(status(ask, &home(ask)).await.unwrap_or(None));
        return Ok(json!({"Paths": found}));
    }
    let mut start_after = Bytes::new();
    loop {
        let request =
            GetListingRequestProto { src: HOMES.to_owned(), start_after, need_location: false };
        let reply: Result<GetListingResponseProto> = ask.call("getListing", request).await;
        let Some(page) = reply.ok().and_then(|reply| reply.dir_list) else { break };
        for entry in &page.partial_listing {
            let home = format!("{HOMES}/{}", String::from_utf8_lossy(&entry.path));
            found.extend(status(ask, &home).await.unwrap_or(None));
        }
        let last = page.partial_listing.last().map(|entry| entry.path.clone());
        match last.filter(|_| page.remaining_entries > 0) {
            Some(last) => start_after = last,
            None => break,
        }
    }
    Ok(json!({"Paths": found}))
}

fn trash_in(home: &str) -> String {
    format!("{home}/.Trash")
}

/// The trash in a home, under the names that FileStatus has in JSON.
async fn status(ask: &Ask, home: &str) -> Result<Option<Value>> {
    let request = GetFileInfoRequestProto { src: trash_in(home) };
    let reply: GetFileInfoResponseProto = ask.call("getFileInfo", request).await?;
    Ok(reply.fs.map(|status| {
        json!({
            "path": trash_in(home),
            "length": status.length,
            "isdir": status.file_type() == FileType::IsDir,
            "block_replication": status.block_replication(),
            "blocksize": status.blocksize(),
            "modification_time": status.modification_time,
            "access_time": status.access_time,
            "permission": format!("{:o}", status.permission.perm),
            "owner": status.owner,
            "group": status.group,
        })
    }))
}
