//! Clients with sessions, of every revision, over targets that speak 2026-07-28 alone.

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::gateway::Folder;
use crate::support::mcp_client::{McpClient, each};
use crate::support::mcp_server::{Act, McpServer, Offers, begin_events, event};
use crate::support::modern_server::{ModernServer, VERSION, input_required, meta};
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

/// A tool whose call ends with what the client was asked: `form`, `url`, `sample`, `roots`, `all`, `twice`, `state`, `ever`.
fn asking() -> ModernServer {
    let form = json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "who?",
        "requestedSchema": { "type": "object", "properties": { "name": { "type": "string" } } } } });
    let url = json!({ "method": "elicitation/create", "params": { "mode": "url", "message": "go", "url": "https://e.org/" } });
    let sample = json!({ "method": "sampling/createMessage", "params": { "maxTokens": 9,
        "messages": [{ "role": "user", "content": { "type": "text", "text": "hi" } }] } });
    let roots = json!({ "method": "roots/list" });
    let tools = Offers::tools(&["form", "url", "sample", "roots", "all", "twice", "state", "ever", "odd"]);
    ModernServer::offering("new", tools, move |seen| {
        let (answers, state) = (&seen.message["params"]["inputResponses"], &seen.message["params"]["requestState"]);
        let done = || Act::Result(json!({ "content": [{ "type": "text", "text": answers.to_string() }] }));
        match (seen.tool(), state.as_str()) {
            ("form", None) if answers.is_null() => input_required(json!({ "f": form }), None),
            ("url", None) if answers.is_null() => input_required(json!({ "u": url }), None),
            ("sample", None) if answers.is_null() => input_required(json!({ "s": sample }), None),
            ("roots", None) if answers.is_null() => input_required(json!({ "r": roots }), None),
            ("all", None) => input_required(json!({ "f": form, "s": sample, "r": roots }), Some("a\u{e9}\"\\/")),
            ("twice", None) => input_required(json!({ "one": form }), Some("1")),
            ("twice", Some("1")) => input_required(json!({ "two": form }), Some("2")),
            ("state", None) => input_required(Value::Null, Some("wait")),
            ("ever", _) => input_required(Value::Null, Some("more")),
            ("odd", _) => Act::Result(json!({ "resultType": "task", "taskId": "t" })),
            ("form" | "url" | "sample" | "roots" | "all" | "twice" | "state", _) => done(),
            _ => Act::Well,
        }
    })
}

/// Answers the requests on a stream until the answer comes; gives the methods that were asked, and the answer.
fn answering(client: &McpClient, id: u64, tool: &str, answer: impl Fn(&Value) -> Value) -> (Vec<String>, Value) {
    let mut stream = client.stream(id, "tools/call", json!({ "name": tool, "arguments": {} }));
    let mut asked = Vec::new();
    loop {
        let message = stream.message().expect("an answer");
        if message.get("method").is_none() {
            assert_eq!(message["id"], id);
            return (asked, message);
        }
        asked.push(message["method"].as_str().expect("a method").to_owned());
        let mut reply = answer(&message);
        reply["jsonrpc"] = "2.0".into();
        reply["id"] = message["id"].clone();
        assert_eq!(client.post(&reply.to_string()).status, 202);
    }
}

/// What a good client says.
fn agreeable(request: &Value) -> Value {
    let result = match request["method"].as_str().expect("a method") {
        "elicitation/create" if request["params"]["mode"] == "url" => json!({ "action": "accept" }),
        "elicitation/create" => json!({ "action": "accept", "content": { "name": "ada" } }),
        "sampling/createMessage" => {
            json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "ho" } })
        }
        "roots/list" => json!({ "roots": [{ "uri": "file:///a" }] }),
        other => panic!("{other}"),
    };
    json!({ "result": result })
}

