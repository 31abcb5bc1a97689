//! MCP Apps (the extension `io.modelcontextprotocol/ui`) in a federation: a tool says which resource shows it, and that must
//! lead to the tool's own target.

use agentlane_wire::json::{self, Range32, Splice};
use bytes::Bytes;

use super::federate::Item;
use super::names;

/// Where a tool names its resource: as the extension has it, and as it was before.
const PLACES: [&[&str]; 2] = [&["_meta", "ui", "resourceUri"], &["_meta", "ui/resourceUri"]];

/// A listed tool of `target` under its outward name, with the mark of its target on the resource's URI. `None`: it names no
/// resource, or one that `is_plain`, which leads to the target as it is.
pub fn marked(item: &Item<'_>, target: &str, is_plain: impl Fn(&str) -> bool) -> Option<Bytes> {
    let start = item.item.range.start();
    let text = item.item.range.of(item.page)?;
    memchr::memmem::find(text, b"esourceUri")?;
    let root = json::root(text).ok()?;
    let mut splice = Splice::new();
    for place in PLACES {
        let Ok(Some(range)) = json::get_path(text, root, place) else { continue };
        if let Some(uri) = json::string(text, range).ok().filter(|uri| !is_plain(uri)) {
            splice.replace_string(range, &names::mark_uri(target, &uri));
        }
    }
    if splice.is_empty() {
        return None;
    }
    let name = item.item.name.ok()?;
    splice.replace_string(Range32::new(name.start() - start, name.end() - start)?, &item.name);
    splice.contiguous(text).ok()
}

#[cfg(test)]
mod tests {
    use agentlane_wire::json::ListKind;
    use serde_json::{Value, json as value};

    use super::super::federate::{Member, items};
    use super::super::listing::{Listing, Origin};
    use super::super::revision::Revision;
    use super::*;

    #[test]
    fn a_tool_leads_to_its_own_targets_resource() {
        let tools = value!([
            { "name": "new", "_meta": { "ui": { "resourceUri": "ui://app/x", "visibility": ["app"] } } },
            { "_meta": { "ui/resourceUri": "ui://app/y", "z": 1 }, "name": "old" },
            { "name": "plain", "_meta": { "ui": { "resourceUri": "ui://listed" } } },
            { "name": "none", "description": "resourceUri" },
        ]);
        let message = value!({ "tools": tools }).to_string();
        let range = Range32::new(0, message.len()).unwrap();
        let mut listing = Listing::new(Origin::Legacy(Revision::NEWEST));
        listing.add_page(Bytes::from(message), range, ListKind::Tools).unwrap();
        let members = [Member { index: 0, target: "a_b", prefix: "a_b__", listing: &listing }];
        let shown: Vec<Option<Value>> = items(ListKind::Tools, &members, 64)
            .iter()
            .map(|item| marked(item, "a_b", |uri| uri == "ui://listed"))
            .map(|text| text.map(|text| serde_json::from_slice(&text).unwrap()))
            .collect();
        let new = value!({ "name": "a_b__new",
            "_meta": { "ui": { "resourceUri": "ui://a.b+app/x", "visibility": ["app"] } } });
        let old = value!({ "name": "a_b__old", "_meta": { "ui/resourceUri": "ui://a.b+app/y", "z": 1 } });
        assert_eq!(shown, [Some(new), Some(old), None, None]);
    }
}
