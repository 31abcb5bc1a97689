//! `health`: addresses that keep failing rest, are tried with one request, and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::mcp_client::{McpClient, answer_of, message};
use crate::support::mcp_server::{Act, McpServer};
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::Peer;
use crate::with_routes;

/// An upstream that fails while it is told to.
struct Patient {
    upstream: Upstream,
    is_ill: Arc<AtomicBool>,
    seen: Arc<AtomicUsize>,
}

impl Patient {
    fn new() -> Self {
        let (is_ill, seen) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let upstream = Upstream::answering({
            let (is_ill, seen) = (is_ill.clone(), seen.clone());
            move |_| {
                seen.fetch_add(1, Ordering::SeqCst);
                let status = if is_ill.load(Ordering::SeqCst) { 500 } else { 200 };
                Some(reply(status, &[], "patient"))
            }
        });
        Patient { upstream, is_ill, seen }
    }

    fn backend(&self, eviction: Value) -> Value {
        json!({ "host": self.upstream.address.to_string(), "policies": { "health": { "eviction": eviction } } })
    }

    fn heal(&self) {
        self.is_ill.store(false, Ordering::SeqCst);
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

#[test]
fn one_that_fails_rests_while_others_serve() {
    let patient = Patient::new();
    let good = Upstream::named("good");
    let ill = patient.backend(json!({ "consecutiveFailures": 3, "duration": "1h" }));
    let (gateway, address) = with_routes(json!([{ "backends": [ill, { "host": good.address.to_string() }] }]));
    let mut peer = Peer::connect(address);
    let failed = (0..40).filter(|_| peer.get("/").status == 500).count();
    assert_eq!((failed, patient.seen()), (3, 3), "the other one stands in for it");
    assert_eq!(gateway.metric("agentlane_endpoint_evictions_total", ""), 1.0);
    assert_eq!(gateway.metric("agentlane_endpoints_evicted", ""), 1.0);
    assert!(gateway.stderr().contains("an endpoint keeps failing"), "the log says so");
}

#[test]
fn failures_must_follow_each_other() {
    let seen = AtomicUsize::new(0);
    let upstream = Upstream::answering(move |_| {
        let number = seen.fetch_add(1, Ordering::SeqCst);
        Some(reply(if number % 3 == 2 { 200 } else { 500 }, &[], ""))
    });
    let health = json!({ "health": { "eviction": { "consecutiveFailures": 3, "duration": "1h" } } });
    let (_gateway, address) =
        with_routes(json!([{ "backends": [{ "host": upstream.address.to_string(), "policies": health }] }]));
    let mut peer = Peer::connect(address);
    assert!((0..30).all(|_| peer.get("/").status != 503));
}

#[test]
fn a_backend_at_rest_is_answered_for_and_tried_with_one_request() {
    let patient = Patient::new();
    let backend = patient.backend(json!({ "consecutiveFailures": 2, "duration": "300ms" }));
    let (gateway, address) = with_routes(json!([{ "backends": [backend] }]));
    let mut peer = Peer::connect(address);
    assert_eq!([peer.get("/").status, peer.get("/").status], [500, 500]);
    let refused = peer.get("/");
    assert_eq!((refused.status, refused.text(), refused.get("retry-after")), (503, "no_backend", Some("1")));
    assert_eq!(patient.seen(), 2);
    // One trial after the rest, which fails.
    eventually("it is tried", || peer.get("/").status == 500);
    assert_eq!((patient.seen(), peer.get("/").status), (3, 503));
    patient.heal();
    eventually("it serves again", || peer.get("/").status == 200);
    assert!((0..20).all(|_| peer.get("/").status == 200));
    assert_eq!(gateway.metric("agentlane_endpoint_evictions_total", ""), 2.0);
    assert_eq!(gateway.metric("agentlane_endpoints_evicted", ""), 0.0);
}

#[test]
fn not_more_than_so_many_rest() {
    let patient = Patient::new();
    let backend = patient.backend(json!({ "consecutiveFailures": 1, "duration": "1h", "maxPercent": 50 }));
    let (_gateway, address) = with_routes(json!([{ "backends": [backend] }]));
    let mut peer = Peer::connect(address);
    assert!((0..10).all(|_| peer.get("/").status == 500), "half of one address is none");
}

#[test]
fn an_mcp_target_that_keeps_failing_is_not_asked() {
    let is_ill = Arc::new(AtomicBool::new(false));
    let server = McpServer::scripted("web", {
        let is_ill = is_ill.clone();
        move |_| if is_ill.load(Ordering::SeqCst) { Act::Bytes(reply(500, &[], "")) } else { Act::Well }
    });
    let well = McpServer::good("well");
    let mut target = server.target("web");
    target["policies"] = json!({ "health": { "eviction": { "consecutiveFailures": 2, "duration": "300ms" } } });
    let (_gateway, address) =
        with_routes(json!([{ "backends": [{ "mcp": { "targets": [target, well.target("well")] } }] }]));
    let client = McpClient::open(address);
    let call = |tool: &str| {
        let call = message(7, "tools/call", json!({ "name": tool, "arguments": {} }));
        let result = &answer_of(&client.post(&call))["result"];
        (result["isError"] == true).then(|| result["content"][0]["text"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(call("web__echo"), None);
    is_ill.store(true, Ordering::SeqCst);
    let failures: Vec<String> = (0..2).filter_map(|_| call("web__echo")).collect();
    assert_eq!(failures.len(), 2);
    let asked = server.count("tools/call");
    let refused = call("web__echo").expect("a failure");
    assert!(refused.contains("target keeps failing"), "{refused}");
    assert_eq!((server.count("tools/call"), call("well__echo")), (asked, None));
    is_ill.store(false, Ordering::SeqCst);
    eventually("it is asked again", || call("web__echo").is_none());
}
