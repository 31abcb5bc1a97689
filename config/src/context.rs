//! The state of one decoding: where we are, what was wrong so far, variables and files. Owns the wording of the common
//! faults; must not know any key.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::fault::{Fault, FaultKind, Mark};
use crate::form::Form;
use crate::suggest::nearest;
use crate::tree::{Entry, Node, Scalar, Value};
use crate::variables;

/// What a user is told of a key or value that the vocabulary has and this version does not serve.
pub(crate) const NOT_BUILT: &str = "known, but not built in this version";
/// Longest part of a value that a message repeats, in characters.
const QUOTED_CHARS_MAX: usize = 60;
/// Longest file that a document may name (a secret; certificates have a limit of their own), in bytes.
const NAMED_FILE_BYTES_MAX: u64 = 64 << 10;

/// A field and where its value stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub mark: Mark,
    pub path: String,
}

impl Place {
    /// The start of the document.
    pub(crate) fn start() -> Self {
        Self { mark: Mark { line: 1, column: 1 }, path: String::new() }
    }
}

/// Looks a variable up in the environment.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The state of one decoding.
pub(crate) struct Context<'a> {
    file: String,
    folder: PathBuf,
    pub(crate) lenient: bool,
    pub(crate) env: Lookup<'a>,
    path: Vec<Segment>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) warnings: Vec<Fault>,
    pub(crate) files: Vec<PathBuf>,
    /// Where scalars stand that are not to be shown.
    pub(crate) secrets: Vec<Mark>,
}

enum Segment {
    Key(String),
    Index(usize),
}

/// One key that a record knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyRule {
    pub name: &'static str,
    kind: RuleKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RuleKind {
    Built,
    Later,
    /// Not built, and what it protects must not be served without it.
    Guard,
    /// Also a `Built` key: exactly one of these must stand in the record.
    Alternative,
    /// One of the alternatives, known and not built.
    AlternativeLater,
}

impl KeyRule {
    pub(crate) fn built(name: &'static str) -> Self {
        Self { name, kind: RuleKind::Built }
    }

    pub(crate) fn later(name: &'static str) -> Self {
        Self { name, kind: RuleKind::Later }
    }

    pub(crate) fn guard(name: &'static str) -> Self {
        Self { name, kind: RuleKind::Guard }
    }

    pub(crate) fn alternative(name: &'static str) -> Self {
        Self { name, kind: RuleKind::Alternative }
    }

    pub(crate) fn alternative_later(name: &'static str) -> Self {
        Self { name, kind: RuleKind::AlternativeLater }
    }
}

/// A mapping whose keys have been checked against a record's rules.
pub(crate) struct Table<'n> {
    entries: &'n [Entry],
    pub mark: Mark,
    /// No value can come of it; the reason has been told.
    pub unusable: bool,
}

impl<'a> Context<'a> {
    pub(crate) fn new(file: &str, lenient: bool, env: Lookup<'a>) -> Self {
        let folder = Path::new(file).parent().map(Path::to_path_buf).unwrap_or_default();
        Self {
            file: file.to_owned(),
            folder,
            lenient,
            env,
            path: Vec::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
            files: Vec::new(),
            secrets: Vec::new(),
        }
    }

