//! The gateway's children: stdio servers that it starts, watches, ends and reaps. Knows nothing of what is said over
//! their standard input and output: the socket that carries both goes to the shard that asked.
//!
//! Everything here runs on the control thread. That is a condition, not a habit: a child is killed by the kernel when
//! the thread that started it ends.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::backend::mcp::ChildLimits;
use crate::mesh::Lease;
use crate::session::board::Board;

mod cgroup;
mod confine;
#[cfg(test)]
mod confine_tests;
mod process;
mod stderr;
#[cfg(test)]
mod tests;
pub mod warm;

use cgroup::Cgroups;

/// What to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChildSpec {
    /// The name of the target, for faults and for the log.
    pub target: String,
    /// A path, or a name that is searched in `PATH`.
    pub command: String,
    pub args: Vec<String>,
    /// Added to the environment; goes before what is inherited.
    pub env: Vec<(String, String)>,
    /// Inherit nothing of the gateway's environment.
    pub clear_env: bool,
    /// Absent: the gateway's own.
    pub cwd: Option<PathBuf>,
    pub limits: ChildLimits,
    /// It gets a network of its own, without a way out.
    pub deny_network: bool,
}

/// Names a child for as long as the gateway runs; never used twice, unlike a process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildId(u64);

impl ChildId {
    /// The id as a number, for messages that carry it to another thread.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The id that [`ChildId::number`] gave.
    pub fn of_number(number: u64) -> Self {
        Self(number)
    }
}

/// A started child, as the shard that asked for it gets it.
#[derive(Debug)]
pub struct Child {
    pub id: ChildId,
    pub pid: u32,
    /// Our end of the socket pair that is the child's standard input and output; in blocking mode, closed on exec.
    /// Shutting its write side down is the end of file on the child's input.
    pub io: OwnedFd,
    /// Gives the status once, after the child and its process group are gone.
    pub exit: flume::Receiver<ExitStatus>,
    /// Dropping it ends the child like [`Children::terminate`].
    pub lease: ChildLease,
    /// Whoever talks to it says so here; what it writes to its standard error is logged beside it.
    pub board: Arc<Board>,
}

/// Holds a child alive. A reply that nobody fetches, a session that is dropped, a shard that panics: each drops the
/// lease.
#[derive(Debug)]
pub struct ChildLease(Option<Arc<End>>);

/// A child's end is wanted.
#[derive(Debug, Default)]
struct End {
    asked: Notify,
    /// At once, not politely.
    hard: AtomicBool,
}

impl ChildLease {
    /// Gives the lease up without ending the child: from now on it lives until [`Children::terminate`], its own end, or
    /// that of the gateway.
    pub fn waive(mut self) {
        self.0 = None;
    }
}

impl Drop for ChildLease {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end.asked.notify_one();
        }
    }
}

impl Lease for ChildLease {
    fn kill(self: Box<Self>) {
        if let Some(end) = &self.0 {
            end.hard.store(true, Ordering::Release);
        }
    }
}

/// Why a child was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildFault {
    pub target: String,
    pub command: String,
    pub kind: ChildFaultKind,
}

/// The kinds of [`ChildFault`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildFaultKind {
    /// No such command.
    NotFound,
    /// The command may not be executed.
    NotPermitted,
    /// The working directory is absent or no directory.
    NoDirectory(PathBuf),
    /// As many children as allowed are running.
    Limit(usize),
    /// The gateway is going down.
    Closing,
    /// The host does not let the gateway keep it from the network.
    NoNetworkDenial,
    /// A limit cannot be held, and why.
    NoLimit(&'static str),
    /// The operating system refused.
    Os(String),
}

