//! Listening sockets of this shard: one per bind, SO_REUSEPORT, so that the kernel spreads connections over the shards. A
//! reload opens what is new and closes what is gone; a bind that stays is not touched.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use agentlane_link::server::Connection;
use agentlane_runtime as runtime;
use agentlane_runtime::{ListenOptions, Listener, Stop};

use super::{Shard, connection, handshake, proxied};
use crate::snapshot::Snapshot;

/// Connections that the kernel holds for us while we are busy.
const BACKLOG: i32 = 4096;

/// The sockets by their address.
#[derive(Default)]
pub struct Listeners {
    open: HashMap<SocketAddr, Stop>,
}

impl Listeners {
    pub fn stop_all(&mut self) {
        self.open.drain().for_each(|(_, stop)| stop.stop());
    }
}

/// Makes the open sockets those of the snapshot. All new ones are bound before anything else changes.
pub fn follow(shard: &Rc<Shard>, snapshot: &Snapshot) -> Result<(), String> {
    let mut bound = Vec::new();
    for bind in &snapshot.binds {
        if shard.listeners.borrow().open.contains_key(&bind.address) {
            continue;
        }
        let options = ListenOptions { backlog: BACKLOG, reuse_port: true };
        let listener = Listener::bind_tcp(bind.address, &options)
            .map_err(|error| format!("cannot listen on {}: {error}", bind.address))?;
        bound.push((bind.address, listener));
    }
    let mut listeners = shard.listeners.borrow_mut();
    for (address, listener) in bound {
        let stop = Stop::new();
        listeners.open.insert(address, stop.clone());
        let shard = shard.clone();
        runtime::spawn(async move {
            let accepting = shard.clone();
            listener
                .serve(stop, move |stream, peer| {
                    let shard = accepting.clone();
                    shard.metrics.connections_accepted.inc();
                    let active = shard.active();
                    let bind = active.snapshot.bind(address);
                    let secure = bind.is_some_and(|bind| bind.secure);
                    if let Some(proxy) = bind.and_then(|bind| bind.proxy) {
                        return runtime::spawn(proxied::serve(shard, stream, address, peer, proxy, secure));
                    }
                    if secure {
                        return runtime::spawn(handshake::serve(shard, stream, address, peer));
                    }
                    let connection = Connection::new(stream, active.limits.clone(), &shard.drain);
                    runtime::spawn(connection::serve(shard, connection, address, peer, None, true));
                })
                .await;
        });
    }
    let stays = |address: &SocketAddr| snapshot.binds.iter().any(|bind| bind.address == *address);
    listeners.open.retain(|address, stop| {
        let stays = stays(address);
        if !stays {
            stop.stop();
        }
        stays
    });
    Ok(())
}
