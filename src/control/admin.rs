//! The servers of operators: readiness, liveness and metrics. Knows the state of the process and the registry, nothing
//! of configuration or requests.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Sleep, sleep};

use crate::telemetry::{Registry, metrics};

/// Connections that one of these servers holds at a time; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 64;
/// A connection is closed after so long, idle or not: whoever feeds it byte by byte does not keep its place for ever.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);
/// Answers under way at the end get so long.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long accepting pauses when the process is out of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// What the process says to those who ask whether to send traffic.
#[derive(Debug)]
pub struct Readiness(RwLock<ReadyState>);

/// The states of a process, in the order of its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyState {
    /// With what it is waiting for.
    Starting(String),
    Ready,
    /// Running requests are served to their end; new ones should go elsewhere.
    Draining,
}

impl Readiness {
    /// Begins in [`ReadyState::Starting`].
    pub fn new() -> Arc<Self> {
        Arc::new(Self(RwLock::new(ReadyState::Starting("starting".into()))))
    }

    /// Changes the state. A process that drains does not become ready again.
    pub fn set(&self, state: ReadyState) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if *current != ReadyState::Draining {
            *current = state;
        }
    }

    /// The present state.
    pub fn state(&self) -> ReadyState {
        self.read().clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, ReadyState> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self) -> Response {
        match &*self.read() {
            ReadyState::Ready => (StatusCode::OK, "ready\n").into_response(),
            ReadyState::Starting(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")).into_response(),
            ReadyState::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
        }
    }
}

/// Serves `GET /healthz/ready` (200 or 503 with the reason) and `GET /healthz/live` until `stop` becomes true or its
/// sender is gone. Keep it up while draining: load balancers read the 503.
pub async fn serve_readiness(
    listener: std::net::TcpListener,
    state: Arc<Readiness>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz/ready", get(async |State(state): State<Arc<Readiness>>| state.answer()))
        .route("/healthz/live", get(async || "live\n"))
        .with_state(state);
    serve(listener, router, stop).await
}

/// Serves `GET /metrics` in the Prometheus text format until `stop` becomes true or its sender is gone.
pub async fn serve_stats(
    listener: std::net::TcpListener,
    registry: Arc<Registry>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let render = async |State(registry): State<Arc<Registry>>| {
        ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], registry.render())
    };
    serve(listener, Router::new().route("/metrics", get(render)).with_state(registry), stop).await
}

/// Serves `router` with bounded connections, bounded in time, and ends gracefully within a named wait.
pub async fn serve(listener: std::net::TcpListener, router: Router, stop: watch::Receiver<bool>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let bounded =
        Bounded { listener: TcpListener::from_std(listener)?, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    let serving = axum::serve(bounded, router).with_graceful_shutdown(stopped(stop.clone()));
    tokio::select! {
        result = async { serving.await } => result,
        () = async { stopped(stop).await; sleep(STOP_GRACE).await } => Ok(()),
    }
}

/// Returns when the value is true or can no longer become true.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A listener that holds a bounded number of connections.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Connection, Self::Addr) {
        loop {
            // The semaphore is never closed; without a place there is nothing to do but wait anyway.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { std::future::pending().await };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    return (Connection { stream, end: Box::pin(sleep(CONNECTION_LIFETIME)), _place: place }, peer);
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept an operator's connection");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with a last moment and a place to give back.
struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.end.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Runs a server, calls the client in a thread of its own, and then expects the server to end.
    fn run<F: Future<Output = io::Result<()>>>(
        server: impl FnOnce(std::net::TcpListener, watch::Receiver<bool>) -> F,
        client: impl FnOnce(SocketAddr) + Send + 'static,
    ) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let (stop, stopping) = watch::channel(false);
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
            let calling = tokio::task::spawn_blocking(move || {
                client(address);
                stop.send(true).expect("the server listens");
            });
            let served = tokio::time::timeout(Duration::from_secs(20), server(listener, stopping)).await;
            calling.await.expect("the client's checks hold");
            served.expect("ended in time").expect("no error");
        });
    }

    #[test]
    fn readiness_follows_the_state() {
        let readiness = Readiness::new();
        let shared = Arc::clone(&readiness);
        run(
            |listener, stop| serve_readiness(listener, readiness, stop),
            move |address| {
                shared.set(ReadyState::Starting("waiting for 2 shards".into()));
                let answer = ask(address, "/healthz/ready");
                assert!(
                    answer.starts_with("HTTP/1.1 503") && answer.ends_with("\r\n\r\nwaiting for 2 shards\n"),
                    "{answer}"
                );
                shared.set(ReadyState::Ready);
                let answer = ask(address, "/healthz/ready");
                assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ready\n"), "{answer}");
                shared.set(ReadyState::Draining);
                shared.set(ReadyState::Ready);
                assert!(ask(address, "/healthz/ready").starts_with("HTTP/1.1 503"));
                assert!(ask(address, "/healthz/live").starts_with("HTTP/1.1 200"));
                assert!(ask(address, "/metrics").starts_with("HTTP/1.1 404"));
            },
        );
    }

    #[test]
    fn metrics_are_served() {
        let registry = Registry::new();
        registry.counter("seen_total", "Seen.", &[("shard", "0")]).add(3);
        run(
            |listener, stop| serve_stats(listener, registry, stop),
            |address| {
                let answer = ask(address, "/metrics");
                assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
                assert!(answer.contains("\nseen_total{shard=\"0\"} 3\n"), "{answer}");
            },
        );
    }

    #[test]
    fn connections_are_bounded_and_the_end_does_not_wait_for_them() {
        run(
            |listener, stop| serve_readiness(listener, Readiness::new(), stop),
            |address| {
                let mut held: Vec<TcpStream> =
                    (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(address).expect("connected")).collect();
                for stream in &mut held {
                    stream.write_all(b"GET /healthz/live HTTP/1.1\r\n").expect("written");
                }
                std::thread::sleep(Duration::from_millis(100));
                let waiting = std::thread::spawn(move || ask(address, "/healthz/live"));
                std::thread::sleep(Duration::from_millis(200));
                assert!(!waiting.is_finished(), "one too many is served");
                held.pop();
                assert!(waiting.join().expect("asked").starts_with("HTTP/1.1 200"));
                std::mem::forget(held);
            },
        );
    }
}