    pub(crate) fn at_key<T>(&mut self, key: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Segment::Key(key.to_owned()));
        let out = inside(self);
        self.path.pop();
        out
    }

    pub(crate) fn at_index<T>(&mut self, index: usize, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Segment::Index(index));
        let out = inside(self);
        self.path.pop();
        out
    }

    /// The current field with a place of the text.
    pub(crate) fn place(&self, mark: Mark) -> Place {
        let mut path = String::new();
        for segment in &self.path {
            match segment {
                Segment::Index(index) => path.push_str(&format!("[{index}]")),
                Segment::Key(key) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
            }
        }
        Place { mark, path }
    }

    /// A path in the document, relative to the folder of the file.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    // Faults

    pub(crate) fn fault(&mut self, place: Place, kind: FaultKind, message: String) {
        let fault = Fault {
            file: self.file.clone(),
            line: place.mark.line,
            column: place.mark.column,
            path: place.path,
            message,
            kind,
        };
        self.faults.push(fault);
    }

    pub(crate) fn fault_at(&mut self, mark: Mark, kind: FaultKind, message: String) {
        let place = self.place(mark);
        self.fault(place, kind, message);
    }

    pub(crate) fn warn(&mut self, place: Place, kind: FaultKind, message: String) {
        self.fault(place, kind, message);
        self.warnings.extend(self.faults.pop());
    }

    /// `expected ..., got ...`
    pub(crate) fn invalid_at(&mut self, mark: Mark, expected: &str, got: &str) {
        self.fault_at(mark, FaultKind::Invalid, format!("expected {expected}, got {got}"));
    }

    /// `expected ..., got <the node as written>`
    pub(crate) fn invalid(&mut self, node: &Node, expected: &str) {
        self.invalid_at(node.mark, expected, &written(node));
    }

    pub(crate) fn duplicate_at(&mut self, mark: Mark, name: &str) {
        self.fault_at(mark, FaultKind::Duplicate, format!("{name:?} is there twice"));
    }

    /// Known and not built: a fault, or a warning when lenient. `left_out` says what then happens.
    pub(crate) fn not_built(&mut self, place: Place, what: &str, left_out: &str) {
        let what = if what.is_empty() { String::new() } else { format!("{what} is ") };
        if self.lenient {
            self.warn(place, FaultKind::NotBuilt, format!("{what}{NOT_BUILT}: {left_out}"));
        } else {
            self.fault(place, FaultKind::NotBuilt, format!("{what}{NOT_BUILT}"));
        }
    }

    // Shapes

    pub(crate) fn sequence<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        match &node.value {
            Value::Sequence(items) => Some(items),
            _ => {
                self.invalid(node, "a list");
                None
            }
        }
    }

    pub(crate) fn mapping<'n>(&mut self, node: &'n Node) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Mapping(entries) => Some(entries),
            _ => {
                self.invalid(node, "a mapping");
                None
            }
        }
    }

    /// A mapping with its keys checked: unknown ones, ones not built, and exactly one of the alternatives.
    pub(crate) fn table<'n>(&mut self, node: &'n Node, rules: &[KeyRule]) -> Option<Table<'n>> {
        let entries = self.mapping(node)?;
        let mut table = Table { entries, mark: node.mark, unusable: false };
        for entry in entries {
            self.check_key(entry, rules, &mut table);
        }
        self.check_alternatives(rules, &mut table);
        Some(table)
    }

    fn check_key(&mut self, entry: &Entry, rules: &[KeyRule], table: &mut Table<'_>) {
        let known = |rule: &&KeyRule| rule.name == entry.key;
        let Some(rule) = rules.iter().find(known) else {
            let names = rules.iter().filter(|rule| rule.kind != RuleKind::Alternative).map(|rule| rule.name);
            let message = match nearest(&entry.key, names) {
                Some(name) => format!("unknown key; did you mean {name}?"),
                None => "unknown key".to_owned(),
            };
            self.at_key(&entry.key, |cx| cx.fault_at(entry.mark, FaultKind::UnknownKey, message));
            return;
        };
        let place = self.at_key(&entry.key, |cx| cx.place(entry.mark));
        match rule.kind {
            RuleKind::Built | RuleKind::Alternative => {}
            RuleKind::Later => self.not_built(place, "", "ignored"),
            RuleKind::Guard => {
                table.unusable = true;
                self.not_built(place, "", "what it protects is left out");
            }
            RuleKind::AlternativeLater => {
                table.unusable = true;
                self.not_built(place, "", "left out");
            }
        }
    }

    fn check_alternatives(&mut self, rules: &[KeyRule], table: &mut Table<'_>) {
        let alternative = |rule: &&KeyRule| matches!(rule.kind, RuleKind::Alternative | RuleKind::AlternativeLater);
        let names: Vec<&str> = rules.iter().filter(alternative).map(|rule| rule.name).collect();
        if names.is_empty() {
            return;
        }
        let given: Vec<&Entry> = table.entries.iter().filter(|entry| names.contains(&entry.key.as_str())).collect();
        match given.as_slice() {
            [_] => {}
            [] => {
                table.unusable = true;
                let built: Vec<&str> =
                    rules.iter().filter(|rule| rule.kind == RuleKind::Alternative).map(|rule| rule.name).collect();
                let message = match built.as_slice() {
                    [name] => format!("expected the key {name}"),
                    names => format!("expected one of the keys {}", names.join(", ")),
                };
                self.fault_at(table.mark, FaultKind::Missing, message);
            }
            [first, rest @ ..] => {
                table.unusable = true;
                for entry in rest {
                    let message = format!("cannot stand beside {}; only one of them may be given", first.key);
                    self.at_key(&entry.key, |cx| cx.fault_at(entry.mark, FaultKind::Conflict, message));
                }
            }
        }
    }

    // Scalars

    /// A scalar with its variables expanded, and whether any was.
    pub(crate) fn scalar<'n>(&mut self, node: &'n Node, expected: &str) -> Option<(Cow<'n, str>, &'n Scalar)> {
        let Value::Scalar(scalar) = &node.value else {
            self.invalid(node, expected);
            return None;
        };
        match variables::expand(&scalar.text, self.env) {
            Ok(text) => Some((text, scalar)),
            Err(message) => {
                self.fault_at(node.mark, FaultKind::Variable, message);
                None
            }
        }
    }

    /// A string. A bare number, boolean or null is none, as in JSON.
    pub(crate) fn string<'n>(&mut self, node: &'n Node, expected: &str) -> Option<Cow<'n, str>> {
        let (text, scalar) = self.scalar(node, expected)?;
        if scalar.plain && !is_expanded(&text) && is_bare_value(&scalar.text) {
            // Where any text will do, quotes are what is missing.
            let any_text = expected.starts_with("a string") || expected.starts_with("a name");
            let hint = if any_text && !node.is_null() { "; quote it to make it a string" } else { "" };
            self.invalid_at(node.mark, expected, &format!("{}{hint}", written(node)));
            return None;
        }
        Some(text)
    }

    /// The text of a number, boolean or the like: bare, or out of a variable.
    pub(crate) fn bare<'n>(&mut self, node: &'n Node, expected: &str) -> Option<Cow<'n, str>> {
        let (text, scalar) = self.scalar(node, expected)?;
        if !scalar.plain && !is_expanded(&text) {
            self.invalid(node, expected);
            return None;
        }
        Some(text)
    }

    /// One word of a closed set, in the place of a mapping with one of these keys.
    pub(crate) fn word_beside<'n>(&mut self, node: &'n Node, words: &[&str], keys: &[&str]) -> Option<Cow<'n, str>> {
        let expected = format!("{}, or a mapping with one of the keys {}", words.join(", "), keys.join(", "));
        let word = self.string(node, &expected)?;
        if words.contains(&&*word) {
            return Some(word);
        }
        self.invalid(node, &expected);
        None
    }

    /// One word of a closed set.
    pub(crate) fn word<'n>(&mut self, node: &'n Node, built: &[&str], later: &[&str]) -> Option<Cow<'n, str>> {
        let expected = format!("one of {}", built.join(", "));
        let word = self.string(node, if built.len() == 1 { built[0] } else { &expected })?;
        if built.contains(&&*word) {
            return Some(word);
        }
        if later.contains(&&*word) {
            let place = self.place(node.mark);
            self.not_built(place, &format!("{word:?}"), "left out");
            return None;
        }
        self.invalid(node, if built.len() == 1 { built[0] } else { &expected });
        None
    }

    /// Reads a file that the document names, and remembers it as one to watch.
    pub(crate) fn read(&mut self, node: &Node, name: &str) -> Option<String> {
        self.read_within(node, name, NAMED_FILE_BYTES_MAX)
    }

    /// The same of a file that may be as long as `bytes_max`.
    pub(crate) fn read_within(&mut self, node: &Node, name: &str, bytes_max: u64) -> Option<String> {
        let path = self.resolve(name);
        if !self.files.contains(&path) {
            self.files.push(path.clone());
        }
        match read_named(&path, bytes_max) {
            Ok(text) => Some(text),
            Err(why) => {
                self.fault_at(node.mark, FaultKind::Io, format!("cannot read {}: {why}", path.display()));
                None
            }
        }
    }
}

