//! As much of JSON Schema 2020-12 as the generated schema uses. A keyword that it does not know fails the test.

use serde_json::{Map, Value as Json};

/// What is wrong with `value`, by the path of the value.
pub(super) fn errors(schema: &Json, value: &Json) -> Vec<String> {
    let mut out = Vec::new();
    check(schema, schema, value, "$", &mut out);
    out
}

fn is_valid(root: &Json, schema: &Json, value: &Json) -> bool {
    let mut out = Vec::new();
    check(root, schema, value, "$", &mut out);
    out.is_empty()
}

fn check(root: &Json, schema: &Json, value: &Json, path: &str, out: &mut Vec<String>) {
    let schema: &Map<String, Json> = schema.as_object().expect("a schema is an object");
    for (keyword, rule) in schema {
        let fits = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" => true,
            "$ref" => {
                let pointer = rule.as_str().and_then(|text| text.strip_prefix('#')).expect("a local reference");
                check(root, root.pointer(pointer).expect("a definition"), value, path, out);
                true
            }
            "type" => is_of_type(rule.as_str().expect("one type"), value),
            "const" => rule == value,
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().expect("a number")),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().expect("a number")),
            "minLength" => value.as_str().is_none_or(|text| text.len() as u64 >= rule.as_u64().expect("a number")),
            "pattern" => {
                let pattern = regex::Regex::new(rule.as_str().expect("a text")).expect("a pattern");
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "required" => value.as_object().is_none_or(|object| {
                rule.as_array().expect("a list").iter().all(|key| object.contains_key(key.as_str().expect("a text")))
            }),
            "properties" | "additionalProperties" => {
                check_properties(root, schema, keyword, value, path, out);
                true
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{path}[{index}]"), out);
                }
                true
            }
            "anyOf" => rule.as_array().expect("a list").iter().any(|one| is_valid(root, one, value)),
            "oneOf" => rule.as_array().expect("a list").iter().filter(|one| is_valid(root, one, value)).count() == 1,
            "not" => !is_valid(root, rule, value),
            other => panic!("the check does not know {other}"),
        };
        if !fits {
            out.push(format!("{path}: {keyword}"));
        }
    }
}

fn check_properties(
    root: &Json,
    schema: &Map<String, Json>,
    keyword: &str,
    value: &Json,
    path: &str,
    out: &mut Vec<String>,
) {
    let Some(object) = value.as_object() else { return };
    let known = schema.get("properties").and_then(Json::as_object);
    for (key, member) in object {
        let rule = known.and_then(|known| known.get(key));
        let path = format!("{path}.{key}");
        match (keyword, rule) {
            ("properties", Some(rule)) => check(root, rule, member, &path, out),
            ("additionalProperties", None) => match &schema["additionalProperties"] {
                Json::Bool(allowed) => out.extend((!allowed).then(|| format!("{path}: not known"))),
                rule => check(root, rule, member, &path, out),
            },
            _ => {}
        }
    }
}

fn is_of_type(name: &str, value: &Json) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the check does not know the type {other}"),
    }
}
