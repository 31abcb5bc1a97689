//! agentlane: a thread-per-core, io_uring gateway between AI agents and everything they call.
//!
//! The map, from the top down; imports go only downward:
//!
//! ```text
//! main > cli > gateway > {shard | control} > mesh > {snapshot, session} > {policy | backend} > request
//!      > principal > {protocol, telemetry} > {fault, limits} > crates (io/*, config, perf)
//! ```
//!
//! A newcomer starts at [`shard`], where the life of a request is listed. ARCHITECTURE.md says what is where and what is
//! deliberately absent.

pub mod backend;
pub mod cli;
pub mod control;
pub mod demo;
pub mod fault;
pub mod gateway;
pub mod limits;
pub mod mesh;
pub mod policy;
pub mod principal;
pub mod protocol;
pub mod request;
pub mod session;
pub mod shard;
pub mod snapshot;
pub mod telemetry;
