//! TLS on a connection, both sides: rustls between the socket's bytes and the codecs' (RFC 8446, RFC 5246). Knows no HTTP and
//! no configuration file.
//!
//! The loop is our own: what is received goes from the socket into a pooled buffer, is decrypted there by rustls, and lands
//! in the connection's read buffer; what is sent is gathered from its parts into records. Between two operations nothing
//! decrypted is kept, so that an idle connection costs its keys and no buffer. TLS 1.2 and 1.3, no renegotiation, no early
//! data.

mod config;
mod error;
mod halves;
mod handshake;
mod identity;
mod session;
mod trust;

pub use config::{ClientSettings, ClientTls, ServerSettings, ServerTls, Trust, Version};
pub use error::TlsError;
pub use handshake::{Secured, accept};
pub use identity::{AltName, ClientIdentity};
pub use rustls::pki_types;
pub use rustls::{CipherSuite, RootCertStore};

pub(crate) use config::ALPN_HTTP2;
pub(crate) use halves::{TlsRead, TlsWrite, split};
pub(crate) use handshake::connect;
pub(crate) use session::Session;
