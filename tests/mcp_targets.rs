//! MCP targets that are down, slow, forgetful or at odds with each other, and what the client sees of it: as little as can
//! be. Both directions, cancellation, resumption, and the ends of sessions.

mod support;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::config::mcp;
use support::gateway::{BINARY, Gateway, local};
use support::mcp_client::{McpClient, answer_of, each, initialize, message, text_of};
use support::mcp_server::{Act, McpServer, Offers, Seen, begin_events, event, event_with_id};
use support::upstream::{Upstream, reply};
use support::wire::Peer;
use support::{PATIENCE, children_of, eventually, exists, free_port};

fn notes(name: &str) -> Value {
    json!({ "name": name, "stdio": { "cmd": BINARY, "args": ["demo-notes"] } })
}

fn gateway(backend: Value) -> (Gateway, SocketAddr) {
    let port = free_port();
    (Gateway::start(&mcp(port, backend).to_string()), local(port))
}

/// A gateway over these targets whose lists answer fast.
fn federation(targets: Vec<Value>) -> (Gateway, SocketAddr) {
    gateway(json!({ "targets": targets, "deadline": "400ms" }))
}

fn tool_names(list: &Value) -> Vec<&str> {
    each(&list["tools"], "name")
}

/// Who is missing in a list, by name.
fn missing(list: &Value) -> Vec<&str> {
    each(&list["_meta"]["dev.agentlane/missing"], "target")
}

/// Sockets of a child beside its standard streams.
fn inherited_sockets(pid: u32) -> Vec<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a running child").flatten();
    let inherited = descriptors.filter(|entry| !["0", "1", "2"].contains(&&*entry.file_name().to_string_lossy()));
    let targets = inherited.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.map(|target| target.to_string_lossy().into_owned()).filter(|target| target.starts_with("socket:")).collect()
}

// Targets that fail

#[test]
fn a_dead_target_is_left_out_and_named() {
    let good = McpServer::good("good");
    let dead = json!({ "name": "dead", "mcp": { "host": format!("http://127.0.0.1:{}/mcp", free_port()) } });
    let broken = json!({ "name": "broken", "stdio": { "cmd": "/nonexistent/server" } });
    let exits = json!({ "name": "exits", "stdio": { "cmd": "/bin/false" } });
    let (_gateway, address) = federation(vec![dead, good.target("good"), broken, exits]);
    let client = McpClient::open(address);
    let list = client.result("tools/list", json!({}));
    assert_eq!(tool_names(&list), ["good__echo"]);
    assert_eq!(missing(&list), ["dead", "broken", "exits"]);
    assert_eq!(client.call("good__echo", json!({})), "good: echo {}");
    for target in ["dead", "broken", "exits"] {
        let result = client.result("tools/call", json!({ "name": format!("{target}__x"), "arguments": {} }));
        assert_eq!(result["isError"], true, "the model is told: {result}");
        assert!(text_of(&result).contains(target), "{result}");
    }
}

#[test]
fn every_kind_of_sick_target_leaves_the_others_alone() {
    let on = |method: &'static str, act: fn() -> Act| move |seen: &Seen| if seen.method() == method { act() } else { Act::Well };
    let html = || Act::Bytes(reply(200, &[("content-type", "text/html")], "<h1>welcome</h1>"));
    let cut = || Act::Own(Box::new(|peer: &mut Peer| peer.send(begin_events() + "20\r\ndata: {\"jsonr")));
    let servers = [
        ("silent", McpServer::scripted("silent", on("tools/list", || Act::Silence))),
        ("closes", McpServer::scripted("closes", on("tools/list", || Act::Close))),
        ("html", McpServer::scripted("html", on("tools/list", html))),
        ("cut", McpServer::scripted("cut", on("tools/list", cut))),
        ("fails", McpServer::scripted("fails", on("tools/list", || Act::Bytes(reply(500, &[], "oops"))))),
        ("error", McpServer::scripted("error", on("tools/list", || Act::Error(-32603, "no list today")))),
        ("nonsense", McpServer::scripted("nonsense", on("tools/list", || Act::Result(json!({ "tools": "many" }))))),
        ("nojson", McpServer::scripted("nojson", on("tools/list", || Act::Bytes(reply(200, &[("content-type", "application/json")], "{oops"))))),
        ("deaf", McpServer::scripted("deaf", on("initialize", || Act::Silence))),
        ("htmlinit", McpServer::scripted("htmlinit", on("initialize", html))),
        ("refuses", McpServer::scripted("refuses", on("initialize", || Act::Error(-32602, "go away")))),
    ];
    let good = McpServer::good("good");
    let mut targets: Vec<Value> = servers.iter().map(|(name, server)| server.target(name)).collect();
    targets.insert(3, good.target("good"));
    let (_gateway, address) = federation(targets);
    let begun = Instant::now();
    let client = McpClient::open(address);
    let list = client.result("tools/list", json!({}));
    assert!(begun.elapsed() < PATIENCE, "the deadline is 400 ms, for each of both");
    assert_eq!(tool_names(&list), ["good__echo"]);
    let mut absent = missing(&list);
    absent.sort_unstable();
    let mut expected: Vec<&str> = servers.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(absent, expected);
    // Sick at listing is not sick at everything.
    for target in ["silent", "closes", "html", "cut", "fails", "error", "nonsense", "nojson"] {
        assert_eq!(client.call(&format!("{target}__echo"), json!({})), format!("{target}: echo {{}}"));
    }
    for (_, server) in &servers[8..] {
        assert_eq!(server.count("tools/call"), 0);
    }
}

