//! The MCP endpoint (streamable HTTP, 2025-03-26 to 2025-11-25): what is checked before a body is read, whose session a
//! request belongs to, and what becomes of each kind of message.

mod access;
pub mod cache;
pub mod call;
pub mod callers;
pub mod child;
pub mod close;
pub mod conversation;
pub mod era;
pub mod hub;
pub mod inbound;
pub mod leg;
pub mod listen;
pub mod lists;
pub mod lock;
pub mod loss;
mod mcp_fault;
pub mod modern;
pub mod modern_leg;
pub mod old_front;
pub mod open;
pub mod relay;
mod retell;
pub mod routing;
mod sessionless;
pub mod sse;
pub mod stdio_front;
pub mod subscribe;
pub mod survey;
pub mod tasks;
pub mod upstream;

pub use mcp_fault::session_unknown;

use std::rc::Rc;

use conversation::Conversation;

use agentlane_runtime as runtime;
use agentlane_wire::h1::{Headers, Known, Method as HttpMethod, RequestHead};
use agentlane_wire::json::{self, Envelope, JsonErrorKind, MessageKind, ScanLimits};
use bytes::Bytes;

use crate::backend::mcp::McpBackend;
use crate::fault::{Fault, Kind, Origin};
use crate::limits::{BATCH_MAX, FAREWELL_DEADLINE};
use crate::policy::cors::Cors;
use crate::policy::rules::access::Access;
use crate::principal::Principal;
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::Method;
use crate::protocol::mcp::modern::{VERSION, request};
use crate::protocol::mcp::revision::Revision;
use crate::protocol::mcp::sse2024;
use crate::request::{RequestView, host_of};
use crate::session::Session;
use crate::shard::audit::Scene;
use crate::shard::record::Record;
use crate::shard::responder::Responder;
use crate::shard::{BackendState, Shard};

/// Small messages are validated throughout; large ones where they are read. A target parses them anyway.
pub const SCAN_LIMITS: ScanLimits = ScanLimits { max_depth: 128, validate_below: 4096 };

/// What the SDKs' clients send, letter by letter.
const USUAL_ACCEPT: &[u8] = b"application/json, text/event-stream";

/// Why a GET or DELETE of 2026-07-28 is refused.
pub const SESSIONLESS: &str = "this revision has no sessions";

/// Where a request's session lives.
pub enum Owner {
    /// It names none.
    Nobody,
    Here(Rc<Session>),
    /// On that shard.
    There(usize),
    /// It begins a conversation of the transport of 2024-11-05, or belongs to one.
    NewConversation,
    Conversation(Rc<Conversation>),
}

/// What can be refused before the body is read.
///
/// `host_known`: the listener is for configured hosts alone, so that a foreign one never came here.
pub fn guard(view: &RequestView<'_>, backend: &McpBackend, cors: Option<&Cors>, host_known: bool) -> Result<(), Fault> {
    let headers = &view.head.headers;
    if backend.rebinding_protection {
        guard_origin(view, cors, host_known)?;
    }
    if let Some(version) = headers.known(Known::McpProtocolVersion)
        && Revision::parse(version).is_none()
    {
        guard_version(view.head.method, version)?;
    }
    let usual = headers.known(Known::Accept) == Some(USUAL_ACCEPT);
    let accepts = |media_type| {
        let mut ranges = headers.known_all(Known::Accept).flat_map(agentlane_wire::h1::list);
        ranges.any(|range| accepts(range, media_type))
    };
    match view.head.method {
        HttpMethod::Post => {
            let content_type = headers.known(Known::ContentType).unwrap_or_default();
            if !upstream::media_type_is(content_type, "application/json") {
                return Err(Fault::new(Kind::UnsupportedMediaType, "content-type must be application/json"));
            }
            let is_both = || accepts("application/json") && accepts("text/event-stream");
            // A client of 2024-11-05 gets no answer here, and need not say what it takes.
            let is_old = || sse2024::is_served_at(view.path) && sse2024::session_of(view.query).is_some();
            if !usual && !is_both() && !is_old() {
                let message = "client must accept both application/json and text/event-stream";
                return Err(Fault::new(Kind::NotAcceptable, message));
            }
            Ok(())
        }
        HttpMethod::Get if accepts("text/event-stream") => Ok(()),
        HttpMethod::Get => Err(Fault::new(Kind::NotAcceptable, "client must accept text/event-stream")),
        HttpMethod::Delete => Ok(()),
        _ => Err(Fault::new(Kind::MethodNotAllowed, "method not allowed")),
    }
}

