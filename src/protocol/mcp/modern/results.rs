//! Answers of a 2026-07-28 server as clients of the older revisions know them.

use std::time::Duration;

use agentlane_wire::json::{self, Envelope, Range32};
use bytes::{Bytes, BytesMut};
use simd_json::prelude::*;
use simd_json::{OwnedValue, json};

use super::{HEADER_MISMATCH, META_SERVER_INFO, MISSING_CAPABILITY, UNSUPPORTED_VERSION, VERSION};
use crate::protocol::mcp::content::{Annotations, Edits};
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::Method;
use crate::protocol::mcp::revision::Revision;
use crate::protocol::mcp::tasks;

/// Extensions that have no meaning in the older revisions.
const UNTRANSLATED_EXTENSIONS: [&str; 1] = [tasks::EXTENSION];

/// What a result is (schema, `ResultType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    Complete,
    InputRequired,
    /// Of an extension that was not asked for, or of a later revision.
    Unknown,
}

/// The kind of the result at `result`. One that does not say is complete.
pub fn kind(message: &[u8], result: Range32) -> ResultKind {
    match json::get(message, result, "resultType") {
        Ok(None) => ResultKind::Complete,
        Ok(Some(kind)) if json::raw_eq(message, kind, "complete") => ResultKind::Complete,
        Ok(Some(kind)) if json::raw_eq(message, kind, "input_required") => ResultKind::InputRequired,
        _ => ResultKind::Unknown,
    }
}

/// A result of `server/discover`, read.
#[derive(Clone, Debug)]
pub struct Discovered(OwnedValue);

impl Discovered {
    /// `None` for what is no such result, or one of a server that does not speak this revision.
    pub fn read(result: &[u8]) -> Option<Discovered> {
        let result = simd_json::to_owned_value(&mut result.to_vec()).ok()?;
        let versions = result.get_array("supportedVersions")?;
        let speaks = versions.iter().any(|version| version.as_str() == Some(VERSION));
        (speaks && result.get("capabilities").is_some_and(|value| value.is_object())).then_some(Discovered(result))
    }

    pub fn result(&self) -> &OwnedValue {
        &self.0
    }

    /// How long it may be used, as the server sees it.
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.0.get_u64("ttlMs").unwrap_or(0))
    }

    /// The same as an `initialize` result of `revision`. A server that does not say who it is gets its target's name.
    pub fn as_initialize_result(&self, revision: Revision, name: &str) -> OwnedValue {
        let mut capabilities = self.0.get("capabilities").cloned().unwrap_or_else(|| json!({}));
        if let Some(extensions) = capabilities.get_mut("extensions").and_then(|value| value.as_object_mut()) {
            UNTRANSLATED_EXTENSIONS.iter().for_each(|name| drop(extensions.remove(*name)));
        }
        let _ = capabilities.remove(tasks::CAPABILITY);
        let info = self.0.get("_meta").and_then(|meta| meta.get(META_SERVER_INFO)).cloned();
        let mut info = info.unwrap_or_else(|| json!({ "name": name, "version": "" }));
        let newer: &[&str] = match revision {
            Revision::V2025_11_25 => &[],
            Revision::V2025_06_18 => &["icons", "description", "websiteUrl"],
            Revision::V2024_11_05 | Revision::V2025_03_26 => &["icons", "description", "websiteUrl", "title"],
        };
        if let Some(info) = info.as_object_mut() {
            newer.iter().for_each(|key| drop(info.remove(*key)));
        }
        let mut result = json!({ "protocolVersion": revision.as_str() });
        let _ = result.insert("capabilities", capabilities);
        let _ = result.insert("serverInfo", info);
        if let Some(text) = self.0.get("instructions").filter(|text| text.is_str()) {
            let _ = result.insert("instructions", text.clone());
        }
        result
    }
}

/// Who the answer is for, and what it was asked of.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    pub method: Method,
    pub revision: Revision,
    pub annotations: Annotations,
    /// See [`Tool::wrapped`](super::tools::Tool).
    pub wrapped: bool,
}

