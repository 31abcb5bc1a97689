//! Settings of the process and its shards: addresses, logging, the session key, HTTP limits, cores. Must not know listeners.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::audit::{self, Audit};
use crate::context::{Context, Table};
use crate::fault::{Fault, FaultKind};
use crate::form::{Form, record, words};
use crate::scalar::{ENDPOINT, Endpoint, FilePath, Int, SESSION_KEY, Secret, SessionKey};
use crate::schema::Definitions;
use crate::tree::{Node, Value};

record! {
    /// Settings of the process, read at start.
    pub struct ProcessConfig {
        /// The admin server: `ip:port`, `localhost:port`, `:port` or `off`. Default: 127.0.0.1:15000. ADMIN_ADDR stands above it.
        pub admin: Endpoint = or(endpoint([127, 0, 0, 1], 15000)) "adminAddr";
        /// What the admin server wants as `Authorization: Bearer`, 16 bytes at least. Default: nothing.
        pub admin_key: Option<Secret> = opt "adminKey";
        /// The metrics server. Default: every address, port 15020. STATS_ADDR stands above it.
        pub stats: Endpoint = or(endpoint([0, 0, 0, 0], 15020)) "statsAddr";
        /// The readiness server. Default: every address, port 15021. READINESS_ADDR stands above it.
        pub readiness: Endpoint = or(endpoint([0, 0, 0, 0], 15021)) "readinessAddr";
        /// What is logged and how.
        pub logging: Logging = or(Logging::default()) "logging";
        /// The audit log. Default: none.
        pub audit: Option<Audit> = opt "audit";
        /// Sessions and their seal.
        pub session: Option<SessionConfig> = opt "session";
        /// Settings of every MCP backend.
        pub mcp: McpDefaults = or(McpDefaults::default()) "mcp";
        /// Connections to backends.
        pub upstream: Upstream = or(Upstream::default()) "backend";
        /// How long open requests may take after a signal to end. Default: 10s.
        pub termination_deadline: Duration = or(Duration::from_secs(10)) "connectionTerminationDeadline";
    }
    later "enableIpv6", "dns", "localXdsPath", "modelCatalog", "database", "storage", "caAddress", "caAuthToken", "xdsAddress",
        "xdsAuthToken", "spiffe", "namespace", "gateway", "trustDomain", "additionalTrustDomains", "skipValidateTrustDomain",
        "serviceAccount", "clusterId", "network", "standardAttributes", "histograms", "sensitiveHeaders", "customFunctions",
        "connectionMinTerminationDeadline", "workerThreads", "tracing", "metrics", "hbone";
    check admin_key_fits;
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            admin: endpoint([127, 0, 0, 1], 15000),
            stats: endpoint([0, 0, 0, 0], 15020),
            readiness: endpoint([0, 0, 0, 0], 15021),
            admin_key: None,
            logging: Logging::default(),
            audit: None,
            session: None,
            mcp: McpDefaults::default(),
            upstream: Upstream::default(),
            termination_deadline: Duration::from_secs(10),
        }
    }
}

fn admin_key_fits(process: &ProcessConfig, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    audit::long_enough(process.admin_key.as_ref(), "adminKey", table, cx)
}

fn endpoint(ip: [u8; 4], port: u16) -> Endpoint {
    Endpoint::Tcp((ip, port).into())
}

/// Puts the environment's addresses and session key in the place of the document's.
pub(crate) fn from_environment(process: &mut ProcessConfig, cx: &mut Context<'_>) {
    let ProcessConfig { admin, stats, readiness, .. } = process;
    for (name, endpoint) in [("ADMIN_ADDR", admin), ("STATS_ADDR", stats), ("READINESS_ADDR", readiness)] {
        let Some(text) = (cx.env)(name) else { continue };
        match Endpoint::parse(&text) {
            Some(value) => *endpoint = value,
            None => environment_fault(cx, name, format!("expected {ENDPOINT}, got {text:?}")),
        }
    }
    let Some(text) = (cx.env)("SESSION_KEY") else { return };
    match SessionKey::parse(&text) {
        Some(key) => process.session = Some(SessionConfig { key }),
        None => environment_fault(cx, "SESSION_KEY", format!("expected {SESSION_KEY}, got something else")),
    }
}

