//! From a target's answer to the client: as one JSON document where nothing but the answer comes, as events where there is
//! more to say, onto the session's stream when the client has left and may come back. The relay of one request.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use agentlane_link::client::Cut;
use agentlane_runtime as runtime;
use agentlane_wire::json::Envelope;
use bytes::Bytes;

use super::inbound::{self, Inbound};
use super::modern_leg::input::{self, Next};
use super::upstream::{self, Answer, Message};
use super::{leg, mcp_fault, modern_leg, tasks};
use crate::backend::mcp::TargetKind;
use crate::fault::{Fault, Kind};
use crate::limits::{KEEP_ALIVE_EVERY, RESUME_ATTEMPTS_MAX};
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::Method;
use crate::protocol::mcp::streams::Claim;
use crate::session::{LegId, OpenLeg, Session};
use crate::shard::Shard;
use crate::shard::responder::Responder;

/// Ours, and outside the range that JSON-RPC reserves.
const CANCELLED: i32 = -32800;

/// One request of the client on its way through one target.
#[derive(Clone)]
pub struct Call {
    pub shard: Rc<Shard>,
    pub session: Rc<Session>,
    pub leg: LegId,
    pub open: Rc<OpenLeg>,
    pub method: Method,
    /// The client's id, as JSON text.
    pub id: Bytes,
    /// The id at the target, where it differs.
    pub upstream_id: Option<u64>,
    /// The client's progress token, where the target has another.
    pub progress_token: Option<Bytes>,
    /// A target's own URI and its outward form, to be put into the answer.
    pub outward_uri: Option<(String, String)>,
    /// What the answer says of tasks that have other ids outward.
    pub tasks: tasks::Said,
    /// See [`InFlight`](crate::session::InFlight).
    pub cancelled: Rc<Cell<bool>>,
    /// When the whole answer must have come.
    pub deadline: Option<Instant>,
    /// See [`InFlight`](crate::session::InFlight): taken out before the answer's connection goes.
    pub socket: Rc<Cell<Option<Cut>>>,
    /// For a target of 2026-07-28.
    pub asked: Option<Rc<modern_leg::Asked>>,
}

/// Where the relay writes.
pub struct Sink<'r, 'c> {
    pub call: Call,
    /// `None` once the client has left.
    responder: Option<&'r mut Responder<'c>>,
    /// The stream, once events began.
    stream: Option<(u32, Claim)>,
}

impl Call {
    /// Whether nothing in a JSON answer must change.
    fn passes(&self) -> bool {
        self.outward_uri.is_none()
            && self.upstream_id.is_none()
            && self.tasks == tasks::Said::Nothing
            && !self.is_translated()
    }

    /// Whether answers may hold what the client's revision does not know.
    fn is_translated(&self) -> bool {
        self.open.is_newer_than(self.session.revision)
    }
}

/// How far a relay came before it had to go on without the client.
enum Progress {
    Done,
    /// The client left, or was sent away; the target still works.
    Detached {
        stream: u32,
        /// Milliseconds that the target wants to be left alone before it is asked again.
        retry: Option<u64>,
    },
}

/// Whether a request is over when its relay returns.
#[derive(Debug)]
pub enum Served {
    Done,
    /// It failed after events had begun, and the last one said so.
    Failed(Fault),
    /// A task goes on with it, and takes it out of the ones in flight at its end: until then it counts, and can be
    /// cancelled.
    Detached,
}

/// Relays until the answer is out. Faults are for the caller to write where nothing was written yet.
pub async fn relay(call: Call, answer: Answer, responder: &mut Responder<'_>) -> Result<Served, Fault> {
    let mut answer = answer;
    if let Answer::Json(mut http) = answer {
        if call.passes() && responder.is_direct() {
            let outcome = pass(&mut http, responder).await;
            call.socket.set(None);
            return outcome.map(|()| Served::Done);
        }
        answer = Answer::Json(http);
    }
    let mut last_event_id = None;
    let mut sink = Sink { call: call.clone(), responder: Some(responder), stream: None };
    let progress = Box::pin(run(&mut sink, &mut answer, &mut last_event_id, None)).await;
    if !matches!(progress, Ok(Progress::Detached { .. })) {
        call.socket.set(None);
    }
    let progress = match progress {
        Err(fault) if sink.stream.is_some() => {
            let response = failure(&call, &fault);
            let _ = sink.last(response).await;
            return Ok(Served::Failed(fault));
        }
        progress => progress?,
    };
    match progress {
        Progress::Done => {
            answer.finish().await;
            Ok(Served::Done)
        }
        Progress::Detached { stream, retry } => {
            runtime::spawn(detached(call, answer, last_event_id, stream, retry));
            Ok(Served::Detached)
        }
    }
}

