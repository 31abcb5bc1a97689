//! An MCP backend: its targets and how they are federated. Must not know what routes to it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::auth::BackendAuth;
use crate::cache::Cache;
use crate::context::{Context, Place, Table};
use crate::fault::FaultKind;
use crate::form::{Attempt, Attempted, Form, Named, record, words};
use crate::http::split_port;
use crate::lock::TargetLockMode;
use crate::policy::TargetPolicies;
use crate::scalar::{FilePath, Int, Port, Secret, UrlPath, parse_host};
use crate::schema::Definitions;
use crate::stdio::{ChildLimits, Network};
use crate::tree::Node;

/// Longest target name, in characters: `name__tool` must leave room for the tool within the 64 characters that clients
/// allow for a tool's name.
pub const TARGET_NAME_CHARS_MAX: usize = 32;

/// One or more MCP servers served as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Mcp {
    /// In the order written; names are unique. Empty only where `lenient` left every target out.
    pub targets: Vec<Target>,
    /// When names carry their target's name.
    pub prefix: PrefixMode,
    /// What one failing target does to the others.
    pub failure: FailureMode,
    /// Whether Host and Origin must name this machine.
    pub dns_rebinding_protection: bool,
    /// How long a fan-out waits for its targets.
    pub deadline: Duration,
    /// How long a session may be without a request or an open stream.
    pub session_idle_timeout: Duration,
    /// How long a request of a client without a session waits for what it asked that client.
    pub input_timeout: Duration,
    /// Most entries on one page of a merged list.
    pub page_size: u32,
    /// Most characters of an outward name; longer ones are shortened.
    pub name_length: u32,
}

record! {
    /// How several targets are served as one. Shared by an MCP backend and the `mcp` section.
    pub(crate) struct Federation {
        /// MCP servers, served as one.
        pub targets: Vec<Attempted<Target>> = must "targets" as Vec<Attempt<TargetDoc>>;
        /// Whether sessions are kept. Default: stateful.
        pub stateful: StatefulMode = or(StatefulMode::Stateful) "statefulMode";
        /// When the names of tools and prompts carry their target's name as in `target__tool`. Default: conditional.
        pub prefix: PrefixMode = or(PrefixMode::Conditional) "prefixMode";
        /// What one failing target does to the others. Default: failOpen.
        pub failure: FailureMode = or(FailureMode::FailOpen) "failureMode";
        /// Refuses requests with a foreign Origin, and on loopback addresses with a foreign Host. Default: true.
        pub dns_rebinding_protection: bool = or(true) "dnsRebindingProtection";
        /// How long a request that goes to every target waits for them. Default: 10s.
        pub deadline: Duration = or(Duration::from_secs(10)) "deadline";
        /// How long a session may be idle before it ends. Default: `config.mcp.sessionTtl`, which is 30m.
        pub session_idle_timeout: Option<Duration> = opt "sessionIdleTimeout";
        /// How long a request of a client without a session (2026-07-28) waits for the input that it asked for, before it is
        /// cancelled at its target. Default: 10m.
        pub input_timeout: Duration = or(Duration::from_secs(600)) "inputTimeout";
        /// Most entries on one page of a merged list, 1 to 100000. Default: 1000.
        pub page_size: u32 = or(1000) "pageSize" as Int<u32, 1, 100_000>;
        /// Most characters of the name of a tool or prompt of a federation, 48 to 1024; a longer one is shortened. Default: 64.
        pub name_length: u32 = or(64) "nameLength" as Int<u32, 48, 1024>;
        /// How long lists are kept.
        pub cache: Cache = or(Cache::default()) "cache";
    }
}

