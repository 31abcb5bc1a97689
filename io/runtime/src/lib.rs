//! How a shard runs and how its bytes move: one facade over three drivers. Knows nothing of HTTP, TLS, JSON or the gateway.
//!
//! A shard is one thread with one executor ([`block_on`]); what is made on it stays on it. [`Driver`] is chosen once at
//! start ([`select`]) and every type here is concrete: its methods branch on the driver, which costs about a nanosecond
//! where the kernel costs microseconds, and keeps type parameters out of everything above.
//!
//! Deliberately absent: name resolution, files, children, signals, TLS. They belong to the control thread or to `link`.

pub mod channel;
mod clock;
mod driver;
mod fair;
mod join;
mod listener;
pub mod local;
mod shard;
mod socket;
mod stream;
mod sys;
mod watch;
mod wheel;

pub use clock::{Elapsed, now, sleep, sleep_until, timeout};
pub use driver::{Driver, RuntimeChoice, Selection, select};
pub use fair::fair;
pub use join::{Either, join_all, race};
pub use listener::{ListenOptions, Listener, Stop};
pub use shard::{ShardOptions, block_on, driver, spawn, yield_now};
pub use stream::{Parts, ReadHalf, Stream, WriteHalf};