#[test]
fn a_list_without_an_end_ends() {
    let endless = McpServer::scripted("endless", {
        let page = AtomicUsize::new(0);
        move |seen| match seen.method() {
            "tools/list" => {
                let page = page.fetch_add(1, Ordering::SeqCst);
                let tool = json!({ "name": format!("t{page}"), "inputSchema": { "type": "object" } });
                Act::Result(json!({ "tools": [tool], "nextCursor": format!("{page}") }))
            }
            _ => Act::Well,
        }
    });
    let circle = McpServer::scripted("circle", |seen| match seen.method() {
        "tools/list" => {
            let next = if seen.message["params"]["cursor"] == "a" { "b" } else { "a" };
            Act::Result(json!({ "tools": [{ "name": "same", "inputSchema": {} }], "nextCursor": next }))
        }
        _ => Act::Well,
    });
    let good = McpServer::good("good");
    let targets = json!([endless.target("endless"), circle.target("circle"), good.target("good")]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "deadline": "400ms", "pageSize": 100_000 }));
    let client = McpClient::open(address);
    let list = client.result("tools/list", json!({}));
    assert!(tool_names(&list).contains(&"good__echo"), "{list}");
    assert!(endless.count("tools/list") <= 1_000 && circle.count("tools/list") <= 1_000, "pages are counted");
}

#[test]
fn fail_closed_is_strict() {
    let good = McpServer::good("good");
    let flaky = Arc::new(AtomicBool::new(false));
    let sick = McpServer::scripted("sick", {
        let flaky = flaky.clone();
        move |seen| if flaky.load(Ordering::SeqCst) && seen.method() == "tools/list" { Act::Close } else { Act::Well }
    });
    let targets = json!([good.target("good"), sick.target("sick")]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "deadline": "400ms", "failureMode": "failClosed" }));
    let client = McpClient::open(address);
    assert_eq!(tool_names(&client.result("tools/list", json!({}))), ["good__echo", "sick__echo"]);
    flaky.store(true, Ordering::SeqCst);
    let answer = client.ask("tools/list", json!({}));
    assert!(answer["error"]["code"].is_i64(), "{answer}");
    assert_eq!(client.call("good__echo", json!({})), "good: echo {}", "a call concerns its own target");
    let dead = json!({ "name": "dead", "mcp": { "host": format!("http://127.0.0.1:{}/mcp", free_port()) } });
    let targets = json!([good.target("good"), dead]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "deadline": "400ms", "failureMode": "failClosed" }));
    let refused = initialize(address, "2025-11-25");
    assert!(answer_of(&refused)["error"]["code"].is_i64() && refused.get("mcp-session-id").is_none(), "{refused:?}");
}

#[test]
fn nothing_behind_is_an_error_of_the_gateway() {
    let dead = json!({ "name": "dead", "mcp": { "host": format!("http://127.0.0.1:{}/mcp", free_port()) } });
    let (_gateway, address) = federation(vec![dead]);
    let refused = initialize(address, "2025-11-25");
    assert!([502, 503].contains(&refused.status), "{refused:?}");
    assert_eq!(answer_of(&refused)["error"]["code"], -32603);
}

#[test]
fn a_target_that_comes_back_is_used_again() {
    let up = Arc::new(AtomicBool::new(false));
    let server = McpServer::scripted("late", {
        let up = up.clone();
        move |_| if up.load(Ordering::SeqCst) { Act::Well } else { Act::Bytes(reply(503, &[], "")) }
    });
    let good = McpServer::good("good");
    let (_gateway, address) = federation(vec![good.target("good"), server.target("late")]);
    let client = McpClient::open(address);
    assert_eq!(missing(&client.result("tools/list", json!({}))), ["late"]);
    up.store(true, Ordering::SeqCst);
    eventually("the target is back", || missing(&client.result("tools/list", json!({}))).is_empty());
    assert_eq!(client.call("late__echo", json!({})), "late: echo {}");
}