/// The end of a text file without its last line break.
fn read_named(path: &Path, bytes_max: u64) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !size.is_file() {
        return Err("not a regular file".to_owned());
    }
    if size.len() > bytes_max {
        return Err(format!("longer than {bytes_max} bytes"));
    }
    let mut text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    while text.ends_with(['\n', '\r']) {
        text.pop();
    }
    Ok(text)
}

impl<'n> Table<'n> {
    pub(crate) fn entries(&self) -> &'n [Entry] {
        self.entries
    }

    /// The first of these keys that stands in the mapping.
    pub(crate) fn entry(&self, keys: &[&str]) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| keys.contains(&entry.key.as_str()))
    }

    pub(crate) fn must<F: Form>(&self, cx: &mut Context<'_>, keys: &[&'static str]) -> Option<F::Out> {
        match self.single(cx, keys) {
            Some(entry) => cx.at_key(&entry.key, |cx| F::decode(&entry.node, cx)),
            None => {
                // Of what is unusable already, what else it lacks is no news.
                if !self.unusable {
                    cx.at_key(keys[0], |cx| cx.fault_at(self.mark, FaultKind::Missing, "missing".to_owned()));
                }
                None
            }
        }
    }

    pub(crate) fn optional<F: Form>(&self, cx: &mut Context<'_>, keys: &[&'static str]) -> Option<F::Out> {
        match self.single(cx, keys) {
            Some(entry) if !entry.node.is_null() => cx.at_key(&entry.key, |cx| F::decode(&entry.node, cx)),
            _ => F::absent(),
        }
    }

    pub(crate) fn or<F: Form>(
        &self,
        cx: &mut Context<'_>,
        keys: &[&'static str],
        default: impl FnOnce() -> F::Out,
    ) -> Option<F::Out> {
        match self.single(cx, keys) {
            Some(entry) if !entry.node.is_null() => cx.at_key(&entry.key, |cx| F::decode(&entry.node, cx)),
            _ => Some(default()),
        }
    }

    /// A key may be written under one of its names only.
    fn single(&self, cx: &mut Context<'_>, keys: &[&'static str]) -> Option<&'n Entry> {
        let mut given = self.entries.iter().filter(|entry| keys.contains(&entry.key.as_str()));
        let first = given.next()?;
        for again in given {
            let message = format!("means the same as {}, which is there already", first.key);
            cx.at_key(&again.key, |cx| cx.fault_at(again.mark, FaultKind::Duplicate, message));
        }
        Some(first)
    }
}

