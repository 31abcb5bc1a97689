//! A target of the transport of 2024-11-05: everything that it says comes on one stream (GET), everything that it is told is
//! a POST to the place that the stream's first event names. One conversation like a child's, with the same ports, ids and
//! rules; only the pumps are others.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use agentlane_link::client::Cut;
use agentlane_runtime as runtime;
use agentlane_runtime::channel;
use agentlane_runtime::local::{Event, Notify};
use agentlane_wire::h1::{Known, Method as HttpMethod};
use agentlane_wire::sse::{self, SseDecoder};
use bytes::{BufMut, Bytes, BytesMut};

use super::child::{self, Link, Notes};
use super::leg::{self, Opened};
use super::upstream::{self, Answer, media_type_is};
use crate::backend::http::Endpoint;
use crate::backend::mcp::HttpTarget;
use crate::fault::{Fault, Kind};
use crate::limits::{
    CHILD_QUEUE, ENDPOINT_TIME, OLD_TRANSPORT_TIME, SSE_POST_PATIENCE, SSE_POST_TIME, SSE_POSTS_MAX,
    UPSTREAM_MESSAGE_BYTES_MAX,
};
use crate::protocol::mcp::sse2024;
use crate::session::{ChildCommand, ChildPort, Leg, OpenLeg, Session, Transport};
use crate::shard::Shard;
use crate::shard::upstream::HttpAnswer;

/// Why there is no conversation.
enum NoStream {
    /// The target answers, and does not speak this transport.
    OtherTransport(Fault),
    /// It could not be asked.
    Failed(Fault),
}

impl NoStream {
    fn fault(self) -> Fault {
        let (NoStream::OtherTransport(fault) | NoStream::Failed(fault)) = self;
        fault
    }
}

/// Opens the leg of a target that is configured as one of this transport.
pub async fn negotiate(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    leg: &Leg,
    target: &HttpTarget,
    deadline: Instant,
) -> Result<Opened, Fault> {
    let port = connect(shard, &leg.target.name, target, deadline).await.map_err(NoStream::fault)?;
    converse(shard, session, leg, port, deadline).await
}

/// Opens the leg of a target of unknown transport that was found to speak this one a while ago; `None` where it was not, or
/// does so no longer.
pub async fn known(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    leg: &Leg,
    target: &HttpTarget,
    deadline: Instant,
) -> Option<Result<Opened, Fault>> {
    let backend = shard.mcp_backend(&session.backend)?;
    let found = backend.old_transport.borrow().get(&leg.target.name).copied()?;
    if runtime::now() < found + OLD_TRANSPORT_TIME {
        match connect(shard, &leg.target.name, target, deadline).await {
            Ok(port) => return Some(converse(shard, session, leg, port, deadline).await),
            Err(NoStream::Failed(fault)) => return Some(Err(fault)),
            Err(NoStream::OtherTransport(_)) => {}
        }
    }
    backend.old_transport.borrow_mut().remove(&leg.target.name);
    None
}

/// A target refused `initialize` by POST: a server of this transport does so (transports page of 2025-03-26 and later,
/// "Backwards Compatibility"). `None` when it is none.
pub async fn instead(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    leg: &Leg,
    target: &HttpTarget,
    status: u16,
    deadline: Instant,
) -> Option<Result<Opened, Fault>> {
    if !matches!(status, 400 | 404 | 405) {
        return None;
    }
    // Other servers may open a stream as well, and say nothing on it.
    let until = deadline.min(runtime::now() + ENDPOINT_TIME);
    let port = connect(shard, &leg.target.name, target, until).await.ok()?;
    if let Some(backend) = shard.mcp_backend(&session.backend) {
        tracing::info!(target: "agentlane::mcp", target_name = %leg.target.name, "target speaks HTTP+SSE of 2024-11-05");
        backend.old_transport.borrow_mut().insert(leg.target.name.clone(), runtime::now());
    }
    Some(converse(shard, session, leg, port, deadline).await)
}

/// The handshake over an open stream.
async fn converse(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    leg: &Leg,
    port: ChildPort,
    deadline: Instant,
) -> Result<Opened, Fault> {
    let params = leg::initialize_params(session, leg.target.protocol);
    let raw = child::handshake(shard, &port, &params, deadline).await.inspect_err(|_| port.stop())?;
    let (revision, offers, result) = leg::read_result(&raw).inspect_err(|_| port.stop())?;
    child::attach(shard, session, leg.id, &port).inspect_err(|_| port.stop())?;
    let open = OpenLeg { revision, offers, transport: Transport::Stdio(port), modern: None, since: runtime::now() };
    Ok(Opened { leg: Rc::new(open), result: Some(result), raw })
}

