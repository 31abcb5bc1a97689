//! `mcpAuthentication`: what a client without a token is told, and where it can read more.

use serde_json::{Value, json};

use crate::mint::{AUDIENCE, Key, claims};
use crate::support::config::one_listener;
use crate::support::free_port;
use crate::support::gateway::{Gateway, local};
use crate::support::mcp_client::{ACCEPT, McpClient, message};
use crate::support::mcp_server::McpServer;
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::{Peer, Response};

const RESOURCE: &str = "/.well-known/oauth-protected-resource";

/// An issuer with its metadata; the claim iss of its tokens is its URL.
struct Issuer {
    key: Key,
    server: Upstream,
}

impl Issuer {
    fn new(metadata_at: &'static str) -> Self {
        let server = Upstream::answering(move |request| {
            if request.head.target() != metadata_at {
                return Some(reply(404, &[], ""));
            }
            let host = request.head.get("host").unwrap_or_default();
            let metadata = json!({
                "issuer": format!("http://{host}"),
                "authorization_endpoint": format!("http://{host}/authorize"),
                "token_endpoint": format!("http://{host}/token"),
            });
            Some(reply(200, &[("content-type", "application/json")], metadata.to_string()))
        });
        Issuer { key: Key::ed(), server }
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    fn policy(&self, more: Value) -> Value {
        let mut policy = json!({
            "issuer": self.url(),
            "audiences": [AUDIENCE],
            "jwks": json!({ "keys": [self.key.jwk("d")] }).to_string(),
            "resourceMetadata": { "scopesSupported": ["read", "write"], "resource_name": "the house" },
        });
        more.as_object().expect("an object").iter().for_each(|(name, value)| policy[name] = value.clone());
        json!({ "mcpAuthentication": policy })
    }

    fn token(&self, more: Value) -> String {
        let mut claims = claims(json!({ "iss": self.url() }));
        more.as_object().expect("an object").iter().for_each(|(name, value)| claims[name] = value.clone());
        format!("Bearer {}", self.key.token(&json!({ "alg": "EdDSA" }), &claims))
    }
}

fn endpoint(policies: Value) -> (Gateway, u16, McpServer) {
    let server = McpServer::good("web");
    let port = free_port();
    let routes = json!([{
        "matches": [{ "path": { "pathPrefix": "/mcp" } }],
        "policies": policies,
        "backends": [{ "mcp": { "targets": [server.target("web")] } }],
    }]);
    (Gateway::start(&one_listener(port, routes).to_string()), port, server)
}

fn initialize(port: u16, headers: &[(&str, &str)]) -> Response {
    let host = format!("127.0.0.1:{port}");
    let mut all = vec![("host", host.as_str()), ("accept", ACCEPT), ("content-type", "application/json")];
    all.extend_from_slice(headers);
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    Peer::connect(local(port)).ask("POST", "/mcp", &all, message(1, "initialize", params))
}

fn read(port: u16, path: &str, headers: &[(&str, &str)]) -> Response {
    let host = format!("127.0.0.1:{port}");
    let own = [("host", host.as_str())];
    Peer::connect(local(port)).ask("GET", path, if headers.is_empty() { &own } else { headers }, "")
}

#[test]
fn who_has_no_token_is_told_where_to_get_one() {
    let issuer = Issuer::new("/.well-known/oauth-authorization-server");
    let (_gateway, port, server) = endpoint(issuer.policy(json!({})));
    let answer = initialize(port, &[]);
    let url = format!("http://127.0.0.1:{port}{RESOURCE}/mcp");
    assert_eq!(answer.status, 401);
    assert_eq!(answer.get("www-authenticate"), Some(format!("Bearer resource_metadata=\"{url}\"").as_str()));
    assert_eq!(answer.json()["error"]["code"], -32600, "a client reads a fault of its own protocol");
    assert_eq!(server.seen().len(), 0);

    let document = read(port, &format!("{RESOURCE}/mcp"), &[]);
    assert_eq!((document.status, document.get("access-control-allow-origin")), (200, Some("*")));
    let expected = json!({
        "resource": format!("http://127.0.0.1:{port}/mcp"),
        "authorization_servers": [issuer.url()],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["read", "write"],
        "resource_name": "the house",
    });
    assert_eq!(document.json(), expected);
    assert_eq!(read(port, RESOURCE, &[]).json()["resource"], format!("http://127.0.0.1:{port}"));
    let behind_a_proxy = [("host", "tools.example"), ("x-forwarded-proto", "https")];
    assert_eq!(read(port, &format!("{RESOURCE}/mcp"), &behind_a_proxy).json()["resource"], "https://tools.example/mcp");
    assert_eq!(Peer::connect(local(port)).ask("POST", RESOURCE, &[], "").status, 405);
    assert_eq!(Peer::connect(local(port)).ask("OPTIONS", RESOURCE, &[], "").status, 204);

    let wrong = issuer.token(json!({ "aud": "https://other.test" }));
    let answer = initialize(port, &[("authorization", &wrong)]);
    let challenge = answer.get("www-authenticate").unwrap_or_default();
    assert_eq!(answer.status, 401);
    assert!(challenge.starts_with("Bearer error=\"invalid_token\"") && challenge.contains(&url), "{challenge}");
    let session = McpClient::open_as(local(port), &issuer.token(json!({})));
    assert_eq!(session.call("echo", json!({})), "web: echo {}");
    assert!(server.seen().iter().all(|seen| seen.request.head.get("authorization").is_none()), "tokens stay here");
}

#[test]
fn a_public_url_stands_for_the_endpoint() {
    let issuer = Issuer::new("/.well-known/oauth-authorization-server");
    let metadata = json!({ "resource": "https://tools.example/public/mcp" });
    let (_gateway, port, _server) = endpoint(issuer.policy(json!({ "resourceMetadata": metadata })));
    let challenge = initialize(port, &[]).get("www-authenticate").unwrap_or_default().to_owned();
    assert!(challenge.contains(&format!("\"https://tools.example{RESOURCE}/public/mcp\"")), "{challenge}");
    for path in ["/public/mcp", "/mcp", ""] {
        let document = read(port, &format!("{RESOURCE}{path}"), &[]).json();
        assert_eq!(document["resource"], "https://tools.example/public/mcp", "{path}");
    }
}

#[test]
fn scopes_are_asked_for() {
    let issuer = Issuer::new("/.well-known/oauth-authorization-server");
    let (_gateway, port, _server) = endpoint(issuer.policy(json!({ "requiredScopes": ["read", "write"] })));
    let answer = initialize(port, &[]);
    assert!(answer.get("www-authenticate").unwrap_or_default().ends_with(", scope=\"read write\""));
    for scope in [json!({}), json!({ "scope": "read" }), json!({ "scp": ["writer", "read"] })] {
        let answer = initialize(port, &[("authorization", &issuer.token(scope.clone()))]);
        let challenge = answer.get("www-authenticate").unwrap_or_default();
        assert_eq!(answer.status, 403, "{scope}");
        assert!(challenge.starts_with("Bearer error=\"insufficient_scope\", scope=\"read write\""), "{challenge}");
        assert!(challenge.contains("resource_metadata="), "{challenge}");
    }
    let token = issuer.token(json!({ "scope": "write x read" }));
    assert_eq!(initialize(port, &[("authorization", &token)]).status, 200);
}

#[test]
fn metadata_of_the_authorization_server_is_passed_on() {
    let issuer = Issuer::new("/.well-known/openid-configuration");
    let (_gateway, port, _server) = endpoint(issuer.policy(json!({})));
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server/mcp"] {
        let document = read(port, path, &[]);
        assert_eq!(document.status, 200, "{path}");
        assert_eq!(document.json()["issuer"], issuer.url(), "{path}");
    }
    let adapted = json!({ "provider": { "auth0": {} } });
    let (_gateway, port, _server) = endpoint(issuer.policy(adapted));
    let own = format!("http://127.0.0.1:{port}/mcp");
    assert_eq!(read(port, &format!("{RESOURCE}/mcp"), &[]).json()["authorization_servers"], json!([own]));
    let document = read(port, "/.well-known/oauth-authorization-server/mcp", &[]).json();
    assert_eq!(document["issuer"], own);
    let place = format!("{}/authorize?audience=https%3A%2F%2Fgateway.test%2Fmcp", issuer.url());
    assert_eq!(document["authorization_endpoint"], place);
}

#[test]
fn an_authorization_server_that_is_down_is_no_secret() {
    let issuer = Issuer::new("/nowhere");
    let (_gateway, port, _server) = endpoint(issuer.policy(json!({})));
    let answer = read(port, "/.well-known/oauth-authorization-server", &[]);
    assert_eq!(answer.status, 502);
}
