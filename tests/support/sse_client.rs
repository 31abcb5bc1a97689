//! A client of the transport of 2024-11-05: one stream that everything comes on, and POSTs that are only taken.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::mcp_client::message;
use super::wire::{Event, Peer, Response, request};

pub struct SseClient {
    pub address: SocketAddr,
    /// Path and query that the first event names.
    pub endpoint: String,
    stream: Peer,
    text: String,
}

impl SseClient {
    /// Opens the stream and reads its first event.
    #[track_caller]
    pub fn connect(address: SocketAddr, path: &str) -> Self {
        let mut stream = Peer::connect(address);
        stream.send(request("GET", path, &[("accept", "text/event-stream")], b""));
        let head = stream.head().expect("an answer");
        assert_eq!((head.status(), head.get("content-type")), (200, Some("text/event-stream")), "{head:?}");
        let mut client = SseClient { address, endpoint: String::new(), stream, text: String::new() };
        let first = client.event().expect("an event");
        assert_eq!(first.name.as_deref(), Some("endpoint"), "{first:?}");
        client.endpoint = first.data.expect("a place");
        assert!(client.endpoint.starts_with('/'), "relative: {}", client.endpoint);
        client
    }

    /// A session of this revision.
    #[track_caller]
    pub fn open_in(address: SocketAddr, revision: &str) -> Self {
        let mut client = SseClient::connect(address, "/sse");
        let params = json!({
            "protocolVersion": revision,
            "capabilities": { "sampling": {}, "elicitation": {}, "roots": {} },
            "clientInfo": { "name": "test", "version": "1" },
        });
        let result = client.result("initialize", params);
        assert_eq!(result["protocolVersion"], revision, "{result}");
        client.tell(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        client
    }

    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        SseClient::open_in(address, "2024-11-05")
    }

    /// Posts a body as it is, over a connection of its own.
    #[track_caller]
    pub fn post(&self, body: &str) -> Response {
        self.post_on(&mut Peer::connect(self.address), body)
    }

    #[track_caller]
    pub fn post_on(&self, peer: &mut Peer, body: &str) -> Response {
        peer.ask("POST", &self.endpoint, &[("content-type", "application/json")], body)
    }

    /// Posts a message that must be taken.
    #[track_caller]
    pub fn tell(&self, message: &Value) {
        let taken = self.post(&message.to_string());
        assert_eq!((taken.status, taken.text()), (202, ""), "{message}");
    }

    /// The answer to a request; nothing else may come before it.
    #[track_caller]
    pub fn ask(&mut self, id: u64, method: &str, params: Value) -> Value {
        let taken = self.post(&message(id, method, params));
        assert_eq!((taken.status, taken.text()), (202, ""), "{method}");
        let answer = self.message().expect("an answer");
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    #[track_caller]
    pub fn result(&mut self, method: &str, params: Value) -> Value {
        let answer = self.ask(1, method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    #[track_caller]
    pub fn call(&mut self, tool: &str, arguments: Value) -> String {
        super::mcp_client::text_of(&self.result("tools/call", json!({ "name": tool, "arguments": arguments })))
    }

    /// The next message; `None` at the end of the stream.
    #[track_caller]
    pub fn message(&mut self) -> Option<Value> {
        let event = self.event()?;
        assert_eq!((event.name.as_deref(), &event.id), (Some("message"), &None), "{event:?}");
        Some(serde_json::from_str(&event.data.expect("data")).expect("a message"))
    }

    #[track_caller]
    fn event(&mut self) -> Option<Event> {
        self.stream.event(&mut self.text).expect("a whole stream")
    }
}
