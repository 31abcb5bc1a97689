//! JSON-RPC batches (JSON-RPC 2.0 section 6), which MCP 2025-03-26 admits and later revisions forbid. Splits, never interprets.

use super::cursor::{self, Elements};
use super::error::{JsonError, JsonErrorKind};
use super::range::Range32;
use super::walk;

/// True if the first byte that is not whitespace opens an array.
pub fn is_batch(bytes: &[u8]) -> bool {
    matches!(walk::token(bytes, 0), Ok((b'[', _)))
}

/// The messages of a batch, each to be given to `scan`. The whole of `bytes` must be one array; what follows it is refused when
/// the iterator gets there, so act on no message before it has ended. An empty batch is for the caller to refuse.
///
/// # Errors
/// `WrongKind` if the message is no array.
pub fn batch_elements(bytes: &[u8]) -> Result<Elements<'_>, JsonError> {
    let (first, start) = walk::token(bytes, 0)?;
    if first != b'[' {
        return Err(JsonError::new(JsonErrorKind::WrongKind, start));
    }
    let trailing = bytes.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
    let whole = Range32::new(start, bytes.len() - trailing);
    let whole = whole.ok_or_else(|| JsonError::new(JsonErrorKind::TooLarge, 0))?;
    Ok(cursor::elements(bytes, whole))
}
