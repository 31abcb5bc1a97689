//! WebSockets (RFC 6455) and other upgrades through plain routes: what is passed, what both sides may say, how it ends.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::config::to_backend;
use crate::support::gateway::{Gateway, local};
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::Peer;
use crate::support::{eventually, free_port};
use crate::{in_front_of, with_routes};

const ASK: [(&str, &str); 4] = [
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An upstream that switches, says hello at once, and then says everything back until its client ends.
fn echoing() -> Upstream {
    Upstream::http(|_, peer| {
        peer.send([SWITCHED, "hello"].concat());
        while let Ok(byte) = peer.try_take(1) {
            if peer.try_send(byte).is_err() {
                break;
            }
        }
        false
    })
}

fn open(address: std::net::SocketAddr) -> Peer {
    let mut peer = Peer::connect(address);
    let headers: String = ASK.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    // The first frame may be on its way before the answer is.
    peer.send(format!("GET /chat HTTP/1.1\r\nhost: a\r\n{headers}\r\nearly"));
    peer
}

#[test]
fn bytes_pass_both_ways_as_they_are() {
    let upstream = echoing();
    let (gateway, address) = in_front_of(&upstream);
    let mut peer = open(address);
    let head = peer.head().expect("an answer");
    assert_eq!(head.status(), 101);
    assert_eq!(head.get("upgrade"), Some("websocket"));
    assert_eq!(head.get("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(head.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(peer.take(10), b"helloearly");
    let request = upstream.last();
    for (name, value) in &ASK[1..] {
        assert_eq!(request.head.get(name), Some(*value));
    }
    assert_eq!(request.head.get("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    // More than any buffer, in both directions at once, whatever the bytes look like.
    let sent: Vec<u8> = (0..300_000u32).map(|number| (number % 251) as u8).collect();
    let mut sending = Peer::new(peer.stream().try_clone().expect("a clone"));
    std::thread::scope(|scope| {
        scope.spawn(|| sending.send(&sent));
        assert!(peer.take(sent.len()) == sent);
    });
    peer.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(peer.take(18), b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(gateway.metric("agentlane_websockets", ""), 1.0);
    peer.finish();
    assert!(peer.closes());
    eventually("it is counted out", || gateway.metric("agentlane_websockets", "") == 0.0);
    let log = gateway.terminate().stdout;
    assert!(log.contains("status=101") && log.contains("bytes_out=300028"), "{log}");
}

#[test]
fn an_upstream_may_refuse_and_may_end() {
    let upstream = Upstream::http(|request, peer| match request.head.get("upgrade") {
        Some(_) if request.head.target() == "/chat" => {
            peer.send([SWITCHED, "bye"].concat());
            false
        }
        _ => peer.try_send(reply(426, &[("x-why", "no")], "no")).is_ok(),
    });
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = open(address);
    assert_eq!(peer.head().expect("an answer").status(), 101);
    assert_eq!(peer.rest().as_deref(), Some(&b"bye"[..]));
    let mut peer = Peer::connect(address);
    for _ in 0..2 {
        let refused = peer.ask("GET", "/other", &ASK, "");
        assert_eq!((refused.status, refused.get("x-why"), refused.text()), (426, Some("no"), "no"));
    }
}

#[test]
fn other_upgrades_are_not_passed() {
    let upstream = Upstream::answering(|request| {
        let upgrade = request.head.get("upgrade").unwrap_or("none").to_owned();
        Some(reply(200, &[], format!("{upgrade} {}", request.head.get("connection").unwrap_or("none"))))
    });
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    let cases = [
        ("GET", "h2c", "Upgrade, HTTP2-Settings"),
        ("GET", "TLS/1.0", "upgrade"),
        ("GET", "websocket", "keep-alive"),
        ("POST", "websocket", "upgrade"),
    ];
    for (method, upgrade, connection) in cases {
        let response = peer.ask(method, "/", &[("upgrade", upgrade), ("connection", connection)], "");
        assert_eq!((response.status, response.text()), (200, "none none"), "{method} {upgrade}");
    }
    // 101 to somebody who did not ask for it is nonsense.
    let eager = Upstream::answering(|_| Some(SWITCHED.as_bytes().to_vec()));
    let (_gateway, address) = in_front_of(&eager);
    assert_eq!(Peer::connect(address).get("/").status, 502);
}

#[test]
fn silence_ends_a_websocket_and_a_drain_waits_for_one() {
    let upstream = echoing();
    let port = free_port();
    let mut config = to_backend(port, upstream.address);
    config["frontendPolicies"] = json!({ "http": { "http1IdleTimeout": "300ms" } });
    let _gateway = Gateway::start(&config.to_string());
    let mut peer = open(local(port));
    assert_eq!(peer.head().expect("an answer").status(), 101);
    assert_eq!(peer.take(10), b"helloearly");
    assert!(peer.closes(), "both were silent");

    let (gateway, address) = in_front_of(&upstream);
    let mut peer = open(address);
    assert_eq!(peer.head().expect("an answer").status(), 101);
    gateway.signal(libc::SIGTERM);
    eventually("it drains", || gateway.readiness() != Some(200));
    assert_eq!(peer.take(10), b"helloearly");
    peer.send("still");
    assert_eq!(peer.take(5), b"still");
    peer.finish();
    assert!(peer.closes());
    let mut gateway = gateway;
    assert!(gateway.wait().success());
}

#[test]
fn a_websocket_holds_a_place_and_pages_of_other_sites_open_none() {
    let upstream = echoing();
    let backends = json!([{ "host": upstream.address.to_string() }]);
    let (_gateway, address) = with_routes(json!([{
        "policies": { "concurrencyLimit": { "maxRequests": 1 }, "csrf": {}, "timeout": { "requestTimeout": "200ms" } },
        "backends": backends,
    }]));
    let mut first = open(address);
    assert_eq!(first.head().expect("an answer").status(), 101);
    let mut peer = Peer::connect(address);
    assert_eq!(peer.ask("GET", "/", &ASK, "").status, 503);
    // The request's time is that of the answer, not of what is said then.
    assert_eq!(first.take(10), b"helloearly");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        first.send("on");
        assert_eq!(first.take(2), b"on");
    }
    drop(first);
    let mut evil: Vec<(&str, &str)> = ASK.to_vec();
    evil.push(("origin", "https://evil.example"));
    eventually("the place is free", || peer.ask("GET", "/", &evil, "").status == 403);
}
