//! Connects to every target of a configuration without serving anybody: one shard, no listener, and control for children.

use std::sync::Arc;

use agentlane_config as config;
use agentlane_runtime::channel;
use agentlane_runtime::{self as runtime, RuntimeChoice};

use super::logs::Logs;
use super::{Failure, Plan, Shards};
use crate::control::{roots, source, survey};
use crate::limits::MESH_DEPTH;
use crate::mesh::{Surveyed, ToShard};
use crate::snapshot::Snapshot;
use crate::snapshot::compile::{self, Addresses};
use crate::snapshot::kept::Kept;
use crate::telemetry::{LogFormat, Registry, logging};

/// The level of the log where the environment names none.
const LOG_LEVEL: &str = "error";

/// What every MCP backend's targets offer, by the backends' names.
pub fn run(document: &config::Document) -> Result<Vec<(String, Vec<Surveyed>)>, Failure> {
    let _log = logging::init(LOG_LEVEL, LogFormat::Text).map_err(|fault| Failure::Broken(fault.to_string()))?;
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let control = control.map_err(|error| Failure::Broken(format!("control cannot start: {error}")))?;
    control.block_on(ask(document))
}

async fn ask(document: &config::Document) -> Result<Vec<(String, Vec<Surveyed>)>, Failure> {
    let selection = runtime::select(RuntimeChoice::Monoio, 1, document.shards.ring_entries);
    let selection = selection.map_err(Failure::Unavailable)?;
    let plan = Plan {
        cpus: vec![None],
        driver: selection.driver,
        ring_entries: document.shards.ring_entries,
        spin: std::time::Duration::ZERO,
    };
    let addresses = source::resolve(document, &Addresses::default()).await;
    let mut kept = Kept::new(roots::of_system, 1);
    let compiled =
        compile::compile(document, 1, &addresses, &mut kept).map_err(|error| Failure::Broken(error.to_string()))?;
    let snapshot = Arc::new(Snapshot { binds: Vec::new(), ..compiled });
    let (to_control, requests) = channel::bounded(MESH_DEPTH);
    let mut shards = Shards::start(&plan, document, &snapshot, &Registry::new(), &Logs::default(), &to_control)?;
    drop(to_control);
    shards.ready().await?;
    let asking = async {
        let mut found = Vec::new();
        for backend in &snapshot.mcp {
            if found.iter().any(|(key, _)| *key == backend.key) {
                continue;
            }
            let (reply, answer) = channel::bounded(1);
            let told = shards.peers[0].send(ToShard::Survey { backend: backend.index, reply }).await;
            told.map_err(|_| Failure::Broken("the shard has ended".to_owned()))?;
            let surveyed =
                answer.recv().await.ok_or_else(|| Failure::Broken("the shard gives no answer".to_owned()))?;
            found.push((backend.key.clone(), surveyed));
        }
        Ok(found)
    };
    let found = survey::serve_children(&requests, asking).await;
    let _ = shards.peers[0].send(ToShard::Stop).await;
    shards.join();
    found
}
