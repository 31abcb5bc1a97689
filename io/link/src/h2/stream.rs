//! One stream of HTTP/2 as the two directions of a transport: the head goes and comes as text of HTTP/1.1, the body as it
//! is. What comes is taken as it is read, so that the peer's window holds what nobody reads. Trailers are dropped.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use agentlane_runtime::{Either, Parts, race, sleep_until};
use agentlane_wire::h2 as heads;
use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use crate::buffer;
use crate::transport::{Addresses, Received};

/// Up to this many bytes, parts are joined: each would be a frame of its own.
const JOIN_MAX: usize = 4 * 1024;
/// Interim answers before the one that counts.
const INTERIM_MAX: usize = 8;

/// Both directions.
struct Stream {
    incoming: RefCell<Incoming>,
    outgoing: RefCell<Outgoing>,
    /// The server is known not to have looked at the request (RFC 9113, 8.7).
    unprocessed: Cell<bool>,
    read_due: Cell<Option<Instant>>,
    write_due: Cell<Option<Instant>>,
    addresses: Addresses,
}

/// The receiving side.
enum Incoming {
    /// Of a request that was not sent yet; whoever waits for its answer.
    Unasked(Option<Waker>),
    /// The head of the answer, and how many came before it.
    Answer(ResponseFuture, usize),
    Body(RecvStream),
    Failed(io::ErrorKind),
}

/// The sending side.
enum Outgoing {
    Response(SendResponse<Bytes>),
    /// `tls`: the scheme is https.
    Request {
        send: SendRequest<Bytes>,
        tls: bool,
    },
    Body(SendStream<Bytes>),
}

/// The receiving direction.
pub(crate) struct StreamReader(Rc<Stream>);

/// The sending direction.
pub(crate) struct StreamWriter(Rc<Stream>);

/// Ends a stream from outside.
#[derive(Clone)]
pub(crate) struct StreamEnd(Weak<Stream>);

impl StreamEnd {
    /// Whoever waits for the stream is told that it has broken; the server that nobody wants it.
    pub(crate) fn end(self) {
        let Some(stream) = self.0.upgrade() else { return };
        if let Outgoing::Body(body) = &mut *stream.outgoing.borrow_mut() {
            body.send_reset(Reason::CANCEL);
        }
        stream.fail(io::ErrorKind::ConnectionAborted);
    }
}

/// A stream that a client opened.
pub(super) fn accepted(
    body: RecvStream,
    respond: SendResponse<Bytes>,
    addresses: Addresses,
) -> (StreamReader, StreamWriter) {
    halves(Incoming::Body(body), Outgoing::Response(respond), addresses)
}

/// A stream to an upstream; it is opened with the head of the request.
pub(super) fn asked(send: SendRequest<Bytes>, tls: bool, addresses: Addresses) -> (StreamReader, StreamWriter) {
    halves(Incoming::Unasked(None), Outgoing::Request { send, tls }, addresses)
}

fn halves(incoming: Incoming, outgoing: Outgoing, addresses: Addresses) -> (StreamReader, StreamWriter) {
    let stream = Rc::new(Stream {
        incoming: RefCell::new(incoming),
        outgoing: RefCell::new(outgoing),
        unprocessed: Cell::new(false),
        read_due: Cell::new(None),
        write_due: Cell::new(None),
        addresses,
    });
    (StreamReader(stream.clone()), StreamWriter(stream))
}

impl StreamReader {
    /// Appends what comes to `buf`; 0 at the end. May be dropped.
    pub(crate) async fn recv(&mut self, mut buf: BytesMut) -> (io::Result<Received>, BytesMut) {
        let received = by(self.0.read_due.get(), |cx| self.0.poll_recv(cx, &mut buf)).await;
        (received.map(|count| Received { count, raw: count, room: buffer::LARGE }), buf)
    }

    /// Resolves when the peer has given the exchange up, or the connection is gone. May be dropped.
    pub(crate) async fn left(&self) {
        poll_fn(|cx| match &mut *self.0.outgoing.borrow_mut() {
            Outgoing::Response(respond) => respond.poll_reset(cx).map(drop),
            Outgoing::Body(body) => body.poll_reset(cx).map(drop),
            Outgoing::Request { .. } => Poll::Pending,
        })
        .await;
    }

    /// Whether the server is known not to have looked at the request: it may be sent again, whatever it is.
    pub(crate) fn is_unprocessed(&self) -> bool {
        self.0.unprocessed.get()
    }

    /// A way to end it from outside.
    pub(crate) fn ender(&self) -> StreamEnd {
        StreamEnd(Rc::downgrade(&self.0))
    }

