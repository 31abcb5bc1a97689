//! The only way from a document to a snapshot. The document is valid: what remains is to look names up, to put things in
//! the order in which a request meets them, and to write lists in the form in which they go onto the wire.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use agentlane_config as config;
use agentlane_link::client::Spoken;
use agentlane_link::h2::Http2Limits;
use agentlane_link::server::ServerLimits;
use agentlane_wire::proxy_protocol::Versions;
use regex::Regex;

use super::auth;
use super::kept::Kept;
use super::matching::{HostPattern, PathMatch, RouteMatch, ValueMatch};
use super::policies::{chain, edits, redirect};
use super::tls::TlsFault;
use super::{Bind, Listener, ProxyHeader, Route, RouteBackend, Rule, Snapshot, Timeouts, rules};
use crate::backend::health::Health;
use crate::backend::http::{Endpoint, HttpBackend, Judged};
use crate::backend::mcp::{
    ChildLimits, FailureMode, HttpTarget, ListPolicy, McpBackend, Protocol, SessionLoss, StdioTarget, Target,
    TargetKind,
};
use crate::backend::retry::Retry;
use crate::backend::{Backend, Weighted};
use crate::policy::concurrency_limit::ConcurrencyLimit;
use crate::policy::local_rate_limit::LocalRateLimit;
use crate::policy::{Chain, Policy};
use crate::protocol::mcp::revision::Revision;

/// Addresses by `(host, port)`; control looked them up.
pub type Addresses = HashMap<(String, u16), Arc<[SocketAddr]>>;

/// Every host and port whose address a snapshot of this document needs.
pub fn names(document: &config::Document) -> Vec<(String, u16)> {
    let mut names = Vec::new();
    for backend in &document.backends {
        match &backend.kind {
            config::BackendKind::Http(host_port) => names.push((host_port.host.clone(), host_port.port)),
            config::BackendKind::Mcp(mcp) => {
                names.extend(mcp.targets.iter().filter_map(|target| match &target.transport {
                    config::Transport::Http(http) | config::Transport::Sse(http) => {
                        Some((http.host.clone(), http.port))
                    }
                    config::Transport::Stdio(_) => None,
                }))
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Why a valid document cannot be compiled.
#[derive(Debug)]
pub enum CompileFault {
    /// A regular expression that was valid when it was checked.
    Pattern(regex::Error),
    Tls(TlsFault),
}

impl fmt::Display for CompileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompileFault::Pattern(error) => error.fmt(f),
            CompileFault::Tls(fault) => fault.fmt(f),
        }
    }
}

impl From<regex::Error> for CompileFault {
    fn from(error: regex::Error) -> Self {
        CompileFault::Pattern(error)
    }
}

impl From<TlsFault> for CompileFault {
    fn from(fault: TlsFault) -> Self {
        CompileFault::Tls(fault)
    }
}

/// Compiles a document. `kept` has what the one before leaves behind.
pub fn compile(
    document: &config::Document,
    version: u64,
    addresses: &Addresses,
    kept: &mut Kept,
) -> Result<Snapshot, CompileFault> {
    let mut compiler = Compiler { document, addresses, kept, routes: Vec::new(), mcp: Vec::new() };
    let binds = document.binds.iter().map(|bind| compiler.bind(bind)).collect::<Result<_, _>>()?;
    compiler.kept.tidy();
    Ok(Snapshot {
        version,
        binds,
        routes: compiler.routes,
        mcp: compiler.mcp,
        limits: server_limits(&document.http),
        body_bytes: document.http.buffer_bytes_max as u64,
    })
}

struct Compiler<'a> {
    document: &'a config::Document,
    addresses: &'a Addresses,
    kept: &'a mut Kept,
    routes: Vec<Arc<Route>>,
    mcp: Vec<Arc<McpBackend>>,
}

