//! What the black-box tests share: a gateway process, raw peers on both of its sides, and waiting for a condition. It
//! knows nothing of the gateway's code; every peer here is written on its own, so that no bug can hide on both sides.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod config;
pub mod gateway;
pub mod listens;
pub mod mcp_client;
pub mod mcp_server;
pub mod modern_client;
pub mod modern_server;
pub mod sse_client;
pub mod sse_server;
pub mod stdio_server;
pub mod tls;
pub mod upstream;
pub mod wire;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a peer waits before a test has failed. Generous: nothing here measures time.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Ports are taken from below the range that the kernel gives to outgoing connections (32768 by default).
const PORTS_FROM: u16 = 12_000;
const PORTS: u16 = 18_000;

/// A port of 127.0.0.1 that nobody listens on, and that no other test of this process is given.
pub fn free_port() -> u16 {
    static FIRST: OnceLock<u16> = OnceLock::new();
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = *FIRST.get_or_init(|| (RandomState::new().build_hasher().finish() % u64::from(PORTS)) as u16);
    for _ in 0..PORTS {
        let offset = (u32::from(first) + u32::from(TAKEN.fetch_add(1, Ordering::Relaxed))) % u32::from(PORTS);
        let port = PORTS_FROM + offset as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Waits until a condition holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not so after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process's resident memory in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number of KiB")
}

/// The processes whose parent is `pid`.
pub fn children_of(pid: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|&id| parent_of(id) == Some(pid)).collect()
}

/// Whether a process is there, a zombie included.
pub fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name is in parentheses and may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}
