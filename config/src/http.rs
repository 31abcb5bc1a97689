//! What may be written of HTTP messages: names, values, methods, status codes, origins, and patterns to match them with.
//! Must not know routes.

use std::fmt;

use serde_json::{Value as Json, json};

use crate::context::Context;
use crate::fault::FaultKind;
use crate::form::{Form, Key};
use crate::scalar::parse_host;
use crate::schema::Definitions;
use crate::tree::Node;

/// The name of a header field in lowercase (RFC 9110, 5.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderName(String);

impl HeaderName {
    pub(crate) fn authorization() -> Self {
        Self("authorization".to_owned())
    }

    /// The name in lowercase.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Key for HeaderName {
    type Out = HeaderName;

    fn parse(text: &str) -> Result<Self, &'static str> {
        match is_token(text) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err("a header name"),
        }
    }
}

impl Form for HeaderName {
    type Out = HeaderName;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<HeaderName> {
        let text = cx.string(node, "a header name")?;
        // HTTP/2 names what is no header field with a leading colon; the vocabulary allows matching on them.
        if matches!(&*text, ":authority" | ":method" | ":path" | ":scheme") {
            let place = cx.place(node.mark);
            cx.not_built(place, "a pseudo header", "left out");
            return None;
        }
        match <Self as Key>::parse(&text) {
            Ok(name) => Some(name),
            Err(expected) => {
                cx.invalid(node, expected);
                None
            }
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "minLength": 1})
    }
}

/// Letters, digits and the punctuation of a token (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=256).contains(&text.len()) && text.bytes().all(allowed)
}

/// The value of a header field. It may hold a credential, so that `Debug` shows `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderValue(String);

impl HeaderValue {
    /// The value as it goes on the wire: no control character, no space at either end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let visible = text.bytes().all(|byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f));
        let trimmed = text.trim_matches([' ', '\t']) == text;
        (visible && trimmed).then(|| Self(text.to_owned()))
    }
}

impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Form for HeaderValue {
    type Out = HeaderValue;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<HeaderValue> {
        // Targets get their credentials by headers.
        cx.secrets.push(node.mark);
        let text = cx.string(node, "a string")?;
        let value = Self::parse(&text);
        if value.is_none() {
            let expected = "a header value without control characters or spaces at its ends";
            cx.invalid_at(node.mark, expected, "something else");
        }
        value
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string"})
    }
}

/// The value of a header in a direct response. The vocabulary writes an expression there; of those, a string literal
/// is built.
pub(crate) struct HeaderLiteral;

impl Form for HeaderLiteral {
    type Out = HeaderValue;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<HeaderValue> {
        let text = cx.string(node, "a string literal in quotes of its own")?;
        let inside = ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
        let Some(inside) = inside.filter(|inside| !inside.contains(['"', '\'', '\\'])) else {
            let place = cx.place(node.mark);
            cx.not_built(place, "an expression other than a string literal (like '\"text/plain\"')", "left out");
            return None;
        };
        let value = HeaderValue::parse(inside);
        if value.is_none() {
            cx.invalid(node, "a header value without control characters or spaces at its ends");
        }
        value
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string"})
    }
}

/// A request method as it is on the wire (RFC 9110, 9.1: case counts).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Method(pub String);

impl Form for Method {
    type Out = Method;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Method> {
        let text = cx.string(node, "a method, like GET")?;
        if !is_token(&text) {
            cx.invalid(node, "a method, like GET");
            return None;
        }
        let upper = text.to_ascii_uppercase();
        let standard = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
        if *text != upper && standard.contains(&upper.as_str()) {
            cx.invalid(node, &format!("the method in capitals ({upper})"));
            return None;
        }
        Some(Method(text.into_owned()))
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "minLength": 1})
    }
}

/// An origin as browsers send it: `scheme://host` or `scheme://host:port` in lowercase, or `null` (RFC 6454, 6.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(pub String);

impl Form for Origin {
    type Out = Origin;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Origin> {
        let expected = "* or an origin, like https://example.com or http://localhost:6274";
        let text = cx.string(node, expected)?;
        if text.contains('*') {
            let place = cx.place(node.mark);
            cx.not_built(place, "a wildcard inside an origin", "left out");
            return None;
        }
        let origin = parse_origin(&text);
        if origin.is_none() {
            cx.invalid(node, expected);
        }
        origin.map(Origin)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "pattern": "^null$|^[A-Za-z][A-Za-z0-9+.-]*://[^/]+$|\\$"})
    }
}

fn parse_origin(text: &str) -> Option<String> {
    if text == "null" {
        return Some(text.to_owned());
    }
    let (scheme, authority) = text.split_once("://")?;
    let scheme_fits = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let (host, port) = split_port(authority)?;
    let host = parse_host(host)?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let scheme = scheme.to_ascii_lowercase();
    // A browser leaves the scheme's own port out.
    let port = port.filter(|port| !matches!((scheme.as_str(), port), ("http", 80) | ("https", 443)));
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    scheme_fits.then(|| format!("{scheme}://{host}{port}"))
}

/// Splits `host[:port]`, leaving an IPv6 host in its brackets.
pub(crate) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let colon = authority.rfind(':').filter(|colon| authority[*colon..].find(']').is_none());
    match colon {
        Some(colon) => Some((&authority[..colon], Some(crate::scalar::parse_port(&authority[colon + 1..])?))),
        None => Some((authority, None)),
    }
}

/// `*`, or one of something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AnyOr<T> {
    /// Written `*`.
    Any,
    /// This one.
    Only(T),
}

impl<F: Form> Form for AnyOr<F> {
    type Out = AnyOr<F::Out>;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Self::Out> {
        match &node.value {
            crate::tree::Value::Scalar(scalar) if scalar.text == "*" => Some(AnyOr::Any),
            _ => F::decode(node, cx).map(AnyOr::Only),
        }
    }

    fn schema(defs: &mut Definitions) -> Json {
        json!({"anyOf": [{"const": "*"}, F::schema(defs)]})
    }
}

/// A regular expression that must match the whole of a value. Its syntax has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(String);

/// Most memory that one compiled pattern may take, in bytes. Compile with the same limit.
pub const PATTERN_BYTES_MAX: usize = 1 << 20;

impl Pattern {
    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The expression that matches only the whole of a value: `^(?:...)$`. It compiles within `PATTERN_BYTES_MAX`.
    pub fn anchored(&self) -> String {
        anchored(&self.0)
    }
}

fn anchored(text: &str) -> String {
    format!("^(?:{text})$")
}

impl Form for Pattern {
    type Out = Pattern;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Pattern> {
        let text = cx.string(node, "a regular expression")?;
        let build = |text: &str| regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
        match build(&text).and_then(|_| build(&anchored(&text))) {
            Ok(_) => Some(Pattern(text.into_owned())),
            Err(error) => {
                cx.fault_at(node.mark, FaultKind::Invalid, format!("not a regular expression: {}", reason(&error)));
                None
            }
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "format": "regex"})
    }
}

/// The last line of the library's message; the lines before draw the expression.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => format!("it takes more than {PATTERN_BYTES_MAX} bytes"),
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or("").trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}