impl Federation {
    /// What it means. `session_ttl` is the process's own; `place` is where the faults of the whole go.
    pub(crate) fn resolve(self, session_ttl: Duration, place: &Place, cx: &mut Context<'_>) -> Mcp {
        if self.targets.is_empty() {
            cx.fault(place.clone(), FaultKind::Missing, "an MCP backend needs a target".to_owned());
        }
        let mut targets: Vec<Target> = Vec::new();
        for attempt in self.targets {
            let Some(target) = attempt.value else { continue };
            if targets.iter().any(|other| other.name == target.name) {
                let message = format!("a second target with the name {:?}", target.name);
                cx.fault(attempt.place, FaultKind::Duplicate, message);
                continue;
            }
            targets.push(Target { cache: target.cache.over(&self.cache), ..target });
        }
        Mcp {
            targets,
            prefix: self.prefix,
            failure: self.failure,
            dns_rebinding_protection: self.dns_rebinding_protection,
            deadline: self.deadline,
            session_idle_timeout: self.session_idle_timeout.unwrap_or(session_ttl),
            input_timeout: self.input_timeout,
            page_size: self.page_size,
            name_length: self.name_length,
        }
    }
}

words! {
    /// Whether sessions are kept.
    pub(crate) enum StatefulMode {
        /// A session lasts over many requests.
        Stateful = "stateful",
    }
    later "stateless";
}

words! {
    /// When a name carries its target's name.
    pub enum PrefixMode {
        /// Even with one target.
        Always = "always",
        /// With more than one target.
        Conditional = "conditional",
        /// Never; names must be unique over the targets.
        Never = "never",
    }
}

words! {
    /// What one failing target does to the others.
    pub enum FailureMode {
        /// It fails the request.
        FailClosed = "failClosed",
        /// The others serve on, and the answer says what is missing.
        FailOpen = "failOpen",
    }
}

/// One MCP server.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Letters, digits, `-` and single inner `_`, at most `TARGET_NAME_CHARS_MAX`; unique within the backend.
    pub name: String,
    /// How it is reached.
    pub transport: Transport,
    /// What it is spoken to in.
    pub protocol: TargetProtocol,
    /// Policies of an HTTP target; the default ones for a stdio target.
    pub policies: TargetPolicies,
    /// How long its lists are kept.
    pub cache: Cache,
    /// What becomes of a client's session when the target forgot its own; `None`: what happened in it decides.
    pub session_loss: Option<SessionLoss>,
    /// What becomes of what differs from the lock file; `None`: as for all.
    pub lock: Option<TargetLockMode>,
}

words! {
    /// What becomes of a client's session when a target forgot its own.
    pub enum SessionLoss {
        /// The target's is opened anew, unseen.
        Reopen = "reopen",
        /// It ends with 404, so that the client begins anew.
        End = "end",
    }
}

/// How a target is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    /// Streamable HTTP.
    Http(HttpTarget),
    /// HTTP with server-sent events as of 2024-11-05, without TLS: the URL is the stream's.
    Sse(HttpTarget),
    /// A child process that speaks over its standard streams.
    Stdio(Stdio),
}

/// An MCP server on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// A name in lowercase or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// With query, if one was written. Begins with `/`.
    pub path: String,
    /// The URL says `https`.
    pub secure: bool,
}

record! {
    /// One MCP server.
    struct TargetRecord {
        /// The name that prefixes its tools and prompts: letters, digits, '-' and single '_' inside, at most 32 characters.
        name: String = must "name" as TargetName;
        /// What the target is spoken to in: found out (auto), with sessions in the client's revision (legacy), without sessions
        /// (modern), or in one revision. Default: auto.
        protocol: TargetProtocol = or(TargetProtocol::Auto) "protocol";
        /// Policies of the connections to it. A stdio target has none.
        policies: Option<TargetPolicies> = opt "policies";
        /// How long its lists are kept; what is absent is as its backend says.
        cache: Cache = or(Cache::default()) "cache";
        /// What becomes of a client's session when the target forgot its own. Default: it is opened anew unless state may
        /// be lost (a tool was called that is not listed as read-only), else the client's ends.
        session_loss: Option<SessionLoss> = opt "onSessionLoss";
        /// What becomes of what differs from the lock file. Default: `lock.mode`.
        lock: Option<TargetLockMode> = opt "lock";
        /// A server reached by streamable HTTP.
        mcp: Option<HttpTarget> = opt "mcp" as Option<HttpTargetDoc>;
        /// A server reached by HTTP with server-sent events, the transport of 2024-11-05: the URL is that of its stream.
        sse: Option<HttpTarget> = opt "sse" as Option<HttpTargetDoc>;
        /// A child process of the gateway that speaks over its standard streams.
        stdio: Option<Stdio> = opt "stdio";
    }
    one of "mcp", "sse", "stdio" later "openapi";
    check keys_fit_the_transport;
}

