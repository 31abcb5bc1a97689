//! Bad input to the MCP endpoint: every wrong message, header and session has the answer that the specification names, and
//! the session goes on.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::notes;
use crate::support::config::{mcp, one_listener};
use crate::support::free_port;
use crate::support::gateway::{Gateway, local};
use crate::support::mcp_client::{ACCEPT, McpClient, answer_of, initialize, message};
use crate::support::mcp_server::McpServer;
use crate::support::wire::{Peer, Response};

/// The demo's stdio server beside a scripted one.
struct Endpoint {
    server: McpServer,
    address: SocketAddr,
    gateway: Gateway,
}

fn endpoint() -> Endpoint {
    with(json!({}))
}

/// With more settings of the backend.
fn with(settings: Value) -> Endpoint {
    let server = McpServer::good("web");
    let port = free_port();
    let mut backend = json!({ "targets": [notes("notes"), server.target("web")] });
    backend.as_object_mut().expect("an object").extend(settings.as_object().cloned().unwrap_or_default());
    Endpoint { server, address: local(port), gateway: Gateway::start(&mcp(port, backend).to_string()) }
}

/// A JSON-RPC error of this code, with this status; its id is the given one, or not there at all.
#[track_caller]
fn assert_error(what: &str, response: &Response, status: u16, code: i64, id: Option<Value>) {
    assert_eq!(response.status, status, "{what}: {}", response.text());
    let answer = answer_of(response);
    assert_eq!(answer["jsonrpc"], "2.0", "{what}");
    assert_eq!(answer["error"]["code"], code, "{what}: {answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {answer}");
    assert_eq!(answer.get("id").cloned(), id, "{what}: {answer}");
}

// Messages

#[test]
fn text_that_is_no_json_is_a_parse_error() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    let cases = [
        "",
        " ",
        "{",
        "}",
        "nonsense",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"",
        "{'jsonrpc':'2.0'}",
        "{\"a\":1,}",
        "{\"jsonrpc\":\"2.0\" \"id\":1}",
        "\u{feff}{}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}x",
        "{\"jsonrpc\":\"2.0\",\"id\":01,\"method\":\"ping\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\tng\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{\"a\":tru}}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{\"a\":\"\\x\"}}",
    ];
    for case in cases {
        assert_error(case, &client.post(case), 400, -32700, None);
        // The same without a session: what cannot be read cannot be an initialize either.
        let headers = [("accept", ACCEPT), ("content-type", "application/json")];
        let response = Peer::connect(endpoint.address).ask("POST", "/mcp", &headers, case);
        assert_error(case, &response, 400, -32700, None);
    }
    let invalid_utf8 =
        [&b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{\"a\":\"\xff\"}}"[..]].concat();
    let response = Peer::connect(endpoint.address).ask("POST", "/mcp", &client.headers(), invalid_utf8);
    assert_error("a byte that is no UTF-8", &response, 400, -32700, None);
    let deep = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(client.post(&deep).status, 400, "a document too deep");
    assert_eq!(client.result("ping", json!({})), json!({}), "the session goes on");
}

#[test]
fn messages_of_a_wrong_shape_are_invalid_requests() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    let cases = [
        ("null", None),
        ("7", None),
        ("\"ping\"", None),
        ("{}", None),
        ("{\"id\":1,\"method\":\"ping\"}", Some(json!(1))),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}", Some(json!(1))),
        ("{\"jsonrpc\":2.0,\"id\":1,\"method\":\"ping\"}", Some(json!(1))),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}", Some(json!(1))),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":null}", Some(json!(1))),
        ("{\"jsonrpc\":\"2.0\",\"id\":1}", Some(json!(1))),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":7}", Some(json!(1))),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":\"x\"}", Some(json!(1))),
        ("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}", None),
        ("{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"ping\"}", None),
        ("{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"ping\"}", None),
        ("{\"jsonrpc\":\"2.0\",\"id\":[1],\"method\":\"ping\"}", None),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"result\":{}}", Some(json!(1))),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{},\"error\":{}}", Some(json!(1))),
    ];
    for (case, id) in cases {
        assert_error(case, &client.post(case), 400, -32600, id);
    }
    assert_eq!(client.result("ping", json!({})), json!({}), "the session goes on");
}

