//! Tasks of both kinds (2025-11-25, "Tasks"; the extension `io.modelcontextprotocol/tasks` of 2026-07-28) across a
//! federation: a task's id outward says whose it is, so that no table is needed to find it again. One own id has one outward
//! id for one caller, and another caller's opens nothing.

use agentlane_wire::json::{self, Envelope, Range32, Splice};
use bytes::{BufMut, Bytes, BytesMut};
use simd_json::prelude::*;
use simd_json::{OwnedValue, json};

use super::caller::Caller;
use super::seal::{NoRandomness, Sealer};

/// The capability of 2025-11-25.
pub const CAPABILITY: &str = "tasks";
/// The extension of 2026-07-28, another protocol than the capability.
pub const EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// What a client without the extension must declare, as -32021 says it.
pub const NEEDED: &str = "{\"extensions\":{\"io.modelcontextprotocol/tasks\":{}}}";
/// The notification of 2025-11-25.
pub const STATUS: &str = "notifications/tasks/status";

const RELATED: &str = "io.modelcontextprotocol/related-task";
const TASK: &[u8] = b"agentlane task v1";
const CURSOR: &[u8] = b"agentlane task list cursor v1";

/// How one target's tasks are called for one caller.
#[derive(Clone, Copy)]
pub struct Naming<'a> {
    pub sealer: &'a Sealer,
    pub caller: &'a Caller,
    pub target: &'a str,
}

impl Naming<'_> {
    /// The outward id; `None` when it cannot be sealed.
    pub fn outward(&self, own: &str) -> Option<String> {
        let payload = [self.target.as_bytes(), b"\0", own.as_bytes()].concat();
        self.sealer.seal_same(&context(TASK, self.caller), &payload).ok()
    }

    fn rename(&self, splice: &mut Splice, bytes: &[u8], range: Option<Range32>) {
        let own = range.and_then(|range| Some((range, json::string(bytes, range).ok()?)));
        if let Some((range, own)) = own
            && let Some(outward) = self.outward(&own)
        {
            splice.replace_string(range, &outward);
        }
    }

    /// Renames what a target's result says of tasks. `flat`: the result is a task itself.
    pub fn result(&self, splice: &mut Splice, bytes: &[u8], result: Range32, flat: bool) {
        let at = |path: &[&str]| json::get_path(bytes, result, path).ok().flatten();
        if flat {
            self.rename(splice, bytes, at(&["taskId"]));
        }
        self.rename(splice, bytes, at(&["task", "taskId"]));
        self.rename(splice, bytes, at(&["_meta", RELATED, "taskId"]));
    }

    /// Renames what a target's notification or request says of tasks. What it asks of tasks that the client has itself
    /// stays.
    pub fn message(&self, splice: &mut Splice, bytes: &[u8], envelope: &Envelope) {
        if envelope.method_is(bytes, STATUS) {
            self.rename(splice, bytes, envelope.task_id);
        }
        let related = envelope.meta_related_task.and_then(|range| json::get(bytes, range, "taskId").ok().flatten());
        self.rename(splice, bytes, related);
    }

    /// Writes the tasks of a `tasks/list` result behind those in `out`.
    pub fn list(&self, out: &mut BytesMut, bytes: &[u8], result: Range32) {
        let Ok(Some(tasks)) = json::get(bytes, result, "tasks") else { return };
        for task in json::elements(bytes, tasks).map_while(Result::ok) {
            let text = task.of(bytes).unwrap_or_default();
            let mut splice = Splice::new();
            let id = json::root(text).and_then(|root| json::get(text, root, "taskId"));
            self.rename(&mut splice, text, id.ok().flatten());
            // One that cannot be named cannot be asked for.
            let Ok(text) = splice.contiguous(text) else { continue };
            if splice.is_empty() {
                continue;
            }
            if !out.is_empty() {
                out.put_u8(b',');
            }
            out.put_slice(&text);
        }
    }
}

fn context(kind: &[u8], caller: &Caller) -> Vec<u8> {
    [kind, caller.as_bytes()].concat()
}

/// The target and its own id; `None` for an id that was not made here for this caller.
pub fn open(sealer: &Sealer, caller: &Caller, outward: &str) -> Option<(String, String)> {
    let payload = String::from_utf8(sealer.open(&context(TASK, caller), outward.as_bytes())?).ok()?;
    let (target, own) = payload.split_once('\0')?;
    Some((target.to_owned(), own.to_owned()))
}

/// Puts the target's own id of a task into the `_meta` of a client's answer or notification.
pub fn inward(sealer: &Sealer, caller: &Caller, message: &Bytes, envelope: &Envelope) -> Option<Bytes> {
    let holder = envelope.params.or(envelope.result)?;
    let range = json::get_path(message, holder, &["_meta", RELATED, "taskId"]).ok()??;
    let (_, own) = open(sealer, caller, &json::string(message, range).ok()?)?;
    let mut splice = Splice::new();
    splice.replace_string(range, &own);
    splice.contiguous(message).ok()
}

