//! The configuration as shards read it: compiled, immutable, without anything that validation could have removed.

mod auth;
pub mod compile;
pub mod explain;
pub mod kept;
pub mod lock;
pub mod matching;
mod policies;
mod rules;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agentlane_link::server::ServerLimits;
use agentlane_link::tls::ServerTls;
use agentlane_wire::proxy_protocol::Versions;

use crate::backend::mcp::McpBackend;
use crate::backend::retry::Retry;
use crate::backend::{Backend, Weighted};
use crate::policy::Chain;
use crate::policy::concurrency_limit::ConcurrencyLimit;
use crate::policy::request_redirect::RequestRedirect;
use crate::policy::rules::access::McpRules;
use matching::{HostPattern, RouteMatch};

/// Everything that a request needs, for one version of the configuration.
#[derive(Debug)]
pub struct Snapshot {
    pub version: u64,
    pub binds: Vec<Arc<Bind>>,
    /// Every route of every listener; `Route::index` is its place here.
    pub routes: Vec<Arc<Route>>,
    /// Every MCP backend; `McpBackend::index` is its place here.
    pub mcp: Vec<Arc<McpBackend>>,
    pub limits: ServerLimits,
    /// Bytes of a body that must be held whole: a JSON-RPC message.
    pub body_bytes: u64,
}

impl Snapshot {
    pub fn bind(&self, address: SocketAddr) -> Option<&Bind> {
        self.binds.iter().find(|bind| bind.address == address).map(AsRef::as_ref)
    }
}

/// One address with the listeners on it.
#[derive(Debug)]
pub struct Bind {
    pub address: SocketAddr,
    /// TLS is spoken on it, by every listener.
    pub secure: bool,
    /// Connections begin with a PROXY header.
    pub proxy: Option<ProxyHeader>,
    /// The most specific host first.
    pub listeners: Vec<Arc<Listener>>,
}

/// Which PROXY headers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    pub versions: Versions,
    /// A connection may come without one.
    pub optional: bool,
}

#[derive(Debug)]
pub struct Listener {
    pub name: String,
    pub host: HostPattern,
    /// There exactly on a secure bind.
    pub tls: Option<ServerTls>,
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
}

/// One way to reach a route.
#[derive(Debug)]
pub struct Rule {
    pub hosts: Vec<HostPattern>,
    pub matches: RouteMatch,
    pub route: Arc<Route>,
}

#[derive(Debug)]
pub struct Route {
    pub index: usize,
    pub name: String,
    /// Its listener's name.
    pub listener: String,
    pub chain: Chain,
    pub backends: Weighted<RouteBackend>,
    pub timeouts: Timeouts,
    /// How plain requests are sent again; `None`: only where a kept connection was dead.
    pub retry: Option<Retry>,
    /// Its clients read faults as JSON-RPC errors.
    pub is_mcp: bool,
}

impl Route {
    /// The name of the backend at a place.
    pub fn backend_name(&self, place: usize) -> Option<&str> {
        self.backends.get(place).map(|chosen| chosen.backend.name())
    }
}

/// A backend as one route uses it.
#[derive(Debug)]
pub struct RouteBackend {
    pub backend: Backend,
    /// Answers in its place.
    pub redirect: Option<RequestRedirect>,
    /// How many requests it takes at once.
    pub concurrency: Option<ConcurrencyLimit>,
    /// Who may use what of an MCP backend.
    pub rules: Option<Arc<McpRules>>,
}

/// `None`: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeouts {
    /// From the request's head to the answer's end.
    pub request: Option<Duration>,
    /// From the request's last byte to the answer's head, per attempt.
    pub backend: Option<Duration>,
}
