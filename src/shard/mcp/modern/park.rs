//! Calls that wait for their clients: a target with sessions asked something, the client was told `input_required`, and
//! comes back with the answer in a request of its own, over any connection, on any shard, or never.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use agentlane_runtime as runtime;

use super::bridge::{self, Running, Spec};
use super::lease::{self, Lease};
use super::{Request, discover, stale};
use crate::fault::{Fault, Kind};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::method::LogLevel;
use crate::protocol::mcp::modern::answer::Answer;
use crate::protocol::mcp::modern::questions::{self, Asked, NoObject};
use crate::protocol::mcp::modern::request::{Digest, Refusal, digest};
use crate::protocol::mcp::modern::state;
use crate::shard::Shard;
use crate::shard::mcp::mcp_fault;
use crate::shard::record::Record;
use crate::shard::responder::Responder;

/// The calls of one shard that wait, by their places. Each holds a lease, and leases are bounded.
#[derive(Default)]
pub struct Parked {
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    call: Call,
    asked: Vec<Asked>,
    caller: Caller,
    /// What the client must ask for again.
    digest: Digest,
    until: Instant,
}

enum Call {
    /// It runs, and its target waits.
    Open(Running),
    /// It failed for want of something that happens outside (2025-11-25, "URL Elicitation Required"), and is made again.
    Again { lease: Rc<Lease>, spec: Rc<Spec>, declined: bool },
}

impl Call {
    fn spec(&self) -> &Rc<Spec> {
        match self {
            Call::Open(running) => &running.spec,
            Call::Again { spec, .. } => spec,
        }
    }

    fn lease(&self) -> &Rc<Lease> {
        match self {
            Call::Open(running) => &running.lease,
            Call::Again { lease, .. } => lease,
        }
    }
}

/// Parks a call whose target asked, and tells the client what for.
pub async fn ask(
    request: &Request<'_>,
    running: Running,
    asked: Vec<Asked>,
    responder: &mut Responder<'_>,
) -> Result<(), Refusal> {
    park(request, Call::Open(running), asked, responder).await
}

/// Parks a call that must be made again when the client has done what its target wants.
pub async fn ask_again(
    request: &Request<'_>,
    running: Running,
    asked: Vec<Asked>,
    responder: &mut Responder<'_>,
) -> Result<(), Refusal> {
    let call = Call::Again { lease: running.lease.clone(), spec: running.spec.clone(), declined: false };
    drop(running);
    park(request, call, asked, responder).await
}

async fn park(
    request: &Request<'_>,
    call: Call,
    asked: Vec<Asked>,
    responder: &mut Responder<'_>,
) -> Result<(), Refusal> {
    let shard = request.shard();
    call.lease().step_aside();
    let place = shard.sealer.serial().map_err(|_| mcp_fault::internal("no randomness"))?;
    let state = state::Parked { shard: shard.index as u16, place };
    let state = state.seal(&shard.sealer).map_err(|_| mcp_fault::internal("no randomness"))?;
    let info = discover::server_info(&call.spec().backend, call.spec().index);
    let answer = Answer::ok(questions::input_required(&request.id, &asked, &state, &info));
    let waiting = Waiting {
        call,
        asked,
        caller: request.caller,
        digest: digest(&request.body, &request.envelope),
        until: runtime::now() + request.incoming.backend.config.input_timeout,
    };
    shard.parked.borrow_mut().insert(shard, place, waiting);
    if responder.conclude(answer.status, answer.body).await.is_err() {
        // Nobody knows of it.
        let waiting = shard.parked.borrow_mut().remove(shard, place);
        waiting.into_iter().for_each(|waiting| give_up(shard, waiting));
    }
    Ok(())
}

