//! Tasks of both kinds, through one target and through several; what else extensions need: unknown ones, `_meta`, MCP Apps.

use serde_json::{Value, json};

use crate::support::config::mcp;
use crate::support::free_port;
use crate::support::gateway::{Setup, local};
use crate::support::mcp_client::{McpClient, each, message, text_of};
use crate::support::mcp_server::{Act, McpServer, Offers, Seen, begin_events, event, json_reply};
use crate::support::modern_client::{ModernClient, VERSION};
use crate::support::modern_server::{ModernServer, error};
use crate::support::upstream::reply;
use crate::{federation, gateway};

const EXTENSION: &str = "io.modelcontextprotocol/tasks";
const UI: &str = "io.modelcontextprotocol/ui";
const RELATED: &str = "io.modelcontextprotocol/related-task";

/// Tools that may, must and cannot be called as tasks.
fn tools() -> Offers {
    let tool = |name: &str, support: &str| json!({ "name": name, "execution": { "taskSupport": support }, "inputSchema": { "type": "object" } });
    Offers {
        tools: vec![tool("may", "optional"), tool("must", "required"), tool("not", "forbidden")],
        ..Offers::default()
    }
}

/// The answer to an `initialize` of a server with these capabilities.
fn introduced(seen: &Seen, capabilities: &Value) -> Act {
    let result = json!({ "protocolVersion": seen.message["params"]["protocolVersion"], "capabilities": capabilities,
        "serverInfo": { "name": "s", "version": "1" } });
    let body = json!({ "jsonrpc": "2.0", "id": seen.id(), "result": result }).to_string();
    Act::Bytes(reply(200, &[("content-type", "application/json"), ("mcp-session-id", "s")], body))
}

/// A server of 2025-11-25 whose tasks are `t1` and `t2`, each on a page of its own.
fn old_tasks(name: &'static str) -> McpServer {
    McpServer::offering(name, tools(), move |seen| {
        let params = &seen.message["params"];
        let id = params["taskId"].as_str().unwrap_or_default();
        let task = |id: &str, status: &str| json!({ "taskId": id, "status": status, "ttl": null, "by": name });
        let related = json!({ RELATED: { "taskId": "t1" }, "org.example/x": [1] });
        match seen.method() {
            "initialize" => introduced(
                seen,
                &json!({ "tools": {}, "extensions": { "org.example/x": { "y": 1 } },
                    "tasks": { "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } } }),
            ),
            "tools/call" if !params["task"].is_null() => {
                Act::Result(json!({ "task": task("t1", "working"), "_meta": { "org.example/x": [1] } }))
            }
            "tasks/list" if params["cursor"] == "n\"" => Act::Result(json!({ "tasks": [task("t2", "completed")] })),
            "tasks/list" => Act::Result(json!({ "tasks": [task("t1", "working")], "nextCursor": "n\"" })),
            "tasks/get" | "tasks/cancel" | "tasks/result" if !matches!(id, "t1" | "t2") => {
                Act::Error(-32602, "no task")
            }
            "tasks/get" => Act::Result(task(id, "working")),
            "tasks/cancel" => Act::Result(task(id, "cancelled")),
            "tasks/result" => {
                let notify =
                    |method: &str, params: Value| json!({ "jsonrpc": "2.0", "method": method, "params": params });
                let mut question = notify(
                    "elicitation/create",
                    json!({ "message": "m", "_meta": related,
                    "requestedSchema": { "type": "object", "properties": {} } }),
                );
                question["id"] = 9.into();
                let result = json!({ "content": [{ "type": "text", "text": name }], "_meta": related });
                Act::Events(vec![
                    notify("notifications/tasks/status", task("t1", "input_required")),
                    question,
                    json!({ "jsonrpc": "2.0", "id": seen.id(), "result": result }),
                ])
            }
            _ => Act::Well,
        }
    })
}

/// A whole life of a task of 2025-11-25; `tool` is the outward name. Gives the task's id.
fn live(client: &McpClient, server: &McpServer, tool: &str, name: &str) -> String {
    let called = client.result("tools/call", json!({ "name": tool, "arguments": {}, "task": { "ttl": 60_000 } }));
    assert_eq!(called["_meta"], json!({ "org.example/x": [1] }));
    let id = called["task"]["taskId"].as_str().expect("an id").to_owned();
    let got = client.result("tasks/get", json!({ "taskId": id }));
    assert_eq!(got, json!({ "taskId": id, "status": "working", "ttl": null, "by": name }));
    let mut stream = client.stream(7, "tasks/result", json!({ "taskId": id }));
    let related = json!({ RELATED: { "taskId": id }, "org.example/x": [1] });
    let told = stream.message().expect("a status");
    assert_eq!((&told["method"], &told["params"]["taskId"]), (&json!("notifications/tasks/status"), &json!(id)));
    let asked = stream.message().expect("a question");
    assert_eq!((&asked["method"], &asked["params"]["_meta"]), (&json!("elicitation/create"), &related));
    let result = json!({ "action": "decline", "_meta": { RELATED: { "taskId": id } } });
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
    assert_eq!(client.post(&answer.to_string()).status, 202);
    let heard = server.await_seen("the answer", |seen| seen.message.get("method").is_none() && *seen.id() == 9);
    assert_eq!(heard.message["result"]["_meta"][RELATED]["taskId"], "t1");
    let done = stream.message().expect("the result");
    assert_eq!((&done["id"], &done["result"]["_meta"]), (&json!(7), &related));
    assert_eq!(text_of(&done["result"]), name);
    assert_eq!(client.result("tasks/cancel", json!({ "taskId": id }))["status"], "cancelled");
    id
}

#[test]
fn old_tasks_of_one_target_pass_as_they_are() {
    let server = old_tasks("one");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("one")] }));
    let client = McpClient::open(address);
    assert!(client.initialized["capabilities"]["tasks"]["cancel"].is_object());
    assert_eq!(client.initialized["capabilities"]["extensions"], json!({ "org.example/x": { "y": 1 } }));
    assert_eq!(client.result("tools/list", json!({})), json!({ "tools": tools().tools }));
    assert_eq!(live(&client, &server, "may", "one"), "t1");
    assert_eq!(each(&client.result("tasks/list", json!({ "cursor": "n\"" }))["tasks"], "taskId"), ["t2"]);
    assert_eq!(client.ask("tasks/get", json!({ "taskId": "t3" }))["error"]["message"], "no task");
}

