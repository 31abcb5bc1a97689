//! Tests of the HTTP transport with a client of raw sockets.

use super::*;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Runs the server, calls the client in a thread of its own, and then expects the server to end.
fn run(client: impl FnOnce(SocketAddr) + Send + 'static) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let (stop, stopping) = watch::channel(false);
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
        let calling = tokio::task::spawn_blocking(move || {
            client(address);
            stop.send(true).expect("the server listens");
        });
        let served = tokio::time::timeout(Duration::from_secs(30), serve(listener, stopping)).await;
        calling.await.expect("the client's checks hold");
        served.expect("ended in time").expect("no error");
    });
}

/// An answer whose body is still to be read.
struct Answer {
    status: u16,
    head: String,
    body: BufReader<TcpStream>,
}

fn send(address: SocketAddr, method: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let length = body.len();
    write!(
        stream,
        "{method} /mcp HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .expect("written");
    let mut body = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(body.read_line(&mut head).expect("a head"), 0, "{head}");
    }
    let status = head[9..12].parse().expect("a status");
    Answer { status, head, body }
}

const TYPES: &str = "content-type: application/json\r\naccept: application/json, text/event-stream\r\n";

struct Client {
    address: SocketAddr,
    session: String,
}

impl Client {
    fn open(address: SocketAddr, revision: &str) -> Self {
        let params = json!({ "protocolVersion": revision, "capabilities": { "elicitation": {}, "sampling": {} } });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }).to_string();
        let answer = send(address, "POST", TYPES, &body);
        let session = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("mcp-session-id: "))
            .expect("a session id")
            .to_owned();
        assert_eq!(answer.json()["result"]["protocolVersion"], revision);
        let client = Self { address, session };
        let answer = client.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        assert_eq!((answer.status, answer.text().as_str()), (202, ""));
        client
    }

    fn headers(&self) -> String {
        format!("{TYPES}mcp-session-id: {}\r\nmcp-protocol-version: 2025-06-18\r\n", self.session)
    }

    fn post(&self, message: &Value) -> Answer {
        send(self.address, "POST", &self.headers(), &message.to_string())
    }

    fn call(&self, id: u64, tool: &str, arguments: Value) -> Answer {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": id } });
        self.post(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }))
    }
}

impl Answer {
    fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).expect("a body in time");
        text
    }

    fn json(self) -> Value {
        serde_json::from_str(&self.text()).expect("JSON")
    }

    /// The message of the next event, `None` at the end of the stream.
    fn event(&mut self) -> Option<Value> {
        let mut line = String::new();
        while self.body.read_line(&mut line).expect("a line in time") > 0 {
            // Lines with the size of a chunk are passed over.
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).expect("JSON"));
            }
            line.clear();
        }
        None
    }
}

#[test]
fn quick_answers_are_json_and_slow_ones_are_streams() {
    run(|address| {
        let client = Client::open(address, "2025-06-18");
        let answer = client.call(1, "word_count", json!({ "text": "a b c" }));
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
        assert_eq!(answer.json()["result"]["structuredContent"]["words"], 3);
        let mut answer = client.call(2, "slow_count", json!({ "to": 3, "interval_ms": 20 }));
        assert!(answer.head.contains("content-type: text/event-stream"), "{}", answer.head);
        let events: Vec<Value> = std::iter::from_fn(|| answer.event()).collect();
        let methods: Vec<_> = events.iter().map(|event| event["method"].as_str().unwrap_or("reply")).collect();
        let progress = "notifications/progress";
        assert_eq!(methods, ["notifications/message", progress, progress, progress, "reply"]);
        assert_eq!(events[4]["result"]["content"][0]["text"], "counted to 3");
    });
}

#[test]
fn the_server_asks_on_the_stream_of_the_call() {
    run(|address| {
        let client = Client::open(address, "2025-06-18");
        let mut answer = client.call(1, "ask_name", json!({}));
        let asked = answer.event().expect("a request");
        assert_eq!(asked["method"], "elicitation/create");
        let result = json!({ "action": "accept", "content": { "name": "Ada" } });
        assert_eq!(client.post(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result })).status, 202);
        assert_eq!(answer.event().expect("a reply")["result"]["content"][0]["text"], "Hello, Ada!");
        assert_eq!(answer.event(), None);
        let mut answer = client.call(2, "sample_summary", json!({ "text": "long" }));
        let asked = answer.event().expect("a request");
        let result = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "short" } });
        client.post(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result }));
        assert_eq!(answer.event().expect("a reply")["result"]["content"][0]["text"], "short");
    });
}

#[test]
fn a_cancelled_call_ends_its_stream() {
    run(|address| {
        let client = Client::open(address, "2025-11-25");
        let mut answer = client.call(1, "slow_count", json!({ "to": 100, "interval_ms": 1000 }));
        answer.event().expect("the log message");
        assert_eq!(client.call(1, "reverse", json!({ "text": "ab" })).status, 400, "the id is in use");
        let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
        assert_eq!(client.post(&cancel).status, 202);
        assert_eq!(answer.event(), None);
        // A client that goes away is no cancellation, and does no harm.
        drop(client.call(2, "slow_count", json!({ "to": 3, "interval_ms": 5 })));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(client.call(2, "reverse", json!({ "text": "ab" })).json()["result"]["content"][0]["text"], "ba");
    });
}

