//! Clients with sessions, of every revision, over targets that speak 2026-07-28 alone.

use serde_json::{Value, json};

use crate::support::mcp_client::{McpClient, each};
use crate::support::mcp_server::{Act, McpServer, Offers};
use crate::support::modern_server::{ModernServer, VERSION, meta};
use crate::{federation, gateway, tool_names};

const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// Everything that a server can offer.
fn offers() -> Offers {
    Offers {
        tools: vec![json!({ "name": "echo", "inputSchema": { "type": "object" } })],
        resources: vec![json!({ "uri": "memo:x", "name": "x" })],
        prompts: vec![json!({ "name": "hello" })],
    }
}

#[test]
fn clients_of_every_revision_are_served() {
    let server = ModernServer::offering("new", offers(), |_| Act::Well);
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    for revision in REVISIONS {
        let client = McpClient::open_in(address, revision);
        let opened = &client.initialized;
        assert_eq!(opened["protocolVersion"], revision);
        assert_eq!(opened["serverInfo"], json!({ "name": "new", "version": "1" }));
        assert_eq!(opened["capabilities"]["tools"], json!({ "listChanged": true }));
        assert_eq!(opened["instructions"], "use new");
        let list = client.result("tools/list", json!({}));
        assert_eq!(list, json!({ "tools": offers().tools }), "{revision}");
        let called = client.result("tools/call", json!({ "name": "echo", "arguments": { "a": 1 } }));
        assert_eq!(called, json!({ "content": [{ "type": "text", "text": "new: echo {\"a\":1}" }] }), "{revision}");
        assert_eq!(client.result("resources/list", json!({})), json!({ "resources": offers().resources }));
        let read = client.result("resources/read", json!({ "uri": "memo:x" }));
        assert_eq!(read, json!({ "contents": [{ "uri": "memo:x", "text": "new has memo:x" }] }));
        let missing =
            client.post(&crate::support::mcp_client::message(7, "resources/read", json!({ "uri": "memo:y" })));
        assert_eq!(missing.json()["error"]["code"], -32002, "{revision}");
        assert_eq!(missing.json()["id"], 7);
        let prompt = client.result("prompts/get", json!({ "name": "hello" }));
        assert_eq!(prompt["messages"][0]["content"]["text"], "new: \"hello\"");
        let reference =
            json!({ "ref": { "type": "ref/prompt", "name": "hello" }, "argument": { "name": "a", "value": "" } });
        assert_eq!(client.result("completion/complete", reference)["completion"]["values"], json!(["new"]));
        assert_eq!(client.result("ping", json!({})), json!({}));
        assert_eq!(client.ask("tasks/list", json!({}))["error"]["code"], -32601);
        assert_eq!(client.end().status, 200);
    }
    let calls = server.of("tools/call");
    assert_eq!(calls.len(), REVISIONS.len());
    for seen in &calls {
        assert_eq!(meta(seen, "protocolVersion"), VERSION);
        assert_eq!(meta(seen, "clientInfo")["name"], "test");
        assert!(meta(seen, "logLevel").is_null(), "nobody asked for logs");
        assert_eq!(seen.session, None);
    }
    let ids: std::collections::HashSet<String> = calls.iter().map(|seen| seen.id().to_string()).collect();
    assert_eq!(ids.len(), calls.len(), "the target tells the requests apart");
    let declared: Vec<&Value> = calls.iter().map(|seen| meta(seen, "clientCapabilities")).collect();
    assert_eq!(declared[0], &json!({ "sampling": {}, "roots": {} }), "elicitation came later");
    assert_eq!(declared[3], &json!({ "sampling": {}, "elicitation": {}, "roots": {} }));
    assert_eq!(server.of("initialize").len(), 1, "what it does not speak is remembered");
    assert_eq!(server.of("server/discover").len(), 1, "what it said is as well");
    assert!(server.seen().iter().all(|seen| seen.verb == "POST"), "no streams and no sessions to end");
}

#[test]
fn federations_of_both_eras_are_one() {
    let old = McpServer::offering("old", Offers::resources(&["memo:old"]), |_| Act::Well);
    let new = ModernServer::offering("new", offers(), |_| Act::Well);
    let (_gateway, address) = federation(vec![old.target("old"), new.target("new")]);
    let client = McpClient::open(address);
    assert!(client.initialized["capabilities"]["prompts"].is_object());
    let list = client.result("tools/list", json!({}));
    assert_eq!(tool_names(&list), ["old__echo", "new__echo"]);
    assert_eq!(client.call("old__echo", json!({ "a": 1 })), "old: echo {\"a\":1}");
    assert_eq!(client.call("new__echo", json!({ "a": 1 })), "new: echo {\"a\":1}");
    assert_eq!(each(&client.result("resources/list", json!({}))["resources"], "uri"), ["memo:old", "memo:x"]);
    for (uri, text) in [("memo:old", "old has memo:old"), ("memo:x", "new has memo:x")] {
        assert_eq!(client.result("resources/read", json!({ "uri": uri }))["contents"][0]["text"], text);
    }
    assert_eq!(client.result("prompts/get", json!({ "name": "new__hello" }))["messages"][0]["role"], "user");
    assert_eq!(old.seen().iter().filter(|seen| seen.method() == "server/discover").count(), 0, "nobody asked it");
}
