//! A lock file, and a definition as a target sends it: each is read or refused with a place, what is read is written so that it
//! means the same, and a scan of anything ends.
#![no_main]

use agentlane_fuzz::lock::definition::{Definition, Kind};
use agentlane_fuzz::lock::file::LockFile;
use agentlane_fuzz::lock::{diff, json, scan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match LockFile::parse(text) {
        Ok(file) => {
            let again = file.render();
            assert_eq!(LockFile::parse(&again).expect("what was written is read").render(), again);
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a reason");
            let lines = 1 + text.matches('\n').count();
            assert!(faults.iter().all(|fault| fault.line as usize <= lines), "a place beyond the text: {faults:?}");
        }
    }
    if let Ok(node) = json::parse(text) {
        let canonical = node.canonical();
        assert_eq!(json::parse(&canonical).expect("a canonical form is JSON").canonical(), canonical);
        let mut pretty = String::new();
        node.pretty(0, &mut pretty);
        assert_eq!(json::parse(&pretty).expect("the pretty form is JSON").canonical(), canonical);
        assert!(scan::item(&node).risk <= 100);
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "read here alone");
    }
    let _ = Definition::read(Kind::Tool, text);
    let (old, new) = text.split_at((0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
    let pieces = diff::words(old, new);
    let kept = |is: fn(&diff::Piece<'_>) -> bool| {
        pieces.iter().filter(|piece| is(piece)).map(diff::Piece::text).collect::<String>()
    };
    assert_eq!(kept(|piece| !matches!(piece, diff::Piece::Added(_))), old);
    assert_eq!(kept(|piece| !matches!(piece, diff::Piece::Removed(_))), new);
});
