//! One target's changes for one caller: any number of listeners on one stream of the target. Pure: what happens comes in
//! with its time, what is to be done comes out as [`Command`]s, and [`Source::wake_at`] says when to look again.
//!
//! The stream asks for what all listeners together want. When that grows a new stream is opened before the old one is
//! closed, and what comes while both are there is held for a moment and told once. When it shrinks the stream is replaced
//! a little later. A stream that breaks is opened again with a growing pause, and since something may have been missed
//! everything that was granted counts as changed then. What a listener was granted and cannot be kept ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::filter::{Change, Filter, List, Lists, Uri, is_part_of};
use crate::limits::{SOURCE_URIS_MAX, UPDATES_PENDING_MAX};

/// How long a stream stays after the last listener has left.
pub const LINGER: Duration = Duration::from_secs(5);
/// How long a stream may bring what nobody wants any more.
pub const SHRINK_AFTER: Duration = Duration::from_secs(5);
/// How long two streams are read side by side after the new one was acknowledged.
pub const OVERLAP: Duration = Duration::from_millis(50);
/// How long changes are held while a new stream opens.
pub const HOLD_MAX: Duration = Duration::from_millis(250);
/// The pause before a stream is opened again, doubled with each failure up to [`PAUSE_MAX`].
pub const PAUSE_MIN: Duration = Duration::from_millis(500);
pub const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A stream that lived for so long did not fail.
pub const STEADY: Duration = Duration::from_secs(5);
/// How long a target's refusal of a resource, or of the whole stream, counts for whoever asks next.
pub const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Names a listener among those of one source.
pub type ListenerId = u64;
/// Names a stream of the target, in the order of their opening.
pub type StreamId = u32;

/// What is to be done. Each is said once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask the target. Answered by `opened`, `broke` or `unheard`.
    Open {
        stream: StreamId,
        filter: Filter,
    },
    /// The stream is not wanted any more; nothing is answered.
    Close {
        stream: StreamId,
    },
    /// Something that the listener waits for was decided, or the target failed meanwhile: see [`Source::waits`].
    Settled {
        listener: ListenerId,
    },
    Deliver {
        listener: ListenerId,
        change: Change,
    },
    /// What it was granted cannot be kept: it shall end, and leave.
    End {
        listener: ListenerId,
    },
    /// Nobody listens and nothing is open: the source may be forgotten.
    Finished,
}

/// How a resource stands with a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Waiting,
    Granted,
    Refused,
}

/// Whether a listener still waits to be told what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    No,
    Yes,
    /// The target failed since: it may take long.
    Down,
}

/// Why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unheard {
    /// The lists that the target has all the same.
    pub offers: Lists,
    /// It has no way to tell anybody: others need not do without what it alone does not tell.
    pub mute: bool,
}

#[derive(Clone, Debug, Default)]
struct Listener {
    /// Wanted until settled, granted from then on.
    lists: Lists,
    lists_settled: bool,
    uris: BTreeMap<Uri, Standing>,
    /// An attempt has failed while it waited.
    down: bool,
}

#[derive(Clone, Debug)]
struct Stream {
    id: StreamId,
    asked: Filter,
    granted: Filter,
    /// Acknowledged, or for the next one: asked.
    since: Instant,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Source {
    listeners: BTreeMap<ListenerId, Listener>,
    /// Those of them with something undecided.
    waiting: BTreeSet<ListenerId>,
    /// How many listeners want or have each list, in the order of [`List::ALL`], and each resource.
    lists: [usize; 3],
    uris: BTreeMap<Uri, usize>,
    /// The acknowledged stream.
    current: Option<Stream>,
    /// The one that was asked for.
    next: Option<Stream>,
    /// The one that was current before, as long as both are read.
    old: Option<StreamId>,
    /// Until when changes are held, and those.
    hold: Option<Instant>,
    held: BTreeSet<Change>,
    /// The lists that the target has, as it said last.
    offers: Lists,
    /// Until when the target is known to have no stream.
    silent: Option<Instant>,
    /// See [`Unheard::mute`].
    mute: bool,
    /// Changes may have been missed.
    missed: bool,
    failures: u32,
    retry_at: Option<Instant>,
    shrink_at: Option<Instant>,
    linger_until: Option<Instant>,
    last_stream: StreamId,
    commands: Vec<Command>,
}

impl Source {
    /// A new listener; its lists and resources wait until the target has said what it grants.
    pub fn join(&mut self, now: Instant, listener: ListenerId, wants: Filter) {
        self.forget(listener);
        self.listeners.insert(listener, Listener { lists: wants.lists, ..Listener::default() });
        self.count_lists(wants.lists, true);
        self.waiting.insert(listener);
        for uri in wants.uris {
            self.add_uri(listener, uri);
        }
        self.reconcile(now);
    }

