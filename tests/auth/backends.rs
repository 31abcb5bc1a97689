//! `backendAuth`: the credential that an upstream sees, and that it sees no other.

use serde_json::json;

use crate::mint::{Key, claims, jwt_auth};
use crate::support::config::one_listener;
use crate::support::free_port;
use crate::support::gateway::{Gateway, local};
use crate::support::mcp_client::McpClient;
use crate::support::mcp_server::McpServer;
use crate::{get, get_with, guarded, yes};

#[test]
fn a_plain_backend_sees_what_is_configured() {
    let key = Key::ed();
    let token = key.token(&json!({ "alg": "EdDSA" }), &claims(json!({})));
    let bearer = format!("Bearer {token}");
    let named = json!({ "key": { "value": "secret", "location": { "header": { "name": "x-up-key" } } } });
    let cases = [
        (json!(null), None, None),
        (json!({ "passthrough": {} }), Some(bearer.as_str()), None),
        (json!({ "key": "secret" }), Some("Bearer secret"), None),
        (named, None, Some("secret")),
    ];
    for (auth, authorization, own) in cases {
        let upstream = yes();
        let policies = json!({ "jwtAuth": jwt_auth("strict", &[key.jwk("d")]), "backendAuth": auth });
        let (gateway, address) = guarded(upstream.address, policies);
        assert_eq!(get_with(address, &token).status, 200);
        let seen = upstream.last();
        assert_eq!((seen.head.get("authorization"), seen.head.get("x-up-key")), (authorization, own), "{auth}");
        assert!(!(gateway.stdout() + &gateway.stderr()).contains("secret"), "it is not logged");
    }
}

#[test]
fn without_authentication_headers_pass_as_they_come() {
    let upstream = yes();
    let (_gateway, address) = guarded(upstream.address, json!({}));
    get(address, &[("authorization", "Bearer of the upstream")]);
    assert_eq!(upstream.last().head.get("authorization"), Some("Bearer of the upstream"));
}

#[test]
fn targets_see_what_is_configured_in_every_message() {
    let key = Key::ed();
    let bearer = format!("Bearer {}", key.token(&json!({ "alg": "EdDSA" }), &claims(json!({}))));
    let (none, own, passed) = (McpServer::good("none"), McpServer::good("own"), McpServer::good("passed"));
    let with = |server: &McpServer, name: &str, auth| {
        let mut target = server.target(name);
        target["policies"] = json!({ "backendAuth": auth });
        target
    };
    let targets = json!([
        none.target("none"),
        with(&own, "own", json!({ "key": "secret" })),
        with(&passed, "passed", json!({ "passthrough": {} })),
    ]);
    let port = free_port();
    let policies = json!({ "jwtAuth": jwt_auth("strict", &[key.jwk("d")]) });
    let routes = json!([{ "policies": policies, "backends": [{ "mcp": { "targets": targets } }] }]);
    let _gateway = Gateway::start(&one_listener(port, routes).to_string());
    let client = McpClient::open_as(local(port), &bearer);
    let stream = client.listen(None);
    for name in ["none", "own", "passed"] {
        assert_eq!(client.call(&format!("{name}__echo"), json!({})), format!("{name}: echo {{}}"));
    }
    let newer = format!("Bearer {}", key.token(&json!({ "alg": "EdDSA" }), &claims(json!({ "jti": "2" }))));
    let client = McpClient { authorization: Some(newer.clone()), ..client };
    client.call("passed__echo", json!({}));
    drop(stream);
    assert_eq!(client.end().status, 200);
    for server in [&none, &own, &passed] {
        server.await_seen("the end", |seen| seen.verb == "DELETE");
    }
    let credentials = |server: &McpServer| {
        let seen = server.seen();
        assert!(seen.iter().any(|seen| seen.verb == "GET"), "it was followed");
        seen.iter().map(|seen| seen.request.head.get("authorization").map(str::to_owned)).collect::<Vec<_>>()
    };
    assert!(credentials(&none).iter().all(Option::is_none));
    assert!(credentials(&own).iter().all(|one| one.as_deref() == Some("Bearer secret")));
    let passed = credentials(&passed);
    assert!(passed.iter().all(|one| [&bearer, &newer].contains(&one.as_ref().expect("a credential"))), "{passed:?}");
    assert_eq!(passed.last(), Some(&Some(newer)), "the newest one");
}
