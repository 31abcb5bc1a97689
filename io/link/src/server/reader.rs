//! Requests as they come in: heads, bodies, what is left unread. Knows nothing of responses.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use agentlane_runtime::{Parts, now, yield_now};
use agentlane_wire::h1::{BodyDecoder, Decoded, Framing, H1Error, HeadParser, RequestHead, Version};
use bytes::{BufMut, Bytes, BytesMut};

use super::{ConnError, ServerLimits};
use crate::drain::Seat;
use crate::h2::PREFACE_HEAD;
use crate::peek::Peek;
use crate::source::{Source, Taken};

/// A client that asks again within this time is waited for with a buffer in hand: one operation a request. Any other
/// waits without, which costs one more and holds no memory.
const IDLE_GRACE: Duration = Duration::from_millis(100);
/// Pieces of a body that are taken ahead of the reader to find out whether it is complete.
const PIECES_AHEAD_MAX: usize = 6;

/// The receiving side of a server connection.
pub struct RequestReader {
    pub(super) source: Source,
    pub(super) limits: Rc<ServerLimits>,
    parser: HeadParser,
    decoder: BodyDecoder,
    /// Decoded pieces that were not asked for yet.
    ahead: Parts,
    /// Bytes of the current body so far.
    received: u64,
    /// The client waits for `100 Continue`, which was not sent.
    pub(super) expects_continue: bool,
    head_due: Option<Instant>,
    /// The last request came within the grace.
    busy: bool,
    /// The head of a stream, which has come already.
    given: Option<Box<Result<RequestHead, H1Error>>>,
    /// The client may yet turn out to speak HTTP/2 (RFC 9113, 3.3).
    may_be_http2: bool,
}

impl RequestReader {
    pub(super) fn new(source: Source, limits: Rc<ServerLimits>) -> Self {
        RequestReader {
            // With TLS it is agreed on in the handshake.
            may_be_http2: source.half.is_plain(),
            source,
            limits,
            parser: HeadParser::default(),
            decoder: BodyDecoder::new(Framing::None),
            ahead: Parts::new(),
            received: 0,
            expects_continue: false,
            head_due: None,
            busy: false,
            given: None,
        }
    }

    /// A reader whose one request has begun.
    pub(super) fn of_stream(source: Source, limits: Rc<ServerLimits>, head: Result<RequestHead, H1Error>) -> Self {
        let mut reader = Self::new(source, limits);
        reader.given = Some(Box::new(head));
        reader
    }

    /// The next head; `None` when the client is done, silent for too long, or told to go by `seat`.
    pub(super) async fn head(&mut self, seat: &Seat) -> Result<Option<RequestHead>, ConnError> {
        self.head_due = None;
        if let Some(head) = self.given.take() {
            let head = (*head)?;
            self.begin(&head);
            return Ok(Some(head));
        }
        loop {
            if self.may_be_http2 && self.source.buf.starts_with(PREFACE_HEAD) {
                return Err(ConnError::Http2);
            }
            if !self.source.buf.is_empty()
                && let Some(head) = self.parser.request(&mut self.source.buf, &self.limits.head)?
            {
                self.begin(&head);
                return Ok(Some(head));
            }
            // An empty line before a request is no request yet.
            let idle = self.source.buf.is_empty() || &self.source.buf[..] == b"\r\n";
            let ended = if idle { self.wait_idle(seat).await? } else { self.wait_head().await? };
            if ended && idle {
                return Ok(None);
            }
            if ended {
                return Err(ConnError::Malformed(H1Error::Truncated));
            }
        }
    }

    fn begin(&mut self, head: &RequestHead) {
        self.may_be_http2 = false;
        let framing = match head.framing {
            // The stream's end is the body's.
            Framing::Chunked if head.version == Version::Http2 => Framing::UntilClose,
            framing => framing,
        };
        self.decoder = BodyDecoder::with_limits(framing, self.limits.chunks);
        self.ahead.clear();
        self.received = 0;
        self.expects_continue = head.expect_continue && !head.framing.is_empty();
    }

