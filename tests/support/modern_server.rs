//! A scripted MCP server of 2026-07-28 alone: it demands the envelope and the headers of that revision, refuses what is of
//! the older ones, and behaves well except where the test says otherwise.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::eventually;
use super::mcp_server::{Act, Offers, Seen, begin_events, event, json_reply};
use super::upstream::{Upstream, reply};
use super::wire::Peer;

pub const VERSION: &str = "2026-07-28";
const META: &str = "io.modelcontextprotocol";

/// A server. Its tools answer `<name>: <tool> <arguments>`.
pub struct ModernServer {
    pub address: SocketAddr,
    state: Arc<State>,
    http: Upstream,
}

type Script = dyn Fn(&Seen) -> Act + Send + Sync;

struct State {
    name: String,
    offers: Offers,
    seen: Mutex<Vec<Seen>>,
    script: Box<Script>,
}

impl ModernServer {
    pub fn good(name: &str) -> Self {
        ModernServer::offering(name, Offers::tools(&["echo"]), |_| Act::Well)
    }

    /// With a script that sees every message that is right first.
    pub fn scripted(name: &str, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        ModernServer::offering(name, Offers::tools(&["echo"]), script)
    }

    /// While `elsewhere` gives an address, everything that comes is answered by the server there.
    pub fn switching(name: &str, elsewhere: impl Fn() -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        let own = ModernServer::good(name);
        let state = own.state.clone();
        let http = Upstream::http(move |request, peer| match elsewhere() {
            None => state.serve(request, peer),
            Some(address) => {
                let head = &request.head;
                let mut parts = head.start_line.split(' ');
                let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                let kept = |name: &str| !matches!(name, "content-length" | "host" | "connection");
                let headers: Vec<(&str, &str)> =
                    head.headers.iter().filter(|(name, _)| kept(name)).map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let answer = Peer::connect(address).ask(method, path, &headers, &request.body);
                let kept: Vec<(&str, &str)> = answer
                    .head
                    .headers
                    .iter()
                    .filter(|(name, _)| kept(name) && name != "transfer-encoding")
                    .map(|(n, v)| (n.as_str(), v.as_str()))
                    .collect();
                peer.try_send(reply(answer.status, &kept, &answer.body)).is_ok()
            }
        });
        ModernServer { address: http.address, state: own.state.clone(), http }
    }

    pub fn offering(name: &str, offers: Offers, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let state = Arc::new(State { name: name.to_owned(), offers, seen: Mutex::default(), script: Box::new(script) });
        let http = Upstream::http({
            let state = state.clone();
            move |request, peer| state.serve(request, peer)
        });
        ModernServer { address: http.address, state, http }
    }

    /// The target of a configuration.
    pub fn target(&self, name: &str) -> Value {
        json!({ "name": name, "mcp": { "host": format!("http://{}/mcp", self.address) } })
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("no panic in between").clone()
    }

    /// What came with this method.
    pub fn of(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method() == method).collect()
    }

    #[track_caller]
    pub fn await_seen(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let mut found = None;
        eventually(&format!("{} saw {what}", self.state.name), || {
            found = self.seen().into_iter().find(&wanted);
            found.is_some()
        });
        found.expect("found")
    }

    pub fn connections(&self) -> usize {
        self.http.connections()
    }
}

/// The envelope of a message, by the last part of the key.
pub fn meta<'a>(seen: &'a Seen, key: &str) -> &'a Value {
    &seen.message["params"]["_meta"][format!("{META}/{key}")]
}

/// A result that asks for more.
pub fn input_required(requests: Value, state: Option<&str>) -> Act {
    let mut result = json!({ "resultType": "input_required" });
    if !requests.is_null() {
        result["inputRequests"] = requests;
    }
    if let Some(state) = state {
        result["requestState"] = state.into();
    }
    Act::Result(result)
}

