//! The document as it is written, in either of its two shapes. Must not know what it means; `resolve.rs` does.

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use crate::context::{Context, Place, Table};
use crate::fault::FaultKind;
use crate::form::{Attempt, Attempted, Form, Named, record, words};
use crate::lock::Lock;
use crate::mcp::Federation;
use crate::model::{Match, Protocol};
use crate::policy::{BackendPolicies, ListenerPolicies, RoutePolicies};
use crate::process::{FrontendPolicies, ProcessConfig, Shards};
use crate::scalar::{HostPattern, HostPort, Int, Name, Port};
use crate::schema::Definitions;
use crate::tls::ListenerTls;
use crate::tree::{Node, Value};

record! {
    /// The configuration of agentlane.
    pub(crate) struct Configuration {
        /// Settings of the process, read at start.
        pub config: Option<Attempted<ProcessConfig>> = opt "config" as Option<Attempt<ProcessConfig>>;
        /// Shards: a count, options, or a list with the core of each. Default: one for each core.
        pub shards: Option<Attempted<Shards>> = opt "shards" as Option<Attempt<Shards>>;
        /// Policies of every connection from a client.
        pub frontend: Option<Attempted<FrontendPolicies>> = opt "frontendPolicies" as Option<Attempt<FrontendPolicies>>;
        /// Ports with their listeners, routes and backends.
        pub binds: Vec<Attempted<Bind>> = opt "binds" as Vec<Attempt<Bind>>;
        /// Named ports that `routes` and `mcp` attach to.
        pub gateways: Vec<(String, Attempted<Gateway>)> = opt "gateways" as Named<Name, Attempt<Gateway>>;
        /// Routes attached to gateways.
        pub routes: Vec<Attempted<AttachedRoute>> = opt "routes" as Vec<Attempt<AttachedRoute>>;
        /// Backends with names, for routes to refer to.
        pub backends: Vec<Attempted<NamedBackend>> = opt "backends" as Vec<Attempt<NamedBackend>>;
        /// MCP servers, served as one at `/mcp`.
        pub mcp: Option<Attempted<SimpleMcp>> = opt "mcp" as Option<Attempt<SimpleMcp>>;
        /// The tool lock: what targets offer is scanned, and compared with what was approved.
        pub lock: Option<Attempted<Lock>> = opt "lock" as Option<Attempt<Lock>>;
    }
    later "policies", "workloads", "services", "routeGroups", "tcpRoutes", "llm", "ui", "cache";
}

record! {
    /// A port that is listened on.
    pub(crate) struct Bind [at] {
        /// The port, 1 to 65535.
        pub port: u16 = must "port" as Port;
        /// The address. Default: every address.
        pub address: Option<IpAddr> = opt "address";
        /// Listeners, told apart by hostname.
        pub listeners: Vec<Attempted<Listener>> = must "listeners" as Vec<Attempt<Listener>>;
        /// What connections are wrapped in. Default: direct.
        pub tunnel: Tunnel = or(Tunnel::Direct) "tunnelProtocol";
    }
    guard "mode";
}

words! {
    /// What the connections of a port are wrapped in.
    pub(crate) enum Tunnel {
        /// Nothing but what `frontendPolicies.proxyProtocol` says.
        Direct = "direct",
        /// They begin with a PROXY header: as `frontendPolicies.proxyProtocol` says, or else of either version.
        Proxy = "proxy",
    }
    later "hboneWaypoint", "hboneGateway", "connect";
}

record! {
    /// The part of a port's traffic that is for some hosts.
    pub(crate) struct Listener [at] {
        /// Its name in logs and metrics.
        pub name: Option<String> = opt "name" as Option<Name>;
        /// The host served, or a wildcard like `*.example.com`. Default: every host.
        pub hostname: HostPattern = or(HostPattern::Any) "hostname";
        /// What is spoken. Default: HTTP, and with `tls` HTTPS.
        pub protocol: Option<Protocol> = opt "protocol";
        /// The certificate and how TLS is spoken; on a port of several listeners the client's server name (SNI) chooses.
        pub tls: Option<ListenerTls> = opt "tls";
        /// Policies for every request, before a route is chosen.
        pub policies: Option<ListenerPolicies> = opt "policies";
        /// Routes; the best match is taken, and of equal ones the first.
        pub routes: Vec<Attempted<Route>> = opt "routes" as Vec<Attempt<Route>>;
    }
    later "namespace", "tcpRoutes";
    check tls_where_spoken;
}

