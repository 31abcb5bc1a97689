//! What may be typed, and what it means to the library. It starts nothing.

use agentlane_bench::compare::Plan;
use agentlane_bench::load::mcp::Endpoint;
use agentlane_bench::peers::agentlane::GatewayOptions;
use agentlane_bench::upstream::mcp::McpOptions;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// CPU per request of a proxy beside a raw TCP forward of the same bytes.
#[derive(Parser)]
#[command(name = "agentlane-bench", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Compare(Compare),
    Forward(Forward),
    Upstream(UpstreamArgs),
    Load(Load),
}

/// Drive the gateway, the forward and other proxies in turn, and print CPU per request and ratios.
///
/// The proxy under test runs on one CPU, the load and the fake upstreams on another. The run ends by itself after about
/// rounds x (warm-up + seconds) x scenarios of all proxies.
///
/// Example: agentlane-bench compare --agentlane target/release/agentlane --nginx
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Compare {
    /// The gateway's program; left out of the comparison if not given.
    #[arg(long, value_name = "PATH")]
    pub agentlane: Option<PathBuf>,
    /// Compare with nginx too; without a path, the one of the search path.
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "nginx")]
    pub nginx: Option<PathBuf>,
    /// Compare with HAProxy too; without a path, the one of the search path.
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "haproxy")]
    pub haproxy: Option<PathBuf>,
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Measured seconds of each proxy and scenario in a round.
    #[arg(long, default_value_t = 2.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// Seconds of load before each measurement.
    #[arg(long, default_value_t = 0.4, value_parser = parse_seconds)]
    pub warm_up: f64,
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// Body of a request, bytes.
    #[arg(long, default_value_t = 200)]
    pub request_bytes: usize,
    #[command(flatten)]
    pub answers: Answers,
    /// Access records of the gateway; its own default if not given.
    #[arg(long)]
    pub access_log: Option<Switch>,
    /// File for the gateway's output, access records included; thrown away if not given.
    #[arg(long, value_name = "FILE")]
    pub gateway_output: Option<PathBuf>,
    /// A further argument of the gateway's `run`; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub gateway_arg: Vec<String>,
    /// CPU of the proxies; by default the first that this process may use.
    #[arg(long, value_name = "CPU")]
    pub proxy_cpu: Option<usize>,
    /// CPU of the load and the upstreams; by default the second, on another core where there is one.
    #[arg(long, value_name = "CPU")]
    pub load_cpu: Option<usize>,
    /// Write everything that was measured to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Copy bytes between a port and an upstream, one connection for one: the floor.
#[derive(Args)]
pub struct Forward {
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    #[arg(long, value_name = "ADDRESS")]
    pub to: SocketAddr,
}

/// Serve as a fake upstream until killed.
#[derive(Args)]
pub struct UpstreamArgs {
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    #[arg(long, default_value = "plain")]
    pub kind: Kind,
    #[command(flatten)]
    pub answers: Answers,
}

/// How fake upstreams answer.
#[derive(Args)]
pub struct Answers {
    /// Body of an answer, bytes.
    #[arg(long, default_value_t = 200)]
    pub answer_bytes: usize,
    /// Milliseconds until an answer.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub latency: u64,
    /// MCP answers come as an event stream, as the official SDKs send them, and not as JSON.
    #[arg(long)]
    pub event_stream: bool,
    /// Tools of each MCP server, about 1 KB each in the list.
    #[arg(long, default_value_t = 10)]
    pub tools: usize,
}

/// Load one URL and print what came of it.
///
/// Examples:
///   agentlane-bench load http://127.0.0.1:3000/mcp --work call --seconds 10 --pid 4711
///   agentlane-bench load http://127.0.0.1:3000/mcp --idle --sessions 10000 --hold 30 --pid 4711
///   agentlane-bench load http://127.0.0.1:3000/mcp --never-read --connections 4 --hold 30 --pid 4711
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Load {
    /// http://HOST:PORT/PATH
    #[arg(value_parser = parse_url)]
    pub url: Endpoint,
    #[arg(long, default_value = "call", conflicts_with_all = ["idle", "never_read"])]
    pub work: LoadWork,
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// Body of a request, bytes.
    #[arg(long, default_value_t = 200)]
    pub request_bytes: usize,
    /// Process whose CPU time and memory are printed.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Open sessions and leave them alone.
    #[arg(long, conflicts_with = "never_read")]
    pub idle: bool,
    /// Sessions to hold.
    #[arg(long, default_value_t = 10_000, requires = "idle")]
    pub sessions: usize,
    /// Ask for each session's stream too.
    #[arg(long, requires = "idle")]
    pub stream: bool,
    /// Send requests and read no answer.
    #[arg(long)]
    pub never_read: bool,
    /// Seconds to hold idle sessions or to keep sending.
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    pub hold: f64,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Kind {
    Plain,
    Mcp,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum LoadWork {
    Http,
    Call,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl Compare {
    pub fn plan(&self) -> Plan {
        Plan {
            rounds: self.rounds,
            connections: self.connections,
            warm_up: Duration::from_secs_f64(self.warm_up),
            measure: Duration::from_secs_f64(self.seconds),
            request_bytes: self.request_bytes,
            answer_bytes: self.answers.answer_bytes,
        }
    }

    pub fn gateway(&self, program: &Path) -> GatewayOptions {
        GatewayOptions {
            program: program.to_owned(),
            access_log: self.access_log.map(|switch| switch == Switch::On),
            output: self.gateway_output.clone(),
            arguments: self.gateway_arg.clone(),
        }
    }
}

impl Answers {
    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.latency)
    }

    pub fn mcp(&self) -> McpOptions {
        McpOptions { answer_bytes: self.answer_bytes, event_stream: self.event_stream, tools: self.tools }
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("not between 0 and 86400".to_owned()) }
}

fn parse_url(text: &str) -> Result<Endpoint, String> {
    let rest = text.strip_prefix("http://").ok_or("not an http:// URL")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let address =
        authority.to_socket_addrs().map_err(|error| format!("{authority}: {error}"))?.next().ok_or("no address")?;
    Ok(Endpoint { address, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn urls() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let parsed = parse_url(text).ok().map(|endpoint| (endpoint.address.to_string(), endpoint.path));
            assert_eq!(parsed, expected.map(|(address, path)| (address.to_owned(), path.to_owned())), "{text}");
        };
        check("http://127.0.0.1:3000/mcp", Some(("127.0.0.1:3000", "/mcp")));
        check("http://127.0.0.1", Some(("127.0.0.1:80", "/")));
        check("https://127.0.0.1/", None);
        check("127.0.0.1:1", None);
        check("http://127.0.0.1:99999/", None);
    }
}