impl Compiler<'_> {
    fn bind(&mut self, bind: &config::Bind) -> Result<Arc<Bind>, CompileFault> {
        let ip = bind.address.unwrap_or_else(any_address);
        let mut listeners: Vec<Arc<Listener>> =
            bind.listeners.iter().map(|listener| self.listener(bind.port, listener)).collect::<Result<_, _>>()?;
        listeners.sort_by_key(|listener| std::cmp::Reverse(listener.host.specificity()));
        let secure = listeners.iter().any(|listener| listener.tls.is_some());
        let proxy = bind.proxy.map(|proxy| ProxyHeader {
            versions: match proxy.version {
                config::ProxyVersion::V1 => Versions::V1,
                config::ProxyVersion::V2 => Versions::V2,
                config::ProxyVersion::All => Versions::All,
            },
            optional: proxy.mode == config::ProxyMode::Optional,
        });
        Ok(Arc::new(Bind { address: SocketAddr::new(ip, bind.port), secure, proxy, listeners }))
    }

    fn listener(&mut self, port: u16, listener: &config::Listener) -> Result<Arc<Listener>, CompileFault> {
        let mut rules = Vec::new();
        for route in &listener.routes {
            let compiled = self.route(port, listener, route)?;
            let hosts: Vec<HostPattern> = route.hostnames.iter().map(host).collect();
            for matches in &route.matches {
                let rule = Rule { hosts: hosts.clone(), matches: route_match(matches)?, route: compiled.clone() };
                rules.push(rule);
            }
            for matches in auth::well_known(&route.policies, &route.matches) {
                rules.push(Rule { hosts: hosts.clone(), matches, route: compiled.clone() });
            }
        }
        // Stable: between equals the order of writing decides.
        rules.sort_by_cached_key(|rule| {
            let host = rule.hosts.iter().map(HostPattern::specificity).max().unwrap_or_default();
            (std::cmp::Reverse(host), rule.matches.precedence())
        });
        let tls = listener.tls.as_ref().map(|tls| self.kept.tls.server(&listener.name, tls)).transpose()?;
        Ok(Arc::new(Listener { name: listener.name.clone(), host: host(&listener.hostname), tls, rules }))
    }

    fn route(
        &mut self,
        port: u16,
        listener: &config::Listener,
        route: &config::Route,
    ) -> Result<Arc<Route>, CompileFault> {
        let policies = &route.policies;
        let timeouts = policies.timeout.as_ref();
        let timeouts = Timeouts {
            request: timeouts.and_then(|timeout| timeout.request),
            backend: timeouts.and_then(|timeout| timeout.backend_request),
        };
        let backends = route.backends.iter().map(|reference| {
            let redirect = reference.policies.redirect.as_ref().map(redirect);
            let mut reference = reference.clone();
            reference.policies.auth = reference.policies.auth.or_else(|| policies.backend_auth.clone());
            let backend = self.backend(&reference, timeouts, policies.retry.as_ref())?;
            let concurrency = reference.policies.concurrency.as_ref().map(|limit| {
                let name = &self.document.backend(reference.backend).name;
                let limit = self.kept.concurrency(&format!("{name} concurrencyLimit"), limit);
                ConcurrencyLimit { limit, spares_get: matches!(backend, Backend::Mcp(_)) }
            });
            let rules = rules::mcp(policies, &reference.policies);
            Ok((RouteBackend { backend, redirect, concurrency, rules }, reference.weight))
        });
        let backends: Vec<(RouteBackend, u32)> = backends.collect::<Result<_, CompileFault>>()?;
        let mut chain = chain(&listener.policies, policies);
        chain.extend(auth::policies(&listener.policies, policies, self.kept));
        let is_mcp = backends.iter().any(|(chosen, _)| matches!(chosen.backend, Backend::Mcp(_)));
        chain.extend(self.limits(&format!("{port}/{}/{}", listener.name, route.name), policies, is_mcp));
        let compiled = Arc::new(Route {
            index: self.routes.len(),
            name: route.name.clone(),
            listener: listener.name.clone(),
            chain: Chain::new(chain),
            is_mcp,
            backends: Weighted::new(backends),
            timeouts,
            retry: policies.retry.as_ref().filter(|_| !is_mcp).map(retry),
        });
        self.routes.push(compiled.clone());
        Ok(compiled)
    }

    /// The policies that count, whose counts outlive a reload.
    fn limits(&mut self, place: &str, policies: &config::RoutePolicies, is_mcp: bool) -> Vec<Policy> {
        let limits = policies.rate_limits.iter().enumerate();
        let limits =
            limits.map(|(number, limit)| self.kept.limiter(&format!("{place} localRateLimit[{number}]"), limit));
        let limits: Vec<_> = limits.collect();
        let rates = (!limits.is_empty()).then_some(Policy::LocalRateLimit(LocalRateLimit(limits)));
        let at_once = policies.concurrency.as_ref().map(|limit| {
            let limit = self.kept.concurrency(&format!("{place} concurrencyLimit"), limit);
            Policy::ConcurrencyLimit(ConcurrencyLimit { limit, spares_get: is_mcp })
        });
        rates.into_iter().chain(at_once).collect()
    }

    fn backend(
        &mut self,
        reference: &config::RouteBackend,
        timeouts: Timeouts,
        retry: Option<&config::Retry>,
    ) -> Result<Backend, CompileFault> {
        let backend = self.document.backend(reference.backend);
        let mut request = edits(reference.policies.request_headers.as_ref());
        request.extend(auth::backend_key(reference.policies.auth.as_ref()));
        let response = edits(reference.policies.response_headers.as_ref());
        let way = Way::of(reference.policies.tls.as_ref(), reference.policies.http.as_ref());
        Ok(match &backend.kind {
            config::BackendKind::Http(host_port) => Backend::Http(Arc::new(HttpBackend {
                endpoint: Endpoint {
                    judged: judged(&backend.name, reference.policies.health.as_ref(), None),
                    ..self.endpoint(&host_port.host, host_port.port, way)?
                },
                request,
                response,
                passes_credential: auth::passes(reference.policies.auth.as_ref()),
            })),
            config::BackendKind::Mcp(mcp) => {
                let compiled = Arc::new(self.mcp(&backend.name, mcp, &reference.policies, timeouts, retry)?);
                self.mcp.push(compiled.clone());
                Backend::Mcp(compiled)
            }
        })
    }

    fn mcp(
        &mut self,
        name: &str,
        mcp: &config::Mcp,
        policies: &config::BackendPolicies,
        timeouts: Timeouts,
        retry: Option<&config::Retry>,
    ) -> Result<McpBackend, CompileFault> {
        let mut locked = |target: &config::Target| {
            let lock = self.kept.locks.of(name, &target.name);
            self.target(name, target, policies, retry).map(|target| Arc::new(target.locked(lock)))
        };
        let targets = mcp.targets.iter().map(&mut locked);
        let targets: Vec<Arc<Target>> = targets.collect::<Result<_, _>>()?;
        Ok(McpBackend {
            key: name.to_owned(),
            index: self.mcp.len(),
            prefixed: match mcp.prefix {
                config::PrefixMode::Always => true,
                config::PrefixMode::Conditional => targets.len() > 1,
                config::PrefixMode::Never => false,
            },
            passes_credential: targets.iter().any(|target| target.kind.passes_credential()),
            targets,
            failure_mode: match mcp.failure {
                config::FailureMode::FailOpen => FailureMode::Open,
                config::FailureMode::FailClosed => FailureMode::Closed,
            },
            deadline: mcp.deadline,
            session_idle: mcp.session_idle_timeout,
            input_timeout: mcp.input_timeout,
            page_size: mcp.page_size as usize,
            name_length: mcp.name_length as usize,
            rebinding_protection: mcp.dns_rebinding_protection,
            call_timeout: timeouts.backend.or(timeouts.request),
        })
    }

    fn target(
        &mut self,
        backend: &str,
        target: &config::Target,
        policies: &config::BackendPolicies,
        retry: Option<&config::Retry>,
    ) -> Result<Target, CompileFault> {
        let way = Way::of(policies.tls.as_ref(), policies.http.as_ref());
        let health = target.policies.health.as_ref().or(policies.health.as_ref());
        let judged = || judged(&format!("{backend}/{}", target.name), health, retry);
        let auth = target.policies.auth.as_ref().or(policies.auth.as_ref());
        let kind = match &target.transport {
            config::Transport::Http(http) => TargetKind::Http(self.http_target(target, http, way, auth, judged())?),
            config::Transport::Sse(http) => TargetKind::Sse(self.http_target(target, http, way, auth, judged())?),
            config::Transport::Stdio(stdio) => TargetKind::Stdio(StdioTarget {
                command: stdio.cmd.clone(),
                args: stdio.args.clone(),
                env: stdio.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
                clear_env: stdio.clear_env,
                cwd: stdio.cwd.clone(),
                shared: stdio.mode == config::StdioMode::Shared,
                backoff_min: stdio.restart.backoff_min,
                backoff_max: stdio.restart.backoff_max,
                warm: usize::from(stdio.warm),
                idle_after: stdio.idle_timeout,
                hung_after: stdio.hung_after,
                deny_network: stdio.network == config::Network::Deny,
                limits: ChildLimits {
                    memory_bytes: stdio.limits.memory,
                    cpu_millis: stdio.limits.cpu,
                    files: stdio.limits.files,
                    processes: stdio.limits.processes,
                },
            }),
        };
        let protocol = match target.protocol {
            config::TargetProtocol::Auto => Protocol::Auto,
            config::TargetProtocol::Legacy => Protocol::Legacy(None),
            config::TargetProtocol::V2024_11_05 => Protocol::Legacy(Some(Revision::V2024_11_05)),
            config::TargetProtocol::V2025_03_26 => Protocol::Legacy(Some(Revision::V2025_03_26)),
            config::TargetProtocol::V2025_06_18 => Protocol::Legacy(Some(Revision::V2025_06_18)),
            config::TargetProtocol::V2025_11_25 => Protocol::Legacy(Some(Revision::V2025_11_25)),
            config::TargetProtocol::Modern | config::TargetProtocol::V2026_07_28 => Protocol::Modern,
        };
        let lists = ListPolicy {
            fresh_for: target.cache.fresh_for(),
            public: target.cache.is_public(),
            stale_for: target.cache.stands_in_for(),
        };
        let session_loss = match target.session_loss {
            None => SessionLoss::Judge,
            Some(config::SessionLoss::Reopen) => SessionLoss::Reopen,
            Some(config::SessionLoss::End) => SessionLoss::End,
        };
        Ok(Target::new(target.name.clone(), kind, protocol, lists, session_loss))
    }

    fn http_target(
        &mut self,
        target: &config::Target,
        http: &config::HttpTarget,
        way: Way<'_>,
        auth: Option<&config::BackendAuth>,
        judged: Option<Arc<Judged>>,
    ) -> Result<HttpTarget, CompileFault> {
        let by_url = config::BackendTls::default();
        let own = Way::of(target.policies.tls.as_ref(), target.policies.http.as_ref());
        let tls = own.tls.or(way.tls).or(http.secure.then_some(&by_url));
        let way = Way { tls, version: own.version.or(way.version) };
        let mut request = edits(target.policies.request_headers.as_ref());
        request.extend(auth::backend_key(auth));
        Ok(HttpTarget {
            endpoint: Endpoint { judged, ..self.endpoint(&http.host, http.port, way)? },
            path: http.path.clone(),
            request,
            passes_credential: auth::passes(auth),
        })
    }

    fn endpoint(&mut self, host: &str, port: u16, Way { tls, version }: Way<'_>) -> Result<Endpoint, CompileFault> {
        let addresses = self.addresses.get(&(host.to_owned(), port)).cloned().unwrap_or_else(|| Arc::from([]));
        let mut authority = config::HostPort { host: host.to_owned(), port }.to_string();
        // Hosts on the public side of proxies know themselves without the usual port (RFC 9110, 4.2.2).
        if tls.is_some()
            && let Some(bare) = authority.strip_suffix(":443")
        {
            authority.truncate(bare.len());
        }
        let spoken = match (version, tls) {
            (Some(config::HttpVersion::Http2), _) => Spoken::Http2,
            (None, Some(tls)) if tls.alpn.iter().any(|name| name == "h2") => Spoken::Agreed,
            _ => Spoken::Http1,
        };
        let offered = tls.map(|tls| {
            let mut tls = tls.clone();
            match spoken {
                Spoken::Http2 if tls.alpn.is_empty() => tls.alpn.push("h2".to_owned()),
                // Written as HTTP/1.1: then it is not offered.
                Spoken::Http1 => tls.alpn.retain(|name| name != "h2"),
                _ => {}
            }
            tls
        });
        let tls = offered.map(|tls| self.kept.tls.client(host, &tls)).transpose()?;
        Ok(Endpoint { authority, addresses, tls, spoken, judged: None })
    }
}

