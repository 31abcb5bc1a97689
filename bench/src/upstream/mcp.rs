//! A fake MCP server over streamable HTTP (revisions with sessions): it parses the envelope of a message and answers from templates.
//! It holds no sessions: any session id is good, but all requests save `initialize` must bring one.

use super::Service;
use crate::message::{Message, Method, Start};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::Write;

/// How and what a fake MCP server answers.
#[derive(Debug, Clone)]
pub struct McpOptions {
    /// Whole JSON-RPC answer to tools/call, bytes, or the shortest there is.
    pub answer_bytes: usize,
    /// Answer requests by an event stream of one event, as the official SDKs do, and not by JSON.
    pub event_stream: bool,
    /// Tools in the list: `echo`, and others of about 1 KB each.
    pub tools: usize,
}

impl Default for McpOptions {
    fn default() -> Self {
        McpOptions { answer_bytes: 200, event_stream: false, tools: 1 }
    }
}

/// The tool that the load calls.
pub const TOOL: &str = "echo";

/// The server; one per upstream thread.
pub struct Mcp {
    options: McpOptions,
    call_text: String,
    tools: String,
    sessions: u64,
    result: Vec<u8>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct InitializeParams<'a> {
    #[serde(borrow, rename = "protocolVersion")]
    protocol_version: Cow<'a, str>,
}

impl Mcp {
    pub fn new(options: McpOptions) -> Mcp {
        // Measured with an id of ten digits, which is what the load sends.
        let frame = r#"{"jsonrpc":"2.0","id":1000000000,"result":{"content":[{"type":"text","text":""}]}}"#.len();
        let call_text = "y".repeat(options.answer_bytes.saturating_sub(frame));
        Mcp { call_text, tools: tool_list(options.tools), sessions: 0, result: Vec::new(), options }
    }

    fn request(&mut self, id: &str, method: &str, params: Option<&RawValue>, out: &mut Vec<u8>) {
        let mut result = std::mem::take(&mut self.result);
        result.clear();
        let outcome = self.result(method, params, &mut result);
        let mut session = None;
        if method == "initialize" {
            self.sessions += 1;
            session = Some(self.sessions);
        }
        self.respond(id, outcome, &result, session, out);
        self.result = result;
    }

