//! Who waits for what on one conversation with a target, and to whom each of its messages goes. It knows neither how the
//! other side is reached nor what the messages are for.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use agentlane_runtime as runtime;
use agentlane_runtime::channel::Sender;
use agentlane_wire::json::{self, MessageKind};
use bytes::Bytes;

use super::tend::Notes;
use crate::limits::CHILD_WAITING_TIDY;
use crate::protocol::mcp::error;
use crate::protocol::mcp::modern::META_LOG_LEVEL;
use crate::session::ChildCommand;
use crate::session::board::{Board, CallMark};
use crate::shard::mcp::SCAN_LIMITS;

/// One conversation with a target: who waits for what on it.
pub struct Link {
    name: String,
    shared: bool,
    commands: Sender<ChildCommand>,
    /// Requests in their order; the newest last.
    waiting: Vec<Waiting>,
    /// Requests to be told of changes (2026-07-28): they last, and nothing belongs to them but what says so.
    listens: Vec<(u64, Sender<Bytes>)>,
    attached: Vec<(u64, Sender<Bytes>)>,
    pub notes: Notes,
    board: Arc<Board>,
}

/// A request that waits for its answer.
struct Waiting {
    id: u64,
    reply: Sender<Bytes>,
    mark: Option<CallMark>,
    /// It asks for log messages, as requests of 2026-07-28 do.
    logs: bool,
}

