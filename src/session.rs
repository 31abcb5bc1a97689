//! A client's session and the table that a shard keeps of them. One session is one value: its legs to the targets, the
//! requests that wait on either side, and the streams. It belongs to one shard; nothing in it is shared with another.

pub mod board;
mod shown;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use agentlane_link::client::Cut;
use agentlane_runtime::channel::Sender;
use agentlane_runtime::local::{Event, Notify};
use bytes::Bytes;

use crate::backend::mcp::Target;
use crate::limits::SESSION_SERVER_REQUESTS_MAX;
use crate::principal::Principal;
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::modern::envelope::Client;
use crate::protocol::mcp::modern::listen::{List, Lists};
use crate::protocol::mcp::modern::tools::Tools;
use crate::protocol::mcp::revision::Revision;
use crate::protocol::mcp::streams::Streams;
use board::{Board, CallMark};
pub use shown::Shown;

/// One client's session with one MCP backend.
pub struct Session {
    /// The id as the client sends it.
    pub id: Bytes,
    /// Random and unique: names the session inside the gateway, and in records.
    pub serial: u64,
    /// [`McpBackend::key`](crate::backend::mcp::McpBackend) of the endpoint that it was opened at.
    pub backend: Rc<str>,
    /// Targets that speak both are spoken to in 2026-07-28.
    pub prefers_modern: Cell<bool>,
    pub revision: Revision,
    /// Who opened it, as far as that was verified: nobody else uses it. Nobody's on behalf of clients without sessions.
    pub principal: Principal,
    /// Who opened it, or on whose behalf it is: what comes over its legs is that caller's.
    pub caller: Caller,
    /// `params` of the client's `initialize`, as it was sent: what every target is told.
    pub initialize_params: Bytes,
    /// In the order of the backend's targets.
    pub legs: RefCell<Vec<Rc<Leg>>>,
    pub streams: RefCell<Streams>,
    /// Something was pushed on a stream, a stream changed hands, or the session ended.
    pub changed: Notify,
    pub server_requests: RefCell<ServerRequests>,
    /// The client's requests that wait for their answers.
    pub in_flight: RefCell<Vec<InFlight>>,
    /// `params` of the client's last `logging/setLevel`: told to targets that come later.
    pub log_level: RefCell<Option<Bytes>>,
    /// URIs subscribed to, as JSON text, for targets that come back.
    pub subscriptions: RefCell<Vec<(LegId, Bytes)>>,
    /// The client said `notifications/initialized`.
    pub initialized: Cell<bool>,
    pub ended: Cell<bool>,
    /// The gateway is going down: streams end, and clients may come back elsewhere.
    pub hung_up: Cell<bool>,
    /// What the client knows of lists.
    pub shown: Shown,
    pub last_used: Cell<Instant>,
}

/// Names a leg within its session, for as long as the session lasts: a reload may move its target's place.
pub type LegId = u32;

/// The way to one target.
pub struct Leg {
    pub id: LegId,
    pub target: Arc<Target>,
    pub state: RefCell<LegState>,
    /// The state left [`LegState::Opening`].
    pub settled: Notify,
    /// A task follows the target's own stream (GET); never more than one.
    pub following: Cell<bool>,
    /// The target has answered whether it has such a stream, or is not asked.
    pub followed: Event,
    /// Something was asked of the target since it was opened that its session may remember.
    pub stateful: Cell<bool>,
    /// A line of a head with the client's newest credential, where the target is to get that; else empty.
    pub credential: RefCell<Bytes>,
    /// Times in a row that its child ended soon after its start.
    pub crashes: Cell<u32>,
    /// That stream's socket, to end the read in flight on it.
    follower: Cell<Option<Cut>>,
}

pub enum LegState {
    /// Nothing was tried, or the target forgot us.
    Idle,
    /// One task negotiates; others wait for `settled`.
    Opening,
    Open(Rc<OpenLeg>),
    /// Not again before `until`.
    Down {
        until: Instant,
        reason: &'static str,
        failures: u32,
    },
    /// The session ended.
    Closed,
}

/// A negotiated target.
pub struct OpenLeg {
    /// What it negotiated; the client's own where nothing is negotiated.
    pub revision: Revision,
    pub offers: Offers,
    pub transport: Transport,
    pub since: Instant,
    /// For a target of 2026-07-28, to which this leg is a client of that revision.
    pub modern: Option<Box<ModernLeg>>,
}

