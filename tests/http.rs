//! Plain HTTP through the real binary, seen from both of its sides.

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::config::{one_listener, to_backend};
use support::gateway::{Gateway, local};
use support::upstream::{Upstream, chunked, reply};
use support::wire::{Peer, Response, request};
use support::{PATIENCE, eventually, free_port, resident_kib};

/// A gateway in front of one upstream.
fn in_front_of(upstream: &Upstream) -> (Gateway, SocketAddr) {
    let port = free_port();
    (Gateway::start(&to_backend(port, upstream.address).to_string()), local(port))
}

/// The same with `frontendPolicies.http`.
fn limited(upstream: &Upstream, http: Value) -> (Gateway, SocketAddr) {
    let port = free_port();
    let mut config = to_backend(port, upstream.address);
    config["frontendPolicies"] = json!({ "http": http });
    (Gateway::start(&config.to_string()), local(port))
}

/// A gateway with these routes on one listener.
fn with_routes(routes: Value) -> (Gateway, SocketAddr) {
    let port = free_port();
    (Gateway::start(&one_listener(port, routes).to_string()), local(port))
}

fn says(text: &str) -> Value {
    json!({ "directResponse": { "status": 200, "body": text } })
}

/// An upstream that sends each request's head and body back as text.
fn echo() -> Upstream {
    Upstream::answering(|request| {
        let mut body = format!("{}\n", request.head.start_line);
        request.head.headers.iter().for_each(|(name, value)| body.push_str(&format!("{name}: {value}\n")));
        body.push('\n');
        body.push_str(&String::from_utf8_lossy(&request.body));
        Some(reply(200, &[], body))
    })
}

#[track_caller]
fn assert_answers(address: SocketAddr, target: &str, headers: &[(&str, &str)], status: u16, body: &str) {
    let response = Peer::connect(address).ask("GET", target, headers, "");
    assert_eq!((response.status, response.text()), (status, body), "GET {target} {headers:?}");
}

// Routes

#[test]
fn weights_are_exact_over_a_round() {
    let upstreams = [Upstream::named("a"), Upstream::named("b"), Upstream::named("c")];
    let weights = [5, 3, 2];
    let backends = upstreams.iter().zip(weights).map(|(upstream, weight)| json!({ "host": upstream.address.to_string(), "weight": weight }));
    let (_gateway, address) = with_routes(json!([{ "backends": backends.collect::<Vec<_>>() }]));
    let mut peer = Peer::connect(address);
    for _ in 0..4 {
        let round: Vec<String> = (0..10).map(|_| peer.get("/").text().to_owned()).collect();
        let count = |name| round.iter().filter(|answer| *answer == name).count();
        assert_eq!([count("a"), count("b"), count("c")], weights, "{round:?}");
    }
}

#[test]
fn a_backend_without_weight_gets_nothing() {
    let upstreams = [Upstream::named("a"), Upstream::named("b")];
    let backends = json!([
        { "host": upstreams[0].address.to_string(), "weight": 0 },
        { "host": upstreams[1].address.to_string(), "weight": 1 },
    ]);
    let (_gateway, address) = with_routes(json!([{ "backends": backends }]));
    (0..5).for_each(|_| assert_answers(address, "/", &[], 200, "b"));
    assert_eq!(upstreams[0].connections(), 0);
}

