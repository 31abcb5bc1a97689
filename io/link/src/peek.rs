//! One look at a socket without waiting. Used off the hot path only: each is a system call.

use std::io;
use std::os::fd::AsRawFd;

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

/// Looks, and takes nothing.
pub(crate) fn peek(socket: &impl AsRawFd) -> Peek {
    match recv(socket, &mut [0], libc::MSG_PEEK) {
        Ok(0) => Peek::Ended,
        Ok(_) => Peek::Bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Peek::Silent,
        Err(_) => Peek::Ended,
    }
}

/// The bytes that wait, as many as fit; they are not taken.
pub(crate) fn look(socket: &impl AsRawFd, buf: &mut [u8]) -> io::Result<usize> {
    recv(socket, buf, libc::MSG_PEEK)
}

/// Receives what is there. Only while no recv of the runtime is in flight on the socket.
pub(crate) fn recv_now(socket: &impl AsRawFd, buf: &mut [u8]) -> io::Result<usize> {
    recv(socket, buf, 0)
}

#[allow(unsafe_code, reason = "recv(2) with MSG_DONTWAIT, which std offers only for sockets in non-blocking mode")]
fn recv(socket: &impl AsRawFd, buf: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: the buffer is writable for the length of the call; a bad descriptor makes it fail.
    let got = unsafe { libc::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags | libc::MSG_DONTWAIT) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Sends what the socket takes now. Only while no send of the runtime is in flight on the socket.
#[allow(unsafe_code, reason = "send(2) with MSG_DONTWAIT, which std offers only for sockets in non-blocking mode")]
pub(crate) fn send_now(socket: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the buffer is readable for the length of the call; a bad descriptor makes it fail.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