#[test]
fn duplicate_keys_are_refused_where_readers_could_differ() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    let before = endpoint.server.count("tools/call");
    let cases = [
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"ping\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"method\":\"tools/list\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"m\\u0065thod\":\"tools/list\"}",
        "{\"jsonrpc\":\"2.0\",\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"web__echo\"},\"params\":{\"name\":\"notes__list_notes\"}}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"web__echo\",\"name\":\"notes__list_notes\"}}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"web__echo\",\"n\\u0061me\":\"notes__list_notes\"}}",
    ];
    for case in cases {
        let response = client.post(case);
        assert_eq!(response.status, 400, "{case}: {}", response.text());
        let code = &answer_of(&response)["error"]["code"];
        assert!([-32600, -32700].contains(&code.as_i64().unwrap_or_default()), "{case}: {code}");
    }
    assert_eq!(endpoint.server.count("tools/call"), before, "none of them went on");
}

#[test]
fn batches_are_for_the_one_revision_that_has_them() {
    let endpoint = endpoint();
    let batch = format!(
        "[{},{},{},{},{}]",
        message(1, "ping", json!({})),
        json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" }),
        message(2, "tools/call", json!({ "name": "web__echo", "arguments": { "a": 1 } })),
        message(3, "no/such", json!({})),
        json!({ "jsonrpc": "2.0", "id": 4 }),
    );
    for revision in ["2025-06-18", "2025-11-25"] {
        let client = McpClient::open_in(endpoint.address, revision);
        assert_error(revision, &client.post(&batch), 400, -32600, None);
        assert_error(revision, &client.post("[]"), 400, -32600, None);
    }
    let client = McpClient::open_in(endpoint.address, "2025-03-26");
    let response = client.post(&batch);
    assert_eq!(response.status, 200);
    let answers = response.json();
    let answers = answers.as_array().expect("an array of answers");
    let answer =
        |id: u64| answers.iter().find(|answer| answer["id"] == id).unwrap_or_else(|| panic!("no {id}: {answers:?}"));
    assert_eq!(answers.len(), 4, "a notification has no answer: {answers:?}");
    assert_eq!(answer(1)["result"], json!({}));
    assert_eq!(answer(2)["result"]["content"][0]["text"], "web: echo {\"a\":1}");
    assert_eq!(answer(3)["error"]["code"], -32601);
    assert_eq!(answer(4)["error"]["code"], -32600);
    assert_error("an empty batch", &client.post("[]"), 400, -32600, None);
    let told = client.post("[{\"jsonrpc\":\"2.0\",\"method\":\"notifications/roots/list_changed\"}]");
    assert_eq!((told.status, told.body.len()), (202, 0), "nothing to answer");
    let nested = client.post(&format!("[[{}]]", message(1, "ping", json!({}))));
    assert_eq!(answer_of(&nested)[0]["error"]["code"], -32600, "a batch within a batch");
    let long = vec![message(1, "ping", json!({})); 101].join(",");
    assert_error("too long a batch", &client.post(&format!("[{long}]")), 400, -32600, None);
    let half = client.post(&format!("[{},", message(1, "ping", json!({}))));
    assert_error("half a batch", &half, 400, -32700, None);
}

#[test]
fn an_unknown_method_is_named_and_stays_here() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    for method in ["no/such", "", "tools/listx", "TOOLS/LIST", "server/discover"] {
        let response = client.post(&message(5, method, json!({})));
        let answer = answer_of(&response);
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(5), &json!(-32601)), "{method:?}: {answer}");
        assert!([200, 404].contains(&response.status), "{method:?}: {}", response.status);
    }
    assert!(endpoint.server.seen().iter().all(|seen| !seen.method().contains("such")));
}

