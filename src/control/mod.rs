//! The control plane: everything that is not a request, on one tokio thread. Configuration, names, children, the admin
//! servers, signals.

pub mod admin;
pub mod api;
pub mod children;
pub mod lock;
pub mod remotes;
pub mod roots;
pub mod source;
pub mod survey;
pub mod watch;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use agentlane_config::{Document, Endpoint};
use agentlane_runtime::channel::{self, Receiver};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch as stop_watch;

use crate::backend::mcp::{StdioTarget, TargetKind};
use crate::mesh::{Peers, SpawnRequest, SpawnedChild, ToControl, ToShard};
use crate::snapshot::Snapshot;
use crate::snapshot::compile::{self, Addresses};
use crate::snapshot::kept::Kept;
use crate::telemetry::{LineSink, Registry};
use admin::{Readiness, ReadyState};
use api::{Admin, InUse};
use children::warm::{Wanted, Warm};
use children::{ChildSpec, Children, ChildrenLimits};
use lock::Judge;
use source::Source;

/// How often names are looked up again.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// How long the shards may take over a new configuration.
const PUBLISH_TIME: Duration = Duration::from_secs(10);

/// What control works with, made by the composition root.
pub struct Control {
    pub source: Source,
    pub document: Document,
    pub files: Vec<std::path::PathBuf>,
    pub addresses: Addresses,
    pub kept: Kept,
    pub snapshot: Arc<Snapshot>,
    pub peers: Peers,
    pub requests: Receiver<ToControl>,
    pub registry: Arc<Registry>,
    pub readiness: Arc<Readiness>,
    /// The logs that have files.
    pub logs: Vec<LineSink>,
    pub admin: AdminSockets,
    pub judge: Judge,
    pub api: Arc<Admin>,
}

/// The sockets of the process's own servers, bound before anything else runs.
#[derive(Default)]
pub struct AdminSockets {
    pub stats: Option<TcpListener>,
    pub readiness: Option<TcpListener>,
    pub api: Option<TcpListener>,
}

impl AdminSockets {
    /// Binds what the document names. An address in use is a fault, unless this is only the demo.
    pub fn bind(document: &Document, optional: bool) -> Result<Self, String> {
        let bind = |endpoint: &Endpoint, what| match endpoint {
            Endpoint::Off => Ok(None),
            Endpoint::Tcp(address) => match TcpListener::bind(address) {
                Ok(listener) => Ok(Some(listener)),
                Err(error) if optional => {
                    eprintln!("agentlane: no {what} server: cannot listen on {address}: {error}");
                    Ok(None)
                }
                Err(error) => Err(format!("cannot listen on {address} ({what}): {error}")),
            },
        };
        Ok(AdminSockets {
            stats: bind(&document.process.stats, "metrics")?,
            readiness: bind(&document.process.readiness, "readiness")?,
            api: bind(&document.process.admin, "admin")?,
        })
    }
}

/// Whether every new bind can be had. Shards share their ports among themselves, so that without this look another
/// process's socket would go unnoticed.
pub fn probe_binds(snapshot: &Snapshot, held: &[SocketAddr]) -> Result<(), String> {
    let new = snapshot.binds.iter().filter(|bind| !held.contains(&bind.address));
    for bind in new {
        probe(bind.address).map_err(|error| format!("cannot listen on {}: {error}", bind.address))?;
    }
    Ok(())
}

/// A few tries: the kernel closes the sockets of a process that crashed a moment after it is gone.
fn probe(address: SocketAddr) -> std::io::Result<()> {
    const TRIES: usize = 5;
    let mut outcome = TcpListener::bind(address);
    for _ in 1..TRIES {
        match outcome {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(100));
                outcome = TcpListener::bind(address);
            }
            _ => break,
        }
    }
    outcome.map(drop)
}

