//! Two tunnels that make any peer of HTTP/1.1 speak HTTP/2: `to_http2` stands before the gateway, `from_http2` behind it. Both
//! stream, and end with the test's process.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

/// Who comes through a tunnel.
#[derive(Clone, Default)]
pub struct Seen {
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Seen {
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// An address that speaks HTTP/1.1, and HTTP/2 to `to` on one connection for all.
pub fn to_http2(to: SocketAddr) -> SocketAddr {
    listen(move |listener| async move {
        let stream = TcpStream::connect(to).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(connection);
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let sender = sender.clone();
            let serve = service_fn(move |request: Request<Incoming>| {
                let mut sender = sender.clone();
                async move { sender.send_request(for_http2(request)).await.map(for_http1) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
        }
    })
}

/// An address that speaks HTTP/2, and HTTP/1.1 to `to`, each request on a connection of its own. Where `streams_max` is given,
/// no client may have more at once.
pub fn from_http2(to: SocketAddr, streams_max: Option<u32>) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let counted = seen.clone();
    let address = listen(move |listener| async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            counted.connections.fetch_add(1, Ordering::SeqCst);
            let requests = counted.requests.clone();
            let serve = service_fn(move |request: Request<Incoming>| {
                requests.fetch_add(1, Ordering::SeqCst);
                async move { Ok::<_, Infallible>(ask(to, request).await) }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(streams_max);
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), serve));
        }
    });
    (address, seen)
}

async fn ask(to: SocketAddr, mut request: Request<Incoming>) -> Response<Incoming> {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let authority = request.uri().authority().expect("an authority").to_string();
    request.headers_mut().insert(HOST, authority.parse().expect("a host"));
    let path = request.uri().path_and_query().expect("a path").to_string();
    *request.uri_mut() = path.parse().expect("a target");
    *request.version_mut() = Version::HTTP_11;
    let mut response = sender.send_request(request).await.expect("an answer");
    response.headers_mut().remove(CONNECTION);
    response.headers_mut().remove(TRANSFER_ENCODING);
    *response.version_mut() = Version::HTTP_2;
    response
}

fn for_http2(mut request: Request<Incoming>) -> Request<Incoming> {
    let host = request.headers_mut().remove(HOST).expect("a host");
    let path = request.uri().path_and_query().expect("a path").clone();
    let uri = Uri::builder().scheme("http").authority(host.as_bytes()).path_and_query(path);
    *request.uri_mut() = uri.build().expect("a target");
    request.headers_mut().remove(CONNECTION);
    request.headers_mut().remove(TRANSFER_ENCODING);
    *request.version_mut() = Version::HTTP_2;
    request
}

fn for_http1(mut response: Response<Incoming>) -> Response<Incoming> {
    *response.version_mut() = Version::HTTP_11;
    response
}

/// Runs a server on a thread of its own.
fn listen<F: Future<Output = ()>>(serve: impl FnOnce(TcpListener) -> F + Send + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    listener.set_nonblocking(true).expect("a listener of tokio's");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { serve(TcpListener::from_std(listener).expect("a listener")).await });
    });
    address
}
