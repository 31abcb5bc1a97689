//! A request of a client without a session at a target that has them: the call runs in a leased session on a task of its
//! own, and here its messages become what this revision knows. What the target asks its client on the way is collected
//! and parked.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_runtime as runtime;
use agentlane_runtime::local;
use agentlane_wire::json::{self, Envelope, MessageKind, Splice};
use bytes::Bytes;

use super::lease::{self, Lease};
use super::{Request, discover, parameters, park};
use crate::backend::mcp::Target;
use crate::fault::{Fault, Kind};
use crate::limits::{COLLECT_TIME, FAREWELL_DEADLINE, KEEP_ALIVE_EVERY, RELAY_QUEUE};
use crate::policy::rules::access::Access;
use crate::principal::Principal;
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::content::Edits;
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::{ListKind, LogLevel, Method};
use crate::protocol::mcp::modern::answer::{self, Hints};
use crate::protocol::mcp::modern::questions::Asked;
use crate::protocol::mcp::modern::request::{Refusal, into_legacy};
use crate::protocol::mcp::streams::{Claim, Next, STANDALONE};
use crate::session::LegId;
use crate::shard::mcp::call::exchange;
use crate::shard::mcp::routing::Route;
use crate::shard::mcp::{Incoming, SCAN_LIMITS, access, cache, call as calls, leg, lists, mcp_fault, upstream};
use crate::shard::responder::Responder;
use crate::shard::{BackendState, Shard};

/// How often a call that was cancelled before it was sent is looked for.
const CANCEL_AGAIN: Duration = Duration::from_millis(50);
/// How long an answered call may take to end.
const LAST_WORDS: Duration = Duration::from_millis(5);

/// A call as its target gets it; it may have to be made again.
pub struct Spec {
    pub backend: Rc<BackendState>,
    pub leg: LegId,
    pub index: usize,
    pub method: Method,
    /// Its id in the session, and its progress token: a number of the gateway's own.
    id: Bytes,
    body: Bytes,
    envelope: Envelope,
    outward_uri: Option<(String, String)>,
    principal: Principal,
    passed_on: Bytes,
    made: Instant,
}

/// What a running call says.
enum Said {
    Message(Bytes),
    Failed(Fault),
}

/// A call that runs. Dropped before its end, it is cancelled.
pub struct Running {
    shard: Rc<Shard>,
    pub lease: Rc<Lease>,
    pub spec: Rc<Spec>,
    /// Both ends when the call's task does.
    messages: Option<local::Receiver<Bytes>>,
    failed: Rc<Cell<Option<Fault>>>,
    /// Messages that belong to no request, which can only be about this one.
    standalone: Option<Claim>,
    cancelled: Rc<Cell<bool>>,
    over: bool,
}

/// Makes the call and serves it.
pub async fn call(
    request: &Request<'_>,
    lease: Rc<Lease>,
    route: Route,
    responder: &mut Responder<'_>,
) -> Result<(), Refusal> {
    if request.method == Method::Tasks {
        // Those of 2025-11-25 are another protocol than the extension of that name.
        return Err(Fault::new(Kind::MethodNotFound, "method not found").into());
    }
    let spec = spec(request, &lease, route)?;
    if responder.is_direct() {
        Box::pin(spec.check_parameters(request, &lease)).await?;
    }
    let level = request.envelope.meta_log_level.and_then(|range| LogLevel::of(&request.body, range));
    let running = Running::start(request.shard(), lease, Rc::new(spec), level);
    converse(request, running, responder).await
}

fn spec(request: &Request<'_>, lease: &Lease, route: Route) -> Result<Spec, Fault> {
    let failed = |fault: json::JsonError| mcp_fault::internal("request could not be rewritten").with(fault);
    let leg = lease.session.leg_to(route.index).ok_or_else(|| mcp_fault::internal("no such target"))?;
    let id = Bytes::from(request.shard().call_id().to_string());
    let Route { index, mut splice, outward_uri, .. } = route;
    into_legacy(&mut splice, &request.body, &request.envelope, &id).map_err(failed)?;
    let body = splice.contiguous(&request.body).map_err(failed)?;
    // A copy: the request's buffer goes back while the call may wait for its client.
    let body = Bytes::copy_from_slice(&body);
    let envelope = json::scan(&body, &SCAN_LIMITS).map_err(failed)?;
    Ok(Spec {
        backend: request.incoming.backend.clone(),
        leg: leg.id,
        index,
        method: request.method,
        id,
        body,
        envelope,
        outward_uri,
        principal: request.incoming.principal.clone(),
        passed_on: Bytes::copy_from_slice(request.incoming.passed_on),
        made: Instant::now(),
    })
}

