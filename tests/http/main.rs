//! Plain HTTP through the real binary, seen from both of its sides.

mod framing;
mod limits;
mod messages;
mod policies;
mod routes;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod websockets;

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::config::{one_listener, to_backend};
use support::free_port;
use support::gateway::{Gateway, local};
use support::upstream::{Upstream, reply};
use support::wire::Peer;

/// A gateway in front of one upstream.
fn in_front_of(upstream: &Upstream) -> (Gateway, SocketAddr) {
    let port = free_port();
    (Gateway::start(&to_backend(port, upstream.address).to_string()), local(port))
}

/// The same with `frontendPolicies.http`.
fn limited(upstream: &Upstream, http: Value) -> (Gateway, SocketAddr) {
    let port = free_port();
    let mut config = to_backend(port, upstream.address);
    config["frontendPolicies"] = json!({ "http": http });
    (Gateway::start(&config.to_string()), local(port))
}

/// A gateway with these routes on one listener.
fn with_routes(routes: Value) -> (Gateway, SocketAddr) {
    let port = free_port();
    (Gateway::start(&one_listener(port, routes).to_string()), local(port))
}

fn says(text: &str) -> Value {
    json!({ "directResponse": { "status": 200, "body": text } })
}

/// An upstream that sends each request's head and body back as text.
fn echo() -> Upstream {
    Upstream::answering(|request| {
        let mut body = format!("{}\n", request.head.start_line);
        request.head.headers.iter().for_each(|(name, value)| body.push_str(&format!("{name}: {value}\n")));
        body.push('\n');
        body.push_str(&String::from_utf8_lossy(&request.body));
        Some(reply(200, &[], body))
    })
}

#[track_caller]
fn assert_answers(address: SocketAddr, target: &str, headers: &[(&str, &str)], status: u16, body: &str) {
    let response = Peer::connect(address).ask("GET", target, headers, "");
    assert_eq!((response.status, response.text()), (status, body), "GET {target} {headers:?}");
}
