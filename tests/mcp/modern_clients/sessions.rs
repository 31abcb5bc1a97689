//! Clients of 2026-07-28 before targets with sessions: their requests go in sessions of the gateway's own.

use serde_json::{Value, json};

use super::nothing_waits;
use crate::gateway;
use crate::modern_targets::child;
use crate::support::eventually;
use crate::support::mcp_client::{answer_of, each, text_of};
use crate::support::mcp_server::{Act, McpServer, Offers, Seen};
use crate::support::modern_client::{META_LOG_LEVEL, META_SERVER_INFO, ModernClient, VERSION};
use crate::support::upstream::reply;
use crate::support::wire::Peer;

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

/// On whatever shard the list was asked for, and for whom: a caller that repeats arguments was told so somewhere.
#[test]
fn arguments_in_headers_are_compared_in_a_federation() {
    let schema =
        json!({ "type": "object", "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } });
    let offers = || Offers { tools: vec![json!({ "name": "echo", "inputSchema": schema })], ..Offers::default() };
    let (server, other) = (McpServer::offering("old", offers(), |_| Act::Well), McpServer::good("other"));
    let port = crate::support::free_port();
    let backend = json!({ "targets": [server.target("old"), other.target("other")] });
    let config = crate::support::config::mcp(port, backend).to_string();
    let _gateway = crate::support::gateway::Setup::new(&config).args(&["--shards", "3"]).start();
    let client = ModernClient::new(crate::support::gateway::local(port));
    let params = json!({ "name": "old__echo", "arguments": { "region": "eu" } });
    let with = |value: &str| client.clone().header("mcp-param-region", value);
    // Connections come to all shards; none of them has been asked for the list.
    for _ in 0..8 {
        let (status, error) = with("us").error("tools/call", params.clone());
        assert_eq!((status, &error["code"]), (400, &json!(-32020)), "{error}");
    }
    assert_eq!(server.count("tools/call"), 0);
    assert!(server.count("tools/list") <= 3, "one list for each shard is enough: {}", server.count("tools/list"));
    assert_eq!(other.count("tools/list"), 0, "nobody else is asked");
    assert!(with("eu").call_with(params.clone())["content"].is_array());
    // Where it was asked for, a header that is missing is found as well.
    let mut peer = Peer::connect(client.address);
    let list = client.message(&json!("l"), "tools/list", json!({}));
    assert_eq!(answer_of(&client.post_on(&mut peer, &list))["result"]["tools"][0]["name"], "old__echo");
    let answer = client.post_on(&mut peer, &client.message(&json!("c"), "tools/call", params));
    assert_eq!((answer.status, &answer_of(&answer)["error"]["code"]), (400, &json!(-32020)));
    assert_eq!(server.count("tools/call"), 1);
}

/// Some servers refuse a method that they do not know with a status alone.
#[test]
fn a_method_that_a_target_refuses_without_saying_why_is_unknown() {
    let server = McpServer::scripted("old", |seen| match seen.method() {
        "no/such" => Act::Bytes(reply(400, &[("content-type", "text/plain")], "not handled")),
        _ => Act::Well,
    });
    let (_gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    let (status, error) = ModernClient::new(address).error("no/such", json!({}));
    assert_eq!((status, &error["code"]), (404, &json!(-32601)), "{error}");
    let client = crate::support::mcp_client::McpClient::open(address);
    assert_eq!(client.ask("no/such", json!({}))["error"]["code"], -32601);
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
