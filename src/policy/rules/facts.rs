//! What rules may read of a request, under the names of expressions.

use std::fmt::Write;

use agentlane_expression::{Inputs, Map, Object, Text, Value, Variable};
use agentlane_link::tls::{AltName, ClientIdentity};
use agentlane_wire::h1::Headers;

use super::access::{Item, ItemKind};
use crate::principal::Principal;
use crate::request::RequestView;

/// One request, and what of it is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Where it is known: messages over standard streams have none.
    request: Option<Request<'a>>,
    principal: &'a Principal,
    pub message: Message<'a>,
}

/// What an MCP message says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    pub method: Option<&'a str>,
    pub session: Option<&'a str>,
    pub item: Option<Item<'a>>,
}

#[derive(Clone, Copy)]
struct Request<'a> {
    view: RequestView<'a>,
    headers: HeaderMap<'a>,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").finish_non_exhaustive()
    }
}

impl<'a> Facts<'a> {
    pub fn new(view: Option<RequestView<'a>>, principal: &'a Principal) -> Self {
        let request = view.map(|view| Request { headers: HeaderMap(&view.head.headers), view });
        Facts { request, principal, message: Message::default() }
    }

    fn certificate(&self) -> Option<&ClientIdentity> {
        self.principal.certificate.as_deref()
    }

    fn item(&self, kind: ItemKind) -> Option<Item<'a>> {
        self.message.item.filter(|item| item.kind == kind)
    }
}

/// A document that is no object has no members.
fn members(json: Option<&serde_json::Value>) -> Value<'_> {
    match json {
        Some(json) if json.is_object() => Value::json(json),
        _ => Value::Map(Map::Empty),
    }
}

impl Inputs for Facts<'_> {
    fn value(&self, variable: Variable) -> Option<Value<'_>> {
        let name = |kind| self.item(kind).map(|item| Value::text(item.name));
        let target = |kind| self.item(kind).map(|item| Value::text(item.target));
        match variable {
            Variable::Jwt => Some(members(self.principal.jwt.as_deref())),
            Variable::ApiKey => Some(members(self.principal.api_key.as_deref())),
            Variable::BasicAuthUsername => self.principal.basic.as_deref().map(Value::text),
            Variable::McpToolName => name(ItemKind::Tool),
            Variable::McpToolTarget => target(ItemKind::Tool),
            Variable::McpToolRisk => Some(Value::Int(i64::from(self.item(ItemKind::Tool)?.risk?))),
            Variable::McpPromptName => name(ItemKind::Prompt),
            Variable::McpPromptTarget => target(ItemKind::Prompt),
            Variable::McpResourceName => name(ItemKind::Resource),
            Variable::McpResourceTarget => target(ItemKind::Resource),
            Variable::McpMethodName => self.message.method.map(Value::text),
            Variable::McpSessionId => self.message.session.map(Value::text),
            Variable::SourceSubject => self.certificate().map(|own| Value::text(&own.subject)),
            Variable::SourceSubjectCn => common_name(&self.certificate()?.subject).map(Value::made),
            Variable::SourceSubjectAltNames => self.certificate().map(alt_names),
            Variable::SourceSpiffeId => spiffe_id(self.certificate()?),
            Variable::SourceFingerprint => self.certificate().map(|own| Value::made(hexadecimal(&own.fingerprint))),
            _ => self.request.as_ref()?.value(variable),
        }
    }
}

impl Request<'_> {
    fn value(&self, variable: Variable) -> Option<Value<'_>> {
        let view = &self.view;
        let scheme = if view.tls.is_some() { "https" } else { "http" };
        Some(match variable {
            Variable::RequestMethod => Value::text(view.head.method_str()),
            Variable::RequestUri => Value::made(format!("{scheme}://{}{}", view.authority, view.head.target())),
            // Names of hosts are equal whatever their case.
            Variable::RequestHost if view.host.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Value::made(view.host.to_ascii_lowercase())
            }
            Variable::RequestHost => Value::text(view.host),
            Variable::RequestScheme => Value::text(scheme),
            Variable::RequestPath => Value::text(view.path),
            Variable::RequestPathAndQuery => Value::text(view.head.target()),
            Variable::RequestVersion => Value::text(view.head.version.as_str()),
            Variable::RequestHeaders => Value::Map(Map::Object(&self.headers)),
            Variable::SourceAddress => Value::made(view.peer?.ip().to_canonical().to_string()),
            Variable::SourcePort => Value::Int(i64::from(view.peer?.port())),
            _ => return None,
        })
    }
}

/// Headers by their names in lower case.
#[derive(Clone, Copy)]
struct HeaderMap<'a>(&'a Headers);

impl std::fmt::Debug for HeaderMap<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} headers", self.0.len())
    }
}

impl HeaderMap<'_> {
    /// What repeats the body (2026-07-28, "Standard MCP Request Headers") is not shown: when rules of HTTP are asked nobody
    /// knows yet whether it is true, and of older clients nobody ever does. `mcp.*` says the same of the body.
    fn is_hidden(name: &str) -> bool {
        ["mcp-method", "mcp-name", "mcp-param-"]
            .iter()
            .any(|front| name.get(..front.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(front)))
    }
}

impl Object for HeaderMap<'_> {
    /// Values that are no text are as good as absent.
    fn member(&self, name: &str) -> Option<Value<'_>> {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) || Self::is_hidden(name) {
            return None;
        }
        let mut values = self
            .0
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .filter_map(|header| header.value_str());
        let first = values.next()?;
        let mut rest = values.peekable();
        match rest.peek() {
            None => Some(Value::text(first)),
            Some(_) => Some(Value::texts([first].into_iter().chain(rest))),
        }
    }

    fn names(&self) -> Vec<Text<'_>> {
        let mut names: Vec<String> = self
            .0
            .iter()
            .filter(|header| header.value_str().is_some() && !Self::is_hidden(header.name))
            .map(|header| header.name.to_ascii_lowercase())
            .collect();
        names.sort();
        names.dedup();
        names.into_iter().map(|name| Text::Made(name.into())).collect()
    }
}

/// The first common name of a subject as text (RFC 4514), its escapes undone.
fn common_name(subject: &str) -> Option<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for letter in subject.chars() {
        match letter {
            ',' | '+' if !escaped => parts.push(String::new()),
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            _ => parts.last_mut()?.push(letter),
        }
        escaped = false;
    }
    parts.into_iter().find_map(|part| part.strip_prefix("CN=").map(str::to_owned))
}

fn alt_names(identity: &ClientIdentity) -> Value<'_> {
    let names = identity.alt_names.iter().map(|name| match name {
        AltName::Dns(name) | AltName::Uri(name) | AltName::Email(name) => Value::text(name),
        AltName::Ip(address) => Value::made(address.to_string()),
    });
    Value::List(agentlane_expression::List::Made(names.collect()))
}

fn spiffe_id(identity: &ClientIdentity) -> Option<Value<'_>> {
    identity.alt_names.iter().find_map(|name| match name {
        AltName::Uri(uri) if uri.starts_with("spiffe://") => Some(Value::text(uri)),
        _ => None,
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
