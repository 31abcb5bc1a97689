//! A client's HTTP/2 connection: one task drives it and gives each stream away as a [`Connection`] that has one request.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use agentlane_runtime::{fair, now, sleep, timeout};
use agentlane_wire::h1::{H1Error, HeadLimits, RequestHead};
use agentlane_wire::h2::{RequestLine, request_head};
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;

use super::adapter::Adapter;
use super::meter::{Meter, MeterLimits};
use super::ping::Ping;
use super::stream;
use crate::drain::{Drain, Seat};
use crate::server::{Connection, ServerLimits};
use crate::transport::{Addresses, Transport};

/// How often a connection is looked at that nothing happens on.
const TICKS_PER_IDLE: u32 = 4;
/// How long a connection that was told to go may take to hear it.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a client may use of HTTP/2 beyond [`ServerLimits`].
#[derive(Clone, Debug)]
pub struct Http2Limits {
    /// Streams open at once, and requests at work at once, those of reset streams included: REFUSED_STREAM.
    pub streams_max: u32,
    /// Bytes of one stream that the client may send before they are read.
    pub window: u32,
    /// Bytes of all streams that the client may send before they are read.
    pub connection_window: u32,
    /// Bytes of a frame.
    pub frame_bytes: u32,
    /// Bytes of a header list, decoded and counted with 32 for each field: 431.
    pub header_list_bytes: u32,
    /// Bytes of one answer that wait for the client's window or the socket; whoever writes it waits.
    pub send_buffer_bytes: usize,
    /// Streams that are reset before they are looked at: the connection ends with ENHANCE_YOUR_CALM.
    pub unseen_resets_max: usize,
    /// Streams that this side had to reset for the client's faults: the same.
    pub provoked_resets_max: usize,
    /// Talk without work: the same.
    pub meter: MeterLimits,
    /// Asks a silent client so often whether it is there.
    pub keepalive: Option<Duration>,
    /// How long it may take to say so: the connection ends.
    pub keepalive_timeout: Duration,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Http2Limits {
            streams_max: 256,
            window: 64 * 1024,
            connection_window: 1024 * 1024,
            frame_bytes: 16 * 1024,
            header_list_bytes: 64 * 1024,
            send_buffer_bytes: 128 * 1024,
            unseen_resets_max: 20,
            provoked_resets_max: 100,
            meter: MeterLimits::default(),
            keepalive: None,
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

/// A client's connection whose preface has been exchanged.
pub struct Http2 {
    connection: h2::server::Connection<Adapter, Bytes>,
    limits: Rc<ServerLimits>,
    drain: Drain,
    seat: Seat,
    meter: Rc<Meter>,
    addresses: Addresses,
    /// Requests at work.
    working: Rc<Cell<u32>>,
    /// When the connection last had a stream.
    busy_at: Instant,
    tick: Pin<Box<dyn Future<Output = ()>>>,
    ping: Option<Ping>,
    /// Told to go; the time until which it may hear it out.
    leaving: Option<Instant>,
    drained: bool,
}

impl Http2 {
    /// Exchanges prefaces. `received`: what was read already.
    ///
    /// # Errors
    /// The client does not speak HTTP/2, or not in time.
    pub async fn accept(
        transport: impl Into<Transport>,
        received: BytesMut,
        limits: Rc<ServerLimits>,
        drain: &Drain,
    ) -> io::Result<Self> {
        let transport = transport.into();
        let addresses = transport.addresses();
        let http2 = &limits.http2;
        let meter = Rc::new(Meter::new(http2.meter));
        let adapter = Adapter::new(transport, received, limits.write_time, Some(meter.clone()));
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(http2.streams_max)
            .initial_window_size(http2.window)
            .initial_connection_window_size(http2.connection_window)
            .max_frame_size(http2.frame_bytes)
            .max_header_list_size(http2.header_list_bytes)
            .max_send_buffer_size(http2.send_buffer_bytes)
            .max_pending_accept_reset_streams(http2.unseen_resets_max)
            .max_local_error_reset_streams(Some(http2.provoked_resets_max));
        let handshake = timeout(limits.head_time, fair(builder.handshake(adapter)));
        let mut connection = match handshake.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(io::Error::other(error)),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let (start, every) = (now(), tick_time(&limits));
        let ping = limits.http2.keepalive.and_then(|every| {
            let patience = limits.http2.keepalive_timeout;
            connection.ping_pong().map(|pings| Ping::new(pings, every, patience, start))
        });
        Ok(Http2 {
            connection,
            drain: drain.clone(),
            seat: drain.seat(),
            meter,
            addresses,
            working: Rc::default(),
            busy_at: start,
            tick: Box::pin(sleep(every)),
            ping,
            leaving: None,
            drained: false,
            limits,
        })
    }

    /// Drives the connection to its end; `serve` is given each request, and must not wait.
    pub async fn serve(mut self, mut serve: impl FnMut(Connection)) {
        fair(async move {
            while let Some(connection) = poll_fn(|cx| self.poll_next(cx)).await {
                serve(connection);
            }
        })
        .await;
    }

    /// The next request; `None`: the connection is over.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Connection>> {
        loop {
            if self.leaving.is_some_and(|until| until <= now()) {
                return Poll::Ready(None);
            }
            self.look_around(cx);
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.busy_at = now();
                    if let Some(connection) = self.take(request, respond) {
                        return Poll::Ready(Some(connection));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "an HTTP/2 connection ended");
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if self.meter.is_exceeded() && self.leaving.is_none() => self.calm(),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// One stream as a connection of one request.
    fn take(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Option<Connection> {
        // Requests whose streams were reset may still be at work.
        if self.working.get() >= self.limits.http2.streams_max {
            respond.send_reset(Reason::REFUSED_STREAM);
            return None;
        }
        let (head, body) = request.into_parts();
        let head = read_head(&head, body.is_end_stream(), &self.limits.head);
        let halves = stream::accepted(body, respond, self.addresses);
        self.working.set(self.working.get() + 1);
        let work = Work(self.working.clone());
        Some(Connection::of_stream(head, halves, work, self.limits.clone(), &self.drain))
    }

    /// What is not frames: the drain, time, and too much talk.
    fn look_around(&mut self, cx: &mut Context<'_>) {
        if self.seat.is_draining() && !self.drained {
            self.drained = true;
            self.connection.graceful_shutdown();
            self.tick = Box::pin(sleep(self.tick_time()));
        }
        self.seat.wait(cx);
        while self.tick.as_mut().poll(cx).is_ready() {
            self.tick = Box::pin(sleep(self.tick_time()));
            self.check_idle();
            self.check_alive();
        }
        if let Some(ping) = &mut self.ping {
            ping.poll(cx, now());
        }
    }

    fn check_idle(&mut self) {
        let now = now();
        if self.connection.has_streams() || self.working.get() > 0 {
            self.busy_at = now;
        } else if self.drained || now.saturating_duration_since(self.busy_at) >= self.limits.idle {
            // A client that does not answer the ping of a graceful end has had its goodbye all the same.
            self.connection.graceful_shutdown();
            self.leave();
        }
    }

    fn check_alive(&mut self) {
        let now = now();
        if self.ping.as_mut().is_some_and(|ping| !ping.tick(now)) {
            tracing::debug!("an HTTP/2 client does not answer");
            self.leaving = Some(now);
        }
    }

    /// Ends a connection that talks too much.
    fn calm(&mut self) {
        tracing::debug!("an HTTP/2 client talks too much");
        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        self.leave();
    }

    /// Goes on for a moment, so that the client can hear why it ends.
    fn leave(&mut self) {
        if self.leaving.is_none() {
            self.leaving = now().checked_add(FAREWELL);
            self.tick = Box::pin(sleep(FAREWELL));
        }
    }

    fn tick_time(&self) -> Duration {
        if self.drained { FAREWELL / TICKS_PER_IDLE } else { tick_time(&self.limits) }
    }
}

/// One request at work.
pub(crate) struct Work(Rc<Cell<u32>>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

fn tick_time(limits: &ServerLimits) -> Duration {
    let idle = limits.idle / TICKS_PER_IDLE;
    let alive = limits.http2.keepalive.map(|every| every.min(limits.http2.keepalive_timeout) / TICKS_PER_IDLE);
    alive.map_or(idle, |alive| alive.min(idle)).max(Duration::from_millis(10))
}

fn read_head(head: &http::request::Parts, ends: bool, limits: &HeadLimits) -> Result<RequestHead, H1Error> {
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    let path = head.uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    let is_connect = head.method == http::Method::CONNECT;
    let target = if is_connect { authority } else { path };
    let line = RequestLine {
        method: head.method.as_str(),
        scheme: head.uri.scheme_str(),
        authority,
        target: target.unwrap_or("/"),
        ends,
    };
    if line.target.len() > limits.start_line_bytes {
        return Err(H1Error::TargetTooLong);
    }
    request_head(line, head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())), limits)
}