#[test]
fn what_a_target_asks_reaches_the_client_and_comes_back() {
    let server = asking();
    let (_gateway, address) = federation(vec![server.target("new"), crate::notes("notes")]);
    let client = McpClient::open_with(
        address,
        "2025-11-25",
        json!({ "sampling": {}, "elicitation": { "form": {}, "url": {} }, "roots": {} }),
    );
    let form = json!({ "action": "accept", "content": { "name": "ada" } });
    let sample = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "ho" } });
    let roots = json!({ "roots": [{ "uri": "file:///a" }] });
    let cases = [
        ("form", vec!["elicitation/create"], json!({ "f": form })),
        ("url", vec!["elicitation/create"], json!({ "u": { "action": "accept" } })),
        ("sample", vec!["sampling/createMessage"], json!({ "s": sample })),
        ("roots", vec!["roots/list"], json!({ "r": roots })),
        (
            "all",
            vec!["elicitation/create", "sampling/createMessage", "roots/list"],
            json!({ "f": form, "s": sample, "r": roots }),
        ),
        ("twice", vec!["elicitation/create", "elicitation/create"], json!({ "two": form })),
        ("state", vec![], Value::Null),
    ];
    for (place, (tool, methods, answers)) in cases.into_iter().enumerate() {
        let id = 100 + place as u64;
        let (asked, answer) = match tool {
            // Nothing for the client to see but the answer.
            "state" => (vec![], client.ask("tools/call", json!({ "name": "new__state" }))),
            tool => answering(&client, id, &format!("new__{tool}"), agreeable),
        };
        assert_eq!(asked, methods, "{tool}");
        let text = answer["result"]["content"][0]["text"].as_str().expect("a text");
        assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), answers, "{tool}");
        assert!(answer["result"].get("resultType").is_none());
        let calls: Vec<_> = server.of("tools/call").into_iter().filter(|seen| seen.tool() == tool).collect();
        let ids: std::collections::HashSet<String> = calls.iter().map(|seen| seen.id().to_string()).collect();
        assert_eq!(ids.len(), calls.len(), "each try has an id of its own");
    }
    let all: Vec<_> = server.of("tools/call").into_iter().filter(|seen| seen.tool() == "all").collect();
    assert_eq!(all[1].message["params"]["requestState"], "a\u{e9}\"\\/");
    let url = client.stream(200, "tools/call", json!({ "name": "new__url" })).message().expect("a question");
    assert!(url["params"]["elicitationId"].is_string(), "{url}");
}

#[test]
fn what_cannot_be_asked_fails_by_name() {
    let server = asking();
    let (_gateway, address) = federation(vec![server.target("new"), crate::notes("notes")]);
    let failure = |client: &McpClient, tool: &str| {
        let result = client.result("tools/call", json!({ "name": format!("new__{tool}") }));
        assert_eq!(result["isError"], true, "{tool}: {result}");
        result["content"][0]["text"].as_str().expect("a text").to_owned()
    };
    let client = McpClient::open_with(address, "2025-11-25", json!({ "elicitation": {} }));
    assert!(failure(&client, "url").contains("elicitation by URL"));
    assert!(failure(&client, "sample").contains("sampling"));
    assert!(failure(&client, "all").contains("sampling"), "nothing is asked where not all of it can be");
    assert!(failure(&client, "roots").contains("roots"));
    assert!(failure(&client, "ever").contains("again and again"));
    assert!(failure(&client, "odd").contains("unknown kind"));
    let mute = McpClient::open_with(address, "2025-03-26", json!({ "elicitation": {} }));
    assert!(failure(&mute, "form").contains("elicitation"), "the revision has none");
    let (_, refused) = answering(&client, 1, "new__form", |_| json!({ "error": { "code": -1, "message": "no" } }));
    assert_eq!(refused["result"]["content"][0]["text"], json!({ "f": { "action": "cancel" } }).to_string());
    let able = McpClient::open(address);
    let (_, failed) = answering(&able, 1, "new__sample", |_| json!({ "error": { "code": -1, "message": "no" } }));
    assert_eq!(failed["result"]["isError"], true, "{failed}");
    assert!(!client.call("notes__add_note", json!({ "title": "t", "text": "x" })).is_empty());
}

#[test]
fn a_question_outlives_the_clients_connection_and_ends_with_the_request() {
    let server = asking();
    let (_gateway, address) = federation(vec![server.target("new"), crate::notes("notes")]);
    let client = McpClient::open(address);
    let mut stream = client.stream(1, "tools/call", json!({ "name": "new__form" }));
    let question = stream.message().expect("a question");
    let last_id = stream.last_id.clone().expect("events have ids");
    drop(stream);
    let mut back = client.listen(Some(&last_id));
    let mut reply = agreeable(&question);
    reply["jsonrpc"] = "2.0".into();
    reply["id"] = question["id"].clone();
    assert_eq!(client.post(&reply.to_string()).status, 202);
    let answer = back.message().expect("the answer");
    assert_eq!((&answer["id"], answer["result"]["content"].is_array()), (&json!(1), true), "{answer}");
    let tries = server.of("tools/call").len();
    let mut stream = client.stream(2, "tools/call", json!({ "name": "new__form" }));
    let question = stream.message().expect("a question");
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 2 } });
    assert_eq!(client.post(&cancel.to_string()).status, 202);
    let withdrawn = stream.message().expect("the question is taken back");
    assert_eq!(withdrawn["method"], "notifications/cancelled");
    assert_eq!(withdrawn["params"]["requestId"], question["id"]);
    assert!(stream.message().is_some_and(|end| end["error"].is_object()));
    assert_eq!(server.of("tools/call").len(), tries + 1, "the target is not asked again");
}