#[test]
fn old_tasks_of_a_federation_have_ids_of_the_callers_own() {
    let (one, two, plain) = (old_tasks("one"), old_tasks("two"), McpServer::good("plain"));
    let (_gateway, address) = federation(vec![plain.target("plain"), one.target("one"), two.target("two")]);
    let client = McpClient::open_as(address, "Bearer a");
    let offered = &client.initialized["capabilities"];
    assert_eq!(offered["tasks"], json!({ "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } }));
    assert!(offered.get("extensions").is_none(), "nobody could route it");
    let list = client.result("tools/list", json!({}));
    assert_eq!(list["tools"][1]["execution"], json!({ "taskSupport": "optional" }));
    let (first, second) = (live(&client, &one, "one__may", "one"), live(&client, &two, "two__may", "two"));
    assert_ne!(first, second);
    assert!(first != "t1" && first.len() < 128, "{first}");
    for seen in one.seen().iter().filter(|seen| seen.method().starts_with("tasks/")) {
        assert_eq!(seen.message["params"]["taskId"], "t1", "{}", seen.message);
    }
    // The next session of the same caller knows it, nobody else does.
    let again = McpClient::open_as(address, "Bearer a");
    assert_eq!(again.result("tasks/get", json!({ "taskId": first }))["by"], "one");
    let other = McpClient::open_as(address, "Bearer b");
    for id in [first.as_str(), "t1", ""] {
        let error = other.ask("tasks/get", json!({ "taskId": id }))["error"].clone();
        assert_eq!((&error["code"], &error["message"]), (&json!(-32602), &json!("unknown task")), "{id}");
    }
    // A page of the list has one of each target's, until nobody has more.
    let page = client.result("tasks/list", json!({}));
    assert_eq!(each(&page["tasks"], "taskId"), [first.as_str(), second.as_str()]);
    let last = client.result("tasks/list", json!({ "cursor": page["nextCursor"] }));
    assert_eq!(each(&last["tasks"], "by"), ["one", "two"]);
    assert!(last.get("nextCursor").is_none() && last.get("_meta").is_none(), "{last}");
    assert_eq!(
        client.result("tasks/get", json!({ "taskId": last["tasks"][1]["taskId"] }))["taskId"],
        last["tasks"][1]["taskId"]
    );
    for cursor in [json!("n"), page["nextCursor"].clone()] {
        assert_eq!(other.ask("tasks/list", json!({ "cursor": cursor }))["error"]["code"], -32602);
    }
    assert_eq!(plain.seen().iter().filter(|seen| seen.method().starts_with("tasks/")).count(), 0);
}

#[test]
fn a_list_of_tasks_says_who_is_missing() {
    let one = old_tasks("one");
    let two = McpServer::scripted("two", |seen| match seen.method() {
        "initialize" => introduced(seen, &json!({ "tools": {}, "tasks": { "list": {} } })),
        "tasks/list" => Act::Close,
        _ => Act::Well,
    });
    let (_gateway, address) = federation(vec![one.target("one"), two.target("two")]);
    let list = McpClient::open(address).result("tasks/list", json!({}));
    assert_eq!(each(&list["tasks"], "by"), ["one"]);
    assert_eq!(crate::missing(&list), ["two"]);
}

#[test]
fn a_federation_without_tasks_has_no_such_methods() {
    let (one, two) = (McpServer::good("one"), old_tasks("two"));
    let new = ModernServer::good("new");
    let (_gateway, address) = federation(vec![one.target("one"), new.target("new")]);
    let client = McpClient::open(address);
    assert!(client.initialized["capabilities"].get("tasks").is_none());
    let (_other, older) = federation(vec![one.target("one"), two.target("two")]);
    let older = McpClient::open_in(older, "2025-06-18");
    assert!(older.initialized["capabilities"].get("tasks").is_none());
    for client in [client, older] {
        for method in ["tasks/list", "tasks/get", "tasks/result", "tasks/cancel"] {
            assert_eq!(client.ask(method, json!({ "taskId": "t1" }))["error"]["code"], -32601, "{method}");
        }
    }
}

/// A server of 2026-07-28 with the extension, whose tool `may` makes the task `t1`.
fn new_tasks(name: &'static str) -> ModernServer {
    ModernServer::offering(name, Offers::tools(&["may"]), move |seen| {
        let params = &seen.message["params"];
        let declared = &params["_meta"]["io.modelcontextprotocol/clientCapabilities"]["extensions"][EXTENSION];
        let needed = json!({ "requiredCapabilities": { "extensions": { EXTENSION: {} } } });
        let own = seen.request.head.get("mcp-name") == Some("t1") && params["taskId"] == "t1";
        match seen.method() {
            "server/discover" => {
                Act::Result(json!({ "supportedVersions": [VERSION], "ttlMs": 60_000, "cacheScope": "public",
                "capabilities": { "tools": {}, "extensions": { EXTENSION: {}, "org.example/x": { "y": 1 }, UI: {} } } }))
            }
            "tools/call" if declared.is_object() => {
                Act::Result(json!({ "resultType": "task", "taskId": "t1", "status": "working", "ttlMs": 1000 }))
            }
            "tasks/get" | "tasks/update" | "tasks/cancel" if !declared.is_object() => {
                Act::Bytes(error(400, seen.id(), -32021, "no", needed))
            }
            "tasks/get" if own => Act::Result(json!({ "taskId": "t1", "status": "completed",
                "result": { "content": [{ "type": "text", "text": name }] } })),
            "tasks/update" | "tasks/cancel" if own => Act::Result(json!({})),
            "tasks/get" => Act::Bytes(error(400, seen.id(), -32602, "no task", Value::Null)),
            _ => Act::Well,
        }
    })
}

/// A whole life of a task of the extension. Gives its id.
fn live_anew(client: &ModernClient, tool: &str, name: &str) -> String {
    let called = client.call(tool, json!({}));
    assert_eq!((&called["resultType"], &called["ttlMs"]), (&json!("task"), &json!(1000)));
    let id = called["taskId"].as_str().expect("an id").to_owned();
    let got = client.result("tasks/get", json!({ "taskId": id }));
    assert_eq!((&got["resultType"], &got["taskId"]), (&json!("complete"), &json!(id)));
    assert_eq!(text_of(&got["result"]), name);
    client.result("tasks/update", json!({ "taskId": id, "inputResponses": { "k": { "action": "cancel" } } }));
    client.result("tasks/cancel", json!({ "taskId": id }));
    id
}

fn with_tasks(address: std::net::SocketAddr) -> ModernClient {
    ModernClient::new(address).with(json!({ "extensions": { EXTENSION: {} } }))
}

#[test]
fn new_tasks_of_one_target_pass_as_they_are() {
    let server = new_tasks("one");
    let (_gateway, address) = gateway(json!({ "targets": [server.target("one")] }));
    let client = with_tasks(address);
    let offered = &client.result("server/discover", json!({}))["capabilities"]["extensions"];
    assert_eq!(*offered, json!({ EXTENSION: {}, "org.example/x": { "y": 1 }, UI: {} }));
    assert_eq!(live_anew(&client, "may", "one"), "t1");
    let plain = ModernClient::new(address);
    assert_eq!(plain.call("may", json!({}))["resultType"], "complete");
    let (status, error) = plain.error("tasks/get", json!({ "taskId": "t1" }));
    assert_eq!((status, &error["code"]), (400, &json!(-32021)));
}

#[test]
fn new_tasks_of_a_federation_are_found_from_every_shard() {
    let (one, two, old) = (new_tasks("one"), new_tasks("two"), old_tasks("old"));
    let port = free_port();
    let backend = json!({ "targets": [old.target("old"), one.target("one"), two.target("two")] });
    let _gateway = Setup::new(&mcp(port, backend).to_string()).args(&["--shards", "4"]).start();
    let client = with_tasks(local(port)).header("authorization", "Bearer a");
    let offered = &client.result("server/discover", json!({}))["capabilities"];
    assert_eq!(offered["extensions"], json!({ EXTENSION: {}, UI: {} }));
    assert!(offered.get("tasks").is_none());
    // Each request is a connection of its own, on any shard.
    for _ in 0..8 {
        assert_ne!(live_anew(&client, "one__may", "one"), live_anew(&client, "two__may", "two"));
    }
    let id = client.call("one__may", json!({}))["taskId"].clone();
    let seen = one.of("tasks/get");
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.message["params"]["taskId"] == "t1"));
    let other = with_tasks(local(port)).header("authorization", "Bearer b");
    for id in [&id, &json!("t1")] {
        let (status, error) = other.error("tasks/get", json!({ "taskId": id }));
        assert_eq!((status, &error["code"], &error["message"]), (200, &json!(-32602), &json!("unknown task")));
    }
    let (status, error) = ModernClient::new(local(port)).error("tasks/get", json!({ "taskId": "t1" }));
    assert_eq!((status, &error["code"]), (400, &json!(-32021)));
    assert_eq!(error["data"]["requiredCapabilities"], json!({ "extensions": { EXTENSION: {} } }));
    assert_eq!(client.error("tasks/list", json!({})).0, 404);
}

#[test]
fn tasks_of_the_other_era_are_hidden() {
    let (old, new) = (old_tasks("old"), new_tasks("new"));
    for targets in [vec![old.target("old")], vec![old.target("old"), McpServer::good("x").target("x")]] {
        let prefix = if targets.len() == 1 { "" } else { "old__" };
        let (_gateway, address) = gateway(json!({ "targets": targets }));
        let client = with_tasks(address);
        let offered = client.result("server/discover", json!({}))["capabilities"].clone();
        assert!(offered.get("tasks").is_none() && offered["extensions"].get(EXTENSION).is_none(), "{offered}");
        let list = client.result("tools/list", json!({}));
        let names = crate::tool_names(&list);
        assert!(names.contains(&format!("{prefix}may").as_str()) && !names.iter().any(|name| name.ends_with("must")));
        assert!(!list.to_string().contains("execution"), "{list}");
        let called = client.call_with(json!({ "name": format!("{prefix}may"), "arguments": {}, "task": { "ttl": 1 } }));
        assert_eq!(called["content"][0]["text"], "old: may {}", "a plain call");
        assert_eq!(client.error("tasks/get", json!({ "taskId": "t1" })).0, 404);
    }
    let (_gateway, address) = gateway(json!({ "targets": [new.target("new")] }));
    let client = McpClient::open_with(address, "2025-11-25", json!({ "extensions": { EXTENSION: {} }, "tasks": {} }));
    assert_eq!(client.initialized["capabilities"]["extensions"], json!({ "org.example/x": { "y": 1 }, UI: {} }));
    let called = client.result("tools/call", json!({ "name": "may", "arguments": {}, "task": { "ttl": 1 } }));
    assert_eq!(text_of(&called), "new: may {}");
    assert!(new.of("tools/call").iter().all(|seen| seen.message["params"].get("task").is_none()));
}

#[test]
fn the_status_of_a_task_is_not_told_to_clients_of_older_revisions() {
    let server = McpServer::scripted("old", |seen| match seen.tool() {
        "echo" => {
            let status =
                json!({ "jsonrpc": "2.0", "method": "notifications/tasks/status", "params": { "taskId": "t" } });
            let result = json!({ "jsonrpc": "2.0", "id": seen.id(), "result": { "content": [] } });
            let mut bytes = begin_events();
            [status, result].iter().for_each(|message| bytes.push_str(&event(message)));
            Act::Bytes((bytes + "0\r\n\r\n").into_bytes())
        }
        _ => Act::Well,
    });
    let (_gateway, address) = gateway(json!({ "targets": [server.target("old")] }));
    for (revision, told) in [("2025-06-18", false), ("2025-11-25", true)] {
        let client = McpClient::open_in(address, revision);
        let answer = client.post(&message(3, "tools/call", json!({ "name": "echo", "arguments": {} })));
        assert_eq!(answer.text().contains("notifications/tasks/status"), told, "{revision}");
    }
}

#[test]
fn apps_of_a_federation_are_read_at_their_tools_target() {
    let app = |name: &'static str, listed: bool| {
        let ui = json!({ "ui": { "resourceUri": "ui://app/main", "visibility": ["model"] } });
        let tool = json!({ "name": "show", "inputSchema": { "type": "object" }, "_meta": ui });
        let resources = if listed { vec![json!({ "uri": "ui://app/main", "name": "main" })] } else { Vec::new() };
        McpServer::offering(name, Offers { tools: vec![tool], resources, ..Offers::default() }, move |seen| {
            let meta = json!({ "ui": { "csp": { "connectDomains": ["https://e.org"] } } });
            match seen.method() {
                "initialize" => introduced(
                    seen,
                    &json!({ "tools": {}, "resources": {},
                    "extensions": { UI: { "mimeTypes": [format!("text/{name}")] } } }),
                ),
                "resources/read" => Act::Bytes(json_reply(&json!({ "jsonrpc": "2.0", "id": seen.id(), "result": {
                    "contents": [{ "uri": seen.message["params"]["uri"], "text": name, "_meta": meta }] } }))),
                _ => Act::Well,
            }
        })
    };
    let (one, two) = (app("one", true), app("two", false));
    let (_gateway, address) = federation(vec![one.target("one"), two.target("two")]);
    let client = McpClient::open(address);
    let settings = &client.initialized["capabilities"]["extensions"];
    assert_eq!(*settings, json!({ UI: { "mimeTypes": ["text/one", "text/two"] } }));
    assert_eq!(each(&client.result("resources/list", json!({}))["resources"], "uri"), ["ui://app/main"]);
    let list = client.result("tools/list", json!({}));
    let uri = |place: usize| list["tools"][place]["_meta"]["ui"]["resourceUri"].as_str().expect("a URI").to_owned();
    assert_eq!((uri(0), uri(1)), ("ui://app/main".to_owned(), "ui://two+app/main".to_owned()));
    assert_eq!(list["tools"][1]["_meta"]["ui"]["visibility"], json!(["model"]));
    for (place, name) in ["one", "two"].into_iter().enumerate() {
        let read = client.result("resources/read", json!({ "uri": uri(place) }));
        assert_eq!((&read["contents"][0]["text"], &read["contents"][0]["uri"]), (&json!(name), &json!(uri(place))));
        assert_eq!(read["contents"][0]["_meta"]["ui"]["csp"]["connectDomains"], json!(["https://e.org"]));
        let read = ModernClient::new(address).result("resources/read", json!({ "uri": uri(place) }));
        assert_eq!(read["contents"][0]["text"], name);
    }
    assert_eq!(
        two.await_seen("a read", |seen| seen.method() == "resources/read").message["params"]["uri"],
        "ui://app/main"
    );
}
