//! What a session is subscribed to: at a target of its own, at a child that it shares, or at a target without sessions.

use std::rc::Rc;

use agentlane_runtime as runtime;
use agentlane_wire::json::{self, Envelope};
use bytes::Bytes;

use super::routing::Route;
use super::{Incoming, hub, inbound, leg, upstream};
use crate::fault::{Fault, Kind};
use crate::limits::SESSION_SUBSCRIPTIONS_MAX;
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::Method;
use crate::session::{LegId, Session};
use crate::shard::Shard;

/// Whether the session may not be subscribed to anything more.
pub fn is_full(session: &Session) -> bool {
    session.subscriptions.borrow().len() >= SESSION_SUBSCRIPTIONS_MAX
}

/// Whether the only target is a child shared by others: then subscriptions are counted here. In a federation the route
/// decides, later.
pub fn is_counted_here(incoming: &Incoming<'_>, session: &Session) -> bool {
    incoming.backend.config.is_identity()
        && session.leg_ids().first().is_some_and(|&leg| inbound::is_shared(session, leg))
}

/// Subscribes to a shared child, or ends that for this session alone.
pub async fn shared(
    incoming: &Incoming<'_>,
    session: &Rc<Session>,
    method: Method,
    body: &Bytes,
    envelope: &Envelope,
) -> Result<Bytes, Fault> {
    let id = session.leg_ids().first().copied().unwrap_or_default();
    let uri = envelope.uri.ok_or_else(|| Fault::new(Kind::InvalidParams, "params.uri is missing"))?;
    let raw = Bytes::copy_from_slice(uri.of(body).unwrap_or_default());
    note(session, method, id, raw);
    if method == Method::ResourcesUnsubscribe {
        if let Ok(own) = json::string(body, uri) {
            hub::unsubscribe(incoming.shard, session, id, &own);
        }
        // Others may still listen; what this session does not want any more is dropped on the way to it.
        return Ok(Bytes::from_static(b"{}"));
    }
    let open = leg::ready(incoming.shard, session, id).await?;
    if open.modern.is_some() {
        let route = Route::default();
        let subscribed = modern(incoming.shard, session, id, method, body, envelope, &route);
        return Box::pin(subscribed).await.map(|()| Bytes::from_static(b"{}"));
    }
    let deadline = runtime::now() + incoming.backend.config.deadline;
    let params = envelope.params.and_then(|range| range.of(body));
    let request = error::request(incoming.shard.call_id(), "resources/subscribe", params);
    let answer = upstream::ask(incoming.shard, session, &open, id, request, true, deadline).await?;
    leg::result_of(&answer)?.ok_or_else(|| Fault::new(Kind::UpstreamBroken, "target sent no result"))
}

fn note(session: &Session, method: Method, leg: LegId, uri: Bytes) {
    let mut subscriptions = session.subscriptions.borrow_mut();
    subscriptions.retain(|(id, known)| *id != leg || *known != uri);
    if method == Method::ResourcesSubscribe {
        subscriptions.push((leg, uri));
    }
}

/// Notes what a session is subscribed to, in the target's own form, for a target that comes back.
pub fn remember(session: &Session, method: Method, leg: LegId, body: &Bytes, envelope: &Envelope, route: &Route) {
    let own = match (&route.outward_uri, envelope.uri) {
        (Some((own, _)), _) => {
            let mut quoted = bytes::BytesMut::new();
            json::quote_into(&mut quoted, own);
            quoted.freeze()
        }
        (None, Some(range)) => Bytes::copy_from_slice(range.of(body).unwrap_or_default()),
        (None, None) => return,
    };
    note(session, method, leg, own);
}

/// A session's subscription at a target without sessions: it is heard with others.
pub async fn modern(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    leg: LegId,
    method: Method,
    body: &Bytes,
    envelope: &Envelope,
    route: &Route,
) -> Result<(), Fault> {
    let own = match (&route.outward_uri, envelope.uri) {
        (Some((own, _)), _) => std::borrow::Cow::from(own),
        (None, Some(range)) => {
            json::string(body, range).map_err(|_| Fault::new(Kind::InvalidParams, "params.uri is not a string"))?
        }
        (None, None) => return Err(Fault::new(Kind::InvalidParams, "params.uri is missing")),
    };
    match method {
        Method::ResourcesSubscribe => hub::subscribe(shard, session, leg, &own).await?,
        _ => hub::unsubscribe(shard, session, leg, &own),
    }
    remember(session, method, leg, body, envelope, route);
    Ok(())
}
