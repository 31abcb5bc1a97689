//! `agentlane connect`: the gateway's inside between a client on standard streams and one remote server. One shard, no
//! listener, no server of the process's own; the log goes to standard error, and standard output is the client's.

use std::sync::Arc;

use agentlane_config as config;
use agentlane_runtime::channel::{self, Receiver, Sender};
use agentlane_runtime::{self as runtime, RuntimeChoice};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::logs::Logs;
use super::{Failure, Plan, Shards, lines};
use crate::control::RESOLVE_EVERY;
use crate::control::{roots, source};
use crate::limits::{CONNECT_LINES, CONNECT_STOP_TIME, MESH_DEPTH};
use crate::mesh::{LocalClient, Peers, ToShard};
use crate::snapshot::Snapshot;
use crate::snapshot::compile::{self, Addresses};
use crate::snapshot::kept::Kept;
use crate::telemetry::{LogFormat, Registry, logging};

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    pub url: String,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
    /// `protocol` of the target, where it is not found out.
    pub protocol: Option<String>,
}

/// The level of the log where the environment names none: clients show what they find on standard error.
const LOG_LEVEL: &str = "warn";

impl Remote {
    /// What it means as a configuration: one target behind one endpoint that nobody listens at.
    pub fn document(&self) -> Result<config::Document, String> {
        let set: serde_json::Map<String, serde_json::Value> =
            self.headers.iter().map(|(name, value)| (name.clone(), literal(value).into())).collect();
        let protocol = self.protocol.as_deref().unwrap_or("auto");
        let target = json!({
            "name": "remote",
            "mcp": { "host": literal(&self.url) },
            "protocol": literal(protocol),
            "policies": { "requestHeaderModifier": { "set": set } },
        });
        let routes = json!([{ "backends": [{ "mcp": { "targets": [target] } }] }]);
        let text = json!({ "binds": [{ "port": 1, "listeners": [{ "routes": routes }] }] }).to_string();
        let options = config::LoadOptions { lenient: false, env: &|_| None };
        match config::parse(&text, "connect", &options) {
            Ok(loaded) => Ok(loaded.document),
            Err(faults) => Err(faults.into_iter().next().map(|fault| fault.message).unwrap_or_default()),
        }
    }
}

/// A value in which a dollar is one.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// Serves the client on standard streams until its input ends or a signal says so.
pub fn run(remote: &Remote) -> Result<(), Failure> {
    let document = remote.document().map_err(Failure::Broken)?;
    let _log = logging::init(LOG_LEVEL, LogFormat::Text).map_err(|fault| Failure::Broken(fault.to_string()))?;
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let control = control.map_err(|error| Failure::Broken(format!("control cannot start: {error}")))?;
    control.block_on(serve(document))
}

async fn serve(document: config::Document) -> Result<(), Failure> {
    let selection = runtime::select(RuntimeChoice::Monoio, 1, document.shards.ring_entries);
    let selection = selection.map_err(Failure::Unavailable)?;
    let plan = Plan {
        cpus: vec![None],
        driver: selection.driver,
        ring_entries: document.shards.ring_entries,
        spin: std::time::Duration::ZERO,
    };
    let addresses = source::resolve(&document, &Addresses::default()).await;
    let mut kept = Kept::new(roots::of_system, 1);
    let snapshot = snapshot(&document, 1, &addresses, &mut kept)?;
    // Nobody asks for children; the other end stays so that nobody learns otherwise.
    let (to_control, _requests) = channel::bounded(MESH_DEPTH);
    let mut shards = Shards::start(&plan, &document, &snapshot, &Registry::new(), &Logs::default(), &to_control)?;
    shards.ready().await?;
    let backend = snapshot.mcp.first().map(|backend| backend.key.clone()).unwrap_or_default();
    let (lines, incoming) = channel::bounded(CONNECT_LINES);
    let (outgoing, messages) = channel::bounded(CONNECT_LINES);
    let (stop, stopped) = channel::bounded(1);
    let (ended, end) = channel::bounded(1);
    let client = LocalClient { backend, incoming, outgoing, stop: stopped, ended };
    let told = shards.peers[0].try_send(ToShard::Client(Box::new(client)));
    told.map_err(|_| Failure::Broken("the shard takes no client".to_owned()))?;
    lines::read(lines).map_err(no_thread)?;
    let written = lines::write(messages).map_err(no_thread)?;
    attend(&document, addresses, kept, &shards.peers, &stop, &end).await?;
    // The answers are out before the process ends, unless nobody takes them.
    let _ = tokio::time::timeout(CONNECT_STOP_TIME, written.recv()).await;
    let _ = shards.peers[0].try_send(ToShard::Stop);
    shards.join();
    Ok(())
}

