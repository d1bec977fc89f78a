//! Our client: against our port, and against servers that do not behave.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ipc::RemoteError;
use ipc::request::Method;
use ipc::{CallError, Client, ClientSettings, Identity, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::port::{DEADLINE, ID, PROTOCOL, Port, Raw};

fn settings() -> ClientSettings {
    ClientSettings {
        identity: Identity { user: "alice".into(), real_user: None },
        client_id: ID,
        protocol: PROTOCOL.into(),
        ..ClientSettings::default()
    }
}

fn method(name: &str) -> Method<'_> {
    Method { protocol: PROTOCOL, version: 1, name }
}

async fn echo(client: &Client, name: &str, body: &[u8]) -> Result<Vec<u8>, CallError> {
    let (method, body) = (method(name), Raw(body.to_vec()));
    tokio::time::timeout(DEADLINE, client.call(&method, &body)).await.unwrap().map(Vec::from)
}

/// A client of a server that is only a socket.
async fn with_socket(settings: ClientSettings) -> (Client, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(Client::connect(address, settings), listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_share_a_connection_and_each_gets_its_own_answer() {
    let port = Port::start(Settings::default()).await;
    let client = Client::connect(port.address, settings()).await.unwrap();
    let callers: Vec<_> = (0..50)
        .map(|caller| {
            let client = client.clone();
            tokio::spawn(async move {
                for call in 0..200 {
                    let name = if call % 3 == 0 { "yield" } else { "echo" };
                    let body = format!("{caller} {call}").repeat(1 + call % 50).into_bytes();
                    assert_eq!(echo(&client, name, &body).await.unwrap(), body);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(
        echo(&client, "who", b"").await.unwrap(),
        br#"Identity { user: "alice", real_user: None }"#
    );
    assert_eq!(echo(&client, "id", b"").await.unwrap(), format!("{ID:?} 10001").into_bytes());
    port.stop().await;
}

#[tokio::test]
async fn calls_that_a_socket_does_not_take_at_once_are_sent_all_the_same() {
    let port = Port::start(Settings { frame_bytes_max: 16 << 20, ..Settings::default() }).await;
    let client = Client::connect(port.address, settings()).await.unwrap();
    let body = vec![9; 8 << 20];
    let (first, second) = tokio::join!(echo(&client, "echo", &body), echo(&client, "echo", &body));
    assert!(first.unwrap() == body && second.unwrap() == body);
    port.stop().await;
}

#[tokio::test]
async fn an_error_of_the_server_is_told_with_its_class() {
    let port = Port::start(Settings::default()).await;
    let client = Client::connect(port.address, settings()).await.unwrap();
    let expected = RemoteError {
        class: "java.io.IOException".into(),
        message: "it was to be".into(),
        detail: 1,
    };
    assert_eq!(echo(&client, "fail", b"").await, Err(CallError::Remote(expected)));
    let error = echo(&client, "fly", b"").await.unwrap_err();
    assert!(matches!(error, CallError::Remote(RemoteError { detail: 2, .. })), "{error}");
    assert!(!client.is_lost());
    port.stop().await;
}

#[tokio::test]
async fn a_retry_keeps_its_name_on_another_connection() {
    let port = Port::start(Settings::default()).await;
    let first = Client::connect(port.address, settings()).await.unwrap();
    let mut id = first.new_call_id();
    drop(first);
    id.retry_count = 1;
    let second = Client::connect(port.address, settings()).await.unwrap();
    let answer = second.call_as(&id, &method("id"), &Raw(Vec::new())).await.unwrap();
    assert_eq!(answer, format!("{ID:?} {}", id.call_id));
    port.stop().await;
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_nothing_behind() {
    let port = Port::start(Settings::default()).await;
    let settings = ClientSettings { calls_in_flight_max: 1, ..settings() };
    let client = Client::connect(port.address, settings).await.unwrap();
    for given_up in 1..=3 {
        let (method, body) = (method("hold"), Raw(Vec::new()));
        tokio::select! {
            _ = client.call(&method, &body) => unreachable!("nobody releases it"),
            () = port.until(|echo| echo.held.load(Ordering::SeqCst) == given_up) => {}
        }
    }
    port.echo.release.notify_waiters();
    assert_eq!(echo(&client, "echo", b"turn").await.unwrap(), b"turn");
    port.stop().await;
}

#[tokio::test]
async fn calls_beyond_the_bound_wait_for_their_turn() {
    let port = Port::start(Settings::default()).await;
    let settings = ClientSettings { calls_in_flight_max: 2, ..settings() };
    let client = Client::connect(port.address, settings).await.unwrap();
    let held: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { echo(&client, "hold", b"").await })
        })
        .collect();
    let release = async {
        loop {
            assert!(port.echo.held.load(Ordering::SeqCst) <= 2);
            port.echo.release.notify_one();
            tokio::task::yield_now().await;
        }
    };
    let all = async {
        for held in held {
            held.await.unwrap().unwrap();
        }
    };
    tokio::select! { () = release => unreachable!("it never ends"), () = all => {} }
    port.stop().await;
}

#[tokio::test]
async fn everybody_is_told_when_the_connection_is_lost() {
    let port = Port::start(Settings::default()).await;
    let client = Client::connect(port.address, settings()).await.unwrap();
    let held: Vec<_> = (0..10)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { echo(&client, "hold", b"").await })
        })
        .collect();
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 10).await;
    port.stop().await;
    for held in held {
        let error = held.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Lost(_)), "{error}");
    }
    assert!(client.is_lost());
    assert!(matches!(echo(&client, "echo", b"").await, Err(CallError::Lost(_))));
}

