//! A client's request on its way: answered here, merged from all, or sent to the one target that it is for. And its
//! cancellation.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use agentlane_runtime as runtime;
use agentlane_wire::json::{self, Envelope, Splice};
use bytes::Bytes;

use super::cache::reads::Turn;
use super::relay::{self, Call, Served};
use super::routing::{self, Route};
use super::upstream::{self, Answer, PostBody};
use super::{
    Incoming, access, cache, era, failure_response, leg, listen, lists, lock, loss, mcp_fault, modern_leg, refuse,
    subscribe, tasks,
};
use crate::backend::lock::Gate;
use crate::fault::{Fault, Kind, Origin};
use crate::limits::{FAREWELL_DEADLINE, SESSION_IN_FLIGHT_MAX};
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::{ListKind, Method};
use crate::protocol::mcp::modern::reads;
use crate::session::board::CallMark;
use crate::session::{ChildCommand, InFlight, LegId, OpenLeg, Session, Transport};
use crate::shard::Shard;
use crate::shard::record::Record;
use crate::shard::responder::Responder;

/// A resource that does not exist, in the revisions with sessions (2025-06-18, "Resources", Error Handling).
const RESOURCE_NOT_FOUND: i32 = -32002;
/// How long a cancelled request may take to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

/// Serves one request.
#[allow(clippy::too_many_arguments, reason = "the parts of one request")]
pub async fn request(
    incoming: &Incoming<'_>,
    session: &Rc<Session>,
    method: Method,
    id: Bytes,
    body: Bytes,
    envelope: &Envelope,
    responder: &mut Responder<'_>,
    record: &mut Record,
) {
    let identity = incoming.backend.config.is_identity();
    let outcome = match method {
        Method::Ping => {
            let _ = responder.json(200, error::result_response(&id, b"{}")).await;
            return;
        }
        Method::List(kind) if !lists::pass(incoming.backend, session, incoming.access) => {
            Box::pin(list(incoming, session, kind, &body, envelope)).await
        }
        Method::Tasks if tasks::is_list(incoming.backend, &body, envelope) => {
            Box::pin(tasks::list(incoming, session, &body, envelope)).await
        }
        Method::ResourcesSubscribe if subscribe::is_full(session) => {
            Err(Fault::new(Kind::Overloaded, "too many subscriptions"))
        }
        Method::SetLevel => Box::pin(set_level(incoming, session, &body, envelope, identity)).await,
        Method::ResourcesUnsubscribe | Method::ResourcesSubscribe if subscribe::is_counted_here(incoming, session) => {
            match access::check(incoming, method, &Route::default(), &body, envelope) {
                Ok(()) => Box::pin(subscribe::shared(incoming, session, method, &body, envelope)).await,
                Err(fault) => Err(fault),
            }
        }
        _ => return forward(incoming, session, method, id, body, envelope, responder, record).await,
    };
    let response = match outcome {
        Ok(result) => error::result_response(&id, &result),
        Err(fault) if fault.kind == Kind::SessionUnknown => return refuse(responder, record, Some(&id), &fault).await,
        Err(fault) => {
            record.fault(&fault);
            error::fault_response(Some(&id), &fault)
        }
    };
    let _ = match incoming.prefers_events {
        true => responder.event_answer(session, response).await,
        false => responder.json(200, response).await,
    };
}

async fn list(
    incoming: &Incoming<'_>,
    session: &Rc<Session>,
    kind: ListKind,
    body: &Bytes,
    envelope: &Envelope,
) -> Result<Bytes, Fault> {
    let wrong = |_| Fault::new(Kind::InvalidParams, "params.cursor is not a string");
    let cursor = envelope.cursor.map(|range| json::string(body, range)).transpose().map_err(wrong)?;
    let viewing = access::viewing(incoming);
    let merged = lists::merged(incoming.shard, incoming.backend, session, kind, cursor.as_deref(), viewing).await?;
    Ok(merged.result)
}

