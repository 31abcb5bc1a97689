//! An MCP request whose route was found and whose policies let it pass: to the shard of its session, and there into the
//! protocol, wherever the answer goes.

use std::rc::Rc;

use agentlane_link::server::Connection;
use agentlane_runtime as runtime;
use agentlane_runtime::channel;
use agentlane_wire::h1::{Known, Method as HttpMethod, RequestHead};
use bytes::Bytes;

use super::audit::Scene;
use super::connection::{After, Client, refuse};
use super::mcp::{self, Incoming, Owner};
use super::record::Record;
use super::responder::{Responder, relay_parts};
use super::{Active, BackendState, Shard};
use crate::fault::{Fault, Kind};
use crate::limits::{MESH_DEADLINE, MESH_REPLY_DEPTH};
use crate::mesh::{ForwardedRequest, ToShard};
use crate::policy::auth;
use crate::policy::rules::access::Access;
use crate::principal::Principal;
use crate::request::{Changes, HeaderEdits};

/// Serves a request of a connection.
#[allow(clippy::too_many_arguments, reason = "the parts of one request")]
pub async fn serve(
    shard: &Rc<Shard>,
    active: &Active,
    connection: &mut Connection,
    client: &Client,
    head: &RequestHead,
    backend: usize,
    access: Access,
    changes: Changes,
    record: &mut Record,
) -> After {
    let backend = &active.mcp[backend];
    let mut changes = changes;
    if backend.config.passes_credential {
        changes.principal.credential = auth::backend::credential(&head.headers);
    }
    let is_modern = mcp::is_modern(head);
    let mut owner = match owner_of(shard, backend, head, &changes.principal) {
        Ok(Owner::There(owner)) if client.fresh => return After::Move(owner),
        Ok(owner) => owner,
        Err(fault) => return refuse(connection, &changes.response, record, &fault).await,
    };
    let body = match head.method {
        HttpMethod::Post => match connection.body_all(active.snapshot.body_bytes).await {
            Ok(body) => body,
            Err(error) => {
                record.status = error.status().unwrap_or_default();
                record.fault = Some(Kind::InvalidRequest.label());
                let _ = connection.refuse(&error).await;
                return After::Close;
            }
        },
        _ => Bytes::new(),
    };
    record.bytes_in = body.len() as u64;
    if is_modern && let Some(holder) = mcp::modern::holder(shard, &body) {
        owner = Owner::There(holder);
    }
    if let Owner::There(owner) = owner {
        let forwarded = forward_to(shard, connection, client, head, body, owner, backend, access, changes, record);
        return Box::pin(forwarded).await;
    }
    let mut responder = Responder::connection(connection, changes.response);
    let admitted = Admitted { edits: &changes.request, principal: &changes.principal, access: &access };
    endpoint(shard, backend, owner, head, body, admitted, &mut responder, record).await;
    if responder.is_gone() { After::Close } else { After::Next }
}

/// What the policies said of a request.
#[derive(Clone, Copy)]
struct Admitted<'a> {
    edits: &'a HeaderEdits,
    principal: &'a Principal,
    access: &'a Access,
}

/// Whose request it is.
fn owner_of(shard: &Shard, backend: &BackendState, head: &RequestHead, principal: &Principal) -> Result<Owner, Fault> {
    match mcp::old_front::part(head) {
        // There are no sessions in that revision, whatever the header says.
        None if mcp::is_modern(head) => Ok(Owner::Nobody),
        None => mcp::owner(shard, backend, head.headers.known(Known::McpSessionId), principal),
        Some(part) => mcp::old_front::owner(shard, backend, &part, principal),
    }
}