/// A response for an older client: without what only this era has, in the content of its revision, errors in its codes.
pub fn to_legacy(message: Bytes, envelope: &Envelope, reader: Reader) -> Bytes {
    let Some(result) = envelope.result else { return error_to_legacy(message, envelope, reader.method) };
    let mut edits = Edits::default();
    edits.remove("resultType");
    if matches!(reader.method, Method::List(_) | Method::ResourcesRead) {
        edits.remove("ttlMs");
        edits.remove("cacheScope");
    }
    without_identity(&mut edits, &message, result);
    match reader.method {
        Method::List(kind) => edits.list(kind, reader.revision, &message, result, reader.annotations),
        method => edits.down(method, reader.revision, &message, result, reader.wrapped),
    }
    edits.apply(message, result)
}

/// The server's name for itself is the gateway's to give.
fn without_identity(edits: &mut Edits, message: &[u8], result: Range32) {
    let Ok(Some(meta)) = json::get(message, result, "_meta") else { return };
    let Ok(Some(_)) = json::get(message, meta, META_SERVER_INFO) else { return };
    match json::members(message, meta).count() {
        1 => edits.remove("_meta"),
        _ => drop(edits.splice().edit_object(message, meta, &[], &[META_SERVER_INFO])),
    }
}

fn error_to_legacy(message: Bytes, envelope: &Envelope, method: Method) -> Bytes {
    let Some(fault) = envelope.error else { return message };
    let id = envelope.answer_id().and_then(|range| range.of(&message));
    let code = code_of(&message, fault);
    let data = |key| json::get_path(&message, fault, &["data", key]).ok().flatten();
    match code {
        Some(-32602) if method == Method::ResourcesRead => match data("uri") {
            Some(_) => with_code(message.clone(), fault, -32002),
            None => message,
        },
        Some(MISSING_CAPABILITY) => {
            let needed =
                data("requiredCapabilities").map(|range| capability_names(&message, range)).unwrap_or_default();
            let text = format!("the server needs what this client did not declare: {needed}");
            match (method, id) {
                (Method::ToolsCall, Some(id)) => error::tool_failure(id, &text),
                _ => error::error_response(id, -32603, &text),
            }
        }
        // What the gateway said was wrong, which is nothing that its client could better.
        Some(HEADER_MISMATCH | UNSUPPORTED_VERSION) => {
            error::error_response(id, -32603, "the gateway and the server do not agree on the protocol")
        }
        _ => message,
    }
}

/// The `code` of the error object at `fault`.
pub fn code_of(message: &[u8], fault: Range32) -> Option<i64> {
    let code = json::get(message, fault, "code").ok().flatten()?;
    std::str::from_utf8(code.of(message)?).ok()?.parse().ok()
}

fn with_code(message: Bytes, fault: Range32, code: i64) -> Bytes {
    let Ok(Some(place)) = json::get(&message, fault, "code") else { return message };
    let mut splice = json::Splice::new();
    splice.replace(place, code.to_string());
    splice.contiguous(&message).unwrap_or(message)
}

/// The names in a capabilities object: `elicitation, sampling.tools`.
fn capability_names(bytes: &[u8], capabilities: Range32) -> String {
    let mut names = Vec::new();
    for member in json::members(bytes, capabilities).map_while(Result::ok) {
        let name = json::string(bytes, member.key).unwrap_or_default();
        let inner: Vec<_> = json::members(bytes, member.value).map_while(Result::ok).collect();
        if inner.is_empty() {
            names.push(name.clone().into_owned());
        }
        names
            .extend(inner.iter().map(|inner| format!("{name}.{}", json::string(bytes, inner.key).unwrap_or_default())));
    }
    names.join(", ")
}