fn environment_fault(cx: &mut Context<'_>, name: &str, message: String) {
    let file = "environment".to_owned();
    cx.faults.push(Fault { file, line: 0, column: 0, path: name.to_owned(), message, kind: FaultKind::Invalid });
}

record! {
    /// What is logged and how.
    pub struct Logging {
        /// A level (`error`, `warn`, `info`, `debug`, `trace`, `off`), levels by module like `info,agentlane=debug`, or a
        /// list of these. Default: info.
        pub level: String = or("info".to_owned()) "level" as LogLevel;
        /// Default: text.
        pub format: LogFormat = or(LogFormat::Text) "format";
        /// One record for each request: true (to the standard output), false, or a file. Default: true.
        pub access_log: AccessLog = or(AccessLog::Standard) "accessLog";
    }
    later "filter", "fields", "database";
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text, access_log: AccessLog::Standard }
    }
}

words! {
    /// How a log record is written.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

/// Where access records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// The standard output.
    Standard,
    /// This file, appended to.
    File(PathBuf),
}

impl Form for AccessLog {
    type Out = AccessLog;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<AccessLog> {
        match &node.value {
            Value::Scalar(scalar) if scalar.plain && matches!(scalar.text.as_str(), "true" | "True" | "TRUE") => {
                Some(AccessLog::Standard)
            }
            Value::Scalar(scalar) if scalar.plain && matches!(scalar.text.as_str(), "false" | "False" | "FALSE") => {
                Some(AccessLog::Off)
            }
            Value::Scalar(_) if !node.is_null() => FilePath::decode(node, cx).map(AccessLog::File),
            _ => {
                cx.invalid(node, "true, false or a path");
                None
            }
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"anyOf": [{"type": "boolean"}, {"type": "string", "minLength": 1}]})
    }
}

/// A level, or levels by module, joined by commas.
struct LogLevel;

impl Form for LogLevel {
    type Out = String;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<String> {
        let Value::Sequence(items) = &node.value else { return level(node, cx) };
        let mut parts = Vec::new();
        for (index, item) in items.iter().enumerate() {
            parts.push(cx.at_index(index, |cx| level(item, cx)));
        }
        let parts: Option<Vec<String>> = parts.into_iter().collect();
        parts.map(|parts| parts.join(","))
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    }
}

fn level(node: &Node, cx: &mut Context<'_>) -> Option<String> {
    let expected = "a level (error, warn, info, debug, trace, off) or module=level";
    let text = cx.string(node, expected)?;
    let is_level = |level: &str| {
        let levels = ["error", "warn", "info", "debug", "trace", "off"];
        levels.iter().any(|known| known.eq_ignore_ascii_case(level.trim()))
    };
    let fits = text.split(',').all(|part| is_level(part.rsplit_once('=').map_or(part, |(_, level)| level)));
    if !fits {
        cx.invalid(node, expected);
        return None;
    }
    Some(text.into_owned())
}

record! {
    /// Sessions and their seal.
    pub struct SessionConfig {
        /// The key that seals session ids: 32 bytes as 64 hexadecimal digits or base64, a variable, or `{file: path}`.
        /// Without one a key is made at start. SESSION_KEY stands above it.
        pub key: SessionKey = must "key";
    }
}

record! {
    /// Settings of every MCP backend.
    pub struct McpDefaults {
        /// How long a session may be idle before it ends. Default: 30m.
        pub session_ttl: Duration = or(McpDefaults::default().session_ttl) "sessionTtl";
    }
}

impl Default for McpDefaults {
    fn default() -> Self {
        Self { session_ttl: Duration::from_secs(30 * 60) }
    }
}