#[test]
fn wrong_params_are_named() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    let cases = [
        ("tools/call", json!({})),
        ("tools/call", json!({ "name": 7 })),
        ("tools/call", json!({ "name": "no_such_tool" })),
        ("tools/call", json!({ "name": "nobody__echo" })),
        ("tools/call", json!({ "name": "__echo" })),
        ("prompts/get", json!({ "name": "nobody__x" })),
        ("resources/read", json!({})),
        ("resources/read", json!({ "uri": ["note://1"] })),
        ("tools/list", json!({ "cursor": 7 })),
        ("tools/list", json!({ "cursor": "nonsense" })),
        ("logging/setLevel", json!({ "level": "loud" })),
        ("logging/setLevel", json!({})),
        ("completion/complete", json!({})),
        (
            "completion/complete",
            json!({ "ref": { "type": "ref/prompt", "name": "nobody__x" }, "argument": { "name": "a", "value": "" } }),
        ),
    ];
    for (method, params) in cases {
        let response = client.post(&message(9, method, params.clone()));
        let answer = answer_of(&response);
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&json!(9), &json!(-32602)),
            "{method} {params}: {answer}"
        );
        assert!([200, 400].contains(&response.status), "{method} {params}: {}", response.status);
    }
}

#[test]
fn ids_come_back_as_they_were_written() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    let ids =
        ["0", "\"a\"", "9007199254740993", "-1", "18446744073709551615", "\"\"", "\"\\u0041\\n\"", "\"7\"", "\"ü😀\""];
    let requests = [
        ("ping", "{}"),
        ("tools/list", "{}"),
        ("tools/call", "{\"name\":\"web__echo\",\"arguments\":{}}"),
        ("tools/call", "{\"name\":\"notes__list_notes\",\"arguments\":{}}"),
        ("tools/call", "{\"name\":\"nobody__echo\"}"),
        ("no/such", "{}"),
    ];
    for id in ids {
        for (method, params) in requests {
            let body = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params},\"id\":{id}}}");
            let response = client.post(&body);
            // The scripted server reads and writes ids as JSON values; the gateway's own ones keep their text.
            if method == "tools/call" && params.contains("web__echo") {
                let written: Value = serde_json::from_str(id).expect("an id");
                assert_eq!(answer_of(&response)["id"], written, "{body}");
            } else {
                assert!(response.text().contains(&format!("\"id\":{id}")), "{body}: {}", response.text());
            }
        }
    }
    // A fraction is no id of the specification; it is refused or comes back, and never as another number.
    let response = client.post("{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":1.5}");
    assert!(response.status == 400 || response.text().contains("\"id\":1.5"), "{}", response.text());
}

#[test]
fn a_body_too_large_is_413() {
    let server = McpServer::good("web");
    let port = free_port();
    let mut config = mcp(port, json!({ "targets": [server.target("web")] }));
    config["frontendPolicies"] = json!({ "http": { "maxBufferSize": 10_000 } });
    let _gateway = Gateway::start(&config.to_string());
    let client = McpClient::open(local(port));
    let large = message(1, "tools/call", json!({ "name": "echo", "arguments": { "text": "x".repeat(10_000) } }));
    let mut peer = Peer::connect(local(port));
    assert_eq!(client.post_on(&mut peer, &large).status, 413);
    assert!(peer.closes());
    // In chunks, whose sum nobody has said.
    let mut peer = Peer::connect(local(port));
    let headers: String = client.headers().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    peer.send(format!("POST /mcp HTTP/1.1\r\nhost: localhost\r\n{headers}transfer-encoding: chunked\r\n\r\n"));
    for _ in 0..20 {
        if peer.try_send(crate::support::upstream::chunk(&"x".repeat(1000))).is_err() {
            break;
        }
    }
    assert_eq!(peer.response("POST").status, 413);
    assert_eq!(server.count("tools/call"), 0);
    assert!(client.call("echo", json!({ "text": "x".repeat(5000) })).contains("xxx"), "the session goes on");
}

// Sessions

