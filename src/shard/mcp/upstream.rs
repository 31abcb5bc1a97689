//! One message to one target and what comes back, over either transport. It does not know what the messages are for.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_link::client::Cut;
use agentlane_runtime as runtime;
use agentlane_runtime::channel;
use agentlane_wire::h1::{Header, Headers, Known};
use agentlane_wire::json::Parts;
use agentlane_wire::sse::SseDecoder;
use bytes::{BufMut, Bytes, BytesMut};

use super::{leg, mcp_fault, modern_leg};
use crate::backend::http::Endpoint;
use crate::backend::mcp::TargetKind;
use crate::fault::{Fault, Kind};
use crate::limits::{RELAY_QUEUE, UPSTREAM_MESSAGE_BYTES_MAX};
use crate::request::HeaderEdits;
use crate::session::board::{CallMark, UnderWay};
use crate::session::{ChildCommand, ChildPort, LegId, OpenLeg, Session, Transport};
use crate::shard::Shard;
use crate::shard::upstream::HttpAnswer;

/// A refusal's body is read up to this length, for its message.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// A message of a target, or what else its stream says.
#[derive(Debug, Default)]
pub struct Message {
    /// The JSON-RPC message; `None` for an event without one (a priming event).
    pub data: Option<Bytes>,
    /// The event's id.
    pub id: Option<Bytes>,
    /// Milliseconds to wait before coming back.
    pub retry: Option<u64>,
}

/// What a target answered to one message.
#[allow(clippy::large_enum_variant, reason = "one per request, on its task")]
pub enum Answer {
    /// One JSON document, not read yet.
    Json(Box<HttpAnswer>),
    /// A stream of events, that must have said what is wanted by `deadline`.
    Events { http: Box<HttpAnswer>, decoder: SseDecoder, ended: bool, deadline: Option<Instant> },
    /// A child's messages that belong to the request.
    Child { messages: channel::Receiver<Bytes>, deadline: Option<Instant>, under_way: UnderWay },
    /// One JSON document that has come.
    Whole(Bytes),
    /// Taken, without an answer.
    Accepted,
    /// A status outside 2xx.
    Refused { status: u16, body: Bytes },
}

impl Answer {
    /// Sorts an HTTP answer by its status and content type. `deadline`: when the whole of it must have come.
    pub async fn of(mut http: HttpAnswer, deadline: Option<Instant>) -> Result<Answer, Fault> {
        http.end_by(deadline);
        let status = http.head.status;
        if !(200..300).contains(&status) {
            let body = http.read_all(REFUSAL_BYTES_MAX).await.unwrap_or_default();
            return Ok(Answer::Refused { status, body });
        }
        if status == 202 || status == 204 {
            let _ = http.read_all(REFUSAL_BYTES_MAX).await;
            return Ok(Answer::Accepted);
        }
        let content_type = http.head.headers.known(Known::ContentType).unwrap_or_default();
        if media_type_is(content_type, "text/event-stream") {
            let decoder = SseDecoder::new(UPSTREAM_MESSAGE_BYTES_MAX);
            return Ok(Answer::Events { http: Box::new(http), decoder, ended: false, deadline });
        }
        if media_type_is(content_type, "application/json") {
            return Ok(Answer::Json(Box::new(http)));
        }
        let detail = String::from_utf8_lossy(content_type).into_owned();
        Err(Fault::new(Kind::UpstreamBroken, "target answered with neither JSON nor events").with(detail))
    }