record! {
    /// Connections to backends.
    pub struct Upstream {
        /// How long connecting may take. Default: 10s.
        pub connect_timeout: Duration = or(Upstream::default().connect_timeout) "connectTimeout";
        /// How long an unused connection is kept. Default: 90s.
        pub pool_idle_timeout: Duration = or(Upstream::default().pool_idle_timeout) "poolIdleTimeout";
        /// Most unused connections kept to one host. Default: no limit of its own.
        pub pool_size_max: Option<u32> = opt "poolMaxSize" as Option<Int<u32, 0, 1_000_000>>;
    }
    later "keepalives";
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            pool_idle_timeout: Duration::from_secs(90),
            pool_size_max: None,
        }
    }
}

record! {
    /// Policies of every connection from a client.
    pub(crate) struct FrontendPolicies {
        /// Limits of HTTP.
        pub http: HttpLimits = or(HttpLimits::default()) "http";
        /// Connections on every port come through a balancer that says in a PROXY header who the client is.
        pub proxy: Option<ProxyProtocol> = opt "proxyProtocol" | "proxy";
    }
    later "tls", "tcp", "connect", "accessLog", "logging", "tracing";
    guard "networkAuthorization", "networkExtAuthz";
}

record! {
    /// The PROXY header at the beginning of connections: who the client is. Whoever can connect can write one, so let only
    /// the balancer do so.
    #[derive(Copy)]
    pub struct ProxyProtocol {
        /// The versions taken. Default: v2.
        pub version: ProxyVersion = or(ProxyVersion::V2) "version";
        /// Whether it must be there. Default: strict.
        pub mode: ProxyMode = or(ProxyMode::Strict) "mode";
    }
}

words! {
    /// Versions of the PROXY protocol.
    pub enum ProxyVersion {
        /// The line of text.
        V1 = "v1",
        /// The binary one.
        V2 = "v2",
        /// Either.
        All = "all",
    }
}

words! {
    /// Whether a connection must have a PROXY header.
    pub enum ProxyMode {
        /// One without is closed.
        Strict = "strict",
        /// One without is the client's own.
        Optional = "optional",
    }
}

record! {
    /// Limits of HTTP on every listener.
    pub struct HttpLimits {
        /// Most bytes of a body that must be held whole, a JSON-RPC message for one. Default: 2097152.
        pub buffer_bytes_max: usize = or(HttpLimits::default().buffer_bytes_max) "maxBufferSize" as Int<usize, 1024, 1_073_741_824>;
        /// Most bytes of a request's body, streamed ones included. Default: no limit.
        pub body_bytes_max: Option<u64> = opt "maxBodyBytes" as Option<Int<u64, 1, 1_099_511_627_776>>;
        /// Most bytes of a message's head. Default: 65536.
        pub header_bytes_max: usize = or(HttpLimits::default().header_bytes_max) "maxHeaderBytes" as Int<usize, 1024, 1_048_576>;
        /// Most headers of a message. Default: 100.
        pub headers_max: usize = or(HttpLimits::default().headers_max) "http1MaxHeaders" as Int<usize, 1, 1024>;
        /// How long a connection may be without a request. Default: 10m.
        pub idle_timeout: Duration = or(HttpLimits::default().idle_timeout) "http1IdleTimeout";
        /// From the first byte of a request to the end of its head. Default: 10s.
        pub header_timeout: Duration = or(HttpLimits::default().header_timeout) "headerTimeout";
        /// The longest wait for the next part of a body. Default: 30s.
        pub body_timeout: Duration = or(HttpLimits::default().body_timeout) "bodyTimeout";
        /// Most bytes of one stream of HTTP/2 that a client sends before they are read. Default: 65536.
        pub http2_window: u32 = or(HttpLimits::default().http2_window) "http2WindowSize" as Int<u32, 1024, 2_147_483_647>;
        /// Most bytes of all streams of a connection that a client sends before they are read. Default: 1048576.
        pub http2_connection_window: u32 = or(HttpLimits::default().http2_connection_window) "http2ConnectionWindowSize" as Int<u32, 65_535, 2_147_483_647>;
        /// Most bytes of a frame of HTTP/2. Default: 16384.
        pub http2_frame_bytes: u32 = or(HttpLimits::default().http2_frame_bytes) "http2FrameSize" as Int<u32, 16_384, 16_777_215>;
        /// Most bytes of a request's headers in HTTP/2, each counted with 32 more. Default: as maxHeaderBytes.
        pub http2_header_bytes_max: Option<u32> = opt "http2MaxHeaderSize" as Option<Int<u32, 1024, 1_048_576>>;
        /// Most requests at once on a connection of HTTP/2. Default: 256.
        pub http2_streams_max: u32 = or(HttpLimits::default().http2_streams_max) "http2MaxConcurrentStreams" as Int<u32, 1, 65_536>;
        /// How long a connection of HTTP/2 may be silent before its client is asked whether it is there. Default: never.
        pub http2_keepalive: Option<Duration> = opt "http2KeepaliveInterval";
        /// How long the client may take to say so. Default: 20s.
        pub http2_keepalive_timeout: Duration = or(HttpLimits::default().http2_keepalive_timeout) "http2KeepaliveTimeout";
    }
    later "maxConnectionDuration", "http1HeaderCase";
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            buffer_bytes_max: 2 << 20,
            body_bytes_max: None,
            header_bytes_max: 64 << 10,
            headers_max: 100,
            idle_timeout: Duration::from_secs(600),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            http2_window: 64 << 10,
            http2_connection_window: 1 << 20,
            http2_frame_bytes: 16 << 10,
            http2_header_bytes_max: None,
            http2_streams_max: 256,
            http2_keepalive: None,
            http2_keepalive_timeout: Duration::from_secs(20),
        }
    }
}

