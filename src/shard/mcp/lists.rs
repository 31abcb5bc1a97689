//! One list out of every target's: all pages of all targets within the deadline, in the order of the configuration, paged
//! anew for the client. What is missing is said in `_meta`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Instant;

use agentlane_runtime as runtime;
use agentlane_wire::json::{self, ListMerger, list_items};
use bytes::{Bytes, BytesMut};

use super::{leg, mcp_fault, modern_leg, upstream};
use crate::backend::mcp::FailureMode;
use crate::fault::{Fault, Kind};
use crate::limits::{LIST_BYTES_MAX, LIST_PAGES_MAX};
use crate::protocol::mcp::catalogue::Shelf;
use crate::protocol::mcp::method::{ListKind, Method, list_method};
use crate::protocol::mcp::{error, merge, names};
use crate::session::{LegId, Offers, Session};
use crate::shard::{BackendState, Shard};

const CURSOR: &[u8] = b"agentlane list cursor v1";

/// One target's whole list: its pages' messages.
type Pages = Vec<(Bytes, json::Range32)>;

/// What one target contributes.
enum Part {
    Pages(Pages),
    /// It does not offer the capability.
    Absent,
    Missing(Fault),
}

/// An item under its outward name.
struct Item<'a> {
    page: &'a Bytes,
    item: json::ListItem,
    name: String,
    index: usize,
}

/// The merged list's page at `cursor` as a JSON-RPC result.
pub async fn merged(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    session: &Rc<Session>,
    kind: ListKind,
    cursor: Option<&str>,
) -> Result<Bytes, Fault> {
    let parts = gather(shard, backend, session, kind).await;
    if backend.config.failure_mode == FailureMode::Closed
        && let Some(Part::Missing(fault)) = parts.iter().find(|part| matches!(part, Part::Missing(_)))
    {
        return Err(Fault::new(fault.kind, "a target is down").with(fault));
    }
    if parts.iter().all(|part| matches!(part, Part::Absent)) {
        return Err(Fault::new(Kind::MethodNotFound, "method not found"));
    }
    let items = named(backend, kind, &parts);
    remember(backend, kind, &items);
    let digest = digest(&items);
    let from = match cursor {
        None => 0,
        Some(cursor) => offset(shard, kind, cursor, digest)?,
    };
    let page = &items[from.min(items.len())..items.len().min(from + backend.config.page_size)];
    let mut merger = ListMerger::new(kind, page.iter().map(|item| item.item.range.len() + 24).sum::<usize>() + 256);
    for item in page {
        merger.push_renamed(item.page, &item.item, &item.name);
    }
    let next = from + page.len();
    let next = if next < items.len() { Some(cursor_at(shard, kind, next, digest)?) } else { None };
    let missing = missing(backend, &parts);
    let meta: Vec<(&str, &[u8])> = missing.iter().map(|meta| ("_meta", &meta[..])).collect();
    Ok(merger.finish(next.as_deref(), &meta))
}

/// Fetches a list only to know what is where.
pub async fn learn(shard: &Rc<Shard>, backend: &Rc<BackendState>, session: &Rc<Session>, kind: ListKind) {
    let parts = gather(shard, backend, session, kind).await;
    remember(backend, kind, &named(backend, kind, &parts));
}

async fn gather(shard: &Rc<Shard>, backend: &Rc<BackendState>, session: &Rc<Session>, kind: ListKind) -> Vec<Part> {
    let deadline = runtime::now() + backend.config.deadline;
    runtime::join_all(session.leg_ids().into_iter().map(|leg| part(shard, session, leg, kind, deadline))).await
}

async fn part(shard: &Rc<Shard>, session: &Rc<Session>, leg: LegId, kind: ListKind, deadline: Instant) -> Part {
    match pages(shard, session, leg, kind, deadline).await {
        Ok(Some(pages)) => Part::Pages(pages),
        Ok(None) => Part::Absent,
        Err(fault) => Part::Missing(fault),
    }
}