/// A version that no session has. What a POST with one means is for its body to say; there is nothing else to do with an
/// endpoint of a revision without sessions.
fn guard_version(method: HttpMethod, version: &[u8]) -> Result<(), Fault> {
    match method {
        HttpMethod::Post => Ok(()),
        _ if version == VERSION.as_bytes() => Err(Fault::new(Kind::MethodNotAllowed, SESSIONLESS)),
        _ => Err(Fault::new(Kind::UnsupportedVersion, "unsupported mcp-protocol-version")),
    }
}

/// Whether a request is of the revision without sessions, or of none that is known.
pub fn is_modern(head: &RequestHead) -> bool {
    head.method == HttpMethod::Post && request::is_announced(&head.headers)
}

/// DNS rebinding (transports page, "Security Warning"): a browser sends the origin of the page, and the host that the page
/// was tricked into. An origin passes when it is the endpoint's own, configured (CORS), or local where the endpoint is.
fn guard_origin(view: &RequestView<'_>, cors: Option<&Cors>, host_known: bool) -> Result<(), Fault> {
    let local = view.local.ip().to_canonical().is_loopback();
    if local && !host_known && !is_loopback_host(view.host) {
        return Err(Fault::new(Kind::OriginForbidden, "host is not allowed"));
    }
    let Some(origin) = view.head.headers.known_str(Known::Origin) else { return Ok(()) };
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    let own = authority.eq_ignore_ascii_case(view.authority);
    if own || cors.is_some_and(|cors| cors.allows(origin)) || (local && is_loopback_host(host_of(authority))) {
        return Ok(());
    }
    Err(Fault::new(Kind::OriginForbidden, "origin is not allowed"))
}

fn is_loopback_host(host: &str) -> bool {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether `Accept` names events before JSON.
pub fn prefers_events(headers: &Headers) -> bool {
    if headers.known(Known::Accept) == Some(USUAL_ACCEPT) {
        return false;
    }
    let mut ranges = headers.known_all(Known::Accept).flat_map(agentlane_wire::h1::list);
    ranges
        .find(|range| range.first() != Some(&b'*'))
        .is_some_and(|first| upstream::media_type_is(first, "text/event-stream"))
}

/// Whether a media range of `Accept` covers a type (RFC 9110, 12.5.1), unless its weight is zero.
fn accepts(range: &[u8], media_type: &str) -> bool {
    let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let essence = parts.next().unwrap_or_default();
    let refused = parts.any(|parameter| matches!(parameter, b"q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000"));
    let kind = media_type.split('/').next().unwrap_or_default();
    let covers = essence.eq_ignore_ascii_case(media_type.as_bytes())
        || essence == b"*/*"
        || essence.strip_suffix(b"/*").is_some_and(|prefix| prefix.eq_ignore_ascii_case(kind.as_bytes()));
    covers && !refused
}

/// Finds a request's session. A fault when the id was not made here, its session has ended, or is somebody else's: an id is
/// no credential (security page, "Session Hijacking").
pub fn owner(shard: &Shard, backend: &BackendState, id: Option<&[u8]>, principal: &Principal) -> Result<Owner, Fault> {
    let Some(id) = id else { return Ok(Owner::Nobody) };
    if let Some(session) = shard.sessions.borrow().get(id) {
        if *session.backend != *backend.config.key || session.principal.identity() != principal.identity() {
            return Err(mcp_fault::session_unknown());
        }
        return Ok(Owner::Here(session));
    }
    owner_elsewhere(shard, id)
}

/// The other shard that an id was made on.
fn owner_elsewhere(shard: &Shard, id: &[u8]) -> Result<Owner, Fault> {
    let sealed = shard.sealer.open_session_id(id).ok_or_else(mcp_fault::session_unknown)?;
    let owner = usize::from(sealed.shard);
    if owner == shard.index || owner >= shard.peers.len() {
        return Err(mcp_fault::session_unknown());
    }
    Ok(Owner::There(owner))
}

/// One request of the client, its body read.
pub struct Incoming<'a> {
    pub shard: &'a Rc<Shard>,
    pub backend: &'a Rc<BackendState>,
    pub session: Option<Rc<Session>>,
    /// Who it is from.
    pub principal: &'a Principal,
    /// What it may use.
    pub access: &'a Access,
    /// All of the request's.
    pub headers: &'a Headers,
    /// The client's headers that targets get as well.
    pub passed_on: &'a [u8],
    /// The client names events before JSON in `Accept`: where both would do, it gets events.
    pub prefers_events: bool,
}

