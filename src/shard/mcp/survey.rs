//! What every target of a backend offers, asked for in the gateway's own name: for `agentlane lock`, when nobody is a client.

use std::collections::HashSet;
use std::rc::Rc;

use agentlane_runtime as runtime;
use simd_json::prelude::ValueObjectAccessAsScalar;

use super::cache;
use super::{close, leg, open};
use crate::fault::Fault;
use crate::mesh::{Surveyed, SurveyedItem};
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::lock::definition::Kind;
use crate::protocol::mcp::method::ListKind;
use crate::session::Session;
use crate::shard::{BackendState, Shard};

/// A client that can do everything is shown everything.
const CAPABILITIES: &[u8] = br#"{"roots":{"listChanged":true},"sampling":{},"elicitation":{"form":{},"url":{}}}"#;

/// Asks the targets of the backend at `index`. Those that speak both eras are asked in both: what differs is kept beside.
pub async fn survey(shard: &Rc<Shard>, index: usize) -> Vec<Surveyed> {
    let Some(backend) = shard.active().mcp.get(index).cloned() else { return Vec::new() };
    let mut surveyed: Vec<Surveyed> = Vec::new();
    for modern in [false, true] {
        let session = match open::internal(shard, &backend, Caller::NOBODY, CAPABILITIES, None) {
            Ok(session) => session,
            Err(fault) => {
                tracing::error!(target: "agentlane::lock", %fault, "no session to ask targets in");
                return surveyed;
            }
        };
        session.prefers_modern.set(modern);
        let places = 0..backend.config.targets.len();
        let outcomes = runtime::join_all(places.map(|place| target(shard, &backend, &session, place))).await;
        close::end_and_wait(shard, &session).await;
        match surveyed.is_empty() {
            true => surveyed = outcomes,
            false => surveyed.iter_mut().zip(outcomes).for_each(|(first, second)| merge(first, second)),
        }
    }
    surveyed
}

async fn target(shard: &Rc<Shard>, backend: &Rc<BackendState>, session: &Rc<Session>, place: usize) -> Surveyed {
    let name = backend.config.targets[place].name.clone();
    Surveyed { target: name, outcome: items(shard, backend, session, place).await.map_err(|fault| fault.to_string()) }
}

async fn items(
    shard: &Rc<Shard>,
    backend: &Rc<BackendState>,
    session: &Rc<Session>,
    place: usize,
) -> Result<Vec<SurveyedItem>, Fault> {
    let leg = session.leg_ids()[place];
    let opened = leg::open(shard, session, leg, false).await?;
    let instructions = opened.result.as_ref().and_then(|result| result.get_str("instructions"));
    let mut items: Vec<SurveyedItem> = Vec::new();
    items.extend(instructions.map(|text| SurveyedItem {
        kind: Kind::Instructions,
        text: text.to_owned(),
        variant: false,
    }));
    let deadline = runtime::now() + backend.config.deadline;
    for kind in [ListKind::Tools, ListKind::Prompts, ListKind::ResourceTemplates] {
        let Some(of_kind) = Kind::of_list(kind) else { continue };
        let listing = match cache::fetch_list(shard, session, &backend.config.targets[place], kind, deadline).await {
            Ok(listing) => listing,
            // Many servers have resources and no templates.
            Err(_) if kind == ListKind::ResourceTemplates => None,
            Err(fault) => return Err(fault),
        };
        for (_, text) in listing.iter().flat_map(|listing| listing.texts()) {
            items.push(SurveyedItem {
                kind: of_kind,
                text: String::from_utf8_lossy(text).into_owned(),
                variant: false,
            });
        }
    }
    Ok(items)
}

/// Adds what another era shows otherwise.
fn merge(first: &mut Surveyed, second: Surveyed) {
    match (&mut first.outcome, second.outcome) {
        (Ok(first), Ok(second)) => {
            let known: HashSet<(Kind, String)> = first.iter().map(|item| (item.kind, item.text.clone())).collect();
            let others = second.into_iter().filter(|item| !known.contains(&(item.kind, item.text.clone())));
            first.extend(others.map(|item| SurveyedItem { variant: true, ..item }));
        }
        (outcome @ Err(_), second @ Ok(_)) => *outcome = second,
        _ => {}
    }
}
