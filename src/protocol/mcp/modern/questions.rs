//! What a server of the revisions with sessions asks its client while a call runs, as `inputRequests` of an
//! `input_required` result; and the client's `inputResponses` as answers to those requests (client page, "Multi Round-Trip
//! Requests").

use agentlane_wire::json::{self, Envelope, Range32, Splice, ValueKind};
use bytes::{BufMut, Bytes, BytesMut};

use super::request::Declared;
use crate::protocol::mcp::error;

/// What a server may ask a client for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Form,
    Url,
    Sampling,
    SamplingTools,
    Roots,
}

/// A request that waits for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The id of the server's request in its session's numbering; `None` for a demand that no request made.
    pub id: Option<u64>,
    /// Its key in `inputRequests`.
    pub key: String,
    pub kind: Kind,
    /// The InputRequest, as JSON text.
    pub request: Bytes,
}

impl Kind {
    fn of(message: &[u8], envelope: &Envelope) -> Option<Kind> {
        let param = |key| envelope.params.and_then(|params| json::get(message, params, key).ok().flatten());
        if envelope.method_is(message, "elicitation/create") {
            let is_url = param("mode").is_some_and(|mode| json::raw_eq(message, mode, "url"));
            return Some(if is_url { Kind::Url } else { Kind::Form });
        }
        if envelope.method_is(message, "sampling/createMessage") {
            return Some(if param("tools").is_some() { Kind::SamplingTools } else { Kind::Sampling });
        }
        envelope.method_is(message, "roots/list").then_some(Kind::Roots)
    }

    pub const fn is_declared(self, declared: &Declared) -> bool {
        match self {
            Kind::Form => declared.form,
            Kind::Url => declared.url,
            Kind::Sampling => declared.sampling,
            Kind::SamplingTools => declared.sampling_tools,
            Kind::Roots => declared.roots,
        }
    }

    /// The capability that a client needs for it, as a ClientCapabilities object.
    pub const fn capability(self) -> &'static str {
        match self {
            Kind::Form => r#"{"elicitation":{"form":{}}}"#,
            Kind::Url => r#"{"elicitation":{"url":{}}}"#,
            Kind::Sampling => r#"{"sampling":{}}"#,
            Kind::SamplingTools => r#"{"sampling":{"tools":{}}}"#,
            Kind::Roots => r#"{"roots":{}}"#,
        }
    }
}

impl Asked {
    /// A server's request in its session's numbering; `None` for one that no client of this revision can be asked.
    pub fn of(message: &Bytes, envelope: &Envelope) -> Option<Asked> {
        let kind = Kind::of(message, envelope)?;
        let id = json::as_u64(message, envelope.answer_id()?)?;
        let params = envelope.params.map(|params| embedded(message, params)).transpose().ok()?;
        // Some clients read parameters whatever the method.
        let params = params.or_else(|| (kind == Kind::Roots).then(|| Bytes::from_static(b"{}")));
        let request = request(message, envelope, params.as_ref())?;
        Some(Asked { id: Some(id), key: format!("request-{id}"), kind, request })
    }

    /// The demands of a -32042 error (2025-11-25, "URL Elicitation Required"): its `data.elicitations`, numbered from
    /// `from`. Empty where there is none that can be shown.
    pub fn of_url_error(message: &Bytes, envelope: &Envelope, from: u32) -> Vec<Asked> {
        const REQUIRED: &[u8] = b"-32042";
        let Some(error) = envelope.error else { return Vec::new() };
        let code = json::get(message, error, "code").ok().flatten().and_then(|code| code.of(message));
        if code != Some(REQUIRED) {
            return Vec::new();
        }
        let Ok(Some(elicitations)) = json::get_path(message, error, &["data", "elicitations"]) else {
            return Vec::new();
        };
        let elements = json::elements(message, elicitations).map_while(Result::ok);
        let asked = (from..).zip(elements).filter_map(|(number, element)| {
            let params = embedded(message, element).ok()?;
            let request = [b"{\"method\":\"elicitation/create\",\"params\":", &params[..], b"}"].concat();
            Some(Asked { id: None, key: format!("url-{number}"), kind: Kind::Url, request: Bytes::from(request) })
        });
        asked.collect()
    }

