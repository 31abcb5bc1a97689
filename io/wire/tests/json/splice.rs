//! Cases of `Splice`: each edit against the text expected, random edits against a plain buffer.

use agentlane_wire::json::{COPY_MAX, Range32, ScanLimits, Splice, scan};
use bytes::Bytes;
use serde_json::Value;

use crate::generate::{Dice, value};
use crate::whole;

fn spliced(splice: &Splice, message: &Bytes) -> String {
    let joined = |parts: &[Bytes]| parts.concat();
    let contiguous = splice.contiguous(message).expect("splices");
    assert_eq!(joined(&splice.parts(message).expect("splices")), contiguous);
    assert_eq!(joined(&splice.encode(message).expect("splices")), contiguous);
    assert_eq!(splice.spliced_len(message), Ok(contiguous.len()));
    String::from_utf8(contiguous.to_vec()).expect("utf-8")
}

#[test]
fn replaces_id_and_name() {
    let message = Bytes::from_static(br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a_echo"}}"#);
    let envelope = scan(&message, &ScanLimits::default()).expect("scans");
    let mut splice = Splice::new();
    assert!(splice.replace_name(&envelope, "ec\"ho") && splice.replace_id(&envelope, &b"\"x\""[..]));
    let expected = r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"ec\"ho"}}"#;
    assert_eq!(spliced(&splice, &message), expected);
    assert!(!splice.replace_name(&Default::default(), "x") && !splice.replace_id(&Default::default(), &b"1"[..]));
}

#[test]
fn large_messages_are_not_copied() {
    let message = Bytes::from(format!(r#"{{"id":1,"x":"{}"}}"#, "y".repeat(COPY_MAX)));
    let mut splice = Splice::new();
    splice.replace(Range32::new(6, 7).expect("a range"), &b"22"[..]);
    let parts = splice.encode(&message).expect("splices");
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[2].as_ptr(), message[7..].as_ptr());
    assert_eq!(Splice::new().encode(&message).expect("splices")[0].as_ptr(), message.as_ptr());
}

#[test]
fn object_edits() {
    type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str], &'static str);
    let cases: [Case; 14] = [
        ("{}", &[("a", "1")], &[], r#"{"a":1}"#),
        ("{ }", &[("a", "1"), ("b", "2")], &[], r#"{ "a":1,"b":2}"#),
        (r#"{"a":1}"#, &[("b", "2")], &[], r#"{"a":1,"b":2}"#),
        (r#"{"a":1,"b":2}"#, &[("a", "9")], &[], r#"{"a":9,"b":2}"#),
        (r#"{"a":1,"b":2,"c":3}"#, &[], &["a"], r#"{"b":2,"c":3}"#),
        (r#"{"a":1,"b":2,"c":3}"#, &[], &["b"], r#"{"a":1,"c":3}"#),
        (r#"{"a":1, "b":2 ,"c":3}"#, &[], &["c"], r#"{"a":1, "b":2}"#),
        (r#"{"a":1,"b":2,"c":3}"#, &[], &["b", "c"], r#"{"a":1}"#),
        (r#"{"a":1,"b":2,"c":3}"#, &[], &["a", "b"], r#"{"c":3}"#),
        (r#"{"a":1,"b":2,"c":3}"#, &[("d", "4")], &["a", "b", "c"], r#"{"d":4}"#),
        (r#"{"a":1,"b":2,"c":3}"#, &[("b", "7"), ("d", "4")], &["a", "c"], r#"{"b":7,"d":4}"#),
        (r#"{"a":1,"b":2,"a":3}"#, &[("a", "9")], &[], r#"{"a":9,"b":2}"#),
        (r#"{"\u0061":1,"b":2}"#, &[], &["a"], r#"{"b":2}"#),
        (r#"{"a":1}"#, &[("a", "2")], &["a"], "{}"),
    ];
    for (before, set, remove, after) in cases {
        let message = Bytes::from_static(before.as_bytes());
        let set: Vec<(&str, &[u8])> = set.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
        let mut splice = Splice::new();
        splice.edit_object(&message, whole(&message), &set, remove).expect("edits");
        assert_eq!(spliced(&splice, &message), after, "{before}");
    }
    assert!(Splice::new().edit_object(b"[]", whole(b"[]"), &[], &[]).is_err());
}

#[test]
fn inserted_members() {
    for (before, after) in
        [("{}", r#"{"_meta":{}}"#), (r#"{ "a":1}"#, r#"{"_meta":{}, "a":1}"#), ("{ }", r#"{"_meta":{} }"#)]
    {
        let message = Bytes::from_static(before.as_bytes());
        let mut splice = Splice::new();
        splice.insert_member(&message, whole(&message), "_meta", b"{}").expect("inserts");
        assert_eq!(spliced(&splice, &message), after);
    }
    assert!(Splice::new().insert_member(b"7", whole(b"7"), "a", b"1").is_err());
}

#[test]
fn prefixes_go_before_escapes() {
    let message = Bytes::from_static(br#""\n""#);
    let mut splice = Splice::new();
    splice.prefix_string(whole(&message), "p\"_");
    assert_eq!(spliced(&splice, &message), r#""p\"_\n""#);
}

#[test]
fn edits_that_overlap_or_leave_the_message_are_refused() {
    let message = Bytes::from_static(b"0123456789");
    let range = |start, end| Range32::new(start, end).expect("a range");
    let mut overlap = Splice::new();
    overlap.replace(range(2, 5), &b"x"[..]).remove(range(4, 6));
    assert!(overlap.encode(&message).is_err() && overlap.parts(&message).is_err());
    let mut outside = Splice::new();
    outside.insert(11, &b"x"[..]);
    assert!(outside.contiguous(&message).is_err());
    let mut touching = Splice::new();
    touching.replace(range(2, 5), &b"b"[..]).insert(2, &b"a"[..]).replace(range(5, 6), &b"c"[..]);
    assert_eq!(spliced(&touching, &message), "01abc6789");
}

#[test]
fn random_object_edits_agree_with_serde_json() {
    for seed in 0..8000 {
        let mut dice = Dice::new(seed);
        let text = value(&mut dice);
        let message = Bytes::from(text);
        let Ok(Value::Object(mut map)) = serde_json::from_slice::<Value>(&message) else { continue };
        let mut keys: Vec<String> = map.keys().cloned().collect();
        keys.push("new".into());
        let mut pick = || keys[dice.roll(keys.len())].clone();
        let (set, removed) = ([pick(), pick()], [pick(), pick()]);
        let mut splice = Splice::new();
        let values = [(set[0].as_str(), &b"[1]"[..]), (set[1].as_str(), &b"[1]"[..])];
        let values = if set[0] == set[1] { &values[..1] } else { &values[..] };
        let removed = removed.each_ref().map(String::as_str);
        splice.edit_object(&message, whole(&message), values, &removed).expect("edits");
        for (key, _) in values {
            map.insert((*key).into(), serde_json::json!([1]));
        }
        removed.iter().for_each(|key| drop(map.remove(*key)));
        let found: Value = serde_json::from_str(&spliced(&splice, &message)).expect("still json");
        assert_eq!(found, Value::Object(map), "{message:?} set {set:?} removed {removed:?}");
    }
}
