//! A scripted MCP server of the transport of 2024-11-05: a stream for everything that it says, a place for messages that
//! answers 202. It behaves well, except where the test says otherwise.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::eventually;
use super::mcp_server::begin_events;
use super::upstream::{Request, Upstream, chunk, reply};
use super::wire::Peer;

/// A server; its stream is at `/sse`. Its tool `echo` answers `<name>: echo <arguments>`.
pub struct SseServer {
    pub address: SocketAddr,
    state: Arc<State>,
    _http: Upstream,
}

/// What came: a message with its conversation, or `GET` of a stream, whose message is null.
#[derive(Clone, Debug)]
pub struct Heard {
    pub verb: String,
    pub path: String,
    /// The conversation, from 1.
    pub conversation: usize,
    pub message: Value,
    pub request: Request,
}

/// One conversation, for a script that speaks on its own.
#[derive(Clone)]
pub struct Voice(Arc<Mutex<TcpStream>>);

/// What the script makes of a message.
pub enum React {
    /// What a good server does.
    Well,
    /// 202, and nothing on the stream; the script has said what there is to say.
    Said,
    /// This status.
    Status(u16),
}

type Script = dyn Fn(&Heard, &Voice) -> React + Send + Sync;

struct State {
    name: String,
    endpoint: Box<dyn Fn(SocketAddr, usize) -> Option<String> + Send + Sync>,
    script: Box<Script>,
    voices: Mutex<HashMap<usize, Voice>>,
    conversations: AtomicUsize,
    ended: AtomicUsize,
    heard: Mutex<Vec<Heard>>,
    address: Mutex<Option<SocketAddr>>,
}

impl Heard {
    pub fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or_default()
    }

    pub fn tool(&self) -> &str {
        self.message["params"]["name"].as_str().unwrap_or_default()
    }
}

impl Voice {
    pub fn say(&self, message: &Value) {
        self.write(chunk(&format!("event: message\ndata: {message}\n\n")).as_bytes());
    }

    pub fn result(&self, heard: &Heard, result: Value) {
        self.say(&json!({ "jsonrpc": "2.0", "id": heard.message["id"], "result": result }));
    }

    /// Ends the stream in the middle.
    pub fn fall_silent(&self) {
        let _ = self.0.lock().expect("no panic in between").shutdown(Shutdown::Both);
    }

    fn write(&self, bytes: &[u8]) {
        // A client that has left hears nothing.
        let _ = self.0.lock().expect("no panic in between").write_all(bytes);
    }
}

impl SseServer {
    pub fn good(name: &str) -> Self {
        SseServer::scripted(name, |_, _| React::Well)
    }

    /// A server whose script sees every message first.
    pub fn scripted(name: &str, script: impl Fn(&Heard, &Voice) -> React + Send + Sync + 'static) -> Self {
        SseServer::naming(name, |_, conversation| Some(format!("/message?sessionId={conversation}")), script)
    }

    /// A server whose endpoint has another name; `None`: it never names one.
    pub fn naming(
        name: &str,
        endpoint: impl Fn(SocketAddr, usize) -> Option<String> + Send + Sync + 'static,
        script: impl Fn(&Heard, &Voice) -> React + Send + Sync + 'static,
    ) -> Self {
        let state = Arc::new(State {
            name: name.to_owned(),
            endpoint: Box::new(endpoint),
            script: Box::new(script),
            voices: Mutex::default(),
            conversations: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            heard: Mutex::default(),
            address: Mutex::default(),
        });
        let http = Upstream::http({
            let state = state.clone();
            move |request, peer| state.serve(request, peer)
        });
        *state.address.lock().expect("no panic in between") = Some(http.address);
        SseServer { address: http.address, state, _http: http }
    }

    /// Its place in a backend's `targets`, as what it is.
    pub fn target(&self, name: &str) -> Value {
        json!({ "name": name, "sse": { "host": format!("http://{}/sse", self.address) } })
    }

    /// The same as a target of unknown transport.
    pub fn unknown_target(&self, name: &str) -> Value {
        json!({ "name": name, "mcp": { "host": format!("http://{}/sse", self.address) } })
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.state.heard.lock().expect("no panic in between").clone()
    }

