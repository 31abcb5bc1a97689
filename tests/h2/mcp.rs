//! MCP over HTTP/2 in front: sessions on other shards, streams, and both eras, many clients on one connection.

use std::collections::HashSet;
use std::net::SocketAddr;

use serde_json::json;

use crate::support::config::mcp;
use crate::support::gateway::{Gateway, Setup, local};
use crate::support::mcp_client::{McpClient, text_of};
use crate::support::mcp_server::{Act, McpServer, Seen};
use crate::support::modern_client::ModernClient;
use crate::support::{eventually, free_port};
use crate::tunnel::to_http2;

const SHARDS: usize = 4;

/// A tool that says how far it is before it is done.
fn steps(seen: &Seen) -> Act {
    match seen.tool() {
        "steps" => {
            let token = &seen.message["params"]["_meta"]["progressToken"];
            let progress = |n: u64| {
                json!({ "jsonrpc": "2.0", "method": "notifications/progress",
                "params": { "progressToken": token, "progress": n } })
            };
            let result = json!({ "content": [{ "type": "text", "text": "done" }] });
            let answer = json!({ "jsonrpc": "2.0", "id": seen.id(), "result": result });
            Act::Events(vec![progress(1), progress(2), answer])
        }
        _ => Act::Well,
    }
}

fn start(server: &McpServer) -> (Gateway, SocketAddr) {
    let port = free_port();
    let config = mcp(port, json!({ "targets": [server.target("web")] })).to_string();
    (Setup::new(&config).args(&["--shards", "4"]).start(), local(port))
}

#[test]
fn every_session_from_every_connection() {
    let server = McpServer::scripted("web", steps);
    let (gateway, address) = start(&server);
    let doors: Vec<SocketAddr> = (0..12).map(|_| to_http2(address)).collect();
    let sessions: Vec<McpClient> = doors.iter().map(|&door| McpClient::open(door)).collect();
    let owning: HashSet<usize> = (0..SHARDS)
        .filter(|shard| gateway.metric("agentlane_mcp_sessions", &format!("shard=\"{shard}\"")) > 0.0)
        .collect();
    assert!(owning.len() > 1, "the kernel leaves shards out: {owning:?}");
    for (number, session) in sessions.iter().enumerate() {
        for &door in &doors {
            let session = McpClient { address: door, ..session.clone() };
            let arguments = json!({ "session": number });
            assert_eq!(session.call("echo", arguments.clone()), format!("web: echo {arguments}"));
        }
        let session = McpClient { address: doors[(number + 5) % doors.len()], ..session.clone() };
        let params = json!({ "name": "steps", "arguments": {}, "_meta": { "progressToken": "p" } });
        let messages = session.stream(7, "tools/call", params).messages();
        let progress: Vec<_> = messages.iter().filter_map(|message| message["params"]["progress"].as_u64()).collect();
        assert_eq!(progress, [1, 2], "{messages:?}");
        assert_eq!(text_of(&messages.last().expect("an answer")["result"]), "done");
    }
    assert_eq!(gateway.metric("agentlane_connections_moved_total", ""), 0.0, "a connection of HTTP/2 never moves");
    assert!(gateway.metric("agentlane_requests_forwarded_total", "") > 0.0);
    assert_eq!(gateway.metric("agentlane_downstream_connections_total", ""), doors.len() as f64);
    for session in &sessions {
        assert_eq!(session.end().status, 200);
        assert_eq!(session.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status, 404);
    }
}

#[test]
fn a_stream_that_a_client_leaves_is_free_again() {
    let server = McpServer::good("web");
    let (_gateway, address) = start(&server);
    let door = to_http2(address);
    let session = McpClient::open(door);
    for _ in 0..3 {
        // Only one reader at a time has the stream: a new one is served because the last has left.
        let stream = session.listen(None);
        assert_eq!(session.call("echo", json!({})), "web: echo {}");
        drop(stream);
    }
}

#[test]
fn clients_of_2026_07_28() {
    let server = McpServer::scripted("web", steps);
    let (gateway, address) = start(&server);
    let doors = [to_http2(address), to_http2(address), to_http2(address)];
    for door in doors {
        let client = ModernClient::new(door);
        let result = client.call("echo", json!({ "a": 1 }));
        assert_eq!(text_of(&result), "web: echo {\"a\":1}");
    }
    eventually("records say so", || gateway.stdout().matches("protocol=HTTP/2").count() >= 3);
}
