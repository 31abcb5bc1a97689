//! The MCP endpoint through the real binary, between plain clients and scripted servers.

mod bad_input;
mod caching;
mod ends;
mod failing_targets;
mod federation;
mod fleet;
mod listening;
mod lock;
mod messages;
mod modern_clients;
mod modern_targets;
mod old_clients;
mod old_revisions;
mod old_targets;
mod reads;
mod shards;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod untranslated;

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::config::mcp;
use support::free_port;
use support::gateway::{BINARY, Gateway, local};
use support::mcp_client::each;

/// The demo's stdio server as a target.
fn notes(name: &str) -> Value {
    json!({ "name": name, "stdio": { "cmd": BINARY, "args": ["demo-notes"] } })
}

fn gateway(backend: Value) -> (Gateway, SocketAddr) {
    let port = free_port();
    (Gateway::start(&mcp(port, backend).to_string()), local(port))
}

/// A gateway over these targets whose lists answer fast.
fn federation(targets: Vec<Value>) -> (Gateway, SocketAddr) {
    gateway(json!({ "targets": targets, "deadline": "400ms" }))
}

fn tool_names(list: &Value) -> Vec<&str> {
    each(&list["tools"], "name")
}

/// Who is missing in a list, by name.
fn missing(list: &Value) -> Vec<&str> {
    each(&list["_meta"]["dev.agentlane/missing"], "target")
}
