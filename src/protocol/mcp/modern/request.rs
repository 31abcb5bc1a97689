//! A client's request of 2026-07-28: whether it is whole and says the same in its headers, what it declares, and how it
//! reads to a server of the revisions with sessions. Decided before anything is routed.

use agentlane_wire::h1::{Headers, Known};
use agentlane_wire::json::{self, Envelope, JsonError, Range32, Splice, ValueKind};
use bytes::{Bytes, BytesMut};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use super::headers::{agrees, name_of};
use super::{META_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_VERSION, VERSION};
use crate::fault::{Fault, Kind};
use crate::protocol::mcp::method::LogLevel;
use crate::protocol::mcp::revision::Revision;

/// A fault with what its error object carries beside the message, as JSON text.
#[derive(Debug)]
pub struct Refusal {
    pub fault: Fault,
    pub data: Option<Bytes>,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Refusal { fault, data: None }
    }
}

impl Refusal {
    fn new(kind: Kind, message: &'static str) -> Self {
        Fault::new(kind, message).into()
    }

    /// The client did not declare `capabilities` (JSON text of a ClientCapabilities object), which the request needs.
    pub fn missing_capability(capabilities: &str) -> Self {
        let fault = Fault::new(Kind::CapabilityUndeclared, "the client did not declare a capability that this needs");
        Refusal { fault, data: Some(Bytes::from(format!("{{\"requiredCapabilities\":{capabilities}}}"))) }
    }

    fn unsupported_version(requested: &str) -> Self {
        let mut data = BytesMut::from(&b"{\"supported\":["[..]);
        json::quote_into(&mut data, VERSION);
        data.extend_from_slice(b"],\"requested\":");
        json::quote_into(&mut data, requested);
        data.extend_from_slice(b"}");
        Refusal { fault: Fault::new(Kind::VersionUnknown, "unsupported protocol version"), data: Some(data.freeze()) }
    }
}

/// Whether the headers name a version that no session can have: such a message is judged by the rules of this revision.
pub fn is_announced(headers: &Headers) -> bool {
    headers.known(Known::McpProtocolVersion).is_some_and(|version| Revision::parse(version).is_none())
}

/// Judges a request's envelope and headers, in the order in which a client can act on the answer: the envelope whole
/// (-32602), the version's header (-32020), the version (-32022), the other headers (-32020).
///
/// # Errors
/// All of them are answered with 400.
pub fn check(headers: &Headers, body: &[u8], envelope: &Envelope) -> Result<(), Refusal> {
    let version = envelope_of(body, envelope)?;
    let repeated = |known, value| repeated(headers, known, body, value);
    repeated(Known::McpProtocolVersion, version)
        .map_err(|wrong| Refusal::new(Kind::HeaderMismatch, wrong.of("mcp-protocol-version")))?;
    if !json::raw_eq(body, version, VERSION) {
        return Err(Refusal::unsupported_version(&json::string(body, version).unwrap_or_default()));
    }
    if let Some(method) = envelope.method {
        repeated(Known::McpMethod, method)
            .map_err(|wrong| Refusal::new(Kind::HeaderMismatch, wrong.of("mcp-method")))?;
    }
    if let Some(name) = name_of(body, envelope) {
        repeated(Known::McpName, name).map_err(|wrong| Refusal::new(Kind::HeaderMismatch, wrong.of("mcp-name")))?;
    }
    Ok(())
}

