//! `subscriptions/listen` of a modern client, from the request to the end of its stream.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Instant;

use agentlane_runtime as runtime;
use agentlane_runtime::local::Notify;
use agentlane_wire::json::{self, Envelope, Range32};
use bytes::Bytes;

use super::feed::{Feed, Sink};
use super::{Circle, Hub};
use crate::fault::{Fault, Kind};
use crate::limits::KEEP_ALIVE_EVERY;
use crate::policy::rules::access::{Item, ItemKind};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::method::ListKind;
use crate::protocol::mcp::modern::listen::filter::FilterFault;
use crate::protocol::mcp::modern::listen::{
    Change, Filter, ListenerId, Lists, Next, Outbox, Standing, Uri, Waits, messages,
};
use crate::session::LegId;
use crate::shard::mcp::access::Viewing;
use crate::shard::mcp::{inbound, lists, routing};
use crate::shard::responder::{Gone, Responder};
use crate::shard::{BackendState, Shard};

/// A listen request whose envelope holds.
pub struct Listen<'a> {
    pub shard: &'a Rc<Shard>,
    pub backend: &'a Rc<BackendState>,
    pub caller: Caller,
    /// What it may use.
    pub viewing: Viewing<'a>,
    /// JSON text, as the client wrote it.
    pub id: &'a Bytes,
    pub body: &'a Bytes,
    pub envelope: &'a Envelope,
}

/// What one listen has yet to tell its client.
#[derive(Default)]
pub struct Inbox {
    outbox: RefCell<Outbox>,
    changed: Notify,
    ended: Cell<bool>,
}

/// One target's way into a listen.
pub struct Place {
    inbox: Rc<Inbox>,
    circle: Rc<Circle>,
    leg: LegId,
    /// The target's own URIs in the client's spelling.
    outward: HashMap<Uri, Uri>,
}

impl Place {
    pub fn tell(&self, shard: &Rc<Shard>, change: &Change) {
        let noted = match change {
            Change::Resource(own) => {
                let known = self.outward.get(own).cloned();
                let marked = || inbound::outward_uri(shard, &self.circle.session, self.leg, own).map(Uri::from);
                let uri = known.or_else(marked).unwrap_or_else(|| own.clone());
                self.inbox.outbox.borrow_mut().note(runtime::now(), &Change::Resource(uri))
            }
            Change::List(_) => self.inbox.outbox.borrow_mut().note(runtime::now(), change),
        };
        if !noted {
            shard.metrics.events_lost.inc();
        }
        self.inbox.changed.notify_all();
    }

    pub fn end(&self) {
        self.inbox.ended.set(true);
        self.inbox.changed.notify_all();
    }
}

/// A listen at one target.
struct Joined {
    feed: Rc<Feed>,
    id: ListenerId,
    /// What it asked for here and was not refused, in the target's own names, with the client's.
    uris: BTreeMap<Uri, Uri>,
}

/// One listen while it lasts. Dropped, it leaves everything.
struct Listener {
    shard: Rc<Shard>,
    circle: Rc<Circle>,
    inbox: Rc<Inbox>,
    joined: Vec<Joined>,
    /// The lists that were acknowledged.
    lists: Lists,
    generation: u64,
}

impl Drop for Listener {
    fn drop(&mut self) {
        for joined in self.joined.drain(..) {
            joined.feed.leave(&self.shard, joined.id);
        }
        self.circle.listens.set(self.circle.listens.get() - 1);
        self.circle.close_if_unused(&self.shard);
    }
}

/// Serves a listen until either side ends it. A fault comes before anything was written.
pub async fn serve_listen(request: Listen<'_>, responder: &mut Responder<'_>) -> Result<(), Fault> {
    let wanted = wanted(&request)?;
    let _permit = Hub::admit(request.shard, request.caller)?;
    let circle = Hub::circle(request.shard, request.backend, request.caller)?;
    let mut listener = Listener::new(request.shard, circle);
    let places = places(&request, &listener.circle, &wanted.uris).await;
    let deadline = runtime::now() + request.backend.config.deadline;
    for leg in listener.circle.session.leg_ids() {
        let uris = places.get(&leg).cloned().unwrap_or_default();
        listener.join(leg, wanted.lists, uris);
    }
    let granted = listener.granted(&wanted, deadline).await?;
    // Its reader comes and goes with it: an error is a client that left.
    let _ = listener.run(request.id, &granted, responder).await;
    Ok(())
}

