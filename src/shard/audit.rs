//! From a request's record to the audit log: which requests are written, and what is known of them. Knows no chain.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;

use agentlane_link::tls::TlsError;
use agentlane_wire::h1::RequestHead;
use smallvec::SmallVec;

use super::Shard;
use super::mcp::Incoming;
use super::record::Record;
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::lock::definition::Kind;
use crate::protocol::mcp::method::Method;
use crate::request::TlsClient;
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::AuditRecord;
use crate::telemetry::audit::Denial;

/// What is known of a request beside its record.
pub struct Scene<'a> {
    remote: Option<SocketAddr>,
    client: Option<&'a str>,
    caller: Caller,
    method: &'a str,
    path: &'a str,
    host: Option<&'a str>,
    route: Option<&'a Route>,
    backend: Option<&'a str>,
    config: u64,
}

impl<'a> Scene<'a> {
    /// A request over HTTP.
    pub fn request(
        snapshot: &'a Snapshot,
        head: &'a RequestHead,
        remote: Option<SocketAddr>,
        tls: Option<&'a TlsClient>,
        record: &Record,
    ) -> Self {
        let route = record.route.and_then(|index| snapshot.routes.get(index)).map(AsRef::as_ref);
        Scene {
            remote,
            client: tls.and_then(TlsClient::subject),
            caller: record.principal.caller(&head.headers),
            method: head.method_str(),
            path: head.target(),
            host: Some(head.authority()).filter(|authority| !authority.is_empty()),
            route,
            backend: route.zip(record.backend).and_then(|(route, place)| route.backend_name(place)),
            config: snapshot.version,
        }
    }

    /// One message of a conversation or of a batch, which has no request of its own.
    pub fn message(incoming: &'a Incoming<'_>) -> Self {
        let caller = match &incoming.session {
            Some(session) => session.caller,
            None => incoming.principal.caller(incoming.headers),
        };
        Scene {
            remote: None,
            client: incoming.principal.subject(),
            caller,
            method: "-",
            path: "-",
            host: None,
            route: None,
            backend: Some(&incoming.backend.config.key),
            config: incoming.shard.active().snapshot.version,
        }
    }
}

impl Shard {
    /// Writes a request that was denied, or one that is a call where calls are written. `scene` is made only then.
    pub fn audit<'a>(&self, record: &Record, scene: impl FnOnce() -> Scene<'a>) {
        let mut log = self.audit.borrow_mut();
        let Some(log) = log.as_mut() else { return };
        let is_call = || log.options().calls && record.mcp_method.is_some_and(is_use);
        if record.denial.is_none() && !is_call() {
            return;
        }
        let scene = scene();
        let options = log.options().clone();
        let claims: SmallVec<[(&str, Cow<'_, str>); 4]> = record.principal.claims(&options.claims).collect();
        let duration = record.began.elapsed();
        let item = record.tool.as_ref().or(record.item.as_ref()).and_then(|item| std::str::from_utf8(item).ok());
        let hash = item.and_then(|item| hash_of(record, item));
        log.record(&AuditRecord {
            denial: record.denial.as_deref(),
            start: SystemTime::now() - duration,
            remote: scene.remote,
            client: scene.client,
            principal: (scene.caller != Caller::NOBODY).then_some(&scene.caller.as_bytes()[..]),
            claims: &claims,
            method: scene.method,
            path: scene.path,
            host: scene.host,
            listener: scene.route.map(|route| route.listener.as_str()),
            route: scene.route.map(|route| route.name.as_str()),
            backend: scene.backend,
            mcp_method: record.mcp_method,
            mcp_target: record.target.as_ref().map(|target| target.name.as_str()),
            mcp_item: item,
            item_hash: hash.as_deref(),
            session: record.session,
            status: record.status,
            fault: record.fault,
            result_bytes: record.bytes_out,
            duration,
            config: scene.config,
        });
    }

    /// Writes that a client was refused in its handshake by a decision, as opposed to having failed.
    pub fn audit_handshake(&self, error: &TlsError, remote: Option<SocketAddr>) {
        if !matches!(error, TlsError::UnknownName | TlsError::Certificate(_)) {
            return;
        }
        let mut record = Record::new();
        record.denial = Some(Box::new(Denial { kind: "tls_refused", rule: Some(error.to_string().into()) }));
        let config = self.active().snapshot.version;
        self.audit(&record, || Scene {
            remote,
            client: None,
            caller: Caller::NOBODY,
            method: "-",
            path: "-",
            host: None,
            route: None,
            backend: None,
            config,
        });
    }

    /// Whether no request may begin until audit records are out.
    pub fn is_behind_with_audit(&self) -> bool {
        self.audit.borrow().as_ref().is_some_and(|log| log.is_behind())
    }

    /// What is buffered goes out; the last of it with `end`, after which nothing is written.
    pub(super) fn flush_audit(&self, end: bool) {
        let mut log = self.audit.borrow_mut();
        match end {
            // Dropping it writes the end.
            true => drop(log.take()),
            false => log.iter_mut().for_each(|log| log.flush()),
        }
    }
}

/// The hash of what was called, where its target is locked. `item`: its name outward.
fn hash_of(record: &Record, item: &str) -> Option<String> {
    let target = record.target.as_ref()?;
    let own = item.strip_prefix(&target.prefix).unwrap_or(item);
    let kind = if record.tool.is_some() { Kind::Tool } else { Kind::Prompt };
    Some(target.lock.as_ref()?.hash_of(kind, own)?.to_string())
}

/// Methods by which something of a target is used.
fn is_use(method: &str) -> bool {
    [Method::ToolsCall, Method::PromptsGet, Method::ResourcesRead].iter().any(|known| known.label() == method)
}
