//! What a target says beside its answers: requests for the client, notifications. Ids and tokens are put into the session's
//! own numbering on the way out and back on the way in.

use std::rc::Rc;

use agentlane_runtime as runtime;
use agentlane_wire::json::{self, Envelope, MessageKind, Splice};
use bytes::{Bytes, BytesMut};

use super::tasks::Sorted;
use super::{SCAN_LIMITS, cache, hub, leg, retell, tasks, upstream};
use crate::limits::FAREWELL_DEADLINE;
use crate::protocol::mcp::catalogue::Shelf;
use crate::protocol::mcp::modern::input::{self, Form, Kind, Wrong};
use crate::protocol::mcp::streams::STANDALONE;
use crate::protocol::mcp::{error, names};
use crate::session::{LegId, ServerRequest, Session};
use crate::shard::Shard;

/// What becomes of a target's message.
#[allow(clippy::large_enum_variant, reason = "made and taken apart at once, never stored")]
pub enum Inbound {
    /// A response to something we sent.
    Response(Bytes, Envelope),
    /// For the client, in its numbering.
    Forward(Bytes),
    /// Answered or dropped here.
    Consumed,
}

/// Whether a message is a response; for exchanges that want nothing else.
pub fn is_response(message: &[u8]) -> bool {
    json::scan(message, &SCAN_LIMITS)
        .is_ok_and(|envelope| matches!(envelope.kind, MessageKind::Response | MessageKind::ErrorResponse))
}

/// Sorts a message of the target at `index`.
pub fn sort(shard: &Rc<Shard>, session: &Rc<Session>, leg: LegId, message: Bytes) -> Inbound {
    let mut message = message;
    let mut envelope = match json::scan(&message, &SCAN_LIMITS) {
        Ok(envelope) => envelope,
        Err(fault) => {
            tracing::warn!(target: "agentlane::mcp", %fault, leg, "a target sent no JSON-RPC message");
            return Inbound::Consumed;
        }
    };
    if envelope.task_id.is_some() || envelope.meta_related_task.is_some() {
        match tasks::sort(shard, session, leg, &message, &envelope) {
            Sorted::AsItIs => {}
            Sorted::Unknown => return Inbound::Consumed,
            Sorted::Renamed(renamed) => {
                let Ok(scanned) = json::scan(&renamed, &SCAN_LIMITS) else { return Inbound::Consumed };
                (message, envelope) = (renamed, scanned);
            }
        }
    }
    match envelope.kind {
        MessageKind::Response | MessageKind::ErrorResponse => Inbound::Response(message, envelope),
        MessageKind::Request => request(shard, session, leg, message, &envelope),
        MessageKind::Notification => notification(shard, session, leg, message, &envelope),
        MessageKind::Invalid(reason) => {
            tracing::warn!(target: "agentlane::mcp", reason = reason.message(), leg, "a target sent an invalid message");
            Inbound::Consumed
        }
    }
}

/// A message that belongs to no request of the client: it goes to the standalone stream, or waits there.
pub async fn unrelated(shard: &Rc<Shard>, session: &Rc<Session>, leg: LegId, message: Bytes) {
    if hub::Hub::takes(shard, session, leg, &message) {
        return;
    }
    if let Inbound::Forward(message) = sort(shard, session, leg, message) {
        let lost = session.streams.borrow_mut().push(STANDALONE, message).1;
        shard.metrics.events_lost.add(lost as u64);
        session.changed.notify_all();
    }
}

