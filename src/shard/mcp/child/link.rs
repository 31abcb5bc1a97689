//! Who waits for what on one conversation with a target, and to whom each of its messages goes. It knows neither how the
//! other side is reached nor what the messages are for.

use std::cell::RefCell;
use std::rc::Rc;

use agentlane_runtime::channel::Sender;
use agentlane_wire::json::{self, MessageKind};
use bytes::Bytes;

use super::tend::Notes;
use crate::limits::CHILD_WAITING_TIDY;
use crate::protocol::mcp::error;
use crate::session::ChildCommand;
use crate::shard::mcp::SCAN_LIMITS;

/// One conversation with a target: who waits for what on it.
pub struct Link {
    name: String,
    shared: bool,
    commands: Sender<ChildCommand>,
    /// Requests in their order; the newest last.
    waiting: Vec<(u64, Sender<Bytes>)>,
    /// Requests to be told of changes (2026-07-28): they last, and nothing belongs to them but what says so.
    listens: Vec<(u64, Sender<Bytes>)>,
    attached: Vec<(u64, Sender<Bytes>)>,
    pub notes: Notes,
}

impl Link {
    pub fn new(name: &str, shared: bool, commands: Sender<ChildCommand>, notes: Notes) -> Self {
        let (waiting, listens, attached) = (Vec::new(), Vec::new(), Vec::new());
        Link { name: name.to_owned(), shared, commands, waiting, listens, attached, notes }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Requests wait for their answers.
    pub fn owes(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many do.
    pub fn owed(&self) -> usize {
        self.waiting.len()
    }

    /// Somebody wants to hear of changes.
    pub fn is_listened(&self) -> bool {
        !self.listens.is_empty()
    }

    /// Says something to the other side, unless it does not read.
    pub fn tell(&self, message: Bytes) {
        let _ = self.commands.try_send(ChildCommand::Send(message));
    }

    /// Notes what a command changes; gives the message that it sends, if it does.
    pub fn note(&mut self, command: ChildCommand) -> Option<Bytes> {
        match command {
            ChildCommand::Request { id, message, reply } => {
                if is_listen(&message) {
                    self.listens.retain(|(_, reply)| !reply.is_closed());
                    self.listens.push((id, reply));
                    return Some(message);
                }
                self.notes.request(&message, self.waiting.is_empty());
                if self.waiting.len() >= CHILD_WAITING_TIDY {
                    self.waiting.retain(|(_, reply)| !reply.is_closed());
                }
                self.waiting.push((id, reply));
                return Some(message);
            }
            ChildCommand::Send(message) => {
                self.notes.told(&message);
                return Some(message);
            }
            ChildCommand::Forget { id } => self.forget(id),
            ChildCommand::Attach { session, events } => self.attached.push((session, events)),
            ChildCommand::Detach { session } => {
                self.attached.retain(|(attached, _)| *attached != session);
                if self.attached.is_empty() {
                    self.notes.left();
                }
            }
        }
        None
    }

    /// Nobody waits for `id` any more, and whoever did learns it.
    pub fn forget(&mut self, id: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        self.listens.retain(|(listen, _)| *listen != id);
    }

    /// The other side has gone.
    pub fn forget_all(&mut self) {
        self.waiting.clear();
        self.listens.clear();
        self.attached.clear();
    }

    /// Takes out whoever waits for the response to `id`.
    fn answered(&mut self, id: u64) -> Option<Sender<Bytes>> {
        let all =
            if self.waiting.iter().any(|(waiting, _)| *waiting == id) { &mut self.waiting } else { &mut self.listens };
        let at = all.iter().position(|(waiting, _)| *waiting == id)?;
        Some(all.remove(at).1)
    }
}

/// Whether a request asks to be told of changes. The name is looked for first: messages may be large.
fn is_listen(message: &[u8]) -> bool {
    const LISTEN: &str = "subscriptions/listen";
    memchr::memmem::find(message, LISTEN.as_bytes()).is_some()
        && json::scan(message, &SCAN_LIMITS).is_ok_and(|envelope| envelope.method_is(message, LISTEN))
}

/// Where a message of the child goes.
enum Place {
    Reply(Sender<Bytes>),
    Session(Sender<Bytes>),
    Everybody(Vec<Sender<Bytes>>),
    Refuse,
    Nobody,
}

/// Hands a message of the other side to whom it belongs.
pub async fn deliver(link: &Rc<RefCell<Link>>, message: Bytes) {
    let shared = link.borrow().shared;
    let place = place(&mut link.borrow_mut(), &message);
    match place {
        // A child of one session waits for its reader; a shared one must not.
        Place::Reply(to) | Place::Session(to) if !shared => {
            link.borrow_mut().notes.stalled = true;
            let _ = to.send(message).await;
            link.borrow_mut().notes.stalled = false;
        }
        Place::Reply(to) | Place::Session(to) => drop(to.try_send(message)),
        Place::Everybody(all) => all.iter().for_each(|to| drop(to.try_send(message.clone()))),
        Place::Refuse => refuse(&link.borrow(), &message),
        Place::Nobody => {}
    }
}

fn place(link: &mut Link, message: &Bytes) -> Place {
    let Ok(envelope) = json::scan(message, &SCAN_LIMITS) else {
        tracing::warn!(target: "agentlane::child", target_name = %link.name, "a line that is no JSON-RPC message");
        return Place::Nobody;
    };
    match envelope.kind {
        MessageKind::Response | MessageKind::ErrorResponse => {
            let id = envelope.id.and_then(|id| json::as_u64(message, id.range));
            id.and_then(|id| link.answered(id)).map_or(Place::Nobody, Place::Reply)
        }
        MessageKind::Notification if envelope.method_is(message, "notifications/progress") => {
            let id = envelope.progress_token.and_then(|token| json::as_u64(message, token));
            let waiting = id.and_then(|id| link.waiting.iter().find(|(waiting, _)| *waiting == id));
            waiting.map_or(Place::Nobody, |(_, reply)| Place::Reply(reply.clone()))
        }
        // What a listener asked for (2026-07-28) says whose it is.
        MessageKind::Notification if envelope.meta_subscription_id.is_some() => {
            let id = envelope.meta_subscription_id.and_then(|id| json::as_u64(message, id));
            let listen = id.and_then(|id| link.listens.iter().find(|(listen, _)| *listen == id));
            listen.map_or(Place::Nobody, |(_, reply)| Place::Reply(reply.clone()))
        }
        MessageKind::Notification if ends_listen(link, &envelope, message) => Place::Nobody,
        MessageKind::Notification if link.shared => shared_notification(link, &envelope, message),
        MessageKind::Request | MessageKind::Notification => {
            if envelope.kind == MessageKind::Request && !link.shared {
                link.notes.asks(message, &envelope);
            } else if envelope.method_is(message, "notifications/cancelled") {
                link.notes.withdraws(message, &envelope);
            }
            newest_or_session(link)
        }
        MessageKind::Invalid(_) => Place::Nobody,
    }
}

/// Whether a child of 2026-07-28 ends a listen, which it does by cancelling it: whoever reads it learns by the closed channel.
fn ends_listen(link: &mut Link, envelope: &json::Envelope, message: &Bytes) -> bool {
    if link.listens.is_empty() || !envelope.method_is(message, "notifications/cancelled") {
        return false;
    }
    let id = envelope.request_id.and_then(|id| json::as_u64(message, id));
    let before = link.listens.len();
    link.listens.retain(|(listen, _)| Some(*listen) != id);
    link.listens.len() < before
}

/// A shared child: changes concern everybody, log messages only whoever alone is being served.
fn shared_notification(link: &Link, envelope: &json::Envelope, message: &Bytes) -> Place {
    if !envelope.method_is(message, "notifications/message") {
        return Place::Everybody(link.attached.iter().map(|(_, events)| events.clone()).collect());
    }
    match link.waiting.as_slice() {
        [(_, only)] => Place::Reply(only.clone()),
        _ => Place::Nobody,
    }
}

fn newest_or_session(link: &Link) -> Place {
    // A shared child negotiated without capabilities: whom it means, nobody could say.
    if link.shared {
        return Place::Refuse;
    }
    if let Some((_, reply)) = link.waiting.last() {
        return Place::Reply(reply.clone());
    }
    link.attached.last().map_or(Place::Nobody, |(_, events)| Place::Session(events.clone()))
}

/// Answers a request of a shared child: `ping`, and nothing else.
fn refuse(link: &Link, message: &Bytes) {
    let Ok(envelope) = json::scan(message, &SCAN_LIMITS) else { return };
    let Some(id) = envelope.answer_id().and_then(|range| range.of(message)) else { return };
    let answer = match envelope.method_is(message, "ping") {
        true => error::result_response(id, b"{}"),
        false => error::error_response(Some(id), -32601, "a shared server has no client to ask"),
    };
    link.tell(answer);
}
