//! What clients of 2026-07-28 may send, and targets of their own revision, which are spoken to straight.

use std::sync::{Mutex, mpsc};

use serde_json::{Value, json};

use super::{modern_server, nothing_waits};
use crate::support::mcp_client::{ACCEPT, answer_of, each, text_of};
use crate::support::mcp_server::{Act, McpServer, begin_events};
use crate::support::modern_client::{
    META_CAPABILITIES, META_LOG_LEVEL, META_SERVER_INFO, META_VERSION, ModernClient, VERSION,
};
use crate::support::upstream::reply;
use crate::support::wire::{Peer, request};
use crate::{gateway, notes};

/// In order.
type Headers = Vec<(String, String)>;

#[test]
fn what_is_refused_before_anything_is_routed() {
    let server = McpServer::good("web");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("web")] }));
    let client = ModernClient::new(address);
    let good = client.message(&json!("a"), "tools/call", json!({ "name": "echo", "arguments": {} }));
    let send = |message: &Value, change: &dyn Fn(&mut Headers)| {
        let mut headers = client.headers_of(message);
        change(&mut headers);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut peer = Peer::connect(address);
        peer.send(request("POST", "/mcp", &headers, message.to_string().as_bytes()));
        let response = peer.response("POST");
        assert_eq!(response.get("mcp-session-id"), None);
        (response.status, response.json())
    };
    let without = |gone: &'static str| move |headers: &mut Headers| headers.retain(|(name, _)| name != gone);
    let with = |name: &'static str, value: &'static str| {
        move |headers: &mut Headers| {
            headers.retain(|(known, _)| known != name);
            headers.push((name.to_owned(), value.to_owned()));
        }
    };
    let code = |(status, answer): (u16, Value)| {
        assert_eq!(answer["id"], "a", "{answer}");
        (status, answer["error"]["code"].as_i64().expect("a code"))
    };
    assert_eq!(code(send(&good, &without("mcp-protocol-version"))), (400, -32020));
    assert_eq!(code(send(&good, &with("mcp-protocol-version", "2025-11-25"))), (400, -32020));
    assert_eq!(code(send(&good, &without("mcp-method"))), (400, -32020));
    assert_eq!(code(send(&good, &with("mcp-method", "tools/list"))), (400, -32020));
    assert_eq!(code(send(&good, &without("mcp-name"))), (400, -32020));
    assert_eq!(code(send(&good, &with("mcp-name", "=?base64?x?="))), (400, -32020));
    let mut unknown = good.clone();
    unknown["params"]["_meta"][META_VERSION] = json!("2099-01-01");
    let (status, answer) = send(&unknown, &with("mcp-protocol-version", "2099-01-01"));
    assert_eq!((status, &answer["error"]["code"], &answer["id"]), (400, &json!(-32022), &json!("a")));
    assert_eq!(answer["error"]["data"], json!({ "supported": [VERSION], "requested": "2099-01-01" }));
    for key in [META_VERSION, META_CAPABILITIES] {
        let mut broken = good.clone();
        broken["params"]["_meta"].as_object_mut().expect("an envelope").remove(key);
        assert_eq!(code(send(&broken, &|_| {})), (400, -32602), "{key}");
    }
    for method in ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "no/such"]
    {
        let message = client.message(&json!("a"), method, json!({ "uri": "a:b" }));
        assert_eq!(code(send(&message, &|_| {})), (404, -32601), "{method}");
    }
    let batch = json!([good]).to_string();
    let headers = [("accept", ACCEPT), ("content-type", "application/json"), ("mcp-protocol-version", VERSION)];
    assert_eq!(Peer::connect(address).ask("POST", "/mcp", &headers, &batch).status, 400);
    for verb in ["GET", "DELETE"] {
        let response = Peer::connect(address).ask(verb, "/mcp", &headers, "");
        assert_eq!((response.status, response.get("allow")), (405, Some("POST")), "{verb}");
    }
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/x", "params": good["params"] });
    assert_eq!(Peer::connect(address).ask("POST", "/mcp", &headers, notification.to_string()).status, 202);
    assert_eq!(server.count("tools/call"), 0);
}

