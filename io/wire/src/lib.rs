//! Sans-I/O codecs over `Bytes`: HTTP/1.1, heads of HTTP/2, server-sent events, JSON-RPC envelopes, the PROXY header. Owns
//! bytes and their meaning on the wire; knows no runtime, no clock and no socket.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod h1;
pub mod h2;
pub mod json;
pub mod proxy_protocol;
pub mod sse;
