//! `apiKey` and `basicAuth`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::json;

use crate::{get, guarded, yes};

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[test]
fn known_keys_are_let_in() {
    let hash: String = digest(&SHA256, b"second").as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = json!([
        { "key": "first", "metadata": { "team": "a", "level": 3 } },
        { "keyHash": format!("sha256:{hash}") },
    ]);
    let upstream = yes();
    let (_gateway, address) = guarded(upstream.address, json!({ "apiKey": { "mode": "strict", "keys": keys } }));
    let cases = [
        ("Bearer first", 200),
        ("bearer second", 200),
        ("Bearer third", 401),
        ("Bearer firs", 401),
        ("Bearer first ", 200),
        ("Basic first", 401),
        ("first", 401),
    ];
    for (credential, expected) in cases {
        assert_eq!(get(address, &[("authorization", credential)]).status, expected, "{credential:?}");
    }
    let answer = get(address, &[]);
    assert_eq!((answer.status, answer.get("www-authenticate")), (401, Some("Bearer")));
    assert!(upstream.requests().iter().all(|request| request.head.get("authorization").is_none()), "keys stay here");
}

#[test]
fn a_key_stands_where_it_is_configured_to() {
    let location = json!({ "header": { "name": "X-API-Key" } });
    let policies = json!({ "apiKey": { "location": location, "keys": [{ "key": "first" }] } });
    let upstream = yes();
    let (_gateway, address) = guarded(upstream.address, policies);
    // Optional is the default.
    assert_eq!(get(address, &[]).status, 200);
    assert_eq!(get(address, &[("x-api-key", "first")]).status, 200);
    assert_eq!(get(address, &[("x-api-key", "other")]).status, 401);
    assert!(upstream.requests().iter().all(|request| request.head.get("x-api-key").is_none()));
}

#[test]
fn passwords_are_checked() {
    let sha = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, b"of bob").as_ref());
    let slow = bcrypt::hash("of alice", 5).expect("a hash");
    let htpasswd = format!("# users\nalice:{slow}\nbob:{{SHA}}{sha}\n");
    let policies = json!({ "basicAuth": { "mode": "strict", "realm": "the house", "htpasswd": htpasswd } });
    let upstream = yes();
    let (gateway, address) = guarded(upstream.address, policies);
    let cases = [
        (basic("alice", "of alice"), 200),
        (basic("alice", "of alice"), 200),
        (basic("alice", "of bob"), 401),
        (basic("alice", "of bob"), 401),
        (basic("alice", ""), 401),
        (basic("bob", "of bob"), 200),
        (basic("bob", "of alice"), 401),
        (basic("carol", "of alice"), 401),
        (basic("carol", "of alice"), 401),
        ("Basic ???".to_owned(), 401),
        ("Bearer x".to_owned(), 401),
    ];
    for (credential, expected) in cases {
        assert_eq!(get(address, &[("authorization", &credential)]).status, expected, "{credential}");
    }
    let answer = get(address, &[]);
    assert_eq!(answer.get("www-authenticate"), Some("Basic realm=\"the house\", charset=\"UTF-8\""));
    assert!(upstream.requests().iter().all(|request| request.head.get("authorization").is_none()), "they stay here");
    let logs = gateway.stdout() + &gateway.stderr();
    assert!(!logs.contains("of alice") && !logs.contains(&slow) && !logs.contains(&sha), "nor are they logged");
}
