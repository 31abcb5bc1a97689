//! A result in the shape of an older revision: content, items and schemas that it lacks are put into the nearest form that
//! it has, or left out. Edits on the bytes; what the client's revision knows stays as it was sent.

use agentlane_wire::json::{self, Range32, Splice, ValueKind};
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::method::{ListKind, Method};
use super::modern::headers;
use super::modern::tools::is_object;
use super::revision::Revision;

/// What must change in a message for its reader. Members of the result itself are gathered, because an object may be edited
/// once only.
#[derive(Debug, Default)]
pub struct Edits {
    splice: Splice,
    set: SmallVec<[(&'static str, Bytes); 2]>,
    remove: SmallVec<[&'static str; 4]>,
}

/// Where a list of tools comes from, which decides what becomes of `x-mcp-header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Annotations {
    /// A target of an older revision: they mean nothing.
    Meaningless,
    /// Over HTTP: a tool whose annotations do not hold is left out.
    Checked,
    /// Over stdio, where they mean nothing: taken out, so that nobody takes them for more.
    Stripped,
}

impl Edits {
    /// Leaves out a member of the result.
    pub fn remove(&mut self, member: &'static str) {
        self.remove.push(member);
    }

    pub fn splice(&mut self) -> &mut Splice {
        &mut self.splice
    }

    /// The message with its changes, the same one where there are none.
    pub fn apply(mut self, message: Bytes, result: Range32) -> Bytes {
        if !self.set.is_empty() || !self.remove.is_empty() {
            let set: SmallVec<[(&str, &[u8]); 2]> = self.set.iter().map(|(key, value)| (*key, &value[..])).collect();
            if self.splice.edit_object(&message, result, &set, &self.remove).is_err() {
                return message;
            }
        }
        if self.splice.is_empty() {
            return message;
        }
        self.splice.contiguous(&message).unwrap_or(message)
    }

    /// The result of `method` for a client of revision `to`. `wrapped`: the called tool's schema is shown wrapped.
    pub fn down(&mut self, method: Method, to: Revision, bytes: &[u8], result: Range32, wrapped: bool) {
        match method {
            Method::ToolsCall => self.call(to, bytes, result, wrapped),
            Method::PromptsGet => self.prompt(to, bytes, result),
            Method::List(kind) => self.list(kind, to, bytes, result, Annotations::Meaningless),
            _ => {}
        }
    }

    fn call(&mut self, to: Revision, bytes: &[u8], result: Range32, wrapped: bool) {
        let (mut content, mut structured) = (None, None);
        for member in json::members(bytes, result).map_while(Result::ok) {
            if json::raw_eq(bytes, member.key, "content") {
                content = Some(member.value);
            } else if json::raw_eq(bytes, member.key, "structuredContent") {
                structured = Some(member.value);
            }
        }
        let elements: SmallVec<[Range32; 4]> =
            content.into_iter().flat_map(|content| json::elements(bytes, content)).map_while(Result::ok).collect();
        if to < Revision::V2025_06_18 {
            elements.iter().for_each(|&block| self.block(to, bytes, block));
        }
        let Some(value) = structured else { return };
        let text = value.of(bytes).unwrap_or_default();
        if to < Revision::V2025_06_18 {
            self.remove.push("structuredContent");
        } else if wrapped || json::kind_of(bytes, value) != Some(ValueKind::Object) {
            self.set.push(("structuredContent", joined(&[b"{\"result\":", text, b"}"])));
        } else {
            return;
        }
        self.tell_in_text(bytes, content, &elements, text);
    }

    /// What a client may not find where it was must be in a text; most servers put it there as well.
    fn tell_in_text(&mut self, bytes: &[u8], content: Option<Range32>, elements: &[Range32], structured: &[u8]) {
        if elements.iter().any(|&block| type_is(bytes, block, "text")) {
            return;
        }
        let block = text_block(&String::from_utf8_lossy(structured));
        match content {
            Some(content) => {
                let comma: &[u8] = if elements.is_empty() { b"" } else { b"," };
                self.splice.insert(content.end() - 1, joined(&[comma, &block]));
            }
            None => self.set.push(("content", joined(&[b"[", &block, b"]"]))),
        }
    }

    fn prompt(&mut self, to: Revision, bytes: &[u8], result: Range32) {
        if to >= Revision::V2025_06_18 {
            return;
        }
        let Ok(Some(messages)) = json::get(bytes, result, "messages") else { return };
        for message in json::elements(bytes, messages).map_while(Result::ok) {
            if let Ok(Some(block)) = json::get(bytes, message, "content") {
                self.block(to, bytes, block);
            }
        }
    }

    /// One content block for a client older than 2025-06-18.
    fn block(&mut self, to: Revision, bytes: &[u8], block: Range32) {
        let string =
            |key| json::get(bytes, block, key).ok().flatten().and_then(|value| json::string(bytes, value).ok());
        if type_is(bytes, block, "resource_link") {
            let uri = string("uri").unwrap_or_default();
            let text = match string("title").or_else(|| string("name")) {
                Some(name) => format!("{name}: {uri}"),
                None => uri.into_owned(),
            };
            self.splice.replace(block, text_block(&text));
        } else if to < Revision::V2025_03_26 && type_is(bytes, block, "audio") {
            let raw = |key| json::get(bytes, block, key).ok().flatten().and_then(|value| value.of(bytes));
            let (Some(data), Some(kind)) = (raw("data"), raw("mimeType")) else { return };
            let resource: [&[u8]; 5] = [
                b"{\"type\":\"resource\",\"resource\":{\"uri\":\"agentlane:audio\",\"mimeType\":",
                kind,
                b",\"blob\":",
                data,
                b"}}",
            ];
            self.splice.replace(block, joined(&resource));
        }
    }

    /// A page of a list.
    pub fn list(&mut self, kind: ListKind, to: Revision, bytes: &[u8], result: Range32, annotations: Annotations) {
        let Ok(Some(list)) = json::get(bytes, result, kind.member()) else { return };
        let items: Vec<Range32> = json::elements(bytes, list).map_while(Result::ok).collect();
        let is_tools = kind == ListKind::Tools;
        let stays = |item: &Range32| {
            let schema = || json::get(bytes, *item, "inputSchema").ok().flatten();
            // Of a target with sessions that could not be called by this client.
            let hidden = to < Revision::V2025_11_25 && annotations == Annotations::Meaningless;
            !is_tools
                || (!(hidden && requires_task(bytes, *item))
                    && (annotations != Annotations::Checked
                        || schema().is_none_or(|schema| headers::annotated(bytes, schema).is_ok())))
        };
        let kept: Vec<bool> = items.iter().map(stays).collect();
        for (item, _) in items.iter().zip(&kept).filter(|(_, kept)| **kept) {
            match is_tools {
                true => self.tool(to, bytes, *item, annotations),
                false => self.item(to, bytes, *item),
            }
        }
        self.drop_elements(&items, &kept);
    }

    /// A page of tools for a client of 2026-07-28, which knows nothing of tasks of 2025-11-25: a tool that is called in no
    /// other way is left out.
    pub fn without_tasks(&mut self, bytes: &[u8], result: Range32) {
        let Ok(Some(list)) = json::get(bytes, result, ListKind::Tools.member()) else { return };
        let items: Vec<Range32> = json::elements(bytes, list).map_while(Result::ok).collect();
        let kept: Vec<bool> = items.iter().map(|item| !requires_task(bytes, *item)).collect();
        for (item, _) in items.iter().zip(&kept).filter(|(_, kept)| **kept) {
            self.edit(bytes, *item, &[], &["execution"]);
        }
        self.drop_elements(&items, &kept);
    }

    /// Drops the elements that are not kept, each with one comma.
    fn drop_elements(&mut self, items: &[Range32], kept: &[bool]) {
        let mut before = None;
        for (place, item) in items.iter().enumerate() {
            if kept[place] {
                before = Some(item.end());
                continue;
            }
            let next = items.get(place + 1).map_or(item.end(), |next| next.start());
            let range = match before {
                Some(end) => Range32::new(end, item.end()),
                None => Range32::new(item.start(), next),
            };
            range.map(|range| self.splice.remove(range));
            // What follows a dropped one in the middle begins where that one ended.
            before = before.map(|_| item.end());
        }
    }

    fn tool(&mut self, to: Revision, bytes: &[u8], item: Range32, annotations: Annotations) {
        let get = |key| json::get(bytes, item, key).ok().flatten();
        let (mut set, mut remove) = (SmallVec::<[(&str, Bytes); 2]>::new(), SmallVec::<[&str; 4]>::new());
        let output = get("outputSchema");
        if let Some(schema) = output.filter(|schema| to >= Revision::V2025_06_18 && !is_object(bytes, *schema)) {
            set.push(("outputSchema", wrapped_schema(bytes, schema)));
        }
        if to < Revision::V2025_11_25 {
            remove.push("icons");
        }
        if to < Revision::V2025_11_25 || annotations != Annotations::Meaningless {
            // Tasks of 2025-11-25, which a target of another revision does not have.
            remove.push("execution");
        }
        if to < Revision::V2025_06_18 {
            remove.extend(["outputSchema", "title"]);
            if to == Revision::V2025_03_26 {
                set.extend(self.titled(bytes, get("title"), get("annotations")));
            } else {
                remove.push("annotations");
            }
        }
        if annotations == Annotations::Stripped
            && let Some(schema) = get("inputSchema")
        {
            self.strip_annotations(bytes, schema, 0);
        }
        self.edit(bytes, item, &set, &remove);
    }

    /// A tool's `title` as 2025-03-26 has it: among the annotations.
    fn titled(
        &mut self,
        bytes: &[u8],
        title: Option<Range32>,
        annotations: Option<Range32>,
    ) -> Option<(&'static str, Bytes)> {
        let title = title?.of(bytes)?;
        match annotations {
            None => Some(("annotations", joined(&[b"{\"title\":", title, b"}"]))),
            Some(annotations) => {
                if let Ok(None) = json::get(bytes, annotations, "title") {
                    let _ = self.splice.insert_member(bytes, annotations, "title", title);
                }
                None
            }
        }
    }

    /// A prompt, resource or template.
    fn item(&mut self, to: Revision, bytes: &[u8], item: Range32) {
        let mut remove = SmallVec::<[&str; 4]>::new();
        if to < Revision::V2025_11_25 {
            remove.push("icons");
        }
        if to < Revision::V2025_06_18 {
            remove.push("title");
        }
        self.edit(bytes, item, &[], &remove);
    }

    fn strip_annotations(&mut self, bytes: &[u8], value: Range32, depth: usize) {
        const DEPTH_MAX: usize = 64;
        let has =
            value.of(bytes).is_some_and(|text| memchr::memmem::find(text, headers::ANNOTATION.as_bytes()).is_some());
        if depth > DEPTH_MAX || !has {
            return;
        }
        match json::kind_of(bytes, value) {
            Some(ValueKind::Object) => {
                let members: Vec<json::Member> = json::members(bytes, value).map_while(Result::ok).collect();
                // A name among `properties` is a schema, an annotation is a string.
                let is_annotation = |member: &json::Member| {
                    json::raw_eq(bytes, member.key, headers::ANNOTATION)
                        && json::kind_of(bytes, member.value) != Some(ValueKind::Object)
                };
                if members.iter().any(is_annotation) {
                    self.edit(bytes, value, &[], &[headers::ANNOTATION]);
                }
                for member in members.iter().filter(|member| !is_annotation(member)) {
                    self.strip_annotations(bytes, member.value, depth + 1);
                }
            }
            Some(ValueKind::Array) => {
                for element in json::elements(bytes, value).map_while(Result::ok) {
                    self.strip_annotations(bytes, element, depth + 1);
                }
            }
            _ => {}
        }
    }

    fn edit(&mut self, bytes: &[u8], object: Range32, set: &[(&str, Bytes)], remove: &[&str]) {
        if set.is_empty() && remove.is_empty() {
            return;
        }
        let set: SmallVec<[(&str, &[u8]); 2]> = set.iter().map(|(key, value)| (*key, &value[..])).collect();
        // An item that is no object stays as it is: the client will say what it thinks of it.
        let _ = self.splice.edit_object(bytes, object, &set, remove);
    }
}

/// Whether a tool is called as a task or not at all (2025-11-25, `ToolExecution`).
fn requires_task(bytes: &[u8], tool: Range32) -> bool {
    let support = json::get_path(bytes, tool, &["execution", "taskSupport"]);
    support.ok().flatten().is_some_and(|support| json::raw_eq(bytes, support, "required"))
}

/// A schema whose value stands in an object's `result`. References within the document follow their targets; what dialect
/// it is in is said at the root.
fn wrapped_schema(bytes: &[u8], schema: Range32) -> Bytes {
    let text = schema.of(bytes).map(Bytes::copy_from_slice).unwrap_or_default();
    let mut splice = Splice::new();
    let mut dialect = Bytes::new();
    if let Ok(root) = json::root(&text) {
        if let Some(kind) = json::get(&text, root, "$schema").ok().flatten().and_then(|value| value.of(&text)) {
            dialect = joined(&[b"\"$schema\":", kind, b","]);
            let _ = splice.edit_object(&text, root, &[], &["$schema"]);
        }
        move_references(&mut splice, &text, root, 0);
    }
    let inner = splice.contiguous(&text).unwrap_or(text);
    joined(&[
        b"{",
        &dialect,
        b"\"type\":\"object\",\"properties\":{\"result\":",
        &inner,
        b"},\"required\":[\"result\"]}",
    ])
}

fn move_references(splice: &mut Splice, bytes: &[u8], value: Range32, depth: usize) {
    const DEPTH_MAX: usize = 64;
    if depth > DEPTH_MAX {
        return;
    }
    match json::kind_of(bytes, value) {
        Some(ValueKind::Object) => {
            for member in json::members(bytes, value).map_while(Result::ok) {
                let is_reference = json::raw_eq(bytes, member.key, "$ref");
                match json::string(bytes, member.value) {
                    Ok(text) if is_reference => {
                        if let Some(rest) =
                            text.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'))
                        {
                            splice.replace_string(member.value, &format!("#/properties/result{rest}"));
                        }
                    }
                    _ => move_references(splice, bytes, member.value, depth + 1),
                }
            }
        }
        Some(ValueKind::Array) => {
            for element in json::elements(bytes, value).map_while(Result::ok) {
                move_references(splice, bytes, element, depth + 1);
            }
        }
        _ => {}
    }
}

fn type_is(bytes: &[u8], block: Range32, kind: &str) -> bool {
    json::get(bytes, block, "type").ok().flatten().is_some_and(|value| json::raw_eq(bytes, value, kind))
}

fn text_block(text: &str) -> Bytes {
    let mut out = BytesMut::from(&b"{\"type\":\"text\",\"text\":"[..]);
    json::quote_into(&mut out, text);
    out.extend_from_slice(b"}");
    out.freeze()
}

fn joined(parts: &[&[u8]]) -> Bytes {
    Bytes::from(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json as value};

    fn down(method: Method, to: Revision, wrapped: bool, result: &Value) -> Value {
        let message = Bytes::from(result.to_string());
        let range = json::root(&message).unwrap();
        let mut edits = Edits::default();
        edits.down(method, to, &message, range, wrapped);
        serde_json::from_slice(&edits.apply(message, range)).unwrap()
    }

    use Revision::{V2024_11_05 as V1, V2025_03_26 as V2, V2025_06_18 as V3, V2025_11_25 as V4};

    #[test]
    fn results_of_calls_in_every_revision() {
        let link = value!({"type": "resource_link", "uri": "memo:x", "name": "x"});
        let audio = value!({"type": "audio", "data": "AAAA", "mimeType": "audio/wav"});
        let text = value!({"type": "text", "text": "t"});
        let as_text = |text: &str| value!({"type": "text", "text": text});
        let as_resource = value!({"type": "resource", "resource":
            {"uri": "agentlane:audio", "mimeType": "audio/wav", "blob": "AAAA"}});
        let cases = [
            (V4, false, value!({"content": [link, audio]}), value!({"content": [link, audio]})),
            (V3, false, value!({"content": [link, audio]}), value!({"content": [link, audio]})),
            (V2, false, value!({"content": [link, audio]}), value!({"content": [as_text("x: memo:x"), audio]})),
            (V1, false, value!({"content": [link, audio]}), value!({"content": [as_text("x: memo:x"), as_resource]})),
            (
                V4,
                false,
                value!({"content": [text], "structuredContent": {"a": 1}}),
                value!({"content": [text], "structuredContent": {"a": 1}}),
            ),
            (
                V4,
                true,
                value!({"content": [text], "structuredContent": {"a": 1}}),
                value!({"content": [text], "structuredContent": {"result": {"a": 1}}}),
            ),
            (
                V3,
                false,
                value!({"content": [], "structuredContent": [1, 2]}),
                value!({"content": [as_text("[1,2]")], "structuredContent": {"result": [1, 2]}}),
            ),
            (
                V3,
                false,
                value!({"structuredContent": null}),
                value!({"structuredContent": {"result": null}, "content": [as_text("null")]}),
            ),
            (V2, false, value!({"content": [text], "structuredContent": {"a": 1}}), value!({"content": [text]})),
            (
                V1,
                false,
                value!({"structuredContent": {"a": 1}, "content": [audio]}),
                value!({"content": [as_resource, as_text("{\"a\":1}")]}),
            ),
        ];
        for (to, wrapped, given, expected) in cases {
            assert_eq!(down(Method::ToolsCall, to, wrapped, &given), expected, "{to:?} {given}");
        }
    }

    #[test]
    fn prompts_lose_what_the_revision_lacks() {
        let given = value!({"messages": [{"role": "user", "content": {"type": "resource_link", "uri": "memo:x", "name": "x"}}]});
        assert_eq!(down(Method::PromptsGet, V3, false, &given), given);
        assert_eq!(
            down(Method::PromptsGet, V2, false, &given)["messages"][0]["content"],
            value!({"type": "text", "text": "x: memo:x"})
        );
    }

    #[test]
    fn lists_of_tools_in_every_revision() {
        let method = Method::List(ListKind::Tools);
        let plain = value!({"tools": [{"name": "a", "inputSchema": {"type": "object"}}], "nextCursor": "n"});
        for to in Revision::ALL {
            assert_eq!(down(method, to, false, &plain), plain, "{to:?}");
        }
        let rich = value!({"tools": [
            {"name": "a", "title": "A", "icons": [], "annotations": {"readOnlyHint": true}, "inputSchema": {},
             "outputSchema": {"type": "object"}, "execution": {}},
            {"name": "b", "title": "B", "inputSchema": {}, "_meta": {"ui": {}},
             "outputSchema": {"$schema": "s", "type": "array", "items": {"$ref": "#/$defs/x"}, "$defs": {"x": {"anyOf": [{"$ref": "#"}]}}}},
        ]});
        let wrapped = value!({"$schema": "s", "type": "object", "required": ["result"], "properties": {"result":
            {"type": "array", "items": {"$ref": "#/properties/result/$defs/x"},
             "$defs": {"x": {"anyOf": [{"$ref": "#/properties/result"}]}}}}});
        let newest = down(method, V4, false, &rich);
        assert_eq!(newest["tools"][0], rich["tools"][0]);
        assert_eq!(newest["tools"][1]["outputSchema"], wrapped);
        let older = down(method, V3, false, &rich);
        assert_eq!(
            older["tools"][0],
            value!({"name": "a", "title": "A", "annotations": {"readOnlyHint": true}, "inputSchema": {},
            "outputSchema": {"type": "object"}})
        );
        assert_eq!(older["tools"][1]["outputSchema"], wrapped);
        assert_eq!(
            down(method, V2, false, &rich)["tools"],
            value!([
                {"name": "a", "annotations": {"title": "A", "readOnlyHint": true}, "inputSchema": {}},
                {"name": "b", "inputSchema": {}, "_meta": {"ui": {}}, "annotations": {"title": "B"}},
            ])
        );
        assert_eq!(
            down(method, V1, false, &rich)["tools"],
            value!([{"name": "a", "inputSchema": {}}, {"name": "b", "inputSchema": {}, "_meta": {"ui": {}}}])
        );
    }

    #[test]
    fn tools_that_are_called_as_tasks() {
        let tool = |name: &str, support: &str| value!({"name": name, "execution": {"taskSupport": support}});
        let given =
            value!({"tools": [tool("a", "required"), tool("b", "optional"), tool("c", "required"), {"name": "d"}]});
        let shown = value!({"tools": [{"name": "b"}, {"name": "d"}]});
        let method = Method::List(ListKind::Tools);
        assert_eq!(down(method, V4, false, &given), given);
        assert_eq!(down(method, V3, false, &given), shown);
        let message = Bytes::from(given.to_string());
        let range = json::root(&message).unwrap();
        let edited = |edit: &dyn Fn(&mut Edits)| -> Value {
            let mut edits = Edits::default();
            edit(&mut edits);
            serde_json::from_slice(&edits.apply(message.clone(), range)).unwrap()
        };
        assert_eq!(edited(&|edits| edits.without_tasks(&message, range)), shown);
        // Of a target of 2026-07-28, where it means nothing.
        let all = value!({"tools": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}]});
        let listed = edited(&|edits| edits.list(ListKind::Tools, V4, &message, range, Annotations::Checked));
        assert_eq!(listed, all);
    }

