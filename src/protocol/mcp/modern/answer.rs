//! The answer of a server of the revisions with sessions, as a client of 2026-07-28 reads it: results say that they are
//! complete, how long they hold and whose they are; errors have this revision's codes.

use agentlane_wire::json::{self, Envelope, JsonError, Range32, Splice, ValueKind};
use bytes::{Bytes, BytesMut};

use super::META_SERVER_INFO;
use crate::fault::Fault;
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::Method;

/// How long a result holds, and for whom (schema, `CacheableResult`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hints {
    pub ttl_ms: u64,
    /// `cacheScope` is `public`.
    pub public: bool,
}

impl Hints {
    /// What is known of a server that says nothing.
    pub const NONE: Hints = Hints { ttl_ms: 0, public: false };
}

/// Whether the results of a method carry [`Hints`].
pub const fn is_cacheable(method: Method) -> bool {
    matches!(method, Method::List(_) | Method::ResourcesRead | Method::Discover)
}

/// A message and the HTTP status that it goes out with, where nothing has gone out yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    pub fn ok(body: Bytes) -> Self {
        Answer { status: 200, body }
    }
}

/// A response of a legacy server to `method`, under the client's id.
pub fn of_legacy(
    message: Bytes,
    envelope: &Envelope,
    method: Method,
    id: &[u8],
    hints: Hints,
    server_info: &[u8],
) -> Answer {
    match (envelope.result, envelope.error) {
        (Some(result), _) if method == Method::ResourcesRead && is_empty_read(&message, result) => {
            Answer::ok(error::error_response(Some(id), -32602, "resource not found"))
        }
        (Some(result), _) => {
            let hints = is_cacheable(method).then_some(hints);
            let complete = complete(&message, result, envelope.answer_id(), id, hints, server_info);
            Answer::ok(complete.unwrap_or(message))
        }
        (None, Some(_)) if method == Method::Other && is_refusal(&message, envelope) => {
            Answer { status: 404, body: error::error_response(Some(id), -32601, "method not found") }
        }
        (None, Some(_)) => of_error(&message, envelope, id),
        (None, None) => Answer::ok(message),
    }
}

/// An error by which servers with sessions refuse a method that they do not know, when they do not say so.
fn is_refusal(message: &[u8], envelope: &Envelope) -> bool {
    let code = envelope.error.and_then(|fault| json::get(message, fault, "code").ok().flatten());
    matches!(code.and_then(|code| code.of(message)), Some(b"-32600" | b"-32602"))
}

/// A result text of our own, completed.
pub fn completed(result: Bytes, id: &[u8], hints: Option<Hints>, server_info: &[u8]) -> Bytes {
    let message = error::result_response(id, &result);
    let start = message.len() - 1 - result.len();
    let Some(range) = Range32::new(start, message.len() - 1) else { return message };
    complete(&message, range, None, id, hints, server_info).unwrap_or(message)
}

fn complete(
    message: &Bytes,
    result: Range32,
    own_id: Option<Range32>,
    id: &[u8],
    hints: Option<Hints>,
    server_info: &[u8],
) -> Result<Bytes, JsonError> {
    let meta = with_server_info(message, result, server_info)?;
    let ttl = hints.map(|hints| hints.ttl_ms.to_string());
    let scope: &[u8] = if hints.is_some_and(|hints| hints.public) { b"\"public\"" } else { b"\"private\"" };
    let mut set: Vec<(&str, &[u8])> = vec![("resultType", b"\"complete\""), ("_meta", &meta)];
    if let Some(ttl) = &ttl {
        set.push(("ttlMs", ttl.as_bytes()));
        set.push(("cacheScope", scope));
    }
    let mut splice = Splice::new();
    if let Some(own) = own_id {
        splice.replace(own, Bytes::copy_from_slice(id));
    }
    splice.edit_object(message, result, &set, &[])?;
    splice.contiguous(message)
}

/// The result's `_meta` with the server's identity, unless it says one.
fn with_server_info(message: &Bytes, result: Range32, server_info: &[u8]) -> Result<Bytes, JsonError> {
    let meta = json::get(message, result, "_meta")?;
    let Some(meta) = meta.filter(|meta| json::kind_of(message, *meta) == Some(ValueKind::Object)) else {
        let mut out = BytesMut::from(&b"{"[..]);
        json::quote_into(&mut out, META_SERVER_INFO);
        out.extend_from_slice(b":");
        out.extend_from_slice(server_info);
        out.extend_from_slice(b"}");
        return Ok(out.freeze());
    };
    let text = message.slice(meta.usize());
    let root = json::root(&text)?;
    if json::get(&text, root, META_SERVER_INFO)?.is_some() {
        return Ok(text);
    }
    let mut splice = Splice::new();
    splice.insert_member(&text, root, META_SERVER_INFO, server_info)?;
    splice.contiguous(&text)
}

