//! CPU per request of a proxy beside a raw TCP forward: load, fake upstreams, the forward itself, and the rounds that compare.
//!
//! - [`compare`]: the rounds; [`report`]: what they say; [`peers`]: the proxies, and how each is started
//! - [`load`]: a closed loop of connections, and the work it does: plain HTTP, MCP tools/call, idle sessions, clients that never read
//! - [`upstream`]: fake servers, plain HTTP and MCP, each on a thread of its own
//! - [`forward`]: the floor, a TCP forward without HTTP
//! - [`message`]: where an HTTP message ends, for the two sides above
//! - [`epoll`], [`cpu`]: the kernel's part: readiness, run time, memory, pinning
//!
//! Nothing here is shared with the gateway's own codecs: each side checks the other.

pub mod compare;
pub mod cpu;
pub mod epoll;
pub mod forward;
pub mod load;
pub mod message;
pub mod peers;
pub mod report;
pub mod upstream;
