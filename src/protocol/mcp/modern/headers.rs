//! What a request of 2026-07-28 repeats in HTTP headers (transports page, "Request Metadata"): the method, the name, and
//! arguments whose schema says `x-mcp-header`. Values that a header cannot carry are wrapped in base64. For writing and
//! for comparing alike.

use std::borrow::Cow;

use agentlane_wire::json::{self, Envelope, Range32, ValueKind};
use bytes::{BufMut, BytesMut};

/// The annotation of a property.
pub const ANNOTATION: &str = "x-mcp-header";
/// Before the name that the annotation gives, in lower case.
pub const PARAM_PREFIX: &str = "mcp-param-";

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";
/// A schema nested deeper is not looked through: a tool whose annotations cannot be read has none that hold.
const SCHEMA_DEPTH_MAX: usize = 64;

/// A value as a header carries it: as it is where it is visible ASCII, else wrapped.
pub fn encode(value: &str) -> Cow<'_, str> {
    let plain = value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    let padded = value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']);
    if plain && !padded && !is_wrapped(value.as_bytes()) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("{OPEN}{}{CLOSE}", base64::encode(value.as_bytes())))
}

/// The value that a header carries; `None` when its encoding is broken: bad base64, no UTF-8, or bytes that only the
/// wrapped form may carry.
pub fn decode(header: &[u8]) -> Option<Cow<'_, str>> {
    let header = header.trim_ascii();
    if is_wrapped(header) {
        let inner = &header[OPEN.len()..header.len() - CLOSE.len()];
        return String::from_utf8(base64::decode(inner)?).ok().map(Cow::Owned);
    }
    let plain = header.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    plain.then(|| std::str::from_utf8(header).ok().map(Cow::Borrowed))?
}

fn is_wrapped(value: &[u8]) -> bool {
    value.len() >= OPEN.len() + CLOSE.len() && value.starts_with(OPEN.as_bytes()) && value.ends_with(CLOSE.as_bytes())
}

/// The value in the body that `Mcp-Name` must repeat, for methods that have one: a JSON string.
pub fn name_of(body: &[u8], envelope: &Envelope) -> Option<Range32> {
    let method = envelope.method.and_then(|range| range.of(body))?;
    match method {
        b"\"tools/call\"" | b"\"prompts/get\"" => envelope.name,
        b"\"resources/read\"" => envelope.uri,
        b"\"tasks/get\"" | b"\"tasks/update\"" | b"\"tasks/cancel\"" => envelope.task_id,
        _ => None,
    }
}

/// Writes what a request repeats: `mcp-method`, `mcp-name`, and an `mcp-param-*` for each argument that its tool annotates.
pub fn put_mirrored(out: &mut BytesMut, body: &[u8], envelope: &Envelope, annotated: &[Annotated]) {
    let text = |range| json::string(body, range).unwrap_or_default();
    if let Some(method) = envelope.method {
        put(out, &["mcp-method"], &text(method));
    }
    if let Some(name) = name_of(body, envelope) {
        put(out, &["mcp-name"], &text(name));
    }
    for parameter in annotated {
        if let Some(value) = parameter.value(body, envelope.arguments) {
            put(out, &[PARAM_PREFIX, &parameter.header], &value);
        }
    }
}

fn put(out: &mut BytesMut, name: &[&str], value: &str) {
    name.iter().for_each(|part| out.put_slice(part.as_bytes()));
    out.put_slice(b": ");
    out.put_slice(encode(value).as_bytes());
    out.put_slice(b"\r\n");
}

/// A parameter of a tool that is repeated in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotated {
    /// What follows `Mcp-Param-`, as the schema spells it.
    pub header: String,
    /// From the arguments down to the value.
    pub path: Vec<String>,
}

impl Annotated {
    /// The argument in the text that a header carries; `None` where it is absent, null, or no scalar.
    pub fn value<'a>(&self, body: &'a [u8], arguments: Option<Range32>) -> Option<Cow<'a, str>> {
        let value = self.argument(body, arguments)?;
        scalar(body, value)
    }

    fn argument(&self, body: &[u8], arguments: Option<Range32>) -> Option<Range32> {
        let mut at = arguments?;
        for key in &self.path {
            at = json::get(body, at, key).ok().flatten()?;
        }
        Some(at)
    }

    /// Whether the header, if there is one, says what the body does. A header without a value in the body disagrees as well
    /// as a value without its header.
    pub fn agrees(&self, header: Option<&[u8]>, body: &[u8], arguments: Option<Range32>) -> bool {
        let value = self.argument(body, arguments).filter(|value| scalar(body, *value).is_some());
        match (header, value) {
            (None, None) => true,
            (Some(header), Some(value)) => agrees(header, body, value),
            _ => false,
        }
    }
}

