//! Upstream HTTP/1 connections: a request out, its response in, and back to the pool when nothing is in doubt. Knows no
//! route and no retry policy; its errors say what a retry may assume.
//!
//! ```text
//! let mut upstream = pool.connection(addr).await?;
//! upstream.send(Method::Post, head, parts).await?;
//! let head = upstream.response_head().await?;
//! let body = upstream.body_all(max).await?;
//! // dropped: back to the pool
//! ```

mod cut;
mod error;
mod limits;
mod link;
mod multiplex;
mod pool;
mod reader;
mod writer;

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use agentlane_runtime::Parts;
use agentlane_wire::h1::{Framing, Method, ResponseHead};
use bytes::Bytes;

pub use cut::Cut;
pub use error::{ClientError, ClientErrorKind, Progress};
pub use limits::ClientLimits;
pub use pool::{Endpoint, Pool, Spoken};
pub use reader::ResponseReader;
pub use writer::RequestWriter;

use crate::h2::Share;
use crate::sink::Sink;
use crate::source::Source;
use cut::How;
use link::Link;
use pool::Permit;

/// A connection to an upstream for one exchange.
///
/// Dropped, it goes back to its pool if request and response were complete, the server keeps the connection, and not a
/// byte too many came. Otherwise it is closed.
pub struct ClientConnection {
    /// Always there until the drop.
    link: Option<Box<Link>>,
    permit: Option<Permit>,
    /// Its part of a connection of HTTP/2.
    share: Option<Share>,
}

impl ClientConnection {
    fn new(link: Box<Link>, permit: Permit) -> Self {
        ClientConnection { link: Some(link), permit: Some(permit), share: None }
    }

    fn of_stream(link: Box<Link>, share: Share) -> Self {
        ClientConnection { link: Some(link), permit: None, share: Some(share) }
    }

    /// Whether this connection has served a request before.
    pub fn is_reused(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.reader.reused)
    }

    /// Sends a whole request in one write: `head` with the framing header that fits `body`, and the body as it goes on
    /// the wire.
    ///
    /// A server that answers early and closes makes the write fail while its answer can still be read: such a failure is
    /// reported by [`ClientConnection::response_head`], if there is no answer.
    pub async fn send(&mut self, method: Method, head: Bytes, body: Parts) -> Result<(), ClientError> {
        let link = self.link()?;
        link.reader.begin(method);
        match link.writer.send_whole(body, head).await {
            Ok(()) | Err(ClientErrorKind::Write(_)) => Ok(()),
            Err(kind) => Err(self.failed(kind)),
        }
    }

    /// Begins a request whose body follows. The head goes out with the first body bytes.
    pub fn start(&mut self, method: Method, head: Bytes, framing: Framing) -> Result<(), ClientError> {
        let link = self.link()?;
        link.reader.begin(method);
        link.writer.start(head, framing).map_err(|kind| self.failed(kind))
    }

    /// Sends a part of the body begun with [`ClientConnection::start`]. On [`ClientErrorKind::Write`] the server may
    /// have answered already: ask for the response head.
    pub async fn write(&mut self, parts: Parts) -> Result<(), ClientError> {
        let sent = self.link()?.writer.write(parts).await;
        sent.map_err(|kind| self.failed_write(kind))
    }

    /// Ends the body begun with [`ClientConnection::start`].
    pub async fn finish(&mut self, parts: Parts) -> Result<(), ClientError> {
        let sent = self.link()?.writer.finish(parts).await;
        sent.map_err(|kind| self.failed_write(kind))
    }

    /// The final response head; interim ones are skipped.
    pub async fn response_head(&mut self) -> Result<ResponseHead, ClientError> {
        self.link()?.reader.head().await
    }

    /// The next piece of the response body, `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.link()?.reader.chunk().await
    }

    /// The whole response body, an error beyond `max` bytes.
    pub async fn body_all(&mut self, max: u64) -> Result<Bytes, ClientError> {
        self.link()?.reader.all(max).await
    }

    /// When the response head must have come, in place of the limit's time.
    pub fn set_response_deadline(&mut self, due: Option<Instant>) {
        if let Some(link) = &mut self.link {
            link.reader.set_response_deadline(due);
        }
    }

    /// How long the response body may be silent, in place of the limit's time. None: for ever.
    pub fn set_body_idle(&mut self, idle: Option<Duration>) {
        if let Some(link) = &mut self.link {
            link.reader.set_body_idle(idle);
        }
    }

    /// When the whole response must have come. None: no such time.
    pub fn set_end(&mut self, due: Option<Instant>) {
        if let Some(link) = &mut self.link {
            link.reader.set_end(due);
        }
    }

    /// The request asks for another protocol: 101 is an answer.
    pub(crate) fn expect_upgrade(&mut self) {
        if let Some(link) = &mut self.link {
            link.reader.expects_upgrade = true;
        }
    }

    /// Both directions without HTTP.
    pub(crate) fn halves(&mut self) -> Option<(&mut Source, &mut Sink)> {
        let link = self.link.as_deref_mut()?;
        Some((&mut link.reader.source, &mut link.writer.sink))
    }

    /// Both directions at once.
    pub fn split(&mut self) -> Result<(&mut RequestWriter, &mut ResponseReader), ClientError> {
        let link = self.link()?;
        Ok((&mut link.writer, &mut link.reader))
    }

    /// For a task that may have to end a wait of this exchange.
    pub fn cut(&self) -> Option<Cut> {
        let link = self.link.as_ref()?;
        let receiver = link.socket();
        Some(Cut(match receiver.stream() {
            Some(stream) => How::Stream(stream.ender()),
            None => How::Socket(receiver.as_raw_fd(), link.ended.clone()),
        }))
    }

    /// Closes the connection, whatever its state.
    pub fn abort(mut self) {
        self.link = None;
    }

    fn link(&mut self) -> Result<&mut Link, ClientError> {
        self.link.as_deref_mut().ok_or(ClientError::not_sent(ClientErrorKind::Closed))
    }

    fn failed(&mut self, kind: ClientErrorKind) -> ClientError {
        match &mut self.link {
            Some(link) if link.writer.started => link.reader.fail(kind),
            _ => ClientError::not_sent(kind),
        }
    }

    /// A failed write leaves the answer readable.
    fn failed_write(&mut self, kind: ClientErrorKind) -> ClientError {
        let reused = self.is_reused();
        match kind {
            ClientErrorKind::Write(_) => ClientError { kind, progress: Progress::Unanswered { reused } },
            kind => self.failed(kind),
        }
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        // The stream first: a server that may have one more must have this one less.
        if self.share.is_some() {
            self.link = None;
        }
        // Without a link the permit is returned by its own drop.
        let Some(permit) = self.permit.take() else { return };
        let Some(link) = self.link.take() else { return };
        if link.is_reusable() {
            permit.endpoint().put(link, permit);
        }
    }
}
