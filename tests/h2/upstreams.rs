//! HTTP/2 behind: by prior knowledge and as TLS agrees; connections shared, limits kept, goodbyes understood.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Barrier};

use serde_json::json;

use crate::frames::{Client, END_HEADERS, END_STREAM, GOAWAY, HEADERS, REFUSED_STREAM, RST_STREAM, frame};
use crate::support::config::one_listener;
use crate::support::gateway::{Gateway, Setup, local};
use crate::support::mcp_client::{McpClient, text_of};
use crate::support::mcp_server::{Act, McpServer};
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::Peer;
use crate::support::{eventually, free_port};
use crate::tunnel::from_http2;

/// A gateway of one shard whose one backend speaks HTTP/2.
fn to(address: SocketAddr) -> (Gateway, SocketAddr) {
    let port = free_port();
    let policies = json!({ "http": { "version": "HTTP/2.0" } });
    let routes = json!([{ "backends": [{ "host": address.to_string(), "policies": policies }] }]);
    (Setup::new(&one_listener(port, routes).to_string()).args(&["--shards", "1"]).start(), local(port))
}

#[test]
fn requests_share_a_connection_as_far_as_the_server_lets_them() {
    for (streams, connections) in [(None, 1), (Some(10), 4)] {
        // All are there before any is answered.
        let gate = Arc::new(Barrier::new(40));
        let upstream = Upstream::answering(move |request| {
            if request.head.target() != "/first" {
                gate.wait();
            }
            Some(reply(200, &[], format!("{} {}", request.head.target(), request.body.len())))
        });
        let (address, seen) = from_http2(upstream.address, streams);
        let (_gateway, front) = to(address);
        // The server's limit is known once it has said something.
        assert_eq!(Peer::connect(front).get("/first").text(), "/first 0");
        let ask = |number: usize| {
            std::thread::spawn(move || {
                let body = "x".repeat(number * 1000);
                Peer::connect(front).ask("POST", &format!("/{number}"), &[], &body).text().to_owned()
            })
        };
        let asked: Vec<_> = (0..40).map(ask).collect();
        for (number, asked) in asked.into_iter().enumerate() {
            assert_eq!(asked.join().expect("an answer"), format!("/{number} {}", number * 1000));
        }
        assert_eq!((seen.requests(), seen.connections()), (41, connections), "{streams:?}");
    }
}

#[test]
fn large_answers_come_whole_and_others_pass_one_that_nobody_reads() {
    let upstream = Upstream::answering(|request| {
        let bytes = if request.head.target() == "/large" { 4_000_000 } else { 3 };
        Some(reply(200, &[], "z".repeat(bytes)))
    });
    let (address, seen) = from_http2(upstream.address, None);
    let (_gateway, front) = to(address);
    let mut unread: Vec<Peer> = (0..30).map(|_| Peer::connect(front)).collect();
    unread.iter_mut().for_each(|peer| peer.send("GET /large HTTP/1.1\r\nhost: a.test\r\n\r\n"));
    upstream.await_requests(30);
    assert_eq!(Peer::connect(front).get("/small").text(), "zzz");
    for peer in &mut unread {
        assert_eq!(peer.response("GET").body.len(), 4_000_000);
    }
    assert_eq!(seen.connections(), 1);
}

#[test]
fn a_server_that_is_gone_is_met_again() {
    let upstream = Upstream::named("ok");
    let (address, seen) = from_http2(upstream.address, None);
    let (_gateway, front) = to(address);
    assert_eq!(Peer::connect(front).get("/").text(), "ok");
    // Nothing listens: nothing is sent.
    let (_other, nobody) = to(local(free_port()));
    assert_eq!(Peer::connect(nobody).get("/").status, 502);
    assert_eq!(Peer::connect(front).get("/").text(), "ok");
    assert_eq!(seen.connections(), 1);
}

#[test]
fn mcp_targets_speak_it_too() {
    let server = McpServer::scripted("web", |seen| match seen.tool() {
        "slow" => Act::Events(vec![
            json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "error", "data": "wait" } }),
            json!({ "jsonrpc": "2.0", "id": seen.id(), "result": { "content": [{ "type": "text", "text": "done" }] } }),
        ]),
        _ => Act::Well,
    });
    let (address, seen) = from_http2(server.address, None);
    let mut target = server.target("web");
    target["mcp"]["host"] = json!(format!("http://{address}/mcp"));
    target["policies"] = json!({ "http": { "version": "HTTP/2.0" } });
    let port = free_port();
    let routes = json!([{ "backends": [{ "mcp": { "targets": [target] } }] }]);
    let gateway = Setup::new(&one_listener(port, routes).to_string()).args(&["--shards", "1"]).start();
    let sessions: Vec<McpClient> = (0..10).map(|_| McpClient::open(local(port))).collect();
    for session in &sessions {
        assert_eq!(session.call("echo", json!({})), "web: echo {}");
        let result = session.result("tools/call", json!({ "name": "slow", "arguments": {} }));
        assert_eq!(text_of(&result), "done");
    }
    assert_eq!(seen.connections(), 1, "sessions, their streams and their calls share one");
    sessions.iter().for_each(|session| assert_eq!(session.end().status, 200));
    eventually("the target is told", || server.count("DELETE") + server.sessions() > 0);
    assert_eq!(gateway.terminate().code, Some(0));
}

/// A server whose frames are the test's: it answers, refuses, or says goodbye, by the number of the request that comes.
fn by_hand(act: impl Fn(usize, u32) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut number = 0;
        // A connection after the other: the test makes them so.
        for stream in listener.incoming() {
            let mut server = Client::accept(stream.expect("a connection"));
            while let Some(frame) = server.frame() {
                if frame.kind == HEADERS {
                    let said = act(number, frame.stream);
                    number += 1;
                    if said.iter().any(|bytes| server.try_send(bytes).is_err() || bytes[3] == GOAWAY) {
                        break;
                    }
                }
            }
        }
    });
    address
}

fn ok(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88])
}

#[test]
fn what_a_server_never_looked_at_is_sent_again() {
    let address = by_hand(|number, stream| match number {
        // The first makes the connection one that has served; then one is refused, and comes again.
        0 | 2 => vec![ok(stream)],
        1 => vec![frame(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes())],
        // Goodbye, and the last that was looked at is the one before.
        3 => vec![frame(GOAWAY, 0, 0, &[&(stream - 2).to_be_bytes()[..], &0u32.to_be_bytes()[..]].concat())],
        4 | 5 => vec![ok(stream)],
        // What broke otherwise is not sent again: the server may have acted on it.
        _ => vec![frame(RST_STREAM, 0, stream, &2u32.to_be_bytes())],
    });
    let (_gateway, front) = to(address);
    for request in ["first", "refused", "goodbye", "after"] {
        assert_eq!(Peer::connect(front).ask("POST", "/", &[], request).status, 200, "{request}");
    }
    assert_eq!(Peer::connect(front).ask("POST", "/", &[], "broken").status, 502);
}
