//! An expression over claims: a line of JSON, then the text. Every text is an expression or a fault with a place in it;
//! evaluation ends with a value or an error, twice with the same.
#![no_main]

use agentlane_expression::{Expression, Inputs, Map, Scope, Value, Variable};
use libfuzzer_sys::fuzz_target;
use serde_json::Value as Json;

struct Claims(Json);

impl Inputs for Claims {
    fn value(&self, variable: Variable) -> Option<Value<'_>> {
        match variable {
            Variable::Jwt if self.0.is_object() => Some(Value::json(&self.0)),
            Variable::Jwt | Variable::ApiKey => Some(Value::Map(Map::Empty)),
            Variable::McpToolName => Some(Value::text("delete_issue")),
            Variable::McpToolTarget => Some(Value::text("a")),
            Variable::SourceAddress => Some(Value::text("10.1.2.3")),
            Variable::SourcePort => Some(Value::Int(4711)),
            _ => None,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (claims, text) = text.split_once('\n').unwrap_or(("", text));
    let claims = Claims(serde_json::from_str(claims).unwrap_or_default());
    match Expression::compile(text, Scope::Mcp) {
        Ok(expression) => {
            let value = expression.evaluate(&claims).map(|value| value.to_json());
            assert_eq!(value, expression.evaluate(&claims).map(|value| value.to_json()), "not the same twice");
            expression.readings(&claims);
        }
        Err(fault) => {
            assert!(!fault.message.is_empty(), "refused without a reason");
            assert!(fault.offset <= text.chars().count(), "a place beyond the text: {fault:?}");
        }
    }
});
