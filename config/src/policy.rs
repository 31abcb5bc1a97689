//! The policies that may stand at a listener, a route, a backend and an MCP target, built or known. A policy moves from
//! known to built by moving its name from a `later` or `guard` list to a field. Must not know the document around them.

use std::fmt;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::auth::{ApiKeyAuth, BackendAuth, BasicAuth, JwtAuth, McpAuthentication};
use crate::context::{Context, Table};
use crate::fault::FaultKind;
use crate::form::{Form, Key, Named, record, union, words};
use crate::http::{AnyOr, HeaderLiteral, HeaderName, HeaderValue, Method, Origin};
use crate::limit::{ConcurrencyLimit, Health, RateLimit, RateLimits, Retry};
use crate::rules::{Authorization, McpAuthorization};
use crate::scalar::{Host, HostPort, Int, Port, UrlPath};
use crate::schema::{Definitions, or_variable};
use crate::tls::BackendTls;
use crate::tree::Node;

record! {
    /// Policies of a listener: they hold for every request that it takes, before a route is chosen.
    #[derive(Default)]
    pub struct ListenerPolicies {
        /// Answers CORS preflight requests and marks other answers for browsers.
        pub cors: Option<Cors> = opt "cors";
        /// Lets in who has a valid token.
        pub jwt: Option<JwtAuth> = opt "jwtAuth";
        /// Lets in who has a known key.
        pub api_key: Option<ApiKeyAuth> = opt "apiKey";
        /// Lets in who has a user's password.
        pub basic: Option<BasicAuth> = opt "basicAuth";
        /// Who may send a request.
        pub authorization: Option<Authorization> = opt "authorization";
    }
    later "extProc", "transformations";
    guard "oidc", "extAuthz";
}

record! {
    /// Policies of a route.
    #[derive(Default)]
    pub struct RoutePolicies {
        /// Answers CORS preflight requests and marks other answers for browsers.
        pub cors: Option<Cors> = opt "cors";
        /// How long a request may take.
        pub timeout: Option<Timeout> = opt "timeout";
        /// Changes the headers of the request.
        pub request_headers: Option<HeaderModifier> = opt "requestHeaderModifier";
        /// Changes the headers of the answer.
        pub response_headers: Option<HeaderModifier> = opt "responseHeaderModifier";
        /// Changes authority and path of the request on its way to the backend.
        pub rewrite: Option<UrlRewrite> = opt "urlRewrite";
        /// Answers with a redirect; no backend is asked.
        pub redirect: Option<RequestRedirect> = opt "requestRedirect";
        /// Answers by itself; no backend is asked.
        pub direct_response: Option<DirectResponse> = opt "directResponse";
        /// Refuses what browsers send for pages of other sites, where it could change something.
        pub csrf: Option<Csrf> = opt "csrf";
        /// How often requests may come, each of these limits by itself.
        pub rate_limits: Vec<RateLimit> = opt "localRateLimit" as RateLimits;
        /// How many requests may be under way at once.
        pub concurrency: Option<ConcurrencyLimit> = opt "concurrencyLimit";
        /// Sends requests again that failed, where that is safe.
        pub retry: Option<Retry> = opt "retry";
        /// Lets in who has a valid token.
        pub jwt: Option<JwtAuth> = opt "jwtAuth";
        /// Lets in who has a known key.
        pub api_key: Option<ApiKeyAuth> = opt "apiKey";
        /// Lets in who has a user's password.
        pub basic: Option<BasicAuth> = opt "basicAuth";
        /// Serves the route's MCP endpoint as a protected resource, which tells clients where they get tokens.
        pub mcp_authentication: Option<McpAuthentication> = opt "mcpAuthentication";
        /// With which credential the gateway comes to the backends. Without it none of the client's reaches them that a
        /// policy has read.
        pub backend_auth: Option<BackendAuth> = opt "backendAuth";
        /// Who may send a request. A listener's rules are asked as well.
        pub authorization: Option<Authorization> = opt "authorization";
        /// Who may see and use which tools, prompts and resources of MCP backends.
        pub mcp_authorization: Option<McpAuthorization> = opt "mcpAuthorization";
    }
    later "requestMirror", "a2a", "ai", "backendTunnel", "remoteRateLimit", "extProc", "transformations",
        "buffer", "delay", "cache";
    guard "mcpGuardrails", "backendTLS", "oidc", "extAuthz", "lock";
    check one_answer;
}