#[test]
fn the_most_exact_route_is_chosen_wherever_it_is_written() {
    let route = |matches: Value, text| json!({ "matches": [matches], "policies": says(text) });
    let (_gateway, address) = with_routes(json!([
        route(json!({ "path": { "pathPrefix": "/" } }), "root"),
        route(json!({ "path": { "pathPrefix": "/a" } }), "prefix a"),
        route(json!({ "path": { "pathPrefix": "/a/b/" } }), "prefix a/b"),
        route(json!({ "path": { "exact": "/a/b" } }), "exact a/b"),
        route(json!({ "path": { "regex": "/n/[0-9]+" } }), "regex"),
        route(json!({ "path": { "pathPrefix": "/a" }, "method": "POST" }), "post a"),
        route(json!({ "path": { "pathPrefix": "/a" }, "headers": [{ "name": "X-Kind", "value": { "exact": "k" } }] }), "header a"),
        route(json!({ "path": { "pathPrefix": "/a" }, "headers": [{ "name": "x-kind", "value": { "regex": "r+" } }] }), "header regex a"),
        route(json!({ "path": { "pathPrefix": "/a" }, "query": [{ "name": "q", "value": { "exact": "1 2" } }] }), "query a"),
    ]));
    let cases: [(&str, &[(&str, &str)], &str); 17] = [
        ("/", &[], "root"),
        ("/ab", &[], "root"),
        ("/a", &[], "prefix a"),
        ("/a/", &[], "prefix a"),
        ("/a?x=y", &[], "prefix a"),
        ("/a/b", &[], "exact a/b"),
        ("/a/b?x", &[], "exact a/b"),
        ("/a/b/", &[], "prefix a/b"),
        ("/a/b/c", &[], "prefix a/b"),
        ("/n/12", &[], "regex"),
        ("/n/12/x", &[], "root"),
        ("/x/n/12", &[], "root"),
        ("/a/c", &[("x-kind", "k")], "header a"),
        ("/a/c", &[("X-KIND", "rrr")], "header regex a"),
        ("/a/c", &[("x-kind", "rk")], "prefix a"),
        ("/a/c?p=0&q=1%202", &[], "query a"),
        ("/a/c?q=1", &[], "prefix a"),
    ];
    for (target, headers, expected) in cases {
        assert_answers(address, target, headers, 200, expected);
    }
    let posted = Peer::connect(address).ask("POST", "/a", &[], "");
    assert_eq!(posted.text(), "post a");
}

#[test]
fn nothing_matches_404() {
    let (gateway, address) = with_routes(json!([{ "matches": [{ "path": { "exact": "/only" } }], "policies": says("only") }]));
    let mut peer = Peer::connect(address);
    assert_eq!(peer.get("/other").status, 404);
    assert_eq!(peer.get("/only").text(), "only", "the connection goes on");
    assert_eq!(gateway.metric("agentlane_unrouted_requests_total", ""), 1.0);
}

#[test]
fn hosts_choose_the_listener_and_the_route() {
    let port = free_port();
    let listener = |name: &str, hostname: Option<&str>, routes: Value| {
        let mut listener = json!({ "name": name, "routes": routes });
        if let Some(hostname) = hostname {
            listener["hostname"] = hostname.into();
        }
        listener
    };
    let config = json!({ "binds": [{ "port": port, "address": "127.0.0.1", "listeners": [
        listener("any", None, json!([{ "policies": says("any") }])),
        listener("wild", Some("*.example.org"), json!([
            { "hostnames": ["deep.a.example.org"], "policies": says("route host") },
            { "policies": says("wild") },
        ])),
        listener("exact", Some("api.example.org"), json!([{ "policies": says("exact") }])),
    ]}]});
    let _gateway = Gateway::start(&config.to_string());
    let cases = [
        ("api.example.org", "exact"),
        ("API.Example.ORG:8080", "exact"),
        ("www.example.org", "wild"),
        ("a.b.example.org", "wild"),
        ("deep.a.example.org", "route host"),
        ("example.org", "any"),
        ("notexample.org", "any"),
        ("127.0.0.1", "any"),
    ];
    for (host, expected) in cases {
        assert_answers(local(port), "/", &[("host", host)], 200, expected);
    }
    let mut absolute = Peer::connect(local(port));
    absolute.send("GET http://api.example.org/x HTTP/1.1\r\nhost: api.example.org\r\n\r\n");
    assert_eq!(absolute.response("GET").text(), "exact", "the absolute form names the host as well");
}

// Policies

