//! A way to end an exchange from outside, while another task waits in it.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::h2::StreamEnd;

/// Ends one exchange with an upstream. To be used, or forgotten, before its connection is dropped, and on the same thread.
#[derive(Clone)]
pub struct Cut(pub(super) How);

#[derive(Clone)]
pub(super) enum How {
    /// The socket is this exchange's alone.
    Socket(RawFd, Rc<Cell<bool>>),
    /// A stream of a connection that others use.
    Stream(StreamEnd),
}

impl Cut {
    /// Whatever is in flight ends, and nothing more can be sent or received.
    #[allow(unsafe_code, reason = "shutdown(2) by number: whoever owns the socket waits in an operation on it")]
    pub fn end(self) {
        match self.0 {
            How::Socket(socket, ended) => {
                // What came before may still be read as a whole answer: the connection must not be kept for all that.
                ended.set(true);
                // SAFETY: shutdown(2) has no memory effects, and the descriptor is open: the connection lives.
                unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
            }
            How::Stream(stream) => stream.end(),
        }
    }
}