    /// The client's result as the answer to the server's request.
    pub fn answer(&self, result: &[u8]) -> Option<Bytes> {
        Some(error::result_response(self.id?.to_string().as_bytes(), result))
    }

    /// What the server hears when the client never answered: an elicitation is cancelled, for anything else there is no
    /// result that says so.
    pub fn unanswered(&self) -> Option<Bytes> {
        match self.kind {
            Kind::Form | Kind::Url => self.answer(b"{\"action\":\"cancel\"}"),
            _ => Some(error::error_response(
                Some(self.id?.to_string().as_bytes()),
                -32603,
                "the client did not answer in time",
            )),
        }
    }
}

/// Parameters without what only a session's messages have: progress tokens, ids of elicitations, tasks.
fn embedded(message: &Bytes, params: Range32) -> Result<Bytes, json::JsonError> {
    let text = message.slice(params.usize());
    let root = json::root(&text)?;
    let mut gone: Vec<&str> = vec!["elicitationId", "task"];
    let mut meta_text = None;
    if let Some(meta) =
        json::get(&text, root, "_meta")?.filter(|meta| json::kind_of(&text, *meta) == Some(ValueKind::Object))
    {
        let meta = text.slice(meta.usize());
        let mut splice = Splice::new();
        splice.edit_object(&meta, json::root(&meta)?, &[], &["progressToken"])?;
        let meta = splice.contiguous(&meta)?;
        match json::members(&meta, json::root(&meta)?).next() {
            None => gone.push("_meta"),
            Some(_) => meta_text = Some(meta),
        }
    }
    let mut splice = Splice::new();
    match &meta_text {
        Some(meta) => splice.edit_object(&text, root, &[("_meta", meta)], &gone)?,
        None => splice.edit_object(&text, root, &[], &gone)?,
    }
    splice.contiguous(&text)
}

fn request(message: &[u8], envelope: &Envelope, params: Option<&Bytes>) -> Option<Bytes> {
    let mut out = BytesMut::from(&b"{\"method\":"[..]);
    out.put_slice(envelope.method?.of(message)?);
    if let Some(params) = params {
        out.put_slice(b",\"params\":");
        out.put_slice(params);
    }
    out.put_u8(b'}');
    Some(out.freeze())
}

/// The `input_required` response that asks the client for all of them.
pub fn input_required(id: &[u8], asked: &[Asked], state: &str, server_info: &[u8]) -> Bytes {
    let mut result = BytesMut::from(&b"{\"resultType\":\"input_required\",\"inputRequests\":{"[..]);
    for (place, one) in asked.iter().enumerate() {
        if place > 0 {
            result.put_u8(b',');
        }
        json::quote_into(&mut result, &one.key);
        result.put_u8(b':');
        result.put_slice(&one.request);
    }
    result.put_slice(b"},\"requestState\":");
    json::quote_into(&mut result, state);
    result.put_slice(b",\"_meta\":{\"io.modelcontextprotocol/serverInfo\":");
    result.put_slice(server_info);
    result.put_slice(b"}}");
    error::result_response(id, &result)
}

/// An input response that is no result of anything.
#[derive(Debug, PartialEq, Eq)]
pub struct NoObject;

/// The client's answer under a key: `None` when it is missing.
pub fn response(body: &[u8], responses: Option<Range32>, key: &str) -> Result<Option<Range32>, NoObject> {
    let Some(responses) = responses else { return Ok(None) };
    match json::get(body, responses, key) {
        Ok(Some(value)) if json::kind_of(body, value) == Some(ValueKind::Object) => Ok(Some(value)),
        Ok(None) => Ok(None),
        Ok(Some(_)) | Err(_) => Err(NoObject),
    }
}

/// Whether an elicitation's result accepts.
pub fn accepts(body: &[u8], result: Range32) -> bool {
    json::get(body, result, "action").ok().flatten().is_some_and(|action| json::raw_eq(body, action, "accept"))
}

#[cfg(test)]
mod tests {
    use agentlane_wire::json::{ScanLimits, scan};
    use serde_json::{Value, json};