#[test]
fn a_modern_target_is_spoken_to_straight() {
    let server = modern_server("new", |seen| match seen.tool() {
        "ask" if seen.message["params"].get("inputResponses").is_none() => Act::Result(json!({
            "resultType": "input_required", "requestState": "state \"1\"",
            "inputRequests": { "k": { "method": "roots/list" } } })),
        "ask" => {
            let params = &seen.message["params"];
            let text = json!([params["requestState"], params["inputResponses"]]).to_string();
            Act::Result(json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] }))
        }
        "stream" => {
            let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": 1 } });
            let token = &seen.message["params"]["_meta"]["progressToken"];
            let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": 1 } });
            let result =
                json!({ "jsonrpc": "2.0", "id": seen.id(), "result": { "resultType": "complete", "content": [] } });
            Act::Events(vec![log, progress, result])
        }
        "missing" => {
            let error =
                json!({ "code": -32021, "message": "no", "data": { "requiredCapabilities": { "sampling": {} } } });
            let body = json!({ "jsonrpc": "2.0", "id": seen.id(), "error": error });
            Act::Bytes(reply(400, &[("content-type", "application/json")], body.to_string()))
        }
        _ => Act::Well,
    });
    let (gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let client = ModernClient::new(address).with(json!({ "roots": {} })).header("mcp-param-region", "eu");
    let discovered = client.result("server/discover", json!({}));
    assert_eq!(discovered["supportedVersions"], json!([VERSION]));
    assert_eq!(discovered["capabilities"]["extensions"], json!({ "org.example/x": {} }));
    assert_eq!(discovered["_meta"][META_SERVER_INFO]["name"], "new");
    let list = client.result("tools/list", json!({}));
    assert_eq!((each(&list["tools"], "name"), &list["ttlMs"]), (vec!["echo"], &json!(1000)));
    assert_eq!(text_of(&client.call("echo", json!({ "a": 1 }))), "new: echo {\"a\":1}");
    let seen = server.await_seen("the call", |seen| seen.tool() == "echo");
    assert_eq!(seen.message["params"]["_meta"][META_CAPABILITIES], json!({ "roots": {} }), "the client's own");
    assert_eq!(seen.request.head.get("mcp-param-region"), Some("eu"));
    // Events come as they are, without what was not asked for, and without ids to come back to.
    let mut stream = client.stream(7, "tools/call", json!({ "name": "stream", "_meta": { "progressToken": "t" } }));
    let messages = stream.messages();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert_eq!((&messages[0]["params"]["progressToken"], &messages[1]["id"]), (&json!("t"), &json!(7)));
    assert_eq!(stream.last_id, None);
    let asked = json!({ "name": "stream", "_meta": { "progressToken": 1, META_LOG_LEVEL: "debug" } });
    assert_eq!(client.stream(8, "tools/call", asked).messages().len(), 3);
    // What the target wants is the client's to give, and its state is nobody else's.
    let asked = client.result("tools/call", json!({ "name": "ask" }));
    assert_eq!(asked["inputRequests"], json!({ "k": { "method": "roots/list" } }));
    let state = asked["requestState"].as_str().expect("a state").to_owned();
    assert!(!state.contains("state"), "{state}");
    let retry =
        |state: &str| json!({ "name": "ask", "requestState": state, "inputResponses": { "k": { "roots": [] } } });
    let answer = client.call_with(retry(&state));
    assert_eq!(text_of(&answer), json!(["state \"1\"", { "k": { "roots": [] } }]).to_string());
    let stranger = client.clone().header("authorization", "Bearer other");
    for (who, state) in [(&stranger, state.clone()), (&client, state.replace(&state[8..9], "")), (&client, "x".into())]
    {
        let (status, error) = who.error("tools/call", retry(&state));
        assert_eq!((status, &error["code"]), (200, &json!(-32602)), "{error}");
    }
    let (status, error) = client.error("tools/call", json!({ "name": "missing" }));
    assert_eq!((status, &error["code"]), (400, &json!(-32021)));
    assert_eq!(error["data"]["requiredCapabilities"], json!({ "sampling": {} }));
    assert_eq!(client.error("no/such", json!({})).0, 404);
    assert_eq!(server.count("initialize"), 0);
    nothing_waits(&gateway);
}

#[test]
fn a_client_that_leaves_cancels_at_a_modern_target() {
    let (closed, closes) = mpsc::channel::<bool>();
    let closed = Mutex::new(closed);
    let server = modern_server("new", move |seen| {
        let streams = match seen.tool() {
            "silent" => false,
            "streams" => true,
            _ => return Act::Well,
        };
        let closed = closed.lock().expect("no panic in between").clone();
        Act::Own(Box::new(move |peer| {
            if streams {
                peer.send(begin_events());
            }
            let _ = closed.send(peer.rest().is_some());
        }))
    });
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let client = ModernClient::new(address);
    client.call("echo", json!({}));
    for tool in ["silent", "streams"] {
        let mut peer = Peer::connect(address);
        client.send_on(&mut peer, &client.message(&json!(1), "tools/call", json!({ "name": tool })));
        server.await_seen("the call", |seen| seen.tool() == tool);
        drop(peer);
        assert!(closes.recv().expect("the server saw an end"), "{tool}: the connection is closed");
    }
}

#[test]
fn a_federation_of_both_eras_and_a_child() {
    let old = McpServer::good("old");
    let new = modern_server("new", |_| Act::Well);
    let targets = json!([old.target("old"), new.target("new"), notes("notes")]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "deadline": "3s" }));
    let client = ModernClient::new(address);
    let discovered = client.result("server/discover", json!({}));
    assert_eq!(discovered["_meta"][META_SERVER_INFO]["name"], "agentlane");
    assert_eq!(discovered["_meta"]["dev.agentlane/targets"]["new"]["name"], "new");
    assert!(discovered["capabilities"]["tools"].is_object());
    assert_eq!(text_of(&client.call("old__echo", json!({ "a": 1 }))), "old: echo {\"a\":1}");
    assert_eq!(text_of(&client.call("new__echo", json!({ "a": 1 }))), "new: echo {\"a\":1}");
    let list = client.result("tools/list", json!({}));
    assert_eq!(list["resultType"], "complete");
    let names = each(&list["tools"], "name");
    assert!(names.contains(&"old__echo") && names.contains(&"notes__add_note"), "{names:?}");
    assert!(client.call("notes__add_note", json!({ "text": "milk" }))["isError"] != true);
    let (status, error) = client.error("tools/call", json!({ "name": "nobody__x" }));
    assert_eq!((status, &error["code"]), (200, &json!(-32602)));
}

#[test]
fn a_target_that_is_down_is_told_to_the_model() {
    let (_gateway, address) =
        gateway(json!({ "targets": [{ "name": "gone", "mcp": { "host": "http://127.0.0.1:9/mcp" } }] }));
    let client = ModernClient::new(address);
    let result = client.call("x", json!({}));
    assert_eq!((&result["isError"], &result["resultType"]), (&json!(true), &json!("complete")));
    let (_, error) = client.error("server/discover", json!({}));
    assert_eq!(error["code"], -32603);
    let response = client.post("tools/list", json!({}));
    assert_eq!(answer_of(&response)["error"]["code"], -32603);
}
