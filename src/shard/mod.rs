//! The data plane of one core. A request passes these rooms, in this order, and each is a file:
//!
//! accept ([`accept`]) > handshake ([`handshake`]) > decode, route, admit ([`connection`]) > dispatch and exchange ([`proxy`] for plain HTTP, [`mcp`]
//! for MCP, with [`upstream`]) > respond ([`responder`], [`record`]).
//!
//! A shard shares no mutable memory with another. What crosses cores is in [`crate::mesh`].

pub mod accept;
pub mod attempts;
pub mod audit;
pub mod connection;
pub mod endpoint;
pub mod handshake;
pub mod health;
pub mod http2;
pub mod mcp;
pub mod metrics;
pub mod outbox;
pub mod proxied;
pub mod proxy;
pub mod record;
pub mod responder;
pub mod upstream;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentlane_link::Drain;
use agentlane_link::client::{ClientLimits, Pool};
use agentlane_link::server::ServerLimits;
use agentlane_runtime as runtime;
use agentlane_runtime::channel::{Receiver, Sender};
use bytes::Bytes;

use crate::backend::mcp::{McpBackend, StdioTarget, Target, TargetKind};
use crate::fault::{Fault, Kind};
use crate::limits::MESH_DEADLINE;
use crate::mesh::{Peers, SharedChild, ToControl, ToShard};
use crate::protocol::mcp::catalogue::Catalogue;
use crate::protocol::mcp::seal::Sealer;
use crate::session::{Session, SessionTable};
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::{AccessLog, AuditLog};
use mcp::conversation::Conversation;
use metrics::{Metrics, RouteCells};

/// How often the logs' buffers go out, however little is in it.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// What a shard is made of.
pub struct Parts {
    pub index: usize,
    pub peers: Peers,
    pub control: Sender<ToControl>,
    pub sealer: Arc<Sealer>,
    pub snapshot: Arc<Snapshot>,
    pub metrics: Metrics,
    pub access: Option<AccessLog>,
    pub audit: Option<AuditLog>,
    pub upstream: ClientLimits,
    /// `initialize` above it is answered 503.
    pub sessions_max: usize,
}

/// One shard. Everything on its thread shares it.
pub struct Shard {
    pub index: usize,
    pub peers: Peers,
    pub control: Sender<ToControl>,
    pub sealer: Arc<Sealer>,
    pub pool: Pool,
    pub sessions: RefCell<SessionTable>,
    /// Conversations of the gateway's own (see [`mcp::open::internal`]), by their serial.
    pub internal: RefCell<HashMap<u64, Rc<Session>>>,
    /// Clients of the transport of 2024-11-05, by the ids of their streams; no more than sessions.
    pub conversations: RefCell<HashMap<Bytes, Rc<Conversation>>>,
    /// Those of them that serve clients without sessions, while no request uses them.
    pub leases: RefCell<mcp::modern::lease::Pool>,
    /// Their children of 2026-07-28.
    pub callers: mcp::callers::Callers,
    /// Requests of such clients that wait for input.
    pub parked: RefCell<mcp::modern::park::Parked>,
    /// Who hears of the targets' changes.
    pub hub: mcp::hub::Hub,
    pub metrics: Metrics,
    pub drain: Drain,
    /// How the addresses of backends fare.
    pub judgements: health::Judgements,
    handshakes: handshake::Handshakes,
    active: RefCell<Rc<Active>>,
    backends: RefCell<Backends>,
    shared_children: RefCell<HashMap<(String, String), Rc<SharedSlot>>>,
    listeners: RefCell<accept::Listeners>,
    access: RefCell<Option<AccessLog>>,
    audit: RefCell<Option<AuditLog>>,
    /// Lists of targets that are kept.
    pub kept: mcp::cache::Kept,
    next_state: Cell<u64>,
    next_call: Cell<u64>,
    next_ticket: Cell<u64>,
}

