//! The JSON walk seen from outside: tables of cases, and agreement with serde_json on generated and damaged texts.

mod cursor;
mod differential;
mod generate;
mod list;
mod scan;
mod splice;
mod validate;

use agentlane_wire::json::Range32;

/// The bytes of a range as text, for comparing with what a case expects.
fn text(bytes: &[u8], range: Option<Range32>) -> Option<&str> {
    range.map(|range| std::str::from_utf8(range.of(bytes).expect("range in bounds")).expect("utf-8"))
}

/// The whole value in `bytes`.
fn whole(bytes: &[u8]) -> Range32 {
    agentlane_wire::json::root(bytes).expect("one value")
}