    /// The listener wants one more resource; one that it has already stays.
    pub fn widen(&mut self, now: Instant, listener: ListenerId, uri: Uri) {
        self.add_uri(listener, uri);
        self.reconcile(now);
    }

    /// It does not want the resource any more. False: it never did.
    pub fn narrow(&mut self, now: Instant, listener: ListenerId, uri: &str) -> bool {
        let Some(standing) = self.listeners.get_mut(&listener).and_then(|listener| listener.uris.remove(uri)) else {
            return false;
        };
        if standing != Standing::Refused {
            self.uncount_uri(uri);
        }
        self.reconcile(now);
        true
    }

    pub fn leave(&mut self, now: Instant, listener: ListenerId) {
        self.forget(listener);
        self.reconcile(now);
    }

    /// The target acknowledged a stream. `offers`: the lists that it has, whether or not it tells of their changes.
    pub fn opened(&mut self, now: Instant, stream: StreamId, granted: &Filter, offers: Lists) {
        let Some(mut fresh) = self.next.take_if(|next| next.id == stream) else { return };
        fresh.granted = fresh.asked.and(granted);
        fresh.since = now;
        self.retry_at = None;
        self.shrink_at = None;
        self.mute = false;
        self.offers = offers;
        self.end_the_ungranted(&fresh.granted);
        let before = self.current.replace(fresh);
        if let Some(before) = before {
            self.old = Some(before.id);
            self.hold = Some(now + OVERLAP);
        }
        if std::mem::take(&mut self.missed) {
            self.announce_all();
        }
        self.reconcile(now);
    }

    /// A stream broke or ended, or could not be opened. `pause`: what the target asks for before the next attempt.
    pub fn broke(&mut self, now: Instant, stream: StreamId, pause: Option<Duration>) {
        if self.old == Some(stream) {
            self.old = None;
        } else if self.next.take_if(|next| next.id == stream).is_some() {
            self.failures = self.failures.saturating_add(1);
            for listener in &self.waiting {
                self.listeners.entry(*listener).and_modify(|listener| listener.down = true);
                self.commands.push(Command::Settled { listener: *listener });
            }
            self.retry_at = Some(now + self.pause(pause));
        } else if let Some(lost) = self.current.take_if(|current| current.id == stream) {
            let steady = now.saturating_duration_since(lost.since) >= STEADY;
            self.failures = if steady { 0 } else { self.failures.saturating_add(1) };
            self.missed = true;
            self.shrink_at = None;
            self.retry_at = Some(now + self.pause(pause));
        }
        self.reconcile(now);
    }

    /// The target has no such stream, not for us, or speaks of nothing on it: nothing is granted, and it is not asked again
    /// and again.
    pub fn unheard(&mut self, now: Instant, stream: StreamId, why: Unheard) {
        let Some(_) = self.next.take_if(|next| next.id == stream) else { return };
        (self.offers, self.mute) = (why.offers, why.mute);
        self.silent = Some(now + REFUSED_FOR);
        self.missed = false;
        self.end_the_ungranted(&Filter::default());
        self.close_all();
        self.reconcile(now);
    }