record! {
    /// Policies of a backend. A header modifier here acts after the route's.
    #[derive(Default)]
    pub struct BackendPolicies {
        /// Changes the headers of the request.
        pub request_headers: Option<HeaderModifier> = opt "requestHeaderModifier";
        /// Changes the headers of the answer.
        pub response_headers: Option<HeaderModifier> = opt "responseHeaderModifier";
        /// Answers with a redirect in place of this backend.
        pub redirect: Option<RequestRedirect> = opt "requestRedirect";
        /// Speaks TLS to the backend; to every target of an MCP backend that has no such policy of its own.
        pub tls: Option<BackendTls> = opt "backendTLS";
        /// Lets addresses rest that keep failing; for every target of an MCP backend that has no such policy of its own.
        pub health: Option<Health> = opt "health";
        /// How many requests it takes at once, whatever routes lead to it.
        pub concurrency: Option<ConcurrencyLimit> = opt "concurrencyLimit";
        /// The version of HTTP that the backend is spoken to in; every target of an MCP backend without such a policy of its own.
        pub http: Option<BackendHttp> = opt "http";
        /// With which credential the gateway comes to the backend; to every target of an MCP backend that has no such policy
        /// of its own.
        pub auth: Option<BackendAuth> = opt "backendAuth";
        /// Who may see and use which tools, prompts and resources of this MCP backend. A route's rules are asked as well.
        pub mcp_authorization: Option<McpAuthorization> = opt "mcpAuthorization";
    }
    later "transformations", "tcp", "backendTunnel", "a2a", "inferenceRouting", "sessionAffinity", "ai";
    guard "extAuthz", "authorization", "mcpGuardrails";
}

record! {
    /// Policies of one MCP target reached over HTTP.
    #[derive(Default)]
    pub struct TargetPolicies {
        /// Changes the headers of every request to the target.
        pub request_headers: Option<HeaderModifier> = opt "requestHeaderModifier";
        /// Speaks TLS to the target. Default: as its URL says, `https` with the roots of the system.
        pub tls: Option<BackendTls> = opt "backendTLS";
        /// Lets addresses of the target rest that keep failing.
        pub health: Option<Health> = opt "health";
        /// The version of HTTP that the target is spoken to in.
        pub http: Option<BackendHttp> = opt "http";
        /// With which credential the gateway comes to the target.
        pub auth: Option<BackendAuth> = opt "backendAuth";
    }
    later "transformations", "tcp", "backendTunnel";
}

record! {
    /// How HTTP is spoken to a backend.
    #[derive(Default)]
    pub struct BackendHttp {
        /// Over TLS it is offered, unless `backendTLS.alpn` says what is. Default: HTTP/1.1, or what `alpn` comes to.
        pub version: Option<HttpVersion> = opt "version";
    }
    later "requestTimeout";
}

words! {
    /// A version of HTTP.
    pub enum HttpVersion {
        /// HTTP/1.1.
        Http11 = "HTTP/1.1",
        /// HTTP/2: without TLS by prior knowledge.
        Http2 = "HTTP/2.0",
    }
}

