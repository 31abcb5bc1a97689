//! Bodies that stream: back-pressure, flat memory, and either side leaving early.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::{Peer, request};
use crate::support::{PATIENCE, eventually, resident_kib};
use crate::{in_front_of, limited};

/// Bytes that go each way in the bulk tests.
const BULK: usize = 64 << 20;
/// What the gateway may need over its resident memory at rest: far below what passes.
const GROWTH_KIB_MAX: u64 = 12 * 1024;

/// The highest resident memory while `work` runs, over that before it, in KiB.
fn growth_kib(gateway: &Gateway, work: impl FnOnce()) -> u64 {
    let pid = gateway.pid();
    let before = resident_kib(pid);
    let done = Arc::new(AtomicU64::new(0));
    let watcher = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut highest = 0;
            while done.load(Ordering::Relaxed) == 0 {
                highest = resident_kib(pid).max(highest);
                std::thread::sleep(Duration::from_millis(5));
            }
            highest
        }
    });
    work();
    done.store(1, Ordering::Relaxed);
    watcher.join().expect("a watcher").saturating_sub(before)
}

#[test]
fn bulk_streams_through_both_ways_in_flat_memory() {
    // Sends back what comes, as it comes.
    let upstream = Upstream::raw(|mut peer| {
        let Some(_) = peer.head() else { return };
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while let Some(chunk) = peer.chunk() {
            let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
            framed.extend(chunk);
            framed.extend(b"\r\n");
            peer.send(framed);
        }
        peer.send("0\r\n\r\n");
    });
    let (gateway, address) = in_front_of(&upstream);
    let growth = growth_kib(&gateway, || {
        let mut peer = Peer::connect(address);
        peer.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut sending = peer.stream().try_clone().expect("a clone");
        let sender = std::thread::spawn(move || {
            let mut data = vec![0; 64 * 1024];
            for number in 0..BULK / data.len() {
                data.fill(number as u8);
                write!(sending, "{:x}\r\n", data.len()).expect("a chunk's size");
                sending.write_all(&data).expect("a chunk");
                sending.write_all(b"\r\n").expect("a chunk's end");
            }
            sending.write_all(b"0\r\n\r\n").expect("the last chunk");
        });
        let head = peer.head().expect("a head");
        assert_eq!(head.status(), 200);
        let mut received = 0;
        while let Some(chunk) = peer.chunk() {
            for byte in chunk {
                assert_eq!(byte, (received / (64 * 1024)) as u8, "at {received}");
                received += 1;
            }
        }
        assert_eq!(received, BULK);
        sender.join().expect("everything was sent");
    });
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB more while 64 MiB passed both ways");
}

#[test]
fn a_client_that_never_reads_stops_the_upstream() {
    let sent = Arc::new(AtomicU64::new(0));
    let upstream = Upstream::raw({
        let sent = sent.clone();
        move |mut peer| {
            let Some(_) = peer.head() else { return };
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {BULK}\r\n\r\n"));
            let data = vec![7; 64 * 1024];
            let mut left = BULK;
            while left > 0 && peer.try_send(&data).is_ok() {
                left -= data.len();
                sent.fetch_add(data.len() as u64, Ordering::SeqCst);
            }
        }
    });
    let (gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    let growth = growth_kib(&gateway, || {
        peer.send(request("GET", "/", &[], b""));
        // It stops by itself: what the sockets on the way hold, and no more.
        let mut before = u64::MAX;
        eventually("the upstream stands still", || {
            let now = sent.load(Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100));
            let still = now > 0 && now == before;
            before = now;
            still
        });
    });
    assert!(sent.load(Ordering::SeqCst) < BULK as u64 / 2, "the gateway keeps on reading");
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB more for a client that does not read");
    // And goes on when the client reads after all.
    let head = peer.head().expect("a head");
    assert_eq!(peer.body(&head, false).len(), BULK);
}

#[test]
fn an_upstream_that_never_reads_stops_the_client() {
    let upstream = Upstream::raw(|mut peer| {
        let _ = peer.head();
        std::thread::sleep(2 * PATIENCE);
    });
    let (gateway, address) = in_front_of(&upstream);
    let growth = growth_kib(&gateway, || {
        let mut peer = Peer::connect(address);
        peer.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BULK}\r\n\r\n"));
        peer.stream().set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let data = vec![7; 64 * 1024];
        let taken = (0..BULK / data.len()).take_while(|_| peer.try_send(&data).is_ok()).count();
        assert!(taken < BULK / data.len() / 2, "the gateway keeps on reading");
    });
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB more for an upstream that does not read");
}

#[test]
fn chunks_arrive_when_they_are_sent() {
    let (next, steps) = std::sync::mpsc::channel::<()>();
    let steps = std::sync::Mutex::new(steps);
    let upstream = Upstream::raw(move |mut peer| {
        let Some(_) = peer.head() else { return };
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n");
        let steps = steps.lock().expect("one connection");
        for number in 0..3 {
            peer.send(crate::support::upstream::chunk(&format!("data: {number}\n\n")));
            if steps.recv().is_err() {
                return;
            }
        }
        peer.send("0\r\n\r\n");
    });
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    peer.send(request("GET", "/", &[], b""));
    assert!(peer.head().expect("a head").is_chunked());
    for number in 0..3 {
        let chunk = peer.chunk().expect("a chunk");
        assert_eq!(chunk, format!("data: {number}\n\n").into_bytes());
        next.send(()).expect("the upstream waits");
    }
    assert_eq!(peer.chunk(), None);
}

#[test]
fn an_answer_before_the_end_of_the_request_arrives() {
    let upstream = Upstream::raw(|mut peer| {
        let Some(_) = peer.head() else { return };
        peer.send(reply(403, &[("connection", "close")], "too soon"));
    });
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    peer.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nbegin");
    let response = peer.response("POST");
    assert_eq!((response.status, response.text()), (403, "too soon"));
}

/// Streams a first chunk, then says when the gateway has left.
fn endless_upstream() -> (Upstream, std::sync::mpsc::Receiver<()>) {
    let (gone, left) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let upstream = Upstream::raw(move |mut peer| {
        let Some(_) = peer.head() else { return };
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegin\r\n");
        let _ = peer.rest();
        let _ = gone.lock().expect("no panic in between").send(());
    });
    (upstream, left)
}

#[test]
fn a_client_that_is_reset_takes_its_upstream_request_along() {
    let (upstream, left) = endless_upstream();
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    peer.send(request("GET", "/", &[], b""));
    assert!(peer.head().is_some());
    peer.reset();
    left.recv_timeout(PATIENCE).expect("the upstream connection ends");
}

#[test]
fn a_client_that_leaves_takes_its_silent_upstream_request_along() {
    let (upstream, left) = endless_upstream();
    let (_gateway, address) = limited(&upstream, json!({ "bodyTimeout": "200ms", "http1IdleTimeout": "200ms" }));
    let mut peer = Peer::connect(address);
    peer.send(request("GET", "/", &[], b""));
    assert!(peer.head().is_some());
    drop(peer);
    left.recv_timeout(PATIENCE).expect("the upstream connection ends");
}