    /// The target said on a stream that something changed.
    pub fn heard(&mut self, now: Instant, stream: StreamId, change: Change) {
        let Some(current) = &self.current else { return };
        let wanted = match &change {
            Change::List(list) => current.granted.lists.has(*list),
            Change::Resource(_) => !current.granted.uris.is_empty(),
        };
        if !wanted || !(current.id == stream || self.old == Some(stream)) {
            return;
        }
        match self.hold {
            Some(until) if now < until && self.held.len() < UPDATES_PENDING_MAX => drop(self.held.insert(change)),
            _ => self.route(&change),
        }
    }

    /// A change that was told elsewhere, by the same target to the same caller.
    pub fn overheard(&mut self, now: Instant, change: Change) {
        if let Some(stream) = self.current.as_ref().map(|current| current.id) {
            self.heard(now, stream, change);
        }
    }

    /// Some time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.reconcile(now);
    }

    /// When to call [`tick`](Self::tick), if nothing happens before.
    pub fn wake_at(&self) -> Option<Instant> {
        let idle = self.next.is_none() && self.old.is_none();
        let retry = self.retry_at.filter(|_| idle);
        let shrink = self.shrink_at.filter(|_| idle && retry.is_none());
        [retry, shrink, self.hold, self.linger_until].into_iter().flatten().min()
    }

    /// What is to be done, in this order.
    pub fn commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    pub fn waits(&self, listener: ListenerId) -> Waits {
        match self.listeners.get(&listener) {
            Some(state) if self.waiting.contains(&listener) => match state.down {
                true => Waits::Down,
                false => Waits::Yes,
            },
            _ => Waits::No,
        }
    }

    /// The lists that a settled listener is told of.
    pub fn granted_lists(&self, listener: ListenerId) -> Lists {
        self.listeners.get(&listener).filter(|state| state.lists_settled).map_or(Lists::NONE, |state| state.lists)
    }

    /// The lists that the target has, as far as it has been asked.
    pub fn offers(&self) -> Lists {
        self.offers
    }

    /// Whether it turned out that the target has no way to tell anybody.
    pub fn is_mute(&self) -> bool {
        self.mute
    }

    pub fn standing(&self, listener: ListenerId, uri: &str) -> Standing {
        let state = self.listeners.get(&listener).and_then(|state| state.uris.get(uri));
        state.copied().unwrap_or(Standing::Refused)
    }

