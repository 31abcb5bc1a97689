//! The `_meta` that each request of 2026-07-28 carries: version, the client's capabilities and name, the log level. Made of
//! what an older client said once, in `initialize`.

use agentlane_wire::json::{self, Envelope, JsonError, Range32, Splice};
use bytes::{Bytes, BytesMut};
use simd_json::prelude::*;
use simd_json::{OwnedValue, json};
use smallvec::SmallVec;

use super::{META_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_VERSION, VERSION};
use crate::protocol::mcp::revision::Revision;

/// Who asks, and what may be asked of it. JSON texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub capabilities: Bytes,
    pub info: Option<Bytes>,
    pub can: Can,
}

/// What servers may ask a client for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Can {
    pub forms: bool,
    pub urls: bool,
    pub sampling: bool,
    pub sampling_tools: bool,
    pub roots: bool,
}

impl Client {
    /// The gateway itself, of whom nothing may be asked.
    pub fn gateway() -> Client {
        let info = concat!(r#"{"name":"agentlane","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
        let capabilities = Bytes::from_static(b"{}");
        Client { capabilities, info: Some(Bytes::from_static(info.as_bytes())), can: Can::default() }
    }

    /// From the `params` of an `initialize` in `revision`. What the revision does not have was not negotiated, and what
    /// this era does not have (client-side tasks, changes of roots) means nothing in it.
    pub fn of_initialize(params: &[u8], revision: Revision) -> Client {
        let params = simd_json::to_owned_value(&mut params.to_vec()).unwrap_or_default();
        let declared = params.get("capabilities");
        let get = |name: &str| declared.and_then(|all| all.get(name)).filter(|value| value.is_object());
        let mut can = Can::default();
        let mut capabilities = json!({});
        if get("roots").is_some() {
            can.roots = true;
            let _ = capabilities.insert("roots", json!({}));
        }
        if let Some(sampling) = get("sampling") {
            can.sampling = true;
            can.sampling_tools = revision >= Revision::V2025_11_25 && sampling.get("tools").is_some();
            let kept = if revision >= Revision::V2025_11_25 { sampling.clone() } else { json!({}) };
            let _ = capabilities.insert("sampling", kept);
        }
        if let Some(elicitation) = get("elicitation").filter(|_| revision >= Revision::V2025_06_18) {
            can.urls = revision >= Revision::V2025_11_25 && elicitation.get("url").is_some();
            // An empty object means forms.
            can.forms = elicitation.get("form").is_some() || !can.urls;
            let kept = if revision >= Revision::V2025_11_25 { elicitation.clone() } else { json!({}) };
            let _ = capabilities.insert("elicitation", kept);
        }
        for name in ["experimental", "extensions"] {
            if let Some(value) = get(name) {
                let _ = capabilities.insert(name, value.clone());
            }
        }
        if let Some(extensions) = capabilities.get_mut("extensions").and_then(|value| value.as_object_mut()) {
            extensions.remove("io.modelcontextprotocol/tasks");
        }
        let info = params.get("clientInfo").filter(|value| value.is_object()).map(text);
        Client { capabilities: text(&capabilities), info, can }
    }
}

fn text(value: &OwnedValue) -> Bytes {
    Bytes::from(value.encode())
}

/// The answers to what a server asked for, and the state that it wants back: JSON texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    pub input_responses: Option<Bytes>,
    pub request_state: Option<Bytes>,
}

/// What one request needs beside itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wrapping<'a> {
    /// In the place of its id.
    pub id: Option<&'a Bytes>,
    /// In the place of its progress token, if it has one.
    pub progress_token: Option<&'a Bytes>,
    /// A JSON string.
    pub log_level: Option<&'a [u8]>,
    pub retry: Option<&'a Retry>,
}

/// A request with its envelope. `message` is one of an older revision or of the gateway's own making.
///
/// # Errors
/// Where the message is no JSON after all.
pub fn wrap(message: &[u8], envelope: &Envelope, client: &Client, with: Wrapping<'_>) -> Result<Bytes, JsonError> {
    let mut splice = Splice::new();
    if let (Some(id), Some(range)) = (with.id, envelope.answer_id()) {
        splice.replace(range, id.clone());
    }
    if let (Some(token), Some(range)) = (with.progress_token, envelope.meta_progress_token) {
        splice.replace(range, token.clone());
    }
    let version = format!("\"{VERSION}\"");
    let mut set: SmallVec<[(&str, &[u8]); 4]> = SmallVec::new();
    set.push((META_VERSION, version.as_bytes()));
    set.push((META_CAPABILITIES, &client.capabilities));
    set.extend(client.info.iter().map(|info| (META_CLIENT_INFO, &info[..])));
    set.extend(with.log_level.map(|level| (META_LOG_LEVEL, level)));
    let meta = object(&set);
    let mut params: SmallVec<[(&str, &[u8]); 4]> = SmallVec::new();
    match envelope.meta {
        // The edits of `_meta` and of its progress token do not meet: a token is no member of ours.
        Some(range) if json::kind_of(message, range) == Some(json::ValueKind::Object) => {
            let stale: &[&str] = if with.log_level.is_none() { &[META_LOG_LEVEL] } else { &[] };
            splice.edit_object(message, range, &set, stale)?;
        }
        _ => params.push(("_meta", &meta)),
    }
    if let Some(retry) = with.retry {
        params.extend(retry.input_responses.iter().map(|answers| ("inputResponses", &answers[..])));
        params.extend(retry.request_state.iter().map(|state| ("requestState", &state[..])));
    }
    match envelope.params {
        // A task of 2025-11-25 in the place of the result is nothing that could be asked for here.
        Some(range) if envelope.method_is(message, "tools/call") => {
            splice.edit_object(message, range, &params, &["task"])?;
        }
        Some(range) if !params.is_empty() => splice.edit_object(message, range, &params, &[])?,
        Some(_) => {}
        None => {
            let root = json::root(message)?;
            put_last(&mut splice, root, &object(&params));
        }
    }
    splice.contiguous(message)
}

