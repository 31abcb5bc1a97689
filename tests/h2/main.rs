//! HTTP/2 through the real binary: curl, hyper, and frames written by hand in front; hyper behind.

mod attacks;
mod drain;
mod frames;
mod mcp;
mod plain;
#[path = "../support/mod.rs"]
mod support;
mod tunnel;
mod upstreams;
