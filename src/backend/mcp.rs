//! An MCP backend: one or more targets behind one endpoint.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agentlane_link::tls::ClientTls;

use super::http::Endpoint;
use super::lock::TargetLock;
use crate::protocol::mcp::revision::Revision;
use crate::protocol::mcp::{lock, names};
use crate::request::HeaderEdit;

/// What becomes of the whole when one target fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureMode {
    /// The rest serves, and says what is missing.
    Open,
    /// `initialize` and lists fail.
    Closed,
}

#[derive(Debug)]
pub struct McpBackend {
    /// Which endpoint this is, across reloads: sessions belong to it.
    pub key: String,
    /// Its place among the MCP backends of the snapshot.
    pub index: usize,
    pub targets: Vec<Arc<Target>>,
    /// Some of them get the client's own credential.
    pub passes_credential: bool,
    /// Names outward carry their target's.
    pub prefixed: bool,
    pub failure_mode: FailureMode,
    /// How long a list or a handshake waits for its slowest target.
    pub deadline: Duration,
    /// A session without a request or an open stream for this long ends.
    pub session_idle: Duration,
    /// How long a request of a client without a session waits for its input.
    pub input_timeout: Duration,
    /// Elements per page of a merged list.
    pub page_size: usize,
    /// Characters of an outward name; longer ones are shortened.
    pub name_length: usize,
    /// Refuse foreign `Host` and `Origin` on loopback listeners.
    pub rebinding_protection: bool,
    /// From a request's last byte to the answer's first, for calls; `None`: as long as the client waits.
    pub call_timeout: Option<Duration>,
}

#[derive(Debug)]
pub struct Target {
    pub name: String,
    /// `<name>__`.
    pub prefix: String,
    pub kind: TargetKind,
    /// What it is spoken to in.
    pub protocol: Protocol,
    /// Two targets of equal fingerprint are the same server: sessions stay across a reload.
    pub fingerprint: String,
    pub lists: ListPolicy,
    pub session_loss: SessionLoss,
    /// `None`: it is neither scanned nor compared with anything.
    pub lock: Option<Arc<TargetLock>>,
}

/// How long a target's lists are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListPolicy {
    /// For targets that say nothing themselves. Zero: not at all.
    pub fresh_for: Duration,
    /// Such a list is every caller's whose client has the same abilities.
    pub public: bool,
    /// How old a list may be that stands in for one that does not come. Zero: none does.
    pub stale_for: Duration,
}

/// What becomes of a client's session when a target forgot its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionLoss {
    /// The target's is opened anew if nothing can be lost by that, else the client's ends.
    Judge,
    Reopen,
    End,
}

/// What a target is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What the client speaks, if the target does too.
    #[default]
    Auto,
    /// With sessions; in this revision, or else in the client's.
    Legacy(Option<Revision>),
    /// 2026-07-28.
    Modern,
}

#[derive(Debug)]
pub enum TargetKind {
    Http(HttpTarget),
    /// HTTP+SSE of 2024-11-05: the path is that of the stream.
    Sse(HttpTarget),
    Stdio(StdioTarget),
}

/// A server on the network.
#[derive(Debug)]
pub struct HttpTarget {
    pub endpoint: Endpoint,
    /// Path and query.
    pub path: String,
    pub request: Vec<HeaderEdit>,
    /// The client's own credential goes along.
    pub passes_credential: bool,
}

/// A child that speaks newline-delimited JSON-RPC.
#[derive(Clone, Debug)]
pub struct StdioTarget {
    pub command: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub clear_env: bool,
    pub cwd: Option<PathBuf>,
    pub shared: bool,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// Spare children that wait to be used.
    pub warm: usize,
    /// Without a request for this long it is ended, until it is needed again.
    pub idle_after: Option<Duration>,
    /// It owes an answer and has said nothing for this long: it is replaced.
    pub hung_after: Duration,
    pub deny_network: bool,
    pub limits: ChildLimits,
}

/// What one child may use of the host, with all that it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildLimits {
    pub memory_bytes: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Open files of each process.
    pub files: Option<u32>,
    /// Processes and threads.
    pub processes: Option<u32>,
}

impl McpBackend {
    /// One target whose names stay: its messages pass as they are.
    pub fn is_identity(&self) -> bool {
        self.targets.len() == 1 && !self.prefixed
    }

    /// The target that an outward name is prefixed with, and its own name for the thing.
    pub fn split_name<'a>(&self, name: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let (target, own) = names::split(name)?;
        let index = self.targets.iter().position(|candidate| candidate.name.as_bytes() == target)?;
        Some((index, own))
    }

    /// Whether any target's lists are kept to be used again.
    pub fn keeps_lists(&self) -> bool {
        self.targets.iter().any(|target| !target.lists.fresh_for.is_zero())
    }

    /// Whether any target's lists are looked at, so that none may pass unseen.
    pub fn is_locked(&self) -> bool {
        self.targets.iter().any(|target| target.lock.is_some())
    }

    /// Whether any target is not served, because it is not what was approved: then nothing that was kept with it in it is.
    pub fn has_blocked(&self) -> bool {
        self.targets.iter().any(|target| target.lock.as_ref().is_some_and(|lock| lock.is_blocked()))
    }

    pub fn target_index(&self, name: &str) -> Option<usize> {
        self.targets.iter().position(|target| target.name == name)
    }
}

impl TargetKind {
    /// Whether it gets the client's own credential.
    pub fn passes_credential(&self) -> bool {
        matches!(self, TargetKind::Http(http) if http.passes_credential)
    }
}

impl HttpTarget {
    /// TLS by the number of its side of the handshake, which a reload keeps as long as nothing of it is changed.
    fn fingerprint(&self) -> String {
        let Endpoint { authority, tls, spoken, .. } = &self.endpoint;
        let passes = self.passes_credential;
        let tls = tls.as_ref().map(ClientTls::id);
        format!("{authority} {spoken:?} {} {:?} {passes} {tls:?}", self.path, self.request)
    }
}

/// SHA-256 in hexadecimal.
fn digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Target {
    pub fn new(
        name: String,
        kind: TargetKind,
        protocol: Protocol,
        lists: ListPolicy,
        session_loss: SessionLoss,
    ) -> Self {
        let server = match &kind {
            // Addresses may change under a name; the server is the same.
            TargetKind::Http(http) => format!("http {}", http.fingerprint()),
            TargetKind::Sse(http) => format!("sse {}", http.fingerprint()),
            // Spares are no session's.
            TargetKind::Stdio(stdio) => format!("stdio {:?}", StdioTarget { warm: 0, ..stdio.clone() }),
        };
        // Its environment and headers may hold secrets: a digest tells them apart as well.
        let fingerprint = digest(&format!("{protocol:?} {server}"));
        let prefix = names::prefix(&name);
        Target { prefix, name, kind, protocol, fingerprint, lists, session_loss, lock: None }
    }

    /// How suspicious a tool is, 0 to 100, by the target's own name for it; `None`: no lock has looked at it.
    pub fn tool_risk(&self, name: &str) -> Option<u8> {
        let lock = self.lock.as_ref()?;
        lock.verdicts.load().get(lock::definition::Kind::Tool, name).map(|verdict| verdict.risk)
    }

    /// With a lock.
    pub fn locked(self, lock: Option<Arc<TargetLock>>) -> Self {
        Target { lock, ..self }
    }
}
