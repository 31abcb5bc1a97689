//! From what is written to what it means: references resolved, both shapes brought into one, and the faults found that
//! only the whole document shows. The only way from `written` to `model`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::context::{Context, Place};
use crate::fault::FaultKind;
use crate::form::Attempted;
use crate::mcp::Federation;
use crate::model::{
    Backend, BackendId, BackendKind, Bind, Document, Listener, Match, PathMatch, Protocol, Route, RouteBackend,
};
use crate::policy::{BackendPolicies, ListenerPolicies, PathRewrite, RoutePolicies};
use crate::process::{ProcessConfig, ProxyMode, ProxyProtocol, ProxyVersion};
use crate::scalar::{Endpoint, HostPattern, UrlPath};
use crate::tls::ListenerTls;
use crate::written::{self, Configuration, GatewayRef};

/// The gateway that routes attach to when they name none.
const DEFAULT_GATEWAY: &str = "default";
/// Where the `mcp` section is served.
const SIMPLE_MCP_PATHS: [&str; 2] = ["/mcp", "/sse"];

/// Resolves a whole document. Faults go to the context; the document is worth something only when there are none.
pub(crate) fn document(written: Configuration, cx: &mut Context<'_>) -> Document {
    let config_place = written.config.as_ref().map_or_else(Place::start, |config| config.place.clone());
    let mut process = section(written.config, cx).unwrap_or_default();
    crate::process::from_environment(&mut process, cx);
    let shards = section(written.shards, cx).unwrap_or_default();
    let frontend = section(written.frontend, cx);
    let proxy = frontend.as_ref().and_then(|frontend| frontend.proxy);
    let http = frontend.map(|frontend| frontend.http).unwrap_or_default();
    let lock = section(written.lock, cx);
    let nothing_written = written.binds.is_empty() && written.gateways.is_empty() && written.mcp.is_none();

    let mut resolver = Resolver {
        cx,
        session_ttl: process.mcp.session_ttl,
        proxy,
        backends: Vec::new(),
        named: HashMap::new(),
        binds: Vec::new(),
        places: Vec::new(),
        gateways: HashMap::new(),
    };
    resolver.name_backends(written.backends);
    written.binds.into_iter().for_each(|bind| resolver.bind(bind));
    written.gateways.into_iter().for_each(|(name, gateway)| resolver.gateway(name, gateway));
    written.routes.into_iter().for_each(|route| resolver.attached_route(route));
    if let Some(mcp) = written.mcp {
        resolver.simple_mcp(mcp);
    }
    resolver.warn_of_unused_backends();
    let Resolver { backends, binds, places, .. } = resolver;

    check_ports(&binds, &places, &process, &config_place, cx);
    if nothing_written {
        let message = "nothing to listen on; write binds, gateways or mcp".to_owned();
        cx.fault(Place::start(), FaultKind::Missing, message);
    }
    Document { process, shards, http, binds, backends, lock }
}

/// A section of the document's top. One that lenient reading would have to leave out is a fault after all: the
/// process cannot run by settings that it half understands.
fn section<T>(section: Option<Attempted<T>>, cx: &mut Context<'_>) -> Option<T> {
    let section = section?;
    if section.value.is_none() && cx.faults.is_empty() {
        cx.fault(section.place, FaultKind::NotBuilt, "holds what is not built and cannot be left out".to_owned());
    }
    section.value
}

struct Resolver<'c, 'a> {
    cx: &'c mut Context<'a>,
    session_ttl: Duration,
    /// On every port.
    proxy: Option<ProxyProtocol>,
    backends: Vec<Backend>,
    /// `None`: defined, but unusable.
    named: HashMap<String, Option<Named>>,
    binds: Vec<Bind>,
    /// Where each bind's port was written.
    places: Vec<Place>,
    /// `None`: defined, but unusable.
    gateways: HashMap<String, Option<GatewayListeners>>,
}

/// A named backend.
struct Named {
    kind: BackendKind,
    policies: BackendPolicies,
    place: Place,
    /// Set on its first use.
    id: Option<BackendId>,
}

/// Where a gateway's listeners are.
struct GatewayListeners {
    bind: usize,
    /// By name; `None` is a listener that was left out.
    listeners: Vec<(Option<String>, Option<usize>)>,
}

