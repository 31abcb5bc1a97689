//! Tests of the protocol core with both personalities.

use super::*;
use crate::demo::notes::Notes;
use crate::demo::text::Text;

fn request(id: u64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn call(id: u64, tool: &str, arguments: Value) -> Value {
    request(
        id,
        "tools/call",
        json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": format!("p{id}") } }),
    )
}

fn opened<O: Offer>(offer: O, revision: &str, capabilities: Value) -> Server<O> {
    let mut server = Server::new(offer);
    let info = json!({ "name": "c", "version": "1" });
    let params = json!({ "protocolVersion": revision, "capabilities": capabilities, "clientInfo": info });
    let reply = only(server.handle(request(0, "initialize", params), Instant::now()));
    assert!(reply["result"]["serverInfo"]["name"].is_string(), "{reply}");
    assert!(
        server.handle(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }), Instant::now()).is_empty()
    );
    server
}

fn only(out: Vec<Outgoing>) -> Value {
    let [one] = <[Outgoing; 1]>::try_from(out).expect("one message");
    one.message
}

fn ask<O: Offer>(server: &mut Server<O>, method: &str, params: Value) -> Value {
    only(server.handle(request(9, method, params), Instant::now()))
}

fn run<O: Offer>(server: &mut Server<O>, tool: &str, arguments: Value) -> Value {
    let out = server.handle(call(9, tool, arguments), Instant::now());
    out.into_iter().map(|out| out.message).find(|message| message["id"] == 9).expect("a reply")["result"].take()
}

#[test]
fn revisions_are_negotiated() {
    for (asked, given) in [
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2024-11-05", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
    ] {
        let mut server = Server::new(Text);
        let reply = ask(&mut server, "initialize", json!({ "protocolVersion": asked, "capabilities": {} }));
        assert_eq!(reply["result"]["protocolVersion"], given);
        let again = ask(&mut server, "initialize", json!({ "protocolVersion": asked, "capabilities": {} }));
        assert_eq!(again["error"]["code"], -32600);
    }
}

#[test]
fn only_ping_comes_before_initialize() {
    let mut server = Server::new(Notes::new());
    assert_eq!(ask(&mut server, "ping", json!({}))["result"], json!({}));
    assert_eq!(ask(&mut server, "tools/list", json!({}))["error"]["code"], -32600);
    assert_eq!(ask(&mut server, "initialize", json!({}))["error"]["code"], -32602);
}

#[test]
fn bad_messages_are_refused() {
    let mut server = opened(Text, "2025-11-25", json!({}));
    for bad in [
        json!(1),
        json!([]),
        json!([request(1, "ping", json!({}))]),
        json!({}),
        json!({ "id": 1, "method": "ping" }),
        json!({ "jsonrpc": "2.0", "id": null, "method": "ping" }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": 5 }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": [] }),
    ] {
        let reply = only(server.handle(bad.clone(), Instant::now()));
        assert_eq!(reply["error"]["code"], -32600, "{bad}");
        assert!(reply.get("id").is_none());
    }
    assert_eq!(ask(&mut server, "no/such", json!({}))["error"]["code"], -32601);
    assert_eq!(ask(&mut server, "tools/call", json!({ "name": "none" }))["error"]["code"], -32602);
    assert_eq!(ask(&mut server, "logging/setLevel", json!({ "level": "loud" }))["error"]["code"], -32602);
    let mut notes = opened(Notes::new(), "2025-11-25", json!({}));
    assert_eq!(ask(&mut notes, "logging/setLevel", json!({ "level": "info" }))["error"]["code"], -32601);
}

#[test]
fn batches_belong_to_one_revision() {
    let mut server = opened(Text, "2025-03-26", json!({}));
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let batch = json!([
        request(1, "ping", json!({})),
        note,
        request(2, "initialize", json!({})),
        request(3, "ping", json!({}))
    ]);
    let out = server.handle(batch, Instant::now());
    let ids: Vec<_> = out.iter().map(|out| out.message.get("id").cloned()).collect();
    assert_eq!(ids, [Some(json!(1)), None, Some(json!(3))]);
}

