//! Tasks in a federation: requests about one go to the target that its id names, lists are those of all targets, and what
//! targets say of their tasks has the outward ids. One target with its own names gets and says everything as it is.

use std::rc::Rc;

use agentlane_runtime as runtime;
use agentlane_wire::json::{self, Envelope, Splice};
use bytes::{Bytes, BytesMut};

use super::routing::Route;
use super::{Incoming, SCAN_LIMITS, leg, mcp_fault, upstream};
use crate::backend::mcp::FailureMode;
use crate::fault::{Fault, Kind};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::method::Method;
use crate::protocol::mcp::revision::Revision;
use crate::protocol::mcp::tasks::{self, Naming};
use crate::protocol::mcp::{error, merge};
use crate::session::{LegId, OpenLeg, Session};
use crate::shard::{BackendState, Shard};

/// What the answer to a request may say of tasks that must be renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Nothing,
    /// It may belong to a task, or begin one.
    Mention,
    /// It is a task itself.
    Task,
}

/// What becomes of a target's request or notification that says something of tasks.
pub enum Sorted {
    AsItIs,
    Renamed(Bytes),
    /// Nothing that this client knows.
    Unknown,
}

/// Whether both sides have the tasks of 2025-11-25.
fn shared(session: &Session, open: &OpenLeg) -> bool {
    !session.is_internal()
        && session.revision == Revision::V2025_11_25
        && open.modern.is_none()
        && open.revision == session.revision
        && open.offers.tasks
}

/// The target of a request about a task, with the target's own id in it.
pub fn route(
    shard: &Shard,
    caller: &Caller,
    backend: &BackendState,
    message: &[u8],
    envelope: &Envelope,
) -> Result<Route, Fault> {
    let unknown = || Fault::new(Kind::InvalidParams, "unknown task");
    let range = envelope.task_id.ok_or_else(|| Fault::new(Kind::InvalidParams, "params.taskId is missing"))?;
    let text = json::string(message, range).map_err(|_| unknown())?;
    let (target, own) = tasks::open(&shard.sealer, caller, &text).ok_or_else(unknown)?;
    let index = backend.config.target_index(&target).ok_or_else(unknown)?;
    let mut route = Route { index, ..Route::default() };
    route.splice.replace_string(range, &own);
    Ok(route)
}

/// The same for a client with a session. Where no target has tasks there is no such method.
pub fn route_of_session(
    shard: &Shard,
    session: &Session,
    backend: &BackendState,
    message: &[u8],
    envelope: &Envelope,
) -> Result<Route, Fault> {
    let has = |leg: &Rc<crate::session::Leg>| leg.open().is_some_and(|open| shared(session, &open));
    route(shard, &session.caller, backend, message, envelope).map_err(|fault| {
        match session.legs.borrow().iter().any(has) {
            true => fault,
            false => Fault::new(Kind::MethodNotFound, "method not found"),
        }
    })
}

/// Whether a request asks for the tasks of all targets.
pub fn is_list(backend: &BackendState, body: &[u8], envelope: &Envelope) -> bool {
    !backend.config.is_identity() && envelope.method_is(body, "tasks/list")
}

/// A page of the tasks of all targets: one page of each that has more.
pub async fn list(
    incoming: &Incoming<'_>,
    session: &Rc<Session>,
    body: &Bytes,
    envelope: &Envelope,
) -> Result<Bytes, Fault> {
    let Incoming { shard, backend, .. } = incoming;
    let deadline = runtime::now() + backend.config.deadline;
    let ask = async |(id, cursor): (LegId, Option<String>)| {
        let open = leg::ready(shard, session, id).await?;
        if !(shared(session, &open) && open.offers.task_list) {
            return Ok(None);
        }
        let params = cursor.map(|cursor| {
            let mut params = BytesMut::from(&b"{\"cursor\":"[..]);
            json::quote_into(&mut params, &cursor);
            params.extend_from_slice(b"}");
            params
        });
        let request = error::request(shard.call_id(), "tasks/list", params.as_deref());
        leg::result_of(&upstream::ask(shard, session, &open, id, request, true, deadline).await?)
    };
    let from = places(shard, session, backend, body, envelope)?;
    let legs: Vec<LegId> = from.iter().map(|(id, _)| *id).collect();
    let outcomes: Vec<Result<Option<Bytes>, Fault>> = runtime::join_all(from.into_iter().map(ask)).await;
    let is_served = outcomes.iter().any(|outcome| matches!(outcome, Ok(Some(_))));
    let strict = backend.config.failure_mode == FailureMode::Closed || !is_served;
    let mut page = Page::default();
    for (id, outcome) in legs.into_iter().zip(outcomes) {
        let target = leg::leg_at(session, id)?.target.clone();
        let naming = Naming { sealer: &shard.sealer, caller: &session.caller, target: &target.name };
        match outcome {
            Ok(Some(result)) => page.add(&naming, &result),
            Ok(None) => {}
            Err(fault) if strict => return Err(fault),
            Err(fault) => page.missing(&target.name, fault.message),
        }
    }
    if !is_served {
        return Err(Fault::new(Kind::MethodNotFound, "method not found"));
    }
    page.finish(shard, &session.caller)
}

