//! Targets' lists on one shard: what is kept of them, what is on its way, and what of it a request gets. How lists are
//! merged is for [`super::lists`].

mod fetch;
mod flight;
pub mod reads;
pub mod share;

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentlane_runtime as runtime;
use agentlane_wire::json::{self, Envelope};
use bytes::Bytes;

use super::{SCAN_LIMITS, lock, mcp_fault};
use crate::backend::mcp::{FailureMode, ListPolicy};
use crate::fault::{Fault, Kind};
use crate::limits::{
    LIST_CACHE_BYTES_MAX, LIST_CACHE_ENTRIES_MAX, LIST_FLIGHTS_MAX, PAGE_CACHE_BYTES_MAX, PAGE_CACHE_ENTRIES_MAX,
    READ_CACHE_BYTES_MAX, READ_CACHE_ENTRIES_MAX,
};
use crate::mesh::SharedList;
use crate::protocol::mcp::cache::{Audience, Bounds, Cache, Found, Stamp, Viewer};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::listing::{Listing, Origin};
use crate::protocol::mcp::method::ListKind;
use crate::protocol::mcp::modern::tools::Tools;
use crate::protocol::mcp::revision::Revision;
use crate::session::{LegId, Session};
use crate::shard::{BackendState, Shard};
pub use fetch::list as fetch_list;
use flight::{Arrived, Flight};

/// No list is kept longer, whatever its target says.
const FRESH_MAX: Duration = Duration::from_secs(24 * 3600);
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 256;

/// In the order of their numbers.
const KINDS: [ListKind; 4] = [ListKind::Tools, ListKind::Prompts, ListKind::Resources, ListKind::ResourceTemplates];

/// The lists and resources that a shard keeps.
pub struct Kept {
    /// Marked with when they were asked for.
    lists: RefCell<Cache<ListId, Instant, Arc<Listing>>>,
    /// First pages of merged lists, as results. Marked with [`Gathering::changes`].
    pages: RefCell<Cache<PageId, u64, Page>>,
    /// Results of `resources/read`. Marked with when they were asked for.
    reads: RefCell<Cache<reads::ReadId, Instant, Bytes>>,
}

/// A list of one target.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ListId {
    /// [`TargetLists::id`].
    target: u64,
    kind: ListKind,
}

/// The first page of a merged list, as a result.
#[derive(Clone)]
pub struct Page {
    pub result: Bytes,
    /// [`federate::content_digest`](crate::protocol::mcp::federate::content_digest) of the whole list.
    pub digest: u64,
}

/// A merged list.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct PageId {
    /// [`BackendState::id`].
    backend: u64,
    kind: ListKind,
    /// Whose content it is in; `None`: as the targets sent it.
    revision: Option<Revision>,
}

/// What a shard knows of one target's lists, beside the lists.
pub struct TargetLists {
    /// Unique on the shard: a target that is configured otherwise is another.
    id: u64,
    /// When the target last said that its list has changed, for each kind; by the precise clock, and in the beginning when
    /// it was configured.
    changed: [Cell<Instant>; 4],
    /// How often that was.
    changes: [Cell<u64>; 4],
    /// A task is about to tell other shards of it.
    telling: Cell<bool>,
    /// Whom the last list of each kind was for; `None`: it may not be used twice.
    audiences: [Cell<Option<Audience>>; 4],
    flights: RefCell<Vec<Rc<Flight>>>,
    /// Lists that other shards fetch, on the owner.
    leases: RefCell<Vec<share::Lease>>,
    reads: reads::Reads,
}

/// What one target contributes.
pub enum Part {
    Listed {
        listing: Arc<Listing>,
        audience: Audience,
        fresh_for: Duration,
        /// It is an old one, because of this.
        stale: Option<&'static str>,
    },
    /// It does not offer the capability.
    Absent,
    Missing(Fault),
}

/// One request for a list of every target.
pub struct Gathering<'a> {
    pub shard: &'a Rc<Shard>,
    pub backend: &'a Rc<BackendState>,
    pub session: &'a Rc<Session>,
    pub viewer: Viewer,
    pub kind: ListKind,
    pub deadline: Instant,
}