/// Serves a POST.
pub async fn post(incoming: &Incoming<'_>, body: Bytes, responder: &mut Responder<'_>, record: &mut Record) {
    if let Some(session) = &incoming.session {
        session.last_used.set(runtime::now());
        session.carry(incoming.principal.credential.as_ref());
        record.session = Some(session.serial);
    }
    if json::is_batch(&body) {
        return Box::pin(batch(incoming, body, responder, record)).await;
    }
    let envelope = match json::scan(&body, &SCAN_LIMITS) {
        Ok(envelope) => envelope,
        Err(fault) => return refuse(responder, record, None, &scan_fault(&fault)).await,
    };
    if incoming.session.is_none()
        && (envelope.meta_protocol_version.is_some() || request::is_announced(incoming.headers))
    {
        return Box::pin(modern::serve(incoming, body, &envelope, responder, record)).await;
    }
    message(incoming, body, &envelope, responder, record).await;
}

fn scan_fault(fault: &json::JsonError) -> Fault {
    let kind = match fault.kind {
        _ if fault.rpc_code() == -32700 => Kind::ParseError,
        JsonErrorKind::Batch => Kind::BatchForbidden,
        _ => Kind::InvalidRequest,
    };
    Fault::new(kind, fault.message()).with(format!("at byte {}", fault.offset))
}

/// One message, of whatever kind.
async fn message(
    incoming: &Incoming<'_>,
    body: Bytes,
    envelope: &Envelope,
    responder: &mut Responder<'_>,
    record: &mut Record,
) {
    let id = envelope.answer_id().and_then(|range| range.of(&body)).map(Bytes::copy_from_slice);
    let method = method_of(&body, envelope);
    record.mcp_method = method.map(Method::label);
    let session = match (&incoming.session, method) {
        (Some(_), Some(Method::Initialize)) => {
            let fault = Fault::new(Kind::AlreadyInitialized, "the session is initialized");
            return refuse(responder, record, id.as_deref(), &fault).await;
        }
        (Some(session), _) => session.clone(),
        (None, Some(Method::Initialize)) if envelope.kind == MessageKind::Request => {
            return Box::pin(initialize(incoming, &body, envelope, id, responder, record)).await;
        }
        (None, _) => {
            let fault = match envelope.kind {
                MessageKind::Invalid(reason) => Fault::new(Kind::InvalidRequest, reason.message()),
                _ => Fault::new(Kind::SessionMissing, "mcp-session-id is missing"),
            };
            return refuse(responder, record, id.as_deref(), &fault).await;
        }
    };
    match envelope.kind {
        MessageKind::Request => {
            let (Some(id), Some(method)) = (id, method) else { return };
            call::request(incoming, &session, method, id, body, envelope, responder, record).await;
        }
        MessageKind::Notification => {
            Box::pin(notification(incoming, &session, method, body, envelope)).await;
            let _ = responder.accepted().await;
        }
        MessageKind::Response | MessageKind::ErrorResponse => {
            if let Some((leg, answer)) = inbound::client_answer(&session, &body, envelope) {
                let answer = tasks::to_target(incoming.shard, &session, answer);
                Box::pin(deliver(incoming.shard, &session, leg, answer)).await;
            }
            let _ = responder.accepted().await;
        }
        MessageKind::Invalid(reason) => {
            let fault = Fault::new(Kind::InvalidRequest, reason.message());
            refuse(responder, record, id.as_deref(), &fault).await;
        }
    }
}

