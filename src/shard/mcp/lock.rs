//! The tool lock on a shard: lists are shown to the judge before a client sees them, and calls are let through or refused by
//! what it said. Nothing is hashed or compared with a file here.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use agentlane_runtime as runtime;
use agentlane_runtime::channel;
use agentlane_wire::json::{self, Envelope};
use bytes::Bytes;
use simd_json::OwnedValue;
use simd_json::prelude::{MutableObject, ValueObjectAccessAsScalar, Writable};

use super::leg::Opened;
use super::routing::Route;
use super::{Incoming, close, hub, lists, mcp_fault};
use crate::backend::lock::{Gate, TargetLock};
use crate::fault::Fault;
use crate::mesh::{JudgeRequest, Judged, Subject, ToControl};
use crate::protocol::mcp::catalogue;
use crate::protocol::mcp::listing::Listing;
use crate::protocol::mcp::lock::definition::Kind;
use crate::protocol::mcp::method::{ListKind, Method};
use crate::protocol::mcp::modern::listen::List;
use crate::session::Session;
use crate::shard::{BackendState, Shard};

/// What was judged of one target on this shard, so that equal lists are judged once.
#[derive(Default)]
pub struct Known {
    lists: [Last<Arc<Listing>>; 4],
    instructions: Last<String>,
}

/// What was judged last, and what was said of it.
type Last<T> = RefCell<Option<(T, Rc<Judged>)>>;

impl Known {
    /// What was said of a list with exactly these items, if that is the last that was said of any: then the verdicts that
    /// calls are compared with are its.
    fn find(&self, lock: &TargetLock, kind: Kind, listing: &Arc<Listing>) -> Option<Rc<Judged>> {
        let known = self.lists[kind as usize].borrow();
        let (last, judged) = known.as_ref()?;
        let is_current = lock.verdicts.load().last(kind) == Some(judged.digest);
        (is_current && (Arc::ptr_eq(last, listing) || last.same_items(listing))).then(|| judged.clone())
    }
}

/// What must not be shown of a list; `None`: it is shown as it is.
pub async fn visible(
    shard: &Shard,
    backend: &BackendState,
    place: usize,
    kind: ListKind,
    listing: &Arc<Listing>,
    deadline: Instant,
) -> Result<Option<Rc<Judged>>, Fault> {
    let (Some(lock), Some(kind)) = (lock_of(backend, place), Kind::of_list(kind)) else { return Ok(None) };
    let known = &backend.locks[place];
    let judged = match known.find(lock, kind, listing) {
        Some(judged) => judged,
        None => {
            let Some(judged) = ask(shard, lock, Subject::List(kind, listing.clone()), deadline).await? else {
                return Ok(None);
            };
            known.lists[kind as usize].replace(Some((listing.clone(), judged.clone())));
            judged
        }
    };
    match lock.blocked() {
        Some(fault) => Err(fault),
        None => Ok(Some(judged).filter(|judged| !judged.hidden.is_empty())),
    }
}

/// Asks the judge. Without an answer in time nothing is shown, unless nothing would be hidden anyway.
async fn ask(
    shard: &Shard,
    lock: &Arc<TargetLock>,
    subject: Subject,
    deadline: Instant,
) -> Result<Option<Rc<Judged>>, Fault> {
    let (reply, answer) = channel::bounded(1);
    let request = JudgeRequest { lock: lock.clone(), subject, reply };
    let sent = shard.control.try_send(ToControl::Judge(Box::new(request)));
    let left = deadline.saturating_duration_since(runtime::now());
    let answer = match sent {
        Ok(()) => runtime::timeout(left, answer.recv()).await.ok().flatten(),
        Err(_) => None,
    };
    match answer {
        Some(judged) => Ok(Some(Rc::new(judged))),
        None if lock.refuses() => Err(mcp_fault::overloaded().with("a list could not be judged")),
        None => Ok(None),
    }
}

fn lock_of(backend: &BackendState, place: usize) -> Option<&Arc<TargetLock>> {
    backend.config.targets.get(place)?.lock.as_ref()
}

