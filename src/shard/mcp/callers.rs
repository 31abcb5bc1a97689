//! Children of 2026-07-28: one process for each caller and target, whichever shards serve the caller's requests. A request
//! of that revision says all that the server may know of its client, so that any number of them can be on one process;
//! what the process remembers beside that is its caller's. Nobody ends it but its watch, when it is not used any more.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use agentlane_runtime as runtime;
use agentlane_runtime::channel;
use bytes::Bytes;

use super::era::{self, ModernTarget};
use super::{child, mcp_fault, modern_leg};
use crate::backend::mcp::{Protocol, StdioTarget, Target, TargetKind};
use crate::fault::{Fault, Kind};
use crate::limits::{CALLERS_CHILDREN_MAX, LEASE_IDLE};
use crate::mesh::{SharedChild, ToShard};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::error;
use crate::protocol::mcp::modern::envelope::Client;
use crate::protocol::mcp::revision::Revision;
use crate::session::ChildPort;
use crate::shard::{BackendState, Backoff, Shard, Turn};

/// Backend, target, and who calls.
type Key = (String, String, Caller);

/// The children that this shard owns, and those that it knows of.
#[derive(Default)]
pub struct Callers(RefCell<HashMap<Key, Rc<Slot>>>);

#[derive(Default)]
struct Slot {
    /// As what the target was configured when the child was started.
    fingerprint: RefCell<String>,
    child: RefCell<Option<SharedChild>>,
    /// One task starts it, others wait.
    turn: Turn,
    backoff: Backoff,
}

impl Slot {
    fn running(&self, target: &Target) -> Option<SharedChild> {
        let child = self.child.borrow().clone()?;
        let is_same = *self.fingerprint.borrow() == target.fingerprint;
        (is_same && !child.port.closed.load(Ordering::Acquire)).then_some(child)
    }

    fn is_over(&self) -> bool {
        self.child.borrow().as_ref().is_none_or(|child| child.port.closed.load(Ordering::Acquire))
    }
}

impl Callers {
    fn slot(&self, key: Key) -> Result<Rc<Slot>, Fault> {
        let mut slots = self.0.borrow_mut();
        if let Some(slot) = slots.get(&key) {
            return Ok(slot.clone());
        }
        if slots.len() >= CALLERS_CHILDREN_MAX {
            return Err(mcp_fault::overloaded());
        }
        Ok(slots.entry(key).or_default().clone())
    }

    /// Forgets children that have ended. Whoever is about to start one, or must wait for that, keeps its place.
    pub fn sweep(&self, now: Instant) {
        self.0.borrow_mut().retain(|_, slot| Rc::strong_count(slot) > 1 || !slot.is_over() || slot.backoff.lasts(now));
    }

    /// Ends the children of targets that are gone or another's; `stays` says which fingerprint a target has now.
    pub fn retain(&self, now: impl Fn(&str, &str) -> Option<Arc<Target>>) {
        self.0.borrow_mut().retain(|(backend, target, _), slot| {
            let is_same = |target: Arc<Target>| target.fingerprint == *slot.fingerprint.borrow();
            let stays = slot.child.borrow().is_none() || now(backend, target).is_some_and(is_same);
            if !stays && let Some(child) = slot.child.take() {
                child.port.stop();
            }
            stays
        });
    }
}

/// The child that serves a caller's requests of 2026-07-28: its own, or the one that all share. `None`: the target does not
/// speak that revision.
pub async fn serving(
    shard: &Rc<Shard>,
    backend: &BackendState,
    target: &Target,
    stdio: &StdioTarget,
    caller: Caller,
    deadline: Instant,
) -> Result<Option<SharedChild>, Fault> {
    if !stdio.shared {
        return child(shard, backend, target, stdio, caller, deadline).await;
    }
    if matches!(target.protocol, Protocol::Legacy(_)) {
        return Ok(None);
    }
    let child = child::shared(shard, &backend.config.key, &target.name, stdio, deadline).await?;
    Ok(Some(child).filter(|child| child.modern))
}

/// The target as [`era::modern_target`] gives it, where it is a child.
pub async fn modern_target(
    shard: &Rc<Shard>,
    backend: &BackendState,
    target: &Target,
    stdio: &StdioTarget,
    caller: Caller,
) -> Result<Option<Rc<ModernTarget>>, Fault> {
    let known = backend.eras.of(target);
    if let Some(modern) = known.fresh() {
        return Ok(Some(modern));
    }
    if known.is_known_legacy() {
        return Ok(None);
    }
    let deadline = runtime::now() + backend.config.deadline;
    match Box::pin(serving(shard, backend, target, stdio, caller, deadline)).await? {
        Some(child) => known.learn(child.initialize_result, Bytes::new()).map(Some).ok_or_else(era::not_modern),
        None => {
            known.found_no_modern_child();
            Ok(None)
        }
    }
}