/// Serves an MCP request on the shard of its session, wherever the answer goes.
#[allow(clippy::too_many_arguments, reason = "the parts of one request")]
async fn endpoint(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    owner: Owner,
    head: &RequestHead,
    body: Bytes,
    admitted: Admitted<'_>,
    responder: &mut Responder<'_>,
    record: &mut Record,
) {
    let Admitted { edits, principal, access } = admitted;
    let session = match owner {
        Owner::Here(session) => Some(session),
        Owner::Nobody | Owner::There(_) => None,
        Owner::NewConversation => {
            Box::pin(mcp::old_front::stream(shard, backend, head, principal, responder, record)).await;
            return record.answered(responder);
        }
        Owner::Conversation(conversation) => {
            let passed_on = mcp::upstream::passed_on(&head.headers, edits).freeze();
            let (principal, access) = (principal.clone(), access.clone());
            let context = mcp::conversation::Context { shard, backend, principal, access, passed_on };
            Box::pin(mcp::old_front::message(&conversation, context, body, responder, record)).await;
            return record.answered(responder);
        }
    };
    match (&head.method, session) {
        (HttpMethod::Post, session) => {
            let passed_on = mcp::upstream::passed_on(&head.headers, edits);
            let prefers_events = mcp::prefers_events(&head.headers);
            let (headers, passed_on) = (&head.headers, &passed_on[..]);
            let incoming = Incoming { shard, backend, session, principal, access, headers, passed_on, prefers_events };
            mcp::post(&incoming, body, responder, record).await;
        }
        (_, None) => {
            let fault = Fault::new(Kind::SessionMissing, "mcp-session-id is missing");
            mcp::refuse(responder, record, None, &fault).await;
        }
        (HttpMethod::Get, Some(session)) => {
            record.session = Some(session.serial);
            record.mcp_method = Some("stream");
            let last_event_id = head.headers.known(Known::LastEventId);
            if let Err(fault) = Box::pin(mcp::listen::serve(shard, &session, last_event_id, responder)).await {
                mcp::refuse(responder, record, None, &fault).await;
            }
        }
        (_, Some(session)) => {
            record.session = Some(session.serial);
            record.mcp_method = Some("end");
            mcp::close::end(shard, &session);
            let _ = responder.whole(200, None, Bytes::new()).await;
        }
    }
    record.answered(responder);
}

/// Sends a request to the shard of its session and relays the answer.
#[allow(clippy::too_many_arguments, reason = "the parts of one request")]
async fn forward_to(
    shard: &Rc<Shard>,
    connection: &mut Connection,
    client: &Client,
    head: &RequestHead,
    body: Bytes,
    owner: usize,
    backend: &BackendState,
    access: Access,
    changes: Changes,
    record: &mut Record,
) -> After {
    let (reply, parts) = channel::bounded(MESH_REPLY_DEPTH);
    shard.metrics.requests_forwarded.inc();
    let request = ForwardedRequest {
        head: head.clone(),
        body,
        backend: backend.config.clone(),
        principal: changes.principal,
        access,
        edits: changes.request,
        peer: client.peer,
        tls: client.tls.clone(),
        route: record.route,
        version: shard.active().snapshot.version,
        deadline: runtime::now() + MESH_DEADLINE,
        reply,
    };
    if shard.peers[owner].try_send(ToShard::Request(Box::new(request))).is_err() {
        return refuse(connection, &changes.response, record, &Fault::new(Kind::Overloaded, "overloaded")).await;
    }
    record.mcp_method = Some("forwarded");
    // A client without a session cancels by leaving.
    match relay_parts(connection, &changes.response, &parts, mcp::is_modern(head)).await {
        Ok((0, _)) if !connection.has_responded() => {
            refuse(connection, &changes.response, record, &Fault::new(Kind::Overloaded, "overloaded")).await
        }
        Ok((0, _)) | Err(_) => After::Close,
        Ok((status, sent)) => {
            record.status = status;
            record.bytes_out = sent;
            After::Next
        }
    }
}

/// Serves a request for another shard's connection. The policies of its route were asked there.
pub async fn serve_forwarded(shard: &Rc<Shard>, forwarded: ForwardedRequest) {
    // Nobody waits any more: dropping the reply's sender says so.
    if runtime::now() > forwarded.deadline {
        return;
    }
    let active = shard.active();
    let ForwardedRequest { head, body, backend, principal, access, edits, reply, peer, tls, .. } = forwarded;
    let mut record = Record::new();
    record.principal = principal.clone();
    record.route = forwarded.route.filter(|_| forwarded.version == active.snapshot.version);
    record.bytes_in = body.len() as u64;
    let mut responder = Responder::mesh(reply);
    let served = shard.mcp_backend(&backend.key).ok_or_else(|| Fault::new(Kind::NoRoute, "no route"));
    let served = served.and_then(|backend| {
        let owner = match owner_of(shard, &backend, &head, &principal)? {
            owner @ (Owner::Here(_) | Owner::Conversation(_)) => owner,
            // Its state said that this shard knows more; if not, it is answered so.
            Owner::Nobody if mcp::is_modern(&head) => Owner::Nobody,
            // A shard that works for a peer never asks a third one.
            _ => return Err(mcp::session_unknown()),
        };
        Ok((backend, owner))
    });
    match served {
        Ok((backend, owner)) => {
            let admitted = Admitted { edits: &edits, principal: &principal, access: &access };
            endpoint(shard, &backend, owner, &head, body, admitted, &mut responder, &mut record).await;
        }
        Err(fault) => mcp::refuse(&mut responder, &mut record, None, &fault).await,
    }
    shard.metrics.mcp(&record);
    shard.audit(&record, || Scene::request(&active.snapshot, &head, peer, tls.as_deref(), &record));
}
