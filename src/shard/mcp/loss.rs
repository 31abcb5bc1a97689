//! A target forgot the session that stands behind a client's: the target's is opened anew behind the client's back, or the
//! client's ends, because state would be lost that nobody would tell it of.

use std::rc::Rc;

use agentlane_wire::json;
use bytes::{Bytes, BytesMut};

use super::{close, inbound, leg, mcp_fault};
use crate::backend::mcp::SessionLoss;
use crate::fault::Fault;
use crate::protocol::mcp::error;
use crate::protocol::mcp::streams::STANDALONE;
use crate::session::{LegId, LegState, OpenLeg, Session};
use crate::shard::Shard;

/// The leg is as new, and what was asked is to be asked again. A fault when the client's session has ended instead.
pub fn forgotten(shard: &Rc<Shard>, session: &Rc<Session>, id: LegId, stale: &Rc<OpenLeg>) -> Result<(), Fault> {
    let leg = leg::leg_at(session, id)?;
    let is_current = matches!(&*leg.state.borrow(), LegState::Open(current) if Rc::ptr_eq(current, stale));
    if !is_current {
        // Another request has found out before.
        return Ok(());
    }
    let backend = shard.mcp_backend(&session.backend);
    let targets = backend.iter().flat_map(|backend| &backend.config.targets);
    let policy = targets.filter(|target| target.name == leg.target.name).map(|target| target.session_loss).next();
    let ends = match policy.unwrap_or(leg.target.session_loss) {
        SessionLoss::Reopen => false,
        SessionLoss::End => true,
        // A conversation of the gateway's own promises nobody that it goes on.
        SessionLoss::Judge => leg.stateful.get() && !session.is_internal(),
    };
    if ends {
        tracing::info!(
            target: "agentlane::mcp",
            target_name = %leg.target.name,
            "a target forgot its session, and the client's ends with it"
        );
        close::end(shard, session);
        return Err(mcp_fault::session_unknown());
    }
    leg::forget(session, id, stale);
    leg.stateful.set(false);
    updated(shard, session, id);
    Ok(())
}

/// What is subscribed to will be subscribed to again; what happened to it meanwhile nobody knows.
fn updated(shard: &Rc<Shard>, session: &Rc<Session>, id: LegId) {
    let uris: Vec<Bytes> =
        session.subscriptions.borrow().iter().filter(|(leg, _)| *leg == id).map(|(_, uri)| uri.clone()).collect();
    for raw in &uris {
        let whole = json::Range32::new(0, raw.len());
        let Some(Ok(own)) = whole.map(|whole| json::string(raw, whole)) else { continue };
        let outward = inbound::outward_uri(shard, session, id, &own);
        let mut params = BytesMut::from(&b"{\"uri\":"[..]);
        json::quote_into(&mut params, outward.as_deref().unwrap_or(&own));
        params.extend_from_slice(b"}");
        let message = error::notification("notifications/resources/updated", Some(&params));
        let lost = session.streams.borrow_mut().push(STANDALONE, message).1;
        shard.metrics.events_lost.add(lost as u64);
    }
    if !uris.is_empty() {
        session.changed.notify_all();
    }
}
