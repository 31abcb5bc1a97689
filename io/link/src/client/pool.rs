//! The upstream connections of one shard, by endpoint: idle ones for reuse, a bounded number open, a bounded queue for
//! them. Knows addresses, no names and no health.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use agentlane_runtime::local::oneshot;
use agentlane_runtime::{Stream, now, sleep, spawn, timeout};

use super::link::Link;
use super::multiplex::Http2;
use super::{ClientConnection, ClientError, ClientErrorKind, ClientLimits};
use crate::peek::Peek;
use crate::tls::{self, ClientTls, TlsError};
use crate::transport::Transport;

/// Pause between two looks at all idle connections.
const SWEEP: Duration = Duration::from_secs(1);

/// The upstream connections of one shard. Clones share it.
#[derive(Clone)]
pub struct Pool(Rc<Shared>);

struct Shared {
    limits: Rc<ClientLimits>,
    endpoints: RefCell<HashMap<Key, Endpoint>>,
}

/// The version of HTTP that an upstream is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Spoken {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by prior knowledge, and over TLS by agreement, without which there is no connection.
    Http2,
    /// Whichever of the two the TLS handshake comes to.
    Agreed,
}

/// An address, and how it is spoken to: connections of two TLS identities, or with TLS and without, are never mixed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    addr: SocketAddr,
    /// [`ClientTls::id`], 0 without TLS.
    tls: u64,
    spoken: Spoken,
}

impl Pool {
    /// An empty pool. Its limits hold for each endpoint.
    pub fn new(limits: ClientLimits) -> Self {
        Pool(Rc::new(Shared { limits: Rc::new(limits), endpoints: RefCell::default() }))
    }

    /// The endpoint at `addr`, spoken to with TLS or without. Keep it where requests come often: it saves the look-up.
    pub fn endpoint(&self, addr: SocketAddr, tls: Option<&ClientTls>, spoken: Spoken) -> Endpoint {
        let mut endpoints = self.0.endpoints.borrow_mut();
        let key = Key { addr, tls: tls.map_or(0, ClientTls::id), spoken };
        if let Some(endpoint) = endpoints.get(&key) {
            return endpoint.clone();
        }
        // An endpoint that nobody uses any more costs little, but addresses come and go.
        endpoints.retain(|_, endpoint| !endpoint.is_forgotten());
        let endpoint = Endpoint(Rc::new(State {
            addr,
            tls: tls.map(ClientTls::for_endpoint),
            limits: self.0.limits.clone(),
            idle: RefCell::default(),
            open: Cell::new(0),
            waiting: RefCell::default(),
            sweeping: Cell::new(false),
            spoken,
            http2: Default::default(),
        }));
        endpoints.insert(key, endpoint.clone());
        endpoint
    }

    /// See [`Endpoint::connection`]; without TLS.
    pub async fn connection(&self, addr: SocketAddr) -> Result<ClientConnection, ClientError> {
        self.endpoint(addr, None, Spoken::Http1).connection().await
    }

    /// Closes all idle connections.
    pub fn clear(&self) {
        let endpoints: Vec<Endpoint> = self.0.endpoints.borrow().values().cloned().collect();
        endpoints.iter().for_each(|endpoint| {
            endpoint.sweep(|_| false);
            endpoint.sweep_http2(Duration::ZERO);
        });
    }

    /// Open connections, in use and idle.
    pub fn open(&self) -> usize {
        self.0.endpoints.borrow().values().map(|endpoint| endpoint.0.open.get()).sum()
    }

    /// Idle connections.
    pub fn idle(&self) -> usize {
        self.0.endpoints.borrow().values().map(|endpoint| endpoint.0.idle.borrow().len()).sum()
    }
}

/// One upstream address of a pool. Clones share it.
#[derive(Clone)]
pub struct Endpoint(pub(super) Rc<State>);

pub(super) struct State {
    addr: SocketAddr,
    tls: Option<ClientTls>,
    pub(super) limits: Rc<ClientLimits>,
    /// The last one used is at the end, and is used next.
    idle: RefCell<Vec<Idle>>,
    /// Connections in use, idle and being made.
    pub(super) open: Cell<usize>,
    waiting: RefCell<VecDeque<oneshot::Sender<Grant>>>,
    sweeping: Cell<bool>,
    pub(super) spoken: Spoken,
    pub(super) http2: Http2,
}