async fn initialize(
    incoming: &Incoming<'_>,
    body: &Bytes,
    envelope: &Envelope,
    id: Option<Bytes>,
    responder: &mut Responder<'_>,
    record: &mut Record,
) {
    let caller = incoming.principal.caller(incoming.headers);
    let principal = incoming.principal.clone();
    match open::initialize(incoming.shard, incoming.backend, principal, caller, body, envelope).await {
        Ok((session, response)) => {
            record.session = Some(session.serial);
            responder.set_session(&session.id);
            let _ = responder.json(200, response).await;
        }
        Err(fault) => {
            record.fault(&fault);
            let status = match fault.kind.origin() {
                Origin::Downstream => 200,
                _ => fault.kind.http_status(),
            };
            let _ = responder.json(status, error::fault_response(id.as_deref(), &fault)).await;
        }
    }
}

/// A notification of the client: to the target that it concerns, or to all.
async fn notification(
    incoming: &Incoming<'_>,
    session: &Rc<Session>,
    method: Option<Method>,
    body: Bytes,
    envelope: &Envelope,
) {
    match method {
        Some(Method::Cancelled) => call::cancel(incoming.shard, session, &body, envelope).await,
        Some(Method::Progress) => {
            if let Some((leg, message)) = inbound::client_progress(session, &body, envelope) {
                let message = tasks::to_target(incoming.shard, session, message);
                deliver(incoming.shard, session, leg, message).await;
            }
        }
        Some(Method::Initialized) => {
            if !session.initialized.replace(true) {
                tell_all(incoming.shard, session, &body).await;
                // Before the client listens: what targets say until then waits for it.
                listen::follow_all(incoming.shard, session);
            }
        }
        _ => tell_all(incoming.shard, session, &body).await,
    }
}

/// Every open target but shared children hears it: those have one conversation for all.
async fn tell_all(shard: &Rc<Shard>, session: &Rc<Session>, body: &Bytes) {
    let legs = session.leg_ids().into_iter().filter(|&leg| !inbound::is_shared(session, leg));
    runtime::join_all(legs.map(|leg| deliver(shard, session, leg, body.clone()))).await;
}

/// A message without an answer, to one target. It is the client's doing no more when that fails.
pub async fn deliver(shard: &Rc<Shard>, session: &Rc<Session>, leg: crate::session::LegId, message: Bytes) {
    let Some(open) = session.leg(leg).and_then(|leg| leg.open()) else { return };
    let deadline = runtime::now() + FAREWELL_DEADLINE;
    if let Err(fault) = upstream::tell(shard, session, &open, leg, message, deadline).await {
        tracing::debug!(target: "agentlane::mcp", %fault, "a message did not reach its target");
    }
}

