//! One client connection: request after request through decode, route and admit to its backend; and the connection's way to
//! the shard of its session, where that is another one.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use agentlane_link::client::Spoken;
use agentlane_link::server::{ConnError, Connection};
use agentlane_link::upgrade;
use agentlane_runtime as runtime;
use agentlane_wire::h1::RequestHead;
use bytes::Bytes;

use super::audit::Scene;
use super::mcp;
use super::record::Record;
use super::responder::write_headers;
use super::{Active, Shard, endpoint, http2, proxy};
use crate::backend::Backend;
use crate::fault::{Fault, Kind};
use crate::limits::{ADMISSION_TIME, ADMISSION_WAITS_MAX};
use crate::mesh::{MovedConnection, ToShard};
use crate::policy::rules::access::Access;
use crate::policy::{Matched, Refusal, Verdict};
use crate::protocol::mcp::error;
use crate::request::{Changes, HeaderEdits, LocalReply, RequestView, TlsClient};
use crate::snapshot::{Bind, Listener, Route};
use crate::telemetry::AccessRecord;

/// What becomes of the connection after a request.
pub enum After {
    Next,
    Close,
    /// To that shard, with the request unserved.
    Move(usize),
    /// It is a WebSocket now.
    WebSocket(Box<proxy::WebSocket>),
}

/// A connection's facts.
#[derive(Clone)]
pub struct Client {
    /// The bind that accepted it.
    pub bind: SocketAddr,
    pub local: SocketAddr,
    pub peer: Option<SocketAddr>,
    /// `None`: the connection is plain.
    pub tls: Option<Arc<TlsClient>>,
    /// It has served nothing yet that ties it to this shard.
    pub fresh: bool,
    /// Another shard let its next request pass, and sent it here.
    pub admitted: bool,
}

impl Client {
    /// Who the client is by its certificate, for the record.
    fn subject(&self) -> Option<&str> {
        self.tls.as_ref()?.subject()
    }
}

/// Serves a connection to its end.
pub async fn serve(
    shard: Rc<Shard>,
    connection: Connection,
    bind: SocketAddr,
    peer: Option<SocketAddr>,
    tls: Option<Arc<TlsClient>>,
    fresh: bool,
) {
    shard.metrics.connections.inc();
    let local = connection.local_addr().unwrap_or(bind);
    let client = Client { bind, local, peer, tls: tls.clone(), fresh, admitted: !fresh };
    let speaks_http2 = requests(&shard, connection, client).await;
    shard.metrics.connections.dec();
    if let Some(connection) = speaks_http2 {
        match connection.into_transport() {
            // A state of its own: other connections do not carry it.
            Ok((transport, received)) => {
                Box::pin(http2::serve(shard, transport, received, bind, peer, tls)).await;
            }
            Err(error) => tracing::warn!(%error, "a connection cannot go on with HTTP/2"),
        }
    }
}

/// Serves one request of a connection of HTTP/2.
pub async fn serve_stream(shard: Rc<Shard>, stream: Connection, client: Client) {
    requests(&shard, stream, client).await;
}

/// Takes a connection over that another shard sent.
pub fn adopt(shard: &Rc<Shard>, moved: MovedConnection) {
    let limits = shard.active().limits.clone();
    let connection = Connection::from_migrated(moved.socket, moved.read_ahead, limits, &shard.drain);
    match connection {
        Ok(connection) => {
            runtime::spawn(serve(shard.clone(), connection, moved.bind, moved.peer, moved.tls, false));
        }
        Err(error) => tracing::warn!(%error, "a moved connection could not be taken over"),
    }
}

