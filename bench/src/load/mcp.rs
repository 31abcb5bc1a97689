//! MCP sessions over streamable HTTP, and tools/call as work. The set-up is by the book and read with a JSON parser; the hot loop patches ids into
//! ready-made requests and looks for them in the answers.

use super::caller::{Answer, Caller};
use super::{Failure, Work};
use crate::message::Message;
use crate::upstream::mcp::TOOL;
use serde_json::Value;
use std::io;
use std::net::{SocketAddr, TcpStream};

/// The newest revision with sessions; the server may answer with another.
const PROTOCOL_VERSION: &str = "2025-11-25";
/// Ids of calls begin here, so that all have ten digits and a request keeps its length.
const FIRST_ID: u64 = 1_000_000_000;
const ID_DIGITS: usize = 10;

/// Where an MCP server is reached.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub path: String,
}

/// An open session and the connection that it was opened on.
pub struct Session {
    endpoint: Endpoint,
    caller: Caller,
    /// The header lines that every request of the session carries.
    headers: String,
}

impl Session {
    /// `initialize` and `notifications/initialized`.
    pub fn open(endpoint: &Endpoint) -> io::Result<Session> {
        let mut caller = Caller::connect(endpoint.address)?;
        let params = format!(
            r#"{{"protocolVersion":"{PROTOCOL_VERSION}","capabilities":{{}},"clientInfo":{{"name":"agentlane-bench","version":"1"}}}}"#
        );
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{params}}}"#);
        let answer = caller.call(&post(endpoint, "", &body))?;
        let result = result_of("initialize", &answer)?;
        let version = result["protocolVersion"].as_str().unwrap_or(PROTOCOL_VERSION);
        let session = answer.session.map(|id| format!("Mcp-Session-Id: {id}\r\n")).unwrap_or_default();
        let headers = format!("MCP-Protocol-Version: {version}\r\n{session}");
        let mut session = Session { endpoint: endpoint.clone(), caller, headers };
        let answer = session.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)?;
        if answer.status != 202 {
            return Err(unexpected("notifications/initialized", &answer));
        }
        Ok(session)
    }

    /// Names of the tools that end with `echo`, which a gateway may have prefixed with the name of their target. Only the first page is read.
    pub fn echo_tools(&mut self) -> io::Result<Vec<String>> {
        let answer = self.post(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#)?;
        let result = result_of("tools/list", &answer)?;
        let tools = result["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
        let names = tools.iter().filter_map(|tool| tool["name"].as_str());
        Ok(names.filter(|name| name.ends_with(TOOL)).map(str::to_owned).collect())
    }

    /// Asks for the session's own stream and leaves it unread.
    pub fn open_stream(&mut self) -> io::Result<()> {
        let Endpoint { address, path } = &self.endpoint;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{}\r\n", self.headers);
        self.caller.send(request.as_bytes())
    }

    /// Ends the session, on a connection of its own: the session's may have a stream on it.
    pub fn end(&self) -> io::Result<()> {
        let Endpoint { address, path } = &self.endpoint;
        let request = format!("DELETE {path} HTTP/1.1\r\nHost: {address}\r\n{}\r\n", self.headers);
        let answer = Caller::connect(*address)?.call(request.as_bytes())?;
        // 405: the server lets no client end a session, which the specification allows.
        if (200..300).contains(&answer.status) || answer.status == 405 {
            Ok(())
        } else {
            Err(unexpected("DELETE", &answer))
        }
    }

    /// A tools/call whose body has `body_bytes` bytes or the fewest there can be.
    pub fn call_template(&self, tool: &str, body_bytes: usize) -> CallTemplate {
        let tool = Value::from(tool).to_string();
        let frame = |text: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":{FIRST_ID},"method":"tools/call","params":{{"name":{tool},"arguments":{{"text":"{text}"}}}}}}"#
            )
        };
        let body = frame(&"x".repeat(body_bytes.saturating_sub(frame("").len())));
        let request = post(&self.endpoint, &self.headers, &body);
        let id_at = request.len() - body.len() + r#"{"jsonrpc":"2.0","id":"#.len();
        CallTemplate { request, id_at }
    }

    pub fn into_socket(self) -> TcpStream {
        self.caller.into_socket()
    }

    fn post(&mut self, body: &str) -> io::Result<Answer> {
        self.caller.call(&post(&self.endpoint, &self.headers, body))
    }
}

/// A whole tools/call request with a place for its id.
pub struct CallTemplate {
    request: Vec<u8>,
    id_at: usize,
}

impl CallTemplate {
    /// The request with this id. Ids outgrow their ten digits after nine thousand million calls.
    pub fn with_id(&mut self, id: u64) -> &[u8] {
        self.request[self.id_at..self.id_at + ID_DIGITS].copy_from_slice(&digits(id));
        &self.request
    }
}

/// tools/call on one session per lane, the tools in turn.
pub struct Calls {
    lanes: Vec<CallLane>,
    answer_bytes: usize,
    scratch: Vec<u8>,
}

struct CallLane {
    templates: Vec<CallTemplate>,
    next_id: u64,
}

impl Calls {
    /// Opens one session per lane, and finds at least `targets` tools to call. Sizes are of bodies; an answer may be longer, never shorter.
    pub fn open(endpoint: &Endpoint, lanes: usize, options: &CallOptions) -> io::Result<(Calls, Vec<TcpStream>)> {
        let mut calls = Calls { lanes: Vec::new(), answer_bytes: options.answer_bytes, scratch: Vec::new() };
        let mut sockets = Vec::new();
        for _ in 0..lanes {
            let mut session = Session::open(endpoint)?;
            let tools = session.echo_tools()?;
            if tools.len() < options.targets {
                return Err(io::Error::other(format!(
                    "tools/list has {} tools named {TOOL}, expected {}",
                    tools.len(),
                    options.targets
                )));
            }
            let templates = tools.iter().map(|tool| session.call_template(tool, options.request_bytes)).collect();
            calls.lanes.push(CallLane { templates, next_id: FIRST_ID });
            sockets.push(session.into_socket());
        }
        Ok((calls, sockets))
    }
}

