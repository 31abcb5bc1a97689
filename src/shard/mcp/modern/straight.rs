//! A request of a client of 2026-07-28 at a target of the same revision: no session, and nothing changed but names, what
//! they are mirrored in, and the target's `requestState`, which is sealed for the caller on its way out.

mod child;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use agentlane_link::client::Cut;
use agentlane_runtime as runtime;
use agentlane_wire::h1::{Known, Method as HttpMethod};
use agentlane_wire::json::{self, Envelope, MessageKind, Parts, Splice};
use bytes::{BufMut, Bytes, BytesMut};

use super::bridge::{keep_alive, may_ask};
use super::{Request, Route, no_answer};
use crate::backend::mcp::{Target, TargetKind};
use crate::fault::Fault;
use crate::limits::{KEEP_ALIVE_EVERY, UPSTREAM_MESSAGE_BYTES_MAX, WATCH_AFTER};
use crate::protocol::mcp::method::{ListKind, Method};
use crate::protocol::mcp::modern::UNSUPPORTED_VERSION;
use crate::protocol::mcp::modern::answer::{self, Answer as Answered};
use crate::protocol::mcp::modern::headers::put_mirrored;
use crate::protocol::mcp::modern::reads;
use crate::protocol::mcp::modern::request::Refusal;
use crate::protocol::mcp::modern::state;
use crate::protocol::mcp::modern::tools::Tools;
use crate::protocol::mcp::tasks::Naming;
use crate::shard::mcp::cache::reads::Asking;
use crate::shard::mcp::era::ModernTarget;
use crate::shard::mcp::upstream::{self, Answer};
use crate::shard::mcp::{SCAN_LIMITS, mcp_fault, relay, routing, tasks};
use crate::shard::responder::Responder;
use crate::shard::upstream::HttpAnswer;

/// How often a connection that is still being made is looked for, to end it.
const END_AGAIN: Duration = Duration::from_millis(20);

/// What became of a request.
pub enum Upstream {
    Served,
    /// The target does not speak this revision any more; it has executed nothing.
    NotModern,
}

/// What came from the target.
#[allow(clippy::large_enum_variant, reason = "one per request, on its task")]
enum Got {
    /// One document, not read yet, in which nothing must change.
    Stream(Box<HttpAnswer>),
    /// One document.
    Whole(Bytes),
    Events(Answer),
    Refused {
        status: u16,
        body: Bytes,
    },
}

/// Sends the request and relays what comes. `state`: the target's own, which the client brought back.
pub async fn call(
    request: &Request<'_>,
    target: &Target,
    modern: &ModernTarget,
    route: &Route,
    state: Option<&str>,
    asking: Option<Asking>,
    responder: &mut Responder<'_>,
) -> Result<Upstream, Refusal> {
    if let TargetKind::Stdio(stdio) = &target.kind {
        return Box::pin(child::call(request, target, stdio, modern, route, state, asking, responder)).await;
    }
    let socket = Cell::new(None);
    let exchange = exchange(request, target, modern, route, state, &socket, responder.is_direct());
    let Some(got) = watched(exchange, &socket, responder).await else { return Ok(Upstream::Served) };
    let tools = (!responder.is_direct()).then_some(&*modern.tools);
    let relayed = Relayed { request, target, route, tools, asking, tasks: names_tasks(request, modern) };
    match got? {
        Got::Stream(mut http) => {
            let outcome = relay::pass(&mut http, responder).await;
            socket.set(None);
            outcome?;
        }
        Got::Whole(body) => {
            relayed.learn(&body);
            relayed.keep(&body);
            let body = relayed.outward(body, None);
            request.conclude(Answered::ok(body), responder).await;
        }
        Got::Events(answer) => {
            let outcome = relayed.events(answer, &socket, responder).await;
            socket.set(None);
            outcome?;
        }
        Got::Refused { status, body } => return relayed.refused(status, body, responder).await,
    }
    Ok(Upstream::Served)
}

