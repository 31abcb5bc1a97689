//! One target's changes for one caller: the pure [`Source`] with its time, its streams and its listeners.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Instant;

use agentlane_runtime as runtime;
use agentlane_runtime::local::Notify;

use super::legacy::Line;
use super::modern::Sockets;
use super::serve::Place;
use super::sessions::Ear;
use super::{Circle, legacy, modern, twin};
use crate::backend::mcp::TargetKind;
use crate::protocol::mcp::modern::listen::{
    Change, Command, Filter, List, ListenerId, Source, StreamId, Unheard, Waits,
};
use crate::session::{LegId, OpenLeg, Session};
use crate::shard::Shard;
use crate::shard::mcp::{cache, leg};

pub struct Feed {
    pub leg: LegId,
    /// The conversation that the target's streams are part of.
    pub session: Rc<Session>,
    circle: Weak<Circle>,
    pub source: RefCell<Source>,
    listeners: RefCell<HashMap<ListenerId, Sink>>,
    /// Something that a listener waits for was decided.
    pub settled: Notify,
    /// The time to look again may have changed.
    look: Notify,
    /// Streams that are asked for or open; one that is not here any more is closed.
    wanted: RefCell<Vec<StreamId>>,
    /// The conversation and leg in which a target is listened to that speaks 2026-07-28 and has no listens.
    older: RefCell<Option<(Rc<Session>, LegId)>>,
    /// What a target with sessions is listened to by.
    pub line: Line,
    /// The streams of a target without.
    pub sockets: Sockets,
    ended: Cell<bool>,
}

/// Where a listener's changes go.
pub enum Sink {
    Listen(Place),
    Session(Ear),
}

impl Sink {
    fn tell(&self, shard: &Rc<Shard>, change: &Change) {
        match self {
            Sink::Listen(place) => place.tell(shard, change),
            Sink::Session(ear) => ear.tell(shard, change),
        }
    }

    fn end(&self) {
        match self {
            Sink::Listen(place) => place.end(),
            // A session has no way to say that it hears nothing any more; its client keeps what it knows.
            Sink::Session(_) => {}
        }
    }
}

impl Feed {
    pub fn start(shard: &Rc<Shard>, circle: &Rc<Circle>, leg: LegId) -> Rc<Feed> {
        let feed = Rc::new(Feed {
            leg,
            session: circle.session.clone(),
            circle: Rc::downgrade(circle),
            source: RefCell::default(),
            listeners: RefCell::default(),
            settled: Notify::new(),
            look: Notify::new(),
            wanted: RefCell::default(),
            older: RefCell::default(),
            line: Line::default(),
            sockets: Sockets::default(),
            ended: Cell::new(false),
        });
        shard.metrics.feeds.add(1);
        runtime::spawn(keep_time(shard.clone(), feed.clone()));
        feed
    }

    pub fn join(self: &Rc<Self>, shard: &Rc<Shard>, id: ListenerId, sink: Sink, wants: Filter) {
        self.listeners.borrow_mut().insert(id, sink);
        self.apply(shard, |source, now| source.join(now, id, wants));
    }

    pub fn leave(self: &Rc<Self>, shard: &Rc<Shard>, id: ListenerId) {
        if self.listeners.borrow_mut().remove(&id).is_some() {
            self.apply(shard, |source, now| source.leave(now, id));
        }
    }

    /// Waits until the target has decided about everything that the listener wants, or failed. Dropping it loses nothing.
    pub async fn decided(&self, id: ListenerId) -> Waits {
        loop {
            match self.source.borrow().waits(id) {
                Waits::Yes if !self.ended.get() => {}
                waits => return waits,
            }
            self.settled.notified().await;
        }
    }

    /// What a target said on one of its streams.
    pub fn changed(self: &Rc<Self>, shard: &Rc<Shard>, stream: StreamId, change: Change) {
        self.apply(shard, |source, now| source.heard(now, stream, change));
    }

    pub fn is_of(&self, target: &str) -> bool {
        self.session.leg(self.leg).is_some_and(|leg| leg.target.name == target)
    }

    /// The conversation and leg of a target's own stream.
    pub fn place(&self) -> (Rc<Session>, LegId) {
        self.older.borrow().clone().unwrap_or_else(|| (self.session.clone(), self.leg))
    }

    /// Whether that is not the one in which it is spoken to otherwise.
    pub fn is_older(&self) -> bool {
        self.older.borrow().is_some()
    }

    pub fn is_ended(&self) -> bool {
        self.ended.get()
    }

    pub fn wants_any(&self) -> bool {
        !self.wanted.borrow().is_empty()
    }

    pub fn wants(&self, stream: StreamId) -> bool {
        self.wanted.borrow().contains(&stream)
    }

    /// Something happened: the source hears of it, and what it says is done.
    pub fn apply<T>(self: &Rc<Self>, shard: &Rc<Shard>, happened: impl FnOnce(&mut Source, Instant) -> T) -> T {
        let outcome = happened(&mut self.source.borrow_mut(), runtime::now());
        let commands = self.source.borrow_mut().commands();
        self.outdate(shard, &commands);
        for command in commands {
            self.obey(shard, command);
        }
        self.look.notify_one();
        outcome
    }