/// What is called, and what must come back.
#[derive(Debug, Clone)]
pub struct CallOptions {
    /// Targets behind the endpoint, each with the tool.
    pub targets: usize,
    pub request_bytes: usize,
    pub answer_bytes: usize,
}

impl Work for Calls {
    fn request(&mut self, lane: usize) -> &[u8] {
        let lane = &mut self.lanes[lane];
        lane.next_id += 1;
        let turn = lane.next_id as usize % lane.templates.len();
        lane.templates[turn].with_id(lane.next_id)
    }

    fn check(&mut self, lane: usize, answer: &Message, bytes: &[u8]) -> Result<(), Failure> {
        if answer.status() != 200 {
            return Err(Failure::Status);
        }
        let body = answer.body(bytes, &mut self.scratch);
        let right = body.len() >= self.answer_bytes
            && has_id(body, self.lanes[lane].next_id)
            && memchr::memmem::find(body, b"\"result\"").is_some();
        if right { Ok(()) } else { Err(Failure::Content) }
    }
}

/// Whether the answer carries the id as a number. A text that held the same bytes would fool it; the fake upstream's texts do not.
fn has_id(body: &[u8], id: u64) -> bool {
    const KEY: &[u8] = b"\"id\":";
    let Some(at) = memchr::memmem::find(body, KEY) else {
        return false;
    };
    body[at + KEY.len()..].trim_ascii_start().starts_with(&digits(id))
}

fn digits(id: u64) -> [u8; ID_DIGITS] {
    let mut digits = [b'0'; ID_DIGITS];
    let mut rest = id;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

fn post(endpoint: &Endpoint, headers: &str, body: &str) -> Vec<u8> {
    let Endpoint { address, path } = endpoint;
    let accept = "Accept: application/json, text/event-stream\r\nContent-Type: application/json";
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{accept}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The result in a JSON answer, or in the one event of an event stream that has it.
fn result_of(method: &str, answer: &Answer) -> io::Result<Value> {
    let documents: Vec<&str> = match answer.event_stream {
        true => answer.body.lines().filter_map(|line| line.strip_prefix("data:")).collect(),
        false => vec![&answer.body],
    };
    let mut results = documents
        .into_iter()
        .filter_map(|text| serde_json::from_str::<Value>(text).ok()?.get_mut("result").map(Value::take));
    match results.next() {
        Some(result) if answer.status == 200 => Ok(result),
        _ => Err(unexpected(method, answer)),
    }
}

fn unexpected(method: &str, answer: &Answer) -> io::Error {
    let start: String = answer.body.chars().take(200).collect();
    io::Error::other(format!("{method}: unexpected answer, status {}: {start}", answer.status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::ClosedLoop;
    use crate::upstream::Upstream;
    use crate::upstream::mcp::{Mcp, McpOptions};
    use std::time::Duration;

    fn check(options: McpOptions) {
        let upstream = Upstream::start(Mcp::new(options), Duration::ZERO, None).expect("starts");
        let endpoint = Endpoint { address: upstream.address, path: "/mcp".into() };
        let options = CallOptions { targets: 1, request_bytes: 200, answer_bytes: 200 };
        let (calls, sockets) = Calls::open(&endpoint, 4, &options).expect("sessions open");
        let mut load = ClosedLoop::over(upstream.address, sockets, calls).expect("connected");
        let tally = load.run(Duration::from_millis(200)).expect("the loop runs");
        assert!(tally.requests > 100, "{}", tally.requests);
        assert_eq!(tally.failed(), 0);
    }

    #[test]
    fn calls_are_answered_as_json_or_event_stream() {
        check(McpOptions::default());
        check(McpOptions { event_stream: true, ..McpOptions::default() });
    }

    #[test]
    fn templates_have_the_size_asked_for_and_take_ids() {
        let upstream = Upstream::start(Mcp::new(McpOptions::default()), Duration::ZERO, None).expect("starts");
        let session = Session::open(&Endpoint { address: upstream.address, path: "/".into() }).expect("opens");
        let mut template = session.call_template("one_echo", 200);
        let request = String::from_utf8_lossy(template.with_id(1_234_567_890)).into_owned();
        let (_, body) = request.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body.len(), 200);
        assert_eq!(serde_json::from_str::<Value>(body).expect("JSON")["id"], 1_234_567_890_u64);
        session.end().expect("ends");
    }

    #[test]
    fn ids() {
        let check = |body: &str, right| assert_eq!(has_id(body.as_bytes(), 1_000_000_007), right, "{body}");
        check(r#"{"id":1000000007,"result":{}}"#, true);
        check(r#"{"id": 1000000007}"#, true);
        check(r#"{"id":1000000008}"#, false);
        check(r#"{"id":"1000000007"}"#, false);
        check("{}", false);
    }

    #[test]
    fn too_few_tools_are_an_error() {
        let upstream = Upstream::start(Mcp::new(McpOptions::default()), Duration::ZERO, None).expect("starts");
        let endpoint = Endpoint { address: upstream.address, path: "/".into() };
        let options = CallOptions { targets: 2, request_bytes: 200, answer_bytes: 200 };
        assert!(Calls::open(&endpoint, 1, &options).is_err());
    }
}