fn no_thread(error: std::io::Error) -> Failure {
    Failure::Unavailable(format!("no thread for a standard stream: {error}"))
}

/// Waits for the client's end, and keeps the remote's address current meanwhile.
async fn attend(
    document: &config::Document,
    mut addresses: Addresses,
    mut kept: Kept,
    peers: &Peers,
    stop: &Sender<()>,
    end: &Receiver<()>,
) -> Result<(), Failure> {
    let broken = |error| Failure::Broken(format!("signals cannot be handled: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    let mut names = tokio::time::interval(RESOLVE_EVERY);
    names.tick().await;
    let mut version = 1;
    loop {
        tokio::select! {
            _ = end.recv() => return Ok(()),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = names.tick() => {
                let found = source::resolve(document, &addresses).await;
                if found != addresses {
                    version += 1;
                    let (done, _outcome) = channel::bounded(1);
                    let publish = ToShard::Publish { snapshot: snapshot(document, version, &found, &mut kept)?, done };
                    let _ = peers[0].try_send(publish);
                    addresses = found;
                }
            }
        }
    }
    let _ = stop.try_send(());
    if tokio::time::timeout(CONNECT_STOP_TIME, end.recv()).await.is_err() {
        tracing::warn!("the remote's session could not be ended in time");
    }
    Ok(())
}

/// The document compiled, without anything to listen at.
fn snapshot(
    document: &config::Document,
    version: u64,
    addresses: &Addresses,
    kept: &mut Kept,
) -> Result<Arc<Snapshot>, Failure> {
    let compiled =
        compile::compile(document, version, addresses, kept).map_err(|error| Failure::Broken(error.to_string()))?;
    Ok(Arc::new(Snapshot { binds: Vec::new(), ..compiled }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, headers: &[(&str, &str)]) -> Result<config::Document, String> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Remote { url: url.to_owned(), headers, protocol: None }.document()
    }

    #[test]
    fn what_was_typed_is_meant_literally() {
        let document = of("http://a:1/x?y=$HOME", &[("Authorization", "Bearer ${A}$$")]).unwrap();
        let config::BackendKind::Mcp(mcp) = &document.backends[0].kind else { panic!("not MCP") };
        let config::Transport::Http(http) = &mcp.targets[0].transport else { panic!("not HTTP") };
        assert_eq!((http.host.as_str(), http.port, http.path.as_str()), ("a", 1, "/x?y=$HOME"));
        let set = &mcp.targets[0].policies.request_headers.as_ref().unwrap().set;
        assert_eq!((set[0].0.as_str(), set[0].1.as_str()), ("authorization", "Bearer ${A}$$"));
    }

    #[test]
    fn what_cannot_be_is_said() {
        let pinned =
            Remote { url: "http://a".to_owned(), protocol: Some("1999-12-31".to_owned()), ..Remote::default() };
        assert!(pinned.document().unwrap_err().contains("modern"));
        assert!(of("https://a/mcp", &[]).is_ok());
        assert!(of("ftp://a", &[]).unwrap_err().contains("a URL"));
        assert!(of("http://a", &[("host", "b")]).is_err());
        assert!(of("http://a", &[("a b", "c")]).is_err());
        assert!(of("http://a", &[("a", "b\nc: d")]).is_err());
    }
}