#[test]
fn a_target_that_forgot_its_session_gets_a_new_one_behind_the_client_s_back() {
    // By 404, as the specification says, and by a 400 that names the session, as several servers say.
    for (status, text) in [(404, "Session not found"), (400, "Bad Request: No valid session ID provided")] {
        let forgotten = Arc::new(AtomicBool::new(false));
        let forgetful = |name: &'static str| {
            let forgotten = forgotten.clone();
            McpServer::offering(name, Offers::resources(&["memo:x"]), move |seen| {
                let first = format!("{name}-1");
                match seen.session.as_deref() {
                    Some(session) if session == first && forgotten.load(Ordering::SeqCst) => Act::Bytes(reply(status, &[], text)),
                    _ => Act::Well,
                }
            })
        };
        let (alone, one, two) = (forgetful("alone"), forgetful("one"), forgetful("two"));
        let (_first, single) = federation(vec![alone.target("alone")]);
        let (_second, federated) = federation(vec![one.target("one"), two.target("two")]);
        let (single, federated) = (McpClient::open(single), McpClient::open(federated));
        assert_eq!(federated.call("one__echo", json!({})), "one: echo {}");
        forgotten.store(true, Ordering::SeqCst);
        assert_eq!(single.call("echo", json!({})), "alone: echo {}");
        assert_eq!(federated.call("one__echo", json!({})), "one: echo {}");
        assert_eq!(tool_names(&federated.result("tools/list", json!({}))), ["one__echo", "two__echo"], "lists as well");
        for server in [&alone, &one, &two] {
            assert_eq!(server.sessions(), 2, "once anew");
            eventually("the new session is told that it is initialized", || server.count("notifications/initialized") == 2);
        }
        assert_eq!(alone.count("tools/call"), 2, "the refused one and its repetition");
    }
}

#[test]
fn a_call_that_breaks_off_is_told_and_not_repeated() {
    let server = McpServer::scripted("web", |seen| match (seen.method(), seen.tool()) {
        ("tools/call", "close") => Act::Close,
        ("tools/call", "half") => Act::Own(Box::new(|peer| {
            peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            peer.send(event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": "begun" } })));
        })),
        ("tools/call", "html") => Act::Bytes(reply(200, &[("content-type", "text/html")], "<h1>")),
        ("tools/call", "refuse") => Act::Bytes(reply(403, &[], "no")),
        ("tools/call", "error") => Act::Error(-32000, "my own error"),
        _ => Act::Well,
    });
    let good = McpServer::good("good");
    let (_gateway, address) = federation(vec![server.target("web"), good.target("good")]);
    let client = McpClient::open(address);
    for tool in ["close", "half", "html", "refuse"] {
        let answer = client.ask("tools/call", json!({ "name": format!("web__{tool}"), "arguments": {} }));
        assert_eq!(answer["result"]["isError"], true, "{tool}: {answer}");
        let calls = server.seen().into_iter().filter(|seen| seen.tool() == tool).count();
        assert_eq!(calls, 1, "{tool}: a call may have had its effect");
    }
    let answer = client.ask("tools/call", json!({ "name": "web__error", "arguments": {} }));
    assert_eq!((&answer["error"]["code"], &answer["error"]["message"]), (&json!(-32000), &json!("my own error")));
    assert_eq!(client.call("good__echo", json!({})), "good: echo {}");
}

// Names

#[test]
fn names_with_underscores_find_their_way() {
    let tools = Offers::tools(&["get_item", "_hidden", "a__b", "__x", "end_"]);
    let names = ["my_target", "my-target", "target2", "a_b_c"];
    let servers: Vec<McpServer> = names.iter().map(|name| McpServer::offering(name, tools.clone(), |_| Act::Well)).collect();
    let (_gateway, address) = federation(names.iter().zip(&servers).map(|(name, server)| server.target(name)).collect());
    let client = McpClient::open(address);
    let list = client.result("tools/list", json!({}));
    let listed: Vec<String> = tool_names(&list).into_iter().map(str::to_owned).collect();
    assert_eq!(listed.len(), 20);
    for (name, outward) in names.iter().flat_map(|name| ["get_item", "_hidden", "a__b", "__x", "end_"].map(|tool| (name, format!("{name}__{tool}")))) {
        assert!(listed.contains(&outward), "{outward} is not in {listed:?}");
        let own = outward.strip_prefix(&format!("{name}__")).expect("a prefix");
        assert_eq!(client.call(&outward, json!({ "k": 1 })), format!("{name}: {own} {{\"k\":1}}"));
    }
}

#[test]
fn prefix_modes_mean_what_they_say() {
    let one = McpServer::offering("one", Offers::tools(&["echo", "mine"]), |_| Act::Well);
    let two = McpServer::offering("two", Offers::tools(&["echo", "yours"]), |_| Act::Well);
    let listed = |targets: Value, mode: &str| {
        let (gateway, address) = gateway(json!({ "targets": targets, "prefixMode": mode }));
        let client = McpClient::open(address);
        let list = client.result("tools/list", json!({}));
        (gateway, client, tool_names(&list).join(" "))
    };
    let both = json!([one.target("one"), two.target("two")]);
    let single = json!([one.target("one")]);
    assert_eq!(listed(single.clone(), "conditional").2, "echo mine");
    assert_eq!(listed(both.clone(), "conditional").2, "one__echo one__mine two__echo two__yours");
    let (_gateway, client, names) = listed(single.clone(), "always");
    assert_eq!(names, "one__echo one__mine");
    assert_eq!(client.call("one__mine", json!({})), "one: mine {}");
    let (_gateway, client, names) = listed(both, "never");
    assert_eq!(names, "echo mine yours", "of two equal names the first target's is served");
    assert_eq!(client.call("echo", json!({})), "one: echo {}");
    assert_eq!(client.call("yours", json!({})), "two: yours {}");
    assert_eq!(client.ask("tools/call", json!({ "name": "nobodys" }))["error"]["code"], -32602);
}

#[test]
fn a_tool_is_found_without_prefix_before_anybody_has_listed() {
    let one = McpServer::offering("one", Offers::tools(&["mine"]), |_| Act::Well);
    let two = McpServer::offering("two", Offers::tools(&["yours"]), |_| Act::Well);
    let (_gateway, address) = gateway(json!({ "targets": [one.target("one"), two.target("two")], "prefixMode": "never" }));
    assert_eq!(McpClient::open(address).call("yours", json!({})), "two: yours {}");
}

#[test]
fn equal_resource_uris_are_both_readable() {
    let one = McpServer::offering("one", Offers::resources(&["memo:x", "memo:one", "ui://app/x"]), |_| Act::Well);
    let two = McpServer::offering("two_b", Offers::resources(&["memo:x", "memo:two", "ui://app/x"]), |_| Act::Well);
    let (_gateway, address) = federation(vec![one.target("one"), two.target("two_b")]);
    let client = McpClient::open(address);
    let list = client.result("resources/list", json!({}));
    let uris: Vec<&str> = each(&list["resources"], "uri");
    assert_eq!(uris.len(), 6, "{uris:?}");
    let mut unique = uris.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 6, "{uris:?}");
    assert!(["memo:x", "memo:one", "memo:two", "ui://app/x"].iter().all(|uri| uris.contains(uri)), "usable as they are: {uris:?}");
    let owners = ["one", "one", "one", "two_b", "two_b", "two_b"];
    let owns = ["memo:x", "memo:one", "ui://app/x", "memo:x", "memo:two", "ui://app/x"];
    for ((uri, owner), own) in uris.iter().zip(owners).zip(owns) {
        let read = client.result("resources/read", json!({ "uri": uri }));
        assert_eq!(read["contents"][0]["text"], format!("{owner} has {own}"), "{uri}");
        assert_eq!(read["contents"][0]["uri"], *uri, "the answer is about what was asked");
    }
    // Another client may read before it has listed.
    let other = McpClient::open(address);
    assert_eq!(other.result("resources/read", json!({ "uri": "memo:two" }))["contents"][0]["text"], "two_b has memo:two");
    assert_eq!(other.ask("resources/read", json!({ "uri": "memo:nobodys" }))["error"]["code"], -32602);
}