/// Whether a listen asks for what extensions add, of which nothing is known here.
pub fn asks_for_more(body: &[u8], envelope: &Envelope) -> bool {
    filter(body, envelope).is_some_and(|range| Filter::has_more(body, range))
}

fn filter(body: &[u8], envelope: &Envelope) -> Option<Range32> {
    json::get(body, envelope.params?, "notifications").ok()?
}

fn wanted(request: &Listen<'_>) -> Result<Filter, Fault> {
    let filter = filter(request.body, request.envelope);
    let filter = filter.map_or(Err(FilterFault::Wrong), |range| Filter::parse(request.body, range));
    filter.map_err(|fault| Fault::new(Kind::InvalidParams, fault.message()))
}

/// The target of each resource, as far as it has one: by leg, own name to the client's.
async fn places(request: &Listen<'_>, circle: &Circle, uris: &BTreeSet<Uri>) -> BTreeMap<LegId, BTreeMap<Uri, Uri>> {
    let (backend, session) = (request.backend, &circle.session);
    let identity = backend.config.is_identity();
    let find = |uri: &str| if identity { Some((0, None)) } else { routing::find_uri(backend, uri) };
    if uris.iter().any(|uri| find(uri).is_none()) {
        for kind in [ListKind::Resources, ListKind::ResourceTemplates] {
            Box::pin(lists::learn(request.shard, backend, session, kind)).await;
        }
    }
    let only = routing::only_with_resources(session);
    let mut places: BTreeMap<LegId, BTreeMap<Uri, Uri>> = BTreeMap::new();
    for uri in uris {
        let Some((index, own)) = find(uri).or_else(|| only.map(|index| (index, None))) else { continue };
        let Some(leg) = session.leg_to(index) else { continue };
        let own = own.map_or_else(|| uri.clone(), Uri::from);
        // What may not be read is not acknowledged, like what is not there.
        let item = Item { kind: ItemKind::Resource, name: &own, target: &leg.target.name, risk: None };
        if request.viewing.asking().decide("resources/subscribe", item).is_err() {
            continue;
        }
        places.entry(leg.id).or_default().insert(own, uri.clone());
    }
    places
}

impl Listener {
    fn new(shard: &Rc<Shard>, circle: Rc<Circle>) -> Self {
        circle.listens.set(circle.listens.get() + 1);
        Listener {
            shard: shard.clone(),
            generation: circle.generation.get(),
            circle,
            inbox: Rc::default(),
            joined: Vec::new(),
            lists: Lists::NONE,
        }
    }

    fn join(&mut self, leg: LegId, lists: Lists, uris: BTreeMap<Uri, Uri>) {
        let wants = Filter { lists, uris: uris.keys().cloned().collect() };
        if wants.is_empty() {
            return;
        }
        let feed = self.circle.feed(&self.shard, leg);
        let id = self.shard.hub.listener_id();
        let outward = uris.iter().map(|(own, outward)| (own.clone(), outward.clone())).collect();
        let place = Place { inbox: self.inbox.clone(), circle: self.circle.clone(), leg, outward };
        feed.join(&self.shard, id, Sink::Listen(place), wants);
        self.joined.push(Joined { feed, id, uris });
    }

