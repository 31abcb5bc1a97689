//! Rules as they are asked: those of a listener and a route, and of a route and its MCP backend.

use std::sync::Arc;

use agentlane_config as config;

use crate::policy::Policy;
use crate::policy::authorization::Authorization;
use crate::policy::rules::access::McpRules;
use crate::policy::rules::{Effect, RuleSet};

fn set(name: &str, rules: &[config::Rule]) -> RuleSet {
    let rules = rules.iter().map(|rule| {
        let effect = match rule.effect {
            config::Effect::Allow => Effect::Allow,
            config::Effect::Deny => Effect::Deny,
            config::Effect::Require => Effect::Require,
        };
        (effect, rule.expression.clone(), rule.place)
    });
    RuleSet::new(name, rules)
}

/// Who may send a request; `None`: everybody.
pub(super) fn authorization(listener: &config::ListenerPolicies, route: &config::RoutePolicies) -> Option<Policy> {
    let policies = [&listener.authorization, &route.authorization];
    let sets = policies.into_iter().flatten().filter(|policy| !policy.rules.is_empty());
    let sets: Vec<Arc<RuleSet>> = sets.map(|policy| Arc::new(set("authorization", &policy.rules))).collect();
    (!sets.is_empty()).then_some(Policy::Authorization(Authorization(sets)))
}

/// Who may use what; `None`: everybody everything.
pub(super) fn mcp(route: &config::RoutePolicies, backend: &config::BackendPolicies) -> Option<Arc<McpRules>> {
    let policies = [&route.mcp_authorization, &backend.mcp_authorization];
    let sets = policies.into_iter().flatten().map(|policy| set("mcpAuthorization", &policy.rules));
    McpRules::new(sets.collect()).map(Arc::new)
}
