//! One list out of every target's: whole lists from the cache or from the targets, in the order of the configuration, paged
//! anew for the client. What is missing or old is said in `_meta`.

use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_runtime as runtime;
use agentlane_wire::json::{self, ListMerger};
use bytes::{Bytes, BytesMut};

use super::access::Viewing;
use super::cache::{self, Gathering, Page, Part};
use super::mcp_fault;
use crate::backend::mcp::FailureMode;
use crate::fault::{Fault, Kind};
use crate::policy::rules::access::Access;
use crate::principal::Principal;
use crate::protocol::mcp::apps;
use crate::protocol::mcp::cache::{Audience, Hints};
use crate::protocol::mcp::catalogue::{Shelf, TargetIndex};
use crate::protocol::mcp::federate::{self, Item, Member};
use crate::protocol::mcp::merge;
use crate::protocol::mcp::method::ListKind;
use crate::session::Session;
use crate::shard::{BackendState, Shard};

const CURSOR: &[u8] = b"agentlane list cursor v1";

/// Whether the lists of the only target pass as they are. Not where they are kept, or looked at, or rules hide some of
/// it: then pages and cursors are ours.
pub fn pass(backend: &BackendState, session: &Session, access: &Access) -> bool {
    let is_modern = |leg: Rc<crate::session::Leg>| leg.open().is_some_and(|open| open.modern.is_some());
    backend.config.is_identity()
        && !backend.config.keeps_lists()
        && !backend.config.is_locked()
        && access.is_open()
        && !session.leg_to(0).is_some_and(is_modern)
}

/// A page of a merged list.
pub struct Merged {
    /// The `result`, without what only modern clients get.
    pub result: Bytes,
    /// What a modern client is told of keeping it.
    pub hints: Hints,
}

/// The merged list's page at `cursor`.
pub async fn merged(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    session: &Rc<Session>,
    kind: ListKind,
    cursor: Option<&str>,
    viewing: Viewing<'_>,
) -> Result<Merged, Fault> {
    let gathering = gathering(shard, backend, session, kind);
    if cursor.is_none()
        && viewing.access.is_open()
        && let Some(kept) = gathering.page()
        && !backend.config.has_blocked()
    {
        session.shown.show(kind, Some(kept.value.digest));
        return Ok(Merged { result: kept.value.result, hints: Hints::of(kept.audience, kept.fresh_for) });
    }
    let (merged, kept) = Box::pin(gather(&gathering, cursor, viewing)).await?;
    session.shown.show(kind, kept);
    Ok(merged)
}

/// Says what the session's client would be shown now, but for rules; `None`: it is not kept, or nobody knows.
pub async fn kept_digest(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    session: &Rc<Session>,
    kind: ListKind,
) -> Option<u64> {
    let gathering = gathering(shard, backend, session, kind);
    let (access, principal) = (Access::default(), Principal::default());
    let viewing = Viewing { access: &access, principal: &principal, session: None };
    Box::pin(gather(&gathering, None, viewing)).await.ok()?.1
}

/// The page, and a digest of the whole list's content where that is kept.
async fn gather(
    gathering: &Gathering<'_>,
    cursor: Option<&str>,
    viewing: Viewing<'_>,
) -> Result<(Merged, Option<u64>), Fault> {
    let Gathering { shard, backend, session, kind, .. } = *gathering;
    let (changes, asked) = (gathering.changes(), Instant::now());
    let parts = gathering.parts().await;
    if session.ended.get() {
        return Err(mcp_fault::session_unknown());
    }
    if kind == ListKind::Tools && session.is_internal() {
        // Clients of 2026-07-28 repeat arguments in headers as they are told here.
        let places = parts.iter().enumerate();
        places.for_each(|(place, part)| cache::learn_schemas(backend, place, &session.caller, asked, part));
    }
    // An empty list in the place of the only one would be a lie.
    let strict = backend.config.failure_mode == FailureMode::Closed || backend.config.is_identity();
    if strict && let Some(Part::Missing(fault)) = parts.iter().find(|part| matches!(part, Part::Missing(_))) {
        return Err(Fault::new(fault.kind, "a target is down").with(fault));
    }
    if parts.iter().all(|part| matches!(part, Part::Absent)) {
        return Err(Fault::new(Kind::MethodNotFound, "method not found"));
    }
    let mut items = named(backend, kind, &parts);
    remember(backend, kind, &parts, &items);
    let (audience, fresh_for) = keeping(&parts);
    // Of all that there is: what is hidden from one client is not told apart from what is shown.
    let kept = (!fresh_for.is_zero()).then(|| federate::content_digest(&items));
    viewing.filter(kind, &backend.config.targets, &mut items);
    let digest = federate::digest(&items);
    let from = match cursor {
        None => 0,
        Some(cursor) => offset(shard, kind, cursor, digest)?,
    };
    let page = &items[from.min(items.len())..items.len().min(from + backend.config.page_size)];
    let mut merger = ListMerger::new(kind, page.iter().map(|item| item.item.range.len() + 24).sum::<usize>() + 256);
    for item in page {
        match app(backend, kind, item) {
            Some(tool) => merger.push(&tool),
            None => {
                merger.push_renamed(item.page, &item.item, &item.name);
            }
        }
    }
    let next = from + page.len();
    let next = if next < items.len() { Some(cursor_at(shard, kind, next, digest)?) } else { None };
    let status = status(backend, &parts);
    let meta: Vec<(&str, &[u8])> = status.iter().map(|meta| ("_meta", &meta[..])).collect();
    let result = merger.finish(next.as_deref(), &meta);
    if let (None, Some(digest), true) = (cursor, kept, viewing.access.is_open()) {
        gathering.keep_page(Page { result: result.clone(), digest }, audience, fresh_for, changes);
    }
    Ok((Merged { result, hints: hints(&parts, viewing.access) }, kept))
}

