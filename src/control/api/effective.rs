//! A snapshot in words: what is in effect, defaults included. It tells names, addresses and numbers, never header values,
//! arguments or environments.

use std::time::Duration;

use serde_json::{Value, json};

use crate::backend::Backend;
use crate::backend::http::Endpoint;
use crate::backend::mcp::{FailureMode, McpBackend, Target, TargetKind};
use crate::snapshot::matching::HostPattern;
use crate::snapshot::{Bind, Listener, Route, Snapshot};

pub fn of(snapshot: &Snapshot) -> Value {
    json!({
        "binds": snapshot.binds.iter().map(|bind| self::bind(bind)).collect::<Vec<_>>(),
        "mcp": snapshot.mcp.iter().map(|backend| mcp(backend)).collect::<Vec<_>>(),
        "maxBufferSize": snapshot.body_bytes,
    })
}

fn bind(bind: &Bind) -> Value {
    let listeners = bind.listeners.iter().map(|known| listener(known));
    json!({ "address": bind.address.to_string(), "tls": bind.secure, "listeners": listeners.collect::<Vec<_>>() })
}

fn listener(listener: &Listener) -> Value {
    // A route has a rule for each way to reach it; they are told in the order in which they are tried.
    let mut routes: Vec<(&Route, usize)> = Vec::new();
    for rule in &listener.rules {
        match routes.iter_mut().find(|(known, _)| known.index == rule.route.index) {
            Some((_, matches)) => *matches += 1,
            None => routes.push((&rule.route, 1)),
        }
    }
    let host = match &listener.host {
        HostPattern::Any => "*".to_owned(),
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    };
    let routes: Vec<Value> = routes.into_iter().map(|(known, matches)| route(known, matches)).collect();
    json!({ "name": listener.name, "hostname": host, "routes": routes })
}

fn route(route: &Route, matches: usize) -> Value {
    json!({
        "name": route.name,
        "matches": matches,
        "policies": route.chain.iter().map(|policy| policy.name()).collect::<Vec<_>>(),
        "requestTimeout": seconds(route.timeouts.request),
        "backendRequestTimeout": seconds(route.timeouts.backend),
        "backends": route.backends.iter().map(|chosen| backend(&chosen.backend)).collect::<Vec<_>>(),
    })
}

fn backend(backend: &Backend) -> Value {
    match backend {
        Backend::Http(http) => endpoint(&http.endpoint),
        Backend::Mcp(mcp) => json!({ "mcp": mcp.key }),
    }
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "host": endpoint.authority,
        "addresses": endpoint.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "tls": endpoint.tls.is_some(),
    })
}

fn mcp(backend: &McpBackend) -> Value {
    json!({
        "name": backend.key,
        "prefixed": backend.prefixed,
        "failureMode": if backend.failure_mode == FailureMode::Open { "failOpen" } else { "failClosed" },
        "deadline": seconds(Some(backend.deadline)),
        "sessionIdleTimeout": seconds(Some(backend.session_idle)),
        "inputTimeout": seconds(Some(backend.input_timeout)),
        "callTimeout": seconds(backend.call_timeout),
        "pageSize": backend.page_size,
        "nameLength": backend.name_length,
        "dnsRebindingProtection": backend.rebinding_protection,
        "targets": backend.targets.iter().map(|known| target(known)).collect::<Vec<_>>(),
    })
}

fn target(target: &Target) -> Value {
    let (kind, at) = match &target.kind {
        TargetKind::Http(http) => ("mcp", endpoint(&http.endpoint)),
        TargetKind::Sse(http) => ("sse", endpoint(&http.endpoint)),
        TargetKind::Stdio(stdio) => {
            let mode = if stdio.shared { "shared" } else { "perSession" };
            ("stdio", json!({ "cmd": stdio.command, "mode": mode, "warm": stdio.warm }))
        }
    };
    json!({
        "name": target.name,
        kind: at,
        "protocol": format!("{:?}", target.protocol),
        "cacheTtl": seconds(Some(target.lists.fresh_for)),
        "staleFor": seconds(Some(target.lists.stale_for)),
    })
}

/// `null`: no limit.
fn seconds(duration: Option<Duration>) -> Value {
    duration.map_or(Value::Null, |duration| json!(duration.as_secs_f64()))
}
