//! Both directions: questions of servers, progress, notices, cancellation, and which headers go along.

use std::sync::{Arc, Mutex, mpsc};

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, local};
use crate::support::mcp_client::{McpClient, message, text_of};
use crate::support::mcp_server::{Act, McpServer, begin_events, event};
use crate::support::upstream::Upstream;
use crate::support::wire::Peer;
use crate::support::{PATIENCE, free_port};
use crate::{federation, gateway, notes};

/// A server whose tool `sample` asks the client's model, under the id 1, and answers with what it said.
fn sampling(name: &'static str) -> McpServer {
    let answers: Arc<Mutex<Option<mpsc::Sender<Value>>>> = Arc::default();
    McpServer::scripted(name, move |seen| {
        if seen.verb == "POST" && seen.message.get("method").is_none() {
            if let Some(waiting) = answers.lock().expect("no panic in between").take() {
                let _ = waiting.send(seen.message.clone());
            }
            return Act::Well;
        }
        if seen.tool() != "sample" {
            return Act::Well;
        }
        let (answered, answer) = mpsc::channel();
        *answers.lock().expect("no panic in between") = Some(answered);
        let id = seen.id().clone();
        Act::Own(Box::new(move |peer| {
            peer.send(begin_events());
            let question = json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": name } }], "maxTokens": 5 });
            peer.send(event(
                &json!({ "jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": question }),
            ));
            let Ok(answer) = answer.recv_timeout(PATIENCE) else { return };
            let text = format!("{name} heard {} as {}", answer["result"]["content"]["text"], answer["id"]);
            let result = json!({ "content": [{ "type": "text", "text": text }] });
            peer.send(event(&json!({ "jsonrpc": "2.0", "id": id, "result": result })) + "0\r\n\r\n");
        }))
    })
}

#[test]
fn equal_ids_of_two_servers_do_not_collide() {
    let (one, two) = (sampling("one"), sampling("two"));
    let (_gateway, address) = federation(vec![one.target("one"), two.target("two")]);
    let client = McpClient::open(address);
    let mut first = client.stream(7, "tools/call", json!({ "name": "one__sample", "arguments": {} }));
    let mut second = client.stream(8, "tools/call", json!({ "name": "two__sample", "arguments": {} }));
    let (asked_first, asked_second) = (first.message().expect("a question"), second.message().expect("a question"));
    assert_ne!(asked_first["id"], asked_second["id"]);
    // Answered the other way round.
    for asked in [&asked_second, &asked_first] {
        assert_eq!(asked["method"], "sampling/createMessage");
        let said = format!("re {}", asked["params"]["messages"][0]["content"]["text"].as_str().expect("a text"));
        let result = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": said } });
        let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
        assert_eq!(client.post(&answer.to_string()).status, 202);
    }
    let answer = first.message().expect("an answer");
    assert_eq!((&answer["id"], text_of(&answer["result"]).as_str()), (&json!(7), "one heard \"re one\" as 1"));
    let answer = second.message().expect("an answer");
    assert_eq!((&answer["id"], text_of(&answer["result"]).as_str()), (&json!(8), "two heard \"re two\" as 1"));
    assert_eq!((first.message(), second.message()), (None, None));
}

#[test]
fn progress_and_log_messages_come_in_order_before_the_answer() {
    let server = McpServer::scripted("web", |seen| match seen.tool() {
        "steps" => {
            let token = &seen.message["params"]["_meta"]["progressToken"];
            let progress = |n: u64| json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": n } });
            let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": "half" } });
            let answer = json!({ "jsonrpc": "2.0", "id": seen.id(), "result": { "content": [] } });
            Act::Events(vec![progress(1), log, progress(2), answer])
        }
        _ => Act::Well,
    });
    let (_gateway, address) = federation(vec![server.target("web"), notes("notes")]);
    let client = McpClient::open(address);
    for token in [json!("a token"), json!(7)] {
        let params = json!({ "name": "web__steps", "arguments": {}, "_meta": { "progressToken": token } });
        let messages = client.stream(3, "tools/call", params).messages();
        let what: Vec<&str> = messages.iter().map(|message| message["method"].as_str().unwrap_or("answer")).collect();
        assert_eq!(what, ["notifications/progress", "notifications/message", "notifications/progress", "answer"]);
        assert_eq!((&messages[0]["params"]["progressToken"], &messages[3]["id"]), (&token, &json!(3)));
    }
}

