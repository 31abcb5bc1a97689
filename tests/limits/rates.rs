//! `localRateLimit`: how many requests pass, over all shards, and what the others are told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::config::one_listener;
use crate::support::gateway::{Setup, local};
use crate::support::mcp_client::{McpClient, initialize};
use crate::support::mcp_server::McpServer;
use crate::support::wire::Peer;
use crate::support::{PATIENCE, free_port};
use crate::{answers, with_routes, with_routes_on};

/// So many at once, and then nothing more for the length of a test.
fn at_most(tokens: u64) -> Value {
    json!([{ "maxTokens": tokens, "tokensPerFill": 1, "fillInterval": "1h" }])
}

fn passed(address: SocketAddr, path: &str, requests: usize) -> usize {
    let mut peer = Peer::connect(address);
    (0..requests).filter(|_| peer.get(path).status == 200).count()
}

#[test]
fn a_route_takes_what_its_limit_allows() {
    let (gateway, address) = with_routes(json!([
        answers("/limited", "localRateLimit", at_most(3)),
        answers("/other", "localRateLimit", at_most(100)),
    ]));
    assert_eq!(passed(address, "/limited", 3), 3);
    let refused = Peer::connect(address).get("/limited");
    assert_eq!((refused.status, refused.text()), (429, "rate_limited"));
    let seconds: u64 = refused.get("retry-after").expect("when to come back").parse().expect("seconds");
    assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    assert_eq!((refused.get("x-ratelimit-limit"), refused.get("x-ratelimit-remaining")), (Some("3"), Some("0")));
    assert_eq!(refused.get("x-ratelimit-reset"), refused.get("retry-after"));
    assert_eq!(passed(address, "/other", 10), 10, "each route has a bucket of its own");
    assert_eq!(gateway.metric("agentlane_requests_refused_total", "route=\"limited\""), 1.0);
    assert!(gateway.terminate().stdout.contains("fault=rate_limited"), "the access log says why");
}

#[test]
fn tokens_come_back_and_every_limit_must_hold() {
    let limits = json!([
        { "maxTokens": 2, "tokensPerFill": 2, "fillInterval": "200ms" },
        { "maxTokens": 5, "tokensPerFill": 1, "fillInterval": "1h" },
    ]);
    let (_gateway, address) = with_routes(json!([answers("/any", "localRateLimit", limits)]));
    let mut peer = Peer::connect(address);
    let deadline = Instant::now() + PATIENCE;
    let (mut passed, mut refused_within) = (0, 0);
    while passed < 5 {
        match peer.get("/any").status {
            200 => passed += 1,
            _ => refused_within += 1,
        }
        assert!(Instant::now() < deadline, "only {passed} of 5 came back");
    }
    // What the first limit refused did not use the second one up, or there would be fewer than five.
    assert!(refused_within > 0, "five at once, though only two may");
    let refused = peer.get("/any");
    assert_eq!(refused.status, 429);
}

#[test]
fn four_shards_share_one_limit_exactly() {
    const LIMIT: u64 = 2_000;
    let (gateway, address) = with_routes_on(4, json!([answers("/any", "localRateLimit", at_most(LIMIT))]));
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| passed.fetch_add(self::passed(address, "/any", 250) as u64, Ordering::Relaxed));
        }
    });
    let passed = passed.into_inner();
    assert!((LIMIT * 95 / 100..=LIMIT).contains(&passed), "{passed} of {LIMIT}");
    println!("four shards, 4000 requests on 16 connections: {passed} of {LIMIT} passed");
    let served = |shard: &usize| gateway.metric("agentlane_requests_total", &format!("shard=\"{shard}\"")) > 0.0;
    assert!((0..4).filter(served).count() > 1, "the connections are on several shards");
}

#[test]
fn a_rate_holds_under_load_over_time() {
    const TOKENS: u64 = 100;
    const INTERVAL: Duration = Duration::from_millis(250);
    let limits = json!([{ "maxTokens": TOKENS, "tokensPerFill": TOKENS, "fillInterval": "250ms" }]);
    let (_gateway, address) = with_routes_on(4, json!([answers("/any", "localRateLimit", limits)]));
    let (passed, refused, enough) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut peer = Peer::connect(address);
                while !enough.load(Ordering::Relaxed) {
                    let counter = if peer.get("/any").status == 200 { &passed } else { &refused };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while passed.load(Ordering::Relaxed) < 10 * TOKENS && begun.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        enough.store(true, Ordering::Relaxed);
    });
    let (passed, refused) = (passed.into_inner(), refused.into_inner());
    let fills = begun.elapsed().as_millis() as u64 / INTERVAL.as_millis() as u64;
    println!("{passed} passed and {refused} were refused in {fills} intervals of {TOKENS} tokens");
    assert!(passed >= 10 * TOKENS, "{passed} in {PATIENCE:?}");
    // The bucket that was full at the start, a fill that fell into the last interval, and one part in twenty.
    let most = (fills + 2) * TOKENS;
    assert!(passed <= most + most / 20, "{passed} passed in {fills} intervals of {TOKENS}");
}

#[test]
fn a_reload_does_not_fill_the_bucket_again() {
    let port = free_port();
    let config = |limit, other: &str| {
        let other = json!({ "directResponse": { "status": 200, "body": other } });
        let routes = json!([
            answers("/limited", "localRateLimit", at_most(limit)),
            { "matches": [{ "path": { "exact": "/other" } }], "policies": other },
        ]);
        one_listener(port, routes).to_string()
    };
    let gateway = Setup::new(&config(2, "a")).args(&["--shards", "1"]).start();
    let address = local(port);
    assert_eq!(passed(address, "/limited", 4), 2);
    gateway.reload(&config(2, "b"));
    assert_eq!(Peer::connect(address).get("/other").text(), "b");
    assert_eq!(passed(address, "/limited", 4), 0);
    // Another limit is another bucket.
    gateway.reload(&config(3, "b"));
    assert_eq!(passed(address, "/limited", 4), 3);
}

