//! `retry`: what is sent again, where, how often, and what never is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::free_port;
use crate::support::gateway::{Gateway, local};
use crate::support::mcp_client::{McpClient, answer_of, message};
use crate::support::mcp_server::{Act, McpServer};
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::Peer;
use crate::with_routes;

/// A gateway whose one route has these retries.
fn retrying(retry: Value, backends: Value) -> (Gateway, SocketAddr) {
    with_routes(json!([{ "name": "retried", "policies": { "retry": retry }, "backends": backends }]))
}

fn host(upstream: &Upstream) -> Value {
    json!({ "host": upstream.address.to_string() })
}

/// Fails the first requests with 503.
fn failing_first(failures: usize) -> (Upstream, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::answering({
        let seen = seen.clone();
        move |request| {
            let number = seen.fetch_add(1, Ordering::SeqCst);
            let body = String::from_utf8_lossy(&request.body).into_owned();
            Some(if number < failures { reply(503, &[], "not now") } else { reply(200, &[], body) })
        }
    });
    (upstream, seen)
}

#[test]
fn a_backend_that_is_down_is_passed_over() {
    let good = Upstream::answering(|request| {
        let backend = request.head.get("x-backend").unwrap_or("none").to_owned();
        Some(reply(200, &[], format!("{backend} {}", String::from_utf8_lossy(&request.body))))
    });
    let named = |host: String, name: &str| json!({ "host": host, "policies": { "requestHeaderModifier": { "set": { "x-backend": name } }, "responseHeaderModifier": { "set": { "x-from": name } } } });
    let down = named(local(free_port()).to_string(), "down");
    let backends = json!([down, named(good.address.to_string(), "good")]);
    let (gateway, address) = retrying(json!({ "attempts": 2, "codes": [] }), backends.clone());
    let mut peer = Peer::connect(address);
    for _ in 0..6 {
        // Nothing was sent to the first one: even a POST may go to the other.
        let response = peer.ask("POST", "/", &[], "body");
        assert_eq!((response.status, response.text(), response.get("x-from")), (200, "good body", Some("good")));
    }
    let streamed = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for _ in 0..2 {
        peer.send(streamed);
        peer.send("5\r\nlarge\r\n");
        peer.send("0\r\n\r\n");
        assert_eq!(peer.response("POST").text(), "good large");
    }
    assert_eq!(gateway.metric("agentlane_retries_total", "outcome=\"sent\""), 4.0);
    let (_gateway, address) = with_routes(json!([{ "backends": backends }]));
    let mut peer = Peer::connect(address);
    let failed = (0..6).filter(|_| peer.ask("POST", "/", &[], "body").status == 502).count();
    assert_eq!(failed, 3, "without the policy nothing is sent again");
}

#[test]
fn statuses_are_asked_again_for_where_that_is_safe() {
    let (upstream, seen) = failing_first(2);
    let (_gateway, address) =
        retrying(json!({ "attempts": 3, "codes": [503], "backoff": "10ms" }), json!([host(&upstream)]));
    let mut peer = Peer::connect(address);
    assert_eq!(peer.ask("PUT", "/", &[], "again").text(), "again");
    assert_eq!(seen.swap(0, Ordering::SeqCst), 3);
    let response = peer.ask("POST", "/", &[], "once");
    assert_eq!((response.status, response.text(), seen.swap(0, Ordering::SeqCst)), (503, "not now", 1));
    // The last answer is the client's, whatever it is.
    let (upstream, seen) = failing_first(100);
    let (_gateway, address) = retrying(json!({ "attempts": 4, "codes": [503] }), json!([host(&upstream)]));
    assert_eq!(Peer::connect(address).get("/").status, 503);
    assert_eq!(seen.load(Ordering::SeqCst), 4);
    // Other codes are answers.
    let (_gateway, address) = retrying(json!({ "attempts": 4, "codes": [502] }), json!([host(&upstream)]));
    assert_eq!(Peer::connect(address).get("/").status, 503);
    assert_eq!(seen.load(Ordering::SeqCst), 5);
}

#[test]
fn a_request_that_was_taken_is_not_sent_again_unless_it_is_idempotent() {
    let seen = Arc::new(AtomicUsize::new(0));
    let closing = Upstream::answering({
        let seen = seen.clone();
        move |_| {
            seen.fetch_add(1, Ordering::SeqCst);
            None
        }
    });
    let (_gateway, address) = retrying(json!({ "attempts": 3, "codes": [] }), json!([host(&closing)]));
    let mut peer = Peer::connect(address);
    assert_eq!(peer.ask("POST", "/", &[], "once").status, 502);
    assert_eq!(seen.swap(0, Ordering::SeqCst), 1);
    assert_eq!(peer.get("/").status, 502);
    assert_eq!(seen.swap(0, Ordering::SeqCst), 3);
}

#[test]
fn a_budget_keeps_retries_from_being_the_load() {
    const REQUESTS: usize = 60;
    let (upstream, seen) = failing_first(usize::MAX);
    let retry = json!({ "attempts": 5, "codes": [503], "budgetPercent": 10 });
    let (gateway, address) = retrying(retry, json!([host(&upstream)]));
    let begun = Instant::now();
    let mut peer = Peer::connect(address);
    (0..REQUESTS).for_each(|_| assert_eq!(peer.get("/").status, 503));
    // Ten at once, one a second, and a tenth of the requests.
    let most = REQUESTS + 10 + begun.elapsed().as_secs() as usize + 1 + REQUESTS / 10;
    let seen = seen.load(Ordering::SeqCst);
    assert!((REQUESTS + 10..=most).contains(&seen), "{seen} of {most}");
    assert!(gateway.metric("agentlane_retries_total", "outcome=\"denied\"") > 0.0);
}

#[test]
fn no_retry_outlasts_the_request_s_time() {
    let (upstream, seen) = failing_first(usize::MAX);
    let policies =
        json!({ "retry": { "attempts": 3, "codes": [503], "backoff": "30s" }, "timeout": { "requestTimeout": "10s" } });
    let (_gateway, address) = with_routes(json!([{ "policies": policies, "backends": [host(&upstream)] }]));
    let begun = Instant::now();
    assert_eq!(Peer::connect(address).get("/").status, 503);
    assert!(begun.elapsed() < Duration::from_secs(9));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[test]
fn of_mcp_messages_only_those_that_read_are_sent_again() {
    let lists = Arc::new(AtomicUsize::new(0));
    let server = McpServer::scripted("web", {
        let lists = lists.clone();
        move |seen| match seen.method() {
            "tools/list" if lists.fetch_add(1, Ordering::SeqCst) == 0 => Act::Bytes(reply(503, &[], "not now")),
            "tools/call" => Act::Bytes(reply(503, &[], "not now")),
            _ => Act::Well,
        }
    });
    let (_gateway, address) =
        retrying(json!({ "attempts": 3, "codes": [503] }), json!([{ "mcp": { "targets": [server.target("web")] } }]));
    let client = McpClient::open(address);
    assert_eq!(client.result("tools/list", json!({}))["tools"][0]["name"], "echo");
    assert_eq!(server.count("tools/list"), 2);
    let answer = answer_of(&client.post(&message(7, "tools/call", json!({ "name": "echo", "arguments": {} }))));
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert_eq!(server.count("tools/call"), 1, "a call may have had its effect");
}