/// The version of a whole envelope (schema, `RequestMetaObject`).
fn envelope_of(body: &[u8], envelope: &Envelope) -> Result<Range32, Refusal> {
    let wrong = |message| Refusal::new(Kind::InvalidParams, message);
    let is = |range: Range32, kind| json::kind_of(body, range) == Some(kind);
    if envelope.meta.is_none_or(|meta| !is(meta, ValueKind::Object)) {
        return Err(wrong("params._meta is missing"));
    }
    let version = envelope.meta_protocol_version.filter(|range| is(*range, ValueKind::String));
    let version = version.ok_or_else(|| wrong("_meta io.modelcontextprotocol/protocolVersion is missing"))?;
    if envelope.meta_client_capabilities.is_none_or(|range| !is(range, ValueKind::Object)) {
        return Err(wrong("_meta io.modelcontextprotocol/clientCapabilities is missing"));
    }
    if envelope.meta_client_info.is_some_and(|range| !is(range, ValueKind::Object)) {
        return Err(wrong("_meta io.modelcontextprotocol/clientInfo is not an object"));
    }
    if envelope.meta_log_level.is_some_and(|range| LogLevel::of(body, range).is_none()) {
        return Err(wrong("unknown log level"));
    }
    Ok(version)
}

enum Repeat {
    Missing,
    Differs,
}

impl Repeat {
    /// As the client reads it.
    fn of(&self, header: &'static str) -> &'static str {
        match (self, header) {
            (Repeat::Missing, "mcp-protocol-version") => "header mcp-protocol-version is missing",
            (Repeat::Missing, "mcp-method") => "header mcp-method is missing",
            (Repeat::Missing, _) => "header mcp-name is missing",
            (Repeat::Differs, "mcp-protocol-version") => "header mcp-protocol-version differs from the body",
            (Repeat::Differs, "mcp-method") => "header mcp-method differs from the body",
            (Repeat::Differs, _) => "header mcp-name differs from the body",
        }
    }
}

/// Whether a header is there and each of its lines says what the body does.
fn repeated(headers: &Headers, known: Known, body: &[u8], value: Range32) -> Result<(), Repeat> {
    let mut lines = headers.known_all(known).peekable();
    if lines.peek().is_none() {
        return Err(Repeat::Missing);
    }
    if lines.all(|line| agrees(line, body, value)) { Ok(()) } else { Err(Repeat::Differs) }
}

/// What a client declared that a server may ask it for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    pub form: bool,
    pub url: bool,
    pub sampling: bool,
    pub sampling_tools: bool,
    pub roots: bool,
}

impl Declared {
    /// Reads a ClientCapabilities object. An `elicitation` that names no mode means forms.
    pub fn of(body: &[u8], capabilities: Range32) -> Declared {
        let has = |path: &[&str]| {
            json::get_path(body, capabilities, path)
                .ok()
                .flatten()
                .is_some_and(|value| json::kind_of(body, value) == Some(ValueKind::Object))
        };
        let url = has(&["elicitation", "url"]);
        Declared {
            form: has(&["elicitation", "form"]) || (has(&["elicitation"]) && !url),
            url,
            sampling: has(&["sampling"]),
            sampling_tools: has(&["sampling", "tools"]),
            roots: has(&["roots"]),
        }
    }
}

/// Edits a request into one of the revisions with sessions: another id, the envelope and the answers of a retry gone, the
/// progress token, where there is one, another too.
pub fn into_legacy(splice: &mut Splice, body: &[u8], envelope: &Envelope, id: &Bytes) -> Result<(), JsonError> {
    if let Some(own) = envelope.answer_id() {
        splice.replace(own, id.clone());
    }
    let (Some(params), Some(meta)) = (envelope.params, envelope.meta) else { return Ok(()) };
    let meta = meta_for_legacy(body, meta, envelope.meta_progress_token.map(|_| id))?;
    // A `task` that means nothing in this revision would make one in the other.
    let task = envelope.method_is(body, "tools/call");
    let gone = ["inputResponses", "requestState", if task { "task" } else { "requestState" }];
    match meta {
        Some(meta) => splice.edit_object(body, params, &[("_meta", &meta)], &gone),
        None => splice.edit_object(body, params, &[], &["_meta", gone[0], gone[1], gone[2]]),
    }
}

