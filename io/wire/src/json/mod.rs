//! JSON-RPC on the hot path: find the envelope's members in the bytes, splice other bytes in, and leave the rest untouched. Owns
//! byte ranges; knows no method's meaning, no session and no socket.
//!
//! `scan` reads a message once and gives ranges. `cursor` reaches any other value. `Splice` cuts replacements in without
//! copying what stays. `list` merges the pages of several servers. `validate` is the full check of RFC 8259.

mod batch;
mod cursor;
mod envelope;
mod error;
mod list;
mod range;
mod scan;
#[allow(unsafe_code, reason = "vector loads and instructions; each module states why they are sound")]
mod simd;
mod splice;
mod text;
mod validate;
mod walk;

pub use batch::{batch_elements, is_batch};
pub use cursor::{
    Elements, Member, Members, ValueKind, as_bool, as_u64, elements, get, get_path, kind_of, members, root,
};
pub use envelope::{Envelope, Id, IdKind, InvalidReason, MessageKind};
pub use error::{JsonError, JsonErrorKind};
pub use list::{ItemFault, ListItem, ListItems, ListKind, ListMerger, ListTail, list_items};
pub use range::Range32;
pub use scan::{ScanLimits, scan, scan_at};
pub use simd::{LEVEL_ENV, Level, level};
pub use splice::{COPY_MAX, Parts, Splice};
pub use text::{escape_into, quote_into, raw_eq, string};
pub use validate::{DEPTH_MAX, validate, validate_at};