impl Resolver<'_, '_> {
    // Backends

    fn name_backends(&mut self, written: Vec<Attempted<written::NamedBackend>>) {
        for attempt in written {
            let Some(backend) = attempt.value else {
                if let Some(name) = attempt.name {
                    self.named.entry(name).or_insert(None);
                }
                continue;
            };
            if self.named.contains_key(&backend.name) {
                let message = format!("a second backend with the name {:?}", backend.name);
                self.cx.fault(backend.at.of("name"), FaultKind::Duplicate, message);
                continue;
            }
            let kind = match (backend.host, backend.mcp) {
                (Some(host), _) => BackendKind::Http(host),
                (None, Some(mcp)) => self.mcp(mcp, &backend.at.own),
                // The alternatives have been checked: one of them is there.
                (None, None) => continue,
            };
            let place = backend.at.of("name");
            let named = Named { kind, policies: backend.policies.unwrap_or_default(), place, id: None };
            self.named.insert(backend.name, Some(named));
        }
    }

    fn mcp(&mut self, federation: Federation, place: &Place) -> BackendKind {
        BackendKind::Mcp(federation.resolve(self.session_ttl, place, self.cx))
    }

    fn add_backend(&mut self, mut name: String, kind: BackendKind) -> BackendId {
        // One port on two addresses makes two places of one name.
        while self.backends.iter().any(|other| other.name == name) {
            name.push('\'');
        }
        self.backends.push(Backend { name, kind });
        BackendId(self.backends.len() - 1)
    }

    /// The inline backend of a plain service is one wherever the same host is written.
    fn host_backend(&mut self, kind: BackendKind, host: &str) -> BackendId {
        let name = format!("http://{host}");
        match self.backends.iter().position(|backend| backend.name == name) {
            Some(index) => BackendId(index),
            None => self.add_backend(name, kind),
        }
    }

    fn route_backend(&mut self, written: written::RouteBackend, route: &str) -> Option<RouteBackend> {
        let policies = written.policies.unwrap_or_default();
        if let Some(name) = written.backend {
            let (backend, defaults) = self.named_backend(&name, written.at.of("backend"))?;
            // One federation has one way to its targets, whichever route leads to it.
            let ways = [("backendTLS", policies.tls.is_some()), ("http", policies.http.is_some())];
            for (key, _) in ways.into_iter().filter(|(_, is_written)| *is_written) {
                if matches!(self.backends[backend.0].kind, BackendKind::Mcp(_)) {
                    let message =
                        format!("{key} of a named MCP backend stands in its own definition, or at its targets");
                    self.cx.fault(written.at.of("policies"), FaultKind::Conflict, message);
                }
            }
            if policies.auth.is_some() && matches!(self.backends[backend.0].kind, BackendKind::Mcp(_)) {
                let message = "backendAuth of a named MCP backend stands in its own definition, or at its targets";
                self.cx.fault(written.at.of("policies"), FaultKind::Conflict, message.to_owned());
            }
            return Some(RouteBackend { backend, weight: written.weight, policies: overlay(policies, defaults) });
        }
        let backend = match (written.host, written.mcp) {
            (Some(host), _) => {
                let name = host.to_string();
                self.host_backend(BackendKind::Http(host), &name)
            }
            (None, Some(mcp)) => {
                let kind = self.mcp(mcp, &written.at.of("mcp"));
                self.add_backend(route.to_owned(), kind)
            }
            (None, None) => return None,
        };
        Some(RouteBackend { backend, weight: written.weight, policies })
    }

    fn named_backend(&mut self, name: &str, place: Place) -> Option<(BackendId, BackendPolicies)> {
        let Some(named) = self.named.get_mut(name) else {
            let suggestion = crate::suggest::nearest(name, self.named.keys().map(String::as_str));
            let message = match suggestion {
                Some(known) => format!("no backend has the name {name:?}; did you mean {known}?"),
                None => format!("no backend has the name {name:?}"),
            };
            self.cx.fault(place, FaultKind::Reference, message);
            return None;
        };
        let named = named.as_mut()?;
        let policies = named.policies.clone();
        if let Some(id) = named.id {
            return Some((id, policies));
        }
        let id = BackendId(self.backends.len());
        named.id = Some(id);
        let backend = Backend { name: name.to_owned(), kind: named.kind.clone() };
        self.backends.push(backend);
        Some((id, policies))
    }

