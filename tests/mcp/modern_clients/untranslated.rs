//! What clients of 2026-07-28 get for what does not translate, row by row of ARCHITECTURE.md.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::asking_server;
use crate::gateway;
use crate::support::mcp_server::{Act, McpServer, begin_events, event};
use crate::support::modern_client::ModernClient;

/// What a row of ARCHITECTURE.md's table promises to these clients, and how it is made to happen.
#[test]
fn what_does_not_translate_is_answered_by_name() {
    let page = include_str!("../../../ARCHITECTURE.md");
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
