//! A client's HTTP/1 connection: requests in, responses out, one after the other. Knows no route.
//!
//! ```text
//! while let Some(head) = connection.head().await? {
//!     let body = connection.body_all(max).await?;
//!     connection.respond(200, |head| { head.header("content-type", "text/plain"); }, parts).await?;
//! }
//! connection.close().await;
//! ```

mod error;
mod limits;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;

use agentlane_runtime::Parts;
use agentlane_wire::h1::{Framing, H1Error, HeadWriter, RequestHead};
use bytes::{Bytes, BytesMut};

pub use error::ConnError;
pub use limits::ServerLimits;
pub use reader::RequestReader;
pub use writer::ResponseWriter;

use crate::deadline::Deadlines;
use crate::drain::{Drain, Seat};
use crate::h2::{StreamReader, StreamWriter, Work};
use crate::sink::Sink;
use crate::source::Source;
use crate::transport::{Detached, Receiver, Sender, Transport};

/// One client's connection on this shard.
pub struct Connection {
    reader: RequestReader,
    writer: ResponseWriter,
    seat: Seat,
    /// The client's bytes stopped making sense.
    refused: bool,
    /// It is a stream of HTTP/2, at work.
    stream: Option<Work>,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(transport: impl Into<Transport>, limits: Rc<ServerLimits>, drain: &Drain) -> Self {
        Self::with_bytes(transport.into(), BytesMut::new(), limits, drain)
    }

    /// A connection that another shard gave up with [`Connection::migrate`]; `bytes` are read before the socket.
    pub fn from_migrated(socket: Detached, bytes: Bytes, limits: Rc<ServerLimits>, drain: &Drain) -> io::Result<Self> {
        let bytes = bytes.try_into_mut().unwrap_or_else(|bytes| BytesMut::from(&bytes[..]));
        Ok(Self::with_bytes(Transport::attach(socket)?, bytes, limits, drain))
    }

    fn with_bytes(transport: Transport, bytes: BytesMut, limits: Rc<ServerLimits>, drain: &Drain) -> Self {
        let (read, write) = transport.into_split();
        let deadlines = Deadlines::new(Shutdown::Read);
        let writer = ResponseWriter::new(Sink::new(write, deadlines.clone(), limits.write_time));
        let reader = RequestReader::new(Source::new(read, deadlines, bytes), limits);
        Connection { reader, writer, seat: drain.seat(), refused: false, stream: None }
    }

    /// A stream of HTTP/2 as a connection of one request.
    pub(crate) fn of_stream(
        head: Result<RequestHead, H1Error>,
        (read, write): (StreamReader, StreamWriter),
        work: Work,
        limits: Rc<ServerLimits>,
        drain: &Drain,
    ) -> Self {
        let deadlines = Deadlines::separate();
        let writer = ResponseWriter::new(Sink::new(Sender::Stream(write), deadlines.clone(), limits.write_time));
        let source = Source::new(Receiver::Stream(read), deadlines, BytesMut::new());
        let reader = RequestReader::of_stream(source, limits, head);
        Connection { reader, writer, seat: drain.seat(), refused: false, stream: Some(work) }
    }

    /// The next request's head, or `None` when the connection is over: the client closed or was silent for too long,
    /// the last answer said so, or the server drains.
    ///
    /// What is left of the request before is skipped when it is little. On an error that has a
    /// [`ConnError::status`], answer with [`Connection::refuse`]; then, as after `None`, [`Connection::close`].
    pub async fn head(&mut self) -> Result<Option<RequestHead>, ConnError> {
        if !self.writer.keeps_connection() || !self.reader.skip().await {
            return Ok(None);
        }
        let Some(head) = self.reader.head(&self.seat).await? else { return Ok(None) };
        self.writer.begin(&head);
        Ok(Some(head))
    }

    /// The next piece of the body, `None` at its end. The first call sends `100 Continue` when the client waits for it.
    pub async fn body_chunk(&mut self) -> Result<Option<Bytes>, ConnError> {
        self.ask_for_body().await?;
        self.reader.chunk().await
    }

    /// The whole body, refused with 413 beyond `max` bytes; by its Content-Length before any of it is asked for.
    pub async fn body_all(&mut self, max: u64) -> Result<Bytes, ConnError> {
        self.reader.check_length(max)?;
        self.ask_for_body().await?;
        self.reader.all(max).await
    }

    /// The whole body when all of it has come already; otherwise `None`, and nothing is lost.
    pub fn body_buffered(&mut self) -> Result<Option<Parts>, ConnError> {
        self.reader.buffered()
    }

    async fn ask_for_body(&mut self) -> Result<(), ConnError> {
        if std::mem::take(&mut self.reader.expects_continue) && self.reader.source.buf.is_empty() {
            self.reader.check_length(self.reader.limits.body_bytes)?;
            self.writer.send_continue().await?;
        }
        Ok(())
    }

