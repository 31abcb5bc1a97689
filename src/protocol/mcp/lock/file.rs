//! The lock file: made for Git. One entry per target and thing, in a fixed order, with the hash and the content that it is
//! of, so that a diff shows the words that changed.

use std::collections::BTreeMap;
use std::fmt;

use super::definition::{Definition, Hash, Kind};
use super::json::{self, Broken, Node, Value};

/// Longest lock file that is read, in bytes.
pub const BYTES_MAX: usize = 64 << 20;
/// The form of the file; another is refused.
const VERSION: &str = "1";
const VERSION_KEY: &str = "agentlaneLock";
/// Definitions of one thing that may be approved at the same time: by era and by what a client can do.
pub const VARIANTS_MAX: usize = 8;

/// Everything that was approved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LockFile {
    /// By the targets' names.
    pub targets: BTreeMap<String, LockedTarget>,
}

/// What was approved of one target: each thing with its definitions, the first one the usual.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LockedTarget {
    pub entries: BTreeMap<(Kind, String), Vec<Definition>>,
}

/// A fault of a lock file, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFault {
    /// 1-based.
    pub line: u32,
    /// 1-based, in characters.
    pub column: u32,
    /// Like `targets.notes.tools.add.hash`.
    pub path: String,
    pub message: String,
}

impl fmt::Display for LockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl LockedTarget {
    pub fn get(&self, kind: Kind, name: &str) -> &[Definition] {
        self.entries.get(&(kind, name.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Approves a definition, beside the ones that are there if it is another `variant`, else in their place.
    pub fn approve(&mut self, definition: Definition, variant: bool) {
        let known = self.entries.entry((definition.kind, definition.name.clone())).or_default();
        if !variant {
            known.clear();
        }
        if known.len() < VARIANTS_MAX && known.iter().all(|other| other.hash != definition.hash) {
            known.push(definition);
        }
    }

    /// What was approved under which name, without the content: equal for equal meaning.
    pub fn hashes(&self) -> Vec<(Kind, &str, Hash)> {
        let each = self.entries.iter().flat_map(|((kind, name), definitions)| {
            definitions.iter().map(|definition| (*kind, name.as_str(), definition.hash))
        });
        each.collect()
    }

    pub fn remove(&mut self, kind: Kind, name: &str) -> bool {
        self.entries.remove(&(kind, name.to_owned())).is_some()
    }
}

impl LockFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Every fault, in the order of the text.
    pub fn parse(text: &str) -> Result<LockFile, Vec<LockFault>> {
        let mut reader = Reader { text, faults: Vec::new() };
        let root = match json::parse(text) {
            Ok(root) => root,
            Err(Broken { at, message }) => {
                reader.fault(at, "", message);
                return Err(reader.faults);
            }
        };
        let file = reader.file(&root);
        match reader.faults.is_empty() {
            true => Ok(file),
            false => Err(reader.faults),
        }
    }

    /// The text of the file; equal for equal files.
    pub fn render(&self) -> String {
        let targets = self.targets.iter().map(|(name, target)| (name.clone(), target.node())).collect();
        let members = vec![
            (VERSION_KEY.to_owned(), node(Value::Number(VERSION.to_owned()))),
            ("targets".to_owned(), node(Value::Object(targets))),
        ];
        let mut out = String::new();
        node(Value::Object(members)).pretty(0, &mut out);
        out.push('\n');
        out
    }
}

/// The file's section of a kind.
const fn section(kind: Kind) -> &'static str {
    match kind {
        Kind::Instructions => "instructions",
        Kind::Tool => "tools",
        Kind::Prompt => "prompts",
        Kind::Template => "templates",
    }
}

fn node(value: Value) -> Node {
    Node { at: 0, value }
}

impl LockedTarget {
    fn node(&self) -> Node {
        let mut sections: Vec<(String, Node)> = Vec::new();
        for ((kind, name), definitions) in &self.entries {
            let entry = entry(definitions);
            match (kind, sections.iter_mut().find(|(known, _)| known == section(*kind))) {
                (Kind::Instructions, _) => sections.push((section(*kind).to_owned(), entry)),
                (_, Some((_, Node { value: Value::Object(members), .. }))) => members.push((name.clone(), entry)),
                _ => sections.push((section(*kind).to_owned(), node(Value::Object(vec![(name.clone(), entry)])))),
            }
        }
        node(Value::Object(sections))
    }
}

fn entry(definitions: &[Definition]) -> Node {
    let one = |definition: &Definition| {
        vec![
            ("definition".to_owned(), definition.content.clone()),
            ("hash".to_owned(), node(Value::String(definition.hash.to_string()))),
        ]
    };
    let mut members = definitions.first().map(one).unwrap_or_default();
    if definitions.len() > 1 {
        let others = definitions[1..].iter().map(|definition| node(Value::Object(one(definition)))).collect();
        members.push(("also".to_owned(), node(Value::Array(others))));
    }
    node(Value::Object(members))
}

struct Reader<'a> {
    text: &'a str,
    faults: Vec<LockFault>,
}

