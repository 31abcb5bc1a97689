//! One answer to `server/discover` out of what the targets say of themselves, by `server/discover` or by `initialize`.

use simd_json::prelude::*;
use simd_json::{OwnedValue, json};

use super::answer::Hints;
use super::{META_SERVER_INFO, VERSION};
use crate::protocol::mcp::merge;
use crate::protocol::mcp::revision::Revision;
use crate::protocol::mcp::tasks;

/// The gateway as an Implementation, as JSON text.
pub const GATEWAY: &[u8] =
    concat!("{\"name\":\"agentlane\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}").as_bytes();

/// One target's part.
pub struct Part<'a> {
    pub target: &'a str,
    /// Its `result`, or why there is none.
    pub result: Result<OwnedValue, &'a str>,
}

/// The identity that a target gave, in either era's place.
pub fn server_info(result: &OwnedValue) -> Option<&OwnedValue> {
    let own = result.get("_meta").and_then(|meta| meta.get(META_SERVER_INFO));
    own.or_else(|| result.get("serverInfo")).filter(|info| info.is_object())
}

/// How long a target's own answer holds; a server with sessions says nothing of it.
pub fn hints(result: &OwnedValue) -> Hints {
    let public = result.get_str("cacheScope") == Some("public");
    result.get_u64("ttlMs").map_or(Hints::NONE, |ttl_ms| Hints { ttl_ms, public })
}

/// The DiscoverResult as JSON text. A lone target (`identity`) speaks for itself; of several, what is common is united, as
/// in the answer to `initialize`. Versions are the gateway's own in either case: with a session's it would be asked in vain.
pub fn result(parts: Vec<Part<'_>>, identity: bool) -> Vec<u8> {
    let mut hints: Option<Hints> = None;
    for part in &parts {
        let one = part.result.as_ref().map_or(Hints::NONE, self::hints);
        hints = Some(
            hints.map_or(one, |all| Hints { ttl_ms: all.ttl_ms.min(one.ttl_ms), public: all.public && one.public }),
        );
    }
    let hints = hints.unwrap_or(Hints::NONE);
    let mut out = match (identity, parts.as_slice()) {
        (true, [Part { result: Ok(result), .. }]) => own(result),
        _ => united(&parts),
    };
    insert(&mut out, "resultType", OwnedValue::from("complete"));
    insert(&mut out, "supportedVersions", json!([VERSION]));
    insert(&mut out, "ttlMs", OwnedValue::from(hints.ttl_ms));
    insert(&mut out, "cacheScope", OwnedValue::from(if hints.public { "public" } else { "private" }));
    out.encode().into_bytes()
}

fn own(result: &OwnedValue) -> OwnedValue {
    let mut capabilities = result.get("capabilities").cloned().unwrap_or_else(|| json!({}));
    if has_sessions(result) {
        // Tasks of 2025-11-25 are another protocol than the extension of that name, which those revisions do not have.
        let _ = capabilities.remove(tasks::CAPABILITY);
        if let Some(extensions) = capabilities.get_mut("extensions") {
            let _ = extensions.remove(tasks::EXTENSION);
        }
    }
    let mut meta = result.get("_meta").filter(|meta| meta.is_object()).cloned().unwrap_or_else(|| json!({}));
    if let Some(info) = server_info(result) {
        insert(&mut meta, META_SERVER_INFO, info.clone());
    }
    let mut out = json!({});
    insert(&mut out, "capabilities", capabilities);
    insert(&mut out, "_meta", meta);
    if let Some(instructions) = result.get_str("instructions") {
        insert(&mut out, "instructions", OwnedValue::from(instructions));
    }
    out
}

/// Whether it is the answer to an `initialize`.
fn has_sessions(result: &OwnedValue) -> bool {
    result.get("protocolVersion").is_some()
}

/// The settings of the Tasks extension, where a target of this revision has it.
fn task_settings(result: &OwnedValue) -> Option<&OwnedValue> {
    let extensions = result.get("capabilities")?.get("extensions")?;
    extensions.get(tasks::EXTENSION).filter(|settings| settings.is_object() && !has_sessions(result))
}

