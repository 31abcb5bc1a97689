//! One descriptor under the driver of this shard: the operations that the kernel completes. Knows no deadline and no
//! policy; whoever drops an operation in flight has lost what it would have moved.

use std::cell::{RefCell, UnsafeCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_io::{AsyncRead, AsyncWrite};
use monoio::io::{AsyncReadRent, AsyncWriteRent};

use crate::driver::Driver;
use crate::stream::Parts;
use crate::sys;

/// Entries of one vectored write that the kernel takes (IOV_MAX).
const IOV_MAX: usize = 1024;

/// A connected stream socket of any family.
pub(crate) enum Socket {
    /// monoio's operations take `&mut self` but hold nothing of it: they clone the descriptor's handle and go. The cell
    /// lets a recv and a send be in flight together, as monoio's own halves do.
    Monoio(UnsafeCell<monoio::net::TcpStream>),
    Glommio(RefCell<glommio::net::TcpStream>),
}

impl Socket {
    /// Takes a connected socket, and gives it the blocking mode that the driver needs: O_NONBLOCK under epoll, where a
    /// call must never wait; not under the rings, where it would turn waiting into EAGAIN.
    pub(crate) fn adopt(fd: OwnedFd, driver: Driver) -> io::Result<Self> {
        sys::set_nonblocking(fd.as_raw_fd(), driver == Driver::Epoll)?;
        Self::adopt_ready(fd, driver)
    }

    /// [`Socket::adopt`] for a socket that has the right mode.
    pub(crate) fn adopt_ready(fd: OwnedFd, driver: Driver) -> io::Result<Self> {
        match driver {
            Driver::Uring | Driver::Epoll => {
                let stream = monoio::net::TcpStream::from_std(std::net::TcpStream::from(fd))?;
                Ok(Self::Monoio(UnsafeCell::new(stream)))
            }
            Driver::Glommio => {
                // SAFETY: the descriptor is owned and given away.
                let stream = unsafe { glommio::net::TcpStream::from_raw_fd(fd.into_raw_fd()) };
                Ok(Self::Glommio(RefCell::new(stream)))
            }
        }
    }

    /// A new TCP connection. Dropping the future is safe: the attempt is cancelled and its descriptor closed.
    pub(crate) async fn connect(addr: SocketAddr, driver: Driver) -> io::Result<Self> {
        match driver {
            Driver::Uring | Driver::Epoll => {
                let stream = monoio::net::TcpStream::connect_addr(addr).await?;
                Ok(Self::Monoio(UnsafeCell::new(stream)))
            }
            Driver::Glommio => {
                let stream = glommio::net::TcpStream::connect(addr).await.map_err(from_glommio)?;
                Ok(Self::Glommio(RefCell::new(stream)))
            }
        }
    }

    /// Appends what has come to `buf`, whose spare capacity is not zero.
    pub(crate) async fn recv(&self, buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        match self {
            Self::Monoio(stream) => {
                // SAFETY: one thread, and the reference ends with the call: the future owns a handle of its own.
                let operation = unsafe { &mut *stream.get() }.read(Spare(buf));
                let (result, Spare(buf)) = operation.await;
                (result, buf)
            }
            Self::Glommio(stream) => {
                let mut buf = buf;
                let start = buf.len();
                buf.resize(buf.capacity(), 0);
                let result = poll_fn(|cx| Pin::new(&mut *stream.borrow_mut()).poll_read(cx, &mut buf[start..])).await;
                buf.truncate(start + result.as_ref().map_or(0, |n| *n));
                (result, buf)
            }
        }
    }

    /// Sends a part of `buf`, at least one byte.
    pub(crate) async fn send_some(&self, buf: Bytes) -> (io::Result<usize>, Bytes) {
        match self {
            Self::Monoio(stream) => {
                // SAFETY: as in recv.
                let operation = unsafe { &mut *stream.get() }.write(buf);
                operation.await
            }
            Self::Glommio(stream) => {
                let result = poll_fn(|cx| Pin::new(&mut *stream.borrow_mut()).poll_write(cx, &buf)).await;
                (result, buf)
            }
        }
    }

    /// Sends a part of what is left, at least one byte.
    pub(crate) async fn send_gathered(&self, gather: Gather) -> (io::Result<usize>, Gather) {
        match self {
            Self::Monoio(stream) => {
                // SAFETY: as in recv.
                let operation = unsafe { &mut *stream.get() }.writev(gather);
                operation.await
            }
            // glommio has no vectored write: what fits now goes in one call, the wait for room is glommio's.
            Self::Glommio(stream) => {
                match sys::send_vectored(self.as_raw_fd(), gather.left()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return (result, gather),
                }
                let first = gather.first();
                let result = poll_fn(|cx| Pin::new(&mut *stream.borrow_mut()).poll_write(cx, &first)).await;
                (result, gather)
            }
        }
    }

    /// Waits until a recv would not wait. Dropping the future loses nothing.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            // SAFETY: a shared reference, and the exclusive ones of the other operations never outlive their call.
            Self::Monoio(stream) => unsafe { &*stream.get() }.readable(false).await,
            Self::Glommio(stream) => {
                // A recv of no bytes answers like any other: it waits while there is nothing, and takes nothing.
                poll_fn(|cx| Pin::new(&mut *stream.borrow_mut()).poll_read(cx, &mut [])).await.map(drop)
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            // SAFETY: as in readable.
            Self::Monoio(stream) => unsafe { &*stream.get() }.as_raw_fd(),
            Self::Glommio(stream) => stream.borrow().as_raw_fd(),
        }
    }
}

