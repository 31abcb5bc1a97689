//! Responses as they go out: one write for a small one, chunks for a stream. Knows nothing of requests but what frames
//! an answer: version, HEAD, keep-alive.

use agentlane_runtime::Parts;
use agentlane_wire::h1::{
    self, CHUNK_END, CONTINUE, EncodeError, Framing, HeadWriter, LAST_CHUNK, Method, RequestHead, Version,
};
use bytes::Bytes;

use super::ConnError;
use crate::sink::Sink;
use crate::transport::Sender;

/// The sending side of a server connection.
pub struct ResponseWriter {
    pub(super) sink: Sink,
    state: State,
    version: Version,
    head_request: bool,
    /// The client wants the connection kept.
    keep_alive: bool,
    /// The answer says, or must say, that the connection ends.
    pub(super) close: bool,
    status: u16,
    /// A head that waits for the first bytes of its body.
    pending: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No request was read.
    Idle,
    /// A request waits for its response.
    Awaited,
    Body(Out),
    Done,
}

/// How the body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    Chunked,
    Length(u64),
    UntilClose,
    /// The answer to HEAD, 204 and 304: whatever body is given is not sent.
    Suppressed,
}

impl ResponseWriter {
    pub(super) fn new(sink: Sink) -> Self {
        ResponseWriter {
            sink,
            state: State::Idle,
            version: Version::Http11,
            head_request: false,
            keep_alive: false,
            close: false,
            status: 0,
            pending: None,
        }
    }

    pub(super) fn begin(&mut self, head: &RequestHead) {
        self.state = State::Awaited;
        self.version = head.version;
        self.head_request = head.method == Method::Head;
        self.keep_alive = head.keep_alive;
        self.status = 0;
    }

    /// Readies the writer to refuse what could not be read.
    pub(super) fn begin_refusal(&mut self) {
        if matches!(self.state, State::Idle | State::Done) {
            self.state = State::Awaited;
            self.version = Version::Http11;
            self.head_request = false;
        }
        self.close = true;
    }

    pub(super) fn into_half(self) -> Sender {
        self.sink.half
    }

    /// Whether no response was begun for the current request.
    pub fn is_awaited(&self) -> bool {
        self.state == State::Awaited
    }

    /// The status of the current or last response, 0 before it is begun.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Bytes written on this connection.
    pub fn written(&self) -> u64 {
        self.sink.written
    }

    pub(super) fn is_finished(&self) -> bool {
        matches!(self.state, State::Idle | State::Done)
    }

    /// Ends the sending side. An answer that was begun and not finished is seen to be cut.
    pub(super) async fn end(&mut self) {
        let whole = self.is_finished();
        self.sink.end(whole).await;
    }

    pub(super) fn keeps_connection(&self) -> bool {
        self.is_finished() && !self.close && (self.state == State::Idle || self.keep_alive)
    }

    /// From now on the answer says that the connection ends.
    pub fn close_after(&mut self) {
        self.close = true;
    }

    pub(super) async fn send_continue(&mut self) -> Result<(), ConnError> {
        self.send([Bytes::from_static(CONTINUE)].into_iter().collect()).await
    }

