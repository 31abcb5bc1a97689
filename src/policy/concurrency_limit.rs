//! How many requests of a route may be under way at once.

use std::sync::Arc;

use bytes::Bytes;

use agentlane_wire::h1::Method;

use super::{Matched, Refusal, Verdict};
use crate::fault::{Fault, Kind};
use crate::request::permit::{Concurrency, Permit};
use crate::request::{Changes, RequestView};

#[derive(Clone, Debug)]
pub struct ConcurrencyLimit {
    pub limit: Arc<Concurrency>,
    /// A GET is a stream that stays open (an MCP session's): it waits for events, and is no work under way.
    pub spares_get: bool,
}

impl ConcurrencyLimit {
    pub(super) fn request(&self, request: &RequestView<'_>, _: &Matched<'_>, changes: &mut Changes) -> Verdict {
        // It is held where the request came in.
        if request.again {
            return Verdict::Continue;
        }
        match self.enter(request) {
            Ok(permit) => {
                changes.permits.extend(permit);
                Verdict::Continue
            }
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }

    /// A place for the request; `None` where it needs none.
    pub fn enter(&self, request: &RequestView<'_>) -> Result<Option<Permit>, Box<Refusal>> {
        if self.spares_get && request.head.method == Method::Get {
            return Ok(None);
        }
        match self.limit.enter() {
            Some(permit) => Ok(Some(permit)),
            None => {
                let fault = Fault::new(Kind::Overloaded, "too many requests at once").by(self.limit.name.clone());
                Err(Box::new(Refusal::new(fault).header("retry-after", Bytes::from_static(b"1"))))
            }
        }
    }
}
