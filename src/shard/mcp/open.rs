//! `initialize`: a new session, negotiated with every target at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use agentlane_runtime as runtime;
use agentlane_wire::json::{self, Envelope, Splice};
use bytes::Bytes;

use super::leg::{self, Opened};
use super::{close, lock, mcp_fault};
use crate::backend::mcp::FailureMode;
use crate::fault::{Fault, Kind};
use crate::principal::Principal;
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::error;
use crate::protocol::mcp::merge::{self, Part};
use crate::protocol::mcp::revision::Revision;
use crate::session::{Leg, Session, Shown};
use crate::shard::{BackendState, Shard};

/// The session and the response to `initialize`.
pub async fn initialize(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    principal: Principal,
    caller: Caller,
    message: &Bytes,
    envelope: &Envelope,
) -> Result<(Rc<Session>, Bytes), Fault> {
    let id = envelope.answer_id().ok_or_else(|| Fault::new(Kind::InvalidRequest, "initialize without id"))?;
    let session = new_session(shard, backend, principal, caller, message, envelope)?;
    if shard.sessions.borrow().is_full() {
        return Err(mcp_fault::overloaded());
    }
    let legs = session.leg_ids();
    let outcomes = runtime::join_all(legs.into_iter().map(|leg| leg::open(shard, &session, leg, true))).await;
    let outcomes = introduced(shard, backend, outcomes).await;
    let result = match answer(backend, &session, &outcomes) {
        Ok(result) => result,
        Err(fault) => {
            close::end(shard, &session);
            return Err(fault);
        }
    };
    shard.sessions.borrow_mut().insert(session.clone()).map_err(|_| {
        close::end(shard, &session);
        mcp_fault::overloaded()
    })?;
    shard.metrics.sessions_opened.inc();
    shard.metrics.sessions.set(shard.sessions.borrow().len() as i64);
    let id = id.of(message).unwrap_or_default();
    Ok((session, error::result_response(id, &result)))
}

/// The handshakes without instructions that nobody approved.
async fn introduced(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    outcomes: Vec<Result<Opened, Fault>>,
) -> Vec<Result<Opened, Fault>> {
    if !backend.config.is_locked() {
        return outcomes;
    }
    let each = outcomes.into_iter().enumerate().map(async |(place, outcome)| {
        let mut opened = outcome?;
        lock::introduced(shard, backend, place, &mut opened).await?;
        Ok(opened)
    });
    runtime::join_all(each).await
}

fn new_session(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    principal: Principal,
    caller: Caller,
    message: &Bytes,
    envelope: &Envelope,
) -> Result<Rc<Session>, Fault> {
    let wrong = |message| Fault::new(Kind::InvalidParams, message);
    let params = envelope.params.ok_or_else(|| wrong("initialize without params"))?;
    let version = envelope.protocol_version.ok_or_else(|| wrong("params.protocolVersion is missing"))?;
    let version = json::string(message, version).map_err(|_| wrong("params.protocolVersion is not a string"))?;
    let is_object = |range: Option<json::Range32>| {
        range.is_some_and(|range| json::kind_of(message, range) == Some(json::ValueKind::Object))
    };
    if !is_object(envelope.capabilities) || !is_object(envelope.client_info) {
        return Err(wrong("params.capabilities and params.clientInfo must be objects"));
    }
    let asked = Revision::parse(version.as_bytes());
    let revision = asked.unwrap_or(Revision::NEWEST);
    let mut initialize_params = message.slice(params.usize());
    if asked.is_none() {
        initialize_params = with_version(message, params, envelope, revision);
    }
    let (session_id, id) =
        shard.sealer.session_id(shard.index as u16).map_err(|_| mcp_fault::internal("no randomness"))?;
    // A copy: the request's buffer goes back.
    let initialize_params = Bytes::copy_from_slice(&initialize_params);
    Ok(session_of(backend, Bytes::from(id), session_id.serial, revision, principal, caller, initialize_params))
}

