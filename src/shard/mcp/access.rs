//! Asks the rules about what a message names, in the target's own names. What may not be used answers like what is not
//! there; only the audit log knows better.

use agentlane_wire::json::{self, Envelope, Range32};

use super::Incoming;
use super::routing::Route;
use crate::backend::mcp::Target;
use crate::fault::{Fault, Kind};
use crate::policy::rules::Denied;
use crate::policy::rules::access::{Access, Asking, Item, ItemKind};
use crate::principal::Principal;
use crate::protocol::mcp::federate;
use crate::protocol::mcp::method::{ListKind, Method};
use crate::session::Session;

/// Whoever asks for a list, and what it may use.
#[derive(Clone, Copy)]
pub struct Viewing<'a> {
    pub access: &'a Access,
    pub principal: &'a Principal,
    pub session: Option<&'a str>,
}

impl<'a> Viewing<'a> {
    pub fn asking(&self) -> Asking<'a> {
        self.access.asked_by(self.principal, self.session)
    }

    /// Takes what is not shown out of a list.
    pub fn filter(&self, kind: ListKind, targets: &[std::sync::Arc<Target>], items: &mut Vec<federate::Item<'_>>) {
        if self.access.is_open() {
            return;
        }
        let kind = match kind {
            ListKind::Tools => ItemKind::Tool,
            ListKind::Prompts => ItemKind::Prompt,
            ListKind::Resources | ListKind::ResourceTemplates => ItemKind::Resource,
        };
        let asking = self.asking();
        items.retain(|item| {
            let name = item.item.name.ok().and_then(|range| json::string(item.page, range).ok());
            let (Some(name), Some(target)) = (name, targets.get(item.index)) else { return false };
            asking.shows(item_of(self.access, target, kind, &name))
        });
    }
}

fn item_of<'a>(access: &Access, target: &'a Target, kind: ItemKind, name: &'a str) -> Item<'a> {
    let risk = if kind == ItemKind::Tool && access.reads_risk() { target.tool_risk(name) } else { None };
    Item { kind, name, target: &target.name, risk }
}

/// Who asks, of a request of a session.
pub fn viewing<'a>(incoming: &'a Incoming<'_>) -> Viewing<'a> {
    let session = incoming.session.as_ref().and_then(|session| session_id(session));
    Viewing { access: incoming.access, principal: incoming.principal, session }
}

fn session_id(session: &Session) -> Option<&str> {
    std::str::from_utf8(&session.id).ok().filter(|id| !id.is_empty())
}

/// Whether a request may be made that goes to the target of `route`.
pub fn check(
    incoming: &Incoming<'_>,
    method: Method,
    route: &Route,
    body: &[u8],
    envelope: &Envelope,
) -> Result<(), Fault> {
    if incoming.access.is_open() {
        return Ok(());
    }
    let config = &incoming.backend.config;
    let target = config.targets.get(route.index).ok_or_else(|| Fault::new(Kind::Internal, "no such target"))?;
    let prefix = if config.prefixed { target.prefix.as_str() } else { "" };
    let names = Names { target, prefix, route: Some(route), body };
    names.check(incoming, method, envelope)
}

/// The same of a request as the target gets it.
pub fn check_sent(
    incoming: &Incoming<'_>,
    method: Method,
    target: &Target,
    body: &[u8],
    envelope: &Envelope,
) -> Result<(), Fault> {
    if incoming.access.is_open() {
        return Ok(());
    }
    Names { target, prefix: "", route: None, body }.check(incoming, method, envelope)
}

/// The names in a message.
struct Names<'a> {
    target: &'a Target,
    prefix: &'a str,
    route: Option<&'a Route>,
    body: &'a [u8],
}

impl Names<'_> {
    fn check(&self, incoming: &Incoming<'_>, method: Method, envelope: &Envelope) -> Result<(), Fault> {
        match method {
            Method::ToolsCall => self.ask(incoming, method, ItemKind::Tool, envelope.name),
            Method::PromptsGet => self.ask(incoming, method, ItemKind::Prompt, envelope.name),
            Method::ResourcesRead | Method::ResourcesSubscribe => {
                self.ask(incoming, method, ItemKind::Resource, envelope.uri)
            }
            Method::Complete => self.reference(incoming, envelope),
            // Among others the end of a subscription, which is nobody's to refuse.
            _ => Ok(()),
        }
    }

    /// All that a reference says must be allowed: targets may differ about which part of it counts.
    fn reference(&self, incoming: &Incoming<'_>, envelope: &Envelope) -> Result<(), Fault> {
        let wrong = || Fault::new(Kind::InvalidParams, "params.ref is not a reference");
        let reference = envelope.reference.ok_or_else(wrong)?;
        let mut named = false;
        for member in json::members(self.body, reference) {
            let member = member.map_err(|_| wrong())?;
            let key = json::string(self.body, member.key).map_err(|_| wrong())?;
            let kind = match &*key {
                "name" => ItemKind::Prompt,
                "uri" => ItemKind::Resource,
                _ => continue,
            };
            named = true;
            self.ask(incoming, Method::Complete, kind, Some(member.value))?;
        }
        if named { Ok(()) } else { Err(wrong()) }
    }

    fn ask(
        &self,
        incoming: &Incoming<'_>,
        method: Method,
        kind: ItemKind,
        range: Option<Range32>,
    ) -> Result<(), Fault> {
        let (missing, unknown) = match kind {
            ItemKind::Tool => ("params.name is missing", Fault::new(Kind::InvalidParams, "unknown tool")),
            ItemKind::Prompt => ("params.name is missing", Fault::new(Kind::InvalidParams, "unknown prompt")),
            ItemKind::Resource => ("params.uri is missing", Fault::new(Kind::ResourceUnknown, "unknown resource")),
        };
        let text = range.and_then(|range| json::string(self.body, range).ok());
        let text = text.ok_or_else(|| Fault::new(Kind::InvalidParams, missing))?;
        let name = self.own(kind, &text);
        let viewing = viewing(incoming);
        let asking = viewing.asking();
        let item = item_of(incoming.access, self.target, kind, name);
        asking.decide(method.label(), item).map_err(|Denied(rule)| unknown.by(rule))
    }

    fn own<'n>(&'n self, kind: ItemKind, text: &'n str) -> &'n str {
        match (kind, self.route) {
            (ItemKind::Resource, Some(Route { outward_uri: Some((own, outward)), .. })) if outward == text => own,
            (ItemKind::Resource, _) => text,
            (_, Some(Route { own_name: Some(own), .. })) => own,
            _ => text.strip_prefix(self.prefix).unwrap_or(text),
        }
    }
}
