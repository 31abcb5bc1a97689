//! `server/discover` of the endpoint, out of what its targets say of themselves; and what is remembered of that.

use std::rc::Rc;

use agentlane_runtime as runtime;
use bytes::Bytes;
use simd_json::OwnedValue;
use simd_json::prelude::*;

use super::Request;
use crate::backend::mcp::FailureMode;
use crate::fault::{Fault, Kind};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::modern::discover::{self as merge, GATEWAY, Part};
use crate::session::{Leg, Session};
use crate::shard::mcp::{close, era, leg, lock, mcp_fault, open};
use crate::shard::{BackendState, Shard};

/// How a target with sessions introduced itself.
pub struct Introduction {
    /// The `result` of its `initialize`.
    result: Bytes,
    /// Its `serverInfo`, as JSON text.
    server_info: Bytes,
}

/// Remembers what a target said in a handshake, whoever's that was.
pub fn introduce(shard: &Shard, session: &Session, leg: &Leg, result: &Bytes) {
    let Some(backend) = shard.mcp_backend(&session.backend).filter(|_| !result.is_empty()) else { return };
    let mut known = backend.introductions.borrow_mut();
    if known.get(&leg.target.name).is_some_and(|known| known.result == result) {
        return;
    }
    let Ok(parsed) = simd_json::to_owned_value(&mut result.to_vec()) else { return };
    let info = merge::server_info(&parsed).map(|info| Bytes::from(info.encode()));
    let introduction = Introduction {
        result: Bytes::copy_from_slice(result),
        server_info: info.unwrap_or_else(|| Bytes::from_static(GATEWAY)),
    };
    known.insert(leg.target.name.clone(), introduction);
}

/// Who answers a request that a target served: a lone target itself, else the gateway.
pub fn server_info(backend: &BackendState, index: usize) -> Bytes {
    let gateway = || Bytes::from_static(GATEWAY);
    if !backend.config.is_identity() {
        return gateway();
    }
    let Some(target) = backend.config.targets.get(index) else { return gateway() };
    let known = backend.introductions.borrow();
    known.get(&target.name).map_or_else(gateway, |known| known.server_info.clone())
}

/// The DiscoverResult, as JSON text.
pub async fn result(request: &Request<'_>) -> Result<Bytes, Fault> {
    let backend = request.incoming.backend;
    let targets = &backend.config.targets;
    let outcomes =
        runtime::join_all((0..targets.len()).map(|index| one(request.shard(), backend, index, request.caller))).await;
    let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
    let all_failed = outcomes.iter().all(Result::is_err);
    if let Some(fault) = failed
        && (all_failed || backend.config.failure_mode == FailureMode::Closed)
    {
        return Err(fault.clone());
    }
    let parts = targets
        .iter()
        .zip(outcomes)
        .map(|(target, outcome)| Part { target: &target.name, result: outcome.map_err(|fault| fault.message) });
    Ok(Bytes::from(merge::result(parts.collect(), backend.config.is_identity())))
}

/// What one target says of itself.
async fn one(shard: &Rc<Shard>, backend: &Rc<BackendState>, index: usize, caller: Caller) -> Result<OwnedValue, Fault> {
    let text = match era::modern_target(shard, backend, index, caller).await? {
        Some(modern) => modern.raw.clone(),
        None => introduction(shard, backend, index).await?,
    };
    let broken = |fault| Fault::new(Kind::UpstreamBroken, "target sent a wrong result").with(fault);
    let mut result = simd_json::to_owned_value(&mut text.to_vec()).map_err(broken)?;
    lock::withhold(shard, backend, index, &mut result).await?;
    Ok(result)
}

/// The introduction of a target with sessions. Where no request has led to one yet, it is asked for in a session of no
/// capabilities, which ends with that.
async fn introduction(shard: &Rc<Shard>, backend: &Rc<BackendState>, index: usize) -> Result<Bytes, Fault> {
    let target = backend.config.targets.get(index).ok_or_else(|| mcp_fault::internal("no such target"))?;
    let known = || backend.introductions.borrow().get(&target.name).map(|known| known.result.clone());
    if let Some(known) = known() {
        return Ok(known);
    }
    // One is enough, however many ask at once.
    let asking = backend.eras.of(target);
    let _turn = asking.introduction.lock().await;
    if let Some(known) = known() {
        return Ok(known);
    }
    let session = open::internal(shard, backend, Caller::NOBODY, b"{}", None)?;
    let outcome = match session.leg_to(index) {
        Some(leg) => leg::open(shard, &session, leg.id, false).await.map(|opened| opened.raw),
        None => Err(mcp_fault::internal("no such target")),
    };
    close::end(shard, &session);
    outcome
}
