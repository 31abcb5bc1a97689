//! Resources of modern targets on one shard: what is kept of them, which are on their way, and what makes one old. Each
//! shard keeps its own; of changes all hear.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentlane_runtime as runtime;
use agentlane_runtime::local::Event;
use agentlane_wire::json::Envelope;
use bytes::Bytes;

use super::{ENTRY_BYTES, FRESH_MAX, share};
use crate::limits::{READ_FLIGHTS_MAX, READ_UPDATES_MAX};
use crate::mesh::{ReadsChanged, ToShard};
use crate::protocol::mcp::cache::{Audience, Hints, Stamp, Viewer};
use crate::protocol::mcp::method::ListKind;
use crate::protocol::mcp::modern::reads;
use crate::session::{LegId, Session};
use crate::shard::mcp::Incoming;
use crate::shard::mcp::routing::Route;
use crate::shard::{BackendState, Shard};

/// A resource of one target, by its own URI.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ReadId {
    /// [`TargetLists::id`](super::TargetLists).
    target: u64,
    uri: Rc<str>,
}

/// What a shard knows of one target's resources, beside the resources.
pub struct Reads {
    /// When the target last said that a resource has changed.
    updated: RefCell<HashMap<Rc<str>, Instant>>,
    /// The same for all of them, when that would be too many.
    all: Cell<Instant>,
    /// Whom the last result was for.
    last: Cell<Last>,
    flights: RefCell<Vec<Rc<Flight>>>,
    /// What other shards are about to be told.
    untold: RefCell<Vec<Arc<str>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Unknown,
    /// It may not be given twice.
    Nobody,
    Kept(Audience),
}

/// One request on its way, that others wait for.
struct Flight {
    uri: Rc<str>,
    viewer: Viewer,
    begun: Instant,
    landed: Event,
    /// An answer came, whatever it was.
    answered: Cell<bool>,
}

/// A request that may be answered with what another one got.
pub struct Reading<'a> {
    pub shard: &'a Rc<Shard>,
    pub backend: &'a Rc<BackendState>,
    place: usize,
    uri: Rc<str>,
    viewer: Viewer,
    /// A rule of ours reads who asks: nobody is told that it is for everybody.
    depends_on_caller: bool,
}

/// What becomes of it.
pub enum Turn {
    /// A result, and what its client is told of keeping it.
    Kept(Bytes, Hints),
    /// It asks the target.
    Ask(Asking),
}

/// A request that asks the target; dropped, it lets go of those that wait for it.
pub struct Asking {
    shard: Rc<Shard>,
    backend: Rc<BackendState>,
    place: usize,
    uri: Rc<str>,
    viewer: Viewer,
    begun: Instant,
    flight: Option<Rc<Flight>>,
}

impl Reads {
    pub fn new(now: Instant) -> Self {
        Reads {
            updated: RefCell::default(),
            all: Cell::new(now),
            last: Cell::new(Last::Unknown),
            flights: RefCell::default(),
            untold: RefCell::default(),
        }
    }

    /// A resource changed then, or later as far as one knows.
    fn changed_at(&self, uri: &str, at: Instant) {
        let mut updated = self.updated.borrow_mut();
        if let Some(known) = updated.get_mut(uri) {
            *known = at.max(*known);
        } else if updated.len() < READ_UPDATES_MAX {
            updated.insert(uri.into(), at);
        } else {
            updated.clear();
            self.all.set(self.all.get().max(Instant::now()));
        }
    }
}

/// A request for a resource of the target at a route's place, which the rules let pass; `None`: its result is nobody else's.
pub fn reading<'a>(
    incoming: &Incoming<'a>,
    route: &Route,
    viewer: impl FnOnce() -> Viewer,
    body: &[u8],
    envelope: &Envelope,
) -> Option<Reading<'a>> {
    let Incoming { shard, backend, access, .. } = *incoming;
    if backend.config.is_identity() && !backend.config.keeps_lists() {
        return None;
    }
    let uri = reads::uri(body, envelope)?;
    let uri = route.outward_uri.as_ref().map_or(uri, |(own, _)| own.clone());
    let depends_on_caller = access.tells_callers_apart();
    Some(Reading { shard, backend, place: route.index, uri: uri.into(), viewer: viewer(), depends_on_caller })
}

