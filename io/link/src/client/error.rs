//! What can go wrong with an upstream, and whether the request may be sent again.

use std::{fmt, io};

use agentlane_wire::h1::H1Error;

use crate::tls::TlsError;

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientErrorKind {
    /// No connection could be made.
    Connect(io::ErrorKind),
    /// The TLS handshake failed.
    Handshake(TlsError),
    /// No connection was made in time.
    ConnectTimeout,
    /// All connections are in use, and too many requests wait already.
    QueueFull,
    /// All connections stayed in use for too long.
    QueueTimeout,
    /// The request could not be sent.
    Write(io::ErrorKind),
    /// The server closed the connection without a complete answer.
    Closed,
    /// The response could not be received.
    Read(io::ErrorKind),
    /// No response head came in time.
    ResponseTimeout,
    /// The response body fell silent for too long.
    BodyTimeout,
    /// The server did not take the request in time.
    WriteTimeout,
    /// What came is no response.
    Malformed(H1Error),
    /// More interim responses than the limit.
    TooManyInterim,
    /// 101, to a request that did not ask for it.
    UnexpectedUpgrade,
    /// The caller's request has another length than its head said, or is out of order.
    Request(&'static str),
}

/// How far the exchange had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No byte of the request was sent.
    NotSent,
    /// The request was sent, wholly or in part, and not a byte of an answer came.
    Unanswered {
        /// On a connection that had served before: the server may have closed it before it saw the request.
        reused: bool,
    },
    /// At least a part of the answer came.
    Answered,
}

/// Why an exchange with an upstream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientError {
    /// What failed.
    pub kind: ClientErrorKind,
    /// How far the exchange had come.
    pub progress: Progress,
}

impl ClientError {
    pub(crate) fn not_sent(kind: ClientErrorKind) -> Self {
        ClientError { kind, progress: Progress::NotSent }
    }

    /// Whether the same request may be sent once more, on a new connection.
    ///
    /// Yes when nothing was sent. When it was sent on a connection that had served before, and that connection broke
    /// without a byte of an answer, only if the request `is_repeatable`: the server may have acted on it.
    pub fn may_retry(&self, is_repeatable: bool) -> bool {
        let broke = matches!(self.kind, ClientErrorKind::Closed | ClientErrorKind::Read(_) | ClientErrorKind::Write(_));
        match self.progress {
            Progress::NotSent => true,
            Progress::Unanswered { reused } => reused && broke && is_repeatable,
            Progress::Answered => false,
        }
    }

    /// Whether at least a part of the answer came.
    pub fn is_answered(&self) -> bool {
        self.progress == Progress::Answered
    }

    /// Whether the upstream was too slow rather than broken: 504, not 502.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self.kind,
            ClientErrorKind::ConnectTimeout
                | ClientErrorKind::QueueTimeout
                | ClientErrorKind::ResponseTimeout
                | ClientErrorKind::BodyTimeout
                | ClientErrorKind::WriteTimeout
        )
    }

    /// The status of a gateway that could not get an answer: 502, 503 or 504 (RFC 9110 15.6).
    pub fn status(&self) -> u16 {
        match self.kind {
            ClientErrorKind::QueueFull => 503,
            _ if self.is_timeout() => 504,
            _ => 502,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ClientErrorKind::Connect(kind) => write!(f, "cannot connect: {kind}")?,
            ClientErrorKind::Handshake(error) => write!(f, "cannot connect: {error}")?,
            ClientErrorKind::ConnectTimeout => f.write_str("connecting took too long")?,
            ClientErrorKind::QueueFull => f.write_str("too many requests wait for a connection")?,
            ClientErrorKind::QueueTimeout => f.write_str("no connection became free in time")?,
            ClientErrorKind::Write(kind) => write!(f, "cannot send: {kind}")?,
            ClientErrorKind::Closed => f.write_str("connection closed")?,
            ClientErrorKind::Read(kind) => write!(f, "cannot receive: {kind}")?,
            ClientErrorKind::ResponseTimeout => f.write_str("no response in time")?,
            ClientErrorKind::BodyTimeout => f.write_str("response body fell silent")?,
            ClientErrorKind::WriteTimeout => f.write_str("server does not read")?,
            ClientErrorKind::Malformed(error) => write!(f, "malformed response: {error}")?,
            ClientErrorKind::TooManyInterim => f.write_str("too many interim responses")?,
            ClientErrorKind::UnexpectedUpgrade => f.write_str("unexpected upgrade")?,
            ClientErrorKind::Request(what) => f.write_str(what)?,
        }
        f.write_str(match self.progress {
            Progress::NotSent => ", nothing sent",
            Progress::Unanswered { reused: true } => ", not answered on a reused connection",
            Progress::Unanswered { reused: false } => ", not answered",
            Progress::Answered => ", answered in part",
        })
    }
}

impl std::error::Error for ClientError {}