/// A snapshot as this shard uses it. Requests finish on the one that they began with.
pub struct Active {
    pub snapshot: Arc<Snapshot>,
    pub routes: Rc<[RouteCells]>,
    /// By [`McpBackend::index`].
    pub mcp: Vec<Rc<BackendState>>,
    pub limits: Rc<ServerLimits>,
    /// How many requests each route has had, by its index: whose turn it is among its backends.
    turns: Box<[Cell<u64>]>,
}

impl Active {
    fn new(snapshot: Arc<Snapshot>, backends: &Backends, metrics: &Metrics, shard: usize) -> Rc<Self> {
        let routes = metrics.routes(&snapshot);
        let limits = Rc::new(snapshot.limits.clone());
        // Shards begin at different backends.
        let turns = snapshot.routes.iter().map(|_| Cell::new(shard as u64)).collect();
        let mcp = snapshot.mcp.iter().map(|config| backends[&config.key].clone()).collect();
        Rc::new(Active { snapshot, routes, mcp, limits, turns })
    }

    /// The number of this request among its route's.
    pub fn turn(&self, route: &Route) -> u64 {
        let Some(turn) = self.turns.get(route.index) else { return 0 };
        turn.replace(turn.get().wrapping_add(1))
    }
}

/// The MCP backends by their keys.
type Backends = HashMap<String, Rc<BackendState>>;

/// The states of a snapshot's MCP backends. What is known of equal targets is kept. `ids` counts states.
fn backends_of(snapshot: &Snapshot, previous: &Backends, ids: &Cell<u64>) -> Backends {
    let mut next = Backends::new();
    for config in &snapshot.mcp {
        next.entry(config.key.clone()).or_insert_with(|| {
            let before = previous.get(&config.key);
            let known = before.filter(|known| same_targets(&known.config, config));
            let catalogue = RefCell::new(known.map(|known| known.catalogue.take()).unwrap_or_default());
            let eras = known.map(|known| known.eras.clone()).unwrap_or_default();
            let old_transport = RefCell::new(known.map(|known| known.old_transport.take()).unwrap_or_default());
            let introductions = RefCell::default();
            let id = || ids.replace(ids.get() + 1);
            let lists = config.targets.iter().map(|target| {
                let known = before.and_then(|before| before.lists_of(target));
                known.unwrap_or_else(|| mcp::cache::TargetLists::new(id()))
            });
            Rc::new(BackendState {
                id: id(),
                config: config.clone(),
                catalogue,
                lists: lists.collect(),
                locks: config.targets.iter().map(|_| mcp::lock::Known::default()).collect(),
                introductions,
                eras,
                old_transport,
            })
        });
    }
    next
}

/// One MCP backend on this shard.
pub struct BackendState {
    /// Unique on the shard: the same backend after a reload has another.
    pub id: u64,
    pub config: Arc<McpBackend>,
    pub catalogue: RefCell<Catalogue>,
    /// Which revisions its targets speak, as far as they were seen.
    pub eras: mcp::era::Eras,
    /// Targets that were found to speak the transport of 2024-11-05, by name, and when.
    pub old_transport: RefCell<HashMap<String, Instant>>,
    /// How targets with sessions introduced themselves last, by their names.
    pub introductions: RefCell<HashMap<String, mcp::modern::Introduction>>,
    /// In the order of the targets.
    pub lists: Vec<Rc<mcp::cache::TargetLists>>,
    /// What the tool lock has said, in the same order.
    pub locks: Vec<mcp::lock::Known>,
}

impl BackendState {
    /// What is known of the lists of an equal target.
    fn lists_of(&self, target: &Target) -> Option<Rc<mcp::cache::TargetLists>> {
        let same = |known: &Arc<Target>| known.name == target.name && known.fingerprint == target.fingerprint;
        self.config.targets.iter().position(same).map(|place| self.lists[place].clone())
    }
}

