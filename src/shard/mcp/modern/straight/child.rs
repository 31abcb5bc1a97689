//! The same where the target is a child: the request goes under a number of the gateway's, by which its answer, its
//! progress and its end by the client are known among those of others on the same process.

use std::pin::pin;

use agentlane_runtime as runtime;
use agentlane_wire::json::{self, Envelope, MessageKind, Splice};
use bytes::Bytes;

use super::{Relayed, Upstream, names_tasks};
use crate::backend::mcp::{StdioTarget, Target};
use crate::fault::{Fault, Kind};
use crate::limits::KEEP_ALIVE_EVERY;
use crate::protocol::mcp::error;
use crate::protocol::mcp::modern::UNSUPPORTED_VERSION;
use crate::protocol::mcp::modern::answer::{self, Answer as Answered};
use crate::protocol::mcp::modern::request::Refusal;
use crate::protocol::mcp::modern::results;
use crate::session::board::CallMark;
use crate::session::{ChildCommand, ChildPort};
use crate::shard::mcp::cache::reads::Asking;
use crate::shard::mcp::era::ModernTarget;
use crate::shard::mcp::modern::bridge::keep_alive;
use crate::shard::mcp::modern::{Request, Route, no_answer, parameters};
use crate::shard::mcp::upstream::{self, Answer};
use crate::shard::mcp::{SCAN_LIMITS, callers, mcp_fault};
use crate::shard::responder::Responder;

/// A request on a child. Dropped, the child is told that nobody waits for it; where it was answered that means nothing.
struct UnderWay {
    port: ChildPort,
    number: u64,
    answered: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.answered {
            let params = format!("{{\"requestId\":{}}}", self.number);
            let cancelled = error::notification("notifications/cancelled", Some(params.as_bytes()));
            // A child that takes nothing more is ended otherwise.
            let _ = self.port.commands.try_send(ChildCommand::Send(cancelled));
            let _ = self.port.commands.try_send(ChildCommand::Forget { id: self.number });
        }
    }
}

/// Sends the request and relays what comes. `state` and `asking`: as in [`super::call`].
#[allow(clippy::too_many_arguments, reason = "the parts of one request")]
pub async fn call(
    request: &Request<'_>,
    target: &Target,
    stdio: &StdioTarget,
    modern: &ModernTarget,
    route: &Route,
    state: Option<&str>,
    asking: Option<Asking>,
    responder: &mut Responder<'_>,
) -> Result<Upstream, Refusal> {
    let number = request.shard().call_id();
    let message = outgoing(request, route, state, number)?;
    if responder.is_direct() {
        let failed = |fault| mcp_fault::internal("request could not be read").with(fault);
        let envelope = json::scan(&message, &SCAN_LIMITS).map_err(failed)?;
        parameters::check(&modern.tools.borrow(), request.incoming.headers, &message, &envelope)?;
    }
    let Some((under_way, answer)) = ask(request, target, stdio, number, message).await? else {
        return Ok(Upstream::NotModern);
    };
    let (tools, tasks) = (Some(&*modern.tools), names_tasks(request, modern));
    let relayed = Relayed { request, target, route, tools, asking, tasks };
    relayed.of_child(under_way, answer, responder).await
}

/// Hands the request to the child; once more to another where that one was being ended for idling. `None`: it does not speak
/// this revision any more.
async fn ask(
    request: &Request<'_>,
    target: &Target,
    stdio: &StdioTarget,
    number: u64,
    message: Bytes,
) -> Result<Option<(UnderWay, Answer)>, Fault> {
    let (shard, backend) = (request.shard(), request.incoming.backend);
    let mut rested = false;
    loop {
        let deadline = runtime::now() + backend.config.deadline;
        let serving = callers::serving(shard, backend, target, stdio, request.caller, deadline);
        let Some(child) = Box::pin(serving).await? else { return Ok(None) };
        let mark = CallMark { session: None, id: request.id.clone(), method: request.method.label() };
        let deadline = upstream::call_deadline(backend.config.call_timeout);
        match upstream::ask_child(&child.port, number, message.clone(), deadline, Some(mark)) {
            Err(fault) if fault.kind == Kind::SessionUnknown && !rested => rested = true,
            answer => return Ok(Some((UnderWay { port: child.port, number, answered: false }, answer?))),
        }
    }
}

