//! The numbers of one shard. Every cell has this shard as its only writer; control reads them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::record::Record;
use crate::backend::retry::Budget;
use crate::fault::Fault;
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::{Counter, Gauge, Histogram, Registry};

pub struct Metrics {
    registry: Arc<Registry>,
    shard: String,
    pub connections: Gauge,
    pub connections_accepted: Counter,
    pub connections_moved: Counter,
    pub requests_forwarded: Counter,
    pub sessions: Gauge,
    pub leases: Gauge,
    pub parked: Gauge,
    pub listens: Gauge,
    pub feeds: Gauge,
    pub sessions_opened: Counter,
    pub sessions_expired: Counter,
    pub events_lost: Counter,
    pub unrouted: Counter,
    pub websockets: Gauge,
    pub handshakes_done: Counter,
    pub handshakes_failed: Counter,
    pub proxy_headers_refused: Counter,
    targets: RefCell<HashMap<String, Gauge>>,
    mcp: RefCell<HashMap<(&'static str, bool), Counter>>,
}

/// The cells of one route.
pub struct RouteCells {
    by_class: [Counter; 5],
    latency: Histogram,
    bytes_in: Counter,
    bytes_out: Counter,
    /// By the fault's label; nothing for most routes.
    refused: RefCell<Vec<(&'static str, Counter)>>,
    /// There when the route has retries.
    pub retries: Option<Retries>,
}

/// What is sent again for one route.
pub struct Retries {
    pub budget: Budget,
    pub sent: Counter,
    /// For want of budget.
    pub denied: Counter,
}

impl Metrics {
    pub fn new(registry: Arc<Registry>, shard: usize) -> Self {
        let shard = shard.to_string();
        let labels = [("shard", shard.as_str())];
        let counter = |name, help| registry.counter(name, help, &labels);
        let gauge = |name, help| registry.gauge(name, help, &labels);
        let handshake = |outcome| {
            let labels = [labels[0], ("outcome", outcome)];
            registry.counter("agentlane_tls_handshakes_total", "TLS handshakes of clients by outcome.", &labels)
        };
        Metrics {
            connections: gauge("agentlane_downstream_connections", "Open client connections."),
            connections_accepted: counter("agentlane_downstream_connections_total", "Accepted client connections."),
            connections_moved: counter(
                "agentlane_connections_moved_total",
                "Connections handed to their session's shard.",
            ),
            requests_forwarded: counter(
                "agentlane_requests_forwarded_total",
                "Requests forwarded to their session's shard.",
            ),
            sessions: gauge("agentlane_mcp_sessions", "Open MCP sessions."),
            leases: gauge("agentlane_mcp_leases", "Sessions with targets that serve clients without sessions."),
            parked: gauge("agentlane_mcp_parked", "Requests that wait for their client's input."),
            listens: gauge("agentlane_mcp_listens", "Open listens of clients without sessions."),
            feeds: gauge("agentlane_mcp_feeds", "Targets that are listened to, once per caller."),
            sessions_opened: counter("agentlane_mcp_sessions_total", "Opened MCP sessions."),
            sessions_expired: counter("agentlane_mcp_sessions_expired_total", "MCP sessions ended for idling."),
            events_lost: counter("agentlane_mcp_events_lost_total", "Events that no client came to read."),
            unrouted: counter(
                "agentlane_unrouted_requests_total",
                "Requests that no route matched, or that broke HTTP.",
            ),
            websockets: gauge("agentlane_websockets", "Open WebSockets."),
            handshakes_done: handshake("ok"),
            handshakes_failed: handshake("failed"),
            proxy_headers_refused: counter(
                "agentlane_proxy_headers_refused_total",
                "Connections without the PROXY header that they must have.",
            ),
            targets: RefCell::default(),
            mcp: RefCell::default(),
            shard: shard.clone(),
            registry,
        }
    }

    /// Cells for the routes of a snapshot, by their index.
    pub fn routes(&self, snapshot: &Snapshot) -> Rc<[RouteCells]> {
        snapshot.routes.iter().map(|route| self.route(route)).collect()
    }

