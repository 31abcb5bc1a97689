//! A dialog is a conversation of the fixture with its client, as fixture.json describes it: rounds of requests, then a
//! text. Knows no way to send them. The twin of servers/dialog.mjs.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
pub struct Dialog {
    rounds: Vec<BTreeMap<String, Value>>,
    #[serde(default)]
    pub state: bool,
    #[serde(default)]
    declared_only: bool,
    pub progress: Option<f64>,
    text: String,
}

/// How far a dialog has come.
#[derive(Clone, Default)]
pub struct Place {
    round: usize,
    answers: BTreeMap<String, Value>,
}

/// What comes next in it.
pub enum Step {
    Ask(BTreeMap<String, Value>, Place),
    Over(String),
}

impl Dialog {
    /// `responses` are answers by the requests' keys; unknown keys are ignored, and what has not the shape that its
    /// request wants is asked for again.
    pub fn advance(&self, arguments: &Value, place: Place, responses: &Value, declared: &Value) -> Step {
        let Place { mut round, mut answers } = place;
        let asked = |round: usize| {
            let wanted = self.rounds[round].iter();
            wanted.filter(|(_, request)| !self.declared_only || is_allowed(request, declared)).collect::<Vec<_>>()
        };
        let open = asked(round);
        if open.iter().all(|(key, request)| answers_it(request, &responses[key.as_str()])) {
            answers.extend(open.iter().map(|(key, _)| ((*key).clone(), responses[key.as_str()].clone())));
            round += 1;
        }
        let mut values = json!({ "arguments": arguments });
        if round == self.rounds.len() {
            for (key, answer) in answers {
                values[key] = answer;
            }
            return Step::Over(filled(&self.text, &values));
        }
        let ask = asked(round).into_iter().map(|(key, request)| (key.clone(), filled_deep(request, &values))).collect();
        Step::Ask(ask, Place { round, answers })
    }
}

/// The capability that a request needs, as a ClientCapabilities object.
pub fn needed(request: &Value) -> Value {
    match request["method"].as_str() {
        Some("roots/list") => json!({ "roots": {} }),
        Some("sampling/createMessage") if !request["params"]["tools"].is_null() => {
            json!({ "sampling": { "tools": {} } })
        }
        Some("sampling/createMessage") => json!({ "sampling": {} }),
        _ if request["params"]["mode"] == "url" => json!({ "elicitation": { "url": {} } }),
        _ => json!({ "elicitation": {} }),
    }
}

/// Whether the declared capabilities allow the request. An elicitation without modes means forms.
pub fn is_allowed(request: &Value, declared: &Value) -> bool {
    let needed = needed(request);
    let Some((kind, parts)) = needed.as_object().and_then(|kinds| kinds.iter().next()) else { return true };
    let given = &declared[kind];
    if given.is_null() {
        return false;
    }
    if kind == "elicitation" && parts.get("url").is_none() {
        return !given["form"].is_null() || given["url"].is_null();
    }
    parts.as_object().is_none_or(|parts| parts.keys().all(|part| !given[part].is_null()))
}

fn answers_it(request: &Value, answer: &Value) -> bool {
    match request["method"].as_str() {
        Some("roots/list") => answer["roots"].is_array(),
        Some("sampling/createMessage") => !answer["role"].is_null() && !answer["content"].is_null(),
        _ => answer["action"].is_string(),
    }
}

/// `{a.b}` in a template becomes that value: strings as they are, anything else as JSON, what is missing as nothing.
fn filled(template: &str, values: &Value) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(begin) = rest.find('{') {
        let path = &rest[begin + 1..];
        let end = path.find(|each: char| !(each.is_ascii_lowercase() || each.is_ascii_digit() || "_.".contains(each)));
        let Some(end) = end.filter(|&end| end > 0 && path[end..].starts_with('}')) else {
            out.push_str(&rest[..=begin]);
            rest = path;
            continue;
        };
        out.push_str(&rest[..begin]);
        match path[..end].split('.').fold(values, |from, part| &from[part]) {
            Value::Null => {}
            Value::String(text) => out.push_str(text),
            other => out.push_str(&other.to_string()),
        }
        rest = &path[end + 1..];
    }
    out + rest
}

fn filled_deep(value: &Value, values: &Value) -> Value {
    match value {
        Value::String(text) => filled(text, values).into(),
        Value::Array(parts) => parts.iter().map(|part| filled_deep(part, values)).collect(),
        Value::Object(parts) => parts.iter().map(|(key, part)| (key.clone(), filled_deep(part, values))).collect(),
        other => other.clone(),
    }
}

/// Places that clients carry, each under a name that nobody can guess.
#[derive(Default)]
pub struct Places {
    kept: Mutex<HashMap<String, Place>>,
    serial: AtomicU64,
    hasher: RandomState,
}

impl Places {
    pub fn keep(&self, place: Place) -> String {
        let serial = self.serial.fetch_add(1, Relaxed);
        let name = format!("{serial}.{:016x}", self.hasher.hash_one(serial));
        self.kept.lock().expect("no panic in between").insert(name.clone(), place);
        name
    }

    pub fn find(&self, name: &str) -> Option<Place> {
        self.kept.lock().expect("no panic in between").get(name).cloned()
    }
}
