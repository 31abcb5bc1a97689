//! A stdio target: the child's socket, owned by one shard, and the messages on it. Ids on the wire to a child are the
//! gateway's own numbers, so that any number of sessions can share it; each session keeps its own ids outside.

mod link;
mod tend;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use agentlane_runtime as runtime;
use agentlane_runtime::channel;
use agentlane_runtime::local::Event;
use agentlane_runtime::{ReadHalf, Stream, WriteHalf};
use agentlane_wire::json::{self, Splice};
use bytes::{Bytes, BytesMut};

use super::era::Era;
use super::hub::Hub;
use super::leg::{self, Opened};
use super::modern_leg::child::Greeting;
use super::upstream::{Answer, ask_child};
use super::{SCAN_LIMITS, callers, inbound, mcp_fault, modern_leg};
use crate::backend::mcp::{Protocol, StdioTarget};
use crate::fault::{Fault, Kind};
use crate::limits::{CHILD_QUEUE, RELAY_QUEUE, UPSTREAM_MESSAGE_BYTES_MAX};
use crate::mesh::{SharedChild, SpawnRequest, SpawnedChild, ToControl, ToShard};
use crate::protocol::mcp::error;
use crate::protocol::mcp::modern::envelope::Client;
use crate::protocol::mcp::revision::Revision;
use crate::session::{ChildCommand, ChildPort, Leg, LegId, OpenLeg, Session, Transport};
use crate::shard::Shard;
pub use link::{Link, deliver};
pub use tend::Notes;
use tend::Ward;

/// Opens the leg: a child of the session's own, or the shared one of the shard that owns it.
pub async fn negotiate(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    leg: &Leg,
    target: &StdioTarget,
    id: LegId,
    deadline: Instant,
) -> Result<Opened, Fault> {
    let backend = shard.mcp_backend(&session.backend).ok_or_else(mcp_fault::session_unknown)?;
    let known = backend.eras.of(&leg.target);
    let callers = match session.is_internal() && session.prefers_modern.get() && !target.shared {
        true => callers::child(shard, &backend, &leg.target, target, session.caller, deadline).await?,
        false => None,
    };
    let child = if let Some(child) = callers {
        child
    } else if target.shared {
        shared(shard, &session.backend, &leg.target.name, target, deadline).await?
    } else {
        let client = Client::of_initialize(&session.initialize_params, session.revision);
        let params = leg::initialize_params(session, leg.target.protocol);
        let (protocol, first) = (leg.target.protocol, Era::Legacy);
        let greeting = Greeting { known: &known, protocol, first, params: &params, client: &client };
        modern_leg::child::start(shard, &leg.target.name, target, greeting, deadline).await?
    };
    if child.modern {
        attach(shard, session, id, &child.port)?;
        return modern_leg::child::open(session, leg, child, &known);
    }
    let (revision, offers, result) = leg::read_result(&child.initialize_result)?;
    attach(shard, session, id, &child.port)?;
    let transport = Transport::Stdio(child.port);
    let open = OpenLeg { revision, offers, transport, since: runtime::now(), modern: None };
    Ok(Opened { leg: Rc::new(open), result: Some(result), raw: child.initialize_result })
}

/// The shared child, from this shard or from its owner.
pub async fn shared(
    shard: &Rc<Shard>,
    backend: &str,
    name: &str,
    target: &StdioTarget,
    deadline: Instant,
) -> Result<SharedChild, Fault> {
    let owner = shard.owner_of(backend, name);
    if owner == shard.index {
        return own_shared(shard, backend, name, target, deadline).await;
    }
    let (reply, answer) = channel::bounded(1);
    let ask = ToShard::SharedChild { backend: backend.to_owned(), target: name.to_owned(), reply };
    shard.peers[owner].try_send(ask).map_err(|_| mcp_fault::overloaded())?;
    let left = deadline.saturating_duration_since(runtime::now());
    match runtime::timeout(left, answer.recv()).await {
        Ok(Some(Ok(child))) => Ok(child),
        Ok(Some(Err(reason))) => Err(Fault::new(Kind::UpstreamUnreachable, reason)),
        Ok(None) | Err(_) => Err(mcp_fault::timeout()),
    }
}