/// Tells every target that logs; one that fails does not fail the rest.
async fn set_level(
    incoming: &Incoming<'_>,
    session: &Rc<Session>,
    body: &Bytes,
    envelope: &Envelope,
    identity: bool,
) -> Result<Bytes, Fault> {
    const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
    let known = envelope.level.is_some_and(|level| LEVELS.iter().any(|text| json::raw_eq(body, level, text)));
    let params =
        envelope.params.filter(|_| known).ok_or_else(|| Fault::new(Kind::InvalidParams, "unknown log level"))?;
    let params = Bytes::copy_from_slice(params.of(body).unwrap_or_default());
    session.log_level.replace(Some(params.clone()));
    let deadline = runtime::now() + incoming.backend.config.deadline;
    let ask = async |id: LegId| {
        let open = leg::ready(incoming.shard, session, id).await?;
        if open.modern.is_some() {
            // It is told with each request.
            return Ok(open.offers.logging);
        }
        if !open.offers.logging && !identity {
            return Ok(false);
        }
        let request = error::request(incoming.shard.call_id(), "logging/setLevel", Some(&params));
        let answer = upstream::ask(incoming.shard, session, &open, id, request, true, deadline).await?;
        leg::result_of(&answer).map(|_| true)
    };
    let outcomes: Vec<Result<bool, Fault>> = runtime::join_all(session.leg_ids().into_iter().map(ask)).await;
    if outcomes.iter().any(|outcome| matches!(outcome, Ok(true))) {
        return Ok(Bytes::from_static(b"{}"));
    }
    match outcomes.into_iter().find_map(Result::err) {
        Some(fault) => Err(fault),
        None => Err(Fault::new(Kind::MethodNotFound, "method not found")),
    }
}

/// Sends a request to its target and relays the answer.
#[allow(clippy::too_many_arguments, reason = "the parts of one request")]
async fn forward(
    incoming: &Incoming<'_>,
    session: &Rc<Session>,
    method: Method,
    id: Bytes,
    body: Bytes,
    envelope: &Envelope,
    responder: &mut Responder<'_>,
    record: &mut Record,
) {
    record.about(method, &body, envelope);
    let route = match incoming.backend.config.is_identity() {
        true => Ok(Route::default()),
        false => routing::route(incoming.shard, incoming.backend, session, method, &body, envelope).await,
    };
    let route = match route {
        Ok(route) => checked(incoming, session, method, &body, envelope, route).await,
        fault => fault,
    };
    // After the lock's judge, of whose verdict rules may read.
    let route = route.and_then(|route| {
        access::check(incoming, method, &route, &body, envelope)?;
        Ok(route)
    });
    let leg = route.as_ref().ok().and_then(|route| session.leg_to(route.index));
    let outcome = match (route, leg) {
        (Ok(route), Some(leg)) => {
            record.target = Some(leg.target.clone());
            exchange(incoming, session, leg.id, method, &id, &body, envelope, route, responder).await
        }
        (Ok(_), None) => Err(mcp_fault::internal("no such target")),
        (Err(fault), _) => Err(fault),
    };
    if !matches!(outcome, Ok(Served::Detached)) {
        session.finished(&id);
    }
    let (fault, told) = match outcome {
        Ok(Served::Done | Served::Detached) => return,
        Ok(Served::Failed(fault)) => (fault, true),
        Err(fault) => (fault, false),
    };
    record.fault(&fault);
    if fault.kind.origin() != Origin::Downstream {
        tracing::warn!(target: "agentlane::mcp", %fault, method = method.label(), "request failed");
    }
    if told {
        return;
    }
    let target = record.target.as_ref().map(|target| target.name.as_str());
    if matches!(fault.kind, Kind::Overloaded | Kind::SessionUnknown) {
        return refuse(responder, record, Some(&id), &fault).await;
    }
    let response = match super::unknown_resource(&fault, &body, envelope) {
        Some(data) => error::error_with_data(Some(&id), RESOURCE_NOT_FOUND, fault.message, Some(&data)),
        None => failure_response(method, &id, &fault, target),
    };
    let _ = responder.answer(response).await;
}

