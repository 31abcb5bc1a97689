//! The envelope scanner beside serde_json: what is valid, and where the routing members lie.
#![no_main]

use agentlane_wire::json::{Level, Range32, ScanLimits, scan, scan_at, validate};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

/// serde_json's `Value` stops at a depth of 128, `RawValue` at none; inputs are short.
const CHECKED: ScanLimits = ScanLimits { max_depth: 1024, validate_below: u32::MAX };
const SKIPPED: ScanLimits = ScanLimits { max_depth: 1024, validate_below: 0 };

fuzz_target!(|data: &[u8]| {
    if data.len() > 1024 {
        return;
    }
    let is_json = serde_json::from_slice::<&RawValue>(data).is_ok();
    assert_eq!(validate(data, &CHECKED).is_ok(), is_json);
    let (checked, skipped) = (scan(data, &CHECKED), scan(data, &SKIPPED));
    for level in Level::available() {
        assert_eq!((scan_at(level, data, &CHECKED), scan_at(level, data, &SKIPPED)), (checked, skipped), "{level:?}");
    }
    if let Ok(envelope) = &skipped {
        let ranges = [envelope.method, envelope.params, envelope.name, envelope.uri, envelope.meta, envelope.result];
        assert!(ranges.into_iter().flatten().all(|range| range.of(data).is_some()));
    }
    if !is_json {
        return assert!(checked.is_err());
    }
    assert_eq!(checked, skipped);
    let (Ok(envelope), Ok(value)) = (checked, serde_json::from_slice::<Value>(data)) else { return };
    let same = |range: Option<Range32>, expected: Option<&Value>| {
        let found = range.and_then(|range| range.of(data)).map(|raw| serde_json::from_slice::<Value>(raw).unwrap());
        assert_eq!(found.as_ref(), expected);
    };
    same(envelope.method, value.get("method"));
    same(envelope.params, value.get("params"));
    same(envelope.result, value.get("result"));
    same(envelope.error, value.get("error"));
    same(envelope.id.map(|id| id.range), value.get("id"));
    let params = value.get("params");
    for (range, key) in
        [(envelope.name, "name"), (envelope.uri, "uri"), (envelope.arguments, "arguments"), (envelope.meta, "_meta")]
    {
        same(range, params.and_then(|params| params.get(key)));
    }
});
