//! Opening the way to one target: the handshake on behalf of the client, once, however many requests wait for it; again
//! when the target forgot us; not too often when it is down.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use agentlane_runtime as runtime;
use agentlane_wire::json;
use bytes::{BufMut, Bytes, BytesMut};
use simd_json::OwnedValue;
use simd_json::prelude::*;

use super::era::{self, Era};
use super::upstream::{self, Answer};
use super::{child, mcp_fault, modern_leg, sse};
use crate::backend::mcp::{HttpTarget, Protocol, Target, TargetKind};
use crate::fault::{Fault, Kind};
use crate::protocol::mcp::modern::envelope::Client;
use crate::protocol::mcp::revision::Revision;
use crate::protocol::mcp::{error, merge, tasks};
use crate::session::{Leg, LegId, LegState, Offers, OpenLeg, Session, Transport};
use crate::shard::{BackendState, Shard};

/// The first pause after a failed handshake; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A child that ran for so long did not fail at its start.
const STEADY: Duration = Duration::from_secs(5);

/// What a fresh handshake gave, beside the open leg.
pub struct Opened {
    pub leg: Rc<OpenLeg>,
    /// The target's `result`; `None` when the leg was open already.
    pub result: Option<OwnedValue>,
    /// The same as it was sent.
    pub raw: Bytes,
}

/// The open leg, negotiating first where needed.
pub async fn ready(shard: &Rc<Shard>, session: &Rc<Session>, id: LegId) -> Result<Rc<OpenLeg>, Fault> {
    let leg = leg_at(session, id)?;
    if let Some(open) = live(&leg) {
        return Ok(open);
    }
    Box::pin(open(shard, session, id, false)).await.map(|opened| opened.leg)
}

/// Opens a leg, or waits for the task that is doing it. `first`: part of the client's own handshake, so that the target is
/// told `initialized` when the client says it, and a pause does not count.
pub async fn open(shard: &Rc<Shard>, session: &Rc<Session>, id: LegId, first: bool) -> Result<Opened, Fault> {
    let leg = leg_at(session, id)?;
    let failures = loop {
        if let Some(open) = live(&leg) {
            return Ok(Opened { leg: open, result: None, raw: Bytes::new() });
        }
        let waiting = match &*leg.state.borrow() {
            LegState::Opening => true,
            LegState::Down { until, reason, .. } if runtime::now() < *until => {
                return Err(Fault::new(Kind::UpstreamUnreachable, reason).with(&leg.target.name));
            }
            LegState::Closed => return Err(mcp_fault::session_unknown()),
            _ => false,
        };
        if !waiting {
            break match &*leg.state.borrow() {
                LegState::Down { failures, .. } => *failures,
                _ => 0,
            };
        }
        leg.settled.notified().await;
    };
    *leg.state.borrow_mut() = LegState::Opening;
    let backend = shard.mcp_backend(&session.backend).ok_or_else(mcp_fault::session_unknown);
    let outcome = match backend {
        Ok(backend) => negotiate(shard, &backend, session, &leg, id, first).await,
        Err(fault) => Err(fault),
    };
    let state = match &outcome {
        Ok(opened) => {
            super::modern::introduce(shard, session, &leg, &opened.raw);
            LegState::Open(opened.leg.clone())
        }
        Err(fault) => {
            tracing::warn!(target: "agentlane::mcp", target_name = %leg.target.name, %fault, "target is down");
            LegState::Down {
                until: runtime::now() + pause(&leg, failures),
                reason: fault.message,
                failures: failures + 1,
            }
        }
    };
    *leg.state.borrow_mut() = state;
    leg.settled.notify_all();
    if session.ended.get() {
        // It ended meanwhile: what has just been opened is nobody's.
        super::close::leave(shard, session, &leg);
    }
    shard.metrics.target_state(&leg.target.name, outcome.is_ok());
    if outcome.is_ok() && !first {
        recovered(shard, session, id, failures > 0);
    }
    outcome
}

