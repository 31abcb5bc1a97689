//! The JSON schema (2020-12) of the document, gathered from the declarations of its forms. Knows no key.

use serde_json::{Map, Value as Json, json};

use crate::context::NOT_BUILT;
use crate::form::{Form, Properties, Record};

/// The named parts of the schema under construction.
#[derive(Default)]
pub(crate) struct Definitions {
    definitions: Map<String, Json>,
}

/// The whole schema of a form.
pub(crate) fn of<F: Form>(title: &str) -> Json {
    let mut defs = Definitions::default();
    let root = F::schema(&mut defs);
    let mut definitions: Vec<(String, Json)> = defs.definitions.into_iter().collect();
    definitions.sort_by(|a, b| a.0.cmp(&b.0));
    let mut out = Map::new();
    out.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    out.insert("title".to_owned(), json!(title));
    if let Json::Object(root) = root {
        out.extend(root);
    }
    out.insert("$defs".to_owned(), Json::Object(definitions.into_iter().collect()));
    Json::Object(out)
}

impl Definitions {
    /// A reference to the definition of this name, made on its first use.
    pub(crate) fn define(&mut self, name: &str, description: &str, make: impl FnOnce(&mut Self) -> Json) -> Json {
        if !self.definitions.contains_key(name) {
            // The name stands before its parts are made, so that a form may hold itself.
            self.definitions.insert(name.to_owned(), Json::Null);
            let schema = described(make(self), description);
            self.definitions.insert(name.to_owned(), schema);
        }
        json!({"$ref": format!("#/$defs/{name}")})
    }

    pub(crate) fn record<R: Record>(&mut self, name: &str, description: &str) -> Json {
        self.define(name, description, |defs| {
            let mut parts = Properties::default();
            R::properties(defs, &mut parts);
            let mut schema = json!({
                "type": "object",
                "properties": parts.properties,
                "additionalProperties": false,
            });
            if !parts.required.is_empty() {
                schema["required"] = json!(parts.required);
            }
            if !parts.alternatives.is_empty() {
                let alternatives = parts.alternatives.iter().map(|key| json!({"required": [key]}));
                schema["oneOf"] = alternatives.collect();
            }
            schema
        })
    }
}

/// The same schema with a description.
pub(crate) fn described(mut schema: Json, description: &str) -> Json {
    if !description.is_empty() {
        schema["description"] = json!(description);
    }
    schema
}

/// The same schema, or null.
pub(crate) fn nullable(mut schema: Json) -> Json {
    let nothing = json!({"type": "null"});
    if let Some(choices) = schema.get_mut("anyOf").and_then(Json::as_array_mut) {
        if !choices.contains(&nothing) {
            choices.push(nothing);
        }
        return schema;
    }
    json!({"anyOf": [schema, nothing]})
}

/// A value that is not a string may also come out of a variable.
pub(crate) fn or_variable(schema: Json) -> Json {
    json!({"anyOf": [schema, {"type": "string", "pattern": "\\$"}]})
}

/// A mapping with this one key.
pub(crate) fn single(key: &str, inside: Json, description: &str) -> Json {
    let schema = json!({
        "type": "object",
        "properties": {key: inside},
        "required": [key],
        "additionalProperties": false,
    });
    described(schema, description)
}

pub(crate) fn constant(word: &str, description: &str) -> Json {
    described(json!({"const": word}), description)
}

/// A key that stands in the table and is refused.
pub(crate) fn not_built() -> Json {
    let mut sentence = NOT_BUILT.to_owned();
    sentence[..1].make_ascii_uppercase();
    json!({"not": {}, "description": sentence + "."})
}
