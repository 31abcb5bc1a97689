//! Which route and backend a request gets.

use serde_json::{Value, json};

use crate::support::free_port;
use crate::support::gateway::{Gateway, local};
use crate::support::upstream::Upstream;
use crate::support::wire::Peer;
use crate::{assert_answers, says, with_routes};

#[test]
fn weights_are_exact_over_a_round() {
    let upstreams = [Upstream::named("a"), Upstream::named("b"), Upstream::named("c")];
    let weights = [5, 3, 2];
    let backends = upstreams
        .iter()
        .zip(weights)
        .map(|(upstream, weight)| json!({ "host": upstream.address.to_string(), "weight": weight }));
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
        route(
            json!({ "path": { "pathPrefix": "/a" }, "headers": [{ "name": "X-Kind", "value": { "exact": "k" } }] }),
            "header a"
        ),
        route(
            json!({ "path": { "pathPrefix": "/a" }, "headers": [{ "name": "x-kind", "value": { "regex": "r+" } }] }),
            "header regex a"
        ),
        route(
            json!({ "path": { "pathPrefix": "/a" }, "query": [{ "name": "q", "value": { "exact": "1 2" } }] }),
            "query a"
        ),
    ]));
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Headers<'_>, &str); 17] = [
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
    let (gateway, address) =
        with_routes(json!([{ "matches": [{ "path": { "exact": "/only" } }], "policies": says("only") }]));
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
