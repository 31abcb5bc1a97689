//! Targets of the transport of 2024-11-05, configured as such and found out.

use serde_json::json;

use crate::support::eventually;
use crate::support::mcp_client::{McpClient, answer_of, initialize, text_of};
use crate::support::sse_server::{React, SseServer};
use crate::{federation, gateway, missing, notes, tool_names};

fn text(text: &str) -> serde_json::Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

#[test]
fn a_server_of_2024_11_05_is_one_conversation() {
    let server = SseServer::scripted("old", |heard, voice| match (heard.tool(), heard.message.get("method")) {
        ("work", _) => {
            let token = &heard.message["params"]["_meta"]["progressToken"];
            let progress = json!({ "progressToken": token, "progress": 1 });
            voice.say(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": progress }));
            voice.say(&json!({ "jsonrpc": "2.0", "id": "ask", "method": "sampling/createMessage", "params": {} }));
            React::Said
        }
        // The answer to what it asked: the call can end.
        (_, None) => React::Said,
        _ => React::Well,
    });
    let (_gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let client = McpClient::open(address);
    assert_eq!(client.initialized["serverInfo"]["name"], "old");
    let opened = &server.heard()[0];
    assert_eq!((opened.verb.as_str(), opened.request.head.get("accept")), ("GET", Some("text/event-stream")));
    server.await_heard("initialized", |heard| heard.method() == "notifications/initialized");
    assert_eq!(client.call("echo", json!({ "a": 1 })), "old: echo {\"a\":1}");

    let params = json!({ "name": "work", "arguments": {}, "_meta": { "progressToken": "mine" } });
    let mut stream = client.stream(7, "tools/call", params);
    assert_eq!(stream.message().expect("progress")["params"]["progressToken"], "mine");
    let asked = stream.message().expect("a question");
    assert_eq!(asked["method"], "sampling/createMessage");
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "text": "yes" } });
    assert_eq!(client.post(&answer.to_string()).status, 202);
    let answered =
        server.await_heard("the answer", |heard| heard.message.get("method").is_none() && heard.verb == "POST");
    assert_eq!(answered.message["id"], "ask");
    let call = server.await_heard("the call", |heard| heard.tool() == "work");
    server.voice(1).result(&call, text("done"));
    let done = stream.message().expect("the answer");
    assert_eq!((&done["id"], text_of(&done["result"]).as_str()), (&json!(7), "done"));

    let mut events = client.listen(None);
    server.voice(1).say(&json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }));
    assert_eq!(events.message().expect("a notice")["method"], "notifications/tools/list_changed");
    let other = McpClient::open(address);
    assert_eq!(server.conversations(), 2, "one for each session");
    other.end();
    eventually("the other session's stream is closed", || server.ended() == 1);
    assert_eq!(client.call("echo", json!({})), "old: echo {}");
}

#[test]
fn a_cancelled_call_is_cancelled_there_under_its_own_number() {
    let server = SseServer::scripted("old", |heard, _| match heard.tool() {
        "forever" => React::Said,
        _ => React::Well,
    });
    let (_gateway, address) = federation(vec![server.target("old"), notes("notes")]);
    let client = McpClient::open(address);
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| client.ask("tools/call", json!({ "name": "old__forever", "arguments": {} })));
        let call = server.await_heard("the call", |heard| heard.tool() == "forever");
        let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
        assert_eq!(client.post(&cancel.to_string()).status, 202);
        let told = server.await_heard("the cancellation", |heard| heard.method() == "notifications/cancelled");
        assert_eq!(told.message["params"]["requestId"], call.message["id"]);
        assert_eq!(calling.join().expect("an answer")["error"]["code"], -32800);
    });
}

#[test]
fn the_transport_of_a_target_is_found_out_once() {
    let server = SseServer::good("old");
    let (_gateway, address) = gateway(json!({ "targets": [server.unknown_target("old")] }));
    for round in 1..=3 {
        let client = McpClient::open(address);
        assert_eq!(client.call("echo", json!({ "round": round })), format!("old: echo {{\"round\":{round}}}"));
        assert_eq!(server.conversations(), round);
    }
    let asked = server.count(|heard| heard.verb == "POST" && heard.path == "/sse");
    assert_eq!(asked, 2, "for either other way once; what it speaks is known after the first time");
}

