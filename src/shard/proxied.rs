//! The room before the handshake on a bind whose connections come through a balancer: the PROXY header says who the client
//! is, in time, or the connection is closed. A bounded number waits at once.

use std::net::SocketAddr;
use std::rc::Rc;

use agentlane_link::proxied;
use agentlane_link::server::Connection;
use agentlane_runtime as runtime;
use agentlane_runtime::{Either, Stream};

use super::{Shard, connection, handshake};
use crate::limits::PROXY_HEADER_TIME;
use crate::snapshot::ProxyHeader;

/// Takes a connection's header, and serves it to its end.
pub async fn serve(
    shard: Rc<Shard>,
    mut stream: Stream,
    bind: SocketAddr,
    peer: Option<SocketAddr>,
    proxy: ProxyHeader,
    secure: bool,
) {
    let due = runtime::now() + PROXY_HEADER_TIME;
    let source = {
        let place = shard.handshakes.enter();
        // The read that is dropped with a wait is one of a socket that is closed.
        match runtime::race(proxied::source(&mut stream, proxy.versions, proxy.optional, due), place.evicted()).await {
            Either::Left(source) => source,
            Either::Right(()) => Err(std::io::Error::other("gave way to newer ones").into()),
        }
    };
    let client = match source {
        Ok(source) => source.or(peer),
        Err(error) => {
            tracing::debug!(%error, ?peer, "a connection has no good PROXY header");
            shard.metrics.proxy_headers_refused.inc();
            return;
        }
    };
    if secure {
        return handshake::serve(shard, stream, bind, client).await;
    }
    let connection = Connection::new(stream, shard.active().limits.clone(), &shard.drain);
    connection::serve(shard, connection, bind, client, None, true).await;
}
