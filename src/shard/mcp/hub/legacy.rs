//! Listening to a target with sessions: one stream of its own (GET, or what a child says unasked), and
//! `resources/subscribe` for each resource. The streams that a source opens are sets of resources on this one line.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use agentlane_runtime as runtime;
use agentlane_wire::h1::Method as HttpMethod;
use agentlane_wire::json;
use bytes::{BufMut, BytesMut};

use super::feed::Feed;
use crate::backend::mcp::TargetKind;
use crate::fault::{Fault, Kind};
use crate::limits::FAREWELL_DEADLINE;
use crate::protocol::mcp::error;
use crate::protocol::mcp::modern::listen::{Change, Filter, StreamId, Unheard, Uri};
use crate::session::{Leg, OpenLeg, Transport};
use crate::shard::mcp::upstream::{self, Answer};
use crate::shard::mcp::{inbound, leg};
use crate::shard::{Shard, Turn};

/// So many subscriptions are asked for at once.
const ASKED_AT_ONCE: usize = 16;

/// What one target with sessions is listened to by.
#[derive(Default)]
pub struct Line {
    /// The leg on which the target's own stream is read.
    up: RefCell<Option<Rc<OpenLeg>>>,
    /// The source's streams, and what each asks for.
    streams: RefCell<Vec<(StreamId, BTreeSet<Uri>)>>,
    /// The one whose changes count.
    newest: Cell<StreamId>,
    /// What the target has been subscribed to.
    subscribed: RefCell<BTreeSet<Uri>>,
    /// The target did not know its session when it was last asked for its stream.
    forgot: Cell<bool>,
    /// One task opens the target's stream.
    raising: Turn,
    /// One change of the subscriptions at a time.
    turn: Turn,
}

impl Line {
    fn is_up(&self, open: &Rc<OpenLeg>) -> bool {
        self.up.borrow().as_ref().is_some_and(|up| Rc::ptr_eq(up, open))
    }

    /// What all streams together ask for.
    fn asked(&self) -> BTreeSet<Uri> {
        self.streams.borrow().iter().flat_map(|(_, uris)| uris.iter().cloned()).collect()
    }
}

/// Opens a stream of the source's.
pub async fn open(shard: &Rc<Shard>, feed: &Rc<Feed>, stream: StreamId, filter: Filter, open: &Rc<OpenLeg>) {
    match raise(shard, feed, open).await {
        Ok(true) => {}
        Ok(false) => {
            // Of two eras, neither has a stream.
            let why = Unheard { offers: open.offers.lists(), mute: feed.is_older() };
            return feed.apply(shard, |source, now| source.unheard(now, stream, why));
        }
        Err(fault) => {
            tracing::debug!(target: "agentlane::mcp", %fault, "a target's own stream could not be opened");
            return feed.apply(shard, |source, now| source.broke(now, stream, None));
        }
    }
    if !feed.wants(stream) {
        return close(shard, feed, stream);
    }
    let uris = if open.offers.subscribe { filter.uris } else { BTreeSet::new() };
    feed.line.streams.borrow_mut().push((stream, uris.clone()));
    reform(shard, feed, open).await;
    if !feed.line.is_up(open) {
        // Broke meanwhile, and said so for the streams that were there; this one as well.
        return;
    }
    let granted: BTreeSet<Uri> = uris.intersection(&feed.line.subscribed.borrow()).cloned().collect();
    // What was refused is not asked for again with the next stream.
    for (_, asked) in feed.line.streams.borrow_mut().iter_mut().filter(|(id, _)| *id == stream) {
        asked.clone_from(&granted);
    }
    feed.line.newest.set(stream);
    let granted = Filter { lists: open.offers.tells, uris: granted };
    feed.apply(shard, |source, now| source.opened(now, stream, &granted, open.offers.lists()));
}

/// A stream is not wanted any more; with the last one the line goes.
pub fn close(shard: &Rc<Shard>, feed: &Rc<Feed>, stream: StreamId) {
    let line = &feed.line;
    line.streams.borrow_mut().retain(|(id, _)| *id != stream);
    let Some(open) = line.up.borrow().clone() else { return };
    if feed.wants_any() {
        let (shard, feed) = (shard.clone(), feed.clone());
        runtime::spawn(async move { reform(&shard, &feed, &open).await });
        return;
    }
    // The conversation ends with its circle; a target whose other streams go on is told.
    line.up.replace(None);
    let subscribed = line.subscribed.take();
    let (session, leg) = feed.place();
    if let Ok(leg) = leg::leg_at(&session, leg) {
        leg.abort_follower();
    }
    let (shard, feed) = (shard.clone(), feed.clone());
    runtime::spawn(async move {
        for uri in subscribed {
            if session.ended.get() {
                return;
            }
            let _ = subscribe(&shard, &feed, &open, "resources/unsubscribe", &uri).await;
        }
    });
}

/// A change that the target told on its own stream.
pub fn heard(shard: &Rc<Shard>, feed: &Rc<Feed>, change: Change) {
    feed.changed(shard, feed.line.newest.get(), change);
}