// Pages

#[test]
fn pages_walk_over_everything_once_in_a_stable_order() {
    // Each target has pages of its own, of another size.
    let paged = |name: &'static str, count: usize, size: usize| {
        McpServer::scripted(name, move |seen| match seen.method() {
            "tools/list" => {
                let from = seen.message["params"]["cursor"].as_str().map_or(0, |cursor| cursor.parse().expect("a cursor of ours"));
                let to = count.min(from + size);
                let tools: Vec<Value> = (from..to).map(|n| json!({ "name": format!("t{n}"), "inputSchema": {} })).collect();
                let mut result = json!({ "tools": tools });
                if to < count {
                    result["nextCursor"] = to.to_string().into();
                }
                Act::Result(result)
            }
            _ => Act::Well,
        })
    };
    let (one, two, three) = (paged("one", 7, 2), paged("two", 0, 1), paged("three", 6, 4));
    let targets = json!([one.target("one"), two.target("two"), three.target("three")]);
    let (_gateway, address) = gateway(json!({ "targets": targets, "pageSize": 3 }));
    let client = McpClient::open(address);
    let walk = || {
        let (mut names, mut cursors, mut params) = (Vec::new(), Vec::new(), json!({}));
        loop {
            let page = client.result("tools/list", params);
            let listed = tool_names(&page);
            assert!(listed.len() <= 3, "{listed:?}");
            names.extend(listed.into_iter().map(str::to_owned));
            let Some(cursor) = page.get("nextCursor") else { return (names, cursors) };
            assert_eq!(tool_names(&page).len(), 3, "only the last page may be short");
            cursors.push(cursor.as_str().expect("a string").to_owned());
            params = json!({ "cursor": cursor });
        }
    };
    let (names, cursors) = walk();
    let expected: Vec<String> =
        (0..7).map(|n| format!("one__t{n}")).chain((0..6).map(|n| format!("three__t{n}"))).collect();
    assert_eq!(names, expected);
    assert_eq!(cursors.len(), 4);
    assert_eq!(walk().0, expected);
    let page = client.result("tools/list", json!({ "cursor": cursors[1] }));
    assert_eq!(tool_names(&page), ["one__t6", "three__t0", "three__t1"], "a cursor may be used again");
    let mut tampered = cursors[0].clone().into_bytes();
    let middle = tampered.len() / 2;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).expect("ASCII");
    for cursor in [tampered.as_str(), "", "3", &cursors[0][1..], client.session.as_str()] {
        assert_eq!(client.ask("tools/list", json!({ "cursor": cursor }))["error"]["code"], -32602, "{cursor:?}");
    }
    assert_eq!(client.ask("resources/list", json!({ "cursor": cursors[0] }))["error"]["code"].as_i64().map(|code| code < 0), Some(true));
}

