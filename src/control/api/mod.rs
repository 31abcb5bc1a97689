//! The admin API: what an operator may ask of a running gateway, and change. One table of calls; a new one is a function and a
//! line in it. Served on control's thread, so that no call may wait or compute for long.

mod answers;
mod effective;
mod explain;
mod guard;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use agentlane_config::Secret;
use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::admin::{Readiness, serve};
use super::lock::Table;
use crate::snapshot::Snapshot;
use crate::telemetry::audit::AuditHead;
use crate::telemetry::{LogHandle, Registry};

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Every call, in the order in which they are listed.
const CALLS: &[Call] = &[
    Call::read("/config_dump", "the configuration in use, secrets hidden", answers::config_dump),
    Call::read("/api/v1/status", "version, state, configuration, listeners", answers::status),
    Call::read("/api/v1/shards", "connections, sessions and the like of each shard", answers::shards),
    Call::read("/api/v1/targets", "each MCP target, and on how many shards it was reached", answers::targets),
    Call::read("/api/v1/audit", "the last audit record of each shard", answers::audit),
    Call::read("/api/v1/lock", "what the tool lock and the scan found", answers::lock),
    Call::change(
        "/api/v1/explain",
        "which rule allows or refuses: route, principal, tool, prompt or resource, target, method, path, headers",
        explain::explain,
    ),
    Call::read("/logging", "the levels of the log", answers::logging),
    Call::change(
        "/logging",
        "sets them: level=debug or level=info,agentlane::mcp=trace; reset=true",
        answers::set_logging,
    ),
];

/// One thing that can be asked.
struct Call {
    path: &'static str,
    what: &'static str,
    changes: bool,
    answer: fn(&Admin, &Ask) -> Answer,
}

/// What a call gives: JSON, or why it was refused.
pub type Answer = Result<Value, (StatusCode, String)>;

impl Call {
    /// By GET.
    const fn read(path: &'static str, what: &'static str, answer: fn(&Admin, &Ask) -> Answer) -> Self {
        Call { path, what, changes: false, answer }
    }

    /// By POST: what changes something, or asks with a body.
    const fn change(path: &'static str, what: &'static str, answer: fn(&Admin, &Ask) -> Answer) -> Self {
        Call { path, what, changes: true, answer }
    }
}

/// What comes with a call.
#[derive(Debug, Default)]
pub struct Ask {
    query: Vec<(String, String)>,
    /// The JSON body; null without one.
    pub body: Value,
}

impl Ask {
    fn new(query: Option<&str>, body: &[u8]) -> Result<Self, (StatusCode, String)> {
        let query = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = query.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        let body = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(body)
                .map_err(|error| (StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}")))?,
        };
        Ok(Ask { query: query.collect(), body })
    }

    /// A parameter of the query, or a text of the body.
    pub fn text(&self, name: &str) -> Option<&str> {
        let of_query = self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        of_query.or_else(|| self.body.get(name)?.as_str())
    }
}

/// What the answers are made of.
pub struct Admin {
    pub in_use: ArcSwap<InUse>,
    pub registry: Arc<Registry>,
    pub readiness: Arc<Readiness>,
    pub log: LogHandle,
    /// The run and the last record of each shard, where there is an audit log.
    pub audit: Option<(String, Vec<AuditHead>)>,
    pub lock: Arc<Table>,
    pub shards: usize,
    pub started: Instant,
}

/// The configuration that shards have.
pub struct InUse {
    pub snapshot: Arc<Snapshot>,
    /// As written, secrets hidden.
    pub written: Value,
    pub files: Vec<PathBuf>,
}

/// Serves the API until `stop` becomes true or its sender is gone.
pub async fn serve_api(
    listener: std::net::TcpListener,
    admin: Arc<Admin>,
    key: Option<Secret>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let guard = Arc::new(guard::Guard::new(listener.local_addr()?, key.as_ref()));
    let mut router = Router::new().route("/", get(async || respond(Ok(index()))));
    for call in CALLS {
        router = router.route(call.path, handler(call));
    }
    let router = router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(guard, guard::admit))
        .with_state(admin);
    serve(listener, router, stop).await
}

fn handler(call: &'static Call) -> MethodRouter<Arc<Admin>> {
    let answer = async |State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery, body: Bytes| {
        respond(Ask::new(query.as_deref(), &body).and_then(|ask| (call.answer)(&admin, &ask)))
    };
    if call.changes { post(answer) } else { get(answer) }
}

fn index() -> Value {
    CALLS
        .iter()
        .map(
            |call| json!({ "method": if call.changes { "POST" } else { "GET" }, "path": call.path, "what": call.what }),
        )
        .collect()
}

fn respond(answer: Answer) -> Response {
    let (status, value) = match answer {
        Ok(value) => (StatusCode::OK, value),
        Err((status, message)) => (status, json!({ "error": message })),
    };
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, format!("{value:#}\n")).into_response()
}

/// A part of a query without its escapes; what is none stays (URL standard, 5.1).
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let escaped = || {
            let digits = bytes.as_slice().get(..2)?;
            u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        };
        match byte {
            b'+' => out.push(b' '),
            b'%' => match escaped() {
                Some(value) => {
                    out.push(value);
                    bytes.nth(1);
                }
                None => out.push(b'%'),
            },
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read() {
        let ask =
            Ask::new(Some("level=info%2Cagentlane%3A%3Amcp=debug&a=b+c%&level=2&%zz=1"), b"{\"x\":\"y\"}").unwrap();
        assert_eq!(ask.text("level"), Some("info,agentlane::mcp=debug"));
        assert_eq!((ask.text("a"), ask.text("x"), ask.text("%zz")), (Some("b c%"), Some("y"), Some("1")));
        assert_eq!(ask.text("none"), None);
        assert_eq!(Ask::new(None, b"{").unwrap_err().0, StatusCode::BAD_REQUEST);
    }
}
