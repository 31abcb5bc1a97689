//! Sessions whose targets are modern: what a session has with an older target by itself (its stream, subscriptions) it
//! shares here with the others of its caller.

use std::rc::{Rc, Weak};

use agentlane_runtime as runtime;
use agentlane_wire::json;

use super::Hub;
use super::feed::{Feed, Sink};
use crate::fault::{Fault, Kind};
use crate::protocol::mcp::modern::listen::{Change, Filter, ListenerId, Standing, Uri, messages};
use crate::protocol::mcp::streams::STANDALONE;
use crate::session::{Leg, LegId, Session, Transport};
use crate::shard::Shard;
use crate::shard::mcp::{inbound, leg, mcp_fault, retell};

/// Where a session hears of one target's changes.
pub struct Ear {
    session: Weak<Session>,
    leg: LegId,
}

impl Ear {
    /// Puts a change on the session's own stream, unless it waits there already.
    pub fn tell(&self, shard: &Rc<Shard>, change: &Change) {
        let Some(session) = self.session.upgrade().filter(|session| !session.ended.get()) else { return };
        if let Change::List(list) = change
            && retell::takes(shard, &session, *list)
        {
            return;
        }
        let outward = match change {
            Change::Resource(uri) => inbound::outward_uri(shard, &session, self.leg, uri),
            Change::List(_) => None,
        };
        let message =
            messages::untagged_change(&outward.map_or_else(|| change.clone(), |uri| Change::Resource(uri.into())));
        let mut streams = session.streams.borrow_mut();
        if streams.is_unread(STANDALONE, &message) {
            return;
        }
        let lost = streams.push(STANDALONE, message).1;
        drop(streams);
        shard.metrics.events_lost.add(lost as u64);
        session.changed.notify_all();
    }
}

/// Lets a session hear of the changes of a modern target, and of what it is subscribed to there. Once is enough.
pub fn follow(shard: &Rc<Shard>, session: &Rc<Session>, leg: &Rc<Leg>) -> Result<(), Fault> {
    ear(shard, session, leg).map(drop)
}

fn ear(shard: &Rc<Shard>, session: &Rc<Session>, leg: &Rc<Leg>) -> Result<(Rc<Feed>, ListenerId), Fault> {
    let key = (session.serial, leg.id);
    if let Some((feed, id)) = shard.hub.ears.borrow().get(&key).filter(|(feed, _)| !feed.is_ended()) {
        return Ok((feed.clone(), *id));
    }
    let backend = shard.mcp_backend(&session.backend).ok_or_else(mcp_fault::session_unknown)?;
    if session.is_internal() {
        return Err(mcp_fault::internal("the gateway listens for itself"));
    }
    // What a process of the session's own does, no other process can tell.
    let is_own = leg.open().is_some_and(|open| matches!(&open.transport, Transport::Stdio(port) if !port.shared));
    let circle = match is_own {
        true => Hub::circle_of(shard, session),
        false => Hub::circle(shard, &backend, session.caller)?,
    };
    let own = circle.twin(leg).ok_or_else(|| mcp_fault::internal("no such target"))?;
    let feed = circle.feed(shard, own);
    let id = shard.hub.listener_id();
    shard.hub.ears.borrow_mut().insert(key, (feed.clone(), id));
    let tells = leg.open().map(|open| open.offers.tells).unwrap_or_default();
    let uris = session.subscriptions.borrow();
    let uris =
        uris.iter().filter(|(subscribed, _)| *subscribed == leg.id).filter_map(|(_, uri)| unquoted(uri)).collect();
    let sink = Sink::Session(Ear { session: Rc::downgrade(session), leg: leg.id });
    feed.join(shard, id, sink, Filter { lists: tells, uris });
    Ok((feed, id))
}

fn unquoted(uri: &[u8]) -> Option<Uri> {
    let text = json::string(uri, json::root(uri).ok()?).ok()?;
    Some(Uri::from(&*text))
}

/// The session, or its leg, is gone.
pub fn unfollow(shard: &Rc<Shard>, session: &Session, leg: LegId) {
    let ear = shard.hub.ears.borrow_mut().remove(&(session.serial, leg));
    if let Some((feed, id)) = ear {
        feed.leave(shard, id);
    }
}

/// `resources/subscribe` of a session at a modern target, in the target's own name for the resource.
pub async fn subscribe(shard: &Rc<Shard>, session: &Rc<Session>, leg: LegId, uri: &str) -> Result<(), Fault> {
    let leg = leg::leg_at(session, leg)?;
    let (feed, id) = ear(shard, session, &leg)?;
    feed.apply(shard, |source, now| source.widen(now, id, Uri::from(uri)));
    let patience = shard.mcp_backend(&session.backend).map(|backend| backend.config.deadline).unwrap_or_default();
    let _ = Box::pin(runtime::timeout(patience, feed.decided(id))).await;
    let standing = feed.source.borrow().standing(id, uri);
    if standing == Standing::Granted {
        return Ok(());
    }
    feed.apply(shard, |source, now| source.narrow(now, id, uri));
    Err(match standing {
        Standing::Waiting => Fault::new(Kind::UpstreamUnreachable, "target cannot be listened to now"),
        _ => Fault::new(Kind::InvalidParams, "target tells of no changes of this resource"),
    })
}

/// `resources/unsubscribe`.
pub fn unsubscribe(shard: &Rc<Shard>, session: &Session, leg: LegId, uri: &str) {
    let ear = shard.hub.ears.borrow().get(&(session.serial, leg)).cloned();
    if let Some((feed, id)) = ear {
        feed.apply(shard, |source, now| source.narrow(now, id, uri));
    }
}