#[test]
fn notes_are_resources() {
    let mut server = opened(Notes::new(), "2025-11-25", json!({}));
    let out =
        server.handle(call(1, "add_note", json!({ "title": "Shopping", "text": "Milk\nand Honey" })), Instant::now());
    assert_eq!(out[0].route, Route::General);
    assert_eq!(out[0].message["method"], "notifications/resources/list_changed");
    assert_eq!(out[1].message["result"]["content"][1]["uri"], "note://2");
    let list = ask(&mut server, "resources/list", json!({}));
    assert_eq!(list["result"]["resources"][1]["title"], "Shopping");
    assert!(list["result"].get("nextCursor").is_none());
    let read = ask(&mut server, "resources/read", json!({ "uri": "note://2" }));
    assert_eq!(read["result"]["contents"][0]["text"], "Milk\nand Honey");
    for uri in ["note://3", "note://x", "file:///etc/passwd"] {
        let error = &ask(&mut server, "resources/read", json!({ "uri": uri }))["error"];
        assert_eq!((error["code"].as_i64(), &error["data"]["uri"]), (Some(-32002), &json!(uri)));
    }
    let found = run(&mut server, "search_notes", json!({ "query": "HONEY" }));
    assert_eq!(found["structuredContent"]["notes"], json!([{ "id": 2, "title": "Shopping", "uri": "note://2" }]));
    let prompt =
        ask(&mut server, "prompts/get", json!({ "name": "summarize_notes", "arguments": { "about": "milk" } }));
    let text = prompt["result"]["messages"][0]["content"]["text"].as_str().expect("a text");
    assert!(text.contains("# Shopping\nMilk") && !text.contains("Welcome"), "{text}");
}

#[test]
fn notes_complete() {
    let mut server = opened(Notes::new(), "2025-11-25", json!({}));
    run(&mut server, "add_note", json!({ "text": "wet weather" }));
    let mut complete = |reference: Value, name: &str, value: &str| {
        ask(
            &mut server,
            "completion/complete",
            json!({ "ref": reference, "argument": { "name": name, "value": value } }),
        )
    };
    let prompt = json!({ "type": "ref/prompt", "name": "summarize_notes" });
    assert_eq!(
        complete(prompt.clone(), "about", "WE")["result"]["completion"]["values"],
        json!(["Welcome", "wet weather"])
    );
    assert_eq!(complete(prompt.clone(), "about", "wel")["result"]["completion"]["total"], 1);
    let template = json!({ "type": "ref/resource", "uri": "note://{id}" });
    assert_eq!(complete(template, "id", "2")["result"]["completion"]["values"], json!(["2"]));
    assert_eq!(complete(prompt, "other", "")["error"]["code"], -32602);
    assert_eq!(complete(json!({}), "about", "")["error"]["code"], -32602);
}

#[test]
fn notes_are_bounded_and_paged() {
    let mut server = opened(Notes::new(), "2025-11-25", json!({}));
    assert_eq!(run(&mut server, "add_note", json!({ "text": "é".repeat(8193) }))["isError"], true);
    assert_eq!(run(&mut server, "add_note", json!({ "text": 5 }))["isError"], true);
    for _ in 1..1000 {
        assert!(run(&mut server, "add_note", json!({ "text": "é".repeat(500) })).get("isError").is_none());
    }
    assert_eq!(run(&mut server, "add_note", json!({ "text": "one more" }))["isError"], true);
    let (mut seen, mut cursor) = (0, None);
    loop {
        let params = cursor.take().map_or(json!({}), |cursor: Value| json!({ "cursor": cursor }));
        let mut page = ask(&mut server, "resources/list", params);
        seen += page["result"]["resources"].as_array().expect("a page").len();
        match page["result"]["nextCursor"].take() {
            Value::Null => break,
            next => cursor = Some(next),
        }
    }
    assert_eq!(seen, 1000);
    assert_eq!(ask(&mut server, "resources/list", json!({ "cursor": "x" }))["error"]["code"], -32602);
}