    pub(crate) fn set_deadline(&self, due: Option<Instant>) {
        self.0.read_due.set(due);
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.addresses.peer.ok_or(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.addresses.local.ok_or(io::ErrorKind::Unsupported.into())
    }
}

impl Stream {
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut incoming = self.incoming.borrow_mut();
        match &mut *incoming {
            Incoming::Unasked(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Incoming::Failed(kind) => Poll::Ready(Err((*kind).into())),
            Incoming::Answer(answer, interim) => {
                while let Poll::Ready(Some(said)) = answer.poll_informational(cx) {
                    if let Err(error) = said {
                        return Poll::Ready(Err(self.broken(error)));
                    }
                    *interim += 1;
                    if *interim > INTERIM_MAX {
                        return Poll::Ready(Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "too many interim answers",
                        )));
                    }
                }
                let response = match Pin::new(answer).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(self.broken(error))),
                    Poll::Ready(Ok(response)) => response,
                };
                let before = buf.len();
                let fields = response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                heads::put_response(buf, response.status().as_u16(), fields);
                *incoming = Incoming::Body(response.into_body());
                Poll::Ready(Ok(buf.len() - before))
            }
            Incoming::Body(body) => self.poll_body(body, cx, buf),
        }
    }

    fn poll_body(&self, body: &mut RecvStream, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        loop {
            let data = match body.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(0)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.broken(error))),
                Poll::Ready(Some(Ok(data))) => data,
            };
            if data.is_empty() {
                continue;
            }
            if buf.capacity() == 0 {
                *buf = buffer::take(data.len());
            }
            buf.extend_from_slice(&data);
            // A stream that has ended meanwhile has no window.
            let _ = body.flow_control().release_capacity(data.len());
            return Poll::Ready(Ok(data.len()));
        }
    }

    /// Nothing more will come.
    fn fail(&self, kind: io::ErrorKind) {
        if let Incoming::Unasked(Some(waker)) = self.incoming.replace(Incoming::Failed(kind)) {
            waker.wake();
        }
    }

    /// What the crate says, as a socket would; notes what it means for a request.
    fn broken(&self, error: h2::Error) -> io::Error {
        let reason = error.reason();
        let refused = error.is_reset() && reason == Some(Reason::REFUSED_STREAM);
        // Streams that the server has looked at go on behind a GOAWAY: it is told to the others alone (6.8).
        let gone = error.is_go_away() && reason == Some(Reason::NO_ERROR);
        if error.is_remote() && (refused || gone) {
            self.unprocessed.set(true);
        }
        io_error(error)
    }

    /// Opens a stream with the head of its request.
    fn ask(&self, send: &mut SendRequest<Bytes>, tls: bool, head: Bytes, ends: bool) -> io::Result<SendStream<Bytes>> {
        let asked = request(head, tls).and_then(|request| {
            send.send_request(request, ends).map_err(|error| {
                // The connection ended before anything of it went out.
                self.unprocessed.set(true);
                io_error(error)
            })
        });
        match asked {
            Ok((answer, body)) => {
                if let Incoming::Unasked(Some(waker)) = self.incoming.replace(Incoming::Answer(answer, 0)) {
                    waker.wake();
                }
                Ok(body)
            }
            Err(error) => {
                self.fail(error.kind());
                Err(error)
            }
        }
    }
}

impl StreamWriter {
    /// Sends all parts in order, the first of a message being its head. `last`: the message ends with them. May be dropped,
    /// and leaves a message that is not complete.
    pub(crate) async fn send(&mut self, mut parts: Parts, last: bool) -> io::Result<()> {
        let head = match &mut *self.0.outgoing.borrow_mut() {
            Outgoing::Body(_) => None,
            _ if parts.is_empty() => return Ok(()),
            Outgoing::Request { send, tls } => {
                let head = parts.remove(0);
                parts.retain(|part| !part.is_empty());
                let ends = last && parts.is_empty();
                Some((self.0.ask(send, *tls, head, ends)?, ends))
            }
            Outgoing::Response(respond) => {
                let response = response(parts.remove(0))?;
                if response.status().is_informational() {
                    return respond.send_informational(response).map_err(io_error);
                }
                parts.retain(|part| !part.is_empty());
                let ends = last && parts.is_empty();
                let body = respond.send_response(response, ends).map_err(io_error)?;
                Some((body, ends))
            }
        };
        if let Some((body, ends)) = head {
            self.0.outgoing.replace(Outgoing::Body(body));
            if ends {
                return Ok(());
            }
        }
        self.data(join(parts), last).await
    }