    /// What is kept of lists and resources gets old before anybody is told that they have changed.
    fn outdate(&self, shard: &Rc<Shard>, commands: &[Command]) {
        for list in List::ALL {
            let change = Change::List(list);
            if commands
                .iter()
                .any(|command| matches!(command, Command::Deliver { change: told, .. } if *told == change))
            {
                cache::changed(shard, &self.session, self.leg, list.notification().as_bytes());
            }
        }
        let mut last = None;
        for command in commands {
            // Told to several listeners it is still one change.
            if let Command::Deliver { change: Change::Resource(uri), .. } = command
                && last != Some(uri)
            {
                cache::reads::updated(shard, &self.session, self.leg, uri);
                last = Some(uri);
            }
        }
    }

    fn obey(self: &Rc<Self>, shard: &Rc<Shard>, command: Command) {
        match command {
            Command::Open { stream, filter } => {
                self.wanted.borrow_mut().push(stream);
                runtime::spawn(open(shard.clone(), self.clone(), stream, filter));
            }
            Command::Close { stream } => self.close(shard, stream),
            Command::Settled { .. } => self.settled.notify_all(),
            Command::Deliver { listener, change } => {
                if let Some(sink) = self.listeners.borrow().get(&listener) {
                    sink.tell(shard, &change);
                }
            }
            Command::End { listener } => {
                if let Some(sink) = self.listeners.borrow_mut().remove(&listener) {
                    sink.end();
                }
                self.settled.notify_all();
            }
            Command::Finished => {
                self.stop(shard);
                if let Some(circle) = self.circle.upgrade() {
                    circle.finished(shard, self);
                }
            }
        }
    }

    fn close(self: &Rc<Self>, shard: &Rc<Shard>, stream: StreamId) {
        self.wanted.borrow_mut().retain(|wanted| *wanted != stream);
        self.sockets.close(stream);
        legacy::close(shard, self, stream);
    }

    /// The target is not there any more. Listens look for themselves what that means to them.
    pub fn end(self: &Rc<Self>, shard: &Rc<Shard>) {
        self.stop(shard);
        for stream in self.wanted.take() {
            self.close(shard, stream);
        }
        self.listeners.take();
        self.settled.notify_all();
    }

    fn stop(&self, shard: &Shard) {
        if !self.ended.replace(true) {
            shard.metrics.feeds.add(-1);
        }
        self.look.notify_one();
    }
}

/// Looks at a source when it is time to.
async fn keep_time(shard: Rc<Shard>, feed: Rc<Feed>) {
    while !feed.ended.get() {
        let at = feed.source.borrow().wake_at();
        match at {
            None => feed.look.notified().await,
            Some(at) => {
                let (due, look) = (std::pin::pin!(runtime::sleep_until(at)), std::pin::pin!(feed.look.notified()));
                if let runtime::Either::Left(()) = runtime::race(due, look).await {
                    feed.apply(&shard, Source::tick);
                }
            }
        }
    }
}

/// Opens a stream at the target in whatever way it has.
async fn open(shard: Rc<Shard>, feed: Rc<Feed>, stream: StreamId, filter: Filter) {
    let outcome: Result<Rc<OpenLeg>, _> = leg::ready(&shard, &feed.session, feed.leg).await;
    match outcome {
        Ok(open) if open.modern.is_some() => {
            if !modern::listen(&shard, &feed, stream, &filter, &open).await {
                Box::pin(open_as_older(&shard, &feed, stream, filter, &open)).await;
            }
        }
        Ok(open) => legacy::open(&shard, &feed, stream, filter, &open).await,
        Err(fault) => {
            tracing::debug!(target: "agentlane::mcp", %fault, "a target cannot be listened to now");
            feed.apply(&shard, |source, now| source.broke(now, stream, None));
        }
    }
}

/// A target of 2026-07-28 that has no listens may have sessions beside, and tell changes on their stream. If not, it is left
/// out of what is promised.
async fn open_as_older(shard: &Rc<Shard>, feed: &Rc<Feed>, stream: StreamId, filter: Filter, modern: &Rc<OpenLeg>) {
    if let Some((session, leg)) = older(shard, feed)
        && let Ok(open) = leg::ready(shard, &session, leg).await
        && open.modern.is_none()
    {
        feed.older.replace(Some((session, leg)));
        return legacy::open(shard, feed, stream, filter, &open).await;
    }
    let why = Unheard { offers: modern.offers.lists(), mute: true };
    feed.apply(shard, |source, now| source.unheard(now, stream, why));
}

/// The target in the circle's conversation with sessions. Not where that would be another process, which knows nothing.
fn older(shard: &Rc<Shard>, feed: &Feed) -> Option<(Rc<Session>, LegId)> {
    let leg = feed.session.leg(feed.leg).filter(|leg| matches!(leg.target.kind, TargetKind::Http(_)))?;
    let session = feed.circle.upgrade()?.older(shard)?;
    let twin = twin(&session, &leg)?;
    Some((session, twin))
}