/// The route, if what is asked for there may be had.
async fn checked(
    incoming: &Incoming<'_>,
    session: &Rc<Session>,
    method: Method,
    body: &Bytes,
    envelope: &Envelope,
    route: Route,
) -> Result<Route, Fault> {
    match lock::gate(incoming, method, body, envelope, &route) {
        Gate::Open => Ok(route),
        Gate::Refused(fault) => Err(fault),
        Gate::Unjudged => {
            let checked = lock::check(incoming, session, method, body, envelope, &route);
            Box::pin(checked).await.map(|()| route)
        }
    }
}

/// Sends a request to the target of a leg, negotiating with it first where needed, and relays what comes back.
#[allow(clippy::too_many_arguments, reason = "the parts of one request")]
pub async fn exchange(
    incoming: &Incoming<'_>,
    session: &Rc<Session>,
    leg: LegId,
    method: Method,
    id: &Bytes,
    body: &Bytes,
    envelope: &Envelope,
    route: Route,
    responder: &mut Responder<'_>,
) -> Result<Served, Fault> {
    let shard = incoming.shard;
    let mut retried = false;
    loop {
        let open = leg::ready(shard, session, leg).await?;
        if method == Method::Complete && !open.offers.completions && !incoming.backend.config.is_identity() {
            // The union is advertised; a target without completions has none.
            let empty = error::result_response(id, b"{\"completion\":{\"values\":[]}}");
            let _ = responder.json(200, empty).await;
            return Ok(Served::Done);
        }
        if open.modern.is_some() {
            if matches!(method, Method::ResourcesSubscribe | Method::ResourcesUnsubscribe) {
                let subscribed = subscribe::modern(shard, session, leg, method, body, envelope, &route);
                Box::pin(subscribed).await?;
                let _ = responder.json(200, error::result_response(id, b"{}")).await;
                return Ok(Served::Done);
            }
            let turn = match method {
                Method::ResourcesRead => Box::pin(asking(incoming, session, body, envelope, &route)).await,
                _ => None,
            };
            let asking = match turn {
                Some(Turn::Kept(result, hints)) => {
                    let answer = modern_leg::translate(session, &open, method, None, reads::again(&result, id, hints));
                    let answer = match &route.outward_uri {
                        Some((own, outward)) => routing::with_outward_uris(answer, own, outward),
                        None => answer,
                    };
                    let _ = responder.answer(answer).await;
                    return Ok(Served::Done);
                }
                Some(Turn::Ask(asking)) => Some(asking),
                None => None,
            };
            let served =
                modern_leg::call(incoming, session, leg, &open, method, id, body, envelope, &route, asking, responder);
            let outcome = match Box::pin(served).await {
                Err(fault) if !retried && fault.kind == Kind::SessionUnknown && leg::rested(&open) => {
                    retried = true;
                    session.finished(id);
                    leg::forget(session, leg, &open);
                    continue;
                }
                outcome => outcome?,
            };
            match outcome {
                modern_leg::Outcome::Served(served) => return Ok(served),
                modern_leg::Outcome::OtherEra if retried => return Err(era::not_modern()),
                modern_leg::Outcome::Rested if retried => return Err(mcp_fault::child_rests()),
                modern_leg::Outcome::OtherEra => modern_leg::correct(shard, session, leg, &open),
                modern_leg::Outcome::Rested => leg::forget(session, leg, &open),
            }
            retried = true;
            session.finished(id);
            continue;
        }
        if let Some(leg) = session.leg(leg) {
            listen::ready(&leg).await;
        }
        let message = outgoing(shard, &open, body, envelope, &route, id)?;
        let cancelled = Rc::new(Cell::new(false));
        let socket = Rc::new(Cell::new(None));
        register(
            session,
            InFlight {
                id: id.clone(),
                leg,
                upstream_id: message.upstream_id,
                cancelled: cancelled.clone(),
                socket: socket.clone(),
            },
        )?;
        let deadline = upstream::call_deadline(incoming.backend.config.call_timeout);
        let repeatable = !matches!(method, Method::ToolsCall | Method::Other | Method::Tasks);
        let answer = match (&open.transport, message.upstream_id) {
            (Transport::Stdio(port), Some(upstream_id)) => {
                let mark = CallMark { session: Some(session.serial), id: id.clone(), method: method.label() };
                let asked =
                    upstream::ask_child(port, upstream_id, upstream::join(message.parts.0), deadline, Some(mark));
                match asked {
                    Err(fault) if !retried && fault.kind == Kind::SessionUnknown && leg::rested(&open) => {
                        // It was ended for idling as the call came, and has not seen it.
                        retried = true;
                        session.finished(id);
                        leg::forget(session, leg, &open);
                        continue;
                    }
                    asked => asked?,
                }
            }
            _ => {
                let (parts, extra) = (message.parts, incoming.passed_on);
                let sent =
                    upstream::send_on(shard, session, &open, leg, parts, extra, repeatable, deadline, Some(&socket));
                match sent.await {
                    // The wait was ended by that.
                    Err(_) if cancelled.get() => {
                        let _ = responder.answer(relay::cancelled(id)).await;
                        return Ok(Served::Done);
                    }
                    answer => answer?,
                }
            }
        };
        if let Answer::Refused { status, body: refusal } = &answer {
            if !retried && (upstream::forgot_session(&open, *status, refusal) || era::is_modern_refusal(refusal)) {
                // It was not executed: once more, in a session that the target knows.
                retried = true;
                session.finished(id);
                loss::forgotten(shard, session, leg, &open)?;
                continue;
            }
            return refused(method, *status, refusal.clone(), responder).await.map(|()| Served::Done);
        }
        // Here, because a request that was refused has left nothing, and one that failed was told.
        note_state(incoming, session, leg, method, body, envelope, &route);
        if matches!(method, Method::ResourcesSubscribe | Method::ResourcesUnsubscribe) {
            subscribe::remember(session, method, leg, body, envelope, &route);
        }
        answer.register_socket(&socket);
        let tasks = tasks::said(incoming.backend, session, &open, method, body, envelope);
        let call = Call {
            shard: shard.clone(),
            session: session.clone(),
            leg,
            open,
            method,
            id: id.clone(),
            upstream_id: message.upstream_id,
            progress_token: message.progress_token,
            outward_uri: route.outward_uri,
            tasks,
            cancelled,
            deadline,
            socket,
            asked: None,
        };
        return relay::relay(call, answer, responder).await;
    }
}

