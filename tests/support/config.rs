//! Configurations, written as JSON, which is YAML as well.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// One bind on 127.0.0.1 with one listener.
pub fn one_listener(port: u16, routes: Value) -> Value {
    json!({ "binds": [{ "port": port, "address": "127.0.0.1", "listeners": [{ "routes": routes }] }] })
}

/// One listener whose only route leads to a backend.
pub fn to_backend(port: u16, backend: SocketAddr) -> Value {
    one_listener(port, json!([{ "backends": [{ "host": backend.to_string() }] }]))
}

/// One listener whose only route is an MCP endpoint.
pub fn mcp(port: u16, backend: Value) -> Value {
    one_listener(port, json!([{ "backends": [{ "mcp": backend }] }]))
}