/// A shared child that this shard owns, or may start.
#[derive(Default)]
pub struct SharedSlot {
    pub child: RefCell<Option<SharedChild>>,
    /// One task starts it, others wait.
    pub turn: Turn,
    pub backoff: Backoff,
}

impl Shard {
    /// Runs a shard to its end: the end of its inbox.
    pub async fn run(parts: Parts, inbox: Receiver<ToShard>, ready: Sender<Result<(), String>>) {
        let ids = Cell::new(0);
        let backends = backends_of(&parts.snapshot, &Backends::new(), &ids);
        let active = Active::new(parts.snapshot, &backends, &parts.metrics, parts.index);
        let shard = Rc::new(Shard {
            // Ids of calls are unique over all shards, and small enough for every JSON parser: 10 bits and 42.
            next_call: Cell::new((parts.index as u64) << 42),
            index: parts.index,
            peers: parts.peers,
            control: parts.control,
            sealer: parts.sealer,
            pool: Pool::new(parts.upstream),
            sessions: RefCell::new(SessionTable::new(parts.sessions_max)),
            internal: RefCell::default(),
            conversations: RefCell::default(),
            leases: RefCell::default(),
            callers: Default::default(),
            parked: RefCell::default(),
            hub: mcp::hub::Hub::default(),
            metrics: parts.metrics,
            kept: Default::default(),
            next_state: ids,
            drain: Drain::new(),
            judgements: Default::default(),
            handshakes: Default::default(),
            backends: RefCell::new(backends),
            shared_children: RefCell::default(),
            listeners: RefCell::default(),
            access: RefCell::new(parts.access),
            audit: RefCell::new(parts.audit),
            next_ticket: Cell::new(parts.index as u64),
            active: RefCell::new(active.clone()),
        });
        let bound = accept::follow(&shard, &active.snapshot);
        let _ = ready.try_send(bound);
        runtime::spawn(mcp::close::sweep(shard.clone()));
        runtime::spawn(mcp::modern::sweep(shard.clone()));
        runtime::spawn(flush_logs(shard.clone()));
        while let Some(message) = inbox.recv().await {
            if shard.take(message) {
                return;
            }
        }
    }

    /// Handles a message; true when the shard shall end.
    fn take(self: &Rc<Self>, message: ToShard) -> bool {
        match message {
            ToShard::Publish { snapshot, done } => {
                let outcome = self.publish(snapshot);
                let _ = done.try_send(outcome);
            }
            ToShard::Connection(moved) => connection::adopt(self, *moved),
            ToShard::Request(forwarded) => {
                let shard = self.clone();
                runtime::spawn(async move { endpoint::serve_forwarded(&shard, *forwarded).await });
            }
            ToShard::Client(client) => {
                let (shard, ended) = (self.clone(), client.ended.clone());
                runtime::spawn(async move {
                    mcp::stdio_front::serve(shard, *client).await;
                    let _ = ended.try_send(());
                });
            }
            ToShard::Survey { backend, reply } => {
                let shard = self.clone();
                runtime::spawn(async move {
                    let _ = reply.try_send(mcp::survey::survey(&shard, backend).await);
                });
            }
            ToShard::Overheard(overheard) => mcp::hub::Hub::told(self, &overheard),
            ToShard::SharedChild { backend, target, reply } => {
                let shard = self.clone();
                runtime::spawn(async move {
                    let _ = reply.try_send(shard.own_child(&backend, &target).await);
                });
            }
            ToShard::CallersChild { backend, target, caller, reply } => {
                let shard = self.clone();
                runtime::spawn(async move {
                    let _ = reply.try_send(mcp::callers::own(&shard, &backend, &target, caller).await);
                });
            }
            ToShard::ListWanted(wanted) => {
                let shard = self.clone();
                runtime::spawn(async move {
                    let _ = wanted.reply.try_send(mcp::cache::share::give(&shard, &wanted.list, wanted.after).await);
                });
            }
            ToShard::ListFetched(fetched) => mcp::cache::share::take(self, *fetched),
            ToShard::ListsChanged(changed) => mcp::cache::share::note_changed(self, &changed),
            ToShard::ReadsChanged(changed) => mcp::cache::reads::note_changed(self, &changed),
            ToShard::Drain { done } => {
                // Not awaited: requests that drain may need what still comes into this inbox.
                let shard = self.clone();
                runtime::spawn(async move {
                    shard.drain_all().await;
                    let _ = done.try_send(());
                });
            }
            ToShard::Stop => {
                self.hub.end_listens();
                self.all_sessions().iter().for_each(|session| mcp::close::end(self, session));
                if let Some(access) = self.access.borrow_mut().as_mut() {
                    access.flush();
                }
                self.flush_audit(true);
                return true;
            }
        }
        false
    }