#[test]
fn mcp_clients_read_a_json_rpc_error() {
    let server = McpServer::good("web");
    let backends = json!([{ "mcp": { "targets": [server.target("web")] } }]);
    let (_gateway, address) =
        with_routes(json!([{ "policies": { "localRateLimit": at_most(1) }, "backends": backends }]));
    assert_eq!(initialize(address, "2025-06-18").status, 200);
    let refused = initialize(address, "2025-06-18");
    assert_eq!((refused.status, refused.get("content-type")), (429, Some("application/json")));
    let body = refused.json();
    assert_eq!((&body["jsonrpc"], &body["error"]["message"]), (&json!("2.0"), &json!("too many requests")));
    assert!(refused.get("retry-after").is_some());
}

#[test]
fn a_request_that_goes_to_another_shard_is_counted_once() {
    const LIMIT: u64 = 60;
    let server = McpServer::good("web");
    let backends = json!([{ "mcp": { "targets": [server.target("web")] } }]);
    let (gateway, address) =
        with_routes_on(4, json!([{ "policies": { "localRateLimit": at_most(LIMIT) }, "backends": backends }]));
    let ping = |client: &McpClient, peer: &mut Peer| {
        client.post_on(peer, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status
    };
    // `initialize` and `initialized` are two each.
    let sessions: Vec<McpClient> = (0..8).map(|_| McpClient::open(address)).collect();
    let mut sent = 2 * sessions.len() as u64;
    // A fresh connection is moved to its first session's shard; what it asks of others is forwarded.
    while sent < LIMIT {
        let mut peer = Peer::connect(address);
        for session in sessions.iter().take((LIMIT - sent) as usize) {
            assert_eq!(ping(session, &mut peer), 200, "request {sent} of {LIMIT}");
            sent += 1;
        }
    }
    assert_eq!(ping(&sessions[0], &mut Peer::connect(address)), 429);
    let counted = |name| gateway.metric(name, "");
    assert!(counted("agentlane_requests_forwarded_total") + counted("agentlane_connections_moved_total") > 0.0);
}

/// The same for each value of an expression.
fn for_each(key: &str, tokens: u64) -> Value {
    let mut limits = at_most(tokens);
    limits[0]["key"] = json!(key);
    limits
}

fn passed_with(address: SocketAddr, path: &str, headers: &[(&str, &str)], requests: usize) -> usize {
    let mut peer = Peer::connect(address);
    (0..requests).filter(|_| peer.ask("GET", path, headers, "").status == 200).count()
}

#[test]
fn each_identity_has_a_bucket() {
    let mut route = answers("/any", "localRateLimit", for_each("apiKey.team", 3));
    let keys = json!([
        { "key": "one", "metadata": { "team": "red" } },
        { "key": "other", "metadata": { "team": "red" } },
        { "key": "two", "metadata": { "team": "blue" } },
        { "key": "three" },
    ]);
    route["policies"]["apiKey"] = json!({ "mode": "optional", "keys": keys });
    let (_gateway, address) = with_routes_on(4, json!([route]));
    let passed = |key: &str| passed_with(address, "/any", &[("authorization", &format!("Bearer {key}"))], 2);
    assert_eq!((passed("one"), passed("other"), passed("one")), (2, 1, 0), "they are one team");
    assert_eq!((passed("two"), passed("two")), (2, 1), "another team is not touched by that");
    // Whoever has no team: never unlimited, and in nobody's place.
    assert_eq!((passed("three"), passed_with(address, "/any", &[], 5)), (2, 1));
    let refused = Peer::connect(address).get("/any");
    assert_eq!((refused.status, refused.get("x-ratelimit-limit")), (429, Some("3")));
}

#[test]
fn a_keyed_limit_is_one_for_all_shards_and_outlives_a_reload() {
    const LIMIT: u64 = 100;
    let port = free_port();
    let config = |other: &str| {
        let mut limits = for_each("request.headers['x-team']", LIMIT);
        // What another limit refuses is given back.
        limits.as_array_mut().expect("a list").push(json!({
            "maxTokens": LIMIT, "tokensPerFill": 1, "fillInterval": "1h", "key": "request.headers['x-user']",
        }));
        let other = json!({ "directResponse": { "status": 200, "body": other } });
        let routes = json!([
            answers("/any", "localRateLimit", limits),
            { "matches": [{ "path": { "exact": "/other" } }], "policies": other },
        ]);
        one_listener(port, routes).to_string()
    };
    let gateway = Setup::new(&config("a")).args(&["--shards", "4"]).start();
    let address = local(port);
    let passed = |team: &str, user: &str| {
        let passed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let headers = [("x-team", team), ("x-user", user)];
                let passed = &passed;
                let ask = move || passed_with(address, "/any", &headers, 20) as u64;
                scope.spawn(move || passed.fetch_add(ask(), Ordering::Relaxed));
            }
        });
        passed.into_inner()
    };
    assert_eq!(passed("red", "a"), LIMIT, "exactly");
    assert_eq!(passed("blue", "a"), 0, "the user has none left");
    gateway.reload(&config("b"));
    assert_eq!((passed("red", "b"), passed("blue", "c")), (0, LIMIT));
}