/// The line broke: all its streams with it.
pub fn broke(shard: &Rc<Shard>, feed: &Rc<Feed>, pause: Option<Duration>) {
    let line = &feed.line;
    if line.up.take().is_none() {
        return;
    }
    line.subscribed.take();
    let mut streams: Vec<StreamId> = line.streams.take().into_iter().map(|(stream, _)| stream).collect();
    streams.reverse();
    for stream in streams {
        feed.apply(shard, |source, now| source.broke(now, stream, pause));
    }
}

/// Opens the target's own stream, unless it is open. False: it has none.
async fn raise(shard: &Rc<Shard>, feed: &Rc<Feed>, open: &Rc<OpenLeg>) -> Result<bool, Fault> {
    let _turn = feed.line.raising.lock().await;
    if feed.line.is_up(open) {
        return Ok(true);
    }
    let (session, leg) = feed.place();
    let leg = leg::leg_at(&session, leg)?;
    // Nobody else shall follow it.
    leg.following.set(true);
    leg.followed.set();
    let (TargetKind::Http(target), Transport::Http { .. }) = (&leg.target.kind, &open.transport) else {
        // Whatever it says comes on the one way to it.
        feed.line.up.replace(Some(open.clone()));
        return Ok(true);
    };
    let head = leg::bare_head("GET", &leg, target, open, None);
    let deadline = runtime::now() + FAREWELL_DEADLINE;
    let http = shard
        .upstream_exchange(&target.endpoint, HttpMethod::Get, head, Default::default(), true, Some(deadline))
        .await?;
    let socket = http.cut();
    match Answer::of(http, None).await? {
        Answer::Refused { status: 408 | 425 | 429 | 500.., .. } => {
            Err(Fault::new(Kind::UpstreamBroken, "target refused its stream for now"))
        }
        Answer::Refused { status, body }
            if upstream::forgot_session(open, status, &body) && !feed.line.forgot.replace(true) =>
        {
            leg::forget(&session, leg.id, open);
            Err(Fault::new(Kind::UpstreamBroken, "target forgot the session"))
        }
        answer if answer.is_events() => {
            leg.follow_with(socket);
            feed.line.forgot.set(false);
            feed.line.up.replace(Some(open.clone()));
            runtime::spawn(read(shard.clone(), feed.clone(), open.clone(), leg.clone(), answer));
            Ok(true)
        }
        // 405: it has no such stream. 404 again, to a session that it has just made, says the same.
        _ => Ok(false),
    }
}

/// Reads the target's own stream to its end.
async fn read(shard: Rc<Shard>, feed: Rc<Feed>, open: Rc<OpenLeg>, leg: Rc<Leg>, mut answer: Answer) {
    let mut pause = None;
    let (session, _) = feed.place();
    while let Ok(Some(message)) = answer.next().await {
        pause = message.retry.map(Duration::from_millis).or(pause);
        if let Some(data) = message.data {
            inbound::unrelated(&shard, &session, leg.id, data).await;
        }
    }
    // Out again before the socket is closed.
    leg.unfollow();
    drop(answer);
    if feed.line.is_up(&open) {
        broke(&shard, &feed, pause);
    }
}

/// Makes the subscriptions what the streams together ask for.
async fn reform(shard: &Rc<Shard>, feed: &Rc<Feed>, open: &Rc<OpenLeg>) {
    let line = &feed.line;
    let _turn = line.turn.lock().await;
    let asked = line.asked();
    let missing: Vec<Uri> = asked.difference(&line.subscribed.borrow()).cloned().collect();
    for some in missing.chunks(ASKED_AT_ONCE) {
        let ask = async |uri: &Uri| subscribe(shard, feed, open, "resources/subscribe", uri).await;
        let outcomes = runtime::join_all(some.iter().map(ask)).await;
        if !line.is_up(open) {
            return;
        }
        let granted = some.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
        line.subscribed.borrow_mut().extend(granted.map(|(uri, _)| uri.clone()));
    }
    let (session, leg) = feed.place();
    if inbound::is_shared(&session, leg) {
        // Others may have subscribed over the same child; what nobody here wants is not told to anybody.
        return;
    }
    let asked = line.asked();
    let needless: Vec<Uri> = line.subscribed.borrow().difference(&asked).cloned().collect();
    for uri in needless {
        let _ = subscribe(shard, feed, open, "resources/unsubscribe", &uri).await;
        line.subscribed.borrow_mut().remove(&uri);
    }
}

/// `resources/subscribe` or its contrary, and whether the target agreed.
async fn subscribe(shard: &Rc<Shard>, feed: &Feed, open: &Rc<OpenLeg>, method: &str, uri: &str) -> Result<(), Fault> {
    let mut params = BytesMut::from(&b"{\"uri\":"[..]);
    json::quote_into(&mut params, uri);
    params.put_u8(b'}');
    let request = error::request(shard.call_id(), method, Some(&params));
    let deadline = runtime::now() + FAREWELL_DEADLINE;
    let (session, leg) = feed.place();
    let answer = upstream::ask(shard, &session, open, leg, request, true, deadline).await?;
    leg::result_of(&answer).map(drop)
}