    /// Encodes the response head; it goes out with the first body bytes, or with [`ResponseWriter::flush`].
    ///
    /// `framing` is that of the body as the caller has it. [`Framing::Chunked`] and [`Framing::UntilClose`] both mean
    /// "not known": chunks for HTTP/1.1, until the close for HTTP/1.0. [`Framing::None`] is an empty body. For HEAD,
    /// 204 and 304 the body is not sent. `headers` writes everything but framing and Connection.
    pub fn start(
        &mut self,
        status: u16,
        framing: Framing,
        headers: impl FnOnce(&mut HeadWriter<'_>),
    ) -> Result<(), ConnError> {
        if self.state != State::Awaited {
            return Err(ConnError::Response("response begun twice"));
        }
        if !(200..=599).contains(&status) {
            return Err(ConnError::Encode(EncodeError::Status));
        }
        let (out, written) = self.frame(status, framing);
        let is_stream = self.version == Version::Http2;
        let close = self.close || !self.keep_alive || out == Out::UntilClose;
        let mut head = h1::response_head(&mut self.sink.scratch, status);
        headers(&mut head);
        head.framing(written);
        if is_stream {
            // A stream has one answer, and no word for that.
        } else if close {
            head.header("connection", "close");
        } else if self.version == Version::Http10 {
            head.header("connection", "keep-alive");
        }
        head.finish()?;
        self.close = close;
        self.status = status;
        self.pending = Some(self.sink.scratch.split().freeze());
        self.state = State::Body(out);
        Ok(())
    }

    /// Answers 101 (RFC 9110, 15.2.2): what follows is of another protocol. `headers` writes all of it.
    pub(super) async fn switch(&mut self, headers: impl FnOnce(&mut HeadWriter<'_>)) -> Result<(), ConnError> {
        if self.state != State::Awaited || self.version != Version::Http11 {
            return Err(ConnError::Response("no request for another protocol"));
        }
        let mut head = h1::response_head(&mut self.sink.scratch, 101);
        headers(&mut head);
        head.finish()?;
        (self.status, self.state, self.close) = (101, State::Done, true);
        let head = self.sink.scratch.split().freeze();
        self.sink.write([head].into_iter().collect()).await.map_err(ConnError::writing)
    }

    /// How the body goes out and which framing header says so.
    fn frame(&self, status: u16, framing: Framing) -> (Out, Framing) {
        if status == 204 {
            return (Out::Suppressed, Framing::None);
        }
        if self.head_request || status == 304 {
            let told = if matches!(framing, Framing::Length(_)) { framing } else { Framing::None };
            return (Out::Suppressed, told);
        }
        match framing {
            Framing::None => (Out::Length(0), Framing::Length(0)),
            Framing::Length(length) => (Out::Length(length), framing),
            _ if self.version != Version::Http11 => (Out::UntilClose, Framing::None),
            _ => (Out::Chunked, Framing::Chunked),
        }
    }

    /// Sends body parts as one chunk, with the head if that waits. No parts, no chunk.
    pub async fn write(&mut self, parts: Parts) -> Result<(), ConnError> {
        let framed = self.frame_parts(parts, false)?;
        self.send(framed).await
    }

    /// Sends the last body parts, possibly none, and ends the message; one write.
    pub async fn finish(&mut self, parts: Parts) -> Result<(), ConnError> {
        let framed = self.frame_parts(parts, true)?;
        let sent = self.sink.finish(framed).await;
        self.sent(sent)?;
        self.state = State::Done;
        if self.close {
            self.sink.end(true).await;
        }
        Ok(())
    }

    /// Sends the head if it waits, for a stream whose first event may be long in coming.
    pub async fn flush(&mut self) -> Result<(), ConnError> {
        let head: Parts = self.pending.take().into_iter().collect();
        self.send(head).await
    }

    fn frame_parts(&mut self, mut parts: Parts, last: bool) -> Result<Parts, ConnError> {
        let State::Body(out) = &mut self.state else {
            return Err(ConnError::Response("no response was begun"));
        };
        parts.retain(|part| !part.is_empty());
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        match out {
            Out::Suppressed => parts.clear(),
            Out::UntilClose => {}
            Out::Length(left) => {
                let rest = left.checked_sub(bytes as u64);
                *left = rest.ok_or(ConnError::Response("response longer than announced"))?;
                if last && *left > 0 {
                    return Err(ConnError::Response("response shorter than announced"));
                }
            }
            Out::Chunked => {
                // One part before and at most one behind: the head, the size, and the frame's end share theirs.
                if bytes > 0 {
                    if let Some(head) = self.pending.take() {
                        self.sink.scratch.extend_from_slice(&head);
                    }
                    h1::chunk_head(&mut self.sink.scratch, bytes);
                    parts.insert(0, self.sink.scratch.split().freeze());
                }
                match (bytes > 0, last) {
                    (true, true) => parts.push(Bytes::from_static(b"\r\n0\r\n\r\n")),
                    (true, false) => parts.push(Bytes::from_static(CHUNK_END)),
                    (false, true) => parts.push(Bytes::from_static(LAST_CHUNK)),
                    (false, false) => {}
                }
            }
        }
        if (bytes > 0 || last)
            && let Some(head) = self.pending.take()
        {
            parts.insert(0, head);
        }
        Ok(parts)
    }

    async fn send(&mut self, parts: Parts) -> Result<(), ConnError> {
        let sent = self.sink.write(parts).await;
        self.sent(sent)
    }

    fn sent(&mut self, sent: std::io::Result<()>) -> Result<(), ConnError> {
        sent.map_err(|error| {
            self.close = true;
            ConnError::writing(error)
        })
    }
}
