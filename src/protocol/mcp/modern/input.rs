//! `input_required`: what a server of 2026-07-28 wants of the client before it goes on, as the requests that older clients
//! know, and their answers as the server wants them back.

use agentlane_wire::json::{self, Range32, Splice, ValueKind};
use bytes::{Bytes, BytesMut};

use super::envelope::Can;
use crate::limits::INPUT_REQUESTS_MAX;
use crate::protocol::mcp::revision::Revision;

/// A result that asks for more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRequired {
    pub asks: Vec<Ask>,
    /// The JSON text of the string that the server wants back.
    pub state: Option<Bytes>,
}

/// One request to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The server's key for it, as JSON text.
    pub key: Bytes,
    pub kind: Kind,
    /// JSON text.
    pub params: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Form,
    Url,
    Sampling,
    /// Sampling in which the model may call tools.
    SamplingWithTools,
    Roots,
}

/// What a result asks for cannot be read, or may not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong(pub &'static str);

/// Reads the result at `result`, whose kind is known.
pub fn read(message: &Bytes, result: Range32) -> Result<InputRequired, Wrong> {
    let get = |key| json::get(message, result, key).ok().flatten();
    let state = match get("requestState") {
        Some(state) if json::kind_of(message, state) == Some(ValueKind::String) => Some(message.slice(state.usize())),
        Some(_) => return Err(Wrong("target sent a requestState that is no string")),
        None => None,
    };
    let mut asks = Vec::new();
    if let Some(requests) = get("inputRequests") {
        for member in json::members(message, requests) {
            let member = member.map_err(|_| Wrong("target sent inputRequests that are no object"))?;
            if asks.len() == INPUT_REQUESTS_MAX {
                return Err(Wrong("target asks for too much at once"));
            }
            asks.push(ask(message, member)?);
        }
    }
    match asks.is_empty() && state.is_none() {
        true => Err(Wrong("target asks for input and says not which")),
        false => Ok(InputRequired { asks, state }),
    }
}

fn ask(message: &Bytes, member: json::Member) -> Result<Ask, Wrong> {
    let get = |key| {
        json::get(message, member.value, key).map_err(|_| Wrong("target sent an input request that is no object"))
    };
    let method = get("method")?.ok_or(Wrong("target sent an input request without a method"))?;
    let params = get("params")?;
    let kind = kind_of(message, method, params).ok_or(Wrong("target asks for input of an unknown kind"))?;
    let params = params.map(|params| message.slice(params.usize()));
    Ok(Ask { key: message.slice(member.key.usize()), kind, params })
}

/// What a request to a client is; `None` for any but these.
pub fn kind_of(message: &[u8], method: Range32, params: Option<Range32>) -> Option<Kind> {
    let has = |key| params.is_some_and(|params| matches!(json::get(message, params, key), Ok(Some(_))));
    let is_url = || {
        params
            .and_then(|params| json::get(message, params, "mode").ok().flatten())
            .is_some_and(|mode| json::raw_eq(message, mode, "url"))
    };
    let is = |text| json::raw_eq(message, method, text);
    if is("elicitation/create") {
        Some(if is_url() { Kind::Url } else { Kind::Form })
    } else if is("sampling/createMessage") {
        Some(if has("tools") || has("toolChoice") { Kind::SamplingWithTools } else { Kind::Sampling })
    } else {
        is("roots/list").then_some(Kind::Roots)
    }
}

impl Kind {
    pub const fn method(self) -> &'static str {
        match self {
            Kind::Form | Kind::Url => "elicitation/create",
            Kind::Sampling | Kind::SamplingWithTools => "sampling/createMessage",
            Kind::Roots => "roots/list",
        }
    }

    /// The capability that a client must have declared.
    pub const fn capability(self) -> &'static str {
        match self {
            Kind::Form => "elicitation",
            Kind::Url => "elicitation.url",
            Kind::Sampling => "sampling",
            Kind::SamplingWithTools => "sampling.tools",
            Kind::Roots => "roots",
        }
    }

    pub const fn allowed(self, can: Can) -> bool {
        match self {
            Kind::Form => can.forms,
            Kind::Url => can.urls,
            Kind::Sampling => can.sampling,
            Kind::SamplingWithTools => can.sampling_tools,
            Kind::Roots => can.roots,
        }
    }
}

/// How an ask reaches the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// The request's `params`, as JSON text; empty where there are none.
    Params(Bytes),
    /// Its revision cannot show it: the answer that it would give.
    Answer(Bytes),
}

/// An ask in the client's revision. `id`: of the request, and new in the session.
///
/// # Errors
/// Where the revision has no form for it and no answer that says so.
pub fn in_revision(ask: &Ask, revision: Revision, id: u64) -> Result<Form, Wrong> {
    let Some(params) = &ask.params else { return Ok(Form::Params(Bytes::new())) };
    if ask.kind == Kind::Url {
        // 2025-11-25 names each one, so that its end can be told.
        let id = format!("\"agentlane-{id}\"");
        let mut splice = Splice::new();
        let root = json::root(params);
        let edited = root.and_then(|root| splice.edit_object(params, root, &[("elicitationId", id.as_bytes())], &[]));
        return edited.and_then(|()| splice.contiguous(params)).map(Form::Params).map_err(|_| BROKEN);
    }
    older(ask.kind, params, revision)
}

