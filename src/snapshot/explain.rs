//! Why a request would be allowed or refused, in the words of its route's rules. For the command line and the admin API.

pub mod asked;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use agentlane_expression::Variables;
use agentlane_wire::h1::RequestHead;

use super::{Route, Snapshot};
use crate::backend::Backend;
use crate::backend::mcp::{McpBackend, Target};
use crate::policy::rules::RuleSet;
use crate::policy::rules::access::{Item, ItemKind, McpRules};
use crate::policy::rules::explain::{self, Explanation};
use crate::policy::rules::facts::{Facts, Message};
use crate::principal::Principal;
use crate::protocol::mcp::names;
use crate::request::RequestView;

/// What is asked about.
pub struct Question<'a> {
    pub route: &'a str,
    pub principal: &'a Principal,
    pub head: &'a RequestHead,
    pub peer: IpAddr,
    /// The client's session, where a rule reads it.
    pub session: Option<&'a str>,
    /// `None`: the request alone.
    pub thing: Option<Thing<'a>>,
}

/// Something to see and use.
#[derive(Clone, Copy, Debug)]
pub struct Thing<'a> {
    pub kind: ItemKind,
    /// The target's own name for it; without a target the name outward, which says it.
    pub name: &'a str,
    pub target: Option<&'a str>,
}

/// Asks every rule that a request meets on this route: of the listener, the route and, about a thing, the MCP backend. The
/// fault is for people.
pub fn explain(snapshot: &Snapshot, question: &Question<'_>) -> Result<Explanation, String> {
    let route = snapshot.routes.iter().find(|route| route.name == question.route).ok_or_else(|| {
        let names: Vec<&str> = snapshot.routes.iter().map(|route| route.name.as_str()).collect();
        format!("no route has the name {:?}; there are {}", question.route, names.join(", "))
    })?;
    let peer = SocketAddr::new(question.peer, 0);
    let view = RequestView::new(question.head, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Some(peer), None);
    let mut facts = Facts::new(Some(view), question.principal);
    let of_http: Vec<&RuleSet> =
        route.chain.authorization().map(|policy| policy.0.iter().map(AsRef::as_ref).collect()).unwrap_or_default();
    let about_request = explain::explain(&of_http, &facts, Variables::NONE);
    let Some(thing) = question.thing else { return Ok(about_request) };
    let (backend, rules) = mcp(route).ok_or_else(|| format!("the route {:?} has no MCP backend", route.name))?;
    let item = item(backend, thing)?;
    let method = item.kind.usual_method();
    facts.message = Message { method: Some(method), session: question.session, item: Some(item) };
    let of_mcp: Vec<&RuleSet> = rules.map(|rules| rules.sets().iter().collect()).unwrap_or_default();
    Ok(about_request.and_then(explain::explain(&of_mcp, &facts, item.kind.foreign())))
}

fn mcp(route: &Route) -> Option<(&McpBackend, Option<&McpRules>)> {
    route.backends.iter().find_map(|chosen| match &chosen.backend {
        Backend::Mcp(backend) => Some((&**backend, chosen.rules.as_deref())),
        Backend::Http(_) => None,
    })
}

fn item<'a>(backend: &'a McpBackend, thing: Thing<'a>) -> Result<Item<'a>, String> {
    let named = |name: &str| backend.targets.iter().find(|target| target.name == name);
    let Thing { kind, name, .. } = thing;
    if let Some(wanted) = thing.target {
        let target = named(wanted).ok_or_else(|| format!("no target has the name {wanted:?}"))?;
        return Ok(of(target, kind, name));
    }
    let split = names::split(name.as_bytes()).filter(|_| backend.prefixed && kind != ItemKind::Resource);
    let split =
        split.and_then(|(target, own)| Some((std::str::from_utf8(target).ok()?, std::str::from_utf8(own).ok()?)));
    if let Some((target, name)) = split.and_then(|(target, own)| Some((named(target)?, own))) {
        return Ok(of(target, kind, name));
    }
    match backend.targets.as_slice() {
        [only] => Ok(of(only, kind, name)),
        targets => {
            let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
            Err(format!("which target? {}", names.join(", ")))
        }
    }
}

fn of<'a>(target: &'a Target, kind: ItemKind, name: &'a str) -> Item<'a> {
    let risk = if kind == ItemKind::Tool { target.tool_risk(name) } else { None };
    Item { kind, name, target: &target.name, risk }
}
