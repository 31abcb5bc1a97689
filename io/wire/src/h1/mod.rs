//! HTTP/1.1 on the wire (RFC 9112): heads, body framing, encoders. Strict on purpose: whatever two parsers could read
//! differently is refused. Knows no socket and no clock.

mod body;
mod encode;
mod error;
mod head;
mod headers;
mod hop;
mod method;
mod request;
mod response;
mod scan;
mod target;

pub use body::{BodyDecoder, ChunkLimits, Decoded};
pub use encode::{
    CHUNK_END, CONTINUE, EncodeError, HeadWriter, LAST_CHUNK, chunk_head, reason_phrase, request_head, response_head,
};
pub use error::H1Error;
pub use head::{Framing, HeadLimits, HeadParser, RequestHead, ResponseHead, Version};
pub use headers::{Header, Headers, Known, list};
pub use hop::{Hop, end_to_end, is_hop_by_hop, is_protected};
pub use method::Method;
pub use request::parse_request;
pub use response::parse_response;
pub(crate) use target::same_host;
pub use target::{TargetForm, is_host};