#[test]
fn the_oldest_revision_sees_nothing_newer() {
    let mut server = opened(Text, "2025-03-26", json!({ "elicitation": {} }));
    let tools = ask(&mut server, "tools/list", json!({}))["result"]["tools"].take();
    assert!(
        tools
            .as_array()
            .expect("tools")
            .iter()
            .all(|tool| tool.get("title").is_none() && tool.get("outputSchema").is_none())
    );
    let counted = run(&mut server, "word_count", json!({ "text": "a b" }));
    assert_eq!(
        counted,
        json!({ "content": [{ "type": "text", "text": "{\"words\":2,\"characters\":3,\"lines\":1}" }] })
    );
    assert_eq!(run(&mut server, "ask_name", json!({}))["isError"], true);
    let mut notes = opened(Notes::new(), "2025-03-26", json!({}));
    assert_eq!(
        run(&mut notes, "add_note", json!({ "text": "x" }))["content"][1],
        json!({ "type": "text", "text": "note://2" })
    );
}

#[test]
fn text_tools_count_and_reverse() {
    let mut server = opened(Text, "2025-06-18", json!({}));
    let counted = run(&mut server, "word_count", json!({ "text": "héllo  wörld\n" }));
    assert_eq!(counted["structuredContent"], json!({ "words": 2, "characters": 13, "lines": 1 }));
    assert_eq!(run(&mut server, "reverse", json!({ "text": "añb" }))["content"][0]["text"], "bña");
    assert_eq!(run(&mut server, "reverse", json!({}))["isError"], true);
    assert_eq!(run(&mut server, "slow_count", json!({ "to": 0 }))["isError"], true);
    assert_eq!(
        ask(&mut server, "resources/read", json!({ "uri": "text://sample" }))["result"]["contents"][0]["uri"],
        "text://sample"
    );
    let prompt = ask(&mut server, "prompts/get", json!({ "name": "proofread", "arguments": { "text": "teh" } }));
    assert!(prompt["result"]["messages"][0]["content"]["text"].as_str().is_some_and(|text| text.ends_with("teh")));
}

#[test]
fn slow_count_tells_its_progress() {
    let mut server = opened(Text, "2025-11-25", json!({}));
    let start = Instant::now();
    let out = server.handle(call(1, "slow_count", json!({ "to": 2, "interval_ms": 10 })), start);
    assert_eq!(only(out)["method"], "notifications/message");
    let first = server.deadline().expect("a wait");
    assert_eq!(first, start + Duration::from_millis(10));
    assert!(server.tick(start).is_empty());
    let progress = only(server.tick(first));
    assert_eq!(progress["params"], json!({ "progressToken": "p1", "progress": 1, "total": 2, "message": "1 of 2" }));
    let out = server.tick(first + Duration::from_millis(10));
    assert!(out.iter().all(|out| out.route == Route::Request("1".into())));
    assert_eq!(out[1].message["result"]["content"][0]["text"], "counted to 2");
    assert_eq!((server.deadline(), server.is_running("1")), (None, false));
}

#[test]
fn a_higher_level_and_no_token_mean_silence() {
    let mut server = opened(Text, "2025-11-25", json!({}));
    assert_eq!(ask(&mut server, "logging/setLevel", json!({ "level": "notice" }))["result"], json!({}));
    let params = json!({ "name": "slow_count", "arguments": { "to": 1 } });
    assert!(server.handle(request(1, "tools/call", params), Instant::now()).is_empty());
    let reply = only(server.tick(Instant::now() + Duration::from_secs(1)));
    assert_eq!(reply["id"], 1);
}