/// A JSON answer that nothing in it must be changed: its bytes go through as they come.
pub async fn pass(http: &mut crate::shard::upstream::HttpAnswer, responder: &mut Responder<'_>) -> Result<(), Fault> {
    let length = http.head.framing.length();
    responder.begin(200, b"application/json", length);
    while let Some(chunk) = match http.chunk().await {
        Ok(chunk) => chunk,
        // The head is out: all that is left is to break the answer off, visibly.
        Err(fault) => {
            responder.abort();
            tracing::warn!(target: "agentlane::mcp", %fault, "a target broke its answer off");
            return Ok(());
        }
    } {
        if responder.data(chunk).await.is_err() {
            return Ok(());
        }
    }
    let _ = responder.end().await;
    Ok(())
}

/// Goes on for a client that left: what comes is kept for its return.
async fn detached(call: Call, mut answer: Answer, mut last_event_id: Option<Bytes>, stream: u32, retry: Option<u64>) {
    let mut sink = Sink { call: call.clone(), responder: None, stream: Some((stream, Claim::absent(stream))) };
    if let Err(fault) = run(&mut sink, &mut answer, &mut last_event_id, retry).await {
        let response = failure(&call, &fault);
        let _ = sink.last(response).await;
    }
    call.session.finished(&call.id);
    call.socket.set(None);
    answer.finish().await;
}

async fn run(
    sink: &mut Sink<'_, '_>,
    answer: &mut Answer,
    last_event_id: &mut Option<Bytes>,
    mut retry: Option<u64>,
) -> Result<Progress, Fault> {
    let mut resumed = 0;
    let mut rounds = 0;
    let mut repeated = false;
    loop {
        let next = sink.wait(answer).await;
        if matches!(answer, Answer::Accepted) {
            // Read whole: its connection is back in the pool, and somebody else's.
            sink.call.socket.set(None);
        }
        let message = match next {
            Ok(Some(message)) => message,
            _ if sink.call.cancelled.get() => {
                sink.cancelled().await;
                return Ok(Progress::Done);
            }
            // A stream may end early and be taken up again where it left, if its events had ids.
            outcome
                if sink.call.asked.is_none()
                    && answer.is_events()
                    && last_event_id.is_some()
                    && resumed < RESUME_ATTEMPTS_MAX =>
            {
                resumed += 1;
                drop(outcome);
                if let Some(stream) = sink.send_away(retry).await {
                    return Ok(Progress::Detached { stream, retry });
                }
                sink.call.socket.set(None);
                *answer = resume(&sink.call, last_event_id.as_ref(), retry, resumed).await?;
                answer.register_socket(&sink.call.socket);
                continue;
            }
            lost => {
                let fault = match lost {
                    Err(fault) => fault,
                    _ => Fault::new(Kind::UpstreamBroken, "target ended its answer early"),
                };
                if fault.kind != Kind::UpstreamBroken || std::mem::replace(&mut repeated, true) {
                    return Err(fault);
                }
                let Some(next) = modern_leg::again(&mut sink.call).await else { return Err(fault) };
                match next? {
                    Answer::Refused { status, body } => return Err(upstream::refusal(status, &body)),
                    next => *answer = next,
                }
                answer.register_socket(&sink.call.socket);
                continue;
            }
        };
        resumed = 0;
        if message.id.is_some() {
            last_event_id.clone_from(&message.id);
        }
        retry = message.retry.or(retry);
        let Some(data) = message.data else {
            sink.prime(message.retry).await;
            continue;
        };
        match inbound::sort(&sink.call.shard, &sink.call.session, sink.call.leg, data) {
            Inbound::Response(data, envelope) if sink.is_ours(&data, &envelope) => {
                if let Some(asked) = sink.call.asked.clone() {
                    sink.call.socket.set(None);
                    match Box::pin(input::go_on(sink, &asked, &data, &envelope, rounds)).await? {
                        Next::Answered => {}
                        Next::Asked(next) => {
                            std::mem::replace(answer, next).finish().await;
                            rounds += 1;
                            continue;
                        }
                        Next::Cancelled => {
                            sink.cancelled().await;
                            return Ok(Progress::Done);
                        }
                    }
                }
                let data = sink.outward(data, &envelope);
                sink.last(data).await;
                return Ok(Progress::Done);
            }
            Inbound::Response(..) | Inbound::Consumed => {}
            Inbound::Forward(data) => {
                let data = sink.renumbered(data);
                sink.event(data).await;
            }
        }
        if let Some(stream) = sink.left() {
            return Ok(Progress::Detached { stream, retry });
        }
    }
}