    use super::*;

    fn asked(method: &str, params: Value) -> Option<Asked> {
        let mut message = json!({ "jsonrpc": "2.0", "id": 7, "method": method });
        if !params.is_null() {
            message["params"] = params;
        }
        let message = Bytes::from(message.to_string());
        Asked::of(&message, &scan(&message, &ScanLimits::default()).unwrap())
    }

    #[test]
    fn requests_lose_what_belongs_to_sessions() {
        let schema = json!({ "type": "object" });
        let cases = [
            (
                "elicitation/create",
                json!({ "message": "m", "requestedSchema": schema, "_meta": { "progressToken": 7 }, "task": {} }),
                Kind::Form,
                json!({ "message": "m", "requestedSchema": schema }),
            ),
            (
                "elicitation/create",
                json!({ "mode": "url", "message": "m", "url": "https://e", "elicitationId": "e1", "_meta": { "a/b": 1, "progressToken": 2 } }),
                Kind::Url,
                json!({ "mode": "url", "message": "m", "url": "https://e", "_meta": { "a/b": 1 } }),
            ),
            ("sampling/createMessage", json!({ "messages": [] }), Kind::Sampling, json!({ "messages": [] })),
            ("sampling/createMessage", json!({ "tools": [] }), Kind::SamplingTools, json!({ "tools": [] })),
            ("roots/list", json!({ "_meta": { "progressToken": 1 } }), Kind::Roots, json!({})),
            ("roots/list", Value::Null, Kind::Roots, json!({})),
        ];
        for (method, params, kind, expected) in cases {
            let asked = asked(method, params).expect(method);
            let request = json!({ "method": method, "params": expected });
            assert_eq!((asked.kind, asked.key.as_str()), (kind, "request-7"));
            assert_eq!(serde_json::from_slice::<Value>(&asked.request).unwrap(), request);
        }
        assert_eq!(asked("tasks/get", json!({})), None);
    }

    #[test]
    fn url_errors_become_requests() {
        let message = Bytes::from(
            json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32042, "message": "m", "data": { "elicitations": [
                { "mode": "url", "elicitationId": "e", "url": "https://e", "message": "go" } ] } } })
            .to_string(),
        );
        let envelope = scan(&message, &ScanLimits::default()).unwrap();
        let asked = Asked::of_url_error(&message, &envelope, 4);
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].key, "url-4");
        let request: Value = serde_json::from_slice(&asked[0].request).unwrap();
        assert_eq!(request["params"], json!({ "mode": "url", "url": "https://e", "message": "go" }));
        assert_eq!(asked[0].answer(b"{}"), None);
        let other = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"m"}}"#);
        assert!(Asked::of_url_error(&other, &scan(&other, &ScanLimits::default()).unwrap(), 0).is_empty());
    }

    #[test]
    fn the_client_is_asked_and_answers() {
        let asked = [asked("roots/list", Value::Null).unwrap(), asked("elicitation/create", json!({})).unwrap()];
        let result: Value = serde_json::from_slice(&input_required(b"\"x\"", &asked[..1], "s", b"{}")).unwrap();
        assert_eq!(result["result"]["resultType"], "input_required");
        assert_eq!(result["result"]["inputRequests"]["request-7"], json!({ "method": "roots/list", "params": {} }));
        let body = br#"{"request-7":{"roots":[]},"other":1}"#;
        let root = json::root(body).ok();
        let answer = response(body, root, "request-7").unwrap().unwrap();
        let answer: Value = serde_json::from_slice(&asked[0].answer(answer.of(body).unwrap()).unwrap()).unwrap();
        assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": 7, "result": { "roots": [] } }));
        assert_eq!(response(body, root, "missing"), Ok(None));
        assert_eq!(response(body, root, "other"), Err(NoObject));
        let cancelled: Value = serde_json::from_slice(&asked[1].unanswered().unwrap()).unwrap();
        assert_eq!(cancelled["result"], json!({ "action": "cancel" }));
        let failed: Value = serde_json::from_slice(&asked[0].unanswered().unwrap()).unwrap();
        assert_eq!(failed["error"]["code"], -32603);
    }
}