/// What a leg to a target of 2026-07-28 needs for each request.
pub struct ModernLeg {
    /// The session's client, as the target sees it.
    pub client: Client,
    /// Shared by all legs to the target on this shard.
    pub tools: Rc<RefCell<Tools>>,
}

impl OpenLeg {
    /// Whether answers of the target may hold what a client of `revision` does not know.
    pub fn is_newer_than(&self, revision: Revision) -> bool {
        self.modern.is_some() || self.revision > revision
    }
}

/// What the target's `initialize` offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    pub tools: bool,
    pub prompts: bool,
    pub resources: bool,
    pub subscribe: bool,
    pub completions: bool,
    pub logging: bool,
    /// Tasks of 2025-11-25, and their list.
    pub tasks: bool,
    pub task_list: bool,
    /// Tasks of 2026-07-28.
    pub task_extension: bool,
    /// The lists whose changes it tells.
    pub tells: Lists,
}

impl Offers {
    /// The lists that it has.
    pub fn lists(&self) -> Lists {
        let lists = [(self.tools, List::Tools), (self.prompts, List::Prompts), (self.resources, List::Resources)];
        let has = lists.into_iter().filter(|(offered, _)| *offered);
        has.fold(Lists::NONE, |all, (_, list)| all.with(Lists::one(list)))
    }
}

pub enum Transport {
    Http {
        /// The target's session id, where it gave one.
        session: Option<Bytes>,
        /// Everything of a POST's head that is the same each time, up to the first varying header.
        post_head: Bytes,
    },
    /// One conversation for everything: a child's standard streams, or a server of the transport of 2024-11-05.
    Stdio(ChildPort),
}

/// The way to a child: its owner's inbox. Clones speak to the same child.
#[derive(Clone)]
pub struct ChildPort {
    pub commands: Sender<ChildCommand>,
    /// Beside the commands, because a child that reads nothing must end as well.
    stop: Sender<()>,
    /// Set when the child has gone, or is being ended.
    pub closed: Arc<AtomicBool>,
    /// Set before `closed` when it is ended because nobody used it: its end is no failure.
    pub rested: Arc<AtomicBool>,
    /// Who uses it.
    pub board: Arc<Board>,
    /// Others use it as well: whoever leaves does not end it.
    pub shared: bool,
}

impl ChildPort {
    pub fn new(commands: Sender<ChildCommand>, stop: Sender<()>) -> Self {
        let (closed, rested, board) = Default::default();
        ChildPort { commands, stop, closed, rested, board, shared: false }
    }

    /// The same port to a child that others use as well.
    pub fn shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }

    /// The same port with the board that control reads.
    pub fn with_board(mut self, board: Arc<Board>) -> Self {
        self.board = board;
        self
    }

    /// Ends the child, whatever it is doing: its input at once, the process politely and then by force.
    pub fn stop(&self) {
        // Full: it was told already.
        let _ = self.stop.try_send(());
    }
}

/// What a session says to a child's owner.
pub enum ChildCommand {
    /// A request whose id is already `id`; answers and what belongs to them come on `reply`. `mark`: whose it is, for the
    /// log.
    Request { id: u64, message: Bytes, reply: Sender<Bytes>, mark: Option<CallMark> },
    /// A notification or an answer.
    Send(Bytes),
    /// Nobody waits for `id` any more.
    Forget { id: u64 },
    /// Messages that belong to no request go to `events` from now on.
    Attach { session: u64, events: Sender<Bytes> },
    /// The session ended.
    Detach { session: u64 },
}

/// A client's request that waits for its answer.
pub struct InFlight {
    /// The id's JSON text, as the client wrote it.
    pub id: Bytes,
    pub leg: LegId,
    /// The id that the target knows it by, where that differs.
    pub upstream_id: Option<u64>,
    /// Set when the client cancels it: the relay then ends without an answer.
    pub cancelled: Rc<Cell<bool>>,
    /// The socket on which the answer comes, while the relay holds it open.
    pub socket: Rc<Cell<Option<Cut>>>,
}

/// Requests of servers that wait for the client, under ids that the gateway made: one counter for all targets, so that
/// they never collide.
#[derive(Default)]
pub struct ServerRequests {
    last: u64,
    waiting: HashMap<u64, ServerRequest>,
    /// Requests of the gateway's own, on behalf of a target that cannot send any.
    local: HashMap<u64, LocalRequest>,
}

struct LocalRequest {
    leg: LegId,
    answer: Sender<(u64, Bytes)>,
}

