//! Requests of 2026-07-28 from a client that has one channel for everything (stdio): each is served as if it had come by
//! itself, with the headers that a client of HTTP would have sent, and cancelled by a message in the place of a closed stream.

use std::cell::RefCell;

use agentlane_runtime::local::Event;
use agentlane_wire::h1::{HeadLimits, RequestHead, parse_request};
use agentlane_wire::json::{self, Envelope};
use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::mcp::method::Method;
use crate::protocol::mcp::modern::headers;
use crate::shard::BackendState;

/// The requests that are worked on.
#[derive(Default)]
pub struct Sessionless {
    /// By their ids, as JSON text; set when the client cancels one.
    running: RefCell<Vec<(Bytes, Event)>>,
}

impl Sessionless {
    /// Notes a request; the event tells its end by the client.
    pub fn begin(&self, id: &Bytes) -> Event {
        let cancelled = Event::new();
        self.running.borrow_mut().push((id.clone(), cancelled.clone()));
        cancelled
    }

    pub fn end(&self, id: &Bytes) {
        let mut running = self.running.borrow_mut();
        if let Some(place) = running.iter().position(|(known, _)| known == id) {
            running.swap_remove(place);
        }
    }

    /// `notifications/cancelled`; any other notification means nothing in this revision.
    pub fn notification(&self, body: &[u8], envelope: &Envelope) {
        let id = envelope.request_id.filter(|_| envelope.method_is(body, "notifications/cancelled"));
        let Some(id) = id.and_then(|range| range.of(body)) else { return };
        if let Some((_, cancelled)) = self.running.borrow().iter().find(|(known, _)| known[..] == *id) {
            cancelled.set();
        }
    }
}

/// What the request's headers would be over HTTP. `None` when they are longer than any server takes.
pub fn head_of(backend: &BackendState, method: Method, body: &[u8], envelope: &Envelope) -> Option<RequestHead> {
    let text = |range| json::string(body, range).unwrap_or_default();
    let version = envelope.meta_protocol_version.map(text).unwrap_or_default();
    let mut head = BytesMut::from(&b"POST / HTTP/1.1\r\nhost: localhost\r\nmcp-protocol-version: "[..]);
    head.put_slice(headers::encode(&version).as_bytes());
    head.put_slice(b"\r\n");
    let tool = envelope.name.filter(|_| method == Method::ToolsCall).map(text);
    // Arguments that go into headers are known once the client has listed the tools.
    let annotated = tool.and_then(|tool| {
        let [target] = &backend.config.targets[..] else { return None };
        let tools = backend.eras.of(target).tools();
        let tools = tools.borrow();
        Some(tools.get(&tool)?.annotated.clone())
    });
    headers::put_mirrored(&mut head, body, envelope, annotated.as_deref().unwrap_or_default());
    head.put_slice(b"\r\n");
    parse_request(&mut head, &HeadLimits::default()).ok().flatten()
}