    /// Sends a whole response in one write. `headers` writes everything but framing and Connection.
    pub async fn respond(
        &mut self,
        status: u16,
        headers: impl FnOnce(&mut HeadWriter<'_>),
        body: Parts,
    ) -> Result<(), ConnError> {
        let length = body.iter().map(|part| part.len() as u64).sum();
        self.start(status, Framing::Length(length), headers)?;
        self.writer.finish(body).await
    }

    /// Begins a response of unknown length: chunks for HTTP/1.1, until the close for HTTP/1.0.
    ///
    /// The head goes out with the first [`Connection::write_chunk`], or with [`Connection::flush`].
    pub fn start_stream(&mut self, status: u16, headers: impl FnOnce(&mut HeadWriter<'_>)) -> Result<(), ConnError> {
        self.start(status, Framing::Chunked, headers)
    }

    /// Begins a response; see [`ResponseWriter::start`].
    pub fn start(
        &mut self,
        status: u16,
        framing: Framing,
        headers: impl FnOnce(&mut HeadWriter<'_>),
    ) -> Result<(), ConnError> {
        self.settle();
        self.writer.start(status, framing, headers)
    }

    /// Sends body parts as one chunk and waits until the socket has taken them.
    pub async fn write_chunk(&mut self, parts: Parts) -> Result<(), ConnError> {
        self.writer.write(parts).await
    }

    /// Sends a head that waits for its first chunk.
    pub async fn flush(&mut self) -> Result<(), ConnError> {
        self.writer.flush().await
    }

    /// Ends a streamed response.
    pub async fn finish(&mut self) -> Result<(), ConnError> {
        self.writer.finish(Parts::new()).await
    }

    /// Answers an error that has a status with a short text, `connection: close`, and nothing when a response has begun
    /// or none is possible.
    pub async fn refuse(&mut self, error: &ConnError) -> Result<(), ConnError> {
        let Some(status) = error.status() else { return Ok(()) };
        self.refused = true;
        self.writer.begin_refusal();
        if !self.writer.is_awaited() {
            return Ok(());
        }
        let text = Bytes::from(format!("{error}\n"));
        let headers = |head: &mut HeadWriter<'_>| {
            head.header("content-type", "text/plain").header("date", crate::date());
        };
        self.respond(status, headers, [text].into_iter().collect()).await
    }

    /// Answers 101; see [`ResponseWriter::switch`].
    pub(crate) async fn switch(&mut self, headers: impl FnOnce(&mut HeadWriter<'_>)) -> Result<(), ConnError> {
        self.writer.switch(headers).await
    }

    /// Both directions without HTTP.
    pub(crate) fn raw_halves(&mut self) -> (&mut Source, &mut Sink) {
        (&mut self.reader.source, &mut self.writer.sink)
    }

    /// Says that the connection ends when it drains or when the unread rest of the request forbids another one.
    pub(crate) fn settle(&mut self) {
        if self.seat.is_draining() || self.reader.is_hopeless() {
            self.writer.close = true;
        }
    }

    /// Both directions at once. `100 Continue` is sent first when the client waits for it.
    pub async fn duplex(&mut self) -> Result<(&mut RequestReader, &mut ResponseWriter), ConnError> {
        // A body that says itself that it is too large is refused before any of it goes on.
        self.reader.check_length(self.reader.limits.body_bytes)?;
        self.ask_for_body().await?;
        self.writer.close |= self.seat.is_draining();
        Ok((&mut self.reader, &mut self.writer))
    }

    /// The sending side, and the receiving side to be watched with [`RequestReader::closed`] meanwhile.
    pub fn halves(&mut self) -> (&RequestReader, &mut ResponseWriter) {
        (&self.reader, &mut self.writer)
    }

    /// Waits until the client has left; see [`RequestReader::closed`].
    pub async fn closed(&self) {
        self.reader.closed().await;
    }

    /// From now on answers say that the connection ends.
    pub fn close_after(&mut self) {
        self.writer.close_after();
    }

    /// Whether a response has been begun for the current request.
    pub fn has_responded(&self) -> bool {
        !self.writer.is_awaited()
    }

    /// The client's address; an error for a unix socket.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.reader.source.half.peer_addr()
    }

    /// The address that the client connected to; an error for a unix socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.reader.source.half.local_addr()
    }

    /// Gives the connection up for another shard: the transport, and the bytes from `head`, the last one read, on.
    ///
    /// Only before anything of the request's body was read and anything was answered.
    pub fn migrate(self, head: RequestHead) -> io::Result<(Detached, Bytes)> {
        let untouched = self.writer.is_awaited() && !self.reader.has_read_body();
        if !untouched {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "request has been begun"));
        }
        let (transport, rest) = self.into_transport()?;
        let mut bytes = BytesMut::with_capacity(head.raw().len() + rest.len());
        bytes.extend_from_slice(head.raw());
        bytes.extend_from_slice(&rest);
        Ok((transport.detach()?, bytes.freeze()))
    }

    /// The transport and what was received and not used, for another protocol.
    pub fn into_transport(self) -> io::Result<(Transport, BytesMut)> {
        let RequestReader { source, .. } = self.reader;
        let (half, rest) = source.into_parts();
        Ok((half.reunite(self.writer.into_half())?, rest))
    }

    /// Ends the connection so that the client can read the last answer: the sending side first; then, unless the client
    /// has said all it had to say, what it still sends is heard out for a bounded time and amount. Closing a socket with
    /// unread bytes would reset it, and the answer with it.
    pub async fn close(mut self) {
        let said_all = !self.refused && self.reader.is_done() && self.reader.source.buf.is_empty();
        self.writer.end().await;
        if self.stream.is_some() {
            return;
        }
        if !said_all && !self.reader.source.ended {
            self.reader.linger().await;
        }
    }
}
