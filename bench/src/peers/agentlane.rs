//! The gateway under test: one shard, a plain route and two MCP endpoints, of one target and of two.

use super::{Peer, Scenario, Setting, free_addresses, write_config};
use crate::peers::process::Process;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How the gateway is run, beside the setting that all peers share.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    pub program: PathBuf,
    /// Write access records: `None` leaves the gateway's own default.
    pub access_log: Option<bool>,
    /// Where all its output goes; thrown away if `None`.
    pub output: Option<PathBuf>,
    /// Further arguments of `run`, such as `--runtime glommio`.
    pub arguments: Vec<String>,
}

pub fn start(options: &GatewayOptions, setting: &Setting) -> io::Result<Peer> {
    let doors @ [plain, call, federated] = free_addresses()?;
    let config = config(&doors, &free_addresses()?, setting, options.access_log);
    let config = write_config(&setting.folder, "agentlane.yaml", &config)?;
    let mut command = Command::new(&options.program);
    command.arg("run").arg("-f").arg(config).arg("--shards").arg("1").args(&options.arguments);
    let (out, err) = output(options.output.as_deref())?;
    command.stdout(out).stderr(err);
    let process = Process::start(&mut command, setting.cpu, &doors)?;
    let doors = [(Scenario::Plain, plain, 0), (Scenario::Call, call, 0), (Scenario::FederatedCall, federated, 0)];
    Ok(Peer::new("agentlane", vec![process], &doors))
}

fn output(path: Option<&Path>) -> io::Result<(Stdio, Stdio)> {
    let Some(path) = path else {
        return Ok((Stdio::null(), Stdio::null()));
    };
    let file = std::fs::File::create(path)?;
    Ok((file.try_clone()?.into(), file.into()))
}

fn config(doors: &[SocketAddr; 3], services: &[SocketAddr; 3], setting: &Setting, access_log: Option<bool>) -> String {
    let [admin, stats, readiness] = services;
    let mut text = format!("config:\n  adminAddr: {admin}\n  statsAddr: {stats}\n  readinessAddr: {readiness}\n");
    if let Some(on) = access_log {
        let _ = write!(text, "  logging:\n    accessLog: {on}\n");
    }
    let [plain, call, federated] =
        doors.map(|door| format!("- port: {}\n  listeners:\n  - routes:\n    - backends:\n", door.port()));
    let [one, two] = setting.upstreams.mcp.map(|mcp| {
        format!(
            "            mcp:\n              host: {}\n              port: {}\n              path: /mcp\n",
            mcp.ip(),
            mcp.port()
        )
    });
    let targets = "      - mcp:\n          targets:\n";
    let (one, two) = (format!("          - name: one\n{one}"), format!("          - name: two\n{two}"));
    let _ = write!(
        text,
        "binds:\n{plain}      - host: {}\n{call}{targets}{one}{federated}{targets}{one}{two}",
        setting.upstreams.plain
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Upstreams;

    #[test]
    fn the_document_is_as_a_user_would_write_it() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let setting =
            Setting { upstreams: Upstreams { plain: at(1), mcp: [at(2), at(3)] }, cpu: 0, folder: PathBuf::new() };
        let text = config(&[at(10), at(11), at(12)], &[at(20), at(21), at(22)], &setting, Some(false));
        let expected = "\
config:
  adminAddr: 127.0.0.1:20
  statsAddr: 127.0.0.1:21
  readinessAddr: 127.0.0.1:22
  logging:
    accessLog: false
binds:
- port: 10
  listeners:
  - routes:
    - backends:
      - host: 127.0.0.1:1
- port: 11
  listeners:
  - routes:
    - backends:
      - mcp:
          targets:
          - name: one
            mcp:
              host: 127.0.0.1
              port: 2
              path: /mcp
- port: 12
  listeners:
  - routes:
    - backends:
      - mcp:
          targets:
          - name: one
            mcp:
              host: 127.0.0.1
              port: 2
              path: /mcp
          - name: two
            mcp:
              host: 127.0.0.1
              port: 3
              path: /mcp
";
        assert_eq!(text, expected);
    }
}