record! {
    /// A named port that routes attach to.
    pub(crate) struct Gateway [at] {
        /// The port, 1 to 65535.
        pub port: u16 = must "port" as Port;
        /// The address. Default: every address.
        pub address: Option<IpAddr> = opt "address";
        /// What is spoken. Default: HTTP, and with `tls` HTTPS.
        pub protocol: Option<Protocol> = opt "protocol";
        /// The certificate and how TLS is spoken.
        pub tls: Option<ListenerTls> = opt "tls";
        /// Listeners, told apart by hostname. Default: one for every host. Beside them only port and address may be given.
        pub listeners: Vec<Attempted<GatewayListener>> = opt "listeners" as Vec<Attempt<GatewayListener>>;
        /// Policies for every request.
        pub policies: ListenerPolicies = flat "";
    }
    check listeners_stand_alone;
}

record! {
    /// The part of a gateway's traffic that is for some hosts.
    pub(crate) struct GatewayListener [at] {
        /// Its name, for routes to attach to as `gateway/listener`.
        pub name: Option<String> = opt "name" as Option<Name>;
        /// The host served, or a wildcard like `*.example.com`. Default: every host.
        pub hostname: HostPattern = or(HostPattern::Any) "hostname";
        /// What is spoken. Default: HTTP, and with `tls` HTTPS.
        pub protocol: Option<Protocol> = opt "protocol";
        /// The certificate and how TLS is spoken; on a port of several listeners the client's server name (SNI) chooses.
        pub tls: Option<ListenerTls> = opt "tls";
        /// Policies for every request.
        pub policies: ListenerPolicies = flat "";
    }
    check tls_where_attached;
}

fn tls_where_spoken(listener: &Listener, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    protocol_and_tls(listener.protocol, listener.tls.is_some(), table, cx)
}

fn tls_where_attached(listener: &GatewayListener, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    protocol_and_tls(listener.protocol, listener.tls.is_some(), table, cx)
}

/// HTTPS needs a certificate, and a certificate is not for show.
fn protocol_and_tls(protocol: Option<Protocol>, has_tls: bool, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    let mark = |key| table.entry(&[key]).map_or(table.mark, |entry| entry.node.mark);
    match protocol {
        Some(Protocol::Https) if !has_tls => {
            let message = "missing beside protocol HTTPS".to_owned();
            cx.at_key("tls", |cx| cx.fault_at(mark("protocol"), FaultKind::Missing, message));
        }
        Some(Protocol::Http) if has_tls => {
            let message = "cannot be HTTP beside tls".to_owned();
            cx.at_key("protocol", |cx| cx.fault_at(mark("protocol"), FaultKind::Conflict, message));
        }
        _ => {}
    }
    true
}

fn listeners_stand_alone(gateway: &Gateway, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    if gateway.listeners.is_empty() {
        return protocol_and_tls(gateway.protocol, gateway.tls.is_some(), table, cx);
    }
    for entry in table.entries() {
        if matches!(entry.key.as_str(), "protocol" | "tls" | "cors") {
            let message = "cannot stand beside listeners; write it in each of them".to_owned();
            cx.at_key(&entry.key, |cx| cx.fault_at(entry.mark, FaultKind::Conflict, message));
        }
    }
    true
}

record! {
    /// From requests that match to backends.
    pub(crate) struct Route [at] {
        /// Its name in logs and metrics.
        pub name: Option<String> = opt "name" as Option<Name>;
        /// Hosts served, wildcards among them. Default: every host of the listener.
        pub hostnames: Vec<HostPattern> = opt "hostnames";
        /// Ways to match, any of which is enough. Default: every path.
        pub matches: Vec<Match> = opt "matches";
        /// Policies of the route.
        pub policies: Option<RoutePolicies> = opt "policies";
        /// Where requests go, by weight.
        pub backends: Vec<Attempted<RouteBackend>> = opt "backends" as Vec<Attempt<RouteBackend>>;
    }
    later "namespace", "ruleName";
}