#[test]
fn a_session_has_one_stream_and_ends_with_delete() {
    run(|address| {
        let client = Client::open(address, "2025-11-25");
        let mut stream = send(address, "GET", &client.headers(), "");
        assert_eq!(stream.status, 200);
        assert_eq!(send(address, "GET", &client.headers(), "").status, 409);
        assert_eq!(send(address, "DELETE", &client.headers(), "").status, 204);
        assert_eq!(stream.event(), None);
        assert_eq!(client.call(1, "reverse", json!({ "text": "ab" })).status, 404);
        assert_eq!(send(address, "GET", &client.headers(), "").status, 404);
        assert_eq!(send(address, "DELETE", &client.headers(), "").status, 404);
    });
}

#[test]
fn batches_of_the_oldest_revision() {
    run(|address| {
        let client = Client::open(address, "2025-03-26");
        let ping = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
        let reply = client.post(&json!([ping(1), ping(2)])).json();
        assert_eq!(reply.as_array().expect("a batch").len(), 2);
        let slow = json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call",
            "params": { "name": "slow_count", "arguments": { "to": 1, "interval_ms": 5 } } });
        let mut answer = client.post(&json!([slow, ping(4)]));
        let ids: Vec<Value> =
            std::iter::from_fn(|| answer.event()).filter_map(|event| event.get("id").cloned()).collect();
        assert_eq!(ids, [json!(4), json!(3)]);
    });
}

#[test]
fn bad_requests_have_their_status() {
    run(|address| {
        let client = Client::open(address, "2025-06-18");
        let session = format!("mcp-session-id: {}\r\n", client.session);
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let long = format!("\"{}\"", "x".repeat(MESSAGE_BYTES_MAX));
        for (method, headers, body, status) in [
            ("POST", TYPES.to_owned(), ping, 400),
            ("POST", format!("{TYPES}mcp-session-id: 00\r\n"), ping, 404),
            ("POST", format!("{session}accept: */*\r\ncontent-type: text/plain\r\n"), ping, 415),
            ("POST", format!("{session}accept: application/json\r\ncontent-type: application/json\r\n"), ping, 406),
            ("POST", format!("{TYPES}{session}mcp-protocol-version: 1999-01-01\r\n"), ping, 400),
            ("POST", format!("{TYPES}{session}origin: https://evil.example\r\n"), ping, 403),
            ("POST", format!("{TYPES}{session}origin: http://localhost.evil.example\r\n"), ping, 403),
            ("POST", format!("{TYPES}{session}origin: null\r\n"), ping, 403),
            ("POST", format!("{TYPES}{session}origin: http://localhost:6274\r\n"), ping, 200),
            ("POST", format!("{TYPES}{session}"), "{", 400),
            ("POST", format!("{TYPES}{session}"), "[]", 400),
            ("POST", format!("{TYPES}{session}"), "{\"jsonrpc\":\"2.0\"}", 400),
            ("POST", format!("{TYPES}{session}"), &long, 413),
            ("GET", format!("{session}accept: application/json\r\n"), "", 406),
            ("GET", "accept: text/event-stream\r\n".into(), "", 400),
            ("PUT", session.clone(), "", 405),
        ] {
            let answer = send(address, method, &headers, body);
            assert_eq!(answer.status, status, "{method} {headers}");
            if status != 200 {
                let body = answer.json();
                assert!(body["error"]["code"].is_i64() && body.get("id").is_none(), "{body}");
            }
        }
    });
}

#[test]
fn sessions_are_bounded() {
    let hub = Hub::default();
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
        let params = json!({ "protocolVersion": "2025-11-25" });
        let open = || {
            hub.begin(json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }))
                .unwrap_or_else(Refusal::into_response)
                .status()
        };
        (0..SESSIONS_MAX).for_each(|_| assert_eq!(open(), StatusCode::OK));
        assert_eq!(open(), StatusCode::SERVICE_UNAVAILABLE);
        let longer_ago =
            Instant::now().checked_sub(SESSION_IDLE).expect("an instant may lie before the start of the machine");
        hub.lock().values().take(2).for_each(|session| session.lock().used = longer_ago);
        assert_eq!(open(), StatusCode::OK);
        assert_eq!(hub.lock().len(), SESSIONS_MAX - 1);
    });
}

#[test]
fn what_belongs_to_no_request_waits_for_the_stream() {
    let server = Server::new(Text);
    let mut state =
        SessionState { server, answers: HashMap::new(), general: None, backlog: VecDeque::new(), used: Instant::now() };
    let notice = |number: usize| Outgoing { route: Route::General, message: json!({ "n": number }) };
    state.send((0..BACKLOG_MAX + 3).map(notice).collect());
    assert_eq!(state.backlog.len(), BACKLOG_MAX);
    assert!(state.backlog[0].ends_with(b"data: {\"n\":3}\n\n"));
    // A client that does not read loses its stream, not the server its memory.
    let (sender, receiver) = flume::bounded(1);
    state.general = Some(sender);
    state.send(vec![notice(1), notice(2)]);
    assert!(state.general.is_none());
    assert_eq!(receiver.len(), 1);
}