/// What a request asks for, in the target's own words.
enum Asked<'a> {
    Named(Kind, Cow<'a, str>),
    Uri(Cow<'a, str>),
}

/// Whether a routed request may go on, as far as is known.
pub fn gate(incoming: &Incoming<'_>, method: Method, body: &[u8], envelope: &Envelope, route: &Route) -> Gate {
    let backend = incoming.backend;
    let Some(lock) = lock_of(backend, route.index) else { return Gate::Open };
    if !lock.refuses() {
        // Rules that read a risk refuse what has none yet.
        let lacks_risk = method == Method::ToolsCall && incoming.access.reads_risk();
        return match lacks_risk && !lock.verdicts.load().has_seen(Kind::Tool) {
            true => Gate::Unjudged,
            false => Gate::Open,
        };
    }
    match asked(backend, method, body, envelope, route) {
        None => Gate::Open,
        Some(Asked::Named(kind, name)) => lock.gate(kind, &name),
        Some(Asked::Uri(uri)) => lock.gate_uri(&uri, catalogue::template_matches),
    }
}

/// The same, after the target was asked for the list that says it.
pub async fn check(
    incoming: &Incoming<'_>,
    session: &Rc<Session>,
    method: Method,
    body: &[u8],
    envelope: &Envelope,
    route: &Route,
) -> Result<(), Fault> {
    let (shard, backend) = (incoming.shard, incoming.backend);
    match gate(incoming, method, body, envelope, route) {
        Gate::Open => return Ok(()),
        Gate::Refused(fault) => return Err(fault),
        Gate::Unjudged => {}
    }
    let asked = asked(backend, method, body, envelope, route);
    let list = match &asked {
        Some(Asked::Named(Kind::Tool, _)) => ListKind::Tools,
        Some(Asked::Named(Kind::Prompt, _)) => ListKind::Prompts,
        _ => ListKind::ResourceTemplates,
    };
    Box::pin(lists::learn(shard, backend, session, list)).await;
    match (gate(incoming, method, body, envelope, route), asked, lock_of(backend, route.index)) {
        (Gate::Open, ..) => Ok(()),
        (Gate::Refused(fault), ..) => Err(fault),
        (Gate::Unjudged, Some(Asked::Named(kind, name)), Some(lock)) => match lock.unlisted(kind, &name) {
            Some(fault) => Err(fault),
            None => Ok(()),
        },
        // Resources are data; the target has no templates that could be hidden.
        (Gate::Unjudged, ..) => Ok(()),
    }
}

/// Borrowed from the request, unless that spells it with escapes.
fn asked<'a>(
    backend: &BackendState,
    method: Method,
    body: &'a [u8],
    envelope: &Envelope,
    route: &'a Route,
) -> Option<Asked<'a>> {
    let named = |kind, range| {
        if let Some(own) = &route.own_name {
            return Some(Asked::Named(kind, Cow::Borrowed(own.as_str())));
        }
        let target = backend.config.targets.get(route.index)?;
        let prefix = if backend.config.prefixed { target.prefix.as_str() } else { "" };
        let own = match json::string(body, range).ok()? {
            Cow::Borrowed(name) => Cow::Borrowed(name.strip_prefix(prefix).unwrap_or(name)),
            Cow::Owned(name) => Cow::Owned(name.strip_prefix(prefix).map(str::to_owned).unwrap_or(name)),
        };
        Some(Asked::Named(kind, own))
    };
    let uri = |range| match &route.outward_uri {
        Some((own, _)) => Some(Asked::Uri(Cow::Borrowed(own.as_str()))),
        None => json::string(body, range).ok().map(Asked::Uri),
    };
    match method {
        Method::ToolsCall => named(Kind::Tool, envelope.name?),
        Method::PromptsGet => named(Kind::Prompt, envelope.name?),
        Method::ResourcesRead | Method::ResourcesSubscribe => uri(envelope.uri?),
        Method::Complete => {
            let reference = envelope.reference?;
            match json::get(body, reference, "name").ok().flatten() {
                Some(range) => named(Kind::Prompt, range),
                None => uri(json::get(body, reference, "uri").ok().flatten()?),
            }
        }
        _ => None,
    }
}

/// Takes the instructions out of a handshake's result, if they are not what was approved.
pub async fn introduced(shard: &Shard, backend: &BackendState, place: usize, opened: &mut Opened) -> Result<(), Fault> {
    if lock_of(backend, place).is_none() {
        return Ok(());
    }
    let Some(result) = opened.result.as_mut() else { return Ok(()) };
    if withhold(shard, backend, place, result).await? {
        opened.raw = Bytes::from(result.encode());
    }
    Ok(())
}

/// The same of a result that was read: whether something was taken out.
pub async fn withhold(
    shard: &Shard,
    backend: &BackendState,
    place: usize,
    result: &mut OwnedValue,
) -> Result<bool, Fault> {
    let Some(lock) = lock_of(backend, place) else { return Ok(false) };
    if let Some(text) = result.get_str("instructions").map(str::to_owned) {
        let known = backend.locks[place].instructions.borrow().clone().filter(|(known, _)| *known == text);
        let judged = match known {
            Some((_, judged)) => Some(judged),
            None => {
                let deadline = runtime::now() + backend.config.deadline;
                ask(shard, lock, Subject::Instructions(text.clone()), deadline).await?
            }
        };
        if let Some(judged) = &judged {
            backend.locks[place].instructions.replace(Some((text, judged.clone())));
        }
        if let Some(fault) = lock.blocked() {
            return Err(fault);
        }
        if judged.is_some_and(|judged| !judged.hidden.is_empty()) {
            let _ = result.remove("instructions");
            return Ok(true);
        }
    }
    match lock.blocked() {
        Some(fault) => Err(fault),
        None => Ok(false),
    }
}

/// Tells a session that lists may show something else, where locks have changed.
pub fn relocked(shard: &Rc<Shard>, session: &Rc<Session>, before: &BackendState, now: &BackendState) {
    let lock = |state: &BackendState, place: usize| state.config.targets[place].lock.as_ref().map(Arc::as_ptr);
    let changed: Vec<usize> =
        (0..now.config.targets.len()).filter(|&place| lock(before, place) != lock(now, place)).collect();
    if changed.is_empty() {
        return;
    }
    if !session.is_internal() {
        return close::lists_changed(session);
    }
    for place in changed {
        for list in [List::Tools, List::Prompts, List::Resources] {
            hub::Hub::tell(shard, session, &now.config.targets[place].name, list);
        }
    }
}

/// As a listing without these names.
pub fn without(listing: &Listing, hidden: &HashSet<Box<str>>) -> Listing {
    listing.without(|name| hidden.contains(name))
}
