//! A session is its opener's: nobody else's token, key or name opens it, whichever way he comes.

use serde_json::{Value, json};

use crate::mint::{Key, claims, jwt_auth};
use crate::support::config::one_listener;
use crate::support::free_port;
use crate::support::gateway::{Setup, local};
use crate::support::mcp_client::{McpClient, message};
use crate::support::mcp_server::McpServer;
use crate::support::sse_client::SseClient;
use crate::support::wire::Peer;

/// The statuses of everything that can be done with the session, by whoever has this credential.
fn tried(session: &McpClient, authorization: Option<&str>) -> Vec<u16> {
    let as_other = McpClient { authorization: authorization.map(str::to_owned), ..session.clone() };
    let ask = |verb: &str, more: &[(&str, &str)], body: String| {
        let mut headers = as_other.headers();
        headers.extend_from_slice(more);
        // A stream that opens is not read to its end.
        let mut peer = Peer::connect(session.address);
        peer.send(crate::support::wire::request(verb, "/mcp", &headers, body.as_bytes()));
        peer.head().expect("an answer").status()
    };
    vec![
        ask("POST", &[], message(7, "tools/list", json!({}))),
        ask("POST", &[], message(8, "tools/call", json!({ "name": "echo", "arguments": {} }))),
        ask("POST", &[], json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string()),
        ask("GET", &[], String::new()),
        ask("GET", &[("last-event-id", "0_0")], String::new()),
        ask("DELETE", &[], String::new()),
    ]
}

fn on_shards(shards: &str) {
    let key = Key::ed();
    let bearer = |more: Value| format!("Bearer {}", key.token(&json!({ "alg": "EdDSA" }), &claims(more)));
    let server = McpServer::good("web");
    let port = free_port();
    let policies = json!({ "jwtAuth": jwt_auth("optional", &[key.jwk("d")]) });
    let routes = json!([{ "policies": policies, "backends": [{ "mcp": { "targets": [server.target("web")] } }] }]);
    let config = one_listener(port, routes).to_string();
    let _gateway = Setup::new(&config).args(&["--shards", shards]).start();
    let (alice, bob) = (bearer(json!({})), bearer(json!({ "sub": "bob" })));
    let session = McpClient::open_as(local(port), &alice);
    let anonymous = McpClient::open(local(port));
    for _ in 0..4 {
        assert_eq!(tried(&session, Some(&bob)), [404; 6], "another one");
        assert_eq!(tried(&session, None), [404; 6], "nobody");
        assert_eq!(tried(&anonymous, Some(&bob)), [404; 6], "a session that nobody opened is not taken over");
    }
    // Over connections that serve other sessions, from which requests are forwarded.
    let of_bob = McpClient::open_as(local(port), &bob);
    let mut peer = Peer::connect(local(port));
    of_bob.ask_on(&mut peer, "ping", json!({}));
    let stolen = McpClient { authorization: Some(bob.clone()), ..session.clone() };
    for _ in 0..4 {
        assert_eq!(stolen.post_on(&mut peer, &message(9, "tools/list", json!({}))).status, 404);
        assert_eq!(session.ask_on(&mut peer, "tools/list", json!({}))["result"]["tools"][0]["name"], "echo");
    }
    // A token of the same subject is the same person.
    let fresh = McpClient { authorization: Some(bearer(json!({ "jti": "2" }))), ..session.clone() };
    assert_eq!(fresh.call("echo", json!({ "a": 1 })), "web: echo {\"a\":1}");
    assert_eq!(fresh.end().status, 200);
    assert_eq!(tried(&anonymous, None)[0], 200);
}

#[test]
fn on_one_shard() {
    on_shards("1");
}

#[test]
fn on_four_shards() {
    on_shards("4");
}

#[test]
fn a_stream_of_the_old_transport_is_its_openers() {
    let server = McpServer::good("web");
    let port = free_port();
    let location = json!({ "header": { "name": "x-key" } });
    let policies = json!({ "apiKey": { "location": location, "keys": [{ "key": "a" }, { "key": "b" }] } });
    let routes = json!([{ "policies": policies, "backends": [{ "mcp": { "targets": [server.target("web")] } }] }]);
    let _gateway = Setup::new(&one_listener(port, routes).to_string()).args(&["--shards", "2"]).start();
    let client = SseClient::open(local(port));
    let post = |headers: &[(&str, &str)]| {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        let body = message(5, "ping", json!({}));
        Peer::connect(local(port)).ask("POST", &client.endpoint, &all, body).status
    };
    assert_eq!(post(&[("x-key", "a")]), 404);
    assert_eq!(post(&[("x-key", "c")]), 401);
    assert_eq!(post(&[]), 202);
}
