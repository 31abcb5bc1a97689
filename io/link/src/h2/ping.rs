//! The question whether a peer is there, for connections that may be silent. Time comes in as an argument.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// One connection's question.
pub(super) struct Ping {
    pings: h2::PingPong,
    every: Duration,
    patience: Duration,
    asked_at: Option<Instant>,
    answered_at: Instant,
}

impl Ping {
    /// Asked when the last answer is `every` old; no answer within `patience` is one too.
    pub(super) fn new(pings: h2::PingPong, every: Duration, patience: Duration, now: Instant) -> Self {
        Ping { pings, every, patience, asked_at: None, answered_at: now }
    }

    /// Takes an answer that has come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) {
        while let Poll::Ready(Ok(_)) = self.pings.poll_pong(cx) {
            (self.asked_at, self.answered_at) = (None, now);
        }
    }

    /// Asks when it is time to. False: the peer is not there.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        match self.asked_at {
            Some(asked) => now.saturating_duration_since(asked) < self.patience,
            None => {
                if now.saturating_duration_since(self.answered_at) >= self.every
                    && self.pings.send_ping(h2::Ping::opaque()).is_ok()
                {
                    self.asked_at = Some(now);
                }
                true
            }
        }
    }
}