#[test]
fn progress_logs_and_cancellation_translate() {
    let server = ModernServer::scripted("new", |seen| match seen.tool() {
        "busy" => {
            let id = seen.id().clone();
            let token = seen.message["params"]["_meta"]["progressToken"].clone();
            let level = meta(seen, "logLevel").clone();
            let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress",
                "params": { "progressToken": token, "progress": 1 } });
            let log = json!({ "jsonrpc": "2.0", "method": "notifications/message",
                "params": { "level": "error", "data": level } });
            let end = json!({ "jsonrpc": "2.0", "id": id, "result": { "resultType": "complete", "content": [] } });
            Act::Events(vec![progress, log, end])
        }
        "silent" => Act::Silence,
        _ => Act::Well,
    });
    let (_gateway, address) = federation(vec![server.target("new"), crate::notes("notes")]);
    let client = McpClient::open(address);
    let busy = |id| {
        let params = json!({ "name": "new__busy", "_meta": { "progressToken": "mine" } });
        client.stream(id, "tools/call", params).messages()
    };
    let messages = busy(1);
    assert_eq!(messages[0]["params"]["progressToken"], "mine");
    assert_eq!(messages[1]["params"]["data"], Value::Null, "no level was set");
    assert_eq!((&messages[2]["id"], &messages[2]["result"]), (&json!(1), &json!({ "content": [] })));
    assert_eq!(client.result("logging/setLevel", json!({ "level": "warning" })), json!({}));
    assert_eq!(busy(2)[1]["params"]["data"], "warning");
    let before = server.of("notifications/cancelled").len();
    let waiting = {
        let client = client.clone();
        std::thread::spawn(move || {
            client.post(&crate::support::mcp_client::message(9, "tools/call", json!({ "name": "new__silent" })))
        })
    };
    server.await_seen("the call", |seen| seen.tool() == "silent");
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 9 } });
    assert_eq!(client.post(&cancel.to_string()).status, 202);
    let ended = waiting.join().expect("no panic");
    assert!(ended.json()["error"].is_object(), "{}", ended.text());
    assert_eq!(server.of("notifications/cancelled").len(), before, "closing the stream says it");
    assert_eq!(client.call("new__echo", json!({})), "new: echo {}");
}

#[test]
fn arguments_go_into_headers_where_their_tool_says_so() {
    let annotated = |kind: &str| {
        json!({ "name": format!("near_{kind}"), "inputSchema": { "type": "object", "properties":
            { "region": { "type": kind, "x-mcp-header": "Region" } } } })
    };
    let offers = Offers { tools: vec![annotated("string"), annotated("number")], ..Offers::default() };
    let server = ModernServer::offering("new", offers, |seen| {
        let region = &seen.message["params"]["arguments"]["region"];
        match (seen.method(), seen.request.head.get("mcp-param-region")) {
            ("tools/call", None) if !region.is_null() => Act::Error(-32020, "header missing"),
            ("tools/call", header) => Act::Result(json!({ "content": [{ "type": "text", "text": header }] })),
            _ => Act::Well,
        }
    });
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let client = McpClient::open(address);
    // Before anybody has listed: the refusal says that there is something to learn.
    assert_eq!(client.call("near_string", json!({ "region": "eu" })), "eu");
    assert_eq!(server.of("tools/list").len(), 1);
    assert_eq!(client.call("near_string", json!({ "region": "é" })), "=?base64?w6k=?=");
    assert_eq!(server.of("tools/list").len(), 1);
    let list = client.result("tools/list", json!({}));
    assert_eq!(tool_names(&list), ["near_string"], "the other cannot be called over HTTP");
    let lying = client.post_with(
        &crate::support::mcp_client::message(
            5,
            "tools/call",
            json!({ "name": "near_string", "arguments": { "region": "eu" } }),
        ),
        &[("mcp-param-region", "us"), ("mcp-name", "other")],
    );
    assert_eq!(crate::support::mcp_client::text_of(&lying.json()["result"]), "eu", "the body counts");
}

