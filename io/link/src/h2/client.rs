//! A connection of HTTP/2 to an upstream, shared by the exchanges of one shard. One task drives it as long as anybody has
//! it; the pool decides who does.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use agentlane_runtime::local::{Event, Notify};
use agentlane_runtime::{fair, now, sleep, spawn, timeout};
use bytes::{Bytes, BytesMut};
use h2::client::{Builder, Connection, SendRequest};

use super::adapter::Adapter;
use super::ping::Ping;
use super::stream::{self, StreamReader, StreamWriter};
use crate::client::ClientLimits;
use crate::transport::{Addresses, Transport};

/// Looks at a connection for each time between two questions whether its server is there.
const TICKS: u32 = 4;

/// What a server may use of HTTP/2 beyond [`ClientLimits`].
#[derive(Clone, Debug)]
pub struct UpstreamLimits {
    /// Exchanges at once on one connection; the server's own limit may be lower. With more, another connection is made.
    pub streams_max: usize,
    /// Bytes of one answer that the server may send before they are read.
    pub window: u32,
    /// Bytes of one request that wait for the server's window or the socket.
    pub send_buffer_bytes: usize,
    /// A server that is silent is asked so often whether it is there.
    pub keepalive: Duration,
    /// And may take so long to say so; then the connection ends.
    pub keepalive_timeout: Duration,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        UpstreamLimits {
            streams_max: 100,
            window: 64 * 1024,
            send_buffer_bytes: 128 * 1024,
            keepalive: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}

/// One connection.
pub(crate) struct Multiplexed {
    send: SendRequest<Bytes>,
    state: Rc<State>,
    addresses: Addresses,
    tls: bool,
    streams_max: usize,
}

struct State {
    /// Exchanges that have it.
    active: Cell<usize>,
    /// It has served before.
    served: Cell<bool>,
    over: Cell<bool>,
    /// The server has said what it allows, or the connection is over.
    settled: Event,
    /// When the last exchange ended.
    rested_at: Cell<Instant>,
    /// Told when an exchange ends, or the connection.
    freed: Notify,
}

/// An exchange's part of a connection; dropped, another may have it.
pub(crate) struct Share(Rc<State>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.served.set(true);
        self.0.rested_at.set(now());
        self.0.freed.notify_one();
    }
}

impl Multiplexed {
    /// Exchanges prefaces, and starts the task that drives it. `freed` is told when an exchange ends.
    pub(crate) async fn connect(
        transport: Transport,
        limits: &ClientLimits,
        due: Option<Instant>,
        freed: Notify,
    ) -> io::Result<Self> {
        let (addresses, tls) = (transport.addresses(), transport.is_tls());
        let http2 = &limits.http2;
        let adapter = Adapter::new(transport, BytesMut::new(), limits.write_time, None);
        let mut builder = Builder::new();
        let streams = u32::try_from(http2.streams_max).unwrap_or(u32::MAX);
        builder
            .enable_push(false)
            // Until the server has said how many.
            .initial_max_send_streams(0)
            .initial_window_size(http2.window)
            // Answers that nobody reads must not hold up the others.
            .initial_connection_window_size(http2.window.saturating_mul(streams).min(i32::MAX as u32))
            .max_header_list_size(u32::try_from(limits.head.bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(http2.send_buffer_bytes);
        let handshake = fair(builder.handshake::<_, Bytes>(adapter));
        let handshake = match due {
            Some(due) => timeout(due.saturating_duration_since(now()), handshake).await,
            None => Ok(handshake.await),
        };
        let handshake = handshake.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let (send, mut connection) = handshake.map_err(io::Error::other)?;
        let state = Rc::new(State {
            active: Cell::new(0),
            served: Cell::new(false),
            over: Cell::new(false),
            settled: Event::new(),
            rested_at: Cell::new(now()),
            freed,
        });
        let ping =
            connection.ping_pong().map(|pings| Ping::new(pings, http2.keepalive, http2.keepalive_timeout, now()));
        let every = http2.keepalive.min(http2.keepalive_timeout) / TICKS;
        spawn(drive(connection, ping, every, state.clone()));
        // A stream too many would be refused, or wait for who knows how long.
        match due {
            Some(due) => {
                let settled = timeout(due.saturating_duration_since(now()), state.settled.wait()).await;
                settled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            }
            None => state.settled.wait().await,
        }
        if state.over.get() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(Multiplexed { send, state, addresses, tls, streams_max: http2.streams_max })
    }

    /// An exchange on it, unless all that may be are at work.
    pub(crate) fn exchange(&mut self) -> Option<(StreamReader, StreamWriter, Share)> {
        let room = self.streams_max.min(self.send.current_max_send_streams());
        if self.is_over() || self.state.active.get() >= room {
            return None;
        }
        self.state.active.set(self.state.active.get() + 1);
        let (reader, writer) = stream::asked(self.send.clone(), self.tls, self.addresses);
        Some((reader, writer, Share(self.state.clone())))
    }

    /// Whether it takes no more exchanges: it has ended, or the server wants it to.
    pub(crate) fn is_over(&mut self) -> bool {
        if self.state.over.get() {
            return true;
        }
        let said = self.send.poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(said, Poll::Ready(Err(_)))
    }

    pub(crate) fn has_served(&self) -> bool {
        self.state.served.get()
    }

    /// Whether nobody has had it for this time.
    pub(crate) fn rested(&self, time: Duration) -> bool {
        self.state.active.get() == 0 && now().saturating_duration_since(self.state.rested_at.get()) >= time
    }
}

async fn drive(connection: Connection<Adapter>, ping: Option<Ping>, every: Duration, state: Rc<State>) {
    let outcome = fair(driven(connection, ping, every, &state.settled)).await;
    if let Err(error) = outcome {
        tracing::debug!(%error, "an upstream connection of HTTP/2 ended");
    }
    state.over.set(true);
    state.settled.set();
    state.freed.notify_all();
}

async fn driven(
    connection: Connection<Adapter>,
    mut ping: Option<Ping>,
    every: Duration,
    settled: &Event,
) -> Result<(), h2::Error> {
    let mut connection = pin!(connection);
    let mut tick: Pin<Box<dyn Future<Output = ()>>> = Box::pin(sleep(every));
    poll_fn(|cx| {
        if let Some(ping) = &mut ping {
            ping.poll(cx, now());
            while tick.as_mut().poll(cx).is_ready() {
                tick = Box::pin(sleep(every));
                if !ping.tick(now()) {
                    return Poll::Ready(Err(h2::Reason::SETTINGS_TIMEOUT.into()));
                }
            }
        }
        let polled = connection.as_mut().poll(cx);
        if !settled.is_set() && connection.max_concurrent_send_streams() > 0 {
            settled.set();
        }
        polled
    })
    .await
}
