//! Clients of the transport of 2024-11-05 at the endpoint that serves all others too.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::config::mcp;
use crate::support::gateway::{BINARY, Gateway, Setup, local};
use crate::support::mcp_client::{ACCEPT, McpClient, each, message, text_of};
use crate::support::mcp_server::{Act, McpServer, Offers, begin_events, event};
use crate::support::modern_server::{ModernServer, input_required};
use crate::support::sse_client::SseClient;
use crate::support::sse_server::SseServer;
use crate::support::wire::{Peer, request};
use crate::support::{eventually, free_port, resident_kib};
use crate::{federation, gateway, notes};

fn notification(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}

#[test]
fn everything_comes_on_one_stream() {
    let server = McpServer::scripted("web", |seen| match (seen.verb.as_str(), seen.tool()) {
        ("POST", "work") => {
            let id = seen.id().clone();
            let token = seen.message["params"]["_meta"]["progressToken"].clone();
            Act::Own(Box::new(move |peer| {
                let progress = notification("notifications/progress", json!({ "progressToken": token, "progress": 1 }));
                let ask = json!({ "jsonrpc": "2.0", "id": "ask", "method": "sampling/createMessage", "params": {} });
                let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [{ "type": "text", "text": "done" }] } });
                peer.send(begin_events() + &event(&progress) + &event(&ask) + &event(&answer) + "0\r\n\r\n");
            }))
        }
        _ => Act::Well,
    });
    let (_gateway, address) = federation(vec![server.target("web"), notes("notes")]);
    let mut client = SseClient::open(address);
    let list = client.result("tools/list", json!({}));
    assert!(each(&list["tools"], "name").contains(&"notes__add_note"), "{list}");
    assert_eq!(client.call("web__echo", json!({ "a": 1 })), "web: echo {\"a\":1}");
    // What belongs to no request comes on the stream as well.
    let added = message(5, "tools/call", json!({ "name": "notes__add_note", "arguments": { "text": "milk" } }));
    assert_eq!(client.post(&added).status, 202);
    let mut messages = [client.message().expect("one"), client.message().expect("two")];
    messages.sort_by_key(|message| message["id"].is_null());
    assert_eq!(
        (&messages[0]["id"], &messages[1]["method"]),
        (&json!(5), &json!("notifications/resources/list_changed"))
    );
    let params = json!({ "name": "web__work", "arguments": {}, "_meta": { "progressToken": "mine" } });
    assert_eq!(client.post(&message(7, "tools/call", params)).status, 202);
    assert_eq!(client.message().expect("progress")["params"]["progressToken"], "mine");
    let asked = client.message().expect("a question");
    assert_eq!(asked["method"], "sampling/createMessage");
    let done = client.message().expect("the answer");
    assert_eq!((&done["id"], text_of(&done["result"]).as_str()), (&json!(7), "done"));
    client.tell(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "text": "yes" } }));
    let answered = server.await_seen("the answer", |seen| seen.message["result"]["text"] == "yes");
    assert_eq!(answered.message["id"], "ask");
}

#[test]
fn every_revision_with_sessions_is_spoken_over_it() {
    let (web, old) = (McpServer::good("web"), SseServer::good("old"));
    let ask = json!({ "method": "elicitation/create", "params": {
        "message": "colour?", "requestedSchema": { "type": "object", "properties": {} },
    } });
    let new = ModernServer::offering("new", Offers::tools(&["ask", "echo"]), move |seen| {
        let answers = &seen.message["params"]["inputResponses"];
        match (seen.tool(), answers.is_null()) {
            ("ask", true) => input_required(json!({ "a": ask }), None),
            ("ask", false) => {
                Act::Result(json!({ "content": [{ "type": "text", "text": answers["a"]["content"].to_string() }] }))
            }
            _ => Act::Well,
        }
    });
    let (_gateway, address) = federation(vec![web.target("web"), old.target("old"), new.target("new")]);
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut client = SseClient::open_in(address, revision);
        assert_eq!(client.call("web__echo", json!({})), "web: echo {}", "{revision}");
        assert_eq!(client.call("old__echo", json!({})), "old: echo {}", "{revision}");
        assert_eq!(client.call("new__echo", json!({})), "new: echo {}", "{revision}");
        if revision < "2025-06-18" {
            continue; // It cannot be asked.
        }
        let call = message(9, "tools/call", json!({ "name": "new__ask", "arguments": {} }));
        assert_eq!(client.post(&call).status, 202);
        let asked = client.message().expect("a question");
        assert_eq!(asked["method"], "elicitation/create", "{asked}");
        let content = json!({ "action": "accept", "content": { "colour": "red" } });
        client.tell(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": content }));
        let answer = client.message().expect("an answer");
        assert_eq!((&answer["id"], text_of(&answer["result"]).as_str()), (&json!(9), "{\"colour\":\"red\"}"));
    }
    // At the same path, the transport of today.
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let headers = [("accept", ACCEPT), ("content-type", "application/json")];
    let opened = Peer::connect(address).ask("POST", "/sse", &headers, message(1, "initialize", params));
    let session = opened.get("mcp-session-id").expect("a session").to_owned();
    let headers = [("accept", "text/event-stream"), ("mcp-session-id", session.as_str())];
    let mut stream = Peer::connect(address);
    stream.send(request("GET", "/sse", &headers, b""));
    let head = stream.head().expect("an answer");
    assert_eq!(head.status(), 200);
    let first = stream.event(&mut String::new()).expect("a stream").expect("an event");
    assert_ne!(first.name.as_deref(), Some("endpoint"), "{first:?}");
    // And streamable HTTP in the revision of 2024, as its clients speak it too.
    assert_eq!(McpClient::open_in(address, "2024-11-05").call("web__echo", json!({})), "web: echo {}");
}

