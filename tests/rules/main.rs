//! Rules through the real binary: who may send a request, and who may see and use what, between plain clients and scripted
//! servers.

mod explained;
mod http;
mod mcp;
mod risk;
#[path = "../support/mod.rs"]
mod support;

use serde_json::{Value, json};

/// One bind, one listener with these policies, one route with those that leads to an MCP backend.
fn config(port: u16, listener: Value, route: Value, backend: Value) -> String {
    let backends = json!([{ "mcp": backend }]);
    let listener =
        json!({ "policies": listener, "routes": [{ "name": "tools", "policies": route, "backends": backends }] });
    json!({ "binds": [{ "port": port, "address": "127.0.0.1", "listeners": [listener] }] }).to_string()
}
