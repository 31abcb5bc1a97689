//! One look at a socket without waiting and without taking anything. Used off the hot path only: it is a system call.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// What a socket's receive side holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    /// Nothing has come: open and silent.
    Silent,
    /// Bytes wait.
    Bytes,
    /// The peer has ended its side, or the socket has failed.
    Ended,
}

#[allow(unsafe_code, reason = "recv(2) with MSG_DONTWAIT, which std offers only for sockets in non-blocking mode")]
fn recv_peek(fd: RawFd) -> isize {
    let mut byte = 0u8;
    // SAFETY: one byte of this frame is writable for the length of the call; a bad descriptor makes it fail.
    unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) }
}

pub(crate) fn peek(socket: &impl AsRawFd) -> Peek {
    match recv_peek(socket.as_raw_fd()) {
        0 => Peek::Ended,
        -1 if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => Peek::Silent,
        -1 => Peek::Ended,
        _ => Peek::Bytes,
    }
}