struct Idle {
    /// Boxed: it moves between pool and exchange with every request.
    link: Box<Link>,
    since: Instant,
    until: Option<Instant>,
}

/// What a waiting request is given: a connection, or the right to make one.
enum Grant {
    Reuse(Box<Link>, Permit),
    Connect(Permit),
}

impl Grant {
    fn into_permit(self) -> Permit {
        match self {
            Grant::Reuse(_, permit) | Grant::Connect(permit) => permit,
        }
    }
}

/// One of the connections that an endpoint may have; dropped, it goes to who waits longest.
pub(super) struct Permit {
    endpoint: Endpoint,
    /// False: handed on, or kept by an idle connection.
    live: bool,
}

impl Permit {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        Permit { endpoint: endpoint.clone(), live: true }
    }

    /// The connection is kept, and counts.
    pub(super) fn pass_on(&mut self) {
        self.live = false;
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if std::mem::take(&mut self.live) {
            self.endpoint.give_back();
        }
    }
}

impl Endpoint {
    /// The address of this endpoint.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// A connection: the one used last, or a new one. Waits, within limits, when too many are open.
    pub async fn connection(&self) -> Result<ClientConnection, ClientError> {
        if self.0.spoken != Spoken::Http1 {
            return Box::pin(self.exchange()).await;
        }
        match self.reuse() {
            Some(link) => Ok(ClientConnection::new(link, Permit::new(self))),
            None => Box::pin(self.new_connection()).await,
        }
    }

    /// A connection that has served nothing yet, for the one retry after a reused connection broke. An idle connection
    /// makes room for it; only when all are in use it waits, and may then be given a used one.
    pub async fn new_connection(&self) -> Result<ClientConnection, ClientError> {
        if self.0.spoken != Spoken::Http1 {
            return Box::pin(self.exchange()).await;
        }
        self.new_http1().await
    }

    pub(super) async fn new_http1(&self) -> Result<ClientConnection, ClientError> {
        if self.0.open.get() >= self.0.limits.connections_max {
            let oldest = {
                let mut idle = self.0.idle.borrow_mut();
                (!idle.is_empty()).then(|| idle.remove(0))
            };
            if oldest.is_none() {
                return self.wait().await;
            }
            self.give_back();
        }
        self.0.open.set(self.0.open.get() + 1);
        self.connect(Permit::new(self)).await
    }

    async fn connect(&self, permit: Permit) -> Result<ClientConnection, ClientError> {
        let transport = self.open().await.map_err(ClientError::not_sent)?;
        Ok(self.on(transport, permit))
    }

    /// A connection of HTTP/1.
    pub(super) fn on(&self, transport: Transport, permit: Permit) -> ClientConnection {
        ClientConnection::new(Box::new(Link::new(transport, self.0.limits.clone())), permit)
    }

