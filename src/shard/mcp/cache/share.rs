//! One list for all shards: a target's lists have an owner among them, who gives what it has, lets one shard fetch what it
//! has not, and has the others wait for that. Nothing depends on the owner: who hears nothing in time fetches by itself.
//!
//! A list that was begun before a target told any shard of a change is never fresh on a shard that knows of the change:
//! times of one clock decide, not the order of messages.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentlane_runtime as runtime;
use agentlane_runtime::channel;
use agentlane_runtime::local::Event;

use super::{ListId, TargetLists};
use crate::limits::LIST_FLIGHTS_MAX;
use crate::mesh::{ListFetched, ListName, ListWanted, ListsChanged, SharedList, ToShard};
use crate::protocol::mcp::method::ListKind;
use crate::shard::{BackendState, Shard};

/// Changes that come together are told together.
pub(super) const TELL_AFTER: Duration = Duration::from_millis(10);
/// A shard whose inbox is full is told again so often.
pub(super) const TELL_ATTEMPTS: u32 = 100;

/// A list that some shard was told to fetch.
#[derive(Clone)]
pub struct Lease {
    list: Rc<ListName>,
    begun: Instant,
    /// Whoever waits longer asks for a turn of its own.
    until: Instant,
    done: Event,
}

/// The list from the owner; `None`: it is this shard's turn, or the owner cannot say.
pub async fn ask(shard: &Rc<Shard>, list: &ListName, after: Instant) -> Option<SharedList> {
    let owner = owner(shard, list);
    if shard.peers.len() == 1 {
        return None;
    }
    if owner == shard.index {
        return give(shard, list, after).await;
    }
    let (reply, answer) = channel::bounded(1);
    let wanted = ListWanted { list: list.clone(), after, reply };
    shard.peers[owner].try_send(ToShard::ListWanted(Box::new(wanted))).ok()?;
    runtime::timeout(list.backend.deadline, answer.recv()).await.ok().flatten().flatten()
}

/// Tells the owner what came of a list.
pub fn tell(shard: &Rc<Shard>, list: ListName, outcome: Option<SharedList>) {
    let owner = owner(shard, &list);
    if shard.peers.len() == 1 {
        return;
    }
    let fetched = ListFetched { list, outcome };
    match owner == shard.index {
        true => take(shard, fetched),
        // Full: those who wait there will ask for themselves.
        false => drop(shard.peers[owner].try_send(ToShard::ListFetched(Box::new(fetched)))),
    }
}

fn owner(shard: &Shard, list: &ListName) -> usize {
    shard.owner_of(&list.backend.key, &list.backend.targets[list.place].name)
}

/// The owner's answer: the list, as soon as there is one, or `None` for whoever shall fetch it.
pub async fn give(shard: &Rc<Shard>, list: &ListName, after: Instant) -> Option<SharedList> {
    loop {
        let (backend, place) = here(shard, &list.backend, list.place)?;
        let lists = &backend.lists[place];
        lists.changed_at(list.kind, after);
        let now = runtime::now();
        let id = ListId { target: lists.id, kind: list.kind };
        let found = shard.kept.lists.borrow().find(&id, &list.viewer, lists.since(list.kind), now);
        if let Some(found) = found
            && let Some(fresh_for) = found.fresh_for
        {
            let (audience, begun) = (found.audience, found.mark);
            return Some(SharedList { listing: found.value, audience, begun, fresh_until: now + fresh_for });
        }
        let lease = lists.leases.borrow().iter().find(|lease| lease.serves(list, lists, now)).cloned();
        match lease {
            Some(lease) => drop(runtime::timeout(lease.until - now, lease.done.wait()).await),
            None => {
                lists.lease(list, now + backend.config.deadline);
                return None;
            }
        }
    }
}

/// The owner's part when a list was fetched, or did not come.
pub fn take(shard: &Rc<Shard>, fetched: ListFetched) {
    let ListFetched { list, outcome } = fetched;
    let Some((backend, place)) = here(shard, &list.backend, list.place) else { return };
    if let Some(shared) = outcome {
        super::keep(shard, &backend, place, list.kind, &list.viewer, &shared);
    }
    backend.lists[place].leases.borrow_mut().retain(|lease| {
        let over = lease.is_for(&list);
        if over {
            lease.done.set();
        }
        !over
    });
}

/// Tells the other shards soon that lists of a target have changed.
pub fn tell_changed(shard: &Rc<Shard>, backend: &Rc<BackendState>, place: usize) {
    if shard.peers.len() == 1 || backend.lists[place].telling.replace(true) {
        return;
    }
    let (shard, backend) = (shard.clone(), backend.clone());
    runtime::spawn(async move {
        runtime::sleep(TELL_AFTER).await;
        let lists = &backend.lists[place];
        // What changes from here on is told by another task.
        lists.telling.set(false);
        let at = lists.changed.each_ref().map(std::cell::Cell::get);
        let mut untold: Vec<usize> = (0..shard.peers.len()).filter(|&peer| peer != shard.index).collect();
        for _ in 0..TELL_ATTEMPTS {
            untold.retain(|&peer| {
                let changed = ListsChanged { backend: backend.config.clone(), place, at };
                shard.peers[peer].try_send(ToShard::ListsChanged(Box::new(changed))).is_err()
            });
            if untold.is_empty() {
                return;
            }
            runtime::sleep(TELL_AFTER).await;
        }
        tracing::warn!(target: "agentlane::mcp", "a shard takes no messages: its lists get old by time alone");
    });
}

/// Another shard was told that lists have changed.
pub fn note_changed(shard: &Shard, changed: &ListsChanged) {
    let Some((backend, place)) = here(shard, &changed.backend, changed.place) else { return };
    for (&kind, at) in super::KINDS.iter().zip(changed.at) {
        backend.lists[place].changed_at(kind, at);
    }
}

/// The same target on this shard, if it has the same configuration.
pub(super) fn here(
    shard: &Shard,
    backend: &Arc<crate::backend::mcp::McpBackend>,
    place: usize,
) -> Option<(Rc<BackendState>, usize)> {
    let there = &backend.targets[place];
    let backend = shard.mcp_backend(&backend.key)?;
    let place = backend.config.target_index(&there.name)?;
    (backend.config.targets[place].fingerprint == there.fingerprint).then_some((backend, place))
}

impl Lease {
    fn is_for(&self, list: &ListName) -> bool {
        self.list.kind == list.kind
            && self.list.audience == list.audience
            && list.audience.shares(&self.list.viewer, &list.viewer)
    }

    fn serves(&self, list: &ListName, lists: &TargetLists, now: Instant) -> bool {
        now < self.until && self.begun >= lists.since(list.kind) && self.is_for(list)
    }
}

impl TargetLists {
    fn lease(&self, list: &ListName, until: Instant) {
        let now = runtime::now();
        let mut leases = self.leases.borrow_mut();
        // One that is over, and one that would come too old: who waits for it looks again.
        leases.retain(|lease| {
            let stays = now < lease.until && !lease.is_for(list);
            if !stays {
                lease.done.set();
            }
            stays
        });
        if leases.len() < LIST_FLIGHTS_MAX {
            leases.push(Lease { list: Rc::new(list.clone()), begun: Instant::now(), until, done: Event::new() });
        }
    }

    /// A change that another shard may have heard of first.
    fn changed_at(&self, kind: ListKind, at: Instant) {
        if at > self.changed[kind as usize].get() {
            self.changed[kind as usize].set(at);
            self.changes[kind as usize].set(self.changes[kind as usize].get() + 1);
        }
    }
}