/// Every page of one target. A target that forgot the session is asked once more under a new one.
async fn pages(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    leg: LegId,
    kind: ListKind,
    deadline: Instant,
) -> Result<Option<Pages>, Fault> {
    // Bounded as well: a handshake has the same deadline, and one under way began earlier.
    let mut open = leg::ready(shard, session, leg).await?;
    if !offers(&open.offers, kind) {
        return Ok(None);
    }
    let mut pages = Pages::new();
    let (mut cursor, mut bytes, mut retried) = (None::<Bytes>, 0, false);
    let mut seen = std::collections::HashSet::new();
    while pages.len() < LIST_PAGES_MAX && bytes < LIST_BYTES_MAX {
        let params = cursor.as_ref().map(|cursor| [b"{\"cursor\":", &cursor[..], b"}"].concat());
        let request = error::request(shard.call_id(), list_method(kind), params.as_deref());
        let message = match upstream::ask(shard, session, &open, leg, request, true, deadline).await {
            Ok(message) => message,
            Err(fault) if !retried && fault.kind == Kind::SessionUnknown => {
                (retried, cursor, bytes) = (true, None, 0);
                pages.clear();
                seen.clear();
                leg::forget(session, leg, &open);
                open = leg::ready(shard, session, leg).await?;
                continue;
            }
            Err(fault) => return Err(fault),
        };
        // What is kept of a target is as it was sent; each client sees it in its own revision.
        let message = match open.is_newer_than(session.revision) {
            true => modern_leg::translate(session, &open, Method::List(kind), None, message),
            false => message,
        };
        let (result, next) = page(&message, kind)?;
        bytes += message.len();
        // A target whose cursors go round would be followed for ever.
        let repeated = next.as_ref().is_some_and(|next| !seen.insert(next.clone()));
        pages.push((message, result));
        match next {
            Some(_) if repeated => break,
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    Ok(Some(pages))
}

/// The result of one page and the cursor of the next one, as JSON text.
fn page(message: &Bytes, kind: ListKind) -> Result<(json::Range32, Option<Bytes>), Fault> {
    let broken = |fault: json::JsonError| Fault::new(Kind::UpstreamBroken, "target sent a wrong list").with(fault);
    let envelope = json::scan(message, &super::SCAN_LIMITS).map_err(broken)?;
    let Some(result) = envelope.result else {
        let text = String::from_utf8_lossy(message).chars().take(200).collect::<String>();
        return Err(Fault::new(Kind::UpstreamBroken, "target answered the list with an error").with(text));
    };
    let mut items = list_items(message, result, kind).map_err(broken)?;
    for item in items.by_ref() {
        item.map_err(broken)?;
    }
    let next = items.tail().next_cursor.filter(|range| range.of(message).is_some_and(|text| text.starts_with(b"\"")));
    Ok((result, next.map(|range| message.slice(range.usize()))))
}

/// All items in order, with their outward names. Of two that would be called the same the first one's target keeps the
/// name: a tool or prompt of another is not reachable and left out, a resource gets its target's mark.
fn named<'a>(backend: &BackendState, kind: ListKind, parts: &'a [Part]) -> Vec<Item<'a>> {
    let config = &backend.config;
    let mut items: Vec<Item<'a>> = Vec::new();
    let mut taken = std::collections::HashSet::new();
    for (index, part) in parts.iter().enumerate() {
        let Part::Pages(pages) = part else { continue };
        let target = &config.targets[index];
        for (page, result) in pages {
            let Ok(list) = list_items(page, *result, kind) else { continue };
            for item in list.map_while(Result::ok) {
                let Ok(Ok(own)) = item.name.map(|range| json::string(page, range)) else { continue };
                let by_name = matches!(kind, ListKind::Tools | ListKind::Prompts);
                let mut name = match by_name && config.prefixed {
                    true => format!("{}{own}", target.prefix),
                    false => own.into_owned(),
                };
                if !taken.insert(name.clone()) {
                    if by_name {
                        tracing::debug!(target: "agentlane::mcp", name, target_name = %target.name, "name is taken");
                        continue;
                    }
                    name = names::mark_uri(&target.name, &name);
                    if !taken.insert(name.clone()) {
                        continue;
                    }
                }
                items.push(Item { page, item, name, index });
            }
        }
    }
    items
}

fn remember(backend: &BackendState, kind: ListKind, items: &[Item<'_>]) {
    let entries = items.iter().map(|item| (item.name.clone(), item.index));
    let mut catalogue = backend.catalogue.borrow_mut();
    match kind {
        // With prefixes the name says where it lives; nothing to remember.
        ListKind::Tools if !backend.config.prefixed => catalogue.learn(Shelf::Tools, entries),
        ListKind::Prompts if !backend.config.prefixed => catalogue.learn(Shelf::Prompts, entries),
        ListKind::Tools | ListKind::Prompts => {}
        ListKind::Resources => catalogue.learn(Shelf::Resources, entries),
        ListKind::ResourceTemplates => catalogue.learn_templates(entries),
    }
}

fn offers(offers: &Offers, kind: ListKind) -> bool {
    match kind {
        ListKind::Tools => offers.tools,
        ListKind::Prompts => offers.prompts,
        ListKind::Resources | ListKind::ResourceTemplates => offers.resources,
    }
}

/// `_meta` that names the missing targets; `None` when none is.
fn missing(backend: &BackendState, parts: &[Part]) -> Option<Bytes> {
    let mut out = BytesMut::new();
    for (index, part) in parts.iter().enumerate() {
        let Part::Missing(fault) = part else { continue };
        out.extend_from_slice(if out.is_empty() { b"{\"" } else { b"," });
        if out.len() == 2 {
            out.extend_from_slice(merge::META_MISSING.as_bytes());
            out.extend_from_slice(b"\":[");
        }
        out.extend_from_slice(b"{\"target\":");
        json::quote_into(&mut out, &backend.config.targets[index].name);
        out.extend_from_slice(b",\"reason\":");
        json::quote_into(&mut out, fault.message);
        out.extend_from_slice(b"}");
    }
    if out.is_empty() {
        return None;
    }
    out.extend_from_slice(b"]}");
    Some(out.freeze())
}

/// Says whether two gatherings are the same list: a cursor into one is no place in another.
fn digest(items: &[Item<'_>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for item in items {
        item.name.hash(&mut hasher);
    }
    hasher.finish()
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