#[test]
fn what_cannot_be_taken_is_refused_at_once() {
    let server = McpServer::good("web");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("web")] }));
    let mut client = SseClient::connect(address, "/a/sse?tenant=x");
    assert!(client.endpoint.starts_with("/a/sse?tenant=x&sessionId="), "{}", client.endpoint);
    // Before `initialize`.
    assert_eq!(client.ask(1, "ping", json!({}))["result"], json!({}));
    assert_eq!(client.ask(2, "tools/list", json!({}))["error"]["code"], -32600);
    for (body, code) in [("nonsense", -32700), ("{}", -32600), ("[]", -32600), ("[{\"jsonrpc\":\"2.0\"}]", -32600)] {
        let refused = client.post(body);
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!(code)), "{body}");
    }
    let bad = client.ask(3, "initialize", json!({ "protocolVersion": "2024-11-05" }));
    assert_eq!(bad["error"]["code"], -32602, "{bad}");
    let params =
        json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    assert_eq!(client.ask(4, "initialize", params.clone())["result"]["protocolVersion"], "2024-11-05");
    assert_eq!(client.ask(5, "initialize", params)["error"]["code"], -32600);
    assert_eq!(client.post(&format!("[{}]", message(6, "ping", json!({})))).status, 400, "no batches in this revision");
    assert_eq!(client.call("echo", json!({})), "web: echo {}", "nothing of it did harm");

    let post = |target: &str, headers: &[(&str, &str)]| {
        Peer::connect(address).ask("POST", target, headers, message(7, "ping", json!({}))).status
    };
    let json = ("content-type", "application/json");
    let (path, id) = client.endpoint.split_once("sessionId=").expect("a session");
    let mut forged = id.as_bytes().to_vec();
    forged[10] = if forged[10] == b'A' { b'B' } else { b'A' };
    for wrong in ["", "x", &String::from_utf8(forged).expect("ascii")] {
        assert_eq!(post(&format!("{path}sessionId={wrong}"), &[json]), 404, "{wrong:?}");
    }
    let session = [json, ("accept", ACCEPT), ("mcp-session-id", id)];
    assert_eq!(post("/sse", &session), 404, "the id of a stream is no session id");
    assert_eq!(post(&client.endpoint, &[("content-type", "text/plain")]), 415);
    assert_eq!(post(&client.endpoint, &[json, ("origin", "http://evil.example")]), 403);
    let mut stream = Peer::connect(address);
    let foreign = stream.ask("GET", "/sse", &[("accept", "text/event-stream"), ("host", "evil.example")], "");
    assert_eq!(foreign.status, 403);
    assert_eq!(Peer::connect(address).ask("GET", "/sse", &[("accept", "application/json")], "").status, 406);
    assert_eq!(Peer::connect(address).ask("GET", "/mcp", &[("accept", "text/event-stream")], "").status, 400);
}

#[test]
fn a_batch_is_answered_as_one() {
    let server = McpServer::good("web");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("web")] }));
    let mut client = SseClient::open_in(address, "2025-03-26");
    let call = |id: u64| message(id, "tools/call", json!({ "name": "echo", "arguments": { "id": id } }));
    assert_eq!(client.post(&format!("[{},{}]", call(1), call(2))).status, 202);
    let answers = client.message().expect("an array");
    let texts: Vec<String> = answers.as_array().expect("an array").iter().map(|one| text_of(&one["result"])).collect();
    assert_eq!(texts, ["web: echo {\"id\":1}", "web: echo {\"id\":2}"]);
}

#[test]
fn the_end_of_the_stream_is_the_end_of_the_session() {
    let server = McpServer::scripted("web", |seen| match seen.tool() {
        "forever" => Act::Silence,
        _ => Act::Well,
    });
    let old = SseServer::good("old");
    let (gateway, address) = federation(vec![server.target("web"), old.target("old"), notes("notes")]);
    let client = SseClient::open(address);
    let other = SseClient::connect(address, "/sse");
    assert_eq!(client.post(&message(1, "tools/call", json!({ "name": "web__forever" }))).status, 202);
    server.await_seen("the call", |seen| seen.tool() == "forever");
    let endpoint = client.endpoint.clone();
    drop((client, other));
    server.await_seen("the end", |seen| seen.verb == "DELETE");
    eventually("the conversation behind is closed", || old.ended() == 1);
    eventually("the session is gone", || gateway.metric("agentlane_mcp_sessions", "") == 0.0);
    eventually("and its child", || crate::support::children_of(gateway.pid()).is_empty());
    let headers = [("content-type", "application/json")];
    let late = Peer::connect(address).ask("POST", &endpoint, &headers, message(2, "ping", json!({})));
    assert_eq!(late.status, 404);
}

