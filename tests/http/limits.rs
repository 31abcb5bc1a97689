//! Time and size limits of a connection, and upstreams that fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::gateway::local;
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::{Peer, request};
use crate::support::{PATIENCE, free_port};
use crate::{in_front_of, limited, with_routes};

#[test]
fn a_slow_head_is_408_and_silence_ends_a_connection() {
    let upstream = Upstream::named("ok");
    let (_gateway, address) =
        limited(&upstream, json!({ "headerTimeout": "200ms", "http1IdleTimeout": "300ms", "bodyTimeout": "200ms" }));
    let mut slow = Peer::connect(address);
    slow.send("GET / HTTP/1.1\r\nhost: a\r\n");
    let mut silent = Peer::connect(address);
    let mut idle = Peer::connect(address);
    let mut body = Peer::connect(address);
    body.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf");
    assert_eq!(idle.get("/").text(), "ok");
    let refused = slow.response("GET");
    assert_eq!((refused.status, refused.get("connection")), (408, Some("close")));
    assert!(slow.closes());
    assert_eq!(body.response("POST").status, 408);
    assert!(body.closes());
    assert!(silent.closes(), "nothing was asked, nothing is answered");
    assert!(idle.closes());
}

#[test]
fn a_head_that_trickles_in_is_cut_off_as_well() {
    let upstream = Upstream::named("ok");
    let (_gateway, address) = limited(&upstream, json!({ "headerTimeout": "300ms" }));
    let mut peer = Peer::connect(address);
    let begun = Instant::now();
    peer.send("GET / HTTP/1.1\r\n");
    while peer.try_send("x").is_ok() && peer.is_quiet() {
        assert!(begun.elapsed() < PATIENCE, "a drop now and then keeps it open");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn each_limit_has_its_answer() {
    let upstream = Upstream::named("ok");
    let (_gateway, address) =
        limited(&upstream, json!({ "maxBodyBytes": 1000, "maxHeaderBytes": 4096, "http1MaxHeaders": 20 }));
    let long = "x".repeat(5000);
    let many: Vec<(String, &str)> = (0..25).map(|number| (format!("x-{number}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let status = |bytes: Vec<u8>| {
        let mut peer = Peer::connect(address);
        peer.send(bytes);
        let response = peer.response("POST");
        assert!(peer.closes(), "{}: what follows could be anything", response.status);
        response.status
    };
    assert_eq!(status(request("GET", &format!("/{long}"), &[], b"")), 414);
    assert_eq!(status(request("GET", "/", &[("x-long", &long)], b"")), 431);
    assert_eq!(status(request("GET", "/", &many, b"")), 431);
    assert_eq!(status(request("POST", "/", &[], &[b'x'; 1001])), 413);
    // One that says so is not waited for.
    assert_eq!(status(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1001\r\n\r\nsome".to_vec()), 413);
    assert_eq!(upstream.requests().len(), 0, "none of them went on");
    let chunk = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1001)
    );
    assert_eq!(status(chunk.into_bytes()), 413);
    let mut peer = Peer::connect(address);
    assert_eq!(peer.ask("POST", "/", &[], "x".repeat(1000)).status, 200, "the limit itself is allowed");
    assert_eq!(peer.ask("GET", "/", &[("x-long", &long[..3000])], "").status, 200);
}

#[test]
fn a_silent_upstream_is_504_within_the_route_s_time() {
    let upstream = Upstream::http(|request, _| {
        if request.head.target() != "/fast" {
            std::thread::sleep(2 * PATIENCE);
        }
        false
    });
    let backend = json!([{ "host": upstream.address.to_string() }]);
    let (_gateway, address) = with_routes(json!([
        { "matches": [{ "path": { "pathPrefix": "/request" } }], "policies": { "timeout": { "requestTimeout": "150ms" } }, "backends": backend },
        { "matches": [{ "path": { "pathPrefix": "/backend" } }], "policies": { "timeout": { "backendRequestTimeout": "150ms" } }, "backends": backend },
    ]));
    let mut peer = Peer::connect(address);
    assert_eq!(peer.get("/request").status, 504);
    assert_eq!(peer.get("/backend").status, 504);
}

#[test]
fn an_upstream_that_is_down_or_broken_is_named() {
    let down = free_port();
    let closing = Upstream::answering(|_| None);
    let babbling = Upstream::answering(|_| Some(b"220 mail.example ESMTP\r\n\r\n".to_vec()));
    let twice =
        Upstream::answering(|_| Some(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc".to_vec()));
    let route = |path: &str, address: SocketAddr| json!({ "matches": [{ "path": { "exact": path } }], "backends": [{ "host": address.to_string() }] });
    let (_gateway, address) = with_routes(json!([
        route("/down", local(down)),
        route("/closing", closing.address),
        route("/babbling", babbling.address),
        route("/twice", twice.address),
    ]));
    let mut peer = Peer::connect(address);
    for path in ["/down", "/closing", "/babbling", "/twice"] {
        let status = peer.get(path).status;
        assert!([502, 503].contains(&status), "{path}: {status}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let upstream = Upstream::answering(|request| match request.head.target() {
        "/length" => Some(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nhalf".to_vec()),
        _ => Some(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n4\r\nhalf\r\n".to_vec()),
    });
    let closing = Upstream::http(move |request, peer| {
        let _ = peer.try_send(match request.head.target() {
            "/length" => &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"[..],
            _ => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        });
        false
    });
    drop(upstream);
    let (_gateway, address) = in_front_of(&closing);
    let mut peer = Peer::connect(address);
    peer.send(request("GET", "/length", &[], b""));
    let head = peer.head().expect("a head");
    assert_eq!((head.status(), head.length()), (200, Some(100)));
    assert_eq!(peer.rest().expect("the connection ends"), b"half");
    let mut peer = Peer::connect(address);
    peer.send(request("GET", "/chunked", &[], b""));
    assert!(peer.head().expect("a head").is_chunked());
    assert_eq!(peer.chunk().as_deref(), Some(&b"half"[..]));
    assert!(peer.try_chunk().is_err(), "no last chunk may make it look whole");
}

#[test]
fn a_kept_connection_that_died_is_replaced_for_requests_that_may_be_repeated() {
    let upstream = Upstream::named("ok");
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    for method in ["GET", "PUT", "DELETE"] {
        assert_eq!(peer.get("/").text(), "ok");
        upstream.break_connections();
        assert_eq!(peer.ask(method, "/", &[], "").status, 200, "{method}");
    }
    let counted = Arc::new(AtomicU64::new(0));
    // A POST that was taken and not answered is not sent again.
    let closing = Upstream::answering({
        let counted = counted.clone();
        move |request| match request.head.method() {
            "POST" => {
                counted.fetch_add(1, Ordering::SeqCst);
                None
            }
            _ => Some(reply(200, &[], "ok")),
        }
    });
    let (_gateway, address) = in_front_of(&closing);
    let mut peer = Peer::connect(address);
    assert_eq!(peer.get("/").status, 200);
    assert_eq!(peer.ask("POST", "/", &[], "once").status, 502);
    assert_eq!(counted.load(Ordering::SeqCst), 1);
}