/// The target's stream.
struct Events {
    http: HttpAnswer,
    decoder: SseDecoder,
}

impl Events {
    async fn next(&mut self) -> Result<Option<sse::Event>, Fault> {
        let broken = |fault| Fault::new(Kind::UpstreamBroken, "target sent a broken event stream").with(fault);
        loop {
            if let Some(event) = self.decoder.next_event().map_err(broken)? {
                return Ok(Some(event));
            }
            match self.http.chunk().await? {
                Some(chunk) => self.decoder.push(chunk),
                None => return Ok(None),
            }
        }
    }
}

/// Where messages go.
struct Mailbox {
    endpoint: Endpoint,
    post_head: Bytes,
    /// POSTs without an answer yet.
    posts: Cell<usize>,
    answered: Notify,
}

/// Opens the stream, waits for its first event, and puts the pumps on this shard.
async fn connect(shard: &Rc<Shard>, name: &str, target: &HttpTarget, deadline: Instant) -> Result<ChildPort, NoStream> {
    // Of several addresses the one that has the stream gets the messages too.
    let address = shard.address_of(&target.endpoint, None).map_err(NoStream::Failed)?;
    let endpoint = Endpoint { addresses: Arc::from([address]), ..target.endpoint.clone() };
    let head = stream_head(target);
    let http = shard
        .upstream_exchange(&endpoint, HttpMethod::Get, head, Default::default(), true, Some(deadline))
        .await
        .map_err(NoStream::Failed)?;
    let mut events = Events { http, decoder: SseDecoder::new(UPSTREAM_MESSAGE_BYTES_MAX) };
    let path = first_event(&mut events, target, deadline).await?;
    events.http.end_by(None);
    let mut post_head = BytesMut::with_capacity(384);
    post_head.put_slice(b"POST ");
    post_head.put_slice(path.as_bytes());
    leg::put_headers(&mut post_head, target, None, None);
    post_head.put_slice(b"content-type: application/json\r\naccept: */*\r\n");
    let mailbox = Mailbox { endpoint, post_head: post_head.freeze(), posts: Cell::new(0), answered: Notify::default() };
    Ok(start_pumps(shard, name, events, mailbox))
}

fn stream_head(target: &HttpTarget) -> Bytes {
    let mut head = BytesMut::with_capacity(384);
    head.put_slice(b"GET ");
    head.put_slice(target.path.as_bytes());
    leg::put_headers(&mut head, target, None, None);
    head.put_slice(b"accept: text/event-stream\r\ncache-control: no-store\r\n\r\n");
    head.freeze()
}

/// Path and query that the stream's first event names.
async fn first_event(events: &mut Events, target: &HttpTarget, deadline: Instant) -> Result<String, NoStream> {
    let other = |message| NoStream::OtherTransport(Fault::new(Kind::UpstreamBroken, message));
    let status = events.http.head.status;
    if status != 200 {
        let body = events.http.read_all(64 * 1024).await.unwrap_or_default();
        let fault = upstream::refusal(status, &body);
        return Err(if status >= 500 { NoStream::Failed(fault) } else { NoStream::OtherTransport(fault) });
    }
    let content_type = events.http.head.headers.known(Known::ContentType).unwrap_or_default();
    if !media_type_is(content_type, sse::CONTENT_TYPE) {
        return Err(other("target's stream is no event stream"));
    }
    events.http.end_by(Some(deadline));
    let event = match events.next().await {
        Ok(Some(event)) => event,
        Ok(None) => return Err(other("target ended its stream at once")),
        Err(fault) if fault.kind == Kind::UpstreamTimeout => return Err(other("target's stream names no endpoint")),
        Err(fault) => return Err(NoStream::Failed(fault)),
    };
    if event.event.as_deref() != Some(b"endpoint") {
        return Err(other("target's stream names no endpoint"));
    }
    let named = event.data.unwrap_or_default();
    let secure = target.endpoint.tls.is_some();
    sse2024::resolve(secure, &target.endpoint.authority, &target.path, &named).map_err(|reason| {
        let fault = Fault::new(Kind::UpstreamBroken, reason).with(String::from_utf8_lossy(&named));
        NoStream::OtherTransport(fault)
    })
}

