//! A backend of plain HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use agentlane_link::client::{self, Pool, Spoken};
use agentlane_link::tls::ClientTls;

use super::health::Health;
use super::retry::Retry;
use crate::request::HeaderEdit;

/// A host and port, with the addresses that control found for it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `host:port` as configured, without the port where it is that of `https`: the `Host` header where nothing else names one.
    pub authority: String,
    /// Empty while the name does not resolve.
    pub addresses: Arc<[SocketAddr]>,
    /// How TLS is spoken to it; `None`: not at all.
    pub tls: Option<ClientTls>,
    /// The version of HTTP.
    pub spoken: Spoken,
    /// Who fails is remembered; `None`: nothing is.
    pub judged: Option<Arc<Judged>>,
}

/// What becomes of a host's addresses that fail, and of messages to them.
#[derive(Debug)]
pub struct Judged {
    /// Unique among hosts that are judged apart; a label of metrics.
    pub name: Arc<str>,
    /// `None`: all of them serve always.
    pub health: Option<Health>,
    /// For messages to MCP targets; a plain route has its own.
    pub retry: Option<Retry>,
}

impl Endpoint {
    /// Its connections to one of the addresses.
    pub fn of(&self, pool: &Pool, address: SocketAddr) -> client::Endpoint {
        pool.endpoint(address, self.tls.as_ref(), self.spoken)
    }

    /// The address for the `ticket`-th connection.
    pub fn address(&self, ticket: u64) -> Option<SocketAddr> {
        match self.addresses.len() {
            0 => None,
            1 => Some(self.addresses[0]),
            count => Some(self.addresses[(ticket % count as u64) as usize]),
        }
    }
}

#[derive(Clone, Debug)]
pub struct HttpBackend {
    pub endpoint: Endpoint,
    /// Header changes for this backend alone.
    pub request: Vec<HeaderEdit>,
    pub response: Vec<HeaderEdit>,
    /// The client's own credential goes along.
    pub passes_credential: bool,
}
