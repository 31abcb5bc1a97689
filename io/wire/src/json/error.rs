//! What can be wrong with JSON bytes, and where. Knows nothing of HTTP or of how a fault is answered.

use std::fmt;

/// A fault in JSON bytes: what, and the byte offset at which it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Offset in bytes from the start of the message.
    pub offset: u32,
}

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JsonErrorKind {
    /// The bytes end inside a value.
    UnexpectedEnd,
    /// A byte that no JSON value allows here.
    UnexpectedByte,
    /// Something other than whitespace follows the value.
    TrailingBytes,
    /// A byte below 0x20 inside a string (RFC 8259 section 7).
    ControlInString,
    /// A malformed escape, or a lone surrogate where text was asked for.
    BadEscape,
    /// A string is not UTF-8 (RFC 8259 section 8.1).
    BadUtf8,
    /// A number outside the grammar of RFC 8259 section 6.
    BadNumber,
    /// A misspelt `true`, `false` or `null`.
    BadLiteral,
    /// More nested containers than the limit allows.
    TooDeep,
    /// The message is longer than a 32-bit range can name.
    TooLarge,
    /// The message is an array: a JSON-RPC batch (JSON-RPC 2.0 section 6).
    Batch,
    /// The message is a scalar.
    NotAnObject,
    /// A key that decides routing occurs twice in its object.
    DuplicateKey,
    /// A key that decides routing is spelt with escapes.
    EscapedKey,
    /// The value is of another kind than the one asked for.
    WrongKind,
    /// A member that must be there is not.
    MissingKey,
    /// A range does not lie within the bytes, or overlaps another.
    BadRange,
}

impl JsonError {
    #[cold]
    pub(super) fn new(kind: JsonErrorKind, offset: usize) -> Self {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        JsonError { kind, offset }
    }

    /// The JSON-RPC 2.0 error code (section 5.1): -32700 for what is not JSON, -32600 for JSON that is no acceptable message.
    pub fn rpc_code(&self) -> i32 {
        match self.kind {
            JsonErrorKind::TooDeep
            | JsonErrorKind::TooLarge
            | JsonErrorKind::Batch
            | JsonErrorKind::NotAnObject
            | JsonErrorKind::DuplicateKey
            | JsonErrorKind::EscapedKey
            | JsonErrorKind::WrongKind
            | JsonErrorKind::MissingKey => -32600,
            _ => -32700,
        }
    }

    /// One static phrase, safe to show to a peer.
    pub fn message(&self) -> &'static str {
        match self.kind {
            JsonErrorKind::UnexpectedEnd => "unexpected end of json",
            JsonErrorKind::UnexpectedByte => "unexpected byte in json",
            JsonErrorKind::TrailingBytes => "bytes after the json value",
            JsonErrorKind::ControlInString => "control character in a json string",
            JsonErrorKind::BadEscape => "bad escape in a json string",
            JsonErrorKind::BadUtf8 => "json is not utf-8",
            JsonErrorKind::BadNumber => "bad json number",
            JsonErrorKind::BadLiteral => "bad json literal",
            JsonErrorKind::TooDeep => "json nested too deep",
            JsonErrorKind::TooLarge => "json message too large",
            JsonErrorKind::Batch => "json-rpc batch not allowed here",
            JsonErrorKind::NotAnObject => "json-rpc message is not an object",
            JsonErrorKind::DuplicateKey => "duplicate key in json-rpc message",
            JsonErrorKind::EscapedKey => "escaped key in json-rpc message",
            JsonErrorKind::WrongKind => "json value of another kind expected",
            JsonErrorKind::MissingKey => "json member missing",
            JsonErrorKind::BadRange => "range outside the json message",
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.message(), self.offset)
    }
}

impl std::error::Error for JsonError {}