fn start_pumps(shard: &Rc<Shard>, name: &str, events: Events, mailbox: Mailbox) -> ChildPort {
    let (commands, inbox) = channel::bounded(CHILD_QUEUE);
    let (stop, stopped) = channel::bounded(1);
    let port = ChildPort::new(commands.clone(), stop);
    let link = Rc::new(RefCell::new(Link::new(name, false, commands, Notes::default(), port.board.clone())));
    let ended = Rc::new(Event::new());
    // The stream's socket, for whoever ends it; taken out before it is closed.
    let socket = Rc::new(Cell::new(events.http.cut()));
    runtime::spawn(write_pump(shard.clone(), mailbox, inbox, link.clone(), ended.clone(), socket.clone()));
    let (closed, pump_ended, reading) = (port.closed.clone(), ended.clone(), socket.clone());
    runtime::spawn(async move {
        let mut events = events;
        read_pump(&mut events, &link).await;
        reading.set(None);
        closed.store(true, Ordering::Release);
        // Whoever waits learns by its closed channel.
        link.borrow_mut().forget_all();
        pump_ended.set();
    });
    runtime::spawn(async move {
        {
            let (stopped, ended) = (std::pin::pin!(stopped.recv()), std::pin::pin!(ended.wait()));
            runtime::race(stopped, ended).await;
        }
        hang_up(&socket);
    });
    port
}

/// Ends the stream, and with it the conversation.
fn hang_up(socket: &Cell<Option<Cut>>) {
    if let Some(socket) = socket.take() {
        socket.end();
    }
}

async fn read_pump(events: &mut Events, link: &Rc<RefCell<Link>>) {
    loop {
        let event = match events.next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(fault) => {
                tracing::debug!(target: "agentlane::mcp", target_name = link.borrow().name(), %fault, "a target's stream broke");
                return;
            }
        };
        let is_message = event.event.as_deref().is_none_or(|kind| kind == b"message");
        if let Some(data) = event.data.filter(|data| is_message && !data.is_empty()) {
            child::deliver(link, data).await;
        }
    }
}

async fn write_pump(
    shard: Rc<Shard>,
    mailbox: Mailbox,
    inbox: channel::Receiver<ChildCommand>,
    link: Rc<RefCell<Link>>,
    ended: Rc<Event>,
    socket: Rc<Cell<Option<Cut>>>,
) {
    let mailbox = Rc::new(mailbox);
    loop {
        let command = {
            let (next, ended) = (std::pin::pin!(inbox.recv()), std::pin::pin!(ended.wait()));
            match runtime::race(next, ended).await {
                runtime::Either::Left(Some(command)) => command,
                _ => return,
            }
        };
        let id = match &command {
            ChildCommand::Request { id, .. } => Some(*id),
            _ => None,
        };
        let Some(message) = link.borrow_mut().note(command) else { continue };
        while mailbox.posts.get() >= SSE_POSTS_MAX {
            let (answered, ended) = (std::pin::pin!(mailbox.answered.notified()), std::pin::pin!(ended.wait()));
            if let runtime::Either::Right(()) = runtime::race(answered, ended).await {
                return;
            }
        }
        mailbox.posts.set(mailbox.posts.get() + 1);
        let done = Rc::new(Event::new());
        let (shard, mailbox, link, socket, told) =
            (shard.clone(), mailbox.clone(), link.clone(), socket.clone(), done.clone());
        runtime::spawn(async move {
            if let Err(fault) = post(&shard, &mailbox, message).await {
                tracing::warn!(target: "agentlane::mcp", target_name = link.borrow().name(), %fault, "a message was not taken");
                // A request that may be under way is answered on the stream, or not; that is for its own deadline.
                if let Some(id) = id.filter(|_| fault.kind != Kind::UpstreamTimeout) {
                    link.borrow_mut().forget(id);
                }
                if fault.kind == Kind::SessionUnknown {
                    hang_up(&socket);
                }
            }
            mailbox.posts.set(mailbox.posts.get() - 1);
            mailbox.answered.notify_all();
            told.set();
        });
        // In their order, as far as the target takes them at once; one that it answers late must not hold the next ones up:
        // it may be the answer that it waits for.
        let _ = runtime::timeout(SSE_POST_PATIENCE, done.wait()).await;
    }
}

/// One message. Its answer comes on the stream; here comes only whether it was taken.
async fn post(shard: &Rc<Shard>, mailbox: &Mailbox, message: Bytes) -> Result<(), Fault> {
    let deadline = Some(runtime::now() + SSE_POST_TIME);
    let http = upstream::post(shard, &mailbox.endpoint, &mailbox.post_head, &[], message, false, deadline).await?;
    if (200..300).contains(&http.head.status) {
        let mut http = http;
        http.end_by(deadline);
        // What some say to it ("Accepted") is of no use to anybody.
        let _ = http.read_all(64 * 1024).await;
        return Ok(());
    }
    match Answer::of(http, deadline).await? {
        Answer::Refused { status: 404 | 410, .. } => {
            Err(Fault::new(Kind::SessionUnknown, "target does not know the conversation"))
        }
        Answer::Refused { status, body } => Err(upstream::refusal(status, &body)),
        _ => Ok(()),
    }
}