/// Request after request. A client that speaks HTTP/2 instead gets its connection back.
async fn requests(shard: &Rc<Shard>, mut connection: Connection, mut client: Client) -> Option<Connection> {
    loop {
        let head = match connection.head().await {
            Ok(Some(head)) => head,
            Ok(None) => break,
            Err(ConnError::Http2) => return Some(connection),
            Err(error) => {
                if let Some(status) = error.status() {
                    shard.metrics.unrouted.inc();
                    refused_head(shard, &client, status);
                }
                let _ = connection.refuse(&error).await;
                break;
            }
        };
        let mut record = Record::new();
        record.bytes_in = head.framing.length().unwrap_or_default();
        let active = shard.active();
        let after = request(shard, &active, &mut connection, &client, &head, &mut record).await;
        if let After::Move(owner) = after {
            hand_over(shard, connection, client, head, owner);
            return None;
        }
        if let After::WebSocket(socket) = after {
            Box::pin(websocket(shard, &active, connection, *socket, &mut record)).await;
            finish(shard, &active, &client, &head, &record);
            return None;
        }
        client.fresh = client.fresh && record.session.is_none();
        client.admitted = false;
        finish(shard, &active, &client, &head, &record);
        if matches!(after, After::Close) {
            break;
        }
    }
    connection.close().await;
    None
}

/// Pumps an open WebSocket to its end.
async fn websocket(
    shard: &Rc<Shard>,
    active: &Active,
    connection: Connection,
    socket: proxy::WebSocket,
    record: &mut Record,
) {
    shard.metrics.websockets.inc();
    let proxy::WebSocket { up, permits } = socket;
    (record.bytes_in, record.bytes_out) = upgrade::pump(connection, up, active.limits.idle).await;
    drop(permits);
    shard.metrics.websockets.dec();
}

/// Decode is done: route, admit, dispatch.
async fn request(
    shard: &Rc<Shard>,
    active: &Active,
    connection: &mut Connection,
    client: &Client,
    head: &RequestHead,
    record: &mut Record,
) -> After {
    if shard.is_behind_with_audit() {
        record.fault = Some(Kind::Overloaded.label());
        return local(connection, LocalReply::new(503), &HeaderEdits::default(), record).await;
    }
    let view = RequestView::new(head, client.local, client.peer, client.tls.as_ref());
    let view = view.on(shard.index, client.admitted);
    let bind = active.snapshot.bind(client.bind);
    let listener = bind.and_then(|bind| bind.listener(view.host));
    if bind.is_some_and(|bind| is_misdirected(bind, listener, client.tls.as_deref())) {
        record.fault(&Fault::new(Kind::Misdirected, "the connection was made for another host"));
        shard.metrics.unrouted.inc();
        connection.close_after();
        let reply = LocalReply::new(Kind::Misdirected.http_status());
        return local(connection, reply, &HeaderEdits::default(), record).await;
    }
    let Some((route, matched)) = listener.and_then(|listener| listener.route(&view)) else {
        record.fault = Some(Kind::NoRoute.label());
        shard.metrics.unrouted.inc();
        return local(connection, LocalReply::new(404), &HeaderEdits::default(), record).await;
    };
    record.route = Some(route.index);
    let mut changes = changes_of(client);
    let mut verdict = route.chain.request(&view, &matched, &mut changes);
    if matches!(verdict, Verdict::Wait(_)) {
        // A state of its own: most requests wait for nothing.
        (verdict, changes) = Box::pin(settled(verdict, route, &view, &matched, client)).await;
    }
    record.principal = changes.principal.clone();
    match verdict {
        Verdict::Continue => {}
        Verdict::Wait(_) => {
            let refusal = Refusal::new(Fault::new(Kind::Overloaded, "overloaded"));
            return refuse_for(connection, route, &changes.response, record, refusal).await;
        }
        Verdict::Reply(mut reply) => {
            record.replied(&mut reply);
            return local(connection, *reply, &changes.response, record).await;
        }
        Verdict::Refuse(refusal) => {
            active.routes[route.index].refused(&shard.metrics, route, &refusal.fault);
            return refuse_for(connection, route, &changes.response, record, *refusal).await;
        }
    }
    let backend = route.backends.pick(active.turn(route));
    record.backend = backend.map(|(place, _)| place);
    if let Some(redirect) = backend.and_then(|(_, chosen)| chosen.redirect.as_ref()) {
        return local(connection, redirect.reply(&view, &matched), &changes.response, record).await;
    }
    if let Some(limit) = backend.and_then(|(_, chosen)| chosen.concurrency.as_ref()) {
        match limit.enter(&view) {
            Ok(permit) => changes.permits.extend(permit),
            Err(refusal) => {
                active.routes[route.index].refused(&shard.metrics, route, &refusal.fault);
                return refuse_for(connection, route, &changes.response, record, *refusal).await;
            }
        }
    }
    let backend_rules = backend.and_then(|(_, chosen)| chosen.rules.as_ref());
    match backend.map(|(place, chosen)| (place, &chosen.backend)) {
        None => {
            record.fault = Some(Kind::NoBackend.label());
            local(connection, LocalReply::new(503), &changes.response, record).await
        }
        Some((place, Backend::Http(http))) => {
            if view.asks_for_websocket() && http.endpoint.spoken == Spoken::Http1 {
                let opening = proxy::open_websocket(shard, connection, &view, route, (place, http), changes, record);
                return match Box::pin(opening).await {
                    Ok(socket) => After::WebSocket(Box::new(socket)),
                    Err(true) => After::Next,
                    Err(false) => After::Close,
                };
            }
            let cells = &active.routes[route.index];
            match proxy::forward(shard, cells, connection, &view, route, (place, http), changes, record).await {
                true => After::Next,
                false => After::Close,
            }
        }
        Some((_, Backend::Mcp(backend))) => {
            let access = Access::new(backend_rules, &view);
            let host_known =
                listener.is_some_and(|listener| listener.host != crate::snapshot::matching::HostPattern::Any);
            if let Err(fault) = mcp::guard(&view, backend, route.chain.cors(), host_known) {
                return refuse(connection, &changes.response, record, &fault).await;
            }
            // A state of its own: plain requests do not carry it.
            Box::pin(endpoint::serve(shard, active, connection, client, head, backend.index, access, changes, record))
                .await
        }
    }
}

