//! The PROXY header in front of connections: the client that it names is the one of the access log, and what is no good
//! header gets no answer.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::config::one_listener;
use crate::support::gateway::{Gateway, local};
use crate::support::wire::{Peer, request};
use crate::support::{eventually, free_port};

const V1: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 50001 80\r\n";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(rest.len()).expect("a short rest").to_be_bytes());
    bytes.extend(rest);
    bytes
}

/// From 192.0.2.9:50002, with a TLV behind it.
fn v2_of_a_client() -> Vec<u8> {
    v2(0x21, 0x11, &[192, 0, 2, 9, 198, 51, 100, 1, 0xc3, 0x52, 0, 80, 0xea, 0, 3, b'a', b'b', b'c'])
}

fn proxied(frontend: Value, tunnel: Option<&str>) -> (Gateway, SocketAddr) {
    let port = free_port();
    let mut config = one_listener(port, json!([{ "policies": { "directResponse": { "status": 200, "body": "ok" } } }]));
    config["frontendPolicies"] = frontend;
    if let Some(tunnel) = tunnel {
        config["binds"][0]["tunnelProtocol"] = json!(tunnel);
    }
    (Gateway::start(&config.to_string()), local(port))
}

/// Sends these bytes and then a request for `/path`; its status, or `None` where the connection ends without an answer.
fn asks(address: SocketAddr, bytes: impl AsRef<[u8]>, path: &str) -> Option<u16> {
    let mut peer = Peer::connect(address);
    let mut all = bytes.as_ref().to_vec();
    all.extend(request("GET", path, &[], b""));
    peer.send(all);
    let head = peer.head()?;
    Some(head.status())
}

#[test]
fn the_client_is_the_one_that_the_balancer_names() {
    let (gateway, address) = proxied(json!({ "proxyProtocol": { "version": "all" } }), None);
    assert_eq!(asks(address, V1, "/v1"), Some(200));
    assert_eq!(asks(address, v2_of_a_client(), "/v2"), Some(200));
    assert_eq!(asks(address, "PROXY UNKNOWN\r\n", "/unknown"), Some(200));
    assert_eq!(asks(address, v2(0x20, 0, &[]), "/local"), Some(200));
    // In pieces, the header's end and the request's beginning in one of them.
    let whole = [v2_of_a_client(), request("GET", "/pieces", &[], b"")].concat();
    for size in [1, 7] {
        let mut peer = Peer::connect(address);
        whole.chunks(size).for_each(|piece| peer.send(piece));
        assert_eq!(peer.response("GET").status, 200);
        assert_eq!(peer.get("/second").status, 200, "the header is that of the connection");
    }
    let log = gateway.terminate().stdout;
    let remote = |path: &str| {
        let line = log
            .lines()
            .find(|line| line.contains(&format!("path={path} ")))
            .unwrap_or_else(|| panic!("{path} in {log}"));
        line.split(' ').find_map(|part| part.strip_prefix("remote=")).unwrap_or_default().trim_matches('"').to_owned()
    };
    assert_eq!(
        [remote("/v1"), remote("/v2"), remote("/pieces")],
        ["192.0.2.7:50001", "192.0.2.9:50002", "192.0.2.9:50002"]
    );
    for path in ["/unknown", "/local"] {
        assert!(remote(path).starts_with("127.0.0.1:"), "{path}: the balancer speaks for itself");
    }
}

#[test]
fn what_is_no_good_header_gets_no_answer() {
    let (gateway, address) = proxied(json!({ "proxy": {} }), None);
    let long = v2(0x21, 0x11, &[0; 5000]);
    let bad: [&[u8]; 6] =
        [b"", V1.as_bytes(), &long, &v2(0x21, 0x11, &[1, 2, 3]), &v2(0x2f, 0x11, &[0; 12]), b"\r\n\r\n\0\r\nQUIX\n"];
    for bytes in bad {
        assert_eq!(asks(address, bytes, "/"), None, "{bytes:?}");
    }
    let refused = |count: f64| {
        eventually("they are counted", || gateway.metric("agentlane_proxy_headers_refused_total", "") == count);
    };
    refused(6.0);
    assert_eq!(asks(address, v2_of_a_client(), "/"), Some(200));
    // One that never comes ends in time, and one that does not end as well.
    let mut silent = Peer::connect(address);
    let mut half = Peer::connect(address);
    half.send(&v2_of_a_client()[..20]);
    assert!(silent.closes() && half.closes());
    refused(8.0);
}

#[test]
fn an_optional_header_may_be_left_out() {
    let (_gateway, address) = proxied(json!({ "proxyProtocol": { "version": "all", "mode": "optional" } }), None);
    assert_eq!(asks(address, "", "/"), Some(200));
    assert_eq!(asks(address, V1, "/"), Some(200));
    // The first bytes may still become either.
    let mut peer = Peer::connect(address);
    for byte in request("PUT", "/", &[], b"") {
        peer.send([byte]);
    }
    assert_eq!(peer.response("PUT").status, 200);
    let mut peer = Peer::connect(address);
    for byte in V1.bytes().chain(request("GET", "/", &[], b"")) {
        peer.send([byte]);
    }
    assert_eq!(peer.response("GET").status, 200);
    // What begins like a header must be one.
    assert_eq!(asks(address, "PROXY TCP4 nonsense\r\n", "/"), None);
}

#[test]
fn a_bind_can_ask_for_it_alone() {
    let (_gateway, address) = proxied(json!({}), Some("proxy"));
    assert_eq!(asks(address, V1, "/"), Some(200));
    assert_eq!(asks(address, v2_of_a_client(), "/"), Some(200));
    assert_eq!(asks(address, "", "/"), None);
    let (_gateway, address) = proxied(json!({}), Some("direct"));
    assert_eq!(asks(address, "", "/"), Some(200));
    assert_eq!(asks(address, V1, "/"), Some(400));
}