    #[test]
    fn tools_with_wrong_annotations_are_left_out_or_stripped() {
        let tool = |name: &str, kind: &str| value!({"name": name, "inputSchema": {"properties": {"x-mcp-header": {"type": kind, "x-mcp-header": "R"}}}});
        let (good, bad) = (|name| tool(name, "string"), |name| tool(name, "number"));
        let cases: [(Vec<Value>, &str); 6] = [
            (vec![good("a"), bad("b"), good("c")], "ac"),
            (vec![bad("a"), good("b"), bad("c")], "b"),
            (vec![bad("a"), bad("b"), good("c")], "c"),
            (vec![good("a"), bad("b"), bad("c"), good("d"), bad("e")], "ad"),
            (vec![bad("a"), bad("b")], ""),
            (vec![], ""),
        ];
        let listed = |annotations, tools: &[Value]| -> Value {
            let message = Bytes::from(value!({ "tools": tools }).to_string());
            let range = json::root(&message).unwrap();
            let mut edits = Edits::default();
            edits.list(ListKind::Tools, V4, &message, range, annotations);
            serde_json::from_slice(&edits.apply(message, range)).unwrap()
        };
        for (tools, expected) in cases {
            let kept = listed(Annotations::Checked, &tools);
            let names: String =
                kept["tools"].as_array().unwrap().iter().filter_map(|tool| tool["name"].as_str()).collect();
            assert_eq!(names, expected, "{tools:?}");
            let stripped = listed(Annotations::Stripped, &tools);
            assert_eq!(stripped["tools"].as_array().unwrap().len(), tools.len());
            let first = stripped["tools"].get(0).map(|tool| &tool["inputSchema"]["properties"]["x-mcp-header"]);
            assert!(
                first.is_none_or(|property| property.get("type").is_some() && property.get("x-mcp-header").is_none())
            );
        }
    }
}