impl fmt::Display for ChildFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "target {:?}: cannot start {:?}: ", self.target, self.command)?;
        match &self.kind {
            ChildFaultKind::NotFound => f.write_str("command not found"),
            ChildFaultKind::NotPermitted => f.write_str("not permitted to execute it"),
            ChildFaultKind::NoDirectory(path) => {
                write!(f, "no working directory {}", path.display())
            }
            ChildFaultKind::Limit(max) => write!(f, "{max} children are running already"),
            ChildFaultKind::Closing => f.write_str("the gateway is going down"),
            ChildFaultKind::NoNetworkDenial => {
                f.write_str("network: deny cannot be held, since the host forbids network namespaces (unshare)")
            }
            ChildFaultKind::NoLimit(why) => write!(f, "its limits cannot be held: {why}"),
            ChildFaultKind::Os(detail) => f.write_str(detail),
        }
    }
}

impl std::error::Error for ChildFault {}

/// What a shard asks of the supervisor.
#[derive(Debug)]
pub enum ChildRequest {
    Spawn { spec: ChildSpec, reply: flume::Sender<Result<Child, ChildFault>> },
    Terminate { id: ChildId },
}

/// Limits and waits of the supervisor.
#[derive(Clone, Copy, Debug)]
pub struct ChildrenLimits {
    /// Children that run at one time.
    pub children_max: usize,
    /// How long a child may take to end after its input was closed, and again after SIGTERM.
    pub grace: Duration,
}

impl Default for ChildrenLimits {
    fn default() -> Self {
        Self { children_max: 4096, grace: Duration::from_secs(2) }
    }
}

/// The supervisor. Clones share the same children.
#[derive(Clone, Debug)]
pub struct Children(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: ChildrenLimits,
    table: Mutex<Table>,
    /// How many children are not reaped yet.
    running: watch::Sender<usize>,
    /// Looked for when the first child has limits.
    groups: OnceLock<Option<Cgroups>>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    closing: bool,
    by_id: HashMap<ChildId, Entry>,
}

#[derive(Debug)]
struct Entry {
    pid: u32,
    end: Arc<End>,
}

impl Children {
    /// A supervisor without children.
    pub fn new(limits: ChildrenLimits) -> Self {
        let running = watch::Sender::new(0);
        Self(Arc::new(Shared { limits, table: Mutex::default(), running, groups: OnceLock::new() }))
    }

    /// Answers the shards' requests until all their senders are gone. Runs on the control thread.
    pub async fn serve(&self, requests: flume::Receiver<ChildRequest>) {
        let adopting = process::adopts_orphans().then(|| tokio::spawn(self.clone().reap_orphans()));
        while let Ok(request) = requests.recv_async().await {
            match request {
                // A reply that cannot be delivered drops the child, and with it the lease.
                ChildRequest::Spawn { spec, reply } => drop(reply.try_send(self.spawn(&spec))),
                ChildRequest::Terminate { id } => self.terminate(id),
            }
        }
        if let Some(task) = adopting {
            task.abort();
        }
    }

    /// Starts a child in a process group of its own. Must be called on the control thread, inside its runtime.
    pub fn spawn(&self, spec: &ChildSpec) -> Result<Child, ChildFault> {
        let fault = |kind| ChildFault { target: spec.target.clone(), command: spec.command.clone(), kind };
        let id = self.admit().map_err(fault)?;
        let groups = self.0.groups(&spec.limits);
        let started = process::start(spec, groups, &format!("{}.{}", spec.target, id.0)).map_err(fault)?;
        let (pid, end, board) = (started.leader.pid(), Arc::<End>::default(), Arc::<Board>::default());
        let (exited, exit) = flume::bounded(1);
        self.0.lock().by_id.insert(id, Entry { pid, end: Arc::clone(&end) });
        self.0.running.send_modify(|running| *running += 1);
        tracing::debug!(target = spec.target, pid, command = spec.command, "child started");
        let (target, process::Started { leader, io, stderr, group }) = (spec.target.clone(), started);
        let log = tokio::spawn(stderr::copy_to_log(stderr, target.clone(), pid, Arc::clone(&board)));
        let attended = self.clone().attend(id, target, leader, Arc::clone(&end), log, group, exited);
        tokio::spawn(attended);
        Ok(Child { id, pid, io, exit, lease: ChildLease(Some(end)), board })
    }