fn request(shard: &Rc<Shard>, session: &Rc<Session>, leg: LegId, message: Bytes, envelope: &Envelope) -> Inbound {
    let Some(id) = envelope.answer_id() else { return Inbound::Consumed };
    let open = session.leg(leg).and_then(|leg| leg.open());
    if open.as_ref().is_some_and(|open| open.modern.is_some()) {
        // Servers of 2026-07-28 ask in their results; an answer would have no way back.
        tracing::warn!(target: "agentlane::mcp", leg, "a target of 2026-07-28 sent a request");
        return Inbound::Consumed;
    }
    let raw_id = message.slice(id.usize());
    if envelope.method_is(&message, "ping") {
        // Whether the gateway is there is what the target can ask of its peer.
        answer(shard, session, leg, error::result_response(&raw_id, b"{}"));
        return Inbound::Consumed;
    }
    let mut older = None;
    if open.is_some_and(|open| open.revision > session.revision) {
        match in_older_revision(session, &message, envelope) {
            Ok(None) => {}
            Ok(Some(Form::Params(rewritten))) => older = Some(rewritten),
            Ok(Some(Form::Answer(result))) => {
                answer(shard, session, leg, error::result_response(&raw_id, &result));
                return Inbound::Consumed;
            }
            Err(Wrong(reason)) => {
                answer(shard, session, leg, error::error_response(Some(&raw_id), -32602, reason));
                return Inbound::Consumed;
            }
        }
    }
    if let Some(message) = older {
        return match json::scan(&message, &SCAN_LIMITS) {
            Ok(envelope) => numbered(shard, session, leg, raw_id, message, &envelope),
            Err(_) => Inbound::Consumed,
        };
    }
    numbered(shard, session, leg, raw_id, message, envelope)
}

/// A request of a target whose revision is newer than the client's: rewritten whole, or answered. `None` where it stays.
fn in_older_revision(session: &Session, message: &Bytes, envelope: &Envelope) -> Result<Option<Form>, Wrong> {
    let (Some(method), Some(params)) = (envelope.method, envelope.params) else { return Ok(None) };
    let Some(kind @ (Kind::Form | Kind::Sampling)) = input::kind_of(message, method, Some(params)) else {
        return Ok(None);
    };
    let whole = message.slice(params.usize());
    Ok(match input::older(kind, &whole, session.revision)? {
        Form::Params(older) if older == whole => None,
        Form::Params(older) => {
            let mut splice = Splice::new();
            splice.replace(params, older);
            splice.contiguous(message).ok().map(Form::Params)
        }
        answered => Some(answered),
    })
}

/// The request under an id of the session's own.
fn numbered(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    leg: LegId,
    raw_id: Bytes,
    message: Bytes,
    envelope: &Envelope,
) -> Inbound {
    let Some(id) = envelope.answer_id() else { return Inbound::Consumed };
    let progress_token = envelope.meta_progress_token;
    let waiting = ServerRequest {
        leg,
        id: raw_id.clone(),
        progress_token: progress_token.map(|token| message.slice(token.usize())),
    };
    let Some(ours) = session.server_requests.borrow_mut().add(waiting) else {
        answer(
            shard,
            session,
            leg,
            error::error_response(Some(&raw_id), -32603, "too many requests wait for the client"),
        );
        return Inbound::Consumed;
    };
    let ours = Bytes::from(ours.to_string());
    let mut splice = Splice::new();
    splice.replace(id, ours.clone());
    if let Some(token) = progress_token {
        splice.replace(token, ours);
    }
    spliced(&splice, message)
}

fn notification(shard: &Rc<Shard>, session: &Rc<Session>, leg: LegId, message: Bytes, envelope: &Envelope) -> Inbound {
    if let Some(method) = envelope.method.and_then(|range| range.of(&message))
        && method.ends_with(b"/list_changed\"")
    {
        // Before the client is told: what it asks for next must be new.
        let method = &method[1..method.len() - 1];
        cache::changed(shard, session, leg, method);
        if retell::list_of(method).is_some_and(|list| retell::takes(shard, session, list)) {
            return Inbound::Consumed;
        }
    }
    if envelope.method_is(&message, "notifications/cancelled") {
        let Some(range) = envelope.request_id else { return Inbound::Consumed };
        let ours = session.server_requests.borrow().find(leg, range.of(&message).unwrap_or_default());
        let Some(ours) = ours else { return Inbound::Consumed };
        session.server_requests.borrow_mut().answered(ours);
        let mut splice = Splice::new();
        splice.replace(range, ours.to_string());
        return spliced(&splice, message);
    }
    if session.is_internal() {
        hub::Hub::overhears(shard, session, leg, &message, envelope);
    }
    if envelope.method_is(&message, "notifications/resources/updated")
        && let Some(range) = envelope.uri
    {
        if is_shared(session, leg) && !is_subscribed(session, leg, range.of(&message).unwrap_or_default()) {
            return Inbound::Consumed;
        }
        let uri = json::string(&message, range).unwrap_or_default();
        if let Some(marked) = outward_uri(shard, session, leg, &uri) {
            let mut splice = Splice::new();
            splice.replace_string(range, &marked);
            return spliced(&splice, message);
        }
    }
    Inbound::Forward(message)
}