/// The owner's side: starts the child unless it runs, and negotiates once, without any client's capabilities, because
/// nobody could say whose they are.
pub async fn own_shared(
    shard: &Rc<Shard>,
    backend: &str,
    name: &str,
    target: &StdioTarget,
    deadline: Instant,
) -> Result<SharedChild, Fault> {
    let slot = shard.shared_child(backend, name);
    let _turn = slot.turn.lock().await;
    if let Some(child) = slot.child.borrow().as_ref().filter(|child| !child.port.closed.load(Ordering::Acquire)) {
        return Ok(child.clone());
    }
    slot.backoff.pause(target, name)?;
    let outcome = start_shared(shard, backend, name, target, deadline).await;
    slot.backoff.tried(outcome.is_ok());
    let child = outcome?;
    *slot.child.borrow_mut() = Some(child.clone());
    Ok(child)
}

async fn start_shared(
    shard: &Rc<Shard>,
    backend: &str,
    name: &str,
    target: &StdioTarget,
    deadline: Instant,
) -> Result<SharedChild, Fault> {
    let state = shard.mcp_backend(backend).ok_or_else(mcp_fault::session_unknown)?;
    let index = state.config.target_index(name).ok_or_else(mcp_fault::session_unknown)?;
    let configured = &state.config.targets[index];
    let revision = match configured.protocol {
        Protocol::Legacy(Some(revision)) => revision,
        _ => Revision::NEWEST,
    };
    let client = Client::gateway();
    let params = error::initialize_params(revision, &client.capabilities, client.info.as_deref());
    let known = state.eras.of(configured);
    let (protocol, first) = (configured.protocol, Era::Legacy);
    let greeting = Greeting { known: &known, protocol, first, params: &params, client: &client };
    let child = modern_leg::child::start(shard, name, target, greeting, deadline).await?;
    if !child.modern {
        let initialized = error::notification("notifications/initialized", None);
        let _ = child.port.commands.try_send(ChildCommand::Send(initialized));
    }
    Ok(child)
}

/// Starts a child for one session, or for all where the target says so.
pub async fn start(shard: &Rc<Shard>, name: &str, target: &StdioTarget, deadline: Instant) -> Result<ChildPort, Fault> {
    let spawned = spawn(shard, name, target, deadline).await?;
    connect(shard, spawned, target)
}

/// A process of its own, or a spare one.
pub async fn spawn(
    shard: &Rc<Shard>,
    name: &str,
    target: &StdioTarget,
    deadline: Instant,
) -> Result<SpawnedChild, Fault> {
    let (reply, spawned) = channel::bounded(1);
    let ask = ToControl::Spawn(Box::new(SpawnRequest { target: name.to_owned(), spec: target.clone(), reply }));
    shard.control.try_send(ask).map_err(|_| mcp_fault::overloaded())?;
    let left = deadline.saturating_duration_since(runtime::now());
    match runtime::timeout(left, spawned.recv()).await {
        Ok(Some(Ok(child))) => Ok(child),
        Ok(Some(Err(reason))) => Err(Fault::new(Kind::UpstreamUnreachable, "target could not be started").with(reason)),
        Ok(None) | Err(_) => Err(mcp_fault::timeout()),
    }
}

/// The result of `initialize`.
pub async fn handshake(shard: &Rc<Shard>, port: &ChildPort, params: &[u8], deadline: Instant) -> Result<Bytes, Fault> {
    let answer = initialize(shard, port, params, deadline).await?;
    leg::result_of(&answer)?.ok_or_else(|| Fault::new(Kind::UpstreamBroken, "target sent no result"))
}

/// The answer to `initialize`, whatever it is.
pub async fn initialize(shard: &Rc<Shard>, port: &ChildPort, params: &[u8], deadline: Instant) -> Result<Bytes, Fault> {
    let id = shard.call_id();
    let request = with_id(&error::request(id, "initialize", Some(params)), id)?;
    answer(ask_child(port, id, request, Some(deadline), None)?).await
}

/// The response to the first request to a child.
pub async fn answer(mut answer: Answer) -> Result<Bytes, Fault> {
    while let Some(message) = answer.next().await? {
        let Some(data) = message.data else { continue };
        if inbound::is_response(&data) {
            return Ok(data);
        }
    }
    Err(Fault::new(Kind::UpstreamBroken, "target ended during initialize"))
}

/// Takes the messages that belong to no request of the session, for as long as the child runs.
pub fn attach(shard: &Rc<Shard>, session: &Rc<Session>, id: LegId, port: &ChildPort) -> Result<(), Fault> {
    let (events, messages) = channel::bounded(RELAY_QUEUE);
    port.commands
        .try_send(ChildCommand::Attach { session: session.serial, events })
        .map_err(|_| mcp_fault::child_busy())?;
    let (shard, session) = (shard.clone(), Rc::downgrade(session));
    runtime::spawn(async move {
        while let Some(message) = messages.recv().await {
            let Some(session) = session.upgrade() else { return };
            inbound::unrelated(&shard, &session, id, message).await;
        }
        if let Some(session) = session.upgrade() {
            Hub::child_ended(&shard, &session, id);
        }
    });
    Ok(())
}