    /// Takes a new configuration: listeners first, because only they can fail.
    fn publish(self: &Rc<Self>, snapshot: Arc<Snapshot>) -> Result<(), String> {
        accept::follow(self, &snapshot)?;
        self.judgements.follow(&snapshot);
        let backends = backends_of(&snapshot, &self.backends.borrow(), &self.next_state);
        *self.active.borrow_mut() = Active::new(snapshot, &backends, &self.metrics, self.index);
        self.adopt(backends);
        Ok(())
    }

    /// Takes the backends' new states, and tells sessions whose targets changed.
    fn adopt(self: &Rc<Self>, backends: Backends) {
        let previous = self.backends.replace(backends);
        for session in self.all_sessions() {
            match (self.mcp_backend(&session.backend), previous.get(&*session.backend)) {
                (None, _) => mcp::close::end(self, &session),
                (Some(now), Some(before)) if same_targets(&now.config, &before.config) => {
                    mcp::lock::relocked(self, &session, before, &now);
                }
                (Some(now), _) => mcp::close::relink(self, &session, &now.config),
            }
        }
        // Children of targets that are gone have nobody left to stop them.
        self.shared_children.borrow_mut().retain(|(backend, target), slot| {
            let stays = self.stdio_target(backend, target).is_some_and(|stdio| stdio.shared);
            if !stays && let Some(child) = slot.child.borrow_mut().take() {
                child.port.stop();
            }
            stays
        });
        self.callers.retain(|backend, target| {
            let state = self.mcp_backend(backend)?;
            state.config.targets.iter().find(|candidate| candidate.name == target).cloned()
        });
    }

    /// The clients' sessions and the gateway's own.
    pub fn all_sessions(&self) -> Vec<Rc<Session>> {
        self.sessions.borrow().iter().chain(self.internal.borrow().values()).cloned().collect()
    }

    pub fn active(&self) -> Rc<Active> {
        self.active.borrow().clone()
    }

    pub fn mcp_backend(&self, key: &str) -> Option<Rc<BackendState>> {
        self.backends.borrow().get(key).cloned()
    }

