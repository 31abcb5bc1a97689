//! A scripted MCP server of streamable HTTP: it behaves well, except where the test says otherwise.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::eventually;
use super::upstream::{Request, Upstream, chunk, reply};
use super::wire::Peer;

/// A server. Its tool `echo` answers `<name>: <arguments>`; other tools, resources and prompts are what `offers` says.
pub struct McpServer {
    pub address: SocketAddr,
    state: Arc<State>,
    _http: Upstream,
}

/// A message that came, or a GET or DELETE, whose message is null.
#[derive(Clone, Debug)]
pub struct Seen {
    pub verb: String,
    pub session: Option<String>,
    pub message: Value,
    pub request: Request,
}

/// What the script does with a message.
pub enum Act {
    /// What a good server does.
    Well,
    /// A JSON-RPC result.
    Result(Value),
    /// A JSON-RPC error.
    Error(i64, &'static str),
    /// These bytes, as they are.
    Bytes(Vec<u8>),
    /// A stream of these messages, to its end.
    Events(Vec<Value>),
    /// The connection in the test's hands.
    Own(Box<dyn FnOnce(&mut Peer) + Send>),
    /// No answer at all, until the other side gives up.
    Silence,
    /// Closes the connection.
    Close,
}

type Script = dyn Fn(&Seen) -> Act + Send + Sync;

struct State {
    name: String,
    offers: Offers,
    sessions: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    script: Box<Script>,
}

/// What a server offers: whole items, as a list shows them.
#[derive(Clone, Debug, Default)]
pub struct Offers {
    pub tools: Vec<Value>,
    pub resources: Vec<Value>,
    pub prompts: Vec<Value>,
}

impl Seen {
    pub fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or_default()
    }

    pub fn id(&self) -> &Value {
        &self.message["id"]
    }

    /// The tool that is called.
    pub fn tool(&self) -> &str {
        self.message["params"]["name"].as_str().unwrap_or_default()
    }
}

impl Offers {
    pub fn tools(names: &[&str]) -> Self {
        let tools = names.iter().map(|name| json!({ "name": name, "inputSchema": { "type": "object" } })).collect();
        Offers { tools, ..Offers::default() }
    }

    pub fn resources(uris: &[&str]) -> Self {
        Offers {
            resources: uris.iter().map(|uri| json!({ "uri": uri, "name": uri })).collect(),
            ..Offers::tools(&["echo"])
        }
    }
}

impl McpServer {
    /// A good server with the one tool `echo`.
    pub fn good(name: &str) -> Self {
        McpServer::scripted(name, |_| Act::Well)
    }

    /// The same with a script that sees every message first.
    pub fn scripted(name: &str, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        McpServer::offering(name, Offers::tools(&["echo"]), script)
    }

    pub fn offering(name: &str, offers: Offers, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let state = Arc::new(State {
            name: name.to_owned(),
            offers,
            sessions: AtomicUsize::new(0),
            seen: Mutex::default(),
            script: Box::new(script),
        });
        let http = Upstream::http({
            let state = state.clone();
            move |request, peer| state.serve(request, peer)
        });
        McpServer { address: http.address, state, _http: http }
    }

    /// Its place in a backend's `targets`.
    pub fn target(&self, name: &str) -> Value {
        json!({ "name": name, "mcp": { "host": format!("http://{}/mcp", self.address) } })
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("no panic in between").clone()
    }

    /// How many messages of this method came.
    pub fn count(&self, method: &str) -> usize {
        self.seen().iter().filter(|seen| seen.method() == method).count()
    }

    /// Sessions that were opened.
    pub fn sessions(&self) -> usize {
        self.state.sessions.load(Ordering::SeqCst)
    }

    /// Waits for a message.
    #[track_caller]
    pub fn await_seen(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let mut found = None;
        eventually(&format!("{} saw {what}", self.state.name), || {
            found = self.seen().into_iter().find(&wanted);
            found.is_some()
        });
        found.expect("found")
    }
}