// Both directions

/// A server whose tool `sample` asks the client's model, under the id 1, and answers with what it said.
fn sampling(name: &'static str) -> McpServer {
    let answers: Arc<Mutex<Option<mpsc::Sender<Value>>>> = Arc::default();
    McpServer::scripted(name, move |seen| {
        if seen.verb == "POST" && seen.message.get("method").is_none() {
            if let Some(waiting) = answers.lock().expect("no panic in between").take() {
                let _ = waiting.send(seen.message.clone());
            }
            return Act::Well;
        }
        if seen.tool() != "sample" {
            return Act::Well;
        }
        let (answered, answer) = mpsc::channel();
        *answers.lock().expect("no panic in between") = Some(answered);
        let id = seen.id().clone();
        Act::Own(Box::new(move |peer| {
            peer.send(begin_events());
            let question = json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": name } }], "maxTokens": 5 });
            peer.send(event(&json!({ "jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": question })));
            let Ok(answer) = answer.recv_timeout(PATIENCE) else { return };
            let text = format!("{name} heard {} as {}", answer["result"]["content"]["text"], answer["id"]);
            let result = json!({ "content": [{ "type": "text", "text": text }] });
            peer.send(event(&json!({ "jsonrpc": "2.0", "id": id, "result": result })) + "0\r\n\r\n");
        }))
    })
}

#[test]
fn equal_ids_of_two_servers_do_not_collide() {
    let (one, two) = (sampling("one"), sampling("two"));
    let (_gateway, address) = federation(vec![one.target("one"), two.target("two")]);
    let client = McpClient::open(address);
    let mut first = client.stream(7, "tools/call", json!({ "name": "one__sample", "arguments": {} }));
    let mut second = client.stream(8, "tools/call", json!({ "name": "two__sample", "arguments": {} }));
    let (asked_first, asked_second) = (first.message().expect("a question"), second.message().expect("a question"));
    assert_ne!(asked_first["id"], asked_second["id"]);
    // Answered the other way round.
    for asked in [&asked_second, &asked_first] {
        assert_eq!(asked["method"], "sampling/createMessage");
        let said = format!("re {}", asked["params"]["messages"][0]["content"]["text"].as_str().expect("a text"));
        let result = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": said } });
        let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
        assert_eq!(client.post(&answer.to_string()).status, 202);
    }
    let answer = first.message().expect("an answer");
    assert_eq!((&answer["id"], text_of(&answer["result"]).as_str()), (&json!(7), "one heard \"re one\" as 1"));
    let answer = second.message().expect("an answer");
    assert_eq!((&answer["id"], text_of(&answer["result"]).as_str()), (&json!(8), "two heard \"re two\" as 1"));
    assert_eq!((first.message(), second.message()), (None, None));
}

#[test]
fn progress_and_log_messages_come_in_order_before_the_answer() {
    let server = McpServer::scripted("web", |seen| match seen.tool() {
        "steps" => {
            let token = &seen.message["params"]["_meta"]["progressToken"];
            let progress = |n: u64| json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": n } });
            let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": "half" } });
            let answer = json!({ "jsonrpc": "2.0", "id": seen.id(), "result": { "content": [] } });
            Act::Events(vec![progress(1), log, progress(2), answer])
        }
        _ => Act::Well,
    });
    let (_gateway, address) = federation(vec![server.target("web"), notes("notes")]);
    let client = McpClient::open(address);
    for token in [json!("a token"), json!(7)] {
        let params = json!({ "name": "web__steps", "arguments": {}, "_meta": { "progressToken": token } });
        let messages = client.stream(3, "tools/call", params).messages();
        let what: Vec<&str> = messages.iter().map(|message| message["method"].as_str().unwrap_or("answer")).collect();
        assert_eq!(what, ["notifications/progress", "notifications/message", "notifications/progress", "answer"]);
        assert_eq!((&messages[0]["params"]["progressToken"], &messages[3]["id"]), (&token, &json!(3)));
    }
}