/// What is known of a request before its policies are asked.
fn changes_of(client: &Client) -> Changes {
    let principal = client.tls.as_ref().map(|tls| tls.principal.clone()).unwrap_or_default();
    Changes { principal, ..Changes::default() }
}

/// Waits for what the policies do not know yet, and asks them again, the last time for a verdict without waiting.
async fn settled(
    mut verdict: Verdict,
    route: &Route,
    view: &RequestView<'_>,
    matched: &Matched<'_>,
    client: &Client,
) -> (Verdict, Changes) {
    let until = runtime::now() + ADMISSION_TIME;
    let mut changes = changes_of(client);
    for turn in 1..=ADMISSION_WAITS_MAX {
        let Verdict::Wait(pending) = verdict else { break };
        let left = until.saturating_duration_since(runtime::now());
        let is_late = runtime::timeout(left, pending.done()).await.is_err();
        let view = RequestView { may_wait: !is_late && turn < ADMISSION_WAITS_MAX, ..*view };
        changes = changes_of(client);
        verdict = route.chain.request(&view, matched, &mut changes);
    }
    (verdict, changes)
}

/// Whether a request does not belong on its connection (RFC 9110, 15.5.20): it names a host of another listener than the one
/// whose handshake was made, whose rules for clients may be others; or the port speaks TLS since a reload, or no longer.
fn is_misdirected(bind: &Bind, listener: Option<&Listener>, tls: Option<&TlsClient>) -> bool {
    match tls {
        None => bind.secure,
        Some(tls) => !bind.secure || listener.is_some_and(|listener| listener.name != tls.listener),
    }
}

/// Gives the connection to the shard of its session, at the boundary before this request.
fn hand_over(shard: &Rc<Shard>, connection: Connection, client: Client, head: RequestHead, owner: usize) {
    match connection.migrate(head) {
        Ok((socket, read_ahead)) => {
            shard.metrics.connections_moved.inc();
            let moved = MovedConnection { socket, read_ahead, bind: client.bind, peer: client.peer, tls: client.tls };
            if shard.peers[owner].try_send(ToShard::Connection(Box::new(moved))).is_err() {
                tracing::warn!(shard = owner, "a shard takes no connections: one was closed");
            }
        }
        Err(error) => tracing::warn!(%error, "a connection could not be moved"),
    }
}