words! {
    /// What a target is spoken to in.
    pub enum TargetProtocol {
        /// What the client speaks, if the target does too; found out by asking.
        Auto = "auto",
        /// With sessions, in the client's revision.
        Legacy = "legacy",
        /// Without sessions: the same as 2026-07-28.
        Modern = "modern",
        /// Revision 2024-11-05.
        V2024_11_05 = "2024-11-05",
        /// Revision 2025-03-26.
        V2025_03_26 = "2025-03-26",
        /// Revision 2025-06-18.
        V2025_06_18 = "2025-06-18",
        /// Revision 2025-11-25.
        V2025_11_25 = "2025-11-25",
        /// Revision 2026-07-28.
        V2026_07_28 = "2026-07-28",
    }
}

/// The form of a `Target`.
pub(crate) struct TargetDoc;

impl Form for TargetDoc {
    type Out = Target;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Target> {
        let TargetRecord { name, protocol, policies, cache, session_loss, lock, mcp, sse, stdio } =
            TargetRecord::decode(node, cx)?;
        let transport = match (mcp, sse, stdio) {
            (Some(http), ..) => Transport::Http(http),
            (None, Some(http), _) => Transport::Sse(http),
            (None, None, stdio) => Transport::Stdio(stdio?),
        };
        Some(Target { name, transport, protocol, policies: policies.unwrap_or_default(), cache, session_loss, lock })
    }

    fn schema(defs: &mut Definitions) -> Json {
        defs.record::<TargetRecord>("Target", "One MCP server.")
    }
}

fn keys_fit_the_transport(target: &TargetRecord, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    let is_modern = matches!(target.protocol, TargetProtocol::Modern | TargetProtocol::V2026_07_28);
    for (misfits, key, message) in [
        (target.sse.is_some() && is_modern, "protocol", "2026-07-28 is not spoken over the transport of 2024-11-05"),
        (
            target.sse.is_some() && passes_credential(target),
            "policies",
            "backendAuth.passthrough needs streamable HTTP: here one stream serves all that a client sends",
        ),
        (target.stdio.is_some(), "policies", "a stdio target has no connection that policies could act on"),
        (
            target.mcp.is_none(),
            "onSessionLoss",
            "only a target over streamable HTTP has a session that it could forget",
        ),
    ] {
        if let Some(entry) = table.entry(&[key]).filter(|_| misfits) {
            cx.at_key(key, |cx| cx.fault_at(entry.mark, FaultKind::Conflict, message.to_owned()));
        }
    }
    true
}

fn passes_credential(target: &TargetRecord) -> bool {
    let auth = target.policies.as_ref().and_then(|policies| policies.auth.as_ref());
    matches!(auth, Some(BackendAuth::Passthrough(_)))
}

/// The name of a target.
struct TargetName;

impl Form for TargetName {
    type Out = String;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<String> {
        let text = cx.string(node, "a name")?;
        if let Some(reason) = target_name_fault(&text) {
            cx.fault_at(node.mark, FaultKind::Invalid, reason);
            return None;
        }
        Some(text.into_owned())
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "pattern": "^[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*$|\\$"})
    }
}

