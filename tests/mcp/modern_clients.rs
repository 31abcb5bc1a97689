//! Clients of 2026-07-28 before targets of their own revision and of the revisions with sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};

use serde_json::{Value, json};

use crate::modern_targets::child;
use crate::support::config::mcp;
use crate::support::gateway::{Gateway, Setup, local};
use crate::support::mcp_client::{ACCEPT, answer_of, each, text_of};
use crate::support::mcp_server::{Act, McpServer, Offers, Seen, begin_events, event, json_reply};
use crate::support::modern_client::{
    META_CAPABILITIES, META_LOG_LEVEL, META_SERVER_INFO, META_VERSION, ModernClient, VERSION,
};
use crate::support::upstream::reply;
use crate::support::wire::{Peer, request};
use crate::support::{eventually, free_port};
use crate::{gateway, notes};

/// In order.
type Headers = Vec<(String, String)>;

/// A server of 2026-07-28 alone; its script sees every request first.
fn modern_server(name: &'static str, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> McpServer {
    McpServer::scripted(name, move |seen| {
        let version = seen.request.head.get("mcp-protocol-version");
        let meta = &seen.message["params"]["_meta"];
        if seen.verb != "POST" || version != Some(VERSION) || meta[META_VERSION] != VERSION {
            let error =
                json!({ "code": -32022, "message": "no", "data": { "supported": [VERSION], "requested": "?" } });
            let body = json!({ "jsonrpc": "2.0", "id": seen.id(), "error": error });
            return Act::Bytes(reply(400, &[("content-type", "application/json")], body.to_string()));
        }
        assert_eq!(seen.request.head.get("mcp-method"), Some(seen.method()));
        match (script)(seen) {
            Act::Well => modern_answer(name, seen),
            act => act,
        }
    })
}

fn modern_answer(name: &str, seen: &Seen) -> Act {
    let hints = json!({ "resultType": "complete", "ttlMs": 1000, "cacheScope": "public" });
    let with_hints = |mut result: Value| {
        hints.as_object().expect("hints").iter().for_each(|(key, value)| result[key] = value.clone());
        Act::Result(result)
    };
    match seen.method() {
        "server/discover" => with_hints(json!({
            "supportedVersions": [VERSION],
            "capabilities": { "tools": { "listChanged": true }, "extensions": { "org.example/x": {} } },
            "_meta": { META_SERVER_INFO: { "name": name, "version": "1" } },
        })),
        "tools/list" => with_hints(json!({ "tools": [{ "name": "echo", "inputSchema": { "type": "object" } }] })),
        "tools/call" => {
            assert_eq!(seen.request.head.get("mcp-name"), Some(seen.tool()));
            let text = format!("{name}: {} {}", seen.tool(), seen.message["params"]["arguments"]);
            Act::Result(json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] }))
        }
        _ => Act::Bytes(reply(
            404,
            &[("content-type", "application/json")],
            json!({ "jsonrpc": "2.0", "id": seen.id(), "error": { "code": -32601, "message": "no such method" } })
                .to_string(),
        )),
    }
}

/// A server with sessions whose tool `ask` sends the client these requests and answers with what it was told, in their
/// order; or ends without a word when it is cancelled.
fn asking_server(name: &str, questions: Vec<Value>) -> McpServer {
    // By session and id; cancellations by the ids of their requests, which may be equal to the servers'.
    let told: Arc<Mutex<HashMap<(String, String), Value>>> = Arc::default();
    McpServer::offering(name, Offers::tools(&["ask", "echo"]), move |seen| {
        let session = seen.session.clone().unwrap_or_default();
        let key = |id: &Value| (session.clone(), id.to_string());
        let is_answer = seen.message.get("method").is_none() && !seen.id().is_null();
        let cancelled = |id: &Value| (format!("{session} cancelled"), id.to_string());
        if is_answer || seen.method() == "notifications/cancelled" {
            let key = if is_answer { key(seen.id()) } else { cancelled(&seen.message["params"]["requestId"]) };
            told.lock().expect("no panic in between").insert(key, seen.message.clone());
            return Act::Well;
        }
        if seen.tool() != "ask" {
            return Act::Well;
        }
        let (told, id) = (told.clone(), seen.id().clone());
        let keys: Vec<_> = questions.iter().map(|question| key(&question["id"])).collect();
        let cancelled = cancelled(&id);
        let token = seen.message["params"]["_meta"]["progressToken"].clone();
        let questions = questions.clone();
        Act::Own(Box::new(move |peer| {
            told.lock().expect("no panic in between").retain(|key, _| !keys.contains(key));
            // This side closes at its end: the connection must not be taken for a kept one.
            peer.send(begin_events().replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"));
            questions.iter().for_each(|question| peer.send(event(question)));
            let heard = |key| told.lock().expect("no panic in between").get(key).cloned();
            let answers = || keys.iter().map(heard).collect::<Vec<_>>();
            eventually("all answers or the end", || {
                heard(&cancelled).is_some() || answers().iter().all(Option::is_some)
            });
            if heard(&cancelled).is_some() {
                return;
            }
            if !token.is_null() {
                let params = json!({ "progressToken": token, "progress": 1 });
                peer.send(event(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })));
            }
            let outcome = |answer: Value| answer.get("result").or(answer.get("error")).cloned().unwrap_or_default();
            let answers: Vec<Value> = answers().into_iter().flatten().map(outcome).collect();
            let text = json!(answers).to_string();
            let result = json!({ "content": [{ "type": "text", "text": text }] });
            peer.send(event(&json!({ "jsonrpc": "2.0", "id": id, "result": result })) + "0\r\n\r\n");
        }))
    })
}