/// The request as the child gets it.
fn outgoing(request: &Request<'_>, route: &Route, state: Option<&str>, number: u64) -> Result<Bytes, Fault> {
    let failed = |fault: json::JsonError| mcp_fault::internal("request could not be rewritten").with(fault);
    let digits = Bytes::from(number.to_string());
    let mut splice: Splice = route.splice.clone();
    if let (Some(range), Some(state)) = (request.envelope.request_state, state) {
        splice.replace_string(range, state);
    }
    if let Some(token) = request.envelope.meta_progress_token {
        splice.replace(token, digits.clone());
    }
    splice.replace_id(&request.envelope, digits);
    splice.contiguous(&request.body).map_err(failed)
}

impl Relayed<'_, '_> {
    async fn of_child(
        &self,
        mut under_way: UnderWay,
        mut answer: Answer,
        responder: &mut Responder<'_>,
    ) -> Result<Upstream, Refusal> {
        loop {
            let said = {
                let (next, left) = (pin!(answer.next()), pin!(responder.left()));
                runtime::timeout(KEEP_ALIVE_EVERY, runtime::race(next, left)).await
            };
            let message = match said {
                Ok(runtime::Either::Left(message)) => message?.and_then(|message| message.data),
                Ok(runtime::Either::Right(())) => return Ok(Upstream::Served),
                Err(_) if keep_alive(responder).await.is_err() => return Ok(Upstream::Served),
                Err(_) => continue,
            };
            let Some(message) = message else {
                under_way.answered = true;
                return Err(no_answer().into());
            };
            let Ok(envelope) = json::scan(&message, &SCAN_LIMITS) else { continue };
            match envelope.kind {
                MessageKind::Response => {
                    under_way.answered = true;
                    self.learn(&message);
                    self.keep(&message);
                    let answer = Answered::ok(self.outward(self.under_own_id(&message, &envelope)?, None));
                    self.request.conclude(answer, responder).await;
                    return Ok(Upstream::Served);
                }
                MessageKind::ErrorResponse => {
                    under_way.answered = true;
                    let code = envelope.error.and_then(|fault| results::code_of(&message, fault));
                    if code == Some(UNSUPPORTED_VERSION) && !responder.has_begun() {
                        self.request.incoming.backend.eras.of(self.target).forget();
                        return Ok(Upstream::NotModern);
                    }
                    let answer = answer::of_error(&message, &envelope, &self.request.id);
                    self.request.conclude(answer, responder).await;
                    return Ok(Upstream::Served);
                }
                MessageKind::Notification => {
                    if let Some(message) = self.notification(message, &envelope)
                        && responder.message(&message).await.is_err()
                    {
                        return Ok(Upstream::Served);
                    }
                }
                MessageKind::Request | MessageKind::Invalid(_) => {
                    let target = &self.target.name;
                    tracing::warn!(target: "agentlane::mcp", target_name = %target, "a target sent what this revision does not have");
                }
            }
        }
    }

    fn under_own_id(&self, message: &Bytes, envelope: &Envelope) -> Result<Bytes, Fault> {
        let mut splice = Splice::new();
        splice.replace_id(envelope, self.request.id.clone());
        splice.contiguous(message).map_err(|fault| Fault::new(Kind::UpstreamBroken, "target sent no JSON").with(fault))
    }

    /// What belongs to the request, in the client's own terms.
    fn notification(&self, message: Bytes, envelope: &Envelope) -> Option<Bytes> {
        if envelope.method_is(&message, "notifications/message") {
            return self.request.envelope.meta_log_level.map(|_| message);
        }
        let mut splice = Splice::new();
        if envelope.method_is(&message, "notifications/progress") {
            let own = self.request.envelope.meta_progress_token?.of(&self.request.body)?;
            splice.replace(envelope.progress_token?, Bytes::copy_from_slice(own));
        } else if let Some(listen) = envelope.meta_subscription_id {
            splice.replace(listen, self.request.id.clone());
        }
        splice.contiguous(&message).ok()
    }
}
