//! What bad documents are told, word for word.

use super::{printed, read};

#[track_caller]
fn bad(text: &str, expected: &[&str]) {
    match read(text, false) {
        Ok(_) => panic!("no fault in:\n{text}"),
        Err(faults) => assert_eq!(printed(&faults), expected, "in:\n{text}"),
    }
}
#[test]
fn probe() {
    for text in include_str!("/tmp/cases.txt").split("=====\n") {
        println!("-----\n{text}");
        match read(text, false) { Ok(l) => println!("OK {:?}", printed(&l.warnings)), Err(f) => for l in printed(&f) { println!(">> {l}") } }
    }
    bad("", &["1:1: the document is empty"]);
}
