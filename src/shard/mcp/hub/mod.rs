//! Who hears of changes: the listens of modern clients, and sessions whose targets are modern. Per backend and caller there
//! is one [`Circle`]: a conversation of the gateway's own with the targets, and per target one [`Feed`] that all listeners
//! share. It opens with the first listener and closes some seconds after the last. Where a target is a process of one
//! session's own, that session's listening is a circle by itself.

mod feed;
mod legacy;
mod modern;
mod serve;
mod sessions;

pub use serve::{Listen, asks_for_more, serve_listen};
pub use sessions::{follow, subscribe, unfollow, unsubscribe};

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use agentlane_runtime::local::Notify;
use agentlane_wire::json::{self, Envelope, MessageKind};
use bytes::Bytes;

use super::{SCAN_LIMITS, cache, close, inbound, open};
use crate::fault::{Fault, Kind};
use crate::limits::{CIRCLES_MAX, LISTENS_MAX, LISTENS_PER_CALLER_MAX};
use crate::mesh::{Overheard, ToShard};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::error;
use crate::protocol::mcp::modern::listen::messages::{self, Heard};
use crate::protocol::mcp::modern::listen::{Change, List, ListenerId};
use crate::session::{Leg, LegId, Session};
use crate::shard::{BackendState, Shard};
use feed::Feed;

/// An endpoint and a caller.
type Key = (Rc<str>, Caller);
/// A listener's place at a feed.
type Ear = (Rc<Feed>, ListenerId);

/// All circles of one shard.
#[derive(Default)]
pub struct Hub {
    circles: RefCell<HashMap<Key, Rc<Circle>>>,
    /// The same by the serial of their conversation.
    by_serial: RefCell<HashMap<u64, Rc<Circle>>>,
    /// Circles of one session each, by its serial.
    by_session: RefCell<HashMap<u64, Rc<Circle>>>,
    /// How many listens each caller has.
    listens: RefCell<HashMap<Caller, usize>>,
    /// Where sessions hear: by their serial and leg.
    ears: RefCell<HashMap<(u64, LegId), Ear>>,
    last_listener: Cell<ListenerId>,
    /// The gateway is going down: listens end.
    ending: Cell<bool>,
}

/// One caller's listeners at one backend.
pub struct Circle {
    key: Key,
    /// The gateway's own conversation with the targets, in which they are listened to; or a client's.
    session: Rc<Session>,
    /// Another one, in the revisions with sessions, for targets that have no listens in the newest.
    older: RefCell<Option<Rc<Session>>>,
    feeds: RefCell<BTreeMap<LegId, Rc<Feed>>>,
    /// Listens that hold it beside its feeds.
    listens: Cell<usize>,
    /// How often the targets have changed.
    generation: Cell<u64>,
    /// The targets changed, or the listens shall end.
    changed: Notify,
}

/// One listen counts, as long as this lives.
struct Permit {
    shard: Rc<Shard>,
    caller: Caller,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shard.metrics.listens.add(-1);
        let mut listens = self.shard.hub.listens.borrow_mut();
        if let Some(count) = listens.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                listens.remove(&self.caller);
            }
        }
    }
}

impl Hub {
    /// A listen more, if there is room for it.
    fn admit(shard: &Rc<Shard>, caller: Caller) -> Result<Permit, Fault> {
        let mut listens = shard.hub.listens.borrow_mut();
        let own = listens.get(&caller).copied().unwrap_or_default();
        if own >= LISTENS_PER_CALLER_MAX || listens.values().sum::<usize>() >= LISTENS_MAX {
            return Err(Fault::new(Kind::Overloaded, "too many listens"));
        }
        listens.insert(caller, own + 1);
        shard.metrics.listens.add(1);
        Ok(Permit { shard: shard.clone(), caller })
    }

    /// The circle of a caller, made where there is none.
    fn circle(shard: &Rc<Shard>, backend: &BackendState, caller: Caller) -> Result<Rc<Circle>, Fault> {
        let key = (Rc::from(backend.config.key.as_str()), caller);
        if let Some(circle) = shard.hub.circles.borrow().get(&key).filter(|circle| !circle.session.ended.get()) {
            return Ok(circle.clone());
        }
        if shard.hub.circles.borrow().len() >= CIRCLES_MAX {
            return Err(Fault::new(Kind::Overloaded, "too many listening callers"));
        }
        // No capabilities: nobody could say which listener a target's request is for.
        let session = open::internal(shard, backend, caller, b"{}", None)?;
        session.prefers_modern.set(true);
        let circle = Circle::new(key.clone(), session);
        shard.hub.by_serial.borrow_mut().insert(circle.session.serial, circle.clone());
        shard.hub.circles.borrow_mut().insert(key, circle.clone());
        Ok(circle)
    }

