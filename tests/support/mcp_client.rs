//! An MCP client of streamable HTTP as plain as can be: every message and header is the test's own.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::wire::{Event, Peer, Response, events, request};

pub const ACCEPT: &str = "application/json, text/event-stream";

/// A client's session. Every message goes over a connection of its own, unless the test keeps one.
#[derive(Clone, Debug)]
pub struct McpClient {
    pub address: SocketAddr,
    pub session: String,
    pub revision: String,
    /// The credential that goes with every message.
    pub authorization: Option<String>,
    /// The `result` of `initialize`.
    pub initialized: Value,
}

/// A stream of events that is being read.
pub struct EventStream {
    peer: Peer,
    text: String,
    /// The id of the newest event.
    pub last_id: Option<String>,
    pub retry: Option<u64>,
}

impl McpClient {
    /// Opens a session in the newest revision, able to do all that servers may ask for.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        McpClient::open_in(address, "2025-11-25")
    }

    /// The same with a credential.
    #[track_caller]
    pub fn open_as(address: SocketAddr, authorization: &str) -> Self {
        McpClient::begin(address, "2025-11-25", everything(), Some(authorization))
    }

    #[track_caller]
    pub fn open_in(address: SocketAddr, revision: &str) -> Self {
        McpClient::begin(address, revision, everything(), None)
    }

    /// Opens a session as a client that declares these capabilities.
    #[track_caller]
    pub fn open_with(address: SocketAddr, revision: &str, capabilities: Value) -> Self {
        McpClient::begin(address, revision, capabilities, None)
    }

    #[track_caller]
    fn begin(address: SocketAddr, revision: &str, capabilities: Value, authorization: Option<&str>) -> Self {
        let response = initialize_with(address, revision, capabilities, authorization);
        assert_eq!(response.status, 200, "{}", response.text());
        let session = response.get("mcp-session-id").expect("a session id").to_owned();
        let answer = answer_of(&response);
        assert!(answer.get("error").is_none(), "{answer}");
        let client = McpClient {
            address,
            session,
            revision: revision.to_owned(),
            authorization: authorization.map(str::to_owned),
            initialized: answer["result"].clone(),
        };
        let told = client.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string());
        assert_eq!(told.status, 202);
        client
    }

    /// The headers of a message in this session.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers =
            vec![("accept", ACCEPT), ("content-type", "application/json"), ("mcp-session-id", self.session.as_str())];
        if self.revision.as_str() >= "2025-06-18" {
            headers.push(("mcp-protocol-version", self.revision.as_str()));
        }
        headers.extend(self.authorization.as_deref().map(|credential| ("authorization", credential)));
        headers
    }

    /// Sends a body as it is, over a new connection.
    #[track_caller]
    pub fn post(&self, body: &str) -> Response {
        self.post_on(&mut Peer::connect(self.address), body)
    }

    /// The same with more headers.
    #[track_caller]
    pub fn post_with(&self, body: &str, more: &[(&str, &str)]) -> Response {
        let mut headers = self.headers();
        headers.extend_from_slice(more);
        Peer::connect(self.address).ask("POST", "/mcp", &headers, body)
    }

    #[track_caller]
    pub fn post_on(&self, peer: &mut Peer, body: &str) -> Response {
        peer.ask("POST", "/mcp", &self.headers(), body)
    }

    /// The answer to a request, result or error.
    #[track_caller]
    pub fn ask(&self, method: &str, params: Value) -> Value {
        self.ask_on(&mut Peer::connect(self.address), method, params)
    }

    #[track_caller]
    pub fn ask_on(&self, peer: &mut Peer, method: &str, params: Value) -> Value {
        let response = self.post_on(peer, &message(1, method, params));
        assert_eq!(response.status, 200, "{method}: {}", response.text());
        answer_of(&response)
    }

    /// The result of a request that must succeed.
    #[track_caller]
    pub fn result(&self, method: &str, params: Value) -> Value {
        let answer = self.ask(method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The first text of a tool's answer.
    #[track_caller]
    pub fn call(&self, tool: &str, arguments: Value) -> String {
        text_of(&self.result("tools/call", json!({ "name": tool, "arguments": arguments })))
    }

    /// Sends a request and reads its answer as it comes; it must be a stream.
    #[track_caller]
    pub fn stream(&self, id: u64, method: &str, params: Value) -> EventStream {
        let mut peer = Peer::connect(self.address);
        peer.send(request("POST", "/mcp", &self.headers(), message(id, method, params).as_bytes()));
        EventStream::begin(peer)
    }

    /// Opens the session's own stream, or another one after an event.
    #[track_caller]
    pub fn listen(&self, last_event_id: Option<&str>) -> EventStream {
        let mut headers = self.headers();
        headers.extend(last_event_id.map(|id| ("last-event-id", id)));
        let mut peer = Peer::connect(self.address);
        peer.send(request("GET", "/mcp", &headers, b""));
        EventStream::begin(peer)
    }

    /// Ends the session.
    #[track_caller]
    pub fn end(&self) -> Response {
        Peer::connect(self.address).ask("DELETE", "/mcp", &self.headers(), "")
    }
}

impl EventStream {
    /// Reads the head of an answer that must be a stream.
    #[track_caller]
    pub fn begin(mut peer: Peer) -> Self {
        let head = peer.head().expect("an answer");
        if head.status() != 200 || !head.is_chunked() {
            let body = peer.body(&head, false);
            panic!("no stream: {head:?} {}", String::from_utf8_lossy(&body));
        }
        assert_eq!(head.get("content-type"), Some("text/event-stream"));
        EventStream { peer, text: String::new(), last_id: None, retry: None }
    }

    /// The next event, one without a message included; `None` at the end.
    #[track_caller]
    pub fn event(&mut self) -> Option<Event> {
        let event = self.peer.event(&mut self.text).expect("a whole stream")?;
        if event.id.is_some() {
            self.last_id.clone_from(&event.id);
        }
        self.retry = event.retry.or(self.retry);
        Some(event)
    }

    /// The next message; `None` at the end.
    #[track_caller]
    pub fn message(&mut self) -> Option<Value> {
        loop {
            if let Some(data) = self.event()?.data.filter(|data| !data.is_empty()) {
                return Some(serde_json::from_str(&data).expect("a message"));
            }
        }
    }

    /// Everything up to the end.
    #[track_caller]
    pub fn messages(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.message()).collect()
    }
}

