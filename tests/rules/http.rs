//! `authorization`: rules over requests.

use serde_json::json;

use crate::config;
use crate::support::config::one_listener;
use crate::support::free_port;
use crate::support::gateway::{Gateway, local};
use crate::support::mcp_client::{McpClient, initialize, message};
use crate::support::mcp_server::McpServer;
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::Peer;

#[test]
fn a_request_that_rules_refuse_never_reaches_the_backend() {
    let upstream = Upstream::http(|_, peer| peer.try_send(reply(200, &[], "served")).is_ok());
    let port = free_port();
    let rules = json!([
        "request.method == 'GET' && request.path.startsWith('/open/')",
        { "allow": "default(request.headers['x-team'], '') in ['red', 'blue'] && request.scheme == 'http'" },
        { "deny": "request.headers['x-team'] == 'blue' && request.pathAndQuery.contains('secret')" },
        { "deny": "'x-bad' in request.headers" },
        { "require": "cidr('127.0.0.0/8').containsIP(source.address) && source.port > 0" },
    ]);
    let route = json!({ "policies": { "authorization": { "rules": rules } }, "backends": [{ "host": upstream.address.to_string() }] });
    let _gateway = Gateway::start(&one_listener(port, json!([route])).to_string());
    let status = |method: &str, target: &str, headers: &[(&str, &str)]| {
        Peer::connect(local(port)).ask(method, target, headers, "").status
    };
    assert_eq!(status("GET", "/open/a", &[("X-Team", "green")]), 200);
    assert_eq!(status("POST", "/open/a", &[("X-Team", "green")]), 403);
    assert_eq!(status("GET", "/closed", &[("X-Team", "green")]), 403);
    assert_eq!(status("GET", "/closed", &[("x-team", "red")]), 200);
    assert_eq!(status("GET", "/closed", &[("x-team", "blue")]), 200);
    assert_eq!(status("GET", "/closed?secret", &[("x-team", "blue")]), 403);
    assert_eq!(status("GET", "/open/a", &[("x-team", "red"), ("x-bad", "1")]), 403);
    assert_eq!(status("GET", "/open/a", &[]), 200, "what is false whatever the header would be does not deny");
    assert_eq!(status("GET", "/open/a?secret", &[]), 403, "a rule that cannot be evaluated denies");
    assert_eq!(status("GET", "/open/a", &[("x-team", "red"), ("x-team", "blue")]), 200, "several values are a list");
}

#[test]
fn a_listener_and_a_route_must_both_agree() {
    let server = McpServer::good("one");
    let port = free_port();
    let text = config(
        port,
        json!({ "authorization": { "rules": ["request.headers.authorization.startsWith('Bearer ')"] } }),
        json!({ "authorization": { "rules": [{ "deny": "request.headers.authorization == 'Bearer stolen'" }] } }),
        json!({ "targets": [server.target("one")] }),
    );
    let _gateway = Gateway::start(&text);
    let refused = initialize(local(port), "2025-11-25");
    assert_eq!((refused.status, refused.get("content-type")), (403, Some("application/json")));
    assert_eq!(refused.json()["error"]["message"], "not authorized", "an MCP client reads JSON-RPC");
    let client = McpClient::open_as(local(port), "Bearer good");
    assert_eq!(client.call("echo", json!({})), "one: echo {}");
    // Each request is asked anew, those of a session as well.
    let stolen = McpClient { authorization: Some("Bearer stolen".to_owned()), ..client.clone() };
    assert_eq!(stolen.post("{}").status, 403);
    assert_eq!(McpClient { authorization: None, ..client }.post("{}").status, 403);
    assert_eq!(server.sessions(), 1);
}

#[test]
fn headers_that_repeat_the_body_are_no_facts() {
    let server = McpServer::good("one");
    let port = free_port();
    let text = config(
        port,
        json!({}),
        json!({ "authorization": { "rules": ["!('mcp-name' in request.headers) && !has(request.headers.mcp_name)"] } }),
        json!({ "targets": [server.target("one")] }),
    );
    let _gateway = Gateway::start(&text);
    let client = McpClient::open(local(port));
    let call = message(1, "tools/call", json!({ "name": "echo", "arguments": {} }));
    let answer = client.post_with(&call, &[("mcp-name", "harmless"), ("Mcp-Method", "tools/list")]);
    assert_eq!(answer.status, 200, "{}", answer.text());
}
