//! Looking after a child: one that has hung is killed, one that nobody uses is ended, and each of them is started again
//! when it is next needed. Holds the child's lease; knows nothing of what its messages are for.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agentlane_runtime as runtime;
use agentlane_runtime::channel::Receiver;
use agentlane_runtime::local::Event;
use agentlane_wire::json::{self, MessageKind};
use bytes::Bytes;

use super::link::Link;
use crate::backend::mcp::StdioTarget;
use crate::limits::{CHILD_SUBSCRIPTIONS_MAX, SESSION_SERVER_REQUESTS_MAX};
use crate::mesh::Lease;
use crate::protocol::mcp::error;
use crate::protocol::mcp::vigil::{Duty, Seen, Vigil};
use crate::session::board::Board;
use crate::shard::Shard;
use crate::shard::mcp::SCAN_LIMITS;

/// What is noted of a child's messages, for the next look at it.
#[derive(Default)]
pub struct Notes {
    /// The child may be ended when nobody uses it: only then are subscriptions worth a look.
    rests: bool,
    heard: bool,
    /// What it said waits for a reader that is slow: it is not read meanwhile, and its silence is not its own.
    pub stalled: bool,
    used: bool,
    /// Ids of its own requests that nobody has answered yet, as JSON text.
    asked: Vec<Bytes>,
    /// What is subscribed to, as JSON text.
    subscribed: Vec<Bytes>,
}

impl Notes {
    pub fn new(rests: bool) -> Self {
        Notes { rests, ..Notes::default() }
    }

    /// It said something.
    pub fn heard(&mut self) {
        self.heard = true;
    }

    /// It asks the client.
    pub fn asks(&mut self, message: &Bytes, envelope: &json::Envelope) {
        if let Some(id) = envelope.answer_id()
            && self.asked.len() < SESSION_SERVER_REQUESTS_MAX
        {
            self.asked.push(Bytes::copy_from_slice(id.of(message).unwrap_or_default()));
        }
    }

    /// It does not ask any more.
    pub fn withdraws(&mut self, message: &Bytes, envelope: &json::Envelope) {
        let id = envelope.request_id.and_then(|range| range.of(message));
        self.asked.retain(|asked| Some(&asked[..]) != id);
    }

    /// It is sent a request. `first`: it owes nothing else, so that what it asked before was for requests that are over.
    pub fn request(&mut self, message: &Bytes, first: bool) {
        self.used = true;
        if first {
            self.asked.clear();
        }
        if !self.rests {
            return;
        }
        let Ok(envelope) = json::scan(message, &SCAN_LIMITS) else { return };
        let Some(uri) = envelope.uri.and_then(|range| range.of(message)) else { return };
        if envelope.method_is(message, "resources/subscribe") {
            self.subscribed.retain(|subscribed| subscribed != uri);
            // At the limit it goes on to be held by the others.
            if self.subscribed.len() < CHILD_SUBSCRIPTIONS_MAX {
                self.subscribed.push(Bytes::copy_from_slice(uri));
            }
        } else if envelope.method_is(message, "resources/unsubscribe") {
            self.subscribed.retain(|subscribed| subscribed != uri);
        }
    }

    /// It is sent an answer, or a notification.
    pub fn told(&mut self, message: &Bytes) {
        if self.asked.is_empty() {
            return;
        }
        let Ok(envelope) = json::scan(message, &SCAN_LIMITS) else { return };
        if matches!(envelope.kind, MessageKind::Response | MessageKind::ErrorResponse) {
            let id = envelope.answer_id().and_then(|range| range.of(message));
            self.asked.retain(|asked| Some(&asked[..]) != id);
        }
    }

    /// Its last session has left, and with it every subscription.
    pub fn left(&mut self) {
        self.subscribed.clear();
        self.asked.clear();
    }

    fn seen(&mut self, owes: bool) -> Seen {
        Seen {
            heard: std::mem::take(&mut self.heard) || self.stalled,
            used: std::mem::take(&mut self.used),
            owes,
            asks: !self.asked.is_empty(),
            held: !self.subscribed.is_empty(),
        }
    }
}

/// What the watch over one child needs. Not its port: where nobody holds that any more, the child ends.
pub struct Ward {
    pub link: Rc<RefCell<Link>>,
    pub closed: Arc<AtomicBool>,
    pub rested: Arc<AtomicBool>,
    pub board: Arc<Board>,
    /// A descriptor of its own for the child's socket.
    pub input: OwnedFd,
    pub lease: Box<dyn Lease>,
}

/// Watches a child until it has ended, is told to, or has to. `ended`: the pumps are done.
pub async fn tend(shard: Rc<Shard>, ward: Ward, target: StdioTarget, stopped: Receiver<()>, ended: Rc<Event>) {
    let mut vigil = Vigil::new(target.hung_after, target.idle_after, runtime::now());
    loop {
        let gone = runtime::race(stopped.recv(), ended.wait());
        if runtime::timeout(vigil.every(), gone).await.is_ok() {
            break;
        }
        let seen = {
            let mut link = ward.link.borrow_mut();
            let (owes, is_listened) = (link.owes(), link.is_listened());
            let seen = link.notes.seen(owes);
            // Whoever listens would have to start it again at once.
            Seen { held: seen.held || is_listened, ..seen }
        };
        match vigil.look(seen, runtime::now()) {
            Duty::Nothing => {}
            Duty::Ping => {
                let id = shard.call_id();
                let ping = error::request(id, "ping", None);
                if let Ok(ping) = super::with_id(&ping, id) {
                    ward.link.borrow().tell(ping);
                }
            }
            Duty::Replace => return ward.kill(),
            Duty::Rest if ward.board.shut_if_unused() => {
                tracing::debug!(target: "agentlane::child", target_name = %ward.link.borrow().name(), "a child that nobody uses is ended");
                ward.rested.store(true, Ordering::Release);
                ward.closed.store(true, Ordering::Release);
                break;
            }
            Duty::Rest => {}
        }
    }
    ward.end();
}

impl Ward {
    /// The child reads the end of its input and exits; what it still has to say is read. From here on its time is
    /// counted: control asks it to end, and then makes it.
    fn end(self) {
        // SAFETY: shutdown(2) on a descriptor that we own has no memory effects.
        unsafe { libc::shutdown(self.input.as_raw_fd(), libc::SHUT_WR) };
        drop(self.lease);
    }

    /// Whoever waits for a child that has hung learns it now, and the next call starts another.
    fn kill(self) {
        let (name, waiting) = (self.link.borrow().name().to_owned(), self.link.borrow().owed());
        tracing::warn!(
            target: "agentlane::child",
            target_name = %name,
            waiting,
            "a child owes answers and does not even answer a ping: it is killed"
        );
        self.closed.store(true, Ordering::Release);
        self.lease.kill();
        self.link.borrow_mut().forget_all();
        // Whatever has inherited the child's end cannot keep the pumps.
        // SAFETY: as above.
        unsafe { libc::shutdown(self.input.as_raw_fd(), libc::SHUT_RDWR) };
    }
}
