//! The table "What does not translate" of ARCHITECTURE.md, case by case: what is promised there happens.

use serde_json::{Value, json};

use crate::gateway;
use crate::support::mcp_client::McpClient;
use crate::support::mcp_server::{Act, Offers};
use crate::support::modern_server::{ModernServer, error, input_required};

/// A row of the table.
struct Row {
    client: String,
    target: String,
    what: String,
    answer: String,
}

fn rows() -> Vec<Row> {
    let page = include_str!("../../ARCHITECTURE.md");
    let section = page.split("## What does not translate").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let lines = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Client "));
    let cells =
        lines.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect());
    let rows = cells.map(|cells: Vec<String>| {
        let [client, target, what, answer] = <[String; 4]>::try_from(cells).expect("four cells");
        Row { client, target, what, answer }
    });
    rows.collect()
}

/// A target that asks for what its tool is called, and tells what it was answered.
fn asking() -> ModernServer {
    let sample = |more: Value| {
        let mut params = json!({ "maxTokens": 9, "messages": [] });
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({ "method": "sampling/createMessage", "params": params })
    };
    let form = |field: Value| {
        let schema = json!({ "type": "object", "properties": { "f": field } });
        json!({ "method": "elicitation/create", "params": { "message": "m", "requestedSchema": schema } })
    };
    let text = json!({ "type": "text", "text": "t" });
    let parts = json!({ "messages": [{ "role": "user", "content": [text, text] }] });
    let questions = json!({
        "form": form(json!({ "type": "string" })),
        "several": form(json!({ "type": "array", "items": { "type": "string", "enum": ["a"] } })),
        "url": { "method": "elicitation/create", "params": { "mode": "url", "message": "m", "url": "https://e.org/" } },
        "sample": sample(json!({})),
        "parts": sample(parts),
        "sample_tools": sample(json!({ "tools": [] })),
        "roots": { "method": "roots/list" },
    });
    let names = ["form", "several", "url", "sample", "parts", "sample_tools", "roots", "ever", "task", "missing"];
    ModernServer::offering("new", Offers::tools(&names), move |seen| {
        let answers = &seen.message["params"]["inputResponses"];
        match seen.tool() {
            "" => Act::Well,
            "ever" => input_required(Value::Null, Some("again")),
            "task" => Act::Result(json!({ "resultType": "task", "taskId": "t" })),
            "missing" => {
                Act::Bytes(error(400, seen.id(), -32021, "no", json!({ "requiredCapabilities": { "sampling": {} } })))
            }
            tool if answers.is_null() => input_required(json!({ "q": questions[tool] }), None),
            _ => Act::Result(json!({ "content": [{ "type": "text", "text": answers["q"].to_string() }] })),
        }
    })
}

/// Calls a tool and answers whatever it asks with an error; gives the text of its result.
fn outcome(client: &McpClient, tool: &str) -> String {
    let mut peer = crate::support::wire::Peer::connect(client.address);
    let call = crate::support::mcp_client::message(5, "tools/call", json!({ "name": tool, "arguments": {} }));
    peer.send(crate::support::wire::request("POST", "/mcp", &client.headers(), call.as_bytes()));
    let head = peer.head().expect("an answer");
    let answer = if head.get("content-type") == Some("application/json") {
        serde_json::from_slice(&peer.body(&head, false)).expect("a message")
    } else {
        let mut text = String::new();
        loop {
            let event = peer.event(&mut text).expect("a whole stream").expect("an answer");
            let Some(data) = event.data.filter(|data| !data.is_empty()) else { continue };
            let message: Value = serde_json::from_str(&data).expect("a message");
            if message.get("method").is_none() {
                break message;
            }
            let refusal = json!({ "jsonrpc": "2.0", "id": message["id"], "error": { "code": -1, "message": "no" } });
            assert_eq!(client.post(&refusal.to_string()).status, 202);
        }
    };
    crate::support::mcp_client::text_of(&answer["result"])
}

#[test]
fn every_row_of_the_table_happens() {
    let server = asking();
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let mute = McpClient::open_with(address, "2025-11-25", json!({}));
    let able = McpClient::open_with(address, "2025-11-25", json!({ "elicitation": {}, "sampling": {}, "roots": {} }));
    let older = McpClient::open_with(address, "2025-06-18", json!({ "elicitation": {}, "sampling": {} }));
    for row in rows() {
        if row.client == "2026-07-28" {
            // Told by the tests of those clients.
            continue;
        }
        let told = match row.what.as_str() {
            "a form for a client without elicitation" => outcome(&mute, "form"),
            "a URL for a client without URL elicitation" => outcome(&able, "url"),
            "sampling for a client without it" => outcome(&mute, "sample"),
            "sampling with tools for a client without it" => outcome(&able, "sample_tools"),
            "roots of a client without them" => outcome(&mute, "roots"),
            "-32021 of the target" => outcome(&mute, "missing"),
            "the client answers sampling with an error" => outcome(&able, "sample"),
            "the client answers roots with an error" => outcome(&able, "roots"),
            "the client answers a form with an error" => outcome(&able, "form"),
            "a form with a choice of several" => outcome(&older, "several"),
            "a sampling message of several parts" => outcome(&older, "parts"),
            "more than 10 rounds of questions" => outcome(&able, "ever"),
            "a result of an extension's kind" => outcome(&able, "task"),
            "tasks of 2025-11-25" => {
                let error = able.ask("tasks/get", json!({ "taskId": "t" }))["error"].clone();
                format!("error {}: {}", error["code"], error["message"].as_str().unwrap_or_default())
            }
            "a call as a task" => {
                let params = json!({ "name": "form", "arguments": {}, "task": { "ttl": 1 } });
                let answer = mute.ask("tools/call", params);
                assert!(answer["result"].get("task").is_none(), "{answer}");
                assert!(server.of("tools/call").iter().all(|seen| seen.message["params"].get("task").is_none()));
                row.answer.clone()
            }
            // Seen in the tests of tasks and of results in older revisions.
            "a tool that is only called as a task" => row.answer.clone(),
            "notifications/roots/list_changed" => {
                let told = json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" });
                assert_eq!(able.post(&told.to_string()).status, 202);
                assert_eq!(server.of("notifications/roots/list_changed").len(), 0);
                row.answer.clone()
            }
            "the Tasks extension" => {
                assert!(able.initialized["capabilities"].get("tasks").is_none());
                row.answer.clone()
            }
            other => panic!("a row that nobody makes happen: {other} ({})", row.target),
        };
        let promised = row.answer.trim_start_matches("tool error: ").trim_start_matches("the target reads ");
        assert!(told.contains(promised), "{}: {told:?} is not {promised:?}", row.what);
    }
}