impl Default for Kept {
    fn default() -> Self {
        let lists = Bounds { entries: LIST_CACHE_ENTRIES_MAX, bytes: LIST_CACHE_BYTES_MAX };
        let pages = Bounds { entries: PAGE_CACHE_ENTRIES_MAX, bytes: PAGE_CACHE_BYTES_MAX };
        let reads = Bounds { entries: READ_CACHE_ENTRIES_MAX, bytes: READ_CACHE_BYTES_MAX };
        Kept {
            lists: RefCell::new(Cache::new(lists)),
            pages: RefCell::new(Cache::new(pages)),
            reads: RefCell::new(Cache::new(reads)),
        }
    }
}

impl TargetLists {
    /// `id` is unique on the shard.
    pub fn new(id: u64) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(TargetLists {
            id,
            changed: std::array::from_fn(|_| Cell::new(now)),
            changes: Default::default(),
            telling: Cell::new(false),
            audiences: Default::default(),
            flights: RefCell::default(),
            leases: RefCell::default(),
            reads: reads::Reads::new(now),
        })
    }

    fn changed(&self, kind: ListKind) -> Instant {
        self.changed[kind as usize].get()
    }

    /// A list is fresh that was asked for then, or later.
    fn since(&self, kind: ListKind) -> Instant {
        self.changed[kind as usize].get() + Duration::from_nanos(1)
    }
}

/// The target of `session`'s leg has changed the lists that a notification `method` is about, if it is about any.
pub fn changed(shard: &Rc<Shard>, session: &Session, leg: LegId, method: &[u8]) {
    let kinds: &[ListKind] = match method {
        b"notifications/tools/list_changed" => &[ListKind::Tools],
        b"notifications/prompts/list_changed" => &[ListKind::Prompts],
        b"notifications/resources/list_changed" => &[ListKind::Resources, ListKind::ResourceTemplates],
        _ => return,
    };
    of_leg(shard, session, leg, kinds);
}

/// The target of `session`'s leg was down: it may have come back as another version of itself.
pub fn came_back(shard: &Rc<Shard>, session: &Session, leg: LegId) {
    of_leg(shard, session, leg, &KINDS);
}

fn of_leg(shard: &Rc<Shard>, session: &Session, leg: LegId, kinds: &[ListKind]) {
    let Some(backend) = shard.mcp_backend(&session.backend) else { return };
    let Some(leg) = session.leg(leg) else { return };
    if let Some(place) = backend.config.target_index(&leg.target.name) {
        invalidate(shard, &backend, place, kinds);
    }
}

/// A target's lists of these kinds have changed: what is kept is old, and what is on its way may be. Comes before any
/// client is told. The other shards hear of it.
pub fn invalidate(shard: &Rc<Shard>, backend: &Rc<BackendState>, place: usize, kinds: &[ListKind]) {
    let (lists, now) = (&backend.lists[place], Instant::now());
    for &kind in kinds {
        lists.changed[kind as usize].set(now);
        lists.changes[kind as usize].set(lists.changes[kind as usize].get() + 1);
    }
    share::tell_changed(shard, backend, place);
}

/// Who asks through this session.
pub fn viewer(session: &Session) -> Viewer {
    let mut hasher = DefaultHasher::new();
    session.revision.hash(&mut hasher);
    let params = &session.initialize_params;
    let capabilities = json::root(params).and_then(|root| json::get(params, root, "capabilities"));
    capabilities.ok().flatten().and_then(|range| range.of(params)).hash(&mut hasher);
    Viewer { caller: session.caller, abilities: hasher.finish() }
}

/// Who asks without a session.
pub fn viewer_without(caller: Caller, body: &[u8], envelope: &Envelope) -> Viewer {
    let mut hasher = DefaultHasher::new();
    envelope.meta_client_capabilities.and_then(|range| range.of(body)).hash(&mut hasher);
    Viewer { caller, abilities: hasher.finish() }
}

