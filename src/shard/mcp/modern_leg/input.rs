//! A result that asks for more: its questions go to the client as requests of the gateway, on the stream of the client's
//! own request, and the request is sent again with the answers.

use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_runtime as runtime;
use agentlane_runtime::channel::{self, Receiver};
use agentlane_wire::json::{self, Envelope};
use bytes::{Bytes, BytesMut};

use super::{Asked, start};
use crate::fault::{Fault, Kind};
use crate::limits::{INPUT_REQUESTS_MAX, INPUT_ROUNDS_MAX, INPUT_TIME, KEEP_ALIVE_EVERY};
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::Method;
use crate::protocol::mcp::modern::envelope::{Can, Retry};
use crate::protocol::mcp::modern::input::{self, Ask, Form, InputRequired, Wrong};
use crate::protocol::mcp::modern::results::{self, ResultKind};
use crate::session::Session;
use crate::shard::mcp::relay::Sink;
use crate::shard::mcp::upstream::{self, Answer};
use crate::shard::mcp::{SCAN_LIMITS, mcp_fault};

/// The pause before a request is sent again for which nothing was asked; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Where a request goes on.
#[allow(clippy::large_enum_variant, reason = "made and taken apart at once, never stored")]
pub enum Next {
    /// The response is the answer.
    Answered,
    /// The target works on, and this is its answer.
    Asked(Answer),
    /// The client gave its request up.
    Cancelled,
}

/// A question that waits: the request's id in the session, and which one it is.
struct Waiting<'a> {
    ask: &'a Ask,
    /// `None` once it is answered.
    id: Option<u64>,
    value: Bytes,
}

/// Looks whether a response asks for more, and gives what that is answered. `round`: how many there were before.
pub async fn go_on(
    sink: &mut Sink<'_, '_>,
    asked: &Rc<Asked>,
    data: &Bytes,
    envelope: &Envelope,
    round: u32,
) -> Result<Next, Fault> {
    let Some(result) = envelope.result else { return Ok(Next::Answered) };
    match results::kind(data, result) {
        ResultKind::Complete => {
            // What answers of the client led to is this request's alone.
            if let Some(asking) = asked.asking.as_ref().filter(|_| asked.retry.borrow().is_none()) {
                asking.answered(data);
            }
            return Ok(Next::Answered);
        }
        ResultKind::Unknown => return Err(broken("target answered with an unknown kind of result")),
        ResultKind::InputRequired => {}
    }
    if !matches!(sink.call.method, Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead) {
        return Err(broken("target asks for input where it may not"));
    }
    if round >= INPUT_ROUNDS_MAX {
        return Err(broken("target asks for input again and again"));
    }
    let required = input::read(data, result).map_err(wrong)?;
    let retry = match Box::pin(gather(sink, &required, round)).await? {
        Some(retry) => retry,
        None => return Ok(Next::Cancelled),
    };
    if let Some(backend) = sink.call.shard.mcp_backend(&sink.call.session.backend) {
        // The time that the client took is not the target's.
        sink.call.deadline = upstream::call_deadline(backend.config.call_timeout);
    }
    asked.retry.replace(Some(retry));
    let answer = start(&mut sink.call, asked).await;
    if sink.call.cancelled.get() {
        return Ok(Next::Cancelled);
    }
    match answer? {
        Answer::Refused { status, body } => Err(upstream::refusal(status, &body)),
        answer => {
            answer.register_socket(&sink.call.socket);
            Ok(Next::Asked(answer))
        }
    }
}

/// What the request is sent again with; `None` when it was cancelled.
async fn gather(sink: &mut Sink<'_, '_>, required: &InputRequired, round: u32) -> Result<Option<Retry>, Fault> {
    let request_state = required.state.clone();
    if required.asks.is_empty() {
        let pause = PAUSE_MIN.saturating_mul(1 << round.min(8)).min(PAUSE_MAX);
        let given_up = std::pin::pin!(given_up(sink));
        return match runtime::timeout(pause, given_up).await {
            Ok(()) => Ok(None),
            Err(_) => Ok(Some(Retry { input_responses: None, request_state })),
        };
    }
    permitted(sink, &required.asks)?;
    let (answers, inbox) = channel::bounded(INPUT_REQUESTS_MAX);
    let mut waiting: Vec<Waiting<'_>> = Vec::with_capacity(required.asks.len());
    let outcome = async {
        for ask in &required.asks {
            let id = sink.call.session.server_requests.borrow_mut().add_local(sink.call.leg, answers.clone());
            let id = id.ok_or_else(mcp_fault::overloaded)?;
            waiting.push(Waiting { ask, id: Some(id), value: Bytes::new() });
            let form = input::in_revision(ask, sink.call.session.revision, id).map_err(wrong)?;
            match form {
                Form::Params(params) => sink.event(request(id, ask, &params)).await,
                Form::Answer(value) => {
                    forget(&sink.call.session, id);
                    if let Some(last) = waiting.last_mut() {
                        (last.id, last.value) = (None, value);
                    }
                }
            }
        }
        drop(answers);
        collect(sink, &mut waiting, &inbox).await
    }
    .await;
    // Whatever is left unanswered is nobody's any more, and the client may take its question back.
    for id in waiting.iter().filter_map(|one| one.id) {
        forget(&sink.call.session, id);
        sink.event(withdrawn(id)).await;
    }
    if !outcome? {
        return Ok(None);
    }
    let answers = waiting.iter().map(|one| (&one.ask.key, one.value.clone()));
    Ok(Some(Retry { input_responses: Some(input::responses(answers)), request_state }))
}