#[test]
fn what_a_server_says_by_itself_comes_on_the_session_s_stream() {
    let (say, said) = mpsc::channel::<Value>();
    let said = Mutex::new(Some(said));
    let server = McpServer::scripted("web", move |seen| {
        let taken = if seen.verb == "GET" { said.lock().expect("no panic in between").take() } else { None };
        let Some(said) = taken else { return Act::Well };
        Act::Own(Box::new(move |peer| {
            peer.send(begin_events());
            while let Ok(message) = said.recv() {
                peer.send(event(&message));
            }
        }))
    });
    let (_gateway, address) = federation(vec![server.target("web"), notes("notes")]);
    let client = McpClient::open(address);
    let mut stream = client.listen(None);
    server.await_seen("its own stream opened", |seen| seen.verb == "GET");
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
    say.send(changed.clone()).expect("the server listens");
    assert_eq!(stream.message(), Some(changed));
    say.send(json!({ "jsonrpc": "2.0", "id": "s-1", "method": "roots/list" })).expect("the server listens");
    let asked = stream.message().expect("a question");
    assert_eq!(asked["method"], "roots/list");
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "roots": [] } });
    assert_eq!(client.post(&answer.to_string()).status, 202);
    let answer = server.await_seen("the answer", |seen| seen.message.get("result").is_some());
    assert_eq!((answer.id(), answer.session.as_deref()), (&json!("s-1"), Some("web-1")));
    // A child has one stream for all it says: while it serves a call, its notices go with the answer.
    let params = json!({ "name": "notes__add_note", "arguments": { "text": "milk" } });
    let answer = client.post(&message(1, "tools/call", params));
    if !answer.text().contains("notifications/resources/list_changed") {
        assert_eq!(stream.message().expect("a notice")["method"], "notifications/resources/list_changed");
    }
    say.send(json!({ "jsonrpc": "2.0", "id": 5, "method": "ping" })).expect("the server listens");
    server.await_seen("its ping answered", |seen| seen.id() == &json!(5) && seen.message["result"] == json!({}));
    client.end();
    assert_eq!(stream.message(), None, "the stream ends with its session");
}

#[test]
fn cancellation_reaches_the_one_target_that_works() {
    let slow = |name: &'static str| {
        McpServer::scripted(name, |seen| match seen.tool() {
            "slow" => Act::Own(Box::new(|peer| {
                peer.send(begin_events());
                let _ = peer.rest();
            })),
            _ => Act::Well,
        })
    };
    let (one, two) = (slow("one"), slow("two"));
    let (_gateway, address) = federation(vec![one.target("one"), two.target("two")]);
    let client = McpClient::open(address);
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || client.post(&json!({ "jsonrpc": "2.0", "id": "c-1", "method": "tools/call", "params": { "name": "two__slow" } }).to_string())
    });
    two.await_seen("the call", |seen| seen.tool() == "slow");
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "c-1", "reason": "enough" } });
    assert_eq!(client.post(&cancel.to_string()).status, 202);
    let told = two.await_seen("the cancellation", |seen| seen.method() == "notifications/cancelled");
    assert_eq!(told.message["params"], json!({ "requestId": "c-1", "reason": "enough" }));
    waiting.join().expect("the call ends");
    assert_eq!(one.count("notifications/cancelled"), 0);
    assert_eq!(client.call("two__echo", json!({})), "two: echo {}");
}

// Streams that break

#[test]
fn a_client_that_comes_back_gets_exactly_the_rest() {
    let (next, step) = mpsc::channel::<()>();
    let step = Mutex::new(Some(step));
    let server = McpServer::scripted("web", move |seen| {
        if seen.tool() != "long" {
            return Act::Well;
        }
        let step = step.lock().expect("no panic in between").take().expect("called once");
        let id = seen.id().clone();
        Act::Own(Box::new(move |peer| {
            peer.send(begin_events());
            for number in 0..6 {
                let data = json!({ "level": "info", "data": number });
                peer.send(event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": data })));
                if step.recv_timeout(PATIENCE).is_err() {
                    return;
                }
            }
            peer.send(event(&json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [{ "type": "text", "text": "done" }] } })) + "0\r\n\r\n");
        }))
    });
    let (_gateway, address) = federation(vec![server.target("web"), notes("notes")]);
    let client = McpClient::open(address);
    let mut stream = client.stream(11, "tools/call", json!({ "name": "web__long", "arguments": {} }));
    for number in 0..3 {
        assert_eq!(stream.message().expect("a message")["params"]["data"], number);
        next.send(()).expect("the server goes on");
    }
    let last_id = stream.last_id.clone().expect("events have ids");
    drop(stream);
    let mut rest = client.listen(Some(&last_id));
    for number in 3..6 {
        assert_eq!(rest.message().expect("a message")["params"]["data"], number);
        next.send(()).expect("the server goes on");
    }
    let answer = rest.message().expect("the answer");
    assert_eq!((&answer["id"], text_of(&answer["result"]).as_str()), (&json!(11), "done"));
    assert_eq!(rest.message(), None, "a finished stream ends");
    assert_eq!(client.listen(Some(&last_id)).messages().len(), 4, "it may come back again");
    for unknown in ["nonsense", "999-1", "1-99999"] {
        let mut headers = client.headers();
        headers.push(("last-event-id", unknown));
        assert_eq!(Peer::connect(address).ask("GET", "/mcp", &headers, "").status, 400, "{unknown}");
    }
    assert_eq!(server.seen().iter().filter(|seen| seen.tool() == "long").count(), 1);
}

