//! Clients that ask and never read: the memory of the process that serves them must not grow.

use super::idle::memory;
use super::mcp::{Endpoint, Session};
use crate::epoll::{self, Moved};
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How often a blocked client tries to send more.
const RETRY: Duration = Duration::from_millis(50);
const PRINT: Duration = Duration::from_secs(1);

/// How many, and for how long.
#[derive(Debug, Clone)]
pub struct NeverReadOptions {
    pub connections: usize,
    /// Body of each request, bytes.
    pub request_bytes: usize,
    pub hold: Duration,
    /// Process whose memory is printed.
    pub pid: Option<u32>,
}

/// Opens the sessions, then sends tools/call on each for as long as the socket takes bytes, reading nothing. Returns how many whole requests left.
pub fn run(endpoint: &Endpoint, options: &NeverReadOptions) -> io::Result<u64> {
    agentlane_perf::raise_nofile()?;
    let mut clients = Vec::new();
    for _ in 0..options.connections {
        let mut session = Session::open(endpoint)?;
        let tool = session.echo_tools()?.into_iter().next().ok_or_else(|| io::Error::other("no tool to call"))?;
        let request = session.call_template(&tool, options.request_bytes).with_id(1_000_000_000).to_vec();
        let socket = session.into_socket();
        epoll::prepare(&socket)?;
        clients.push(Client { socket: Some(socket), request, sent: 0 });
    }
    let start = Instant::now();
    let mut printed = start;
    while start.elapsed() < options.hold {
        clients.iter_mut().for_each(Client::push);
        if printed.elapsed() >= PRINT {
            printed = Instant::now();
            print(&clients, start.elapsed(), options.pid)?;
        }
        std::thread::sleep(RETRY);
    }
    print(&clients, start.elapsed(), options.pid)?;
    Ok(clients.iter().map(Client::requests).sum())
}

struct Client {
    /// `None` once the server has closed, which it may.
    socket: Option<TcpStream>,
    request: Vec<u8>,
    sent: usize,
}

impl Client {
    fn push(&mut self) {
        while let Some(socket) = &self.socket {
            match epoll::write(socket, &self.request[self.sent % self.request.len()..]) {
                Ok(Moved::Bytes(count)) => self.sent += count,
                Ok(Moved::Blocked) => return,
                Ok(Moved::Closed) | Err(_) => self.socket = None,
            }
        }
    }

    fn requests(&self) -> u64 {
        (self.sent / self.request.len()) as u64
    }
}

fn print(clients: &[Client], elapsed: Duration, pid: Option<u32>) -> io::Result<()> {
    let requests: u64 = clients.iter().map(Client::requests).sum();
    let open = clients.iter().filter(|client| client.socket.is_some()).count();
    let memory = memory(pid)?.map(|bytes| format!(", {} KiB resident", bytes / 1024)).unwrap_or_default();
    println!(
        "{:>4.0} s: {requests} requests sent, {open} of {} connections open{memory}",
        elapsed.as_secs_f64(),
        clients.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Upstream;
    use crate::upstream::mcp::{Mcp, McpOptions};

    #[test]
    fn a_server_with_back_pressure_stops_taking_requests() {
        let upstream = Upstream::start(
            Mcp::new(McpOptions { answer_bytes: 100_000, ..McpOptions::default() }),
            Duration::ZERO,
            None,
        );
        let upstream = upstream.expect("starts");
        let endpoint = Endpoint { address: upstream.address, path: "/mcp".into() };
        let options =
            NeverReadOptions { connections: 1, request_bytes: 200, hold: Duration::from_millis(300), pid: None };
        let sent = run(&endpoint, &options).expect("runs");
        assert!(sent > 10);
    }
}