/// What is left of `_meta`; `None` when nothing is.
fn meta_for_legacy(body: &[u8], meta: Range32, token: Option<&Bytes>) -> Result<Option<Bytes>, JsonError> {
    const RESERVED: [&str; 4] = [META_VERSION, META_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL];
    let text = Bytes::copy_from_slice(meta.of(body).unwrap_or_default());
    let mut splice = Splice::new();
    let set: &[(&str, &[u8])] = match token {
        Some(token) => &[("progressToken", token)],
        None => &[],
    };
    splice.edit_object(&text, json::root(&text)?, set, &RESERVED)?;
    let text = splice.contiguous(&text)?;
    let is_empty = json::members(&text, json::root(&text)?).next().is_none();
    Ok((!is_empty).then_some(text))
}

/// Says whether a retry asks for what the first request asked for: the method and the parameters without what a retry
/// changes.
pub type Digest = [u8; SHA256_OUTPUT_LEN];

/// See [`Digest`]. The order of the parameters does not matter.
pub fn digest(body: &[u8], envelope: &Envelope) -> Digest {
    const CHANGING: [&str; 3] = ["_meta", "inputResponses", "requestState"];
    let mut parts: Vec<(&[u8], &[u8])> = Vec::new();
    if let Some(params) = envelope.params {
        for member in json::members(body, params).map_while(Result::ok) {
            if !CHANGING.iter().any(|key| json::raw_eq(body, member.key, key)) {
                parts.push((member.key.of(body).unwrap_or_default(), member.value.of(body).unwrap_or_default()));
            }
        }
    }
    parts.sort_unstable();
    let mut context = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    };
    add(envelope.method.and_then(|range| range.of(body)).unwrap_or_default());
    for (key, value) in parts {
        add(key);
        add(value);
    }
    let mut digest = [0; SHA256_OUTPUT_LEN];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use agentlane_wire::h1::{HeadLimits, parse_request};
    use agentlane_wire::json::ScanLimits;
    use serde_json::{Value, json};

    use super::*;

    fn checked(headers: &str, body: &Value) -> Option<(i32, Option<Value>)> {
        let mut buffer = BytesMut::from(format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n").as_bytes());
        let head = parse_request(&mut buffer, &HeadLimits::default()).unwrap().unwrap();
        let body = body.to_string();
        let envelope = json::scan(body.as_bytes(), &ScanLimits::default()).unwrap();
        let refusal = check(&head.headers, body.as_bytes(), &envelope).err()?;
        assert_eq!(refusal.fault.kind.http_status(), 400);
        Some((refusal.fault.kind.rpc_code(), refusal.data.map(|data| serde_json::from_slice(&data).unwrap())))
    }

    fn call(version: &str) -> Value {
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "täst", "_meta": {
            META_VERSION: version, META_CAPABILITIES: {} } } })
    }

    #[test]
    fn what_is_checked_and_in_which_order() {
        let version = "mcp-protocol-version: 2026-07-28\r\n";
        let method = "Mcp-Method: tools/call\r\n";
        let name = "mcp-name: =?base64?dMOkc3Q=?=\r\n";
        let good = call(VERSION);
        let code = |headers: &str, body: &Value| checked(headers, body).map(|(code, _)| code);
        assert_eq!(code(&format!("{version}{method}{name}"), &good), None);
        assert_eq!(code(&format!("{method}{name}"), &good), Some(-32020));
        assert_eq!(code(&format!("mcp-protocol-version: 2025-11-25\r\n{method}{name}"), &good), Some(-32020));
        assert_eq!(code(&format!("{version}{name}"), &good), Some(-32020));
        assert_eq!(code(&format!("{version}mcp-method: Tools/Call\r\n{name}"), &good), Some(-32020));
        assert_eq!(code(&format!("{version}{method}"), &good), Some(-32020));
        assert_eq!(code(&format!("{version}{method}mcp-name: tast\r\n"), &good), Some(-32020));
        assert_eq!(code(&format!("{version}{method}mcp-name: =?base64?dMOkc3Q?=\r\n"), &good), Some(-32020));
        assert_eq!(code(&format!("{version}{method}{name}mcp-name: other\r\n"), &good), Some(-32020));
        let (unknown, data) = checked("mcp-protocol-version: v9\r\n", &call("v9")).unwrap();
        assert_eq!((unknown, data), (-32022, Some(json!({ "supported": [VERSION], "requested": "v9" }))));
        for (pointer, value) in [
            ("/params", json!({})),
            ("/params/_meta", json!({})),
            ("/params/_meta", json!({ META_VERSION: VERSION })),
            ("/params/_meta", json!({ META_CAPABILITIES: {} })),
            ("/params/_meta", json!({ META_VERSION: VERSION, META_CAPABILITIES: [] })),
            ("/params/_meta", json!({ META_VERSION: VERSION, META_CAPABILITIES: {}, META_LOG_LEVEL: "loud" })),
        ] {
            let mut broken = good.clone();
            *broken.pointer_mut(pointer).unwrap() = value;
            assert_eq!(code(&format!("{version}{method}{name}"), &broken), Some(-32602), "{broken}");
        }
    }

    #[test]
    fn a_legacy_server_reads_a_request_of_its_own() {
        let cases = [
            (
                json!({ "name": "a", "task": { "ttl": 1 }, "_meta": { META_VERSION: VERSION, META_CAPABILITIES: {} },
                    "inputResponses": {} }),
                json!({ "name": "a" }),
            ),
            (
                json!({ "_meta": { META_VERSION: VERSION, META_CAPABILITIES: {}, "progressToken": "t", "traceparent": "x" },
                    "requestState": "s", "name": "a" }),
                json!({ "_meta": { "progressToken": 77, "traceparent": "x" }, "name": "a" }),
            ),
            (json!({ "_meta": { META_VERSION: VERSION, META_CAPABILITIES: {} } }), json!({})),
        ];
        for (modern, legacy) in cases {
            let body = json!({ "jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": modern }).to_string();
            let envelope = json::scan(body.as_bytes(), &ScanLimits::default()).unwrap();
            let mut splice = Splice::new();
            into_legacy(&mut splice, body.as_bytes(), &envelope, &Bytes::from_static(b"77")).unwrap();
            let text = splice.contiguous(&Bytes::from(body)).unwrap();
            let value: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(value, json!({ "jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": legacy }));
        }
    }

    #[test]
    fn a_retry_is_the_same_request() {
        let of = |params: &str| {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
            digest(body.as_bytes(), &json::scan(body.as_bytes(), &ScanLimits::default()).unwrap())
        };
        let first = of(r#"{"name":"a","arguments":{"x":1},"_meta":{"progressToken":1}}"#);
        assert_eq!(first, of(r#"{"arguments":{"x":1},"requestState":"s","inputResponses":{},"_meta":{},"name":"a"}"#));
        assert_ne!(first, of(r#"{"name":"b","arguments":{"x":1}}"#));
        assert_ne!(first, of(r#"{"name":"a","arguments":{"x":2}}"#));
        assert_ne!(first, of(r#"{"name":"a"}"#));
    }

    #[test]
    fn declared_capabilities() {
        let of = |text: &str| Declared::of(text.as_bytes(), json::root(text.as_bytes()).unwrap());
        assert_eq!(of("{}"), Declared::default());
        assert_eq!(of(r#"{"elicitation":{}}"#), Declared { form: true, ..Declared::default() });
        assert_eq!(of(r#"{"elicitation":{"url":{}}}"#), Declared { url: true, ..Declared::default() });
        assert_eq!(
            of(r#"{"elicitation":{"url":{},"form":{}},"sampling":{"tools":{}},"roots":{}}"#),
            Declared { form: true, url: true, sampling: true, sampling_tools: true, roots: true }
        );
    }
}
