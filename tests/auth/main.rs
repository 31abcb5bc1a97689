//! Who gets in, through the real binary: tokens, keys and passwords, each way of being wrong; whose session is whose; and
//! what of it reaches upstreams.

mod backends;
mod jwt;
mod keys;
mod metadata;
mod mint;
mod remote;
mod sessions;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;

use serde_json::{Value, json};

use support::config::one_listener;
use support::free_port;
use support::gateway::{Gateway, local};
use support::upstream::Upstream;
use support::wire::{Peer, Response};

/// A gateway whose only route leads to `upstream` with these policies.
fn guarded(upstream: SocketAddr, policies: Value) -> (Gateway, SocketAddr) {
    let port = free_port();
    let routes = json!([{ "policies": policies, "backends": [{ "host": upstream.to_string() }] }]);
    (Gateway::start(&one_listener(port, routes).to_string()), local(port))
}

/// Asks with these headers.
#[track_caller]
fn get(address: SocketAddr, headers: &[(&str, &str)]) -> Response {
    Peer::connect(address).ask("GET", "/x", headers, "")
}

/// The same with a token.
#[track_caller]
fn get_with(address: SocketAddr, token: &str) -> Response {
    get(address, &[("authorization", &format!("Bearer {token}"))])
}

/// An upstream that says yes.
fn yes() -> Upstream {
    Upstream::named("yes")
}