/// How an upstream is spoken to, as far as it is written.
#[derive(Clone, Copy)]
struct Way<'a> {
    tls: Option<&'a config::BackendTls>,
    version: Option<config::HttpVersion>,
}

impl<'a> Way<'a> {
    fn of(tls: Option<&'a config::BackendTls>, http: Option<&config::BackendHttp>) -> Self {
        Way { tls, version: http.and_then(|http| http.version) }
    }
}

/// What is remembered of a host's addresses, where the configuration asks for it.
fn judged(name: &str, health: Option<&config::Health>, with: Option<&config::Retry>) -> Option<Arc<Judged>> {
    let health = health.map(|health| Health {
        failures: health.eviction.consecutive_failures,
        rest: health.eviction.duration,
        rest_percent: health.eviction.max_percent,
    });
    let is_judged = health.is_some() || with.is_some();
    is_judged.then(|| Arc::new(Judged { name: name.into(), health, retry: with.map(retry) }))
}

fn retry(policy: &config::Retry) -> Retry {
    Retry {
        attempts: policy.attempts,
        backoff: policy.backoff.unwrap_or_default(),
        codes: policy.codes.clone(),
        budget_percent: policy.budget_percent,
    }
}

/// Every address of the host; with IPv6 there, a socket for it takes IPv4 as well.
fn any_address() -> IpAddr {
    match std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Err(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    }
}