    /// A new connection, the handshake of TLS within its time.
    pub(super) async fn open(&self) -> Result<Transport, ClientErrorKind> {
        let due = now().checked_add(self.0.limits.connect_time);
        let stream = match due {
            Some(due) => Stream::connect_until(self.0.addr, due).await,
            None => Stream::connect(self.0.addr).await,
        };
        let stream = stream.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => ClientErrorKind::ConnectTimeout,
            kind => ClientErrorKind::Connect(kind),
        })?;
        let Some(tls) = &self.0.tls else { return Ok(stream.into()) };
        tls::connect(stream, tls, due).await.map_err(|error| match error {
            TlsError::Timeout => ClientErrorKind::ConnectTimeout,
            error => ClientErrorKind::Handshake(error),
        })
    }

    async fn wait(&self) -> Result<ClientConnection, ClientError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.0.waiting.borrow_mut();
            waiting.retain(|waiter| !waiter.is_closed());
            if waiting.len() >= self.0.limits.waiting_max {
                return Err(ClientError::not_sent(ClientErrorKind::QueueFull));
            }
            waiting.push_back(sender);
        }
        match timeout(self.0.limits.wait_time, receiver).await {
            Ok(Some(Grant::Reuse(link, permit))) => Ok(ClientConnection::new(link, permit)),
            Ok(Some(Grant::Connect(permit))) => self.connect(permit).await,
            Ok(None) | Err(_) => Err(ClientError::not_sent(ClientErrorKind::QueueTimeout)),
        }
    }

    /// The idle connection used last, unless it has gone stale.
    pub(super) fn reuse(&self) -> Option<Box<Link>> {
        let now = now();
        loop {
            let mut idle = self.0.idle.borrow_mut().pop()?;
            let rested = now.saturating_duration_since(idle.since);
            let expired = idle.until.is_some_and(|until| until <= now);
            if !expired && (rested < self.0.limits.trust || idle.link.socket().peek() == Peek::Silent) {
                idle.link.reset();
                return Some(idle.link);
            }
            drop(idle);
            self.give_back();
        }
    }

    /// Takes back a connection that may serve again.
    pub(super) fn put(&self, mut link: Box<Link>, mut permit: Permit) {
        link.rest();
        while let Some(waiter) = self.0.pop_waiter() {
            link.reset();
            match waiter.send(Grant::Reuse(link, permit)) {
                Ok(()) => return,
                Err(Grant::Reuse(back, permit_back)) => (link, permit) = (back, permit_back),
                Err(Grant::Connect(_)) => return,
            }
        }
        let mut idle = self.0.idle.borrow_mut();
        if idle.len() >= self.0.limits.idle_max {
            return;
        }
        permit.live = false;
        let since = now();
        let hint = link.idle_hint().map(|hint| hint - (hint / 2).min(Duration::from_secs(1)));
        let until = since.checked_add(hint.map_or(self.0.limits.idle, |hint| hint.min(self.0.limits.idle)));
        idle.push(Idle { link, since, until });
        drop(idle);
        self.start_sweeping();
    }

    /// One connection less, or another chance for who waits longest.
    pub(super) fn give_back(&self) {
        while let Some(waiter) = self.0.pop_waiter() {
            match waiter.send(Grant::Connect(Permit::new(self))) {
                Ok(()) => return,
                Err(grant) => grant.into_permit().live = false,
            }
        }
        self.0.open.set(self.0.open.get().saturating_sub(1));
    }

    /// One task as long as anything is idle here; it holds no handle that would keep the endpoint.
    pub(super) fn start_sweeping(&self) {
        if self.0.sweeping.replace(true) {
            return;
        }
        let state = Rc::downgrade(&self.0);
        spawn(async move {
            while sweep_once(&state) {
                sleep(SWEEP).await;
            }
        });
    }

    /// Closes the idle connections that `keep` refuses.
    fn sweep(&self, keep: impl Fn(&Idle) -> bool) {
        let before = self.0.idle.borrow().len();
        self.0.idle.borrow_mut().retain(keep);
        let closed = before - self.0.idle.borrow().len();
        (0..closed).for_each(|_| self.give_back());
    }

    fn is_forgotten(&self) -> bool {
        self.0.open.get() == 0 && Rc::strong_count(&self.0) == 1
    }
}

/// Closes what is stale. False: nothing is left to look after.
fn sweep_once(state: &Weak<State>) -> bool {
    let Some(state) = state.upgrade() else { return false };
    let endpoint = Endpoint(state);
    let now = now();
    endpoint.sweep(|idle| {
        idle.until.is_none_or(|until| until > now)
            && (now.saturating_duration_since(idle.since) < endpoint.0.limits.trust
                || idle.link.socket().peek() == Peek::Silent)
    });
    endpoint.sweep_http2(endpoint.0.limits.idle);
    let any = !endpoint.0.idle.borrow().is_empty() || !endpoint.0.http2.is_empty();
    endpoint.0.sweeping.set(any);
    any
}

impl State {
    fn pop_waiter(&self) -> Option<oneshot::Sender<Grant>> {
        self.waiting.borrow_mut().pop_front()
    }
}
