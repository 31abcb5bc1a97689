//! Sessions with targets that have them, for clients that have none: each is one request's alone while it runs, and waits
//! for the next one of the same caller with the same capabilities. Never two callers' (specification, "Session Hijacking").
//! Where a session means a process, those who come at once wait for each other's ([`Crew`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use agentlane_runtime as runtime;
use agentlane_runtime::local::Notify;
use agentlane_wire::json::{self, Envelope, MessageKind};
use bytes::Bytes;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use super::Request;
use crate::backend::mcp::TargetKind;
use crate::fault::Fault;
use crate::limits::{LEASE_IDLE, LEASES_MAX, LEASES_PER_CALLER_MAX};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::LogLevel;
use crate::protocol::mcp::modern::crew::{Crew, Turn};
use crate::protocol::mcp::streams::{Next, STANDALONE};
use crate::session::{LegId, Session};
use crate::shard::Shard;
use crate::shard::mcp::{SCAN_LIMITS, close, inbound, mcp_fault, open};

/// Whose requests may use a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    caller: Caller,
    /// Of the endpoint, the client's capabilities and what it calls itself: what its targets were told.
    profile: [u8; SHA256_OUTPUT_LEN],
}

/// A session and what its targets were told for it.
struct Kept {
    session: Rc<Session>,
    levels: RefCell<Vec<(LegId, LogLevel)>>,
    since: Cell<Instant>,
}

/// The sessions that no request uses, and how many there are in all.
#[derive(Default)]
pub struct Pool {
    idle: HashMap<Key, Vec<Kept>>,
    by_caller: HashMap<Caller, usize>,
    all: usize,
    /// The sessions in use that have a process to themselves.
    crews: HashMap<(Key, usize), Crew>,
    /// One of these got free, or a session did.
    freed: Notify,
}

/// A session that one request has for itself. Dropped, it is the next one's.
pub struct Lease {
    shard: Rc<Shard>,
    key: Key,
    pub session: Rc<Session>,
    levels: RefCell<Vec<(LegId, LogLevel)>>,
    spoiled: Cell<bool>,
    /// The target whose process it has to itself, and whether that is being started.
    place: Cell<Option<(usize, bool)>>,
}

/// A session for the request's caller: one that waits, or a new one, whose legs open when they are used. `place`: the target
/// that it is for, where that is known. Waits for a process where it takes one and enough are busy. May be dropped.
pub async fn take(request: &Request<'_>, place: Option<usize>) -> Result<Rc<Lease>, Fault> {
    let shard = request.shard();
    let key = key(request);
    let Some(place) = process(request, place) else {
        let kept = waiting(shard, &key, None);
        return lease(request, key, kept, None);
    };
    let since = runtime::now();
    let until = since + request.incoming.backend.config.deadline;
    let mut queued = None;
    loop {
        // One whose process runs, then anything, then one that is new.
        if let Some(kept) = waiting(shard, &key, Some(place)) {
            return lease(request, key, Some(kept), Some((place, false)));
        }
        let now = runtime::now();
        let crew = shard.leases.borrow().crews.get(&(key, place)).copied().unwrap_or_default();
        let turn = crew.turn(shard.peers.len(), since, now);
        let again = match turn {
            Turn::Start => {
                let kept = waiting(shard, &key, None);
                return lease(request, key, kept, Some((place, true)));
            }
            Turn::Wait(_) if now >= until => return Err(mcp_fault::overloaded()),
            Turn::Wait(again) => again.min(until),
        };
        if queued.is_none() {
            queued = Some(Queued::at(shard, key, place)?);
        }
        let freed = shard.leases.borrow().freed.clone();
        let _ = runtime::timeout(again.saturating_duration_since(now), freed.notified()).await;
    }
}

/// One call waits for a process, until it is dropped.
struct Queued {
    shard: Rc<Shard>,
    crew: (Key, usize),
}

impl Queued {
    fn at(shard: &Rc<Shard>, key: Key, place: usize) -> Result<Self, Fault> {
        let crew = (key, place);
        let has_room = shard.leases.borrow_mut().crews.entry(crew).or_default().queue();
        has_room.then(|| Queued { shard: shard.clone(), crew }).ok_or_else(mcp_fault::overloaded)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.shard.leases.borrow_mut().with_crew(self.crew, Crew::unqueue);
    }
}

/// The target for which a session means a process: this one, or the first of all.
fn process(request: &Request<'_>, place: Option<usize>) -> Option<usize> {
    let targets = &request.incoming.backend.config.targets;
    let is_process = |&place: &usize| {
        // One of 2026-07-28 has one process for all.
        targets.get(place).is_some_and(|target| {
            matches!(&target.kind, TargetKind::Stdio(stdio) if !stdio.shared)
                && request.incoming.backend.eras.of(target).fresh().is_none()
        })
    };
    match place {
        Some(place) => Some(place).filter(is_process),
        None => (0..targets.len()).find(is_process),
    }
}

