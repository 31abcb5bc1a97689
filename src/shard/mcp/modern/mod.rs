//! The endpoint of clients without sessions (2026-07-28). A request is whole in itself: it is judged, routed, and goes
//! straight to a target of its own revision ([`straight`]), or, to a target with sessions, through one that is leased for as
//! long as the request takes ([`lease`], [`bridge`]); what such a target asks meanwhile becomes the client's to answer
//! in a request of its own ([`park`]).

pub mod bridge;
mod discover;
pub mod lease;
mod parameters;
pub mod park;
pub mod straight;

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use agentlane_runtime as runtime;
use agentlane_wire::h1::Known;
use agentlane_wire::json::{self, Envelope, MessageKind};
use bytes::Bytes;

use super::cache::reads::{Reading, Turn};
use super::routing::{self, Route};
use super::{Incoming, access, cache, era, hub, lists, lock, method_of, tasks};
use crate::backend::lock::Gate;
use crate::fault::{Fault, Kind, Origin};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::content::Edits;
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::{ListKind, Method};
use crate::protocol::mcp::modern::answer::{self, Answer, Hints};
use crate::protocol::mcp::modern::reads;
use crate::protocol::mcp::modern::request::{self, Declared, Refusal};
use crate::protocol::mcp::modern::state::{self, State};
use crate::protocol::mcp::modern::{VERSION, discover::GATEWAY};
use crate::protocol::mcp::tasks::{EXTENSION, NEEDED};
use crate::shard::Shard;
use crate::shard::record::Record;
use crate::shard::responder::Responder;
pub use discover::{Introduction, introduce};
use lease::Lease;
use straight::Upstream;

/// How long the calls that end with the shard may take for it, and how often that is looked at.
const GIVE_UP_TIME: Duration = Duration::from_secs(1);
const GIVE_UP_LOOK: Duration = Duration::from_millis(10);
/// How often a shard looks for what has been left behind.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// One request, its envelope found good.
pub struct Request<'a> {
    pub incoming: &'a Incoming<'a>,
    pub caller: Caller,
    pub method: Method,
    /// The client's id, as JSON text.
    pub id: Bytes,
    pub body: Bytes,
    pub envelope: Envelope,
}

/// Serves a message of a client without a session.
pub async fn serve(
    incoming: &Incoming<'_>,
    body: Bytes,
    envelope: &Envelope,
    responder: &mut Responder<'_>,
    record: &mut Record,
) {
    let id = envelope.answer_id().and_then(|range| range.of(&body)).map(Bytes::copy_from_slice);
    let method = method_of(&body, envelope);
    record.mcp_method = method.map(Method::label);
    let judged = match envelope.kind {
        MessageKind::Request => judge(incoming, &body, envelope),
        // None is defined: a client cancels by closing its stream.
        MessageKind::Notification => {
            let _ = responder.accepted().await;
            return;
        }
        MessageKind::Response | MessageKind::ErrorResponse => {
            Err(Fault::new(Kind::InvalidRequest, "this revision has no responses of clients").into())
        }
        MessageKind::Invalid(reason) => Err(Fault::new(Kind::InvalidRequest, reason.message()).into()),
    };
    let (id, method) = match (judged, id, method) {
        (Ok(()), Some(id), Some(method)) => (id, method),
        (judged, id, _) => {
            let Err(Refusal { fault, data }) = judged else { return };
            record.fault(&fault);
            let code = fault.kind.rpc_code();
            let body = error::error_with_data(id.as_deref(), code, fault.message, data.as_deref());
            let _ = responder.json(fault.kind.http_status(), body).await;
            return;
        }
    };
    let caller = incoming.principal.caller(incoming.headers);
    let request = Request { incoming, caller, method, id, body, envelope: *envelope };
    if let Err(refusal) = request.serve(responder, record).await {
        request.fail(refusal, responder, record).await;
    }
}

fn judge(incoming: &Incoming<'_>, body: &[u8], envelope: &Envelope) -> Result<(), Refusal> {
    let version = incoming.headers.known(Known::McpProtocolVersion);
    if envelope.meta_protocol_version.is_none() && version != Some(VERSION.as_bytes()) {
        return Err(Fault::new(Kind::UnsupportedVersion, "unsupported mcp-protocol-version").into());
    }
    request::check(incoming.headers, body, envelope)
}

