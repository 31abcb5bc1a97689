//! One message after the other: framing both ways, versions, headers of one hop.

use std::io::Read;
use std::time::Duration;

use serde_json::json;

use crate::support::eventually;
use crate::support::upstream::{Upstream, chunked, reply};
use crate::support::wire::{Peer, Response, request};
use crate::{echo, in_front_of, says, with_routes};

#[test]
fn one_connection_serves_many_requests_on_both_sides() {
    let upstream = Upstream::named("ok");
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    for _ in 0..50 {
        assert_eq!(peer.ask("POST", "/", &[], "body").text(), "ok");
    }
    assert_eq!((upstream.requests().len(), upstream.connections()), (50, 1));
    let last = peer.ask("GET", "/", &[("connection", "close")], "");
    assert_eq!(last.get("connection"), Some("close"));
    assert!(peer.closes());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::answering(|request| {
        if request.head.target() == "/1" {
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(reply(200, &[], format!("{} {}", request.head.target(), String::from_utf8_lossy(&request.body))))
    });
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    let mut bytes = request("POST", "/1", &[], b"one");
    bytes.extend(request("GET", "/2", &[], b""));
    bytes.extend(b"POST /3 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n");
    bytes.extend(request("GET", "/4", &[], b""));
    peer.send(&bytes);
    let answers: Vec<String> = (0..4).map(|_| peer.response("GET").text().to_owned()).collect();
    assert_eq!(answers, ["/1 one", "/2 ", "/3 three", "/4 "]);
    // One byte at a time is the same.
    let mut peer = Peer::connect(address);
    bytes.chunks(1).for_each(|byte| peer.send(byte));
    let answers: Vec<String> = (0..4).map(|_| peer.response("GET").text().to_owned()).collect();
    assert_eq!(answers, ["/1 one", "/2 ", "/3 three", "/4 "]);
}

#[test]
fn chunks_pass_in_both_directions_and_trailers_are_dropped() {
    let upstream = Upstream::answering(|request| {
        let mut answer = chunked(200, &[("trailer", "x-sum")], &["got ", &String::from_utf8_lossy(&request.body)]);
        let end = answer.len() - 2;
        answer.splice(end..end, *b"x-sum: 1\r\nset-cookie: bad=1\r\n");
        Some(answer)
    });
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    for _ in 0..3 {
        peer.send(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: authorization\r\n\r\n\
             5;name=value\r\nhello\r\n1\r\n \r\n00005\r\nworld\r\n0\r\nauthorization: bad\r\n\r\n",
        );
        let head = peer.head().expect("a head");
        assert!(head.is_chunked());
        let mut body = Vec::new();
        while let Some(chunk) = peer.chunk() {
            body.extend(chunk);
        }
        assert_eq!(body, b"got hello world");
    }
    let request = upstream.last();
    assert_ne!(request.head.is_chunked(), request.head.length().is_some(), "one framing: {:?}", request.head);
    assert_eq!(request.body, b"hello world");
    assert_eq!(request.head.get("authorization"), None, "a trailer is no header");
}

#[test]
fn expect_continue_asks_for_the_body_once() {
    let upstream = echo();
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    peer.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(peer.head().expect("an interim answer").status(), 100);
    peer.send("body");
    let response = peer.response("POST");
    assert_eq!(response.status, 200);
    assert!(response.text().ends_with("\n\nbody"));
    assert_eq!(upstream.last().head.get("expect"), None, "the gateway answered it");
    // A refused request is not asked for its body.
    let (_gateway, address) =
        with_routes(json!([{ "matches": [{ "path": { "exact": "/x" } }], "policies": says("x") }]));
    let mut peer = Peer::connect(address);
    peer.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(peer.head().expect("an answer").status(), 404);
    let mut peer = Peer::connect(address);
    peer.send("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 200-maybe\r\n\r\n");
    assert_eq!(peer.head().expect("an answer").status(), 417);
}

#[test]
fn answers_without_a_body_have_none() {
    let upstream = Upstream::answering(|request| {
        Some(match (request.head.method(), request.head.target()) {
            ("HEAD", _) => b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nx-head: 1\r\n\r\n".to_vec(),
            (_, "/204") => b"HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n".to_vec(),
            (_, "/304") => b"HTTP/1.1 304 Not Modified\r\netag: \"e\"\r\n\r\n".to_vec(),
            (_, "/early") => {
                let mut bytes = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec();
                bytes.extend(reply(200, &[], "late"));
                bytes
            }
            _ => reply(200, &[], "full"),
        })
    });
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    let head = peer.ask("HEAD", "/", &[], "");
    assert_eq!((head.status, head.head.length(), head.get("x-head")), (200, Some(1234), Some("1")));
    let none = peer.get("/204");
    assert_eq!((none.status, none.head.length(), none.head.is_chunked()), (204, None, false));
    let unchanged = peer.get("/304");
    assert_eq!((unchanged.status, unchanged.get("etag")), (304, Some("\"e\"")));
    assert_eq!(peer.get("/early").text(), "late");
    assert_eq!(peer.get("/").text(), "full");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn old_clients_and_old_servers_are_served() {
    let upstream = Upstream::answering(|request| match request.head.target() {
        "/chunked" => Some(chunked(200, &[], &["a", "b"])),
        _ => Some(reply(200, &[], "ok")),
    });
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    peer.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(peer.response("GET").text(), "ok");
    assert!(peer.closes(), "1.0 closes unless it asks not to");
    assert_eq!(upstream.last().head.all("host"), [upstream.address.to_string()]);
    assert!(upstream.last().head.start_line.ends_with("HTTP/1.1"), "we speak our own version");
    let mut peer = Peer::connect(address);
    peer.send("GET /chunked HTTP/1.0\r\nhost: a\r\n\r\n");
    let head = peer.head().expect("a head");
    assert!(!head.is_chunked(), "1.0 knows no chunks: {head:?}");
    assert_eq!(peer.body(&head, true), b"ab");
    let mut peer = Peer::connect(address);
    peer.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
    let response = peer.response("GET");
    assert_eq!((response.text(), response.get("connection")), ("ok", Some("keep-alive")));
    peer.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(peer.response("GET").text(), "ok");
    // A server that marks the end of its body by closing.
    let old = Upstream::http(|_, peer| {
        let _ = peer.try_send("HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the end");
        false
    });
    let (_gateway, address) = in_front_of(&old);
    let mut peer = Peer::connect(address);
    assert_eq!(peer.get("/").text(), "until the end");
    assert_eq!(peer.get("/").text(), "until the end", "the client's connection does not end with it");
}

#[test]
fn hop_by_hop_headers_stay_on_their_hop() {
    let hop = [
        ("connection", "x-hop, X-Other"),
        ("x-hop", "1"),
        ("x-other", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("proxy-authenticate", "Basic"),
        ("proxy-authorization", "Basic x"),
        ("x-end", "to-end"),
    ];
    let upstream = Upstream::answering(move |_| Some(reply(200, &hop, "ok")));
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    let response = peer.ask("GET", "/", &hop, "");
    let request = upstream.last();
    for name in ["x-hop", "x-other", "keep-alive", "proxy-connection", "te", "upgrade", "proxy-authorization"] {
        assert_eq!(request.head.get(name), None, "{name} went upstream");
    }
    for name in ["x-hop", "x-other", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert_eq!(response.get(name), None, "{name} came downstream");
    }
    assert_eq!((request.head.get("x-end"), response.get("x-end")), (Some("to-end"), Some("to-end")));
    // What frames the message cannot be taken away by naming it.
    let response = peer.ask("POST", "/", &[("connection", "content-length, host")], "four");
    assert!([200, 400].contains(&response.status));
    if response.status == 200 {
        assert_eq!(upstream.last().body, b"four");
    }
}

#[test]
fn many_connections_at_one_time_are_all_served() {
    let upstream = echo();
    let (gateway, address) = in_front_of(&upstream);
    let clients = (0..16).map(|client| {
        std::thread::spawn(move || {
            for number in 0..40 {
                let mut peer = Peer::connect(address);
                let body = format!("{client}-{number}");
                let response: Response = peer.ask("POST", "/", &[], &body);
                assert!(response.text().ends_with(&format!("\n\n{body}")), "an answer of somebody else");
            }
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().expect("all served"));
    eventually("all connections are gone", || gateway.metric("agentlane_downstream_connections", "") == 0.0);
    assert_eq!(gateway.metric("agentlane_requests_total", "status=\"2xx\""), 640.0);
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let upstream = Upstream::named("ok");
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    peer.send(request("GET", "/", &[], b""));
    peer.finish();
    let mut text = String::new();
    let _ = peer.stream().read_to_string(&mut text);
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("ok"), "{text}");
}
