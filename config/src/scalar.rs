//! The values that fill a field: addresses, names, durations, secrets. Each knows how it is written and what it allows;
//! none knows which key holds it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::context::Context;
use crate::duration;
use crate::form::{Form, Key};
use crate::schema::{Definitions, or_variable};
use crate::tree::{Node, Value};

/// Longest host name, in bytes (RFC 1035, 2.3.4, without the closing dot).
const HOST_BYTES_MAX: usize = 253;

/// A whole number from `MIN` to `MAX`.
pub(crate) struct Int<T, const MIN: u64, const MAX: u64>(std::marker::PhantomData<T>);

/// A TCP port.
pub(crate) type Port = Int<u16, 1, 65535>;

impl<T: TryFrom<u64>, const MIN: u64, const MAX: u64> Form for Int<T, MIN, MAX> {
    type Out = T;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<T> {
        let expected = format!("an integer from {MIN} to {MAX}");
        let text = cx.bare(node, &expected)?;
        let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
        let out = number.and_then(|number| T::try_from(number).ok());
        if out.is_none() {
            cx.invalid(node, &expected);
        }
        out
    }

    fn schema(_: &mut Definitions) -> Json {
        or_variable(json!({"type": "integer", "minimum": MIN, "maximum": MAX}))
    }
}

impl Form for bool {
    type Out = bool;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<bool> {
        let text = cx.bare(node, "true or false")?;
        match &*text {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => {
                cx.invalid(node, "true or false");
                None
            }
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        or_variable(json!({"type": "boolean"}))
    }
}

/// Any text, the empty one included.
impl Form for String {
    type Out = String;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<String> {
        cx.string(node, "a string").map(|text| text.into_owned())
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string"})
    }
}

/// Decodes a string by a function from text to a value or to what was expected.
fn by<T>(node: &Node, cx: &mut Context<'_>, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let text = cx.string(node, expected)?;
    let out = parse(&text);
    if out.is_none() {
        cx.invalid(node, expected);
    }
    out
}

/// A form that is a string with a rule of its own.
macro_rules! text_form {
    ($name:ty, $expected:expr, $pattern:expr, $parse:expr) => {
        impl Form for $name {
            type Out = $name;

            fn decode(node: &Node, cx: &mut Context<'_>) -> Option<$name> {
                by(node, cx, $expected, $parse)
            }

            fn schema(_: &mut Definitions) -> Json {
                let pattern: &str = $pattern;
                match pattern {
                    "" => json!({"type": "string"}),
                    // A variable may stand anywhere in the text.
                    pattern => json!({"type": "string", "pattern": format!("{pattern}|\\$")}),
                }
            }
        }
    };
}

/// A label that the user gives to something: shown in logs and metrics, referred to elsewhere in the document.
pub(crate) struct Name;

/// What is expected of a `Name`.
const NAME: &str = "a name of 1 to 128 characters without spaces, control characters or '/'";

impl Form for Name {
    type Out = String;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<String> {
        by(node, cx, NAME, |text| is_name(text).then(|| text.to_owned()))
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "minLength": 1})
    }
}

fn is_name(text: &str) -> bool {
    let fits = (1..=128).contains(&text.chars().count());
    fits && !text.chars().any(|each| each.is_control() || each.is_whitespace() || each == '/')
}

/// The same, as a key.
impl Key for Name {
    type Out = String;

    fn parse(text: &str) -> Result<String, &'static str> {
        if is_name(text) { Ok(text.to_owned()) } else { Err(NAME) }
    }
}

/// Positive, at most a year: `500ms`, `5m`, `1h30m`.
impl Form for Duration {
    type Out = Duration;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Duration> {
        by(node, cx, "a duration above zero, like 500ms, 5m or 1h30m", duration::parse)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+$|\\$"})
    }
}

/// A host and a port, as in `example.com:8080` or `[::1]:8080`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A name in lowercase or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl HostPort {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: parse_host(host)?, port: parse_port(port)? })
    }
}

text_form!(HostPort, "a host and a port, like example.com:8080", "^.+:[0-9]+$", HostPort::parse);

pub(crate) fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// A host name or an IP address (an IPv6 one in brackets).
pub(crate) fn parse_host(text: &str) -> Option<String> {
    if let Some(inside) = text.strip_prefix('[') {
        let address: std::net::Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string());
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some(address.to_string());
    }
    is_host_name(text).then(|| text.to_ascii_lowercase())
}

/// Labels of letters, digits, `-` and (as container networks name hosts) `_`.
fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= HOST_BYTES_MAX && text.split('.').all(label)
}

/// A host without a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host(pub String);

text_form!(Host, "a host name or an IP address", "", |text| parse_host(text).map(Host));

/// What a listener or a route serves: any host, one host, or every host below a domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Every host (nothing written, or `*`).
    Any,
    /// This host, in lowercase, without port.
    Exact(String),
    /// Every host that ends in this text, which begins with a dot: `*.example.com` is `.example.com`. The domain itself
    /// is not meant; any number of labels is.
    Suffix(String),
}