#[test]
fn calls_are_bounded_cancelled_and_unique() {
    let (mut server, now) = (opened(Text, "2025-11-25", json!({})), Instant::now());
    for id in 1..=JOBS_MAX as u64 {
        server.handle(call(id, "slow_count", json!({})), now);
    }
    let reply = server.handle(call(99, "slow_count", json!({})), now).pop().expect("a reply").message;
    assert_eq!(reply["error"]["code"], -32603);
    assert_eq!(only(server.handle(request(1, "ping", json!({})), now))["error"]["code"], -32600);
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    assert!(server.handle(cancel.clone(), now).is_empty() && server.handle(cancel, now).is_empty());
    assert!(!server.is_running("1") && server.is_running("2"));
}

#[test]
fn the_client_is_asked_for_a_name() {
    for (answer, text, is_error) in [
        (json!({ "result": { "action": "accept", "content": { "name": "Ada" } } }), "Hello, Ada!", false),
        (json!({ "result": { "action": "accept" } }), "the answer has no name", true),
        (json!({ "result": { "action": "decline" } }), "You would rather not say.", false),
        (json!({ "result": { "action": "cancel" } }), "The question was dismissed.", false),
        (json!({ "error": { "code": -1, "message": "no" } }), "could not ask: no", true),
    ] {
        let (mut server, now) = (opened(Text, "2025-06-18", json!({ "elicitation": {} })), Instant::now());
        let asked = only(server.handle(call(1, "ask_name", json!({})), now));
        assert_eq!(asked["method"], "elicitation/create");
        assert_eq!(asked["params"]["requestedSchema"]["properties"]["name"]["type"], "string");
        let mut message = json!({ "jsonrpc": "2.0", "id": asked["id"] });
        for (name, value) in answer.as_object().expect("an object") {
            message[name] = value.clone();
        }
        assert!(server.handle(json!({ "jsonrpc": "2.0", "id": 77, "result": {} }), now).is_empty(), "nobody asked");
        let reply = only(server.handle(message, now));
        assert_eq!(reply["result"]["content"][0]["text"], text);
        assert_eq!(reply["result"]["isError"].as_bool().unwrap_or(false), is_error);
    }
}

#[test]
fn asking_needs_a_client_that_answers() {
    let mut server = opened(Text, "2025-11-25", json!({ "elicitation": { "url": {} } }));
    for tool in ["ask_name", "sample_summary"] {
        assert_eq!(run(&mut server, tool, json!({ "text": "x" }))["isError"], true, "{tool}");
    }
}

#[test]
fn the_client_samples() {
    let block = json!({ "type": "text", "text": "short" });
    for content in [block.clone(), json!([{ "type": "image" }, block])] {
        let (mut server, now) = (opened(Text, "2025-11-25", json!({ "sampling": {} })), Instant::now());
        let asked = only(server.handle(call(1, "sample_summary", json!({ "text": "long" })), now));
        assert_eq!(asked["method"], "sampling/createMessage");
        let result = json!({ "role": "assistant", "model": "m", "content": content });
        let reply = only(server.handle(json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result }), now));
        assert_eq!(reply["result"]["content"][0]["text"], "short");
    }
}

#[test]
fn a_client_that_never_answers_ends_the_call() {
    let (mut server, now) = (opened(Text, "2025-11-25", json!({ "sampling": {} })), Instant::now());
    server.handle(call(1, "sample_summary", json!({ "text": "long" })), now);
    let reply = only(server.tick(now + ASK_TIMEOUT));
    assert_eq!(reply["result"]["isError"], true);
    let asked = only(server.handle(call(2, "sample_summary", json!({ "text": "long" })), now));
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 2 } });
    let told = only(server.handle(cancel, now));
    assert_eq!((&told["method"], &told["params"]["requestId"]), (&json!("notifications/cancelled"), &asked["id"]));
}