/// An array of messages: requests run side by side, and their answers come back as one array (2025-03-26).
async fn batch(incoming: &Incoming<'_>, body: Bytes, responder: &mut Responder<'_>, record: &mut Record) {
    let fault = |message| Fault::new(Kind::BatchForbidden, message);
    let session = match &incoming.session {
        None => return refuse(responder, record, None, &fault("batches need a session of revision 2025-03-26")).await,
        Some(session) if !session.revision.has_batches() => {
            return refuse(responder, record, None, &fault("this revision has no batches")).await;
        }
        Some(session) => session,
    };
    record.mcp_method = Some("batch");
    let mut elements = Vec::new();
    let ranges = match json::batch_elements(&body) {
        Ok(ranges) => ranges,
        Err(error) => return refuse(responder, record, None, &scan_fault(&error)).await,
    };
    for range in ranges {
        match range {
            Ok(_) if elements.len() == BATCH_MAX => {
                return refuse(responder, record, None, &fault("batch is too long")).await;
            }
            Ok(range) => elements.push(body.slice(range.usize())),
            Err(error) => return refuse(responder, record, None, &scan_fault(&error)).await,
        }
    }
    if elements.is_empty() {
        return refuse(responder, record, None, &fault("batch is empty")).await;
    }
    let answers =
        runtime::join_all(elements.into_iter().map(|element| batch_element(incoming, session, element))).await;
    let answers: Vec<Bytes> = answers.into_iter().flatten().collect();
    let _ = match answers.is_empty() {
        true => responder.accepted().await,
        false => responder.json(200, inbound::batch(&answers)).await,
    };
}

async fn batch_element(incoming: &Incoming<'_>, session: &Rc<Session>, element: Bytes) -> Option<Bytes> {
    let envelope = match json::scan(&element, &SCAN_LIMITS) {
        Ok(envelope) => envelope,
        Err(fault) => return Some(error::fault_response(None, &scan_fault(&fault))),
    };
    let mut record = Record::new();
    record.principal = incoming.principal.clone();
    let mut responder = Responder::collect(session.clone());
    message(incoming, element, &envelope, &mut responder, &mut record).await;
    record.answered(&responder);
    incoming.shard.audit(&record, || Scene::message(incoming));
    responder.into_collected()
}

/// Writes a fault as a JSON-RPC error with its HTTP status.
pub async fn refuse(responder: &mut Responder<'_>, record: &mut Record, id: Option<&[u8]>, fault: &Fault) {
    record.fault(fault);
    let _ = responder.json(fault.kind.http_status(), error::fault_response(id, fault)).await;
}

/// A fault of one request in a session. Where a tool was called the model is told: a protocol error would not reach it.
pub fn failure_response(method: Method, id: &[u8], fault: &Fault, target: Option<&str>) -> Bytes {
    if method != Method::ToolsCall || fault.kind.origin() == Origin::Downstream {
        return error::fault_response(Some(id), fault);
    }
    let target = target.unwrap_or("unknown");
    let outcome = match fault.kind {
        Kind::UpstreamTimeout | Kind::UpstreamBroken => " Whether the call had an effect is unknown.",
        _ => "",
    };
    error::tool_failure(id, &format!("Server \"{target}\": {}.{outcome}", fault.message))
}

/// `error.data` for a resource that no target has: its URI.
fn unknown_resource(fault: &Fault, body: &[u8], envelope: &Envelope) -> Option<Bytes> {
    let uri = envelope.uri.filter(|_| fault.kind == Kind::ResourceUnknown)?.of(body)?;
    Some(Bytes::from([b"{\"uri\":", uri, b"}"].concat()))
}

pub fn method_of(body: &[u8], envelope: &Envelope) -> Option<Method> {
    let range = envelope.method?;
    let text = range.of(body)?;
    Some(Method::parse(text.get(1..text.len().checked_sub(1)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_ranges() {
        let cases: [(&[u8], bool); 6] = [
            (b"application/json", true),
            (b"application/*", true),
            (b"*/*;q=0.1", true),
            (b"*/*;q=0", false),
            (b"text/event-stream", false),
            (b"Application/JSON; charset=utf-8", true),
        ];
        for (range, expected) in cases {
            assert_eq!(accepts(range, "application/json"), expected, "{}", String::from_utf8_lossy(range));
        }
    }

    #[test]
    fn loopback_hosts() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]", "a.localhost"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", ""] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
