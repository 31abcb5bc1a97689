//! What is known of one request for the access log and the metrics, filled in as it passes the rooms.

use std::sync::Arc;

use agentlane_wire::json::Envelope;
use bytes::Bytes;
use quanta::Instant;

use super::responder::Responder;
use crate::backend::mcp::Target;
use crate::fault::{Fault, Kind};
use crate::principal::Principal;
use crate::protocol::mcp::method::Method;
use crate::request::LocalReply;
use crate::telemetry::audit::Denial;

pub struct Record {
    pub began: Instant,
    /// Who it is from, as far as that was found out.
    pub principal: Principal,
    /// The route's index in the snapshot.
    pub route: Option<usize>,
    /// The backend's place in the route.
    pub backend: Option<usize>,
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub mcp_method: Option<&'static str>,
    pub target: Option<Arc<Target>>,
    /// The tool's name as the client wrote it, JSON escapes and all.
    pub tool: Option<Bytes>,
    /// The prompt's name or the resource's URI, likewise.
    pub item: Option<Bytes>,
    pub session: Option<u64>,
    pub fault: Option<&'static str>,
    /// What refused the request, for the audit log.
    pub denial: Option<Box<Denial>>,
}

impl Record {
    pub fn new() -> Self {
        Record {
            began: Instant::now(),
            principal: Principal::default(),
            route: None,
            backend: None,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            mcp_method: None,
            target: None,
            tool: None,
            item: None,
            session: None,
            fault: None,
            denial: None,
        }
    }

    /// Notes what was answered.
    pub fn answered(&mut self, responder: &Responder<'_>) {
        self.status = responder.status();
        self.bytes_out = responder.bytes_out();
    }

    /// Notes what of a target a request is about.
    pub fn about(&mut self, method: Method, body: &Bytes, envelope: &Envelope) {
        let (range, noted) = match method {
            Method::ToolsCall => (envelope.name, &mut self.tool),
            Method::PromptsGet => (envelope.name, &mut self.item),
            Method::ResourcesRead => (envelope.uri, &mut self.item),
            _ => return,
        };
        *noted = range.and_then(|range| {
            let text = range.of(body)?;
            Some(body.slice_ref(text.get(1..text.len().checked_sub(1)?)?))
        });
    }

    /// Notes a fault; the first one counts. One that denies is a denial as well.
    pub fn fault(&mut self, fault: &Fault) {
        self.fault.get_or_insert(fault.kind.label());
        if self.denial.is_none() && (fault.kind.denies() || fault.rule.is_some()) {
            self.denial = Some(Box::new(Denial { kind: fault.kind.label(), rule: fault.rule.clone() }));
        }
    }

    /// Notes an answer of a policy; one that refuses is a fault and a denial. A refusal by its status alone is none the less.
    pub fn replied(&mut self, reply: &mut LocalReply) {
        let by_status = || {
            let kind = match reply.status {
                401 => Kind::Unauthenticated,
                403 => Kind::Forbidden,
                429 => Kind::RateLimited,
                _ => return None,
            };
            Some(Box::new(Denial { kind: kind.label(), rule: None }))
        };
        if let Some(denial) = reply.denial.take().or_else(by_status) {
            self.fault.get_or_insert(denial.kind);
            self.denial.get_or_insert(denial);
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Record::new()
    }
}