/// Goes on with a call whose client has come back.
pub async fn resume(
    request: &Request<'_>,
    parked: state::Parked,
    responder: &mut Responder<'_>,
    record: &mut Record,
) -> Result<(), Refusal> {
    let shard = request.shard();
    let mut waiting = claim(request, parked)?;
    record.target = waiting.call.spec().backend.config.targets.get(waiting.call.spec().index).cloned();
    // Who it is may do less by now, and so may everybody.
    if let Err(fault) = waiting.call.spec().check_access(request) {
        give_up(shard, waiting);
        return Err(fault.into());
    }
    if waiting.answer(request).is_err() {
        shard.parked.borrow_mut().insert(shard, parked.place, waiting);
        return Err(Fault::new(Kind::InvalidParams, "an input response is not an object").into());
    }
    if !waiting.asked.is_empty() {
        // Something was left out: it is asked for again.
        let Waiting { call, asked, .. } = waiting;
        return park(request, call, asked, responder).await;
    }
    let running = match waiting.call {
        Call::Open(running) => running,
        Call::Again { declined: true, spec, .. } => {
            request.conclude(request.declined(spec.method), responder).await;
            return Ok(());
        }
        Call::Again { lease, spec, .. } => {
            let level = request.envelope.meta_log_level.and_then(|range| LogLevel::of(&request.body, range));
            Running::start(shard, lease, spec, level)
        }
    };
    bridge::converse(request, running, responder).await
}

/// The call that a retry is about: of this caller, for the same request, and not too late. Whoever comes with anything else
/// leaves it where it is.
fn claim(request: &Request<'_>, parked: state::Parked) -> Result<Waiting, Fault> {
    let shard = request.shard();
    let mut table = shard.parked.borrow_mut();
    let waiting = table.waiting.get(&parked.place).filter(|_| usize::from(parked.shard) == shard.index);
    let waiting = waiting.ok_or_else(stale)?;
    let is_same = waiting.caller == request.caller
        && waiting.digest == digest(&request.body, &request.envelope)
        && waiting.call.spec().backend.config.key == request.incoming.backend.config.key;
    if !is_same || runtime::now() >= waiting.until {
        return Err(stale());
    }
    table.remove(shard, parked.place).ok_or_else(stale)
}

impl Waiting {
    /// Hands the client's answers to the target, and keeps what has none. Nothing is done when one of them is no answer.
    fn answer(&mut self, request: &Request<'_>) -> Result<(), NoObject> {
        let responses = request.envelope.input_responses;
        let found: Vec<_> = self
            .asked
            .iter()
            .map(|one| questions::response(&request.body, responses, &one.key))
            .collect::<Result<_, NoObject>>()?;
        let lease = self.call.lease().clone();
        for (one, found) in std::mem::take(&mut self.asked).into_iter().zip(found) {
            match found {
                None => self.asked.push(one),
                Some(result) => match &mut self.call {
                    Call::Open(_) => {
                        let answer = one.answer(result.of(&request.body).unwrap_or_default());
                        answer.iter().for_each(|answer| lease::answer(request.shard(), &lease.session, answer));
                    }
                    Call::Again { declined, .. } => *declined |= !questions::accepts(&request.body, result),
                },
            }
        }
        Ok(())
    }
}

impl Parked {
    fn insert(&mut self, shard: &Shard, place: u64, waiting: Waiting) {
        self.waiting.insert(place, waiting);
        shard.metrics.parked.set(self.waiting.len() as i64);
    }

    fn remove(&mut self, shard: &Shard, place: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&place);
        shard.metrics.parked.set(self.waiting.len() as i64);
        waiting
    }
}

/// Ends a call whose client will not come back: its target's questions are answered as far as that goes without the client,
/// and the call is cancelled.
fn give_up(shard: &Rc<Shard>, waiting: Waiting) {
    let session = waiting.call.lease().session.clone();
    for answer in waiting.asked.iter().filter_map(Asked::unanswered) {
        lease::answer(shard, &session, &answer);
    }
}

/// Gives up what has waited for too long, and what has lost its session.
pub fn sweep(shard: &Rc<Shard>, now: Instant) {
    end(shard, |waiting| now >= waiting.until || waiting.call.lease().session.ended.get());
}

/// Gives up everything.
pub fn end_all(shard: &Rc<Shard>) {
    end(shard, |_| true);
}

fn end(shard: &Rc<Shard>, is_over: impl Fn(&Waiting) -> bool) {
    let over: Vec<u64> = {
        let table = shard.parked.borrow();
        table.waiting.iter().filter(|(_, waiting)| is_over(waiting)).map(|(&place, _)| place).collect()
    };
    for place in over {
        let waiting = shard.parked.borrow_mut().remove(shard, place);
        waiting.into_iter().for_each(|waiting| give_up(shard, waiting));
    }
}