/// Whether a request asks for a task in the place of its result (`params.task`).
pub fn is_augmented(body: &[u8], envelope: &Envelope) -> bool {
    envelope.params.is_some_and(|params| json::get(body, params, "task").is_ok_and(|task| task.is_some()))
}

/// A cursor into the lists of several targets: who has more, and where that begins.
pub fn seal_cursor(sealer: &Sealer, caller: &Caller, rest: &[(&str, String)]) -> Result<String, NoRandomness> {
    let mut payload = Vec::new();
    for part in rest.iter().flat_map(|(target, cursor)| [*target, cursor]) {
        payload.extend_from_slice(&(part.len() as u32).to_le_bytes());
        payload.extend_from_slice(part.as_bytes());
    }
    sealer.seal(&context(CURSOR, caller), &payload)
}

/// What [`seal_cursor`] sealed for this caller.
pub fn open_cursor(sealer: &Sealer, caller: &Caller, text: &str) -> Option<Vec<(String, String)>> {
    let payload = sealer.open(&context(CURSOR, caller), text.as_bytes())?;
    let mut rest = &payload[..];
    let mut part = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (part, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = after;
        String::from_utf8(part.to_vec()).ok()
    };
    let mut all = Vec::new();
    while let Some(target) = part() {
        all.push((target, part()?));
    }
    Some(all)
}

/// Adds a target's `tasks` capability to the union of several.
pub fn unite(capabilities: &mut OwnedValue, offered: &OwnedValue) {
    let Some(offered) = offered.get(CAPABILITY).filter(|value| value.is_object()) else { return };
    let mut tasks = capabilities.get(CAPABILITY).cloned().unwrap_or_else(|| json!({}));
    for name in ["list", "cancel"] {
        if offered.get(name).is_some() {
            let _ = tasks.insert(name, json!({}));
        }
    }
    if offered.get("requests").and_then(|requests| requests.get("tools")?.get("call")).is_some() {
        let _ = tasks.insert("requests", json!({ "tools": { "call": {} } }));
    }
    let _ = capabilities.insert(CAPABILITY, tasks);
}

#[cfg(test)]
mod tests {
    use agentlane_wire::h1::{HeadLimits, parse_request};
    use agentlane_wire::json::ScanLimits;
    use serde_json::{Value, json as value};

    use super::super::seal::KEY_LEN;
    use super::*;

    fn caller() -> Caller {
        let mut head = BytesMut::from("POST / HTTP/1.1\r\nhost: a\r\nauthorization: b\r\n\r\n");
        Caller::of(&parse_request(&mut head, &HeadLimits::default()).unwrap().unwrap().headers)
    }

    #[test]
    fn ids_are_the_same_each_time_and_one_callers_alone() {
        let (sealer, caller) = (Sealer::new(&[7; KEY_LEN]), caller());
        let naming = |target| Naming { sealer: &sealer, caller: &caller, target };
        for own in ["", "786512e2-9e0d-44bd-8f29-789f320fe840", "ä\"\0x"] {
            let outward = naming("files").outward(own).unwrap();
            assert_eq!(Some(&outward), naming("files").outward(own).as_ref());
            assert_ne!(Some(&outward), naming("notes").outward(own).as_ref());
            assert_eq!(open(&sealer, &caller, &outward), Some(("files".to_owned(), own.to_owned())));
            assert_eq!(open(&sealer, &Caller::NOBODY, &outward), None);
            assert_eq!(open(&Sealer::new(&[8; KEY_LEN]), &caller, &outward), None);
        }
        for text in ["", "t1", &naming("files").outward("x").unwrap()[1..]] {
            assert_eq!(open(&sealer, &caller, text), None, "{text}");
        }
    }

    /// The message with its ids renamed, and those put back wherever they stand.
    fn renamed(message: &Value, flat: bool) -> Value {
        let (sealer, caller) = (Sealer::new(&[7; KEY_LEN]), caller());
        let naming = Naming { sealer: &sealer, caller: &caller, target: "a" };
        let bytes = message.to_string();
        let envelope = json::scan(bytes.as_bytes(), &ScanLimits::default()).unwrap();
        let mut splice = Splice::new();
        match envelope.result {
            Some(result) => naming.result(&mut splice, bytes.as_bytes(), result, flat),
            None => naming.message(&mut splice, bytes.as_bytes(), &envelope),
        }
        let text = splice.contiguous(bytes.as_bytes()).unwrap();
        let outward = naming.outward("own").unwrap();
        serde_json::from_str(&std::str::from_utf8(&text).unwrap().replace(&outward, "OUT")).unwrap()
    }

