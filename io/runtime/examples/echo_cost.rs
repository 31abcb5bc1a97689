//! What the facade costs: round trips of a small message over loopback, raw monoio beside `Stream`, in CPU time of both
//! ends per round trip. Alternates the two, so that a noisy machine disturbs them alike.
//!
//! `cargo run --release -p agentlane-runtime --example echo_cost [ROUND_TRIPS]`

use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use agentlane_runtime::{Driver, ListenOptions, Listener, ShardOptions, Stream, block_on, now, spawn};
use bytes::{Bytes, BytesMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};

const MESSAGE: &[u8] = &[b'x'; 200];
const ROUNDS: usize = 7;

/// A name, and CPU time for a number of round trips.
type Row = (&'static str, fn(u32) -> Duration);

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(40_000);
    let rows: [Row; 6] = [
        ("raw monoio, io_uring + DEFER_TASKRUN", raw_uring),
        ("facade, io_uring, no deadlines", |count| facade(Driver::Uring, false, count)),
        ("facade, io_uring", |count| facade(Driver::Uring, true, count)),
        ("raw monoio, epoll", raw_epoll),
        ("facade, epoll", |count| facade(Driver::Epoll, true, count)),
        ("facade, glommio", |count| facade(Driver::Glommio, true, count)),
    ];
    let mut samples = vec![Vec::new(); rows.len()];
    for _ in 0..ROUNDS {
        for (row, samples) in rows.iter().zip(&mut samples) {
            samples.push((row.1)(count).as_nanos() as f64 / f64::from(count) / 1000.0);
        }
    }
    println!("CPU us per round trip of {} bytes, both ends on one thread; median, lowest of {ROUNDS}", MESSAGE.len());
    for (row, samples) in rows.iter().zip(&mut samples) {
        samples.sort_by(f64::total_cmp);
        println!("{:<40} {:>7.2} {:>7.2}", row.0, samples[ROUNDS / 2], samples[0]);
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut at) };
    Duration::new(at.tv_sec as u64, at.tv_nsec as u32)
}

fn facade(driver: Driver, deadlines: bool, count: u32) -> Duration {
    let options = ShardOptions { ring_entries: 256, ..ShardOptions::default() };
    block_on(driver, &options, || async move {
        let listener = Listener::bind_tcp(([127, 0, 0, 1], 0).into(), &ListenOptions::default()).expect("bind");
        let mut near = Stream::connect(listener.local_addr().expect("addr")).await.expect("connect");
        let (mut far, _) = listener.accept().await.expect("accept");
        spawn(async move {
            let mut buf = BytesMut::with_capacity(4096);
            loop {
                // As a gateway does it: a deadline for each request, moved on and taken back.
                if deadlines {
                    far.set_deadline(Some(now() + Duration::from_secs(30)), Shutdown::Both);
                }
                let (result, back) = far.recv(buf).await;
                buf = back;
                if !matches!(result, Ok(1..)) {
                    return;
                }
                if deadlines {
                    far.set_deadline(None, Shutdown::Both);
                }
                far.send(buf.split().freeze()).await.expect("send");
                buf.reserve(4096);
            }
        });
        let start = cpu_time();
        let mut buf = BytesMut::with_capacity(4096);
        for _ in 0..count {
            near.send(Bytes::from_static(MESSAGE)).await.expect("send");
            let mut got = 0;
            while got < MESSAGE.len() {
                let (result, back) = near.recv(buf).await;
                (got, buf) = (got + result.expect("recv"), back);
            }
            buf.clear();
        }
        cpu_time() - start
    })
    .expect("driver")
}

fn raw_uring(count: u32) -> Duration {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(256).uring_builder(ring).build();
    runtime.expect("io_uring").block_on(raw(count))
}

fn raw_epoll(count: u32) -> Duration {
    let runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().with_entries(256).build();
    runtime.expect("epoll").block_on(raw(count))
}

async fn raw(count: u32) -> Duration {
    let listener = monoio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bind");
    let addr = listener.local_addr().expect("addr");
    let mut near = monoio::net::TcpStream::connect_addr(addr).await.expect("connect");
    let (mut far, _) = listener.accept().await.expect("accept");
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("nodelay");
    }
    monoio::spawn(async move {
        let mut buf = BytesMut::with_capacity(4096);
        loop {
            let (result, back) = far.read(buf).await;
            buf = back;
            if !matches!(result, Ok(1..)) {
                return;
            }
            let (result, _) = far.write_all(buf.split().freeze()).await;
            result.expect("send");
            buf.reserve(4096);
        }
    });
    let start = cpu_time();
    let mut buf = BytesMut::with_capacity(4096);
    for _ in 0..count {
        let (result, _) = near.write(Bytes::from_static(MESSAGE)).await;
        result.expect("send");
        let mut got = 0;
        while got < MESSAGE.len() {
            let (result, back) = near.read(buf).await;
            (got, buf) = (got + result.expect("recv"), back);
        }
        buf.clear();
    }
    cpu_time() - start
}
