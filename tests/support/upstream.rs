//! Small HTTP servers behind the gateway: one thread per connection, every byte in the test's hands.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::wire::{Head, Peer};
use super::{PATIENCE, eventually};

/// A server. Dropped, it closes everything.
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: Head,
    pub body: Vec<u8>,
    /// Which connection of the server it came on, from 0.
    pub connection: usize,
}

/// Serves one connection, whose number is the last argument.
type Serve = dyn Fn(&Shared, Peer, usize) + Send + Sync;

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    streams: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    stopped: AtomicBool,
}

impl Upstream {
    /// A server that answers every request with `answer`; the bytes go out as they are. `None` closes the connection.
    pub fn answering(answer: impl Fn(&Request) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Upstream::http(move |request, peer| match answer(request) {
            Some(bytes) => peer.try_send(bytes).is_ok(),
            None => false,
        })
    }

    /// A server that says what it is called.
    pub fn named(name: &'static str) -> Self {
        Upstream::answering(move |_| Some(reply(200, &[], name)))
    }

    /// A server whose requests are read whole; `serve` answers one and says whether the connection goes on.
    pub fn http(serve: impl Fn(&Request, &mut Peer) -> bool + Send + Sync + 'static) -> Self {
        Upstream::start(Arc::new(move |shared: &Shared, mut peer: Peer, connection| {
            while let Some(head) = peer.head() {
                let body = peer.body(&head, false);
                let request = Request { head, body, connection };
                shared.requests.lock().expect("no panic in between").push(request.clone());
                if !serve(&request, &mut peer) {
                    break;
                }
            }
        }))
    }

    /// A server whose connections belong to `serve` from the first byte.
    pub fn raw(serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Upstream::start(Arc::new(move |_: &Shared, peer, _| serve(peer)))
    }

    fn start(serve: Arc<Serve>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let accepting = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared, &serve)
        });
        Upstream { address, shared, accepting: Some(accepting) }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("no panic in between").clone()
    }

    /// The newest request.
    #[track_caller]
    pub fn last(&self) -> Request {
        self.requests().pop().expect("a request")
    }

    #[track_caller]
    pub fn await_requests(&self, count: usize) -> Vec<Request> {
        eventually("the upstream was asked", || self.requests().len() >= count);
        self.requests()
    }

    /// Connections that were accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Breaks every connection.
    pub fn break_connections(&self) {
        for stream in self.shared.streams.lock().expect("no panic in between").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.break_connections();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, serve: &Arc<Serve>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.streams.lock().expect("no panic in between").extend(stream.try_clone());
        let (shared, serve) = (shared.clone(), serve.clone());
        std::thread::spawn(move || {
            let closing = stream.try_clone();
            let peer = Peer::new(stream);
            peer.patience(10 * PATIENCE);
            serve(&shared, peer, connection);
            // The other clone of the socket must not keep it open.
            let _ = closing.map(|stream| stream.shutdown(Shutdown::Both));
        });
    }
}

/// An answer with a length.
pub fn reply(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} OK\r\n");
    headers.iter().for_each(|(name, value)| out.push_str(&format!("{name}: {value}\r\n")));
    out.push_str(&format!("content-length: {}\r\n\r\n", body.as_ref().len()));
    let mut out = out.into_bytes();
    out.extend_from_slice(body.as_ref());
    out
}

/// An answer in chunks.
pub fn chunked(status: u16, headers: &[(&str, &str)], chunks: &[&str]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} OK\r\n");
    headers.iter().for_each(|(name, value)| out.push_str(&format!("{name}: {value}\r\n")));
    out.push_str("transfer-encoding: chunked\r\n\r\n");
    chunks.iter().for_each(|chunk| out.push_str(&self::chunk(chunk)));
    out.push_str("0\r\n\r\n");
    out.into_bytes()
}

pub fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}