    #[test]
    fn every_place_of_an_id() {
        let related = |id: &str| value!({ RELATED: { "taskId": id }, "x": 1 });
        let answer = |result: Value| value!({ "jsonrpc": "2.0", "id": 1, "result": result });
        let told = |method: &str, params: Value| value!({ "jsonrpc": "2.0", "method": method, "params": params });
        let cases = [
            (
                true,
                answer(value!({ "taskId": "own", "status": "working" })),
                answer(value!({ "taskId": "OUT", "status": "working" })),
            ),
            (false, answer(value!({ "taskId": "own" })), answer(value!({ "taskId": "own" }))),
            (false, answer(value!({ "task": { "taskId": "own" } })), answer(value!({ "task": { "taskId": "OUT" } }))),
            (
                false,
                answer(value!({ "content": [], "_meta": related("own") })),
                answer(value!({ "content": [], "_meta": related("OUT") })),
            ),
            (
                false,
                told(STATUS, value!({ "taskId": "own", "_meta": related("own") })),
                told(STATUS, value!({ "taskId": "OUT", "_meta": related("OUT") })),
            ),
            // Of the client's own task.
            (false, told("tasks/get", value!({ "taskId": "own" })), told("tasks/get", value!({ "taskId": "own" }))),
            (
                false,
                told("elicitation/create", value!({ "message": "own", "_meta": related("own") })),
                told("elicitation/create", value!({ "message": "own", "_meta": related("OUT") })),
            ),
            (true, answer(value!({ "taskId": 7 })), answer(value!({ "taskId": 7 }))),
        ];
        for (flat, given, expected) in cases {
            assert_eq!(renamed(&given, flat), expected);
        }
    }

    #[test]
    fn answers_of_clients_get_the_own_id_back() {
        let (sealer, caller) = (Sealer::new(&[7; KEY_LEN]), caller());
        let outward = Naming { sealer: &sealer, caller: &caller, target: "a" }.outward("own").unwrap();
        let of = |id: &str| value!({ "jsonrpc": "2.0", "id": 1, "result": { "_meta": { RELATED: { "taskId": id } } } });
        let put = |message: &Value, caller: &Caller| {
            let message = Bytes::from(message.to_string());
            let envelope = json::scan(&message, &ScanLimits::default()).unwrap();
            inward(&sealer, caller, &message, &envelope).map(|text| serde_json::from_slice::<Value>(&text).unwrap())
        };
        assert_eq!(put(&of(&outward), &caller), Some(of("own")));
        assert_eq!(put(&of(&outward), &Caller::NOBODY), None);
        assert_eq!(put(&value!({ "jsonrpc": "2.0", "id": 1, "result": {} }), &caller), None);
    }

    #[test]
    fn lists_and_their_cursors() {
        let (sealer, caller) = (Sealer::new(&[7; KEY_LEN]), caller());
        let mut out = BytesMut::new();
        for target in ["a", "b"] {
            let naming = Naming { sealer: &sealer, caller: &caller, target };
            let text = br#"{"tasks":[{"taskId":"1","x":[1]},{"noId":1},{"taskId":"2"}]}"#;
            naming.list(&mut out, text, json::root(text).unwrap());
        }
        let text = [b"[", &out[..], b"]"].concat();
        let tasks: Vec<Value> = serde_json::from_slice(&text).unwrap();
        let whose: Vec<_> =
            tasks.iter().map(|task| open(&sealer, &caller, task["taskId"].as_str().unwrap()).unwrap()).collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(whose, [pair("a", "1"), pair("a", "2"), pair("b", "1"), pair("b", "2")]);
        assert_eq!(tasks[0]["x"], value!([1]));
        let rest = [("a", "".to_owned()), ("b", "n\u{e4}xt".to_owned())];
        let cursor = seal_cursor(&sealer, &caller, &rest).unwrap();
        assert_eq!(open_cursor(&sealer, &caller, &cursor), Some(vec![pair("a", ""), pair("b", "n\u{e4}xt")]));
        assert_eq!(open_cursor(&sealer, &Caller::NOBODY, &cursor), None);
        assert_eq!(open_cursor(&sealer, &caller, "made up"), None);
    }

    #[test]
    fn what_any_target_can_do_is_offered() {
        let mut all = json!({});
        unite(&mut all, &json!({ "tools": {} }));
        assert_eq!(all, json!({}));
        unite(&mut all, &json!({ "tasks": { "list": {}, "requests": { "other": {} } } }));
        unite(&mut all, &json!({ "tasks": { "cancel": {}, "requests": { "tools": { "call": {} } } } }));
        assert_eq!(all, json!({ "tasks": { "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } } }));
    }
}