#[test]
fn only_sessions_that_were_opened_here_are_served() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    let forged = |place: usize| {
        let mut id = client.session.clone().into_bytes();
        id[place] = if id[place] == b'A' { b'B' } else { b'A' };
        String::from_utf8(id).expect("ASCII")
    };
    let other = McpClient::open(endpoint.address);
    let mixed = format!("{}{}", &client.session[..20], &other.session[20..]);
    let cut = client.session[..client.session.len() - 4].to_owned();
    let unknown = [
        "1".to_owned(),
        "00000000-0000-0000-0000-000000000000".to_owned(),
        "x".repeat(2000),
        forged(0),
        forged(8),
        forged(20),
        forged(30),
        forged(client.session.len() / 2),
        mixed,
        cut,
        format!("{}A", client.session),
    ];
    for session in unknown {
        let forged = McpClient { session, ..client.clone() };
        assert_error(&forged.session, &forged.post(&message(1, "ping", json!({}))), 404, -32600, None);
        let get = Peer::connect(endpoint.address).ask("GET", "/mcp", &forged.headers(), "");
        assert_eq!(get.status, 404, "{}", forged.session);
        assert_eq!(forged.end().status, 404, "{}", forged.session);
    }
    assert_eq!(client.result("ping", json!({})), json!({}));
    assert!([200, 202, 204].contains(&client.end().status));
    assert_error("an ended session", &client.post(&message(1, "ping", json!({}))), 404, -32600, None);
    assert_eq!(client.end().status, 404, "ended twice");
    assert_eq!(other.result("ping", json!({})), json!({}), "the other session goes on");
}

#[test]
fn a_session_belongs_to_its_endpoint() {
    let servers = [McpServer::good("one"), McpServer::good("two")];
    let port = free_port();
    let route = |path: &str, server: &McpServer| json!({ "matches": [{ "path": { "exact": path } }], "backends": [{ "mcp": { "targets": [server.target("t")] } }] });
    let config = one_listener(port, json!([route("/mcp", &servers[0]), route("/other", &servers[1])]));
    let _gateway = Gateway::start(&config.to_string());
    let client = McpClient::open(local(port));
    let response =
        Peer::connect(local(port)).ask("POST", "/other", &client.headers(), message(1, "tools/list", json!({})));
    assert_error("another endpoint", &response, 404, -32600, None);
    assert_eq!(servers[1].seen().len(), 0);
}

#[test]
fn a_request_without_its_session_is_400() {
    let endpoint = endpoint();
    let headers = [("accept", ACCEPT), ("content-type", "application/json")];
    for method in ["ping", "tools/list", "tools/call", "no/such"] {
        let response = Peer::connect(endpoint.address).ask("POST", "/mcp", &headers, message(1, method, json!({})));
        assert_error(method, &response, 400, -32600, Some(json!(1)));
    }
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string();
    let response = Peer::connect(endpoint.address).ask("POST", "/mcp", &headers, notification);
    assert_error("a notification", &response, 400, -32600, None);
    for method in ["GET", "DELETE"] {
        let response = Peer::connect(endpoint.address).ask(method, "/mcp", &headers, "");
        assert_error(method, &response, 400, -32600, None);
    }
    assert_eq!(endpoint.server.seen().len(), 0);
    assert_eq!(endpoint.gateway.metric("agentlane_mcp_sessions", ""), 0.0);
}

#[test]
fn initialize_happens_once_and_with_what_it_needs() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    let again =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "a", "version": "1" } });
    assert_error("twice", &client.post(&message(3, "initialize", again)), 400, -32600, Some(json!(3)));
    let headers = [("accept", ACCEPT), ("content-type", "application/json")];
    let wrong = [
        json!({}),
        json!({ "protocolVersion": 7, "capabilities": {}, "clientInfo": { "name": "a", "version": "1" } }),
        json!({ "protocolVersion": "2025-11-25", "capabilities": [], "clientInfo": { "name": "a", "version": "1" } }),
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": "a" }),
        json!({ "protocolVersion": "2025-11-25", "capabilities": {} }),
    ];
    for params in wrong {
        let response =
            Peer::connect(endpoint.address).ask("POST", "/mcp", &headers, message(4, "initialize", params.clone()));
        let answer = answer_of(&response);
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(4), &json!(-32602)), "{params}: {answer}");
        assert_eq!(response.get("mcp-session-id"), None, "{params}");
    }
    // A version that nobody speaks is answered with the newest one that we speak.
    let offered = initialize(endpoint.address, "1999-01-01");
    assert_eq!((offered.status, &answer_of(&offered)["result"]["protocolVersion"]), (200, &json!("2025-11-25")));
    for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        assert_eq!(McpClient::open_in(endpoint.address, revision).initialized["protocolVersion"], revision);
    }
}

