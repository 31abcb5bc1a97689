//! The leg of a session to a target of 2026-07-28: a client of the older revisions in front, none behind. Requests get
//! their envelope and mirrored headers, answers lose what only that revision has, and what the target asks for in a result
//! becomes requests to the client ([`input`]).

pub mod child;
pub mod input;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use agentlane_link::client::Cut;
use agentlane_runtime as runtime;
use agentlane_wire::json::{self, Envelope, MessageKind};
use bytes::{Bytes, BytesMut};
use simd_json::prelude::*;

use super::cache::reads::Asking;
use super::era::ModernTarget;
use super::leg::Opened;
use super::relay::{self, Call, Served};
use super::routing::Route;
use super::upstream::{self, Answer};
use super::{Incoming, SCAN_LIMITS, call, leg, mcp_fault, tasks};
use crate::backend::mcp::{HttpTarget, TargetKind};
use crate::fault::{Fault, Kind};
use crate::limits::LIST_PAGES_MAX;
use crate::protocol::mcp::content::{Annotations, Edits};
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::{ListKind, Method};
use crate::protocol::mcp::modern::envelope::{self, Client, Retry, Wrapping};
use crate::protocol::mcp::modern::headers::{self, Annotated};
use crate::protocol::mcp::modern::results::{self, Reader};
use crate::protocol::mcp::modern::{HEADER_MISMATCH, UNSUPPORTED_VERSION};
use crate::session::board::CallMark;
use crate::session::{InFlight, Leg, LegId, ModernLeg, OpenLeg, Session, Transport};
use crate::shard::Shard;
use crate::shard::responder::Responder;

/// One request of the client, kept for as long as the target may want it again.
pub struct Asked {
    /// In the target's names, without an envelope.
    message: Bytes,
    envelope: Envelope,
    /// The client's headers that go along.
    extra: Bytes,
    /// The tool's own name, where one is called.
    tool: Option<String>,
    /// Asking twice does no more than once, whatever is asked.
    repeatable: bool,
    /// What it was last sent again with.
    retry: RefCell<Option<Retry>>,
    /// Of a resource that others may wait for.
    asking: Option<Asking>,
}

/// What became of a call.
pub enum Outcome {
    Served(Served),
    /// The target is not what it was taken for, and did not do it.
    OtherEra,
    /// A child was ended for idling as the call came, and has not seen it.
    Rested,
}

/// The leg to a target that speaks 2026-07-28, which needs no handshake: the session's client gets what `server/discover`
/// said as the answer to its `initialize`.
pub fn open(session: &Session, leg: &Leg, target: &ModernTarget) -> Opened {
    let result = target.discovered.as_initialize_result(session.revision, &leg.target.name);
    let raw = Bytes::from(result.encode());
    let transport = Transport::Http { session: None, post_head: target.post_head.clone() };
    let open = open_leg(session, target.offers, transport, target.tools.clone());
    Opened { leg: Rc::new(open), result: Some(result), raw }
}

/// An open leg of this era.
pub fn open_leg(
    session: &Session,
    offers: crate::session::Offers,
    transport: Transport,
    tools: Rc<RefCell<crate::protocol::mcp::modern::tools::Tools>>,
) -> OpenLeg {
    let client = Client::of_initialize(&session.initialize_params, session.revision);
    let modern = Some(Box::new(ModernLeg { client, tools }));
    OpenLeg { revision: session.revision, offers, transport, since: runtime::now(), modern }
}

/// Sends a request that has its envelope over HTTP. `annotated`: the arguments that go into headers. `socket`: see
/// [`Shard::upstream_exchange_on`]. A refusal that is a JSON-RPC error is an answer like any other.
#[allow(clippy::too_many_arguments, reason = "one request, all of it needed on the wire")]
pub async fn post(
    shard: &Rc<Shard>,
    target: &HttpTarget,
    post_head: &[u8],
    message: Bytes,
    annotated: &[Annotated],
    extra: &[u8],
    repeatable: bool,
    deadline: Option<Instant>,
    socket: Option<&Cell<Option<Cut>>>,
) -> Result<Answer, Fault> {
    let envelope =
        json::scan(&message, &SCAN_LIMITS).map_err(|fault| mcp_fault::internal("own request").with(fault))?;
    let mut head = BytesMut::with_capacity(post_head.len() + extra.len() + 256);
    head.extend_from_slice(post_head);
    headers::put_mirrored(&mut head, &message, &envelope, annotated);
    put_unmirrored(&mut head, extra);
    head.extend_from_slice(b"content-length: ");
    upstream::put_decimal(&mut head, message.len());
    head.extend_from_slice(b"\r\n\r\n");
    let (method, body) = (agentlane_wire::h1::Method::Post, [message].into_iter().collect());
    let http =
        shard.upstream_exchange_on(&target.endpoint, method, head.freeze(), body, repeatable, deadline, socket).await?;
    let answer = Answer::of(http, deadline).await;
    if !matches!(answer, Ok(Answer::Json(_) | Answer::Events { .. })) {
        // Its connection is somebody else's from here on.
        socket.map(Cell::take);
    }
    match answer? {
        Answer::Refused { status, body } if is_rpc_error(status, &body) => Ok(Answer::Whole(body)),
        answer => Ok(answer),
    }
}

