//! What must be remembered of a target's tools to call them in 2026-07-28: which arguments go into headers, whose results
//! older clients see wrapped, and which may be called again when an answer was lost. Learned from `tools/list`, told to nobody.

use std::collections::HashMap;
use std::rc::Rc;

use agentlane_wire::json::{self, ListKind, Range32, ValueKind};

use super::headers::{self, Annotated};
use crate::limits::TARGET_TOOLS_MAX;

/// The tools of one target that are not plain; a plain one needs no memory.
#[derive(Debug, Default)]
pub struct Tools {
    known: HashMap<String, Tool>,
}

/// What is special about a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tool {
    pub annotated: Rc<[Annotated]>,
    /// Its `outputSchema` describes no object, so that revisions which know objects only see it wrapped.
    pub wrapped: bool,
    /// Its annotations say that calling it twice does no more than once: it only reads, or is idempotent.
    pub repeatable: bool,
}

impl Tools {
    /// Learns a page of `tools/list`: the whole message and its `result`.
    pub fn learn(&mut self, message: &[u8], result: Range32) {
        let Ok(items) = json::list_items(message, result, ListKind::Tools) else { return };
        for item in items.map_while(Result::ok) {
            let Ok(Ok(name)) = item.name.map(|range| json::string(message, range)) else { continue };
            let tool = Tool::of(message, item.range);
            if tool == Tool::default() {
                self.known.remove(&*name);
            } else if self.known.len() < TARGET_TOOLS_MAX || self.known.contains_key(&*name) {
                self.known.insert(name.into_owned(), tool);
            }
        }
    }

    pub fn get(&self, name: &str) -> Option<&Tool> {
        self.known.get(name)
    }
}

impl Tool {
    fn of(bytes: &[u8], item: Range32) -> Tool {
        let get = |key| json::get(bytes, item, key).ok().flatten();
        let annotated =
            get("inputSchema").and_then(|schema| headers::annotated(bytes, schema).ok()).unwrap_or_default();
        let hints = |hint| {
            let value = get("annotations").and_then(|hints| json::get(bytes, hints, hint).ok().flatten());
            value.and_then(|value| json::as_bool(bytes, value)) == Some(true)
        };
        Tool {
            annotated: annotated.into(),
            wrapped: get("outputSchema").is_some_and(|schema| !is_object(bytes, schema)),
            repeatable: hints("readOnlyHint") || hints("idempotentHint"),
        }
    }
}

/// Whether a schema's root says `type: object`, which older revisions demand of an `outputSchema`.
pub fn is_object(bytes: &[u8], schema: Range32) -> bool {
    json::kind_of(bytes, schema) == Some(ValueKind::Object)
        && json::get(bytes, schema, "type").ok().flatten().is_some_and(|kind| json::raw_eq(bytes, kind, "object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_special_is_remembered() {
        let page = br#"{"tools":[{"name":"plain","inputSchema":{"type":"object"},"outputSchema":{"type":"object"}},
            {"name":"list","inputSchema":{},"outputSchema":{"type":"array"}},
            {"name":"reader","inputSchema":{},"annotations":{"readOnlyHint":true,"title":"R"}},
            {"name":"writer","inputSchema":{},"annotations":{"readOnlyHint":false,"idempotentHint":"yes"}},
            {"name":"near","inputSchema":{"properties":{"r":{"type":"string","x-mcp-header":"R"}}}}]}"#;
        let mut tools = Tools::default();
        tools.learn(page, json::root(page).unwrap());
        assert_eq!(tools.get("plain"), None);
        assert!(tools.get("list").unwrap().wrapped);
        assert!(tools.get("reader").unwrap().repeatable);
        assert_eq!(tools.get("writer"), None);
        assert_eq!(tools.get("near").unwrap().annotated[0].header, "R");
        let now = br#"{"tools":[{"name":"list","inputSchema":{}}]}"#;
        tools.learn(now, json::root(now).unwrap());
        assert_eq!(tools.get("list"), None, "it has changed");
    }
}