#[test]
fn values_that_are_no_objects_are_wrapped_or_told_in_text() {
    let tool = json!({ "name": "list", "title": "L", "inputSchema": { "type": "object" }, "outputSchema": { "type": "array" } });
    let offers = Offers { tools: vec![tool], ..Offers::default() };
    let server = ModernServer::offering("new", offers, |seen| match seen.method() {
        "tools/call" => Act::Result(json!({ "content": [], "structuredContent": [1] })),
        _ => Act::Well,
    });
    let (_gateway, address) = federation(vec![server.target("new"), crate::notes("notes")]);
    let text = json!({ "type": "text", "text": "[1]" });
    for revision in REVISIONS {
        let client = McpClient::open_in(address, revision);
        let tools = client.result("tools/list", json!({}))["tools"].clone();
        let result = client.result("tools/call", json!({ "name": "new__list" }));
        if revision < "2025-06-18" {
            assert!(tools[0].get("outputSchema").is_none(), "{revision}");
            assert_eq!(result, json!({ "content": [text] }), "{revision}");
        } else {
            assert_eq!(tools[0]["outputSchema"]["properties"]["result"], json!({ "type": "array" }));
            assert_eq!(result, json!({ "content": [text], "structuredContent": { "result": [1] } }), "{revision}");
        }
    }
}

#[test]
fn a_target_that_changes_its_revision_is_followed() {
    // One address, first of the newest revision alone, then of the older ones alone.
    let is_old = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let old = McpServer::good("old");
    let behind = old.address;
    let switch = is_old.clone();
    let server =
        ModernServer::switching("new", move || switch.load(std::sync::atomic::Ordering::SeqCst).then_some(behind));
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let client = McpClient::open(address);
    assert_eq!(client.call("echo", json!({})), "new: echo {}");
    is_old.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(client.call("echo", json!({})), "old: echo {}");
    is_old.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(client.call("echo", json!({})), "new: echo {}");
}

#[test]
fn what_a_target_is_spoken_to_in_can_be_said() {
    let (old, new) = (McpServer::good("old"), ModernServer::good("new"));
    let pinned = |mut target: Value, protocol: &str| {
        target["protocol"] = protocol.into();
        gateway(json!({ "targets": [target] }))
    };
    let (_one, address) = pinned(new.target("new"), "2026-07-28");
    assert_eq!(McpClient::open(address).call("echo", json!({})), "new: echo {}");
    assert_eq!(new.of("initialize").len(), 0);
    let (_two, address) = pinned(old.target("old"), "2025-03-26");
    let client = McpClient::open(address);
    assert_eq!(client.initialized["protocolVersion"], "2025-11-25");
    assert_eq!(client.call("echo", json!({})), "old: echo {}");
    let asked = old.seen().into_iter().find(|seen| seen.method() == "initialize").expect("a handshake");
    assert_eq!(asked.message["params"]["protocolVersion"], "2025-03-26");
    for (target, protocol) in [(new.target("new"), "legacy"), (old.target("old"), "modern")] {
        let (_gateway, address) = pinned(target, protocol);
        assert_eq!(crate::support::mcp_client::initialize(address, "2025-11-25").status, 502, "{protocol}");
    }
}

/// A child that speaks one era alone, and the file in which it notes what it was asked.
pub fn child(name: &str, mode: &str, only: &str) -> (Value, Folder, std::path::PathBuf) {
    let folder = Folder::new();
    let log = folder.path().join("log");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/modern_child.sh");
    let args = json!([script, log.to_str().expect("a path"), only]);
    (json!({ "name": name, "stdio": { "cmd": "sh", "args": args, "mode": mode } }), folder, log)
}

/// What the children noted: process, method, message.
pub fn noted(log: &std::path::Path) -> Vec<(String, String, Value)> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let parts = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ' ');
        let (process, method) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some((process, method, serde_json::from_str(parts.next()?).ok()?))
    });
    parts.collect()
}

