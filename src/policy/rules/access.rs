//! Who may see and use which tools, prompts and resources: the rules of a route and of its MCP backend, with what they
//! read of the request. It goes with a request to the shard that serves it.

use std::net::SocketAddr;
use std::sync::Arc;

use agentlane_expression::{Variable, Variables};
use agentlane_wire::h1::RequestHead;

use super::facts::{Facts, Message};
use super::{Denied, RuleSet};
use crate::principal::Principal;
use crate::request::{RequestView, TlsClient};

/// What rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    Tool,
    Prompt,
    /// A template as well, by its text.
    Resource,
}

/// Something that a target offers, under the target's own name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub kind: ItemKind,
    pub name: &'a str,
    pub target: &'a str,
    /// What the lock found of a tool, where there is one.
    pub risk: Option<u8>,
}

const RISK: Variables = Variables::of(&[Variable::McpToolRisk]);
const TOOL: Variables = Variables::of(&[Variable::McpToolName, Variable::McpToolTarget]).and(RISK);
const PROMPT: Variables = Variables::of(&[Variable::McpPromptName, Variable::McpPromptTarget]);
const RESOURCE: Variables = Variables::of(&[Variable::McpResourceName, Variable::McpResourceTarget]);
/// What is the same whoever asks, and by what request.
const ITEMS: Variables = TOOL.and(PROMPT).and(RESOURCE).and(Variables::of(&[Variable::McpMethodName]));
/// What is known without the request's head and connection.
const MESSAGE: Variables = ITEMS.and(Variables::of(&[
    Variable::McpSessionId,
    Variable::Jwt,
    Variable::ApiKey,
    Variable::BasicAuthUsername,
    Variable::SourceSubject,
    Variable::SourceSubjectCn,
    Variable::SourceSubjectAltNames,
    Variable::SourceSpiffeId,
    Variable::SourceFingerprint,
]));

impl ItemKind {
    /// What only items of the other kinds have.
    pub const fn foreign(self) -> Variables {
        match self {
            ItemKind::Tool => PROMPT.and(RESOURCE),
            ItemKind::Prompt => TOOL.and(RESOURCE),
            ItemKind::Resource => TOOL.and(PROMPT),
        }
    }

    /// The method by which such a thing is used. Lists show what may be.
    pub const fn usual_method(self) -> &'static str {
        match self {
            ItemKind::Tool => "tools/call",
            ItemKind::Prompt => "prompts/get",
            ItemKind::Resource => "resources/read",
        }
    }
}

/// The rules of a route and of its backend. Each set must let pass.
#[derive(Debug)]
pub struct McpRules {
    sets: Vec<RuleSet>,
    reads: Variables,
}

impl McpRules {
    /// `None`: there is nothing to ask.
    pub fn new(sets: Vec<RuleSet>) -> Option<Self> {
        let sets: Vec<RuleSet> = sets.into_iter().filter(|set| !set.rules().is_empty()).collect();
        let reads = sets.iter().fold(Variables::NONE, |reads, set| reads.and(set.reads()));
        (!sets.is_empty()).then_some(McpRules { sets, reads })
    }

    pub fn sets(&self) -> &[RuleSet] {
        &self.sets
    }

    /// Whether two requests may be answered differently.
    pub fn tell_callers_apart(&self) -> bool {
        !self.reads.is_within(ITEMS)
    }

    fn decide(&self, facts: &Facts<'_>, kind: ItemKind) -> Result<(), Denied> {
        self.sets.iter().try_for_each(|set| set.decide(facts, kind.foreign()))
    }
}

/// The rules for one request, and what they read of it. Nothing by default, and then everything is allowed.
#[derive(Clone, Debug, Default)]
pub struct Access {
    rules: Option<Arc<McpRules>>,
    /// There exactly where a rule reads it.
    request: Option<Arc<Asked>>,
}

/// A request's head and where it came from.
#[derive(Debug)]
struct Asked {
    head: RequestHead,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    tls: Option<Arc<TlsClient>>,
}

impl Access {
    pub fn new(rules: Option<&Arc<McpRules>>, view: &RequestView<'_>) -> Self {
        let Some(rules) = rules else { return Access::default() };
        let asked = || {
            let (head, tls) = (view.head.clone(), view.tls.cloned());
            Arc::new(Asked { head, local: view.local, peer: view.peer, tls })
        };
        let request = (!rules.reads.is_within(MESSAGE)).then(asked);
        Access { rules: Some(rules.clone()), request }
    }

    /// The rules without a request, of which they may then read nothing.
    #[cfg(test)]
    pub(super) fn of(rules: Arc<McpRules>) -> Self {
        Access { rules: Some(rules), request: None }
    }

    /// Whether there is nothing to ask.
    pub fn is_open(&self) -> bool {
        self.rules.is_none()
    }

    /// Whether a rule reads what the lock found.
    pub fn reads_risk(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.reads.contains(Variable::McpToolRisk))
    }

    /// Whether others may be shown something else.
    pub fn tells_callers_apart(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.tell_callers_apart())
    }

    /// For whoever asks: each item by itself.
    pub fn asked_by<'a>(&'a self, principal: &'a Principal, session: Option<&'a str>) -> Asking<'a> {
        let rules = self.rules.as_deref();
        let view = self
            .request
            .as_deref()
            .map(|asked| RequestView::new(&asked.head, asked.local, asked.peer, asked.tls.as_ref()));
        let mut facts = Facts::new(view, principal);
        facts.message = Message { session, ..Message::default() };
        Asking { rules, facts }
    }
}

/// One request that asks, perhaps about many things.
#[derive(Debug)]
pub struct Asking<'a> {
    rules: Option<&'a McpRules>,
    facts: Facts<'a>,
}

impl Asking<'_> {
    /// Whether the item may be used by `method`.
    pub fn decide(&self, method: &str, item: Item<'_>) -> Result<(), Denied> {
        let Some(rules) = self.rules else { return Ok(()) };
        let mut facts: Facts<'_> = self.facts;
        facts.message = Message { method: Some(method), item: Some(item), ..facts.message };
        rules.decide(&facts, item.kind)
    }

    /// Whether a list shows it.
    pub fn shows(&self, item: Item<'_>) -> bool {
        self.decide(item.kind.usual_method(), item).is_ok()
    }
}
