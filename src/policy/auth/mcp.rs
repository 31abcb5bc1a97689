//! `mcpAuthentication`: the MCP endpoint as a protected resource (MCP specification, "Authorization"; RFC 9728). Who comes
//! without a token is told where it gets one; the metadata that says so is public. Where clients look for the authorization
//! server at the endpoint itself (2025-03-26), or must be told other things than it says, its metadata is served here as well.

use std::sync::Arc;

use agentlane_wire::h1::Method;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Mode;
use super::jwt::{Judged, Tokens};
use super::remote::Remote;
use crate::fault::{Fault, Kind};
use crate::policy::{Matched, Refusal, Verdict};
use crate::request::{Changes, LocalReply, RequestView};

/// Where metadata of a resource is, before its path (RFC 9728, 3).
pub const RESOURCE: &str = "/.well-known/oauth-protected-resource";
/// Where that of an authorization server is (RFC 8414, 3; OpenID Connect Discovery, 4).
pub const SERVERS: [&str; 2] = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];

const RULE: &str = "mcpAuthentication";

/// The policy of a route.
#[derive(Clone, Debug)]
pub struct McpAuthentication {
    pub mode: Mode,
    pub tokens: Arc<Tokens>,
    pub resource: Arc<Resource>,
}

/// What clients are told.
#[derive(Debug)]
pub struct Resource {
    /// The issuer of the tokens.
    pub issuer: String,
    /// The endpoint's public URL, where it is configured.
    pub url: Option<String>,
    /// As configured, `resource` left out.
    pub metadata: Map<String, Value>,
    /// Every one of them is needed.
    pub scopes: Vec<String>,
    /// The authorization server's own metadata.
    pub server: Arc<Remote>,
    /// Clients are sent here for it, because it must be told otherwise; with what is added to the URL that they log in at.
    pub adapted: Option<Adapted>,
}

/// What clients must be told otherwise than their authorization server says.
#[derive(Debug)]
pub struct Adapted {
    /// It knows no resource indicators (RFC 8707), but this parameter.
    pub audience: Option<String>,
}

impl McpAuthentication {
    pub(in crate::policy) fn request(
        &self,
        request: &RequestView<'_>,
        _: &Matched<'_>,
        changes: &mut Changes,
    ) -> Verdict {
        if let Some(reply) = self.resource.well_known(request) {
            return reply;
        }
        match self.tokens.judge(request, changes) {
            Judged::Verified(verified) => {
                let lacks = self.resource.scopes.iter().any(|scope| !has_scope(&verified.claims, scope));
                changes.principal.set_jwt(verified.claims, verified.identity);
                if lacks { self.resource.insufficient(request) } else { Verdict::Continue }
            }
            Judged::Not(verdict @ Verdict::Wait(_)) => verdict,
            Judged::Not(_) | Judged::Nobody | Judged::Refused(_) if self.mode == Mode::Permissive => Verdict::Continue,
            Judged::Nobody if self.mode == Mode::Optional => Verdict::Continue,
            Judged::Not(verdict) => verdict,
            Judged::Nobody => self.resource.challenge(request, "a token is missing", None),
            Judged::Refused(why) => self.resource.challenge(request, why, Some(why)),
        }
    }
}

impl Resource {
    /// The answer to a request for metadata; `None`: it is for the endpoint.
    fn well_known(&self, request: &RequestView<'_>) -> Option<Verdict> {
        let rest = request.path.strip_prefix("/.well-known/")?;
        // Older clients put the path of the endpoint first.
        let place = |prefix: &str| {
            let name = prefix.strip_prefix("/.well-known/")?;
            rest.strip_prefix(name).filter(|path| path.is_empty() || path.starts_with('/'))
        };
        let told = if let Some(path) = place(RESOURCE) {
            Told::Resource(path)
        } else {
            Told::Server(SERVERS.iter().find_map(|prefix| place(prefix))?)
        };
        let document = match (request.head.method, told) {
            (Method::Options, _) => return Some(Verdict::Reply(Box::new(open(LocalReply::new(204))))),
            (Method::Get | Method::Head, Told::Resource(path)) => self.document(request, path),
            (Method::Get | Method::Head, Told::Server(path)) => match self.server_document(request, path) {
                Ok(document) => document,
                Err(verdict) => return Some(verdict),
            },
            _ => {
                let fault = Fault::new(Kind::MethodNotAllowed, "method not allowed");
                return Some(Verdict::Refuse(Box::new(Refusal::new(fault).header("allow", "GET, HEAD, OPTIONS"))));
            }
        };
        let mut reply =
            open(LocalReply::new(200)).header("content-type", "application/json").header("cache-control", "no-store");
        if request.head.method != Method::Head {
            reply.body = Bytes::from(document.to_string());
        }
        Some(Verdict::Reply(Box::new(reply)))
    }

    /// RFC 9728, 2.
    fn document(&self, request: &RequestView<'_>, path: &str) -> Value {
        let own = format!("{}{path}", base(request));
        let mut document = Map::new();
        document.insert("resource".to_owned(), json!(self.url.as_ref().unwrap_or(&own)));
        let server = if self.adapted.is_some() { &own } else { &self.issuer };
        document.insert("authorization_servers".to_owned(), json!([server]));
        if !self.scopes.is_empty() {
            document.insert("scopes_supported".to_owned(), json!(self.scopes));
        }
        document.insert("bearer_methods_supported".to_owned(), json!(["header"]));
        document.extend(self.metadata.clone());
        Value::Object(document)
    }

