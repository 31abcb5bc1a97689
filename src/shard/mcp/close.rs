//! The end of sessions: by DELETE, by idling, by losing their endpoint. What stands behind one is ended as well, without
//! anybody waiting for it.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use agentlane_runtime as runtime;
use agentlane_wire::h1::Method as HttpMethod;

use super::{hub, leg};
use crate::backend::mcp::{McpBackend, TargetKind};
use crate::limits::FAREWELL_DEADLINE;
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::ListKind;
use crate::protocol::mcp::streams::STANDALONE;
use crate::session::{ChildCommand, Leg, LegState, OpenLeg, Session, Transport};
use crate::shard::Shard;

/// Tells a target that its session has ended.
type Farewell = Pin<Box<dyn Future<Output = ()>>>;

/// How often a shard looks for idle sessions.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// Ends a session and says so to its targets in the background.
pub fn end(shard: &Rc<Shard>, session: &Rc<Session>) {
    farewells(shard, session).into_iter().for_each(runtime::spawn);
}

/// The same, and waits until they have heard it.
pub async fn end_and_wait(shard: &Rc<Shard>, session: &Rc<Session>) {
    runtime::join_all(farewells(shard, session)).await;
}

/// Ends a session; what remains is to tell its targets, within [`FAREWELL_DEADLINE`].
fn farewells(shard: &Rc<Shard>, session: &Rc<Session>) -> Vec<Farewell> {
    if session.ended.replace(true) {
        return Vec::new();
    }
    if shard.sessions.borrow_mut().remove(&session.id).is_some() {
        shard.metrics.sessions.set(shard.sessions.borrow().len() as i64);
    } else {
        shard.internal.borrow_mut().remove(&session.serial);
    }
    // Readers see that it ended; followers of the targets' streams as well.
    session.changed.notify_all();
    let farewells = session.legs.borrow().iter().filter_map(|leg| farewell(shard, session, leg)).collect();
    hub::Hub::relinked(shard, session);
    farewells
}

/// Follows a change of the targets: the client is told that its lists have changed.
pub fn relink(shard: &Rc<Shard>, session: &Rc<Session>, backend: &McpBackend) {
    for leg in session.relink(&backend.targets) {
        leave(shard, session, &leg);
    }
    lists_changed(session);
    hub::Hub::relinked(shard, session);
}

/// Tells the client to ask for its lists again.
pub fn lists_changed(session: &Session) {
    for kind in ["tools", "prompts", "resources"] {
        let changed = error::notification(&format!("notifications/{kind}/list_changed"), None);
        session.streams.borrow_mut().push(STANDALONE, changed);
    }
    session.changed.notify_all();
}

/// Tells the client to ask for one of its lists again.
pub fn list_changed(session: &Session, kind: ListKind) {
    let name = match kind {
        ListKind::Tools => "tools",
        ListKind::Prompts => "prompts",
        ListKind::Resources | ListKind::ResourceTemplates => "resources",
    };
    let changed = error::notification(&format!("notifications/{name}/list_changed"), None);
    session.streams.borrow_mut().push(STANDALONE, changed);
    session.changed.notify_all();
}

/// Ends one leg.
pub fn leave(shard: &Rc<Shard>, session: &Rc<Session>, leg: &Rc<Leg>) {
    farewell(shard, session, leg).into_iter().for_each(runtime::spawn);
}

/// Ends a target's session that was opened for nobody.
pub fn leave_unused(shard: &Rc<Shard>, leg: &Rc<Leg>) {
    part(shard, None, leg).into_iter().for_each(runtime::spawn);
}

/// Ends one leg; gives what its target must be told.
fn farewell(shard: &Rc<Shard>, session: &Rc<Session>, leg: &Rc<Leg>) -> Option<Farewell> {
    hub::unfollow(shard, session, leg.id);
    part(shard, Some(session), leg)
}

fn part(shard: &Rc<Shard>, session: Option<&Rc<Session>>, leg: &Rc<Leg>) -> Option<Farewell> {
    let state = std::mem::replace(&mut *leg.state.borrow_mut(), LegState::Closed);
    leg.settled.notify_all();
    leg.abort_follower();
    let LegState::Open(open) = state else { return None };
    match &open.transport {
        Transport::Stdio(port) => match session.filter(|_| port.shared) {
            Some(session) => drop(port.commands.try_send(ChildCommand::Detach { session: session.serial })),
            None => port.stop(),
        },
        Transport::Http { session: None, .. } => {}
        Transport::Http { .. } => {
            let (shard, leg) = (shard.clone(), leg.clone());
            return Some(Box::pin(async move { delete(&shard, &leg, &open).await }));
        }
    }
    None
}

async fn delete(shard: &Rc<Shard>, leg: &Leg, open: &OpenLeg) {
    let TargetKind::Http(target) = &leg.target.kind else { return };
    let head = leg::bare_head("DELETE", leg, target, open, None);
    let deadline = Some(runtime::now() + FAREWELL_DEADLINE);
    let outcome =
        shard.upstream_exchange(&target.endpoint, HttpMethod::Delete, head, Default::default(), true, deadline).await;
    match outcome {
        Ok(mut answer) => drop(answer.read_all(64 * 1024).await),
        Err(fault) => tracing::debug!(target: "agentlane::mcp", %fault, "a session could not be ended at its target"),
    }
}

/// Ends what idles too long, for as long as the shard runs.
pub async fn sweep(shard: Rc<Shard>) {
    loop {
        runtime::sleep(SWEEP_EVERY).await;
        let now = runtime::now();
        let idle: Vec<Rc<Session>> = shard
            .sessions
            .borrow()
            .iter()
            .filter(|session| match shard.mcp_backend(&session.backend) {
                Some(backend) => session.is_idle(now, backend.config.session_idle),
                None => true,
            })
            .cloned()
            .collect();
        for session in idle {
            shard.metrics.sessions_expired.inc();
            end(&shard, &session);
        }
    }
}
