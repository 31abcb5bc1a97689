//! One TLS connection as a state machine: received bytes in, plaintext out; parts in, records out. Knows no socket.

use std::io::{self, BufRead, IoSlice, Write};

use agentlane_runtime::Parts;
use bytes::{Buf, Bytes, BytesMut};
use rustls::{Connection, ProtocolVersion};
use smallvec::SmallVec;

use crate::buffer;

/// rustls and what is known of it between two operations. It may move to another thread.
pub(crate) struct Session {
    tls: Connection,
    /// Decrypted bytes that wait inside `tls`: what came with the end of the handshake, or was found by a look at an idle
    /// connection. Otherwise 0.
    ready: usize,
    /// The peer has said that nothing follows (close_notify).
    closed: bool,
    /// What broke the connection behind plaintext that was good and goes first.
    failed: Option<rustls::Error>,
    /// Records that the socket did not take; they go first.
    unsent: Bytes,
    /// Records are on their way; when that write is dropped, nobody knows how many have gone.
    sending: bool,
}

impl Session {
    pub(crate) fn new(tls: Connection) -> Self {
        Session { tls, ready: 0, closed: false, failed: None, unsent: Bytes::new(), sending: false }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.tls
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether the last flight of this side may wait for the first bytes of the application (RFC 8446, 4.6.1 and 4.4.4):
    /// one write less for each connection.
    pub(crate) fn may_defer_flight(&self) -> bool {
        self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Whether decrypted bytes wait.
    pub(crate) fn has_plaintext(&self) -> bool {
        self.ready > 0
    }

    /// Whether the peer has ended its side in the way that proves that nothing was cut off.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether nothing more will be received, for whatever reason.
    pub(crate) fn is_over(&self) -> bool {
        self.closed || self.failed.is_some()
    }

    /// Decrypts what was received and appends the plaintext to `out`. A failure behind good plaintext is the next
    /// [`Session::failure`].
    pub(crate) fn open(&mut self, mut received: &[u8], out: &mut BytesMut) {
        while !received.is_empty() && !self.is_over() {
            self.failed = self.take_in(&mut received).err();
            self.drain(out);
        }
    }

    /// What broke the connection.
    pub(crate) fn failure(&self) -> Option<&rustls::Error> {
        self.failed.as_ref()
    }

    /// Decrypts what was received, at most [`buffer::SMALL`] bytes, and keeps the plaintext inside. A
    /// failure behind good plaintext comes after it, as with [`Session::open`].
    pub(crate) fn hold(&mut self, mut received: &[u8]) -> Result<(), rustls::Error> {
        while !received.is_empty() && !self.is_over() {
            match self.take_in(&mut received) {
                Err(error) if self.has_plaintext() => self.failed = Some(error),
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn take_in(&mut self, received: &mut &[u8]) -> Result<(), rustls::Error> {
        let full = |_| rustls::Error::General("the peer's messages do not fit".to_owned());
        if self.tls.read_tls(received).map_err(full)? == 0 {
            return Err(full(io::ErrorKind::OutOfMemory.into()));
        }
        let state = match self.tls.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                self.ready = self.tls.reader().fill_buf().map_or(0, <[u8]>::len);
                return Err(error);
            }
        };
        self.ready = state.plaintext_bytes_to_read();
        self.closed = state.peer_has_closed();
        Ok(())
    }

    /// Moves the plaintext that waits to `out`; gives its bytes.
    pub(crate) fn drain(&mut self, out: &mut BytesMut) -> usize {
        let start = out.len();
        if out.capacity() == 0 && self.ready > 0 {
            *out = buffer::take(self.ready);
        }
        let mut reader = self.tls.reader();
        // An error says that nothing is left, and at most why.
        while let Ok(chunk @ [_, ..]) = reader.fill_buf() {
            let count = chunk.len();
            out.extend_from_slice(chunk);
            reader.consume(count);
        }
        self.ready = 0;
        out.len() - start
    }

    /// Encrypts as much of `parts` as one write is worth, takes it out of them, and gives the records, with whatever else
    /// waits to be sent. Empty: nothing is left to send.
    pub(crate) fn seal(&mut self, parts: &mut Parts) -> io::Result<Bytes> {
        let total: usize = parts.iter().map(Bytes::len).sum();
        let taken = if total > 0 {
            let slices: SmallVec<[IoSlice<'_>; 8]> = parts.iter().map(|part| IoSlice::new(part)).collect();
            self.tls.writer().write_vectored(&slices)?
        } else {
            0
        };
        if taken == 0 && total > 0 && !self.has_output() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        advance(parts, taken);
        self.output()
    }

    /// The bytes that this side wants to send by itself: flights of the handshake, alerts, tickets.
    pub(crate) fn output(&mut self) -> io::Result<Bytes> {
        let unsent = std::mem::take(&mut self.unsent);
        if !self.tls.wants_write() {
            return Ok(unsent);
        }
        buffer::encode(|out| {
            let start = out.len();
            out.extend_from_slice(&unsent);
            while self.tls.wants_write() {
                self.tls.write_tls(&mut Append(out))?;
            }
            Ok(out.len() - start)
        })
    }

    /// Whether this side has something to send by itself.
    pub(crate) fn has_output(&self) -> bool {
        self.tls.wants_write() || !self.unsent.is_empty()
    }

    /// Takes back the end of an output that the socket did not take.
    pub(crate) fn put_back(&mut self, unsent: Bytes) {
        self.unsent = unsent;
    }

    /// Notes that an output is on its way, or has gone.
    pub(crate) fn set_sending(&mut self, sending: bool) {
        self.sending = sending;
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.sending
    }

    /// Says that nothing follows; the alert goes out with [`Session::output`]. Nothing once an alert was sent.
    pub(crate) fn close(&mut self) {
        self.tls.send_close_notify();
    }
}

/// Takes the first `count` bytes out of the parts.
fn advance(parts: &mut Parts, mut count: usize) {
    let mut done = 0;
    for part in parts.iter_mut() {
        if count < part.len() {
            part.advance(count);
            break;
        }
        count -= part.len();
        done += 1;
    }
    parts.drain(..done);
}

/// Records one behind the other.
struct Append<'a>(&'a mut BytesMut);

impl Write for Append<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let total = slices.iter().map(|slice| slice.len()).sum();
        self.0.reserve(total);
        slices.iter().for_each(|slice| self.0.extend_from_slice(slice));
        Ok(total)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lose_what_was_taken() {
        let parts = || -> Parts { ["abc", "", "de"].map(Bytes::from).into_iter().collect() };
        for (count, left) in [(0, "abcde"), (2, "cde"), (3, "de"), (4, "e"), (5, "")] {
            let mut parts = parts();
            advance(&mut parts, count);
            assert_eq!(parts.concat(), left.as_bytes(), "{count}");
        }
    }
}
