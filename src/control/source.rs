//! Where the configuration comes from, and the way from there to a snapshot.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agentlane_config::{Document, Fault, LoadOptions, Loaded};

use crate::demo::Demo;
use crate::snapshot::compile::{self, Addresses};

/// How long one name may take to resolve.
const RESOLVE_TIME: Duration = Duration::from_secs(3);

pub enum Source {
    File { path: PathBuf, lenient: bool },
    Demo(Demo),
}

impl Source {
    /// Reads the whole configuration as it is now.
    pub fn load(&self) -> Result<Loaded, Vec<Fault>> {
        match self {
            Source::File { path, lenient } => load(path, *lenient),
            Source::Demo(demo) => agentlane_config::parse(&demo.document, "demo", &LoadOptions::of_process(false)),
        }
    }
}

/// Reads one file and what it names.
pub fn load(path: &Path, lenient: bool) -> Result<Loaded, Vec<Fault>> {
    agentlane_config::load(path, &LoadOptions::of_process(lenient))
}

/// Looks up every name of a document. One that does not resolve keeps the addresses that it had before, if it had any.
pub async fn resolve(document: &Document, before: &Addresses) -> Addresses {
    let mut addresses = HashMap::new();
    for (host, port) in compile::names(document) {
        let found = lookup(&host, port).await;
        let known = before.get(&(host.clone(), port)).cloned();
        let addresses_of_name = match found {
            Ok(found) if !found.is_empty() => Arc::from(found),
            outcome => {
                let reason = outcome.err().unwrap_or_else(|| "no address".to_owned());
                tracing::warn!(host, port, reason, "name does not resolve");
                known.unwrap_or_else(|| Arc::from([]))
            }
        };
        addresses.insert((host, port), addresses_of_name);
    }
    addresses
}

async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let looked_up = tokio::time::timeout(RESOLVE_TIME, tokio::net::lookup_host((host, port))).await;
    let mut found: Vec<SocketAddr> =
        looked_up.map_err(|_| "took too long".to_owned())?.map_err(|error| error.to_string())?.collect();
    // Deterministic, and IPv4 first: servers on localhost listen there more often than on ::1.
    found.sort_by_key(|address| (address.is_ipv6(), *address));
    found.dedup();
    // Of a name with both families the first is used alone: a shard does not race connections.
    if let Some(first) = found.first().copied() {
        found.retain(|address| address.is_ipv6() == first.is_ipv6());
    }
    Ok(found)
}
