//! HAProxy as a plain reverse proxy, one thread, connections kept and shared on the server side, passing the same bytes as the others.

use super::{Peer, Scenario, Setting, free_addresses, write_config};
use crate::peers::process::Process;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

pub fn start(program: &Path, setting: &Setting) -> io::Result<Peer> {
    let [plain, call] = free_addresses()?;
    let config = config(&[(plain, setting.upstreams.plain), (call, setting.upstreams.mcp[0])]);
    let config = write_config(&setting.folder, "haproxy.cfg", &config)?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-q").arg("-f").arg(config).stdout(Stdio::null());
    let process = Process::start(&mut command, setting.cpu, &[plain, call])?;
    Ok(Peer::new("haproxy", vec![process], &[(Scenario::Plain, plain, 0), (Scenario::Call, call, 0)]))
}

fn config(routes: &[(SocketAddr, SocketAddr)]) -> String {
    let mut text = String::from(
        "global\n  nbthread 1\n  maxconn 8192\ndefaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n\
         \x20 timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n",
    );
    for (number, (listen, upstream)) in routes.iter().enumerate() {
        let _ = write!(text, "listen l{number}\n  bind {listen}\n  server s{number} {upstream}\n");
    }
    text
}