    /// Ends a child: its input should be closed already; after the grace its whole group gets SIGTERM, after another
    /// one SIGKILL. Returns at once. An unknown id is a child that has ended.
    pub fn terminate(&self, id: ChildId) {
        if let Some(entry) = self.0.lock().by_id.get(&id) {
            entry.end.asked.notify_one();
        }
    }

    /// Ends every child, starts no more, and returns when all are reaped: after two graces at the latest.
    pub async fn shutdown_all(&self) {
        {
            let mut table = self.0.lock();
            table.closing = true;
            table.by_id.values().for_each(|entry| entry.end.asked.notify_one());
        }
        // The sender lives in `self`, so that this cannot fail.
        let _ = self.0.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// Whether a child is not reaped yet.
    pub fn is_running(&self, id: ChildId) -> bool {
        self.0.lock().by_id.contains_key(&id)
    }

    /// How many children are not reaped yet.
    pub fn running(&self) -> usize {
        *self.0.running.borrow()
    }

    fn admit(&self) -> Result<ChildId, ChildFaultKind> {
        let mut table = self.0.lock();
        if table.closing {
            return Err(ChildFaultKind::Closing);
        }
        if table.by_id.len() >= self.0.limits.children_max {
            return Err(ChildFaultKind::Limit(self.0.limits.children_max));
        }
        table.next_id += 1;
        Ok(ChildId(table.next_id))
    }

    /// One child's life from here on: wait for its end or bring it about, then leave nothing behind.
    #[allow(clippy::too_many_arguments, reason = "all that there is of one child")]
    async fn attend(
        self,
        id: ChildId,
        target: String,
        leader: process::Leader,
        end: Arc<End>,
        log: tokio::task::JoinHandle<()>,
        group: Option<cgroup::Group>,
        exited: flume::Sender<ExitStatus>,
    ) {
        let pid = leader.pid();
        tokio::select! {
            () = leader.ended() => {}
            () = end.asked.notified() => self.bring_to_an_end(&leader, &end).await,
        }
        let status = leader.reap();
        if let Some(group) = group {
            group.remove().await;
        }
        stderr::finish(log).await;
        tracing::debug!(target = target, pid, %status, "child ended");
        self.0.lock().by_id.remove(&id);
        self.0.running.send_modify(|running| *running -= 1);
        let _ = exited.try_send(status);
    }

    async fn bring_to_an_end(&self, leader: &process::Leader, end: &End) {
        let polite = if end.hard.load(Ordering::Acquire) { &[][..] } else { &[None, Some(libc::SIGTERM)] };
        for &signal in polite {
            if let Some(signal) = signal {
                leader.signal_group(signal);
            }
            if tokio::time::timeout(self.0.limits.grace, leader.ended()).await.is_ok() {
                return;
            }
        }
        leader.signal_group(libc::SIGKILL);
        leader.ended().await;
    }

    /// As process 1 of a container, or as a subreaper, the gateway inherits what its children leave behind and has to
    /// reap it.
    async fn reap_orphans(self) {
        let Ok(mut signal) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()) else {
            return;
        };
        let mut running = self.0.running.subscribe();
        loop {
            // A child of the table is left to its own task; it may hide orphans, so look again when it is reaped.
            process::reap_orphans(|pid| self.0.lock().by_id.values().any(|entry| entry.pid == pid));
            tokio::select! {
                _ = signal.recv() => {}
                _ = running.changed() => {}
            }
        }
    }
}

impl Shared {
    /// Where groups for these limits are made, if they can be; found out once, and said.
    fn groups(&self, limits: &ChildLimits) -> Option<&Cgroups> {
        if *limits == ChildLimits::default() {
            return None;
        }
        let groups = self.groups.get_or_init(|| match Cgroups::find() {
            Ok(groups) => {
                let Cgroups { memory, cpu, pids, .. } = groups;
                let folder = groups.folder().display();
                tracing::info!(%folder, memory, cpu, pids, "limits of children are held by control groups, others by rlimits");
                Some(groups)
            }
            Err(reason) => {
                tracing::info!(reason, "limits of children are held by rlimits");
                None
            }
        });
        groups.as_ref()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
