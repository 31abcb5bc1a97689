//! Clients of 2026-07-28 before targets of their own revision and of the revisions with sessions.

mod children;
mod crowd;
mod questions;
mod sessions;
mod straight;
mod untranslated;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::mcp_server::{Act, McpServer, Offers, Seen, begin_events, event};
use crate::support::modern_client::{META_SERVER_INFO, META_VERSION, VERSION};
use crate::support::upstream::reply;

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