impl Reading<'_> {
    /// Looks for a result, waits for one that is on its way, or takes the turn of asking.
    pub async fn turn(&self) -> Turn {
        let until = runtime::now() + self.backend.config.deadline;
        loop {
            if let Some((result, hints)) = self.find() {
                return Turn::Kept(result, hints);
            }
            let Some(flight) = self.flight() else { return Turn::Ask(self.asking(true)) };
            let left = until.saturating_duration_since(runtime::now());
            let landed = runtime::timeout(left, flight.landed.wait()).await.is_ok();
            if !landed || flight.answered.get() && self.find().is_none() {
                // Too late, or not for this one: it does not wait again.
                return Turn::Ask(self.asking(false));
            }
        }
    }

    fn find(&self) -> Option<(Bytes, Hints)> {
        let lists = &self.backend.lists[self.place];
        let id = ReadId { target: lists.id, uri: self.uri.clone() };
        let kept = self.shard.kept.reads.borrow();
        let found = kept.find(&id, &self.viewer, lists.read_since(&self.uri), runtime::now())?;
        let hints = Hints::merged([Hints::of(found.audience, found.fresh_for)], self.depends_on_caller, false);
        found.fresh_for.map(|_| (found.value, hints))
    }

    /// One on its way whose result may be for this viewer too, as far as one can know.
    fn flight(&self) -> Option<Rc<Flight>> {
        let lists = &self.backend.lists[self.place];
        let since = lists.read_since(&self.uri);
        let shares = |flight: &Flight| match lists.reads.last.get() {
            Last::Unknown => true,
            Last::Nobody => false,
            Last::Kept(audience) => audience.shares(&flight.viewer, &self.viewer),
        };
        let flights = lists.reads.flights.borrow();
        flights.iter().find(|flight| flight.uri == self.uri && flight.begun >= since && shares(flight)).cloned()
    }

    fn asking(&self, leads: bool) -> Asking {
        let (uri, viewer, begun) = (self.uri.clone(), self.viewer, Instant::now());
        let mut flights = self.backend.lists[self.place].reads.flights.borrow_mut();
        let flight = (leads && flights.len() < READ_FLIGHTS_MAX).then(|| {
            let (landed, answered) = (Event::new(), Cell::new(false));
            let flight = Rc::new(Flight { uri: uri.clone(), viewer, begun, landed, answered });
            flights.push(flight.clone());
            flight
        });
        let (shard, backend) = (self.shard.clone(), self.backend.clone());
        Asking { shard, backend, place: self.place, uri, viewer, begun, flight }
    }
}

impl Asking {
    /// The target's answer came.
    pub fn answered(&self, message: &[u8]) {
        if let Some(flight) = &self.flight {
            flight.answered.set(true);
        }
        if let Some((result, hints)) = reads::result(message) {
            self.keep(result, hints);
        }
        self.land();
    }

    fn keep(&self, result: Bytes, hints: Hints) {
        let lists = &self.backend.lists[self.place];
        if hints.ttl.is_zero() {
            lists.reads.last.set(Last::Nobody);
            return;
        }
        let audience = if hints.public { Audience::Everybody } else { Audience::Own };
        lists.reads.last.set(Last::Kept(audience));
        let now = runtime::now();
        let fresh_until = now + hints.ttl.min(FRESH_MAX);
        let stamp = Stamp { made: now, mark: self.begun, fresh_until, stale_until: now };
        let id = ReadId { target: lists.id, uri: self.uri.clone() };
        let bytes = result.len() + self.uri.len() + ENTRY_BYTES;
        self.shard.kept.reads.borrow_mut().insert(id, audience, &self.viewer, result, bytes, stamp);
    }

    /// Those that wait look again.
    fn land(&self) {
        if let Some(flight) = &self.flight {
            self.backend.lists[self.place].reads.flights.borrow_mut().retain(|known| !Rc::ptr_eq(known, flight));
            flight.landed.set();
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.land();
    }
}

impl super::TargetLists {
    /// A result is fresh that was asked for then, or later. What lists resources says that they have changed too.
    fn read_since(&self, uri: &str) -> Instant {
        let updated = self.reads.updated.borrow().get(uri).copied();
        let since = self.changed(ListKind::Resources).max(self.reads.all.get());
        updated.map_or(since, |updated| updated.max(since)) + Duration::from_nanos(1)
    }
}

/// The target of `session`'s leg says that a resource has changed. Comes before any client is told; the other shards
/// hear of it soon.
pub fn updated(shard: &Rc<Shard>, session: &Session, leg: LegId, uri: &str) {
    let Some(backend) = shard.mcp_backend(&session.backend) else { return };
    let Some(place) = session.leg(leg).and_then(|leg| backend.config.target_index(&leg.target.name)) else { return };
    let known = &backend.lists[place].reads;
    known.changed_at(uri, Instant::now());
    if shard.peers.len() == 1 {
        return;
    }
    let mut untold = known.untold.borrow_mut();
    untold.push(uri.into());
    if untold.len() == 1 {
        runtime::spawn(tell(shard.clone(), backend.clone(), place));
    }
}

/// Tells the other shards what has changed; what comes meanwhile goes along.
async fn tell(shard: Rc<Shard>, backend: Rc<BackendState>, place: usize) {
    runtime::sleep(share::TELL_AFTER).await;
    let uris: Arc<[Arc<str>]> = backend.lists[place].reads.untold.take().into();
    let at = Instant::now();
    let mut untold: Vec<usize> = (0..shard.peers.len()).filter(|&peer| peer != shard.index).collect();
    for _ in 0..share::TELL_ATTEMPTS {
        untold.retain(|&peer| {
            let changed = ReadsChanged { backend: backend.config.clone(), place, uris: uris.clone(), at };
            shard.peers[peer].try_send(ToShard::ReadsChanged(Box::new(changed))).is_err()
        });
        if untold.is_empty() {
            return;
        }
        runtime::sleep(share::TELL_AFTER).await;
    }
    tracing::warn!(target: "agentlane::mcp", "a shard takes no messages: its resources get old by time alone");
}

/// Another shard was told of changes.
pub fn note_changed(shard: &Shard, changed: &ReadsChanged) {
    let Some((backend, place)) = share::here(shard, &changed.backend, changed.place) else { return };
    for uri in changed.uris.iter() {
        backend.lists[place].reads.changed_at(uri, changed.at);
    }
}