/// A target came after the others: its own stream is wanted if the client listens, and if it was down before, the client's
/// lists have changed.
fn recovered(shard: &Rc<Shard>, session: &Rc<Session>, id: LegId, was_down: bool) {
    if session.initialized.get() {
        super::listen::follow_all(shard, session);
    }
    if was_down {
        super::cache::came_back(shard, session, id);
        super::close::lists_changed(session);
    }
}

/// The target forgot the session that `stale` was negotiated for: the next use negotiates anew.
pub fn forget(session: &Session, id: LegId, stale: &Rc<OpenLeg>) {
    let Ok(leg) = leg_at(session, id) else { return };
    let is_current = matches!(&*leg.state.borrow(), LegState::Open(current) if Rc::ptr_eq(current, stale));
    if is_current {
        *leg.state.borrow_mut() = LegState::Idle;
        session.server_requests.borrow_mut().forget_leg(id);
    }
}

pub fn leg_at(session: &Session, id: LegId) -> Result<Rc<Leg>, Fault> {
    session.leg(id).ok_or_else(|| Fault::new(Kind::NoBackend, "target is not configured"))
}

/// An open leg whose child, where it has one, still runs.
fn live(leg: &Leg) -> Option<Rc<OpenLeg>> {
    let open = leg.open()?;
    let gone = matches!(&open.transport, Transport::Stdio(port) if port.closed.load(Ordering::Acquire));
    if gone {
        *leg.state.borrow_mut() = after_exit(leg, &open);
        return None;
    }
    Some(open)
}

/// A child that ended may be started again: at once if it had worked for a while or was ended for idling, else after a
/// pause that grows.
fn after_exit(leg: &Leg, open: &OpenLeg) -> LegState {
    let now = runtime::now();
    if rested(open) || now.saturating_duration_since(open.since) >= STEADY {
        leg.crashes.set(0);
        return LegState::Idle;
    }
    let crashes = leg.crashes.get();
    leg.crashes.set(crashes.saturating_add(1));
    match crashes {
        // Once may be chance, and the next call should not pay for it.
        0 => LegState::Idle,
        _ => LegState::Down { until: now + pause(leg, crashes - 1), reason: "target keeps exiting", failures: 0 },
    }
}

/// Whether its child was ended because nobody used it.
pub fn rested(open: &OpenLeg) -> bool {
    matches!(&open.transport, Transport::Stdio(port) if port.rested.load(Ordering::Acquire))
}

/// The pause after so many failures before this one.
fn pause(leg: &Leg, failures: u32) -> Duration {
    let (min, max) = match &leg.target.kind {
        TargetKind::Stdio(stdio) => (stdio.backoff_min, stdio.backoff_max),
        TargetKind::Http(_) | TargetKind::Sse(_) => (PAUSE_MIN, PAUSE_MAX),
    };
    min.saturating_mul(1 << failures.min(16)).min(max)
}

async fn negotiate(
    shard: &Rc<Shard>,
    backend: &BackendState,
    session: &Rc<Session>,
    leg: &Rc<Leg>,
    id: LegId,
    first: bool,
) -> Result<Opened, Fault> {
    let deadline = runtime::now() + backend.config.deadline;
    let opened = match &leg.target.kind {
        TargetKind::Http(target) => open_http(shard, backend, session, leg, target, deadline).await?,
        TargetKind::Sse(target) => sse::negotiate(shard, session, leg, target, deadline).await?,
        TargetKind::Stdio(target) => child::negotiate(shard, session, leg, target, id, deadline).await?,
    };
    if !first && session.initialized.get() && opened.leg.modern.is_none() {
        catch_up(shard, session, &opened.leg, id, deadline).await;
    }
    Ok(opened)
}

