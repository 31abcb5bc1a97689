//! The limits of upstream connections.

use std::time::Duration;

use agentlane_wire::h1::{ChunkLimits, HeadLimits};

use crate::h2::UpstreamLimits;

/// What one upstream endpoint may use, and how long it may take.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// Size of a response head.
    pub head: HeadLimits,
    /// What chunks may carry beside data.
    pub chunks: ChunkLimits,
    /// Interim responses before the final one.
    pub interim_max: usize,
    /// Open connections to one endpoint, in use and idle.
    pub connections_max: usize,
    /// Idle connections kept to one endpoint.
    pub idle_max: usize,
    /// Requests that wait for a connection to one endpoint.
    pub waiting_max: usize,
    /// How long a request waits for a connection.
    pub wait_time: Duration,
    /// How long a connection is kept idle. A shorter time in the server's `Keep-Alive` wins.
    pub idle: Duration,
    /// A connection that rested for longer is looked at before it is used: a server that closes idle connections has had
    /// the time to. The look is a system call, which a busy pool never makes.
    pub trust: Duration,
    /// How long connecting may take.
    pub connect_time: Duration,
    /// How long one write may wait for the server.
    pub write_time: Duration,
    /// From the end of the request to the response head.
    pub response_time: Duration,
    /// Silence within a response body; none for streams that may be silent for ever.
    pub body_idle: Option<Duration>,
    /// What HTTP/2 has beyond that.
    pub http2: UpstreamLimits,
}

impl Default for ClientLimits {
    fn default() -> Self {
        ClientLimits {
            head: HeadLimits::default(),
            chunks: ChunkLimits::default(),
            interim_max: 8,
            connections_max: 1024,
            idle_max: 128,
            waiting_max: 1024,
            wait_time: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            trust: Duration::from_millis(500),
            connect_time: Duration::from_secs(5),
            write_time: Duration::from_secs(30),
            response_time: Duration::from_secs(60),
            body_idle: None,
            http2: UpstreamLimits::default(),
        }
    }
}
