//! Sessions over four shards, on every driver: whichever shard a connection lands on, the session answers. Fresh
//! connections move to the session's shard, used ones have their requests forwarded; both are counted.

use std::collections::HashSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::config::mcp;
use crate::support::gateway::{BINARY, Gateway, Setup, local};
use crate::support::mcp_client::{McpClient, answer_of, each, message, text_of};
use crate::support::mcp_server::{Act, McpServer};
use crate::support::wire::{Peer, request};
use crate::support::{eventually, free_port};

const SHARDS: usize = 4;
const SESSIONS: usize = 8;
const CONNECTIONS: usize = 12;

/// A scripted target whose tool `steps` sends progress before its answer, and a shared child.
fn server() -> McpServer {
    McpServer::scripted("web", |seen| match seen.tool() {
        "steps" => {
            let token = &seen.message["params"]["_meta"]["progressToken"];
            let progress = |n: u64| json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": n } });
            let text = format!("for {}", seen.session.as_deref().unwrap_or_default());
            let answer = json!({ "jsonrpc": "2.0", "id": seen.id(), "result": { "content": [{ "type": "text", "text": text }] } });
            Act::Events(vec![progress(1), progress(2), answer])
        }
        _ => Act::Well,
    })
}

fn start(server: &McpServer, prepare: impl FnOnce(Setup) -> Setup) -> (Gateway, SocketAddr) {
    let port = free_port();
    let notes = json!({ "name": "notes", "stdio": { "cmd": BINARY, "args": ["demo-notes"], "mode": "shared" } });
    let config = mcp(port, json!({ "targets": [server.target("web"), notes] })).to_string();
    (prepare(Setup::new(&config).args(&["--shards", "4"])).start(), local(port))
}

/// Sessions until every shard has one, and `SESSIONS` at least.
fn sessions_on_every_shard(gateway: &Gateway, address: SocketAddr) -> Vec<McpClient> {
    let mut sessions: Vec<McpClient> = (0..SESSIONS).map(|_| McpClient::open(address)).collect();
    let owning = || {
        (0..SHARDS)
            .filter(|shard| gateway.metric("agentlane_mcp_sessions", &format!("shard=\"{shard}\"")) > 0.0)
            .count()
    };
    while owning() < SHARDS {
        sessions.push(McpClient::open(address));
        assert!(sessions.len() < 200, "the kernel leaves a shard out");
    }
    sessions
}

fn every_session_from_everywhere_on(driver: &str) -> String {
    let server = server();
    let (gateway, address) = start(&server, |setup| setup.on(driver));
    let sessions = sessions_on_every_shard(&gateway, address);
    // Each from many fresh connections.
    for (number, session) in sessions.iter().enumerate() {
        for connection in 0..CONNECTIONS {
            let arguments = json!({ "session": number, "connection": connection });
            assert_eq!(session.call("web__echo", arguments.clone()), format!("web: echo {arguments}"));
        }
    }
    let moved = gateway.metric("agentlane_connections_moved_total", "");
    assert!(moved > 0.0, "fresh connections move to the session's shard");
    // All of them in turn over one connection: after its first use it stays, and requests travel.
    let mut peer = Peer::connect(address);
    for round in 0..3 {
        for (number, session) in sessions.iter().enumerate() {
            let arguments = json!({ "round": round, "session": number });
            let answer =
                session.ask_on(&mut peer, "tools/call", json!({ "name": "web__echo", "arguments": arguments }));
            assert_eq!(text_of(&answer["result"]), format!("web: echo {arguments}"));
            let list = session.ask_on(&mut peer, "tools/list", json!({}));
            assert!(each(&list["result"]["tools"], "name").contains(&"notes__add_note"), "{list}");
        }
    }
    assert!(
        gateway.metric("agentlane_requests_forwarded_total", "") > 0.0,
        "requests of a used connection are forwarded"
    );
    streamed_answers(&sessions, &mut peer);
    standalone_streams(&sessions);
    faults_and_ends(&sessions, &mut peer);
    eventually("all sessions have ended", || gateway.metric("agentlane_mcp_sessions", "") == 0.0);
    let log = gateway.stderr();
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    log
}

