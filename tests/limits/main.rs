//! Limits and resilience through the real binary: how often, how much at once, what is done about backends that fail.

mod at_once;
mod crossings;
mod ejection;
mod proxied;
mod rates;
mod retries;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::config::one_listener;
use support::free_port;
use support::gateway::{Gateway, Setup, local};

/// A gateway of one shard with these routes on one listener.
fn with_routes(routes: Value) -> (Gateway, SocketAddr) {
    with_routes_on(1, routes)
}

fn with_routes_on(shards: usize, routes: Value) -> (Gateway, SocketAddr) {
    let port = free_port();
    let setup = Setup::new(&one_listener(port, routes).to_string());
    (setup.args(&["--shards", &shards.to_string()]).start(), local(port))
}

/// A route for a path that answers by itself, under a policy.
fn answers(path: &str, policy: &str, value: Value) -> Value {
    let mut route = json!({ "name": path[1..], "matches": [{ "path": { "pathPrefix": path } }], "policies": { "directResponse": { "status": 200, "body": "ok" } } });
    route["policies"][policy] = value;
    route
}