/// Tells a target that joined late what the client said before.
async fn catch_up(shard: &Rc<Shard>, session: &Rc<Session>, open: &Rc<OpenLeg>, id: LegId, deadline: Instant) {
    if open.modern.is_some() {
        // It is told with each request, or by whoever listens.
        return;
    }
    let initialized = error::notification("notifications/initialized", None);
    let _ = upstream::tell(shard, session, open, id, initialized, deadline).await;
    let level = session.log_level.borrow().clone();
    if let Some(params) = level.filter(|_| open.offers.logging) {
        let request = error::request(shard.call_id(), "logging/setLevel", Some(&params));
        let _ = upstream::ask(shard, session, open, id, request, true, deadline).await;
    }
    let subscriptions: Vec<Bytes> =
        session.subscriptions.borrow().iter().filter(|(leg, _)| *leg == id).map(|(_, uri)| uri.clone()).collect();
    for uri in subscriptions {
        let mut params = BytesMut::from(&b"{\"uri\":"[..]);
        params.put_slice(&uri);
        params.put_u8(b'}');
        let request = error::request(shard.call_id(), "resources/subscribe", Some(&params));
        let _ = upstream::ask(shard, session, open, id, request, true, deadline).await;
    }
}

/// Opens the leg in the client's era if the target speaks it, else in the other.
async fn open_http(
    shard: &Rc<Shard>,
    backend: &BackendState,
    session: &Rc<Session>,
    leg: &Rc<Leg>,
    target: &HttpTarget,
    deadline: Instant,
) -> Result<Opened, Fault> {
    let known = backend.eras.of(&leg.target);
    let (mut refused, mut refused_by) = (None, None);
    for era in known.order(leg.target.protocol, Era::first(session), runtime::now()) {
        let fault = match era {
            Era::Legacy => match negotiate_http(shard, session, leg, target, leg.target.protocol, deadline).await {
                Ok(opened) => {
                    known.found_legacy();
                    return Ok(opened);
                }
                Err(Failure::Outage(fault)) => return Err(fault),
                Err(Failure::Refused(fault, status)) => {
                    refused_by = status;
                    fault
                }
            },
            Era::Modern => match Box::pin(era::modern(shard, &known, &leg.target, refused.is_some(), deadline)).await {
                Ok(Some(modern)) => {
                    known.found_modern(refused.is_some());
                    return Ok(modern_leg::open(session, leg, &modern));
                }
                Ok(None) => era::not_modern(),
                Err(fault) => fault,
            },
        };
        refused.get_or_insert(fault);
    }
    // Last: a server of 2026-07-28 alone refuses both `initialize` and GET, and need not be asked for a stream.
    if let Some(status) = refused_by
        && let Some(opened) = sse::instead(shard, session, leg, target, status, deadline).await
    {
        known.found_legacy();
        return opened;
    }
    Err(refused.unwrap_or_else(|| mcp_fault::internal("no era to try")))
}

/// Why a handshake failed.
pub enum Failure {
    /// Nothing can be said about the target.
    Outage(Fault),
    /// The target answered, with this status if it was no success, but not as one that has sessions.
    Refused(Fault, Option<u16>),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure::Outage(fault)
    }
}

async fn negotiate_http(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    leg: &Rc<Leg>,
    target: &HttpTarget,
    protocol: Protocol,
    deadline: Instant,
) -> Result<Opened, Failure> {
    if let Some(opened) = sse::known(shard, session, leg, target, deadline).await {
        return opened.map_err(Failure::Outage);
    }
    let params = initialize_params(session, protocol);
    let credential = leg.credential.borrow().clone();
    initialize_http(shard, target, &params, &credential, deadline).await
}

/// Whether a target opens a session, which ends at once.
pub async fn has_sessions(shard: &Rc<Shard>, target: &Arc<Target>, deadline: Instant) -> bool {
    let TargetKind::Http(http) = &target.kind else { return false };
    let client = Client::gateway();
    let params = error::initialize_params(Revision::NEWEST, &client.capabilities, client.info.as_deref());
    match initialize_http(shard, http, &params, &[], deadline).await {
        Ok(opened) => {
            let leg = Leg::new(0, target.clone());
            *leg.state.borrow_mut() = LegState::Open(opened.leg);
            super::close::leave_unused(shard, &leg);
            true
        }
        Err(_) => false,
    }
}