async fn exchange(
    request: &Request<'_>,
    target: &Target,
    modern: &ModernTarget,
    route: &Route,
    state: Option<&str>,
    socket: &Cell<Option<Cut>>,
    is_direct: bool,
) -> Result<Got, Fault> {
    let TargetKind::Http(target) = &target.kind else { return Err(mcp_fault::internal("leg of another kind")) };
    let (head, body) = outgoing(request, modern, route, state)?;
    let deadline = upstream::call_deadline(request.incoming.backend.config.call_timeout);
    let names_tasks = names_tasks(request, modern);
    let repeatable = !matches!(request.method, Method::ToolsCall | Method::Other | Method::Tasks);
    let http = request
        .shard()
        .upstream_exchange_on(&target.endpoint, HttpMethod::Post, head, body, repeatable, deadline, Some(socket))
        .await?;
    match Answer::of(http, deadline).await {
        Ok(Answer::Json(http))
            if is_direct && !may_ask(request.method) && route.outward_uri.is_none() && !names_tasks =>
        {
            Ok(Got::Stream(http))
        }
        Ok(Answer::Json(mut http)) => {
            let body = http.read_all(UPSTREAM_MESSAGE_BYTES_MAX).await;
            socket.set(None);
            Ok(Got::Whole(body?))
        }
        Ok(answer @ Answer::Events { .. }) => Ok(Got::Events(answer)),
        Ok(Answer::Refused { status, body }) => {
            socket.set(None);
            Ok(Got::Refused { status, body })
        }
        Ok(_) => {
            socket.set(None);
            Err(no_answer())
        }
        Err(fault) => {
            socket.set(None);
            Err(fault)
        }
    }
}

/// Head and body as the target gets them.
fn outgoing(
    request: &Request<'_>,
    modern: &ModernTarget,
    route: &Route,
    state: Option<&str>,
) -> Result<(Bytes, Parts), Fault> {
    let failed = |fault: json::JsonError| mcp_fault::internal("request could not be rewritten").with(fault);
    let passed_on = request.incoming.passed_on;
    let mut head = BytesMut::with_capacity(modern.post_head.len() + passed_on.len() + 160);
    head.put_slice(&modern.post_head);
    head.put_slice(passed_on);
    let passes = request.incoming.backend.config.targets.get(route.index).is_some_and(|to| to.kind.passes_credential());
    if let Some(value) = request.incoming.principal.credential.as_ref().filter(|_| passes) {
        head.put_slice(b"authorization: ");
        head.put_slice(value);
        head.put_slice(b"\r\n");
    }
    let mut splice: Splice = route.splice.clone();
    if let (Some(range), Some(state)) = (request.envelope.request_state, state) {
        splice.replace_string(range, state);
    }
    let body = if route.splice.is_empty() {
        let headers = request.incoming.headers;
        for known in [Known::McpMethod, Known::McpName] {
            if let Some(value) = headers.known(known) {
                head.put_slice(known.as_str().as_bytes());
                head.put_slice(b": ");
                head.put_slice(value);
                head.put_slice(b"\r\n");
            }
        }
        if splice.is_empty() {
            Parts::from_iter([request.body.clone()])
        } else {
            splice.encode(&request.body).map_err(failed)?
        }
    } else {
        let body = splice.contiguous(&request.body).map_err(failed)?;
        let envelope = json::scan(&body, &SCAN_LIMITS).map_err(failed)?;
        put_mirrored(&mut head, &body, &envelope, &[]);
        Parts::from_iter([body])
    };
    head.put_slice(b"content-length: ");
    upstream::put_decimal(&mut head, body.iter().map(Bytes::len).sum());
    head.put_slice(b"\r\n\r\n");
    Ok((head.freeze(), body))
}

/// Waits for a target as long as the client is there: when it leaves, the wait is ended at the socket, which is how this
/// revision cancels. `None`: it left. What is quick is not watched.
async fn watched<F: Future>(work: F, socket: &Cell<Option<Cut>>, responder: &Responder<'_>) -> Option<F::Output> {
    let mut work = pin!(work);
    if let Ok(done) = runtime::timeout(WATCH_AFTER, work.as_mut()).await {
        return Some(done);
    }
    match runtime::race(work.as_mut(), responder.left()).await {
        runtime::Either::Left(done) => Some(done),
        runtime::Either::Right(()) => {
            end(work, socket).await;
            None
        }
    }
}