#[test]
fn what_a_server_says_by_itself_comes_on_the_session_s_stream() {
    let (say, said) = mpsc::channel::<Value>();
    let said = Mutex::new(Some(said));
    let server = McpServer::scripted("web", move |seen| {
        let taken = if seen.verb == "GET" { said.lock().expect("no panic in between").take() } else { None };
        let Some(said) = taken else { return Act::Well };
        Act::Own(Box::new(move |peer| {
            peer.send(begin_events());
            while let Ok(message) = said.recv() {
                peer.send(event(&message));
            }
        }))
    });
    let (_gateway, address) = federation(vec![server.target("web"), notes("notes")]);
    let client = McpClient::open(address);
    let mut stream = client.listen(None);
    server.await_seen("its own stream opened", |seen| seen.verb == "GET");
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
    say.send(changed.clone()).expect("the server listens");
    assert_eq!(stream.message(), Some(changed));
    say.send(json!({ "jsonrpc": "2.0", "id": "s-1", "method": "roots/list" })).expect("the server listens");
    let asked = stream.message().expect("a question");
    assert_eq!(asked["method"], "roots/list");
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "roots": [] } });
    assert_eq!(client.post(&answer.to_string()).status, 202);
    let answer = server.await_seen("the answer", |seen| seen.message.get("result").is_some());
    assert_eq!((answer.id(), answer.session.as_deref()), (&json!("s-1"), Some("web-1")));
    // A child has one stream for all it says: while it serves a call, its notices go with the answer.
    let params = json!({ "name": "notes__add_note", "arguments": { "text": "milk" } });
    let answer = client.post(&message(1, "tools/call", params));
    if !answer.text().contains("notifications/resources/list_changed") {
        assert_eq!(stream.message().expect("a notice")["method"], "notifications/resources/list_changed");
    }
    say.send(json!({ "jsonrpc": "2.0", "id": 5, "method": "ping" })).expect("the server listens");
    server.await_seen("its ping answered", |seen| seen.id() == &json!(5) && seen.message["result"] == json!({}));
    client.end();
    assert_eq!(stream.message(), None, "the stream ends with its session");
}

#[test]
fn cancellation_reaches_the_one_target_that_works() {
    let slow = |name: &'static str| {
        McpServer::scripted(name, |seen| match seen.tool() {
            "slow" => Act::Own(Box::new(|peer| {
                peer.send(begin_events());
                let _ = peer.rest();
            })),
            _ => Act::Well,
        })
    };
    let (one, two) = (slow("one"), slow("two"));
    let (_gateway, address) = federation(vec![one.target("one"), two.target("two")]);
    let client = McpClient::open(address);
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || {
            client.post(
                &json!({ "jsonrpc": "2.0", "id": "c-1", "method": "tools/call", "params": { "name": "two__slow" } })
                    .to_string(),
            )
        }
    });
    two.await_seen("the call", |seen| seen.tool() == "slow");
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "c-1", "reason": "enough" } });
    assert_eq!(client.post(&cancel.to_string()).status, 202);
    let told = two.await_seen("the cancellation", |seen| seen.method() == "notifications/cancelled");
    assert_eq!(told.message["params"], json!({ "requestId": "c-1", "reason": "enough" }));
    waiting.join().expect("the call ends");
    assert_eq!(one.count("notifications/cancelled"), 0);
    assert_eq!(client.call("two__echo", json!({})), "two: echo {}");
}

