//! One thing that a target offers, in the form in which it is compared: canonical, hashed, without what may change by itself.

use std::fmt;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::json::{self, Broken, Node, Value};
use crate::protocol::mcp::method::ListKind;

/// What sort of thing is locked, in the order of a lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Instructions,
    Tool,
    Prompt,
    Template,
}

/// Members that are not compared. `_meta` is between programs, and servers put there what changes with each answer; icons
/// are shown to people only and may be large. Both are scanned all the same. Every other member counts, known or not: what a
/// client may show to a model one day is part of what was approved.
const VOLATILE: [&str; 2] = ["_meta", "icons"];

/// SHA-256 of a canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; SHA256_OUTPUT_LEN]);

/// A definition as it is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub kind: Kind,
    /// A tool's or prompt's name, a template's URI; empty for instructions.
    pub name: String,
    /// Without volatile members.
    pub content: Node,
    pub hash: Hash,
    /// The same without the name: equal for a thing that was only renamed.
    pub shape: Hash,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Instructions, Kind::Tool, Kind::Prompt, Kind::Template];

    /// What is listed in such a list; resources are data, and are not locked.
    pub const fn of_list(list: ListKind) -> Option<Kind> {
        match list {
            ListKind::Tools => Some(Kind::Tool),
            ListKind::Prompts => Some(Kind::Prompt),
            ListKind::ResourceTemplates => Some(Kind::Template),
            ListKind::Resources => None,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Instructions => "instructions",
            Kind::Tool => "tool",
            Kind::Prompt => "prompt",
            Kind::Template => "template",
        }
    }

    /// The member that names it.
    const fn key(self) -> &'static str {
        match self {
            Kind::Template => "uriTemplate",
            _ => "name",
        }
    }
}

impl Hash {
    pub fn of(text: &str) -> Hash {
        Hash::of_bytes(text.as_bytes())
    }

    pub fn of_bytes(text: &[u8]) -> Hash {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest(&SHA256, text).as_ref());
        Hash(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Definition {
    /// A listed item, by its JSON text.
    ///
    /// # Errors
    /// It is no object with a name, or could be read in two ways.
    pub fn read(kind: Kind, text: &str) -> Result<Definition, Broken> {
        Definition::of(kind, json::parse(text)?)
    }

    /// The same of a value that was read.
    ///
    /// # Errors
    /// It is no object with a name.
    pub fn of(kind: Kind, item: Node) -> Result<Definition, Broken> {
        let at = item.at;
        let name = item.get(kind.key()).and_then(Node::text).map(str::to_owned);
        let Value::Object(mut members) = item.value else {
            return Err(Broken { at, message: "a definition is an object" });
        };
        let name = name.ok_or(Broken { at, message: "a definition without a name" })?;
        members.retain(|(key, _)| !VOLATILE.contains(&key.as_str()));
        let content = Node { at, value: Value::Object(members) };
        let hash = Hash::of(&content.canonical());
        let shape = Hash::of(&without(&content, kind.key()).canonical());
        Ok(Definition { kind, name, content, hash, shape })
    }

    /// A server's instructions.
    pub fn instructions(text: &str) -> Definition {
        let content = Node { at: 0, value: Value::String(text.to_owned()) };
        let hash = Hash::of(&content.canonical());
        Definition { kind: Kind::Instructions, name: String::new(), content, hash, shape: hash }
    }
}

fn without(content: &Node, key: &str) -> Node {
    let members = content.members().iter().filter(|(name, _)| name != key).cloned().collect();
    Node { at: content.at, value: Value::Object(members) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(text: &str) -> Definition {
        Definition::read(Kind::Tool, text).unwrap()
    }

    #[test]
    fn what_counts_and_what_does_not() {
        let one =
            tool(r#"{"name":"a","description":"x","inputSchema":{"type":"object","properties":{"n":{"minimum":1}}}}"#);
        let same = [
            r#"{"inputSchema":{"properties":{"n":{"minimum":1.0}},"type":"object"},"description":"x","name":"a"}"#,
            r#"{"name":"a","description":"\u0078","inputSchema":{"type":"object","properties":{"n":{"minimum":1}}},"_meta":{"n":1},"icons":[]}"#,
        ];
        for text in same {
            assert_eq!(tool(text).hash, one.hash, "{text}");
        }
        for text in [
            r#"{"name":"a","description":"x","inputSchema":{"type":"object","properties":{"n":{"minimum":2}}}}"#,
            r#"{"name":"a","description":"x ","inputSchema":{"type":"object","properties":{"n":{"minimum":1}}}}"#,
            r#"{"name":"a","title":"t","description":"x","inputSchema":{"type":"object","properties":{"n":{"minimum":1}}}}"#,
            r#"{"name":"a","unheard":0,"description":"x","inputSchema":{"type":"object","properties":{"n":{"minimum":1}}}}"#,
        ] {
            assert_ne!(tool(text).hash, one.hash, "{text}");
        }
    }

    #[test]
    fn a_rename_keeps_the_shape() {
        let (one, two) = (tool(r#"{"name":"a","description":"x"}"#), tool(r#"{"description":"x","name":"b"}"#));
        assert_eq!(one.shape, two.shape);
        assert_ne!(one.hash, two.hash);
        assert!(Definition::read(Kind::Template, r#"{"name":"a"}"#).is_err(), "a template is named by its URI");
        assert!(Definition::read(Kind::Tool, r#"{"name":"a","name":"b"}"#).is_err());
    }
}
