//! Many sessions that do nothing: what each costs the process that holds them.

use super::mcp::{Endpoint, Session};
use crate::cpu;
use std::io;
use std::time::Duration;

/// How many, how, and for how long.
#[derive(Debug, Clone)]
pub struct IdleOptions {
    pub sessions: usize,
    /// Open the session's stream on its connection too.
    pub stream: bool,
    pub hold: Duration,
    /// Process whose memory is printed.
    pub pid: Option<u32>,
}

/// Opens the sessions, holds them, ends them, and prints the memory of `pid` at each step.
pub fn run(endpoint: &Endpoint, options: &IdleOptions) -> io::Result<()> {
    // Each session is a descriptor here.
    agentlane_perf::raise_nofile()?;
    let before = memory(options.pid)?;
    print_memory("before", before, None, options.sessions);
    let mut sessions = Vec::with_capacity(options.sessions);
    for count in 1..=options.sessions {
        let mut session =
            Session::open(endpoint).map_err(|error| io::Error::other(format!("session {count}: {error}")))?;
        if options.stream {
            session.open_stream()?;
        }
        sessions.push(session);
        if count % 1000 == 0 {
            println!("{count} sessions open");
        }
    }
    print_memory("open", memory(options.pid)?, before, options.sessions);
    std::thread::sleep(options.hold);
    print_memory("held", memory(options.pid)?, before, options.sessions);
    let ended = sessions.iter().filter(|session| session.end().is_ok()).count();
    println!("{ended} of {} sessions were still there and are ended", sessions.len());
    drop(sessions);
    std::thread::sleep(Duration::from_secs(1));
    print_memory("after", memory(options.pid)?, before, options.sessions);
    Ok(())
}

/// Resident bytes, if there is a process to look at.
pub(super) fn memory(pid: Option<u32>) -> io::Result<Option<u64>> {
    pid.map(cpu::resident_bytes).transpose()
}

fn print_memory(step: &str, now: Option<u64>, before: Option<u64>, sessions: usize) {
    match (now, before) {
        (Some(now), Some(before)) => {
            let each = now.saturating_sub(before) as f64 / sessions.max(1) as f64;
            println!("{step}: {} KiB resident, {each:.0} bytes more per session", now / 1024);
        }
        (Some(now), None) => println!("{step}: {} KiB resident", now / 1024),
        (None, _) => println!("{step}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Upstream;
    use crate::upstream::mcp::{Mcp, McpOptions};

    #[test]
    fn sessions_are_opened_held_and_ended() {
        let upstream = Upstream::start(Mcp::new(McpOptions::default()), Duration::ZERO, None).expect("starts");
        let endpoint = Endpoint { address: upstream.address, path: "/mcp".into() };
        let options = IdleOptions { sessions: 20, stream: true, hold: Duration::ZERO, pid: Some(std::process::id()) };
        run(&endpoint, &options).expect("all opened");
    }
}
