//! Which target a request is for, and the request in that target's own names.

use std::rc::Rc;

use agentlane_wire::json::{self, Envelope, Splice};
use bytes::Bytes;

use super::{lists, tasks};
use crate::fault::{Fault, Kind};
use crate::protocol::mcp::catalogue::Shelf;
use crate::protocol::mcp::method::{ListKind, Method};
use crate::protocol::mcp::names;
use crate::session::Session;
use crate::shard::{BackendState, Shard};

/// A target, and what must change in the message on its way there.
#[derive(Debug, Default)]
pub struct Route {
    pub index: usize,
    pub splice: Splice,
    /// The target's own URI and its outward form.
    pub outward_uri: Option<(String, String)>,
    /// The target's own name for a tool or prompt whose outward name was shortened.
    pub own_name: Option<String>,
}

impl Route {
    fn to(index: usize) -> Self {
        Route { index, ..Route::default() }
    }
}

/// Routes a request that names something. A federation only: one target with its own names gets everything as it is.
pub async fn route(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    session: &Rc<Session>,
    method: Method,
    message: &Bytes,
    envelope: &Envelope,
) -> Result<Route, Fault> {
    match method {
        Method::ToolsCall => by_name(shard, backend, session, Shelf::Tools, message, envelope.name).await,
        Method::PromptsGet => by_name(shard, backend, session, Shelf::Prompts, message, envelope.name).await,
        Method::ResourcesRead | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => {
            Box::pin(by_uri(shard, backend, session, message, envelope.uri)).await
        }
        Method::Complete => Box::pin(by_reference(shard, backend, session, message, envelope)).await,
        Method::Tasks => tasks::route_of_session(shard, session, backend, message, envelope),
        _ => Err(Fault::new(Kind::MethodNotFound, "method not found")),
    }
}

/// The route of a request whose name says where it goes, or is known; `None` for any other.
pub fn known(backend: &BackendState, method: Method, message: &[u8], envelope: &Envelope) -> Option<Route> {
    match method {
        Method::ToolsCall => placed(backend, Shelf::Tools, message, envelope.name?),
        Method::PromptsGet => placed(backend, Shelf::Prompts, message, envelope.name?),
        Method::ResourcesRead => {
            let text = json::string(message, envelope.uri?).ok()?;
            // A marked URI may be one that a target has itself.
            names::unmark_uri(&text)
                .is_none()
                .then(|| backend.catalogue.borrow().find(Shelf::Resources, &text))?
                .map(Route::to)
        }
        _ => None,
    }
}

/// The route of a name, without asking anybody.
fn placed(backend: &BackendState, shelf: Shelf, message: &[u8], range: json::Range32) -> Option<Route> {
    let text = json::string(message, range).ok()?;
    let may_be_shortened = names::may_be_shortened(&text, backend.config.name_length);
    match may_be_shortened.then(|| unshortened(backend, shelf, &text, range)).flatten() {
        // With prefixes its front says where it goes, and nothing says what it stands for.
        None if may_be_shortened && backend.config.prefixed => None,
        None => spelt_out(backend, shelf, &text, range),
        route => route,
    }
}

/// The route of a name that is not shortened.
fn spelt_out(backend: &BackendState, shelf: Shelf, text: &str, range: json::Range32) -> Option<Route> {
    if backend.config.prefixed {
        let (index, own) = backend.config.split_name(text.as_bytes())?;
        let mut route = Route::to(index);
        route.splice.replace_string(range, &String::from_utf8_lossy(own));
        return Some(route);
    }
    backend.catalogue.borrow().find(shelf, text).map(Route::to)
}

/// The route of a shortened name that was listed.
fn unshortened(backend: &BackendState, shelf: Shelf, text: &str, range: json::Range32) -> Option<Route> {
    let catalogue = backend.catalogue.borrow();
    let (index, own) = catalogue.find_shortened(shelf, text)?;
    let mut route = Route::to(index);
    route.splice.replace_string(range, own);
    route.own_name = Some(own.to_owned());
    Some(route)
}