/// Whether other sessions use the same child.
pub fn is_shared(session: &Session, leg: LegId) -> bool {
    session
        .leg(leg)
        .is_some_and(|leg| matches!(&leg.target.kind, crate::backend::mcp::TargetKind::Stdio(stdio) if stdio.shared))
}

fn is_subscribed(session: &Session, leg: LegId, uri: &[u8]) -> bool {
    session.subscriptions.borrow().iter().any(|(id, subscribed)| *id == leg && subscribed[..] == *uri)
}

/// How a target's own URI is called outward, where that differs.
pub fn outward_uri(shard: &Rc<Shard>, session: &Session, leg: LegId, uri: &str) -> Option<String> {
    let backend = shard.mcp_backend(&session.backend)?;
    if backend.config.targets.len() < 2 {
        return None;
    }
    let catalogue = backend.catalogue.borrow();
    let place = session.place_of(leg)?;
    let marked = names::mark_uri(&backend.config.targets.get(place)?.name, uri);
    (catalogue.find(Shelf::Resources, uri) != Some(place) && catalogue.find(Shelf::Resources, &marked) == Some(place))
        .then_some(marked)
}

/// Sends a target an answer without waiting for it.
pub fn answer(shard: &Rc<Shard>, session: &Rc<Session>, leg: LegId, message: Bytes) {
    let id = leg;
    let Ok(leg) = leg::leg_at(session, id) else { return };
    let Some(open) = leg.open() else { return };
    let (shard, session) = (shard.clone(), session.clone());
    runtime::spawn(async move {
        let deadline = runtime::now() + FAREWELL_DEADLINE;
        if let Err(fault) = upstream::tell(&shard, &session, &open, id, message, deadline).await {
            tracing::debug!(target: "agentlane::mcp", %fault, "an answer did not reach its target");
        }
    });
}

/// An answer of the client to a target's request: whose it is, and the answer in the target's numbering.
pub fn client_answer(session: &Session, message: &Bytes, envelope: &Envelope) -> Option<(LegId, Bytes)> {
    let id = envelope.answer_id()?;
    let number = json::as_u64(message, id)?;
    if let Some(waiting) = session.server_requests.borrow_mut().answered_locally(number) {
        // The one who waits made room for every answer.
        let _ = waiting.try_send((number, message.clone()));
        return None;
    }
    let asked = session.server_requests.borrow_mut().answered(number)?;
    let mut splice = Splice::new();
    splice.replace(id, asked.id);
    Some((asked.leg, splice.contiguous(message).ok()?))
}

/// Progress of the client on a target's request: whose it is, with the target's own token.
pub fn client_progress(session: &Session, message: &Bytes, envelope: &Envelope) -> Option<(LegId, Bytes)> {
    let token = envelope.progress_token?;
    let asked = session.server_requests.borrow().waiting(json::as_u64(message, token)?)?.clone();
    let mut splice = Splice::new();
    splice.replace(token, asked.progress_token?);
    Some((asked.leg, splice.contiguous(message).ok()?))
}

/// A child's answer or progress, back in the client's numbering.
pub fn in_clients_numbering(message: Bytes, envelope: &Envelope, id: &Bytes, progress_token: Option<&Bytes>) -> Bytes {
    let mut splice = Splice::new();
    match (envelope.answer_id(), envelope.progress_token, progress_token) {
        (Some(range), ..) => drop(splice.replace(range, id.clone())),
        (None, Some(range), Some(token)) => drop(splice.replace(range, token.clone())),
        _ => return message,
    };
    splice.contiguous(&message).unwrap_or(message)
}

fn spliced(splice: &Splice, message: Bytes) -> Inbound {
    match splice.contiguous(&message) {
        Ok(message) => Inbound::Forward(message),
        Err(_) => Inbound::Consumed,
    }
}

/// One array out of several responses.
pub fn batch(responses: &[Bytes]) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + responses.iter().map(|response| response.len() + 1).sum::<usize>());
    out.extend_from_slice(b"[");
    for (at, response) in responses.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(response);
    }
    out.extend_from_slice(b"]");
    out.freeze()
}