fn key(request: &Request<'_>) -> Key {
    let backend = request.incoming.backend;
    let text = |range: Option<json::Range32>| range.and_then(|range| range.of(&request.body));
    let capabilities = text(request.envelope.meta_client_capabilities).unwrap_or(b"{}");
    let client_info = text(request.envelope.meta_client_info);
    let mut profile = Context::new(&SHA256);
    for part in [backend.config.key.as_bytes(), capabilities, client_info.unwrap_or_default()] {
        profile.update(&(part.len() as u64).to_le_bytes());
        profile.update(part);
    }
    let mut key = Key { caller: request.caller, profile: [0; SHA256_OUTPUT_LEN] };
    key.profile.copy_from_slice(profile.finish().as_ref());
    key
}

/// The session for one request. `place`: see [`Lease`].
fn lease(
    request: &Request<'_>,
    key: Key,
    kept: Option<Kept>,
    place: Option<(usize, bool)>,
) -> Result<Rc<Lease>, Fault> {
    let (shard, backend) = (request.shard(), request.incoming.backend);
    let kept = match kept {
        Some(kept) => kept,
        None => {
            make_room(shard, &key.caller)?;
            let text = |range: Option<json::Range32>| range.and_then(|range| range.of(&request.body));
            let capabilities = text(request.envelope.meta_client_capabilities).unwrap_or(b"{}");
            let client_info = text(request.envelope.meta_client_info);
            let session = open::internal(shard, backend, key.caller, capabilities, client_info)?;
            // What a target that speaks both says of its lists is for clients of its newest revision.
            session.prefers_modern.set(true);
            shard.leases.borrow_mut().count(shard, &key.caller, 1);
            Kept { session, levels: RefCell::default(), since: Cell::new(runtime::now()) }
        }
    };
    let Kept { session, levels, .. } = kept;
    session.carry(request.incoming.principal.credential.as_ref());
    quiet(shard, &session);
    if let Some((place, fresh)) = place {
        shard.leases.borrow_mut().crews.entry((key, place)).or_default().enter(fresh);
    }
    let (spoiled, place) = (Cell::new(false), Cell::new(place));
    Ok(Rc::new(Lease { shard: shard.clone(), key, session, levels, spoiled, place }))
}

/// One that waits, and has not ended meanwhile with its endpoint. `place`: with this target's leg open.
fn waiting(shard: &Rc<Shard>, key: &Key, place: Option<usize>) -> Option<Kept> {
    loop {
        let kept = shard.leases.borrow_mut().take(key, place)?;
        if !kept.session.ended.get() {
            return Some(kept);
        }
        end(shard, key, &kept.session);
    }
}

/// Makes sure that one more is allowed, at the cost of one that idles.
fn make_room(shard: &Rc<Shard>, caller: &Caller) -> Result<(), Fault> {
    let surplus = {
        let mut pool = shard.leases.borrow_mut();
        let own_full = pool.by_caller.get(caller).is_some_and(|&count| count >= LEASES_PER_CALLER_MAX);
        if !own_full && pool.all < LEASES_MAX {
            return Ok(());
        }
        pool.oldest_idle(own_full.then_some(caller)).ok_or_else(mcp_fault::overloaded)?
    };
    let (key, kept) = surplus;
    end(shard, &key, &kept.session);
    Ok(())
}

fn end(shard: &Rc<Shard>, key: &Key, session: &Rc<Session>) {
    close::end(shard, session);
    shard.leases.borrow_mut().count(shard, &key.caller, -1);
}

impl Pool {
    fn take(&mut self, key: &Key, place: Option<usize>) -> Option<Kept> {
        let kept = self.idle.get_mut(key)?;
        let is_open =
            |kept: &Kept| place.is_none_or(|place| kept.session.leg_to(place).is_some_and(|leg| leg.open().is_some()));
        let newest = kept.iter().rposition(is_open);
        let taken = newest.map(|newest| kept.remove(newest));
        if kept.is_empty() {
            self.idle.remove(key);
        }
        taken
    }

    /// Notes something of a crew; one that is over is forgotten.
    fn with_crew(&mut self, key: (Key, usize), note: impl FnOnce(&mut Crew)) {
        let Some(crew) = self.crews.get_mut(&key) else { return };
        note(crew);
        if crew.is_empty() {
            self.crews.remove(&key);
        }
    }

    fn count(&mut self, shard: &Shard, caller: &Caller, by: isize) {
        let own = self.by_caller.entry(*caller).or_default();
        *own = own.saturating_add_signed(by);
        if *own == 0 {
            self.by_caller.remove(caller);
        }
        self.all = self.all.saturating_add_signed(by);
        shard.metrics.leases.set(self.all as i64);
    }

    /// Takes the one out that has waited for longest, of one caller or of all.
    fn oldest_idle(&mut self, caller: Option<&Caller>) -> Option<(Key, Kept)> {
        let candidates = self.idle.iter().filter(|(key, _)| caller.is_none_or(|caller| key.caller == *caller));
        let oldest = candidates.filter_map(|(key, kept)| Some((*key, kept.first()?.since.get())));
        let (key, _) = oldest.min_by_key(|(_, since)| *since)?;
        let kept = self.idle.get_mut(&key)?;
        let taken = kept.remove(0);
        if kept.is_empty() {
            self.idle.remove(&key);
        }
        Some((key, taken))
    }