const BROKEN: Wrong = Wrong("target asks with broken params");

/// The `params` of a request to a client in its revision, which is older than the server's.
///
/// # Errors
/// As [`in_revision`].
pub fn older(kind: Kind, params: &Bytes, revision: Revision) -> Result<Form, Wrong> {
    let root = json::root(params).map_err(|_| BROKEN)?;
    let mut splice = Splice::new();
    let edited = match kind {
        Kind::Form if revision < Revision::V2025_11_25 => {
            if !older_form(&mut splice, params, root) {
                return Ok(Form::Answer(Bytes::from_static(b"{\"action\":\"decline\"}")));
            }
            splice.edit_object(params, root, &[], &["mode"])
        }
        Kind::Sampling if revision < Revision::V2025_11_25 => {
            single_contents(&mut splice, params, root)?;
            Ok(())
        }
        _ => Ok(()),
    };
    edited.and_then(|()| splice.contiguous(params)).map(Form::Params).map_err(|_| BROKEN)
}

/// A form in the schema of 2025-06-18: a choice with titles becomes `enum` and `enumNames`. False where the form has a
/// field that cannot be shown, which is a choice of several.
fn older_form(splice: &mut Splice, bytes: &[u8], params: Range32) -> bool {
    let Ok(Some(properties)) = json::get_path(bytes, params, &["requestedSchema", "properties"]) else { return true };
    for member in json::members(bytes, properties).map_while(Result::ok) {
        let get = |key| json::get(bytes, member.value, key).ok().flatten();
        if get("type").is_some_and(|kind| json::raw_eq(bytes, kind, "array")) {
            return false;
        }
        let Some(choices) = get("oneOf") else { continue };
        let (mut values, mut names) = (Vec::new(), Vec::new());
        for choice in json::elements(bytes, choices).map_while(Result::ok) {
            let text = |key| json::get(bytes, choice, key).ok().flatten().and_then(|value| value.of(bytes));
            let Some(value) = text("const") else { continue };
            values.push(value);
            names.push(text("title").unwrap_or(value));
        }
        let (values, names) = (array(&values), array(&names));
        let set: [(&str, &[u8]); 2] = [("enum", &values), ("enumNames", &names)];
        if splice.edit_object(bytes, member.value, &set, &["oneOf"]).is_err() {
            return false;
        }
    }
    true
}

/// Before 2025-11-25 a sampling message has one content, no list of them.
fn single_contents(splice: &mut Splice, bytes: &[u8], params: Range32) -> Result<(), Wrong> {
    let Ok(Some(messages)) = json::get(bytes, params, "messages") else { return Ok(()) };
    for message in json::elements(bytes, messages).map_while(Result::ok) {
        let Ok(Some(content)) = json::get(bytes, message, "content") else { continue };
        if json::kind_of(bytes, content) != Some(ValueKind::Array) {
            continue;
        }
        let mut blocks = json::elements(bytes, content).map_while(Result::ok);
        match (blocks.next(), blocks.next()) {
            (Some(only), None) => {
                splice.replace(content, Bytes::copy_from_slice(only.of(bytes).unwrap_or_default()));
            }
            _ => {
                return Err(Wrong(
                    "target samples with a message of several parts, which the client's revision does not have",
                ));
            }
        }
    }
    Ok(())
}

fn array(values: &[&[u8]]) -> Vec<u8> {
    [b"[", &values.join(&b","[..])[..], b"]"].concat()
}

/// The client's answer as the server gets it. An error of the client counts as a dismissed form; for whatever else was
/// asked there is no such answer.
///
/// # Errors
/// Where the client failed and the server cannot be told so.
pub fn answer(kind: Kind, message: &Bytes, result: Option<Range32>) -> Result<Bytes, Wrong> {
    let result = result.filter(|range| json::kind_of(message, *range) == Some(ValueKind::Object));
    match (result, kind) {
        (Some(range), _) => Ok(message.slice(range.usize())),
        (None, Kind::Form | Kind::Url) => Ok(dismissed()),
        (None, Kind::Sampling | Kind::SamplingWithTools) => Err(Wrong("the client did not sample")),
        (None, Kind::Roots) => Err(Wrong("the client did not list its roots")),
    }
}

/// A form that nobody answered.
pub fn dismissed() -> Bytes {
    Bytes::from_static(b"{\"action\":\"cancel\"}")
}