#[tokio::test]
async fn a_client_that_is_dropped_closes_its_connection() {
    let port = Port::start(Settings { connections_max: 1, ..Settings::default() }).await;
    for _ in 0..3 {
        let client = tokio::time::timeout(DEADLINE, async {
            loop {
                let client = Client::connect(port.address, settings()).await.unwrap();
                if echo(&client, "echo", b"in").await.is_ok() {
                    return client;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        drop(client);
    }
    port.stop().await;
}

#[tokio::test]
async fn what_is_no_answer_ends_the_connection_and_nothing_else() {
    let cases: [&[u8]; 6] = [
        b"\xFF\xFF\xFF\xFF",
        b"\0\x10\0\0",                   // a length beyond the bound
        b"\0\0\0\0",                     // no header
        b"\0\0\0\x03\x05\x08\x01",       // a header that is cut
        b"\0\0\0\x05\x04\x08\x01\x10\0", // no message behind the header
        b"HTTP/1.1 404 Not Found\r\n",
    ];
    for bytes in cases {
        let settings = ClientSettings { reply_bytes_max: 100_000, ..settings() };
        let (client, mut socket) = with_socket(settings).await;
        socket.write_all(bytes).await.unwrap();
        let error = echo(&client, "echo", b"").await.unwrap_err();
        assert!(matches!(error, CallError::Lost(_)), "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn an_answer_to_a_call_that_nobody_asked_is_passed_over() {
    let (client, mut socket) = with_socket(settings()).await;
    let send = async {
        let mut out = Vec::new();
        for call_id in [77, -4, 0] {
            let to = ipc::wire::ReplyTo::nobody(call_id);
            ipc::reply::answer(&mut out, &to, Ok(b"answer"));
        }
        // The call must be asked first.
        let mut sink = vec![0; 100];
        socket.read_exact(&mut sink).await.unwrap();
        socket.write_all(&out).await.unwrap();
        socket
    };
    let (answer, _socket) = tokio::join!(echo(&client, "echo", &[1; 200]), send);
    assert_eq!(answer.unwrap(), b"answer");
}

#[tokio::test]
async fn a_waiting_client_pings() {
    let settings = ClientSettings { ping_interval_ms: 20, ..settings() };
    let (client, mut socket) = with_socket(settings).await;
    let caller = tokio::spawn(async move { echo(&client, "echo", b"").await });
    let mut ping = Vec::new();
    ipc::request::ping(&mut ping, ID);
    let mut read = Vec::new();
    let found = async {
        while !read.windows(ping.len()).any(|window| window == ping) {
            let mut bytes = [0; 256];
            let count = socket.read(&mut bytes).await.unwrap();
            assert!(count > 0, "the client stays");
            read.extend_from_slice(&bytes[..count]);
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap();
    drop(socket);
    assert!(matches!(caller.await.unwrap(), Err(CallError::Lost(_))));
}

#[tokio::test]
async fn a_fatal_answer_reaches_its_caller_and_ends_the_connection() {
    let port = Port::start(Settings::default()).await;
    // No user: the port refuses the context, under the context's own id.
    let settings = ClientSettings {
        identity: Identity { user: String::new(), real_user: None },
        ..settings()
    };
    let client = Client::connect(port.address, settings).await.unwrap();
    let error = echo(&client, "echo", b"").await.unwrap_err();
    assert!(matches!(error, CallError::Lost(_)), "{error}");
    assert!(error.to_string().contains("names no user"), "{error}");
    let lost = async {
        while !client.is_lost() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, lost).await.unwrap();
    port.stop().await;
}
