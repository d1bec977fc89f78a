//! Measures calls per second over loopback: a service that answers 100 bytes at once, 1 to 64 callers.
//!
//! `cargo run --release -p ipc --example calls [seconds] [connections]`. Client and server are one process: the CPU time
//! (Linux only) is what both sides of a call cost together, and says more than the rate when the machine is not idle.

#![allow(clippy::print_stdout, reason = "it is what the measure is for")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipc::client::{Client, ClientSettings};
use ipc::request::Method;
use ipc::{Answer, Call, Service, Settings};
use tokio::net::TcpListener;

const PROTOCOL: &str = "example.Protocol";

struct Fixed(Bytes);

impl Service for Fixed {
    fn protocol_version(&self, protocol: &str) -> Option<u64> {
        (protocol == PROTOCOL).then_some(1)
    }

    fn call(self: &Arc<Self>, call: Call) -> Option<Answer> {
        (call.method == "get").then(|| Answer::Now(Ok(self.0.clone())))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let connections: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = Arc::new(Fixed(Bytes::from(vec![b'x'; 100])));
    tokio::spawn(ipc::serve(listener, service, Settings::default(), std::future::pending()));
    println!("callers  connections  calls/s  CPU us/call");
    for callers in [1, 2, 8, 32, 64] {
        let mut clients = Vec::new();
        for _ in 0..connections.min(callers) {
            let mut settings = ClientSettings::default();
            settings.identity.user = "bench".into();
            clients.push(Client::connect(address, settings).await?);
        }
        let cpu_before = cpu_seconds();
        let calls = measure(&clients, callers, Duration::from_secs_f64(seconds)).await;
        let cpu = (cpu_seconds() - cpu_before) * 1e6 / calls;
        println!("{callers:7}  {:11}  {:7.0}  {cpu:11.2}", clients.len(), calls / seconds);
    }
    Ok(())
}

async fn measure(clients: &[Client], callers: usize, time: Duration) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let client = clients[caller % clients.len()].clone();
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                let method = Method { protocol: PROTOCOL, version: 1, name: "get" };
                let path = format!("/user/bench/folder/file-{caller}");
                let mut count = 0;
                while begin.elapsed() < time {
                    let reply = client.call(&method, &path).await.expect("the server answers");
                    assert_eq!(reply.len(), 100);
                    count += 1;
                }
                done.fetch_add(count, Ordering::Relaxed);
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a caller does not panic");
    }
    done.load(Ordering::Relaxed) as f64
}

/// What this process has used, from the kernel's ticks of 10 ms; 0 where there are none to read.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|text| text.parse::<f64>());
    ticks.map(|ticks| ticks.unwrap_or(0.0)).sum::<f64>() / 100.0
}
