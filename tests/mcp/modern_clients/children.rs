//! Stdio servers of 2026-07-28 before clients of the same revision: one process for each caller, and nothing lost on it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::nothing_waits;
use crate::gateway;
use crate::modern_targets::{asked, child, noted};
use crate::support::config::mcp;
use crate::support::gateway::{Gateway, Setup, local};
use crate::support::mcp_client::text_of;
use crate::support::modern_client::{META_LOG_LEVEL, ModernClient};
use crate::support::stdio_server;
use crate::support::wire::Peer;
use crate::support::{children_of, eventually, exists, free_port};

const MODES: [&str; 2] = ["perSession", "shared"];

/// The calls that a child has seen under this method.
fn seen(log: &std::path::Path, method: &str) -> Vec<Value> {
    noted(log).into_iter().filter(|(_, known, _)| known == method).map(|(_, _, message)| message).collect()
}

/// How many processes were called.
fn called(log: &std::path::Path) -> usize {
    asked(log).iter().filter(|methods| methods.iter().any(|method| method == "tools/call")).count()
}

fn on_four_shards(backend: Value) -> (Gateway, std::net::SocketAddr) {
    let port = free_port();
    (Setup::new(&mcp(port, backend).to_string()).args(&["--shards", "4"]).start(), local(port))
}

#[test]
fn a_child_is_spoken_to_straight() {
    for mode in MODES {
        let (target, _folder, log) = child("new", mode, "");
        let (gateway, address) = gateway(json!({ "targets": [target] }));
        let client = ModernClient::new(address);
        let discovered = client.result("server/discover", json!({}));
        assert_eq!(discovered["supportedVersions"], json!(["2026-07-28"]), "{mode}");
        let params = json!({ "name": "work", "_meta": { "progressToken": "mine", META_LOG_LEVEL: "info" } });
        let messages = client.stream(7, "tools/call", params).messages();
        assert_eq!(messages[0]["params"], json!({ "progressToken": "mine", "progress": 1 }), "{mode}");
        assert_eq!(messages[1]["params"]["data"], "said", "{mode}");
        let content = json!([{ "type": "text", "text": "worked" }]);
        assert_eq!(messages[2]["id"], 7, "{mode}");
        assert_eq!(messages[2]["result"], json!({ "resultType": "complete", "content": content }), "{mode}");
        // What it asks for comes under its own keys, and its state comes back to it.
        let asking = client.call("ask", json!({}));
        assert_eq!(asking["inputRequests"]["who"]["method"], "elicitation/create", "{mode}: {asking}");
        assert_ne!(asking["requestState"], "s", "{mode}: whose it is shall be known");
        let answers = json!({ "who": { "action": "accept" } });
        let retry = json!({ "name": "ask", "requestState": asking["requestState"], "inputResponses": answers });
        let outcome = client.call_with(retry.clone());
        assert_eq!(outcome["content"][0]["text"], "accepted", "{mode}: {:?}", seen(&log, "tools/call"));
        let stranger = client.clone().header("authorization", "Bearer another");
        assert_eq!(stranger.error("tools/call", retry).1["code"], -32602, "{mode}");
        assert_eq!(client.error("no/such", json!({})).0, 404, "{mode}");
        nothing_waits(&gateway);
        assert_eq!(gateway.metric("agentlane_mcp_leases", ""), 0.0, "{mode}: no session is needed");
        assert!(asked(&log).iter().flatten().all(|method| method != "initialize" || mode == "shared"), "{mode}");
    }
}

#[test]
fn names_and_state_of_a_federation_are_translated() {
    let (target, _folder, _log) = child("new", "perSession", "");
    let (_gateway, address) = gateway(json!({ "targets": [target, crate::notes("notes")] }));
    let client = ModernClient::new(address);
    let asking = client.call("new__ask", json!({}));
    let answers = json!({ "who": { "action": "accept" } });
    let retry = json!({ "name": "new__ask", "requestState": asking["requestState"], "inputResponses": answers });
    assert_eq!(text_of(&client.call_with(retry)), "accepted");
}