/// Takes an upstream stream up after the last event that came (2025-03-26 on: GET with `Last-Event-ID`).
async fn resume(call: &Call, last_event_id: Option<&Bytes>, retry: Option<u64>, attempt: u32) -> Result<Answer, Fault> {
    let leg = leg::leg_at(&call.session, call.leg)?;
    let TargetKind::Http(target) = &leg.target.kind else { return Err(mcp_fault::internal("leg of another kind")) };
    let pause = retry.unwrap_or(100).min(60_000) * u64::from(attempt);
    runtime::sleep(std::time::Duration::from_millis(pause)).await;
    let head = leg::bare_head("GET", &leg, target, &call.open, last_event_id.map(|id| &id[..]));
    let http = call
        .shard
        .upstream_exchange(
            &target.endpoint,
            agentlane_wire::h1::Method::Get,
            head,
            Default::default(),
            true,
            call.deadline,
        )
        .await?;
    match Answer::of(http, call.deadline).await? {
        Answer::Refused { status, body } => Err(upstream::refusal(status, &body)),
        answer => Ok(answer),
    }
}

impl Sink<'_, '_> {
    /// The target's next message. A silent target's client hears comments meanwhile, so that nothing in between takes
    /// the connection for dead.
    async fn wait(&mut self, answer: &mut Answer) -> Result<Option<Message>, Fault> {
        let mut next = pin!(answer.next());
        loop {
            match runtime::timeout(KEEP_ALIVE_EVERY, next.as_mut()).await {
                Ok(message) => return message,
                Err(_) => self.keep_alive().await,
            }
        }
    }

    pub async fn keep_alive(&mut self) {
        self.start().await;
        if let Some(responder) = &mut self.responder
            && responder.comment().await.is_err()
        {
            self.client_left();
        }
    }

    fn is_ours(&self, data: &[u8], envelope: &Envelope) -> bool {
        let Some(id) = envelope.answer_id().and_then(|range| range.of(data)) else {
            // An error without an id can only be about the one request of this exchange.
            return true;
        };
        match self.call.upstream_id {
            Some(_) => true,
            None => id == &self.call.id[..],
        }
    }

    /// A response as the client shall see it.
    fn outward(&self, data: Bytes, envelope: &Envelope) -> Bytes {
        let data = match self.call.upstream_id {
            Some(_) => inbound::in_clients_numbering(data, envelope, &self.call.id, None),
            None => data,
        };
        let data = match self.call.is_translated() {
            true => {
                let tool = self.call.asked.as_ref().and_then(|asked| asked.tool());
                modern_leg::translate(&self.call.session, &self.call.open, self.call.method, tool, data)
            }
            false => data,
        };
        let data = match self.call.tasks {
            tasks::Said::Nothing => data,
            said => tasks::answer(&self.call.shard, &self.call.session, self.call.leg, said, data),
        };
        match &self.call.outward_uri {
            Some((own, outward)) => super::routing::with_outward_uris(data, own, outward),
            None => data,
        }
    }

    fn renumbered(&self, data: Bytes) -> Bytes {
        let Some(token) = &self.call.progress_token else { return data };
        match agentlane_wire::json::scan(&data, &super::SCAN_LIMITS) {
            Ok(envelope) if envelope.method_is(&data, "notifications/progress") => {
                inbound::in_clients_numbering(data, &envelope, &self.call.id, Some(token))
            }
            _ => data,
        }
    }

