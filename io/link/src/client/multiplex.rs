//! The connections of HTTP/2 of one endpoint: one for as many exchanges as server and limits allow, and another where that
//! is not enough. Where HTTP/2 has to be agreed on and is not, the endpoint's connections are those of HTTP/1.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;

use agentlane_runtime::local::Notify;
use agentlane_runtime::{Either, now, race, sleep_until};

use super::link::Link;
use super::pool::{Endpoint, Permit, Spoken};
use super::{ClientConnection, ClientError, ClientErrorKind};
use crate::h2::Multiplexed;
use crate::tls::TlsError;

/// What an endpoint has of them.
#[derive(Default)]
pub(super) struct Http2 {
    open: RefCell<Vec<Multiplexed>>,
    /// One task makes a connection, the others wait for what comes of it.
    connecting: Cell<bool>,
    /// The last handshake came to HTTP/1.
    declined: Cell<bool>,
    waiting: Cell<usize>,
    /// An exchange or a connection has ended, or one was made.
    freed: Notify,
}

impl Http2 {
    /// Forgets connections that have ended, and those that nobody has had for this time; gives their number.
    fn forget(&self, idle: Duration) -> usize {
        let mut open = self.open.borrow_mut();
        let before = open.len();
        open.retain_mut(|connection| !connection.is_over() && !connection.rested(idle));
        before - open.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }
}

/// Notes that a connection is being made, until dropped; wakes who waits for it.
struct Connecting<'a>(&'a Http2);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.freed.notify_all();
    }
}

/// Counts who waits.
struct Waiting<'a>(&'a Cell<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Endpoint {
    /// An exchange on a connection of HTTP/2, or on one of HTTP/1 where that is what the server speaks. Waits, within
    /// limits, when all are in use.
    pub(super) async fn exchange(&self) -> Result<ClientConnection, ClientError> {
        let http2 = &self.0.http2;
        let due = now() + self.0.limits.wait_time;
        let mut waiting = None;
        loop {
            if let Some(connection) = self.share() {
                return Ok(connection);
            }
            self.sweep_http2(self.0.limits.idle);
            if http2.declined.get() {
                if let Some(link) = self.reuse() {
                    return Ok(ClientConnection::new(link, Permit::new(self)));
                }
                if http2.is_empty() {
                    return self.negotiate().await;
                }
            }
            if !http2.connecting.get() && self.0.open.get() < self.0.limits.connections_max {
                return self.negotiate().await;
            }
            if waiting.is_none() {
                if http2.waiting.get() >= self.0.limits.waiting_max {
                    return Err(ClientError::not_sent(ClientErrorKind::QueueFull));
                }
                http2.waiting.set(http2.waiting.get() + 1);
                waiting = Some(Waiting(&http2.waiting));
            }
            match race(http2.freed.notified(), sleep_until(due)).await {
                Either::Left(()) => {}
                Either::Right(()) => return Err(ClientError::not_sent(ClientErrorKind::QueueTimeout)),
            }
        }
    }

    /// Closes connections of HTTP/2 that have ended, or that nobody has had for this time.
    pub(super) fn sweep_http2(&self, idle: Duration) {
        for _ in 0..self.0.http2.forget(idle) {
            self.give_back();
        }
    }

    /// An exchange on a connection that is there.
    fn share(&self) -> Option<ClientConnection> {
        let mut open = self.0.http2.open.borrow_mut();
        for connection in open.iter_mut() {
            let reused = connection.has_served();
            if let Some((reader, writer, share)) = connection.exchange() {
                let link = Link::of_stream((reader, writer), reused, self.0.limits.clone());
                return Some(ClientConnection::of_stream(Box::new(link), share));
            }
        }
        None
    }

    /// A new connection, in the version that it comes to.
    async fn negotiate(&self) -> Result<ClientConnection, ClientError> {
        let http2 = &self.0.http2;
        if self.0.open.get() >= self.0.limits.connections_max {
            return self.new_http1().await;
        }
        self.0.open.set(self.0.open.get() + 1);
        let mut permit = Permit::new(self);
        http2.connecting.set(true);
        let connecting = Connecting(http2);
        let due = now().checked_add(self.0.limits.connect_time);
        let transport = self.open().await.map_err(ClientError::not_sent)?;
        let agreed = transport.has_agreed_on_http2();
        match self.0.spoken {
            Spoken::Http2 if transport.is_tls() && !agreed => {
                let error = TlsError::Protocol("the server does not speak HTTP/2");
                return Err(ClientError::not_sent(ClientErrorKind::Handshake(error)));
            }
            Spoken::Agreed if !agreed => {
                http2.declined.set(true);
                return Ok(self.on(transport, permit));
            }
            _ => http2.declined.set(false),
        }
        let connected = Multiplexed::connect(transport, &self.0.limits, due, http2.freed.clone()).await;
        let mut connection = connected.map_err(|error| {
            ClientError::not_sent(match error.kind() {
                io::ErrorKind::TimedOut => ClientErrorKind::ConnectTimeout,
                kind => ClientErrorKind::Connect(kind),
            })
        })?;
        let exchange = connection.exchange();
        // From here on the connection counts as long as it is known.
        permit.pass_on();
        http2.open.borrow_mut().push(connection);
        self.start_sweeping();
        drop(connecting);
        let (reader, writer, share) = exchange.ok_or(ClientError::not_sent(ClientErrorKind::Closed))?;
        let link = Link::of_stream((reader, writer), false, self.0.limits.clone());
        Ok(ClientConnection::of_stream(Box::new(link), share))
    }
}
