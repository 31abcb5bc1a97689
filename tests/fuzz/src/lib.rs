//! What the targets share: how an input is cut into pieces. Knows no codec.

/// Cuts `data` at the places that its first two bytes choose: the pieces, in order, and never empty. A decoder must say
/// of the pieces what it says of the whole.
pub fn cut(data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (&[step, skew], stream) = data.split_first_chunk::<2>()?;
    let mut pieces = Vec::new();
    let mut rest = stream;
    let mut number = 0usize;
    while !rest.is_empty() {
        // Lengths that wander, so that few bytes reach many borders.
        let length = 1 + (usize::from(step) + number * usize::from(skew)) % 61;
        let (piece, left) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = left;
        number += 1;
    }
    Some((stream, pieces))
}

/// The gateway's pure parts, without the rest of it.
#[path = "../../../src/fault.rs"]
pub mod fault;
#[path = "../../../src/limits.rs"]
pub mod limits;
#[path = "../../../src/protocol/mod.rs"]
pub mod protocol;

pub use protocol::mcp::lock;

/// Tokens, beside what they are verified with.
#[path = "../../../src/policy/auth/crypto.rs"]
mod crypto;
#[path = "../../../src/policy/auth/keys.rs"]
pub mod keys;
#[path = "../../../src/policy/auth/token.rs"]
pub mod token;
