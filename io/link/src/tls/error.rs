//! Why a handshake did not come to a connection, in words for a log. Keeps nothing that a peer could choose.

use std::{fmt, io};

use rustls::{AlertDescription, CertificateError, Error};

/// What ended a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsError {
    /// It took too long.
    Timeout,
    /// The peer left before it was over.
    Closed,
    /// The socket failed.
    Socket(io::ErrorKind),
    /// The client asked for a name that nobody serves here, or for none where one is needed.
    UnknownName,
    /// The peer's certificate is not accepted.
    Certificate(&'static str),
    /// The peer refused, and said so.
    Alert(AlertDescription),
    /// The peer broke the protocol, or nothing is supported by both sides.
    Protocol(&'static str),
}

impl From<&Error> for TlsError {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(reason) => TlsError::Certificate(certificate_words(reason)),
            Error::NoCertificatesPresented => TlsError::Certificate("none was presented"),
            Error::AlertReceived(alert) => TlsError::Alert(*alert),
            Error::PeerIncompatible(_) => TlsError::Protocol("no version, cipher suite or extension in common"),
            Error::NoApplicationProtocol => TlsError::Protocol("no application protocol in common"),
            Error::InvalidMessage(_) => TlsError::Protocol("not TLS, or malformed"),
            Error::DecryptError => TlsError::Protocol("a record does not decrypt"),
            Error::PeerSentOversizedRecord => TlsError::Protocol("a record is too long"),
            Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. } => TlsError::Protocol("peer broke the protocol"),
            _ => TlsError::Protocol("handshake failed"),
        }
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => TlsError::Timeout,
            io::ErrorKind::UnexpectedEof => TlsError::Closed,
            kind => TlsError::Socket(kind),
        }
    }
}

fn certificate_words(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "not valid yet",
        CertificateError::UnknownIssuer => "issued by nobody that is trusted",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => "for another name",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => "for another purpose",
        CertificateError::Revoked => "revoked",
        CertificateError::BadSignature => "its signature is wrong",
        CertificateError::BadEncoding => "malformed",
        _ => "not acceptable",
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Timeout => f.write_str("handshake took too long"),
            TlsError::Closed => f.write_str("peer left during the handshake"),
            TlsError::Socket(kind) => write!(f, "connection failed during the handshake: {kind}"),
            TlsError::UnknownName => f.write_str("no listener for the server name"),
            TlsError::Certificate(what) => write!(f, "certificate of the peer: {what}"),
            TlsError::Alert(alert) => write!(f, "peer refused: {alert:?}"),
            TlsError::Protocol(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for TlsError {}