/// Where the lists go on: at the beginning of all, or where a cursor says.
fn places(
    shard: &Shard,
    session: &Session,
    backend: &BackendState,
    body: &[u8],
    envelope: &Envelope,
) -> Result<Vec<(LegId, Option<String>)>, Fault> {
    let wrong = || Fault::new(Kind::InvalidParams, "invalid cursor");
    let Some(range) = envelope.cursor else {
        return Ok(session.leg_ids().into_iter().map(|id| (id, None)).collect());
    };
    let text = json::string(body, range).map_err(|_| wrong())?;
    let rest = tasks::open_cursor(&shard.sealer, &session.caller, &text).ok_or_else(wrong)?;
    let place = |(target, cursor): (String, String)| {
        let leg = backend.config.target_index(&target).and_then(|index| session.leg_to(index));
        leg.map(|leg| (leg.id, Some(cursor))).ok_or_else(wrong)
    };
    rest.into_iter().map(place).collect()
}

/// A merged page that is being written.
#[derive(Default)]
struct Page {
    tasks: BytesMut,
    rest: Vec<(String, String)>,
    missing: BytesMut,
}

impl Page {
    fn add(&mut self, naming: &Naming<'_>, result: &Bytes) {
        let Ok(root) = json::root(result) else { return };
        naming.list(&mut self.tasks, result, root);
        if let Ok(Some(next)) = json::get(result, root, "nextCursor")
            && let Ok(next) = json::string(result, next)
        {
            self.rest.push((naming.target.to_owned(), next.into_owned()));
        }
    }

    fn missing(&mut self, target: &str, reason: &str) {
        self.missing.extend_from_slice(if self.missing.is_empty() { b"{\"target\":" } else { b",{\"target\":" });
        json::quote_into(&mut self.missing, target);
        self.missing.extend_from_slice(b",\"reason\":");
        json::quote_into(&mut self.missing, reason);
        self.missing.extend_from_slice(b"}");
    }

    fn finish(self, shard: &Shard, caller: &Caller) -> Result<Bytes, Fault> {
        let mut out = BytesMut::from(&b"{\"tasks\":["[..]);
        out.extend_from_slice(&self.tasks);
        out.extend_from_slice(b"]");
        if !self.rest.is_empty() {
            let rest: Vec<(&str, String)> =
                self.rest.iter().map(|(target, cursor)| (target.as_str(), cursor.clone())).collect();
            let sealed = tasks::seal_cursor(&shard.sealer, caller, &rest);
            out.extend_from_slice(b",\"nextCursor\":");
            json::quote_into(&mut out, &sealed.map_err(|_| mcp_fault::internal("no randomness"))?);
        }
        if !self.missing.is_empty() {
            out.extend_from_slice(b",\"_meta\":{");
            json::quote_into(&mut out, merge::META_MISSING);
            out.extend_from_slice(b":[");
            out.extend_from_slice(&self.missing);
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"}");
        Ok(out.freeze())
    }
}

/// What the answer to a request will say of tasks.
pub fn said(
    backend: &BackendState,
    session: &Session,
    open: &OpenLeg,
    method: Method,
    body: &[u8],
    envelope: &Envelope,
) -> Said {
    if backend.config.is_identity() || !shared(session, open) {
        return Said::Nothing;
    }
    match method {
        // Its answer is that of another request.
        Method::Tasks if envelope.method_is(body, "tasks/result") => Said::Mention,
        Method::Tasks => Said::Task,
        Method::ToolsCall if tasks::is_augmented(body, envelope) => Said::Mention,
        _ => Said::Nothing,
    }
}

/// A target's answer with outward ids.
pub fn answer(shard: &Shard, session: &Session, leg: LegId, said: Said, data: Bytes) -> Bytes {
    let Ok(leg) = leg::leg_at(session, leg) else { return data };
    let naming = Naming { sealer: &shard.sealer, caller: &session.caller, target: &leg.target.name };
    renamed(&naming, said, data)
}

/// The same for whoever knows what the ids are called.
pub fn renamed(naming: &Naming<'_>, said: Said, data: Bytes) -> Bytes {
    let Some(result) = json::scan(&data, &SCAN_LIMITS).ok().and_then(|envelope| envelope.result) else { return data };
    let mut splice = Splice::new();
    naming.result(&mut splice, &data, result, said == Said::Task);
    if splice.is_empty() { data } else { splice.contiguous(&data).unwrap_or(data) }
}

/// A target's request or notification, as far as it says something of tasks.
pub fn sort(shard: &Shard, session: &Session, leg: LegId, message: &Bytes, envelope: &Envelope) -> Sorted {
    if session.revision < Revision::V2025_11_25 && envelope.method_is(message, tasks::STATUS) {
        return Sorted::Unknown;
    }
    let federated = || shard.mcp_backend(&session.backend).is_some_and(|backend| !backend.config.is_identity());
    let Some(leg) = session.leg(leg) else { return Sorted::AsItIs };
    if !leg.open().is_some_and(|open| shared(session, &open)) || !federated() {
        return Sorted::AsItIs;
    }
    let naming = Naming { sealer: &shard.sealer, caller: &session.caller, target: &leg.target.name };
    let mut splice = Splice::new();
    naming.message(&mut splice, message, envelope);
    match splice.contiguous(message) {
        Ok(renamed) if !splice.is_empty() => Sorted::Renamed(renamed),
        _ => Sorted::AsItIs,
    }
}

/// What a client answers or tells a target, with the target's own ids.
pub fn to_target(shard: &Shard, session: &Session, message: Bytes) -> Bytes {
    if memchr::memmem::find(&message, b"related-task").is_none() {
        return message;
    }
    let Ok(envelope) = json::scan(&message, &SCAN_LIMITS) else { return message };
    tasks::inward(&shard.sealer, &session.caller, &message, &envelope).unwrap_or(message)
}