/// Whether expansion made this text; what a variable holds has no quotes to go by.
#[allow(clippy::ptr_arg)]
fn is_expanded(text: &Cow<'_, str>) -> bool {
    matches!(text, Cow::Owned(_))
}

/// Whether YAML's core schema reads a bare scalar as something else than a string.
fn is_bare_value(text: &str) -> bool {
    let null = matches!(text, "" | "~" | "null" | "Null" | "NULL");
    let boolean = matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE");
    null || boolean || is_number(text)
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    }
    let starts = unsigned.strip_prefix('.').unwrap_or(unsigned);
    starts.starts_with(|first: char| first.is_ascii_digit()) && unsigned.parse::<f64>().is_ok()
}

/// A node as a message repeats it: the text as written, never what a variable holds.
pub(crate) fn written(node: &Node) -> String {
    match &node.value {
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Scalar(_) if node.is_null() => "null".to_owned(),
        Value::Scalar(scalar) if scalar.plain && is_bare_value(&scalar.text) => scalar.text.clone(),
        Value::Scalar(scalar) => {
            let mut shown: String = scalar.text.chars().take(QUOTED_CHARS_MAX).collect();
            if shown.len() < scalar.text.len() {
                shown.push('…');
            }
            format!("{shown:?}")
        }
    }
}
