//! What messages mean. Pure: no sockets, no clocks, no runtime.

pub mod mcp;
