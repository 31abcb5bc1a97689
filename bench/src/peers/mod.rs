//! The proxies that are compared: how each is configured, started, pinned and stopped. Configuration goes into a temporary folder.

pub mod agentlane;
pub mod forward;
pub mod haproxy;
pub mod nginx;
mod process;

use crate::load::mcp::Endpoint;
use process::Process;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// What is asked of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Scenario {
    /// A JSON POST through a plain route.
    #[serde(rename = "plain")]
    Plain,
    /// tools/call in an open session, one target.
    #[serde(rename = "tools/call")]
    Call,
    /// tools/call in an open session of a federation of two targets, in turn.
    #[serde(rename = "tools/call of 2")]
    FederatedCall,
}

impl Scenario {
    pub const ALL: [Scenario; 3] = [Scenario::Plain, Scenario::Call, Scenario::FederatedCall];

    pub fn name(self) -> &'static str {
        match self {
            Scenario::Plain => "plain",
            Scenario::Call => "tools/call",
            Scenario::FederatedCall => "tools/call of 2",
        }
    }

    /// The scenario whose bytes a proxy without MCP passes for comparison: a federation is one endpoint to its client.
    pub fn baseline(self) -> Scenario {
        match self {
            Scenario::FederatedCall => Scenario::Call,
            same => same,
        }
    }

    /// MCP targets behind the endpoint.
    pub fn targets(self) -> usize {
        match self {
            Scenario::Plain => 0,
            Scenario::Call => 1,
            Scenario::FederatedCall => 2,
        }
    }
}

/// Fake upstreams that the proxies lead to.
#[derive(Debug, Clone, Copy)]
pub struct Upstreams {
    pub plain: SocketAddr,
    pub mcp: [SocketAddr; 2],
}

/// What every proxy is started with.
#[derive(Debug, Clone)]
pub struct Setting {
    pub upstreams: Upstreams,
    /// CPU of the proxy.
    pub cpu: usize,
    /// For configuration; one for all, files are named after the peers.
    pub folder: PathBuf,
}

/// A running proxy; dropping it stops its processes.
pub struct Peer {
    pub name: &'static str,
    doors: Vec<Door>,
}

/// Where a scenario enters a proxy, and the process that serves it.
struct Door {
    scenario: Scenario,
    endpoint: Endpoint,
    process: usize,
    processes: std::rc::Rc<Vec<Process>>,
}

impl Peer {
    /// `doors` are scenario, address, path and the index of the serving process.
    fn new(name: &'static str, processes: Vec<Process>, doors: &[(Scenario, SocketAddr, usize)]) -> Peer {
        let processes = std::rc::Rc::new(processes);
        let door = |&(scenario, address, process): &(Scenario, SocketAddr, usize)| {
            let path = if scenario == Scenario::Plain { "/" } else { "/mcp" };
            Door { scenario, endpoint: Endpoint { address, path: path.into() }, process, processes: processes.clone() }
        };
        Peer { name, doors: doors.iter().map(door).collect() }
    }

    pub fn scenarios(&self) -> impl Iterator<Item = Scenario> {
        self.doors.iter().map(|door| door.scenario)
    }

    /// Where a scenario enters, and the id of the process that serves it.
    pub fn door(&self, scenario: Scenario) -> Option<(&Endpoint, u32)> {
        let door = self.doors.iter().find(|door| door.scenario == scenario)?;
        Some((&door.endpoint, door.processes[door.process].pid()))
    }
}

/// `count` free addresses of 127.0.0.1, all different. Another process could take one before the peer does; then the peer fails to start and says so.
fn free_addresses<const COUNT: usize>() -> io::Result<[SocketAddr; COUNT]> {
    let listeners: Vec<TcpListener> =
        (0..COUNT).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
    let addresses: Vec<SocketAddr> = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    addresses.try_into().map_err(|_| io::Error::other("wrong number of addresses"))
}

/// Writes a configuration file into the folder and returns its path.
fn write_config(folder: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_differ() {
        let addresses = free_addresses::<4>().expect("free ports");
        for (i, address) in addresses.iter().enumerate() {
            assert!(!addresses[..i].contains(address));
        }
    }
}
