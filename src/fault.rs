//! What can go wrong with one request: whose doing it was, what each protocol answers, and a private detail that only the
//! log sees. Raised anywhere, translated here alone.

use std::fmt;
use std::sync::Arc;

/// Whose doing a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Downstream,
    Upstream,
    Gateway,
}

/// Every fault by name, with its HTTP status (RFC 9110) and its JSON-RPC code (JSON-RPC 2.0, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ParseError,
    InvalidRequest,
    BatchForbidden,
    MethodNotFound,
    InvalidParams,
    /// No target has the resource: -32002 before 2026-07-28, whose code is that of other invalid params.
    ResourceUnknown,
    UnsupportedVersion,
    HeaderMismatch,
    CapabilityUndeclared,
    VersionUnknown,
    SessionMissing,
    SessionUnknown,
    AlreadyInitialized,
    ResumeUnknown,
    OriginForbidden,
    /// Nobody who is known: credentials are missing, or not accepted.
    Unauthenticated,
    /// Somebody who is known, and may not.
    Forbidden,
    /// More than is allowed in the time.
    RateLimited,
    NotAcceptable,
    UnsupportedMediaType,
    MethodNotAllowed,
    TooLarge,
    NoRoute,
    /// The request is for another listener than the one that its connection was made for.
    Misdirected,
    NoBackend,
    Overloaded,
    Draining,
    UpstreamUnreachable,
    UpstreamTimeout,
    UpstreamBroken,
    /// The target needs of the client what it did not declare, or did not give.
    CapabilityMissing,
    RequestTimeout,
    Internal,
}

/// A fault on its way to whoever asked.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// What the peer reads: lower case, no secrets, no addresses.
    pub message: &'static str,
    /// What the log reads.
    pub detail: Option<String>,
    /// What denied the request, where something did: a policy, and its rule with its place. For the audit log alone.
    pub rule: Option<Arc<str>>,
}

impl Kind {
    pub const fn http_status(self) -> u16 {
        match self {
            Kind::ParseError
            | Kind::InvalidRequest
            | Kind::BatchForbidden
            | Kind::InvalidParams
            | Kind::ResourceUnknown
            | Kind::UnsupportedVersion
            | Kind::HeaderMismatch
            | Kind::CapabilityUndeclared
            | Kind::VersionUnknown
            | Kind::SessionMissing
            | Kind::AlreadyInitialized
            | Kind::ResumeUnknown => 400,
            Kind::Unauthenticated => 401,
            Kind::OriginForbidden | Kind::Forbidden => 403,
            Kind::SessionUnknown | Kind::NoRoute | Kind::MethodNotFound => 404,
            Kind::MethodNotAllowed => 405,
            Kind::NotAcceptable => 406,
            Kind::RequestTimeout => 408,
            Kind::TooLarge => 413,
            Kind::UnsupportedMediaType => 415,
            Kind::Misdirected => 421,
            Kind::RateLimited => 429,
            Kind::Internal => 500,
            Kind::UpstreamUnreachable | Kind::UpstreamBroken | Kind::CapabilityMissing => 502,
            Kind::NoBackend | Kind::Overloaded | Kind::Draining => 503,
            Kind::UpstreamTimeout => 504,
        }
    }

    pub const fn rpc_code(self) -> i32 {
        match self {
            Kind::ParseError => -32700,
            Kind::MethodNotFound => -32601,
            Kind::InvalidParams | Kind::ResourceUnknown => -32602,
            // 2026-07-28, schema: HeaderMismatchError and the two after it.
            Kind::HeaderMismatch => -32020,
            Kind::CapabilityUndeclared => -32021,
            Kind::VersionUnknown => -32022,
            Kind::NoBackend
            | Kind::Overloaded
            | Kind::Draining
            | Kind::UpstreamUnreachable
            | Kind::UpstreamTimeout
            | Kind::UpstreamBroken
            | Kind::CapabilityMissing
            | Kind::RequestTimeout
            | Kind::Internal => -32603,
            _ => -32600,
        }
    }

    pub const fn origin(self) -> Origin {
        match self {
            Kind::UpstreamUnreachable | Kind::UpstreamTimeout | Kind::UpstreamBroken | Kind::CapabilityMissing => {
                Origin::Upstream
            }
            Kind::NoBackend | Kind::Overloaded | Kind::Draining | Kind::Internal => Origin::Gateway,
            _ => Origin::Downstream,
        }
    }

    /// Whether a request that ends with it was denied by a decision of the gateway, as opposed to being wrong or unlucky.
    /// A fault of any other kind is a denial as well when it names its [`rule`](Fault::rule).
    pub const fn denies(self) -> bool {
        matches!(
            self,
            Kind::OriginForbidden
                | Kind::Unauthenticated
                | Kind::Forbidden
                | Kind::RateLimited
                | Kind::HeaderMismatch
                | Kind::Misdirected
        )
    }

    /// A label of bounded cardinality for metrics and records.
    pub const fn label(self) -> &'static str {
        match self {
            Kind::ParseError => "parse_error",
            Kind::InvalidRequest => "invalid_request",
            Kind::BatchForbidden => "batch_forbidden",
            Kind::MethodNotFound => "method_not_found",
            Kind::InvalidParams => "invalid_params",
            Kind::ResourceUnknown => "resource_unknown",
            Kind::UnsupportedVersion => "unsupported_version",
            Kind::HeaderMismatch => "header_mismatch",
            Kind::CapabilityUndeclared => "capability_undeclared",
            Kind::VersionUnknown => "version_unknown",
            Kind::SessionMissing => "session_missing",
            Kind::SessionUnknown => "session_unknown",
            Kind::AlreadyInitialized => "already_initialized",
            Kind::ResumeUnknown => "resume_unknown",
            Kind::OriginForbidden => "origin_forbidden",
            Kind::Unauthenticated => "unauthenticated",
            Kind::Forbidden => "forbidden",
            Kind::RateLimited => "rate_limited",
            Kind::NotAcceptable => "not_acceptable",
            Kind::UnsupportedMediaType => "unsupported_media_type",
            Kind::MethodNotAllowed => "method_not_allowed",
            Kind::TooLarge => "too_large",
            Kind::NoRoute => "no_route",
            Kind::Misdirected => "misdirected",
            Kind::NoBackend => "no_backend",
            Kind::Overloaded => "overloaded",
            Kind::Draining => "draining",
            Kind::UpstreamUnreachable => "upstream_unreachable",
            Kind::UpstreamTimeout => "upstream_timeout",
            Kind::UpstreamBroken => "upstream_broken",
            Kind::CapabilityMissing => "capability_missing",
            Kind::RequestTimeout => "request_timeout",
            Kind::Internal => "internal",
        }
    }
}

impl Fault {
    pub const fn new(kind: Kind, message: &'static str) -> Self {
        Fault { kind, message, detail: None, rule: None }
    }

    pub fn with(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// Names what denied the request: it goes into the audit log, whatever the peer is told.
    pub fn by(mut self, rule: impl Into<Arc<str>>) -> Self {
        self.rule = Some(rule.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.label(), self.message)?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}
