//! Clients over targets of a newer revision that have sessions as well: what their own revision lacks is put into what it
//! has.

use serde_json::json;

use crate::gateway;
use crate::support::mcp_client::McpClient;
use crate::support::mcp_server::{Act, McpServer, Seen, json_reply};

/// A target that knows 2025-11-25 alone, whatever it is asked for.
fn newest(seen: &Seen) -> Option<Act> {
    (seen.method() == "initialize").then(|| {
        let result = json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {}, "prompts": {} },
            "serverInfo": { "name": "newest", "version": "1" } });
        Act::Bytes(json_reply(&json!({ "jsonrpc": "2.0", "id": seen.id(), "result": result })))
    })
}

#[test]
fn results_are_in_the_clients_revision() {
    let tool = json!({ "name": "t", "title": "T", "icons": [], "inputSchema": { "type": "object" },
        "outputSchema": { "type": "object" }, "annotations": { "readOnlyHint": true } });
    let link = json!({ "type": "resource_link", "uri": "memo:x", "name": "x" });
    let audio = json!({ "type": "audio", "data": "AAAA", "mimeType": "audio/wav" });
    let called = json!({ "content": [link, audio], "structuredContent": { "a": 1 } });
    let (listed, answered) = (tool.clone(), called.clone());
    let server = McpServer::scripted("newest", move |seen| match seen.method() {
        "tools/list" => Act::Result(json!({ "tools": [listed] })),
        "tools/call" => Act::Result(answered.clone()),
        _ => newest(seen).unwrap_or(Act::Well),
    });
    for targets in [json!([server.target("one")]), json!([server.target("one"), server.target("two")])] {
        let prefix = if targets.as_array().map(Vec::len) == Some(1) { "" } else { "one__" };
        let (_gateway, address) = gateway(json!({ "targets": targets }));
        let seen = |revision: &str| {
            let client = McpClient::open_in(address, revision);
            let tool = client.result("tools/list", json!({}))["tools"][0].clone();
            (tool, client.result("tools/call", json!({ "name": format!("{prefix}t") })))
        };
        let mut named = tool.clone();
        named["name"] = format!("{prefix}t").into();
        assert_eq!(seen("2025-11-25"), (named.clone(), called.clone()));
        let (tool, result) = seen("2025-06-18");
        assert!(tool.get("icons").is_none() && tool.get("title").is_some() && tool.get("outputSchema").is_some());
        assert_eq!(result, called);
        let (tool, result) = seen("2025-03-26");
        assert_eq!(tool["annotations"], json!({ "title": "T", "readOnlyHint": true }));
        assert!(tool.get("outputSchema").is_none() && tool.get("title").is_none());
        let as_text = json!({ "type": "text", "text": "x: memo:x" });
        assert_eq!((&result["content"][0], &result["content"][1]), (&as_text, &audio));
        assert!(result.get("structuredContent").is_none());
        let (tool, result) = seen("2024-11-05");
        assert!(tool.get("annotations").is_none());
        assert_eq!(result["content"][1]["resource"]["blob"], "AAAA");
    }
}

#[test]
fn questions_are_in_the_clients_revision() {
    let server = McpServer::scripted("newest", |seen| match (seen.method(), seen.tool()) {
        ("tools/call", kind) => {
            let field = match kind {
                "titled" => json!({ "type": "string", "oneOf": [{ "const": "a", "title": "A" }] }),
                _ => json!({ "type": "array", "items": { "type": "string", "enum": ["a"] } }),
            };
            let schema = json!({ "type": "object", "properties": { "f": field } });
            let params = json!({ "mode": "form", "message": kind, "requestedSchema": schema });
            let answer = json!({ "content": [{ "type": "text", "text": "asked" }] });
            Act::Events(vec![
                json!({ "jsonrpc": "2.0", "id": kind, "method": "elicitation/create", "params": params }),
                json!({ "jsonrpc": "2.0", "id": seen.id(), "result": answer }),
            ])
        }
        _ => newest(seen).unwrap_or(Act::Well),
    });
    let (_gateway, address) = gateway(json!({ "targets": [server.target("one")] }));
    let client = McpClient::open_in(address, "2025-06-18");
    let messages = client.stream(1, "tools/call", json!({ "name": "titled" })).messages();
    let field = &messages[0]["params"]["requestedSchema"]["properties"]["f"];
    assert_eq!(field, &json!({ "type": "string", "enum": ["a"], "enumNames": ["A"] }));
    assert!(messages[0]["id"].is_number(), "under an id of the session");
    assert_eq!(client.call("several", json!({})), "asked", "and nothing before it, for it cannot be shown");
    let declined = server.await_seen("the refusal", |seen| seen.message["id"] == "several");
    assert_eq!(declined.message["result"], json!({ "action": "decline" }));
}
