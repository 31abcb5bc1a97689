//! 2026-07-28, the revision without sessions: each request carries what the others say once (`_meta`, mirrored in headers),
//! and a server that needs something of the client says so in its result. Pure; knows no socket and no clock.

pub mod answer;
pub mod crew;
pub mod discover;
pub mod envelope;
pub mod headers;
pub mod input;
pub mod listen;
pub mod questions;
pub mod reads;
pub mod request;
pub mod results;
pub mod state;
pub mod tools;

/// The one revision of this era.
pub const VERSION: &str = "2026-07-28";

/// Reserved keys of a request's `_meta` (schema, `RequestMetaObject`).
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
pub const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// Of a result's `_meta`.
pub const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// Of every message of a listen stream.
pub const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// Headers and body disagree, or a header is missing.
pub const HEADER_MISMATCH: i64 = -32020;
/// The client did not declare what the request needs.
pub const MISSING_CAPABILITY: i64 = -32021;
/// The server does not speak the request's version.
pub const UNSUPPORTED_VERSION: i64 = -32022;

/// Whether an error's code is one that only servers of this era give.
pub const fn is_modern_error(code: i64) -> bool {
    matches!(code, HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION)
}