impl State {
    fn serve(&self, request: &super::upstream::Request, peer: &mut Peer) -> bool {
        let seen = Seen {
            verb: request.head.method().to_owned(),
            session: request.head.get("mcp-session-id").map(str::to_owned),
            message: serde_json::from_slice(&request.body).unwrap_or_default(),
            request: request.clone(),
        };
        self.seen.lock().expect("no panic in between").push(seen.clone());
        if let Some(refusal) = refusal(&seen) {
            return peer.try_send(refusal).is_ok();
        }
        let bytes = match (self.script)(&seen) {
            Act::Well => self.well(&seen),
            Act::Result(mut result) => {
                if result.get("resultType").is_none() {
                    result["resultType"] = "complete".into();
                }
                json_reply(&json!({ "jsonrpc": "2.0", "id": seen.id(), "result": result }))
            }
            Act::Error(code, text) => error(400, seen.id(), code, text, Value::Null),
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
        let params = &seen.message["params"];
        let cached = |mut result: Value| {
            result["ttlMs"] = 60_000.into();
            result["cacheScope"] = "public".into();
            result
        };
        let mut result = match seen.method() {
            "server/discover" => cached(self.discovery()),
            "tools/list" => cached(json!({ "tools": self.offers.tools })),
            "resources/list" => cached(json!({ "resources": self.offers.resources })),
            "resources/templates/list" => cached(json!({ "resourceTemplates": [] })),
            "prompts/list" => cached(json!({ "prompts": self.offers.prompts })),
            "resources/read" => {
                let known = self.offers.resources.iter().any(|resource| resource["uri"] == params["uri"]);
                if !known {
                    return error(400, seen.id(), -32602, "no such resource", json!({ "uri": params["uri"] }));
                }
                let text = format!("{} has {}", self.name, params["uri"].as_str().unwrap_or_default());
                cached(json!({ "contents": [{ "uri": params["uri"], "text": text }] }))
            }
            "prompts/get" => {
                let content = json!({ "type": "text", "text": format!("{}: {}", self.name, params["name"]) });
                json!({ "messages": [{ "role": "user", "content": content }] })
            }
            "completion/complete" => json!({ "completion": { "values": [self.name] } }),
            "tools/call" => {
                let text = format!("{}: {} {}", self.name, seen.tool(), params["arguments"]);
                json!({ "content": [{ "type": "text", "text": text }] })
            }
            _ => return error(404, seen.id(), -32601, "no such method", Value::Null),
        };
        result["resultType"] = "complete".into();
        result["_meta"] = json!({ format!("{META}/serverInfo"): { "name": self.name, "version": "1" } });
        json_reply(&json!({ "jsonrpc": "2.0", "id": seen.id(), "result": result }))
    }

    fn discovery(&self) -> Value {
        let mut capabilities = json!({ "tools": { "listChanged": true }, "logging": {}, "completions": {} });
        if !self.offers.resources.is_empty() {
            capabilities["resources"] = json!({ "subscribe": true });
        }
        if !self.offers.prompts.is_empty() {
            capabilities["prompts"] = json!({});
        }
        json!({ "supportedVersions": [VERSION], "capabilities": capabilities, "instructions": format!("use {}", self.name) })
    }
}

/// What a server of this revision alone says to a message that is not of it.
fn refusal(seen: &Seen) -> Option<Vec<u8>> {
    if seen.verb != "POST" {
        return Some(reply(405, &[], ""));
    }
    let (header, params) = (|name| seen.request.head.get(name), &seen.message["params"]);
    let said = meta(seen, "protocolVersion");
    if said.is_null() && seen.method() == "initialize" {
        let data = json!({ "supported": [VERSION], "requested": params["protocolVersion"] });
        return Some(error(400, seen.id(), -32022, "unsupported version", data));
    }
    if said.is_null() || meta(seen, "clientCapabilities").is_null() {
        return Some(error(400, seen.id(), -32602, "no envelope", Value::Null));
    }
    let name = match seen.method() {
        "tools/call" | "prompts/get" => params["name"].as_str(),
        "resources/read" => params["uri"].as_str(),
        "tasks/get" | "tasks/update" | "tasks/cancel" => params["taskId"].as_str(),
        _ => None,
    };
    let agrees = header("mcp-protocol-version") == said.as_str()
        && header("mcp-method") == Some(seen.method())
        && header("mcp-name") == name;
    (!agrees).then(|| error(400, seen.id(), -32020, "headers differ from the body", Value::Null))
}

pub fn error(status: u16, id: &Value, code: i64, message: &str, data: Value) -> Vec<u8> {
    let mut error = json!({ "code": code, "message": message });
    if !data.is_null() {
        error["data"] = data;
    }
    let body = json!({ "jsonrpc": "2.0", "id": id, "error": error });
    reply(status, &[("content-type", "application/json")], body.to_string())
}