/// An `initialize` of a client that can do everything.
#[track_caller]
pub fn initialize(address: SocketAddr, revision: &str) -> Response {
    initialize_with(address, revision, everything(), None)
}

fn everything() -> Value {
    json!({ "sampling": {}, "elicitation": {}, "roots": { "listChanged": true } })
}

#[track_caller]
fn initialize_with(address: SocketAddr, revision: &str, capabilities: Value, authorization: Option<&str>) -> Response {
    let params = json!({
        "protocolVersion": revision,
        "capabilities": capabilities,
        "clientInfo": { "name": "test", "version": "1" },
    });
    let mut headers = vec![("accept", ACCEPT), ("content-type", "application/json")];
    headers.extend(authorization.map(|credential| ("authorization", credential)));
    Peer::connect(address).ask("POST", "/mcp", &headers, message(0, "initialize", params))
}

/// A request's text.
pub fn message(id: u64, method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

/// The last message of an answer, be it JSON or a stream.
#[track_caller]
pub fn answer_of(response: &Response) -> Value {
    if response.get("content-type") == Some("application/json") {
        return response.json();
    }
    let data = events(response.text()).into_iter().filter_map(|event| event.data).rfind(|data| !data.is_empty());
    serde_json::from_str(&data.unwrap_or_else(|| panic!("no message: {response:?}"))).expect("a message")
}

/// The first text of a tool's result.
#[track_caller]
pub fn text_of(result: &Value) -> String {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {result}")).to_owned()
}

/// The values under a key in a list of objects.
pub fn each<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    list.as_array().into_iter().flatten().filter_map(|item| item[key].as_str()).collect()
}
