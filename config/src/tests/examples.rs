//! The examples are valid, the schema is current, and the schema accepts the examples.

use serde_json::{Map, Value as Json};

use super::{env, schema_check};
use crate::tree::{self, Node, Value};
use crate::{LoadOptions, load, schema};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

#[test]
fn every_example_is_valid() {
    let mut seen = 0;
    let schema = schema();
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let path = entry.unwrap().path();
        // What examples name stands beside them.
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let loaded =
            load(&path, &LoadOptions { lenient: false, env: &env }).unwrap_or_else(|faults| panic!("{faults:#?}"));
        assert!(!loaded.document.binds.is_empty(), "{}", path.display());
        assert_eq!(loaded.warnings, [], "{}", path.display());
        assert_eq!(loaded.files.first(), Some(&path));
        let text = std::fs::read_to_string(&path).unwrap();
        let errors = schema_check::errors(&schema, &to_json(&tree::parse(&text).unwrap().0));
        assert_eq!(errors, Vec::<String>::new(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 7, "only {seen} examples were found");
}

/// To make it current: `AGENTLANE_WRITE_SCHEMA=1 cargo test -p agentlane-config`.
#[test]
fn the_committed_schema_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.json");
    let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("AGENTLANE_WRITE_SCHEMA").is_some() {
        std::fs::write(path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == current, "config/schema.json is not what the declarations say; see this test's comment");
}

#[test]
fn the_schema_refuses_what_the_decoder_refuses() {
    let schema = schema();
    let bad = [
        "binds: [{listeners: []}]",
        "binds: [{port: 0, listeners: []}]",
        "binds: [{port: abc, listeners: []}]",
        "mcp: {targets: [{name: a}]}",
        "mcp: {targets: [{name: a, openapi: {host: http://localhost}}]}",
        "mcp: {targets: [{name: a, mcp: {host: http://x}, sse: {host: http://y}}]}",
        "mcp: {targets: [{name: a, mcp: {host: x}, stdio: {cmd: y}}]}",
        "mcp: {targets: [{name: a__b, stdio: {cmd: y}}]}",
        "mcp: {targets: [], prefixMode: sometimes}",
        "nonsense: 1",
        "llm: {}",
        "config: {connectionTerminationDeadline: soon}",
    ];
    for text in bad {
        assert_ne!(
            schema_check::errors(&schema, &to_json(&tree::parse(text).unwrap().0)),
            Vec::<String>::new(),
            "{text}"
        );
        assert!(super::read(text, false).is_err(), "{text}");
    }
}

#[test]
fn every_part_of_the_schema_is_described_and_referred_to() {
    let schema = schema();
    let text = schema.to_string();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        assert!(definition["description"].is_string(), "{name} has no description");
        assert!(text.contains(&format!("\"#/$defs/{name}\"")), "nothing refers to {name}");
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{key} has no description");
        }
    }
}

/// A tree as JSON, scalars as YAML's core schema has them.
fn to_json(node: &Node) -> Json {
    match &node.value {
        Value::Sequence(items) => items.iter().map(to_json).collect(),
        Value::Mapping(entries) => {
            let pairs = entries.iter().map(|entry| (entry.key.clone(), to_json(&entry.node)));
            Json::Object(pairs.collect::<Map<_, _>>())
        }
        Value::Scalar(_) if node.is_null() => Json::Null,
        Value::Scalar(scalar) if scalar.plain => match scalar.text.parse::<i64>() {
            Ok(number) => Json::from(number),
            Err(_) if scalar.text == "true" => Json::Bool(true),
            Err(_) if scalar.text == "false" => Json::Bool(false),
            Err(_) => Json::String(scalar.text.clone()),
        },
        Value::Scalar(scalar) => Json::String(scalar.text.clone()),
    }
}
