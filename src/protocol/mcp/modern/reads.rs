//! Results of `resources/read` that may be given again (2026-07-28, caching): which requests they answer, what is kept of
//! them, and what a later request gets. Pure; who may have them is for [`cache`](crate::protocol::mcp::cache).

use std::time::Duration;

use agentlane_wire::json::{self, Envelope, ScanLimits, Splice};
use bytes::Bytes;

use super::results::{self, ResultKind};
use crate::protocol::mcp::cache::Hints;
use crate::protocol::mcp::error;

/// Messages are the gateway's or were scanned before.
const LIMITS: ScanLimits = ScanLimits { max_depth: 128, validate_below: 0 };

/// The URI that a request reads, if its result depends on nothing else: it has no other parameters, least of all answers
/// to what the server asked, whose results must not be kept.
pub fn uri(body: &[u8], envelope: &Envelope) -> Option<String> {
    let params = envelope.params?;
    for member in json::members(body, params) {
        let key = member.ok()?.key;
        if !json::raw_eq(body, key, "uri") && !json::raw_eq(body, key, "_meta") {
            return None;
        }
    }
    json::string(body, envelope.uri?).ok().map(std::borrow::Cow::into_owned)
}

/// The result of a response with its server's hints; `None`: there is none, or not yet.
pub fn result(message: &[u8]) -> Option<(Bytes, Hints)> {
    let result = json::scan(message, &LIMITS).ok()?.result?;
    if results::kind(message, result) != ResultKind::Complete {
        return None;
    }
    // Without the time, or with a negative one, it holds for no time.
    let ttl = json::get(message, result, "ttlMs").ok()?.and_then(|ttl| json::as_u64(message, ttl)).unwrap_or_default();
    let scope = json::get(message, result, "cacheScope").ok()?;
    let public = scope.is_some_and(|scope| json::raw_eq(message, scope, "public"));
    Some((Bytes::copy_from_slice(result.of(message)?), Hints { ttl: Duration::from_millis(ttl), public }))
}

/// A kept result as the response to a request of this id, with what is left of its time.
pub fn again(result: &Bytes, id: &[u8], hints: Hints) -> Bytes {
    let edited = || {
        let (ttl, scope) = (hints.ttl_ms().to_string(), format!("\"{}\"", hints.scope()));
        let mut splice = Splice::new();
        let set = [("ttlMs", ttl.as_bytes()), ("cacheScope", scope.as_bytes())];
        splice.edit_object(result, json::root(result)?, &set, &[])?;
        splice.contiguous(result)
    };
    error::result_response(id, &edited().unwrap_or_else(|_: json::JsonError| result.clone()))
}

/// A response whose result is its reader's alone, whatever its server says of it.
pub fn for_one(message: Bytes) -> Bytes {
    let edited = || {
        let result = json::scan(&message, &LIMITS).ok()?.result?;
        let scope = json::get(&message, result, "cacheScope").ok()??;
        let mut splice = Splice::new();
        splice.replace_string(scope, "private");
        splice.contiguous(&message).ok()
    };
    edited().unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json as value};

    use super::*;

    #[test]
    fn a_result_for_one() {
        let cases = [
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"cacheScope":"public","ttlMs":5}}"#,
                r#"{"jsonrpc":"2.0","id":1,"result":{"cacheScope":"private","ttlMs":5}}"#,
            ),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"ttlMs":5}}"#, r#"{"jsonrpc":"2.0","id":1,"result":{"ttlMs":5}}"#),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#, r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#),
        ];
        for (message, expected) in cases {
            assert_eq!(for_one(Bytes::from_static(message.as_bytes())), expected);
        }
    }

    #[test]
    fn only_what_depends_on_the_uri_alone() {
        let read = |params: Value| {
            let body = value!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": params}).to_string();
            uri(body.as_bytes(), &json::scan(body.as_bytes(), &LIMITS).unwrap())
        };
        assert_eq!(read(value!({"uri": "a:b/ä", "_meta": {"x": 1}})).as_deref(), Some("a:b/ä"));
        for other in [
            value!({"uri": "a:b", "inputResponses": {}}),
            value!({"uri": "a:b", "requestState": "s"}),
            value!({"uri": "a:b", "range": "0-5"}),
            value!({"_meta": {}}),
            value!({"uri": 7}),
        ] {
            assert_eq!(read(other.clone()), None, "{other}");
        }
    }

    #[test]
    fn what_is_kept_is_complete_and_holds_for_a_while() {
        let keep = |text: Value| {
            let message = value!({"jsonrpc": "2.0", "id": 1, "result": text}).to_string();
            result(message.as_bytes()).map(|(_, hints)| (hints.ttl_ms(), hints.public))
        };
        let good = value!({"resultType": "complete", "contents": [], "ttlMs": 5, "cacheScope": "public"});
        assert_eq!(keep(good.clone()), Some((5, true)));
        assert_eq!(keep(value!({"contents": [], "ttlMs": 5})), Some((5, false)), "private unless it says otherwise");
        let with = |key: &str, value: Value| {
            let mut changed = good.clone();
            changed[key] = value;
            keep(changed)
        };
        assert_eq!(with("ttlMs", value!(-1)), Some((0, true)));
        assert_eq!(with("ttlMs", value!("5")), Some((0, true)));
        assert_eq!(with("resultType", value!("input_required")), None);
        assert_eq!(with("cacheScope", value!("Public")), Some((5, false)));
        let error = value!({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "m"}}).to_string();
        assert!(result(error.as_bytes()).is_none());
    }

    #[test]
    fn it_is_given_again_with_what_is_left() {
        let result = Bytes::from_static(br#"{"ttlMs":5000,"contents":[],"cacheScope":"public","x":{"ttlMs":1}}"#);
        let hints = Hints { ttl: Duration::from_millis(17), public: false };
        let message: Value = serde_json::from_slice(&again(&result, b"\"id\"", hints)).unwrap();
        let expected = value!({"ttlMs": 17, "contents": [], "cacheScope": "private", "x": {"ttlMs": 1}});
        assert_eq!(message, value!({"jsonrpc": "2.0", "id": "id", "result": expected}));
    }
}