// Headers

#[test]
fn accept_content_type_and_method_are_checked() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    let session = client.session.as_str();
    let ask = |method: &str, headers: &[(&str, &str)]| {
        let mut all = vec![("mcp-session-id", session)];
        all.extend(headers);
        let body =
            if ["GET", "HEAD", "TRACE"].contains(&method) { String::new() } else { message(1, "ping", json!({})) };
        Peer::connect(endpoint.address).ask(method, "/mcp", &all, body)
    };
    let json_type = ("content-type", "application/json");
    let accepts = [
        &[][..],
        &[("accept", "application/json")],
        &[("accept", "text/event-stream")],
        &[("accept", "text/html")],
        &[("accept", "application/json, text/event-stream;q=0")],
    ];
    for accept in accepts {
        let headers = [accept, &[json_type]].concat();
        assert_error("accept", &ask("POST", &headers), 406, -32600, None);
    }
    let fine = ["*/*", "application/*, text/*", "TEXT/event-stream;q=0.5,Application/JSON", "text/html, */*;q=0.1"];
    for accept in fine {
        assert_eq!(ask("POST", &[("accept", accept), json_type]).status, 200, "{accept}");
    }
    assert_eq!(
        ask("POST", &[("accept", "application/json"), ("accept", "text/event-stream"), json_type]).status,
        200,
        "two lines"
    );
    for content_type in
        ["text/plain", "application/jsonp", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"]
    {
        let response = ask("POST", &[("accept", ACCEPT), ("content-type", content_type)]);
        assert_error(content_type, &response, 415, -32600, None);
    }
    assert_error("no type", &ask("POST", &[("accept", ACCEPT)]), 415, -32600, None);
    assert_eq!(ask("POST", &[("accept", ACCEPT), ("content-type", "Application/JSON; charset=utf-8")]).status, 200);
    assert_error("GET of JSON", &ask("GET", &[("accept", "application/json")]), 406, -32600, None);
    assert_error("GET of anything", &ask("GET", &[]), 406, -32600, None);
    for method in ["PUT", "PATCH", "OPTIONS", "TRACE"] {
        let response = ask(method, &[("accept", ACCEPT), json_type]);
        assert_error(method, &response, 405, -32600, None);
        let allow = response.get("allow").expect("RFC 9110, 15.5.6");
        assert!(["GET", "POST", "DELETE"].iter().all(|method| allow.contains(method)), "{allow}");
    }
    let head = ask("HEAD", &[("accept", ACCEPT)]);
    assert_eq!((head.status, head.body.len()), (405, 0));
}

#[test]
fn the_version_header_must_be_one_that_is_spoken() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    // The last one is of a revision without sessions: its requests say more.
    for (version, code) in
        [("1999-01-01", -32600), ("", -32600), ("2025-11-25x", -32600), ("draft", -32600), ("2026-07-28", -32602)]
    {
        let wrong = McpClient { revision: "9".to_owned(), ..client.clone() };
        let mut headers: Vec<(&str, &str)> =
            wrong.headers().into_iter().filter(|(name, _)| *name != "mcp-protocol-version").collect();
        headers.push(("mcp-protocol-version", version));
        let response = Peer::connect(endpoint.address).ask("POST", "/mcp", &headers, message(1, "ping", json!({})));
        assert_error(version, &response, 400, code, Some(json!(1)));
    }
    let without = McpClient { revision: "2025-03-26".to_owned(), ..client.clone() };
    assert_eq!(without.result("ping", json!({})), json!({}), "it may be absent");
}