/// All answers under the server's keys, as JSON text.
pub fn responses<'a>(answers: impl IntoIterator<Item = (&'a Bytes, Bytes)>) -> Bytes {
    let mut out = BytesMut::from(&b"{"[..]);
    for (key, value) in answers {
        if out.len() > 1 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(key);
        out.extend_from_slice(b":");
        out.extend_from_slice(&value);
    }
    out.extend_from_slice(b"}");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json as value};

    fn required(result: &Value) -> Result<InputRequired, Wrong> {
        let message = Bytes::from(result.to_string());
        let root = json::root(&message).unwrap();
        read(&message, root)
    }

    #[test]
    fn what_is_asked_is_read() {
        let all = value!({"requestState": "s", "inputRequests": {
            "f": {"method": "elicitation/create", "params": {"message": "m", "requestedSchema": {}}},
            "u": {"method": "elicitation/create", "params": {"mode": "url", "url": "https://e.org"}},
            "s": {"method": "sampling/createMessage", "params": {"messages": []}},
            "t": {"method": "sampling/createMessage", "params": {"messages": [], "tools": []}},
            "r": {"method": "roots/list"},
        }});
        let read = required(&all).unwrap();
        let kinds: Vec<Kind> = read.asks.iter().map(|ask| ask.kind).collect();
        assert_eq!(kinds, [Kind::Form, Kind::Url, Kind::Sampling, Kind::SamplingWithTools, Kind::Roots]);
        assert_eq!(read.state.as_deref(), Some(&b"\"s\""[..]));
        assert_eq!(read.asks[0].key, "\"f\"");
        assert!(required(&value!({"requestState": "s"})).unwrap().asks.is_empty());
        let many: serde_json::Map<_, _> =
            (0..=INPUT_REQUESTS_MAX).map(|n| (n.to_string(), value!({"method": "roots/list"}))).collect();
        for wrong in [
            value!({}),
            value!({"inputRequests": {}}),
            value!({"inputRequests": []}),
            value!({"inputRequests": {"a": {"method": "ping"}}}),
            value!({"inputRequests": {"a": {}}}),
            value!({"inputRequests": {"a": 7}}),
            value!({"requestState": 7}),
            value!({"inputRequests": many}),
        ] {
            assert!(required(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn forms_in_every_revision() {
        let titled = value!({"type": "string", "oneOf": [{"const": "a", "title": "A"}, {"const": "b"}], "title": "T"});
        let older = value!({"type": "string", "title": "T", "enum": ["a", "b"], "enumNames": ["A", "b"]});
        let several = value!({"type": "array", "items": {"type": "string", "enum": ["a"]}});
        let params =
            |field: &Value| value!({"mode": "form", "message": "m", "requestedSchema": {"properties": {"f": field}}});
        let shown = |params: &Value, revision| {
            let ask = Ask { key: "\"k\"".into(), kind: Kind::Form, params: Some(params.to_string().into()) };
            match in_revision(&ask, revision, 7).unwrap() {
                Form::Params(params) => serde_json::from_slice::<Value>(&params).unwrap(),
                Form::Answer(answer) => serde_json::from_slice(&answer).unwrap(),
            }
        };
        assert_eq!(shown(&params(&titled), Revision::V2025_11_25), params(&titled));
        let mut expected = params(&older);
        expected.as_object_mut().unwrap().remove("mode");
        assert_eq!(shown(&params(&titled), Revision::V2025_06_18), expected);
        assert_eq!(shown(&params(&several), Revision::V2025_11_25), params(&several));
        assert_eq!(shown(&params(&several), Revision::V2025_06_18), value!({"action": "decline"}));
        let url = Ask { key: "\"k\"".into(), kind: Kind::Url, params: Some(r#"{"mode":"url","url":"u"}"#.into()) };
        let Ok(Form::Params(text)) = in_revision(&url, Revision::V2025_11_25, 7) else { panic!() };
        assert_eq!(
            serde_json::from_slice::<Value>(&text).unwrap(),
            value!({"mode": "url", "url": "u", "elicitationId": "agentlane-7"})
        );
    }

    #[test]
    fn sampling_in_older_revisions_has_one_content() {
        let text = value!({"type": "text", "text": "t"});
        let ask = |content: Value| Ask {
            key: "\"k\"".into(),
            kind: Kind::Sampling,
            params: Some(value!({"messages": [{"role": "user", "content": content}]}).to_string().into()),
        };
        let shown = |content: Value| in_revision(&ask(content), Revision::V2025_06_18, 7);
        let Ok(Form::Params(params)) = shown(value!([text])) else { panic!() };
        assert_eq!(serde_json::from_slice::<Value>(&params).unwrap()["messages"][0]["content"], text);
        assert!(shown(value!([text, text])).is_err());
        assert!(in_revision(&ask(value!([text, text])), Revision::V2025_11_25, 7).is_ok());
    }

    #[test]
    fn answers_go_back_under_their_keys() {
        let given = Bytes::from_static(br#"{"id":1,"result":{"action":"accept"}}"#);
        let root = json::root(&given).unwrap();
        let result = json::get(&given, root, "result").unwrap();
        let accepted = answer(Kind::Form, &given, result).unwrap();
        let refused = answer(Kind::Url, &given, None).unwrap();
        assert!(answer(Kind::Sampling, &given, None).is_err() && answer(Kind::Roots, &given, None).is_err());
        let keys = [Bytes::from_static(b"\"a\""), Bytes::from_static(b"\"b\"")];
        let all = responses(keys.iter().zip([accepted, refused]));
        assert_eq!(&all[..], br#"{"a":{"action":"accept"},"b":{"action":"cancel"}}"#);
        assert_eq!(&responses([])[..], b"{}");
    }
}
