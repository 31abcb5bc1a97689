//! In which era a child is spoken to. Some servers belong to the era of the first request that a process sees, so none that
//! was asked for one era is ever used in the other: what a process refuses is tried with a fresh one.

use std::rc::Rc;
use std::time::Instant;

use agentlane_runtime as runtime;
use bytes::Bytes;
use simd_json::prelude::*;

use super::open_leg;
use crate::backend::mcp::{Protocol, StdioTarget};
use crate::fault::{Fault, Kind};
use crate::mesh::SharedChild;
use crate::protocol::mcp::modern::envelope::Client;
use crate::protocol::mcp::modern::results::Discovered;
use crate::session::{ChildPort, Leg, Session, Transport};
use crate::shard::Shard;
use crate::shard::mcp::child;
use crate::shard::mcp::era::{self, Era, Known};
use crate::shard::mcp::leg::{self, Opened};
use crate::shard::mcp::upstream::ask_child;

/// What a child is told first.
pub struct Greeting<'a> {
    pub known: &'a Known,
    pub protocol: Protocol,
    /// The era that is tried first.
    pub first: Era,
    /// The `params` of `initialize`.
    pub params: &'a [u8],
    /// The same client, for `server/discover`.
    pub client: &'a Client,
}

/// Starts a child, and speaks to it in the client's era if it knows that, else in the other.
pub async fn start(
    shard: &Rc<Shard>,
    name: &str,
    target: &StdioTarget,
    greeting: Greeting<'_>,
    deadline: Instant,
) -> Result<SharedChild, Fault> {
    let known = greeting.known;
    let mut refused = None;
    for era in known.order(greeting.protocol, greeting.first, runtime::now()) {
        let port = child::start(shard, name, target, deadline).await?;
        let outcome = match era {
            Era::Legacy => legacy(shard, &port, greeting.params, deadline).await,
            Era::Modern => modern(shard, &port, greeting.client, deadline).await,
        };
        let refusal = match outcome {
            Ok(Ok(result)) => {
                match era {
                    Era::Legacy => known.found_legacy(),
                    Era::Modern => known.found_modern(refused.is_some()),
                }
                return Ok(SharedChild { port, initialize_result: result, modern: era == Era::Modern });
            }
            Ok(Err(refusal)) => refusal,
            Err(fault) => {
                port.stop();
                // That it refused the other era says less than that there was no answer in this one.
                return Err(fault);
            }
        };
        port.stop();
        if era == Era::Modern {
            known.found_no_modern_child();
        }
        refused.get_or_insert(refusal);
    }
    Err(refused.unwrap_or_else(era::not_modern))
}

/// The result, or why the child refused. A fault where it said nothing.
pub async fn legacy(
    shard: &Rc<Shard>,
    port: &ChildPort,
    params: &[u8],
    deadline: Instant,
) -> Result<Result<Bytes, Fault>, Fault> {
    let answer = child::initialize(shard, port, params, deadline).await?;
    Ok(match leg::result_of(&answer) {
        Ok(Some(result)) => leg::read_result(&result).map(|_| result),
        Ok(None) => Err(Fault::new(Kind::UpstreamBroken, "target sent no result")),
        Err(fault) => Err(fault),
    })
}

/// The same of `server/discover`.
pub async fn modern(
    shard: &Rc<Shard>,
    port: &ChildPort,
    client: &Client,
    deadline: Instant,
) -> Result<Result<Bytes, Fault>, Fault> {
    let id = shard.call_id();
    let request = child::with_id(&era::discover_request(shard, client)?, id)?;
    let answer = child::answer(ask_child(port, id, request, Some(deadline), None)?).await?;
    let result = leg::result_of(&answer).ok().flatten();
    Ok(result.filter(|result| Discovered::read(result).is_some()).ok_or_else(era::not_modern))
}

/// The leg to a child of 2026-07-28.
pub fn open(session: &Session, leg: &Leg, child: SharedChild, known: &Known) -> Result<Opened, Fault> {
    let discovered = Discovered::read(&child.initialize_result).ok_or_else(era::not_modern)?;
    let offers = leg::offers_of(discovered.result());
    let result = discovered.as_initialize_result(session.revision, &leg.target.name);
    let raw = Bytes::from(result.encode());
    let open = open_leg(session, offers, Transport::Stdio(child.port), known.tools());
    Ok(Opened { leg: Rc::new(open), result: Some(result), raw })
}