/// Whether a header repeats the JSON value at `value`: strings by their text, numbers by what they are worth.
pub fn agrees(header: &[u8], body: &[u8], value: Range32) -> bool {
    let (Some(said), Some(meant)) = (decode(header), scalar(body, value)) else { return false };
    if said == meant {
        return true;
    }
    let is_number = json::kind_of(body, value) == Some(ValueKind::Number);
    is_number && matches!((said.parse::<f64>(), meant.parse::<f64>()), (Ok(said), Ok(meant)) if said == meant)
}

/// A string's text, a number in decimal, `true` or `false`.
fn scalar(body: &[u8], value: Range32) -> Option<Cow<'_, str>> {
    match json::kind_of(body, value)? {
        ValueKind::String => json::string(body, value).ok(),
        ValueKind::Bool => std::str::from_utf8(value.of(body)?).ok().map(Cow::Borrowed),
        ValueKind::Number => decimal(std::str::from_utf8(value.of(body)?).ok()?),
        ValueKind::Null | ValueKind::Object | ValueKind::Array => None,
    }
}

/// `42.0` and `4.2e1` are the integer 42.
fn decimal(text: &str) -> Option<Cow<'_, str>> {
    const SAFE: f64 = 9_007_199_254_740_991.0;
    if !text.contains(['.', 'e', 'E']) {
        return Some(Cow::Borrowed(text));
    }
    let value: f64 = text.parse().ok()?;
    match value.fract() == 0.0 && value.abs() <= SAFE {
        true => Some(Cow::Owned(format!("{}", value as i64))),
        false => Some(Cow::Borrowed(text)),
    }
}

/// Why a tool's annotations do not hold: the tool must not be shown to a client over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

/// The annotated parameters of a tool's `inputSchema`.
///
/// # Errors
/// An annotation that is empty or no token, that two parameters share, of a parameter that is no string, integer or
/// boolean, or in a place that is not reached from the root through `properties` alone.
pub fn annotated(bytes: &[u8], schema: Range32) -> Result<Vec<Annotated>, Invalid> {
    let mut found = Vec::new();
    if schema.of(bytes).is_none_or(|text| memchr::memmem::find(text, ANNOTATION.as_bytes()).is_none()) {
        return Ok(found);
    }
    let mut path = Vec::new();
    reachable(bytes, schema, &mut path, &mut found)?;
    let mut names: Vec<String> = found.iter().map(|one| one.header.to_ascii_lowercase()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Invalid("two parameters share a header"));
    }
    Ok(found)
}

fn reachable(bytes: &[u8], schema: Range32, path: &mut Vec<String>, found: &mut Vec<Annotated>) -> Result<(), Invalid> {
    if path.len() > SCHEMA_DEPTH_MAX {
        return Err(Invalid("schema is nested too deep"));
    }
    for member in json::members(bytes, schema) {
        let Ok(member) = member else { return Ok(()) };
        if json::raw_eq(bytes, member.key, ANNOTATION) {
            found.push(annotation(bytes, schema, member.value, path)?);
        } else if json::raw_eq(bytes, member.key, "properties") {
            for property in json::members(bytes, member.value).map_while(Result::ok) {
                path.push(json::string(bytes, property.key).unwrap_or_default().into_owned());
                reachable(bytes, property.value, path, found)?;
                path.pop();
            }
        } else {
            unreachable(bytes, member, 0)?;
        }
    }
    Ok(())
}

