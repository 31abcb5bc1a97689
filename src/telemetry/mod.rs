//! What the gateway says about itself: metrics, access records and its own log. Knows neither configuration nor the
//! sockets of peers.
//!
//! A shard writes its own cells and its own buffer and never waits; reading and writing out is done by other threads.

pub mod access;
pub mod audit;
mod form;
pub mod histogram;
pub mod lines;
pub mod logging;
pub mod metrics;
mod text;
mod time;

pub use access::{AccessFormat, AccessLog, AccessOptions, AccessRecord};
pub use audit::{AuditLog, AuditOptions, AuditRecord};
pub use histogram::Histogram;
pub use lines::{LineSink, LineTarget, LineWriter, OnError};
pub use logging::{LogFault, LogFormat, LogHandle};
pub use metrics::{Counter, Gauge, Registry};