impl Spec {
    /// Whether the client may still make the call.
    pub fn check_access(&self, request: &Request<'_>) -> Result<(), Fault> {
        let target = self.target().ok_or_else(|| mcp_fault::internal("no such target"))?;
        access::check_sent(request.incoming, self.method, target, &self.body, &self.envelope)
    }

    fn target(&self) -> Option<&Target> {
        self.backend.config.targets.get(self.index).map(|target| &**target)
    }

    /// Whether the headers that repeat arguments say the same, by the tool's schema as the caller was told it: a target with
    /// sessions does not look at them. A caller that repeats some without having asked here may have asked elsewhere.
    async fn check_parameters(&self, request: &Request<'_>, lease: &Lease) -> Result<(), Fault> {
        let (Method::ToolsCall, Some(target)) = (self.method, self.target()) else { return Ok(()) };
        let (known, headers) = (self.backend.eras.of(target), request.incoming.headers);
        let seen = || known.schemas(&request.caller, cache::tools_changed(&self.backend, self.index));
        let mut tools = seen();
        if tools.is_none() && parameters::repeats_any(headers) {
            lists::learn_schemas(request.shard(), &self.backend, &lease.session, self.index).await;
            tools = seen();
        }
        match tools {
            Some(tools) => parameters::check(&tools.borrow(), headers, &self.body, &self.envelope),
            None => Ok(()),
        }
    }

    /// Remembers what the target's tools want to have repeated, by this caller and by whoever writes no headers.
    fn learn(&self, caller: &Caller, message: &[u8], envelope: &Envelope) {
        if let (Method::List(ListKind::Tools), Some(target), Some(result)) =
            (self.method, self.target(), envelope.result)
        {
            let known = self.backend.eras.of(target);
            let since = cache::tools_changed(&self.backend, self.index);
            known.schemas_from(caller, self.made, since).borrow_mut().learn(message, result);
            known.tools().borrow_mut().learn(message, result);
        }
    }
}

impl Running {
    /// Starts the call on a task of its own.
    pub fn start(shard: &Rc<Shard>, lease: Rc<Lease>, spec: Rc<Spec>, level: Option<LogLevel>) -> Running {
        let (sender, messages) = local::bounded(RELAY_QUEUE);
        let standalone = lease.session.streams.borrow_mut().claim(STANDALONE, None);
        let (cancelled, failed) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(None)));
        let running = Running {
            shard: shard.clone(),
            lease: lease.clone(),
            spec: spec.clone(),
            messages: Some(messages),
            failed: failed.clone(),
            standalone,
            cancelled: cancelled.clone(),
            over: false,
        };
        let shard = shard.clone();
        runtime::spawn(async move {
            if let Err(fault) = run(&shard, &lease, &spec, level, &cancelled, &sender).await {
                failed.set(Some(fault));
            }
            lease.session.finished(&spec.id);
            // Before the sender goes: whoever sees the end may want the session at once.
            drop(lease);
        });
        running
    }

    /// What is said next; `None` at the end of the call. May be dropped.
    async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(message) = self.aside() {
                return Some(Said::Message(message));
            }
            let messages = self.messages.as_mut()?;
            let changed = pin!(self.lease.session.changed.notified());
            match runtime::race(messages.recv(), changed).await {
                runtime::Either::Left(Some(message)) => return Some(Said::Message(message)),
                runtime::Either::Left(None) => {
                    self.over = true;
                    return self.failed.take().map(Said::Failed);
                }
                runtime::Either::Right(()) => {}
            }
        }
    }

    /// A message that came beside the call's own.
    fn aside(&self) -> Option<Bytes> {
        let next = self.lease.session.streams.borrow_mut().next(self.standalone?);
        let Next::Event(_, message) = next else { return None };
        // Followers wait for their reader.
        self.lease.session.changed.notify_all();
        Some(message)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(claim) = self.standalone.take() {
            self.lease.session.streams.borrow_mut().release(claim);
        }
        let Some(messages) = self.messages.take().filter(|_| !self.over) else { return };
        self.cancelled.set(true);
        self.lease.spoil();
        runtime::spawn(cancel(self.shard.clone(), self.lease.clone(), self.spec.clone(), messages));
    }
}

/// Tells the target that nobody waits any more, and reads the call to its end.
async fn cancel(shard: Rc<Shard>, lease: Rc<Lease>, spec: Rc<Spec>, mut messages: local::Receiver<Bytes>) {
    let params = [b"{\"requestId\":", &spec.id[..], b"}"].concat();
    let message = error::notification("notifications/cancelled", Some(&params));
    let Ok(envelope) = json::scan(&message, &SCAN_LIMITS) else { return };
    let is_sent = || lease.session.in_flight.borrow().iter().any(|request| request.id == spec.id);
    let mut told = false;
    loop {
        if !told && is_sent() {
            told = true;
            calls::cancel(&shard, &lease.session, &message, &envelope).await;
        }
        let next = runtime::timeout(if told { KEEP_ALIVE_EVERY } else { CANCEL_AGAIN }, messages.recv()).await;
        if let Ok(None) = next {
            return;
        }
    }
}