/// Where an answer of the client belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRequest {
    pub leg: LegId,
    /// The server's own id, as JSON text.
    pub id: Bytes,
    /// The server's own progress token, as JSON text.
    pub progress_token: Option<Bytes>,
}

impl ServerRequests {
    /// The id to show to the client; `None` when too many wait already.
    pub fn add(&mut self, request: ServerRequest) -> Option<u64> {
        let id = self.next_id()?;
        self.waiting.insert(id, request);
        Some(id)
    }

    /// The id of a request whose answer, the client's whole message, goes to `answer`; as [`ServerRequests::add`].
    pub fn add_local(&mut self, leg: LegId, answer: Sender<(u64, Bytes)>) -> Option<u64> {
        let id = self.next_id()?;
        self.local.insert(id, LocalRequest { leg, answer });
        Some(id)
    }

    fn next_id(&mut self) -> Option<u64> {
        if self.waiting.len() + self.local.len() >= SESSION_SERVER_REQUESTS_MAX {
            return None;
        }
        self.last += 1;
        Some(self.last)
    }

    /// Who waits in the gateway for this answer; each is answered once.
    pub fn answered_locally(&mut self, id: u64) -> Option<Sender<(u64, Bytes)>> {
        self.local.remove(&id).map(|request| request.answer)
    }

    /// The request that the client answered; each is answered once.
    pub fn answered(&mut self, id: u64) -> Option<ServerRequest> {
        self.waiting.remove(&id)
    }

    pub fn waiting(&self, id: u64) -> Option<&ServerRequest> {
        self.waiting.get(&id)
    }

    /// The client-side id of a server's own request.
    pub fn find(&self, leg: LegId, id: &[u8]) -> Option<u64> {
        self.waiting.iter().find(|(_, request)| request.leg == leg && request.id[..] == *id).map(|(&id, _)| id)
    }

    /// Forgets everything that waits: nobody will answer.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Forgets what a target asked that is gone.
    pub fn forget_leg(&mut self, leg: LegId) {
        self.waiting.retain(|_, request| request.leg != leg);
        // Whoever waits learns by the closed channel.
        self.local.retain(|_, request| request.leg != leg);
    }
}

impl Leg {
    pub fn new(id: LegId, target: Arc<Target>) -> Rc<Self> {
        Rc::new(Leg {
            id,
            target,
            state: RefCell::new(LegState::Idle),
            settled: Notify::new(),
            following: Cell::new(false),
            followed: Event::new(),
            stateful: Cell::new(false),
            credential: RefCell::default(),
            crashes: Cell::new(0),
            follower: Cell::new(None),
        })
    }

    /// Registers the follower's socket, until [`Leg::unfollow`], which comes before the socket is closed.
    pub fn follow_with(&self, socket: Option<Cut>) {
        self.follower.set(socket);
    }

    pub fn unfollow(&self) {
        self.follower.set(None);
    }

    /// Ends the follower's read, if there is one in flight.
    pub fn abort_follower(&self) {
        if let Some(socket) = self.follower.take() {
            socket.end();
        }
    }

    /// The negotiated target, if it is there now.
    pub fn open(&self) -> Option<Rc<OpenLeg>> {
        match &*self.state.borrow() {
            LegState::Open(open) => Some(open.clone()),
            _ => None,
        }
    }
}

impl Session {
    /// Streams are read, requests wait, or the last use is younger than `idle`.
    pub fn is_idle(&self, now: Instant, idle: std::time::Duration) -> bool {
        now.saturating_duration_since(self.last_used.get()) >= idle
            && self.in_flight.borrow().is_empty()
            && !self.streams.borrow().any_claimed()
    }

    /// Whether it is a conversation of the gateway's own, on behalf of clients without sessions.
    pub fn is_internal(&self) -> bool {
        self.id.is_empty()
    }

    /// Hands the client's newest credential to the targets that are to get it.
    pub fn carry(&self, credential: Option<&Bytes>) {
        let Some(value) = credential else { return };
        let line = Bytes::from([b"authorization: ", &value[..], b"\r\n"].concat());
        for leg in self.legs.borrow().iter().filter(|leg| leg.target.kind.passes_credential()) {
            leg.credential.replace(line.clone());
        }
    }

    /// Ends the streams that clients read, not the session.
    pub fn hang_up(&self) {
        self.hung_up.set(true);
        self.changed.notify_all();
    }