impl Request<'_> {
    pub fn shard(&self) -> &Rc<Shard> {
        self.incoming.shard
    }

    /// What the client can be asked for.
    pub fn declared(&self) -> Declared {
        let capabilities = self.envelope.meta_client_capabilities;
        capabilities.map(|range| Declared::of(&self.body, range)).unwrap_or_default()
    }

    async fn serve(&self, responder: &mut Responder<'_>, record: &mut Record) -> Result<(), Refusal> {
        match self.method {
            Method::Initialize
            | Method::Ping
            | Method::SetLevel
            | Method::ResourcesSubscribe
            | Method::ResourcesUnsubscribe => Err(Fault::new(Kind::MethodNotFound, "method not found").into()),
            Method::Discover => {
                let result = Box::pin(discover::result(self)).await?;
                self.conclude(Answer::ok(error::result_response(&self.id, &result)), responder).await;
                Ok(())
            }
            Method::List(kind) if self.is_ours() => {
                let result = Box::pin(self.list(kind)).await?;
                self.conclude(Answer::ok(result), responder).await;
                Ok(())
            }
            Method::Listen => Box::pin(self.listen(responder, record)).await,
            _ => self.call(responder, record).await,
        }
    }

    /// The stream of all changes.
    async fn listen(&self, responder: &mut Responder<'_>, record: &mut Record) -> Result<(), Refusal> {
        let Incoming { shard, backend, .. } = self.incoming;
        if backend.config.is_identity()
            && hub::asks_for_more(&self.body, &self.envelope)
            && era::modern_target(shard, backend, 0, self.caller).await?.is_some()
        {
            // What extensions tell is between the client and the target.
            return self.call(responder, record).await;
        }
        let Request { caller, id, body, envelope, .. } = self;
        let viewing = access::viewing(self.incoming);
        let listen = hub::Listen { shard, backend, caller: *caller, viewing, id, body, envelope };
        Ok(hub::serve_listen(listen, responder).await?)
    }

    /// Whether lists are made here: of several targets, of one whose lists are kept, or where rules hide some of it.
    fn is_ours(&self) -> bool {
        let config = &self.incoming.backend.config;
        !config.is_identity() || config.keeps_lists() || config.is_locked() || !self.incoming.access.is_open()
    }

    /// The list of all targets.
    async fn list(&self, kind: ListKind) -> Result<Bytes, Refusal> {
        let wrong = |_| Fault::new(Kind::InvalidParams, "params.cursor is not a string");
        let cursor = self.envelope.cursor.map(|range| json::string(&self.body, range)).transpose().map_err(wrong)?;
        let lease = lease::take(self, None).await?;
        let backend = self.incoming.backend;
        let viewing = access::viewing(self.incoming);
        let merged = lists::merged(self.shard(), backend, &lease.session, kind, cursor.as_deref(), viewing).await?;
        let hints = Hints { ttl_ms: merged.hints.ttl_ms(), public: merged.hints.public };
        let result = match kind {
            ListKind::Tools => without_tasks(merged.result),
            _ => merged.result,
        };
        Ok(answer::completed(result, &self.id, Some(hints), GATEWAY))
    }

    /// Everything that one target answers.
    async fn call(&self, responder: &mut Responder<'_>, record: &mut Record) -> Result<(), Refusal> {
        record.about(self.method, &self.body, &self.envelope);
        let wrapped = match self.state()? {
            Some(State::Parked(parked)) => return Box::pin(park::resume(self, parked, responder, record)).await,
            Some(State::Wrapped { target, state }) => Some((target, state)),
            None => None,
        };
        let (route, lease) = self.route().await?;
        let backend = self.incoming.backend;
        let target = backend.config.targets.get(route.index);
        let target = target.ok_or_else(|| Fault::new(Kind::Internal, "no such target"))?;
        record.target = Some(target.clone());
        let lease = match lock::gate(self.incoming, self.method, &self.body, &self.envelope, &route) {
            Gate::Open => lease,
            Gate::Refused(fault) => return Err(fault.into()),
            Gate::Unjudged => Some(Box::pin(self.judged(lease, &route)).await?),
        };
        access::check(self.incoming, self.method, &route, &self.body, &self.envelope)?;
        if wrapped.as_ref().is_some_and(|(name, _)| *name != target.name) {
            return Err(stale().into());
        }
        if let Some(modern) = era::modern_target(self.shard(), backend, route.index, self.caller).await? {
            let state = wrapped.map(|(_, state)| state);
            let asking = match self.reading(&route) {
                None => None,
                Some(reading) => match reading.turn().await {
                    Turn::Ask(asking) => Some(asking),
                    Turn::Kept(result, hints) => {
                        let answer = reads::again(&result, &self.id, hints);
                        let answer = match &route.outward_uri {
                            Some((own, outward)) => routing::with_outward_uris(answer, own, outward),
                            None => answer,
                        };
                        self.conclude(Answer::ok(answer), responder).await;
                        return Ok(());
                    }
                },
            };
            match straight::call(self, target, &modern, &route, state.as_deref(), asking, responder).await? {
                Upstream::Served => return Ok(()),
                // Its verdict has been withdrawn: it speaks the other language now.
                Upstream::NotModern => {}
            }
        } else if wrapped.is_some() {
            return Err(stale().into());
        }
        let lease = match lease {
            Some(lease) => lease,
            None => {
                let taken = runtime::race(pin!(lease::take(self, Some(route.index))), pin!(responder.left())).await;
                let runtime::Either::Left(lease) = taken else {
                    responder.abort();
                    return Ok(());
                };
                lease?
            }
        };
        Box::pin(bridge::call(self, lease, route, responder)).await
    }

    /// Lets what is asked for be judged, in a session.
    async fn judged(&self, lease: Option<Rc<Lease>>, route: &Route) -> Result<Rc<Lease>, Refusal> {
        let lease = match lease {
            Some(lease) => lease,
            None => Box::pin(lease::take(self, Some(route.index))).await?,
        };
        lock::check(self.incoming, &lease.session, self.method, &self.body, &self.envelope, route).await?;
        Ok(lease)
    }

    /// A read that may have been asked for before.
    fn reading(&self, route: &Route) -> Option<Reading<'_>> {
        if self.method != Method::ResourcesRead {
            return None;
        }
        let viewer = || cache::viewer_without(self.caller, &self.body, &self.envelope);
        cache::reads::reading(self.incoming, route, viewer, &self.body, &self.envelope)
    }

    fn state(&self) -> Result<Option<State>, Fault> {
        let Some(range) = self.envelope.request_state else { return Ok(None) };
        let text = json::string(&self.body, range).map_err(|_| stale())?;
        state::open(&self.shard().sealer, &self.caller, &text).map(Some).ok_or_else(stale)
    }

    /// The target, and the session that was needed to find it.
    async fn route(&self) -> Result<(Route, Option<Rc<Lease>>), Refusal> {
        let backend = self.incoming.backend;
        if backend.config.is_identity() {
            return Ok((Route::default(), None));
        }
        if self.method == Method::Tasks {
            return Ok((self.task_route().await?, None));
        }
        if let Some(route) = routing::known(backend, self.method, &self.body, &self.envelope) {
            return Ok((route, None));
        }
        let lease = lease::take(self, None).await?;
        let route =
            routing::route(self.shard(), backend, &lease.session, self.method, &self.body, &self.envelope).await?;
        Ok((route, Some(lease)))
    }

    /// The target of a task of the extension.
    async fn task_route(&self) -> Result<Route, Refusal> {
        const METHODS: [&str; 3] = ["tasks/get", "tasks/update", "tasks/cancel"];
        let not_found = || Refusal::from(Fault::new(Kind::MethodNotFound, "method not found"));
        let backend = self.incoming.backend;
        if !METHODS.iter().any(|method| self.envelope.method_is(&self.body, method)) {
            return Err(not_found());
        }
        let fault = match tasks::route(self.shard(), &self.caller, backend, &self.body, &self.envelope) {
            Ok(route) => return Ok(route),
            Err(fault) => fault,
        };
        let path = ["extensions", EXTENSION];
        let declared =
            self.envelope.meta_client_capabilities.and_then(|all| json::get_path(&self.body, all, &path).ok()?);
        let mut offered = false;
        for index in 0..backend.config.targets.len() {
            let modern = era::modern_target(self.shard(), backend, index, self.caller).await.ok().flatten();
            offered |= modern.is_some_and(|modern| modern.offers.task_extension);
        }
        match (offered, declared) {
            (false, _) => Err(not_found()),
            (true, None) => Err(Refusal::missing_capability(NEEDED)),
            (true, Some(_)) => Err(fault.into()),
        }
    }

    /// Writes the last message. That the client has left is no fault of the request.
    pub async fn conclude(&self, answer: Answer, responder: &mut Responder<'_>) {
        let _ = responder.conclude(answer.status, answer.body).await;
    }

    /// A fault; where a tool was called the model is told.
    async fn fail(&self, refusal: Refusal, responder: &mut Responder<'_>, record: &mut Record) {
        let Refusal { fault, data } = refusal;
        record.fault(&fault);
        let data = data.or_else(|| super::unknown_resource(&fault, &self.body, &self.envelope));
        let origin = fault.kind.origin();
        if origin != Origin::Downstream {
            tracing::warn!(target: "agentlane::mcp", %fault, method = self.method.label(), "request failed");
        }
        let answer = match self.method {
            Method::ToolsCall if origin != Origin::Downstream && fault.kind != Kind::Overloaded => {
                let target = record.target.as_ref().map(|target| target.name.as_str());
                let failure = super::failure_response(self.method, &self.id, &fault, target);
                Answer::ok(self.completed(failure))
            }
            _ => answer::of_fault(&self.id, &fault, data.as_deref()),
        };
        self.conclude(answer, responder).await;
    }

    /// Says what became of a call whose client did not agree to what its target needs.
    fn declined(&self, method: Method) -> Answer {
        const TEXT: &str = "the user did not agree to what the server needs";
        let message = match method {
            Method::ToolsCall => error::tool_failure(&self.id, TEXT),
            _ => error::error_response(Some(&self.id), -32603, TEXT),
        };
        Answer::ok(self.completed(message))
    }

    /// A response of our own that has the form of the revisions with sessions.
    fn completed(&self, message: Bytes) -> Bytes {
        match json::scan(&message, &super::SCAN_LIMITS) {
            Ok(envelope) => answer::of_legacy(message, &envelope, self.method, &self.id, Hints::NONE, GATEWAY).body,
            Err(_) => message,
        }
    }
}

