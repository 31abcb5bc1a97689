//! Keys that are fetched: at start, again when a token names a new one, and not more often than their server can bear.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::mint::{AUDIENCE, ISSUER, Key, claims};
use crate::support::eventually;
use crate::support::upstream::{Upstream, reply};
use crate::{get_with, guarded, yes};

/// A server of keys, which a test changes.
struct KeyServer {
    keys: Arc<Mutex<Vec<Value>>>,
    is_down: Arc<AtomicBool>,
    server: Upstream,
}

impl KeyServer {
    fn new(keys: Vec<Value>) -> Self {
        let keys = Arc::new(Mutex::new(keys));
        let is_down = Arc::new(AtomicBool::new(false));
        let (shown, down) = (keys.clone(), is_down.clone());
        let server = Upstream::answering(move |_| {
            if down.load(Ordering::SeqCst) {
                return Some(reply(503, &[], "down"));
            }
            let set = json!({ "keys": *shown.lock().expect("no panic in between") });
            Some(reply(200, &[("content-type", "application/json")], set.to_string()))
        });
        KeyServer { keys, is_down, server }
    }

    fn rotate(&self, keys: Vec<Value>) {
        *self.keys.lock().expect("no panic in between") = keys;
    }

    fn policy(&self) -> Value {
        let url = format!("http://{}/keys", self.server.address);
        json!({ "jwtAuth": { "mode": "strict", "issuer": ISSUER, "audiences": [AUDIENCE], "jwks": { "url": url } } })
    }
}

fn token(key: &Key, kid: &str) -> String {
    key.token(&json!({ "alg": "EdDSA", "kid": kid }), &claims(json!({})))
}

#[test]
fn rotated_keys_are_fetched_when_they_are_needed() {
    let (old, new) = (Key::ed(), Key::ed());
    let keys = KeyServer::new(vec![old.jwk("old")]);
    let upstream = yes();
    let (_gateway, address) = guarded(upstream.address, keys.policy());
    assert_eq!(get_with(address, &token(&old, "old")).status, 200);
    // At the start; and once more where the request came before the keys.
    assert!(keys.server.requests().len() <= 2);
    assert_eq!(get_with(address, &token(&new, "new")).status, 401, "not before it is published");
    keys.rotate(vec![new.jwk("new")]);
    assert_eq!(get_with(address, &token(&new, "new")).status, 200, "the request has waited for the new key");
    assert_eq!(get_with(address, &token(&old, "old")).status, 401, "what was verified with the old one counts no more");
}

#[test]
fn unknown_keys_do_not_become_a_flood() {
    let key = Key::ed();
    let keys = KeyServer::new(vec![key.jwk("k")]);
    let upstream = yes();
    let (_gateway, address) = guarded(upstream.address, keys.policy());
    assert_eq!(get_with(address, &token(&key, "k")).status, 200);
    let threads: Vec<_> = (0..16)
        .map(|number| {
            let guess = token(&key, &format!("guess{number}"));
            std::thread::spawn(move || get_with(address, &guess).status)
        })
        .collect();
    let statuses: Vec<u16> = threads.into_iter().map(|thread| thread.join().expect("an answer")).collect();
    assert_eq!(statuses, [401; 16]);
    assert!(keys.server.requests().len() <= 5, "{} fetches", keys.server.requests().len());
    assert_eq!(get_with(address, &token(&key, "k")).status, 200, "meanwhile others are served");
}

#[test]
fn keys_that_do_not_come_are_no_fault_of_the_token() {
    let key = Key::ed();
    let keys = KeyServer::new(vec![key.jwk("k")]);
    keys.is_down.store(true, Ordering::SeqCst);
    let upstream = yes();
    let (gateway, address) = guarded(upstream.address, keys.policy());
    assert_eq!(get_with(address, &token(&key, "k")).status, 503);
    assert!(gateway.stderr().contains("cannot be fetched") || gateway.stdout().contains("cannot be fetched"));
    keys.is_down.store(false, Ordering::SeqCst);
    eventually("they come when the server is back", || get_with(address, &token(&key, "k")).status == 200);
}

#[test]
fn a_reload_keeps_the_keys() {
    let key = Key::ed();
    let keys = KeyServer::new(vec![key.jwk("k")]);
    let upstream = yes();
    let (gateway, address) = guarded(upstream.address, keys.policy());
    assert_eq!(get_with(address, &token(&key, "k")).status, 200);
    keys.is_down.store(true, Ordering::SeqCst);
    let mut policies = keys.policy();
    policies["responseHeaderModifier"] = json!({ "set": { "x-reloaded": "yes" } });
    let routes = json!([{ "policies": policies, "backends": [{ "host": upstream.address.to_string() }] }]);
    gateway.reload(&crate::support::config::one_listener(address.port(), routes).to_string());
    let answer = get_with(address, &token(&key, "k"));
    assert_eq!((answer.status, answer.get("x-reloaded")), (200, Some("yes")));
}

#[test]
fn a_redirect_to_other_keys_is_not_followed() {
    let key = Key::ed();
    let elsewhere = KeyServer::new(vec![key.jwk("k")]);
    let location = format!("http://{}/keys", elsewhere.server.address);
    for status in [302, 308] {
        let to = location.clone();
        let server = Upstream::answering(move |_| Some(reply(status, &[("location", &to)], "")));
        let mut policy = elsewhere.policy();
        policy["jwtAuth"]["jwks"]["url"] = json!(format!("http://{}/keys", server.address));
        let upstream = yes();
        let (_gateway, address) = guarded(upstream.address, policy);
        assert_eq!(get_with(address, &token(&key, "k")).status, 503, "{status}");
        assert!(!server.requests().is_empty(), "{status}: the configured place is asked");
    }
    assert_eq!(elsewhere.server.requests().len(), 0, "where it points nobody is asked");
}