#[test]
fn a_call_without_an_answer_ends_with_the_route_s_time() {
    let server = McpServer::scripted("web", |seen| if seen.tool() == "hang" { Act::Silence } else { Act::Well });
    let port = free_port();
    let config = crate::support::config::one_listener(
        port,
        json!([{
            "policies": { "timeout": { "requestTimeout": "300ms" } },
            "backends": [{ "mcp": { "targets": [server.target("web")] } }],
        }]),
    );
    let _gateway = Gateway::start(&config.to_string());
    let client = McpClient::open(local(port));
    let answer = client.ask("tools/call", json!({ "name": "hang", "arguments": {} }));
    assert!(answer["result"]["isError"] == true || answer["error"].is_object(), "{answer}");
    assert_eq!(client.call("echo", json!({})), "web: echo {}");
}

#[test]
fn what_is_behind_never_sees_what_is_the_gateway_s_own() {
    let server = McpServer::good("web");
    let (_gateway, address) = federation(vec![server.target("web")]);
    let client = McpClient::open(address);
    let mut headers = client.headers();
    headers.extend([
        ("authorization", "Bearer secret"),
        ("cookie", "a=b"),
        ("traceparent", "00-1-2-03"),
        ("x-tenant", "t1"),
    ]);
    let call = message(1, "tools/call", json!({ "name": "echo", "arguments": {} }));
    assert_eq!(Peer::connect(address).ask("POST", "/mcp", &headers, call).status, 200);
    let seen = server.await_seen("the call", |seen| seen.method() == "tools/call");
    let head = &seen.request.head;
    assert_eq!(seen.session.as_deref(), Some("web-1"), "never the client's id");
    assert_eq!((head.get("authorization"), head.get("cookie")), (None, None), "credentials are for the gateway");
    assert_eq!((head.get("traceparent"), head.get("x-tenant")), (Some("00-1-2-03"), Some("t1")));
    assert_eq!(head.get("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(head.all("host"), [server.address.to_string()]);
    let accept = head.get("accept").expect("accept");
    assert!(accept.contains("application/json") && accept.contains("text/event-stream"));
}

#[test]
fn a_plain_upstream_lives_beside_an_mcp_endpoint() {
    let server = McpServer::good("web");
    let plain = Upstream::named("plain");
    let port = free_port();
    let config = crate::support::config::one_listener(
        port,
        json!([
            { "matches": [{ "path": { "exact": "/mcp" } }], "backends": [{ "mcp": { "targets": [server.target("web")] } }] },
            { "backends": [{ "host": plain.address.to_string() }] },
        ]),
    );
    let _gateway = Gateway::start(&config.to_string());
    let client = McpClient::open(local(port));
    let mut peer = Peer::connect(local(port));
    for _ in 0..5 {
        assert_eq!(peer.get("/x").text(), "plain");
        assert_eq!(
            text_of(&client.ask_on(&mut peer, "tools/call", json!({ "name": "echo", "arguments": {} }))["result"]),
            "web: echo {}"
        );
    }
}

#[test]
fn one_subscription_too_many_is_refused() {
    let server = McpServer::scripted("one", |seen| match seen.method() {
        "resources/subscribe" | "resources/unsubscribe" => Act::Result(json!({})),
        _ => Act::Well,
    });
    let (_gateway, address) = gateway(json!({ "targets": [server.target("one")] }));
    let client = McpClient::open(address);
    for number in 0..1_024 {
        client.result("resources/subscribe", json!({ "uri": format!("memo:{number}") }));
    }
    let refused = client.ask("resources/subscribe", json!({ "uri": "memo:last" }));
    assert_eq!(refused["error"]["message"], "too many subscriptions", "{refused}");
    client.result("resources/unsubscribe", json!({ "uri": "memo:0" }));
    client.result("resources/subscribe", json!({ "uri": "memo:last" }));
}
