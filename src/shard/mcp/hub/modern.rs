//! Listening to a target of 2026-07-28: one `subscriptions/listen` per stream.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_link::client::Cut;
use agentlane_runtime as runtime;
use agentlane_runtime::local::Event;
use agentlane_wire::json;
use bytes::{Bytes, BytesMut};

use super::Hub;
use super::feed::Feed;
use crate::backend::mcp::TargetKind;
use crate::fault::Fault;
use crate::protocol::mcp::error;
use crate::protocol::mcp::modern::listen::messages::{self, Heard};
use crate::protocol::mcp::modern::listen::{Change, Filter, StreamId};
use crate::protocol::mcp::modern::{HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION};
use crate::session::{ChildCommand, ChildPort, OpenLeg, Transport};
use crate::shard::Shard;
use crate::shard::mcp::upstream::{self, Answer};
use crate::shard::mcp::{SCAN_LIMITS, leg, mcp_fault, modern_leg};

/// The streams of one feed, to end them from outside.
#[derive(Default)]
pub struct Sockets(RefCell<Vec<(StreamId, Rc<Handle>)>>);

#[derive(Default)]
struct Handle {
    /// The socket on which the stream comes; out again before it is closed.
    socket: Cell<Option<Cut>>,
    /// Or the child, and the request that it knows the stream by.
    child: RefCell<Option<(ChildPort, u64)>>,
    closed: Event,
    /// A newer stream on the same child has taken its place, and has not ended.
    replaced: Cell<bool>,
    /// That one has ended.
    lost: Event,
}

impl Handle {
    /// Tells the child that nobody listens here any more.
    fn withdraw(&self) {
        let Some((port, number)) = self.child.take() else { return };
        let params = format!("{{\"requestId\":{number}}}");
        let cancelled = error::notification("notifications/cancelled", Some(params.as_bytes()));
        // A child that takes nothing more is ended otherwise.
        let _ = port.commands.try_send(ChildCommand::Forget { id: number });
        let _ = port.commands.try_send(ChildCommand::Send(cancelled));
    }
}

impl Sockets {
    fn add(&self, stream: StreamId) -> Rc<Handle> {
        let handle = Rc::new(Handle::default());
        self.0.borrow_mut().push((stream, handle.clone()));
        handle
    }

    /// Ends a stream: closing it is how a target learns that nobody listens any more.
    pub fn close(&self, stream: StreamId) {
        let mut handles = self.0.borrow_mut();
        let Some(at) = handles.iter().position(|(id, _)| *id == stream) else { return };
        let (_, handle) = handles.swap_remove(at);
        handle.closed.set();
        if let Some(socket) = handle.socket.take() {
            socket.end();
        }
        handle.withdraw();
    }

    /// Makes room on a child for a newer stream: some servers keep one for each conversation, and end the newest with any
    /// other. What is replaced goes on as if it were open until it is closed, or the newer one ends.
    fn replace(&self) -> Vec<Rc<Handle>> {
        let handles = self.0.borrow();
        let on_child = handles.iter().map(|(_, handle)| handle).filter(|handle| handle.child.borrow().is_some());
        let replaced: Vec<_> = on_child.cloned().collect();
        for handle in &replaced {
            handle.replaced.set(true);
            handle.withdraw();
        }
        replaced
    }
}

/// How a stream came to its end.
enum End {
    /// It broke, or ended as streams do.
    Broke(Option<Duration>),
    /// The target has none, or not for us.
    Unheard,
}

/// Opens a stream and reads it to its end. False: the target has none, or not for us, which nobody has been told yet.
pub async fn listen(shard: &Rc<Shard>, feed: &Rc<Feed>, stream: StreamId, filter: &Filter, open: &Rc<OpenLeg>) -> bool {
    if !feed.wants(stream) {
        return true;
    }
    let replaced = match &open.transport {
        Transport::Stdio(_) => feed.sockets.replace(),
        Transport::Http { .. } => Vec::new(),
    };
    let handle = feed.sockets.add(stream);
    let end = match begin(shard, feed, &handle, filter, open).await {
        Ok(answer) => read(shard, feed, stream, &handle, answer, open).await,
        Err(fault) => {
            tracing::debug!(target: "agentlane::mcp", %fault, "a listen could not be opened");
            End::Broke(None)
        }
    };
    handle.socket.set(None);
    feed.sockets.close(stream);
    replaced.iter().for_each(|handle| handle.lost.set());
    let End::Broke(pause) = end else { return false };
    feed.apply(shard, |source, now| source.broke(now, stream, pause));
    true
}