/// A read of a modern target that may have been asked for before.
async fn asking(
    incoming: &Incoming<'_>,
    session: &Session,
    body: &[u8],
    envelope: &Envelope,
    route: &Route,
) -> Option<Turn> {
    let viewer = || cache::viewer(session);
    Some(cache::reads::reading(incoming, route, viewer, body, envelope)?.turn().await)
}

/// Notes that the target's session may remember the request: then it must not be lost without anybody knowing. A tool that
/// is listed as read-only leaves nothing, and what else may be asked leaves nothing that is not restored.
fn note_state(
    incoming: &Incoming<'_>,
    session: &Session,
    leg: LegId,
    method: Method,
    body: &Bytes,
    envelope: &Envelope,
    route: &Route,
) {
    if !matches!(method, Method::ToolsCall | Method::Tasks | Method::Other) {
        return;
    }
    let Some(leg) = session.leg(leg).filter(|leg| !leg.stateful.get()) else { return };
    let backend = incoming.backend;
    let name = envelope.name.and_then(|range| json::string(body, range).ok());
    let read_only = name.filter(|_| method == Method::ToolsCall).is_some_and(|name| {
        let prefix = if backend.config.prefixed { leg.target.prefix.as_str() } else { "" };
        let own = route.own_name.as_deref().unwrap_or_else(|| name.strip_prefix(prefix).unwrap_or(&name));
        backend.catalogue.borrow().is_read_only(route.index, own)
    });
    let is_task = || crate::protocol::mcp::tasks::is_augmented(body, envelope);
    leg.stateful.set(!read_only || is_task());
}

/// The request as its target gets it.
struct Outgoing {
    parts: PostBody,
    upstream_id: Option<u64>,
    progress_token: Option<Bytes>,
}

