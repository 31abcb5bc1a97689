//! The endpoint for clients of the transport of 2024-11-05 ("HTTP with SSE"): a GET opens the stream that everything comes on,
//! and POSTs to the place that its first event names are only taken. The conversation ends with its stream.

use std::rc::Rc;

use agentlane_runtime as runtime;
use agentlane_wire::h1::{Known, Method as HttpMethod, RequestHead};
use bytes::Bytes;

use super::conversation::{Context, Conversation};
use super::{Owner, mcp_fault, refuse};
use crate::fault::Fault;
use crate::limits::{KEEP_ALIVE_EVERY, OLD_CLIENT_BEGIN_TIME};
use crate::principal::Principal;
use crate::protocol::mcp::sse2024;
use crate::shard::record::Record;
use crate::shard::responder::{Gone, Responder};
use crate::shard::{BackendState, Shard};

/// What a request is in this transport.
pub enum Part<'a> {
    Stream,
    /// To the conversation of this id.
    Message(&'a str),
}

/// `None`: none of this transport.
pub fn part(head: &RequestHead) -> Option<Part<'_>> {
    if !sse2024::is_served_at(head.path()) {
        return None;
    }
    match head.method {
        HttpMethod::Get if head.headers.known(Known::McpSessionId).is_none() => Some(Part::Stream),
        HttpMethod::Post => sse2024::session_of(head.query()).map(Part::Message),
        _ => None,
    }
}

/// Finds whose request it is: a new conversation's, one of this shard or of another.
pub fn owner(shard: &Shard, backend: &BackendState, part: &Part<'_>, principal: &Principal) -> Result<Owner, Fault> {
    let Part::Message(id) = part else { return Ok(Owner::NewConversation) };
    if let Some(conversation) = shard.conversations.borrow().get(id.as_bytes()) {
        return match conversation.belongs_to(backend, principal) {
            true => Ok(Owner::Conversation(conversation.clone())),
            false => Err(mcp_fault::session_unknown()),
        };
    }
    // Ids of conversations say their shard as those of sessions do; neither is found in the other's table.
    super::owner_elsewhere(shard, id.as_bytes())
}

/// Serves the stream until either side ends it.
pub async fn stream(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    head: &RequestHead,
    principal: &Principal,
    responder: &mut Responder<'_>,
    record: &mut Record,
) {
    record.mcp_method = Some("stream");
    let is_full = shard.conversations.borrow().len() >= shard.sessions.borrow().max();
    let id = match shard.sealer.session_id(shard.index as u16) {
        Ok((_, id)) if !is_full => id,
        Ok(_) => return refuse(responder, record, None, &mcp_fault::overloaded()).await,
        Err(_) => return refuse(responder, record, None, &mcp_fault::internal("no randomness")).await,
    };
    let endpoint = sse2024::message_endpoint(head.path(), head.query(), &id);
    let id = Bytes::from(id);
    let conversation = Conversation::new(backend, principal.clone(), principal.caller(&head.headers));
    shard.conversations.borrow_mut().insert(id.clone(), conversation.clone());
    let _ = write(shard, &conversation, endpoint, responder).await;
    shard.conversations.borrow_mut().remove(&id);
    record.session = conversation.session().map(|session| session.serial);
    conversation.end(shard);
}

async fn write(
    shard: &Rc<Shard>,
    conversation: &Conversation,
    endpoint: String,
    responder: &mut Responder<'_>,
) -> Result<(), Gone> {
    responder.begin_events().await?;
    responder.named_event("endpoint", endpoint.as_bytes()).await?;
    let began = runtime::now();
    loop {
        let step = {
            let (next, left) = (std::pin::pin!(conversation.next()), std::pin::pin!(responder.left()));
            runtime::timeout(KEEP_ALIVE_EVERY, runtime::race(next, left)).await
        };
        match step {
            Ok(runtime::Either::Left(Some(message))) => responder.named_event("message", &message).await?,
            Ok(runtime::Either::Left(None)) => return responder.end().await,
            Ok(runtime::Either::Right(())) => return Err(Gone),
            Err(_) => {
                let is_late = runtime::now() >= began + OLD_CLIENT_BEGIN_TIME;
                if !conversation.has_begun() && (is_late || shard.drain.is_set()) {
                    return responder.end().await;
                }
                responder.comment().await?;
            }
        }
    }
}

/// Takes a message. 202 says that it was taken; what there is to answer comes on the stream.
pub async fn message(
    conversation: &Rc<Conversation>,
    context: Context<'_>,
    body: Bytes,
    responder: &mut Responder<'_>,
    record: &mut Record,
) {
    record.mcp_method = Some("message");
    record.session = conversation.session().map(|session| session.serial);
    match conversation.take(context, body).await {
        Ok(()) => drop(responder.accepted().await),
        Err(refusal) => refuse(responder, record, refusal.id.as_deref(), &refusal.fault).await,
    }
}
