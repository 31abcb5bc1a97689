//! A client of 2026-07-28: every request carries its envelope and the headers that repeat it. Nothing is kept between two
//! requests but what the test keeps.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::mcp_client::{ACCEPT, EventStream, answer_of};
use super::wire::{Peer, Response, request};

pub const VERSION: &str = "2026-07-28";
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
pub const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
pub const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

#[derive(Clone, Debug)]
pub struct ModernClient {
    pub address: SocketAddr,
    pub capabilities: Value,
    /// Beside what the revision demands.
    pub headers: Vec<(String, String)>,
}

impl ModernClient {
    /// A client that can do all that servers may ask for.
    pub fn new(address: SocketAddr) -> Self {
        let capabilities =
            json!({ "sampling": { "tools": {} }, "elicitation": { "form": {}, "url": {} }, "roots": {} });
        ModernClient { address, capabilities, headers: Vec::new() }
    }

    /// The same with these capabilities.
    pub fn with(mut self, capabilities: Value) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// The same with another header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A request's text. What `_meta` of `params` says stays.
    pub fn message(&self, id: &Value, method: &str, mut params: Value) -> Value {
        let mut meta = json!({
            META_VERSION: VERSION,
            META_CAPABILITIES: self.capabilities,
            META_CLIENT_INFO: { "name": "test", "version": "1" },
        });
        if let Some(own) = params["_meta"].as_object() {
            own.iter().for_each(|(key, value)| meta[key] = value.clone());
        }
        params["_meta"] = meta;
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
    }

    /// The headers that go with a message.
    pub fn headers_of(&self, message: &Value) -> Vec<(String, String)> {
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut headers = vec![
            own("accept", ACCEPT),
            own("content-type", "application/json"),
            own("mcp-protocol-version", VERSION),
            own("mcp-method", message["method"].as_str().expect("a method")),
        ];
        let params = &message["params"];
        if let Some(name) = ["name", "uri", "taskId"].iter().find_map(|key| params[*key].as_str()) {
            headers.push(own("mcp-name", name));
        }
        headers.extend(self.headers.iter().cloned());
        headers
    }

    /// Sends a message over a connection, with the headers that belong to it.
    #[track_caller]
    pub fn post_on(&self, peer: &mut Peer, message: &Value) -> Response {
        self.send_on(peer, message);
        peer.response("POST")
    }

    /// The same without waiting.
    #[track_caller]
    pub fn send_on(&self, peer: &mut Peer, message: &Value) {
        let headers = self.headers_of(message);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        peer.send(request("POST", "/mcp", &headers, message.to_string().as_bytes()));
    }

    /// The whole answer to a request over a new connection.
    #[track_caller]
    pub fn post(&self, method: &str, params: Value) -> Response {
        self.post_on(&mut Peer::connect(self.address), &self.message(&json!(1), method, params))
    }

    /// The result of a request that must succeed.
    #[track_caller]
    pub fn result(&self, method: &str, params: Value) -> Value {
        let response = self.post(method, params);
        let answer = answer_of(&response);
        assert_eq!((response.status, &answer["id"]), (200, &json!(1)), "{method}: {answer}");
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The status and the error of a request that must fail.
    #[track_caller]
    pub fn error(&self, method: &str, params: Value) -> (u16, Value) {
        let response = self.post(method, params);
        let answer = answer_of(&response);
        assert!(answer.get("error").is_some(), "{method}: {answer}");
        assert_eq!(answer["id"], 1, "{answer}");
        (response.status, answer["error"].clone())
    }

    /// Calls a tool that must answer.
    #[track_caller]
    pub fn call(&self, tool: &str, arguments: Value) -> Value {
        self.result("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// The same with all of the parameters.
    #[track_caller]
    pub fn call_with(&self, params: Value) -> Value {
        self.result("tools/call", params)
    }

    /// Sends a request and reads its answer as it comes; it must be a stream.
    #[track_caller]
    pub fn stream(&self, id: u64, method: &str, params: Value) -> EventStream {
        let mut peer = Peer::connect(self.address);
        self.send_on(&mut peer, &self.message(&json!(id), method, params));
        EventStream::begin(peer)
    }
}