    /// The circle of a session that has processes to itself; of no more use than the session.
    fn circle_of(shard: &Rc<Shard>, session: &Rc<Session>) -> Rc<Circle> {
        let mut circles = shard.hub.by_session.borrow_mut();
        let key = (session.backend.clone(), session.caller);
        circles.entry(session.serial).or_insert_with(|| Circle::new(key, session.clone())).clone()
    }

    fn listener_id(&self) -> ListenerId {
        self.last_listener.set(self.last_listener.get() + 1);
        self.last_listener.get()
    }

    /// Whether the conversation is one of ours.
    pub fn owns(shard: &Shard, session: &Session) -> bool {
        shard.hub.by_serial.borrow().contains_key(&session.serial)
    }

    /// A target's message that belongs to no request, if the conversation is one of ours. False: it is somebody else's.
    pub fn takes(shard: &Rc<Shard>, session: &Rc<Session>, leg: LegId, message: &Bytes) -> bool {
        let Some(circle) = shard.hub.by_serial.borrow().get(&session.serial).cloned() else { return false };
        let feed = circle.feed_of(session, leg);
        said(shard, session, leg, feed.as_ref(), message);
        true
    }

    /// A target told another conversation on behalf of a caller that its lists have changed: servers may tell the one alone
    /// in which a call made the change.
    pub fn overhears(shard: &Rc<Shard>, session: &Session, leg: LegId, message: &Bytes, envelope: &Envelope) {
        let Heard::Changed(Change::List(list)) = messages::heard(message, envelope) else { return };
        if let Some(leg) = session.leg(leg) {
            Hub::tell(shard, session, &leg.target.name, list);
        }
    }

    /// A list of a target has changed for the caller of a conversation, who may listen on any shard.
    pub fn tell(shard: &Rc<Shard>, session: &Session, target: &str, list: List) {
        let overheard = Hub::tell_others(shard, session, target, list);
        Hub::told(shard, &overheard);
    }

    /// The same for the other shards alone.
    fn tell_others(shard: &Rc<Shard>, session: &Session, target: &str, list: List) -> Overheard {
        let backend = session.backend.as_ref().into();
        let overheard = Overheard { backend, target: target.into(), caller: session.caller, list };
        for (index, peer) in shard.peers.iter().enumerate().filter(|(index, _)| *index != shard.index) {
            if peer.try_send(ToShard::Overheard(overheard.clone())).is_err() {
                tracing::debug!(target: "agentlane::mcp", shard = index, "a change was not passed on");
            }
        }
        overheard
    }

    /// Tells the caller's listeners on this shard, if there are any.
    pub fn told(shard: &Rc<Shard>, overheard: &Overheard) {
        let key = (Rc::from(&*overheard.backend), overheard.caller);
        let Some(circle) = shard.hub.circles.borrow().get(&key).cloned() else { return };
        let feeds = circle.feeds.borrow().values().cloned().collect::<Vec<_>>();
        for feed in feeds.iter().filter(|feed| feed.is_of(&overheard.target)) {
            feed.apply(shard, |source, now| source.overheard(now, Change::List(overheard.list)));
        }
    }

    /// A child of ours has gone.
    pub fn child_ended(shard: &Rc<Shard>, session: &Session, leg: LegId) {
        let Some(circle) = shard.hub.by_serial.borrow().get(&session.serial).cloned() else { return };
        if let Some(feed) = circle.feed_of(session, leg) {
            legacy::broke(shard, &feed, None);
        }
    }

    /// A conversation has other targets now, or has ended. If it is one of ours, feeds of targets that are gone end, and
    /// listens look anew.
    pub fn relinked(shard: &Rc<Shard>, session: &Session) {
        let own = || shard.hub.by_session.borrow().get(&session.serial).cloned();
        let circle = shard.hub.by_serial.borrow().get(&session.serial).cloned();
        let Some(circle) = circle.or_else(own).filter(|circle| circle.session.serial == session.serial) else { return };
        let ended = session.ended.get();
        let legs = session.leg_ids();
        let gone = |feed: &&Rc<Feed>| ended || !legs.contains(&feed.leg);
        let feeds: Vec<_> = circle.feeds.borrow().values().filter(gone).cloned().collect();
        for feed in &feeds {
            circle.feeds.borrow_mut().remove(&feed.leg);
            feed.end(shard);
        }
        if ended {
            Hub::forget(shard, &circle);
        }
        circle.generation.set(circle.generation.get() + 1);
        circle.changed.notify_all();
    }