    async fn data(&mut self, parts: Parts, last: bool) -> io::Result<()> {
        let mut left = parts.into_iter().filter(|part| !part.is_empty()).peekable();
        let mut ended = false;
        while let Some(mut part) = left.next() {
            while !part.is_empty() {
                let room = self.room(part.len()).await?;
                let piece = part.split_to(room.min(part.len()));
                ended = last && part.is_empty() && left.peek().is_none();
                self.with_body(|body| body.send_data(piece, ended).map_err(io_error))?;
            }
        }
        if last && !ended {
            self.with_body(|body| body.send_data(Bytes::new(), true).map_err(io_error))?;
        }
        Ok(())
    }

    /// Waits until the peer's windows and our buffer have room for some of `wanted` bytes.
    async fn room(&mut self, wanted: usize) -> io::Result<usize> {
        self.with_body(|body| {
            body.reserve_capacity(wanted);
            Ok(())
        })?;
        by(self.0.write_due.get(), |cx| {
            let mut outgoing = self.0.outgoing.borrow_mut();
            let Outgoing::Body(body) = &mut *outgoing else { return Poll::Ready(Err(out_of_order())) };
            loop {
                match body.capacity() {
                    0 => {}
                    room => return Poll::Ready(Ok(room)),
                }
                match body.poll_capacity(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io_error(error))),
                    Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
        })
        .await
    }

    /// Ends the stream. An answer that is not `whole` is seen to be cut.
    pub(crate) fn end(&mut self, whole: bool) {
        if whole {
            return;
        }
        match &mut *self.0.outgoing.borrow_mut() {
            Outgoing::Response(respond) => respond.send_reset(Reason::INTERNAL_ERROR),
            Outgoing::Body(body) => body.send_reset(Reason::INTERNAL_ERROR),
            Outgoing::Request { .. } => {}
        }
    }

    pub(crate) fn set_deadline(&self, due: Option<Instant>) {
        self.0.write_due.set(due);
    }

    fn with_body<T>(&self, act: impl FnOnce(&mut SendStream<Bytes>) -> io::Result<T>) -> io::Result<T> {
        match &mut *self.0.outgoing.borrow_mut() {
            Outgoing::Body(body) => act(body),
            Outgoing::Response(_) | Outgoing::Request { .. } => Err(out_of_order()),
        }
    }
}

/// Polls until `due`; no timer is set where nothing is waited for.
async fn by<T>(due: Option<Instant>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>) -> io::Result<T> {
    let Some(due) = due else { return poll_fn(poll).await };
    let at_once = poll_fn(|cx| Poll::Ready(poll(cx))).await;
    if let Poll::Ready(result) = at_once {
        return result;
    }
    match race(poll_fn(poll), sleep_until(due)).await {
        Either::Left(result) => result,
        Either::Right(()) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Small parts as one, in the order in which they were.
fn join(parts: Parts) -> Parts {
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    if parts.len() < 2 || bytes > JOIN_MAX {
        return parts;
    }
    let mut joined = BytesMut::with_capacity(bytes);
    parts.iter().for_each(|part| joined.extend_from_slice(part));
    [joined.freeze()].into_iter().collect()
}

/// The head of an answer, from its text.
fn response(text: Bytes) -> io::Result<Response<()>> {
    let head = heads::read_response(text).map_err(io::Error::other)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(io::Error::other)?;
    put_headers(&head.headers, response.headers_mut())?;
    Ok(response)
}

/// The head of a request, from its text.
fn request(text: Bytes, tls: bool) -> io::Result<Request<()>> {
    let head = heads::read_request(text).map_err(io::Error::other)?;
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Method::from_bytes(head.method_str().as_bytes()).map_err(io::Error::other)?;
    let uri = Uri::builder().scheme(if tls { Scheme::HTTPS } else { Scheme::HTTP }).authority(head.authority());
    *request.uri_mut() = uri.path_and_query(head.path_and_query()).build().map_err(io::Error::other)?;
    put_headers(&head.headers, request.headers_mut())?;
    // `:authority` says it.
    request.headers_mut().remove(HOST);
    Ok(request)
}

fn put_headers(from: &agentlane_wire::h1::Headers, to: &mut HeaderMap) -> io::Result<()> {
    for header in from.iter().filter(|header| !heads::is_left_out(header.known)) {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(io::Error::other)?;
        let value = HeaderValue::from_bytes(header.value).map_err(io::Error::other)?;
        to.append(name, value);
    }
    Ok(())
}

fn out_of_order() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a body before its head")
}

/// What the crate says, as a socket would.
fn io_error(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
