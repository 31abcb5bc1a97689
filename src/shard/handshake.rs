//! The room between accept and decode on a bind that speaks TLS: the client's server name chooses the listener, and the
//! handshake ends in a connection, in time, or with an alert. A bounded number goes on at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use agentlane_link::server::Connection;
use agentlane_link::tls::{self, Secured, ServerTls};
use agentlane_runtime as runtime;
use agentlane_runtime::local::Event;
use agentlane_runtime::{Either, Stream};
use bytes::BytesMut;

use super::{Shard, connection, http2};
use crate::limits::{TLS_HANDSHAKE_TIME, TLS_HANDSHAKES_MAX};
use crate::principal::Principal;
use crate::request::TlsClient;
use crate::snapshot::Snapshot;

/// Takes a client's handshake, and serves its connection to its end.
pub async fn serve(shard: Rc<Shard>, stream: Stream, bind: SocketAddr, peer: Option<SocketAddr>) {
    let Some(secured) = take(&shard, stream, bind, peer).await else {
        shard.metrics.handshakes_failed.inc();
        return;
    };
    shard.metrics.handshakes_done.inc();
    let principal = secured.identity.map(|identity| Principal::of_certificate(Arc::new(identity)));
    let client =
        TlsClient { listener: secured.chosen, version: secured.version, principal: principal.unwrap_or_default() };
    let limits = shard.active().limits.clone();
    if secured.http2 {
        let tls = Some(Arc::new(client));
        return Box::pin(http2::serve(shard, secured.transport, BytesMut::new(), bind, peer, tls)).await;
    }
    let connection = Connection::new(secured.transport, limits, &shard.drain);
    connection::serve(shard, connection, bind, peer, Some(Arc::new(client)), true).await;
}

/// The handshake alone: its state is gone when requests begin.
async fn take(
    shard: &Rc<Shard>,
    stream: Stream,
    bind: SocketAddr,
    peer: Option<SocketAddr>,
) -> Option<Secured<String>> {
    let local = stream.local_addr().unwrap_or(bind);
    let choose = |name: Option<&str>| choose(&shard.active().snapshot, bind, local, name);
    let due = runtime::now().checked_add(TLS_HANDSHAKE_TIME);
    let place = shard.handshakes.enter();
    // The read that is dropped with a handshake is one of a socket that is closed.
    match runtime::race(Box::pin(tls::accept(stream, due, choose)), place.evicted()).await {
        Either::Left(Ok(secured)) => Some(secured),
        Either::Left(Err(error)) => {
            tracing::debug!(%error, ?peer, "a TLS handshake failed");
            shard.audit_handshake(&error, peer);
            None
        }
        Either::Right(()) => {
            tracing::debug!(?peer, "a TLS handshake gave way to newer ones");
            None
        }
    }
}

/// The listener for a server name, the most exact one. A client that names none has connected to an address: that is the
/// name then.
fn choose(snapshot: &Snapshot, bind: SocketAddr, local: SocketAddr, name: Option<&str>) -> Option<(ServerTls, String)> {
    let address;
    let name = match name {
        Some(name) => name,
        None => {
            address = match local.ip().to_canonical() {
                std::net::IpAddr::V6(ip) => format!("[{ip}]"),
                std::net::IpAddr::V4(ip) => ip.to_string(),
            };
            &address
        }
    };
    let listener = snapshot.bind(bind)?.listener(name)?;
    Some((listener.tls.clone()?, listener.name.clone()))
}

/// The handshakes that were begun and not finished, the oldest first.
#[derive(Default)]
pub struct Handshakes {
    waiting: RefCell<BTreeMap<u64, Event>>,
    next: Cell<u64>,
}

/// One handshake's place among them, until it is dropped.
pub(super) struct Place<'a> {
    handshakes: &'a Handshakes,
    number: u64,
    evicted: Event,
}

impl Handshakes {
    /// With too many, the oldest ends: it has had the longest time, and a flood of silent clients does not shut others out.
    pub(super) fn enter(&self) -> Place<'_> {
        let number = self.next.replace(self.next.get() + 1);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= TLS_HANDSHAKES_MAX
            && let Some((_, oldest)) = waiting.pop_first()
        {
            oldest.set();
        }
        let evicted = Event::new();
        waiting.insert(number, evicted.clone());
        Place { handshakes: self, number, evicted }
    }
}

impl Place<'_> {
    pub(super) async fn evicted(&self) {
        self.evicted.wait().await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.handshakes.waiting.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_handshake_gives_way() {
        let handshakes = Handshakes::default();
        let mut places: Vec<Place<'_>> = (0..TLS_HANDSHAKES_MAX).map(|_| handshakes.enter()).collect();
        assert!(places.iter().all(|place| !place.evicted.is_set()));
        places.push(handshakes.enter());
        assert!(places[0].evicted.is_set() && !places[1].evicted.is_set());
        // Those that are done make room.
        drop(places.drain(1..3));
        places.extend([handshakes.enter(), handshakes.enter()]);
        assert_eq!(places.iter().filter(|place| place.evicted.is_set()).count(), 1);
        places.push(handshakes.enter());
        assert!(places[1].evicted.is_set());
        drop(places);
        assert!(handshakes.waiting.borrow().is_empty());
    }
}
