//! Cases of `validate`: what RFC 8259 says and serde_json's `Value` does not.

use agentlane_wire::json::{DEPTH_MAX, JsonErrorKind, ScanLimits, validate};

#[test]
fn accepts_what_the_grammar_accepts() {
    let cases = [
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        "1e999999",
        "-0",
        "0e0",
        "1E-7",
        r#"{"a":1,"a":2}"#,
        "[[],{},[{}]]",
        " [ ] ",
        "\t{ \"\" : null }\r\n",
        "true",
        r#""\u0000""#,
        "\"\u{7f}\u{2028}\"",
    ];
    for case in cases {
        assert_eq!(validate(case.as_bytes(), &ScanLimits::default()), Ok(()), "{case}");
    }
}

#[test]
fn names_the_offence_and_its_place() {
    use JsonErrorKind::*;
    let cases: [(&[u8], JsonErrorKind, u32); 16] = [
        (b"", UnexpectedEnd, 0),
        (b"[1,2", UnexpectedEnd, 4),
        (b"[1,]", UnexpectedByte, 3),
        (b"[1}", UnexpectedByte, 2),
        (b"{\"a\":1]", UnexpectedByte, 6),
        (b"{1:2}", UnexpectedByte, 1),
        (b"[1] 2", TrailingBytes, 4),
        (b"[\"a\tb\"]", ControlInString, 3),
        (b"[\"a\\q\"]", BadEscape, 3),
        (b"[\"\\u12g4\"]", BadEscape, 2),
        (b"\"\\u12", UnexpectedEnd, 5),
        (b"[\"\xc0\x80\"]", BadUtf8, 2),
        (b"[\"\xed\xa0\x80\"]", BadUtf8, 2),
        (b"[00]", BadNumber, 1),
        (b"[1.5.2]", BadNumber, 4),
        (b"[falsy]", BadLiteral, 1),
    ];
    for (bytes, kind, offset) in cases {
        let error = validate(bytes, &ScanLimits::default()).expect_err("refused");
        assert_eq!((error.kind, error.offset), (kind, offset), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn depth_is_limited() {
    let nested = |depth: u32| format!("{}{}", "[".repeat(depth as usize), "]".repeat(depth as usize));
    let limits = |max_depth| ScanLimits { max_depth, ..ScanLimits::default() };
    for depth in [1, 63, 64, 65, 128, DEPTH_MAX] {
        assert_eq!(validate(nested(depth).as_bytes(), &limits(depth)), Ok(()));
        let error = validate(nested(depth + 1).as_bytes(), &limits(depth)).expect_err("too deep");
        assert_eq!((error.kind, error.offset), (JsonErrorKind::TooDeep, depth));
    }
    // A limit past what the stack keeps is held at what it keeps.
    assert!(validate(nested(DEPTH_MAX + 1).as_bytes(), &limits(u32::MAX)).is_err());
}
