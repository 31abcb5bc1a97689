//! Targets that are down, slow, broken or forgetful, and what the client sees of it: as little as can be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::mcp_client::{McpClient, answer_of, initialize, message, text_of};
use crate::support::mcp_server::{Act, McpServer, Offers, Seen, begin_events, event};
use crate::support::upstream::reply;
use crate::support::wire::Peer;
use crate::support::{PATIENCE, eventually, free_port};
use crate::{federation, gateway, missing, tool_names};

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
    let on = |method: &'static str, act: fn() -> Act| {
        move |seen: &Seen| if seen.method() == method { act() } else { Act::Well }
    };
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
        (
            "nojson",
            McpServer::scripted(
                "nojson",
                on("tools/list", || Act::Bytes(reply(200, &[("content-type", "application/json")], "{oops"))),
            ),
        ),
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
            let mut offers = Offers::resources(&["memo:x"]);
            offers.tools[0]["annotations"] = json!({ "readOnlyHint": true });
            McpServer::offering(name, offers, move |seen| {
                let first = format!("{name}-1");
                match seen.session.as_deref() {
                    Some(session) if session == first && forgotten.load(Ordering::SeqCst) => {
                        Act::Bytes(reply(status, &[], text))
                    }
                    _ => Act::Well,
                }
            })
        };
        let (alone, one, two) = (forgetful("alone"), forgetful("one"), forgetful("two"));
        let (_first, single) = federation(vec![alone.target("alone")]);
        let (_second, federated) = federation(vec![one.target("one"), two.target("two")]);
        let (single, federated) = (McpClient::open(single), McpClient::open(federated));
        assert_eq!(tool_names(&federated.result("tools/list", json!({}))), ["one__echo", "two__echo"]);
        assert_eq!(federated.call("one__echo", json!({})), "one: echo {}");
        forgotten.store(true, Ordering::SeqCst);
        assert_eq!(single.call("echo", json!({})), "alone: echo {}");
        assert_eq!(federated.call("one__echo", json!({})), "one: echo {}");
        assert_eq!(tool_names(&federated.result("tools/list", json!({}))), ["one__echo", "two__echo"], "lists as well");
        for server in [&alone, &one, &two] {
            assert_eq!(server.sessions(), 2, "once anew");
            eventually("the new session is told that it is initialized", || {
                server.count("notifications/initialized") == 2
            });
        }
        assert_eq!(alone.count("tools/call"), 2, "the refused one and its repetition");
    }
}

/// A server that forgets its first session when the flag is set.
fn forgetful(name: &'static str, forgotten: &Arc<AtomicBool>) -> McpServer {
    let (first, forgotten) = (format!("{name}-1"), forgotten.clone());
    McpServer::offering(name, Offers::resources(&["memo:x"]), move |seen| {
        let is_first = seen.session.as_deref() == Some(&first);
        if is_first && forgotten.load(Ordering::SeqCst) {
            return Act::Bytes(reply(404, &[], "Session not found"));
        }
        match seen.method() {
            "resources/subscribe" => Act::Result(json!({})),
            _ => Act::Well,
        }
    })
}

#[test]
fn a_lost_session_that_may_have_had_state_ends_the_client_s() {
    let forgotten = Arc::new(AtomicBool::new(false));
    let server = forgetful("web", &forgotten);
    let other = McpServer::good("other");
    let (_gateway, address) = federation(vec![server.target("web"), other.target("other")]);
    let client = McpClient::open(address);
    assert_eq!(client.call("other__echo", json!({})), "other: echo {}");
    client.call("web__echo", json!({ "remember": "this" }));
    forgotten.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let answer = client.post(&message(1, "tools/call", json!({ "name": "web__echo", "arguments": {} })));
        assert_eq!(answer.status, 404, "{}", answer.text());
    }
    other.await_seen("the end", |seen| seen.verb == "DELETE");
    assert_eq!(server.sessions(), 1, "no new one behind the client's back");
    let anew = McpClient::open(address);
    assert_eq!(anew.call("web__echo", json!({})), "web: echo {}");
    // What is listed meets it as well.
    forgotten.store(false, Ordering::SeqCst);
    let server = forgetful("web", &forgotten);
    let (_gateway, address) = federation(vec![server.target("web"), other.target("other")]);
    let client = McpClient::open(address);
    client.call("web__echo", json!({}));
    forgotten.store(true, Ordering::SeqCst);
    assert_eq!(client.post(&message(1, "tools/list", json!({}))).status, 404);
}

#[test]
fn a_target_may_say_what_a_lost_session_means() {
    let forgotten = Arc::new(AtomicBool::new(false));
    let after_loss = |loss: &str, before: &dyn Fn(&McpClient)| {
        forgotten.store(false, Ordering::SeqCst);
        let server = forgetful("web", &forgotten);
        let mut target = server.target("web");
        target["onSessionLoss"] = loss.into();
        let (_gateway, address) = federation(vec![target]);
        let client = McpClient::open(address);
        before(&client);
        forgotten.store(true, Ordering::SeqCst);
        let status = client.post(&message(1, "tools/call", json!({ "name": "echo", "arguments": {} }))).status;
        (status, server.sessions())
    };
    let call = |client: &McpClient| drop(client.call("echo", json!({})));
    assert_eq!(after_loss("reopen", &call), (200, 2));
    assert_eq!(after_loss("end", &|_| ()), (404, 1));
}

#[test]
fn what_was_subscribed_to_is_told_of_after_a_loss() {
    let forgotten = Arc::new(AtomicBool::new(false));
    let (server, other) = (forgetful("web", &forgotten), McpServer::good("other"));
    let (_gateway, address) = federation(vec![server.target("web"), other.target("other")]);
    let client = McpClient::open(address);
    client.result("resources/subscribe", json!({ "uri": "memo:x" }));
    let mut stream = client.listen(None);
    forgotten.store(true, Ordering::SeqCst);
    assert_eq!(client.result("resources/read", json!({ "uri": "memo:x" }))["contents"][0]["text"], "web has memo:x");
    let told = stream.message().expect("a message");
    assert_eq!(
        (&told["method"], &told["params"]["uri"]),
        (&json!("notifications/resources/updated"), &json!("memo:x"))
    );
    let again = server.await_seen("the subscription, again", |seen| {
        seen.method() == "resources/subscribe" && seen.session.as_deref() == Some("web-2")
    });
    assert_eq!(again.message["params"]["uri"], "memo:x");
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
