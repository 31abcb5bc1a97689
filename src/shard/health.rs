//! Which address of a backend a request goes to, by how those before it fared on this shard. What is not judged costs
//! nothing here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentlane_link::client::{ClientError, ClientErrorKind};

use super::metrics::Metrics;
use crate::backend::Backend;
use crate::backend::health::{Circuit, Health};
use crate::backend::http::{Endpoint, Judged};
use crate::backend::mcp::TargetKind;
use crate::backend::retry::Budget;
use crate::snapshot::Snapshot;
use crate::telemetry::{Counter, Gauge};

/// What this shard knows of the hosts that are judged, by their names. No more than the configuration has.
#[derive(Default)]
pub struct Judgements(RefCell<HashMap<Arc<str>, Rc<Host>>>);

/// One host.
pub struct Host {
    name: Arc<str>,
    circuits: RefCell<Vec<(SocketAddr, Circuit)>>,
    evictions: Counter,
    evicted: Gauge,
    /// For messages to MCP targets; a plain route has its own.
    pub budget: Budget,
}

/// One request on its way to an address that is judged. Dropped without a word it says nothing of it.
pub struct Trial {
    host: Rc<Host>,
    health: Health,
    address: SocketAddr,
    /// How many the host has.
    all: usize,
    told: bool,
}

impl Judgements {
    /// The address for the `ticket`-th request: the next one that serves, rather not the one to `avoid`. Else how long
    /// until one may be tried; nothing where the name does not resolve.
    pub fn address(
        &self,
        metrics: &Metrics,
        endpoint: &Endpoint,
        ticket: u64,
        avoid: Option<SocketAddr>,
        now: Instant,
    ) -> Result<SocketAddr, Option<Duration>> {
        let count = endpoint.addresses.len();
        let first = endpoint.address(ticket).ok_or(None)?;
        let in_turn = || {
            let from = (ticket % count as u64) as usize;
            (0..count).map(move |step| endpoint.addresses[(from + step) % count])
        };
        let others = || in_turn().filter(|address| Some(*address) != avoid);
        let Some((judged, health)) = endpoint.judged.as_ref().and_then(|judged| Some((judged, judged.health?))) else {
            return Ok(if avoid.is_some() { others().next().unwrap_or(first) } else { first });
        };
        let host = self.host(metrics, judged);
        let serves = |address: &SocketAddr| host.with(*address, |circuit| circuit.is_open(now));
        if let Some(address) = others().find(serves).or_else(|| in_turn().find(serves)) {
            host.with(address, |circuit| circuit.enter(&health, now));
            return Ok(address);
        }
        let wait = in_turn().map(|address| host.with(address, |circuit| circuit.rests_for(now))).min();
        Err(Some(wait.unwrap_or_default()))
    }

    /// A request's trial of an address that was just chosen; `None` where it is not judged.
    pub fn trial(&self, metrics: &Metrics, endpoint: &Endpoint, address: SocketAddr) -> Option<Trial> {
        let judged = endpoint.judged.as_ref()?;
        let health = judged.health?;
        Some(Trial { host: self.host(metrics, judged), health, address, all: endpoint.addresses.len(), told: false })
    }

    pub fn host(&self, metrics: &Metrics, judged: &Judged) -> Rc<Host> {
        let mut hosts = self.0.borrow_mut();
        if let Some(host) = hosts.get(&judged.name) {
            return host.clone();
        }
        let (evictions, evicted) = metrics.evictions(&judged.name);
        let name = judged.name.clone();
        let host = Rc::new(Host { name, circuits: RefCell::default(), evictions, evicted, budget: Budget::default() });
        hosts.insert(judged.name.clone(), host.clone());
        host
    }

    /// Forgets hosts that a new configuration does not judge, and addresses that serve.
    pub fn follow(&self, snapshot: &Snapshot) {
        let mut hosts = self.0.borrow_mut();
        if hosts.is_empty() {
            return;
        }
        let names = judged(snapshot);
        hosts.retain(|name, host| {
            host.circuits.borrow_mut().retain(|(_, circuit)| circuit.is_evicted());
            let stays = names.iter().any(|known| known == name);
            if !stays {
                host.evicted.set(0);
            }
            stays
        });
    }
}

/// The names of hosts that are judged.
fn judged(snapshot: &Snapshot) -> Vec<Arc<str>> {
    let endpoints = snapshot.routes.iter().flat_map(|route| route.backends.iter()).flat_map(|chosen| {
        let endpoints: Vec<&Endpoint> = match &chosen.backend {
            Backend::Http(http) => vec![&http.endpoint],
            Backend::Mcp(mcp) => {
                let targets = mcp.targets.iter().filter_map(|target| match &target.kind {
                    TargetKind::Http(http) | TargetKind::Sse(http) => Some(&http.endpoint),
                    TargetKind::Stdio(_) => None,
                });
                targets.collect()
            }
        };
        endpoints
    });
    endpoints.filter_map(|endpoint| Some(endpoint.judged.as_ref()?.name.clone())).collect()
}

impl Host {
    fn with<T>(&self, address: SocketAddr, act: impl FnOnce(&mut Circuit) -> T) -> T {
        let mut circuits = self.circuits.borrow_mut();
        let place = circuits.iter().position(|(known, _)| *known == address);
        let place = place.unwrap_or_else(|| {
            circuits.push((address, Circuit::default()));
            circuits.len() - 1
        });
        act(&mut circuits[place].1)
    }

    /// How many others of its addresses rest.
    fn resting_beside(&self, address: SocketAddr) -> usize {
        let circuits = self.circuits.borrow();
        circuits.iter().filter(|(other, circuit)| *other != address && circuit.is_evicted()).count()
    }
}

impl Trial {
    /// Says how it ended: the answer's status, or why there is none.
    pub fn ended(mut self, outcome: Result<u16, &ClientError>) {
        let failed = match outcome {
            Ok(status) => status >= 500,
            // Our own doing says nothing of the host.
            Err(error) => match error.kind {
                ClientErrorKind::QueueFull | ClientErrorKind::QueueTimeout | ClientErrorKind::Request(_) => return,
                _ => true,
            },
        };
        self.told = true;
        let host = &self.host;
        if !failed {
            if host.with(self.address, Circuit::succeeded) {
                host.evicted.dec();
                tracing::info!(backend = &*host.name, address = %self.address, "an endpoint serves again");
            }
            return;
        }
        let now = agentlane_runtime::now();
        let may_rest = self.health.may_rest(host.resting_beside(self.address), self.all);
        let was_evicted = host.with(self.address, |circuit| circuit.is_evicted());
        if host.with(self.address, |circuit| circuit.failed(&self.health, may_rest, now)) {
            host.evictions.inc();
            host.evicted.add(i64::from(!was_evicted));
            let rest = host.with(self.address, |circuit| circuit.rests_for(now));
            tracing::warn!(backend = &*host.name, address = %self.address, ?rest, "an endpoint keeps failing: it rests");
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !self.told {
            self.host.with(self.address, |circuit| circuit.unknown(agentlane_runtime::now()));
        }
    }
}
