//! The wire codecs on the runtime's sockets: HTTP/1.1 and HTTP/2 server and client connections, plain or over TLS, the upstream pool,
//! and the pumps between them. Knows no route, no policy and no meaning of a message.
//!
//! A small keep-alive exchange costs one recv and one write on each side, no task, no timer and no lock. Bodies stream
//! with back-pressure: a direction holds the bytes of one read and of one write, never more.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod buffer;
pub mod client;
mod date;
mod deadline;
mod drain;
pub mod h2;
mod peek;
pub mod proxied;
pub mod proxy;
pub mod server;
mod sink;
mod source;
pub mod tls;
mod transport;
pub mod upgrade;

pub use date::date;
pub use drain::Drain;
pub use transport::{Detached, Transport};
