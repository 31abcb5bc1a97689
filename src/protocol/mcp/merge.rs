//! One answer to `initialize` out of several targets' answers. Rebuilt documents, not the hot path: simd-json values.

use simd_json::prelude::*;
use simd_json::{OwnedValue, json};

use super::modern::listen::{List, Lists};
use super::revision::Revision;
use super::tasks;

/// Vendor key under which the gateway says who is behind it and who is missing.
pub const META_TARGETS: &str = "dev.agentlane/targets";
/// Vendor key in list results: targets whose part is missing, with the reason.
pub const META_MISSING: &str = "dev.agentlane/missing";
/// A target's own instructions are cut to this length in a federation.
const INSTRUCTIONS_MAX: usize = 16 * 1024;

/// One target's part.
pub struct Part<'a> {
    pub target: &'a str,
    /// The `result` of its `initialize`; `None` when it did not answer.
    pub result: Result<&'a OwnedValue, String>,
}

/// The merged `initialize` result as JSON text.
///
/// Capabilities are the union (a boolean is true where any target's is), without what only one target could serve:
/// `experimental`, and extensions but those of [`UNITED_EXTENSIONS`]. Tasks are the union of those who speak the client's
/// revision as it is.
pub fn initialize_result(parts: &[Part<'_>], revision: Revision, gateway_version: &str) -> Vec<u8> {
    let mut capabilities = json!({});
    let mut instructions = String::new();
    let mut targets = json!({});
    for part in parts {
        let result = match part.result {
            Ok(result) => result,
            Err(ref reason) => {
                insert(&mut targets, part.target, json!({ "missing": reason.as_str() }));
                continue;
            }
        };
        if let Some(offered) = result.get("capabilities") {
            unite(&mut capabilities, offered);
            if revision == Revision::V2025_11_25 && result.get_str("protocolVersion") == Some(revision.as_str()) {
                tasks::unite(&mut capabilities, offered);
            }
        }
        if let Some(text) = result.get_str("instructions").filter(|text| !text.trim().is_empty()) {
            if !instructions.is_empty() {
                instructions.push_str("\n\n");
            }
            instructions.push_str("# ");
            instructions.push_str(part.target);
            instructions.push('\n');
            instructions.push_str(cut(text, INSTRUCTIONS_MAX));
        }
        insert(&mut targets, part.target, result.get("serverInfo").cloned().unwrap_or_else(|| json!({})));
    }
    let mut merged = json!({
        "protocolVersion": revision.as_str(),
        "capabilities": {},
        "serverInfo": { "name": "agentlane", "version": gateway_version },
    });
    insert(&mut merged, "capabilities", capabilities);
    if revision >= Revision::V2025_06_18 {
        let mut meta = json!({});
        insert(&mut meta, META_TARGETS, targets);
        insert(&mut merged, "_meta", meta);
    }
    if !instructions.is_empty() {
        insert(&mut merged, "instructions", OwnedValue::from(instructions));
    }
    merged.encode().into_bytes()
}

/// A lone target's result under the client's revision: the target negotiated another one, and the gateway stands between.
pub fn with_revision(result: &OwnedValue, revision: Revision) -> Vec<u8> {
    let mut result = result.clone();
    insert(&mut result, "protocolVersion", OwnedValue::from(revision.as_str()));
    if let Some(capabilities) = result.get_mut("capabilities") {
        let _ = capabilities.remove(tasks::CAPABILITY);
    }
    result.encode().into_bytes()
}

/// Whether a target's `initialize` result offers a capability such as `tools`.
pub fn offers(result: &OwnedValue, capability: &str) -> bool {
    result
        .get("capabilities")
        .and_then(|capabilities| capabilities.get(capability))
        .is_some_and(|value| value.is_object())
}

/// Whether it offers a boolean of a capability, such as `resources.subscribe`.
pub fn offers_flag(result: &OwnedValue, capability: &str, flag: &str) -> bool {
    result
        .get("capabilities")
        .and_then(|capabilities| capabilities.get(capability))
        .and_then(|value| value.get_bool(flag))
        .unwrap_or(false)
}

/// The lists whose changes it tells (`listChanged`).
pub fn tells(result: &OwnedValue) -> Lists {
    let capabilities = [("tools", List::Tools), ("prompts", List::Prompts), ("resources", List::Resources)];
    let told = capabilities.into_iter().filter(|(name, _)| offers_flag(result, name, "listChanged"));
    told.fold(Lists::NONE, |all, (_, list)| all.with(Lists::one(list)))
}

fn unite(into: &mut OwnedValue, offered: &OwnedValue) {
    unite_extensions(into, offered);
    const FEDERATED: [&str; 5] = ["tools", "prompts", "resources", "completions", "logging"];
    for name in FEDERATED {
        let Some(offered) = offered.get(name).filter(|value| value.is_object()) else { continue };
        if into.get(name).is_none() {
            insert(into, name, json!({}));
        }
        for flag in ["listChanged", "subscribe"] {
            if offered.get_bool(flag) == Some(true)
                && let Some(capability) = into.get_mut(name)
            {
                insert(capability, flag, OwnedValue::from(true));
            }
        }
    }
}

/// Extensions that are lists, names and resources and nothing else, which are everybody's.
const UNITED_EXTENSIONS: [&str; 1] = ["io.modelcontextprotocol/ui"];

fn unite_extensions(into: &mut OwnedValue, offered: &OwnedValue) {
    for name in UNITED_EXTENSIONS {
        let settings = offered.get("extensions").and_then(|extensions| extensions.get(name));
        let Some(settings) = settings.filter(|value| value.is_object()) else { continue };
        let mut extensions = into.get("extensions").cloned().unwrap_or_else(|| json!({}));
        let mut all = extensions.get(name).cloned().unwrap_or_else(|| json!({}));
        unite_settings(&mut all, settings);
        insert(&mut extensions, name, all);
        insert(into, "extensions", extensions);
    }
}

/// Lists are united; of anything else the first one stays.
fn unite_settings(into: &mut OwnedValue, offered: &OwnedValue) {
    for (key, value) in offered.as_object().into_iter().flat_map(|members| members.iter()) {
        match (into.get_mut(key.as_str()).map(|known| known.as_array_mut()), value.as_array()) {
            (None, _) => insert(into, key, value.clone()),
            (Some(Some(known)), Some(values)) => {
                let new: Vec<OwnedValue> = values.iter().filter(|value| !known.contains(value)).cloned().collect();
                known.extend(new);
            }
            (Some(_), _) => {}
        }
    }
}

fn insert(object: &mut OwnedValue, key: &str, value: OwnedValue) {
    if let Some(members) = object.as_object_mut() {
        members.insert(key.to_owned(), value);
    }
}

fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_union_is_offered_and_the_absent_are_named() {
        let a = json!({"capabilities": {"tools": {"listChanged": false}, "tasks": {"list": {}}}, "serverInfo": {"name": "A"},
            "instructions": "use a"});
        let b = json!({"capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}}});
        let parts = [
            Part { target: "a", result: Ok(&a) },
            Part { target: "b", result: Ok(&b) },
            Part { target: "c", result: Err("timeout".into()) },
        ];
        let mut text = initialize_result(&parts, Revision::V2025_11_25, "0.1.0");
        let merged = simd_json::to_owned_value(&mut text).unwrap();
        assert!(offers_flag(&merged, "tools", "listChanged"));
        assert!(offers_flag(&merged, "resources", "subscribe"));
        assert!(!offers(&merged, "tasks"), "it does not say that it speaks this revision");
        assert!(!offers(&merged, "prompts"));
        assert_eq!(merged.get_str("instructions"), Some("# a\nuse a"));
        assert_eq!(merged["_meta"][META_TARGETS]["c"].get_str("missing"), Some("timeout"));
        assert_eq!(merged["_meta"][META_TARGETS]["a"].get_str("name"), Some("A"));
    }

    #[test]
    fn tasks_are_for_clients_of_their_revision() {
        let tasks = |version: &str| json!({"protocolVersion": version, "capabilities": {"tasks": {"list": {}}}});
        let merged = |version, revision| {
            let result = tasks(version);
            let mut text = initialize_result(&[Part { target: "a", result: Ok(&result) }], revision, "0.1.0");
            offers(&simd_json::to_owned_value(&mut text).unwrap(), "tasks")
        };
        assert!(merged("2025-11-25", Revision::V2025_11_25));
        assert!(!merged("2025-06-18", Revision::V2025_11_25));
        assert!(!merged("2025-11-25", Revision::V2025_06_18));
        let mut text = with_revision(&tasks("2025-11-25"), Revision::V2025_06_18);
        assert!(!offers(&simd_json::to_owned_value(&mut text).unwrap(), "tasks"));
    }

    #[test]
    fn settings_of_apps_are_united() {
        let ui = |types: Vec<&str>| json!({"capabilities": {"extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": types}, "x/y": {}}}});
        let (a, b) = (ui(vec!["text/a"]), ui(vec!["text/a", "text/b"]));
        let parts = [Part { target: "a", result: Ok(&a) }, Part { target: "b", result: Ok(&b) }];
        let mut text = initialize_result(&parts, Revision::V2025_11_25, "0.1.0");
        let merged = simd_json::to_owned_value(&mut text).unwrap();
        let expected = json!({"io.modelcontextprotocol/ui": {"mimeTypes": ["text/a", "text/b"]}});
        assert_eq!(merged["capabilities"]["extensions"], expected);
    }

    #[test]
    fn older_clients_get_no_meta() {
        let mut text = initialize_result(&[], Revision::V2025_03_26, "0.1.0");
        let merged = simd_json::to_owned_value(&mut text).unwrap();
        assert!(merged.get("_meta").is_none());
    }
}
