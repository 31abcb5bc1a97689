//! Clients that mean harm, or behave as if: bounded memory, an end with a reason, and others served.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};

use serde_json::json;

use crate::frames::{
    CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, PRIORITY, REFUSED_STREAM,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, head,
};
use crate::support::config::to_backend;
use crate::support::gateway::{Gateway, local};
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::Peer;
use crate::support::{free_port, resident_kib};

/// How much memory a client may cost at most, with what a debug build and the allocator keep. KiB.
const GROWTH_MAX_KIB: u64 = 48 * 1024;

fn behind(upstream: &Upstream) -> (Gateway, SocketAddr) {
    let port = free_port();
    let mut config = to_backend(port, upstream.address);
    config["frontendPolicies"] = json!({ "http": { "http2MaxConcurrentStreams": 100 } });
    (Gateway::start(&config.to_string()), local(port))
}

/// Sends this again and again until the gateway has had enough, or `count` times; gives the code of its goodbye.
fn flood(address: SocketAddr, count: usize, message: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let mut client = Client::connect(address, &[]);
    for number in 0..count {
        if client.try_send(&message(number as u32)).is_err() {
            break;
        }
    }
    client.end()
}

#[test]
fn talk_without_work_is_cut_short() {
    let upstream = Upstream::named("ok");
    let (gateway, address) = behind(&upstream);
    let before = resident_kib(gateway.pid());
    let floods: [(&str, Vec<u8>); 6] = [
        ("ping", frame(PING, 0, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("window", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(0x42, 0, 0, b"what")),
        ("acknowledged", frame(PING, 1, 0, &[7; 8])),
    ];
    for (name, message) in floods {
        let code = flood(address, 200_000, |_| message.clone());
        // A reset of the socket may overtake the goodbye; that there was an end is what counts.
        assert!(matches!(code, None | Some(ENHANCE_YOUR_CALM)), "{name}: {code:?}");
        assert_eq!(Peer::connect(address).get("/").text(), "ok", "{name}");
    }
    let after = resident_kib(gateway.pid());
    assert!(after < before + GROWTH_MAX_KIB, "{before} KiB became {after} KiB");
}

#[test]
fn streams_that_are_reset_at_once_do_not_reach_the_upstream_for_ever() {
    let upstream = Upstream::named("ok");
    let (gateway, address) = behind(&upstream);
    let before = resident_kib(gateway.pid());
    let request = head("GET", "/");
    let code = flood(address, 200_000, |number| {
        let stream = 2 * number + 1;
        let mut message = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request);
        message.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        message
    });
    assert!(matches!(code, None | Some(ENHANCE_YOUR_CALM)), "{code:?}");
    assert!(upstream.requests().len() < 2_000, "{} requests went on", upstream.requests().len());
    // Resets that the client provokes are counted as well: windows that overflow.
    let code = flood(address, 200_000, |number| {
        let stream = 2 * number + 1;
        let mut message = frame(HEADERS, END_HEADERS, stream, &head("POST", "/"));
        message.extend(frame(WINDOW_UPDATE, 0, stream, &0u32.to_be_bytes()));
        message
    });
    assert!(code.is_none_or(|code| code != 0), "{code:?}");
    assert_eq!(Peer::connect(address).get("/").text(), "ok");
    let after = resident_kib(gateway.pid());
    assert!(after < before + GROWTH_MAX_KIB, "{before} KiB became {after} KiB");
}

#[test]
fn heads_have_an_end() {
    let upstream = Upstream::named("ok");
    let (gateway, address) = behind(&upstream);
    let before = resident_kib(gateway.pid());
    // One head that goes on in frame after frame.
    let mut client = Client::connect(address, &[]);
    client.send(HEADERS, END_STREAM, 1, &head("GET", "/"));
    let more = frame(CONTINUATION, 0, 1, &[0x00, 0x01, b'x', 0x7f, 0x80, 0x01].repeat(10));
    for _ in 0..100_000 {
        if client.try_send(&more).is_err() {
            break;
        }
    }
    client.end();
    assert_eq!(Peer::connect(address).get("/").text(), "ok");
    assert_eq!(upstream.requests().len(), 1);
    let after = resident_kib(gateway.pid());
    assert!(after < before + GROWTH_MAX_KIB, "{before} KiB became {after} KiB");
}

/// An upstream that answers when told to.
fn held() -> (Upstream, Arc<(Mutex<bool>, Condvar)>) {
    let open = Arc::new((Mutex::new(false), Condvar::new()));
    let waits = open.clone();
    let upstream = Upstream::answering(move |request| {
        if request.head.target() == "/held" {
            let guard = waits.0.lock().expect("no panic");
            drop(waits.1.wait_while(guard, |open| !*open).expect("no panic"));
        }
        Some(reply(200, &[], "ok"))
    });
    (upstream, open)
}

#[test]
fn more_requests_than_may_be_are_refused_also_when_their_streams_are_gone() {
    let (upstream, open) = held();
    let (_gateway, address) = behind(&upstream);
    let mut client = Client::connect(address, &[]);
    let request = head("GET", "/held");
    // A post that nobody awaits any more goes on at the upstream, and counts.
    for number in 0..100 {
        client.send(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &request);
    }
    upstream.await_requests(100);
    client.send(HEADERS, END_HEADERS | END_STREAM, 201, &request);
    let refused = client.expect(|frame| frame.kind == RST_STREAM);
    assert_eq!((refused.stream, refused.code()), (201, REFUSED_STREAM));
    assert_eq!(Peer::connect(address).get("/").text(), "ok", "others are served");
    *open.0.lock().expect("no panic") = true;
    open.1.notify_all();
    for _ in 0..100 {
        assert!(client.expect(|frame| frame.kind == HEADERS).is_ok());
    }
}

#[test]
fn answers_that_nobody_takes_hold_up_nobody() {
    let upstream = Upstream::answering(|request| {
        let bytes = if request.head.target() == "/large" { 8_000_000 } else { 2 };
        Some(reply(200, &[], "k".repeat(bytes)))
    });
    let (gateway, address) = behind(&upstream);
    let before = resident_kib(gateway.pid());
    // Streams without a window: SETTINGS_INITIAL_WINDOW_SIZE is 0.
    let mut client = Client::connect(address, &[(4, 0)]);
    for number in 0..50 {
        client.send(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &head("GET", "/large"));
    }
    for _ in 0..50 {
        assert!(client.expect(|frame| frame.kind == HEADERS).is_ok());
    }
    // One gets a window of its own, on the same connection.
    client.send(HEADERS, END_HEADERS | END_STREAM, 101, &head("GET", "/small"));
    client.send(WINDOW_UPDATE, 0, 101, &100u32.to_be_bytes());
    assert_eq!(client.expect(|frame| frame.kind == DATA).payload, b"kk");
    assert_eq!(Peer::connect(address).get("/small").text(), "kk");
    let after = resident_kib(gateway.pid());
    assert!(after < before + GROWTH_MAX_KIB, "{before} KiB became {after} KiB");
}