impl Reader<'_> {
    fn fault(&mut self, at: usize, path: &str, message: impl Into<String>) {
        let (line, column) = json::line_and_column(self.text, at);
        self.faults.push(LockFault { line, column, path: path.to_owned(), message: message.into() });
    }

    /// The members of an object; a fault where it is none.
    fn members<'n>(&mut self, of: &'n Node, path: &str) -> &'n [(String, Node)] {
        if !matches!(of.value, Value::Object(_)) {
            self.fault(of.at, path, "expected an object");
        }
        of.members()
    }

    fn file(&mut self, root: &Node) -> LockFile {
        let mut file = LockFile::default();
        match root.get(VERSION_KEY).map(|version| (&version.value, version.at)) {
            Some((Value::Number(version), _)) if version == VERSION => {}
            Some((_, at)) => self.fault(at, VERSION_KEY, format!("this version reads form {VERSION} of a lock file")),
            None => self.fault(root.at, "", format!("no lock file: {VERSION_KEY} is missing")),
        }
        for (key, value) in self.members(root, "") {
            match key.as_str() {
                VERSION_KEY => {}
                "targets" => {
                    for (name, target) in self.members(value, "targets") {
                        let path = format!("targets.{name}");
                        file.targets.insert(name.clone(), self.target(target, &path));
                    }
                }
                _ => self.fault(value.at, key, "unknown key"),
            }
        }
        file
    }

    fn target(&mut self, of: &Node, path: &str) -> LockedTarget {
        let mut target = LockedTarget::default();
        for (key, value) in self.members(of, path) {
            let path = format!("{path}.{key}");
            match Kind::ALL.into_iter().find(|kind| section(*kind) == key) {
                Some(Kind::Instructions) => {
                    let read = self.entry(Kind::Instructions, "", value, &path);
                    target.entries.insert((Kind::Instructions, String::new()), read);
                }
                Some(kind) => {
                    for (name, entry) in self.members(value, &path) {
                        let path = format!("{path}.{name}");
                        let read = self.entry(kind, name, entry, &path);
                        target.entries.insert((kind, name.clone()), read);
                    }
                }
                None => self.fault(value.at, &path, "unknown key"),
            }
        }
        target
    }

    fn entry(&mut self, kind: Kind, name: &str, of: &Node, path: &str) -> Vec<Definition> {
        let mut read: Vec<Definition> = self.definition(kind, name, of, path).into_iter().collect();
        for (key, value) in self.members(of, path) {
            let path = format!("{path}.{key}");
            match (key.as_str(), &value.value) {
                ("definition" | "hash", _) => {}
                ("also", Value::Array(others)) if others.len() < VARIANTS_MAX => {
                    for (place, other) in others.iter().enumerate() {
                        let path = format!("{path}[{place}]");
                        read.extend(self.definition(kind, name, other, &path));
                    }
                }
                ("also", _) => {
                    self.fault(value.at, &path, format!("expected an array of at most {} elements", VARIANTS_MAX - 1));
                }
                _ => self.fault(value.at, &path, "unknown key"),
            }
        }
        read
    }

    fn definition(&mut self, kind: Kind, name: &str, of: &Node, path: &str) -> Option<Definition> {
        let missing = |key| format!("{key} is missing");
        let Some(content) = of.get("definition") else {
            self.fault(of.at, path, missing("definition"));
            return None;
        };
        let read = match (kind, content.text()) {
            (Kind::Instructions, Some(text)) => Ok(Definition::instructions(text)),
            (Kind::Instructions, None) => Err(Broken { at: content.at, message: "instructions are a text" }),
            _ => Definition::of(kind, content.clone()),
        };
        let definition = match read {
            Ok(definition) => definition,
            Err(Broken { at, message }) => {
                self.fault(at, &format!("{path}.definition"), message);
                return None;
            }
        };
        if definition.name != name {
            self.fault(
                content.at,
                &format!("{path}.definition"),
                format!("this is the definition of {:?}", definition.name),
            );
        }
        match of.get("hash") {
            Some(hash) if hash.text() == Some(&definition.hash.to_string()) => {}
            Some(hash) => {
                let message =
                    format!("the definition has the hash {}: one of them was changed by hand", definition.hash);
                self.fault(hash.at, &format!("{path}.hash"), message);
            }
            None => self.fault(of.at, path, missing("hash")),
        }
        Some(definition)
    }
}

