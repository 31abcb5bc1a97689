//! Agreement with serde_json and between the vector levels, on generated texts whole and damaged.

use std::collections::BTreeMap;

use agentlane_wire::json::{
    Envelope, JsonError, JsonErrorKind, Level, Range32, ScanLimits, batch_elements, elements, get, members, root, scan,
    scan_at, string, validate, validate_at,
};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::generate::{Dice, damage, message, value};

const CASES: u64 = 100_000;

/// Deep enough that generated texts never meet it; serde_json's `Value` stops at 128.
const CHECKED: ScanLimits = ScanLimits { max_depth: 100, validate_below: u32::MAX };
const SKIPPED: ScanLimits = ScanLimits { max_depth: 100, validate_below: 0 };

/// Runs `check` on a message, a value, and a damaged form of each, for every seed.
fn for_each_text(cases: u64, check: impl Fn(&mut Dice, &[u8])) {
    for seed in 0..cases {
        let mut dice = Dice::new(seed);
        let mut text = if dice.one_in(4) { value(&mut dice) } else { message(&mut dice) }.into_bytes();
        check(&mut dice, &text);
        damage(&mut dice, &mut text);
        check(&mut dice, &text);
    }
}

/// `RawValue` takes any depth, repeated keys, lone surrogates and numbers of any size, as `validate` does.
fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

#[test]
fn validate_agrees_with_serde_json() {
    let valid = std::cell::Cell::new(0u32);
    for_each_text(CASES, |_, bytes| {
        let ours = validate(bytes, &CHECKED);
        assert_eq!(ours.is_ok(), is_json(bytes), "{ours:?} {:?}", String::from_utf8_lossy(bytes));
        valid.set(valid.get() + u32::from(ours.is_ok()));
        if let Err(error) = ours {
            assert!(error.offset as usize <= bytes.len(), "{error:?}");
        }
    });
    // The generator makes JSON, and the damage mostly breaks it: both sides of the comparison are exercised.
    assert!((CASES as u32..(2 * CASES - CASES / 2) as u32).contains(&valid.get()), "{}", valid.get());
}

#[test]
fn scan_finds_what_serde_json_finds() {
    for_each_text(CASES, |_, bytes| {
        let skipped = scan(bytes, &SKIPPED);
        let checked = scan(bytes, &CHECKED);
        if let Ok(envelope) = &skipped {
            assert_in_bounds(bytes, envelope);
        }
        if !is_json(bytes) {
            assert!(checked.is_err(), "{:?}", String::from_utf8_lossy(bytes));
            return;
        }
        assert_eq!(skipped, checked, "{:?}", String::from_utf8_lossy(bytes));
        // `Value` refuses lone surrogates; what they are in is then compared with nothing.
        let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
        match checked {
            Ok(envelope) => assert_fields(bytes, &envelope, &value),
            Err(error) if !value.is_object() => {
                let expected = if value.is_array() { JsonErrorKind::Batch } else { JsonErrorKind::NotAnObject };
                assert_eq!(error.kind, expected);
            }
            Err(error) => assert_eq!(Some(error.kind), routing_fault(bytes), "{:?}", String::from_utf8_lossy(bytes)),
        }
    });
}

#[test]
fn levels_agree() {
    for_each_text(CASES / 2, |_, bytes| {
        let expected = (scan_at(Level::Portable, bytes, &SKIPPED), validate_at(Level::Portable, bytes, &SKIPPED));
        for level in Level::available() {
            let found = (scan_at(level, bytes, &SKIPPED), validate_at(level, bytes, &SKIPPED));
            assert_eq!(found, expected, "{level:?} {:?}", String::from_utf8_lossy(bytes));
        }
    });
}

/// The same text at every offset within a vector, between bytes that would mislead a walk that reads past its end.
#[test]
fn levels_agree_at_every_alignment() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let mut text = message(&mut dice).into_bytes();
        if dice.one_in(2) {
            damage(&mut dice, &mut text);
        }
        let expected = (scan_at(Level::Portable, &text, &SKIPPED), validate_at(Level::Portable, &text, &SKIPPED));
        for offset in 0..64 {
            let mut padded = vec![b'"'; offset];
            padded.extend_from_slice(&text);
            padded.extend_from_slice(b"}}}}\"\\\"}}");
            let bytes = &padded[offset..offset + text.len()];
            for level in Level::available() {
                let found = (scan_at(level, bytes, &SKIPPED), validate_at(level, bytes, &SKIPPED));
                assert_eq!(found, expected, "{level:?} at {offset} {:?}", String::from_utf8_lossy(bytes));
            }
        }
    }
}

/// Every length of string, with an escape at every place, so that each tail and block border is met.
#[test]
fn levels_agree_on_every_tail() {
    for length in 0..200 {
        for backslashes in [0, 1, 2, 3, 63, 64, 65] {
            let text = format!(
                r#"{{"params":{{"a":[{{"b":"{}{}\"]}}"}}]}},"id":"{}"}}"#,
                "x".repeat(length),
                "\\\\".repeat(backslashes),
                "y".repeat(length)
            );
            assert!(is_json(text.as_bytes()));
            for level in Level::available() {
                let envelope = scan_at(level, text.as_bytes(), &SKIPPED).expect("scans");
                let id = envelope.id.expect("has an id").range;
                assert_eq!(id.len(), length + 2, "{level:?} {text}");
                assert_eq!(validate_at(level, text.as_bytes(), &SKIPPED), Ok(()));
            }
        }
    }
}

