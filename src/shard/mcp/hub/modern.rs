//! Listening to a target of 2026-07-28: one `subscriptions/listen` per stream.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_link::client::Cut;
use agentlane_runtime as runtime;
use agentlane_runtime::local::Event;
use agentlane_wire::json;
use bytes::{Bytes, BytesMut};

use super::feed::Feed;
use crate::backend::mcp::TargetKind;
use crate::fault::Fault;
use crate::protocol::mcp::error;
use crate::protocol::mcp::modern::listen::messages::{self, Heard};
use crate::protocol::mcp::modern::listen::{Filter, StreamId};
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
        if let Some((port, number)) = handle.child.take() {
            let params = format!("{{\"requestId\":{number}}}");
            let cancelled = error::notification("notifications/cancelled", Some(params.as_bytes()));
            // A child that takes nothing more is ended otherwise.
            let _ = port.commands.try_send(ChildCommand::Send(cancelled));
            let _ = port.commands.try_send(ChildCommand::Forget { id: number });
        }
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
    match (&open.transport, &leg::leg_at(&feed.session, feed.leg)?.target.kind) {
        (Transport::Http { post_head, .. }, TargetKind::Http(target)) => {
            let socket = Some(&handle.socket);
            modern_leg::post(shard, target, post_head, request, &[], &[], true, deadline, socket).await
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
            Heard::Changed(change) => feed.changed(shard, stream, change),
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