    fn warn_of_unused_backends(&mut self) {
        for named in self.named.values().flatten().filter(|named| named.id.is_none()) {
            self.cx.warn(named.place.clone(), FaultKind::Reference, "no route leads to this backend".to_owned());
        }
    }

    // Routes

    /// Resolves a route once for the listeners that it is attached to.
    fn routes(&mut self, written: written::Route, listeners: &[(usize, usize)]) {
        let Some(&(first_bind, first_listener)) = listeners.first() else { return };
        let own_names = written.name.clone().map(|name| (name, written.at.of("name")));
        let bind = &self.binds[first_bind];
        let listener = &bind.listeners[first_listener];
        let label = own_names.as_ref().map_or_else(|| free_name(listener), |(name, _)| name.clone());
        let backend_name = format!("{}/{}/{label}", bind.port, listener.name);
        let route = self.route(written, &backend_name);
        for &(bind, listener) in listeners {
            let listener = &mut self.binds[bind].listeners[listener];
            let name = match &own_names {
                None => free_name(listener),
                Some((name, place)) => {
                    if listener.routes.iter().any(|other| other.name == *name) {
                        let message =
                            format!("a second route with the name {name:?} on the listener {:?}", listener.name);
                        self.cx.fault(place.clone(), FaultKind::Duplicate, message);
                    }
                    name.clone()
                }
            };
            listener.routes.push(Route { name, ..route.clone() });
        }
    }

    /// The route, its name left empty.
    fn route(&mut self, written: written::Route, backend_name: &str) -> Route {
        let at = written.at;
        let policies = written.policies.unwrap_or_default();
        let written_backends = written.backends.len();
        let mut places = Vec::new();
        let mut backends = Vec::new();
        for attempt in written.backends {
            let place = attempt.place;
            let named = attempt.value.as_ref().is_some_and(|backend| backend.backend.is_some());
            let resolved = attempt.value.and_then(|backend| self.route_backend(backend, backend_name));
            if let Some(backend) = resolved {
                let is_mcp = matches!(self.backends[backend.backend.0].kind, BackendKind::Mcp(_));
                if named && is_mcp && policies.backend_auth.is_some() {
                    let message = "backendAuth of a named MCP backend stands in its own definition, or at its targets";
                    self.cx.fault(at.of("policies"), FaultKind::Conflict, message.to_owned());
                }
                places.push(place);
                backends.push(backend);
            }
        }
        let answers = policies.redirect.is_some() || policies.direct_response.is_some();
        if written_backends == 0 && !answers {
            let message = "a route needs a backend, a requestRedirect or a directResponse".to_owned();
            self.cx.fault(at.own.clone(), FaultKind::Missing, message);
        }
        if backends.len() == written_backends && !backends.is_empty() && backends.iter().all(|each| each.weight == 0) {
            self.cx.fault(at.of("backends"), FaultKind::Invalid, "every weight is zero".to_owned());
        }
        self.check_mcp_alone(&backends, written_backends, &places);
        let matches = match written.matches.is_empty() {
            true => vec![Match::of_prefix("/")],
            false => written.matches,
        };
        self.check_prefix_rewrite(&policies, &matches, &at.of("policies"));
        // Nothing else matters beside a pattern for every host.
        let any_host = written.hostnames.contains(&HostPattern::Any);
        let hostnames = if any_host { Vec::new() } else { written.hostnames };
        Route { name: String::new(), hostnames, matches, policies, backends }
    }

    /// A session lives in one MCP backend, so that weights cannot part its requests.
    fn check_mcp_alone(&mut self, backends: &[RouteBackend], written: usize, places: &[Place]) {
        if written < 2 {
            return;
        }
        for (backend, place) in backends.iter().zip(places) {
            if matches!(self.backends[backend.backend.0].kind, BackendKind::Mcp(_)) {
                let message =
                    "an MCP backend stands alone in its route; federate several servers by its targets".to_owned();
                self.cx.fault(place.clone(), FaultKind::Conflict, message);
            }
        }
    }

