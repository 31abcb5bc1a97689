//! What policies change in a request, in its answer, and what they answer themselves.

use serde_json::{Value, json};

use crate::support::upstream::{Upstream, reply};
use crate::support::wire::Peer;
use crate::{echo, with_routes};

#[test]
fn rewrite_changes_path_and_authority() {
    let upstream = echo();
    let backend = json!([{ "host": upstream.address.to_string() }]);
    let route = |prefix: &str, rewrite: Value| json!({ "matches": [{ "path": { "pathPrefix": prefix } }], "policies": { "urlRewrite": rewrite }, "backends": backend });
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
    let preflight = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-token"),
    ];
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
    let foreign =
        peer.ask("OPTIONS", "/", &[("origin", "https://evil.example"), ("access-control-request-method", "PUT")], "");
    assert_eq!(foreign.get("access-control-allow-origin"), None);
    assert_eq!(peer.get("/").get("access-control-allow-origin"), None, "no origin, no mark");
}
