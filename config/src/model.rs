//! What a valid document means, in one shape whichever way it was written: references resolved, defaults filled in, nothing
//! left that validation should have removed. Must not know how it was written.

use std::net::IpAddr;

use crate::form::{record, union, words};
use crate::http::{HeaderName, Method, Pattern};
use crate::lock::Lock;
use crate::mcp::Mcp;
use crate::policy::{BackendPolicies, ListenerPolicies, RoutePolicies};
use crate::process::{HttpLimits, ProcessConfig, ProxyProtocol, Shards};
use crate::scalar::{HostPattern, HostPort, UrlPath};
use crate::tls::ListenerTls;

/// A whole document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Settings of the process; read at start, a change needs a restart.
    pub process: ProcessConfig,
    /// The shards; read at start, a change needs a restart.
    pub shards: Shards,
    /// Limits of HTTP on every listener.
    pub http: HttpLimits,
    /// The ports that are listened on; no two overlap.
    pub binds: Vec<Bind>,
    /// Every backend that a route leads to, once.
    pub backends: Vec<Backend>,
    /// The tool lock; `None`: nothing is scanned or compared.
    pub lock: Option<Lock>,
}

impl Document {
    /// The backend of this id.
    pub fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[id.0]
    }
}

/// An index into `Document::backends`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub usize);

/// One port that is listened on.
#[derive(Debug, Clone, PartialEq)]
pub struct Bind {
    /// The address; `None` is every address, IPv6 ones included where the host has them.
    pub address: Option<IpAddr>,
    /// 1 to 65535.
    pub port: u16,
    /// Connections begin with a PROXY header.
    pub proxy: Option<ProxyProtocol>,
    /// At least one, unless `lenient` left all out. No two have the same hostname.
    pub listeners: Vec<Listener>,
}

/// The part of a port's traffic that is for some hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Unique within the bind.
    pub name: String,
    /// The hosts it serves. Of several listeners the most exact one is chosen.
    pub hostname: HostPattern,
    /// What is spoken on it; the same on every listener of a bind.
    pub protocol: Protocol,
    /// There exactly when HTTPS is spoken.
    pub tls: Option<ListenerTls>,
    /// Policies for every request, before a route is chosen.
    pub policies: ListenerPolicies,
    /// In the order written, which decides between routes that match equally well.
    pub routes: Vec<Route>,
}

words! {
    /// What a listener speaks.
    pub enum Protocol {
        /// HTTP without TLS.
        Http = "HTTP",
        /// HTTP over TLS.
        Https = "HTTPS",
    }
    later "TLS", "TCP", "HBONE";
}

/// From requests that match to backends.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Unique within the listener.
    pub name: String,
    /// Hosts it serves, within its listener's; empty is any.
    pub hostnames: Vec<HostPattern>,
    /// At least one; any of them is enough.
    pub matches: Vec<Match>,
    /// Policies of the route.
    pub policies: RoutePolicies,
    /// Where to; a backend is taken by its share of the weights, whose sum is above zero. Empty when the route answers by
    /// itself (redirect, direct response), or when `lenient` left all out.
    pub backends: Vec<RouteBackend>,
}

record! {
    /// One way for a request to match: every condition must hold.
    pub struct Match {
        /// How the path is compared. Default: the prefix `/`.
        pub path: PathMatch = or(PathMatch::Prefix(UrlPath("/".to_owned()))) "path";
        /// The method. Default: any.
        pub method: Option<Method> = opt "method";
        /// Headers, every one of which must fit.
        pub headers: Vec<HeaderMatch> = opt "headers";
        /// Query parameters, every one of which must fit.
        pub query: Vec<QueryMatch> = opt "query";
    }
}

union! {
    /// How the path is compared.
    pub enum PathMatch {
        /// The whole path.
        Exact(UrlPath) = "exact";
        /// Whole segments from the start: `/a` matches `/a` and `/a/b`, not `/ab`. A slash at the end changes nothing.
        Prefix(UrlPath) = "pathPrefix";
        /// A regular expression for the whole path.
        Regex(Pattern) = "regex";
    }
    later "invalid";
}

union! {
    /// How a value is compared.
    pub enum ValueMatch {
        /// The whole value.
        Exact(String) = "exact";
        /// A regular expression for the whole value.
        Regex(Pattern) = "regex";
    }
    later "invalid";
}

record! {
    /// A header that must be there with a fitting value.
    pub struct HeaderMatch {
        /// The header, in any case.
        pub name: HeaderName = must "name";
        /// Its value.
        pub value: ValueMatch = must "value";
    }
}

record! {
    /// A query parameter that must be there with a fitting value.
    pub struct QueryMatch {
        /// The parameter, case counting.
        pub name: String = must "name";
        /// Its value.
        pub value: ValueMatch = must "value";
    }
}

/// A backend of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteBackend {
    /// Which one.
    pub backend: BackendId,
    /// Its share.
    pub weight: u32,
    /// The policies written here, and for those absent, the ones of the backend's own definition.
    pub policies: BackendPolicies,
}

/// Where requests can be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Unique: the name it was given, or one made of its place.
    pub name: String,
    /// What it is.
    pub kind: BackendKind,
}

/// What a backend is.
#[derive(Debug, Clone, PartialEq)]
pub enum BackendKind {
    /// An HTTP service; with TLS where the policies say so.
    Http(HostPort),
    /// MCP servers, served as one.
    Mcp(Mcp),
}