/// A tool of a federation that is shown by a resource, led to its own target's. As it is where that is listed as it is.
fn app(backend: &BackendState, kind: ListKind, item: &Item<'_>) -> Option<Bytes> {
    let target = backend.config.targets.get(item.index)?;
    if kind != ListKind::Tools || backend.config.targets.len() < 2 {
        return None;
    }
    let catalogue = backend.catalogue.borrow();
    apps::marked(item, &target.name, |uri| catalogue.find(Shelf::Resources, uri) == Some(item.index))
}

/// Fetches one target's tools only to know how a caller is told to call them.
pub async fn learn_schemas(shard: &Rc<Shard>, backend: &Rc<BackendState>, session: &Rc<Session>, place: usize) {
    let asked = Instant::now();
    let part = gathering(shard, backend, session, ListKind::Tools).one(place).await;
    cache::learn_schemas(backend, place, &session.caller, asked, &part);
}

/// Fetches a list only to know what is where.
pub async fn learn(shard: &Rc<Shard>, backend: &Rc<BackendState>, session: &Rc<Session>, kind: ListKind) {
    let parts = gathering(shard, backend, session, kind).parts().await;
    remember(backend, kind, &parts, &named(backend, kind, &parts));
}

fn gathering<'a>(
    shard: &'a Rc<Shard>,
    backend: &'a Rc<BackendState>,
    session: &'a Rc<Session>,
    kind: ListKind,
) -> Gathering<'a> {
    let deadline = runtime::now() + backend.config.deadline;
    Gathering { shard, backend, session, viewer: cache::viewer(session), kind, deadline }
}

/// Whom what is made of these parts may be shown to, and for how long. No part that is old or missing lasts.
fn keeping(parts: &[Part]) -> (Audience, Duration) {
    let each = parts.iter().map(|part| match part {
        Part::Listed { audience, fresh_for, .. } => (*audience, *fresh_for),
        Part::Missing(_) => (Audience::Own, Duration::ZERO),
        // What a target offers to one is not what it offers to all.
        Part::Absent => (Audience::Own, Duration::MAX),
    });
    each.reduce(|(one, fresh), (other, other_fresh)| (one.max(other), fresh.min(other_fresh)))
        .unwrap_or((Audience::Own, Duration::ZERO))
}

fn hints(parts: &[Part], access: &Access) -> Hints {
    let degraded = parts.iter().any(|part| matches!(part, Part::Missing(_) | Part::Listed { stale: Some(_), .. }));
    let each = parts.iter().map(|part| match part {
        Part::Listed { audience, fresh_for, .. } => Hints::of(*audience, Some(*fresh_for)),
        Part::Missing(_) => Hints::NONE,
        Part::Absent => Hints { ttl: Duration::MAX, public: false },
    });
    Hints::merged(each, access.tells_callers_apart(), degraded)
}

fn named<'a>(backend: &'a BackendState, kind: ListKind, parts: &'a [Part]) -> Vec<Item<'a>> {
    let config = &backend.config;
    let members: Vec<Member<'a>> = parts
        .iter()
        .zip(&config.targets)
        .enumerate()
        .filter_map(|(index, (part, target))| {
            let Part::Listed { listing, .. } = part else { return None };
            let prefix = if config.prefixed { target.prefix.as_str() } else { "" };
            Some(Member { index, target: &target.name, prefix, listing })
        })
        .collect();
    // One target keeps its own names.
    let length = if config.is_identity() { usize::MAX } else { config.name_length };
    federate::items(kind, &members, length)
}