/// Legacy servers may answer a resource that does not exist with nothing; this revision forbids it.
fn is_empty_read(message: &Bytes, result: Range32) -> bool {
    match json::get(message, result, "contents") {
        Ok(Some(contents)) => json::elements(message, contents).next().is_none(),
        _ => false,
    }
}

/// A target's error under the client's id, with this revision's code and status.
pub fn of_error(message: &Bytes, envelope: &Envelope, id: &[u8]) -> Answer {
    let code = envelope.error.and_then(|fault| json::get(message, fault, "code").ok().flatten());
    let mut splice = Splice::new();
    match envelope.answer_id() {
        Some(own) => drop(splice.replace(own, Bytes::copy_from_slice(id))),
        None => {
            // An error that could not say what it is about: it can only be this request.
            let root = json::root(message);
            let _ = root.and_then(|root| splice.edit_object(message, root, &[("id", id)], &[]));
        }
    }
    if let Some(code) = code.filter(|code| code.of(message) == Some(b"-32002")) {
        splice.replace(code, Bytes::from_static(b"-32602"));
    }
    let number = code.and_then(|code| code.of(message));
    let body = splice.contiguous(message).unwrap_or_else(|_| message.clone());
    Answer { status: status_of(number), body }
}

/// The HTTP status of an error with this code (transports page, "Sending Messages to the Server").
pub fn status_of(code: Option<&[u8]>) -> u16 {
    match code {
        Some(b"-32601") => 404,
        Some(b"-32020" | b"-32021" | b"-32022") => 400,
        _ => 200,
    }
}

/// A fault of a request whose envelope was found good.
pub fn of_fault(id: &[u8], fault: &Fault, data: Option<&[u8]>) -> Answer {
    let code = fault.kind.rpc_code();
    let status = match fault.kind.http_status() {
        503 => 503,
        _ => status_of(Some(code.to_string().as_bytes())),
    };
    Answer { status, body: error::error_with_data(Some(id), code, fault.message, data) }
}

#[cfg(test)]
mod tests {
    use agentlane_wire::json::{ScanLimits, scan};
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::mcp::method::ListKind;

    fn answered(method: Method, message: &Value) -> (u16, Value) {
        let message = Bytes::from(message.to_string());
        let envelope = scan(&message, &ScanLimits::default()).unwrap();
        let answer = of_legacy(message, &envelope, method, b"\"mine\"", Hints::NONE, br#"{"name":"g"}"#);
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    #[test]
    fn results_are_completed() {
        let of = |method, result: Value| {
            let (status, answer) = answered(method, &json!({ "jsonrpc": "2.0", "id": 7, "result": result }));
            assert_eq!((status, &answer["id"]), (200, &json!("mine")));
            answer["result"].clone()
        };
        assert_eq!(
            of(Method::ToolsCall, json!({ "content": [], "_meta": { "a": 1 } })),
            json!({ "content": [], "_meta": { "a": 1, META_SERVER_INFO: { "name": "g" } }, "resultType": "complete" })
        );
        let list = of(Method::List(ListKind::Tools), json!({ "tools": [] }));
        assert_eq!((&list["ttlMs"], &list["cacheScope"]), (&json!(0), &json!("private")));
        assert_eq!(of(Method::Complete, json!({}))["resultType"], "complete");
    }

    #[test]
    fn errors_are_mapped() {
        let of = |method, error: Value| answered(method, &json!({ "jsonrpc": "2.0", "id": 7, "error": error }));
        let (status, answer) =
            of(Method::ResourcesRead, json!({ "code": -32002, "message": "m", "data": { "uri": "u" } }));
        assert_eq!((status, &answer["error"]["code"]), (200, &json!(-32602)));
        assert_eq!(answer["error"]["data"]["uri"], "u");
        assert_eq!(of(Method::Other, json!({ "code": -32601, "message": "m" })).0, 404);
        let (_, answer) =
            answered(Method::ResourcesRead, &json!({ "jsonrpc": "2.0", "id": 7, "result": { "contents": [] } }));
        assert_eq!(answer["error"]["code"], -32602);
        let (_, answer) =
            answered(Method::ToolsCall, &json!({ "jsonrpc": "2.0", "error": { "code": -1, "message": "m" } }));
        assert_eq!(answer["id"], "mine");
    }

    #[test]
    fn our_own_results_are_completed_as_well() {
        let text =
            completed(Bytes::from_static(b"{\"tools\":[]}"), b"3", Some(Hints { ttl_ms: 5, public: true }), b"{}");
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["id"], 3);
        assert_eq!(
            value["result"],
            json!({ "tools": [], "resultType": "complete", "_meta": { META_SERVER_INFO: {} }, "ttlMs": 5, "cacheScope": "public" })
        );
    }
}
