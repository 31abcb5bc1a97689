//! From a connected socket to a TLS connection, as server and as client. Ends at a deadline, whatever the peer does.

use std::net::Shutdown;
use std::time::Instant;

use agentlane_runtime::Stream;
use bytes::Bytes;
use rustls::server::Acceptor;
use rustls::{ClientConnection, ProtocolVersion};

use super::{ALPN_HTTP2, ClientIdentity, ClientTls, ServerTls, Session, TlsError};
use crate::buffer;
use crate::transport::Transport;

/// The fatal alert `unrecognized_name` (RFC 6066, 3) as a record. Before a configuration is chosen there is nobody to write
/// it: no version is agreed on, and nothing is encrypted.
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

/// A client's connection whose handshake is done.
pub struct Secured<T> {
    /// What carries its bytes from now on.
    pub transport: Transport,
    /// What was chosen with its server name.
    pub chosen: T,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The client and this side have agreed on HTTP/2.
    pub http2: bool,
    /// Who the client is, where a certificate was asked for.
    pub identity: Option<ClientIdentity>,
}

/// Takes a client's handshake. `choose` is given the server name (SNI) that the client asks for, in lower case, and gives the
/// configuration, or `None` to refuse.
///
/// Holds no buffer before the first byte has come. May be dropped, and closes the connection with that.
///
/// # Errors
/// Why there is no connection; the client was told by an alert.
pub async fn accept<T>(
    mut stream: Stream,
    due: Option<Instant>,
    choose: impl FnOnce(Option<&str>) -> Option<(ServerTls, T)>,
) -> Result<Secured<T>, TlsError> {
    stream.set_deadline(due, Shutdown::Both);
    stream.readable().await?;
    let mut acceptor = Acceptor::default();
    let (accepted, rest) = loop {
        let received = receive(&mut stream).await?;
        let mut rest = &received[..];
        let mut accepted = None;
        while accepted.is_none() && !rest.is_empty() {
            if acceptor.read_tls(&mut rest)? == 0 {
                return Err(TlsError::Protocol("the client's first message does not fit"));
            }
            accepted = match acceptor.accept() {
                Ok(accepted) => accepted,
                Err((error, mut alert)) => {
                    let mut bytes = Vec::new();
                    let _ = alert.write_all(&mut bytes);
                    refuse(&mut stream, bytes.into()).await;
                    return Err((&error).into());
                }
            };
        }
        if let Some(accepted) = accepted {
            break (accepted, received.slice_ref(rest));
        }
    };
    let Some((config, chosen)) = choose(accepted.client_hello().server_name()) else {
        refuse(&mut stream, Bytes::from_static(UNRECOGNIZED_NAME)).await;
        return Err(TlsError::UnknownName);
    };
    let connection = match accepted.into_connection(config.rustls()) {
        Ok(connection) => connection,
        Err((error, mut alert)) => {
            let mut bytes = Vec::new();
            let _ = alert.write_all(&mut bytes);
            refuse(&mut stream, bytes.into()).await;
            return Err((&error).into());
        }
    };
    let mut session = Session::new(connection.into());
    drive(&mut stream, &mut session, rest).await?;
    stream.set_deadline(None, Shutdown::Both);
    let connection = session.connection();
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let http2 = connection.alpn_protocol() == Some(ALPN_HTTP2);
    let identity = match connection.peer_certificates().and_then(<[_]>::first) {
        None => None,
        Some(certificate) => {
            Some(ClientIdentity::of(certificate).ok_or(TlsError::Certificate("its names cannot be read"))?)
        }
    };
    Ok(Secured { transport: Transport::secured(stream, session), chosen, version, http2, identity })
}

/// Makes a TLS connection to a server. May be dropped, and closes the connection with that.
pub(crate) async fn connect(mut stream: Stream, to: &ClientTls, due: Option<Instant>) -> Result<Transport, TlsError> {
    stream.set_deadline(due, Shutdown::Both);
    let (config, name) = to.rustls();
    let connection = ClientConnection::new(config, name).map_err(|error| TlsError::from(&error))?;
    let mut session = Session::new(connection.into());
    drive(&mut stream, &mut session, Bytes::new()).await?;
    stream.set_deadline(None, Shutdown::Both);
    Ok(Transport::secured(stream, session))
}

/// Exchanges flights until the handshake is done. What the peer sends behind it stays in the session.
async fn drive(stream: &mut Stream, session: &mut Session, mut received: Bytes) -> Result<(), TlsError> {
    loop {
        if let Err(error) = session.hold(&received) {
            let alert = session.output()?;
            refuse(stream, alert).await;
            return Err((&error).into());
        }
        if !session.is_handshaking() && session.may_defer_flight() {
            return Ok(());
        }
        let flight = session.output()?;
        if !flight.is_empty() {
            stream.send(flight).await?;
        }
        if !session.is_handshaking() {
            return Ok(());
        }
        received = receive(stream).await?;
    }
}

/// Receives once, at most [`buffer::SMALL`] bytes.
async fn receive(stream: &mut Stream) -> Result<Bytes, TlsError> {
    let (result, received) = stream.recv(buffer::take(buffer::SMALL)).await;
    match result? {
        0 => Err(TlsError::Closed),
        _ => Ok(received.freeze()),
    }
}

/// Sends the last words of a handshake that has failed.
async fn refuse(stream: &mut Stream, alert: Bytes) {
    if !alert.is_empty() && stream.send(alert).await.is_ok() {
        let _ = stream.shutdown(Shutdown::Write);
    }
}