/// A result with tools, as this revision knows them.
fn without_tasks(result: Bytes) -> Bytes {
    let Some(root) = memchr::memmem::find(&result, b"\"execution\"").and_then(|_| json::root(&result).ok()) else {
        return result;
    };
    let mut edits = Edits::default();
    edits.without_tasks(&result, root);
    edits.apply(result, root)
}

/// A `requestState` that says nothing to this caller for this request, now.
pub fn stale() -> Fault {
    Fault::new(Kind::InvalidParams, "unknown or expired requestState")
}

/// A target that gave no answer at all.
pub const fn no_answer() -> Fault {
    Fault::new(Kind::UpstreamBroken, "target ended its answer early")
}

/// The other shard on which a retry's request waits.
pub fn holder(shard: &Shard, body: &Bytes) -> Option<usize> {
    memchr::memmem::find(body, b"\"requestState\"")?;
    let envelope = json::scan(body, &super::SCAN_LIMITS).ok()?;
    let text = json::string(body, envelope.request_state?).ok()?;
    let holder = usize::from(state::Parked::open(&shard.sealer, &text)?.shard);
    (holder != shard.index && holder < shard.peers.len()).then_some(holder)
}

/// Ends what is left behind, for as long as the shard runs.
pub async fn sweep(shard: Rc<Shard>) {
    loop {
        runtime::sleep(SWEEP_EVERY).await;
        let now = runtime::now();
        park::sweep(&shard, now);
        lease::sweep(&shard, now);
        shard.callers.sweep(now);
    }
}

/// Lets the calls that were given up tell their targets so, for a moment at most.
pub async fn drained(shard: &Shard) {
    let until = runtime::now() + GIVE_UP_TIME;
    let is_busy = || shard.internal.borrow().values().any(|session| !session.in_flight.borrow().is_empty());
    while is_busy() && runtime::now() < until {
        runtime::sleep(GIVE_UP_LOOK).await;
    }
}

/// Nobody will come back to this process: ends what waits, and what is kept for later.
pub fn drain(shard: &Rc<Shard>) {
    park::end_all(shard);
    lease::end_idle(shard);
}
