//! A fault of the document: where it is, what is wrong, of which kind. Knows nothing of keys.

use std::fmt;

/// What sort of fault it is; callers act on the kind, people read the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A file cannot be read.
    Io,
    /// The text is not YAML (or JSON).
    Syntax,
    /// A limit of the reader is passed: size, depth, number of nodes.
    Limit,
    /// A key that no version knows.
    UnknownKey,
    /// A key or value that the vocabulary has and this version does not serve. `lenient` turns this kind, and no other,
    /// into a warning.
    NotBuilt,
    /// A key or a name that is there twice.
    Duplicate,
    /// A key that must be there and is not.
    Missing,
    /// A value of the wrong type or outside of what is allowed.
    Invalid,
    /// A variable that is not set, or a malformed reference to one.
    Variable,
    /// A name that nothing in the document bears.
    Reference,
    /// Two parts of the document that cannot both hold.
    Conflict,
}

/// One fault. Prints as `agentlane.yaml:12:5: binds[0].port: expected an integer from 1 to 65535, got "abc"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file as it was named to the loader, or `environment`.
    pub file: String,
    /// 1-based; 0 where there is no line (a file that cannot be read, the environment).
    pub line: u32,
    /// 1-based, in characters; 0 where there is no line.
    pub column: u32,
    /// The field, like `binds[0].listeners[1].routes[2].backends[0].weight`; empty for the document itself.
    pub path: String,
    /// Lowercase, short, without a full stop. Never holds a secret.
    pub message: String,
    /// The sort of fault.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Fault {}

/// A place in a text: 1-based line and column (in characters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Mark {
    pub line: u32,
    pub column: u32,
}