    /// Ends every listen in good order: the gateway is going down.
    pub fn end_listens(&self) {
        self.ending.set(true);
        self.circles.borrow().values().for_each(|circle| circle.changed.notify_all());
    }

    fn forget(shard: &Rc<Shard>, circle: &Rc<Circle>) {
        let hub = &shard.hub;
        if let Some(older) = circle.older.take() {
            hub.by_serial.borrow_mut().remove(&older.serial);
            close::end(shard, &older);
        }
        if !circle.session.is_internal() {
            hub.by_session.borrow_mut().remove(&circle.session.serial);
            return;
        }
        hub.by_serial.borrow_mut().remove(&circle.session.serial);
        let mut circles = hub.circles.borrow_mut();
        if circles.get(&circle.key).is_some_and(|known| Rc::ptr_eq(known, circle)) {
            circles.remove(&circle.key);
        }
    }
}

impl Circle {
    fn new(key: Key, session: Rc<Session>) -> Rc<Self> {
        Rc::new(Circle {
            key,
            session,
            older: RefCell::default(),
            feeds: RefCell::default(),
            listens: Cell::new(0),
            generation: Cell::new(0),
            changed: Notify::new(),
        })
    }

    /// The leg of the gateway's own conversation to the same target as another's.
    fn twin(&self, leg: &Leg) -> Option<LegId> {
        twin(&self.session, leg)
    }

    /// The conversation in the revisions with sessions, made where there is none. It ends with the circle.
    fn older(self: &Rc<Self>, shard: &Rc<Shard>) -> Option<Rc<Session>> {
        if let Some(older) = self.older.borrow().as_ref().filter(|older| !older.ended.get()) {
            return Some(older.clone());
        }
        let backend = shard.mcp_backend(&self.session.backend).filter(|_| !self.session.ended.get())?;
        let older = open::internal(shard, &backend, self.session.caller, b"{}", None).ok()?;
        shard.hub.by_serial.borrow_mut().insert(older.serial, self.clone());
        self.older.replace(Some(older.clone()));
        Some(older)
    }

    /// The feed that a message in one of its conversations is for.
    fn feed_of(&self, session: &Session, leg: LegId) -> Option<Rc<Feed>> {
        let own = match session.serial == self.session.serial {
            true => leg,
            false => self.twin(&*session.leg(leg)?)?,
        };
        self.feeds.borrow().get(&own).cloned()
    }

    /// The feed of a target, made where there is none.
    fn feed(self: &Rc<Self>, shard: &Rc<Shard>, leg: LegId) -> Rc<Feed> {
        if let Some(feed) = self.feeds.borrow().get(&leg) {
            return feed.clone();
        }
        let feed = Feed::start(shard, self, leg);
        self.feeds.borrow_mut().insert(leg, feed.clone());
        feed
    }

    /// A feed has finished.
    fn finished(self: &Rc<Self>, shard: &Rc<Shard>, feed: &Feed) {
        self.feeds.borrow_mut().remove(&feed.leg);
        self.close_if_unused(shard);
    }

    fn close_if_unused(self: &Rc<Self>, shard: &Rc<Shard>) {
        if self.feeds.borrow().is_empty() && self.listens.get() == 0 {
            Hub::forget(shard, self);
            if self.session.is_internal() {
                close::end(shard, &self.session);
            }
        }
    }
}

/// The leg of a conversation to the same target as another's.
fn twin(session: &Session, leg: &Leg) -> Option<LegId> {
    let same = |own: &&Rc<Leg>| own.target.name == leg.target.name && own.target.fingerprint == leg.target.fingerprint;
    session.legs.borrow().iter().find(same).map(|own| own.id)
}

/// What a target says outside of our requests: changes for its feed. It may ask nothing: there is no client.
fn said(shard: &Rc<Shard>, session: &Rc<Session>, leg: LegId, feed: Option<&Rc<Feed>>, message: &Bytes) {
    let Ok(envelope) = json::scan(message, &SCAN_LIMITS) else { return };
    match (envelope.kind, envelope.answer_id().and_then(|range| range.of(message))) {
        (MessageKind::Request, Some(id)) => {
            let answer = match envelope.method_is(message, "ping") {
                true => error::result_response(id, b"{}"),
                false => error::error_response(Some(id), -32601, "nobody is there to answer"),
            };
            inbound::answer(shard, session, leg, answer);
        }
        (MessageKind::Notification, _) => {
            let Heard::Changed(change) = messages::heard(message, &envelope) else { return };
            if let Change::List(list) = &change {
                // Whether or not anybody listens.
                cache::changed(shard, session, leg, list.notification().as_bytes());
            }
            if let Some(feed) = feed {
                legacy::heard(shard, feed, change);
            }
        }
        _ => {}
    }
}
