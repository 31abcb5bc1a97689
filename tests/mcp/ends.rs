//! The ends of sessions, and children behind them: never a zombie, never an orphan.

use serde_json::json;

use crate::support::config::mcp;
use crate::support::gateway::{Gateway, local};
use crate::support::mcp_client::{McpClient, answer_of, initialize, message};
use crate::support::mcp_server::McpServer;
use crate::support::{children_of, eventually, exists, free_port};
use crate::{federation, gateway, notes};

/// Sockets of a child beside its standard streams.
fn inherited_sockets(pid: u32) -> Vec<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a running child").flatten();
    let inherited = descriptors.filter(|entry| !["0", "1", "2"].contains(&&*entry.file_name().to_string_lossy()));
    let targets = inherited.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.map(|target| target.to_string_lossy().into_owned()).filter(|target| target.starts_with("socket:")).collect()
}

#[test]
fn the_end_of_a_session_is_the_end_of_those_behind_it() {
    let (one, two) = (McpServer::good("one"), McpServer::good("two"));
    let (gateway, address) = federation(vec![one.target("one"), notes("notes"), two.target("two")]);
    let client = McpClient::open(address);
    let other = McpClient::open(address);
    client.call("notes__list_notes", json!({}));
    other.call("notes__list_notes", json!({}));
    let children = children_of(gateway.pid());
    assert_eq!(children.len(), 2, "one child for each session");
    for &child in &children {
        assert!(inherited_sockets(child).is_empty(), "{:?}", inherited_sockets(child));
    }
    assert!([200, 202, 204].contains(&client.end().status));
    for server in [&one, &two] {
        let ended = server.await_seen("the end", |seen| seen.verb == "DELETE");
        assert!(ended.session.is_some_and(|session| session.ends_with("-1")), "the client's own");
    }
    eventually("the session's child is gone, and no zombie", || {
        children.iter().filter(|&&child| exists(child)).count() == 1
    });
    assert!(other.call("notes__list_notes", json!({})).contains("Welcome"), "the other session's goes on");
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(children.iter().all(|&child| !exists(child)), "an orphan is left");
}

#[test]
fn idle_sessions_end_and_those_behind_them() {
    let server = McpServer::good("web");
    let targets = json!([server.target("web"), notes("notes")]);
    let (gateway, address) = gateway(json!({ "targets": targets, "sessionIdleTimeout": "300ms" }));
    let idle = McpClient::open(address);
    let listening = McpClient::open(address);
    let stream = listening.listen(None);
    eventually("the idle session has ended", || gateway.metric("agentlane_mcp_sessions_expired_total", "") == 1.0);
    assert_eq!(idle.post(&message(1, "ping", json!({}))).status, 404);
    server.await_seen("the end", |seen| seen.verb == "DELETE");
    assert_eq!(listening.result("ping", json!({})), json!({}), "an open stream is no idling");
    drop(stream);
    eventually("nobody listens any more", || gateway.metric("agentlane_mcp_sessions", "") == 0.0);
    eventually("no child is left", || children_of(gateway.pid()).is_empty());
}

#[test]
fn a_child_that_dies_is_started_again() {
    let (gateway, address) = federation(vec![notes("notes"), McpServer::good("web").target("web")]);
    let client = McpClient::open(address);
    client.call("notes__add_note", json!({ "text": "milk" }));
    let children = children_of(gateway.pid());
    let [child] = children[..] else { panic!("one child: {children:?}") };
    // SAFETY: kill(2) has no memory effects; the process is a child of a gateway of this test.
    assert_eq!(unsafe { libc::kill(i32::try_from(child).expect("an id"), libc::SIGKILL) }, 0);
    eventually("it is served again", || {
        let answer = client.ask("tools/call", json!({ "name": "notes__list_notes", "arguments": {} }));
        answer["result"]["isError"] != true && answer.get("error").is_none()
    });
    assert!(!exists(child), "a zombie is left");
    assert_eq!(children_of(gateway.pid()).len(), 1);
}

#[test]
fn one_shared_child_serves_all_sessions() {
    let mut shared = notes("notes");
    shared["stdio"]["mode"] = "shared".into();
    let (gateway, address) = federation(vec![shared, McpServer::good("web").target("web")]);
    let clients: Vec<McpClient> = (0..4).map(|_| McpClient::open(address)).collect();
    clients[0].call("notes__add_note", json!({ "text": "milk" }));
    for client in &clients {
        assert!(client.call("notes__list_notes", json!({})).contains("milk"));
    }
    assert_eq!(children_of(gateway.pid()).len(), 1);
    clients[0].end();
    assert!(clients[1].call("notes__list_notes", json!({})).contains("milk"), "it stays for the others");
}

#[test]
fn a_shard_holds_as_many_sessions_as_it_may() {
    let server = McpServer::good("web");
    let port = free_port();
    let mut config = mcp(port, json!({ "targets": [server.target("web")] }));
    config["shards"] = json!({ "count": 1, "sessionsMax": 2 });
    let _gateway = Gateway::start(&config.to_string());
    let (first, second) = (McpClient::open(local(port)), McpClient::open(local(port)));
    let refused = initialize(local(port), "2025-11-25");
    assert_eq!((refused.status, refused.get("mcp-session-id")), (503, None));
    assert_eq!(answer_of(&refused)["error"]["code"], -32603);
    assert_eq!(second.call("echo", json!({})), "web: echo {}", "the others go on");
    assert_eq!(first.end().status, 200);
    assert_eq!(McpClient::open(local(port)).call("echo", json!({})), "web: echo {}");
    let opened = server.sessions();
    eventually("what was refused is ended behind as well", || {
        server.seen().iter().filter(|seen| seen.verb == "DELETE").count() == opened - 2
    });
}