impl Link {
    pub fn new(name: &str, shared: bool, commands: Sender<ChildCommand>, notes: Notes, board: Arc<Board>) -> Self {
        let (waiting, listens, attached) = (Vec::new(), Vec::new(), Vec::new());
        Link { name: name.to_owned(), shared, commands, waiting, listens, attached, notes, board }
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
            ChildCommand::Request { id, message, reply, mark } => {
                if is_listen(&message) {
                    self.listens.retain(|(_, reply)| !reply.is_closed());
                    self.listens.push((id, reply));
                    return Some(message);
                }
                self.notes.request(&message, self.waiting.is_empty());
                if self.waiting.len() >= CHILD_WAITING_TIDY {
                    self.waiting.retain(|waiting| !waiting.reply.is_closed());
                }
                let logs = self.shared && memchr::memmem::find(&message, META_LOG_LEVEL.as_bytes()).is_some();
                self.waiting.push(Waiting { id, reply, mark, logs });
                self.show(None);
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
        self.listens.retain(|(listen, _)| *listen != id);
        if let Some(place) = self.waiting.iter().position(|waiting| waiting.id == id) {
            let forgotten = self.waiting.remove(place);
            self.show(forgotten.mark);
        }
    }

    /// The other side has gone.
    pub fn forget_all(&mut self) {
        self.waiting.clear();
        self.listens.clear();
        self.attached.clear();
    }

    /// Takes out whoever waits for the response to `id`.
    fn answered(&mut self, id: u64) -> Option<Sender<Bytes>> {
        if let Some(place) = self.waiting.iter().position(|waiting| waiting.id == id) {
            let Waiting { reply, mark, .. } = self.waiting.remove(place);
            self.show(mark);
            return Some(reply);
        }
        let place = self.listens.iter().position(|(listen, _)| *listen == id)?;
        Some(self.listens.remove(place).1)
    }

    /// Shows whoever looks at the board whose request alone the child works on. `ended`: the last one, if none is left.
    fn show(&self, ended: Option<CallMark>) {
        match self.waiting.as_slice() {
            [] => self.board.rests_after(ended, runtime::now()),
            [only] => self.board.works_on(only.mark.clone()),
            _ => self.board.works_on(None),
        }
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
            let waiting = id.and_then(|id| link.waiting.iter().find(|waiting| waiting.id == id));
            waiting.map_or(Place::Nobody, |waiting| Place::Reply(waiting.reply.clone()))
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

/// A shared child: changes concern everybody, log messages only whoever alone is being served, or alone asked for them.
fn shared_notification(link: &Link, envelope: &json::Envelope, message: &Bytes) -> Place {
    if !envelope.method_is(message, "notifications/message") {
        return Place::Everybody(link.attached.iter().map(|(_, events)| events.clone()).collect());
    }
    let mut asked = link.waiting.iter().filter(|waiting| waiting.logs);
    match (asked.next(), asked.next(), link.waiting.as_slice()) {
        (Some(only), None, _) | (None, None, [only]) => Place::Reply(only.reply.clone()),
        _ => Place::Nobody,
    }
}

fn newest_or_session(link: &Link) -> Place {
    // A shared child negotiated without capabilities: whom it means, nobody could say.
    if link.shared {
        return Place::Refuse;
    }
    if let Some(newest) = link.waiting.last() {
        return Place::Reply(newest.reply.clone());
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

#[cfg(test)]
mod tests {
    use agentlane_runtime::channel::{self, Receiver};

    use super::*;

    fn mark(session: u64) -> Option<CallMark> {
        Some(CallMark { session: Some(session), id: Bytes::from_static(b"1"), method: "tools/call" })
    }

    /// Sends a request over the link; whoever waits for it is given back.
    fn ask(link: &mut Link, id: u64, mark: Option<CallMark>) -> Receiver<Bytes> {
        let (reply, answers) = channel::bounded(1);
        let message = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call"}}"#));
        assert!(link.note(ChildCommand::Request { id, message, reply, mark }).is_some());
        answers
    }

    fn answer(link: &mut Link, id: u64) {
        let answer = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
        assert!(matches!(place(link, &answer), Place::Reply(_)));
    }

    #[test]
    fn a_log_message_is_whose_alone_asked_for_it() {
        let (commands, _inbox) = channel::bounded(1);
        let mut link = Link::new("one", true, commands, Notes::default(), Arc::default());
        let said = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#);
        let mut ask = |id: u64, logs: bool| {
            let (reply, answers) = channel::bounded(1);
            let meta = if logs { format!(r#""{META_LOG_LEVEL}":"info""#) } else { String::new() };
            let message = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m","params":{{"_meta":{{{meta}}}}}}}"#);
            link.note(ChildCommand::Request { id, message: message.into(), reply, mark: None });
            let place = place(&mut link, &said);
            (answers, if let Place::Reply(to) = place { to.try_send(said.clone()).is_ok() } else { false })
        };
        let (first, told) = ask(1, false);
        assert!(told && first.try_recv().is_some(), "it is the only one");
        let (second, told) = ask(2, true);
        assert!(told && second.try_recv().is_some(), "it alone asked");
        let (third, told) = ask(3, true);
        assert!(!told && third.try_recv().is_none(), "either could be meant");
    }

    #[test]
    fn the_board_shows_whose_request_is_the_only_one() {
        let board = Arc::<Board>::default();
        let (commands, _inbox) = channel::bounded(1);
        let mut link = Link::new("one", false, commands, Notes::default(), board.clone());
        let only = || board.only(runtime::now());
        assert_eq!(only(), None);
        let _first = ask(&mut link, 1, mark(7));
        assert_eq!(only(), mark(7));
        let _second = ask(&mut link, 2, mark(8));
        assert_eq!(only(), None, "either could be meant");
        answer(&mut link, 1);
        assert_eq!(only(), mark(8));
        let _own = ask(&mut link, 3, None);
        assert_eq!(only(), None, "the gateway's own counts as well");
        link.forget(3);
        assert_eq!(only(), mark(8));
        answer(&mut link, 2);
        assert_eq!(only(), mark(8), "what was written before the answer may be read after it");
        let _third = ask(&mut link, 4, mark(9));
        link.forget(4);
        assert_eq!(only(), mark(9));
        let _last = ask(&mut link, 5, None);
        answer(&mut link, 5);
        assert_eq!(only(), None, "the gateway's own is nobody's");
    }
}