fn outgoing(
    shard: &Shard,
    open: &OpenLeg,
    body: &Bytes,
    envelope: &Envelope,
    route: &Route,
    id: &Bytes,
) -> Result<Outgoing, Fault> {
    let failed = |fault: json::JsonError| mcp_fault::internal("request could not be rewritten").with(fault);
    if let Transport::Http { .. } = open.transport {
        if route.splice.is_empty() {
            return Ok(Outgoing { parts: body.clone().into(), upstream_id: None, progress_token: None });
        }
        let parts = route.splice.encode(body).map_err(failed)?;
        return Ok(Outgoing { parts: parts.into(), upstream_id: None, progress_token: None });
    }
    let mut splice: Splice = route.splice.clone();
    let upstream_id = shard.call_id();
    let number = Bytes::from(upstream_id.to_string());
    let range = envelope
        .answer_id()
        .ok_or_else(|| mcp_fault::internal("request without id").with(String::from_utf8_lossy(id)))?;
    splice.replace(range, number.clone());
    let progress_token = envelope.meta_progress_token.map(|range| {
        splice.replace(range, number);
        Bytes::copy_from_slice(range.of(body).unwrap_or_default())
    });
    let message = splice.contiguous(body).map_err(failed)?;
    Ok(Outgoing { parts: message.into(), upstream_id: Some(upstream_id), progress_token })
}

pub fn register(session: &Session, request: InFlight) -> Result<(), Fault> {
    let mut in_flight = session.in_flight.borrow_mut();
    if in_flight.len() >= SESSION_IN_FLIGHT_MAX {
        return Err(mcp_fault::overloaded());
    }
    in_flight.push(request);
    Ok(())
}

/// A target refused with a status: its own JSON-RPC error goes on, anything else is named. Of a method that no revision has
/// a refusal of the request says that the target does not have it either.
async fn refused(method: Method, status: u16, body: Bytes, responder: &mut Responder<'_>) -> Result<(), Fault> {
    let is_error = json::scan(&body, &super::SCAN_LIMITS)
        .is_ok_and(|envelope| envelope.kind == json::MessageKind::ErrorResponse && envelope.answer_id().is_some());
    if is_error && !matches!(status, 401 | 403 | 404 | 407) {
        let _ = responder.json(if status >= 500 { 200 } else { status }, body).await;
        return Ok(());
    }
    let fault = upstream::refusal(status, &body);
    if method == Method::Other && matches!(status, 400 | 405 | 422 | 501) {
        return Err(Fault::new(Kind::MethodNotFound, "method not found").with(fault));
    }
    Err(fault)
}

/// `notifications/cancelled`: told to the target that works on the request; the relay ends with it, or soon after.
pub async fn cancel(shard: &Rc<Shard>, session: &Rc<Session>, body: &Bytes, envelope: &Envelope) {
    let Some(range) = envelope.request_id else { return };
    let Some(id) = range.of(body) else { return };
    let found = session
        .in_flight
        .borrow()
        .iter()
        .find(|request| request.id[..] == *id)
        .map(|request| (request.leg, request.upstream_id, request.cancelled.clone(), request.socket.clone()));
    let Some((leg, upstream_id, cancelled, socket)) = found else { return };
    cancelled.set(true);
    // Whoever waits for the client, on behalf of a target.
    session.changed.notify_all();
    let Some(open) = session.leg(leg).and_then(|leg| leg.open()) else { return };
    let message = match upstream_id {
        None => body.clone(),
        Some(upstream_id) => {
            let mut splice = Splice::new();
            splice.replace(range, upstream_id.to_string());
            match splice.contiguous(body) {
                Ok(message) => message,
                Err(_) => return,
            }
        }
    };
    let _ = upstream::tell(shard, session, &open, leg, message, runtime::now() + FAREWELL_DEADLINE).await;
    let by_closing = open.modern.is_some() && matches!(open.transport, Transport::Http { .. });
    runtime::spawn(async move {
        if !by_closing {
            runtime::sleep(CANCEL_GRACE).await;
        }
        if let Some(socket) = socket.take() {
            socket.end();
        }
        if let (Some(id), Transport::Stdio(port)) = (upstream_id, &open.transport) {
            let _ = port.commands.try_send(ChildCommand::Forget { id });
        }
    });
}