    /// Waits for the targets, and gives what all that are involved really grant. One that is down now is not: it is
    /// listened to when it comes. A fault where none is there.
    async fn granted(&mut self, wanted: &Filter, deadline: Instant) -> Result<Filter, Fault> {
        let decided = runtime::join_all(self.joined.iter().map(|joined| joined.feed.decided(joined.id)));
        let left = deadline.saturating_duration_since(runtime::now());
        let _ = Box::pin(runtime::timeout(left, decided)).await;
        let down = |joined: &&Joined| joined.feed.source.borrow().waits(joined.id) != Waits::No;
        if !self.joined.is_empty() && self.joined.iter().all(|joined| down(&joined)) {
            return Err(Fault::new(Kind::UpstreamUnreachable, "no target can be listened to now"));
        }
        let (mut some, mut denied) = (Lists::NONE, Lists::NONE);
        let mut uris = BTreeSet::new();
        for joined in &mut self.joined {
            if !down(&&*joined) {
                let source = joined.feed.source.borrow();
                let granted = source.granted_lists(joined.id);
                some = some.with(granted);
                if !source.is_mute() {
                    denied = denied.with(source.offers().without(granted));
                }
            }
            joined.uris.retain(|own, outward| {
                let granted = joined.feed.source.borrow().standing(joined.id, own) == Standing::Granted;
                if granted {
                    uris.insert(outward.clone());
                } else {
                    // The client is not told that it has it, so it is not listened to either.
                    joined.feed.apply(&self.shard, |source, now| source.narrow(now, joined.id, own));
                }
                granted
            });
        }
        self.lists = wanted.lists.and(some.without(denied));
        Ok(Filter { lists: self.lists, uris })
    }

    async fn run(&mut self, id: &Bytes, granted: &Filter, responder: &mut Responder<'_>) -> Result<(), Gone> {
        responder.begin_events().await?;
        responder.message(&messages::acknowledged(id, granted)).await?;
        loop {
            if !self.holds() {
                responder.message(&messages::ended(id)).await?;
                return responder.end().await;
            }
            let next = self.inbox.outbox.borrow_mut().take(runtime::now());
            match next {
                Next::Change(Change::List(list)) if !self.lists.has(list) => {}
                Next::Change(change) => responder.message(&messages::change(id, &change)).await?,
                Next::At(at) => self.wait(Some(at), responder).await?,
                Next::Nothing => self.wait(None, responder).await?,
            }
        }
    }

    /// Whether what was acknowledged still holds; follows a change of the targets.
    fn holds(&mut self) -> bool {
        let ended = self.inbox.ended.get() || self.circle.session.ended.get() || self.shard.hub.ending.get();
        if ended {
            return false;
        }
        if self.generation != self.circle.generation.get() {
            self.generation = self.circle.generation.get();
            if !self.relink() {
                return false;
            }
        }
        // A target that was down or new may turn out to have lists whose changes it does not tell.
        self.joined.iter().all(|joined| {
            let source = joined.feed.source.borrow();
            source.waits(joined.id) != Waits::No
                || source.is_mute()
                || source.granted_lists(joined.id).covers(source.offers().and(self.lists))
        })
    }

    /// The backend has other targets now: new ones are listened to as well, and every list may have changed. False: a
    /// resource went with its target.
    fn relink(&mut self) -> bool {
        let (gone, stay): (Vec<_>, Vec<_>) = self.joined.drain(..).partition(|joined| joined.feed.is_ended());
        self.joined = stay;
        if gone.iter().any(|joined| !joined.uris.is_empty()) {
            return false;
        }
        for leg in self.circle.session.leg_ids() {
            if self.joined.iter().all(|joined| joined.feed.leg != leg) {
                self.join(leg, self.lists, BTreeMap::new());
            }
        }
        let mut outbox = self.inbox.outbox.borrow_mut();
        for list in self.lists.iter() {
            outbox.note(runtime::now(), &Change::List(list));
        }
        true
    }

    /// Waits for something to tell, for the client to leave, or until a comment or a change is due.
    async fn wait(&self, at: Option<Instant>, responder: &mut Responder<'_>) -> Result<(), Gone> {
        let until = at.unwrap_or_else(|| runtime::now() + KEEP_ALIVE_EVERY);
        {
            let inbox = std::pin::pin!(self.inbox.changed.notified());
            let circle = std::pin::pin!(self.circle.changed.notified());
            let left = std::pin::pin!(responder.left());
            let changed = std::pin::pin!(runtime::race(inbox, circle));
            let left = runtime::timeout(until.saturating_duration_since(runtime::now()), runtime::race(changed, left));
            match left.await {
                Ok(runtime::Either::Left(_)) => return Ok(()),
                Ok(runtime::Either::Right(())) => return Err(Gone),
                Err(_) => {}
            }
        }
        if at.is_none() {
            responder.comment().await?;
        }
        Ok(())
    }
}