/// The hash of a definition as a file shows it, shortened for people.
pub fn short(hash: &Hash) -> String {
    hash.to_string().chars().take("sha256:".len() + 12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> LockFile {
        let mut target = LockedTarget::default();
        target.approve(Definition::instructions("be\nnice"), false);
        for (kind, text) in [
            (Kind::Tool, r#"{"name":"b","description":"hid\u200bden"}"#),
            (Kind::Tool, r#"{"name":"a","inputSchema":{"type":"object"}}"#),
            (Kind::Prompt, r#"{"name":"p"}"#),
            (Kind::Template, r#"{"name":"t","uriTemplate":"x://{y}"}"#),
        ] {
            target.approve(Definition::read(kind, text).unwrap(), false);
        }
        target.approve(Definition::read(Kind::Tool, r#"{"name":"a","title":"A"}"#).unwrap(), true);
        LockFile { targets: [("notes".to_owned(), target)].into() }
    }

    #[test]
    fn what_is_written_is_read() {
        let (file, text) = (file(), file().render());
        let again = LockFile::parse(&text).unwrap_or_else(|faults| panic!("{faults:?}"));
        assert_eq!(again.render(), text);
        let of =
            |file: &LockFile| file.targets["notes"].get(Kind::Tool, "a").iter().map(|d| d.hash).collect::<Vec<_>>();
        assert_eq!((of(&again), of(&again).len()), (of(&file), 2));
        assert!(text.contains("hid\\u200bden"), "{text}");
        assert!(text.find("\"a\": {") < text.find("\"b\": {"), "{text}");
    }

    #[test]
    fn faults_have_places() {
        let text = file().render();
        let bad = |text: &str, expected: &str| {
            let faults = LockFile::parse(text).expect_err("a fault");
            let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
            assert!(all.iter().any(|fault| fault.contains(expected)), "{expected}: {all:?}");
        };
        bad("{", "1:2: a string is missing");
        bad("[]", "1:1: expected an object");
        bad("{}", "agentlaneLock is missing");
        bad(r#"{"agentlaneLock": 2}"#, "1:19: agentlaneLock: this version reads form 1");
        bad(r#"{"agentlaneLock": 1, "x": 1}"#, "1:27: x: unknown key");
        bad(
            r#"{"agentlaneLock": 1, "targets": {"a": {"tools": {"t": {}}}}}"#,
            "1:55: targets.a.tools.t: definition is missing",
        );
        bad(
            &text.replace("\"title\": \"A\"", "\"title\": \"B\""),
            "targets.notes.tools.a.also[0].hash: the definition has the hash",
        );
        bad(&text.replace("\"name\": \"p\"", "\"name\": \"q\""), "this is the definition of \"q\"");
        bad(&text.replace("\"prompts\"", "\"promts\""), "targets.notes.promts: unknown key");
    }
}
