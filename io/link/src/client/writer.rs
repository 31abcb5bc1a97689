//! A request on its way out: whole in one write, or streamed. Knows nothing of the response.

use std::io;

use agentlane_runtime::Parts;
use agentlane_wire::h1::{self, CHUNK_END, Framing, LAST_CHUNK};
use bytes::Bytes;

use super::ClientErrorKind;
use crate::sink::Sink;

/// The sending side of an upstream connection.
pub struct RequestWriter {
    pub(super) sink: Sink,
    state: State,
    pending: Option<Bytes>,
    /// Bytes of the current request were handed to the socket.
    pub(super) started: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Chunked,
    /// A stream's end is the body's.
    Stream,
    Length(u64),
    Done,
    Failed,
}

impl RequestWriter {
    pub(super) fn new(sink: Sink) -> Self {
        RequestWriter { sink, state: State::Idle, pending: None, started: false }
    }

    pub(super) fn reset(&mut self) {
        self.state = State::Idle;
        self.started = false;
    }

    /// Whether the request was sent to its end.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes written on this connection.
    pub fn written(&self) -> u64 {
        self.sink.written
    }

    pub(super) fn start(&mut self, head: Bytes, framing: Framing) -> Result<(), ClientErrorKind> {
        if self.state != State::Idle {
            return Err(ClientErrorKind::Request("request begun twice"));
        }
        self.state = match framing {
            Framing::Chunked if self.sink.half.is_stream() => State::Stream,
            Framing::Chunked => State::Chunked,
            Framing::Length(length) => State::Length(length),
            Framing::None => State::Length(0),
            Framing::UntilClose => return Err(ClientErrorKind::Request("a request cannot last until the close")),
        };
        self.pending = Some(head);
        Ok(())
    }

    /// A head and a body that the caller has framed already, in one write.
    pub(super) async fn send_whole(&mut self, mut parts: Parts, head: Bytes) -> Result<(), ClientErrorKind> {
        if self.state != State::Idle {
            return Err(ClientErrorKind::Request("request begun twice"));
        }
        parts.insert(0, head);
        self.send(parts, true).await?;
        self.state = State::Done;
        Ok(())
    }

    /// Sends body parts, with the head if that waits. No parts, no chunk.
    pub async fn write(&mut self, parts: Parts) -> Result<(), ClientErrorKind> {
        let framed = self.frame(parts, false)?;
        self.send(framed, false).await
    }

    /// Sends the last body parts, possibly none, and ends the request.
    pub async fn finish(&mut self, parts: Parts) -> Result<(), ClientErrorKind> {
        let framed = self.frame(parts, true)?;
        self.send(framed, true).await?;
        self.state = State::Done;
        Ok(())
    }

    /// Sends a head that waits for its first body bytes.
    pub async fn flush(&mut self) -> Result<(), ClientErrorKind> {
        let head: Parts = self.pending.take().into_iter().collect();
        self.send(head, false).await
    }

    fn frame(&mut self, mut parts: Parts, last: bool) -> Result<Parts, ClientErrorKind> {
        parts.retain(|part| !part.is_empty());
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        match &mut self.state {
            State::Length(left) => {
                let rest = left.checked_sub(bytes as u64);
                *left = rest.ok_or(ClientErrorKind::Request("request longer than announced"))?;
                if last && *left > 0 {
                    return Err(ClientErrorKind::Request("request shorter than announced"));
                }
            }
            State::Chunked if bytes > 0 => {
                h1::chunk_head(&mut self.sink.scratch, bytes);
                parts.insert(0, self.sink.scratch.split().freeze());
                parts.push(Bytes::from_static(if last { b"\r\n0\r\n\r\n" } else { CHUNK_END }));
            }
            State::Chunked if last => parts.push(Bytes::from_static(LAST_CHUNK)),
            State::Chunked | State::Stream => {}
            State::Failed => return Err(ClientErrorKind::Write(io::ErrorKind::BrokenPipe)),
            State::Idle | State::Done => return Err(ClientErrorKind::Request("no request was begun")),
        }
        if (bytes > 0 || last)
            && let Some(head) = self.pending.take()
        {
            parts.insert(0, head);
        }
        Ok(parts)
    }

    async fn send(&mut self, parts: Parts, last: bool) -> Result<(), ClientErrorKind> {
        self.started = true;
        let sent = if last { self.sink.finish(parts).await } else { self.sink.write(parts).await };
        sent.map_err(|error| {
            self.state = State::Failed;
            match error.kind() {
                io::ErrorKind::TimedOut => ClientErrorKind::WriteTimeout,
                kind => ClientErrorKind::Write(kind),
            }
        })
    }
}
