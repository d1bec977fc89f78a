//! WebHDFS on the NameNode, spoken byte by byte.

use proto::granary::*;

use crate::http::exchange;
use crate::world::*;

/// Status, headers and body of an answer.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

async fn ask(world: &World, method: &str, target: &str) -> Reply {
    let request = format!(
        "{method} /webhdfs/v1{target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let text = exchange(world.handle().http_addr(), request.as_bytes()).await;
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    Reply { status, head: head.to_lowercase(), body: unchunked(head, body) }
}

/// The body without the marks of chunks.
fn unchunked(head: &str, body: &str) -> String {
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut rest, mut whole) = (body, String::new());
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("the length of a chunk");
        if length == 0 {
            break;
        }
        whole.push_str(&after[..length]);
        rest = &after[length + 2..];
    }
    whole
}

/// Asks as the superuser for something that must succeed.
async fn ok(world: &World, method: &str, target: &str) -> Reply {
    let mark = if target.contains('?') { '&' } else { '?' };
    let reply = ask(world, method, &format!("{target}{mark}user.name=boss")).await;
    assert!(reply.status < 400, "{method} {target}: {} {}", reply.status, reply.body);
    reply
}

#[track_caller]
fn refused(reply: &Reply, status: u16, exception: &str) {
    assert_eq!(reply.status, status, "{}", reply.body);
    let named = format!("\"exception\":\"{exception}\"");
    assert!(reply.body.contains(&named), "{exception} in {}", reply.body);
}

