//! How long the lists of MCP targets are kept. Must not know what keeps them.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::context::Context;
use crate::form::{Form, record, words};
use crate::schema::Definitions;
use crate::tree::Node;

/// How long a target's last list stands in for one that does not come, where nothing is written.
const STALE_FOR: Duration = Duration::from_secs(300);

record! {
    /// How long the lists of targets (tools, prompts, resources, templates) are kept. What a target has of its own comes
    /// before what its backend says, key by key.
    #[derive(Default)]
    pub struct Cache {
        /// How long a list is used again, for targets that do not say so themselves (every revision before 2026-07-28), or
        /// `off`. Default: off.
        pub ttl: Option<Span> = opt "ttl";
        /// Who shares such a list: callers with the same credentials, or all. Either way among clients of equal capabilities
        /// only. Default: private.
        pub scope: Option<CacheScope> = opt "scope";
        /// How old a list may be that stands in for that of a target which is down or does not answer in time, or `off`.
        /// Default: 5m.
        pub stale_for: Option<Span> = opt "staleFor";
    }
}

words! {
    /// Who shares a list.
    pub enum CacheScope {
        /// Callers with the same credentials.
        Private = "private",
        /// Every caller.
        Public = "public",
    }
}

/// A time, or none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Not at all.
    Off,
    /// For so long.
    For(Duration),
}

impl Cache {
    /// What is written here, and for the rest what is written there.
    pub(crate) fn over(&self, wider: &Cache) -> Cache {
        Cache {
            ttl: self.ttl.or(wider.ttl),
            scope: self.scope.or(wider.scope),
            stale_for: self.stale_for.or(wider.stale_for),
        }
    }

    /// How long a list is fresh whose target does not say; zero for not at all.
    pub fn fresh_for(&self) -> Duration {
        self.ttl.map_or(Duration::ZERO, Span::length)
    }

    /// How long after its arrival a list may stand in for another; zero for not at all.
    pub fn stands_in_for(&self) -> Duration {
        self.stale_for.map_or(STALE_FOR, Span::length)
    }

    /// Whether such a list is every caller's.
    pub fn is_public(&self) -> bool {
        self.scope == Some(CacheScope::Public)
    }
}

impl Span {
    fn length(self) -> Duration {
        match self {
            Span::Off => Duration::ZERO,
            Span::For(length) => length,
        }
    }
}

impl Form for Span {
    type Out = Self;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let expected = "a duration above zero, like 500ms, 5m or 1h30m, or off";
        let text = cx.string(node, expected)?;
        if text == "off" {
            return Some(Span::Off);
        }
        let length = crate::duration::parse(&text);
        if length.is_none() {
            cx.invalid(node, expected);
        }
        length.map(Span::For)
    }

    fn schema(defs: &mut Definitions) -> Json {
        json!({"anyOf": [Duration::schema(defs), {"const": "off"}]})
    }
}
