//! Changes and findings as people read them.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use crate::protocol::mcp::lock::definition::{Definition, Kind};
use crate::protocol::mcp::lock::diff::{Piece, words};
use crate::protocol::mcp::lock::drift::Change;
use crate::protocol::mcp::lock::file::{LockedTarget, short};
use crate::protocol::mcp::lock::json::{self, Node, Value};
use crate::protocol::mcp::lock::scan::Scan;

/// Characters of unchanged text that are shown around a change.
const CONTEXT: usize = 40;

/// How many things of each kind a target has.
pub fn counts(target: &LockedTarget) -> String {
    let count = |kind| target.entries.keys().filter(|(of, _)| *of == kind).count();
    format!(
        "{} tools, {} prompts, {} templates{}",
        count(Kind::Tool),
        count(Kind::Prompt),
        count(Kind::Template),
        if count(Kind::Instructions) > 0 { ", instructions" } else { "" },
    )
}

pub fn changes(target: &str, known: &LockedTarget, changes: &[Change]) {
    let empty = || Definition::instructions("");
    for change in changes {
        let (kind, name) = (change.kind().as_str(), printable(change.name()));
        let title = |what: &str| println!("{what} {target}/{name} ({kind})");
        match change {
            Change::New(now) => {
                title("new");
                fields(None, now);
            }
            Change::Changed(now) => {
                title("changed");
                let before = known.get(now.kind, &now.name).first().cloned().unwrap_or_else(empty);
                println!("  {} > {}", short(&before.hash), short(&now.hash));
                fields(Some(&before), now);
            }
            Change::Renamed { from, .. } => title(&format!("renamed {} to", printable(from))),
            Change::Gone(..) => title("gone"),
        }
    }
}

/// The texts of both, by their paths, where they differ.
fn fields(before: Option<&Definition>, now: &Definition) {
    let mut old = BTreeMap::new();
    let mut new = BTreeMap::new();
    if let Some(before) = before {
        flatten(&before.content, String::new(), &mut old);
    }
    flatten(&now.content, String::new(), &mut new);
    let paths: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for path in paths {
        let (a, b) = (old.get(path).map_or("", String::as_str), new.get(path).map_or("", String::as_str));
        if a != b {
            let colon = if path.is_empty() { "" } else { ": " };
            println!("  {}{colon}{}", printable(path), marked(a, b, std::io::stdout().is_terminal()));
        }
    }
}

fn flatten(node: &Node, path: String, out: &mut BTreeMap<String, String>) {
    match &node.value {
        Value::Object(members) if !members.is_empty() => {
            for (key, member) in members {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(member, path, out);
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            elements.iter().enumerate().for_each(|(place, element)| flatten(element, format!("{path}[{place}]"), out));
        }
        Value::String(text) => drop(out.insert(path, text.clone())),
        _ => drop(out.insert(path, node.canonical())),
    }
}

/// A text in which everything shows.
fn printable(text: &str) -> String {
    let mut out = String::new();
    json::quote(text, true, &mut out);
    out[1..out.len() - 1].replace("\\\"", "\"")
}

/// Both texts in one, with what was taken out and put in.
fn marked(old: &str, new: &str, colour: bool) -> String {
    let pieces = words(old, new);
    let mut out = String::new();
    let mut place = 0;
    while place < pieces.len() {
        let same_kind = |piece: &Piece<'_>| std::mem::discriminant(piece) == std::mem::discriminant(&pieces[place]);
        let end = place + pieces[place..].iter().take_while(|piece| same_kind(piece)).count();
        let text: String = pieces[place..end].iter().map(|piece| piece.text()).collect();
        let text = printable(&text);
        let (first, last) = (place == 0, end == pieces.len());
        match pieces[place] {
            Piece::Same(_) => out.push_str(&elided(&text, first, last)),
            Piece::Removed(_) if colour => out.push_str(&format!("\x1b[31m[-{text}-]\x1b[0m")),
            Piece::Removed(_) => out.push_str(&format!("[-{text}-]")),
            Piece::Added(_) if colour => out.push_str(&format!("\x1b[32m{{+{text}+}}\x1b[0m")),
            Piece::Added(_) => out.push_str(&format!("{{+{text}+}}")),
        }
        place = end;
    }
    out
}

/// Unchanged text, without what is far from a change.
fn elided(text: &str, first: bool, last: bool) -> String {
    let letters: Vec<char> = text.chars().collect();
    let front = if first { 0 } else { CONTEXT };
    let back = if last { 0 } else { CONTEXT };
    if letters.len() <= front + back + 3 {
        return text.to_owned();
    }
    let front: String = letters[..front].iter().collect();
    let back: String = letters[letters.len() - back..].iter().collect();
    format!("{front} … {back}")
}

pub fn scan(target: &str, kind: Kind, name: &str, scan: &Scan) {
    let name = if kind == Kind::Instructions { String::new() } else { format!("/{}", printable(name)) };
    println!("risk {:3}  {target}{name} ({})", scan.risk, kind.as_str());
    for finding in &scan.findings {
        println!("    {:3}  {}", finding.weight, printable(&finding.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_show_with_their_surroundings() {
        let long = "word ".repeat(40);
        let text = marked(&format!("{long}two{long}"), &format!("{long}three\u{200b}{long}"), false);
        assert_eq!(text.matches('…').count(), 2, "{text}");
        assert!(text.contains("[-two-]{+three\\u200b+}") || text.contains("word [-two"), "{text}");
        assert!(text.len() < 300, "{text}");
        assert_eq!(marked("a b", "a c", false), "a [-b-]{+c+}");
    }
}