    /// Writes the result, or says that the method is unknown.
    fn result(&self, method: &str, params: Option<&RawValue>, out: &mut Vec<u8>) -> bool {
        match method {
            "tools/call" => push(out, &[r#"{"content":[{"type":"text","text":""#, &self.call_text, r#""}]}"#]),
            "tools/list" => push(out, &[r#"{"tools":["#, &self.tools, "]}"]),
            "ping" => push(out, &["{}"]),
            "initialize" => {
                let params = params.and_then(|params| serde_json::from_str::<InitializeParams<'_>>(params.get()).ok());
                let version = params.map_or(Cow::Borrowed("2025-06-18"), |params| params.protocol_version);
                push(
                    out,
                    &[
                        r#"{"protocolVersion":""#,
                        &version,
                        r#"","capabilities":{"tools":{}},"serverInfo":{"name":"fake","version":"1"}}"#,
                    ],
                );
            }
            _ => return false,
        }
        true
    }

    fn respond(&self, id: &str, known: bool, result: &[u8], session: Option<u64>, out: &mut Vec<u8>) {
        let (field, content): (&str, &[u8]) = match known {
            true => (r#","result":"#, result),
            false => (r#","error":"#, br#"{"code":-32601,"message":"Method not found"}"#),
        };
        let parts: [&[u8]; 5] = [br#"{"jsonrpc":"2.0","id":"#, id.as_bytes(), field.as_bytes(), content, b"}"];
        let length: usize = parts.iter().map(|part| part.len()).sum();
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        if let Some(session) = session {
            let _ = write!(out, "Mcp-Session-Id: bench-{session:026}\r\n");
        }
        if !self.options.event_stream {
            let _ = write!(out, "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
            return parts.iter().for_each(|part| out.extend_from_slice(part));
        }
        let (open, close) = ("event: message\ndata: ", "\n\n");
        let head = "Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = write!(out, "{head}{:x}\r\n{open}", open.len() + length + close.len());
        parts.iter().for_each(|part| out.extend_from_slice(part));
        push(out, &[close, "\r\n0\r\n\r\n"]);
    }

    fn post(&mut self, request: &Message, body: &[u8], out: &mut Vec<u8>) {
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(body) else {
            return push(out, &["HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"]);
        };
        if request.session.is_none() && envelope.method.as_deref() != Some("initialize") {
            return push(out, &["HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"]);
        }
        match (envelope.id, envelope.method) {
            (Some(id), Some(method)) => self.request(id.get(), &method, envelope.params, out),
            // A notification, or an answer to something that this server never asks.
            _ => push(out, &["HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"]),
        }
    }
}

impl Service for Mcp {
    fn answer(&mut self, request: &Message, _bytes: &[u8], body: &[u8], out: &mut Vec<u8>) {
        match request.start {
            Start::Request(Method::Post) => self.post(request, body, out),
            Start::Request(Method::Delete) => push(out, &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]),
            // No stream of its own is offered, which the specification allows.
            _ => push(out, &["HTTP/1.1 405 Method Not Allowed\r\nAllow: POST, DELETE\r\nContent-Length: 0\r\n\r\n"]),
        }
    }
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

fn tool_list(count: usize) -> String {
    let schema = r#""inputSchema":{"type":"object","properties":{"text":{"type":"string"}}}"#;
    let echo = format!(r#"{{"name":"{TOOL}","description":"says it again",{schema}}}"#);
    let others = (1..count).map(|i| format!(r#"{{"name":"tool_{i}","description":"{}",{schema}}}"#, "d".repeat(880)));
    std::iter::once(echo).chain(others).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{self, Parsed};

    fn ask(server: &mut Mcp, header: &str, method: &str, body: &str) -> (u16, Option<String>, String) {
        let text = format!("{method} /mcp HTTP/1.1\r\n{header}Content-Length: {}\r\n\r\n{body}", body.len());
        let Ok(Parsed::Complete(request)) = message::request(text.as_bytes()) else { panic!("a whole request") };
        let mut out = Vec::new();
        let mut scratch = Vec::new();
        server.answer(&request, text.as_bytes(), request.body(text.as_bytes(), &mut scratch), &mut out);
        let Ok(Parsed::Complete(answer)) = message::answer(&out) else { panic!("a whole answer") };
        let session = answer.session.clone().map(|range| String::from_utf8_lossy(&out[range]).into_owned());
        let body = String::from_utf8_lossy(answer.body(&out, &mut scratch)).into_owned();
        (answer.status(), session, body)
    }

    fn ask_in_session(server: &mut Mcp, body: &str) -> (u16, String) {
        let (status, _, body) = ask(server, "Mcp-Session-Id: s\r\n", "POST", body);
        (status, body)
    }

    #[test]
    fn a_session_from_start_to_end() {
        let mut server = Mcp::new(McpOptions { tools: 3, ..McpOptions::default() });
        let (status, session, body) =
            ask(&mut server, "", "POST", r#"{"id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}"#);
        assert_eq!(status, 200);
        assert!(session.is_some());
        assert!(body.contains("2025-03-26"), "{body}");
        assert_eq!(ask_in_session(&mut server, r#"{"method":"notifications/initialized"}"#), (202, String::new()));
        let (_, list) = ask_in_session(&mut server, r#"{"id":"a","method":"tools/list"}"#);
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        assert_eq!(list["id"], "a");
        assert_eq!(list["result"]["tools"].as_array().map(Vec::len), Some(3));
        let (status, call) =
            ask_in_session(&mut server, r#"{"id":1000000007,"method":"tools/call","params":{"name":"echo"}}"#);
        assert_eq!((status, call.len()), (200, 200));
        assert!(call.contains(r#""id":1000000007"#), "{call}");
        assert!(ask_in_session(&mut server, r#"{"id":2,"method":"no/such"}"#).1.contains("-32601"));
        assert_eq!(ask(&mut server, "", "DELETE", "").0, 200);
        assert_eq!(ask(&mut server, "", "GET", "").0, 405);
    }

    #[test]
    fn wrong_requests_are_refused() {
        let mut server = Mcp::new(McpOptions::default());
        assert_eq!(ask(&mut server, "", "POST", r#"{"id":1,"method":"tools/list"}"#).0, 400, "no session");
        assert_eq!(ask_in_session(&mut server, "{").0, 400, "no JSON");
    }

    #[test]
    fn event_stream_of_one_event() {
        let mut server = Mcp::new(McpOptions { event_stream: true, ..McpOptions::default() });
        let (status, body) = ask_in_session(&mut server, r#"{"id":1000000001,"method":"tools/call"}"#);
        assert_eq!(status, 200);
        assert!(body.starts_with("event: message\ndata: {") && body.ends_with("}\n\n"), "{body}");
    }
}