impl Gathering<'_> {
    /// The first page of the merged list, if one is kept that is still right.
    pub fn page(&self) -> Option<Found<u64, Page>> {
        let id = self.page_id();
        let found = self.shard.kept.pages.borrow().find(&id, &self.viewer, self.changes(), runtime::now());
        found.filter(|found| found.fresh_for.is_some())
    }

    /// Keeps the first page of the merged list. `changes` are from before the parts were gathered.
    pub fn keep_page(&self, page: Page, audience: Audience, fresh_for: Duration, changes: u64) {
        let id = self.page_id();
        let now = runtime::now();
        let stamp = Stamp { made: now, mark: changes, fresh_until: now + fresh_for, stale_until: now };
        let bytes = page.result.len() + ENTRY_BYTES;
        self.shard.kept.pages.borrow_mut().insert(id, audience, &self.viewer, page, bytes, stamp);
    }

    fn page_id(&self) -> PageId {
        PageId { backend: self.backend.id, kind: self.kind, revision: self.revision() }
    }

    /// The revision that the client knows; `None`: all that there is.
    fn revision(&self) -> Option<Revision> {
        // A conversation of the gateway's own is for clients of the newest revision.
        (!self.session.is_internal()).then_some(self.session.revision)
    }

    /// Grows whenever a list of any target is invalidated.
    pub fn changes(&self) -> u64 {
        self.backend.lists.iter().map(|lists| lists.changes[self.kind as usize].get()).sum()
    }

    /// One target's part, by the deadline, as it was sent.
    pub async fn one(&self, place: usize) -> Part {
        self.part(place).await
    }

    /// Every target's part, in the order of the configuration, by the deadline.
    pub async fn parts(&self) -> Vec<Part> {
        let places = 0..self.backend.config.targets.len();
        runtime::join_all(places.map(async |place| self.shown(place, self.part(place).await).await)).await
    }

    /// What is kept is as it was sent; each client sees it in its own revision.
    async fn shown(&self, place: usize, part: Part) -> Part {
        let Part::Listed { listing, audience, fresh_for, stale } = part else { return part };
        let judged = lock::visible(self.shard, self.backend, place, self.kind, &listing, self.deadline).await;
        let judged = match judged {
            Ok(judged) => judged,
            Err(fault) => return Part::Missing(fault),
        };
        let translated = self.revision().and_then(|revision| listing.translated(self.kind, revision));
        let listing = translated.map_or(listing, Arc::new);
        let listing = judged.map_or(listing.clone(), |judged| Arc::new(lock::without(&listing, &judged.hidden)));
        Part::Listed { listing, audience, fresh_for, stale }
    }

    async fn part(&self, place: usize) -> Part {
        loop {
            if let Some(found) = self.find(place)
                && let Some(fresh_for) = found.fresh_for
            {
                return Part::Listed { listing: found.value, audience: found.audience, fresh_for, stale: None };
            }
            let flight = match self.flight(place) {
                Ok(flight) => flight,
                Err(fault) => return self.instead(place, None, fault),
            };
            let left = self.deadline.saturating_duration_since(runtime::now());
            if runtime::timeout(left, flight.landed()).await.is_err() {
                return self.instead(place, Some(&flight), mcp_fault::timeout());
            }
            let own = flight.session == self.session.serial;
            match flight.outcome() {
                Ok(Some(Arrived { listing, audience, fresh_for }))
                    if own || audience.shares(&flight.viewer, &self.viewer) =>
                {
                    return Part::Listed { listing, audience, fresh_for, stale: None };
                }
                // It was taken for one that all may see, and is not.
                Ok(Some(_)) => {}
                Ok(None) => return Part::Absent,
                // The session that asked has ended meanwhile.
                Err(fault) if !own && fault.kind == Kind::SessionUnknown => {}
                Err(fault) => return self.instead(place, None, fault),
            }
        }
    }

    fn find(&self, place: usize) -> Option<Found<Instant, Arc<Listing>>> {
        let lists = &self.backend.lists[place];
        let id = ListId { target: lists.id, kind: self.kind };
        self.shard.kept.lists.borrow().find(&id, &self.viewer, lists.since(self.kind), runtime::now())
    }

    /// The last good list, if it is not too old, in the place of one that does not come; a list that is still on its way
    /// will say when it differs.
    fn instead(&self, place: usize, flight: Option<&Flight>, fault: Fault) -> Part {
        let found = self.find(place).filter(|_| self.backend.config.failure_mode == FailureMode::Open);
        if let Some(flight) = flight {
            flight.tell_late(self.session, found.as_ref().map(|found| found.value.digest()));
        }
        match found {
            Some(Found { value, audience, .. }) => {
                let stale = Some(fault.message);
                Part::Listed { listing: value, audience, fresh_for: Duration::ZERO, stale }
            }
            None => Part::Missing(fault),
        }
    }

    /// A list on its way that will do for this viewer, or a new one. A target whose lists may not be used twice is asked
    /// by each session, but by none twice at once.
    fn flight(&self, place: usize) -> Result<Rc<Flight>, Fault> {
        let lists = &self.backend.lists[place];
        let (since, audience) = (lists.since(self.kind), self.audience(place));
        let under_way = lists.flights.borrow().iter().find(|flight| self.joins(flight, since, audience)).cloned();
        if let Some(flight) = under_way {
            return Ok(flight);
        }
        if lists.flights.borrow().len() >= LIST_FLIGHTS_MAX {
            return Err(mcp_fault::overloaded());
        }
        let flight = Rc::new(Flight::new(self.session.serial, self.viewer, self.kind, audience));
        lists.flights.borrow_mut().push(flight.clone());
        flight::start(self.shard, self.backend, self.session, place, flight.clone());
        Ok(flight)
    }

    fn joins(&self, flight: &Flight, since: Instant, audience: Option<Audience>) -> bool {
        flight.kind == self.kind
            && flight.begun >= since
            && (flight.session == self.session.serial
                || audience.is_some_and(|audience| audience.shares(&flight.viewer, &self.viewer)))
    }

    /// Whom the list that is on its way will be for, as far as one can know; `None`: for nobody but who asked.
    fn audience(&self, place: usize) -> Option<Audience> {
        let policy = &self.backend.config.targets[place].lists;
        let last = self.backend.lists[place].audiences[self.kind as usize].get();
        last.or_else(|| (!policy.fresh_for.is_zero()).then(|| configured(policy)))
    }
}

