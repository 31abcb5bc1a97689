//! What can go wrong with a client's connection, and whether an answer is still possible.

use std::{fmt, io};

use agentlane_wire::h1::{EncodeError, H1Error};

/// Why a request could not be read or a response not be written.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnError {
    /// The client sent what no request is, or more than a limit allows.
    Malformed(H1Error),
    /// A head did not come in time.
    HeadTimeout,
    /// A body did not come in time.
    BodyTimeout,
    /// The client did not take the response in time.
    WriteTimeout,
    /// The client speaks HTTP/2, and has said so in the place of its first request; nothing of that was taken.
    Http2,
    /// The client went away in the middle of a message.
    Closed(io::ErrorKind),
    /// The caller's response head cannot be written as it is.
    Encode(EncodeError),
    /// The caller's response has another length than its head said, or was begun twice.
    Response(&'static str),
}

impl ConnError {
    /// The status to answer with, when the client still listens and the fault is its own.
    pub fn status(&self) -> Option<u16> {
        match self {
            ConnError::Malformed(error) => Some(error.status()),
            ConnError::HeadTimeout | ConnError::BodyTimeout => Some(408),
            _ => None,
        }
    }

    pub(crate) fn reading(error: io::Error, timeout: ConnError) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => timeout,
            kind => ConnError::Closed(kind),
        }
    }

    pub(crate) fn writing(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => ConnError::WriteTimeout,
            kind => ConnError::Closed(kind),
        }
    }
}

impl fmt::Display for ConnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnError::Malformed(error) => error.fmt(f),
            ConnError::HeadTimeout => f.write_str("request head took too long"),
            ConnError::BodyTimeout => f.write_str("request body took too long"),
            ConnError::WriteTimeout => f.write_str("client does not read"),
            ConnError::Http2 => f.write_str("client speaks HTTP/2"),
            ConnError::Closed(kind) => write!(f, "client went away: {kind}"),
            ConnError::Encode(error) => error.fmt(f),
            ConnError::Response(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ConnError {}

impl From<H1Error> for ConnError {
    fn from(error: H1Error) -> Self {
        ConnError::Malformed(error)
    }
}

impl From<EncodeError> for ConnError {
    fn from(error: EncodeError) -> Self {
        ConnError::Encode(error)
    }
}
