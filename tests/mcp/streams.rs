//! Streams that break, end early or are not read.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use serde_json::json;

use crate::support::PATIENCE;
use crate::support::mcp_client::{McpClient, text_of};
use crate::support::mcp_server::{Act, McpServer, begin_events, event, event_with_id};
use crate::support::wire::Peer;
use crate::{federation, notes};

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
fn a_call_that_its_client_left_is_still_in_flight_and_can_be_cancelled() {
    let (next, step) = mpsc::channel::<()>();
    let step = Mutex::new(Some(step));
    let server = McpServer::scripted("web", move |seen| {
        if seen.tool() != "long" {
            return Act::Well;
        }
        let step = step.lock().expect("no panic in between").take().expect("called once");
        Act::Own(Box::new(move |peer| {
            peer.send(begin_events());
            for number in 0.. {
                let data = json!({ "level": "info", "data": number });
                peer.send(event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": data })));
                if step.recv_timeout(PATIENCE).is_err() {
                    return;
                }
            }
        }))
    });
    let (_gateway, address) = federation(vec![server.target("web"), notes("notes")]);
    let client = McpClient::open(address);
    let mut stream = client.stream(11, "tools/call", json!({ "name": "web__long", "arguments": {} }));
    stream.message().expect("the first message");
    let last_id = stream.last_id.clone().expect("events have ids");
    // Another reader takes the stream over: what comes from the second message on is relayed without the first one.
    let mut rest = client.listen(Some(&last_id));
    for number in 1..4 {
        next.send(()).expect("the server goes on");
        assert_eq!(rest.message().expect("a message")["params"]["data"], number);
    }
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 11 } });
    assert_eq!(client.post(&cancel.to_string()).status, 202);
    server.await_seen("the cancellation", |seen| seen.method() == "notifications/cancelled");
}

#[test]
fn an_answer_that_breaks_after_it_began_ends_its_stream_for_good() {
    let server = McpServer::scripted("web", |seen| match seen.tool() {
        "half" => Act::Own(Box::new(|peer| {
            peer.send(begin_events());
            let data = json!({ "level": "info", "data": 0 });
            peer.send(event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": data })));
        })),
        _ => Act::Well,
    });
    let (_gateway, address) = federation(vec![server.target("web"), notes("notes")]);
    let client = McpClient::open(address);
    let mut stream = client.stream(12, "tools/call", json!({ "name": "web__half", "arguments": {} }));
    assert_eq!(stream.message().expect("what came before")["params"]["data"], 0);
    let first = stream.last_id.clone().expect("events have ids");
    let failure = stream.message().expect("the failure, as the last event");
    assert_eq!((&failure["id"], &failure["result"]["isError"]), (&json!(12), &json!(true)), "{failure}");
    assert_eq!(stream.message(), None, "the stream ends");
    // Whoever comes back finds the same end, and does not wait for more.
    assert_eq!(client.listen(Some(&first)).messages(), [failure]);
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
            let answer =
                json!({ "jsonrpc": "2.0", "id": 21, "result": { "content": [{ "type": "text", "text": "resumed" }] } });
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
    let before = crate::support::resident_kib(gateway.pid());
    let deaf = client.stream(1, "tools/call", json!({ "name": "web__flood", "arguments": {} }));
    for number in 0..50 {
        assert_eq!(client.call("web__echo", json!(number)), format!("web: echo {number}"));
    }
    let growth = crate::support::resident_kib(gateway.pid()).saturating_sub(before);
    assert!(growth < 16 * 1024, "{growth} KiB for a client that does not read");
    drop(deaf);
}