record! {
    /// Cross-origin resource sharing, as browsers ask for it.
    pub struct Cors {
        /// Origins that may read the answers; `*` for any.
        pub allow_origins: Vec<AnyOr<Origin>> = opt "allowOrigins";
        /// Request headers that a page may send; `*` for any.
        pub allow_headers: Vec<AnyOr<HeaderName>> = opt "allowHeaders";
        /// Methods that a page may use; `*` for any.
        pub allow_methods: Vec<AnyOr<Method>> = opt "allowMethods";
        /// Response headers that a page may read; `*` for any.
        pub expose_headers: Vec<AnyOr<HeaderName>> = opt "exposeHeaders";
        /// Whether a page may send credentials. Default: false.
        pub allow_credentials: bool = or(false) "allowCredentials";
        /// How long a browser may keep the answer to a preflight request.
        pub max_age: Option<Duration> = opt "maxAge";
    }
    check credentials_for_all;
}

record! {
    /// Refuses requests of browsers that come from pages of another origin (403): those of every method but GET, HEAD and
    /// OPTIONS, and WebSockets.
    pub struct Csrf {
        /// Origins whose pages may send them all the same.
        pub additional_origins: Vec<Origin> = opt "additionalOrigins";
    }
}

record! {
    /// Time limits of a request.
    pub struct Timeout {
        /// From the request's head to the end of the answer.
        pub request: Option<Duration> = opt "requestTimeout";
        /// From the request to the backend to the end of its answer.
        pub backend_request: Option<Duration> = opt "backendRequestTimeout";
    }
}

record! {
    /// Changes to the headers of a message: `remove`, then `set`, then `add`.
    #[derive(Default)]
    pub struct HeaderModifier {
        /// Appends a value, keeping the ones that are there.
        pub add: Vec<(HeaderName, HeaderValue)> = opt "add" as Named<FreeHeader, HeaderValue>;
        /// Puts a value in the place of every one that is there.
        pub set: Vec<(HeaderName, HeaderValue)> = opt "set" as Named<FreeHeader, HeaderValue>;
        /// Takes the header away.
        pub remove: Vec<HeaderName> = opt "remove" as Vec<FreeHeader>;
    }
}

record! {
    /// Changes to a request's target on its way to the backend.
    pub struct UrlRewrite {
        /// The authority that the backend sees.
        pub authority: Option<Authority> = opt "authority";
        /// The path that the backend sees. The query stays.
        pub path: Option<PathRewrite> = opt "path";
    }
}

record! {
    /// An answer that sends the client elsewhere.
    pub struct RequestRedirect {
        /// The scheme of the new URL. Default: the request's.
        pub scheme: Option<Scheme> = opt "scheme";
        /// The authority of the new URL. Default: the request's.
        pub authority: Option<Authority> = opt "authority";
        /// The path of the new URL. Default: the request's.
        pub path: Option<PathRewrite> = opt "path";
        /// 301, 302, 303, 307 or 308. Default: 302.
        pub status: u16 = or(302) "status" as RedirectStatus;
    }
}

record! {
    /// An answer of the gateway's own.
    pub struct DirectResponse {
        /// The status code, 200 to 599.
        pub status: u16 = must "status" as Int<u16, 200, 599>;
        /// The body. Default: empty.
        pub body: String = or(String::new()) "body";
        /// Headers. The vocabulary writes expressions here; a string literal like `'"text/plain"'` is built.
        pub headers: Vec<(HeaderName, HeaderValue)> = opt "headers" as Named<HeaderName, HeaderLiteral>;
    }
    guard "bodyExpression", "conditional";
    check body_fits_status;
}

union! {
    /// Which part of an authority changes.
    pub enum Authority {
        /// Host and port together, like `example.com` or `example.com:8080`.
        Full(FullAuthority) = "full";
        /// The host; the port stays.
        Host(Host) = "host";
        /// The port; the host stays.
        Port(u16) = "port" as Port;
    }
    words {
        /// The host of the chosen backend.
        Auto = "auto";
        /// No change.
        Keep = "none";
    }
}

union! {
    /// Which part of a path changes.
    pub enum PathRewrite {
        /// The whole path.
        Full(UrlPath) = "full";
        /// The prefix that the route matched on.
        Prefix(UrlPath) = "prefix";
    }
}

words! {
    /// A URL's scheme.
    pub enum Scheme {
        /// Without TLS.
        Http = "http",
        /// With TLS.
        Https = "https",
    }
}

