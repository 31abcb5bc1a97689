//! A client on standard streams (`agentlane connect`): the process reads its lines and writes ours, here is what becomes of
//! them. The conversation ends with the client's input.

use std::pin::pin;
use std::rc::Rc;

use agentlane_runtime as runtime;
use agentlane_runtime::channel::Sender;
use agentlane_runtime::local::Event;
use agentlane_runtime::{Either, race};
use bytes::Bytes;

use super::close;
use super::conversation::{Context, Conversation};
use super::modern::park;
use crate::fault::{Fault, Kind};
use crate::limits::CONNECT_END_GRACE;
use crate::mesh::LocalClient;
use crate::policy::rules::access::Access;
use crate::principal::Principal;
use crate::shard::Shard;

/// Serves a client to its end.
pub async fn serve(shard: Rc<Shard>, client: LocalClient) {
    let Some(backend) = shard.mcp_backend(&client.backend) else { return };
    let conversation = Conversation::of_any_era(&backend);
    let written = Rc::new(Event::new());
    runtime::spawn(write(conversation.clone(), client.outgoing.clone(), written.clone()));
    let ended_itself = read(&shard, &client, &conversation, &written).await;
    if ended_itself {
        // What was asked in time is answered, if that does not take long.
        let _ = runtime::timeout(CONNECT_END_GRACE, conversation.idle()).await;
    }
    conversation.finish(&shard).await;
    // And what was opened on behalf of a client without sessions.
    park::end_all(&shard);
    let sessions = shard.all_sessions();
    runtime::join_all(sessions.iter().map(|session| close::end_and_wait(&shard, session))).await;
    written.wait().await;
}

/// Takes messages until the input ends (true), or nobody wants the answers any more.
async fn read(shard: &Rc<Shard>, client: &LocalClient, conversation: &Rc<Conversation>, written: &Event) -> bool {
    loop {
        let next = {
            let (next, stopped, written) =
                (pin!(client.incoming.recv()), pin!(client.stop.recv()), pin!(written.wait()));
            race(next, pin!(race(stopped, written))).await
        };
        let outcome = match next {
            Either::Left(Some(Ok(message))) => {
                // A reload may have replaced it.
                let Some(backend) = shard.mcp_backend(&client.backend) else { return false };
                let context = Context {
                    shard,
                    backend: &backend,
                    principal: Principal::default(),
                    access: Access::default(),
                    passed_on: Bytes::new(),
                };
                conversation.take(context, message).await
            }
            Either::Left(Some(Err(_))) => Err(Fault::new(Kind::TooLarge, "message is too long").into()),
            Either::Left(None) => return true,
            Either::Right(_) => return false,
        };
        match outcome {
            // What comes after `initialize` may need the session.
            Ok(()) => conversation.opened().await,
            Err(refusal) => conversation.refuse(&refusal).await,
        }
    }
}

async fn write(conversation: Rc<Conversation>, outgoing: Sender<Bytes>, written: Rc<Event>) {
    while let Some(message) = conversation.next().await {
        if outgoing.send(message).await.is_err() {
            break;
        }
    }
    written.set();
}