/// Why a text cannot name a target.
fn target_name_fault(text: &str) -> Option<String> {
    let length = text.chars().count();
    if length == 0 {
        return Some("a target needs a name".to_owned());
    }
    if length > TARGET_NAME_CHARS_MAX {
        return Some(format!(
            "a target's name has at most {TARGET_NAME_CHARS_MAX} characters, this one has {length}: clients refuse tool names \
             over 64 characters, and the name is put before the tool's"
        ));
    }
    if let Some(other) = text.chars().find(|each| !each.is_ascii_alphanumeric() && *each != '-' && *each != '_') {
        return Some(format!(
            "a target's name holds letters, digits, '-' and '_' only, not {other:?}: it becomes part of tool names, in which \
             clients refuse anything else"
        ));
    }
    if text.contains("__") || text.starts_with('_') || text.ends_with('_') {
        return Some(
            "a target's name has no '_' at its ends and no '__': two of them part the target's name from the tool's"
                .to_owned(),
        );
    }
    None
}

record! {
    /// Where an MCP server is reached by HTTP: a URL in `host`, or `host`, `port` and `path`.
    struct HttpTargetRecord {
        /// A URL like `http://localhost:3001/mcp` or `https://example.com/mcp`; or, beside `port` and `path`, a host name or an IP address.
        host: String = must "host";
        /// The port, 1 to 65535.
        port: Option<u16> = opt "port" as Option<Port>;
        /// The path.
        path: Option<UrlPath> = opt "path";
    }
    guard "backend";
}

/// The form of an `HttpTarget`.
struct HttpTargetDoc;

impl Form for HttpTargetDoc {
    type Out = HttpTarget;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<HttpTarget> {
        let mut keys = Vec::new();
        <HttpTargetRecord as crate::form::Record>::keys(&mut keys);
        let table = cx.table(node, &keys)?;
        let record = <HttpTargetRecord as crate::form::Record>::read(&table, cx)?;
        let host = &table.entry(&["host"])?.node;
        match (record.port, record.path) {
            (Some(port), Some(path)) => {
                let expected = "a host name or an IP address (port and path are given beside it)";
                let parsed = parse_host(&record.host);
                if parsed.is_none() {
                    cx.at_key("host", |cx| cx.invalid(host, expected));
                }
                Some(HttpTarget { host: parsed?, port, path: path.0, secure: false })
            }
            (None, None) => cx.at_key("host", |cx| parse_url(&record.host, host, cx)),
            (Some(_), None) => missing_beside("path", "port", &table, cx),
            (None, Some(_)) => missing_beside("port", "path", &table, cx),
        }
    }

    fn schema(defs: &mut Definitions) -> Json {
        defs.record::<HttpTargetRecord>(
            "HttpTarget",
            "Where an MCP server is reached by HTTP: a URL in `host`, or `host`, `port` and `path`.",
        )
    }
}

fn missing_beside(missing: &str, given: &str, table: &Table<'_>, cx: &mut Context<'_>) -> Option<HttpTarget> {
    let message = format!("missing beside {given}; write both, or a whole URL in host");
    cx.at_key(missing, |cx| cx.fault_at(table.mark, FaultKind::Missing, message));
    None
}

/// A URL without user and fragment.
fn parse_url(text: &str, node: &Node, cx: &mut Context<'_>) -> Option<HttpTarget> {
    let expected = "a URL, like http://localhost:3001/mcp";
    let parsed = url_parts(text);
    if parsed.is_none() {
        cx.invalid(node, expected);
    }
    parsed
}

