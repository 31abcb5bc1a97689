//! A transport of owned buffers and completions as the byte stream that the h2 crate reads and writes. Each direction is one
//! future for the life of the connection, polled by whoever polls this: nothing is allocated for an operation, and nothing
//! wakes itself.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use agentlane_runtime::now;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::Meter;
use crate::buffer;
use crate::deadline::Deadlines;
use crate::source::Source;
use crate::transport::{Receiver, Sender, Transport};

/// Bytes that wait for the socket before more are taken.
const OUT_BYTES_MAX: usize = 64 * 1024;
/// A peer that sends again within this time is waited for with a buffer in hand, as in HTTP/1.
const GRACE: Duration = Duration::from_millis(100);

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// The byte stream.
pub(super) struct Adapter {
    inbox: Rc<Inbox>,
    reading: Work,
    outbox: Rc<Outbox>,
    writing: Work,
    /// Sees the frames that come in.
    meter: Option<Rc<Meter>>,
}

/// What was received and not read.
struct Inbox {
    buf: RefCell<BytesMut>,
    /// How the receiving side has ended.
    end: RefCell<Option<io::Result<()>>>,
}

/// What was written and not sent.
#[derive(Default)]
struct Outbox {
    buf: RefCell<BytesMut>,
    /// A write is on its way.
    sending: Cell<bool>,
    shutdown: Cell<bool>,
    end: RefCell<Option<io::Result<()>>>,
}

impl Adapter {
    /// `received`: what was read from the transport already. A write that the peer does not take for `write_time` fails.
    pub(super) fn new(
        transport: Transport,
        received: BytesMut,
        write_time: Duration,
        meter: Option<Rc<Meter>>,
    ) -> Self {
        let (receiver, sender) = transport.into_split();
        if let Some(meter) = &meter {
            meter.received(&received, now());
        }
        let inbox = Rc::new(Inbox { buf: RefCell::new(received), end: RefCell::default() });
        let outbox = Rc::new(Outbox::default());
        let reading = Box::pin(read(receiver, inbox.clone(), meter.clone()));
        let writing = Box::pin(write(sender, outbox.clone(), write_time));
        Adapter { inbox, reading, outbox, writing, meter }
    }

    /// Lets the writing side get on. Ready: nothing is left to send.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.end.borrow().is_none() {
            let _ = self.writing.as_mut().poll(cx);
        }
        match &*self.outbox.end.borrow() {
            Some(Ok(())) => return Poll::Ready(Ok(())),
            Some(Err(error)) => return Poll::Ready(Err(again(error))),
            None => {}
        }
        if self.outbox.sending.get() || !self.outbox.buf.borrow().is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

/// Receives whenever there is nothing left to read.
async fn read(receiver: Receiver, inbox: Rc<Inbox>, meter: Option<Rc<Meter>>) {
    let mut source = Source::new(receiver, Deadlines::new(Shutdown::Both), BytesMut::new());
    let mut busy = true;
    loop {
        poll_fn(|_| if inbox.buf.borrow().is_empty() { Poll::Ready(()) } else { Poll::Pending }).await;
        source.buf = inbox.buf.take();
        let start = now();
        let ready = if busy { Ok(()) } else { source.readable(None).await };
        let received = match ready {
            Ok(()) => source.fill(None, 0).await,
            Err(error) => Err(error),
        };
        busy = now().saturating_duration_since(start) < GRACE;
        match received {
            Ok(0) => return *inbox.end.borrow_mut() = Some(Ok(())),
            Err(error) => return *inbox.end.borrow_mut() = Some(Err(error)),
            Ok(_) => {
                if let Some(meter) = &meter {
                    meter.received(&source.buf, now());
                }
                inbox.buf.replace(std::mem::take(&mut source.buf));
            }
        }
    }
}

/// Sends whenever there is something to send.
async fn write(mut sender: Sender, outbox: Rc<Outbox>, write_time: Duration) {
    loop {
        poll_fn(|_| match outbox.buf.borrow().is_empty() && !outbox.shutdown.get() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
        let bytes = outbox.buf.borrow_mut().split().freeze();
        sender.set_deadline(now().checked_add(write_time), Shutdown::Both);
        if bytes.is_empty() {
            sender.end(true).await;
            return *outbox.end.borrow_mut() = Some(Ok(()));
        }
        outbox.sending.set(true);
        let sent = sender.send([bytes].into_iter().collect(), false).await;
        outbox.sending.set(false);
        sender.set_deadline(None, Shutdown::Both);
        if let Err(error) = sent {
            return *outbox.end.borrow_mut() = Some(Err(error));
        }
    }
}

/// The same error for whoever asks next.
fn again(error: &io::Error) -> io::Error {
    error.kind().into()
}

impl AsyncRead for Adapter {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.inbox.buf.borrow().is_empty() && this.inbox.end.borrow().is_none() {
            let _ = this.reading.as_mut().poll(cx);
        }
        let mut inbox = this.inbox.buf.borrow_mut();
        if !inbox.is_empty() {
            let count = inbox.len().min(buf.remaining());
            buf.put_slice(&inbox[..count]);
            inbox.advance(count);
            return Poll::Ready(Ok(()));
        }
        match &*this.inbox.end.borrow() {
            None => Poll::Pending,
            Some(Ok(())) => Poll::Ready(Ok(())),
            Some(Err(error)) => Poll::Ready(Err(again(error))),
        }
    }
}

impl AsyncWrite for Adapter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.outbox.buf.borrow().len() >= OUT_BYTES_MAX {
            match self.poll_out(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                _ if self.outbox.buf.borrow().len() >= OUT_BYTES_MAX => return Poll::Pending,
                _ => {}
            }
        }
        if let Some(end) = &*self.outbox.end.borrow() {
            let kind = end.as_ref().err().map_or(io::ErrorKind::BrokenPipe, io::Error::kind);
            return Poll::Ready(Err(kind.into()));
        }
        let mut buf = self.outbox.buf.borrow_mut();
        let mut taken = 0;
        for slice in slices {
            let count = slice.len().min(OUT_BYTES_MAX - buf.len());
            buf.extend_from_slice(&slice[..count]);
            taken += count;
        }
        if let Some(meter) = &self.meter {
            meter.sent(taken);
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.shutdown.set(true);
        match self.poll_out(cx) {
            Poll::Ready(Ok(())) if self.outbox.end.borrow().is_none() => Poll::Pending,
            other => other,
        }
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        buffer::give(self.inbox.buf.take());
    }
}
