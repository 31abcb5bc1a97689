//! Rule sets against their meaning, written out, and what listing shows against what calling allows.

use std::sync::Arc;

use agentlane_expression::{Expression, Inputs, Map, Scope, Value, Variable, Variables};
use serde_json::{Value as Json, json};

use super::access::{Access, Item, ItemKind, McpRules};
use super::explain::explain;
use super::facts::{Facts, Message};
use super::{Effect, Outcome, RuleSet};
use crate::principal::Principal;
use crate::protocol::mcp::caller::Caller;

fn set(rules: &[(Effect, &str)]) -> RuleSet {
    let rules = rules.iter().enumerate().map(|(line, (effect, text))| {
        let expression = Expression::compile(text, Scope::Mcp).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        (*effect, Arc::new(expression), (line as u32 + 1, 3))
    });
    RuleSet::new("mcpAuthorization", rules)
}

fn principal(claims: Option<Json>) -> Principal {
    let mut principal = Principal::default();
    if let Some(claims) = claims {
        principal.set_jwt(Arc::new(claims), Caller::NOBODY);
    }
    principal
}

fn allows(rules: &[(Effect, &str)], claims: Option<Json>, kind: ItemKind, name: &str) -> bool {
    let principal = principal(claims);
    let mut facts = Facts::new(None, &principal);
    facts.message =
        Message { method: Some("tools/call"), session: None, item: Some(Item { kind, name, target: "a", risk: None }) };
    set(rules).decide(&facts, kind.foreign()).is_ok()
}

