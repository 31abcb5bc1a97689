//! The composition root: reads the configuration, places the shards, starts control, and waits for the end.

pub mod connect;
mod lines;
mod logs;
pub mod survey;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agentlane_config as config;
use agentlane_link::client::ClientLimits;
use agentlane_runtime as runtime;
use agentlane_runtime::channel::{self, Receiver, Sender};
use agentlane_runtime::{RuntimeChoice, ShardOptions};
use arc_swap::ArcSwap;

use crate::control::admin::Readiness;
use crate::control::api::{Admin, InUse};
use crate::control::lock::Judge;
use crate::control::source::{self, Source};
use crate::control::{self, AdminSockets, Control};
use crate::limits::MESH_DEPTH;
use crate::mesh::{Peers, ToControl, ToShard};
use crate::protocol::mcp::seal::Sealer;
use crate::shard::metrics::Metrics;
use crate::shard::{Parts, Shard};
use crate::snapshot::kept::Kept;
use crate::snapshot::{Snapshot, compile};
use crate::telemetry::{LogFormat, LogHandle, Registry, logging};
use logs::{Logs, ShardLogs};

/// What the command line says over the file.
pub struct Options {
    pub shards: Option<u32>,
    pub runtime: Option<RuntimeChoice>,
}

/// Why the gateway did not start, or ended.
pub enum Failure {
    Config(Vec<config::Fault>),
    /// The host does not give what is needed.
    Unavailable(String),
    Broken(String),
}

/// Runs the gateway until it is told to end.
pub fn run(source: Source, options: Options) -> Result<(), Failure> {
    let loaded = source.load().map_err(Failure::Config)?;
    let document = &loaded.document;
    let logging = &document.process.logging;
    let format = match logging.format {
        config::LogFormat::Text => LogFormat::Text,
        config::LogFormat::Json => LogFormat::Json,
    };
    let log = logging::init(&logging.level, format).map_err(|fault| Failure::Broken(fault.to_string()))?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let control = control.map_err(|error| Failure::Broken(format!("control cannot start: {error}")))?;
    control.block_on(start(source, loaded, options, log))
}

async fn start(source: Source, loaded: config::Loaded, options: Options, log: LogHandle) -> Result<(), Failure> {
    let document = loaded.document;
    let plan = Plan::of(&document, &options)?;
    let addresses = source::resolve(&document, &Default::default()).await;
    let lock_file = control::lock::file::of(&document).map_err(Failure::Config)?;
    let mut kept = Kept::new(control::roots::of_system, plan.cpus.len());
    kept.locks.follow(&document, lock_file.as_ref());
    let snapshot =
        compile::compile(&document, 1, &addresses, &mut kept).map_err(|error| Failure::Broken(error.to_string()))?;
    let snapshot = Arc::new(snapshot);
    control::probe_binds(&snapshot, &[]).map_err(Failure::Unavailable)?;
    let is_demo = matches!(source, Source::Demo(_));
    let admin = AdminSockets::bind(&document, is_demo).map_err(Failure::Unavailable)?;
    let registry = Registry::new();
    let logs = Logs::start(&document.process, plan.cpus.len())?;
    let (to_control, requests) = channel::bounded(MESH_DEPTH);
    let mut shards = Shards::start(&plan, &document, &snapshot, &registry, &logs, &to_control)?;
    drop(to_control);
    shards.ready().await?;
    tracing::info!(
        shards = plan.cpus.len(),
        driver = ?plan.driver,
        listeners = ?snapshot.binds.iter().map(|bind| bind.address).collect::<Vec<SocketAddr>>(),
        "agentlane {} is up", env!("CARGO_PKG_VERSION"),
    );
    if let Source::Demo(demo) = &source {
        demo.introduce();
    }
    let no_thread = |error| Failure::Unavailable(format!("no thread for the tool lock: {error}"));
    let judge = Judge::start(registry.clone(), document.lock.is_some()).map_err(no_thread)?;
    let readiness = Readiness::new();
    let in_use = InUse { snapshot: snapshot.clone(), written: loaded.written, files: loaded.files.clone() };
    let api = Admin {
        in_use: ArcSwap::from_pointee(in_use),
        registry: registry.clone(),
        readiness: readiness.clone(),
        log,
        audit: logs.audit_heads(),
        lock: judge.table(),
        shards: plan.cpus.len(),
        started: Instant::now(),
    };
    let control = Control {
        source,
        files: loaded.files,
        document,
        addresses,
        kept,
        snapshot,
        peers: shards.peers.clone(),
        requests,
        registry,
        readiness,
        logs: logs.sinks(),
        admin,
        judge,
        api: Arc::new(api),
    };
    let outcome = control.run().await.map_err(Failure::Broken);
    shards.join();
    logs.finish();
    outcome
}

/// Which shards run where, and on what.
struct Plan {
    /// One each; `None`: not pinned.
    cpus: Vec<Option<usize>>,
    driver: runtime::Driver,
    ring_entries: u32,
    spin: Duration,
}

