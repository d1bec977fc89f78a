//! What a port takes from clients that send too much, read too little, are silent or leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipc::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::port::{DEADLINE, Port, call, hello};

#[tokio::test]
async fn a_large_frame_is_taken_and_a_too_large_one_ends_the_connection() {
    let settings = Settings { frame_bytes_max: 4 << 20, ..Settings::default() };
    let port = Port::start(settings).await;
    let mut peer = port.hello().await;
    let body = vec![3; (4 << 20) - 200];
    peer.send(&call(1, "echo", &body)).await;
    assert!(peer.reply().await.body == body);
    peer.send(&call(2, "echo", b"small")).await;
    assert_eq!(&peer.reply().await.body[..], b"small");
    for length in [(4 << 20) + 1, -1, i32::MIN, i32::MAX] {
        let mut peer = port.hello().await;
        peer.send(&length.to_be_bytes()).await;
        peer.ends().await;
    }
    // Before the context, even a frame that would be fine later is too large.
    let mut peer = port.connect().await;
    peer.send(&hello()[..7]).await;
    peer.send(&100_000i32.to_be_bytes()).await;
    peer.ends().await;
    port.stop().await;
}

#[tokio::test]
async fn large_frames_together_have_a_bound() {
    let settings = Settings { buffered_bytes_max: 1 << 20, ..Settings::default() };
    let port = Port::start(settings).await;
    let large = call(1, "hold", &vec![1; 600 << 10]);
    let mut first = port.hello().await;
    first.send(&large).await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 1).await;
    let mut second = port.hello().await;
    // The port may end the connection before all is sent.
    if second.stream.write_all(&large).await.is_ok() {
        second.ends().await;
    }
    port.echo.release.notify_one();
    assert_eq!(first.reply().await.body.len(), 600 << 10);
    let mut third = port.hello().await;
    third.send(&call(1, "echo", &vec![1; 600 << 10])).await;
    assert_eq!(third.reply().await.body.len(), 600 << 10, "what was charged is given back");
    port.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from() {
    let settings = Settings { unsent_bytes_max: 1 << 20, ..Settings::default() };
    let port = Port::start(settings).await;
    let mut peer = port.hello().await;
    let (mut read, mut write) = peer.stream.split();
    let calls = 2_000;
    let send = async {
        for id in 0..calls {
            write.write_all(&call(id, "large", b"")).await.unwrap();
        }
    };
    let look = async {
        // Nothing moves any more once the kernel's buffers and ours are full.
        let mut before = usize::MAX;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let asked = port.echo.asked.load(Ordering::SeqCst);
            if asked == before && asked > 0 {
                break;
            }
            before = asked;
        }
        assert!(before < 500, "{before} answers of 100 KB for a client that reads none");
        let mut sink = vec![0; 1 << 20];
        let mut left = 0;
        while left < calls as usize * 100_000 {
            left += read.read(&mut sink).await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, async { tokio::join!(send, look) }).await.unwrap();
    assert_eq!(port.echo.asked.load(Ordering::SeqCst), calls as usize);
    port.stop().await;
}

#[tokio::test]
async fn calls_in_flight_are_bounded_per_connection_and_per_port() {
    let settings = Settings {
        calls_in_flight_max: 5,
        connection_calls_in_flight_max: 3,
        ..Settings::default()
    };
    let port = Port::start(settings).await;
    let mut first = port.hello().await;
    let mut second = port.hello().await;
    let many: Vec<u8> = (0..10).flat_map(|id| call(id, "hold", b"")).collect();
    first.send(&many).await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 3).await;
    second.send(&many).await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 5).await;
    let most = Arc::new(AtomicUsize::new(0));
    let watch = async {
        loop {
            most.fetch_max(port.echo.held.load(Ordering::SeqCst), Ordering::SeqCst);
            port.echo.release.notify_one();
            tokio::task::yield_now().await;
        }
    };
    let all = async {
        for _ in 0..10 {
            first.reply().await;
            second.reply().await;
        }
    };
    tokio::select! { () = watch => unreachable!("it never ends"), () = all => {} }
    assert_eq!(most.load(Ordering::SeqCst), 5);
    port.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_takes_its_calls_with_it() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    peer.send(&(0..100).flat_map(|id| call(id, "hold", b"")).collect::<Vec<_>>()).await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 100).await;
    peer.stream.set_zero_linger().unwrap();
    drop(peer);
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 0).await;
    // In the middle of a frame.
    let mut peer = port.hello().await;
    peer.send(&call(1, "echo", b"half")[..30]).await;
    drop(peer);
    let mut peer = port.hello().await;
    peer.send(&call(1, "echo", b"whole")).await;
    assert_eq!(&peer.reply().await.body[..], b"whole");
    port.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_its_direction_still_gets_its_answers() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    peer.send(&[call(1, "hold", b"held"), call(2, "echo", b"now")].concat()).await;
    peer.stream.shutdown().await.unwrap();
    assert_eq!(peer.reply().await.id(), 2);
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 1).await;
    port.echo.release.notify_one();
    assert_eq!(peer.reply().await.id(), 1);
    assert_eq!(peer.rest().await, b"");
    port.stop().await;
}

#[tokio::test]
async fn a_connection_beyond_the_bound_is_closed_and_one_that_ends_makes_room() {
    let settings = Settings { connections_max: 1, ..Settings::default() };
    let port = Port::start(settings).await;
    let mut first = port.hello().await;
    first.send(&call(1, "echo", b"")).await;
    first.reply().await;
    port.connect().await.ends().await;
    drop(first);
    tokio::time::timeout(DEADLINE, async {
        loop {
            let mut peer = port.connect().await;
            let bytes = [hello(), call(1, "echo", b"in")].concat();
            let mut length = [0; 4];
            if peer.stream.write_all(&bytes).await.is_ok()
                && peer.stream.read_exact(&mut length).await.is_ok()
            {
                break;
            }
        }
    })
    .await
    .unwrap();
    port.stop().await;
}

#[tokio::test]
async fn silence_is_ended_before_a_context_in_a_frame_and_after_all() {
    let settings =
        Settings { handshake_ms: 100, stalled_ms: 100, idle_ms: 400, ..Settings::default() };
    let port = Port::start(settings).await;
    for begun in [&b""[..], b"hr", b"hrpc\x09\0\0", b"hrpc\x09\0\0\0\0\0\x10half"] {
        let mut peer = port.connect().await;
        peer.send(begun).await;
        peer.ends().await;
    }
    let mut half = port.hello().await;
    half.send(&call(1, "echo", b"")[..20]).await;
    let mut idle = port.hello().await;
    let mut busy = port.hello().await;
    busy.send(&call(1, "hold", b"")).await;
    half.ends().await;
    idle.ends().await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 1).await;
    port.echo.release.notify_one();
    assert_eq!(busy.reply().await.id(), 1, "a call in flight is no silence");
    port.stop().await;
}

#[tokio::test]
async fn the_end_of_a_port_is_the_end_of_its_connections() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    peer.send(&call(1, "hold", b"")).await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 1).await;
    let echo = Arc::clone(&port.echo);
    port.stop().await;
    peer.ends().await;
    tokio::time::timeout(DEADLINE, async {
        while echo.held.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}
