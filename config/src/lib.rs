//! What a user of agentlane may write, and what it means.
//!
//! A document is YAML or JSON in one of two shapes (`binds`, or `gateways` with `routes` and the section `mcp`). [`load`]
//! reads it and gives one normalised [`Document`], or every [`Fault`] at once, each with file, line, column and field.
//! Nothing here runs anything: types only validate; the gateway compiles them. The one I/O is reading the document and
//! the files that it names.
//!
//! The way of a document: `tree` (text to nodes with places) > `form` and the declarations in `written`, `policy`, `mcp`,
//! `process`, `http`, `limit`, `auth`, `tls`, `scalar` (nodes to values, all faults collected) > `resolve` (both shapes to one `model`).
//! One declaration gives the struct, its decoder and its part of [`schema`].

mod audit;
mod auth;
mod cache;
mod context;
mod duration;
mod fault;
mod form;
mod http;
mod limit;
mod lock;
mod mcp;
mod model;
mod policy;
mod process;
mod resolve;
mod rules;
mod scalar;
mod schema;
mod shown;
mod size;
mod stdio;
mod suggest;
mod tls;
mod tree;
mod variables;
mod written;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use context::{Context, Place};
use form::Form;

pub use audit::{Audit, WhenBehind};
pub use auth::{
    ApiKey, ApiKeyAuth, AuthMode, BackendAuth, BackendKey, BasicAuth, BasicAuthMode, HeaderLocation, Jwks, JwtAuth,
    JwtProvider, JwtValidation, KeyHash, Location, McpAuthentication, PasswordHash, Provider, RequiredClaim, Url,
};
pub use cache::{Cache, CacheScope, Span};
pub use fault::{Fault, FaultKind};
pub use http::{AnyOr, HeaderName, HeaderValue, Method, Origin, PATTERN_BYTES_MAX, Pattern};
pub use limit::{ConcurrencyLimit, Eviction, Health, RateLimit, RateUnit, Retry};
pub use lock::{Lock, LockMode, TargetLockMode};
pub use mcp::{
    FailureMode, HttpTarget, Mcp, PrefixMode, Restart, SessionLoss, Stdio, StdioMode, TARGET_NAME_CHARS_MAX, Target,
    TargetProtocol, Transport,
};
pub use model::{
    Backend, BackendId, BackendKind, Bind, Document, HeaderMatch, Listener, Match, PathMatch, Protocol, QueryMatch,
    Route, RouteBackend, ValueMatch,
};
pub use policy::{
    Authority, BackendHttp, BackendPolicies, Cors, Csrf, DirectResponse, FullAuthority, HeaderModifier, HttpVersion,
    ListenerPolicies, PathRewrite, RequestRedirect, RoutePolicies, Scheme, TargetPolicies, Timeout, UrlRewrite,
};
pub use process::{
    AccessLog, HttpLimits, LogFormat, Logging, McpDefaults, ProcessConfig, ProxyMode, ProxyProtocol, ProxyVersion,
    Runtime, SessionConfig, ShardCount, Shards, Upstream,
};
pub use rules::{Authorization, Effect, McpAuthorization, Rule};
pub use rustls::CipherSuite;
pub use scalar::{Endpoint, Host, HostPattern, HostPort, Secret, SessionKey, UrlPath};
pub use stdio::{ChildLimits, Network};
pub use tls::{BackendTls, Certificates, ListenerTls, PrivateKey, TlsVersion};

/// How a document is read.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Turns keys that are known but not built into warnings. What such a key would protect is left out.
    pub lenient: bool,
    /// The environment: variables in the document, and ADMIN_ADDR, STATS_ADDR, READINESS_ADDR and SESSION_KEY.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

impl LoadOptions<'static> {
    /// Reads variables from the environment of the process. One that is not UTF-8 counts as not set.
    pub fn of_process(lenient: bool) -> Self {
        Self { lenient, env: &|name| std::env::var(name).ok() }
    }
}

/// A valid document.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it means.
    pub document: Document,
    /// What a user should know and may leave as it is, in the order of the text.
    pub warnings: Vec<Fault>,
    /// The files that were read, the document's first: a change of any is a change of the configuration.
    pub files: Vec<PathBuf>,
    /// The document as it may be shown: as written, secrets hidden, variables not expanded.
    pub written: serde_json::Value,
}

/// Reads a document and the files that it names.
///
/// # Errors
/// Every fault, in the order of the text.
pub fn load(path: &Path, options: &LoadOptions<'_>) -> Result<Loaded, Vec<Fault>> {
    let name = path.display().to_string();
    let text = read(path).map_err(|(kind, message)| {
        vec![Fault { file: name.clone(), line: 0, column: 0, path: String::new(), message, kind }]
    })?;
    let mut loaded = parse(&text, &name, options)?;
    loaded.files.insert(0, path.to_path_buf());
    Ok(loaded)
}

/// As [`load`], of a text at hand. Faults call it `name`; files that it names are relative to the folder of `name`.
///
/// # Errors
/// Every fault, in the order of the text.
pub fn parse(text: &str, name: &str, options: &LoadOptions<'_>) -> Result<Loaded, Vec<Fault>> {
    let mut cx = Context::new(name, options.lenient, options.env);
    let document = decode(text, &mut cx);
    let Context { mut faults, mut warnings, files, .. } = cx;
    in_text_order(&mut faults);
    in_text_order(&mut warnings);
    match document {
        Some((document, written)) if faults.is_empty() => Ok(Loaded { document, warnings, files, written }),
        _ => Err(faults),
    }
}

/// The JSON schema (2020-12) of a document. A document with variables in it is valid as well.
pub fn schema() -> serde_json::Value {
    schema::of::<written::Configuration>("agentlane configuration")
}

/// The document, and as what it may be shown.
fn decode(text: &str, cx: &mut Context<'_>) -> Option<(Document, serde_json::Value)> {
    let (root, duplicates) = match tree::parse(text) {
        Ok(parsed) => parsed,
        Err(tree::TreeFault { mark, path, message, kind }) => {
            cx.fault(Place { mark, path }, kind, message);
            return None;
        }
    };
    for tree::TreeFault { mark, path, message, kind } in duplicates {
        cx.fault(Place { mark, path }, kind, message);
    }
    if root.is_null() {
        cx.fault(Place::start(), FaultKind::Missing, "the document is empty".to_owned());
        return None;
    }
    let written = written::Configuration::decode(&root, cx)?;
    let document = resolve::document(written, cx);
    Some((document, shown::shown(&root, &cx.secrets)))
}

fn in_text_order(faults: &mut Vec<Fault>) {
    faults.sort_by_key(|fault| (fault.line, fault.column));
    faults.dedup();
}

/// Reads a document's text, no further than its limit.
fn read(path: &Path) -> Result<String, (FaultKind, String)> {
    let failed = |error: std::io::Error| (FaultKind::Io, format!("cannot be read: {error}"));
    let limit = tree::TEXT_BYTES_MAX as u64;
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err((FaultKind::Limit, format!("longer than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| (FaultKind::Syntax, "not UTF-8".to_owned()))
}