    /// The leg at a target's place.
    pub fn leg_to(&self, target: usize) -> Option<Rc<Leg>> {
        self.legs.borrow().get(target).cloned()
    }

    /// The leg of an id.
    pub fn leg(&self, id: LegId) -> Option<Rc<Leg>> {
        self.legs.borrow().iter().find(|leg| leg.id == id).cloned()
    }

    /// The ids of all legs, in the order of the targets.
    pub fn leg_ids(&self) -> Vec<LegId> {
        self.legs.borrow().iter().map(|leg| leg.id).collect()
    }

    /// The target's place of a leg.
    pub fn place_of(&self, id: LegId) -> Option<usize> {
        self.legs.borrow().iter().position(|leg| leg.id == id)
    }

    /// Follows a change of the backend's targets: legs of equal targets stay, others are made or given back to be ended.
    pub fn relink(&self, targets: &[Arc<Target>]) -> Vec<Rc<Leg>> {
        let mut old = self.legs.take();
        let mut next = old.iter().map(|leg| leg.id + 1).max().unwrap_or_default();
        let legs = targets.iter().map(|target| {
            let same = |leg: &Rc<Leg>| leg.target.name == target.name && leg.target.fingerprint == target.fingerprint;
            if let Some(place) = old.iter().position(same) {
                return old.remove(place);
            }
            next += 1;
            Leg::new(next - 1, target.clone())
        });
        let legs = legs.collect();
        self.legs.replace(legs);
        for leg in &old {
            self.server_requests.borrow_mut().forget_leg(leg.id);
            self.subscriptions.borrow_mut().retain(|(id, _)| *id != leg.id);
        }
        old
    }

    /// Takes a finished request out of the waiting ones. The session idles from now on, however long the request took.
    pub fn finished(&self, id: &[u8]) {
        self.last_used.set(agentlane_runtime::now());
        let mut in_flight = self.in_flight.borrow_mut();
        if let Some(place) = in_flight.iter().position(|request| request.id[..] == *id) {
            in_flight.swap_remove(place);
        }
    }
}

/// The sessions of one shard.
pub struct SessionTable {
    /// More than so many are not taken.
    max: usize,
    sessions: HashMap<Bytes, Rc<Session>>,
}

/// The table holds as many sessions as it may.
#[derive(Debug)]
pub struct TableFull;

impl SessionTable {
    pub fn new(max: usize) -> Self {
        SessionTable { max, sessions: HashMap::new() }
    }

    pub fn get(&self, id: &[u8]) -> Option<Rc<Session>> {
        self.sessions.get(id).cloned()
    }

    pub fn insert(&mut self, session: Rc<Session>) -> Result<(), TableFull> {
        if self.sessions.len() >= self.max {
            return Err(TableFull);
        }
        self.sessions.insert(session.id.clone(), session);
        Ok(())
    }

    pub fn remove(&mut self, id: &[u8]) -> Option<Rc<Session>> {
        let removed = self.sessions.remove(id);
        // A burst of sessions gives its memory back when it is over.
        if self.sessions.capacity() > 1_024 && self.sessions.len() < self.sessions.capacity() / 4 {
            self.sessions.shrink_to(self.sessions.len() * 2);
        }
        removed
    }

    /// Whether another session would be refused.
    pub fn is_full(&self) -> bool {
        self.sessions.len() >= self.max
    }

    pub fn max(&self) -> usize {
        self.max
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rc<Session>> {
        self.sessions.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(leg: LegId, id: &'static str) -> ServerRequest {
        ServerRequest { leg, id: Bytes::from_static(id.as_bytes()), progress_token: None }
    }

    #[test]
    fn equal_ids_of_two_targets_never_meet() {
        let mut requests = ServerRequests::default();
        let a = requests.add(request(0, "1")).unwrap();
        let b = requests.add(request(1, "1")).unwrap();
        assert_ne!(a, b);
        assert_eq!(requests.find(1, b"1"), Some(b));
        assert_eq!(requests.answered(a), Some(request(0, "1")));
        assert_eq!(requests.answered(a), None, "an answer counts once");
        requests.forget_leg(1);
        assert_eq!(requests.answered(b), None);
    }

    #[test]
    fn too_many_waiting_requests_are_refused() {
        let mut requests = ServerRequests::default();
        for _ in 0..SESSION_SERVER_REQUESTS_MAX {
            requests.add(request(0, "1")).unwrap();
        }
        assert_eq!(requests.add(request(0, "1")), None);
    }
}