pub(crate) fn url_parts(text: &str) -> Option<HttpTarget> {
    let (secure, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return None,
        None => (false, text),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = split_port(authority)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let (bare, query) = path.split_once('?').unwrap_or((&path, ""));
    UrlPath::parse(bare)?;
    let query_fits = query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    query_fits.then_some(())?;
    Some(HttpTarget { host: parse_host(host)?, port: port.unwrap_or(if secure { 443 } else { 80 }), path, secure })
}

record! {
    /// A child process of the gateway that speaks MCP over its standard streams.
    pub struct Stdio {
        /// The program, looked for in PATH when it holds no '/'.
        pub cmd: String = must "cmd" as Program;
        /// Its arguments.
        pub args: Vec<String> = opt "args" as Vec<Argument>;
        /// Environment variables added to the gateway's own. A value may be a secret.
        pub env: Vec<(String, Secret)> = opt "env" as Named<VariableName, Secret>;
        /// Starts from an empty environment. Default: false.
        pub clear_env: bool = or(false) "clear_env" | "clearEnv";
        /// The folder it runs in, relative to this file. Default: the gateway's own.
        pub cwd: Option<PathBuf> = opt "cwd" as Option<FilePath>;
        /// Whether sessions share one child. Default: perSession.
        pub mode: StdioMode = or(StdioMode::PerSession) "mode";
        /// When a child that ended is started again.
        pub restart: Restart = or(Restart::default()) "restart";
        /// Spare children that are started ahead and wait to be used. Default: 0.
        pub warm: u16 = or(0) "warm" as Int<u16, 0, 256>;
        /// A child without a request for this long is ended, and started again when it is needed; what it kept in its
        /// memory is lost then. One whose resources are subscribed to stays. Default: it runs as long as its sessions,
        /// a shared one for ever.
        pub idle_timeout: Option<Duration> = opt "idleTimeout";
        /// A child that owes an answer and has said nothing for this long, not even to a ping at half of it, is killed
        /// and replaced. Default: 1m.
        pub hung_after: Duration = or(Duration::from_secs(60)) "hungAfter";
        /// Whether it may use the network. Default: allow.
        pub network: Network = or(Network::Allow) "network";
        /// What it may use of the host. Default: no limits of its own.
        pub limits: ChildLimits = or(ChildLimits::default()) "limits";
    }
}

words! {
    /// Whether sessions share one child.
    pub enum StdioMode {
        /// One child for every session.
        Shared = "shared",
        /// A child for each session.
        PerSession = "perSession",
    }
}

record! {
    /// The waits between starts of a child that keeps ending. They double from the least to the most.
    pub struct Restart {
        /// The first wait. Default: 200ms.
        pub backoff_min: Duration = or(Restart::default().backoff_min) "backoffMin";
        /// The longest wait. Default: 30s.
        pub backoff_max: Duration = or(Restart::default().backoff_max) "backoffMax";
    }
    check ordered;
}

impl Default for Restart {
    fn default() -> Self {
        Self { backoff_min: Duration::from_millis(200), backoff_max: Duration::from_secs(30) }
    }
}

fn ordered(restart: &Restart, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    if restart.backoff_min > restart.backoff_max {
        let mark = table.entry(&["backoffMin", "backoffMax"]).map_or(table.mark, |entry| entry.node.mark);
        cx.fault_at(mark, FaultKind::Conflict, "backoffMin is longer than backoffMax".to_owned());
    }
    true
}

/// A text that can be handed to a new process.
struct Argument;

impl Form for Argument {
    type Out = String;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<String> {
        let text = cx.string(node, "a string")?;
        if text.contains('\0') {
            cx.invalid(node, "a string without a zero byte");
            return None;
        }
        Some(text.into_owned())
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string"})
    }
}

/// The program of a stdio target.
struct Program;

impl Form for Program {
    type Out = String;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<String> {
        let text = Argument::decode(node, cx)?;
        if text.is_empty() {
            cx.invalid(node, "the name of a program");
            return None;
        }
        Some(text)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "minLength": 1})
    }
}

/// The name of an environment variable.
struct VariableName;

impl crate::form::Key for VariableName {
    type Out = String;

    fn parse(text: &str) -> Result<String, &'static str> {
        match !text.is_empty() && !text.contains(['=', '\0']) {
            true => Ok(text.to_owned()),
            false => Err("the name of an environment variable"),
        }
    }
}