/// A host with an optional port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullAuthority {
    /// A name in lowercase or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: Option<u16>,
}

impl fmt::Display for FullAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => HostPort { host: self.host.clone(), port }.fmt(f),
            None if self.host.contains(':') => write!(f, "[{}]", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl Form for FullAuthority {
    type Out = FullAuthority;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<FullAuthority> {
        let expected = "a host with an optional port, like example.com or example.com:8080";
        let text = cx.string(node, expected)?;
        let parsed = crate::http::split_port(&text)
            .and_then(|(host, port)| Some(FullAuthority { host: crate::scalar::parse_host(host)?, port }));
        if parsed.is_none() {
            cx.invalid(node, expected);
        }
        parsed
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "minLength": 1})
    }
}

/// The status codes that send a client elsewhere (RFC 9110, 15.4).
struct RedirectStatus;

impl Form for RedirectStatus {
    type Out = u16;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<u16> {
        let expected = "301, 302, 303, 307 or 308";
        let text = cx.bare(node, expected)?;
        let status = text.parse().ok().filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308));
        if status.is_none() {
            cx.invalid(node, expected);
        }
        status
    }

    fn schema(_: &mut Definitions) -> Json {
        or_variable(json!({"enum": [301, 302, 303, 307, 308]}))
    }
}

/// Browsers refuse `*` beside credentials, so that each origin must be named in the answer: then every site may act as the
/// user. The vocabulary allows it.
fn credentials_for_all(cors: &Cors, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    if cors.allow_credentials && cors.allow_origins.contains(&AnyOr::Any) {
        let mark = table.entry(&["allowCredentials"]).map_or(table.mark, |entry| entry.node.mark);
        let place = cx.at_key("allowCredentials", |cx| cx.place(mark));
        let message = "with allowOrigins * every site may act as the user".to_owned();
        cx.warn(place, FaultKind::Conflict, message);
    }
    true
}

/// Two policies that both answer leave one of them without effect.
fn one_answer(policies: &RoutePolicies, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    if policies.redirect.is_some() && policies.direct_response.is_some() {
        let mark = table.entry(&["directResponse"]).map_or(table.mark, |entry| entry.mark);
        let message = "cannot stand beside requestRedirect; both answer the request".to_owned();
        cx.at_key("directResponse", |cx| cx.fault_at(mark, FaultKind::Conflict, message));
    }
    true
}

/// A header that may be changed. Those that frame or route the message belong to the gateway: to change them is to change
/// where a message ends.
struct FreeHeader;

impl FreeHeader {
    fn check(name: HeaderName) -> Result<HeaderName, &'static str> {
        match name.as_str() {
            "host" => Err("a header other than host, which urlRewrite.authority changes"),
            "connection" | "content-length" | "keep-alive" | "proxy-connection" | "te" | "trailer"
            | "transfer-encoding" | "upgrade" => Err("a header that does not belong to the connection"),
            _ => Ok(name),
        }
    }
}

impl Key for FreeHeader {
    type Out = HeaderName;

    fn parse(text: &str) -> Result<HeaderName, &'static str> {
        HeaderName::parse(text).and_then(Self::check)
    }
}

impl Form for FreeHeader {
    type Out = HeaderName;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<HeaderName> {
        let name = HeaderName::decode(node, cx)?;
        Self::check(name).map_err(|expected| cx.invalid(node, expected)).ok()
    }

    fn schema(defs: &mut Definitions) -> Json {
        HeaderName::schema(defs)
    }
}

/// 204 and 304 have no body (RFC 9110, 6.4.1).
fn body_fits_status(response: &DirectResponse, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    if matches!(response.status, 204 | 304) && !response.body.is_empty() {
        let mark = table.entry(&["body"]).map_or(table.mark, |entry| entry.node.mark);
        let message = format!("an answer with status {} has no body", response.status);
        cx.at_key("body", |cx| cx.fault_at(mark, FaultKind::Conflict, message));
    }
    true
}
