//! The receiving side of a connection: a read buffer that adapts to what comes, and read deadlines. Knows no HTTP.

use std::io;
use std::time::Instant;

use bytes::BytesMut;

use crate::buffer;
use crate::deadline::Deadlines;
use crate::transport::{Received, Receiver};

/// Reads smaller than an eighth of the buffer, in a row, after which it shrinks.
const SMALL_READS: u8 = 16;

/// What taking ahead of a reader came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The message is complete.
    Complete,
    /// As many pieces as asked for; there may be more.
    Full,
    /// Nothing more without receiving.
    Starved,
}

pub(crate) struct Source {
    pub(crate) half: Receiver,
    /// What was received and not used. Without capacity while the connection idles.
    pub(crate) buf: BytesMut,
    /// The peer has ended its side.
    pub(crate) ended: bool,
    deadlines: Deadlines,
    /// What the next read has room for, between [`buffer::SMALL`] and [`buffer::LARGE`].
    size: usize,
    small_reads: u8,
}

impl Source {
    pub(crate) fn new(half: Receiver, deadlines: Deadlines, buf: BytesMut) -> Self {
        Source { half, buf, ended: false, deadlines, size: buffer::SMALL, small_reads: 0 }
    }

    /// Receives once, behind what the buffer holds; `Ok(0)` at the end of the stream.
    ///
    /// `remaining` tells how many bytes are surely still to come, 0 when that is unknown. A future that is dropped in
    /// flight loses the buffer, and the runtime then refuses to receive on this socket again.
    pub(crate) async fn fill(&mut self, due: Option<Instant>, remaining: u64) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let expected = usize::try_from(remaining).unwrap_or(usize::MAX).min(buffer::LARGE);
        let size = self.size.max(expected);
        self.arm(due);
        let (result, buf) = self.half.recv(std::mem::take(&mut self.buf), size).await;
        self.arm(None);
        self.buf = buf;
        let Received { count, raw, room } = result?;
        self.ended = count == 0;
        self.adapt(raw, room);
        Ok(count)
    }

    /// Whether the peer is known to send nothing more.
    pub(crate) fn is_over(&self) -> bool {
        self.ended || self.half.is_over()
    }

    /// Waits until there is something to receive, holding no buffer when none is in use. May be dropped.
    pub(crate) async fn readable(&mut self, due: Option<Instant>) -> io::Result<()> {
        self.rest();
        self.arm(due);
        let result = self.half.readable().await;
        self.arm(None);
        result
    }

    /// Gives an empty buffer back to the shard.
    pub(crate) fn rest(&mut self) {
        if self.buf.is_empty() && self.buf.capacity() > 0 {
            buffer::give(std::mem::take(&mut self.buf));
        }
    }

    pub(crate) fn into_parts(self) -> (Receiver, BytesMut) {
        (self.half, self.buf)
    }

    fn arm(&self, due: Option<Instant>) {
        let (due, how) = self.deadlines.read(due);
        self.half.set_deadline(due, how);
    }

    fn adapt(&mut self, count: usize, room: usize) {
        if count == room {
            self.size = (self.size * 4).min(buffer::LARGE);
            self.small_reads = 0;
        } else if self.size > buffer::SMALL && count < self.size / 8 {
            self.small_reads += 1;
            if self.small_reads == SMALL_READS {
                self.size = buffer::SMALL;
                self.small_reads = 0;
            }
        } else {
            self.small_reads = 0;
        }
    }
}