#[test]
fn a_stream_that_a_server_closes_early_is_taken_up_again() {
    let server = McpServer::scripted("web", |seen| match (seen.verb.as_str(), seen.tool()) {
        ("POST", "poll") => {
            let id = seen.id().clone();
            Act::Own(Box::new(move |peer| {
                let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": id } });
                peer.send(begin_events() + &event_with_id("first", &log) + "0\r\n\r\n");
            }))
        }
        ("GET", _) if seen.request.head.get("last-event-id") == Some("first") => Act::Own(Box::new(|peer| {
            let answer = json!({ "jsonrpc": "2.0", "id": 21, "result": { "content": [{ "type": "text", "text": "resumed" }] } });
            peer.send(begin_events() + &event_with_id("second", &answer) + "0\r\n\r\n");
        })),
        _ => Act::Well,
    });
    let (_gateway, address) = federation(vec![server.target("web"), notes("notes")]);
    // In 2025-06-18 the gateway holds the client's stream meanwhile.
    let client = McpClient::open_in(address, "2025-06-18");
    let messages = client.stream(21, "tools/call", json!({ "name": "web__poll", "arguments": {} })).messages();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert_eq!(text_of(&messages[1]["result"]), "resumed");
    // In 2025-11-25 the client may be sent away, and comes back for it.
    let client = McpClient::open(address);
    let mut stream = client.stream(21, "tools/call", json!({ "name": "web__poll", "arguments": {} }));
    let mut messages = stream.messages();
    if messages.iter().all(|message| message.get("result").is_none()) {
        messages.extend(client.listen(stream.last_id.as_deref()).messages());
    }
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert_eq!(text_of(&messages[1]["result"]), "resumed");
}

#[test]
fn a_client_that_never_reads_its_stream_costs_nobody_else() {
    let flood = McpServer::scripted("web", |seen| match seen.tool() {
        "flood" => Act::Own(Box::new(|peer| {
            peer.send(begin_events());
            let data = json!({ "level": "info", "data": "x".repeat(10_000) });
            let message = event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": data }));
            peer.stream().set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            for _ in 0..10_000 {
                if peer.try_send(&message).is_err() {
                    return;
                }
            }
        })),
        _ => Act::Well,
    });
    let (gateway, address) = federation(vec![flood.target("web"), notes("notes")]);
    let client = McpClient::open(address);
    client.call("web__echo", json!({}));
    let before = support::resident_kib(gateway.pid());
    let deaf = client.stream(1, "tools/call", json!({ "name": "web__flood", "arguments": {} }));
    for number in 0..50 {
        assert_eq!(client.call("web__echo", json!(number)), format!("web: echo {number}"));
    }
    let growth = support::resident_kib(gateway.pid()).saturating_sub(before);
    assert!(growth < 16 * 1024, "{growth} KiB for a client that does not read");
    drop(deaf);
}

// Ends

#[test]
fn the_end_of_a_session_is_the_end_of_those_behind_it() {
    let (one, two) = (McpServer::good("one"), McpServer::good("two"));
    let (gateway, address) = federation(vec![one.target("one"), notes("notes"), two.target("two")]);
    let client = McpClient::open(address);
    let other = McpClient::open(address);
    client.call("notes__list_notes", json!({}));
    other.call("notes__list_notes", json!({}));
    let children = children_of(gateway.pid());
    assert_eq!(children.len(), 2, "one child for each session");
    for &child in &children {
        assert!(inherited_sockets(child).is_empty(), "{:?}", inherited_sockets(child));
    }
    assert!([200, 202, 204].contains(&client.end().status));
    for server in [&one, &two] {
        let ended = server.await_seen("the end", |seen| seen.verb == "DELETE");
        assert!(ended.session.is_some_and(|session| session.ends_with("-1")), "the client's own");
    }
    eventually("the session's child is gone, and no zombie", || children.iter().filter(|&&child| exists(child)).count() == 1);
    assert!(other.call("notes__list_notes", json!({})).contains("Welcome"), "the other session's goes on");
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(children.iter().all(|&child| !exists(child)), "an orphan is left");
}

#[test]
fn idle_sessions_end_and_those_behind_them() {
    let server = McpServer::good("web");
    let targets = json!([server.target("web"), notes("notes")]);
    let (gateway, address) = gateway(json!({ "targets": targets, "sessionIdleTimeout": "300ms" }));
    let idle = McpClient::open(address);
    let listening = McpClient::open(address);
    let stream = listening.listen(None);
    eventually("the idle session has ended", || gateway.metric("agentlane_mcp_sessions_expired_total", "") == 1.0);
    assert_eq!(idle.post(&message(1, "ping", json!({}))).status, 404);
    server.await_seen("the end", |seen| seen.verb == "DELETE");
    assert_eq!(listening.result("ping", json!({})), json!({}), "an open stream is no idling");
    drop(stream);
    eventually("nobody listens any more", || gateway.metric("agentlane_mcp_sessions", "") == 0.0);
    eventually("no child is left", || children_of(gateway.pid()).is_empty());
}

