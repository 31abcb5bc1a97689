//! Cases of `scan`: kinds of message, ids, routing keys, refusals.

use agentlane_wire::json::{
    IdKind, InvalidReason, JsonErrorKind, MessageKind, ScanLimits, batch_elements, is_batch, raw_eq, scan, string,
};

use crate::text;

fn kind(message: &str) -> MessageKind {
    scan(message.as_bytes(), &ScanLimits::default()).expect("scans").kind
}

fn refusal(message: &[u8]) -> JsonErrorKind {
    let validated = scan(message, &ScanLimits::default()).expect_err("refused").kind;
    let skipped = scan(message, &ScanLimits { validate_below: 0, ..ScanLimits::default() });
    if let Err(skipped) = skipped {
        assert_eq!(skipped.kind, validated, "{:?}", String::from_utf8_lossy(message));
    }
    validated
}

#[test]
fn kinds() {
    use InvalidReason::*;
    use MessageKind::*;
    let cases = [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Request),
        (r#" {"method":"tools/list","params":{},"id":"a","jsonrpc":"2.0"} "#, Request),
        (r#"{"jsonrpc":"2\u002e0","id":1,"method":"ping"}"#, Request),
        (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, Notification),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Response),
        (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, Response),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":""}}"#, ErrorResponse),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":""}}"#, ErrorResponse),
        (r#"{"jsonrpc":"2.0","error":{"code":-1,"message":""}}"#, ErrorResponse),
        (r#"{}"#, Invalid(VersionMissing)),
        (r#"{"id":1,"method":"ping"}"#, Invalid(VersionMissing)),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, Invalid(VersionUnsupported)),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, Invalid(VersionUnsupported)),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, Invalid(IdKind)),
        (r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, Invalid(IdKind)),
        (r#"{"jsonrpc":"2.0","id":[1],"result":{}}"#, Invalid(IdKind)),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, Invalid(IdNull)),
        (r#"{"jsonrpc":"2.0","id":null,"result":{}}"#, Invalid(IdNull)),
        (r#"{"jsonrpc":"2.0","result":{}}"#, Invalid(IdMissing)),
        (r#"{"jsonrpc":"2.0","id":1}"#, Invalid(MethodMissing)),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, Invalid(MethodNotString)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, Invalid(ParamsNotObject)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#, Invalid(ParamsNotObject)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, Invalid(MethodAndOutcome)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","error":{}}"#, Invalid(MethodAndOutcome)),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, Invalid(ResultAndError)),
        (r#"{"jsonrpc":"2.0","id":1,"error":"boom"}"#, Invalid(ErrorNotObject)),
    ];
    for (message, expected) in cases {
        assert_eq!(kind(message), expected, "{message}");
    }
}

#[test]
fn ids_keep_their_bytes_and_type() {
    let cases = [
        ("0", IdKind::Integer),
        ("-7", IdKind::Integer),
        ("9007199254740993", IdKind::Integer),
        ("123456789012345678901234567890123456789012345678901234567890", IdKind::Integer),
        ("1.0", IdKind::Number),
        ("1e3", IdKind::Number),
        ("1E3", IdKind::Number),
        (r#""""#, IdKind::String),
        (r#""1""#, IdKind::String),
        (r#""null""#, IdKind::String),
        (r#""a\"b\\""#, IdKind::String),
        (r#""\u0031""#, IdKind::String),
        ("\"\u{1f600}\"", IdKind::String),
        ("null", IdKind::Null),
        ("false", IdKind::Other),
        (r#"{"a":[]}"#, IdKind::Other),
    ];
    for (raw, expected) in cases {
        let message = format!(r#"{{"jsonrpc":"2.0","id" : {raw} ,"method":"ping"}}"#);
        let envelope = scan(message.as_bytes(), &ScanLimits::default()).expect("scans");
        let id = envelope.id.expect("has an id");
        assert_eq!((id.kind, text(message.as_bytes(), Some(id.range))), (expected, Some(raw)));
        let answerable = !matches!(expected, IdKind::Null | IdKind::Other);
        assert_eq!(envelope.answer_id().is_some(), answerable, "{raw}");
    }
}

#[test]
fn an_invalid_request_still_gives_its_id() {
    let message = br#"{"id":"x","params":7}"#;
    let envelope = scan(message, &ScanLimits::default()).expect("scans");
    assert_eq!(text(message, envelope.answer_id()), Some(r#""x""#));
}

#[test]
fn routing_members() {
    let message = br#"{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"arguments":{"name":"no","_meta":{"progressToken":0}},
        "name":"echo","_meta":{"progressToken":"p","io.modelcontextprotocol/protocolVersion":"2026-07-28","x":{"progressToken":9}}},
        "extra":{"method":"no","id":2}}"#;
    let envelope = scan(message, &ScanLimits::default()).expect("scans");
    assert_eq!(envelope.kind, MessageKind::Request);
    assert!(envelope.method_is(message, "tools/call"));
    assert!(!envelope.method_is(message, "tools\\/call"));
    assert_eq!(text(message, envelope.name), Some(r#""echo""#));
    assert_eq!(text(message, envelope.meta_progress_token), Some(r#""p""#));
    assert_eq!(text(message, envelope.meta_protocol_version), Some(r#""2026-07-28""#));
    assert_eq!(envelope.progress_token, None);
    assert_eq!(text(message, envelope.arguments).map(str::len), Some(41));
}

#[test]
fn refusals() {
    use JsonErrorKind::*;
    let cases: [(&[u8], JsonErrorKind); 37] = [
        (b"", UnexpectedEnd),
        (b"  ", UnexpectedEnd),
        (b"{", UnexpectedEnd),
        (br#"{"id"#, UnexpectedEnd),
        (br#"{"id":1"#, UnexpectedEnd),
        (br#"{"id":"#, UnexpectedEnd),
        (br#"{"id":"a"#, UnexpectedEnd),
        (br#"{"id":"a\"}"#, UnexpectedEnd),
        (br#"{"id":tru"#, UnexpectedEnd),
        (br#"{"id":1}x"#, TrailingBytes),
        (br#"{"id":1}{}"#, TrailingBytes),
        (b"{\"id\":1}\0", TrailingBytes),
        (b"\xef\xbb\xbf{}", UnexpectedByte),
        (b"+1", UnexpectedByte),
        (br#"{"id":1,}"#, UnexpectedByte),
        (br#"{,"id":1}"#, UnexpectedByte),
        (br#"{"id" 1}"#, UnexpectedByte),
        (br#"{"id":1 "a":2}"#, UnexpectedByte),
        (br#"{id:1}"#, UnexpectedByte),
        (br#"{'id':1}"#, UnexpectedByte),
        (br#"{"id":01}"#, BadNumber),
        (br#"{"id":-}"#, BadNumber),
        (br#"{"id":1.}"#, BadNumber),
        (br#"{"id":1e}"#, BadNumber),
        (br#"{"id":0x1}"#, BadNumber),
        (br#"{"id":NaN}"#, UnexpectedByte),
        (br#"{"id":nul}"#, BadLiteral),
        (b"{\"id\":\"a\nb\"}", ControlInString),
        (br#"{"id":"\x"}"#, BadEscape),
        (b"{\"id\":\"\xff\"}", BadUtf8),
        (br#"[{"id":1}]"#, Batch),
        (b"17", NotAnObject),
        (br#""text""#, NotAnObject),
        (br#"{"id":1,"id":1}"#, DuplicateKey),
        (br#"{"params":{"name":"a","name":"b"}}"#, DuplicateKey),
        (br#"{"m\u0065thod":"a"}"#, EscapedKey),
        (br#"{"params":{"n\u0061me":"a"}}"#, EscapedKey),
    ];
    for (message, expected) in cases {
        assert_eq!(refusal(message), expected, "{:?}", String::from_utf8_lossy(message));
    }
    assert_eq!(refusal(br#"{"params":{},"params":{}}"#), DuplicateKey);
    assert_eq!(refusal(br#"{"\u0069d":1}"#), EscapedKey);
    assert_eq!(refusal(br#"{"params":{"_meta":{"progress\u0054oken":1}}}"#), EscapedKey);
    assert_eq!(refusal(br#"{"params":{"_meta":{"progressToken":1,"progressToken":1}}}"#), DuplicateKey);
}

#[test]
fn keys_that_route_nothing_may_repeat_and_be_escaped() {
    let message = br#"{"jsonrpc":"2.0","method":"x","a":1,"a":2,"\u0062":3,"params":{"a":1,"a":1,"arguments":{"n\u0061me":1,"name":2,"name":3}}}"#;
    assert_eq!(scan(message, &ScanLimits::default()).expect("scans").kind, MessageKind::Notification);
}

#[test]
fn depth_is_limited_whether_validated_or_not() {
    for validate_below in [0, u32::MAX] {
        let limits = ScanLimits { max_depth: 10, validate_below };
        let nested = |depth: usize| {
            format!(
                r#"{{"a":{}{},"params":{{"_meta":{{"x":{}{}}}}}}}"#,
                "[".repeat(depth),
                "]".repeat(depth),
                "[".repeat(depth - 2),
                "]".repeat(depth - 2)
            )
        };
        assert!(scan(nested(9).as_bytes(), &limits).is_ok());
        let error = scan(nested(10).as_bytes(), &limits).expect_err("too deep");
        assert_eq!((error.kind, error.offset), (JsonErrorKind::TooDeep, 14));
        let shallow = ScanLimits { max_depth: 1, validate_below };
        assert!(scan(br#"{"a":1}"#, &shallow).is_ok());
        assert!(scan(br#"{"params":{}}"#, &shallow).is_err());
        assert!(scan(br#"{"a":[]}"#, &shallow).is_err());
    }
    let bomb = format!(r#"{{"a":{}"#, "[".repeat(1_000_000));
    let error = scan(bomb.as_bytes(), &ScanLimits::default()).expect_err("too deep");
    assert_eq!(error.kind, JsonErrorKind::TooDeep);
}

#[test]
fn batches() {
    let batch = br#" [ {"jsonrpc":"2.0","id":1,"method":"a"} , {"jsonrpc":"2.0","method":"b"}, 7 ] "#;
    assert!(is_batch(batch) && !is_batch(b"{}") && !is_batch(b""));
    let parts: Vec<_> = batch_elements(batch).expect("an array").map(|part| part.expect("an element")).collect();
    assert_eq!(text(batch, Some(parts[1])), Some(r#"{"jsonrpc":"2.0","method":"b"}"#));
    assert_eq!(parts.len(), 3);
    assert_eq!(batch_elements(b"[]").expect("an array").count(), 0);
    assert!(batch_elements(b"{}").is_err());
    for broken in ["[1,]", "[1", "[1] x", "[1]]", "[,1]", "[1 2]"] {
        let last = batch_elements(broken.as_bytes()).expect("an array").last();
        assert!(matches!(last, Some(Err(_))), "{broken}");
    }
}

#[test]
fn strings_compare_as_they_decode() {
    let cases = [
        (r#""tools/call""#, "tools/call", true),
        (r#""tools\/call""#, "tools/call", true),
        (r#""\u0074ools/call""#, "tools/call", true),
        (r#""tools/cal""#, "tools/call", false),
        (r#""\n""#, "\\n", false),
        (r#""\\n""#, "\\n", true),
        (r#""""#, "", true),
        ("7", "7", false),
    ];
    for (raw, expected, equal) in cases {
        let range = crate::whole(raw.as_bytes());
        assert_eq!(raw_eq(raw.as_bytes(), range, expected), equal, "{raw} {expected}");
        if equal {
            assert_eq!(string(raw.as_bytes(), range).as_deref(), Ok(expected));
        }
    }
}
