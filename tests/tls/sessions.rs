//! MCP sessions over TLS on several shards: connections move with their keys, requests are forwarded, and the client is
//! known wherever it is served.

use serde_json::json;

use crate::bind;
use crate::support::gateway::{Setup, local};
use crate::support::mcp_client::{McpClient, text_of};
use crate::support::mcp_server::McpServer;
use crate::support::tls::{Authority, client, dial, front};
use crate::support::wire::Peer;
use crate::support::{eventually, free_port};

fn on(driver: &str) {
    let authority = Authority::new();
    let server = McpServer::good("web");
    let upstream = front(server.address, &authority.issue(&["up.test"]), None);
    let port = free_port();
    let target = json!({
        "name": "web",
        "mcp": { "host": format!("https://{upstream}/mcp") },
        "policies": { "backendTLS": { "root": authority.root(), "hostname": "up.test" } },
    });
    let mut tls = authority.issue(&["localhost"]).listener();
    tls["root"] = json!(authority.root());
    let routes = json!([{ "backends": [{ "mcp": { "targets": [target] } }] }]);
    let config = bind(port, json!([{ "tls": tls, "routes": routes }]));
    let gateway = Setup::new(&config.to_string()).args(&["--shards", "4"]).on(driver).start();
    let identity = authority.issue(&["agent.test"]);
    let address = dial(local(port), "localhost", client(&authority.root(), Some(&identity)));
    let sessions: Vec<McpClient> = (0..6).map(|_| McpClient::open(address)).collect();
    for (number, session) in sessions.iter().enumerate() {
        for connection in 0..8 {
            let arguments = json!({ "session": number, "connection": connection });
            assert_eq!(session.call("echo", arguments.clone()), format!("web: echo {arguments}"));
        }
    }
    assert!(gateway.metric("agentlane_connections_moved_total", "") > 0.0, "fresh connections move");
    let mut peer = Peer::connect(address);
    for round in 0..3 {
        for (number, session) in sessions.iter().enumerate() {
            let arguments = json!({ "round": round, "session": number });
            let answer = session.ask_on(&mut peer, "tools/call", json!({ "name": "echo", "arguments": arguments }));
            assert_eq!(text_of(&answer["result"]), format!("web: echo {arguments}"));
        }
    }
    assert!(gateway.metric("agentlane_requests_forwarded_total", "") > 0.0, "those of used ones are forwarded");
    eventually("the records name the client", || gateway.stdout().matches("CN=agent.test").count() > 6 * 8);
    sessions.iter().for_each(|session| drop(session.end()));
    assert_eq!(gateway.metric("agentlane_tls_handshakes_total", "outcome=\"failed\""), 0.0);
}

#[test]
fn on_io_uring() {
    on("uring");
}

#[test]
fn on_epoll() {
    on("epoll");
}

#[test]
fn on_glommio() {
    on("glommio");
}
