//! What the host gives: CPUs, quotas, limits and the kernel, and where shards belong on it. It reads and reports; it knows nothing of the gateway.
//!
//! ```
//! let host = agentlane_perf::probe();
//! let shards = agentlane_perf::default_shards(&host);
//! let cpus = agentlane_perf::place(&host, shards);
//! assert_eq!(cpus.len(), shards);
//! ```
//!
//! - [`host`]: the whole picture, read once at start
//! - [`placement`]: how many shards, and on which CPU each
//! - [`topology`], [`cgroup`], [`kernel`], [`surroundings`]: one reader each; all take a [`Sysfs`] root, so that a fake tree tests them
//! - [`doctor`]: what of the host costs latency, connections or the start
//! - [`limits`]: the resource limits of this process, the one thing here that can also be changed
//!
//! Deliberately absent: measured trials and writing of settings.

pub mod cgroup;
pub mod doctor;
pub mod host;
pub mod kernel;
pub mod limits;
pub mod placement;
pub mod surroundings;
pub mod sysfs;
pub mod topology;

pub use host::{Host, probe};
pub use limits::{Rlimit, raise_nofile};
pub use placement::{default_shards, place};
pub use sysfs::Sysfs;
