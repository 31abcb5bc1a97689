//! What must not cross: requests that a page of another site makes a browser send, and requests of the gateway to places
//! that an upstream names.

use serde_json::json;

use crate::support::mcp_client::{McpClient, answer_of, initialize, message};
use crate::support::mcp_server::{Act, McpServer};
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::Peer;
use crate::{answers, with_routes};

#[test]
fn pages_of_other_sites_change_nothing() {
    let (gateway, address) =
        with_routes(json!([answers("/site", "csrf", json!({ "additionalOrigins": ["https://app.example"] }))]));
    let own = format!("http://{address}");
    let host = address.to_string();
    let mut peer = Peer::connect(address);
    let mut status = |method: &str, headers: &[(&str, &str)]| {
        let headers: Vec<(&str, &str)> = headers.iter().copied().chain([("host", host.as_str())]).collect();
        peer.ask(method, "/site", &headers, "").status
    };
    let evil = ("origin", "https://evil.example");
    assert_eq!(status("POST", &[]), 200, "no browser");
    assert_eq!(status("POST", &[("origin", &own)]), 200);
    assert_eq!(status("POST", &[("sec-fetch-site", "same-origin"), ("origin", &own)]), 200);
    assert_eq!(status("POST", &[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")]), 200);
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(status(method, &[evil]), 403, "{method}");
        assert_eq!(status(method, &[("sec-fetch-site", "cross-site")]), 403, "{method}");
    }
    assert_eq!(status("POST", &[("origin", "null")]), 403);
    assert_eq!(status("POST", &[("origin", &own), evil]), 403, "two origins are none");
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert_eq!(status(method, &[evil, ("sec-fetch-site", "cross-site")]), 200, "{method}");
    }
    assert_eq!(gateway.metric("agentlane_requests_refused_total", "reason=\"forbidden\""), 10.0);
}

#[test]
fn a_redirect_of_a_backend_is_the_client_s() {
    let elsewhere = Upstream::named("internal");
    let place = elsewhere.address;
    let upstream = Upstream::answering(move |_| Some(reply(302, &[("location", &format!("http://{place}/"))], "")));
    let (_gateway, address) = with_routes(json!([{ "backends": [{ "host": upstream.address.to_string() }] }]));
    let response = Peer::connect(address).get("/");
    assert_eq!((response.status, response.get("location")), (302, Some(&*format!("http://{place}/"))));
    // A target that names another host is for that host, which no route leads to but by the configuration.
    let mut peer = Peer::connect(address);
    peer.send(format!("GET http://{place}/ HTTP/1.1\r\nhost: {place}\r\n\r\n"));
    assert_eq!(peer.response("GET").status, 302);
    assert_eq!((upstream.requests().len(), elsewhere.connections()), (2, 0));
}

#[test]
fn a_redirect_of_a_target_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = McpServer::good("elsewhere");
        let place = format!("http://{}/mcp", elsewhere.address);
        let redirect = move || Act::Bytes(reply(status, &[("location", &place)], ""));
        let at_once = redirect.clone();
        let first = McpServer::scripted("first", move |_| at_once());
        let later = McpServer::scripted("later", move |seen| match seen.method() {
            "tools/call" => redirect(),
            _ => Act::Well,
        });
        let route = |path: &str, server: &McpServer| json!({ "matches": [{ "path": { "pathPrefix": path } }], "backends": [{ "mcp": { "targets": [server.target("web")] } }] });
        let (_gateway, address) = with_routes(json!([
            route("/mcp", &later),
            { "backends": [{ "mcp": { "targets": [first.target("web")] } }] },
        ]));
        let client = McpClient::open(address);
        let call = message(7, "tools/call", json!({ "name": "echo", "arguments": {} }));
        let answer = answer_of(&client.post(&call));
        assert!(answer["error"].is_object() || answer["result"]["isError"] == true, "{status}: {answer}");
        drop(initialize(address, "2025-06-18"));
        let mut peer = Peer::connect(address);
        let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"a","version":"1"}}}"#;
        let headers = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        let response = peer.ask("POST", "/other", &headers, hello);
        assert!(!(300..400).contains(&response.status), "{status}: it is no answer for the client either");
        assert!(!first.seen().is_empty(), "it was asked");
        assert_eq!(elsewhere.seen().len(), 0, "{status}");
    }
}