#[test]
fn effects_decide_in_their_order() {
    use Effect::{Allow, Deny, Require};
    use ItemKind::{Prompt, Tool};
    let admin = || Some(json!({"role": "admin"}));
    let guest = || Some(json!({"role": "guest"}));
    type Case<'a> = (&'a [(Effect, &'a str)], Option<Json>, ItemKind, bool);
    let cases: Vec<Case<'_>> = vec![
        (&[], None, Tool, true),
        (&[(Allow, "mcp.tool.name == 'x'")], None, Tool, true),
        (&[(Allow, "mcp.tool.name == 'y'")], None, Tool, false),
        (&[(Allow, "mcp.tool.name == 'x'")], None, Prompt, false),
        // One that cannot be evaluated allows nothing, and does not stand in the way of another one.
        (&[(Allow, "jwt.role == 'admin'"), (Allow, "mcp.tool.name == 'x'")], None, Tool, true),
        (&[(Allow, "jwt.role == 'admin'")], None, Tool, false),
        (&[(Allow, "jwt.role == 'admin'")], admin(), Tool, true),
        (&[(Allow, "true"), (Deny, "jwt.role == 'guest'")], guest(), Tool, false),
        (&[(Allow, "true"), (Deny, "jwt.role == 'guest'")], admin(), Tool, true),
        // One that denies and cannot be evaluated denies.
        (&[(Allow, "true"), (Deny, "jwt.role == 'guest'")], None, Tool, false),
        (&[(Deny, "mcp.tool.name == 'x'")], None, Tool, false),
        // A rule about tools says nothing of prompts; but a requirement that is not met is not met.
        (&[(Deny, "mcp.tool.name == 'x'")], None, Prompt, true),
        (&[(Deny, "!(mcp.tool.name == 'y')")], None, Prompt, true),
        (&[(Deny, "mcp.tool.name == 'x' && jwt.role == 'guest'")], None, Prompt, true),
        (&[(Deny, "mcp.tool.name == 'x' || jwt.role == 'guest'")], None, Prompt, false),
        (&[(Require, "mcp.tool.name == 'x'")], None, Prompt, false),
        (&[(Require, "mcp.tool.name == 'x'")], None, Tool, true),
        (&[(Require, "jwt.role == 'admin'"), (Allow, "true")], guest(), Tool, false),
        (&[(Require, "jwt.role == 'admin'"), (Allow, "true")], None, Tool, false),
        (&[(Require, "jwt.role == 'admin'"), (Require, "jwt.level > 1")], admin(), Tool, false),
        // What is neither true nor false holds for nobody.
        (&[(Allow, "jwt.role")], admin(), Tool, false),
        (&[(Deny, "jwt.role")], admin(), Tool, false),
    ];
    for (rules, claims, kind, expected) in cases {
        assert_eq!(allows(rules, claims.clone(), kind, "x"), expected, "{rules:?} {claims:?} {kind:?}");
    }
}

#[test]
fn the_rule_that_decided_is_named_with_what_it_read() {
    let rules =
        set(&[(Effect::Allow, "true"), (Effect::Deny, "mcp.tool.name.startsWith('del') && jwt.role != 'admin'")]);
    let principal = principal(Some(json!({"role": "dev"})));
    let mut facts = Facts::new(None, &principal);
    facts.message.item = Some(Item { kind: ItemKind::Tool, name: "delete", target: "a", risk: None });
    let said = explain(&[&rules], &facts, ItemKind::Tool.foreign());
    assert!(!said.allowed);
    assert_eq!(said.by.as_deref(), Some("mcpAuthorization.rules[1] at 2:3"));
    assert_eq!(said.rules[1].outcome, Outcome::Holds);
    let expected = [("mcp.tool.name".to_owned(), Ok(json!("delete"))), ("jwt.role".to_owned(), Ok(json!("dev")))];
    assert_eq!(said.rules[1].readings, expected);
    facts.message.item = Some(Item { kind: ItemKind::Tool, name: "list", target: "a", risk: None });
    let said = explain(&[&rules], &facts, ItemKind::Tool.foreign());
    assert_eq!((said.allowed, said.by.as_deref()), (true, Some("mcpAuthorization.rules[0] at 1:3")));
}

#[test]
fn what_reads_the_caller_is_told_apart() {
    let rules = |text| McpRules::new(vec![set(&[(Effect::Allow, text)])]).unwrap();
    assert!(!rules("mcp.tool.name == 'x' && mcp.methodName == 'tools/call'").tell_callers_apart());
    for text in ["jwt.sub == 'x'", "source.address == 'x'", "has(request.headers.x)", "mcp.sessionId == ''"] {
        assert!(rules(text).tell_callers_apart(), "{text}");
    }
    assert!(McpRules::new(vec![set(&[])]).is_none(), "an empty list of rules is none");
}

/// A small deterministic source of choices (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }
}

const CONDITIONS: [&str; 16] = [
    "true",
    "jwt.sub == 'alice'",
    "jwt.role in ['admin', 'dev']",
    "'on-call' in jwt.groups",
    "jwt.level >= 3",
    "has(jwt.role)",
    "!has(jwt.sub)",
    "mcp.tool.name == 'read'",
    "mcp.tool.name.startsWith('del')",
    "mcp.tool.target == 'a'",
    "mcp.prompt.name.matches('^s')",
    "mcp.resource.name.endsWith('.txt')",
    "has(mcp.tool)",
    "mcp.tool.name in jwt.tools",
    "jwt.groups.exists(group, group == mcp.tool.target)",
    "mcp.methodName == 'tools/call'",
];

fn expression(dice: &mut Dice, depth: usize) -> String {
    if depth == 0 {
        return CONDITIONS[dice.roll(CONDITIONS.len())].to_owned();
    }
    match dice.roll(5) {
        0 => format!("({}) && ({})", expression(dice, depth - 1), expression(dice, depth - 1)),
        1 => format!("({}) || ({})", expression(dice, depth - 1), expression(dice, depth - 1)),
        2 => format!("!({})", expression(dice, depth - 1)),
        _ => expression(dice, 0),
    }
}