#[test]
fn a_target_that_is_neither_says_what_it_refused() {
    let server = SseServer::naming("silent", |_, _| None, |_, _| React::Well);
    let backend = json!({ "targets": [server.target("silent"), notes("notes")], "deadline": "300ms" });
    let (_gateway, address) = gateway(backend);
    let client = McpClient::open(address);
    let list = client.result("tools/list", json!({}));
    assert_eq!(missing(&list), ["silent"]);
    assert!(tool_names(&list).iter().all(|name| name.starts_with("notes__")), "{list}");
    eventually("nobody listens to a stream that is of no use", || server.ended() == server.conversations());
}

#[test]
fn messages_go_to_no_other_origin() {
    let elsewhere = SseServer::good("elsewhere");
    let place = elsewhere.address;
    let endpoint = move |_, conversation| Some(format!("http://{place}/message?sessionId={conversation}"));
    let server = SseServer::naming("old", endpoint, |_, _| React::Well);
    for target in [server.target("old"), server.unknown_target("old")] {
        let (_gateway, address) = gateway(json!({ "targets": [target] }));
        let refused = initialize(address, "2025-11-25");
        assert_eq!(refused.status, 502, "{}", refused.text());
        assert_eq!(answer_of(&refused)["error"]["code"], -32603);
    }
    assert!(elsewhere.heard().is_empty());
    // Its own, written out, is no other.
    let endpoint = |address, conversation| Some(format!("http://{address}/message?sessionId={conversation}"));
    let server = SseServer::naming("old", endpoint, |_, _| React::Well);
    let (_gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    assert_eq!(McpClient::open(address).call("echo", json!({})), "old: echo {}");
}

#[test]
fn a_broken_stream_is_opened_again_by_the_next_use() {
    let server = SseServer::scripted("old", |heard, voice| match heard.tool() {
        "break" => {
            voice.fall_silent();
            React::Said
        }
        _ => React::Well,
    });
    let (_gateway, address) = federation(vec![server.target("old"), notes("notes")]);
    let client = McpClient::open(address);
    let level = json!({ "level": "error" });
    client.result("logging/setLevel", level.clone());
    let broken = client.result("tools/call", json!({ "name": "old__break", "arguments": {} }));
    assert_eq!(broken["isError"], true, "{broken}");
    assert!(text_of(&broken).contains("unknown"), "{broken}");
    eventually("the next call is served", || {
        client.result("tools/call", json!({ "name": "old__echo", "arguments": {} }))["isError"] != true
    });
    assert_eq!(server.conversations(), 2);
    let again = |method: &'static str| server.count(|heard| heard.conversation == 2 && heard.method() == method);
    assert_eq!((again("notifications/initialized"), again("logging/setLevel")), (1, 1));
}

#[test]
fn a_conversation_that_the_server_forgot_is_begun_anew() {
    let server = SseServer::scripted("old", |heard, _| match (heard.conversation, heard.tool()) {
        (1, "echo") => React::Status(404),
        (_, "bad") => React::Status(400),
        _ => React::Well,
    });
    let (_gateway, address) = federation(vec![server.target("old"), notes("notes")]);
    let client = McpClient::open(address);
    let call = |tool: &str| client.result("tools/call", json!({ "name": tool, "arguments": {} }));
    assert_eq!(call("old__bad")["isError"], true, "a refused message is no silence");
    assert_eq!(server.conversations(), 1, "and no reason to begin anew");
    assert_eq!(call("old__echo")["isError"], true);
    eventually("it works in a new conversation", || call("old__echo")["isError"] != true);
    assert_eq!(server.conversations(), 2);
}

#[test]
fn a_server_that_answers_posts_late_holds_nothing_up() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let server = SseServer::scripted("old", move |heard, voice| match heard.tool() {
        // Its POST is answered only after its result, which waits for the other call.
        "late" => {
            let _ = held.lock().expect("no panic in between").recv_timeout(crate::support::PATIENCE);
            voice.result(heard, text("late"));
            React::Said
        }
        _ => React::Well,
    });
    let (_gateway, address) = federation(vec![server.target("old"), notes("notes")]);
    let client = McpClient::open(address);
    std::thread::scope(|scope| {
        let late = scope.spawn(|| client.call("old__late", json!({})));
        server.await_heard("the late call", |heard| heard.tool() == "late");
        assert_eq!(client.call("old__echo", json!({})), "old: echo {}");
        release.send(()).expect("the server waits");
        assert_eq!(late.join().expect("an answer"), "late");
    });
}