/// What was asked, process by process.
pub fn asked(log: &std::path::Path) -> Vec<Vec<String>> {
    let mut processes: Vec<(String, Vec<String>)> = Vec::new();
    for (process, method, _) in noted(log) {
        match processes.iter_mut().find(|(known, _)| *known == process) {
            Some((_, asked)) => asked.push(method),
            None => processes.push((process, Vec::new())),
        }
    }
    processes.into_iter().map(|(_, asked)| asked).collect()
}

#[test]
fn children_of_the_newest_revision_serve_every_client() {
    for mode in ["perSession", "shared"] {
        let (target, _folder, log) = child("new", mode, "");
        let (_gateway, address) = federation(vec![target, crate::notes("notes")]);
        let client = McpClient::open(address);
        let tools = client.result("tools/list", json!({}))["tools"].clone();
        assert_eq!(tools[0]["name"], "new__work", "{mode}");
        assert_eq!(tools[0]["inputSchema"], json!({ "properties": { "a": { "type": "integer" } } }), "{mode}");
        let params = json!({ "name": "new__work", "_meta": { "progressToken": "mine" } });
        let messages = client.stream(3, "tools/call", params).messages();
        assert_eq!(messages[0]["params"]["progressToken"], "mine", "{mode}");
        assert_eq!(messages[1]["result"], json!({ "content": [{ "type": "text", "text": "worked" }] }), "{mode}");
        let (methods, answer) = answering(&client, 4, "new__ask", |_| json!({ "result": { "action": "accept" } }));
        assert_eq!(methods, ["elicitation/create"], "{mode}");
        assert_eq!(answer["result"]["content"][0]["text"], "accepted", "{mode}");
        for revision in REVISIONS {
            assert_eq!(
                McpClient::open_in(address, revision).call("new__work", json!({})),
                "worked",
                "{mode} {revision}"
            );
        }
        eventually("somebody listens for changes", || {
            asked(&log).iter().flatten().any(|method| method == "subscriptions/listen")
        });
        client.result("logging/setLevel", json!({ "level": "info" }));
        let messages = client.stream(5, "tools/call", json!({ "name": "new__work" })).messages();
        assert_eq!(messages[0]["params"]["data"], "said", "{mode}: a log belongs to the call, not to who listens");
        let processes = asked(&log);
        assert_eq!(processes[0][0], "initialize", "{mode}: the first process tells that it knows none");
        assert!(processes[1..].iter().all(|asked| asked[0] == "server/discover"), "{mode}: {processes:?}");
        let calling = processes.iter().filter(|asked| asked.iter().any(|method| method == "tools/call")).count();
        assert_eq!(calling, if mode == "shared" { 1 } else { 1 + REVISIONS.len() }, "{mode}: {processes:?}");
        assert!(processes[1..].iter().flatten().all(|method| !method.starts_with("notifications/")), "{processes:?}");
    }
}

#[test]
fn a_session_hears_what_its_own_child_changes() {
    for mode in ["perSession", "shared"] {
        let (target, _folder, log) = child("new", mode, "");
        let (gateway, address) = gateway(json!({ "targets": [target] }));
        let client = McpClient::open(address);
        let mut stream = client.listen(None);
        eventually("its child is listened to", || {
            asked(&log).iter().flatten().any(|method| method == "subscriptions/listen")
        });
        for _ in 0..2 {
            assert_eq!(client.call("change", json!({})), "changed", "{mode}");
            let told = stream.message().expect("a change");
            assert_eq!(told["method"], "notifications/tools/list_changed", "{mode}: {told}");
        }
        assert_eq!(crate::support::children_of(gateway.pid()).len(), 1, "{mode}");
        assert_eq!(client.end().status, 200);
        if mode == "perSession" {
            eventually("it ends with its session", || crate::support::children_of(gateway.pid()).is_empty());
        }
    }
}

#[test]
fn cancelled_calls_of_children_are_told_by_their_ids() {
    let (target, _folder, log) = child("new", "perSession", "");
    let (_gateway, address) = federation(vec![target, crate::notes("notes")]);
    let client = McpClient::open(address);
    let waiting = {
        let client = client.clone();
        std::thread::spawn(move || {
            client.post(&crate::support::mcp_client::message(9, "tools/call", json!({ "name": "new__wait" })))
        })
    };
    let lines = |method: &str| -> Vec<Value> {
        noted(&log).into_iter().filter(|(_, known, _)| known == method).map(|(_, _, message)| message).collect()
    };
    eventually("the call", || !lines("tools/call").is_empty());
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 9 } });
    assert_eq!(client.post(&cancel.to_string()).status, 202);
    assert!(waiting.join().expect("no panic").json()["error"].is_object());
    let told = &lines("notifications/cancelled")[0];
    assert_eq!(told["params"]["requestId"], lines("tools/call")[0]["id"]);
    assert_eq!(client.call("new__work", json!({})), "worked");
}

