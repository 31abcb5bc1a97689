//! The limits of a server connection.

use std::time::Duration;

use agentlane_wire::h1::{ChunkLimits, HeadLimits};

use crate::h2::Http2Limits;

/// What one client may use. Every one of them is a named answer or an end of the connection, never growth.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Size of a request head: 414 or 431.
    pub head: HeadLimits,
    /// What chunks may carry beside data.
    pub chunks: ChunkLimits,
    /// Bytes of one request body, streamed or not: 413.
    pub body_bytes: u64,
    /// Bytes of an unread body that are skipped to keep the connection; with more left it is closed.
    pub unread_body_bytes: u64,
    /// Silence before a request begins: the connection ends.
    pub idle: Duration,
    /// From the first byte of a head to its last: 408.
    pub head_time: Duration,
    /// Silence within a streamed body, and the whole time of one that is read at once: 408.
    pub body_time: Duration,
    /// How long one write may wait for the client: the connection ends.
    pub write_time: Duration,
    /// How long and, with `unread_body_bytes`, how much a closing connection still listens, so that the client can
    /// read the last answer.
    pub linger: Duration,
    /// What HTTP/2 has beyond that.
    pub http2: Http2Limits,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            head: HeadLimits::default(),
            chunks: ChunkLimits::default(),
            body_bytes: 16 * 1024 * 1024,
            unread_body_bytes: 256 * 1024,
            idle: Duration::from_secs(75),
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
            linger: Duration::from_secs(1),
            http2: Http2Limits::default(),
        }
    }
}
