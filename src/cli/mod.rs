//! The command line: what was typed, and which part of the program it means. Thin: nothing is decided here.

mod audit;
mod check;
mod connect;
mod doctor;
mod explain;
mod lock;
mod run;
mod schema;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use agentlane_runtime::RuntimeChoice;
use clap::{Args, Parser, Subcommand};

/// sysexits.h: the configuration is wrong.
pub const EXIT_CONFIG: u8 = 78;
/// sysexits.h: an address or another resource of the host cannot be had.
pub const EXIT_UNAVAILABLE: u8 = 69;

const EXIT_CODES: &str = "Exit codes:
  0   ended as asked
  1   failed while running
  2   wrong command line
  69  an address or another resource of the host cannot be had
  78  the configuration is wrong";

const EXAMPLES: &str = "Examples:
  agentlane run --demo                        two small MCP servers behind http://127.0.0.1:3000/mcp
  agentlane -f agentlane.yaml                 the same as `agentlane run -f agentlane.yaml`
  agentlane check agentlane.yaml              every fault of a file, with line and path
  agentlane doctor                            what of this host costs latency
  agentlane audit verify audit.jsonl          whether records of an audit log are missing or changed
  agentlane connect http://host:3000/mcp      a remote server for a client that speaks on standard streams
  agentlane run -f agentlane.yaml --shards 4  four shards, whatever the file says";

#[derive(Parser)]
#[command(name = "agentlane", version, about, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the gateway
    #[command(after_help = "Examples:
  agentlane run -f agentlane.yaml
  agentlane run -f agentlane.yaml --shards 2 --runtime glommio
  agentlane run --demo
Signals: SIGTERM and SIGINT drain and end, SIGHUP reads the file again, SIGUSR1 reopens the access log.")]
    Run(RunArgs),
    /// Serve a remote MCP server to a client on standard input and output
    #[command(long_about = CONNECT, after_help = CONNECT_EXAMPLES)]
    Connect(ConnectArgs),
    /// Check a configuration file and print every fault
    #[command(after_help = "Examples:
  agentlane check agentlane.yaml
  agentlane check --lenient agentlane.yaml    keys that are not built yet are warnings")]
    Check(CheckArgs),
    /// Say what of this host costs latency, connections or the start
    #[command(long_about = DOCTOR, after_help = "Examples:
  agentlane doctor
  agentlane doctor --shards 8 --json
  agentlane doctor --root /tmp/otherhost     a copy of another host's /proc and /sys

Exit codes: 0 without a finding that fails, 1 with one.")]
    Doctor(DoctorArgs),
    /// Work with audit logs
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Write, compare and approve what targets offer
    #[command(long_about = lock::ABOUT, after_help = lock::EXAMPLES)]
    Lock(lock::LockArgs),
    /// Say which rule allows or refuses something, and why
    #[command(long_about = EXPLAIN, after_help = "Examples:
  agentlane explain -f agentlane.yaml --route tools --principal claims.json --tool github__delete_repo
  agentlane explain -f agentlane.yaml --route tools --principal - --resource file:///etc/passwd --target files
  agentlane explain -f agentlane.yaml --route site --path /admin --header 'x-team: red'")]
    Explain(ExplainArgs),
    /// Print the JSON schema of the configuration
    #[command(after_help = "Example:
  agentlane schema > agentlane.schema.json")]
    Schema,
    /// The demo's stdio server
    #[command(hide = true)]
    DemoNotes,
}

#[derive(Args)]
struct RunArgs {
    /// The configuration, YAML or JSON
    #[arg(short = 'f', long = "file", value_name = "FILE", required_unless_present = "demo", conflicts_with = "demo")]
    file: Option<PathBuf>,
    /// Serve two embedded MCP servers on 127.0.0.1:3000
    #[arg(long)]
    demo: bool,
    /// How many shards, over what the file says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    shards: Option<u32>,
    /// What drives the shards' I/O, over what the file says: monoio or glommio
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<RuntimeChoice>,
    /// Take keys that are known but not built yet as warnings
    #[arg(long)]
    lenient: bool,
}

const CONNECT: &str = "Serve a remote MCP server to a client on standard input and output

For clients that start their servers themselves, like Claude Desktop. The remote may be an agentlane gateway or any MCP
server over HTTP, of 2024-11-05 (HTTP+SSE) or later. The log goes to standard error (AGENTLANE_LOG sets its level); the end of
standard input ends the session and the process.";

const CONNECT_EXAMPLES: &str = r#"Examples:
  agentlane connect http://127.0.0.1:3000/mcp
  agentlane connect --header 'Authorization: Bearer TOKEN' http://tools.internal/mcp

In claude_desktop_config.json:
  {
    "mcpServers": {
      "tools": {
        "command": "agentlane",
        "args": ["connect", "--header", "Authorization: Bearer TOKEN", "http://tools.internal/mcp"]
      }
    }
  }"#;

