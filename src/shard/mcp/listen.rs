//! Streams that the client reads: the standalone one (GET), and any other it comes back to with `Last-Event-ID`. And the
//! targets' standalone streams, which are followed while the client wants to hear.

use std::rc::Rc;
use std::time::Duration;

use agentlane_runtime as runtime;
use agentlane_wire::h1::Method as HttpMethod;
use bytes::Bytes;

use super::upstream::Answer;
use super::{hub, leg};
use super::{inbound, mcp_fault};
use crate::backend::mcp::TargetKind;
use crate::fault::{Fault, Kind};
use crate::limits::KEEP_ALIVE_EVERY;
use crate::protocol::mcp::streams::{Claim, EventId, Next, STANDALONE};
use crate::session::{Leg, LegId, Session, Transport};
use crate::shard::Shard;
use crate::shard::responder::{Gone, Responder};

/// A follower stops reading its target while the client has this many events to take.
const UNREAD_MAX: usize = 128;
/// How long a request waits for the target's stream to open.
const OPENING_MAX: Duration = Duration::from_millis(500);
/// The pause before a target's stream is asked for again, doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Serves a GET until either side ends it.
pub async fn serve(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    last_event_id: Option<&[u8]>,
    responder: &mut Responder<'_>,
) -> Result<(), Fault> {
    let (stream, after) = match last_event_id {
        None => (STANDALONE, None),
        Some(text) => {
            let id = EventId::parse(text).ok_or_else(|| Fault::new(Kind::ResumeUnknown, "unknown last-event-id"))?;
            (id.stream, Some(id.seq))
        }
    };
    let claim = session.streams.borrow_mut().claim(stream, after);
    let claim = claim.ok_or_else(|| Fault::new(Kind::ResumeUnknown, "the events after last-event-id are gone"))?;
    // Whoever read this stream before ends now.
    session.changed.notify_all();
    if stream == STANDALONE {
        follow_all(shard, session);
    }
    let _ = read(session, claim, responder).await;
    session.streams.borrow_mut().release(claim);
    session.last_used.set(runtime::now());
    session.changed.notify_all();
    Ok(())
}

async fn read(session: &Rc<Session>, claim: Claim, responder: &mut Responder<'_>) -> Result<(), Gone> {
    responder.begin_events().await?;
    if session.revision.has_priming_events() {
        let position = session.streams.borrow_mut().position(claim.stream);
        responder.prime(position).await?;
    }
    loop {
        if session.ended.get() || session.hung_up.get() {
            return responder.end().await;
        }
        let next = session.streams.borrow_mut().next(claim);
        match next {
            Next::Event(id, message) => {
                responder.event(id, &message).await?;
                session.changed.notify_all();
            }
            Next::End | Next::Gone => return responder.end().await,
            Next::Wait => wait(session, responder).await?,
        }
    }
}

/// Waits for something to write, for the client to leave, or until a comment is due.
async fn wait(session: &Session, responder: &mut Responder<'_>) -> Result<(), Gone> {
    {
        let changed = std::pin::pin!(session.changed.notified());
        let left = std::pin::pin!(responder.left());
        match runtime::timeout(KEEP_ALIVE_EVERY, runtime::race(changed, left)).await {
            Ok(runtime::Either::Left(())) => return Ok(()),
            Ok(runtime::Either::Right(())) => return Err(Gone),
            Err(_) => (),
        }
    }
    responder.comment().await
}

/// Waits, for a moment at most, until the target's stream is open: what a request makes the target say on it would be lost
/// before.
pub async fn ready(leg: &Leg) {
    if leg.following.get() && !leg.followed.is_set() {
        let _ = Box::pin(runtime::timeout(OPENING_MAX, leg.followed.wait())).await;
        // A target that says nothing shall not cost every request this wait.
        leg.followed.set();
    }
}

/// Follows every open target that has a stream of its own; once each. What modern ones tell is heard with others.
pub fn follow_all(shard: &Rc<Shard>, session: &Rc<Session>) {
    if hub::Hub::owns(shard, session) {
        // It opens what it wants to hear by itself.
        return;
    }
    for index in session.leg_ids() {
        let Ok(leg) = leg::leg_at(session, index) else { continue };
        if leg.open().is_some_and(|open| open.modern.is_some()) {
            if session.is_internal() {
                continue;
            }
            if let Err(fault) = hub::follow(shard, session, &leg) {
                tracing::warn!(target: "agentlane::mcp", %fault, "a target's changes are not heard");
            }
            continue;
        }
        hub::unfollow(shard, session, leg.id);
        let is_http = leg.open().is_some_and(|open| matches!(open.transport, Transport::Http { session: Some(_), .. }));
        if !is_http || leg.following.replace(true) {
            continue;
        }
        let (shard, weak) = (shard.clone(), Rc::downgrade(session));
        runtime::spawn(async move {
            let mut pause = PAUSE_MIN;
            let mut last_event_id = None;
            while let Some(session) = weak.upgrade().filter(|session| !session.ended.get()) {
                match follow(&shard, &session, index, &mut last_event_id).await {
                    Ok(Some(retry)) => pause = retry.max(Duration::from_millis(50)),
                    Ok(None) => break,
                    Err(fault) => {
                        tracing::debug!(target: "agentlane::mcp", %fault, "a target's stream broke");
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                }
                drop(session);
                runtime::sleep(pause).await;
            }
            if let Some(leg) = weak.upgrade().and_then(|session| leg::leg_at(&session, index).ok()) {
                leg.following.set(false);
                leg.followed.set();
            }
        });
    }
}

/// Reads one target's stream to its end. `None`: the target has none, or not for us; else the pause it asks for.
async fn follow(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    index: LegId,
    last_event_id: &mut Option<Bytes>,
) -> Result<Option<Duration>, Fault> {
    let leg = leg::leg_at(session, index)?;
    let TargetKind::Http(target) = &leg.target.kind else { return Ok(None) };
    let Some(open) = leg.open() else { return Ok(None) };
    let head = leg::bare_head("GET", &leg, target, &open, last_event_id.as_deref());
    let http = shard.upstream_exchange(&target.endpoint, HttpMethod::Get, head, Default::default(), true, None).await?;
    let cut = http.cut();
    let mut answer = Answer::of(http, None).await?;
    leg.followed.set();
    if let Answer::Refused { status, .. } = answer {
        // 405: it has no such stream. 404: it forgot the session; the next request will find out and negotiate anew.
        return if status >= 500 { Err(mcp_fault::internal("target failed")) } else { Ok(None) };
    }
    leg.follow_with(cut);
    let outcome = follow_events(shard, session, index, &mut answer, last_event_id).await;
    leg.unfollow();
    outcome
}

async fn follow_events(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    index: LegId,
    answer: &mut Answer,
    last_event_id: &mut Option<Bytes>,
) -> Result<Option<Duration>, Fault> {
    let mut retry = PAUSE_MIN;
    while let Some(message) = answer.next().await? {
        if session.ended.get() {
            return Ok(None);
        }
        if message.id.is_some() {
            *last_event_id = message.id;
        }
        if let Some(milliseconds) = message.retry {
            retry = Duration::from_millis(milliseconds).min(PAUSE_MAX);
        }
        let Some(data) = message.data else { continue };
        inbound::unrelated(shard, session, index, data).await;
        while session.streams.borrow().unread(STANDALONE) > UNREAD_MAX && !session.ended.get() {
            session.changed.notified().await;
        }
    }
    Ok(Some(retry))
}