/// Nothing goes to a client that it did not declare, whatever the target asks for.
fn permitted(sink: &Sink<'_, '_>, asks: &[Ask]) -> Result<(), Fault> {
    let can = sink.call.open.modern.as_ref().map_or(Can::default(), |modern| modern.client.can);
    match asks.iter().find(|ask| !ask.kind.allowed(can)) {
        None => Ok(()),
        Some(ask) => Err(missing(ask)),
    }
}

/// What the client cannot do, for the model to read.
fn missing(ask: &Ask) -> Fault {
    let message = match ask.kind {
        input::Kind::Form => "it needs elicitation, which this client did not declare",
        input::Kind::Url => "it needs elicitation by URL, which this client did not declare",
        input::Kind::Sampling => "it needs sampling, which this client did not declare",
        input::Kind::SamplingWithTools => "it needs sampling with tools, which this client did not declare",
        input::Kind::Roots => "it needs roots, which this client did not declare",
    };
    Fault::new(Kind::CapabilityMissing, message).with(ask.kind.capability())
}

/// Waits until everything is answered; false when the request was cancelled. A client that has left may come back.
async fn collect(
    sink: &mut Sink<'_, '_>,
    waiting: &mut [Waiting<'_>],
    inbox: &Receiver<(u64, Bytes)>,
) -> Result<bool, Fault> {
    let until = runtime::now() + INPUT_TIME;
    while waiting.iter().any(|one| one.id.is_some()) {
        let Some((id, message)) = next(sink, inbox, until).await? else {
            return match is_over(sink) {
                true => Ok(false),
                false => late(waiting).map(|()| true),
            };
        };
        let Some(one) = waiting.iter_mut().find(|one| one.id == Some(id)) else { continue };
        let result = json::scan(&message, &SCAN_LIMITS).ok().and_then(|envelope| envelope.result);
        one.id = None;
        one.value = input::answer(one.ask.kind, &message, result).map_err(failed)?;
    }
    Ok(true)
}

/// The next answer; `None` when the request is over or the time is.
async fn next(
    sink: &mut Sink<'_, '_>,
    inbox: &Receiver<(u64, Bytes)>,
    until: Instant,
) -> Result<Option<(u64, Bytes)>, Fault> {
    let mut comment = runtime::now() + KEEP_ALIVE_EVERY;
    loop {
        let now = runtime::now();
        if is_over(sink) || now >= until {
            return Ok(None);
        }
        let session = sink.call.session.clone();
        let outcome = {
            let (answer, changed) = (std::pin::pin!(inbox.recv()), std::pin::pin!(session.changed.notified()));
            runtime::timeout(comment.min(until) - now, runtime::race(answer, changed)).await
        };
        match outcome {
            Ok(runtime::Either::Left(Some(answer))) => return Ok(Some(answer)),
            Ok(runtime::Either::Left(None)) => return Err(broken("target went away while the client was asked")),
            Ok(runtime::Either::Right(())) => {}
            Err(_) => {
                sink.keep_alive().await;
                comment = runtime::now() + KEEP_ALIVE_EVERY;
            }
        }
    }
}

fn is_over(sink: &Sink<'_, '_>) -> bool {
    sink.call.cancelled.get() || sink.call.session.ended.get()
}

/// Returns when the client gives its request up.
async fn given_up(sink: &Sink<'_, '_>) {
    while !is_over(sink) {
        sink.call.session.changed.notified().await;
    }
}

/// Nobody answered in time.
fn late(waiting: &mut [Waiting<'_>]) -> Result<(), Fault> {
    let is_form = |kind| matches!(kind, input::Kind::Form | input::Kind::Url);
    for one in waiting.iter_mut().filter(|one| one.id.is_some()) {
        if !is_form(one.ask.kind) {
            return Err(Fault::new(Kind::CapabilityMissing, "the client did not answer in time"));
        }
        one.value = input::dismissed();
    }
    Ok(())
}

fn forget(session: &Session, id: u64) {
    session.server_requests.borrow_mut().answered_locally(id);
}

fn request(id: u64, ask: &Ask, params: &Bytes) -> Bytes {
    let mut out =
        BytesMut::from(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{}\"", ask.kind.method()).as_bytes());
    if !params.is_empty() {
        out.extend_from_slice(b",\"params\":");
        out.extend_from_slice(params);
    }
    out.extend_from_slice(b"}");
    out.freeze()
}

/// The client need not answer any more.
fn withdrawn(id: u64) -> Bytes {
    let params = format!("{{\"requestId\":{id}}}");
    error::notification("notifications/cancelled", Some(params.as_bytes()))
}

fn broken(message: &'static str) -> Fault {
    Fault::new(Kind::UpstreamBroken, message)
}

/// The target asks for what cannot be read, or not be shown.
fn wrong(wrong: Wrong) -> Fault {
    broken(wrong.0)
}

/// The client failed at what it was asked, and the target cannot be told so.
fn failed(wrong: Wrong) -> Fault {
    Fault::new(Kind::CapabilityMissing, wrong.0)
}