    pub fn count(&self, wanted: impl Fn(&Heard) -> bool) -> usize {
        self.heard().iter().filter(|heard| wanted(heard)).count()
    }

    /// Streams that were opened.
    pub fn conversations(&self) -> usize {
        self.state.conversations.load(Ordering::SeqCst)
    }

    /// Streams that the client has ended.
    pub fn ended(&self) -> usize {
        self.state.ended.load(Ordering::SeqCst)
    }

    pub fn voice(&self, conversation: usize) -> Voice {
        self.state.voices.lock().expect("no panic in between")[&conversation].clone()
    }

    #[track_caller]
    pub fn await_heard(&self, what: &str, wanted: impl Fn(&Heard) -> bool) -> Heard {
        let mut found = None;
        eventually(&format!("{} heard {what}", self.state.name), || {
            found = self.heard().into_iter().find(&wanted);
            found.is_some()
        });
        found.expect("found")
    }
}

impl State {
    fn serve(&self, request: &Request, peer: &mut Peer) -> bool {
        let target = request.head.target().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let verb = request.head.method().to_owned();
        let conversation = match verb.as_str() {
            "GET" if path == "/sse" => self.conversations.fetch_add(1, Ordering::SeqCst) + 1,
            _ => query.strip_prefix("sessionId=").and_then(|number| number.parse().ok()).unwrap_or_default(),
        };
        let message = serde_json::from_slice(&request.body).unwrap_or_default();
        let heard = Heard { verb, path: path.to_owned(), conversation, message, request: request.clone() };
        self.heard.lock().expect("no panic in between").push(heard.clone());
        match (heard.verb.as_str(), path) {
            ("GET", "/sse") => {
                self.stream(conversation, peer);
                false
            }
            (_, "/sse") => peer.try_send(reply(405, &[], "no such method here")).is_ok(),
            ("POST", "/message") => {
                let voice = self.voices.lock().expect("no panic in between").get(&conversation).cloned();
                let status = match voice {
                    None => 404,
                    Some(voice) => match (self.script)(&heard, &voice) {
                        React::Status(status) => status,
                        React::Said => 202,
                        React::Well => {
                            self.well(&heard, &voice);
                            202
                        }
                    },
                };
                peer.try_send(reply(status, &[], "Accepted")).is_ok()
            }
            _ => peer.try_send(reply(404, &[], "")).is_ok(),
        }
    }

    fn stream(&self, conversation: usize, peer: &mut Peer) {
        let voice = Voice(Arc::new(Mutex::new(peer.stream().try_clone().expect("a socket"))));
        self.voices.lock().expect("no panic in between").insert(conversation, voice.clone());
        voice.write(begin_events().as_bytes());
        let address = self.address.lock().expect("no panic in between").expect("bound");
        if let Some(endpoint) = (self.endpoint)(address, conversation) {
            voice.write(chunk(&format!(": hello\n\nevent: endpoint\ndata: {endpoint}\n\n")).as_bytes());
        }
        peer.patience(std::time::Duration::from_secs(3600));
        let _ = peer.rest();
        self.voices.lock().expect("no panic in between").remove(&conversation);
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn well(&self, heard: &Heard, voice: &Voice) {
        if heard.message["id"].is_null() || heard.message.get("method").is_none() {
            return;
        }
        let result = match heard.method() {
            "initialize" => json!({
                "protocolVersion": heard.message["params"]["protocolVersion"],
                "capabilities": { "tools": {}, "logging": {}, "resources": { "subscribe": true } },
                "serverInfo": { "name": self.name, "version": "1" },
            }),
            "ping" | "logging/setLevel" | "resources/subscribe" => json!({}),
            "tools/list" => json!({ "tools": [{ "name": "echo", "inputSchema": { "type": "object" } }] }),
            "resources/list" => json!({ "resources": [] }),
            "resources/templates/list" => json!({ "resourceTemplates": [] }),
            "tools/call" => {
                let text = format!("{}: {} {}", self.name, heard.tool(), heard.message["params"]["arguments"]);
                json!({ "content": [{ "type": "text", "text": text }] })
            }
            _ => {
                let error = json!({ "code": -32601, "message": "no such method" });
                return voice.say(&json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": error }));
            }
        };
        voice.result(heard, result);
    }
}