    /// A number for the next request that chooses between equals.
    pub fn ticket(&self) -> u64 {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket.wrapping_add(1));
        ticket
    }

    /// An id for a request of the gateway's own numbering.
    pub fn call_id(&self) -> u64 {
        let id = self.next_call.get() + 1;
        self.next_call.set(id);
        id
    }

    /// The shard that owns a shared child.
    pub fn owner_of(&self, backend: &str, target: &str) -> usize {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (backend, target).hash(&mut hasher);
        (hasher.finish() % self.peers.len() as u64) as usize
    }

    pub fn shared_child(&self, backend: &str, target: &str) -> Rc<SharedSlot> {
        let key = (backend.to_owned(), target.to_owned());
        self.shared_children.borrow_mut().entry(key).or_default().clone()
    }

    async fn own_child(self: &Rc<Self>, backend: &str, target: &str) -> Result<SharedChild, &'static str> {
        let stdio = self.stdio_target(backend, target).ok_or("target is not configured")?;
        let patience = self.mcp_backend(backend).map_or(MESH_DEADLINE, |state| state.config.deadline);
        let deadline = runtime::now() + patience;
        mcp::child::own_shared(self, backend, target, &stdio, deadline).await.map_err(|fault| fault.message)
    }

    fn stdio_target(&self, backend: &str, target: &str) -> Option<StdioTarget> {
        let state = self.mcp_backend(backend)?;
        let target = state.config.targets.iter().find(|candidate| candidate.name == target)?;
        match &target.kind {
            TargetKind::Stdio(stdio) => Some(stdio.clone()),
            TargetKind::Http(_) | TargetKind::Sse(_) => None,
        }
    }

    /// Accepts nothing new, lets what runs finish, and waits until every connection is gone.
    async fn drain_all(self: &Rc<Self>) {
        self.listeners.borrow_mut().stop_all();
        self.drain.start();
        self.conversations.borrow().values().filter(|one| !one.has_begun()).for_each(|one| one.close());
        mcp::modern::drain(self);
        self.hub.end_listens();
        // Streams that clients hold open end when their sessions do.
        let sessions: Vec<_> = self.sessions.borrow().iter().cloned().collect();
        sessions.iter().filter(|session| session.in_flight.borrow().is_empty()).for_each(|s| s.hang_up());
        while self.drain.connections() > 0 {
            runtime::sleep(Duration::from_millis(20)).await;
            let sessions: Vec<_> = self.sessions.borrow().iter().cloned().collect();
            sessions.iter().filter(|session| session.in_flight.borrow().is_empty()).for_each(|s| s.hang_up());
        }
        mcp::modern::drained(self).await;
    }
}

fn same_targets(a: &McpBackend, b: &McpBackend) -> bool {
    a.targets.len() == b.targets.len()
        && a.prefixed == b.prefixed
        && a.name_length == b.name_length
        && a.targets.iter().zip(&b.targets).all(|(a, b)| a.name == b.name && a.fingerprint == b.fingerprint)
}

async fn flush_logs(shard: Rc<Shard>) {
    loop {
        runtime::sleep(FLUSH_EVERY).await;
        if let Some(access) = shard.access.borrow_mut().as_mut() {
            access.flush();
        }
        shard.flush_audit(false);
    }
}

/// Lets one task at a time through, in the order of asking.
#[derive(Default)]
pub struct Turn {
    taken: Cell<bool>,
    free: runtime::local::Notify,
}

/// Gives the turn to the next when dropped.
pub struct TurnGuard<'a>(&'a Turn);

impl Turn {
    pub async fn lock(&self) -> TurnGuard<'_> {
        while self.taken.replace(true) {
            self.free.notified().await;
        }
        TurnGuard(self)
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        self.0.taken.set(false);
        self.0.free.notify_one();
    }
}

/// The pauses between starts of a child that keeps failing.
#[derive(Default)]
pub struct Backoff {
    failures: Cell<u32>,
    not_before: Cell<Option<Instant>>,
}

impl Backoff {
    /// A fault while the pause lasts.
    pub fn pause(&self, target: &StdioTarget, name: &str) -> Result<(), Fault> {
        let now = runtime::now();
        if self.lasts(now) {
            return Err(Fault::new(Kind::UpstreamUnreachable, "target keeps failing").with(name));
        }
        let pause = target.backoff_min.saturating_mul(1 << self.failures.get().min(16)).min(target.backoff_max);
        self.not_before.set(Some(now + pause));
        Ok(())
    }

    /// Whether the pause after a failure lasts.
    pub fn lasts(&self, now: Instant) -> bool {
        self.not_before.get().is_some_and(|until| now < until)
    }

    /// Notes how a start went.
    pub fn tried(&self, succeeded: bool) {
        if succeeded {
            self.failures.set(0);
            self.not_before.set(None);
        } else {
            self.failures.set(self.failures.get().saturating_add(1));
        }
    }
}