/// A DataNode with an HTTP port.
async fn with_http(world: &World, uuid: &str, port: u32) -> Datanode {
    let mut message = register(uuid, port);
    message.address.as_mut().unwrap().http_port = 9_000 + port;
    let node = Datanode::attach_as(world, message).await.unwrap();
    node.beat().await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_made_looked_at_renamed_and_deleted() {
    let world = World::new().await;
    assert_eq!(ok(&world, "PUT", "/a/b?op=MKDIRS&permission=750").await.body, "{\"boolean\":true}");
    let status = ok(&world, "GET", "/a/b?op=GETFILESTATUS").await;
    for part in ["\"type\":\"DIRECTORY\"", "\"permission\":\"750\"", "\"owner\":\"boss\""] {
        assert!(status.body.contains(part), "{part} in {}", status.body);
    }
    assert!(status.head.contains("content-type: application/json"), "{}", status.head);
    assert_eq!(
        ok(&world, "PUT", "/a/b?op=RENAME&destination=/a/c").await.body,
        "{\"boolean\":true}"
    );
    assert!(ok(&world, "GET", "/a?op=LISTSTATUS").await.body.contains("\"pathSuffix\":\"c\""));
    let gone = ask(&world, "DELETE", "/a?op=DELETE&user.name=boss").await;
    refused(&gone, 403, "PathIsNotEmptyDirectoryException");
    assert_eq!(
        ok(&world, "DELETE", "/a?op=DELETE&recursive=true").await.body,
        "{\"boolean\":true}"
    );
    refused(&ask(&world, "GET", "/a?op=GETFILESTATUS").await, 404, "FileNotFoundException");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_many_pages_is_listed_whole_and_in_order() {
    let mut world = World::new().await;
    for number in 0..2_100 {
        world.mkdir(&format!("/many/{number:05}")).await;
    }
    let body = ok(&world, "GET", "/many?op=LISTSTATUS").await.body;
    let suffixes: Vec<&str> =
        body.split("\"pathSuffix\":\"").skip(1).map(|rest| &rest[..5]).collect();
    assert_eq!(suffixes.len(), 2_100);
    assert!(suffixes.is_sorted());
    let page = ok(&world, "GET", "/many?op=LISTSTATUS_BATCH&startAfter=00999").await.body;
    assert!(page.contains("\"remainingEntries\":100"), "{}", &page[page.len() - 100..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_are_sent_to_the_datanode_that_has_them() {
    let mut world = World::new().await;
    let first = with_http(&world, "dn1", 1).await;
    let _second = with_http(&world, "dn2", 2).await;
    world.until("two nodes", |status| status.datanodes.len() == 2).await;
    world.create("/a b;c").await;
    let located = world.add_block("/a b;c", None).await;
    let block = Block { length: 9, ..located.block.unwrap() };
    first.report(block, ReplicaState::Finalized).await;
    assert!(world.complete("/a b;c", Some(block)).await);
    let reply = ok(&world, "GET", "/a%20b;c?op=OPEN&offset=3&length=2").await;
    assert_eq!(reply.status, 307);
    let rpc = world.handle().hadoop_rpc_addr();
    let location = format!(
        "location: http://10.9.9.1:9001/webhdfs/v1/a%20b%3bc?op=open&user.name=boss\
         &namenoderpcaddress={rpc}&offset=3&length=2\r\n"
    );
    assert!(reply.head.contains(&location), "{location} in {}", reply.head);
    let reply = ok(&world, "GET", "/a%20b;c?op=GETFILECHECKSUM&noredirect=true").await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.starts_with("{\"Location\":\"http://10.9.9.1:9001/"), "{}", reply.body);
    assert!(!reply.body.contains("noredirect"), "{}", reply.body);
    // The node that has it is not wanted: any other will do.
    let reply = ok(&world, "GET", "/a%20b;c?op=OPEN&excludedatanodes=10.9.9.1:1001").await;
    assert!(reply.head.contains("location: http://10.9.9.2:9002/"), "{}", reply.head);
    let beyond = ask(&world, "GET", "/a%20b;c?op=OPEN&offset=9&user.name=boss").await;
    refused(&beyond, 403, "IOException");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_created_where_a_block_could_go() {
    let mut world = World::new().await;
    // No DataNode is there yet, but may be on its way.
    let none = ask(&world, "PUT", "/f?op=CREATE&user.name=boss").await;
    refused(&none, 403, "RetriableException");
    let _node = with_http(&world, "dn1", 1).await;
    world.until("a node", |status| status.datanodes.len() == 1).await;
    let reply = ok(&world, "PUT", "/f?op=CREATE&permission=600&replication=1").await;
    assert_eq!(reply.status, 307);
    assert!(reply.head.contains("&permission=600&replication=1"), "{}", reply.head);
    assert!(world.stat("/f").await.is_none(), "the NameNode itself makes no file");
    world.create("/f").await;
    let there = ask(&world, "PUT", "/f?op=CREATE&user.name=boss").await;
    refused(&there, 403, "FileAlreadyExistsException");
    assert_eq!(ok(&world, "PUT", "/f?op=CREATE&overwrite=true").await.status, 307);
    world.mkdir("/d").await;
    let folder = ask(&world, "PUT", "/d?op=CREATE&overwrite=true&user.name=boss").await;
    refused(&folder, 403, "FileAlreadyExistsException");
}

#[tokio::test(flavor = "multi_thread")]
async fn safe_mode_and_permissions_are_told_before_a_redirect() {
    let mut world = World::new().await;
    let node = with_http(&world, "dn1", 1).await;
    world.write(&node, "/private", 9).await;
    let message = SetPermissionRequest { caller: boss(), path: "/private".into(), mode: 0o600 };
    world.fs.set_permission(message).await.unwrap();
    let denied = ask(&world, "GET", "/private?op=OPEN&user.name=ann").await;
    refused(&denied, 403, "AccessControlException");
    // Who does not say who he is may do no more than others.
    refused(&ask(&world, "GET", "/private?op=OPEN").await, 403, "AccessControlException");
    let action = set_safe_mode_request::Action::Enter as i32;
    world.admin().set_safe_mode(SetSafeModeRequest { caller: boss(), action }).await.unwrap();
    for (method, target) in [
        ("PUT", "/f?op=CREATE"),
        ("POST", "/private?op=APPEND"),
        ("PUT", "/d?op=MKDIRS"),
        ("DELETE", "/private?op=DELETE"),
    ] {
        let reply = ask(&world, method, &format!("{target}&user.name=boss")).await;
        refused(&reply, 403, "SafeModeException");
    }
    assert_eq!(ok(&world, "GET", "/private?op=OPEN").await.status, 307);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_and_harms_nobody() {
    let world = World::new().await;
    for (method, target, status, exception) in [
        ("GET", "/", 400, "UnsupportedOperationException"),
        ("GET", "/?op=MKDIRS", 400, "IllegalArgumentException"),
        ("PUT", "/x?op=OPEN", 400, "IllegalArgumentException"),
        ("PATCH", "/x?op=OPEN", 400, "UnsupportedOperationException"),
        ("GET", "/%zz?op=GETFILESTATUS", 400, "IllegalArgumentException"),
        ("GET", "/%ff?op=GETFILESTATUS", 400, "IllegalArgumentException"),
        ("GET", "/a/../b?op=GETFILESTATUS", 400, "InvalidPathException"),
        ("GET", "/?op=GETFILESTATUS&user.name=a%20b", 400, "IllegalArgumentException"),
        ("GET", "/?op=GETFILESTATUS&user.name=ann&doas=boss", 403, "SecurityException"),
        ("PUT", "/x?op=RENAME&destination=y", 400, "IllegalArgumentException"),
        ("PUT", "/x?op=SETPERMISSION&permission=rwx", 400, "IllegalArgumentException"),
        ("PUT", "/x?op=MODIFYACLENTRIES&aclspec=nonsense", 400, "HadoopIllegalArgumentException"),
        ("PUT", "/x?op=SETXATTR&xattr.name=nonsense", 400, "HadoopIllegalArgumentException"),
        ("PUT", "/x?op=RENEWDELEGATIONTOKEN&token=x", 400, "UnsupportedOperationException"),
    ] {
        let reply = ask(&world, method, target).await;
        assert_eq!(reply.status, status, "{method} {target}: {}", reply.body);
        refused(&reply, status, exception);
    }
    let endless = format!("GET /webhdfs/v1/?op=LISTSTATUS&x={} HTTP/1.1\r\n", "y".repeat(1 << 20));
    let answer = exchange(world.handle().http_addr(), endless.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(ok(&world, "GET", "/?op=LISTSTATUS").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_wants_does_not_hide_the_answer() {
    let world = World::new().await;
    let mut request = b"PUT /webhdfs/v1/d?op=MKDIRS&user.name=boss HTTP/1.1\r\nHost: x\r\n\
                        Content-Length: 3000000\r\nConnection: close\r\n\r\n"
        .to_vec();
    request.resize(request.len() + 3_000_000, b'x');
    let answer = exchange(world.handle().http_addr(), &request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("{\"boolean\":true}"), "{answer}");
}
