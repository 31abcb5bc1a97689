//! Rules: what is allowed, denied or required, and how several of them decide. They are asked with facts of a request
//! ([`facts`]), and for MCP with what it is about ([`access`]). An evaluator, no policy of its own.

pub mod access;
pub mod explain;
pub mod facts;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use agentlane_expression::{Error, Expression, Inputs, Variables};

/// What a rule does where it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
    Require,
}

#[derive(Debug)]
pub struct Rule {
    pub effect: Effect,
    pub expression: Arc<Expression>,
    /// Line and column in the configuration.
    pub place: (u32, u32),
    /// What the audit log calls it: the policy, its number and its place.
    pub name: Arc<str>,
}

/// The rules of one policy.
#[derive(Debug)]
pub struct RuleSet {
    /// In the order written.
    rules: Vec<Rule>,
    /// In the order of asking: what denies first.
    order: Vec<usize>,
    reads: Variables,
    /// What the audit log calls a refusal because no rule allows.
    none_allows: Option<Arc<str>>,
}

/// What came of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Holds,
    HoldsNot,
    /// It is about something else than what was asked for.
    IsNotAbout,
    Fails(Error),
}

/// A refusal, by the name of what refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied(pub Arc<str>);

impl RuleSet {
    /// `name`: of the policy. The rules are in the order written.
    pub fn new(name: &str, rules: impl IntoIterator<Item = (Effect, Arc<Expression>, (u32, u32))>) -> Self {
        let rules: Vec<Rule> = rules
            .into_iter()
            .enumerate()
            .map(|(number, (effect, expression, place))| {
                let name = format!("{name}.rules[{number}] at {}:{}", place.0, place.1).into();
                Rule { effect, expression, place, name }
            })
            .collect();
        let mut order: Vec<usize> = (0..rules.len()).collect();
        order.sort_by_key(|&number| match rules[number].effect {
            Effect::Deny => 0,
            Effect::Require => 1,
            Effect::Allow => 2,
        });
        let reads = rules.iter().fold(Variables::NONE, |reads, rule| reads.and(rule.expression.reads()));
        let has_allow = rules.iter().any(|rule| rule.effect == Effect::Allow);
        let none_allows = has_allow.then(|| format!("{name}: no rule allows it").into());
        RuleSet { rules, order, reads, none_allows }
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Everything that any of them may read.
    pub fn reads(&self) -> Variables {
        self.reads
    }

    /// Refused is what a `deny` rule is for, what a `require` rule does not hold for, and, where there are `allow` rules,
    /// what none of them holds for. A rule that fails never lets anything pass: one that denies has denied, any other does
    /// not hold. `foreign` is what is only there for other things than the one that is asked about: a rule that denies and
    /// lacks nothing but that is not about it.
    pub fn decide(&self, inputs: &dyn Inputs, foreign: Variables) -> Result<(), Denied> {
        for &number in &self.order {
            let rule = &self.rules[number];
            match (rule.effect, rule.ask(inputs, foreign)) {
                (Effect::Allow, Outcome::Holds) => return Ok(()),
                (Effect::Deny, Outcome::Holds | Outcome::Fails(_)) => return Err(Denied(rule.name.clone())),
                (Effect::Require, Outcome::HoldsNot | Outcome::IsNotAbout | Outcome::Fails(_)) => {
                    return Err(Denied(rule.name.clone()));
                }
                _ => {}
            }
        }
        match &self.none_allows {
            None => Ok(()),
            Some(name) => Err(Denied(name.clone())),
        }
    }
}

impl Rule {
    pub fn ask(&self, inputs: &dyn Inputs, foreign: Variables) -> Outcome {
        match self.expression.holds(inputs) {
            Ok(true) => Outcome::Holds,
            Ok(false) => Outcome::HoldsNot,
            Err(Error::Missing(missing)) if missing.is_within(foreign) => Outcome::IsNotAbout,
            Err(error) => Outcome::Fails(error),
        }
    }
}