/// How many shards, on which cores, with what.
#[derive(Debug, Clone, PartialEq)]
pub struct Shards {
    /// How many.
    pub count: ShardCount,
    /// The cores that the shards are pinned to, one each, in order; unique. Empty: the gateway chooses. When it is not
    /// empty, `count` is `Exactly` its length.
    pub cores: Vec<u32>,
    /// What drives a shard's I/O.
    pub runtime: Runtime,
    /// Entries of a shard's submission ring, a power of two.
    pub ring_entries: u32,
    /// How long a shard without work polls before it sleeps; zero: not at all.
    pub spin: Duration,
    /// Most unused upstream connections that a shard keeps to one endpoint.
    pub pool_size: u32,
    /// Most MCP sessions that a shard holds.
    pub sessions_max: u32,
}

/// How many shards there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardCount {
    /// One for each core.
    PerCore,
    /// This many, 1 to 1024.
    Exactly(u32),
}

words! {
    /// What drives a shard's I/O.
    pub enum Runtime {
        /// monoio: io_uring, or epoll where io_uring is forbidden.
        Monoio = "monoio",
        /// glommio: io_uring.
        Glommio = "glommio",
    }
}

/// Most shards.
const SHARDS_MAX: u64 = 1024;

record! {
    /// Shards: pinned threads, each with its own listeners, sessions and upstream connections.
    struct ShardOptions {
        /// How many, 1 to 1024. Default: one for each core.
        count: Option<u32> = opt "count" as Option<Int<u32, 1, SHARDS_MAX>>;
        /// The cores they are pinned to, one each.
        cores: Vec<u32> = opt "cores" as Vec<Int<u32, 0, 65535>>;
        /// What drives their I/O. Default: monoio.
        runtime: Runtime = or(Shards::default().runtime) "runtime";
        /// Entries of a shard's submission ring, a power of two from 64 to 32768. Default: 1024.
        ring_entries: u32 = or(Shards::default().ring_entries) "ringEntries" as Int<u32, 64, 32768>;
        /// How many microseconds a shard without work polls before it sleeps. Default: 0.
        spin_us: u64 = or(0) "spinUs" as Int<u64, 0, 10_000>;
        /// Most unused upstream connections that a shard keeps to one endpoint. Default: 128.
        pool_size: u32 = or(Shards::default().pool_size) "poolSize" as Int<u32, 0, 65536>;
        /// Most MCP sessions that a shard holds. Default: 100000.
        sessions_max: u32 = or(Shards::default().sessions_max) "sessionsMax" as Int<u32, 1, 16_777_216>;
    }
    check cores_fit;
}