/// The client's headers but those that say what another revision's body says.
fn put_unmirrored(head: &mut BytesMut, extra: &[u8]) {
    for line in extra.split_inclusive(|&byte| byte == b'\n') {
        if !line.get(..4).is_some_and(|front| front.eq_ignore_ascii_case(b"mcp-")) {
            head.extend_from_slice(line);
        }
    }
}

/// Errors have statuses in this revision. Those of whoever stands in front of the server are not its own.
fn is_rpc_error(status: u16, body: &[u8]) -> bool {
    !matches!(status, 401 | 403 | 407 | 429)
        && json::scan(body, &SCAN_LIMITS).is_ok_and(|envelope| envelope.kind == MessageKind::ErrorResponse)
}

/// Whether a target of this era hears a message that is no request: nothing over HTTP, cancellations over stdio.
pub fn is_told(open: &OpenLeg, message: &[u8]) -> bool {
    matches!(open.transport, Transport::Stdio(_))
        && json::scan(message, &SCAN_LIMITS)
            .is_ok_and(|envelope| envelope.method_is(message, "notifications/cancelled"))
}

/// Sends a request of the gateway's own.
pub async fn send(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    open: &Rc<OpenLeg>,
    modern: &ModernLeg,
    id: LegId,
    request: Bytes,
    deadline: Option<Instant>,
) -> Result<Answer, Fault> {
    let failed = |fault: json::JsonError| mcp_fault::internal("own request").with(fault);
    let envelope = json::scan(&request, &SCAN_LIMITS).map_err(failed)?;
    let number = shard.call_id();
    let digits = Bytes::from(number.to_string());
    let with = Wrapping { id: Some(&digits), ..Wrapping::default() };
    let message = envelope::wrap(&request, &envelope, &modern.client, with).map_err(failed)?;
    match &open.transport {
        Transport::Http { post_head, .. } => {
            let leg = leg::leg_at(session, id)?;
            let (target, credential) = (http_target(&leg)?, leg.credential.borrow().clone());
            post(shard, target, post_head, message, &[], &credential, true, deadline, None).await
        }
        Transport::Stdio(port) => upstream::ask_child(port, number, message, deadline, None),
    }
}

fn http_target(leg: &Leg) -> Result<&HttpTarget, Fault> {
    match &leg.target.kind {
        TargetKind::Http(target) => Ok(target),
        TargetKind::Sse(_) | TargetKind::Stdio(_) => Err(mcp_fault::internal("leg of another kind")),
    }
}

/// Serves a request of the client whose target is of this era.
#[allow(clippy::too_many_arguments, reason = "the parts of one request")]
pub async fn call(
    incoming: &Incoming<'_>,
    session: &Rc<Session>,
    id: LegId,
    open: &Rc<OpenLeg>,
    method: Method,
    client_id: &Bytes,
    body: &Bytes,
    envelope: &Envelope,
    route: &Route,
    asking: Option<Asking>,
    responder: &mut Responder<'_>,
) -> Result<Outcome, Fault> {
    if !exists(method) {
        return Err(Fault::new(Kind::MethodNotFound, "method not found"));
    }
    let asked = Asked { asking, ..asked(incoming, method, body, envelope, route)? };
    let shard = incoming.shard;
    let (cancelled, socket) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(None)));
    call::register(
        session,
        InFlight {
            id: client_id.clone(),
            leg: id,
            upstream_id: Some(0),
            cancelled: cancelled.clone(),
            socket: socket.clone(),
        },
    )?;
    let asked = Rc::new(asked);
    let mut call = Call {
        shard: shard.clone(),
        session: session.clone(),
        leg: id,
        open: open.clone(),
        method,
        id: client_id.clone(),
        upstream_id: None,
        progress_token: envelope.meta_progress_token.and_then(|range| range.of(body)).map(Bytes::copy_from_slice),
        outward_uri: route.outward_uri.clone(),
        tasks: tasks::Said::Nothing,
        cancelled,
        deadline: upstream::call_deadline(incoming.backend.config.call_timeout),
        socket,
        asked: Some(asked.clone()),
    };
    let mut answer = match start(&mut call, &asked).await {
        // The wait for it was ended by that.
        _ if call.cancelled.get() => return gave_up(responder, client_id).await,
        Err(_) if rests(open) => return Ok(Outcome::Rested),
        answer => answer?,
    };
    if let Answer::Whole(body) = &answer
        && asked.tool.is_some()
        && error_code(body) == Some(HEADER_MISMATCH)
        && matches!(open.transport, Transport::Http { .. })
    {
        // Refused before it was done: the tool's schema has changed, or was never seen. The connection is another's by now.
        call.socket.set(None);
        learn_tools(shard, session, id, open, incoming.backend.config.deadline).await?;
        answer = match start(&mut call, &asked).await {
            _ if call.cancelled.get() => return gave_up(responder, client_id).await,
            answer => answer?,
        };
    }
    match &answer {
        Answer::Whole(body) if error_code(body) == Some(UNSUPPORTED_VERSION) => return Ok(Outcome::OtherEra),
        Answer::Refused { status: 400 | 404 | 405 | 406 | 415 | 422, .. } => return Ok(Outcome::OtherEra),
        Answer::Refused { status, body } => return Err(upstream::refusal(*status, body)),
        _ => {}
    }
    answer.register_socket(&call.socket);
    relay::relay(call, answer, responder).await.map(Outcome::Served)
}