async fn by_name(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    session: &Rc<Session>,
    shelf: Shelf,
    message: &Bytes,
    name: Option<json::Range32>,
) -> Result<Route, Fault> {
    let unknown =
        || Fault::new(Kind::InvalidParams, if shelf == Shelf::Tools { "unknown tool" } else { "unknown prompt" });
    let range = name.ok_or_else(|| Fault::new(Kind::InvalidParams, "params.name is missing"))?;
    let text =
        json::string(message, range).map_err(|_| Fault::new(Kind::InvalidParams, "params.name is not a string"))?;
    if let Some(route) = placed(backend, shelf, message, range) {
        return Ok(route);
    }
    if backend.config.prefixed && !names::may_be_shortened(&text, backend.config.name_length) {
        return Err(unknown());
    }
    // Nobody has listed yet, or the list has changed: look once. A name that only looks like a shortened one is none.
    let kind = if shelf == Shelf::Tools { ListKind::Tools } else { ListKind::Prompts };
    Box::pin(lists::learn(shard, backend, session, kind)).await;
    unshortened(backend, shelf, &text, range).or_else(|| spelt_out(backend, shelf, &text, range)).ok_or_else(unknown)
}

async fn by_uri(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    session: &Rc<Session>,
    message: &Bytes,
    uri: Option<json::Range32>,
) -> Result<Route, Fault> {
    let range = uri.ok_or_else(|| Fault::new(Kind::InvalidParams, "params.uri is missing"))?;
    let text =
        json::string(message, range).map_err(|_| Fault::new(Kind::InvalidParams, "params.uri is not a string"))?;
    let (index, own) = locate(shard, backend, session, &text).await?;
    let mut route = Route::to(index);
    if let Some(own) = own {
        route.splice.replace_string(range, &own);
        route.outward_uri = Some((own, text.into_owned()));
    }
    Ok(route)
}

/// The target of a URI, and its own form of it where that differs.
async fn locate(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    session: &Rc<Session>,
    uri: &str,
) -> Result<(usize, Option<String>), Fault> {
    if let Some(found) = find_uri(backend, uri) {
        return Ok(found);
    }
    Box::pin(lists::learn(shard, backend, session, ListKind::Resources)).await;
    Box::pin(lists::learn(shard, backend, session, ListKind::ResourceTemplates)).await;
    let found = find_uri(backend, uri).or_else(|| only_with_resources(session).map(|only| (only, None)));
    found.ok_or_else(|| Fault::new(Kind::ResourceUnknown, "unknown resource"))
}

/// The target of a URI as far as it is known, and its own form of it where that differs.
pub fn find_uri(backend: &BackendState, uri: &str) -> Option<(usize, Option<String>)> {
    if let Some((target, own)) = names::unmark_uri(uri)
        && let Some(index) = backend.config.target_index(&target)
    {
        return Some((index, Some(own)));
    }
    let catalogue = backend.catalogue.borrow();
    let index = catalogue.find(Shelf::Resources, uri).or_else(|| catalogue.find_template(uri))?;
    Some((index, None))
}

/// Where a resource is that no list names: at the target that alone has any. With several, asking all of them would tell
/// each what the others' clients read.
pub fn only_with_resources(session: &Session) -> Option<usize> {
    let legs = session.legs.borrow();
    let mut having = (0..legs.len()).filter(|&index| legs[index].open().is_some_and(|open| open.offers.resources));
    having.next().filter(|_| having.next().is_none())
}

async fn by_reference(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    session: &Rc<Session>,
    message: &Bytes,
    envelope: &Envelope,
) -> Result<Route, Fault> {
    let wrong = || Fault::new(Kind::InvalidParams, "params.ref is not a reference");
    let reference = envelope.reference.ok_or_else(wrong)?;
    if let Ok(Some(name)) = json::get(message, reference, "name") {
        return by_name(shard, backend, session, Shelf::Prompts, message, Some(name)).await;
    }
    let range = json::get(message, reference, "uri").ok().flatten().ok_or_else(wrong)?;
    let text = json::string(message, range).map_err(|_| wrong())?;
    let listed = || backend.catalogue.borrow().find_template_text(&text);
    if listed().is_none() {
        Box::pin(lists::learn(shard, backend, session, ListKind::ResourceTemplates)).await;
    }
    match listed() {
        Some(index) if names::unmark_uri(&text).is_none() => Ok(Route::to(index)),
        _ => by_uri(shard, backend, session, message, Some(range)).await,
    }
}

/// An answer about a renamed resource, with the name that the client used.
pub fn with_outward_uris(message: Bytes, own: &str, outward: &str) -> Bytes {
    let Ok(root) = json::root(&message) else { return message };
    let Ok(Some(contents)) = json::get_path(&message, root, &["result", "contents"]) else { return message };
    let mut splice = Splice::new();
    for element in json::elements(&message, contents).map_while(Result::ok) {
        if let Ok(Some(uri)) = json::get(&message, element, "uri")
            && json::raw_eq(&message, uri, own)
        {
            splice.replace_string(uri, outward);
        }
    }
    splice.contiguous(&message).unwrap_or(message)
}