/// A request for what changes at a server (`subscriptions/listen`): `filter` is the JSON text of a `SubscriptionFilter`.
pub fn listen_params(filter: &[u8]) -> Bytes {
    let mut params = BytesMut::from(&b"{\"notifications\":"[..]);
    params.extend_from_slice(filter);
    params.extend_from_slice(b"}");
    params.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentlane_wire::json::{ListKind, ScanLimits};
    use serde_json::{Value, json as value};

    fn legacy(method: Method, message: &Value) -> Value {
        let message = Bytes::from(message.to_string());
        let envelope = json::scan(&message, &ScanLimits::default()).unwrap();
        let reader =
            Reader { method, revision: Revision::V2025_11_25, annotations: Annotations::Checked, wrapped: false };
        serde_json::from_slice(&to_legacy(message, &envelope, reader)).unwrap()
    }

    #[test]
    fn what_only_this_era_has_is_taken_out() {
        let info = value!({"name": "s", "version": "1"});
        let cases = [
            (Method::ToolsCall, value!({"resultType": "complete", "content": []}), value!({"content": []})),
            (
                Method::ToolsCall,
                value!({"content": [], "_meta": {META_SERVER_INFO: info}, "resultType": "complete", "ttlMs": 1}),
                value!({"content": [], "ttlMs": 1}),
            ),
            (
                Method::List(ListKind::Tools),
                value!({"ttlMs": 1, "cacheScope": "public", "tools": [], "resultType": "complete",
                    "_meta": {"x": 1, META_SERVER_INFO: info}}),
                value!({"tools": [], "_meta": {"x": 1}}),
            ),
            (Method::Complete, value!({"completion": {"values": []}}), value!({"completion": {"values": []}})),
        ];
        for (method, given, expected) in cases {
            let message = value!({"jsonrpc": "2.0", "id": 1, "result": given});
            assert_eq!(legacy(method, &message)["result"], expected, "{given}");
        }
    }

    #[test]
    fn errors_speak_the_older_codes() {
        let needed = value!({"requiredCapabilities": {"elicitation": {"url": {}}, "sampling": {}}});
        let cases = [
            (Method::ResourcesRead, -32602, value!({"uri": "a:b"}), -32002),
            (Method::ResourcesRead, -32602, value!({}), -32602),
            (Method::PromptsGet, -32602, value!({"uri": "a:b"}), -32602),
            (Method::PromptsGet, -32021, needed.clone(), -32603),
            (Method::ToolsCall, -32020, value!({}), -32603),
            (Method::ToolsCall, -32022, value!({"supported": []}), -32603),
            (Method::ToolsCall, -32601, value!({}), -32601),
        ];
        for (method, code, data, expected) in cases {
            let message = value!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "m", "data": data}});
            assert_eq!(legacy(method, &message)["error"]["code"], expected, "{method:?} {code}");
        }
        let message = value!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32021, "message": "m", "data": needed}});
        let failure = legacy(Method::ToolsCall, &message);
        assert_eq!(failure["result"]["isError"], true);
        assert!(failure["result"]["content"][0]["text"].as_str().unwrap().ends_with("elicitation.url, sampling"));
    }

    #[test]
    fn discovery_becomes_an_initialize_result() {
        let result = value!({"supportedVersions": ["2026-07-28"], "instructions": "use it", "ttlMs": 1, "resultType": "complete",
            "capabilities": {"tools": {"listChanged": true}, "extensions": {"io.modelcontextprotocol/tasks": {}, "x/y": {}}},
            "_meta": {META_SERVER_INFO: {"name": "s", "version": "1", "title": "S", "icons": []}}});
        let discovered = Discovered::read(result.to_string().as_bytes()).unwrap();
        let read = |revision| -> Value {
            serde_json::from_str(&discovered.as_initialize_result(revision, "t").encode()).unwrap()
        };
        assert_eq!(
            read(Revision::V2025_06_18),
            value!({"protocolVersion": "2025-06-18", "instructions": "use it",
            "capabilities": {"tools": {"listChanged": true}, "extensions": {"x/y": {}}},
            "serverInfo": {"name": "s", "version": "1", "title": "S"}})
        );
        for other in ["{}", "[]", "x", r#"{"supportedVersions":["2025-11-25"],"capabilities":{}}"#] {
            assert!(Discovered::read(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn kinds_of_results() {
        let cases = [
            ("{}", ResultKind::Complete),
            (r#"{"resultType":"complete"}"#, ResultKind::Complete),
            (r#"{"resultType":"input_required"}"#, ResultKind::InputRequired),
            (r#"{"resultType":"task"}"#, ResultKind::Unknown),
            (r#"{"resultType":7}"#, ResultKind::Unknown),
        ];
        for (text, expected) in cases {
            assert_eq!(kind(text.as_bytes(), json::root(text.as_bytes()).unwrap()), expected, "{text}");
        }
    }
}
