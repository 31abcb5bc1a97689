//! Whether the headers that repeat a tool's arguments (`Mcp-Param-*`) say what the body does. A target that does not get
//! them, because it has sessions or is a child, cannot look.

use agentlane_wire::h1::Headers;
use agentlane_wire::json::{self, Envelope};

use crate::fault::{Fault, Kind};
use crate::protocol::mcp::modern::headers::PARAM_PREFIX;
use crate::protocol::mcp::modern::tools::Tools;

/// Whether a request has such headers.
pub fn repeats_any(headers: &Headers) -> bool {
    let is_one =
        |name: &str| name.get(..PARAM_PREFIX.len()).is_some_and(|front| front.eq_ignore_ascii_case(PARAM_PREFIX));
    headers.iter().any(|header| is_one(header.name))
}

/// Compares them as far as the tool's schema has been seen. `message`: a request in the target's own names.
pub fn check(tools: &Tools, headers: &Headers, message: &[u8], envelope: &Envelope) -> Result<(), Fault> {
    let Some(name) = envelope.name.filter(|_| envelope.method_is(message, "tools/call")) else { return Ok(()) };
    let Ok(name) = json::string(message, name) else { return Ok(()) };
    let agrees = tools.get(&name).is_none_or(|tool| {
        tool.annotated.iter().all(|one| {
            let header = headers.get(&[PARAM_PREFIX, &one.header].concat());
            one.agrees(header, message, envelope.arguments)
        })
    });
    match agrees {
        true => Ok(()),
        false => Err(Fault::new(Kind::HeaderMismatch, "an mcp-param header differs from the body")),
    }
}