/// Ends a wait at its socket, as soon as there is one.
async fn end(work: impl Future, socket: &Cell<Option<Cut>>) {
    let mut work = pin!(work);
    loop {
        if let Some(fd) = socket.take() {
            fd.end();
            work.await;
            return;
        }
        if runtime::timeout(END_AGAIN, work.as_mut()).await.is_ok() {
            return;
        }
    }
}

/// What is known of a request whose answer comes.
struct Relayed<'r, 'a> {
    request: &'r Request<'a>,
    target: &'r Target,
    route: &'r Route,
    /// Of a client that writes no headers: what will have to go into them.
    tools: Option<&'r RefCell<Tools>>,
    /// Of a resource that others may wait for.
    asking: Option<Asking>,
    /// The answer may name tasks, which have other ids outward.
    tasks: bool,
}

/// Whether an answer may name a task under an id that is not the client's.
fn names_tasks(request: &Request<'_>, modern: &ModernTarget) -> bool {
    !request.incoming.backend.config.is_identity()
        && modern.offers.task_extension
        && (request.method == Method::Tasks || may_ask(request.method))
}

impl Relayed<'_, '_> {
    /// Remembers which arguments of the listed tools go into headers.
    fn learn(&self, message: &[u8]) {
        let Some(tools) = self.tools.filter(|_| self.request.method == Method::List(ListKind::Tools)) else { return };
        let result = json::scan(message, &SCAN_LIMITS).ok().and_then(|envelope| envelope.result);
        if let Some(result) = result {
            tools.borrow_mut().learn(message, result);
        }
    }

    /// Others may get the same.
    fn keep(&self, message: &[u8]) {
        if let Some(asking) = &self.asking {
            asking.answered(message);
        }
    }

    /// The answer as the client shall see it.
    fn outward(&self, body: Bytes, envelope: Option<&Envelope>) -> Bytes {
        let body = match may_ask(self.request.method) && memchr::memmem::find(&body, b"input_required").is_some() {
            true => self.sealed(body, envelope),
            false => body,
        };
        let body = match self.tasks && memchr::memmem::find(&body, b"taskId").is_some() {
            true => self.with_tasks(body),
            false => body,
        };
        let is_ruled = || self.request.incoming.access.tells_callers_apart();
        let body = match self.request.method == Method::ResourcesRead && is_ruled() {
            true => reads::for_one(body),
            false => body,
        };
        match &self.route.outward_uri {
            Some((own, outward)) => routing::with_outward_uris(body, own, outward),
            None => body,
        }
    }

    /// Tasks under their outward ids.
    fn with_tasks(&self, body: Bytes) -> Bytes {
        let is_task = || {
            let result = json::scan(&body, &SCAN_LIMITS).ok()?.result?;
            let kind = json::get(&body, result, "resultType").ok()??;
            Some(json::raw_eq(&body, kind, "task"))
        };
        if self.request.method != Method::Tasks && is_task() != Some(true) {
            return body;
        }
        let (sealer, caller) = (&self.request.shard().sealer, &self.request.caller);
        tasks::renamed(&Naming { sealer, caller, target: &self.target.name }, tasks::Said::Task, body)
    }

    /// The target's state, where the answer holds one, sealed for this caller.
    fn sealed(&self, body: Bytes, envelope: Option<&Envelope>) -> Bytes {
        let wrap = || {
            let result = match envelope {
                Some(envelope) => envelope.result?,
                None => json::scan(&body, &SCAN_LIMITS).ok()?.result?,
            };
            let kind = json::get(&body, result, "resultType").ok()??;
            let range = json::get(&body, result, "requestState").ok()??;
            let state = json::string(&body, range).ok().filter(|_| json::raw_eq(&body, kind, "input_required"))?;
            let (sealer, caller) = (&self.request.shard().sealer, &self.request.caller);
            let sealed = state::wrap(sealer, caller, &self.target.name, &state).ok()?;
            let mut splice = Splice::new();
            splice.replace_string(range, &sealed);
            splice.contiguous(&body).ok()
        };
        wrap().unwrap_or(body)
    }