#[derive(Args)]
struct ConnectArgs {
    /// The remote endpoint, like http://127.0.0.1:3000/mcp
    #[arg(value_parser = connect::url)]
    url: String,
    /// A header for every request to it; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = connect::header)]
    headers: Vec<(String, String)>,
    /// What the remote is spoken to in: auto, legacy, modern, or one revision like 2025-06-18
    #[arg(long, value_name = "PROTOCOL", value_parser = connect::protocol)]
    protocol: Option<String>,
}

#[derive(Args)]
struct CheckArgs {
    /// The configuration, YAML or JSON
    file: PathBuf,
    /// Take keys that are known but not built yet as warnings
    #[arg(long)]
    lenient: bool,
}

const EXPLAIN: &str = "Say which rule allows or refuses something, and why

Asks the rules of a route (authorization of its listener and itself, mcpAuthorization of itself and its backend) as a request
would, and prints the decision, each rule with its line and column, and what the rule read. No gateway has to run.";

#[derive(Args)]
struct ExplainArgs {
    /// The configuration, YAML or JSON
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    /// The route's name
    #[arg(long, value_name = "NAME")]
    route: String,
    /// Who asks: a file with the claims of a token, or with jwt, apiKey and basicAuth; - is standard input [default: nobody]
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    principal: Option<String>,
    /// A tool, by its name at its target, or with the prefix that clients see
    #[arg(long, value_name = "NAME", group = "thing")]
    tool: Option<String>,
    /// A prompt, likewise
    #[arg(long, value_name = "NAME", group = "thing")]
    prompt: Option<String>,
    /// A resource's URI, or a template's
    #[arg(long, value_name = "URI", group = "thing")]
    resource: Option<String>,
    /// The target of the tool, prompt or resource
    #[arg(long, value_name = "NAME", requires = "thing")]
    target: Option<String>,
    /// The request's method
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    method: String,
    /// The request's path and query
    #[arg(long, value_name = "PATH", default_value = "/mcp")]
    path: String,
    /// A header of the request; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = connect::header)]
    headers: Vec<(String, String)>,
    /// The client's address [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    source: Option<std::net::IpAddr>,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
    /// Take keys that are known but not built yet as warnings
    #[arg(long)]
    lenient: bool,
}

const DOCTOR: &str = "Say what of this host costs latency, connections or the start

Reads /proc and /sys, tries to set up a ring, and judges: pass, warn, fail, or unseen where a container or a virtual machine
hides the fact. Nothing is changed; each warning says what to set, and why.";

#[derive(Args)]
struct DoctorArgs {
    /// How many shards are meant to run [default: as many as the gateway would start]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    shards: Option<u32>,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
    /// Read a copy of a host's /proc and /sys below this folder
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Check that audit records are as they were written, and name the first that is not
    #[command(long_about = VERIFY, after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
}

const VERIFY: &str = "Check that audit records are as they were written, and name the first that is not

Records are numbered per shard, so that a missing one shows; chained ones (config.audit.chain) show changes as well. Give
rotated files in the order of their writing. What was cut off at the end shows by the next start of the gateway in the same
file, by a missing record of the end, and by what the admin API told before (GET /api/v1/audit).";

const VERIFY_EXAMPLES: &str = "Examples:
  agentlane audit verify audit.jsonl
  agentlane audit verify --key-file audit.key audit.jsonl.1 audit.jsonl
  curl -s http://127.0.0.1:15000/api/v1/audit > heads.json && agentlane audit verify --heads heads.json audit.jsonl
Exit codes: 0 whole, 1 broken, 2 wrong command line, 69 a file cannot be read.";

#[derive(Args)]
struct VerifyArgs {
    /// The log, and before it what was rotated away, in the order of writing
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A file with the key of the chain (config.audit.key)
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// What the admin API told of the last records, in a file
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(with_run(std::env::args_os().collect()));
    match cli.command {
        Command::Run(args) => run::run(args),
        Command::Connect(args) => connect::run(args),
        Command::Check(args) => check::check(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Audit(AuditCommand::Verify(args)) => audit::verify(&args),
        Command::Lock(args) => lock::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Schema => schema::print(),
        Command::DemoNotes => crate::demo::stdio::run(),
    }
}

/// `agentlane -f FILE` means `agentlane run -f FILE`.
fn with_run(mut args: Vec<OsString>) -> Vec<OsString> {
    let bare = args
        .get(1)
        .and_then(|first| first.to_str())
        .is_some_and(|first| first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&first));
    if bare {
        args.insert(1, "run".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_file_runs() {
        let parse = |args: &[&str]| Cli::try_parse_from(with_run(args.iter().map(OsString::from).collect()));
        assert!(matches!(parse(&["agentlane", "-f", "a.yaml"]), Ok(Cli { command: Command::Run(_) })));
        assert!(parse(&["agentlane", "run", "-f", "a.yaml", "--shards", "2"]).is_ok());
        assert!(parse(&["agentlane", "run"]).is_err());
        assert!(parse(&["agentlane", "run", "-f", "a", "--shards", "0"]).is_err());
        assert!(parse(&["agentlane", "run", "-f", "a", "--runtime", "tokio"]).is_err());
        assert!(matches!(parse(&["agentlane", "--demo"]), Ok(Cli { command: Command::Run(_) })));
    }
}
