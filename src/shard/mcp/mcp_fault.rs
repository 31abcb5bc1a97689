//! Faults that several rooms of the MCP endpoint raise.

use crate::fault::{Fault, Kind};

pub const fn session_unknown() -> Fault {
    Fault::new(Kind::SessionUnknown, "session not found")
}

pub const fn timeout() -> Fault {
    Fault::new(Kind::UpstreamTimeout, "target did not answer in time")
}

pub const fn overloaded() -> Fault {
    Fault::new(Kind::Overloaded, "overloaded")
}

pub const fn child_busy() -> Fault {
    Fault::new(Kind::UpstreamUnreachable, "target does not take messages")
}

/// A child was ended for idling just now: nothing was sent. As with a target that forgot the session, whoever may ask
/// again does so, and that starts it.
pub const fn child_rests() -> Fault {
    Fault::new(Kind::SessionUnknown, "target is being started again")
}

pub const fn internal(message: &'static str) -> Fault {
    Fault::new(Kind::Internal, message)
}