    /// Takes out what `wanted` says.
    fn extract(&mut self, wanted: impl Fn(&Kept) -> bool) -> Vec<(Key, Kept)> {
        let mut out = Vec::new();
        self.idle.retain(|key, kept| {
            out.extend(kept.extract_if(.., |kept| wanted(kept)).map(|kept| (*key, kept)));
            !kept.is_empty()
        });
        out
    }
}

impl Lease {
    /// What has become of it cannot be told: it shall serve nobody else.
    pub fn spoil(&self) {
        self.spoiled.set(true);
    }

    /// Its process works.
    pub fn started(&self) {
        let Some((place, true)) = self.place.get() else { return };
        self.place.set(Some((place, false)));
        let mut pool = self.shard.leases.borrow_mut();
        pool.with_crew((self.key, place), Crew::started);
        pool.freed.notify_all();
    }

    /// Others need not wait for it: it may take as long as a person does.
    pub fn step_aside(&self) {
        self.started();
        let Some((place, _)) = self.place.take() else { return };
        let mut pool = self.shard.leases.borrow_mut();
        pool.with_crew((self.key, place), Crew::leave);
        pool.freed.notify_all();
    }

    /// Notes what a leg was told to log; false if it was told the same before.
    pub fn note_level(&self, leg: LegId, level: LogLevel) -> bool {
        let mut levels = self.levels.borrow_mut();
        match levels.iter_mut().find(|(id, _)| *id == leg) {
            Some((_, told)) => std::mem::replace(told, level) != level,
            None => {
                levels.push((leg, level));
                true
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (shard, session) = (&self.shard, &self.session);
        // Whoever waits looks when this is over.
        self.step_aside();
        if self.spoiled.get() || session.ended.get() || shard.drain.is_set() {
            return end(shard, &self.key, session);
        }
        quiet(shard, session);
        // What was asked and not answered belonged to a call that is over.
        session.server_requests.borrow_mut().clear();
        let levels = RefCell::new(self.levels.take());
        let kept = Kept { session: session.clone(), levels, since: Cell::new(runtime::now()) };
        shard.leases.borrow_mut().idle.entry(self.key).or_default().push(kept);
    }
}

/// What targets say while no call runs reaches nobody: requests are refused, the rest is dropped.
fn quiet(shard: &Rc<Shard>, session: &Rc<Session>) {
    let Some(claim) = session.streams.borrow_mut().claim(STANDALONE, None) else { return };
    loop {
        let next = session.streams.borrow_mut().next(claim);
        let Next::Event(_, message) = next else { break };
        if let Ok(envelope) = json::scan(&message, &SCAN_LIMITS)
            && envelope.kind == MessageKind::Request
        {
            refuse(shard, session, &message, &envelope);
        }
    }
    session.streams.borrow_mut().release(claim);
    // A follower that waits for its reader goes on.
    session.changed.notify_all();
}

/// Tells a target that its request reaches nobody.
pub fn refuse(shard: &Rc<Shard>, session: &Rc<Session>, message: &Bytes, envelope: &Envelope) {
    let id = envelope.answer_id().and_then(|range| range.of(message));
    let refusal = error::error_response(id, -32601, "method not found");
    answer(shard, session, &refusal);
}

/// Sends a target the answer to a request of its own, which is in the session's numbering.
pub fn answer(shard: &Rc<Shard>, session: &Rc<Session>, answer: &Bytes) {
    let Ok(envelope) = json::scan(answer, &SCAN_LIMITS) else { return };
    if let Some((leg, answer)) = inbound::client_answer(session, answer, &envelope) {
        inbound::answer(shard, session, leg, answer);
    }
}

/// Ends what idles too long or has lost its endpoint, and answers what came meanwhile.
pub fn sweep(shard: &Rc<Shard>, now: Instant) {
    let idle = |kept: &Kept| {
        let backend = shard.mcp_backend(&kept.session.backend);
        let patience = backend.map_or(LEASE_IDLE, |backend| backend.config.session_idle.min(LEASE_IDLE));
        kept.session.ended.get() || now.saturating_duration_since(kept.since.get()) >= patience
    };
    let gone = shard.leases.borrow_mut().extract(idle);
    for (key, kept) in gone {
        end(shard, &key, &kept.session);
    }
    let waiting: Vec<Rc<Session>> =
        shard.leases.borrow().idle.values().flatten().map(|kept| kept.session.clone()).collect();
    for session in waiting {
        if session.streams.borrow().has_unread(STANDALONE) {
            quiet(shard, &session);
        }
    }
}

/// Ends all that idle.
pub fn end_idle(shard: &Rc<Shard>) {
    let idle = shard.leases.borrow_mut().extract(|_| true);
    for (key, kept) in idle {
        end(shard, &key, &kept.session);
    }
}