#[test]
fn rewrite_changes_path_and_authority() {
    let upstream = echo();
    let backend = json!([{ "host": upstream.address.to_string() }]);
    let route = |prefix: &str, rewrite: Value| {
        json!({ "matches": [{ "path": { "pathPrefix": prefix } }], "policies": { "urlRewrite": rewrite }, "backends": backend })
    };
    let (_gateway, address) = with_routes(json!([
        route("/prefix", json!({ "path": { "prefix": "/new" } })),
        route("/root", json!({ "path": { "prefix": "/" } })),
        route("/full", json!({ "path": { "full": "/all" } })),
        route("/host", json!({ "authority": { "full": "internal.example:81" } })),
        json!({ "backends": backend }),
    ]));
    let cases = [
        ("/prefix/a?x=1", "/new/a?x=1", "localhost"),
        ("/prefix", "/new", "localhost"),
        ("/root/a/b", "/a/b", "localhost"),
        ("/root", "/", "localhost"),
        ("/full/a?x=1", "/all?x=1", "localhost"),
        ("/host/a", "/host/a", "internal.example:81"),
        ("/plain/%2e%2E/a//b?q=%20", "/plain/%2e%2E/a//b?q=%20", "localhost"),
    ];
    let mut peer = Peer::connect(address);
    for (target, expected, host) in cases {
        assert_eq!(peer.get(target).status, 200);
        let request = upstream.last();
        assert_eq!((request.head.target(), request.head.all("host")), (expected, vec![host]), "{target}");
    }
}

#[test]
fn redirects_and_direct_responses_come_from_the_gateway() {
    let (_gateway, address) = with_routes(json!([
        { "matches": [{ "path": { "pathPrefix": "/moved" } }], "policies": { "requestRedirect": {
            "scheme": "https", "authority": { "host": "www.example.org" }, "path": { "prefix": "/there" }, "status": 308 } } },
        { "matches": [{ "path": { "pathPrefix": "/found" } }], "policies": { "requestRedirect": { "path": { "full": "/x" } } } },
        { "matches": [{ "path": { "pathPrefix": "/tea" } }], "policies": { "directResponse": {
            "status": 418, "body": "short and stout", "headers": { "x-pot": "'blue'" } } } },
        { "matches": [{ "path": { "pathPrefix": "/empty" } }], "policies": { "directResponse": { "status": 204 } } },
    ]));
    let mut peer = Peer::connect(address);
    let moved = peer.get("/moved/a?b=c");
    assert_eq!((moved.status, moved.get("location")), (308, Some("https://www.example.org/there/a?b=c")));
    let found = peer.ask("GET", "/found", &[("host", "shop.example:8080")], "");
    assert_eq!((found.status, found.get("location")), (302, Some("http://shop.example:8080/x")));
    let tea = peer.get("/tea");
    assert_eq!((tea.status, tea.text(), tea.get("x-pot")), (418, "short and stout", Some("blue")));
    let head = peer.ask("HEAD", "/tea", &[], "");
    assert_eq!((head.status, head.head.length(), head.body.len()), (418, Some(15), 0));
    let empty = peer.get("/empty");
    assert_eq!((empty.status, empty.head.length()), (204, None));
    assert_eq!(peer.get("/tea").status, 418, "still the same connection");
}

#[test]
fn header_modifiers_work_in_both_directions() {
    let upstream = Upstream::answering(|_| {
        Some(reply(200, &[("server", "secret"), ("x-keep", "1"), ("x-set", "old"), ("x-add", "first")], "ok"))
    });
    let modifier = json!({ "set": { "x-set": "new" }, "add": { "x-add": "second" }, "remove": ["x-gone", "server"] });
    let (_gateway, address) = with_routes(json!([{
        "policies": { "requestHeaderModifier": modifier, "responseHeaderModifier": modifier },
        "backends": [{ "host": upstream.address.to_string(), "policies": { "requestHeaderModifier": { "set": { "x-backend": "b" } } } }],
    }]));
    let headers = [("X-Set", "old"), ("x-add", "first"), ("X-Gone", "1"), ("x-keep", "1")];
    let response = Peer::connect(address).ask("GET", "/", &headers, "");
    for head in [&upstream.last().head, &response.head] {
        assert_eq!(head.all("x-set"), ["new"]);
        assert_eq!(head.all("x-add"), ["first", "second"]);
        assert_eq!(head.all("x-keep"), ["1"]);
        assert_eq!((head.get("x-gone"), head.get("server")), (None, None));
    }
    assert_eq!(upstream.last().head.all("x-backend"), ["b"]);
}

