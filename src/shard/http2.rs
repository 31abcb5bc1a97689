//! A client's connection of HTTP/2: each of its requests is served by a task of its own, as if it had a connection for
//! itself, and forwarded to the shard of its session where that is another one. The connection never moves.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use agentlane_link::Transport;
use agentlane_link::h2::Http2;
use agentlane_runtime as runtime;
use bytes::BytesMut;

use super::Shard;
use super::connection::{self, Client};
use crate::request::TlsClient;

/// Serves a connection to its end. `received`: what was read from it already.
pub async fn serve(
    shard: Rc<Shard>,
    transport: Transport,
    received: BytesMut,
    bind: SocketAddr,
    peer: Option<SocketAddr>,
    tls: Option<Arc<TlsClient>>,
) {
    shard.metrics.connections.inc();
    let limits = shard.active().limits.clone();
    let local = transport.local_addr().unwrap_or(bind);
    match Http2::accept(transport, received, limits, &shard.drain).await {
        Ok(http2) => {
            let client = Client { bind, local, peer, tls, fresh: false, admitted: false };
            let serving = shard.clone();
            http2
                .serve(move |stream| runtime::spawn(connection::serve_stream(serving.clone(), stream, client.clone())))
                .await;
        }
        Err(error) => tracing::debug!(%error, ?peer, "a client does not speak HTTP/2"),
    }
    shard.metrics.connections.dec();
}
