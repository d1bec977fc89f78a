//! WebHDFS on real processes, spoken byte by byte: bodies of every kind, and clients that hang up.

use std::time::Duration;

use client::Fs;
use proto::Code;
use tests::cluster::{Cluster, Options, path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const WAIT: Duration = Duration::from_secs(60);

/// Status, headers in lower case, and body of an answer.
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// Sends a request, and reads until the server closes.
async fn send(addr: &str, request: &[u8]) -> Reply {
    let talked = async {
        let mut stream = TcpStream::connect(addr).await.expect("connect");
        stream.write_all(request).await.expect("send");
        read(&mut stream).await
    };
    tokio::time::timeout(WAIT, talked).await.expect("an answer in time")
}

async fn read(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("read");
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    Reply { status, head, body: bytes[end..].to_vec() }
}

/// The body of a page.
pub(crate) async fn get(addr: &str, target: &str) -> String {
    let reply = send(addr, &sized("GET", target, b"")).await;
    String::from_utf8_lossy(&reply.body).into_owned()
}

fn request(method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn sized(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    request(method, target, &format!("Content-Length: {}", body.len()), body)
}

/// Where the NameNode sends this request: address and target.
async fn datanode(cluster: &Cluster, method: &str, target: &str) -> (String, String) {
    let target = format!("/webhdfs/v1{target}&user.name=ann");
    let reply = send(cluster.namenode().told("http"), &sized(method, &target, b"")).await;
    assert_eq!(reply.status, 307, "{}{}", reply.head, String::from_utf8_lossy(&reply.body));
    let line = reply.head.lines().find_map(|line| line.strip_prefix("location: http://"));
    let (addr, rest) = line.expect("a location").split_once('/').expect("a path");
    // The head was put into lower case, which changes nothing that these tests name, but for the operation.
    (addr.to_owned(), format!("/{rest}"))
}

async fn start() -> (Cluster, Fs) {
    let cluster = Cluster::start(Options { datanodes: 2, ..Options::default() }).await;
    let fs = cluster.fs().await;
    fs.mkdirs(&path("/w"), 0o777).await.expect("mkdirs");
    (cluster, fs)
}

async fn content(fs: &Fs, name: &str) -> Vec<u8> {
    fs.read_all(&path(name), 64 << 20).await.expect("read").to_vec()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 31) ^ (i >> 9)) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_each_kind_become_files_and_are_read_back() {
    let (cluster, fs) = start().await;
    let data = pattern(3_000_000);
    let (addr, target) = datanode(&cluster, "PUT", "/w/sized?op=CREATE&permission=640").await;
    let reply = send(&addr, &sized("PUT", &target, &data)).await;
    assert_eq!(reply.status, 201, "{}", reply.head);
    assert!(reply.head.contains("location: hdfs://") && reply.head.contains("/w/sized\r\n"));
    assert!(content(&fs, "/w/sized").await == data);
    let status = fs.status(&path("/w/sized")).await.expect("status");
    assert_eq!((status.mode, status.owner.as_str()), (0o640, "ann"));

    let (addr, target) = datanode(&cluster, "PUT", "/w/chunked?op=CREATE").await;
    let mut body = Vec::new();
    for part in data.chunks(777_777) {
        body.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let reply = send(&addr, &request("PUT", &target, "Transfer-Encoding: chunked", &body)).await;
    assert_eq!(reply.status, 201, "{}", reply.head);
    assert!(content(&fs, "/w/chunked").await == data);

    let (addr, target) = datanode(&cluster, "POST", "/w/sized?op=APPEND").await;
    assert_eq!(send(&addr, &sized("POST", &target, b"tail")).await.status, 200);
    let (addr, target) = datanode(&cluster, "GET", "/w/sized?op=OPEN&offset=2999998").await;
    let reply = send(&addr, &sized("GET", &target, b"")).await;
    assert_eq!((reply.status, &reply.body[..]), (200, &[&data[2_999_998..], b"tail"].concat()[..]));
    assert!(reply.head.contains("content-length: 6\r\n"), "{}", reply.head);
    let (addr, target) =
        datanode(&cluster, "GET", "/w/chunked?op=OPEN&offset=5&length=2500000").await;
    assert!(send(&addr, &sized("GET", &target, b"")).await.body == data[5..2_500_005]);

    // By its inode's number, which DataNodes do not know: they are sent its path.
    let inode = fs.status(&path("/w/sized")).await.expect("status").inode;
    let by_inode = format!("/.reserved/.inodes/{inode}?op=OPEN&offset=2999999");
    let (addr, target) = datanode(&cluster, "GET", &by_inode).await;
    assert_eq!(&send(&addr, &sized("GET", &target, b"")).await.body[1..], b"tail");

    let (addr, target) = datanode(&cluster, "GET", "/w/chunked?op=GETFILECHECKSUM").await;
    let reply = send(&addr, &sized("GET", &target, b"")).await;
    let sum = fs.checksum(&path("/w/chunked")).await.expect("checksum");
    let hex: String = sum.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = format!(
        "{{\"FileChecksum\":{{\"algorithm\":\"MD5-of-0MD5-of-512CRC32C\",\"bytes\":\"{hex}\",\"length\":28}}}}"
    );
    assert_eq!(String::from_utf8_lossy(&reply.body), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_no_file_and_no_lease() {
    let (cluster, fs) = start().await;
    for (name, headers) in
        [("/w/a", "Content-Length: 9000000"), ("/w/b", "Transfer-Encoding: chunked")]
    {
        let (addr, target) = datanode(&cluster, "PUT", &format!("{name}?op=CREATE")).await;
        let body = [b"400000\r\n".to_vec(), pattern(2_000_000)].concat();
        let mut stream = TcpStream::connect(&addr).await.expect("connect");
        stream.write_all(&request("PUT", &target, headers, &body)).await.expect("send");
        tests::wait::until("the upload begins", WAIT, async || {
            fs.exists(&path(name)).await.ok()?.then_some(())
        })
        .await;
        drop(stream);
        tests::wait::until("the upload is gone", WAIT, async || {
            (!fs.exists(&path(name)).await.ok()?).then_some(())
        })
        .await;
        fs.for_user("ann").write_all(&path(name), b"another").await.expect("the name is free");
    }
    // What was appended to keeps what it had, and can be appended to again.
    let (addr, target) = datanode(&cluster, "POST", "/w/a?op=APPEND").await;
    let mut stream = TcpStream::connect(&addr).await.expect("connect");
    let cut = request("POST", &target, "Content-Length: 100", b"!");
    stream.write_all(&cut).await.expect("send");
    tests::wait::until("the append begins", WAIT, async || {
        fs.status(&path("/w/a")).await.ok()?.open_for_write.then_some(())
    })
    .await;
    drop(stream);
    tests::wait::until("the file is closed", WAIT, async || {
        (!fs.status(&path("/w/a")).await.ok()?.open_for_write).then_some(())
    })
    .await;
    assert!(content(&fs, "/w/a").await.starts_with(b"another"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_only_when_it_is_wanted() {
    let (cluster, fs) = start().await;
    let (addr, target) = datanode(&cluster, "PUT", "/w/f?op=CREATE").await;
    let head = request("PUT", &target, "Content-Length: 5\r\nExpect: 100-continue", b"");
    let mut stream = TcpStream::connect(&addr).await.expect("connect");
    stream.write_all(&head).await.expect("send");
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.expect("read");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"12345").await.expect("send");
    assert_eq!(read(&mut stream).await.status, 201);
    assert_eq!(content(&fs, "/w/f").await, b"12345");
    // The file is there now: the body is not even asked for.
    let reply = send(&addr, &head).await;
    assert_eq!(reply.status, 403, "{}", reply.head);
    assert!(String::from_utf8_lossy(&reply.body).contains("FileAlreadyExistsException"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_refuses_what_is_not_its_own() {
    let (cluster, fs) = start().await;
    fs.write_all(&path("/w/f"), b"12345").await.expect("write");
    fs.set_permission(&path("/w/f"), 0o600).await.expect("chmod");
    let (addr, target) = datanode(&cluster, "PUT", "/w/new?op=CREATE").await;
    let at = |name: &str, op: &str| target.replace("/w/new", name).replace("op=create", op);
    let exchanges = [
        ("GET", at("/w/f", "op=OPEN"), 403, "AccessControlException"),
        ("GET", at("/w/none", "op=OPEN"), 404, "FileNotFoundException"),
        ("GET", at("/w", "op=OPEN"), 404, "FileNotFoundException"),
        ("GET", at("/w/f", "op=MKDIRS"), 400, "IllegalArgumentException"),
        ("PUT", at("/w/f", "op=CREATE"), 403, "FileAlreadyExistsException"),
        ("PUT", at("/x/y", "op=CREATE"), 403, "AccessControlException"),
        ("POST", at("/w/f", "op=APPEND"), 403, "AccessControlException"),
        ("GET", at("/w/f", "op=OPEN&offset=x"), 400, "IllegalArgumentException"),
        (
            "GET",
            at("/w/f", "op=OPEN").replace("127.0.0.1", "127.0.0.2"),
            400,
            "IllegalArgumentException",
        ),
        ("GET", at("/w/%zz", "op=OPEN"), 400, "IllegalArgumentException"),
    ];
    for (method, target, status, exception) in exchanges {
        let reply = send(&addr, &sized(method, &target, b"")).await;
        let body = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status, status, "{method} {target}: {body}");
        assert!(
            body.contains(&format!("\"exception\":\"{exception}\"")),
            "{method} {target}: {body}"
        );
    }
    let error = fs.status(&path("/x")).await.expect_err("nothing was made");
    assert_eq!(error.code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_transfers_run_as_may_and_no_more() {
    let options = Options {
        datanodes: 1,
        datanode: "webhdfs_transfers_max = 1\n".into(),
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let fs = cluster.fs().await;
    fs.mkdirs(&path("/w"), 0o777).await.expect("mkdirs");
    let (addr, target) = datanode(&cluster, "PUT", "/w/slow?op=CREATE").await;
    let mut slow = TcpStream::connect(&addr).await.expect("connect");
    slow.write_all(&request("PUT", &target, "Content-Length: 2", b"1")).await.expect("send");
    tests::wait::until("the slow one begins", WAIT, async || {
        fs.exists(&path("/w/slow")).await.ok()?.then_some(())
    })
    .await;
    let (_, other) = datanode(&cluster, "PUT", "/w/other?op=CREATE").await;
    let reply = send(&addr, &sized("PUT", &other, b"x")).await;
    assert_eq!(reply.status, 503, "{}", reply.head);
    slow.write_all(b"2").await.expect("send");
    assert_eq!(read(&mut slow).await.status, 201);
    assert_eq!(send(&addr, &sized("PUT", &other, b"x")).await.status, 201);
    assert_eq!(content(&fs, "/w/slow").await, b"12");
}