fn host(pattern: &config::HostPattern) -> HostPattern {
    match pattern {
        config::HostPattern::Any => HostPattern::Any,
        config::HostPattern::Exact(host) if host.contains(':') => HostPattern::Exact(format!("[{host}]")),
        config::HostPattern::Exact(host) => HostPattern::Exact(host.clone()),
        config::HostPattern::Suffix(suffix) => HostPattern::Suffix(suffix.clone()),
    }
}

fn route_match(matches: &config::Match) -> Result<RouteMatch, regex::Error> {
    let path = match &matches.path {
        config::PathMatch::Exact(path) => PathMatch::Exact(path.0.clone()),
        config::PathMatch::Prefix(prefix) => PathMatch::prefix(&prefix.0),
        config::PathMatch::Regex(pattern) => PathMatch::Regex(pattern_regex(pattern)?),
    };
    let value = |value: &config::ValueMatch| match value {
        config::ValueMatch::Exact(text) => Ok(ValueMatch::Exact(text.clone())),
        config::ValueMatch::Regex(pattern) => pattern_regex(pattern).map(ValueMatch::Regex),
    };
    let headers = matches.headers.iter();
    let query = matches.query.iter();
    Ok(RouteMatch {
        path,
        method: matches.method.as_ref().map(|method| method.0.clone()),
        headers: headers.map(|h| Ok((h.name.as_str().to_owned(), value(&h.value)?))).collect::<Result<_, _>>()?,
        query: query.map(|q| Ok((q.name.clone(), value(&q.value)?))).collect::<Result<_, _>>()?,
    })
}