    pub fn has_listeners(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Does what the state asks for, after whatever happened.
    fn reconcile(&mut self, now: Instant) {
        if self.hold.is_some_and(|until| now >= until) {
            self.release();
        }
        self.silent = self.silent.filter(|&until| now < until);
        self.retry_at = self.retry_at.filter(|&at| now < at);
        self.settle(now);
        if self.listeners.is_empty() {
            self.shrink_at = None;
            return self.linger(now);
        }
        self.linger_until = None;
        self.shape(now);
    }

    /// With the last listener gone: keeps the stream for whoever comes back soon.
    fn linger(&mut self, now: Instant) {
        let open = self.current.is_some() || self.next.is_some() || self.old.is_some();
        if open && now < *self.linger_until.get_or_insert(now + LINGER) {
            return;
        }
        self.linger_until = None;
        self.close_all();
        if self.commands.last() != Some(&Command::Finished) {
            self.commands.push(Command::Finished);
        }
    }

    /// Opens, replaces and closes streams so that they bring what is wanted.
    fn shape(&mut self, now: Instant) {
        let busy = self.next.is_some() || self.old.is_some();
        if busy || self.silent.is_some() || self.retry_at.is_some() {
            return;
        }
        let Some(current) = &self.current else {
            if !self.wants_nothing() {
                self.open(now);
            }
            return;
        };
        if !self.waiting.is_empty() {
            return self.open(now);
        }
        let needless = List::ALL.iter().any(|&list| current.granted.lists.has(list) && self.lists[list as usize] == 0)
            || current.granted.uris.iter().any(|uri| !self.uris.contains_key(uri));
        if !needless {
            self.shrink_at = None;
        } else if now >= *self.shrink_at.get_or_insert(now + SHRINK_AFTER) {
            self.shrink_at = None;
            match self.wants_nothing() {
                true => self.close_all(),
                false => self.open(now),
            }
        }
    }

    fn open(&mut self, now: Instant) {
        self.last_stream += 1;
        let lists = List::ALL.into_iter().filter(|&list| self.lists[list as usize] > 0);
        let lists = lists.fold(Lists::NONE, |all, list| all.with(Lists::one(list)));
        let asked = Filter { lists, uris: self.uris.keys().cloned().collect() };
        self.commands.push(Command::Open { stream: self.last_stream, filter: asked.clone() });
        self.next = Some(Stream { id: self.last_stream, asked, granted: Filter::default(), since: now });
        if self.current.is_some() {
            self.hold = Some(now + HOLD_MAX);
        }
    }

    fn close_all(&mut self) {
        self.release();
        let streams = [self.current.take().map(|stream| stream.id), self.next.take().map(|stream| stream.id)];
        for stream in streams.into_iter().flatten() {
            self.commands.push(Command::Close { stream });
        }
        self.shrink_at = None;
    }

    /// Ends the time in which changes are held: two streams are not there any more, or not worth waiting for.
    fn release(&mut self) {
        self.hold = None;
        if let Some(stream) = self.old.take() {
            self.commands.push(Command::Close { stream });
        }
        for change in std::mem::take(&mut self.held) {
            self.route(&change);
        }
    }

    /// Decides what can be decided for those who wait.
    fn settle(&mut self, now: Instant) {
        let (current, silent) = (self.current.as_ref(), self.silent.is_some());
        // What a stream on its way does not ask for would be lost again with it.
        let stays = |list: Lists| self.next.as_ref().is_none_or(|next| next.asked.lists.covers(list));
        let uri_stays = |uri: &Uri| self.next.as_ref().is_none_or(|next| next.asked.uris.contains(uri));
        let mut refused = Vec::new();
        let mut commands = Vec::new();
        self.waiting.retain(|id| {
            let Some(listener) = self.listeners.get_mut(id) else { return false };
            let mut settled = false;
            let asked = current.is_some_and(|at| at.asked.lists.covers(listener.lists)) && stays(listener.lists);
            if !listener.lists_settled && (silent || asked || listener.lists.is_empty()) {
                let granted = current.map_or(Lists::NONE, |at| at.granted.lists).and(listener.lists);
                for list in listener.lists.without(granted).iter() {
                    self.lists[list as usize] -= 1;
                }
                if listener.down {
                    // It came back: whoever saw the lists without it must look again.
                    commands.extend(granted.iter().map(|list| deliver(*id, Change::List(list))));
                }
                (listener.lists, listener.lists_settled, settled) = (granted, true, true);
            }
            for (uri, standing) in listener.uris.iter_mut().filter(|(_, standing)| **standing == Standing::Waiting) {
                let granted = current.is_some_and(|at| at.granted.uris.contains(uri));
                let asked = current.is_some_and(|at| now < at.since + REFUSED_FOR && at.asked.uris.contains(uri));
                if granted && uri_stays(uri) {
                    (*standing, settled) = (Standing::Granted, true);
                } else if !granted && (silent || asked) {
                    (*standing, settled) = (Standing::Refused, true);
                    refused.push(uri.clone());
                }
            }
            let waits = !listener.lists_settled || listener.uris.values().any(|at| *at == Standing::Waiting);
            listener.down &= waits;
            if settled || !waits {
                commands.push(Command::Settled { listener: *id });
            }
            waits
        });
        refused.iter().for_each(|uri| self.uncount_uri(uri));
        self.commands.append(&mut commands);
    }

    /// Ends those who were granted more than `granted`.
    fn end_the_ungranted(&mut self, granted: &Filter) {
        let kept = |listener: &Listener| {
            let mut had = listener.uris.iter().filter(|(_, standing)| **standing == Standing::Granted);
            (!listener.lists_settled || granted.lists.covers(listener.lists))
                && had.all(|(uri, _)| granted.uris.contains(uri))
        };
        let lost = self.listeners.iter().filter(|(_, listener)| !kept(listener));
        let lost: Vec<ListenerId> = lost.map(|(&id, _)| id).collect();
        for listener in lost {
            self.forget(listener);
            self.commands.push(Command::End { listener });
        }
    }

    /// Everything that anybody was granted counts as changed.
    fn announce_all(&mut self) {
        for (&id, listener) in &self.listeners {
            let lists = if listener.lists_settled { listener.lists } else { Lists::NONE };
            let granted = listener.uris.iter().filter(|(_, standing)| **standing == Standing::Granted);
            let changes = lists.iter().map(Change::List).chain(granted.map(|(uri, _)| Change::Resource(uri.clone())));
            self.commands.extend(changes.map(|change| deliver(id, change)));
        }
    }

    /// Tells a change to whoever was granted it.
    fn route(&mut self, change: &Change) {
        let granted = |listener: &Listener, matches: &dyn Fn(&str) -> bool| {
            listener.uris.iter().any(|(uri, standing)| *standing == Standing::Granted && matches(uri))
        };
        let told = |wanted: &dyn Fn(&Listener) -> bool| -> Vec<ListenerId> {
            self.listeners.iter().filter(|(_, listener)| wanted(listener)).map(|(&id, _)| id).collect()
        };
        let listeners = match change {
            Change::List(list) => told(&|listener| listener.lists_settled && listener.lists.has(*list)),
            Change::Resource(uri) => {
                // The resource itself; else a part of one; else one that the target alone knows to belong together.
                let steps: [&dyn Fn(&str) -> bool; 3] = [&|own| *own == **uri, &|own| is_part_of(uri, own), &|_| true];
                let by = steps.iter().map(|matches| told(&|listener| granted(listener, *matches)));
                by.into_iter().find(|told| !told.is_empty()).unwrap_or_default()
            }
        };
        self.commands.extend(listeners.into_iter().map(|id| deliver(id, change.clone())));
    }

    fn add_uri(&mut self, listener: ListenerId, uri: Uri) {
        let full = self.uris.len() >= SOURCE_URIS_MAX && !self.uris.contains_key(&uri);
        let Some(state) = self.listeners.get_mut(&listener) else { return };
        if matches!(state.uris.get(&uri), Some(Standing::Waiting | Standing::Granted)) {
            return;
        }
        state.uris.insert(uri.clone(), if full { Standing::Refused } else { Standing::Waiting });
        if !full {
            *self.uris.entry(uri).or_default() += 1;
            self.waiting.insert(listener);
        }
    }

    fn uncount_uri(&mut self, uri: &str) {
        if let Some(count) = self.uris.get_mut(uri) {
            *count -= 1;
            if *count == 0 {
                self.uris.remove(uri);
            }
        }
    }

    fn count_lists(&mut self, lists: Lists, more: bool) {
        for list in lists.iter() {
            let count = &mut self.lists[list as usize];
            *count = if more { *count + 1 } else { *count - 1 };
        }
    }

    fn forget(&mut self, listener: ListenerId) {
        let Some(state) = self.listeners.remove(&listener) else { return };
        self.waiting.remove(&listener);
        self.count_lists(state.lists, false);
        for (uri, _) in state.uris.iter().filter(|(_, standing)| **standing != Standing::Refused) {
            self.uncount_uri(uri);
        }
    }

    fn wants_nothing(&self) -> bool {
        self.lists == [0; 3] && self.uris.is_empty()
    }

    fn pause(&self, asked: Option<Duration>) -> Duration {
        let grown = PAUSE_MIN.saturating_mul(1 << self.failures.saturating_sub(1).min(16)).min(PAUSE_MAX);
        asked.unwrap_or_default().min(PAUSE_MAX).max(grown)
    }
}

fn deliver(listener: ListenerId, change: Change) -> Command {
    Command::Deliver { listener, change }
}

#[cfg(test)]
mod tests;