impl HostPattern {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        match text.strip_prefix("*.") {
            Some(domain) => is_host_name(domain).then(|| Self::Suffix(format!(".{}", domain.to_ascii_lowercase()))),
            None => parse_host(text).map(Self::Exact),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

text_form!(
    HostPattern,
    "a host name without a port, or a wildcard like *.example.com",
    "^[^:/]+$|^\\[.*\\]$",
    HostPattern::parse
);

impl Form for IpAddr {
    type Out = IpAddr;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<IpAddr> {
        by(node, cx, "an IP address, like 127.0.0.1 or ::1", |text| match text {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            text => text.parse().ok(),
        })
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string"})
    }
}

/// Where one of the process's own servers (admin, metrics, readiness) listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// It does not run.
    Off,
    /// A TCP address.
    Tcp(SocketAddr),
}

/// What is expected of an `Endpoint`.
pub(crate) const ENDPOINT: &str = "an address like 127.0.0.1:15000, localhost:15000 or :15000, or off";

impl Endpoint {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self::Off);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() > 0).then_some(Self::Tcp(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let ip = match host {
            "" => Ipv4Addr::UNSPECIFIED,
            "localhost" => Ipv4Addr::LOCALHOST,
            _ => return None,
        };
        Some(Self::Tcp(SocketAddr::new(IpAddr::V4(ip), parse_port(port)?)))
    }
}

impl Form for Endpoint {
    type Out = Endpoint;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Endpoint> {
        let text = cx.string(node, ENDPOINT)?;
        if text.starts_with("unix:") {
            let place = cx.place(node.mark);
            cx.not_built(place, "a unix socket here", "left out");
            return None;
        }
        let out = Endpoint::parse(&text);
        if out.is_none() {
            cx.invalid(node, ENDPOINT);
        }
        out
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string"})
    }
}

/// A path on a server: begins with `/`, holds neither query nor fragment, and only characters that may stand in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UrlPath(pub String);

impl UrlPath {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fits = text.starts_with('/')
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
        fits.then(|| Self(text.to_owned()))
    }
}

text_form!(UrlPath, "a path that begins with '/' and has no '?', '#' or spaces", "^/", UrlPath::parse);

/// A file, made absolute to the folder of the document.
pub(crate) struct FilePath;

impl Form for FilePath {
    type Out = PathBuf;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<PathBuf> {
        let text = by(node, cx, "a path", |text| (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned()))?;
        Some(cx.resolve(&text))
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "minLength": 1})
    }
}

/// Something that must not be printed: `Debug` and `Display` show `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for its one use.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Plain text, `$NAME`, or `{file: path}`.
impl Form for Secret {
    type Out = Secret;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Secret> {
        secret_text(node, cx).map(Secret)
    }

    fn schema(defs: &mut Definitions) -> Json {
        let description = "A secret: plain text, a variable like $NAME, or the file that holds it.";
        defs.define("Secret", description, |_| {
            let file = json!({"type": "string", "minLength": 1});
            let file = crate::schema::single("file", file, "A file, relative to the folder of the document.");
            json!({"oneOf": [{"type": "string"}, file]})
        })
    }
}

/// The text of a secret. No message repeats it.
pub(crate) fn secret_text(node: &Node, cx: &mut Context<'_>) -> Option<String> {
    let expected = "a string, or a mapping with the key file";
    if node.is_scalar() {
        cx.secrets.push(node.mark);
    }
    match &node.value {
        Value::Scalar(scalar) if scalar.plain => cx.string(node, expected).map(|text| text.into_owned()),
        Value::Scalar(_) => cx.scalar(node, expected).map(|(text, _)| text.into_owned()),
        Value::Mapping(_) => {
            let table = cx.table(node, &[crate::context::KeyRule::built("file")])?;
            let name = table.must::<String>(cx, &["file"])?;
            let node = &table.entry(&["file"])?.node;
            cx.at_key("file", |cx| cx.read(node, &name))
        }
        Value::Sequence(_) => {
            cx.invalid(node, expected);
            None
        }
    }
}

/// The key that seals session ids: 32 bytes. `Debug` shows `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(pub [u8; 32]);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is expected of a `SessionKey`.
pub(crate) const SESSION_KEY: &str = "32 bytes as 64 hexadecimal digits or as base64";

impl SessionKey {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bytes = if text.len() == 64 { from_hex(text) } else { from_base64(text) };
        bytes?.try_into().ok().map(Self)
    }
}

impl Form for SessionKey {
    type Out = SessionKey;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<SessionKey> {
        let text = secret_text(node, cx)?;
        let key = SessionKey::parse(&text);
        if key.is_none() {
            cx.invalid_at(node.mark, SESSION_KEY, "something else");
        }
        key
    }

    fn schema(defs: &mut Definitions) -> Json {
        Secret::schema(defs)
    }
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Base64 of either alphabet, padded or not (RFC 4648, 4 and 5). Longer than any key is none.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    if text.len() > 64 || text.len() % 4 == 1 {
        return None;
    }
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for byte in text.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    Some(out)
}
