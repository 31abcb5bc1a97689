//! `backendAuth`: with which credential the gateway comes to a backend. A secret of its own is written like any header that
//! is set; here is the client's own, for backends that are to get it although authentication has taken it off the request.

use agentlane_wire::h1::{Headers, Known};
use bytes::Bytes;

/// The header of the credential that is passed on.
pub const AUTHORIZATION: &str = "authorization";

/// Its value; `None`: the client sent none, or more than one.
pub fn credential(headers: &Headers) -> Option<Bytes> {
    let mut all = headers.known_all(Known::Authorization);
    let only = all.next()?;
    all.next().is_none().then(|| Bytes::copy_from_slice(only))
}