#[test]
fn cursor_survives_any_bytes_and_ranges() {
    for_each_text(CASES / 4, |dice, bytes| {
        let (a, b) = (dice.roll(bytes.len() + 2), dice.roll(bytes.len() + 2));
        let Some(range) = Range32::new(a.min(b), a.max(b)) else { return };
        let found = members(bytes, range).filter_map(Result::ok).flat_map(|member| [member.key, member.value]);
        let found = found.chain(elements(bytes, range).filter_map(Result::ok));
        found.for_each(|part| assert!(range.start() < part.start() && part.end() <= range.end()));
        let _ =
            (get(bytes, range, "name"), string(bytes, range), root(bytes), batch_elements(bytes).map(Iterator::count));
    });
}

#[test]
fn cursor_finds_what_serde_json_finds() {
    for_each_text(CASES / 4, |_, bytes| {
        if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
            assert_tree(bytes, root(bytes).expect("one value"), &value);
        }
    });
}

fn assert_tree(bytes: &[u8], range: Range32, value: &Value) {
    match value {
        Value::Object(map) => {
            // Of a repeated key serde_json keeps the last value.
            let found: BTreeMap<String, Range32> = members(bytes, range)
                .map(|member| member.expect("a member"))
                .map(|member| (string(bytes, member.key).expect("a key").into_owned(), member.value))
                .collect();
            assert_eq!(found.len(), map.len());
            for (key, value) in map {
                assert_tree(bytes, found[key], value);
                assert_eq!(get(bytes, range, key), Ok(Some(found[key])));
            }
        }
        Value::Array(values) => {
            let found: Vec<Range32> = elements(bytes, range).map(|element| element.expect("an element")).collect();
            assert_eq!(found.len(), values.len());
            found.iter().zip(values).for_each(|(range, value)| assert_tree(bytes, *range, value));
        }
        Value::String(text) => assert_eq!(string(bytes, range).as_deref(), Ok(text.as_str())),
        scalar => {
            let raw = range.of(bytes).expect("in bounds");
            assert_eq!(serde_json::from_slice::<Value>(raw).ok().as_ref(), Some(scalar));
        }
    }
}

fn fields(envelope: &Envelope) -> [(&'static str, Option<Range32>); 28] {
    [
        ("/jsonrpc", envelope.jsonrpc),
        ("/method", envelope.method),
        ("/id", envelope.id.map(|id| id.range)),
        ("/params", envelope.params),
        ("/result", envelope.result),
        ("/error", envelope.error),
        ("/params/name", envelope.name),
        ("/params/uri", envelope.uri),
        ("/params/arguments", envelope.arguments),
        ("/params/cursor", envelope.cursor),
        ("/params/ref", envelope.reference),
        ("/params/level", envelope.level),
        ("/params/requestId", envelope.request_id),
        ("/params/taskId", envelope.task_id),
        ("/params/progressToken", envelope.progress_token),
        ("/params/protocolVersion", envelope.protocol_version),
        ("/params/capabilities", envelope.capabilities),
        ("/params/clientInfo", envelope.client_info),
        ("/params/inputResponses", envelope.input_responses),
        ("/params/requestState", envelope.request_state),
        ("/params/_meta", envelope.meta),
        ("/params/_meta/progressToken", envelope.meta_progress_token),
        ("/params/_meta/io.modelcontextprotocol~1protocolVersion", envelope.meta_protocol_version),
        ("/params/_meta/io.modelcontextprotocol~1clientCapabilities", envelope.meta_client_capabilities),
        ("/params/_meta/io.modelcontextprotocol~1clientInfo", envelope.meta_client_info),
        ("/params/_meta/io.modelcontextprotocol~1logLevel", envelope.meta_log_level),
        ("/params/_meta/io.modelcontextprotocol~1subscriptionId", envelope.meta_subscription_id),
        ("/params/_meta/io.modelcontextprotocol~1related-task", envelope.meta_related_task),
    ]
}

fn assert_in_bounds(bytes: &[u8], envelope: &Envelope) {
    let ranges = fields(envelope).into_iter().filter_map(|(_, range)| range);
    ranges.for_each(|range| assert!(range.of(bytes).is_some_and(|raw| !raw.is_empty())));
}

fn assert_fields(bytes: &[u8], envelope: &Envelope, value: &Value) {
    for (pointer, range) in fields(envelope) {
        let raw = range.and_then(|range| range.of(bytes));
        let found = raw.map(|raw| serde_json::from_slice::<Value>(raw).expect("the range of a value"));
        assert_eq!(found.as_ref(), value.pointer(pointer), "{pointer} {:?}", String::from_utf8_lossy(bytes));
    }
}

/// What `scan` must refuse in valid JSON, found the slow way: the first repeated or escaped routing key.
fn routing_fault(bytes: &[u8]) -> Option<JsonErrorKind> {
    let walk = || -> Result<Option<JsonErrorKind>, JsonError> { faults_of(bytes, root(bytes)?, "") };
    walk().expect("valid json")
}

fn faults_of(bytes: &[u8], object: Range32, path: &str) -> Result<Option<JsonErrorKind>, JsonError> {
    let mut seen = Vec::new();
    for member in members(bytes, object) {
        let member = member?;
        let Ok(key) = string(bytes, member.key) else {
            return Ok(Some(JsonErrorKind::BadEscape));
        };
        let pointer = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        if !fields(&Envelope::default()).iter().any(|(known, _)| *known == pointer) {
            continue;
        }
        if member.key.of(bytes).is_some_and(|raw| raw.contains(&b'\\')) {
            return Ok(Some(JsonErrorKind::EscapedKey));
        }
        if seen.contains(&pointer) {
            return Ok(Some(JsonErrorKind::DuplicateKey));
        }
        let nests = matches!(pointer.as_str(), "/params" | "/params/_meta") && bytes[member.value.start()] == b'{';
        if nests && let Some(fault) = faults_of(bytes, member.value, &pointer)? {
            return Ok(Some(fault));
        }
        seen.push(pointer);
    }
    Ok(None)
}