    async fn events(
        &self,
        mut answer: Answer,
        socket: &Cell<Option<Cut>>,
        responder: &mut Responder<'_>,
    ) -> Result<(), Refusal> {
        loop {
            let Some(message) = self.next(&mut answer, socket, responder).await? else { return Ok(()) };
            let Ok(envelope) = json::scan(&message, &SCAN_LIMITS) else { continue };
            match envelope.kind {
                MessageKind::Response | MessageKind::ErrorResponse => {
                    self.learn(&message);
                    self.keep(&message);
                    let body = self.outward(message, Some(&envelope));
                    socket.set(None);
                    self.request.conclude(Answered::ok(body), responder).await;
                    answer.finish().await;
                    return Ok(());
                }
                // Some servers log whether they were asked to or not.
                MessageKind::Notification
                    if envelope.method_is(&message, "notifications/message")
                        && self.request.envelope.meta_log_level.is_none() => {}
                MessageKind::Notification => {
                    if responder.message(&message).await.is_err() {
                        return Ok(());
                    }
                }
                MessageKind::Request | MessageKind::Invalid(_) => {
                    let target = &self.target.name;
                    tracing::warn!(target: "agentlane::mcp", target_name = %target, "a target sent what this revision does not have");
                }
            }
        }
    }

    /// The next message; `None` when the client has left.
    async fn next(
        &self,
        answer: &mut Answer,
        socket: &Cell<Option<Cut>>,
        responder: &mut Responder<'_>,
    ) -> Result<Option<Bytes>, Refusal> {
        loop {
            answer.register_socket(socket);
            let mut next = pin!(answer.next());
            let message = loop {
                match runtime::timeout(KEEP_ALIVE_EVERY, runtime::race(next.as_mut(), responder.left())).await {
                    Ok(runtime::Either::Left(message)) => break message?,
                    Ok(runtime::Either::Right(())) => {
                        end(next, socket).await;
                        return Ok(None);
                    }
                    Err(_) if keep_alive(responder).await.is_err() => {
                        end(next, socket).await;
                        return Ok(None);
                    }
                    Err(_) => {}
                }
            };
            let Some(message) = message else { return Err(no_answer().into()) };
            if message.data.is_some() {
                return Ok(message.data);
            }
        }
    }

    /// A status outside 2xx: the target's own error goes on, anything else is named.
    async fn refused(&self, status: u16, body: Bytes, responder: &mut Responder<'_>) -> Result<Upstream, Refusal> {
        let envelope = json::scan(&body, &SCAN_LIMITS).ok().filter(|found| found.kind == MessageKind::ErrorResponse);
        let code = envelope.as_ref().and_then(|envelope| {
            let code = json::get(&body, envelope.error?, "code").ok()??;
            std::str::from_utf8(code.of(&body)?).ok()?.parse::<i64>().ok()
        });
        if status < 500 && is_other_revision(code) {
            self.request.incoming.backend.eras.of(self.target).forget();
            return Ok(Upstream::NotModern);
        }
        match envelope {
            Some(envelope) if status < 500 && !matches!(status, 401 | 403 | 407) => {
                let answer = answer::of_error(&body, &envelope, &self.request.id);
                self.request.conclude(Answered { status, body: answer.body }, responder).await;
                Ok(Upstream::Served)
            }
            _ => Err(upstream::refusal(status, &body).into()),
        }
    }
}

/// Whether a target says that it does not speak this revision after all, and has done nothing.
fn is_other_revision(code: Option<i64>) -> bool {
    // -32000 to -32019 are what servers of the other revisions say to a request without a session.
    code.is_some_and(|code| code == UNSUPPORTED_VERSION || (-32019..=-32000).contains(&code))
}
