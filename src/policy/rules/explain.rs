//! Why something is allowed or refused: the same rules asked the same way, one after the other, with what each of them read.
//! Pure, for the command line and the admin API.

use std::fmt;

use agentlane_expression::{Inputs, Variables};
use serde_json::{Value as Json, json};

use super::{Denied, Effect, Outcome, Rule, RuleSet};

/// What was decided, and by what.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    pub allowed: bool,
    /// The name of the rule that decided, or of the policy none of whose rules allows it; `None`: nothing refuses it.
    pub by: Option<String>,
    /// Every rule, in the order written.
    pub rules: Vec<Said>,
}

/// What one rule said.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub name: String,
    /// Line and column.
    pub place: (u32, u32),
    pub effect: Effect,
    pub expression: String,
    pub outcome: Outcome,
    /// What it reads, with the values; an error where there is none.
    pub readings: Vec<(String, Result<Json, String>)>,
}

/// Asks all sets, of which each must let pass. `foreign` as of [`RuleSet::decide`].
pub fn explain(sets: &[&RuleSet], inputs: &dyn Inputs, foreign: Variables) -> Explanation {
    let refused = sets.iter().find_map(|set| set.decide(inputs, foreign).err());
    let rules: Vec<Said> =
        sets.iter().flat_map(|set| set.rules()).map(|rule| Said::of(rule, inputs, foreign)).collect();
    let allowing = || rules.iter().find(|said| said.effect == Effect::Allow && said.outcome == Outcome::Holds);
    let by = match &refused {
        Some(Denied(name)) => Some(name.to_string()),
        None => allowing().map(|said| said.name.clone()),
    };
    Explanation { allowed: refused.is_none(), by, rules }
}

impl Said {
    fn of(rule: &Rule, inputs: &dyn Inputs, foreign: Variables) -> Said {
        let readings = rule.expression.readings(inputs).into_iter().map(|(path, value)| {
            (path.to_owned(), value.map(|value| value.to_json()).map_err(|error| error.to_string()))
        });
        Said {
            name: rule.name.to_string(),
            place: rule.place,
            effect: rule.effect,
            expression: rule.expression.text().to_owned(),
            outcome: rule.ask(inputs, foreign),
            readings: readings.collect(),
        }
    }

    fn to_json(&self) -> Json {
        let readings: serde_json::Map<String, Json> = self
            .readings
            .iter()
            .map(|(path, value)| {
                let value = match value {
                    Ok(value) => json!({ "value": value }),
                    Err(error) => json!({ "error": error }),
                };
                (path.clone(), value)
            })
            .collect();
        json!({
            "name": self.name,
            "line": self.place.0,
            "column": self.place.1,
            "effect": self.effect.as_str(),
            "expression": self.expression,
            "outcome": self.outcome.to_string(),
            "reads": readings,
        })
    }
}

impl Explanation {
    /// What both say together: the first that refuses decides, and else the later one.
    pub fn and_then(self, next: Explanation) -> Explanation {
        let Explanation { allowed, by, mut rules } = self;
        rules.extend(next.rules);
        match allowed {
            true => Explanation { allowed: next.allowed, by: next.by.or(by), rules },
            false => Explanation { allowed, by, rules },
        }
    }

    pub fn to_json(&self) -> Json {
        let rules: Vec<Json> = self.rules.iter().map(Said::to_json).collect();
        json!({"allowed": self.allowed, "by": self.by, "rules": rules})
    }
}

impl Effect {
    pub const fn as_str(self) -> &'static str {
        match self {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
            Effect::Require => "require",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Holds => f.write_str("holds"),
            Outcome::HoldsNot => f.write_str("does not hold"),
            Outcome::IsNotAbout => f.write_str("is about something else"),
            Outcome::Fails(error) => write!(f, "cannot be evaluated: {error}"),
        }
    }
}

/// For people: the decision, the rule that made it, and what the others said.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.allowed { "allowed" } else { "refused" };
        match &self.by {
            Some(by) => writeln!(f, "{verdict} by {by}")?,
            None => writeln!(f, "{verdict}: nothing refuses it")?,
        }
        for said in &self.rules {
            let mark = if self.by.as_deref() == Some(&said.name) { '>' } else { ' ' };
            writeln!(f, "{mark} {} {}: {}", said.name, said.effect.as_str(), said.outcome)?;
            writeln!(f, "    {}", said.expression.trim())?;
            for (path, value) in &said.readings {
                match value {
                    Ok(value) => writeln!(f, "    {path} = {value}")?,
                    Err(error) => writeln!(f, "    {path}: {error}")?,
                }
            }
        }
        Ok(())
    }
}