fn rests(open: &OpenLeg) -> bool {
    matches!(&open.transport, Transport::Stdio(port) if port.rested.load(Ordering::Acquire))
}

/// The client cancelled its request before the target said anything.
async fn gave_up(responder: &mut Responder<'_>, id: &Bytes) -> Result<Outcome, Fault> {
    let _ = responder.answer(relay::cancelled(id)).await;
    Ok(Outcome::Served(Served::Done))
}

/// Lists the target's tools only to know how they are called.
async fn learn_tools(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    id: LegId,
    open: &Rc<OpenLeg>,
    patience: Duration,
) -> Result<(), Fault> {
    let Some(modern) = &open.modern else { return Ok(()) };
    let deadline = runtime::now() + patience;
    let mut cursor = None::<Bytes>;
    for _ in 0..LIST_PAGES_MAX {
        let params = cursor.as_ref().map(|cursor| [b"{\"cursor\":", &cursor[..], b"}"].concat());
        let request = error::request(shard.call_id(), "tools/list", params.as_deref());
        let message = upstream::ask(shard, session, open, id, request, true, deadline).await?;
        let Some(result) = json::scan(&message, &SCAN_LIMITS).ok().and_then(|envelope| envelope.result) else {
            return Ok(());
        };
        modern.tools.borrow_mut().learn(&message, result);
        let next = json::get(&message, result, "nextCursor").ok().flatten().map(|range| message.slice(range.usize()));
        match next {
            Some(next) if next.starts_with(b"\"") && cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// What a server of this era can be asked.
const fn exists(method: Method) -> bool {
    !matches!(
        method,
        Method::Tasks
            | Method::ResourcesSubscribe
            | Method::ResourcesUnsubscribe
            | Method::SetLevel
            | Method::Initialize
    )
}

fn asked(
    incoming: &Incoming<'_>,
    method: Method,
    body: &Bytes,
    envelope: &Envelope,
    route: &Route,
) -> Result<Asked, Fault> {
    let failed = |fault: json::JsonError| mcp_fault::internal("request could not be rewritten").with(fault);
    let (message, envelope) = match route.splice.is_empty() {
        true => (body.clone(), *envelope),
        false => {
            let message = route.splice.contiguous(body).map_err(failed)?;
            let envelope = json::scan(&message, &SCAN_LIMITS).map_err(failed)?;
            (message, envelope)
        }
    };
    let tool = envelope.name.filter(|_| method == Method::ToolsCall);
    let tool = tool.and_then(|range| json::string(&message, range).ok()).map(|name| name.into_owned());
    let repeatable = !matches!(method, Method::ToolsCall | Method::Other);
    let (extra, retry) = (Bytes::copy_from_slice(incoming.passed_on), RefCell::default());
    Ok(Asked { message, envelope, extra, tool, repeatable, retry, asking: None })
}

/// Sends the request under a new id of the gateway's, and says so to whoever may cancel it.
async fn start(call: &mut Call, asked: &Asked) -> Result<Answer, Fault> {
    let failed = |fault: json::JsonError| mcp_fault::internal("request could not be rewritten").with(fault);
    let Some(modern) = &call.open.modern else { return Err(mcp_fault::internal("leg of another era")) };
    let number = call.shard.call_id();
    let digits = Bytes::from(number.to_string());
    let log_level = log_level(&call.session).filter(|_| call.open.offers.logging);
    let retry = asked.retry.borrow().clone();
    let with = Wrapping {
        id: Some(&digits),
        progress_token: Some(&digits),
        log_level: log_level.as_deref(),
        retry: retry.as_ref(),
    };
    let message = envelope::wrap(&asked.message, &asked.envelope, &modern.client, with).map_err(failed)?;
    call.upstream_id = Some(number);
    if let Some(known) = call.session.in_flight.borrow_mut().iter_mut().find(|known| known.id == call.id) {
        known.upstream_id = Some(number);
    }
    match &call.open.transport {
        Transport::Http { post_head, .. } => {
            let leg = leg::leg_at(&call.session, call.leg)?;
            let annotated =
                asked.tool.as_deref().and_then(|name| Some(modern.tools.borrow().get(name)?.annotated.clone()));
            // Made before the wait: nothing stays borrowed over it.
            let extra = [&asked.extra[..], &leg.credential.borrow()].concat();
            post(
                &call.shard,
                http_target(&leg)?,
                post_head,
                message,
                annotated.as_deref().unwrap_or_default(),
                &extra,
                asked.repeatable,
                call.deadline,
                Some(&call.socket),
            )
            .await
        }
        Transport::Stdio(port) => {
            let mark =
                CallMark { session: Some(call.session.serial), id: call.id.clone(), method: call.method.label() };
            upstream::ask_child(port, number, message, call.deadline, Some(mark))
        }
    }
}

/// The level of the client's last `logging/setLevel`, as JSON text.
fn log_level(session: &Session) -> Option<Bytes> {
    let params = session.log_level.borrow().clone()?;
    let level = json::get(&params, json::root(&params).ok()?, "level").ok()??;
    Some(params.slice(level.usize()))
}

fn error_code(message: &[u8]) -> Option<i64> {
    let envelope = json::scan(message, &SCAN_LIMITS).ok()?;
    results::code_of(message, envelope.error?)
}

/// A target's response in the revision of the session's client.
pub fn translate(session: &Session, open: &OpenLeg, method: Method, tool: Option<&str>, data: Bytes) -> Bytes {
    let Ok(envelope) = json::scan(&data, &SCAN_LIMITS) else { return data };
    let Some(modern) = &open.modern else {
        let Some(result) = envelope.result else { return data };
        let mut edits = Edits::default();
        edits.down(method, session.revision, &data, result, false);
        return edits.apply(data, result);
    };
    if let (Method::List(ListKind::Tools), Some(result)) = (method, envelope.result) {
        modern.tools.borrow_mut().learn(&data, result);
    }
    if session.is_internal() {
        // It is for a client of this era.
        return data;
    }
    let annotations = match &open.transport {
        Transport::Http { .. } => Annotations::Checked,
        Transport::Stdio(_) => Annotations::Stripped,
    };
    let wrapped = tool.is_some_and(|name| modern.tools.borrow().get(name).is_some_and(|tool| tool.wrapped));
    results::to_legacy(data, &envelope, Reader { method, revision: session.revision, annotations, wrapped })
}

/// Sends a request again whose answer was lost on the way, if it may be done twice. A target of this era keeps no stream
/// that could be taken up where it broke.
pub async fn again(call: &mut Call) -> Option<Result<Answer, Fault>> {
    let asked = call.asked.clone()?;
    let is_http = matches!(call.open.transport, Transport::Http { .. });
    let tools = &call.open.modern.as_ref()?.tools;
    let tool_repeats = || Some(tools.borrow().get(asked.tool.as_deref()?)?.repeatable);
    if !is_http || !(asked.repeatable || tool_repeats() == Some(true)) {
        return None;
    }
    call.socket.set(None);
    Some(start(call, &asked).await)
}

impl Asked {
    pub fn tool(&self) -> Option<&str> {
        self.tool.as_deref()
    }
}

/// The era of the leg's target was wrong: whoever opens it next asks again.
pub fn correct(shard: &Rc<Shard>, session: &Session, id: LegId, open: &Rc<OpenLeg>) {
    if let (Some(backend), Ok(leg)) = (shard.mcp_backend(&session.backend), leg::leg_at(session, id)) {
        backend.eras.of(&leg.target).forget();
    }
    leg::forget(session, id, open);
}

/// The seam for whoever listens to changes: a `subscriptions/listen` for `filter` (JSON text of a `SubscriptionFilter`) on
/// behalf of `client`, with its envelope. It goes out through [`post`], or to a child through [`upstream::ask_child`], and
/// what comes on its answer carries `number`, as the request's id, in `subscriptionId`.
pub fn listen_request(number: u64, filter: &[u8], client: &Client) -> Result<Bytes, Fault> {
    let failed = |fault: json::JsonError| mcp_fault::internal("own request").with(fault);
    let request = error::request(number, "subscriptions/listen", Some(&results::listen_params(filter)));
    let envelope = json::scan(&request, &SCAN_LIMITS).map_err(failed)?;
    let digits = Bytes::from(number.to_string());
    let with = Wrapping { id: Some(&digits), ..Wrapping::default() };
    envelope::wrap(&request, &envelope, client, with).map_err(failed)
}
