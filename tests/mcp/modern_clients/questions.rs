//! What a target with sessions asks in the middle of a call, asked of a client that has no session.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{asking_server, elicitation, nothing_waits};
use crate::gateway;
use crate::support::eventually;
use crate::support::mcp_client::text_of;
use crate::support::mcp_server::{Act, McpServer, json_reply};
use crate::support::modern_client::ModernClient;

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