/// A conversation of the gateway's own with the backend's targets, as a legacy client that has these capabilities (JSON
/// text of an object), on behalf of `caller`. No id leads to it and no table of clients holds it: whoever makes it ends it with [`close::end`].
/// Its legs open when they are first used, and are told `initialized` then. A reload relinks or ends it like any session.
pub fn internal(
    shard: &Rc<Shard>,
    backend: &BackendState,
    caller: Caller,
    capabilities: &[u8],
    client_info: Option<&[u8]>,
) -> Result<Rc<Session>, Fault> {
    let serial = shard.sealer.serial().map_err(|_| mcp_fault::internal("no randomness"))?;
    let params = error::initialize_params(Revision::NEWEST, capabilities, client_info);
    let session = session_of(backend, Bytes::new(), serial, Revision::NEWEST, Principal::default(), caller, params);
    session.initialized.set(true);
    shard.internal.borrow_mut().insert(serial, session.clone());
    Ok(session)
}

#[allow(clippy::too_many_arguments, reason = "the facts of a session")]
fn session_of(
    backend: &BackendState,
    id: Bytes,
    serial: u64,
    revision: Revision,
    principal: Principal,
    caller: Caller,
    initialize_params: Bytes,
) -> Rc<Session> {
    let legs = (0..).zip(&backend.config.targets).map(|(id, target)| Leg::new(id, target.clone())).collect();
    let credential = principal.credential.clone();
    let session = Rc::new(Session {
        id,
        serial,
        backend: Rc::from(backend.config.key.as_str()),
        principal,
        caller,
        prefers_modern: Cell::new(false),
        revision,
        initialize_params,
        legs: RefCell::new(legs),
        streams: RefCell::default(),
        changed: Default::default(),
        server_requests: RefCell::default(),
        in_flight: RefCell::default(),
        log_level: RefCell::default(),
        subscriptions: RefCell::default(),
        initialized: Cell::new(false),
        ended: Cell::new(false),
        hung_up: Cell::new(false),
        shown: Shown::default(),
        last_used: Cell::new(runtime::now()),
    });
    session.carry(credential.as_ref());
    session
}

/// The client's params with a version that we speak.
fn with_version(message: &Bytes, params: json::Range32, envelope: &Envelope, revision: Revision) -> Bytes {
    let params_bytes = message.slice(params.usize());
    let Some(version) = envelope.protocol_version else { return params_bytes };
    let place = json::Range32::new(version.start() - params.start(), version.end() - params.start());
    let Some(place) = place else { return params_bytes };
    let mut splice = Splice::new();
    splice.replace_string(place, revision.as_str());
    splice.contiguous(&params_bytes).unwrap_or(params_bytes)
}

/// The result for the client: a lone target's own, or all of them merged.
fn answer(backend: &BackendState, session: &Session, outcomes: &[Result<Opened, Fault>]) -> Result<Bytes, Fault> {
    let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
    let all_failed = outcomes.iter().all(Result::is_err);
    if let Some(fault) = failed
        && (all_failed || backend.config.failure_mode == FailureMode::Closed)
    {
        return Err(fault.clone());
    }
    if let ([Ok(opened)], true) = (outcomes, backend.config.is_identity())
        && opened.leg.revision == session.revision
    {
        return Ok(opened.raw.clone());
    }
    let parts: Vec<Part<'_>> = backend
        .config
        .targets
        .iter()
        .zip(outcomes)
        .map(|(target, outcome)| Part {
            target: &target.name,
            result: match outcome {
                Ok(opened) => opened.result.as_ref().ok_or_else(|| "unknown".to_owned()),
                Err(fault) => Err(fault.message.to_owned()),
            },
        })
        .collect();
    if let ([Part { result: Ok(result), .. }], true) = (parts.as_slice(), backend.config.is_identity()) {
        return Ok(Bytes::from(merge::with_revision(result, session.revision)));
    }
    Ok(Bytes::from(merge::initialize_result(&parts, session.revision, env!("CARGO_PKG_VERSION"))))
}