/// An answer of the gateway's own.
async fn local(connection: &mut Connection, reply: LocalReply, edits: &HeaderEdits, record: &mut Record) -> After {
    record.status = reply.status;
    record.bytes_out = reply.body.len() as u64;
    let headers = reply.headers;
    let body = if reply.body.is_empty() { Default::default() } else { [reply.body].into_iter().collect() };
    let sent = connection.respond(reply.status, |head| write_headers(head, &headers, edits), body).await;
    if sent.is_ok() { After::Next } else { After::Close }
}

/// A policy's fault, in the words of the route's clients.
async fn refuse_for(
    connection: &mut Connection,
    route: &Route,
    edits: &HeaderEdits,
    record: &mut Record,
    refusal: Refusal,
) -> After {
    let Refusal { fault, headers } = refusal;
    record.fault(&fault);
    let (content_type, body) = match route.is_mcp {
        true => ("application/json", error::fault_response(None, &fault)),
        false => ("text/plain; charset=utf-8", Bytes::from_static(fault.kind.label().as_bytes())),
    };
    let mut reply = LocalReply::new(fault.kind.http_status());
    reply.headers = headers;
    reply = reply.header("content-type", Bytes::from_static(content_type.as_bytes()));
    reply.body = body;
    local(connection, reply, edits, record).await
}

/// A fault of an MCP request before its body was read.
pub async fn refuse(connection: &mut Connection, edits: &HeaderEdits, record: &mut Record, fault: &Fault) -> After {
    record.fault(fault);
    let mut reply =
        LocalReply::new(fault.kind.http_status()).header("content-type", Bytes::from_static(b"application/json"));
    if fault.kind == Kind::MethodNotAllowed {
        let allowed = if fault.message == mcp::SESSIONLESS { "POST" } else { "GET, POST, DELETE" };
        reply = reply.header("allow", Bytes::from_static(allowed.as_bytes()));
    }
    reply.body = error::fault_response(None, fault);
    local(connection, reply, edits, record).await
}

/// The record of a request that broke HTTP: there is no method and no path to tell.
fn refused_head(shard: &Shard, client: &Client, status: u16) {
    let mut access = shard.access.borrow_mut();
    let Some(access) = access.as_mut() else { return };
    access.record(&AccessRecord {
        start: SystemTime::now(),
        shard: shard.index,
        remote: client.peer,
        client: client.subject(),
        protocol: "-",
        method: "-",
        path: "-",
        host: None,
        status,
        duration: std::time::Duration::ZERO,
        bytes_in: 0,
        bytes_out: 0,
        listener: None,
        route: None,
        backend: None,
        mcp_method: None,
        mcp_target: None,
        mcp_tool: None,
        session: None,
        fault: Some(Kind::InvalidRequest.label()),
    });
}

/// Counts a request and writes its record.
fn finish(shard: &Shard, active: &Active, client: &Client, head: &RequestHead, record: &Record) {
    let duration = record.began.elapsed();
    let route = record.route.map(|index| &active.snapshot.routes[index]);
    if let Some(route) = route {
        active.routes[route.index].count(record, duration);
    }
    shard.metrics.mcp(record);
    shard.audit(record, || Scene::request(&active.snapshot, head, client.peer, client.tls.as_deref(), record));
    let mut access = shard.access.borrow_mut();
    let Some(access) = access.as_mut() else { return };
    access.record(&AccessRecord {
        start: SystemTime::now() - duration,
        shard: shard.index,
        remote: client.peer,
        client: client.subject(),
        protocol: head.version.as_str(),
        method: head.method_str(),
        path: head.target(),
        host: Some(head.authority()).filter(|authority| !authority.is_empty()),
        status: record.status,
        duration,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        listener: route.map(|route| route.listener.as_str()),
        route: route.map(|route| route.name.as_str()),
        backend: route.zip(record.backend).and_then(|(route, place)| route.backend_name(place)),
        mcp_method: record.mcp_method,
        mcp_target: record.target.as_ref().map(|target| target.name.as_str()),
        mcp_tool: record.tool.as_ref().and_then(|tool| std::str::from_utf8(tool).ok()),
        session: record.session,
        fault: record.fault,
    });
}