record! {
    /// A route attached to gateways.
    pub(crate) struct AttachedRoute {
        /// The gateways, as `gateway` or `gateway/listener`. Default: the one named `default`.
        pub gateways: Vec<GatewayRef> = opt "gateways" as GatewayRefs;
        /// The route.
        pub route: Route = flat "";
    }
}

record! {
    /// A backend of a route.
    pub(crate) struct RouteBackend [at] {
        /// Its share of the requests. Default: 1.
        pub weight: u32 = or(1) "weight" as Int<u32, 0, 1_000_000>;
        /// Policies of the backend; one that is absent here is the one of the named backend.
        pub policies: Option<BackendPolicies> = opt "policies";
        /// A plain HTTP service, as `host:port`.
        pub host: Option<HostPort> = opt "host";
        /// The name of one of `backends`.
        pub backend: Option<String> = opt "backend";
        /// MCP servers, served as one.
        pub mcp: Option<Federation> = opt "mcp";
    }
    one of "host", "backend", "mcp" later "service", "internal", "dynamic", "ai", "aws", "routeGroup", "invalid";
}

record! {
    /// A backend with a name, for routes to refer to.
    pub(crate) struct NamedBackend [at] {
        /// Its name.
        pub name: String = must "name" as Name;
        /// Policies wherever it is used.
        pub policies: Option<BackendPolicies> = opt "policies";
        /// A plain HTTP service, as `host:port`.
        pub host: Option<HostPort> = opt "host";
        /// MCP servers, served as one.
        pub mcp: Option<Federation> = opt "mcp";
    }
    one of "host", "mcp" later "internal", "ai", "aws";
}

record! {
    /// MCP servers, served as one at `/mcp`.
    pub(crate) struct SimpleMcp [at] {
        /// The gateways that serve it, as `gateway` or `gateway/listener`. Default: the one named `default`.
        pub gateways: Vec<GatewayRef> = opt "gateways" as GatewayRefs;
        /// A port of its own, in place of gateways.
        pub port: Option<u16> = opt "port" as Option<Port>;
        /// The servers.
        pub federation: Federation = flat "";
        /// Policies of its route.
        pub policies: Option<RoutePolicies> = opt "policies";
    }
    check port_or_gateways;
}

fn port_or_gateways(mcp: &SimpleMcp, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    if mcp.port.is_some() && !mcp.gateways.is_empty() {
        let mark = table.entry(&["port"]).map_or(table.mark, |entry| entry.mark);
        let message = "cannot stand beside gateways; the gateways have the ports".to_owned();
        cx.at_key("port", |cx| cx.fault_at(mark, FaultKind::Conflict, message));
    }
    true
}

/// One attachment: `gateway` or `gateway/listener`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GatewayRef {
    pub gateway: String,
    pub listener: Option<String>,
    pub place: Place,
}

/// One attachment or a list of them.
pub(crate) struct GatewayRefs;

impl Form for GatewayRefs {
    type Out = Vec<GatewayRef>;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Vec<GatewayRef>> {
        match &node.value {
            Value::Sequence(_) => Vec::<GatewayRef>::decode(node, cx),
            _ => GatewayRef::decode(node, cx).map(|one| vec![one]),
        }
    }

    fn schema(defs: &mut Definitions) -> Json {
        let one = GatewayRef::schema(defs);
        json!({"anyOf": [one, {"type": "array", "items": one}]})
    }

    fn absent() -> Option<Vec<GatewayRef>> {
        Some(Vec::new())
    }
}

impl Form for GatewayRef {
    type Out = GatewayRef;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<GatewayRef> {
        let expected = "the name of a gateway, or gateway/listener";
        let text = cx.string(node, expected)?;
        let (gateway, listener) = match text.split_once('/') {
            Some((gateway, listener)) => (gateway, Some(listener)),
            None => (&*text, None),
        };
        if gateway.is_empty() || listener.is_some_and(|listener| listener.is_empty() || listener.contains('/')) {
            cx.invalid(node, expected);
            return None;
        }
        let listener = listener.map(str::to_owned);
        Some(GatewayRef { gateway: gateway.to_owned(), listener, place: cx.place(node.mark) })
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "minLength": 1})
    }
}
