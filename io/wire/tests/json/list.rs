//! Cases of the list walk and merger.

use agentlane_wire::json::{ItemFault, JsonErrorKind, ListKind, ListMerger, list_items};

use crate::{text, whole};

const PAGE: &[u8] = br#"{"_meta":{"a":1},"tools":[{"name":"a","inputSchema":{"name":"no"}}, {"inputSchema":{},"name":"b\"c"} ],"nextCursor":"n","ttlMs":5}"#;

#[test]
fn items_and_tail() {
    let mut items = list_items(PAGE, whole(PAGE), ListKind::Tools).expect("a list");
    let names: Vec<_> = items.by_ref().map(|item| text(PAGE, item.expect("an item").name.ok())).collect();
    assert_eq!(names, [Some(r#""a""#), Some(r#""b\"c""#)]);
    let tail = items.tail();
    assert_eq!(text(PAGE, tail.next_cursor), Some(r#""n""#));
    assert_eq!(text(PAGE, tail.meta), Some(r#"{"a":1}"#));
    assert_eq!(text(PAGE, tail.ttl_ms), Some("5"));
    assert!(items.next().is_none());
}

#[test]
fn items_that_cannot_be_named() {
    let page = br#"{"tools":[1,{},{"name":7},{"name":"a","name":"b"},{"n\u0061me":"a"},{"name":"ok"}]}"#;
    let items = list_items(page, whole(page), ListKind::Tools).expect("a list");
    let faults: Vec<_> = items.map(|item| item.expect("an item").name.err()).collect();
    use ItemFault::*;
    assert_eq!(faults, [Some(NotAnObject), Some(Missing), Some(NotString), Some(Duplicate), Some(Escaped), None]);
}

#[test]
fn pages_that_are_none() {
    use JsonErrorKind::*;
    let cases = [
        ("[]", WrongKind),
        ("{}", MissingKey),
        (r#"{"prompts":[]}"#, MissingKey),
        (r#"{"tools":{}}"#, WrongKind),
        (r#"{"tools":[],"tools":[]}"#, DuplicateKey),
        (r#"{"tools":[],"nextCursor":"a","nextCursor":"b"}"#, DuplicateKey),
        (r#"{"tools":[],}"#, UnexpectedByte),
    ];
    for (page, kind) in cases {
        let page = page.as_bytes();
        let error = match list_items(page, whole(page), ListKind::Tools) {
            Err(error) => error,
            Ok(mut items) => items.find_map(Result::err).expect("an error"),
        };
        assert_eq!(error.kind, kind, "{:?}", String::from_utf8_lossy(page));
    }
}

#[test]
fn merges_with_prefixes() {
    let other = br#"{"tools":[{"description":"d","name":"\u0061"}]}"#;
    let mut merger = ListMerger::new(ListKind::Tools, 0);
    let tail = merger.add_page(PAGE, whole(PAGE), ListKind::Tools, "x_").expect("a page");
    assert!(tail.next_cursor.is_some());
    merger.add_page(other, whole(other), ListKind::Tools, "y\"").expect("a page");
    assert_eq!(merger.items(), 3);
    let expected = br#"{"tools":[{"name":"x_a","inputSchema":{"name":"no"}},{"inputSchema":{},"name":"x_b\"c"},{"description":"d","name":"y\"\u0061"}],"nextCursor":"c\"","_meta":{}}"#;
    let merged = merger.finish(Some("c\""), &[("_meta", b"{}")]);
    assert_eq!(merged, &expected[..]);
}

#[test]
fn a_broken_page_leaves_no_trace() {
    let mut merger = ListMerger::new(ListKind::Prompts, 64);
    let (good, broken) = (br#"{"prompts":[{"name":"a"}]}"#, br#"{"prompts":[{"name":"b"},]}"#);
    merger.add_page(good, whole(good), ListKind::Prompts, "").expect("a page");
    assert!(merger.add_page(broken, whole(broken), ListKind::Prompts, "").is_err());
    merger.add_page(good, whole(good), ListKind::Prompts, "p/").expect("a page");
    assert_eq!(merger.finish(None, &[]), &br#"{"prompts":[{"name":"a"},{"name":"p/a"}]}"#[..]);
    assert_eq!(ListMerger::new(ListKind::ResourceTemplates, 0).finish(None, &[]), &br#"{"resourceTemplates":[]}"#[..]);
}

#[test]
fn renames_and_copies() {
    let page = br#"{"resources":[{"uri":"memo:x","name":"n"},{"uri":"memo:y"},{}]}"#;
    let items: Vec<_> = list_items(page, whole(page), ListKind::Resources)
        .expect("a list")
        .map(|item| item.expect("an item"))
        .collect();
    let mut merger = ListMerger::new(ListKind::Resources, 0);
    assert!(merger.push_renamed(page, &items[0], "gw://a?u=memo:x"));
    merger.push(items[1].range.of(page).expect("in bounds"));
    assert!(!merger.push_renamed(page, &items[2], "z") && !merger.push_prefixed(page, &items[2], "z"));
    let expected = br#"{"resources":[{"uri":"gw://a?u=memo:x","name":"n"},{"uri":"memo:y"}]}"#;
    assert_eq!(merger.finish(None, &[]), &expected[..]);
}