    fn check_prefix_rewrite(&mut self, policies: &RoutePolicies, matches: &[Match], place: &Place) {
        let has_regex = matches.iter().any(|each| matches!(each.path, PathMatch::Regex(_)));
        let rewrite = policies.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
        let redirect = policies.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
        for (key, path) in [("urlRewrite", rewrite), ("requestRedirect", redirect)] {
            if has_regex && matches!(path, Some(PathRewrite::Prefix(_))) {
                let place = Place { mark: place.mark, path: format!("{}.{key}.path", place.path) };
                let message = "a prefix is replaced, but a match of this route is a regex, which has none".to_owned();
                self.cx.fault(place, FaultKind::Conflict, message);
            }
        }
    }

    // Binds, the first shape

    fn bind(&mut self, attempt: Attempted<written::Bind>) {
        let Some(written) = attempt.value else { return };
        if written.listeners.is_empty() {
            self.cx.fault(written.at.of("listeners"), FaultKind::Missing, "a bind needs a listener".to_owned());
        }
        let bind = self.add_bind(written.address, written.port, written.at.of("port"));
        if written.tunnel == written::Tunnel::Proxy {
            let either = ProxyProtocol { version: ProxyVersion::All, mode: ProxyMode::Strict };
            self.binds[bind].proxy.get_or_insert(either);
        }
        let mut hosts = HashMap::new();
        for (index, attempt) in written.listeners.into_iter().enumerate() {
            let Some(listener) = attempt.value else { continue };
            self.check_listener(&mut hosts, bind, listener.name.as_deref(), &listener.hostname, &listener.at);
            let name = listener.name.unwrap_or_else(|| format!("listener{index}"));
            let policies = listener.policies.unwrap_or_default();
            let at = self.add_listener(
                bind,
                name,
                listener.hostname,
                listener.protocol,
                listener.tls,
                policies,
                &listener.at,
            );
            for route in listener.routes {
                if let Some(route) = route.value {
                    self.routes(route, &[(bind, at)]);
                }
            }
        }
    }