    /// RFC 8414, 2, as the server has it, or adapted to what its clients must be told.
    fn server_document(&self, request: &RequestView<'_>, path: &str) -> Result<Value, Verdict> {
        let mut document = self.server.now().document.clone();
        let Some(object) = document.as_object_mut() else {
            if request.may_wait
                && let Some(pending) = self.server.ask()
            {
                return Err(Verdict::Wait(pending));
            }
            let fault = Fault::new(Kind::UpstreamUnreachable, "the authorization server gives no metadata");
            return Err(Verdict::Refuse(Box::new(Refusal::new(fault))));
        };
        if let Some(adapted) = &self.adapted {
            object.insert("issuer".to_owned(), json!(format!("{}{path}", base(request))));
            if let (Some(audience), Some(Value::String(place))) =
                (&adapted.audience, object.get_mut("authorization_endpoint"))
            {
                let joint = if place.contains('?') { '&' } else { '?' };
                place.push(joint);
                place.push_str("audience=");
                place.push_str(&percent_encoded(audience));
            }
        }
        Ok(document)
    }

    /// Where the metadata of the endpoint of this request is: between host and path (RFC 9728, 3.1).
    fn metadata_url(&self, request: &RequestView<'_>) -> String {
        match self.url.as_deref().map(split_path) {
            Some((origin, path)) => format!("{origin}{RESOURCE}{path}"),
            None => format!("{}{RESOURCE}{}", base(request), request.path.trim_end_matches('/')),
        }
    }

    /// RFC 6750, 3, and RFC 9728, 5.1.
    fn challenge(&self, request: &RequestView<'_>, message: &'static str, wrong: Option<&str>) -> Verdict {
        let mut challenge = String::from("Bearer ");
        if let Some(why) = wrong {
            challenge.push_str(&format!("error=\"invalid_token\", error_description=\"{why}\", "));
        }
        challenge.push_str(&format!("resource_metadata=\"{}\"", self.metadata_url(request)));
        if !self.scopes.is_empty() {
            challenge.push_str(&format!(", scope=\"{}\"", self.scopes.join(" ")));
        }
        super::unauthenticated(RULE, message, challenge)
    }

    fn insufficient(&self, request: &RequestView<'_>) -> Verdict {
        let challenge = format!(
            "Bearer error=\"insufficient_scope\", scope=\"{}\", resource_metadata=\"{}\"",
            self.scopes.join(" "),
            self.metadata_url(request)
        );
        let fault = Fault::new(Kind::Forbidden, "token lacks a scope").by(RULE);
        Verdict::Refuse(Box::new(Refusal::new(fault).header("www-authenticate", challenge)))
    }
}

/// Whose metadata is asked for, and the path of the endpoint in it.
enum Told<'a> {
    Resource(&'a str),
    Server(&'a str),
}

/// Any page may read it: there is nothing secret in it, and clients in browsers need it.
fn open(reply: LocalReply) -> LocalReply {
    reply
        .header("access-control-allow-origin", "*")
        .header("access-control-allow-methods", "GET, OPTIONS")
        .header("access-control-allow-headers", "authorization, content-type, mcp-protocol-version")
}

/// Scheme and authority as the client used them. A proxy that ends TLS says so; a client that lies misleads itself alone.
fn base(request: &RequestView<'_>) -> String {
    let forwarded = request.head.headers.get("x-forwarded-proto").filter(|value| *value == b"https");
    let scheme = if request.tls.is_some() || forwarded.is_some() { "https" } else { "http" };
    let is_plain = request.authority.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\<>".contains(&byte));
    format!("{scheme}://{}", if is_plain { request.authority } else { "" })
}

/// Origin and path of an absolute URL; no path where it is `/` alone.
pub fn split_path(url: &str) -> (&str, &str) {
    let after = url.find("://").map_or(0, |at| at + 3);
    let at = url[after..].find('/').map_or(url.len(), |at| after + at);
    let (origin, path) = url.split_at(at);
    (origin, path.split('?').next().unwrap_or_default().trim_end_matches('/'))
}

/// A list of words (RFC 8693, 4.2), or what others write for it.
fn has_scope(claims: &Value, scope: &str) -> bool {
    ["scope", "scp", "scopes"].iter().filter_map(|name| claims.get(name)).any(|value| match value {
        Value::String(words) => words.split(' ').any(|word| word == scope),
        Value::Array(words) => words.iter().any(|word| word == scope),
        _ => false,
    })
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_words() {
        let cases = [
            (json!({"scope": "read write"}), true),
            (json!({"scope": "write"}), true),
            (json!({"scope": "writer rewrite"}), false),
            (json!({"scp": ["read", "write"]}), true),
            (json!({"scope": 1}), false),
            (json!({}), false),
        ];
        for (claims, expected) in cases {
            assert_eq!(has_scope(&claims, "write"), expected, "{claims}");
        }
    }

    #[test]
    fn a_url_is_split_before_its_path() {
        assert_eq!(split_path("https://a.example/mcp/x?y"), ("https://a.example", "/mcp/x"));
        assert_eq!(split_path("https://a.example/"), ("https://a.example", ""));
        assert_eq!(split_path("https://a.example"), ("https://a.example", ""));
        assert_eq!(percent_encoded("https://a/ü"), "https%3A%2F%2Fa%2F%C3%BC");
    }
}