async fn initialize_http(
    shard: &Rc<Shard>,
    target: &HttpTarget,
    params: &[u8],
    credential: &[u8],
    deadline: Instant,
) -> Result<Opened, Failure> {
    let head = post_head(target, None, None);
    let message = error::request(shard.call_id(), "initialize", Some(params));
    let http = upstream::post(shard, &target.endpoint, &head, credential, message, true, Some(deadline)).await?;
    let upstream_session = http.head.headers.get("mcp-session-id").map(Bytes::copy_from_slice);
    let mut answer = Answer::of(http, Some(deadline)).await?;
    if let Answer::Refused { status, .. } = &answer {
        let fault = Fault::new(Kind::UpstreamBroken, "target refused initialize").with(format!("status {status}"));
        return Err(match status {
            401 | 403 | 407 | 408 | 429 | 500.. => Failure::Outage(fault),
            _ => Failure::Refused(fault, Some(*status)),
        });
    }
    let raw = loop {
        let Some(message) = answer.next().await? else {
            let fault = Fault::new(Kind::UpstreamBroken, "target did not answer initialize");
            return Err(Failure::Refused(fault, None));
        };
        let Some(message) = message.data else { continue };
        if let Some(raw) = result_of(&message).map_err(|fault| Failure::Refused(fault, None))? {
            break raw;
        }
    };
    answer.finish().await;
    let (revision, offers, result) = read_result(&raw).map_err(|fault| Failure::Refused(fault, None))?;
    let post_head = post_head(target, upstream_session.as_deref(), Some(revision.as_str()));
    let transport = Transport::Http { session: upstream_session, post_head };
    let leg = OpenLeg { revision, offers, transport, since: runtime::now(), modern: None };
    Ok(Opened { leg: Rc::new(leg), result: Some(result), raw })
}

/// What the client said in its `initialize`, in the revision that the target is pinned to.
pub fn initialize_params(session: &Session, protocol: Protocol) -> Bytes {
    let Protocol::Legacy(Some(revision)) = protocol else { return session.initialize_params.clone() };
    let pinned = || {
        let root = json::root(&session.initialize_params).ok()?;
        let version = json::get(&session.initialize_params, root, "protocolVersion").ok()??;
        let mut splice = json::Splice::new();
        splice.replace_string(version, revision.as_str());
        splice.contiguous(&session.initialize_params).ok()
    };
    pinned().unwrap_or_else(|| session.initialize_params.clone())
}

/// The `result` of a response, a fault for an error response, `None` for any other message.
pub fn result_of(message: &Bytes) -> Result<Option<Bytes>, Fault> {
    let envelope = json::scan(message, &super::SCAN_LIMITS)
        .map_err(|fault| Fault::new(Kind::UpstreamBroken, "target sent no JSON-RPC").with(fault))?;
    if let Some(range) = envelope.error {
        let text = String::from_utf8_lossy(range.of(message).unwrap_or_default()).chars().take(300).collect::<String>();
        return Err(Fault::new(Kind::UpstreamBroken, "target answered with an error").with(text));
    }
    Ok(envelope.result.map(|range| message.slice(range.usize())))
}

/// What an `initialize` result says; a revision that we do not speak is a fault, whatever the target thinks of it.
pub fn read_result(raw: &Bytes) -> Result<(Revision, Offers, OwnedValue), Fault> {
    let broken =
        |detail: String| Fault::new(Kind::UpstreamBroken, "target sent a wrong initialize result").with(detail);
    let result = simd_json::to_owned_value(&mut raw.to_vec()).map_err(|fault| broken(fault.to_string()))?;
    let version = result.get_str("protocolVersion").unwrap_or_default();
    let revision =
        Revision::parse(version.as_bytes()).ok_or_else(|| broken(format!("protocol version {version:?}")))?;
    Ok((revision, offers_of(&result), result))
}