#[test]
fn a_child_that_dies_is_started_again() {
    let (gateway, address) = federation(vec![notes("notes"), McpServer::good("web").target("web")]);
    let client = McpClient::open(address);
    client.call("notes__add_note", json!({ "text": "milk" }));
    let children = children_of(gateway.pid());
    let [child] = children[..] else { panic!("one child: {children:?}") };
    // SAFETY: kill(2) has no memory effects; the process is a child of a gateway of this test.
    assert_eq!(unsafe { libc::kill(i32::try_from(child).expect("an id"), libc::SIGKILL) }, 0);
    eventually("it is served again", || {
        let answer = client.ask("tools/call", json!({ "name": "notes__list_notes", "arguments": {} }));
        answer["result"]["isError"] != true && answer.get("error").is_none()
    });
    assert!(!exists(child), "a zombie is left");
    assert_eq!(children_of(gateway.pid()).len(), 1);
}

#[test]
fn one_shared_child_serves_all_sessions() {
    let mut shared = notes("notes");
    shared["stdio"]["mode"] = "shared".into();
    let (gateway, address) = federation(vec![shared, McpServer::good("web").target("web")]);
    let clients: Vec<McpClient> = (0..4).map(|_| McpClient::open(address)).collect();
    clients[0].call("notes__add_note", json!({ "text": "milk" }));
    for client in &clients {
        assert!(client.call("notes__list_notes", json!({})).contains("milk"));
    }
    assert_eq!(children_of(gateway.pid()).len(), 1);
    clients[0].end();
    assert!(clients[1].call("notes__list_notes", json!({})).contains("milk"), "it stays for the others");
}

#[test]
fn a_call_without_an_answer_ends_with_the_route_s_time() {
    let server = McpServer::scripted("web", |seen| if seen.tool() == "hang" { Act::Silence } else { Act::Well });
    let port = free_port();
    let config = support::config::one_listener(port, json!([{
        "policies": { "timeout": { "requestTimeout": "300ms" } },
        "backends": [{ "mcp": { "targets": [server.target("web")] } }],
    }]));
    let _gateway = Gateway::start(&config.to_string());
    let client = McpClient::open(local(port));
    let answer = client.ask("tools/call", json!({ "name": "hang", "arguments": {} }));
    assert!(answer["result"]["isError"] == true || answer["error"].is_object(), "{answer}");
    assert_eq!(client.call("echo", json!({})), "web: echo {}");
}

#[test]
fn what_is_behind_never_sees_what_is_the_gateway_s_own() {
    let server = McpServer::good("web");
    let (_gateway, address) = federation(vec![server.target("web")]);
    let client = McpClient::open(address);
    let mut headers = client.headers();
    headers.extend([("authorization", "Bearer secret"), ("cookie", "a=b"), ("traceparent", "00-1-2-03"), ("x-tenant", "t1")]);
    let call = message(1, "tools/call", json!({ "name": "echo", "arguments": {} }));
    assert_eq!(Peer::connect(address).ask("POST", "/mcp", &headers, call).status, 200);
    let seen = server.await_seen("the call", |seen| seen.method() == "tools/call");
    let head = &seen.request.head;
    assert_eq!(seen.session.as_deref(), Some("web-1"), "never the client's id");
    assert_eq!((head.get("authorization"), head.get("cookie")), (None, None), "credentials are for the gateway");
    assert_eq!((head.get("traceparent"), head.get("x-tenant")), (Some("00-1-2-03"), Some("t1")));
    assert_eq!(head.get("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(head.all("host"), [server.address.to_string()]);
    let accept = head.get("accept").expect("accept");
    assert!(accept.contains("application/json") && accept.contains("text/event-stream"));
}

#[test]
fn a_plain_upstream_lives_beside_an_mcp_endpoint() {
    let server = McpServer::good("web");
    let plain = Upstream::named("plain");
    let port = free_port();
    let config = support::config::one_listener(port, json!([
        { "matches": [{ "path": { "exact": "/mcp" } }], "backends": [{ "mcp": { "targets": [server.target("web")] } }] },
        { "backends": [{ "host": plain.address.to_string() }] },
    ]));
    let _gateway = Gateway::start(&config.to_string());
    let client = McpClient::open(local(port));
    let mut peer = Peer::connect(local(port));
    for _ in 0..5 {
        assert_eq!(peer.get("/x").text(), "plain");
        assert_eq!(text_of(&client.ask_on(&mut peer, "tools/call", json!({ "name": "echo", "arguments": {} }))["result"]), "web: echo {}");
    }
}