fn pattern_regex(pattern: &config::Pattern) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(&pattern.anchored()).size_limit(config::PATTERN_BYTES_MAX).build()
}

fn server_limits(http: &config::HttpLimits) -> ServerLimits {
    let mut limits = ServerLimits {
        body_bytes: http.body_bytes_max.unwrap_or(u64::MAX),
        idle: http.idle_timeout,
        head_time: http.header_timeout,
        body_time: http.body_timeout,
        ..ServerLimits::default()
    };
    limits.head.bytes = http.header_bytes_max;
    // A first line that fills the head is a target too long (414), not too many headers (431).
    limits.head.start_line_bytes = limits.head.start_line_bytes.min(http.header_bytes_max.saturating_sub(2));
    limits.head.headers = http.headers_max;
    let header_list = http.http2_header_bytes_max.map_or(http.header_bytes_max, |bytes| bytes as usize);
    limits.http2 = Http2Limits {
        window: http.http2_window,
        connection_window: http.http2_connection_window,
        frame_bytes: http.http2_frame_bytes,
        header_list_bytes: u32::try_from(header_list).unwrap_or(u32::MAX),
        streams_max: http.http2_streams_max,
        keepalive: http.http2_keepalive,
        keepalive_timeout: http.http2_keepalive_timeout,
        ..Http2Limits::default()
    };
    limits
}
