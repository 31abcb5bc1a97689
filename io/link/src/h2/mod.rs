//! HTTP/2 by the h2 crate on this house's transports. A stream of it is a [`Transport`](crate::Transport) like any other to
//! what is above: heads as text of HTTP/1.1, bodies as bytes, one exchange long. Knows no route.
//!
//! One task drives a connection, under [`fair`](agentlane_runtime::fair), because the crate wakes itself; each stream is
//! served by a task of its own, which the first never waits for. The connection never moves to another shard.

mod adapter;
mod client;
mod meter;
mod ping;
mod server;
mod stream;

pub use client::UpstreamLimits;
pub(crate) use client::{Multiplexed, Share};
pub use meter::MeterLimits;
pub(crate) use server::Work;
pub use server::{Http2, Http2Limits};
pub(crate) use stream::{StreamEnd, StreamReader, StreamWriter};

/// What a client with prior knowledge sends first (RFC 9113, 3.4), as far as it looks like a request of HTTP/1.
pub(crate) const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