    /// Opens the event stream, unless it is open.
    async fn start(&mut self) {
        if self.stream.is_some() {
            return;
        }
        let session = self.call.session.clone();
        let (stream, claim) = {
            let mut streams = session.streams.borrow_mut();
            let stream = streams.open();
            (stream, streams.claim(stream, None))
        };
        let Some(claim) = claim else { return };
        self.stream = Some((stream, claim));
        let Some(responder) = &mut self.responder else { return };
        let mut outcome = responder.begin_events().await;
        if outcome.is_ok() && session.revision.has_priming_events() {
            let position = session.streams.borrow_mut().position(stream);
            outcome = responder.prime(position).await;
        }
        if outcome.is_err() {
            self.client_left();
        }
    }

    /// The target primed its stream: it may end it early. So the client must be able to come back as well, and not sooner
    /// than the target's clients do.
    async fn prime(&mut self, retry: Option<u64>) {
        if !self.call.session.revision.has_priming_events() || self.stream.is_some() {
            return;
        }
        self.start().await;
        if let (Some(retry), Some(responder)) = (retry, &mut self.responder)
            && responder.retry(retry).await.is_err()
        {
            self.client_left();
        }
    }

    /// Writes a message that is not the answer.
    pub async fn event(&mut self, data: Bytes) {
        self.start().await;
        let Some((stream, claim)) = self.stream else { return };
        let session = self.call.session.clone();
        let id = session.streams.borrow_mut().push(stream, data.clone()).0;
        if self.responder.is_none() || !session.streams.borrow().holds(claim) {
            self.client_left();
            session.changed.notify_all();
            return;
        }
        let _ = session.streams.borrow_mut().next(claim);
        if let Some(responder) = &mut self.responder
            && responder.event(id, &data).await.is_err()
        {
            self.client_left();
        }
    }

    /// The answer itself.
    async fn last(&mut self, data: Bytes) -> Option<()> {
        if self.stream.is_none()
            && let Some(responder) = &mut self.responder
        {
            return responder.json(200, data).await.ok();
        }
        self.event(data).await;
        let (stream, claim) = self.stream?;
        let session = self.call.session.clone();
        session.streams.borrow_mut().end(stream);
        session.streams.borrow_mut().release(claim);
        session.changed.notify_all();
        match &mut self.responder {
            Some(responder) => responder.end().await.ok(),
            None => Some(()),
        }
    }

    /// The client cancelled and expects no answer any more.
    async fn cancelled(&mut self) {
        self.last(cancelled(&self.call.id)).await;
    }

    /// The target ended its stream and wants to be asked again. A client that understands that is told the same, so that
    /// it does not hold a connection meanwhile either; gives the stream that it will come back to.
    async fn send_away(&mut self, retry: Option<u64>) -> Option<u32> {
        let (stream, claim) = self.stream?;
        // Whoever gets all its messages one way could not come back.
        let can_return = self.responder.as_ref().is_none_or(|responder| responder.is_direct());
        if !self.call.session.revision.has_priming_events() || !can_return {
            return None;
        }
        // Who bridges the call is no client that comes back.
        let responder = self.responder.take_if(|responder| responder.is_direct())?;
        if let Some(retry) = retry {
            let _ = responder.retry(retry).await;
        }
        let _ = responder.end().await;
        self.call.session.streams.borrow_mut().release(claim);
        Some(stream)
    }

    /// The stream that a client may come back to, if it has just left.
    fn left(&self) -> Option<u32> {
        // A relay that never had a client goes on where it is.
        match (&self.responder, self.stream) {
            (Some(responder), Some((stream, _))) if responder.is_gone() => Some(stream),
            _ => None,
        }
    }

    fn client_left(&mut self) {
        if let Some(responder) = &mut self.responder {
            responder.abort();
        }
        if let Some((_, claim)) = self.stream {
            self.call.session.streams.borrow_mut().release(claim);
        }
    }
}

/// What ends the answer to a request that its client gave up.
pub fn cancelled(id: &[u8]) -> Bytes {
    error::error_response(Some(id), CANCELLED, "request cancelled")
}

/// A fault as an answer to the request.
pub fn failure(call: &Call, fault: &Fault) -> Bytes {
    super::failure_response(
        call.method,
        &call.id,
        fault,
        call.session.leg(call.leg).as_ref().map(|leg| leg.target.name.as_str()),
    )
}