fn elicitation(id: u64, message: &str) -> Value {
    let params = json!({ "message": message, "requestedSchema": { "type": "object", "properties": {} },
        "_meta": { "progressToken": "p" } });
    json!({ "jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params })
}

/// Nothing is left of what a request needed.
fn nothing_waits(gateway: &Gateway) {
    eventually("nothing is parked", || gateway.metric("agentlane_mcp_parked", "") == 0.0);
}

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
fn a_target_with_sessions_serves_requests_without() {
    let offers = Offers {
        resources: vec![json!({ "uri": "a:b", "name": "b" })],
        prompts: vec![json!({ "name": "p" })],
        ..Offers::tools(&["echo", "stream"])
    };
    let server = McpServer::offering("old", offers, |seen| match (seen.method(), seen.tool()) {
        (_, "stream") => {
            let token = &seen.message["params"]["_meta"]["progressToken"];
            let log = |level: &str| json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": level, "data": level } });
            let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": 1 } });
            let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
            let result = json!({ "jsonrpc": "2.0", "id": seen.id(), "result": { "content": [] } });
            Act::Events(vec![log("debug"), progress, changed, log("warning"), result])
        }
        ("resources/read", _) if seen.message["params"]["uri"] != "a:b" => Act::Error(-32002, "not found"),
        _ => Act::Well,
    });
    let (gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let client = ModernClient::new(address);
    let discovered = client.result("server/discover", json!({}));
    assert_eq!(discovered["supportedVersions"], json!([VERSION]));
    assert_eq!(discovered["capabilities"]["resources"], json!({ "subscribe": true }));
    assert_eq!((&discovered["ttlMs"], &discovered["cacheScope"]), (&json!(0), &json!("private")));
    assert_eq!(discovered["_meta"][META_SERVER_INFO]["name"], "old");
    let list = client.result("tools/list", json!({}));
    assert_eq!(each(&list["tools"], "name"), ["echo", "stream"]);
    assert_eq!((&list["resultType"], &list["ttlMs"]), (&json!("complete"), &json!(0)));
    assert_eq!(list["_meta"][META_SERVER_INFO]["name"], "old");
    let called = client.call("echo", json!({ "a": 1 }));
    assert_eq!((text_of(&called).as_str(), &called["resultType"]), ("old: echo {\"a\":1}", &json!("complete")));
    let seen = server.await_seen("the call", |seen| seen.tool() == "echo");
    assert_eq!(seen.message["params"].get("_meta"), None, "nothing of the envelope");
    let read = client.result("resources/read", json!({ "uri": "a:b" }));
    assert_eq!((&read["resultType"], &read["cacheScope"]), (&json!("complete"), &json!("private")));
    let (status, error) = client.error("resources/read", json!({ "uri": "a:c" }));
    assert_eq!((status, &error["code"]), (200, &json!(-32602)));
    assert_eq!(client.error("no/such", json!({})), (404, json!({ "code": -32601, "message": "no such method" })));
    // Silent without a level; from the level on with one. Changes of lists are for who listens.
    let params = |meta: Value| json!({ "name": "stream", "_meta": meta });
    let messages = client.stream(9, "tools/call", params(json!({ "progressToken": "mine" }))).messages();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert_eq!((&messages[0]["params"]["progressToken"], &messages[1]["id"]), (&json!("mine"), &json!(9)));
    let messages = client.stream(10, "tools/call", params(json!({ META_LOG_LEVEL: "warning" }))).messages();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert_eq!(messages[0]["params"]["level"], "warning");
    assert_eq!(
        server.await_seen("the level", |seen| seen.method() == "logging/setLevel").message["params"]["level"],
        "warning"
    );
    // One session did it all, apart from the one that only introduced the target.
    assert_eq!(server.sessions(), 2);
    // Another caller, and another client, have sessions of their own.
    client.clone().header("authorization", "Bearer other").call("echo", json!({}));
    client.clone().with(json!({})).call("echo", json!({}));
    assert_eq!(server.sessions(), 4);
    assert_eq!(gateway.metric("agentlane_mcp_leases", ""), 3.0);
    let initialized = server.seen().into_iter().filter(|seen| seen.method() == "initialize");
    let capabilities: Vec<Value> = initialized.map(|seen| seen.message["params"]["capabilities"].clone()).collect();
    assert_eq!(capabilities[1], client.capabilities, "the client's own capabilities are told");
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut deleted: Vec<_> =
        server.seen().into_iter().filter(|seen| seen.verb == "DELETE").filter_map(|seen| seen.session).collect();
    deleted.sort();
    // A connection that breaks as the process ends has its request sent once more.
    deleted.dedup();
    assert_eq!(deleted, ["old-1", "old-2", "old-3", "old-4"], "all sessions are ended");
}

#[test]
fn arguments_in_headers_are_compared_for_targets_that_do_not() {
    let schema =
        json!({ "type": "object", "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } });
    let offers = Offers { tools: vec![json!({ "name": "echo", "inputSchema": schema })], ..Offers::default() };
    let server = McpServer::offering("old", offers, |_| Act::Well);
    let (_gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let client = ModernClient::new(address);
    client.result("tools/list", json!({}));
    let params = json!({ "name": "echo", "arguments": { "region": "eu" } });
    let with = |value: &str| client.clone().header("mcp-param-region", value);
    assert!(with("eu").call_with(params.clone())["content"].is_array());
    for other in [client.clone(), with("us"), with("=?base64?x?=")] {
        let (status, error) = other.error("tools/call", params.clone());
        assert_eq!((status, &error["code"]), (400, &json!(-32020)), "{error}");
    }
    assert_eq!(server.count("tools/call"), 1);
}

#[test]
fn what_a_target_asks_is_answered_by_a_retry() {
    let sampling = json!({ "jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage", "params": { "messages": [], "maxTokens": 1 } });
    let roots = json!({ "jsonrpc": "2.0", "id": 6, "method": "roots/list" });
    let server = asking_server("old", vec![elicitation(5, "name?"), sampling, roots]);
    let (gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let client = ModernClient::new(address);
    let params = json!({ "name": "ask", "arguments": { "x": 1 }, "_meta": { "progressToken": "first" } });
    let asked = client.result("tools/call", params.clone());
    assert_eq!(asked["resultType"], "input_required");
    let requests = asked["inputRequests"].as_object().expect("requests").clone();
    assert_eq!(requests.len(), 3, "{asked}");
    let key_of = |method: &str| {
        requests.iter().find(|(_, request)| request["method"] == method).map(|(key, _)| key.clone()).expect(method)
    };
    let (form, model, roots) = (key_of("elicitation/create"), key_of("sampling/createMessage"), key_of("roots/list"));
    assert_eq!(requests[&form]["params"].get("_meta"), None, "{asked}");
    assert_eq!(gateway.metric("agentlane_mcp_parked", ""), 1.0);
    let state = asked["requestState"].as_str().expect("a state").to_owned();
    let retry = |state: &str, responses: Value| {
        let mut params = params.clone();
        params["requestState"] = json!(state);
        params["inputResponses"] = responses;
        params["_meta"] = json!({ "progressToken": "second" });
        params
    };
    let accept = json!({ "action": "accept", "content": { "name": "Ada" } });
    let sampled = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "hi" } });
    // Not another caller's, not for another request, not a made-up one; and none of them does any harm.
    let stranger = client.clone().header("authorization", "Bearer other");
    assert_eq!(stranger.error("tools/call", retry(&state, json!({}))).1["code"], -32602);
    let mut other = retry(&state, json!({ form.clone(): accept }));
    other["arguments"] = json!({ "x": 2 });
    assert_eq!(client.error("tools/call", other).1["code"], -32602);
    assert_eq!(client.error("tools/call", retry("nonsense", json!({}))).1["code"], -32602);
    assert_eq!(client.error("tools/call", retry(&state, json!({ form.clone(): 7 }))).1["code"], -32602);
    // What is missing is asked for again, and what nobody asked for is not looked at.
    let again = client.result("tools/call", retry(&state, json!({ form.clone(): accept, "other": {} })));
    assert_eq!(again["resultType"], "input_required");
    assert_eq!(again["inputRequests"].as_object().expect("requests").len(), 2);
    assert_eq!(client.error("tools/call", retry(&state, json!({}))).1["code"], -32602, "an old state is stale");
    let state = again["requestState"].as_str().expect("a state").to_owned();
    let responses = json!({ model: sampled, roots: { "roots": [] } });
    let mut stream = client.stream(44, "tools/call", retry(&state, responses));
    let messages = stream.messages();
    assert_eq!(messages[0]["params"]["progressToken"], "second", "{messages:?}");
    let answer = messages.last().expect("an answer");
    assert_eq!((&answer["id"], &answer["result"]["resultType"]), (&json!(44), &json!("complete")));
    let told: Value = serde_json::from_str(&text_of(&answer["result"])).expect("the answers");
    assert_eq!(told, json!([accept, sampled, { "roots": [] }]));
    nothing_waits(&gateway);
    assert_eq!(server.count("tools/call"), 1);
    // The session has served its request and serves the next one.
    client.call("echo", json!({}));
    assert_eq!(server.sessions(), 1);
}

#[test]
fn what_the_client_did_not_declare_is_not_asked() {
    let server = asking_server("old", vec![elicitation(5, "name?")]);
    let (gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    for capabilities in [json!({}), json!({ "elicitation": { "url": {} }, "sampling": {} })] {
        let client = ModernClient::new(address).with(capabilities);
        let (status, error) = client.error("tools/call", json!({ "name": "ask" }));
        assert_eq!((status, &error["code"]), (400, &json!(-32021)), "{error}");
        assert_eq!(error["data"]["requiredCapabilities"], json!({ "elicitation": { "form": {} } }));
    }
    eventually("the calls are cancelled", || server.count("notifications/cancelled") == 2);
    let refused = server.await_seen("the refusal", |seen| seen.message.get("error").is_some());
    assert_eq!((refused.id(), &refused.message["error"]["code"]), (&json!(5), &json!(-32601)));
    nothing_waits(&gateway);
}

#[test]
fn nobody_comes_back() {
    let sampling = json!({ "jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage", "params": { "messages": [], "maxTokens": 1 } });
    let server = asking_server("old", vec![elicitation(5, "name?"), sampling]);
    let (gateway, address) = gateway(json!({ "targets": [server.target("old")], "inputTimeout": "200ms" }));
    let client = ModernClient::new(address);
    let params = json!({ "name": "ask" });
    let asked = client.result("tools/call", params.clone());
    let cancelled = server.await_seen("the cancellation", |seen| seen.method() == "notifications/cancelled");
    let call = server.await_seen("the call", |seen| seen.tool() == "ask");
    assert_eq!(&cancelled.message["params"]["requestId"], call.id());
    let told = |id: Value| {
        server.await_seen("an answer", |seen| seen.message.get("method").is_none() && *seen.id() == id).message
    };
    assert_eq!(told(json!(5))["result"], json!({ "action": "cancel" }));
    assert_eq!(told(json!("s"))["error"]["code"], -32603);
    nothing_waits(&gateway);
    let mut late = params;
    late["requestState"] = asked["requestState"].clone();
    assert_eq!(client.error("tools/call", late).1["code"], -32602);
    eventually("the session is not used again", || gateway.metric("agentlane_mcp_leases", "") == 0.0);
}

#[test]
fn a_client_that_leaves_cancels_at_a_target_with_sessions() {
    let server = McpServer::scripted("old", |seen| match seen.tool() {
        "silent" => Act::Silence,
        _ => Act::Well,
    });
    let (gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let client = ModernClient::new(address);
    let mut peer = Peer::connect(address);
    client.send_on(&mut peer, &client.message(&json!(1), "tools/call", json!({ "name": "silent" })));
    let call = server.await_seen("the call", |seen| seen.tool() == "silent");
    drop(peer);
    let cancelled = server.await_seen("the cancellation", |seen| seen.method() == "notifications/cancelled");
    assert_eq!(&cancelled.message["params"]["requestId"], call.id());
    eventually("the session is gone", || gateway.metric("agentlane_mcp_leases", "") == 0.0);
}

#[test]
fn a_url_that_must_be_visited_first() {
    let visited = Arc::new(Mutex::new(false));
    let server = McpServer::scripted("old", {
        let visited = visited.clone();
        move |seen| match seen.tool() {
            "paid" if !*visited.lock().expect("no panic in between") => {
                let data = json!({ "elicitations": [{ "mode": "url", "elicitationId": "e", "url": "https://pay.example", "message": "pay" }] });
                let error = json!({ "code": -32042, "message": "pay first", "data": data });
                Act::Bytes(json_reply(&json!({ "jsonrpc": "2.0", "id": seen.id(), "error": error })))
            }
            _ => Act::Well,
        }
    });
    let (gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let client = ModernClient::new(address);
    let params = json!({ "name": "paid", "arguments": {} });
    let ask = || {
        let asked = client.result("tools/call", params.clone());
        let (key, request) = asked["inputRequests"].as_object().expect("requests").iter().next().expect("one");
        assert_eq!(request["params"], json!({ "mode": "url", "url": "https://pay.example", "message": "pay" }));
        (key.clone(), asked["requestState"].clone())
    };
    let retry = |(key, state): (String, Value), action: &str| {
        let mut params = params.clone();
        params["requestState"] = state;
        params["inputResponses"] = json!({ key: { "action": action } });
        client.result("tools/call", params)
    };
    let declined = retry(ask(), "decline");
    assert_eq!((&declined["isError"], &declined["resultType"]), (&json!(true), &json!("complete")));
    let asked = ask();
    *visited.lock().expect("no panic in between") = true;
    assert_eq!(text_of(&retry(asked, "accept")), "old: paid {}");
    nothing_waits(&gateway);
    let (status, error) = {
        *visited.lock().expect("no panic in between") = false;
        client.clone().with(json!({})).error("tools/call", params.clone())
    };
    assert_eq!((status, &error["code"]), (400, &json!(-32021)));
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

/// Four shards: questions come from whichever the first request reached, and answers reach whichever they like.
#[test]
fn retries_find_the_shard_that_waits() {
    let server = asking_server("old", vec![elicitation(5, "name?")]);
    let port = free_port();
    let config = mcp(port, json!({ "targets": [server.target("old")] })).to_string();
    let gateway = Setup::new(&config).args(&["--shards", "4"]).start();
    let client = ModernClient::new(local(port));
    let mut busy = Peer::connect(local(port));
    for round in 0..24 {
        let params = json!({ "name": "ask", "arguments": { "round": round } });
        let asked = client.result("tools/call", params.clone());
        let key = asked["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
        let mut retry = params;
        retry["requestState"] = asked["requestState"].clone();
        retry["inputResponses"] = json!({ key: { "action": "accept", "content": { "round": round } } });
        // In turn over a connection that has served others, and over new ones.
        let message = client.message(&json!("again"), "tools/call", retry);
        let response = match round % 2 {
            0 => client.post_on(&mut busy, &message),
            _ => client.post_on(&mut Peer::connect(local(port)), &message),
        };
        let answer = answer_of(&response);
        assert_eq!(answer["id"], "again", "{answer}");
        let told: Value = serde_json::from_str(&text_of(&answer["result"])).expect("the answers");
        assert_eq!(told, json!([{ "action": "accept", "content": { "round": round } }]));
    }
    assert!(gateway.metric("agentlane_requests_forwarded_total", "") > 0.0, "some had to travel");
    nothing_waits(&gateway);
}

/// A client that leaves while its retry is served by another shard is noticed there.
#[test]
fn a_client_that_leaves_a_forwarded_retry_cancels() {
    let server = McpServer::scripted("old", |seen| match (seen.tool(), seen.message["id"].clone()) {
        ("ask", id) => Act::Own(Box::new(move |peer| {
            peer.send(begin_events());
            peer.send(event(&elicitation(5, &id.to_string())));
            let _ = peer.rest();
        })),
        _ => Act::Well,
    });
    let port = free_port();
    let config = mcp(port, json!({ "targets": [server.target("old")] })).to_string();
    let gateway = Setup::new(&config).args(&["--shards", "4"]).start();
    let client = ModernClient::new(local(port));
    let mut left = 0;
    while gateway.metric("agentlane_requests_forwarded_total", "") < 1.0 {
        let params = json!({ "name": "ask" });
        let asked = client.result("tools/call", params.clone());
        let key = asked["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
        let mut retry = params;
        retry["requestState"] = asked["requestState"].clone();
        retry["inputResponses"] = json!({ key: { "action": "decline" } });
        let answers = || server.seen().iter().filter(|seen| seen.message["result"]["action"] == "decline").count();
        let mut peer = Peer::connect(local(port));
        client.send_on(&mut peer, &client.message(&json!(2), "tools/call", retry));
        eventually("the target is answered", || answers() == left + 1);
        drop(peer);
        left += 1;
        eventually("the call is cancelled", || server.count("notifications/cancelled") == left);
        assert!(left < 100, "the kernel leaves a shard out");
    }
    eventually("no session is left", || gateway.metric("agentlane_mcp_leases", "") == 0.0);
}

#[test]
fn lists_prompts_and_completion_of_a_federation_go_through_sessions() {
    let offers = |name: &str| Offers {
        prompts: vec![json!({ "name": name })],
        resources: vec![json!({ "uri": format!("{name}:x"), "name": name })],
        ..Offers::tools(&["echo"])
    };
    let script = |seen: &Seen| match seen.method() {
        "prompts/get" => Act::Result(json!({ "messages": [], "description": seen.tool() })),
        "completion/complete" => Act::Result(json!({ "completion": { "values": ["v"] } })),
        _ => Act::Well,
    };
    let (a, b) = (McpServer::offering("a", offers("a"), script), McpServer::offering("b", offers("b"), script));
    let (_gateway, address) = gateway(json!({ "targets": [a.target("a"), b.target("b")], "pageSize": 1 }));
    let client = ModernClient::new(address);
    let first = client.result("prompts/list", json!({}));
    assert_eq!(each(&first["prompts"], "name"), ["a__a"]);
    let second = client.result("prompts/list", json!({ "cursor": first["nextCursor"] }));
    assert_eq!((each(&second["prompts"], "name"), &second["cacheScope"]), (vec!["b__b"], &first["cacheScope"]));
    assert_eq!(client.error("prompts/list", json!({ "cursor": "x" })).1["code"], -32602);
    let got = client.result("prompts/get", json!({ "name": "b__b" }));
    assert_eq!((&got["description"], &got["resultType"]), (&json!("b"), &json!("complete")));
    let read = client.result("resources/read", json!({ "uri": "b:x" }));
    assert_eq!(read["contents"][0]["text"], "b has b:x");
    let params = json!({ "ref": { "type": "ref/prompt", "name": "a__a" }, "argument": { "name": "x", "value": "" } });
    assert_eq!(client.result("completion/complete", params)["resultType"], "complete");
    assert_eq!(client.error("resources/read", json!({ "uri": "nobody:x" })).1["code"], -32602);
    assert_eq!(client.error("tasks/get", json!({ "taskId": "t" })).0, 404);
}

#[test]
fn a_child_of_either_revision_serves_requests_without_sessions() {
    for kind in ["", "old"] {
        let (target, _folder, _log) = child("child", "perSession", kind);
        let (gateway, address) = gateway(json!({ "targets": [target] }));
        let client = ModernClient::new(address);
        assert!(client.result("server/discover", json!({}))["capabilities"]["tools"].is_object());
        assert_eq!(each(&client.result("tools/list", json!({}))["tools"], "name"), ["work"]);
        let params = json!({ "name": "work", "_meta": { "progressToken": "mine" } });
        let messages = client.stream(3, "tools/call", params).messages();
        assert_eq!(messages[0]["params"]["progressToken"], "mine", "{messages:?}");
        let answer = messages.last().expect("an answer");
        assert_eq!((&answer["id"], text_of(&answer["result"]).as_str()), (&json!(3), "worked"));
        assert_eq!(answer["result"]["resultType"], "complete");
        if kind.is_empty() {
            // Its question is put to the session that the call has, and from there to the client.
            let asked = client.call("ask", json!({}));
            let key = asked["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
            let retry = json!({ "name": "ask", "arguments": {}, "requestState": asked["requestState"],
                "inputResponses": { key: { "action": "accept" } } });
            assert_eq!(text_of(&client.call_with(retry)), "accepted");
        }
        nothing_waits(&gateway);
    }
}

#[test]
fn a_session_that_its_target_forgot_is_opened_again() {
    let server = McpServer::scripted("old", |seen| match (seen.session.as_deref(), seen.method()) {
        (Some("old-1"), "tools/call") if seen.message["params"]["arguments"]["n"] != 0 => {
            Act::Bytes(reply(404, &[], ""))
        }
        _ => Act::Well,
    });
    let (gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let client = ModernClient::new(address);
    for n in 0..3 {
        assert_eq!(text_of(&client.call("echo", json!({ "n": n }))), format!("old: echo {{\"n\":{n}}}"));
    }
    assert_eq!((server.sessions(), gateway.metric("agentlane_mcp_leases", "")), (2, 1.0));
}

/// What a row of ARCHITECTURE.md's table promises to these clients, and how it is made to happen.
#[test]
fn what_does_not_translate_is_answered_by_name() {
    let page = include_str!("../../ARCHITECTURE.md");
    let section = page.split("## What does not translate").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| 2026-07-28 | "));
    let rows: Vec<Vec<String>> = rows
        .map(|row| row.trim_end_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect())
        .collect();
    assert!(rows.len() > 5, "{rows:?}");
    let questions = ["elicitation/create", "sampling/createMessage", "roots/list"];
    let mut params: HashMap<&str, Value> = HashMap::new();
    params.insert(questions[0], json!({ "message": "m", "requestedSchema": { "type": "object", "properties": {} } }));
    params.insert(questions[1], json!({ "messages": [], "maxTokens": 1 }));
    let asks = |method: &str| json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params.get(method).cloned().unwrap_or(json!({})) });
    let mute = |question: Value| {
        let server = asking_server("old", vec![question]);
        let (_gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
        let (status, error) = ModernClient::new(address).with(json!({})).error("tools/call", json!({ "name": "ask" }));
        format!("{status}, {}: {}", error["code"], error["data"]["requiredCapabilities"])
    };
    let server = McpServer::scripted("old", |seen| match seen.tool() {
        "changes" => {
            let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
            let done = json!({ "jsonrpc": "2.0", "method": "notifications/elicitation/complete", "params": { "elicitationId": "e" } });
            let result = json!({ "jsonrpc": "2.0", "id": seen.id(), "result": { "content": [] } });
            Act::Events(vec![changed, done, result])
        }
        "empty" => Act::Result(json!({ "contents": [] })),
        _ if seen.method() == "resources/read" => Act::Result(json!({ "contents": [] })),
        _ => Act::Well,
    });
    let (_gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let client = ModernClient::new(address);
    let error = |method: &str, params: Value| {
        let (status, error) = client.error(method, params);
        format!("{status}, {}: {}", error["code"], error["message"].as_str().unwrap_or_default())
    };
    for row in &rows {
        let told = match row[1].as_str() {
            "a form, a URL, sampling or roots for a client without them" => {
                let told = mute(asks(questions[1]));
                assert!(mute(asks(questions[2])).ends_with("{\"roots\":{}}"));
                assert!(mute(asks(questions[0])).ends_with("{\"elicitation\":{\"form\":{}}}"));
                told
            }
            "a method that only sessions have" => error("logging/setLevel", json!({ "level": "info" })),
            "tasks of 2025-11-25" => error("tasks/get", json!({ "taskId": "t" })),
            "a call as a task" => {
                assert_eq!(client.call_with(json!({ "name": "echo", "task": {} }))["resultType"], "complete");
                assert!(server.seen().iter().all(|seen| seen.message["params"].get("task").is_none()));
                "the plain call".to_owned()
            }
            // Seen in the tests of tasks.
            "a tool that is only called as a task" => "not in the list".to_owned(),
            "a listen for changes of tasks" => {
                let new = crate::support::modern_server::ModernServer::good("new");
                let (_gateway, address) = gateway(json!({ "targets": [server.target("old"), new.target("new")] }));
                let params = json!({ "notifications": { "toolsListChanged": true, "taskIds": ["t"] } });
                let granted = ModernClient::new(address).stream(4, "subscriptions/listen", params).message();
                assert!(granted.expect("an acknowledgement")["params"]["notifications"].get("taskIds").is_none());
                "not acknowledged".to_owned()
            }
            "a resource read as nothing" => error("resources/read", json!({ "uri": "a:b" })),
            "changes told in the middle of a call" => {
                let messages = client.post("tools/call", json!({ "name": "changes" }));
                assert_eq!(messages.json()["result"]["resultType"], "complete", "nothing but the answer");
                "not told: they are for who listens".to_owned()
            }
            "the end of a visit to a URL" => {
                assert_eq!(client.post("tools/call", json!({ "name": "changes" })).status, 200);
                "not told".to_owned()
            }
            "a question outside any call" => {
                let refused = asking_aside();
                format!("the target reads {}", refused["error"]["code"])
            }
            other => panic!("a row that nobody makes happen: {other}"),
        };
        assert!(told.contains(row[2].as_str()), "{}: {told:?} is not {:?}", row[1], row[2]);
    }
}

/// What a target hears that asks on its own stream while no call runs.
fn asking_aside() -> Value {
    let server = McpServer::scripted("old", |seen| match seen.verb.as_str() {
        "GET" => Act::Own(Box::new(|peer| {
            peer.send(begin_events());
            peer.send(event(&json!({ "jsonrpc": "2.0", "id": 9, "method": "roots/list" })));
            let _ = peer.rest();
        })),
        _ => Act::Well,
    });
    let (_gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    ModernClient::new(address).result("tools/list", json!({}));
    server.await_seen("the refusal", |seen| seen.message.get("error").is_some() && *seen.id() == 9).message
}

/// Many clients at once that answer, decline, leave at every stage or never come back, over four shards: each that stays gets
/// its own answer, and nothing is left behind.
#[test]
fn a_crowd_leaves_nothing_behind() {
    let server = asking_server("old", vec![elicitation(5, "name?")]);
    let port = free_port();
    let backend = json!({ "targets": [server.target("old")], "inputTimeout": "1s", "sessionIdleTimeout": "1s" });
    let gateway = Setup::new(&mcp(port, backend).to_string()).args(&["--shards", "4"]).start();
    std::thread::scope(|scope| {
        for number in 0..6 {
            scope.spawn(move || {
                let client = ModernClient::new(local(port)).header("authorization", &format!("Bearer {}", number % 3));
                for round in 0..10 {
                    one_of_a_crowd(&client, &format!("{number}-{round}"), round % 5);
                }
            });
        }
    });
    nothing_waits(&gateway);
    eventually("every session has ended", || gateway.metric("agentlane_mcp_leases", "") == 0.0);
    let deleted = || {
        let gone = server.seen().into_iter().filter(|seen| seen.verb == "DELETE").filter_map(|seen| seen.session);
        gone.collect::<std::collections::HashSet<_>>().len()
    };
    eventually("the target is told of every end", || deleted() == server.sessions());
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

fn one_of_a_crowd(client: &ModernClient, who: &str, fate: usize) {
    let params = json!({ "name": "ask", "arguments": { "who": who } });
    let mut peer = Peer::connect(client.address);
    client.send_on(&mut peer, &client.message(&json!(who), "tools/call", params.clone()));
    if fate == 0 {
        // Gone before anything was asked, or just then.
        return;
    }
    let asked = answer_of(&peer.response("POST"))["result"].clone();
    if fate == 1 {
        return;
    }
    let key = asked["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
    let mut retry = params;
    retry["requestState"] = asked["requestState"].clone();
    let answer = json!({ "action": "accept", "content": { "who": who } });
    if fate != 2 {
        retry["inputResponses"] = json!({ key.clone(): answer });
    }
    let mut peer = Peer::connect(client.address);
    client.send_on(&mut peer, &client.message(&json!(who), "tools/call", retry.clone()));
    if fate == 3 {
        return;
    }
    let mut result = answer_of(&peer.response("POST"))["result"].clone();
    if fate == 2 {
        retry["requestState"] = result["requestState"].clone();
        retry["inputResponses"] = json!({ key: answer });
        result = client.call_with(retry);
    }
    assert_eq!(text_of(&result), json!([{ "action": "accept", "content": { "who": who } }]).to_string());
}

#[test]
fn a_call_that_waits_ends_with_the_gateway() {
    let server = asking_server("old", vec![elicitation(5, "name?")]);
    let (gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let asked = ModernClient::new(address).call("ask", json!({}));
    assert_eq!(asked["resultType"], "input_required");
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let call = server.await_seen("the call", |seen| seen.tool() == "ask");
    let cancelled = server.await_seen("the cancellation", |seen| seen.method() == "notifications/cancelled");
    assert_eq!(&cancelled.message["params"]["requestId"], call.id());
}