/// Streams of events over a connection of another shard, with nothing of one session in another's.
fn streamed_answers(sessions: &[McpClient], peer: &mut Peer) {
    let mut seen = HashSet::new();
    for (number, session) in sessions.iter().enumerate() {
        let params = json!({ "name": "web__steps", "arguments": {}, "_meta": { "progressToken": number } });
        let response = session.post_on(peer, &message(number as u64, "tools/call", params.clone()));
        let forwarded = crate::support::wire::events(response.text()).into_iter().filter_map(|event| event.data);
        let forwarded: Vec<Value> = forwarded
            .filter(|data| !data.is_empty())
            .map(|data| serde_json::from_str(&data).expect("a message"))
            .collect();
        let moved = session.stream(number as u64, "tools/call", params).messages();
        for messages in [&forwarded, &moved] {
            assert_eq!(messages.len(), 3, "{messages:?}");
            assert!(messages[..2].iter().all(|message| message["params"]["progressToken"] == number), "{messages:?}");
            assert_eq!(messages[2]["id"], number);
        }
        assert_eq!(forwarded[2]["result"], moved[2]["result"], "one session, one session behind");
        assert!(seen.insert(text_of(&moved[2]["result"])), "two sessions share one behind");
    }
}

/// The stream of every session, opened on whichever shard, hears what the shared child says.
fn standalone_streams(sessions: &[McpClient]) {
    let mut streams: Vec<_> = sessions.iter().map(|session| session.listen(None)).collect();
    sessions[0].call("notes__add_note", json!({ "text": "milk" }));
    for stream in &mut streams {
        assert_eq!(stream.message().expect("a notice")["method"], "notifications/resources/list_changed");
    }
}

/// The same answers to bad input, wherever it is said.
fn faults_and_ends(sessions: &[McpClient], peer: &mut Peer) {
    for session in sessions {
        assert_eq!(session.post_on(peer, "nonsense").status, 400);
        assert_eq!(session.post_on(peer, &message(1, "no/such", json!({}))).json()["error"]["code"], -32601);
        let told = session
            .post_on(peer, &json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" }).to_string());
        assert_eq!((told.status, told.body.len()), (202, 0));
        peer.send(request("DELETE", "/mcp", &session.headers(), b""));
        assert_eq!(peer.response("DELETE").status, 200);
        let after = session.post_on(peer, &message(1, "ping", json!({})));
        assert_eq!((after.status, &answer_of(&after)["error"]["code"]), (404, &json!(-32600)));
        assert_eq!(session.post(&message(1, "ping", json!({}))).status, 404);
    }
}

#[test]
fn on_io_uring() {
    every_session_from_everywhere_on("uring");
}

#[test]
fn on_epoll() {
    let log = every_session_from_everywhere_on("epoll");
    assert!(log.contains("driver=Epoll"), "{log}");
}

#[test]
fn on_glommio() {
    let log = every_session_from_everywhere_on("glommio");
    assert!(log.contains("driver=Glommio"), "{log}");
}

#[test]
fn requests_read_ahead_move_with_their_connection() {
    let server = server();
    let (gateway, address) = start(&server, |setup| setup);
    let sessions = sessions_on_every_shard(&gateway, address);
    for session in &sessions {
        for _ in 0..CONNECTIONS {
            // Two requests in one write: the second one is in the buffer of the shard that accepted.
            let call = |number: u64| {
                message(number, "tools/call", json!({ "name": "web__echo", "arguments": { "n": number } }))
            };
            let mut bytes = request("POST", "/mcp", &session.headers(), call(1).as_bytes());
            bytes.extend(request("POST", "/mcp", &session.headers(), call(2).as_bytes()));
            let mut peer = Peer::connect(address);
            peer.send(bytes);
            for number in [1, 2] {
                let answer = peer.response("POST").json();
                assert_eq!(
                    (&answer["id"], text_of(&answer["result"])),
                    (&json!(number), format!("web: echo {{\"n\":{number}}}"))
                );
            }
        }
    }
}

#[test]
fn a_session_id_of_another_gateway_s_key_is_unknown_on_every_shard() {
    let server = server();
    let (_one, first) = start(&server, |setup| setup);
    let (_two, second) = start(&server, |setup| setup);
    let session = McpClient::open(first);
    let elsewhere = McpClient { address: second, ..session.clone() };
    for _ in 0..CONNECTIONS {
        assert_eq!(elsewhere.post(&message(1, "ping", json!({}))).status, 404);
    }
    assert_eq!(session.result("ping", json!({})), json!({}));
}

#[test]
fn one_key_makes_ids_readable_but_no_session_appear() {
    let key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let server = server();
    let (_one, first) = start(&server, |setup| setup.env("SESSION_KEY", key));
    let (_two, second) = start(&server, |setup| setup.env("SESSION_KEY", key));
    let session = McpClient::open(first);
    let elsewhere = McpClient { address: second, ..session.clone() };
    for _ in 0..CONNECTIONS {
        assert_eq!(elsewhere.post(&message(1, "ping", json!({}))).status, 404, "404 makes the client begin anew");
    }
    assert_eq!(session.result("ping", json!({})), json!({}));
}
