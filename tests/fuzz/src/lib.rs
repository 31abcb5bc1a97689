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

/// The gateway's pure lock, without the rest of it.
#[path = "../../../src/protocol/mcp/lock/mod.rs"]
pub mod lock;

/// Where the lock looks for its neighbours.
pub mod protocol {
    pub mod mcp {
        pub mod method {
            pub use agentlane_wire::json::ListKind;
        }
    }
}