/// Adds `params` behind the last member; a message has at least one.
fn put_last(splice: &mut Splice, root: Range32, params: &[u8]) {
    splice.insert(root.end() - 1, [b",\"params\":", params].concat());
}

fn object(members: &[(&str, &[u8])]) -> BytesMut {
    let mut out = BytesMut::from(&b"{"[..]);
    for (place, (key, value)) in members.iter().enumerate() {
        if place > 0 {
            out.extend_from_slice(b",");
        }
        json::quote_into(&mut out, key);
        out.extend_from_slice(b":");
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentlane_wire::json::ScanLimits;
    use serde_json::{Value, json as value};

    #[test]
    fn capabilities_of_every_revision() {
        let all = value!({"sampling": {"tools": {}}, "elicitation": {"form": {}, "url": {}}, "roots": {"listChanged": true},
            "tasks": {}, "experimental": {"x": {}}, "extensions": {"io.modelcontextprotocol/tasks": {}, "a/b": {}}});
        let rest = value!({"experimental": {"x": {}}, "extensions": {"a/b": {}}, "roots": {}});
        let with = |more: Value| {
            let mut all = rest.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let everything = Can { forms: true, urls: true, sampling: true, sampling_tools: true, roots: true };
        let cases = [
            (
                Revision::V2025_11_25,
                with(value!({"sampling": {"tools": {}}, "elicitation": {"form": {}, "url": {}}})),
                everything,
            ),
            (
                Revision::V2025_06_18,
                with(value!({"sampling": {}, "elicitation": {}})),
                Can { urls: false, sampling_tools: false, ..everything },
            ),
            (
                Revision::V2025_03_26,
                with(value!({"sampling": {}})),
                Can { forms: false, urls: false, sampling_tools: false, ..everything },
            ),
        ];
        for (revision, expected, can) in cases {
            let params = value!({"capabilities": all, "clientInfo": {"name": "c", "version": "1"}});
            let client = Client::of_initialize(params.to_string().as_bytes(), revision);
            assert_eq!(serde_json::from_slice::<Value>(&client.capabilities).unwrap(), expected, "{revision:?}");
            assert_eq!(client.can, can, "{revision:?}");
        }
        let only_urls = value!({"capabilities": {"elicitation": {"url": {}}}}).to_string();
        let can = Client::of_initialize(only_urls.as_bytes(), Revision::V2025_11_25).can;
        assert_eq!((can.forms, can.urls), (false, true));
        assert_eq!(Client::of_initialize(b"{}", Revision::V2025_11_25).can, Can::default());
    }

    #[test]
    fn requests_get_their_envelope() {
        let client = Client {
            capabilities: "{\"roots\":{}}".into(),
            info: Some("{\"name\":\"c\"}".into()),
            can: Can::default(),
        };
        let (id, token) = (Bytes::from_static(b"77"), Bytes::from_static(b"78"));
        let retry = Retry { input_responses: Some("{\"a\":{}}".into()), request_state: Some("\"s\\u0074\"".into()) };
        let ours = value!({META_VERSION: VERSION, META_CAPABILITIES: {"roots": {}}, META_CLIENT_INFO: {"name": "c"}});
        let logged = |mut meta: Value| {
            meta[META_LOG_LEVEL] = "info".into();
            meta
        };
        let mut kept = ours.clone();
        kept["progressToken"] = 78.into();
        kept["traceparent"] = "t".into();
        let cases = [
            (value!({}), value!({"_meta": ours}), value!({"_meta": logged(ours.clone())})),
            (value!({"params": {}}), value!({"_meta": ours}), value!({"_meta": logged(ours.clone())})),
            (
                value!({"params": {"name": "n", "_meta": {"progressToken": "p", "traceparent": "t", META_LOG_LEVEL: "debug"}}}),
                value!({"name": "n", "_meta": kept}),
                value!({"name": "n", "_meta": logged(kept.clone())}),
            ),
        ];
        for (given, silent, loud) in cases {
            let mut message = value!({"jsonrpc": "2.0", "id": "x", "method": "m"});
            message.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
            let message = message.to_string();
            let envelope = json::scan(message.as_bytes(), &ScanLimits::default()).unwrap();
            let with = Wrapping { id: Some(&id), progress_token: Some(&token), ..Wrapping::default() };
            let read = |with| -> Value {
                serde_json::from_slice(&wrap(message.as_bytes(), &envelope, &client, with).unwrap()).unwrap()
            };
            assert_eq!(read(with)["params"], silent, "{message}");
            assert_eq!(read(with)["id"], 77);
            let with = Wrapping { log_level: Some(b"\"info\""), retry: Some(&retry), ..with };
            let mut expected = loud;
            expected["inputResponses"] = value!({"a": {}});
            expected["requestState"] = "st".into();
            assert_eq!(read(with)["params"], expected, "{message}");
            let text = wrap(message.as_bytes(), &envelope, &client, with).unwrap();
            assert!(memchr::memmem::find(&text, b"\"s\\u0074\"").is_some(), "byte for byte");
        }
    }
}
