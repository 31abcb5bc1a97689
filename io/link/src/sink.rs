//! The sending side of a connection: one write per message where the socket takes it, and a write deadline. Knows no HTTP.

use std::io;
use std::time::Duration;

use agentlane_runtime::{Parts, now};
use bytes::BytesMut;

use crate::deadline::Deadlines;
use crate::transport::Sender;

/// Up to this many bytes, copying the parts together costs less than a vectored write.
const COPY_MAX: usize = 1024;

pub(crate) struct Sink {
    pub(crate) half: Sender,
    /// Where heads and chunk frames are encoded; empty between writes.
    pub(crate) scratch: BytesMut,
    /// Bytes written so far.
    pub(crate) written: u64,
    deadlines: Deadlines,
    write_time: Duration,
}

impl Sink {
    pub(crate) fn new(half: Sender, deadlines: Deadlines, write_time: Duration) -> Self {
        Sink { half, scratch: BytesMut::new(), written: 0, deadlines, write_time }
    }

    /// Sends all parts in order. A peer that does not take them within the write time fails the connection.
    pub(crate) async fn write(&mut self, parts: Parts) -> io::Result<()> {
        self.send(parts, false).await
    }

    /// Sends the last parts of a message, possibly none.
    pub(crate) async fn finish(&mut self, parts: Parts) -> io::Result<()> {
        self.send(parts, true).await
    }

    async fn send(&mut self, mut parts: Parts, last: bool) -> io::Result<()> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if bytes == 0 && !(last && self.half.is_stream()) {
            return Ok(());
        }
        if parts.len() > 1 && bytes <= COPY_MAX && !self.half.gathers() {
            parts.iter().for_each(|part| self.scratch.extend_from_slice(part));
            parts.clear();
            parts.push(self.scratch.split().freeze());
        }
        self.arm(true);
        let result = self.half.send(parts, last).await;
        self.arm(false);
        if result.is_ok() {
            self.written += bytes as u64;
        }
        result
    }

    fn arm(&self, on: bool) {
        let due = on.then(|| now().checked_add(self.write_time)).flatten();
        let (due, how) = self.deadlines.write(due);
        self.half.set_deadline(due, how);
    }

    /// Tells the peer that nothing more follows, and with `whole` that what it has is all there is.
    pub(crate) async fn end(&mut self, whole: bool) {
        self.arm(true);
        self.half.end(whole).await;
        self.arm(false);
    }
}
