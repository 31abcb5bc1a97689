//! Rules: expressions that allow, deny or are required. They are read here, so that what is wrong with one is told with its
//! place. Must not know who is asked about.

use std::sync::Arc;

use agentlane_expression::{Expression, Scope};
use serde_json::{Value as Json, json};

use crate::context::Context;
use crate::fault::{FaultKind, Mark};
use crate::form::{Form, record};
use crate::schema::Definitions;
use crate::tree::{Node, Value};

record! {
    /// Who may send a request. One that is not allowed is answered 403.
    pub struct Authorization {
        /// Rules over the request and who sent it. A request is refused when a `deny` rule holds, or a `require` rule does
        /// not, or there are `allow` rules and none of them holds. A rule that cannot be evaluated never lets a request
        /// pass.
        pub rules: Vec<Rule> = must "rules" as Vec<HttpRule>;
    }
}

record! {
    /// Who may see and use which tools, prompts and resources.
    pub struct McpAuthorization {
        /// Rules as of `authorization`, asked for each tool, prompt, resource and template. What they refuse is neither
        /// listed nor served.
        pub rules: Vec<Rule> = must "rules" as Vec<McpRule>;
    }
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it does where it holds.
    pub effect: Effect,
    /// When it holds.
    pub expression: Arc<Expression>,
    /// Where it stands: line and column, from 1 on.
    pub place: (u32, u32),
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        (self.effect, self.place, self.expression.text()) == (other.effect, other.place, other.expression.text())
    }
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It lets pass.
    Allow,
    /// It refuses.
    Deny,
    /// Without it nothing passes.
    Require,
}

/// A rule over a request.
struct HttpRule;

/// A rule over what an MCP message asks for as well.
struct McpRule;

impl Form for HttpRule {
    type Out = Rule;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Rule> {
        rule(node, cx, Scope::Http)
    }

    fn schema(defs: &mut Definitions) -> Json {
        schema(defs)
    }
}

impl Form for McpRule {
    type Out = Rule;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Rule> {
        rule(node, cx, Scope::Mcp)
    }

    fn schema(defs: &mut Definitions) -> Json {
        schema(defs)
    }
}

const EXPECTED: &str = "an expression, or one of the keys allow, deny and require with one";

fn rule(node: &Node, cx: &mut Context<'_>, scope: Scope) -> Option<Rule> {
    let Value::Mapping(entries) = &node.value else {
        let expression = expression(node, cx, scope)?;
        return Some(Rule { effect: Effect::Allow, expression, place: (node.mark.line, node.mark.column) });
    };
    let [entry] = entries.as_slice() else {
        cx.invalid(node, EXPECTED);
        return None;
    };
    let effect = match entry.key.as_str() {
        "allow" => Effect::Allow,
        "deny" => Effect::Deny,
        "require" => Effect::Require,
        _ => {
            cx.invalid_at(entry.mark, EXPECTED, &format!("the key {:?}", entry.key));
            return None;
        }
    };
    let expression = cx.at_key(&entry.key, |cx| expression(&entry.node, cx, scope))?;
    let mark = entry.node.mark;
    Some(Rule { effect, expression, place: (mark.line, mark.column) })
}

/// Reads an expression. The fault is at the character that it is about where the text stands in one line as it is.
pub(crate) fn expression(node: &Node, cx: &mut Context<'_>, scope: Scope) -> Option<Arc<Expression>> {
    let text = cx.string(node, "an expression, as a string")?;
    match Expression::compile(&text, scope) {
        Ok(expression) => Some(Arc::new(expression)),
        Err(fault) => {
            let as_written = matches!(&node.value, Value::Scalar(scalar) if scalar.plain && scalar.text == *text)
                && !text.contains('\n');
            let offset = u32::try_from(fault.offset).unwrap_or(0);
            let (mark, message) = match as_written {
                true => (Mark { column: node.mark.column.saturating_add(offset), ..node.mark }, fault.message),
                false => (node.mark, format!("{} (at character {})", fault.message, u64::from(offset) + 1)),
            };
            cx.fault_at(mark, FaultKind::Invalid, message);
            None
        }
    }
}

fn schema(_: &mut Definitions) -> Json {
    let expression = json!({"type": "string", "minLength": 1});
    let effects = ["allow", "deny", "require"].map(|effect| {
        json!({
            "type": "object",
            "properties": {effect: expression},
            "required": [effect],
            "additionalProperties": false,
        })
    });
    let mut forms = vec![expression];
    forms.extend(effects);
    json!({"anyOf": forms})
}