#[test]
fn children_of_older_revisions_are_not_asked_for_the_newest() {
    let (target, _folder, log) = child("old", "perSession", "old");
    let (_gateway, address) = gateway(json!({ "targets": [target] }));
    let client = McpClient::open(address);
    assert_eq!(client.initialized["serverInfo"]["name"], "old");
    assert_eq!(client.call("work", json!({})), "worked");
    assert_eq!(asked(&log).len(), 1);
    assert!(asked(&log)[0].iter().all(|method| method != "server/discover"));
}

#[test]
fn a_child_that_was_ended_for_idling_comes_back_in_its_revision() {
    let (mut target, _folder, log) = child("new", "perSession", "quiet");
    target["stdio"]["idleTimeout"] = "1s".into();
    let (gateway, address) = gateway(json!({ "targets": [target] }));
    let client = McpClient::open(address);
    assert_eq!(client.call("work", json!({})), "worked");
    let before = asked(&log).len();
    eventually("nothing runs any more", || crate::support::children_of(gateway.pid()).is_empty());
    assert_eq!(client.call("work", json!({})), "worked");
    let processes = asked(&log);
    assert_eq!(processes.len(), before + 1);
    assert_eq!(processes[before][0], "server/discover", "{processes:?}");
}

#[test]
fn a_lost_answer_is_asked_for_again_where_that_is_safe() {
    let tool = |name: &str, hints: Value| json!({ "name": name, "inputSchema": {}, "annotations": hints });
    let offers = Offers {
        tools: vec![tool("read", json!({ "readOnlyHint": true })), tool("write", json!({ "readOnlyHint": false }))],
        prompts: vec![json!({ "name": "hello" })],
        resources: Vec::new(),
    };
    let broken = std::sync::Mutex::new(std::collections::HashSet::new());
    let server = ModernServer::offering("new", offers, move |seen| {
        let what = format!("{} {}", seen.method(), seen.message["params"]["name"]);
        let first = matches!(seen.method(), "tools/call" | "prompts/get")
            && broken.lock().expect("no panic in between").insert(what);
        match first {
            // A stream that breaks before the answer.
            true => Act::Own(Box::new(|peer| {
                let log = json!({ "level": "info", "data": "soon" });
                peer.send(begin_events());
                peer.send(event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": log })));
            })),
            false => Act::Well,
        }
    });
    let (_gateway, address) = gateway(json!({ "targets": [server.target("new")] }));
    let client = McpClient::open(address);
    client.result("tools/list", json!({}));
    assert_eq!(client.call("read", json!({})), "new: read {}");
    assert_eq!(client.result("prompts/get", json!({ "name": "hello" }))["messages"][0]["role"], "user");
    let lost = client.result("tools/call", json!({ "name": "write" }));
    assert_eq!(lost["isError"], true, "{lost}");
    assert!(lost["content"][0]["text"].as_str().is_some_and(|text| text.contains("effect is unknown")), "{lost}");
    let calls = |name: &str| server.of("tools/call").iter().filter(|seen| seen.tool() == name).count();
    assert_eq!((calls("read"), calls("write")), (2, 1));
}

#[test]
fn resources_of_children_are_subscribed_to_by_listening() {
    for mode in ["perSession", "shared"] {
        let (target, _folder, log) = child("new", mode, "");
        let (_gateway, address) = gateway(json!({ "targets": [target] }));
        let client = McpClient::open(address);
        for method in ["resources/subscribe", "resources/unsubscribe"] {
            assert_eq!(client.result(method, json!({ "uri": "memo:x" })), json!({}), "{mode}");
        }
        let listens = noted(&log).into_iter().filter(|(_, method, _)| method == "subscriptions/listen");
        let uris: Vec<Value> =
            listens.map(|(_, _, listen)| listen["params"]["notifications"]["resourceSubscriptions"].clone()).collect();
        assert!(uris.contains(&json!(["memo:x"])), "{mode}: {uris:?}");
        assert!(noted(&log).iter().all(|(_, method, _)| !method.starts_with("resources/")), "{mode}");
    }
}
