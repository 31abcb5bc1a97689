//! A target's list over the wire: every page, through one session's leg.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Instant;

use agentlane_wire::json;
use bytes::Bytes;

use crate::backend::mcp::Target;
use crate::fault::{Fault, Kind};
use crate::limits::{LIST_BYTES_MAX, LIST_PAGES_MAX};
use crate::protocol::mcp::content::Annotations;
use crate::protocol::mcp::error;
use crate::protocol::mcp::listing::{Listing, Origin};
use crate::protocol::mcp::method::{ListKind, list_method};
use crate::session::{LegId, Offers, OpenLeg, Session, Transport};
use crate::shard::Shard;
use crate::shard::mcp::{SCAN_LIMITS, leg, loss, upstream};

/// The whole list; `None`: the target does not offer it. A target that forgot the session is asked once more under a new
/// one.
pub async fn list(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    target: &Target,
    kind: ListKind,
    deadline: Instant,
) -> Result<Option<Listing>, Fault> {
    // By name: a reload may have moved its place meanwhile.
    let leg = session.legs.borrow().iter().find(|leg| leg.target.name == target.name).map(|leg| leg.id);
    let leg = leg.ok_or_else(|| Fault::new(Kind::NoBackend, "target is not configured"))?;
    match pages(shard, session, leg, kind, deadline).await {
        Err(Lost::Session(open)) => {
            loss::forgotten(shard, session, leg, &open)?;
            pages(shard, session, leg, kind, deadline).await.map_err(Lost::into_fault)
        }
        outcome => outcome.map_err(Lost::into_fault),
    }
}

/// Why there is no list.
enum Lost {
    /// The target forgot the session that this leg was negotiated for.
    Session(Rc<OpenLeg>),
    Fault(Fault),
}

impl Lost {
    fn into_fault(self) -> Fault {
        match self {
            Lost::Session(_) => Fault::new(Kind::UpstreamBroken, "target forgets its sessions"),
            Lost::Fault(fault) => fault,
        }
    }
}

async fn pages(
    shard: &Rc<Shard>,
    session: &Rc<Session>,
    leg: LegId,
    kind: ListKind,
    deadline: Instant,
) -> Result<Option<Listing>, Lost> {
    let open = leg::ready(shard, session, leg).await.map_err(Lost::Fault)?;
    if !offers(&open.offers, kind) {
        return Ok(None);
    }
    let mut listing = Listing::new(origin(&open));
    let mut cursor = None::<Bytes>;
    let mut seen = HashSet::new();
    while listing.pages().len() < LIST_PAGES_MAX && listing.bytes() < LIST_BYTES_MAX {
        let params = cursor.as_ref().map(|cursor| [b"{\"cursor\":", &cursor[..], b"}"].concat());
        let request = error::request(shard.call_id(), list_method(kind), params.as_deref());
        let message = match upstream::ask(shard, session, &open, leg, request, true, deadline).await {
            Ok(message) => message,
            Err(fault) if fault.kind == Kind::SessionUnknown => return Err(Lost::Session(open)),
            Err(fault) => return Err(Lost::Fault(fault)),
        };
        match add(&mut listing, message, kind).map_err(Lost::Fault)? {
            // A target whose cursors go round would be followed for ever.
            Some(next) if seen.insert(next.clone()) => cursor = Some(next),
            _ => break,
        }
    }
    Ok(Some(listing))
}

fn origin(open: &OpenLeg) -> Origin {
    match (&open.modern, &open.transport) {
        (None, _) => Origin::Legacy(open.revision),
        (Some(_), Transport::Http { .. }) => Origin::Modern(Annotations::Checked),
        (Some(_), Transport::Stdio(_)) => Origin::Modern(Annotations::Stripped),
    }
}

/// Takes a page's message in; the cursor of the next one.
fn add(listing: &mut Listing, message: Bytes, kind: ListKind) -> Result<Option<Bytes>, Fault> {
    let broken = |fault: json::JsonError| Fault::new(Kind::UpstreamBroken, "target sent a wrong list").with(fault);
    let envelope = json::scan(&message, &SCAN_LIMITS).map_err(broken)?;
    let Some(result) = envelope.result else {
        let text = String::from_utf8_lossy(&message).chars().take(200).collect::<String>();
        return Err(Fault::new(Kind::UpstreamBroken, "target answered the list with an error").with(text));
    };
    listing.add_page(message, result, kind).map_err(broken)
}

fn offers(offers: &Offers, kind: ListKind) -> bool {
    match kind {
        ListKind::Tools => offers.tools,
        ListKind::Prompts => offers.prompts,
        ListKind::Resources | ListKind::ResourceTemplates => offers.resources,
    }
}