#[test]
fn pages_of_other_origins_are_kept_out() {
    let endpoint = with(json!({ "dnsRebindingProtection": true }));
    let port = endpoint.address.port();
    let try_with = |headers: &[(&str, &str)]| {
        let mut all = vec![("accept", ACCEPT), ("content-type", "application/json")];
        all.extend(headers);
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "a", "version": "1" } });
        Peer::connect(endpoint.address).ask("POST", "/mcp", &all, message(1, "initialize", params))
    };
    let host = format!("localhost:{port}");
    let host = host.as_str();
    for origin in [
        "https://evil.example",
        "http://localhost.evil.example",
        "http://evil.example:80",
        "null",
        "nonsense",
        "file://",
        "",
    ] {
        assert_error(origin, &try_with(&[("host", host), ("origin", origin)]), 403, -32600, None);
    }
    let hosts = ["evil.example", "localhost.evil.example", "evil.example:3000", "10.0.0.1", "127.0.0.1.evil.example"];
    for foreign in hosts {
        assert_error(foreign, &try_with(&[("host", foreign)]), 403, -32600, None);
        let origin = format!("http://{foreign}");
        assert_error(foreign, &try_with(&[("host", foreign), ("origin", &origin)]), 403, -32600, None);
    }
    assert_eq!(endpoint.server.seen().len(), 0);
    for fine in ["http://localhost:6274", "http://127.0.0.1:8080", "http://[::1]:1", "https://app.localhost"] {
        assert_eq!(try_with(&[("host", host), ("origin", fine)]).status, 200, "{fine}");
    }
    assert_eq!(try_with(&[("host", host)]).status, 200, "a client that is no browser");
}

#[test]
fn a_configured_origin_is_let_in() {
    let server = McpServer::good("web");
    let port = free_port();
    let config = one_listener(
        port,
        json!([{
            "policies": { "cors": { "allowOrigins": ["https://app.example"], "allowMethods": ["POST"], "exposeHeaders": ["mcp-session-id"] } },
            "backends": [{ "mcp": { "targets": [server.target("web")], "dnsRebindingProtection": true } }],
        }]),
    );
    let _gateway = Gateway::start(&config.to_string());
    let ask = |origin: &str| {
        let headers = [("accept", ACCEPT), ("content-type", "application/json"), ("origin", origin)];
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "a", "version": "1" } });
        Peer::connect(local(port)).ask("POST", "/mcp", &headers, message(1, "initialize", params))
    };
    let response = ask("https://app.example");
    assert_eq!((response.status, response.get("access-control-allow-origin")), (200, Some("https://app.example")));
    assert_eq!(response.get("access-control-expose-headers"), Some("mcp-session-id"));
    assert_eq!(ask("https://other.example").status, 403);
}

#[test]
fn a_connection_outlives_the_faults_on_it() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    let mut peer = Peer::connect(endpoint.address);
    for _ in 0..3 {
        assert_eq!(client.post_on(&mut peer, "nonsense").status, 400);
        assert_eq!(peer.ask("PUT", "/mcp", &[], "x").status, 405);
        assert_eq!(peer.ask("POST", "/mcp", &[("accept", ACCEPT)], "{}").status, 415);
        let unknown = McpClient { session: "x".to_owned(), ..client.clone() };
        assert_eq!(unknown.post_on(&mut peer, &message(1, "ping", json!({}))).status, 404);
        assert_eq!(client.ask_on(&mut peer, "ping", json!({}))["result"], json!({}));
    }
}

#[test]
fn answers_to_questions_that_nobody_asked_are_dropped() {
    let endpoint = endpoint();
    let client = McpClient::open(endpoint.address);
    // The gateway listens to the server by a GET of its own, whenever that comes.
    let posts = || endpoint.server.seen().iter().filter(|seen| seen.verb == "POST").count();
    let before = posts();
    for id in [json!(1), json!("x"), json!(9_999_999), json!(-1)] {
        let response = client.post(&json!({ "jsonrpc": "2.0", "id": id, "result": {} }).to_string());
        assert_eq!((response.status, response.body.len()), (202, 0), "{id}");
        let error = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": 1, "message": "no" } });
        assert_eq!(client.post(&error.to_string()).status, 202, "{id}");
    }
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 77 } });
    assert_eq!(client.post(&cancel.to_string()).status, 202);
    assert_eq!(posts(), before, "no server hears of them");
}
