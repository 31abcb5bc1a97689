//! The PROXY header in front of a connection, read to its last byte and no further: what follows is somebody else's.

use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};
use std::{fmt, io};

use agentlane_runtime::{Stream, now, sleep};
use agentlane_wire::proxy_protocol::{self, HEADER_BYTES_MAX, Parsed, ProxyFault, Versions};

use crate::peek::{look, recv_now};

/// Pause before another look at bytes that may still become a header or not.
const PAUSE: Duration = Duration::from_millis(5);

/// Why a connection does not begin as it must.
#[derive(Debug)]
pub enum ProxiedError {
    /// It failed, or took too long.
    Io(io::Error),
    /// A header that is none.
    Malformed(ProxyFault),
    /// No header, where there must be one.
    Missing,
}

impl fmt::Display for ProxiedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProxiedError::Io(error) => error.fmt(f),
            ProxiedError::Malformed(fault) => fault.fmt(f),
            ProxiedError::Missing => f.write_str("no PROXY header"),
        }
    }
}

impl std::error::Error for ProxiedError {}

impl From<io::Error> for ProxiedError {
    fn from(error: io::Error) -> Self {
        ProxiedError::Io(error)
    }
}

/// Reads the header and gives who connected; `None` where the proxy does not say, or where there is no header and
/// `optional` allows that. May be dropped, and closes the connection with that.
///
/// # Errors
/// Why the connection cannot be used.
pub async fn source(
    stream: &mut Stream,
    versions: Versions,
    optional: bool,
    due: Instant,
) -> Result<Option<SocketAddr>, ProxiedError> {
    stream.set_deadline(Some(due), Shutdown::Both);
    let mut bytes = Vec::new();
    let source = loop {
        stream.readable().await?;
        // What was taken before is a part of the header; what is only looked at may go beyond it.
        let taken = bytes.len();
        bytes.resize(HEADER_BYTES_MAX, 0);
        let seen = match look(stream, &mut bytes[taken..]) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        bytes.truncate(taken + seen);
        match proxy_protocol::parse(&bytes, versions).map_err(ProxiedError::Malformed)? {
            Parsed::Header(header) => {
                take(stream, &mut bytes[taken..header.length])?;
                break header.addresses.map(|(source, _)| source);
            }
            Parsed::NeedMore { certain } if certain || !optional => take(stream, &mut bytes[taken..])?,
            Parsed::NeedMore { .. } if now() >= due => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            Parsed::NeedMore { .. } => {
                bytes.clear();
                sleep(PAUSE).await;
            }
            Parsed::Other if optional && taken == 0 => break None,
            Parsed::Other => return Err(ProxiedError::Missing),
        }
    };
    stream.set_deadline(None, Shutdown::Both);
    Ok(source)
}

/// Takes what was looked at.
fn take(stream: &Stream, bytes: &mut [u8]) -> io::Result<()> {
    let mut taken = 0;
    while taken < bytes.len() {
        match recv_now(stream, &mut bytes[taken..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => taken += count,
        }
    }
    Ok(())
}
