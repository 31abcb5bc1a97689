//! Documents of other servers (`policy/auth/remote.rs`), fetched and kept fresh: often enough that keys are rotated in time,
//! at once when a request needs what is not there, and never more often than their server can bear. Redirects are not
//! followed: what is configured is the only place that is asked.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agentlane_config::Url;
use agentlane_link::tls::RootCertStore;
use agentlane_link::tls::pki_types::ServerName;
use agentlane_runtime::channel::Receiver;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore as Roots};

use super::roots;
use crate::limits::REMOTE_BYTES_MAX;
use crate::policy::auth::remote::{Asker, Remote};
use crate::snapshot::kept::Kept;

/// How often a document is fetched that nobody asks for.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// The shortest time between two fetches, whoever asks.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest time between two fetches that fail.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How long one fetch may take.
const FETCH_TIME: Duration = Duration::from_secs(10);

/// The documents of the configuration in use, each with the task that fetches it.
#[derive(Default)]
pub struct Remotes {
    tasks: Vec<(Arc<Remote>, AbortHandle)>,
}

impl Remotes {
    /// Begins with what is new, and ends what is gone.
    pub fn follow(&mut self, kept: &Kept) {
        let wanted: Vec<&Arc<Remote>> = kept.remotes().collect();
        self.tasks.retain(|(remote, task)| {
            let stays = wanted.iter().any(|wanted| Arc::ptr_eq(wanted, remote));
            if !stays {
                task.abort();
            }
            stays
        });
        for remote in wanted {
            if let Some(askers) = remote.askers() {
                let task = tokio::spawn(keep(remote.clone(), askers));
                self.tasks.push((remote.clone(), task.abort_handle()));
            }
        }
    }
}

/// Keeps one document fresh.
async fn keep(remote: Arc<Remote>, askers: Receiver<Asker>) {
    let mut due = remote.eager.then(Instant::now);
    let mut failures = 0u32;
    let mut not_before = Instant::now();
    loop {
        let mut waiting = Vec::new();
        tokio::select! {
            asker = askers.recv() => match asker {
                Some(asker) => waiting.push(asker),
                None => return,
            },
            () = until(due) => {}
        }
        // Who comes shortly after a look waits for the next; while the server fails nobody waits for it.
        if !waiting.is_empty() && failures > 0 && Instant::now() < not_before {
            continue;
        }
        sleep_until(not_before).await;
        waiting.extend(std::iter::from_fn(|| askers.try_recv()));
        let outcome = fetch_first(&remote.urls).await;
        let now = Instant::now();
        match outcome {
            Ok((url, document)) => {
                failures = 0;
                due = Some(now + REFRESH_EVERY);
                not_before = now + PAUSE;
                if remote.put(document) {
                    tracing::info!(url, keys = remote.keys().len(), "fetched");
                }
            }
            Err(reason) => {
                failures = failures.saturating_add(1);
                let pause = PAUSE.saturating_mul(1 << failures.min(8)).min(BACKOFF_MAX);
                due = Some(now + pause);
                not_before = now + pause;
                tracing::warn!(remote = ?remote, reason, "cannot be fetched");
            }
        }
        // Dropped, they say that it is over.
        drop(waiting);
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The first of these that there is.
async fn fetch_first(urls: &[Url]) -> Result<(&str, Value), String> {
    let mut reason = "no URL".to_owned();
    for url in urls {
        match timeout(FETCH_TIME, fetch(url)).await {
            Ok(Ok(document)) => return Ok((&url.text, document)),
            Ok(Err(why)) => reason = why,
            Err(_) => reason = "took too long".to_owned(),
        }
    }
    Err(reason)
}

async fn fetch(url: &Url) -> Result<Value, String> {
    let tcp = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|error| error.to_string())?;
    if !url.secure {
        return get(url, tcp).await;
    }
    let name = ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
    let tls = connector().connect(name, tcp).await.map_err(|error| error.to_string())?;
    get(url, tls).await
}

/// TLS with the roots of the system.
fn connector() -> TlsConnector {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let roots: Arc<RootCertStore> = roots::of_system();
        let roots: Arc<Roots> = roots;
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.expect("ring has the default versions");
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    });
    TlsConnector::from(config.clone())
}

async fn get(url: &Url, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Value, String> {
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let running = tokio::spawn(connection);
    let outcome = async {
        let host = agentlane_config::HostPort { host: url.host.clone(), port: url.port }.to_string();
        let request = hyper::Request::get(&url.path)
            .header("host", host)
            .header("accept", "application/json")
            .header("user-agent", concat!("agentlane/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if answer.status() != hyper::StatusCode::OK {
            return Err(format!("status {}", answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), REMOTE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let document: Value = serde_json::from_slice(&body).map_err(|error| format!("not JSON: {error}"))?;
        if !document.is_object() {
            return Err("not a JSON object".to_owned());
        }
        Ok(document)
    }
    .await;
    running.abort();
    outcome
}
