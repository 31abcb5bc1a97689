//! Two small MCP servers for `agentlane run --demo`: `notes` over standard input and output, `text` over streamable
//! HTTP. They know nothing of the gateway: to it they are targets like any other.
//!
//! `server` is the protocol without input or output, `notes` and `text` are what is offered, [`stdio`] and [`http`]
//! carry the messages. Revisions 2025-03-26 to 2025-11-25 are spoken.

pub mod http;
mod notes;
mod offer;
mod server;
mod setup;
pub mod stdio;
mod text;

pub use setup::{Demo, config};

/// Bytes of one incoming message.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
