//! The two directions of a TLS connection over the runtime's halves. They share one session, which is never borrowed over a
//! wait.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use agentlane_runtime::{Parts, ReadHalf, Stream, WriteHalf};
use bytes::{Buf, Bytes, BytesMut};

use super::Session;
use crate::buffer;
use crate::peek::{Peek, peek, recv_now, send_now};
use crate::transport::Received;

type Shared = Rc<RefCell<Session>>;

/// The receiving direction.
pub(crate) struct TlsRead {
    pub(crate) half: ReadHalf,
    session: Shared,
}

/// The sending direction.
pub(crate) struct TlsWrite {
    pub(crate) half: WriteHalf,
    session: Shared,
}

/// Both directions of a connection whose handshake is done.
pub(crate) fn split(stream: Stream, session: Box<Session>) -> (TlsRead, TlsWrite) {
    let (read, write) = stream.into_split();
    let session = Rc::new(RefCell::new(*session));
    (TlsRead { half: read, session: session.clone() }, TlsWrite { half: write, session })
}

impl TlsRead {
    /// Appends plaintext to `out`, at least one byte; 0 only after the peer's close_notify. A socket that ends without it
    /// was cut: [`io::ErrorKind::UnexpectedEof`]. `room`: how much to receive at once, in bytes.
    ///
    /// Must not be dropped before it ends, as the runtime's recv.
    pub(crate) async fn recv(&mut self, mut out: BytesMut, room: usize) -> (io::Result<Received>, BytesMut) {
        let start = out.len();
        if self.session.borrow_mut().drain(&mut out) > 0 {
            let count = out.len() - start;
            return (Ok(Received { count, raw: count, room: buffer::LARGE }), out);
        }
        loop {
            {
                let session = self.session.borrow();
                if let Some(error) = session.failure() {
                    tracing::debug!(%error, "a TLS connection broke");
                    return (Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())), out);
                }
                if session.is_closed() {
                    return (Ok(Received::default()), out);
                }
            }
            let sealed = buffer::take(room);
            let room = sealed.capacity();
            let (result, sealed) = self.half.recv(sealed).await;
            let raw = match result {
                Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), out),
                Ok(raw) => raw,
                Err(error) => return (Err(error), out),
            };
            match out.capacity() {
                0 => out = buffer::take(raw),
                _ => out.reserve(raw),
            }
            {
                let mut session = self.session.borrow_mut();
                let asked = session.has_output();
                session.open(&sealed, &mut out);
                // What waited before (the tickets of a handshake) goes with the next write.
                if !asked {
                    send_output(&mut session, &self.half);
                }
            }
            buffer::give(sealed);
            let count = out.len() - start;
            // Otherwise nothing has come but the protocol's own messages, or a failure.
            if count > 0 {
                return (Ok(Received { count, raw, room }), out);
            }
        }
    }

    /// Waits until there is something to receive. May be dropped.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        {
            let session = self.session.borrow();
            if session.has_plaintext() || session.is_over() {
                return Ok(());
            }
        }
        self.half.readable().await
    }

    /// What the connection holds, without waiting. The protocol's own messages (tickets, the peer's goodbye) are read on the
    /// way, so that they count as what they are.
    pub(crate) fn peek(&self) -> Peek {
        let mut session = self.session.borrow_mut();
        let mut sealed = [0; buffer::SMALL];
        loop {
            if session.has_plaintext() {
                return Peek::Bytes;
            }
            if session.is_over() {
                return Peek::Ended;
            }
            match peek(&self.half) {
                Peek::Bytes => {}
                other => return other,
            }
            match recv_now(&self.half, &mut sealed) {
                Ok(count @ 1..) if session.hold(&sealed[..count]).is_ok() => send_output(&mut session, &self.half),
                _ => return Peek::Ended,
            }
        }
    }

    /// Whether the peer is known to send nothing more.
    pub(crate) fn is_over(&self) -> bool {
        self.session.borrow().is_over()
    }

    /// The whole connection again.
    pub(crate) fn reunite(self, other: TlsWrite) -> io::Result<(Stream, Box<Session>)> {
        let halves = || io::Error::other("halves of two connections");
        drop(other.session);
        let stream = self.half.reunite(other.half).map_err(|_| halves())?;
        let session = Rc::try_unwrap(self.session).map_err(|_| halves())?;
        Ok((stream, Box::new(session.into_inner())))
    }
}

impl TlsWrite {
    /// Sends all parts in order, gathered into records.
    pub(crate) async fn sendv(&mut self, mut parts: Parts) -> io::Result<()> {
        loop {
            let records = self.session.borrow_mut().seal(&mut parts)?;
            if records.is_empty() {
                return Ok(());
            }
            self.send(records).await?;
        }
    }

    /// Tells the peer that nothing follows, unless what went before is not `whole`; and, in either case, what was wrong with
    /// its own side.
    pub(crate) async fn close(&mut self, whole: bool) -> io::Result<()> {
        let alert = {
            let mut session = self.session.borrow_mut();
            if whole {
                session.close();
            }
            session.output()?
        };
        if alert.is_empty() { Ok(()) } else { self.send(alert).await }
    }

    /// The same without waiting, if the socket takes it now: for a connection that is dropped.
    pub(crate) fn close_now(&mut self) {
        let mut session = self.session.borrow_mut();
        session.close();
        send_output(&mut session, &self.half);
    }

    async fn send(&mut self, records: Bytes) -> io::Result<()> {
        self.session.borrow_mut().set_sending(true);
        self.half.send(records).await?;
        self.session.borrow_mut().set_sending(false);
        Ok(())
    }
}

/// Sends what this side has to say by itself (an alert, the answer to a change of keys) without waiting: nobody may write for
/// long. What the socket does not take goes with the next write; so does all of it while a write is on its way, behind half
/// of whose records it would be noise.
fn send_output(session: &mut Session, socket: &impl AsRawFd) {
    if session.is_sending() || !session.has_output() {
        return;
    }
    let Ok(mut output) = session.output() else { return };
    match send_now(socket, &output) {
        Ok(count) => output.advance(count.min(output.len())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        // A socket that has failed tells whoever uses it next.
        Err(_) => output.clear(),
    }
    session.put_back(output);
}