#[test]
fn cors_answers_preflights_and_marks_answers() {
    let upstream = Upstream::named("data");
    let (_gateway, address) = with_routes(json!([{
        "policies": { "cors": {
            "allowOrigins": ["https://app.example"], "allowMethods": ["GET", "PUT"], "allowHeaders": ["x-token"],
            "exposeHeaders": ["x-total"], "allowCredentials": true, "maxAge": "5m",
        } },
        "backends": [{ "host": upstream.address.to_string() }],
    }]));
    let mut peer = Peer::connect(address);
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "PUT"), ("access-control-request-headers", "x-token")];
    let response = peer.ask("OPTIONS", "/", &preflight, "");
    assert!([200, 204].contains(&response.status), "{response:?}");
    assert_eq!(response.get("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(response.get("access-control-allow-methods"), Some("GET, PUT"));
    assert_eq!(response.get("access-control-allow-headers"), Some("x-token"));
    assert_eq!(response.get("access-control-allow-credentials"), Some("true"));
    assert_eq!(response.get("access-control-max-age"), Some("300"));
    assert_eq!(upstream.requests().len(), 0, "the upstream never sees a preflight");
    let simple = peer.ask("GET", "/", &[("origin", "https://app.example")], "");
    assert_eq!((simple.status, simple.text()), (200, "data"));
    assert_eq!(simple.get("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(simple.get("access-control-expose-headers"), Some("x-total"));
    assert!(simple.get("vary").is_some_and(|vary| vary.to_ascii_lowercase().contains("origin")), "{simple:?}");
    let foreign = peer.ask("GET", "/", &[("origin", "https://evil.example")], "");
    assert_eq!((foreign.status, foreign.get("access-control-allow-origin")), (200, None));
    let foreign = peer.ask("OPTIONS", "/", &[("origin", "https://evil.example"), ("access-control-request-method", "PUT")], "");
    assert_eq!(foreign.get("access-control-allow-origin"), None);
    assert_eq!(peer.get("/").get("access-control-allow-origin"), None, "no origin, no mark");
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
    let twice = Upstream::answering(|_| Some(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc".to_vec()));
    let route = |path: &str, address: SocketAddr| {
        json!({ "matches": [{ "path": { "exact": path } }], "backends": [{ "host": address.to_string() }] })
    };
    let (_gateway, address) = with_routes(json!([
        route("/down", local(down)), route("/closing", closing.address), route("/babbling", babbling.address), route("/twice", twice.address),
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

// Messages

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
    let (_gateway, address) = with_routes(json!([{ "matches": [{ "path": { "exact": "/x" } }], "policies": says("x") }]));
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

// Streams

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
            peer.send(support::upstream::chunk(&format!("data: {number}\n\n")));
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

// Limits

#[test]
fn a_slow_head_is_408_and_silence_ends_a_connection() {
    let upstream = Upstream::named("ok");
    let (_gateway, address) = limited(&upstream, json!({ "headerTimeout": "200ms", "http1IdleTimeout": "300ms", "bodyTimeout": "200ms" }));
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
    let (_gateway, address) = limited(&upstream, json!({ "maxBodyBytes": 1000, "maxHeaderBytes": 4096, "http1MaxHeaders": 20 }));
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
    assert_eq!(upstream.requests().len(), 0, "none of them went on");
    let chunk = format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    assert_eq!(status(chunk.into_bytes()), 413);
    let mut peer = Peer::connect(address);
    assert_eq!(peer.ask("POST", "/", &[], "x".repeat(1000)).status, 200, "the limit itself is allowed");
    assert_eq!(peer.ask("GET", "/", &[("x-long", &long[..3000])], "").status, 200);
}

// Smuggling

/// Requests that two readers could understand in two ways. Each is followed by what a smuggler would want to be read as a
/// request of its own.
const AMBIGUOUS: [(&str, &str); 30] = [
    ("length and chunks", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunks and length", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n"),
    ("two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde"),
    ("a list of lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4, 5\r\n\r\nabcde"),
    ("a signed length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nabcd"),
    ("a negative length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n"),
    ("a hexadecimal length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x4\r\n\r\nabcd"),
    ("an empty length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\nabcd"),
    ("a length past 64 bits", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551620\r\n\r\nabcd"),
    ("another coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked is not last", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("chunked twice", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a quoted coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("a space before the colon", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("a tab before the colon", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded header", "POST / HTTP/1.1\r\nhost: a\r\nx: 1\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("a space before the first header", "POST / HTTP/1.1\r\n host: a\r\ncontent-length: 0\r\n\r\n"),
    ("bare line feeds", "POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n0\n\n"),
    ("a bare line feed in a value", "POST / HTTP/1.1\r\nhost: a\r\nx: 1\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a bare carriage return", "POST / HTTP/1.1\r\nhost: a\r\nx: 1\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a NUL", "POST / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n"),
    ("a control character in a name", "POST / HTTP/1.1\r\nhost: a\r\ntransfer\x0bencoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a header without a colon", "POST / HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n"),
    ("an empty name", "POST / HTTP/1.1\r\nhost: a\r\n: chunked\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\nx: a\r\n\r\n"),
    ("another host in the target", "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("chunks in 1.0", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("spaces in the target", "GET / x HTTP/1.1\r\nhost: a\r\n\r\n"),
];

/// Bodies in chunks that are broken after a good head.
const BROKEN_CHUNKS: [(&str, &str); 9] = [
    ("no size", "\r\nabcd\r\n0\r\n\r\n"),
    ("a size past 64 bits", "10000000000000004\r\nabcd\r\n0\r\n\r\n"),
    ("a signed size", "+4\r\nabcd\r\n0\r\n\r\n"),
    ("0x", "0x4\r\nabcd\r\n0\r\n\r\n"),
    ("a space before the size", " 4\r\nabcd\r\n0\r\n\r\n"),
    ("a bare line feed", "4\nabcd\r\n0\r\n\r\n"),
    ("a size too small", "3\r\nabcd\r\n0\r\n\r\n"),
    ("a line feed in an extension", "4;a\nb\r\nabcd\r\n0\r\n\r\n"),
    ("a broken trailer", "4\r\nabcd\r\n0\r\nbad trailer\r\n\r\n"),
];

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn ambiguous_heads_are_refused_and_nothing_of_them_goes_on() {
    let upstream = Upstream::named("ok");
    let (_gateway, address) = in_front_of(&upstream);
    for (what, bytes) in AMBIGUOUS {
        let mut peer = Peer::connect(address);
        peer.send(format!("{bytes}{SMUGGLED}"));
        let response = peer.response("POST");
        assert!([400, 501].contains(&response.status), "{what}: {}", response.status);
        assert!(peer.closes(), "{what}: the connection goes on");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn broken_chunks_never_reach_another_request() {
    let upstream = Upstream::answering(|request| Some(reply(200, &[], request.head.target())));
    let (_gateway, address) = in_front_of(&upstream);
    for (what, chunks) in BROKEN_CHUNKS {
        let mut peer = Peer::connect(address);
        peer.send(format!("POST /broken HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{SMUGGLED}"));
        let text = String::from_utf8_lossy(&peer.rest().unwrap_or_else(|| panic!("{what}: not closed"))).into_owned();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{what}: {text}");
        assert_eq!(Peer::connect(address).get("/next").text(), "/next", "{what}: a poisoned connection");
    }
    let smuggled = |request: &support::upstream::Request| request.head.target() == "/smuggled";
    assert!(!upstream.requests().iter().any(smuggled));
}

#[test]
fn a_doubtful_answer_ends_its_connection() {
    // More bytes than the answer has: the next answer would be theirs.
    let upstream = Upstream::answering(|request| match request.head.target() {
        "/trap" => {
            let mut bytes = reply(200, &[], "ok");
            bytes.extend(reply(200, &[], "poisoned"));
            Some(bytes)
        }
        target => Some(reply(200, &[], target)),
    });
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    for _ in 0..10 {
        assert_eq!(peer.get("/trap").text(), "ok");
        assert_eq!(peer.get("/next").text(), "/next");
    }
    let both = Upstream::answering(|_| {
        Some(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec())
    });
    let (_gateway, address) = in_front_of(&both);
    assert_eq!(Peer::connect(address).get("/").status, 502);
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
