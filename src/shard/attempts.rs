//! One plain request's attempts: at which backend of its route and which address of it, as the route's retries and the
//! judgement of addresses would have them.

use std::cell::{Cell, Ref, RefCell};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use agentlane_link::client::ClientError;
use agentlane_link::proxy::{Again, Attempts};
use agentlane_runtime as runtime;
use smallvec::SmallVec;

use super::Shard;
use super::health::Trial;
use super::metrics::RouteCells;
use crate::backend::Backend;
use crate::backend::http::HttpBackend;
use crate::request::permit::Permit;
use crate::request::{Changes, HeaderEdits};
use crate::snapshot::Route;

/// Where a request goes at the moment.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    /// The backend's place in the route.
    pub place: usize,
    pub backend: &'a HttpBackend,
    pub address: SocketAddr,
}

/// The choice, and what is changed in a request for it.
pub struct Going<'a> {
    choice: Cell<Choice<'a>>,
    changes: RefCell<Changes>,
    /// Without what the backend adds; there where another backend may follow.
    bare: Option<(HeaderEdits, HeaderEdits)>,
}

impl<'a> Going<'a> {
    pub fn new(choice: Choice<'a>, route: &Route, mut changes: Changes) -> Self {
        let may_change = route.retry.is_some() && route.backends.iter().count() > 1;
        let bare = may_change.then(|| (changes.request.clone(), changes.response.clone()));
        changes.request.extend(&choice.backend.request);
        changes.response.extend(&choice.backend.response);
        Going { choice: Cell::new(choice), changes: RefCell::new(changes), bare }
    }

    pub fn choice(&self) -> Choice<'a> {
        self.choice.get()
    }

    pub fn changes(&self) -> Ref<'_, Changes> {
        self.changes.borrow()
    }

    /// The places that the request holds, for whoever goes on with it.
    pub fn take_permits(&self) -> SmallVec<[Permit; 2]> {
        std::mem::take(&mut self.changes.borrow_mut().permits)
    }

    fn go(&self, choice: Choice<'a>) {
        let before = self.choice.replace(choice).place;
        if let Some((request, response)) = self.bare.as_ref().filter(|_| before != choice.place) {
            let mut changes = self.changes.borrow_mut();
            (changes.request, changes.response) = (request.clone(), response.clone());
            changes.request.extend(&choice.backend.request);
            changes.response.extend(&choice.backend.response);
        }
    }
}

/// An address for a request that a route's backend was chosen for. Where all of that one's rest, another backend of the
/// route stands in. Else how long until one may be tried; nothing where the name does not resolve.
pub fn choose<'a>(
    shard: &Shard,
    route: &'a Route,
    place: usize,
    backend: &'a HttpBackend,
    now: Instant,
) -> Result<Choice<'a>, Option<Duration>> {
    match shard.judgements.address(&shard.metrics, &backend.endpoint, shard.ticket(), None, now) {
        Ok(address) => Ok(Choice { place, backend, address }),
        Err(None) => Err(None),
        Err(wait) => stand_in(shard, route, place, now).ok_or(wait),
    }
}

/// Another backend of the route that serves.
fn stand_in<'a>(shard: &Shard, route: &'a Route, place: usize, now: Instant) -> Option<Choice<'a>> {
    route.backends.others(place).find_map(|(place, other)| match &other.backend {
        Backend::Http(backend) if other.redirect.is_none() && other.concurrency.is_none() => {
            let address =
                shard.judgements.address(&shard.metrics, &backend.endpoint, shard.ticket(), None, now).ok()?;
            Some(Choice { place, backend, address })
        }
        _ => None,
    })
}

/// The attempts of one request.
pub struct Tries<'a> {
    shard: &'a Shard,
    route: &'a Route,
    cells: &'a RouteCells,
    going: &'a Going<'a>,
    trial: Option<Trial>,
    /// Attempts that may follow.
    left: u8,
    /// When the whole request must have ended.
    whole: Option<Instant>,
}

impl<'a> Tries<'a> {
    /// At what was just chosen.
    pub fn new(
        shard: &'a Shard,
        route: &'a Route,
        cells: &'a RouteCells,
        going: &'a Going<'a>,
        whole: Option<Instant>,
    ) -> Self {
        if let (Some(retry), Some(retries)) = (&route.retry, &cells.retries) {
            retries.budget.request(retry);
        }
        let left = route.retry.as_ref().map_or(0, |retry| retry.attempts.saturating_sub(1));
        let Choice { backend, address, .. } = going.choice();
        let trial = shard.judgements.trial(&shard.metrics, &backend.endpoint, address);
        Tries { shard, route, cells, going, trial, left, whole }
    }

    /// Where to after a failure: another address of the backend, or another backend, or the same once more.
    fn next(&self, now: Instant) -> Option<Choice<'a>> {
        let Choice { place, backend, address } = self.going.choice();
        if backend.endpoint.addresses.len() == 1
            && let Some(other) = stand_in(self.shard, self.route, place, now)
        {
            return Some(other);
        }
        let (metrics, ticket) = (&self.shard.metrics, self.shard.ticket());
        match self.shard.judgements.address(metrics, &backend.endpoint, ticket, Some(address), now) {
            Ok(address) => Some(Choice { place, backend, address }),
            Err(_) => stand_in(self.shard, self.route, place, now),
        }
    }
}

impl Attempts for Tries<'_> {
    fn ended(&mut self, outcome: Result<u16, &ClientError>, may_repeat: bool) -> Option<Again> {
        if let Some(trial) = self.trial.take() {
            trial.ended(outcome);
        }
        let (retry, retries) = self.route.retry.as_ref().zip(self.cells.retries.as_ref())?;
        let is_wanted = outcome.map_or(true, |status| retry.codes.contains(&status));
        let now = runtime::now();
        let at = now + retry.backoff;
        if self.left == 0 || !may_repeat || !is_wanted || self.whole.is_some_and(|whole| whole <= at) {
            return None;
        }
        if !retries.budget.take(now) {
            retries.denied.inc();
            return None;
        }
        let choice = self.next(now)?;
        let endpoint = &choice.backend.endpoint;
        self.trial = self.shard.judgements.trial(&self.shard.metrics, endpoint, choice.address);
        self.left -= 1;
        self.going.go(choice);
        retries.sent.inc();
        let due = self.route.timeouts.backend.map(|limit| at + limit);
        let due = due.into_iter().chain(self.whole).min();
        Some(Again { endpoint: endpoint.of(&self.shard.pool, choice.address), pause: retry.backoff, due })
    }
}
