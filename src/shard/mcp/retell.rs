//! A target says that a list has changed: is it another one for this client? Where lists are kept they are compared, so
//! that a change of what a client does not see is not told, and nobody asks for what it has.

use std::rc::Rc;

use agentlane_runtime as runtime;

use super::{close, lists};
use crate::protocol::mcp::method::ListKind;
use crate::protocol::mcp::modern::listen::List;
use crate::protocol::mcp::streams::STANDALONE;
use crate::session::Session;
use crate::shard::Shard;

/// The list that a notification is about, by its method.
pub fn list_of(method: &[u8]) -> Option<List> {
    List::ALL.into_iter().find(|list| list.notification().as_bytes() == method)
}

/// Takes over to tell the client, if its list has to be compared first and it can be told later. What is kept of the list
/// must be old already.
pub fn takes(shard: &Rc<Shard>, session: &Rc<Session>, list: List) -> bool {
    let is_compared = !session.is_internal() && session.shown.kinds(list).next().is_some();
    if !is_compared || !session.streams.borrow().is_claimed(STANDALONE) {
        return false;
    }
    session.shown.note_changed(list);
    if !session.shown.looking.replace(true) {
        runtime::spawn(look(shard.clone(), session.clone()));
    }
    true
}

async fn look(shard: Rc<Shard>, session: Rc<Session>) {
    while let Some(list) = session.shown.next_changed() {
        let kinds: Vec<ListKind> = session.shown.kinds(list).collect();
        for kind in kinds {
            if is_another(&shard, &session, kind).await && !session.ended.get() {
                close::list_changed(&session, kind);
                break;
            }
        }
    }
    session.shown.looking.set(false);
}

/// Whether the client would be shown another list than it was, or nobody knows.
async fn is_another(shard: &Rc<Shard>, session: &Rc<Session>, kind: ListKind) -> bool {
    let Some(backend) = shard.mcp_backend(&session.backend) else { return false };
    match lists::kept_digest(shard, &backend, session, kind).await {
        Some(digest) => session.shown.differs(kind, digest),
        None => true,
    }
}