/// Readiness of a descriptor on which no operation is done through the driver: a listener, a timer, an event.
pub(crate) enum Probe {
    Monoio(monoio::net::TcpStream),
    Glommio(OwnedFd),
}

impl Probe {
    pub(crate) fn new(fd: OwnedFd, driver: Driver) -> io::Result<Self> {
        match driver {
            Driver::Uring | Driver::Epoll => {
                // The type is only a carrier of the descriptor: no socket operation is made through it.
                Ok(Self::Monoio(monoio::net::TcpStream::from_std(std::net::TcpStream::from(fd))?))
            }
            Driver::Glommio => Ok(Self::Glommio(fd)),
        }
    }

    /// Waits until poll(2) would say POLLIN, an error or a hang-up. Dropping the future loses nothing.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Monoio(stream) => stream.readable(false).await,
            Self::Glommio(fd) => glommio_readable(fd).await,
        }
    }
}

impl AsRawFd for Probe {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Monoio(stream) => stream.as_raw_fd(),
            Self::Glommio(fd) => fd.as_raw_fd(),
        }
    }
}

/// glommio waits for readiness only as a part of a stream, which starts to do so when it is made: so each wait makes one,
/// on a second descriptor that is closed with it.
async fn glommio_readable(fd: &OwnedFd) -> io::Result<()> {
    if sys::is_readable(fd.as_raw_fd())? {
        return Ok(());
    }
    let second = sys::duplicate(fd.as_raw_fd())?;
    // SAFETY: the descriptor is owned and given away.
    let mut waiting = unsafe { glommio::net::TcpStream::from_raw_fd(second.into_raw_fd()) };
    // When it is ready, the stream tries to recv and fails, for this is no stream: either end says "ready".
    let _ = poll_fn(|cx| Pin::new(&mut waiting).poll_read(cx, &mut [])).await;
    Ok(())
}

fn from_glommio(error: glommio::GlommioError<()>) -> io::Error {
    match error {
        glommio::GlommioError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

/// The spare capacity of a buffer, as monoio takes it.
struct Spare(BytesMut);

// SAFETY: the bytes are on the heap and stay there while the value moves; the capacity does not change.
unsafe impl monoio::buf::IoBufMut for Spare {
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.spare_capacity_mut().as_mut_ptr().cast()
    }

    fn bytes_total(&mut self) -> usize {
        self.0.spare_capacity_mut().len()
    }

    unsafe fn set_init(&mut self, count: usize) {
        let len = self.0.len() + count;
        // SAFETY: the caller says that `count` bytes of the spare capacity are written.
        unsafe { self.0.set_len(len) };
    }
}

/// What is left of several parts, as one vectored write takes it.
pub(crate) struct Gather {
    parts: Parts,
    /// On the heap: the kernel reads it while this value may move.
    iov: Vec<libc::iovec>,
    /// Entries written completely.
    done: usize,
    left: usize,
}

impl Gather {
    pub(crate) fn new(parts: Parts) -> Self {
        let iov: Vec<libc::iovec> = parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
            .collect();
        let left = iov.iter().map(|entry| entry.iov_len).sum();
        Self { parts, iov, done: 0, left }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    pub(crate) fn advance(&mut self, mut count: usize) {
        self.left = self.left.saturating_sub(count);
        while let Some(entry) = self.iov.get_mut(self.done) {
            if count < entry.iov_len {
                // SAFETY: stays inside the part.
                entry.iov_base = unsafe { entry.iov_base.cast::<u8>().add(count) }.cast();
                entry.iov_len -= count;
                return;
            }
            count -= entry.iov_len;
            self.done += 1;
        }
    }

    fn left(&self) -> &[libc::iovec] {
        let end = self.iov.len().min(self.done + IOV_MAX);
        &self.iov[self.done..end]
    }

    /// The rest of the first part that is not sent.
    fn first(&self) -> Bytes {
        let Some(entry) = self.iov.get(self.done) else { return Bytes::new() };
        let part = self.parts.iter().filter(|part| !part.is_empty()).nth(self.done);
        part.map_or_else(Bytes::new, |part| part.slice(part.len() - entry.iov_len..))
    }
}

// SAFETY: entries and bytes are on the heap, live as long as the value, and change only between operations.
unsafe impl monoio::buf::IoVecBuf for Gather {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.left().as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.left().len()
    }
}