async fn begin(
    shard: &Rc<Shard>,
    feed: &Feed,
    handle: &Handle,
    filter: &Filter,
    open: &Rc<OpenLeg>,
) -> Result<Answer, Fault> {
    let Some(modern) = &open.modern else { return Err(mcp_fault::internal("leg of another era")) };
    let mut text = BytesMut::new();
    filter.write_into(&mut text);
    let number = shard.call_id();
    let request = modern_leg::listen_request(number, &text, &modern.client)?;
    let deadline = Some(deadline(shard, feed));
    let leg = leg::leg_at(&feed.session, feed.leg)?;
    let credential = leg.credential.borrow().clone();
    match (&open.transport, &leg.target.kind) {
        (Transport::Http { post_head, .. }, TargetKind::Http(target)) => {
            let socket = Some(&handle.socket);
            modern_leg::post(shard, target, post_head, request, &[], &credential, true, deadline, socket).await
        }
        (Transport::Stdio(port), _) => {
            handle.child.replace(Some((port.clone(), number)));
            upstream::ask_child(port, number, request, deadline, None)
        }
        _ => Err(mcp_fault::internal("leg of another kind")),
    }
}

/// Until when a target must have acknowledged a listen.
fn deadline(shard: &Shard, feed: &Feed) -> Instant {
    let backend = shard.mcp_backend(&feed.session.backend);
    runtime::now() + backend.map_or(crate::limits::MESH_DEADLINE, |backend| backend.config.deadline)
}

async fn read(
    shard: &Rc<Shard>,
    feed: &Rc<Feed>,
    stream: StreamId,
    handle: &Handle,
    mut answer: Answer,
    open: &Rc<OpenLeg>,
) -> End {
    if let Answer::Refused { status, body } = &answer {
        return refused(*status, body);
    }
    let mut pause = None;
    loop {
        let message = match next(&mut answer, handle).await {
            Ok(Some(message)) => message,
            _ if handle.replaced.get() => {
                let (closed, lost) = (std::pin::pin!(handle.closed.wait()), std::pin::pin!(handle.lost.wait()));
                runtime::race(closed, lost).await;
                return End::Broke(pause);
            }
            Ok(None) => return End::Broke(pause),
            Err(fault) => {
                tracing::debug!(target: "agentlane::mcp", %fault, "a target's listen stream broke");
                return End::Broke(pause);
            }
        };
        pause = message.retry.map(Duration::from_millis).or(pause);
        let Some(data) = message.data else { continue };
        match heard(&data) {
            Heard::Acknowledged(granted) => {
                answer.without_deadline();
                feed.apply(shard, |source, now| source.opened(now, stream, &granted, open.offers.lists()));
            }
            Heard::Changed(change) => {
                if let (Change::List(list), Transport::Stdio(port)) = (&change, &open.transport)
                    && port.shared
                    && let Some(leg) = feed.session.leg(feed.leg)
                {
                    // The caller's other shards listen on the same child, of whom it may tell the newest alone.
                    Hub::tell_others(shard, &feed.session, &leg.target.name, *list);
                }
                feed.changed(shard, stream, change);
            }
            Heard::Ended => return End::Broke(pause),
            Heard::Refused(code) => {
                tracing::debug!(target: "agentlane::mcp", code, "a target refused a listen");
                if code == UNSUPPORTED_VERSION {
                    // It is not what it was taken for: the next attempt asks again.
                    modern_leg::correct(shard, &feed.session, feed.leg, open);
                }
                return if is_final(code) { End::Unheard } else { End::Broke(pause) };
            }
            Heard::Other => {}
        }
    }
}

async fn next(answer: &mut Answer, handle: &Handle) -> Result<Option<upstream::Message>, Fault> {
    if !matches!(answer, Answer::Child { .. }) {
        // Ended from outside by its socket; never dropped in flight.
        return answer.next().await;
    }
    let (message, closed) = (std::pin::pin!(answer.next()), std::pin::pin!(handle.closed.wait()));
    match runtime::race(message, closed).await {
        runtime::Either::Left(message) => message,
        runtime::Either::Right(()) => Err(mcp_fault::internal("listen was given up")),
    }
}

fn heard(message: &Bytes) -> Heard {
    match json::scan(message, &SCAN_LIMITS) {
        Ok(envelope) => messages::heard(message, &envelope),
        Err(_) => Heard::Other,
    }
}

/// Whether an error says that there are no such streams, or not for us, rather than that something went wrong.
const fn is_final(code: i64) -> bool {
    matches!(code, -32600 | -32601 | -32602 | HEADER_MISMATCH | MISSING_CAPABILITY)
}

/// A status outside 2xx: an outage passes, anything else is the target's word.
fn refused(status: u16, body: &Bytes) -> End {
    let fault = upstream::refusal(status, body);
    tracing::debug!(target: "agentlane::mcp", %fault, "a target refused a listen");
    match status {
        408 | 425 | 429 | 500.. => End::Broke(None),
        _ => End::Unheard,
    }
}