impl Control {
    /// Runs until a signal has ended the gateway.
    pub async fn run(mut self) -> Result<(), String> {
        let (stop, stopped) = stop_watch::channel(false);
        self.serve_admin(&stopped);
        let children = Children::new(ChildrenLimits::default());
        let mut remotes = remotes::Remotes::default();
        remotes.follow(&self.kept);
        let mut warm = Warm::new(children.clone());
        warm.follow(spares(&self.snapshot));
        let (spawns, spawn_requests) = flume::bounded(1);
        let orphans = tokio::spawn({
            let children = children.clone();
            async move { children.serve(spawn_requests).await }
        });
        let broken = |error| format!("signals cannot be handled: {error}");
        let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
        let mut watcher = watch::Watcher::new(self.files.clone()).map_err(broken)?;
        tokio::spawn(watch::reopen_on_usr1(std::mem::take(&mut self.logs)));
        let mut names = tokio::time::interval(RESOLVE_EVERY);
        names.tick().await;
        self.readiness.set(ReadyState::Ready);
        notify("READY=1");
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                request = self.requests.recv() => match request {
                    Some(request) => self.serve(&children, &mut warm, request),
                    None => break,
                },
                () = warm.tend() => {}
                change = watcher.changed() => {
                    tracing::debug!(?change, "configuration is read again");
                    self.reload().await;
                    warm.follow(spares(&self.snapshot));
                    remotes.follow(&self.kept);
                    watcher.set_files(self.files.clone());
                }
                _ = names.tick() => self.refresh_names().await,
            }
        }
        self.end(&children, warm).await;
        drop(spawns);
        let _ = orphans.await;
        let _ = stop.send(true);
        Ok(())
    }

    fn serve_admin(&mut self, stopped: &stop_watch::Receiver<bool>) {
        if let Some(listener) = self.admin.stats.take() {
            let serving = admin::serve_stats(listener, self.registry.clone(), stopped.clone());
            tokio::spawn(logged("metrics", serving));
        }
        if let Some(listener) = self.admin.readiness.take() {
            let serving = admin::serve_readiness(listener, self.readiness.clone(), stopped.clone());
            tokio::spawn(logged("readiness", serving));
        }
        if let Some(listener) = self.admin.api.take() {
            let key = self.document.process.admin_key.clone();
            let is_open = listener.local_addr().is_ok_and(|address| !address.ip().to_canonical().is_loopback());
            if is_open && key.is_none() {
                tracing::warn!(
                    "the admin API can be used by everybody who reaches its address: `config.adminKey` is missing"
                );
            }
            tokio::spawn(logged("admin", api::serve_api(listener, self.api.clone(), key, stopped.clone())));
        }
        if let Source::Demo(demo) = &mut self.source
            && let Some(listener) = demo.listener.take()
        {
            tokio::spawn(logged("demo", crate::demo::http::serve(listener, stopped.clone())));
        }
    }

    fn serve(&self, children: &Children, warm: &mut Warm, request: ToControl) {
        match request {
            ToControl::Spawn(request) => serve_child(children, warm, *request),
            ToControl::Judge(request) => self.judge.ask(request),
        }
    }

    /// Reads the configuration again. A bad one changes nothing and says why.
    async fn reload(&mut self) {
        let read = self.source.load().and_then(|loaded| Ok((lock::file::of(&loaded.document)?, loaded)));
        let (lock_file, loaded) = match read {
            Ok(loaded) => loaded,
            Err(faults) => {
                for fault in faults {
                    tracing::error!("{fault}");
                }
                tracing::error!("the configuration was not changed");
                return;
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let fixed = |document: &Document| (document.process.clone(), document.shards.clone());
        if fixed(&loaded.document) != fixed(&self.document) {
            tracing::warn!("`config` and `shards` are read at start: their changes wait for a restart");
        }
        self.files = loaded.files;
        let addresses = source::resolve(&loaded.document, &self.addresses).await;
        self.kept.locks.follow(&loaded.document, lock_file.as_ref());
        if self.publish(&loaded.document, &addresses).await {
            self.document = loaded.document;
            self.addresses = addresses;
            self.show(loaded.written);
            tracing::info!(version = self.snapshot.version, "configuration is in use");
        }
    }

    async fn refresh_names(&mut self) {
        let addresses = source::resolve(&self.document, &self.addresses).await;
        if addresses == self.addresses {
            return;
        }
        let document = self.document.clone();
        if self.publish(&document, &addresses).await {
            self.addresses = addresses;
            self.show(self.api.in_use.load().written.clone());
            tracing::info!(version = self.snapshot.version, "addresses have changed");
        }
    }

    /// What the admin API tells of from now on.
    fn show(&self, written: serde_json::Value) {
        let (snapshot, files) = (self.snapshot.clone(), self.files.clone());
        self.api.in_use.store(Arc::new(InUse { snapshot, written, files }));
    }

    /// Compiles and gives the result to every shard. If one cannot take it, all go back.
    async fn publish(&mut self, document: &Document, addresses: &Addresses) -> bool {
        let snapshot = match compile::compile(document, self.snapshot.version + 1, addresses, &mut self.kept) {
            Ok(snapshot) => Arc::new(snapshot),
            Err(error) => {
                tracing::error!(%error, "the configuration was not changed");
                return false;
            }
        };
        let held: Vec<SocketAddr> = self.snapshot.binds.iter().map(|bind| bind.address).collect();
        let outcome = match probe_binds(&snapshot, &held) {
            Ok(()) => self.tell_shards(&snapshot).await,
            Err(reason) => Err(reason),
        };
        match outcome {
            Ok(()) => {
                self.snapshot = snapshot;
                true
            }
            Err(reason) => {
                tracing::error!(reason, "the configuration was not changed");
                let _ = self.tell_shards(&self.snapshot).await;
                false
            }
        }
    }

    async fn tell_shards(&self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        let (done, outcomes) = channel::bounded(self.peers.len());
        for peer in self.peers.iter() {
            let publish = ToShard::Publish { snapshot: snapshot.clone(), done: done.clone() };
            peer.send(publish).await.map_err(|_| "a shard has ended".to_owned())?;
        }
        for _ in self.peers.iter() {
            match tokio::time::timeout(PUBLISH_TIME, outcomes.recv()).await {
                Ok(Some(outcome)) => outcome?,
                Ok(None) | Err(_) => return Err("a shard does not answer".to_owned()),
            }
        }
        Ok(())
    }

    /// Lets requests finish, within the configured time, and ends sessions and children.
    async fn end(&self, children: &Children, mut warm: Warm) {
        tracing::info!("draining");
        warm.follow(Vec::new());
        self.readiness.set(ReadyState::Draining);
        notify("STOPPING=1");
        let (done, drained) = channel::bounded(self.peers.len());
        for peer in self.peers.iter() {
            let _ = peer.send(ToShard::Drain { done: done.clone() }).await;
        }
        let all = async {
            for _ in self.peers.iter() {
                drained.recv().await;
            }
        };
        // Calls may still need a child while they finish, but no new spares.
        let serving = async {
            while let Some(request) = self.requests.recv().await {
                self.serve(children, &mut warm, request);
            }
        };
        let limit = self.document.process.termination_deadline;
        tokio::select! {
            () = all => {}
            () = serving => {}
            () = tokio::time::sleep(limit) => tracing::warn!("requests were cut off at the end of the drain"),
        }
        for peer in self.peers.iter() {
            let _ = peer.send(ToShard::Stop).await;
        }
        children.shutdown_all().await;
    }
}

fn serve_child(children: &Children, warm: &mut Warm, request: SpawnRequest) {
    let SpawnRequest { target, spec, reply } = request;
    let spec = child_spec(&target, &spec);
    let outcome = match warm.take(&spec) {
        Some(spare) => Ok(spare),
        None => children.spawn(&spec).map_err(|fault| fault.to_string()),
    };
    let child = outcome.map(|child| SpawnedChild {
        target,
        pid: child.pid,
        io: child.io,
        lease: Box::new(child.lease),
        board: child.board,
    });
    // A reply that nobody fetches drops the lease, and that ends the child.
    let _ = reply.try_send(child);
}

fn child_spec(target: &str, stdio: &StdioTarget) -> ChildSpec {
    ChildSpec {
        target: target.to_owned(),
        command: stdio.command.clone(),
        args: stdio.args.clone(),
        env: stdio.env.clone(),
        clear_env: stdio.clear_env,
        cwd: stdio.cwd.clone(),
        limits: stdio.limits,
        deny_network: stdio.deny_network,
    }
}

/// The spares that a configuration wants.
fn spares(snapshot: &Snapshot) -> Vec<Wanted> {
    let targets = snapshot.mcp.iter().flat_map(|backend| &backend.targets);
    let wanted = targets.filter_map(|target| match &target.kind {
        TargetKind::Stdio(stdio) if stdio.warm > 0 => Some(Wanted {
            spec: child_spec(&target.name, stdio),
            count: stdio.warm,
            pause_min: stdio.backoff_min,
            pause_max: stdio.backoff_max,
        }),
        _ => None,
    });
    wanted.collect()
}

async fn logged(what: &'static str, serving: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = serving.await {
        tracing::error!(%error, "the {what} server has ended");
    }
}

/// Tells systemd (sd_notify(3)), where it asked to be told.
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() else { return };
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_bytes();
    let address = match bytes.first() {
        Some(b'@') => std::os::unix::net::SocketAddr::from_abstract_name(&bytes[1..]),
        _ => std::os::unix::net::SocketAddr::from_pathname(&path),
    };
    if let Ok(address) = address {
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}