    /// Waits for the first bytes of a request. True: none will come.
    async fn wait_idle(&mut self, seat: &Seat) -> Result<bool, ConnError> {
        let start = now();
        let due = start.checked_add(self.limits.idle);
        if !self.busy {
            match unless_draining(seat, self.source.readable(due)).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return Ok(true),
            }
        }
        // A request that is on its way when the drain starts is lost with the connection, as with any idle close.
        let received = unless_draining(seat, self.source.fill(due, 0)).await;
        self.busy = now().saturating_duration_since(start) < IDLE_GRACE;
        // An idle connection that fails, or that nobody uses in time, has simply ended.
        Ok(!matches!(received, Some(Ok(1..))))
    }

    /// Waits for more of a head. True: the client has ended its side.
    async fn wait_head(&mut self) -> Result<bool, ConnError> {
        if self.head_due.is_none() {
            self.head_due = now().checked_add(self.limits.head_time);
        }
        match self.source.fill(self.head_due, 0).await {
            Ok(count) => Ok(count == 0),
            Err(error) => Err(ConnError::reading(error, ConnError::HeadTimeout)),
        }
    }

    /// The next piece of the body, `None` at its end. Pieces share the read buffer and are never empty.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ConnError> {
        loop {
            match self.step()? {
                Decoded::Data(data) => return Ok(Some(data)),
                Decoded::End => return Ok(None),
                Decoded::NeedMore => self.fill(now().checked_add(self.limits.body_time)).await?,
            }
        }
    }

    /// The whole body in one piece, or [`H1Error::BodyTooLarge`] beyond `max` bytes. Without a copy when it came in one
    /// piece.
    pub(super) async fn all(&mut self, max: u64) -> Result<Bytes, ConnError> {
        let max = max.min(self.limits.body_bytes);
        self.check_length(max)?;
        let due = now().checked_add(self.limits.body_time);
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        loop {
            match self.step()? {
                Decoded::Data(data) => {
                    if (first.len() + joined.len() + data.len()) as u64 > max {
                        return Err(H1Error::BodyTooLarge.into());
                    }
                    if joined.is_empty() && first.is_empty() {
                        first = data;
                        continue;
                    }
                    if joined.is_empty() {
                        joined.reserve(first.len() + data.len() + self.decoder.remaining().min(64 * 1024) as usize);
                        joined.put(std::mem::take(&mut first));
                    }
                    joined.put(data);
                }
                Decoded::NeedMore => self.fill(due).await?,
                Decoded::End if joined.is_empty() => return Ok(first),
                Decoded::End => return Ok(joined.freeze()),
            }
        }
    }

    /// The whole body when all of it has come already; otherwise `None`, and nothing is lost.
    pub fn buffered(&mut self) -> Result<Option<Parts>, ConnError> {
        while self.ahead.len() < PIECES_AHEAD_MAX {
            match self.decode()? {
                Decoded::Data(data) => self.ahead.push(data),
                Decoded::NeedMore => return Ok(None),
                Decoded::End => return Ok(Some(std::mem::take(&mut self.ahead))),
            }
        }
        Ok(None)
    }

    /// Takes what has come of the body, without waiting, up to `max` pieces.
    pub(crate) fn take_buffered(&mut self, parts: &mut Parts, max: usize) -> Result<Taken, ConnError> {
        while parts.len() < max {
            match self.step()? {
                Decoded::Data(data) => parts.push(data),
                Decoded::End => return Ok(Taken::Complete),
                Decoded::NeedMore => return Ok(Taken::Starved),
            }
        }
        Ok(if self.is_done() { Taken::Complete } else { Taken::Full })
    }

    /// Receives more of the body.
    pub(crate) async fn fill_body(&mut self) -> Result<(), ConnError> {
        self.fill(now().checked_add(self.limits.body_time)).await
    }

    /// Waits until the client has left; never ends while it is there. May be dropped.
    ///
    /// A client that has ended its sending side counts as gone. One that has sent the next request early cannot be
    /// watched: then this waits for ever, and a write will tell.
    pub async fn closed(&self) {
        if let Some(stream) = self.source.half.stream() {
            return stream.left().await;
        }
        loop {
            if self.source.ended || self.source.half.readable().await.is_err() {
                return;
            }
            match self.source.half.peek() {
                Peek::Ended => return,
                Peek::Bytes => return std::future::pending().await,
                // Woken for nothing: let the others run before asking again.
                Peek::Silent => yield_now().await,
            }
        }
    }

    /// Whether any of the current body was taken, so that the request cannot be told anew.
    pub(super) fn has_read_body(&self) -> bool {
        self.received > 0 || !self.ahead.is_empty()
    }

    /// Whether the current message was read to its end.
    pub fn is_done(&self) -> bool {
        self.decoder.is_done() && self.ahead.is_empty()
    }

    /// Whether the rest of the current body is known to be more than a connection is worth, or might never come.
    pub(super) fn is_hopeless(&self) -> bool {
        !self.is_done() && (self.expects_continue || self.decoder.remaining() > self.limits.unread_body_bytes)
    }

    /// Reads what is left of the current body and forgets it. False: the connection cannot be used again.
    pub(super) async fn skip(&mut self) -> bool {
        if self.is_done() {
            return true;
        }
        if self.is_hopeless() {
            return false;
        }
        let due = now().checked_add(self.limits.linger);
        let mut left = self.limits.unread_body_bytes;
        loop {
            match self.step() {
                Ok(Decoded::End) => return true,
                Ok(Decoded::Data(data)) if data.len() as u64 <= left => left -= data.len() as u64,
                Ok(Decoded::NeedMore) if self.fill(due).await.is_ok() => {}
                _ => return false,
            }
        }
    }

    /// Hears a closing client out, so that its unread bytes do not reset the connection under the last answer.
    pub(super) async fn linger(&mut self) {
        let due = now().checked_add(self.limits.linger);
        let mut left = self.limits.unread_body_bytes;
        loop {
            self.source.buf.clear();
            match self.source.fill(due, 0).await {
                Ok(count @ 1..) if count as u64 <= left => left -= count as u64,
                _ => return,
            }
        }
    }

    fn step(&mut self) -> Result<Decoded, H1Error> {
        if self.ahead.is_empty() {
            return self.decode();
        }
        Ok(Decoded::Data(self.ahead.remove(0)))
    }

    fn decode(&mut self) -> Result<Decoded, H1Error> {
        let decoded = self.decoder.decode(&mut self.source.buf)?;
        if let Decoded::Data(data) = &decoded {
            self.received += data.len() as u64;
            if self.received > self.limits.body_bytes {
                return Err(H1Error::BodyTooLarge);
            }
        }
        Ok(decoded)
    }

    /// Refuses a body by its announced length before any of it is asked for.
    pub(super) fn check_length(&self, max: u64) -> Result<(), ConnError> {
        if self.decoder.remaining().saturating_add(self.received) > max {
            return Err(H1Error::BodyTooLarge.into());
        }
        Ok(())
    }

    async fn fill(&mut self, due: Option<Instant>) -> Result<(), ConnError> {
        match self.source.fill(due, self.decoder.remaining()).await {
            Ok(0) if self.decoder.eof().is_ok() => Ok(()),
            Ok(0) => Err(ConnError::Closed(io::ErrorKind::UnexpectedEof)),
            Ok(_) => Ok(()),
            Err(error) => Err(ConnError::reading(error, ConnError::BodyTimeout)),
        }
    }
}

/// The output of `wait`, or `None` once the server drains; `wait` is then dropped.
async fn unless_draining<F: Future>(seat: &Seat, wait: F) -> Option<F::Output> {
    let mut wait = pin!(wait);
    poll_fn(|cx| {
        if let Poll::Ready(output) = wait.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if seat.is_draining() {
            return Poll::Ready(None);
        }
        seat.wait(cx);
        Poll::Pending
    })
    .await
}