async fn run(
    shard: &Rc<Shard>,
    lease: &Rc<Lease>,
    spec: &Spec,
    level: Option<LogLevel>,
    cancelled: &Cell<bool>,
    sender: &local::Sender<Bytes>,
) -> Result<(), Fault> {
    let session = &lease.session;
    if let Some(level) = level {
        set_level(shard, lease, spec.leg, level).await?;
    } else {
        leg::ready(shard, session, spec.leg).await?;
    }
    lease.started();
    if cancelled.get() {
        return Ok(());
    }
    let headers = Default::default();
    // The rules were asked before.
    let access = Access::default();
    let incoming = Incoming {
        shard,
        backend: &spec.backend,
        session: Some(session.clone()),
        principal: &spec.principal,
        access: &access,
        headers: &headers,
        passed_on: &spec.passed_on,
        prefers_events: false,
    };
    let route = Route { index: spec.index, outward_uri: spec.outward_uri.clone(), ..Route::default() };
    let mut responder = Responder::bridge(sender.clone());
    let (id, body, envelope) = (&spec.id, &spec.body, &spec.envelope);
    exchange(&incoming, session, spec.leg, spec.method, id, body, envelope, route, &mut responder).await.map(drop)
}

/// Makes a target log from a level on, unless it does.
async fn set_level(shard: &Rc<Shard>, lease: &Lease, id: LegId, level: LogLevel) -> Result<(), Fault> {
    let session = &lease.session;
    let params = Bytes::from(format!("{{\"level\":\"{}\"}}", level.as_str()));
    let was_open = leg::leg_at(session, id)?.open().is_some();
    session.log_level.replace(Some(params.clone()));
    let open = leg::ready(shard, session, id).await?;
    if !lease.note_level(id, level) || !was_open || !open.offers.logging {
        // A leg that has just opened was told with the rest.
        return Ok(());
    }
    let request = error::request(shard.call_id(), "logging/setLevel", Some(&params));
    let deadline = runtime::now() + FAREWELL_DEADLINE;
    if let Err(fault) = upstream::ask(shard, session, &open, id, request, true, deadline).await {
        tracing::debug!(target: "agentlane::mcp", %fault, "a target was not told what to log");
    }
    Ok(())
}

/// Who a call's messages are for.
struct Client {
    progress_token: Option<Bytes>,
    level: Option<LogLevel>,
    /// The method may be answered with `input_required`.
    may_ask: bool,
}