#[test]
fn all_calls_of_one_caller_are_on_one_process() {
    for mode in MODES {
        let (target, _folder, log) = child("new", mode, "");
        let (gateway, address) = on_four_shards(json!({ "targets": [target] }));
        let all = |caller: &'static str| {
            let client = ModernClient::new(address).header("authorization", caller);
            let calls = (0..12).map(|number| {
                let client = client.clone();
                std::thread::spawn(move || text_of(&client.call("work", json!({ "number": number }))))
            });
            for call in calls.collect::<Vec<_>>() {
                assert_eq!(call.join().expect("no panic"), "worked");
            }
        };
        all("Bearer one");
        assert_eq!(called(&log), 1, "{mode}: {:?}", asked(&log));
        all("Bearer two");
        assert_eq!(called(&log), if mode == "shared" { 1 } else { 2 }, "{mode}: {:?}", asked(&log));
        let ended = gateway.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

#[test]
fn what_a_call_changes_is_heard() {
    for mode in MODES {
        let (target, _folder, log) = child("new", mode, "");
        let (_gateway, address) = on_four_shards(json!({ "targets": [target] }));
        let client = ModernClient::new(address);
        let wanted = json!({ "notifications": { "toolsListChanged": true } });
        let mut listens: Vec<_> = (1..4).map(|id| client.stream(id, "subscriptions/listen", wanted.clone())).collect();
        for listen in &mut listens {
            let acknowledged = listen.message().expect("an acknowledgement");
            assert_eq!(acknowledged["params"]["notifications"], json!({ "toolsListChanged": true }), "{mode}");
        }
        for _ in 0..2 {
            assert_eq!(text_of(&client.call("change", json!({}))), "changed", "{mode}");
        }
        // The child tells the newest of its listens alone, wherever that is.
        for listen in &mut listens {
            let told = listen.message().expect("a change");
            assert_eq!(told["method"], "notifications/tools/list_changed", "{mode}");
        }
        assert_eq!(called(&log), 1, "{mode}");
    }
}

#[test]
fn a_listen_that_wants_more_ends_none_that_is_there() {
    let (target, _folder, _log) = child("new", "perSession", "");
    let (_gateway, address) = gateway(json!({ "targets": [target] }));
    let client = ModernClient::new(address);
    let mut wanted = json!({ "toolsListChanged": true });
    let mut listens = Vec::new();
    for id in 1..4 {
        let mut listen = client.stream(id, "subscriptions/listen", json!({ "notifications": wanted }));
        assert_eq!(listen.message().expect("an acknowledgement")["params"]["notifications"]["toolsListChanged"], true);
        listens.push(listen);
        assert_eq!(text_of(&client.call("change", json!({}))), "changed");
        for listen in &mut listens {
            let told = listen.message().expect("a change");
            assert_eq!(told["method"], "notifications/tools/list_changed", "{id}");
        }
        wanted["resourceSubscriptions"] = json!(["memo:x"]);
    }
}

#[test]
fn a_client_that_leaves_cancels_its_call_alone() {
    let (target, _folder, log) = child("new", "perSession", "");
    let (gateway, address) = gateway(json!({ "targets": [target] }));
    let client = ModernClient::new(address);
    let mut peer = Peer::connect(address);
    client.send_on(&mut peer, &client.message(&json!("w"), "tools/call", json!({ "name": "wait" })));
    eventually("the call", || !seen(&log, "tools/call").is_empty());
    drop(peer);
    eventually("its end", || !seen(&log, "notifications/cancelled").is_empty());
    assert_eq!(
        seen(&log, "notifications/cancelled")[0]["params"]["requestId"],
        seen(&log, "tools/call")[0]["id"],
        "by the gateway's own number"
    );
    assert_eq!(text_of(&client.call("work", json!({}))), "worked");
    assert_eq!(called(&log), 1);
    assert_eq!(children_of(gateway.pid()).len(), 1);
}

#[test]
fn a_child_that_was_killed_or_idle_comes_back() {
    let (mut target, _folder, log) = child("new", "perSession", "");
    target["stdio"]["idleTimeout"] = json!("400ms");
    let (gateway, address) = gateway(json!({ "targets": [target] }));
    let client = ModernClient::new(address);
    assert_eq!(text_of(&client.call("work", json!({}))), "worked");
    let killed = children_of(gateway.pid())[0];
    // SAFETY: kill(2) has no memory effects; the gateway reaps its child only after its end.
    assert_eq!(unsafe { libc::kill(killed.cast_signed(), libc::SIGKILL) }, 0);
    eventually("it is gone", || !exists(killed));
    assert_eq!(text_of(&client.call("work", json!({}))), "worked");
    eventually("the idle child is gone", || children_of(gateway.pid()).is_empty());
    assert_eq!(text_of(&client.call("work", json!({}))), "worked");
    assert_eq!(called(&log), 3);
}

#[test]
fn a_header_that_says_something_else_is_refused_for_a_child() {
    let (target, _folder, log) = child("new", "perSession", "");
    let (_gateway, address) = gateway(json!({ "targets": [target] }));
    let client = ModernClient::new(address);
    client.result("tools/list", json!({}));
    let call = json!({ "name": "work", "arguments": { "a": 5 } });
    assert_eq!(text_of(&client.clone().header("mcp-param-a", "5").call_with(call.clone())), "worked");
    for wrong in [client.clone().header("mcp-param-a", "6"), client] {
        let (status, error) = wrong.error("tools/call", call.clone());
        assert_eq!((status, &error["code"]), (400, &json!(-32020)), "{error}");
    }
    assert_eq!(seen(&log, "tools/call").len(), 1, "what is refused does not reach it");
}

/// A server with sessions needs a process for each call that is under way.
#[test]
fn a_crowd_of_calls_is_on_few_processes() {
    for targets in [1, 2] {
        let all = ["one", "two"].map(|name| stdio_server::target(name, json!({})));
        let (gateway, address) = gateway(json!({ "targets": all[..targets] }));
        let tool = if targets == 1 { "pid" } else { "one__pid" };
        let client = ModernClient::new(address);
        let calls = (0..20).map(|_| {
            let client = client.clone();
            std::thread::spawn(move || text_of(&client.call(tool, json!({}))))
        });
        let calls: Vec<_> = calls.collect();
        let pids: std::collections::HashSet<String> =
            calls.into_iter().map(|call| call.join().expect("no panic")).collect();
        assert!(pids.len() <= 4, "{targets}: {pids:?}");
        assert!(children_of(gateway.pid()).len() <= 4 * targets, "{targets}");
        // They are kept for the next ones.
        assert!(pids.contains(&text_of(&client.call(tool, json!({})))), "{targets}");
    }
}

#[test]
fn long_calls_do_not_keep_short_ones_waiting() {
    let (gateway, address) = gateway(json!({ "targets": [stdio_server::target("one", json!({}))] }));
    let client = ModernClient::new(address);
    let mut waiting: Vec<Peer> = (0..6)
        .map(|number| {
            let mut peer = Peer::connect(address);
            client.send_on(&mut peer, &client.message(&json!(number), "tools/call", json!({ "name": "hang" })));
            peer
        })
        .collect();
    eventually("each has a process", || children_of(gateway.pid()).len() >= 6);
    assert!(!text_of(&client.call("pid", json!({}))).is_empty());
    // Whoever leaves takes its process along, and nobody waits for it.
    waiting.clear();
    assert!(!text_of(&client.call("pid", json!({}))).is_empty());
}

/// A server that says nothing to a request that it does not know.
#[test]
fn a_silent_server_is_served_by_its_sessions() {
    let (target, _folder, log) = child("old", "perSession", "mute");
    let (_gateway, address) = gateway(json!({ "targets": [target], "deadline": "30s" }));
    let client = ModernClient::new(address);
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(text_of(&client.call("work", json!({}))), "worked");
        assert!(begun.elapsed() < Duration::from_secs(15), "its silence is not waited for: {:?}", begun.elapsed());
    }
    let probes = asked(&log).iter().flatten().filter(|method| *method == "server/discover").count();
    assert_eq!(probes, 1, "what was found is remembered");
}