fn united(parts: &[Part<'_>]) -> OwnedValue {
    let named: Vec<Result<OwnedValue, String>> = parts
        .iter()
        .map(|part| match &part.result {
            Ok(result) => {
                let mut result = result.clone();
                if let Some(info) = server_info(&result).cloned() {
                    insert(&mut result, "serverInfo", info);
                }
                Ok(result)
            }
            Err(reason) => Err((*reason).to_owned()),
        })
        .collect();
    let merged: Vec<merge::Part<'_>> = parts
        .iter()
        .zip(&named)
        .map(|(part, result)| merge::Part { target: part.target, result: result.as_ref().map_err(Clone::clone) })
        .collect();
    let mut text = merge::initialize_result(&merged, Revision::NEWEST, env!("CARGO_PKG_VERSION"));
    let mut out = simd_json::to_owned_value(&mut text).unwrap_or_else(|_| json!({}));
    let _ = out.remove("protocolVersion");
    if let Some(capabilities) = out.get_mut("capabilities") {
        let _ = capabilities.remove(tasks::CAPABILITY);
        if let Some(settings) = parts.iter().find_map(|part| task_settings(part.result.as_ref().ok()?)) {
            let mut extensions = capabilities.get("extensions").cloned().unwrap_or_else(|| json!({}));
            insert(&mut extensions, tasks::EXTENSION, settings.clone());
            insert(capabilities, "extensions", extensions);
        }
    }
    if let Ok(Some(info)) = out.remove("serverInfo")
        && let Some(meta) = out.get_mut("_meta")
    {
        insert(meta, META_SERVER_INFO, info);
    }
    out
}

fn insert(object: &mut OwnedValue, key: &str, value: OwnedValue) {
    if let Some(members) = object.as_object_mut() {
        members.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut text: Vec<u8>) -> serde_json::Value {
        text.shrink_to_fit();
        serde_json::from_slice(&text).unwrap()
    }

    fn modern() -> OwnedValue {
        json!({ "resultType": "complete", "supportedVersions": ["2026-07-28", "2025-11-25"], "ttlMs": 60_000,
            "cacheScope": "public", "capabilities": { "tools": { "listChanged": true }, "extensions": { "a.b/c": {} } },
            "instructions": "do", "_meta": { META_SERVER_INFO: { "name": "m", "version": "1" } } })
    }

    fn legacy() -> OwnedValue {
        json!({ "protocolVersion": "2025-11-25", "capabilities": { "prompts": {}, "tasks": {} },
            "serverInfo": { "name": "l", "version": "2" } })
    }

    #[test]
    fn a_lone_target_speaks_for_itself() {
        let found = read(result(vec![Part { target: "m", result: Ok(modern()) }], true));
        assert_eq!(found["supportedVersions"], serde_json::json!(["2026-07-28"]));
        assert_eq!(found["capabilities"]["extensions"], serde_json::json!({ "a.b/c": {} }));
        assert_eq!((&found["ttlMs"], &found["cacheScope"]), (&60_000.into(), &"public".into()));
        assert_eq!(found["_meta"][META_SERVER_INFO]["name"], "m");
        let found = read(result(vec![Part { target: "l", result: Ok(legacy()) }], true));
        assert_eq!(found["capabilities"], serde_json::json!({ "prompts": {} }));
        assert_eq!((&found["ttlMs"], &found["cacheScope"]), (&0.into(), &"private".into()));
        assert_eq!(found["_meta"][META_SERVER_INFO]["name"], "l");
    }

    #[test]
    fn the_tasks_extension_is_that_of_this_revision() {
        let offering = |mut result: OwnedValue| {
            let offered = json!({ "tasks": { "list": {} }, "extensions": { (tasks::EXTENSION): {} } });
            insert(&mut result, "capabilities", offered);
            result
        };
        let found = |result: OwnedValue, identity| {
            let parts = vec![Part { target: "a", result: Ok(result) }, Part { target: "b", result: Err("down") }];
            let parts = parts.into_iter().take(if identity { 1 } else { 2 }).collect();
            read(self::result(parts, identity))["capabilities"].clone()
        };
        for identity in [true, false] {
            let modern = found(offering(modern()), identity);
            assert_eq!(modern["extensions"], serde_json::json!({ (tasks::EXTENSION): {} }));
            let legacy = found(offering(legacy()), identity);
            assert!(legacy.get("tasks").is_none() && legacy["extensions"].get(tasks::EXTENSION).is_none(), "{legacy}");
        }
    }

    #[test]
    fn several_are_united() {
        let parts = vec![
            Part { target: "m", result: Ok(modern()) },
            Part { target: "l", result: Ok(legacy()) },
            Part { target: "x", result: Err("target is unreachable") },
        ];
        let found = read(result(parts, false));
        assert_eq!(found["capabilities"], serde_json::json!({ "tools": { "listChanged": true }, "prompts": {} }));
        assert_eq!(found["_meta"][META_SERVER_INFO]["name"], "agentlane");
        assert_eq!(found["_meta"][merge::META_TARGETS]["m"]["name"], "m");
        assert_eq!(found["_meta"][merge::META_TARGETS]["x"]["missing"], "target is unreachable");
        assert!(found.get("serverInfo").is_none() && found.get("protocolVersion").is_none());
        assert_eq!(found["instructions"], "# m\ndo");
        assert_eq!(found["ttlMs"], 0);
    }
}