fn claims(dice: &mut Dice) -> Option<Json> {
    if dice.roll(4) == 0 {
        return None;
    }
    let mut claims = json!({});
    let values = [
        ("sub", json!("alice")),
        ("sub", json!("bob")),
        ("role", json!("admin")),
        ("role", json!("guest")),
        ("role", json!(7)),
        ("groups", json!(["on-call", "a"])),
        ("groups", json!("on-call")),
        ("level", json!(5)),
        ("tools", json!(["read", "write"])),
    ];
    for (name, value) in values {
        if dice.roll(3) == 0 {
            claims[name] = value;
        }
    }
    Some(claims)
}

/// The values by the names, from one document: another way to the same facts.
struct Document(Json);

impl Inputs for Document {
    fn value(&self, variable: Variable) -> Option<Value<'_>> {
        let found = variable.path().split('.').try_fold(&self.0, |json, name| json.get(name));
        match (variable, found) {
            (Variable::Jwt | Variable::ApiKey, None) => Some(Value::Map(Map::Empty)),
            (_, found) => found.map(Value::json),
        }
    }
}

/// The meaning of rules, written out once more.
fn brute_force(rules: &[(Effect, String)], document: &Json, foreign: Variables) -> bool {
    let inputs = Document(document.clone());
    let ask = |text: &str| Expression::compile(text, Scope::Mcp).unwrap().holds(&inputs);
    let of = |effect| rules.iter().filter(move |rule| rule.0 == effect).map(|rule| ask(&rule.1));
    let is_not_about = |outcome: &Result<bool, agentlane_expression::Error>| matches!(outcome, Err(agentlane_expression::Error::Missing(missing)) if missing.is_within(foreign));
    let denied = of(Effect::Deny).any(|outcome| outcome != Ok(false) && !is_not_about(&outcome));
    let required = of(Effect::Require).all(|outcome| outcome == Ok(true));
    let allowed = of(Effect::Allow).count() == 0 || of(Effect::Allow).any(|outcome| outcome == Ok(true));
    !denied && required && allowed
}

#[test]
fn what_is_listed_is_what_may_be_used() {
    let mut dice = Dice(0x5eed);
    let items = [
        (ItemKind::Tool, "read"),
        (ItemKind::Tool, "delete"),
        (ItemKind::Prompt, "summary"),
        (ItemKind::Prompt, "read"),
        (ItemKind::Resource, "file:///a.txt"),
    ];
    let (mut shown, mut hidden) = (0, 0);
    for _ in 0..1_500 {
        let rules: Vec<(Effect, String)> = (0..1 + dice.roll(4))
            .map(|_| {
                let effect = [Effect::Allow, Effect::Allow, Effect::Deny, Effect::Require][dice.roll(4)];
                let depth = dice.roll(3);
                (effect, expression(&mut dice, depth))
            })
            .collect();
        let borrowed: Vec<(Effect, &str)> = rules.iter().map(|(effect, text)| (*effect, text.as_str())).collect();
        let access = Access::of(Arc::new(McpRules::new(vec![set(&borrowed)]).unwrap()));
        let claims = claims(&mut dice);
        let principal = principal(claims.clone());
        for (kind, name) in items {
            let target = ["a", "b"][dice.roll(2)];
            let item = Item { kind, name, target, risk: None };
            let asking = access.asked_by(&principal, None);
            let listed = asking.shows(item);
            let callable = asking.decide(kind.usual_method(), item).is_ok();
            let member = match kind {
                ItemKind::Tool => "tool",
                ItemKind::Prompt => "prompt",
                ItemKind::Resource => "resource",
            };
            let mut document = json!({"mcp": {"methodName": kind.usual_method()}});
            document["mcp"][member] = json!({"name": name, "target": target});
            if let Some(claims) = &claims {
                document["jwt"] = claims.clone();
            }
            let expected = brute_force(&rules, &document, kind.foreign());
            assert_eq!((listed, callable), (expected, expected), "{rules:?} {document}");
            shown += usize::from(listed);
            hidden += usize::from(!listed);
        }
    }
    assert!(shown > 1_000 && hidden > 1_000, "{shown} shown, {hidden} hidden");
}