    /// The next message; `None` at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<Message>, Fault> {
        match self {
            Answer::Json(http) => {
                let body = http.read_all(UPSTREAM_MESSAGE_BYTES_MAX).await?;
                *self = Answer::Accepted;
                Ok(Some(Message { data: Some(body), ..Message::default() }))
            }
            Answer::Events { http, decoder, ended, deadline } => next_event(http, decoder, ended, *deadline).await,
            Answer::Child { messages, deadline, .. } => {
                let message = match deadline {
                    Some(at) => {
                        let left = at.saturating_duration_since(runtime::now());
                        runtime::timeout(left, messages.recv()).await.map_err(|_| mcp_fault::timeout())?
                    }
                    None => messages.recv().await,
                };
                Ok(message.map(|data| Message { data: Some(data), ..Message::default() }))
            }
            Answer::Whole(body) => {
                let data = Some(std::mem::take(body));
                *self = Answer::Accepted;
                Ok(Some(Message { data, ..Message::default() }))
            }
            Answer::Accepted | Answer::Refused { .. } => Ok(None),
        }
    }

    /// From here on it may stay silent for as long as it likes.
    pub fn without_deadline(&mut self) {
        if let Answer::Events { deadline, .. } | Answer::Child { deadline, .. } = self {
            *deadline = None;
        }
    }

    /// Notes the socket that the answer comes on, for as long as this answer lives: whoever registers takes it out again.
    pub fn register_socket(&self, socket: &Cell<Option<Cut>>) {
        let (Answer::Json(http) | Answer::Events { http, .. }) = self else { return };
        socket.set(http.cut());
    }

    /// Whether the connection is a stream that may be resumed.
    pub fn is_events(&self) -> bool {
        matches!(self, Answer::Events { .. })
    }

    /// The wanted message was read: leave the connection fit for the next one where that costs nothing.
    pub async fn finish(self) {
        if let Answer::Events { mut http, ended: false, .. } = self {
            http.finish_soon().await;
        }
    }
}

async fn next_event(
    http: &mut HttpAnswer,
    decoder: &mut SseDecoder,
    ended: &mut bool,
    deadline: Option<Instant>,
) -> Result<Option<Message>, Fault> {
    let broken = |fault| Fault::new(Kind::UpstreamBroken, "target sent a broken event stream").with(fault);
    loop {
        while let Some(event) = decoder.next_event().map_err(broken)? {
            let data = event.data.filter(|data| !data.is_empty());
            if data.is_some() || event.id.is_some() || event.retry.is_some() {
                return Ok(Some(Message { data, id: event.id, retry: event.retry }));
            }
        }
        if *ended {
            return Ok(None);
        }
        http.end_by(deadline);
        match http.chunk().await? {
            Some(chunk) => decoder.push(chunk),
            None => *ended = true,
        }
    }
}

/// Sends a message over HTTP. `extra`: headers of the client's request that go along. `repeatable`: it may be sent again
/// when a kept connection turns out to be dead.
pub async fn post(
    shard: &Rc<Shard>,
    endpoint: &Endpoint,
    post_head: &[u8],
    extra: &[u8],
    message: impl Into<PostBody>,
    repeatable: bool,
    deadline: Option<Instant>,
) -> Result<HttpAnswer, Fault> {
    post_on(shard, endpoint, post_head, extra, message, repeatable, deadline, None).await
}

/// The same. `socket`: see [`Shard::upstream_exchange_on`].
#[allow(clippy::too_many_arguments, reason = "one call, all of it needed on the wire")]
async fn post_on(
    shard: &Rc<Shard>,
    endpoint: &Endpoint,
    post_head: &[u8],
    extra: &[u8],
    message: impl Into<PostBody>,
    repeatable: bool,
    deadline: Option<Instant>,
    socket: Option<&Cell<Option<Cut>>>,
) -> Result<HttpAnswer, Fault> {
    let body = message.into().0;
    let length: usize = body.iter().map(Bytes::len).sum();
    let mut head = BytesMut::with_capacity(post_head.len() + extra.len() + 40);
    head.put_slice(post_head);
    head.put_slice(extra);
    head.put_slice(b"content-length: ");
    put_decimal(&mut head, length);
    head.put_slice(b"\r\n\r\n");
    let method = agentlane_wire::h1::Method::Post;
    shard.upstream_exchange_on(endpoint, method, head.freeze(), body, repeatable, deadline, socket).await
}

/// A message in one piece or in several.
pub struct PostBody(pub Parts);

impl From<Bytes> for PostBody {
    fn from(message: Bytes) -> Self {
        PostBody(Parts::from_iter([message]))
    }
}

