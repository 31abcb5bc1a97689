//! A list of one target on its way: one task fetches it, any number of requests wait for it, and those that could not wait
//! so long are told when it is not what they were given.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentlane_runtime as runtime;
use agentlane_runtime::local::Event;

use super::{fetch, share};
use crate::fault::Fault;
use crate::limits::{LIST_LATE_DEADLINES, LIST_LATECOMERS_MAX};
use crate::mesh::{ListName, SharedList};
use crate::protocol::mcp::cache::{Audience, Viewer};
use crate::protocol::mcp::listing::Listing;
use crate::protocol::mcp::method::ListKind;
use crate::protocol::mcp::modern::listen::List;
use crate::session::Session;
use crate::shard::mcp::{close, hub, mcp_fault};
use crate::shard::{BackendState, Shard};

pub struct Flight {
    /// Serial of the session that asks the target.
    pub session: u64,
    pub viewer: Viewer,
    pub kind: ListKind,
    /// Whom it will be for, as far as one can know; `None`: for nobody but who asked.
    pub audience: Option<Audience>,
    /// By the precise clock.
    pub begun: Instant,
    landed: Event,
    /// `None` while it is on its way.
    outcome: RefCell<Option<Outcome>>,
    /// Who was answered without it, with the digest of what they were given instead.
    late: RefCell<Vec<(Weak<Session>, Option<u64>)>>,
}

/// A list that came.
#[derive(Clone)]
pub struct Arrived {
    pub listing: Arc<Listing>,
    pub audience: Audience,
    pub fresh_for: Duration,
}

/// `None`: the target does not offer such a list.
type Outcome = Result<Option<Arrived>, Fault>;

impl Flight {
    pub fn new(session: u64, viewer: Viewer, kind: ListKind, audience: Option<Audience>) -> Self {
        let (outcome, late) = (RefCell::new(None), RefCell::default());
        Flight { session, viewer, kind, audience, begun: Instant::now(), landed: Event::new(), outcome, late }
    }

    pub async fn landed(&self) {
        self.landed.wait().await;
    }

    /// What came of it. For those that have waited.
    pub fn outcome(&self) -> Outcome {
        let outcome = self.outcome.borrow().clone();
        outcome.unwrap_or_else(|| Err(mcp_fault::internal("a list was lost on its way")))
    }

    /// The session is told when the list comes and is another than the one of this digest.
    pub fn tell_late(&self, session: &Rc<Session>, shown: Option<u64>) {
        let mut late = self.late.borrow_mut();
        if late.len() < LIST_LATECOMERS_MAX && !late.iter().any(|(known, _)| known.as_ptr() == Rc::as_ptr(session)) {
            late.push((Rc::downgrade(session), shown));
        }
    }

    fn land(&self, outcome: Outcome, tell: impl Fn(&Session)) {
        let digest = outcome.as_ref().ok().and_then(Option::as_ref).map(|arrived| arrived.listing.digest());
        self.outcome.replace(Some(outcome));
        self.landed.set();
        if digest.is_none() {
            return;
        }
        for (session, shown) in self.late.take() {
            if let Some(session) = session.upgrade().filter(|session| shown != digest && !session.ended.get()) {
                tell(&session);
            }
        }
    }
}

/// Takes a flight off its target's list, whatever becomes of its task.
struct UnderWay {
    backend: Rc<BackendState>,
    place: usize,
    flight: Rc<Flight>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.backend.lists[self.place].flights.borrow_mut().retain(|flight| !Rc::ptr_eq(flight, &self.flight));
        self.flight.landed.set();
    }
}

/// Sends it on its way.
pub fn start(shard: &Rc<Shard>, backend: &Rc<BackendState>, session: &Rc<Session>, place: usize, flight: Rc<Flight>) {
    let (shard, backend, session) = (shard.clone(), backend.clone(), session.clone());
    let under_way = UnderWay { backend: backend.clone(), place, flight: flight.clone() };
    runtime::spawn(async move {
        let outcome = arrive(&shard, &backend, &session, place, &flight).await;
        // Off the list first: who asks from here on finds it in the cache, or asks anew.
        drop(under_way);
        let target = &backend.config.targets[place].name;
        flight.land(outcome, |late| match late.is_internal() {
            true => hub::Hub::tell(&shard, late, target, List::of(flight.kind)),
            false => close::list_changed(late, flight.kind),
        });
    });
}

/// The list from the shard that owns it, or from the target.
async fn arrive(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    session: &Rc<Session>,
    place: usize,
    flight: &Flight,
) -> Outcome {
    let (config, kind, viewer) = (&backend.config, flight.kind, flight.viewer);
    let name = |audience| ListName { backend: config.clone(), place, kind, viewer, audience };
    let list = flight.audience.map(name);
    if let Some(list) = &list
        && let Some(shared) = share::ask(shard, list, backend.lists[place].changed(kind)).await
    {
        return Ok(Some(super::keep(shard, backend, place, kind, &viewer, &shared)));
    }
    let until = runtime::now() + config.deadline.saturating_mul(LIST_LATE_DEADLINES);
    let begun = Instant::now();
    let fetched = fetch::list(shard, session, &config.targets[place], kind, until).await;
    let fetched = fetched.map(|listing| {
        listing.map(|listing| {
            let (audience, fresh_for) = super::terms(&config.targets[place].lists, &listing);
            let fresh_until = runtime::now() + fresh_for;
            SharedList { listing: Arc::new(listing), audience, begun, fresh_until }
        })
    });
    let shared = fetched.as_ref().ok().and_then(Option::as_ref);
    let usable = shared.filter(|shared| shared.fresh_until > runtime::now());
    if let Some(list) = list.or_else(|| usable.map(|shared| name(shared.audience))) {
        share::tell(shard, list, usable.cloned());
    }
    fetched.map(|shared| shared.map(|shared| super::keep(shard, backend, place, kind, &viewer, &shared)))
}