/// Whom a list is for whose target does not say.
fn configured(policy: &ListPolicy) -> Audience {
    if policy.public { Audience::Alike } else { Audience::Own }
}

/// Whom a list that came is for and how long it is good: by what its target says of it, else by what is configured.
fn terms(policy: &ListPolicy, listing: &Listing) -> (Audience, Duration) {
    let (audience, fresh_for) = match listing.hints() {
        Some(hints) if hints.public => (Audience::Everybody, hints.ttl),
        Some(hints) => (Audience::Own, hints.ttl),
        None => (configured(policy), policy.fresh_for),
    };
    (audience, fresh_for.min(FRESH_MAX))
}

/// What calls of the tools of a modern target need, on whatever shard.
fn learn_tools(backend: &BackendState, place: usize, listing: &Listing) {
    learn_from(&backend.eras.of(&backend.config.targets[place]).tools(), listing);
}

/// When the target last said that its tools have changed.
pub fn tools_changed(backend: &BackendState, place: usize) -> Instant {
    backend.lists.get(place).map_or_else(Instant::now, |lists| lists.since(ListKind::Tools))
}

/// What a caller was told of a target's tools, asked for at `asked`: its requests are judged by it.
pub fn learn_schemas(backend: &BackendState, place: usize, caller: &Caller, asked: Instant, part: &Part) {
    let (Part::Listed { listing, .. }, Some(target)) = (part, backend.config.targets.get(place)) else { return };
    let tools = backend.eras.of(target).schemas_from(caller, asked, tools_changed(backend, place));
    learn_from(&tools, listing);
}

fn learn_from(tools: &RefCell<Tools>, listing: &Listing) {
    for page in listing.pages() {
        if let Some(result) = json::scan(page, &SCAN_LIMITS).ok().and_then(|envelope| envelope.result) {
            tools.borrow_mut().learn(page, result);
        }
    }
}

/// Keeps a list that came for `viewer`, unless a newer one is there.
fn keep(
    shard: &Shard,
    backend: &BackendState,
    place: usize,
    kind: ListKind,
    viewer: &Viewer,
    list: &SharedList,
) -> Arrived {
    let (lists, stale_for) = (&backend.lists[place], backend.config.targets[place].lists.stale_for);
    let SharedList { ref listing, audience, begun, fresh_until } = *list;
    let now = runtime::now();
    let fresh_for = fresh_until.saturating_duration_since(now);
    lists.audiences[kind as usize].set((!fresh_for.is_zero()).then_some(audience));
    if kind == ListKind::Tools && matches!(listing.origin(), Origin::Modern(_)) {
        learn_tools(backend, place, listing);
    }
    let id = ListId { target: lists.id, kind };
    let mut kept = shard.kept.lists.borrow_mut();
    let newer = kept.find(&id, viewer, lists.since(kind), now).is_some_and(|found| found.mark >= begun);
    if !newer && !fresh_for.max(stale_for).is_zero() {
        let stamp = Stamp { made: now, mark: begun, fresh_until, stale_until: now + stale_for };
        kept.insert(id, audience, viewer, listing.clone(), listing.bytes() + ENTRY_BYTES, stamp);
    }
    Arrived { listing: listing.clone(), audience, fresh_for }
}