impl From<Parts> for PostBody {
    fn from(parts: Parts) -> Self {
        PostBody(parts)
    }
}

/// Sends a request and gives its response; whatever else comes on the way is dropped. For the gateway's own requests.
pub async fn ask(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    open: &Rc<OpenLeg>,
    id: LegId,
    request: Bytes,
    repeatable: bool,
    deadline: Instant,
) -> Result<Bytes, Fault> {
    let mut answer = send(shard, session, open, id, request, &[], repeatable, Some(deadline)).await?;
    if let Answer::Refused { status, body } = &answer {
        return Err(match forgot_session(open, *status, body) {
            true => mcp_fault::session_unknown(),
            false => refusal(*status, body),
        });
    }
    while let Some(message) = answer.next().await? {
        let Some(data) = message.data else { continue };
        if super::inbound::is_response(&data) {
            answer.finish().await;
            return Ok(data);
        }
    }
    Err(Fault::new(Kind::UpstreamBroken, "target ended its stream without an answer"))
}

/// Sends a request whose id, on a child, must be a number of ours: `request` then has it in place already.
#[allow(clippy::too_many_arguments, reason = "one call, all of it needed on the wire")]
pub async fn send(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    open: &Rc<OpenLeg>,
    id: LegId,
    request: impl Into<PostBody>,
    extra: &[u8],
    repeatable: bool,
    deadline: Option<Instant>,
) -> Result<Answer, Fault> {
    send_on(shard, session, open, id, request, extra, repeatable, deadline, None).await
}

/// The same. `socket`: where the connection is noted for as long as its answer comes, so that the wait can be ended there.
#[allow(clippy::too_many_arguments, reason = "one call, all of it needed on the wire")]
pub async fn send_on(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    open: &Rc<OpenLeg>,
    id: LegId,
    request: impl Into<PostBody>,
    extra: &[u8],
    repeatable: bool,
    deadline: Option<Instant>,
    socket: Option<&Cell<Option<Cut>>>,
) -> Result<Answer, Fault> {
    if let Some(modern) = &open.modern {
        let request = join(request.into().0);
        return Box::pin(modern_leg::send(shard, session, open, modern, id, request, deadline)).await;
    }
    match &open.transport {
        Transport::Http { post_head, .. } => {
            let leg = leg::leg_at(session, id)?;
            let TargetKind::Http(target) = &leg.target.kind else {
                return Err(mcp_fault::internal("leg of another kind"));
            };
            let credential = leg.credential.borrow().clone();
            let with_credential;
            let extra = match credential.is_empty() {
                true => extra,
                false => {
                    with_credential = [extra, &credential].concat();
                    &with_credential
                }
            };
            let http =
                post_on(shard, &target.endpoint, post_head, extra, request, repeatable, deadline, socket).await?;
            let answer = Answer::of(http, deadline).await;
            if !matches!(answer, Ok(Answer::Json(_) | Answer::Events { .. })) {
                // Its connection is somebody else's from here on.
                socket.map(Cell::take);
            }
            answer
        }
        Transport::Stdio(port) => {
            let message = join(request.into().0);
            let call = shard.call_id();
            let message = super::child::with_id(&message, call)?;
            ask_child(port, call, message, deadline, None)
        }
    }
}

/// Hands a request to a child; `message` carries `id`. `mark`: whose it is, for the log.
pub fn ask_child(
    port: &ChildPort,
    id: u64,
    message: Bytes,
    deadline: Option<Instant>,
    mark: Option<CallMark>,
) -> Result<Answer, Fault> {
    let under_way = port.board.begin().ok_or_else(mcp_fault::child_rests)?;
    let (reply, messages) = channel::bounded(RELAY_QUEUE);
    port.commands.try_send(ChildCommand::Request { id, message, reply, mark }).map_err(|_| mcp_fault::child_busy())?;
    Ok(Answer::Child { messages, deadline, under_way })
}