/// Puts the pumps of a fresh child on this shard, and somebody who looks after it in the way that `target` says.
pub fn connect(shard: &Rc<Shard>, child: SpawnedChild, target: &StdioTarget) -> Result<ChildPort, Fault> {
    let failed = |error| mcp_fault::internal("child's socket").with(error);
    // A descriptor of its own for whoever ends the child: the pumps close theirs when they like.
    let input = child.io.try_clone().map_err(failed)?;
    let (reader, writer) = Stream::from_fd(child.io).map_err(failed)?.into_split();
    let (commands, inbox) = channel::bounded(CHILD_QUEUE);
    let (stop, stopped) = channel::bounded(1);
    let port = ChildPort::new(commands.clone(), stop).with_board(child.board).shared(target.shared);
    let notes = Notes::new(target.idle_after.is_some());
    let link = Rc::new(RefCell::new(Link::new(&child.target, target.shared, commands, notes, port.board.clone())));
    let ended = Rc::new(Event::new());
    runtime::spawn(write_pump(writer, inbox, link.clone(), ended.clone()));
    let (closed, rested, board) = (port.closed.clone(), port.rested.clone(), port.board.clone());
    let ward = Ward { link: link.clone(), closed, rested, board, input, lease: child.lease };
    runtime::spawn(tend::tend(shard.clone(), ward, target.clone(), stopped, ended.clone()));
    let closed = port.closed.clone();
    runtime::spawn(async move {
        read_pump(reader, &link).await;
        closed.store(true, Ordering::Release);
        // Whoever waits learns by its closed channel.
        link.borrow_mut().forget_all();
        ended.set();
    });
    Ok(port)
}

async fn write_pump(
    mut writer: WriteHalf,
    inbox: channel::Receiver<ChildCommand>,
    link: Rc<RefCell<Link>>,
    ended: Rc<Event>,
) {
    loop {
        let command = {
            let (next, ended) = (std::pin::pin!(inbox.recv()), std::pin::pin!(ended.wait()));
            match runtime::race(next, ended).await {
                runtime::Either::Left(Some(command)) => command,
                _ => return,
            }
        };
        let Some(message) = link.borrow_mut().note(command) else { continue };
        // One message is one line: what JSON text has of line breaks is white space between tokens.
        let message = if memchr::memchr2(b'\n', b'\r', &message).is_some() { one_line(&message) } else { message };
        if writer.sendv([message, Bytes::from_static(b"\n")].into_iter().collect()).await.is_err() {
            return;
        }
    }
}

async fn read_pump(mut reader: ReadHalf, link: &Rc<RefCell<Link>>) {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    let mut searched = 0;
    loop {
        while let Some(at) = memchr::memchr(b'\n', &buffer[searched..]) {
            let line = buffer.split_to(searched + at + 1).freeze();
            searched = 0;
            let line = line.slice(..line.len() - 1);
            if !line.trim_ascii().is_empty() {
                deliver(link, line).await;
            }
        }
        searched = buffer.len();
        if buffer.len() > UPSTREAM_MESSAGE_BYTES_MAX {
            tracing::warn!(target: "agentlane::child", target_name = %link.borrow().name(), "line too long");
            let _ = reader.shutdown(std::net::Shutdown::Both);
            return;
        }
        if buffer.capacity() - buffer.len() < 4 * 1024 {
            buffer.reserve((buffer.len() / 2).max(16 * 1024));
        }
        let (read, filled) = reader.recv(buffer).await;
        buffer = filled;
        if !matches!(read, Ok(1..)) {
            return;
        }
        link.borrow_mut().notes.heard();
    }
}

/// The message with `id` in the place of its id.
pub fn with_id(message: &Bytes, id: u64) -> Result<Bytes, Fault> {
    let envelope = json::scan(message, &SCAN_LIMITS).map_err(|fault| mcp_fault::internal("own request").with(fault))?;
    let mut splice = Splice::new();
    splice.replace_id(&envelope, Bytes::from(id.to_string()));
    splice.contiguous(message).map_err(|fault| mcp_fault::internal("own request").with(fault))
}

fn one_line(message: &[u8]) -> Bytes {
    message.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect()
}