fn annotation(bytes: &[u8], schema: Range32, name: Range32, path: &[String]) -> Result<Annotated, Invalid> {
    let header = json::string(bytes, name).map_err(|_| Invalid("the header's name is not a string"))?;
    if header.is_empty() || !header.bytes().all(is_token) {
        return Err(Invalid("the header's name is not a token"));
    }
    if path.is_empty() {
        return Err(Invalid("the schema itself is annotated"));
    }
    let kind = json::get(bytes, schema, "type").ok().flatten();
    let scalar = |kind| ["string", "integer", "boolean"].iter().any(|text| json::raw_eq(bytes, kind, text));
    let is_scalar = kind.is_some_and(|kind| match json::kind_of(bytes, kind) {
        // `["string", "null"]`: null is the absent value, which needs no header.
        Some(ValueKind::Array) => {
            let mut kinds =
                json::elements(bytes, kind).map_while(Result::ok).filter(|kind| !json::raw_eq(bytes, *kind, "null"));
            kinds.next().is_some_and(scalar) && kinds.next().is_none()
        }
        _ => scalar(kind),
    });
    if !is_scalar {
        return Err(Invalid("a parameter of this type cannot be in a header"));
    }
    Ok(Annotated { header: header.into_owned(), path: path.to_vec() })
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A fault for an annotation anywhere within a keyword's value. Values that are data are no schemas.
fn unreachable(bytes: &[u8], member: json::Member, depth: usize) -> Result<(), Invalid> {
    const DATA: [&str; 4] = ["default", "const", "enum", "examples"];
    const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
    let is = |names: &[&str]| names.iter().any(|name| json::raw_eq(bytes, member.key, name));
    if depth > SCHEMA_DEPTH_MAX {
        return Err(Invalid("schema is nested too deep"));
    }
    if is(&DATA) {
        return Ok(());
    }
    if is(&[ANNOTATION]) {
        return Err(Invalid("an annotation is not reached through properties alone"));
    }
    if is(&NAMED) {
        // The keys are names, not keywords.
        let schemas = json::members(bytes, member.value).map_while(Result::ok);
        return schemas.into_iter().try_for_each(|named| within(bytes, named.value, depth + 1));
    }
    within(bytes, member.value, depth + 1)
}

fn within(bytes: &[u8], value: Range32, depth: usize) -> Result<(), Invalid> {
    match json::kind_of(bytes, value) {
        Some(ValueKind::Object) => {
            json::members(bytes, value).map_while(Result::ok).try_for_each(|member| unreachable(bytes, member, depth))
        }
        Some(ValueKind::Array) if depth <= SCHEMA_DEPTH_MAX => {
            json::elements(bytes, value).map_while(Result::ok).try_for_each(|element| within(bytes, element, depth + 1))
        }
        Some(ValueKind::Array) => Err(Invalid("schema is nested too deep")),
        _ => Ok(()),
    }
}

/// RFC 4648, section 4, with padding.
mod base64 {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub fn encode(bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let byte = |place: usize| u32::from(*chunk.get(place).unwrap_or(&0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for place in 0..4 {
                let digit = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63] as char;
                out.push(if place <= chunk.len() { digit } else { '=' });
            }
        }
        out
    }

    /// With the padding that belongs to it, and no bits to spare.
    pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
        if !text.len().is_multiple_of(4) {
            return None;
        }
        let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
        let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
        for chunk in digits.chunks(4) {
            let mut bits = 0u32;
            for (place, digit) in chunk.iter().enumerate() {
                let value = ALPHABET.iter().position(|known| known == digit)?;
                bits |= (value as u32) << (18 - 6 * place);
            }
            let bytes = bits.to_be_bytes();
            let length = chunk.len() - 1;
            if chunk.len() == 1 || bytes[1 + length..].iter().any(|&spare| spare != 0) {
                return None;
            }
            out.extend_from_slice(&bytes[1..=length]);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Range32 {
        json::root(text.as_bytes()).unwrap()
    }

    #[test]
    fn values_travel_as_the_specification_shows() {
        let cases = [
            ("us-west1", "us-west1"),
            ("", ""),
            ("a b\tc", "a b\tc"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
            ("=?base64?", "=?base64?"),
        ];
        for (value, header) in cases {
            assert_eq!(encode(value), header, "{value:?}");
            assert_eq!(decode(header.as_bytes()).as_deref(), Some(value), "{header}");
        }
        for broken in [
            "=?base64?SGVsbG8?=",
            "=?base64?SGVsbG8=====?=",
            "=?base64?SG_s?=",
            "=?base64?/w==?=",
            "=?base64?SGVsbH==?=",
        ] {
            assert_eq!(decode(broken.as_bytes()), None, "{broken}");
        }
        assert_eq!(decode("wörld".as_bytes()), None);
        assert_eq!(decode(b"=?BASE64?SGk=?=").as_deref(), Some("=?BASE64?SGk=?="), "the markers are lower case");
    }

    #[test]
    fn annotations_hold_or_do_not() {
        type Found = Result<Vec<(&'static str, &'static str)>, ()>;
        let cases: [(&str, Found); 14] = [
            (r#"{"type":"object"}"#, Ok(vec![])),
            (r#"{"properties":{"r":{"type":"string","x-mcp-header":"Region"}}}"#, Ok(vec![("Region", "r")])),
            (
                r#"{"properties":{"a":{"type":"object","properties":{"b":{"type":"integer","x-mcp-header":"B"}}}}}"#,
                Ok(vec![("B", "a.b")]),
            ),
            (r#"{"properties":{"r":{"type":["boolean","null"],"x-mcp-header":"R"}}}"#, Ok(vec![("R", "r")])),
            (r#"{"properties":{"x-mcp-header":{"type":"string"}}}"#, Ok(vec![])),
            (r#"{"properties":{"r":{"type":"string","default":{"x-mcp-header":"No"}}}}"#, Ok(vec![])),
            (r#"{"properties":{"r":{"type":"number","x-mcp-header":"R"}}}"#, Err(())),
            (r#"{"properties":{"r":{"type":"string","x-mcp-header":""}}}"#, Err(())),
            (r#"{"properties":{"r":{"type":"string","x-mcp-header":"a b"}}}"#, Err(())),
            (r#"{"properties":{"r":{"type":"string","x-mcp-header":7}}}"#, Err(())),
            (
                r#"{"properties":{"a":{"type":"string","x-mcp-header":"R"},"b":{"type":"string","x-mcp-header":"r"}}}"#,
                Err(()),
            ),
            (r#"{"properties":{"l":{"type":"array","items":{"type":"string","x-mcp-header":"R"}}}}"#, Err(())),
            (r#"{"oneOf":[{"properties":{"r":{"type":"string","x-mcp-header":"R"}}}]}"#, Err(())),
            (r#"{"$defs":{"d":{"type":"string","x-mcp-header":"R"}}}"#, Err(())),
        ];
        for (schema, expected) in cases {
            let found = annotated(schema.as_bytes(), whole(schema)).map_err(drop);
            let found =
                found.map(|all| all.into_iter().map(|one| (one.header, one.path.join("."))).collect::<Vec<_>>());
            let expected =
                expected.map(|all| all.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect::<Vec<_>>());
            assert_eq!(found, expected, "{schema}");
        }
    }

    #[test]
    fn arguments_and_their_headers_agree_or_not() {
        let parameter = Annotated { header: "N".into(), path: vec!["a".into(), "n".into()] };
        let cases: [(&str, Option<&str>, bool); 12] = [
            (r#"{"a":{"n":42}}"#, Some("42"), true),
            (r#"{"a":{"n":42}}"#, Some("42.0"), true),
            (r#"{"a":{"n":42.0}}"#, Some("42"), true),
            (r#"{"a":{"n":42}}"#, Some("43"), false),
            (r#"{"a":{"n":42}}"#, None, false),
            (r#"{"a":{"n":null}}"#, None, true),
            (r#"{"a":{}}"#, Some("42"), false),
            (r#"{}"#, None, true),
            (r#"{"a":{"n":"42"}}"#, Some("42.0"), false),
            (r#"{"a":{"n":" x"}}"#, Some("=?base64?IHg=?="), true),
            (r#"{"a":{"n":true}}"#, Some("true"), true),
            (r#"{"a":{"n":true}}"#, Some("True"), false),
        ];
        for (arguments, header, expected) in cases {
            let bytes = arguments.as_bytes();
            assert_eq!(
                parameter.agrees(header.map(str::as_bytes), bytes, Some(whole(arguments))),
                expected,
                "{arguments} {header:?}"
            );
        }
    }

    #[test]
    fn a_request_is_mirrored() {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"grüß","arguments":{"n":4.2e1}}}"#;
        let envelope = json::scan(body.as_bytes(), &json::ScanLimits::default()).unwrap();
        let mut out = BytesMut::new();
        let annotated = [Annotated { header: "N".into(), path: vec!["n".into()] }];
        put_mirrored(&mut out, body.as_bytes(), &envelope, &annotated);
        let expected = "mcp-method: tools/call\r\nmcp-name: =?base64?Z3LDvMOf?=\r\nmcp-param-N: 42\r\n";
        assert_eq!(std::str::from_utf8(&out), Ok(expected));
    }
}