    fn add_bind(&mut self, address: Option<IpAddr>, port: u16, place: Place) -> usize {
        self.binds.push(Bind { address, port, proxy: self.proxy, listeners: Vec::new() });
        self.places.push(place);
        self.binds.len() - 1
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one listener")]
    fn add_listener(
        &mut self,
        bind: usize,
        name: String,
        hostname: HostPattern,
        protocol: Option<Protocol>,
        tls: Option<ListenerTls>,
        policies: ListenerPolicies,
        at: &crate::form::Placed,
    ) -> usize {
        let protocol = protocol.unwrap_or(if tls.is_some() { Protocol::Https } else { Protocol::Http });
        let listeners = &mut self.binds[bind].listeners;
        // Before a listener is chosen there is only the connection: it is TLS, or it is not.
        if let Some(first) = listeners.first()
            && first.protocol != protocol
        {
            let message = format!(
                "speaks {}, and {} on the same port {}",
                protocol.as_str(),
                first.name,
                first.protocol.as_str()
            );
            self.cx.fault(at.of("protocol"), FaultKind::Conflict, message);
        }
        let listeners = &mut self.binds[bind].listeners;
        listeners.push(Listener { name, hostname, protocol, tls, policies, routes: Vec::new() });
        listeners.len() - 1
    }

    /// Names and hostnames are unique within a bind.
    fn check_listener(
        &mut self,
        hosts: &mut HashMap<HostPattern, String>,
        bind: usize,
        name: Option<&str>,
        hostname: &HostPattern,
        at: &crate::form::Placed,
    ) {
        if let Some(first) = hosts.get(hostname) {
            let message = match hostname {
                HostPattern::Any => {
                    format!("serves every host of the port, as {first} does; give one of them a hostname")
                }
                hostname => format!("serves {hostname}, as {first} does"),
            };
            self.cx.fault(at.of("hostname"), FaultKind::Conflict, message);
        } else {
            hosts.insert(hostname.clone(), at.own.path.clone());
        }
        if let Some(name) = name
            && self.binds[bind].listeners.iter().any(|other| other.name == name)
        {
            self.cx.fault(at.of("name"), FaultKind::Duplicate, format!("a second listener with the name {name:?}"));
        }
    }

    // Gateways, the second shape

    fn gateway(&mut self, name: String, attempt: Attempted<written::Gateway>) {
        let Some(written) = attempt.value else {
            self.gateways.insert(name, None);
            return;
        };
        let bind = self.add_bind(written.address, written.port, written.at.of("port"));
        let mut listeners = Vec::new();
        if written.listeners.is_empty() {
            let (protocol, tls, policies) = (written.protocol, written.tls, written.policies);
            let at = self.add_listener(bind, name.clone(), HostPattern::Any, protocol, tls, policies, &written.at);
            listeners.push((None, Some(at)));
        }
        let mut hosts = HashMap::new();
        for (index, attempt) in written.listeners.into_iter().enumerate() {
            let Some(listener) = attempt.value else {
                listeners.push((attempt.name, None));
                continue;
            };
            self.check_listener(&mut hosts, bind, listener.name.as_deref(), &listener.hostname, &listener.at);
            let own = listener.name.clone();
            let shown = listener.name.unwrap_or_else(|| format!("listener{index}"));
            let (protocol, tls, policies) = (listener.protocol, listener.tls, listener.policies);
            let at = self.add_listener(bind, shown, listener.hostname, protocol, tls, policies, &listener.at);
            listeners.push((own, Some(at)));
        }
        self.gateways.insert(name, Some(GatewayListeners { bind, listeners }));
    }

    fn attached_route(&mut self, attempt: Attempted<written::AttachedRoute>) {
        let Some(written) = attempt.value else { return };
        let listeners = self.attachments(&written.gateways, &written.route.at.own);
        if listeners.is_empty() {
            // Its own faults are told even where it cannot be attached; a route that leads nowhere is kept nowhere.
            let backends = self.backends.len();
            self.route(written.route, "");
            self.backends.truncate(backends);
            return;
        }
        self.routes(written.route, &listeners);
    }

    /// The listeners that are referred to, each once.
    fn attachments(&mut self, references: &[GatewayRef], place: &Place) -> Vec<(usize, usize)> {
        if references.is_empty() {
            let default = GatewayRef { gateway: DEFAULT_GATEWAY.to_owned(), listener: None, place: place.clone() };
            if !self.gateways.contains_key(DEFAULT_GATEWAY) {
                let message = "no gateway has the name \"default\"; name one with gateways".to_owned();
                self.cx.fault(place.clone(), FaultKind::Reference, message);
                return Vec::new();
            }
            return self.attachment(&default);
        }
        let mut seen = HashSet::new();
        let all: Vec<(usize, usize)> = references.iter().flat_map(|reference| self.attachment(reference)).collect();
        all.into_iter().filter(|one| seen.insert(*one)).collect()
    }

    fn attachment(&mut self, reference: &GatewayRef) -> Vec<(usize, usize)> {
        let GatewayRef { gateway: name, listener, place } = reference;
        let Some(gateway) = self.gateways.get(name) else {
            let message = match crate::suggest::nearest(name, self.gateways.keys().map(String::as_str)) {
                Some(known) => format!("no gateway has the name {name:?}; did you mean {known}?"),
                None => format!("no gateway has the name {name:?}"),
            };
            self.cx.fault(place.clone(), FaultKind::Reference, message);
            return Vec::new();
        };
        let Some(gateway) = gateway else { return Vec::new() };
        let wanted = |own: &Option<String>| listener.is_none() || own == listener;
        let found: Vec<_> = gateway.listeners.iter().filter(|(own, _)| wanted(own)).collect();
        if let (true, Some(listener)) = (found.is_empty(), listener) {
            let message = format!("the gateway {name:?} has no listener with the name {listener:?}");
            self.cx.fault(place.clone(), FaultKind::Reference, message);
        }
        let bind = gateway.bind;
        found.into_iter().filter_map(|(_, at)| at.map(|at| (bind, at))).collect()
    }

    // The section `mcp`

    fn simple_mcp(&mut self, attempt: Attempted<written::SimpleMcp>) {
        let Some(written) = attempt.value else { return };
        let at = written.at;
        let listeners = match written.port {
            Some(port) => {
                let bind = self.add_bind(None, port, at.of("port"));
                let policies = ListenerPolicies::default();
                let name = "mcp".to_owned();
                vec![(bind, self.add_listener(bind, name, HostPattern::Any, None, None, policies, &at))]
            }
            None if written.gateways.is_empty() && !self.gateways.contains_key(DEFAULT_GATEWAY) => {
                let message = "needs a port, or gateways to be served by".to_owned();
                self.cx.fault(at.own.clone(), FaultKind::Missing, message);
                Vec::new()
            }
            None => self.attachments(&written.gateways, &at.own),
        };
        let kind = self.mcp(written.federation, &at.own);
        let policies = written.policies.unwrap_or_default();
        let matches: Vec<Match> = SIMPLE_MCP_PATHS.map(Match::of_prefix).into();
        self.check_prefix_rewrite(&policies, &matches, &at.of("policies"));
        if listeners.is_empty() {
            return;
        }
        let backend = self.add_backend("/mcp".to_owned(), kind);
        let policies_here = BackendPolicies::default();
        let backends = vec![RouteBackend { backend, weight: 1, policies: policies_here }];
        for (bind, listener) in listeners {
            let listener = &mut self.binds[bind].listeners[listener];
            let taken = listener.routes.iter().any(|route| route.name == "mcp");
            let name = if taken { free_name(listener) } else { "mcp".to_owned() };
            let (matches, policies, backends) = (matches.clone(), policies.clone(), backends.clone());
            listener.routes.push(Route { name, hostnames: Vec::new(), matches, policies, backends });
        }
    }
}

impl Match {
    /// Every request below a path.
    fn of_prefix(path: &str) -> Self {
        let path = PathMatch::Prefix(UrlPath(path.to_owned()));
        Self { path, method: None, headers: Vec::new(), query: Vec::new() }
    }
}

/// A name for the listener's next route that none of its routes has.
fn free_name(listener: &Listener) -> String {
    let mut name = format!("route{}", listener.routes.len());
    while listener.routes.iter().any(|route| route.name == name) {
        name.push('\'');
    }
    name
}

/// What is written stands above the defaults, policy by policy.
fn overlay(written: BackendPolicies, defaults: BackendPolicies) -> BackendPolicies {
    BackendPolicies {
        request_headers: written.request_headers.or(defaults.request_headers),
        mcp_authorization: written.mcp_authorization.or(defaults.mcp_authorization),
        response_headers: written.response_headers.or(defaults.response_headers),
        redirect: written.redirect.or(defaults.redirect),
        tls: written.tls.or(defaults.tls),
        health: written.health.or(defaults.health),
        concurrency: written.concurrency.or(defaults.concurrency),
        http: written.http.or(defaults.http),
        auth: written.auth.or(defaults.auth),
    }
}

/// No two servers of the process listen on one address and port.
fn check_ports(binds: &[Bind], places: &[Place], process: &ProcessConfig, config: &Place, cx: &mut Context<'_>) {
    let own = [("adminAddr", process.admin), ("statsAddr", process.stats), ("readinessAddr", process.readiness)];
    for (index, bind) in binds.iter().enumerate() {
        let earlier =
            (0..index).find(|other| bind.port == binds[*other].port && overlap(bind.address, binds[*other].address));
        if let Some(other) = earlier {
            let message = format!("port {} is listened on already, at {}", bind.port, places[other].path);
            cx.fault(places[index].clone(), FaultKind::Conflict, message);
        }
        for (key, endpoint) in own {
            let Endpoint::Tcp(address) = endpoint else { continue };
            if address.port() == bind.port && overlap(bind.address, Some(address.ip())) {
                let message = format!("port {} is the one of config.{key} ({address})", bind.port);
                cx.fault(places[index].clone(), FaultKind::Conflict, message);
            }
        }
    }
    for (index, (key, endpoint)) in own.iter().enumerate() {
        for (other, other_endpoint) in &own[..index] {
            let (Endpoint::Tcp(one), Endpoint::Tcp(two)) = (endpoint, other_endpoint) else { continue };
            if one.port() == two.port() && overlap(Some(one.ip()), Some(two.ip())) {
                let place = Place { mark: config.mark, path: format!("config.{key}") };
                cx.fault(place, FaultKind::Conflict, format!("{one} is the address of config.{other} as well"));
            }
        }
    }
}

/// Whether two addresses take each other's port; none is every address.
fn overlap(one: Option<IpAddr>, two: Option<IpAddr>) -> bool {
    let every = |address: Option<IpAddr>| address.is_none_or(|address| address.is_unspecified());
    every(one) || every(two) || one == two
}
