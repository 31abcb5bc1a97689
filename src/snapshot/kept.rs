//! What a reload keeps of the configuration before: the sides of handshakes, and how far limits have been used up. Nothing
//! here is a request's business.

use std::sync::Arc;
use std::time::Instant;

use agentlane_config as config;
use agentlane_link::tls::RootCertStore;

use super::lock::Locks;
use super::tls::TlsMaker;
use crate::policy::auth::remote::Remote;
use crate::policy::local_rate_limit::{Keyed, Limiter, Rate};
use crate::request::permit::Concurrency;

/// What is kept from one compilation to the next.
pub struct Kept {
    pub(super) tls: TlsMaker,
    /// Of the targets of the configuration that is compiled next.
    pub locks: Locks,
    /// How many shards share a limit.
    shards: usize,
    limiters: Vec<Entry<config::RateLimit, Limiter>>,
    concurrency: Vec<Entry<config::ConcurrencyLimit, Concurrency>>,
    remotes: Vec<(Arc<Remote>, bool)>,
}

/// What was made for which place of the configuration.
struct Entry<C, T> {
    place: Arc<str>,
    config: C,
    made: Arc<T>,
    /// Asked for by the configuration that is being compiled.
    used: bool,
}

impl Kept {
    /// `load_roots`: see [`TlsMaker::new`].
    pub fn new(load_roots: fn() -> Arc<RootCertStore>, shards: usize) -> Self {
        let locks = Locks::default();
        let (limiters, concurrency, remotes) = (Vec::new(), Vec::new(), Vec::new());
        Kept { tls: TlsMaker::new(load_roots), locks, shards, limiters, concurrency, remotes }
    }

    /// The limit at this place: the one before, if it is written as it was.
    pub(super) fn limiter(&mut self, place: &str, limit: &config::RateLimit) -> Arc<Limiter> {
        let shards = self.shards;
        kept(&mut self.limiters, place, limit, |place| {
            let rate = Rate { burst: limit.max_tokens, per_fill: limit.tokens_per_fill, interval: limit.fill_interval };
            let keyed = limit.key.as_ref().map(|key| Keyed::new(key.0.clone()));
            Limiter::new(rate, shards, place, Instant::now()).keyed(keyed)
        })
    }

    /// The same for requests under way.
    pub(super) fn concurrency(&mut self, place: &str, limit: &config::ConcurrencyLimit) -> Arc<Concurrency> {
        kept(&mut self.concurrency, place, limit, |place| Concurrency::new(limit.max_requests as usize, place))
    }

    /// What another server has at one of these URLs, with all that has come of it; `eager`: see [`Remote`].
    pub(super) fn remote(&mut self, urls: Vec<config::Url>, eager: bool) -> Arc<Remote> {
        if let Some((remote, used)) = self.remotes.iter_mut().find(|(one, _)| one.urls == urls && one.eager == eager) {
            *used = true;
            return remote.clone();
        }
        let remote = Arc::new(Remote::new(urls, eager));
        self.remotes.push((remote.clone(), true));
        remote
    }

    /// What control fetches for the configuration that was compiled last.
    pub fn remotes(&self) -> impl Iterator<Item = &Arc<Remote>> {
        self.remotes.iter().map(|(remote, _)| remote)
    }

    /// Forgets what the configuration that was just compiled does not need.
    pub(super) fn tidy(&mut self) {
        self.tls.tidy();
        self.limiters.retain_mut(|entry| std::mem::take(&mut entry.used));
        self.concurrency.retain_mut(|entry| std::mem::take(&mut entry.used));
        self.remotes.retain_mut(|(_, used)| std::mem::take(used));
    }
}

fn kept<C: PartialEq + Clone, T>(
    entries: &mut Vec<Entry<C, T>>,
    place: &str,
    config: &C,
    make: impl FnOnce(Arc<str>) -> T,
) -> Arc<T> {
    if let Some(entry) = entries.iter_mut().find(|entry| *entry.place == *place && entry.config == *config) {
        entry.used = true;
        return entry.made.clone();
    }
    let place: Arc<str> = place.into();
    let made = Arc::new(make(place.clone()));
    entries.push(Entry { place, config: config.clone(), made: made.clone(), used: true });
    made
}