impl State {
    fn serve(&self, request: &Request, peer: &mut Peer) -> bool {
        let seen = Seen {
            verb: request.head.method().to_owned(),
            session: request.head.get("mcp-session-id").map(str::to_owned),
            message: serde_json::from_slice(&request.body).unwrap_or_default(),
            request: request.clone(),
        };
        self.seen.lock().expect("no panic in between").push(seen.clone());
        let bytes = match (self.script)(&seen) {
            Act::Well => self.well(&seen),
            Act::Result(result) => json_reply(&json!({ "jsonrpc": "2.0", "id": seen.id(), "result": result })),
            Act::Error(code, text) => {
                json_reply(&json!({ "jsonrpc": "2.0", "id": seen.id(), "error": { "code": code, "message": text } }))
            }
            Act::Bytes(bytes) => bytes,
            Act::Events(messages) => {
                let mut out = begin_events();
                messages.iter().for_each(|message| out.push_str(&event(message)));
                (out + "0\r\n\r\n").into_bytes()
            }
            Act::Own(serve) => {
                serve(peer);
                return false;
            }
            Act::Silence => {
                let _ = peer.rest();
                return false;
            }
            Act::Close => return false,
        };
        peer.try_send(bytes).is_ok()
    }

    fn well(&self, seen: &Seen) -> Vec<u8> {
        let result = match (seen.verb.as_str(), seen.method()) {
            ("GET", _) => return reply(405, &[], ""),
            ("DELETE", _) => return reply(200, &[], ""),
            (_, "initialize") => return self.initialize(seen),
            _ if seen.id().is_null() || seen.message.get("method").is_none() => return reply(202, &[], ""),
            (_, "ping" | "logging/setLevel") => json!({}),
            (_, "tools/list") => json!({ "tools": self.offers.tools }),
            (_, "resources/list") => json!({ "resources": self.offers.resources }),
            (_, "resources/templates/list") => json!({ "resourceTemplates": [] }),
            (_, "prompts/list") => json!({ "prompts": self.offers.prompts }),
            (_, "resources/read") => {
                let uri = &seen.message["params"]["uri"];
                json!({ "contents": [{ "uri": uri, "text": format!("{} has {}", self.name, uri.as_str().unwrap_or_default()) }] })
            }
            (_, "tools/call") => {
                let text = format!("{}: {} {}", self.name, seen.tool(), seen.message["params"]["arguments"]);
                json!({ "content": [{ "type": "text", "text": text }] })
            }
            _ => {
                let error = json!({ "code": -32601, "message": "no such method" });
                return json_reply(&json!({ "jsonrpc": "2.0", "id": seen.id(), "error": error }));
            }
        };
        json_reply(&json!({ "jsonrpc": "2.0", "id": seen.id(), "result": result }))
    }

    fn initialize(&self, seen: &Seen) -> Vec<u8> {
        let number = self.sessions.fetch_add(1, Ordering::SeqCst) + 1;
        let mut capabilities = json!({ "tools": {}, "logging": {} });
        if !self.offers.resources.is_empty() {
            capabilities["resources"] = json!({ "subscribe": true });
        }
        if !self.offers.prompts.is_empty() {
            capabilities["prompts"] = json!({});
        }
        let answer = json!({ "jsonrpc": "2.0", "id": seen.id(), "result": {
            "protocolVersion": seen.message["params"]["protocolVersion"],
            "capabilities": capabilities,
            "serverInfo": { "name": self.name, "version": "1" },
        } });
        let session = format!("{}-{number}", self.name);
        let headers = [("content-type", "application/json"), ("mcp-session-id", session.as_str())];
        reply(200, &headers, answer.to_string())
    }
}

pub fn json_reply(message: &Value) -> Vec<u8> {
    reply(200, &[("content-type", "application/json")], message.to_string())
}

/// The head of an event stream.
pub fn begin_events() -> String {
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()
}

/// One event in a chunk of its own.
pub fn event(message: &Value) -> String {
    chunk(&format!("event: message\ndata: {message}\n\n"))
}

/// The same with an id to come back to.
pub fn event_with_id(id: &str, message: &Value) -> String {
    chunk(&format!("id: {id}\ndata: {message}\n\n"))
}
