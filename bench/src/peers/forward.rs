//! The floor as a peer: this program again, as `forward`, once for each upstream.

use super::{Peer, Scenario, Setting, free_addresses};
use crate::peers::process::Process;
use std::io;
use std::path::Path;
use std::process::Command;

pub const NAME: &str = "forward";

/// `program` is the executable that has the `forward` command.
pub fn start(program: &Path, setting: &Setting) -> io::Result<Peer> {
    let [plain, call] = free_addresses()?;
    let forward = |listen, to: std::net::SocketAddr| {
        let mut command = Command::new(program);
        command.arg("forward").arg("--listen").arg(format!("{listen}")).arg("--to").arg(to.to_string());
        Process::start(&mut command, setting.cpu, &[listen])
    };
    let processes = vec![forward(plain, setting.upstreams.plain)?, forward(call, setting.upstreams.mcp[0])?];
    Ok(Peer::new(NAME, processes, &[(Scenario::Plain, plain, 0), (Scenario::Call, call, 1)]))
}