    fn route(&self, compiled: &Route) -> RouteCells {
        let (listener, route) = (compiled.listener.as_str(), compiled.name.as_str());
        const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let labels = [("shard", self.shard.as_str()), ("listener", listener), ("route", route)];
        let by_class = CLASSES.map(|class| {
            let labels = [labels[0], labels[1], labels[2], ("status", class)];
            self.registry.counter("agentlane_requests_total", "Requests by route and status class.", &labels)
        });
        RouteCells {
            by_class,
            latency: self.registry.histogram("agentlane_request_duration_seconds", "From head to last byte.", &labels),
            bytes_in: self.registry.counter("agentlane_request_bytes_total", "Bytes of request bodies.", &labels),
            bytes_out: self.registry.counter("agentlane_response_bytes_total", "Bytes of response bodies.", &labels),
            refused: RefCell::default(),
            retries: compiled.retry.as_ref().map(|_| {
                let counter = |outcome| {
                    let labels = [labels[0], labels[1], labels[2], ("outcome", outcome)];
                    self.registry.counter("agentlane_retries_total", "Requests that were sent again, or not.", &labels)
                };
                Retries { budget: Budget::default(), sent: counter("sent"), denied: counter("denied") }
            }),
        }
    }

    /// Whether a target could be reached when it was last tried.
    pub fn target_state(&self, target: &str, up: bool) {
        let mut targets = self.targets.borrow_mut();
        if !targets.contains_key(target) {
            let labels = [("shard", self.shard.as_str()), ("target", target)];
            let gauge = self.registry.gauge("agentlane_mcp_target_up", "1 if the last handshake succeeded.", &labels);
            targets.insert(target.to_owned(), gauge);
        }
        targets[target].set(i64::from(up));
    }

    /// How often addresses of a host were evicted, and how many are.
    pub fn evictions(&self, host: &str) -> (Counter, Gauge) {
        let labels = [("shard", self.shard.as_str()), ("backend", host)];
        let help = "Evictions of endpoints that kept failing.";
        let evictions = self.registry.counter("agentlane_endpoint_evictions_total", help, &labels);
        (evictions, self.registry.gauge("agentlane_endpoints_evicted", "Endpoints that are evicted.", &labels))
    }

    /// Counts an MCP message by its method and outcome.
    pub fn mcp(&self, record: &Record) {
        let Some(method) = record.mcp_method else { return };
        let failed = record.fault.is_some();
        let mut cells = self.mcp.borrow_mut();
        let cell = cells.entry((method, failed)).or_insert_with(|| {
            let outcome = if failed { "fault" } else { "ok" };
            let labels = [("shard", self.shard.as_str()), ("method", method), ("outcome", outcome)];
            self.registry.counter("agentlane_mcp_requests_total", "MCP messages by method and outcome.", &labels)
        });
        cell.inc();
    }
}

impl RouteCells {
    pub fn count(&self, record: &Record, duration: std::time::Duration) {
        let class = usize::from(record.status / 100).clamp(1, 5) - 1;
        self.by_class[class].inc();
        self.latency.record(duration);
        self.bytes_in.add(record.bytes_in);
        self.bytes_out.add(record.bytes_out);
    }

    /// Counts a request that a policy of the route refused.
    pub fn refused(&self, metrics: &Metrics, route: &Route, fault: &Fault) {
        let reason = fault.kind.label();
        let mut refused = self.refused.borrow_mut();
        if let Some((_, counter)) = refused.iter().find(|(known, _)| *known == reason) {
            return counter.inc();
        }
        let labels = [
            ("shard", metrics.shard.as_str()),
            ("listener", route.listener.as_str()),
            ("route", route.name.as_str()),
            ("reason", reason),
        ];
        let help = "Requests that a policy refused, by route and reason.";
        let counter = metrics.registry.counter("agentlane_requests_refused_total", help, &labels);
        counter.inc();
        refused.push((reason, counter));
    }
}