#[test]
fn a_gateway_that_goes_down_ends_the_streams() {
    let server = McpServer::good("web");
    let (gateway, address) = gateway(json!({ "targets": [server.target("web")] }));
    let mut client = SseClient::open(address);
    let mut other = SseClient::connect(address, "/sse");
    assert_eq!(client.call("echo", json!({})), "web: echo {}");
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("cut off"), "{}", ended.stderr);
    assert_eq!((client.message(), other.message()), (None, None));
}

#[test]
fn messages_find_their_conversation_from_every_shard() {
    let server = McpServer::good("web");
    let port = free_port();
    let notes = json!({ "name": "notes", "stdio": { "cmd": BINARY, "args": ["demo-notes"], "mode": "shared" } });
    let config = mcp(port, json!({ "targets": [server.target("web"), notes] })).to_string();
    let gateway = Setup::new(&config).args(&["--shards", "4"]).start();
    let address = local(port);
    let mut clients: Vec<SseClient> = (0..8).map(|_| SseClient::open(address)).collect();
    let mut kept = Peer::connect(address);
    for round in 0..6 {
        for (number, client) in clients.iter_mut().enumerate() {
            let arguments = json!({ "round": round, "client": number });
            assert_eq!(client.call("web__echo", arguments.clone()), format!("web: echo {arguments}"));
            let call = message(9, "tools/call", json!({ "name": "web__echo", "arguments": arguments }));
            assert_eq!(client.post_on(&mut kept, &call).status, 202);
            assert_eq!(client.message().expect("an answer")["id"], 9);
        }
    }
    assert!(gateway.metric("agentlane_connections_moved_total", "") > 0.0);
    assert!(gateway.metric("agentlane_requests_forwarded_total", "") > 0.0);
    assert_eq!(clients[0].post_on(&mut kept, "nonsense").status, 400);
    // What a shared child says reaches every conversation, whichever shard owns the child.
    let add = message(10, "tools/call", json!({ "name": "notes__add_note", "arguments": { "text": "milk" } }));
    assert_eq!(clients[0].post(&add).status, 202);
    for client in &mut clients[1..] {
        assert_eq!(client.message().expect("a notice")["method"], "notifications/resources/list_changed");
    }
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_amount() {
    let server = McpServer::scripted("web", |seen| match seen.tool() {
        "flood" => Act::Own(Box::new(|peer| {
            peer.send(begin_events());
            let data = json!({ "level": "info", "data": "x".repeat(10_000) });
            let message = event(&notification("notifications/message", data));
            peer.stream().set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            while peer.try_send(&message).is_ok() {}
        })),
        "big" => {
            let text = "x".repeat(1 << 20);
            Act::Result(json!({ "content": [{ "type": "text", "text": text }] }))
        }
        _ => Act::Well,
    });
    let (gateway, address) = federation(vec![server.target("web"), notes("notes")]);
    let mut other = SseClient::open(address);
    other.call("web__echo", json!({}));
    let before = resident_kib(gateway.pid());
    let deaf = SseClient::open(address);
    assert_eq!(deaf.post(&message(1, "tools/call", json!({ "name": "web__flood" }))).status, 202);
    server.await_seen("the flood", |seen| seen.tool() == "flood");
    for number in 0..50 {
        assert_eq!(other.call("web__echo", json!(number)), format!("web: echo {number}"));
    }
    let growth = resident_kib(gateway.pid()).saturating_sub(before);
    assert!(growth < 16 * 1024, "{growth} KiB for a client that does not read");
    drop(deaf);
    eventually("it is forgotten", || gateway.metric("agentlane_mcp_sessions", "") == 1.0);
    // One that reads gets everything, however large and however much at once.
    for id in 0..20 {
        assert_eq!(other.post(&message(id, "tools/call", json!({ "name": "web__big" }))).status, 202);
    }
    let mut ids: Vec<u64> =
        (0..20).map(|_| other.message().expect("an answer")["id"].as_u64().expect("an id")).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..20).collect::<Vec<u64>>());
}

#[test]
fn streams_are_counted_like_sessions() {
    let server = McpServer::good("web");
    let port = free_port();
    let mut config = mcp(port, json!({ "targets": [server.target("web")] }));
    config["shards"] = json!({ "count": 1, "sessionsMax": 2 });
    let _gateway = Gateway::start(&config.to_string());
    let _first = SseClient::connect(local(port), "/sse");
    let second = SseClient::connect(local(port), "/sse");
    let refused = Peer::connect(local(port)).ask("GET", "/sse", &[("accept", "text/event-stream")], "");
    assert_eq!(refused.status, 503);
    drop(second);
    eventually("there is room again", || {
        let mut peer = Peer::connect(local(port));
        peer.send(request("GET", "/sse", &[("accept", "text/event-stream")], b""));
        peer.head().expect("an answer").status() == 200
    });
}