/// Serves the call until it is answered, its client leaves, or its target wants to know something.
pub async fn converse(
    request: &Request<'_>,
    mut running: Running,
    responder: &mut Responder<'_>,
) -> Result<(), Refusal> {
    let client = Client {
        progress_token: request
            .envelope
            .meta_progress_token
            .and_then(|range| range.of(&request.body))
            .map(Bytes::copy_from_slice),
        level: request.envelope.meta_log_level.and_then(|range| LogLevel::of(&request.body, range)),
        may_ask: may_ask(request.method),
    };
    let mut asked: Vec<Asked> = Vec::new();
    let mut collected: Option<Instant> = None;
    loop {
        let patience = collected.map_or(KEEP_ALIVE_EVERY, |at| at.saturating_duration_since(runtime::now()));
        let said = {
            let (next, left) = (pin!(running.next()), pin!(responder.left()));
            runtime::timeout(patience, runtime::race(next, left)).await
        };
        let message = match said {
            Err(_) if collected.is_some() => return park::ask(request, running, asked, responder).await,
            Err(_) => {
                if keep_alive(responder).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            Ok(runtime::Either::Right(())) => {
                responder.abort();
                return Ok(());
            }
            Ok(runtime::Either::Left(None)) => {
                return Err(Fault::new(Kind::UpstreamBroken, "target ended its answer early").into());
            }
            Ok(runtime::Either::Left(Some(Said::Failed(fault)))) => return Err(fault.into()),
            Ok(runtime::Either::Left(Some(Said::Message(message)))) => message,
        };
        let Ok(envelope) = json::scan(&message, &SCAN_LIMITS) else { continue };
        match envelope.kind {
            MessageKind::Response | MessageKind::ErrorResponse => {
                running.finish().await;
                return conclude(request, running, message, &envelope, responder).await;
            }
            MessageKind::Request => {
                let one = Asked::of(&message, &envelope).filter(|_| client.may_ask);
                let Some(one) = one else {
                    lease::refuse(request.shard(), &running.lease.session, &message, &envelope);
                    continue;
                };
                if !one.kind.is_declared(&request.declared()) {
                    lease::refuse(request.shard(), &running.lease.session, &message, &envelope);
                    return Err(Refusal::missing_capability(one.kind.capability()));
                }
                asked.push(one);
                collected.get_or_insert_with(|| runtime::now() + COLLECT_TIME);
            }
            MessageKind::Notification => {
                withdraw(&message, &envelope, &mut asked);
                if asked.is_empty() {
                    collected = None;
                }
                if let Some(message) = client.notification(&running.spec, message, &envelope)
                    && responder.message(&message).await.is_err()
                {
                    return Ok(());
                }
            }
            MessageKind::Invalid(_) => {}
        }
    }
}

/// Whether a method may be answered with a demand for input (client page, "Multi Round-Trip Requests").
pub const fn may_ask(method: Method) -> bool {
    matches!(method, Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead)
}

/// Says nothing, on a stream that begins with it if need be.
pub async fn keep_alive(responder: &mut Responder<'_>) -> Result<(), crate::shard::responder::Gone> {
    if !responder.has_begun() {
        responder.begin_events().await?;
    }
    responder.comment().await
}

/// A target takes a question back.
fn withdraw(message: &Bytes, envelope: &Envelope, asked: &mut Vec<Asked>) {
    if envelope.method_is(message, "notifications/cancelled")
        && let Some(id) = envelope.request_id.and_then(|range| json::as_u64(message, range))
    {
        asked.retain(|one| one.id != Some(id));
    }
}

impl Running {
    /// The answer has come: the call's task ends by itself, and a moment is given to it, so that the session is free
    /// before the client asks again.
    async fn finish(&mut self) {
        self.over = true;
        if let Some(messages) = &mut self.messages {
            let _ = runtime::timeout(LAST_WORDS, messages.recv()).await;
        }
    }
}

/// The answer itself.
async fn conclude(
    request: &Request<'_>,
    running: Running,
    message: Bytes,
    envelope: &Envelope,
    responder: &mut Responder<'_>,
) -> Result<(), Refusal> {
    if may_ask(request.method) {
        let demands = Asked::of_url_error(&message, envelope, 0);
        if let Some(first) = demands.first() {
            if !request.declared().url {
                return Err(Refusal::missing_capability(first.kind.capability()));
            }
            return park::ask_again(request, running, demands, responder).await;
        }
    }
    let spec = running.spec.clone();
    // The session is free before the client can ask for it again.
    drop(running);
    spec.learn(&request.caller, &message, envelope);
    let info = discover::server_info(&spec.backend, spec.index);
    let (message, envelope) = match without_tasks(request.method, &message, envelope) {
        Some((message, envelope)) => (message, envelope),
        None => (message, *envelope),
    };
    let answer = answer::of_legacy(message, &envelope, request.method, &request.id, Hints::NONE, &info);
    request.conclude(answer, responder).await;
    Ok(())
}

/// A list of tools without what this revision does not have; `None`: there is nothing.
fn without_tasks(method: Method, message: &Bytes, envelope: &Envelope) -> Option<(Bytes, Envelope)> {
    let result = envelope.result.filter(|_| method == Method::List(ListKind::Tools))?;
    memchr::memmem::find(message, b"\"execution\"")?;
    let mut edits = Edits::default();
    edits.without_tasks(message, result);
    let message = edits.apply(message.clone(), result);
    let envelope = json::scan(&message, &SCAN_LIMITS).ok()?;
    Some((message, envelope))
}

impl Client {
    /// A notification that belongs to the request, as the client reads it.
    fn notification(&self, spec: &Spec, message: Bytes, envelope: &Envelope) -> Option<Bytes> {
        if envelope.method_is(&message, "notifications/progress") {
            let token = envelope.progress_token.filter(|range| range.of(&message) == Some(&spec.id))?;
            let mut splice = Splice::new();
            splice.replace(token, self.progress_token.clone()?);
            return splice.contiguous(&message).ok();
        }
        if envelope.method_is(&message, "notifications/message") {
            let level = envelope.level.and_then(|range| LogLevel::of(&message, range));
            return (level? >= self.level?).then_some(message);
        }
        // Changes of lists and resources are for who listens.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demands_for_input_answer_three_methods_alone() {
        for method in [Method::ToolsCall, Method::PromptsGet, Method::ResourcesRead] {
            assert!(may_ask(method));
        }
        for method in [Method::Complete, Method::Discover, Method::Other, Method::Tasks] {
            assert!(!may_ask(method));
        }
    }
}