fn remember(backend: &BackendState, kind: ListKind, parts: &[Part], items: &[Item<'_>]) {
    let missing: Vec<TargetIndex> =
        (0..parts.len()).filter(|&index| matches!(parts[index], Part::Missing(_))).collect();
    let entries = || items.iter().map(|item| (item.name.clone(), item.index));
    let mut catalogue = backend.catalogue.borrow_mut();
    let shelf = match kind {
        ListKind::Tools => Shelf::Tools,
        ListKind::Prompts => Shelf::Prompts,
        ListKind::Resources => return catalogue.learn(Shelf::Resources, &missing, entries()),
        ListKind::ResourceTemplates => return catalogue.learn_templates(&missing, entries()),
    };
    // With prefixes the name says where it lives, unless it was shortened.
    if !backend.config.prefixed {
        catalogue.learn(shelf, &missing, entries());
    }
    let shortened = items.iter().filter_map(|item| Some((item.name.clone(), item.index, item.own.clone()?)));
    catalogue.learn_shortened(shelf, &missing, shortened);
    if kind == ListKind::Tools {
        let read_only = items.iter().filter(|item| item.read_only).map(|item| {
            let prefix = if backend.config.prefixed { backend.config.targets[item.index].prefix.as_str() } else { "" };
            (item.index, item.own_name(prefix))
        });
        catalogue.learn_read_only(&missing, read_only);
    }
}

/// `_meta` that says how each target fares, and names the missing ones; `None` when all are well.
fn status(backend: &BackendState, parts: &[Part]) -> Option<Bytes> {
    let well = |part: &Part| matches!(part, Part::Listed { stale: None, .. } | Part::Absent);
    if parts.iter().all(well) {
        return None;
    }
    let mut out = BytesMut::from(&b"{"[..]);
    let mut between = "";
    for (part, target) in parts.iter().zip(&backend.config.targets) {
        let Part::Missing(fault) = part else { continue };
        if between.is_empty() {
            json::quote_into(&mut out, merge::META_MISSING);
            out.extend_from_slice(b":[");
        }
        out.extend_from_slice(between.as_bytes());
        out.extend_from_slice(b"{\"target\":");
        json::quote_into(&mut out, &target.name);
        out.extend_from_slice(b",\"reason\":");
        json::quote_into(&mut out, fault.message);
        out.extend_from_slice(b"}");
        between = ",";
    }
    if !between.is_empty() {
        out.extend_from_slice(b"],");
    }
    json::quote_into(&mut out, merge::META_TARGETS);
    let mut opening = ":{";
    for (part, target) in parts.iter().zip(&backend.config.targets) {
        out.extend_from_slice(opening.as_bytes());
        json::quote_into(&mut out, &target.name);
        let (status, reason) = match part {
            Part::Listed { stale: Some(reason), .. } => ("stale", Some(*reason)),
            Part::Missing(fault) => ("missing", Some(fault.message)),
            Part::Listed { .. } | Part::Absent => ("ok", None),
        };
        out.extend_from_slice(b":{\"status\":");
        json::quote_into(&mut out, status);
        if let Some(reason) = reason {
            out.extend_from_slice(b",\"reason\":");
            json::quote_into(&mut out, reason);
        }
        out.extend_from_slice(b"}");
        opening = ",";
    }
    out.extend_from_slice(b"}}");
    Some(out.freeze())
}

fn cursor_at(shard: &Shard, kind: ListKind, offset: usize, digest: u64) -> Result<String, Fault> {
    let mut payload = Vec::with_capacity(17);
    payload.push(kind as u8);
    payload.extend_from_slice(&(offset as u64).to_le_bytes());
    payload.extend_from_slice(&digest.to_le_bytes());
    shard.sealer.seal(CURSOR, &payload).map_err(|_| mcp_fault::internal("no randomness"))
}

fn offset(shard: &Shard, kind: ListKind, cursor: &str, digest: u64) -> Result<usize, Fault> {
    let wrong = || Fault::new(Kind::InvalidParams, "invalid cursor");
    let payload = shard.sealer.open(CURSOR, cursor.as_bytes()).ok_or_else(wrong)?;
    let (kind_byte, rest) = payload.split_first().ok_or_else(wrong)?;
    let (offset, seen) = rest.split_at_checked(8).ok_or_else(wrong)?;
    if *kind_byte != kind as u8 || seen != digest.to_le_bytes() {
        return Err(Fault::new(Kind::InvalidParams, "invalid cursor: the list has changed"));
    }
    let offset = u64::from_le_bytes(offset.try_into().map_err(|_| wrong())?);
    usize::try_from(offset).map_err(|_| wrong())
}