impl Default for Shards {
    fn default() -> Self {
        Self {
            count: ShardCount::PerCore,
            cores: Vec::new(),
            runtime: Runtime::Monoio,
            ring_entries: 1024,
            spin: Duration::ZERO,
            pool_size: 128,
            sessions_max: 100_000,
        }
    }
}

impl Shards {
    /// So many shards, all else as it is by default.
    fn exactly(count: u32) -> Self {
        Self { count: ShardCount::Exactly(count), ..Self::default() }
    }
}

/// A count, the options, or the list of cores.
impl Form for Shards {
    type Out = Shards;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Shards> {
        match &node.value {
            Value::Scalar(_) => Int::<u32, 1, SHARDS_MAX>::decode(node, cx).map(Self::exactly),
            Value::Sequence(_) => {
                let shards = Vec::<ShardDoc>::decode(node, cx)?;
                let cores: Vec<u32> = shards.iter().map(|shard| shard.core).collect();
                let count = u32::try_from(cores.len()).ok().filter(|count| *count > 0);
                if count.is_none() || has_duplicate(&cores) {
                    cx.invalid_at(node.mark, "a list of shards, each on a core of its own", "something else");
                    return None;
                }
                Some(Self { cores, ..Self::exactly(count?) })
            }
            Value::Mapping(_) => ShardOptions::decode(node, cx).map(Self::from),
        }
    }

    fn schema(defs: &mut Definitions) -> Json {
        let count = Int::<u32, 1, SHARDS_MAX>::schema(defs);
        let list = Vec::<ShardDoc>::schema(defs);
        json!({"anyOf": [count, ShardOptions::schema(defs), list]})
    }
}

record! {
    /// One shard of an explicit list.
    struct ShardDoc {
        /// The core it is pinned to.
        core: u32 = must "core" as Int<u32, 0, 65535>;
    }
}

impl From<ShardOptions> for Shards {
    fn from(options: ShardOptions) -> Self {
        let from_cores = u32::try_from(options.cores.len()).ok().filter(|count| *count > 0);
        Self {
            count: options.count.or(from_cores).map_or(ShardCount::PerCore, ShardCount::Exactly),
            cores: options.cores,
            runtime: options.runtime,
            ring_entries: options.ring_entries,
            spin: Duration::from_micros(options.spin_us),
            pool_size: options.pool_size,
            sessions_max: options.sessions_max,
        }
    }
}

fn has_duplicate(cores: &[u32]) -> bool {
    let mut sorted = cores.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}

fn cores_fit(options: &ShardOptions, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    let mark_of = |key: &str| table.entry(&[key]).map_or(table.mark, |entry| entry.node.mark);
    if has_duplicate(&options.cores) {
        let message = "a core is there twice; each shard has one of its own".to_owned();
        cx.at_key("cores", |cx| cx.fault_at(mark_of("cores"), FaultKind::Duplicate, message));
    }
    if let Some(count) = options.count
        && !options.cores.is_empty()
        && options.cores.len() != count as usize
    {
        let message = format!("{} cores for {count} shards; each shard has one", options.cores.len());
        cx.at_key("cores", |cx| cx.fault_at(mark_of("cores"), FaultKind::Conflict, message));
    }
    if !options.ring_entries.is_power_of_two() {
        let message = format!("expected a power of two, got {}", options.ring_entries);
        cx.at_key("ringEntries", |cx| cx.fault_at(mark_of("ringEntries"), FaultKind::Invalid, message));
    }
    true
}