impl Plan {
    fn of(document: &config::Document, options: &Options) -> Result<Plan, Failure> {
        if let Err(error) = agentlane_perf::raise_nofile() {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
        let host = agentlane_perf::probe();
        let shards = &document.shards;
        let count = match (options.shards, shards.count) {
            (Some(count), _) | (None, config::ShardCount::Exactly(count)) => count as usize,
            (None, config::ShardCount::PerCore) => agentlane_perf::default_shards(&host),
        };
        let choice = options.runtime.unwrap_or(match shards.runtime {
            config::Runtime::Monoio => RuntimeChoice::Monoio,
            config::Runtime::Glommio => RuntimeChoice::Glommio,
        });
        let selection = runtime::select(choice, count, shards.ring_entries).map_err(Failure::Unavailable)?;
        if let Some(note) = &selection.note {
            tracing::warn!("{note}");
        }
        if !shards.spin.is_zero() && selection.driver != runtime::Driver::Glommio {
            tracing::warn!("`spinUs` has no effect: monoio sleeps at once");
        }
        let listed = shards.cores.len() == count;
        let cpus = match listed {
            true => shards.cores.iter().map(|&core| Some(core as usize)).collect(),
            // More shards than processors would fight over them: then the kernel places them.
            false if count > host.cpus.len() => vec![None; count],
            false => agentlane_perf::place(&host, count).into_iter().map(Some).collect(),
        };
        Ok(Plan { cpus, driver: selection.driver, ring_entries: shards.ring_entries, spin: shards.spin })
    }
}

struct Shards {
    peers: Peers,
    threads: Vec<JoinHandle<()>>,
    ready: Receiver<Result<(), String>>,
}

impl Shards {
    fn start(
        plan: &Plan,
        document: &config::Document,
        snapshot: &Arc<Snapshot>,
        registry: &Arc<Registry>,
        logs: &Logs,
        control: &Sender<ToControl>,
    ) -> Result<Shards, Failure> {
        let sealer = Arc::new(Sealer::new(&session_key(document)?));
        let (senders, inboxes): (Vec<Sender<ToShard>>, Vec<_>) =
            plan.cpus.iter().map(|_| channel::bounded(MESH_DEPTH)).unzip();
        let peers: Peers = senders.into();
        let (ready, readiness) = channel::bounded(plan.cpus.len());
        let mut threads = Vec::new();
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let options = ShardOptions {
                name: format!("shard-{index}"),
                cpu: plan.cpus[index],
                ring_entries: plan.ring_entries,
                spin: plan.spin,
            };
            let seed = Seed {
                index,
                peers: peers.clone(),
                control: control.clone(),
                sealer: sealer.clone(),
                snapshot: snapshot.clone(),
                registry: registry.clone(),
                logs: logs.of_shard(index),
                upstream: upstream_limits(document),
                sessions_max: document.shards.sessions_max as usize,
            };
            let (driver, ready) = (plan.driver, ready.clone());
            let thread = std::thread::Builder::new().name(options.name.clone()).spawn(move || {
                let failed = ready.clone();
                let outcome = runtime::block_on(driver, &options, || Shard::run(seed.grow(), inbox, ready));
                if let Err(error) = outcome {
                    let _ = failed.try_send(Err(format!("{} cannot start: {error}", options.name)));
                }
            });
            threads.push(thread.map_err(|error| Failure::Unavailable(format!("no thread for a shard: {error}")))?);
        }
        Ok(Shards { peers, threads, ready: readiness })
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        for _ in &self.threads {
            match self.ready.recv().await {
                Some(outcome) => outcome.map_err(Failure::Unavailable)?,
                None => return Err(Failure::Broken("a shard ended at once".to_owned())),
            }
        }
        Ok(())
    }

    fn join(self) {
        drop(self.peers);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a shard had panicked");
            }
        }
    }
}

/// What a shard needs, before it is on its own thread.
struct Seed {
    index: usize,
    peers: Peers,
    control: Sender<ToControl>,
    sealer: Arc<Sealer>,
    snapshot: Arc<Snapshot>,
    registry: Arc<Registry>,
    logs: ShardLogs,
    upstream: ClientLimits,
    sessions_max: usize,
}

impl Seed {
    fn grow(self) -> Parts {
        let (access, audit) = self.logs.open(&self.registry, self.index);
        Parts {
            index: self.index,
            peers: self.peers,
            control: self.control,
            sealer: self.sealer,
            snapshot: self.snapshot,
            metrics: Metrics::new(self.registry, self.index),
            access,
            audit,
            upstream: self.upstream,
            sessions_max: self.sessions_max,
        }
    }
}

fn session_key(document: &config::Document) -> Result<[u8; 32], Failure> {
    match &document.process.session {
        Some(session) => Ok(session.key.0),
        None => Sealer::fresh_key().map_err(|_| Failure::Unavailable("the host gives no randomness".to_owned())),
    }
}

fn upstream_limits(document: &config::Document) -> ClientLimits {
    let upstream = &document.process.upstream;
    let idle_max = upstream.pool_size_max.unwrap_or(document.shards.pool_size).min(document.shards.pool_size);
    ClientLimits {
        // Streams of sessions are connections of their own: the descriptors bound them.
        connections_max: 1 << 20,
        idle_max: idle_max as usize,
        idle: upstream.pool_idle_timeout,
        connect_time: upstream.connect_timeout,
        // Short: a call that met a dead connection must not be repeated, so better look first.
        trust: Duration::from_millis(20),
        // Where no policy says otherwise.
        response_time: crate::limits::RESPONSE_TIME,
        ..ClientLimits::default()
    }
}