/// Sends a notification or an answer.
pub async fn tell(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    open: &Rc<OpenLeg>,
    id: LegId,
    message: Bytes,
    deadline: Instant,
) -> Result<(), Fault> {
    if open.modern.is_some() && !modern_leg::is_told(open, &message) {
        return Ok(());
    }
    match &open.transport {
        Transport::Http { post_head, .. } => {
            let leg = leg::leg_at(session, id)?;
            let TargetKind::Http(target) = &leg.target.kind else {
                return Err(mcp_fault::internal("leg of another kind"));
            };
            let credential = leg.credential.borrow().clone();
            let http = post(shard, &target.endpoint, post_head, &credential, message, true, Some(deadline)).await?;
            match Answer::of(http, Some(deadline)).await? {
                Answer::Refused { status, body } => Err(refusal(status, &body)),
                answer => {
                    answer.finish().await;
                    Ok(())
                }
            }
        }
        Transport::Stdio(port) => {
            port.commands.try_send(ChildCommand::Send(message)).map_err(|_| mcp_fault::child_busy())
        }
    }
}

/// Whether a refusal means that the target does not know the session any more: 404 by the specification; several servers
/// say 400 and name the session. Either way the message was not executed.
pub fn forgot_session(open: &OpenLeg, status: u16, body: &[u8]) -> bool {
    let Transport::Http { session: Some(_), .. } = &open.transport else { return false };
    status == 404 || (status == 400 && memchr::memmem::find(body, b"ession").is_some())
}

/// A status outside 2xx as a fault.
pub fn refusal(status: u16, body: &[u8]) -> Fault {
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    let message = match status {
        401 | 403 => "target refused our credentials",
        404 => "target does not know the endpoint",
        429 => "target is rate limiting",
        500.. => "target failed",
        _ => "target refused the request",
    };
    Fault::new(Kind::UpstreamBroken, message).with(format!("status {status}: {text}"))
}

/// The headers of a client's request that a target gets: end-to-end ones that are neither credentials nor ours to set, and
/// what the route's policies add.
pub fn passed_on(headers: &Headers, edits: &HeaderEdits) -> BytesMut {
    let mut out = BytesMut::new();
    let mut put = |name: &[u8], value: &[u8]| {
        out.put_slice(name);
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    };
    for header in headers.iter().filter(is_passed_on) {
        if edits.is_empty() || edits.keeps(header.name) {
            put(header.name.as_bytes(), header.value);
        }
    }
    edits.written().for_each(|(name, value)| put(name, value));
    out
}

fn is_passed_on(header: &Header<'_>) -> bool {
    // Of the connection, of the browser, of this message, or a credential for us.
    const PREFIXES: [&str; 5] = ["sec-", "accept", "content-", "access-control-", "if-"];
    const NAMES: [&str; 8] =
        ["referer", "priority", "dnt", "pragma", "http2-settings", "x-real-ip", "api-key", "x-api-key"];
    match header.known {
        Known::Traceparent | Known::Tracestate => true,
        Known::Other => {
            let starts =
                |prefix: &&str| header.name.get(..prefix.len()).is_some_and(|front| front.eq_ignore_ascii_case(prefix));
            !PREFIXES.iter().any(starts) && !NAMES.iter().any(|name| header.name.eq_ignore_ascii_case(name))
        }
        _ => false,
    }
}

/// Whether a `Content-Type` value names this media type, parameters aside.
pub fn media_type_is(value: &[u8], media_type: &str) -> bool {
    let essence = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(media_type.as_bytes())
}

/// All parts in one piece.
pub fn join(mut parts: Parts) -> Bytes {
    if parts.len() == 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut out = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| out.put_slice(part));
    out.freeze()
}

pub fn put_decimal(out: &mut BytesMut, mut value: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// Until when a call may take, if it may not take for ever.
pub fn call_deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.map(|timeout| runtime::now() + timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_and_media_types() {
        for value in [0, 7, 10, 12_345, usize::MAX] {
            let mut out = BytesMut::new();
            put_decimal(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
        }
        assert!(media_type_is(b"Application/JSON; charset=utf-8", "application/json"));
        assert!(!media_type_is(b"application/jsonx", "application/json"));
    }
}
