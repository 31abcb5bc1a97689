//! What is evaluated here against the library's own evaluator, over random expressions and inputs: the same value, or an
//! error on both sides.

mod generate;

use std::collections::HashMap;
use std::sync::Arc;

use agentlane_expression::{Expression, Inputs, Map, Scope, Value, Variable};
use cel::objects::{Key, Map as CelMap, Value as CelValue};
use cel::{Context, Program};
use generate::{Dice, document, expression};
use serde_json::Value as Json;

/// What is read, as one document.
struct Sample(Json);

impl Inputs for Sample {
    fn value(&self, variable: Variable) -> Option<Value<'_>> {
        let found = variable.path().split('.').try_fold(&self.0, |json, name| json.get(name));
        match (variable, found) {
            (Variable::Jwt | Variable::ApiKey, None) => Some(Value::Map(Map::Empty)),
            (_, found) => found.map(Value::json),
        }
    }
}

fn to_cel(json: &Json) -> CelValue {
    match json {
        Json::Null => CelValue::Null,
        Json::Bool(bool) => CelValue::Bool(*bool),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => CelValue::Int(int),
            (None, Some(uint)) => CelValue::UInt(uint),
            _ => CelValue::Float(number.as_f64().unwrap()),
        },
        Json::String(text) => CelValue::String(Arc::new(text.clone())),
        Json::Array(items) => CelValue::List(Arc::new(items.iter().map(to_cel).collect())),
        Json::Object(members) => {
            let members: HashMap<Key, CelValue> =
                members.iter().map(|(key, value)| (Key::String(Arc::new(key.clone())), to_cel(value))).collect();
            CelValue::Map(CelMap { map: Arc::new(members) })
        }
    }
}

/// A value as text, the members of maps in order.
fn shown(value: &CelValue) -> String {
    match value {
        CelValue::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(",")),
        CelValue::Map(map) => {
            let mut entries: Vec<String> =
                map.map.iter().map(|(key, value)| format!("{}:{}", shown(&key.into()), shown(value))).collect();
            entries.sort();
            format!("{{{}}}", entries.join(","))
        }
        CelValue::Int(int) => format!("{int}i"),
        CelValue::UInt(uint) => format!("{uint}u"),
        CelValue::Float(double) => format!("{double:?}f"),
        CelValue::String(text) => format!("{text:?}"),
        other => format!("{other:?}"),
    }
}

fn own(value: &Value<'_>) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(bool) => CelValue::Bool(*bool),
        Value::Int(int) => CelValue::Int(*int),
        Value::Uint(uint) => CelValue::UInt(*uint),
        Value::Double(double) => CelValue::Float(*double),
        Value::Text(text) => CelValue::String(Arc::new(text.as_str().to_owned())),
        Value::List(list) => CelValue::List(Arc::new(list.iter().map(|item| own(&item)).collect())),
        Value::Map(Map::Made(entries)) => {
            let key = |key: &Value<'_>| match key {
                Value::Int(int) => Key::Int(*int),
                Value::Uint(uint) => Key::Uint(*uint),
                Value::Bool(bool) => Key::Bool(*bool),
                other => Key::String(Arc::new(other.as_str().unwrap().to_owned())),
            };
            let map = entries.iter().map(|(name, value)| (key(name), own(value))).collect();
            CelValue::Map(CelMap { map: Arc::new(map) })
        }
        Value::Map(map) => to_cel(&Value::Map(map.clone()).to_json()),
    }
}

fn library(program: &Program, document: &Json) -> Option<String> {
    let mut context = Context::default();
    for (name, value) in document.as_object().unwrap() {
        context.add_variable_from_value(name.as_str(), to_cel(value));
    }
    program.execute(&context).ok().map(|value| shown(&value))
}

#[test]
fn random_expressions_mean_what_the_library_says() {
    let mut dice = Dice::new(20_260_728);
    let (mut compared, mut values, mut trues) = (0, 0, 0);
    for _ in 0..6_000 {
        let depth = 1 + dice.roll(4);
        let text = expression(&mut dice, depth, &mut Vec::new());
        let program = Program::compile(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let compiled = match Expression::compile(&text, Scope::Mcp) {
            Ok(compiled) => compiled,
            // `mcp.tool.name["x"]` and the like: what could never be is no expression here.
            Err(fault) if fault.message.starts_with("unknown variable") => continue,
            Err(fault) => panic!("{text}: {fault}"),
        };
        for _ in 0..4 {
            let document = document(&mut dice);
            let expected = library(&program, &document);
            let sample = Sample(document);
            let found = compiled.evaluate(&sample).ok().map(|value| shown(&own(&value)));
            assert_eq!(found, expected, "{text}\n{}", sample.0);
            compared += 1;
            values += usize::from(found.is_some());
            trues += usize::from(found.as_deref() == Some("Bool(true)"));
        }
    }
    println!("{compared} compared, {values} values, {trues} true");
    assert!(values > compared / 8 && trues > compared / 50, "{compared} compared, {values} values, {trues} true");
}