/// A caller's own child, from this shard or from its owner; started unless it runs. `None`: as [`serving`].
pub async fn child(
    shard: &Rc<Shard>,
    backend: &BackendState,
    target: &Target,
    stdio: &StdioTarget,
    caller: Caller,
    deadline: Instant,
) -> Result<Option<SharedChild>, Fault> {
    let known = backend.eras.of(target);
    if matches!(target.protocol, Protocol::Legacy(_)) {
        return Ok(None);
    }
    let slot = shard.callers.slot((backend.config.key.clone(), target.name.clone(), caller))?;
    if let Some(child) = slot.running(target) {
        return Ok(Some(child));
    }
    let left = deadline.saturating_duration_since(runtime::now());
    let _turn = runtime::timeout(left, slot.turn.lock()).await.map_err(|_| mcp_fault::timeout())?;
    if let Some(child) = slot.running(target) {
        return Ok(Some(child));
    }
    if target.protocol == Protocol::Auto && known.is_known_legacy() {
        return Ok(None);
    }
    let owner = owner(shard, &backend.config.key, &target.name, &caller);
    let found = match owner == shard.index {
        true => {
            slot.backoff.pause(stdio, &target.name)?;
            let outcome = start(shard, target, stdio, deadline).await;
            slot.backoff.tried(outcome.is_ok());
            outcome?
        }
        false => ask(shard, owner, backend, target, caller, deadline).await?,
    };
    match &found {
        None if target.protocol == Protocol::Modern => return Err(era::not_modern()),
        None => known.found_no_modern_child(),
        Some(_) => {
            known.found_modern(false);
            slot.fingerprint.borrow_mut().clone_from(&target.fingerprint);
        }
    }
    slot.child.borrow_mut().clone_from(&found);
    Ok(found)
}

/// The owner's side, for another shard. A fault by its message.
pub async fn own(
    shard: &Rc<Shard>,
    backend: &str,
    target: &str,
    caller: Caller,
) -> Result<Option<SharedChild>, &'static str> {
    let gone = "target is not configured";
    let backend = shard.mcp_backend(backend).ok_or(gone)?;
    let target = backend.config.targets.iter().find(|known| known.name == target).ok_or(gone)?;
    let TargetKind::Stdio(stdio) = &target.kind else { return Err(gone) };
    let deadline = runtime::now() + backend.config.deadline;
    child(shard, &backend, target, stdio, caller, deadline).await.map_err(|fault| fault.message)
}

async fn ask(
    shard: &Rc<Shard>,
    owner: usize,
    backend: &BackendState,
    target: &Target,
    caller: Caller,
    deadline: Instant,
) -> Result<Option<SharedChild>, Fault> {
    let (reply, answer) = channel::bounded(1);
    let (backend, target) = (backend.config.key.clone(), target.name.clone());
    let ask = ToShard::CallersChild { backend, target, caller, reply };
    shard.peers[owner].try_send(ask).map_err(|_| mcp_fault::overloaded())?;
    let left = deadline.saturating_duration_since(runtime::now());
    match runtime::timeout(left, answer.recv()).await {
        Ok(Some(Ok(found))) => Ok(found),
        Ok(Some(Err(reason))) => Err(Fault::new(Kind::UpstreamUnreachable, reason)),
        Ok(None) | Err(_) => Err(mcp_fault::timeout()),
    }
}

/// The shard that owns a caller's child.
fn owner(shard: &Shard, backend: &str, target: &str, caller: &Caller) -> usize {
    let mut hasher = DefaultHasher::new();
    (backend, target, caller).hash(&mut hasher);
    (hasher.finish() % shard.peers.len() as u64) as usize
}

/// Starts a child and asks it for 2026-07-28. A server that says nothing to that may be one that waits for `initialize`:
/// another process, which is of no use afterwards, is asked for it meanwhile.
async fn start(
    shard: &Rc<Shard>,
    target: &Target,
    stdio: &StdioTarget,
    deadline: Instant,
) -> Result<Option<SharedChild>, Fault> {
    let (name, stdio) = (target.name.clone(), stdio.clone());
    let ask = {
        let (shard, name, stdio) = (shard.clone(), name.clone(), stdio.clone());
        async move {
            let port = process(&shard, &name, &stdio, deadline).await?;
            let outcome = modern_leg::child::modern(&shard, &port, &Client::gateway(), deadline).await;
            match outcome {
                Ok(Ok(initialize_result)) => Ok(Some(SharedChild { port, initialize_result, modern: true })),
                Ok(Err(_)) => {
                    port.stop();
                    Ok(None)
                }
                Err(fault) => {
                    port.stop();
                    Err(fault)
                }
            }
        }
    };
    if target.protocol == Protocol::Modern {
        return ask.await;
    }
    let shard = shard.clone();
    let has_sessions = async move {
        let Ok(port) = child::start(&shard, &name, &stdio, deadline).await else { return false };
        let client = Client::gateway();
        let params = error::initialize_params(Revision::NEWEST, &client.capabilities, client.info.as_deref());
        let outcome = modern_leg::child::legacy(&shard, &port, &params, deadline).await;
        port.stop();
        matches!(outcome, Ok(Ok(_)))
    };
    era::probe(ask, has_sessions, deadline).await
}

/// A process that many requests are on, and that ends when there are none for a while.
async fn process(shard: &Rc<Shard>, name: &str, stdio: &StdioTarget, deadline: Instant) -> Result<ChildPort, Fault> {
    let spawned = child::spawn(shard, name, stdio, deadline).await?;
    let idle_after = stdio.idle_after.map_or(LEASE_IDLE, |idle| idle.min(LEASE_IDLE));
    let watched = StdioTarget { shared: true, idle_after: Some(idle_after), ..stdio.clone() };
    child::connect(shard, spawned, &watched)
}
