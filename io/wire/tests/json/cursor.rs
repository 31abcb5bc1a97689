//! Cases of the cursor: access by key and path, scalars, escapes, and wrong use.

use agentlane_wire::json::{
    JsonErrorKind, Range32, ValueKind, as_bool, as_u64, elements, get, get_path, kind_of, members, quote_into, string,
};
use bytes::BytesMut;

use crate::{text, whole};

#[test]
fn paths_and_kinds() {
    let bytes = br#" {"a":{"b":[1,true,null,"s",{}],"b\/c":7},"n":-1} "#;
    let root = whole(bytes);
    let list = get_path(bytes, root, &["a", "b"]).expect("walks").expect("is there");
    let kinds: Vec<_> = elements(bytes, list).map(|element| kind_of(bytes, element.expect("an element"))).collect();
    use ValueKind::*;
    assert_eq!(kinds, [Number, Bool, Null, String, Object].map(Some));
    assert_eq!(text(bytes, get_path(bytes, root, &["a", "b/c"]).expect("walks")), Some("7"));
    assert_eq!(get_path(bytes, root, &["a", "x", "y"]), Ok(None));
    assert_eq!(get_path(bytes, root, &["n", "x"]).expect_err("no object").kind, JsonErrorKind::WrongKind);
    assert_eq!(get_path(bytes, root, &[]), Ok(Some(root)));
    assert_eq!(
        text(bytes, get(br#"{"a":1,"a":2}"#, whole(br#"{"a":1,"a":2}"#), "a").expect("walks")).map(str::len),
        Some(1)
    );
}

#[test]
fn scalars() {
    let number = |raw: &str| as_u64(raw.as_bytes(), whole(raw.as_bytes()));
    assert_eq!(number("0"), Some(0));
    assert_eq!(number("18446744073709551615"), Some(u64::MAX));
    for raw in ["18446744073709551616", "-1", "1.0", "1e2", "\"1\"", "null"] {
        assert_eq!(number(raw), None, "{raw}");
    }
    assert_eq!(as_bool(b"true", whole(b"true")), Some(true));
    assert_eq!(as_bool(b"null", whole(b"null")), None);
}

#[test]
fn text_goes_there_and_back() {
    for original in ["", "plain", "\"\\/\u{8}\u{c}\n\r\t\u{0}\u{1f}\u{7f}", "\u{e9}\u{1f600}\u{2028}", "a\\u0041"] {
        let mut raw = BytesMut::new();
        quote_into(&mut raw, original);
        assert_eq!(string(&raw, whole(&raw)).as_deref(), Ok(original));
        assert_eq!(serde_json::from_slice::<String>(&raw).ok().as_deref(), Some(original));
    }
}

#[test]
fn strings_that_are_no_text() {
    let cases: [(&[u8], JsonErrorKind); 6] = [
        (br#""\ud800""#, JsonErrorKind::BadEscape),
        (br#""\ud800\u0041""#, JsonErrorKind::BadEscape),
        (br#""\udc00""#, JsonErrorKind::BadEscape),
        (br#""\u00e""#, JsonErrorKind::BadEscape),
        (b"\"\xff\"", JsonErrorKind::BadUtf8),
        (b"17", JsonErrorKind::WrongKind),
    ];
    for (raw, kind) in cases {
        assert_eq!(string(raw, whole(raw)).expect_err("no text").kind, kind);
    }
    let lone_quote = Range32::new(0, 1).expect("a range");
    assert_eq!(string(b"\"", lone_quote).expect_err("no string").kind, JsonErrorKind::WrongKind);
}

#[test]
fn ranges_that_name_nothing() {
    let bytes = br#"{"a":[1,2]} "#;
    let range = |start, end| Range32::new(start, end).expect("a range");
    let last = |range| members(bytes, range).last().expect("an item").expect_err("an error").kind;
    assert_eq!(last(range(0, 99)), JsonErrorKind::BadRange);
    assert_eq!(last(range(99, 100)), JsonErrorKind::BadRange);
    assert_eq!(last(range(0, 10)), JsonErrorKind::UnexpectedEnd);
    assert_eq!(last(range(0, 12)), JsonErrorKind::BadRange);
    assert_eq!(last(range(5, 10)), JsonErrorKind::WrongKind);
    assert!(elements(bytes, range(0, 11)).all(|element| element.is_err()));
}