/// What a result with `capabilities` offers: of `initialize`, or of `server/discover`.
pub fn offers_of(result: &OwnedValue) -> Offers {
    let has = |path: [&str; 2]| result.get("capabilities").and_then(|all| all.get(path[0])?.get(path[1])).is_some();
    Offers {
        tools: merge::offers(result, "tools"),
        prompts: merge::offers(result, "prompts"),
        resources: merge::offers(result, "resources"),
        subscribe: merge::offers_flag(result, "resources", "subscribe"),
        completions: merge::offers(result, "completions"),
        logging: merge::offers(result, "logging"),
        tasks: merge::offers(result, tasks::CAPABILITY),
        task_list: has([tasks::CAPABILITY, "list"]),
        task_extension: has(["extensions", tasks::EXTENSION]),
        tells: merge::tells(result),
    }
}

/// The unvarying part of a POST's head.
pub fn post_head(target: &HttpTarget, session: Option<&[u8]>, version: Option<&str>) -> Bytes {
    let mut head = BytesMut::with_capacity(384);
    head.put_slice(b"POST ");
    put_target_and_headers(&mut head, target, session, version);
    head.put_slice(b"content-type: application/json\r\naccept: application/json, text/event-stream\r\n");
    head.freeze()
}

/// The head of any other request: `GET` or `DELETE`, complete.
pub fn bare_head(method: &str, leg: &Leg, target: &HttpTarget, open: &OpenLeg, last_event_id: Option<&[u8]>) -> Bytes {
    let session = match &open.transport {
        Transport::Http { session, .. } => session.as_deref(),
        Transport::Stdio(_) => None,
    };
    let mut head = BytesMut::with_capacity(384);
    head.put_slice(method.as_bytes());
    head.put_u8(b' ');
    put_target_and_headers(&mut head, target, session, Some(open.revision.as_str()));
    head.put_slice(&leg.credential.borrow());
    if method == "GET" {
        head.put_slice(b"accept: text/event-stream\r\n");
    }
    if let Some(id) = last_event_id {
        head.put_slice(b"last-event-id: ");
        head.put_slice(id);
        head.put_slice(b"\r\n");
    }
    head.put_slice(b"\r\n");
    head.freeze()
}

/// The rest of the request line, and the headers that every message to a target has.
pub fn put_target_and_headers(head: &mut BytesMut, target: &HttpTarget, session: Option<&[u8]>, version: Option<&str>) {
    head.put_slice(target.path.as_bytes());
    put_headers(head, target, session, version);
}

/// The rest of the request line after its target, and the headers that every message to a target has.
pub fn put_headers(head: &mut BytesMut, target: &HttpTarget, session: Option<&[u8]>, version: Option<&str>) {
    use crate::request::HeaderEdits;
    let mut edits = HeaderEdits::default();
    edits.extend(&target.request);
    head.put_slice(b" HTTP/1.1\r\n");
    if edits.keeps("host") {
        head.put_slice(b"host: ");
        head.put_slice(target.endpoint.authority.as_bytes());
        head.put_slice(b"\r\n");
    }
    head.put_slice(concat!("user-agent: agentlane/", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes());
    for (name, value) in edits.written() {
        head.put_slice(name);
        head.put_slice(b": ");
        head.put_slice(value);
        head.put_slice(b"\r\n");
    }
    if let Some(session) = session {
        head.put_slice(b"mcp-session-id: ");
        head.put_slice(session);
        head.put_slice(b"\r\n");
    }
    // Servers of older revisions ignore the header; it says what was negotiated, never what our client asked for.
    if let Some(version) = version {
        head.put_slice(b"mcp-protocol-version: ");
        head.put_slice(version.as_bytes());
        head.put_slice(b"\r\n");
    }
}
