//! A client for which everything is one conversation: messages come one by one, and all that there is to say goes back on one
//! channel, in the order in which it is said. HTTP+SSE of 2024-11-05 and standard streams are such. It does not know which.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use agentlane_runtime as runtime;
use agentlane_runtime::local::{Event, Notify};
use agentlane_wire::json::{self, Envelope, MessageKind};
use bytes::Bytes;

use super::sessionless::{self, Sessionless};
use super::{Incoming, close, mcp_fault, method_of, open, scan_fault, upstream};
use crate::fault::{Fault, Kind};
use crate::limits::SESSION_IN_FLIGHT_MAX;
use crate::policy::rules::access::Access;
use crate::principal::Principal;
use crate::protocol::mcp::caller::Caller;
use crate::protocol::mcp::error;
use crate::protocol::mcp::method::Method;
use crate::protocol::mcp::streams::{Claim, Next, STANDALONE};
use crate::request::HeaderEdits;
use crate::session::Session;
use crate::shard::audit::Scene;
use crate::shard::outbox::Outbox;
use crate::shard::record::Record;
use crate::shard::responder::Responder;
use crate::shard::{BackendState, Shard};

pub struct Conversation {
    /// [`McpBackend::key`](crate::backend::mcp::McpBackend) of the endpoint.
    backend: Rc<str>,
    /// Who opened it, as far as that was verified: nobody else uses it.
    principal: Principal,
    /// Who opened it, as far as can be told.
    caller: Caller,
    /// What is said to the client because of something that it asked.
    outbox: Rc<Outbox>,
    /// From `initialize` on, with our claim on what belongs to no request.
    session: RefCell<Option<(Rc<Session>, Claim)>>,
    /// `initialize` is under way.
    opening: Cell<bool>,
    /// Requests that are worked on.
    running: Cell<usize>,
    /// One of the two before has changed.
    settled: Notify,
    /// Where 2026-07-28 is spoken as well.
    sessionless: Option<Sessionless>,
    /// Whose turn it is among what can be said.
    other_first: Cell<bool>,
}

/// A message that nothing can be made of.
pub struct Refusal {
    /// Its id, as JSON text, where it could be read.
    pub id: Option<Bytes>,
    pub fault: Fault,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Refusal { id: None, fault }
    }
}

/// What comes with a message.
pub struct Context<'a> {
    pub shard: &'a Rc<Shard>,
    pub backend: &'a Rc<BackendState>,
    pub principal: Principal,
    /// What it may use.
    pub access: Access,
    /// The client's headers that targets get as well.
    pub passed_on: Bytes,
}

impl Conversation {
    pub fn new(backend: &BackendState, principal: Principal, caller: Caller) -> Rc<Self> {
        Rc::new(Conversation::of(backend, principal, caller, None))
    }

    /// One whose client may as well speak 2026-07-28, until it has a session.
    pub fn of_any_era(backend: &BackendState) -> Rc<Self> {
        let sessionless = Some(Sessionless::default());
        Rc::new(Conversation::of(backend, Principal::default(), Caller::NOBODY, sessionless))
    }

    fn of(backend: &BackendState, principal: Principal, caller: Caller, sessionless: Option<Sessionless>) -> Self {
        Conversation {
            backend: Rc::from(backend.config.key.as_str()),
            principal,
            caller,
            outbox: Rc::default(),
            session: RefCell::default(),
            opening: Cell::new(false),
            running: Cell::new(0),
            settled: Notify::new(),
            sessionless,
            other_first: Cell::new(false),
        }
    }

    pub fn belongs_to(&self, backend: &BackendState, principal: &Principal) -> bool {
        *self.backend == *backend.config.key && self.principal.identity() == principal.identity()
    }

    pub fn session(&self) -> Option<Rc<Session>> {
        self.session.borrow().as_ref().map(|(session, _)| session.clone())
    }

    /// Whether the client has begun what it came for.
    pub fn has_begun(&self) -> bool {
        self.opening.get() || self.session.borrow().is_some()
    }

    /// Takes one message. A request goes on by itself; all else is done on return, so that what comes after it in time comes
    /// after it at the targets.
    pub async fn take(self: &Rc<Self>, context: Context<'_>, body: Bytes) -> Result<(), Refusal> {
        if self.outbox.is_closed() {
            return Err(mcp_fault::session_unknown().into());
        }
        if json::is_batch(&body) {
            return self.batch(context, body).await;
        }
        let envelope = json::scan(&body, &super::SCAN_LIMITS).map_err(|fault| scan_fault(&fault))?;
        let id = envelope.answer_id().and_then(|range| range.of(&body)).map(Bytes::copy_from_slice);
        match envelope.kind {
            MessageKind::Invalid(reason) => {
                Err(Refusal { id, fault: Fault::new(Kind::InvalidRequest, reason.message()) })
            }
            MessageKind::Request => {
                self.request(context, id.unwrap_or_default(), body, &envelope).await;
                Ok(())
            }
            // Before a session there is nothing else that they could be about.
            _ if self.session.borrow().is_none() => {
                if let Some(sessionless) = &self.sessionless {
                    sessionless.notification(&body, &envelope);
                }
                Ok(())
            }
            _ => {
                self.serve(&context, body).await;
                Ok(())
            }
        }
    }

    async fn request(self: &Rc<Self>, context: Context<'_>, id: Bytes, body: Bytes, envelope: &Envelope) {
        let method = method_of(&body, envelope);
        let begun = self.has_begun();
        let is_sessionless = !begun && self.sessionless.is_some() && envelope.meta_protocol_version.is_some();
        let answer = match method {
            Some(method) if is_sessionless && self.running.get() < SESSION_IN_FLIGHT_MAX => {
                return self.serve_sessionless(context, method, id, body, envelope).await;
            }
            Some(Method::Initialize) if !begun => return self.initialize(context, id, body, *envelope),
            Some(Method::Initialize) => {
                let fault = Fault::new(Kind::AlreadyInitialized, "the session is initialized");
                error::fault_response(Some(&id), &fault)
            }
            Some(Method::Ping) => error::result_response(&id, b"{}"),
            _ if self.session.borrow().is_none() && !is_sessionless => {
                let fault = Fault::new(Kind::SessionMissing, "initialize comes first");
                error::fault_response(Some(&id), &fault)
            }
            _ if self.running.get() >= SESSION_IN_FLIGHT_MAX => {
                error::fault_response(Some(&id), &mcp_fault::overloaded())
            }
            _ => return self.spawn(context, body),
        };
        let _ = self.outbox.push(answer).await;
    }

    /// Only where the revision has batches: its elements are served side by side, and answered as one.
    async fn batch(self: &Rc<Self>, context: Context<'_>, body: Bytes) -> Result<(), Refusal> {
        let has_batches = self.session().is_some_and(|session| session.revision.has_batches());
        if !has_batches {
            return Err(Fault::new(Kind::BatchForbidden, "this revision has no batches").into());
        }
        if self.running.get() >= SESSION_IN_FLIGHT_MAX {
            return Err(mcp_fault::overloaded().into());
        }
        self.spawn(context, body);
        Ok(())
    }

    /// Serves requests as a task.
    fn spawn(self: &Rc<Self>, context: Context<'_>, body: Bytes) {
        let this = self.clone();
        let (shard, backend) = (context.shard.clone(), context.backend.clone());
        let Context { principal, access, passed_on, .. } = context;
        this.running.set(this.running.get() + 1);
        runtime::spawn(async move {
            this.serve(&Context { shard: &shard, backend: &backend, principal, access, passed_on }, body).await;
            this.running.set(this.running.get() - 1);
            this.settled.notify_all();
        });
    }

    async fn serve(&self, context: &Context<'_>, body: Bytes) {
        let Context { shard, backend, principal, access, passed_on } = context;
        // Those of a message's POST mean nothing more.
        let headers = agentlane_wire::h1::Headers::default();
        let session = self.session();
        let headers = &headers;
        let incoming =
            Incoming { shard, backend, session, principal, access, headers, passed_on, prefers_events: false };
        let mut record = Record::new();
        record.principal = principal.clone();
        let mut responder = Responder::outbox(self.outbox.clone(), Event::new());
        super::post(&incoming, body, &mut responder, &mut record).await;
        record.answered(&responder);
        shard.metrics.mcp(&record);
        shard.audit(&record, || Scene::message(&incoming));
    }

    /// Serves a request of 2026-07-28 as a task.
    async fn serve_sessionless(
        self: &Rc<Self>,
        context: Context<'_>,
        method: Method,
        id: Bytes,
        body: Bytes,
        envelope: &Envelope,
    ) {
        let head = sessionless::head_of(context.backend, method, &body, envelope);
        let (Some(head), Some(sessionless)) = (head, &self.sessionless) else {
            let fault = Fault::new(Kind::InvalidParams, "what goes into headers is too long");
            let _ = self.outbox.push(error::fault_response(Some(&id), &fault)).await;
            return;
        };
        let cancelled = sessionless.begin(&id);
        let this = self.clone();
        let (shard, backend) = (context.shard.clone(), context.backend.clone());
        let Context { principal, access, .. } = context;
        this.running.set(this.running.get() + 1);
        runtime::spawn(async move {
            let (shard, backend) = (&shard, &backend);
            let passed_on = upstream::passed_on(&head.headers, &HeaderEdits::default());
            let incoming = Incoming {
                shard,
                backend,
                session: None,
                principal: &principal,
                access: &access,
                headers: &head.headers,
                passed_on: &passed_on,
                prefers_events: false,
            };
            let mut record = Record::new();
            record.principal = principal.clone();
            let mut responder = Responder::outbox(this.outbox.clone(), cancelled);
            super::post(&incoming, body, &mut responder, &mut record).await;
            record.answered(&responder);
            shard.metrics.mcp(&record);
            shard.audit(&record, || Scene::message(&incoming));
            if let Some(sessionless) = &this.sessionless {
                sessionless.end(&id);
            }
            this.running.set(this.running.get() - 1);
            this.settled.notify_all();
        });
    }

    fn initialize(self: &Rc<Self>, context: Context<'_>, id: Bytes, body: Bytes, envelope: Envelope) {
        let this = self.clone();
        let (shard, backend) = (context.shard.clone(), context.backend.clone());
        let principal = this.principal.clone();
        this.opening.set(true);
        runtime::spawn(async move {
            let mut record = Record::new();
            record.mcp_method = Some(Method::Initialize.label());
            let opened = open::initialize(&shard, &backend, principal, this.caller, &body, &envelope).await;
            let answer = match opened {
                Ok((session, response)) => this.begin(&shard, session).map(|()| response),
                Err(fault) => Err(fault),
            };
            let answer = answer.unwrap_or_else(|fault| {
                record.fault(&fault);
                tracing::warn!(target: "agentlane::mcp", %fault, "a client could not be initialized");
                error::fault_response(Some(&id), &fault)
            });
            this.opening.set(false);
            let _ = this.outbox.push(answer).await;
            this.settled.notify_all();
            shard.metrics.mcp(&record);
        });
    }

    /// Takes the session, unless the client has left meanwhile.
    fn begin(&self, shard: &Rc<Shard>, session: Rc<Session>) -> Result<(), Fault> {
        let claim = session.streams.borrow_mut().claim(STANDALONE, None);
        let Some(claim) = claim.filter(|_| !self.outbox.is_closed()) else {
            close::end(shard, &session);
            return Err(mcp_fault::session_unknown());
        };
        *self.session.borrow_mut() = Some((session, claim));
        Ok(())
    }

    /// Waits until `initialize` is answered, if it is under way.
    pub async fn opened(&self) {
        while self.opening.get() {
            self.settled.notified().await;
        }
    }

    /// Waits until no request is worked on.
    pub async fn idle(&self) {
        while self.opening.get() || self.running.get() > 0 {
            self.settled.notified().await;
        }
    }

    /// The next message for the client; `None` at the end. May be dropped while it waits.
    pub async fn next(&self) -> Option<Bytes> {
        loop {
            // In turn, so that neither keeps the other from being heard.
            let other_first = self.other_first.replace(!self.other_first.get());
            let message = match other_first {
                true => self.unrelated().or_else(|| self.outbox.pop()),
                false => self.outbox.pop().or_else(|| self.unrelated()),
            };
            if message.is_some() {
                return message;
            }
            if self.outbox.is_closed() {
                return None;
            }
            let said = std::pin::pin!(self.outbox.changed.notified());
            match self.session() {
                None => said.await,
                Some(session) if session.ended.get() => return None,
                // The gateway goes down, and nothing is under way.
                Some(session) if session.hung_up.get() && self.running.get() == 0 => return None,
                Some(session) => {
                    let changed = std::pin::pin!(session.changed.notified());
                    runtime::race(said, changed).await;
                }
            }
        }
    }

    /// What a target said because of nothing that the client asked.
    fn unrelated(&self) -> Option<Bytes> {
        let (session, claim) = self.session.borrow().clone()?;
        let next = session.streams.borrow_mut().next(claim);
        let Next::Event(_, message) = next else { return None };
        // A follower may wait for us.
        session.changed.notify_all();
        Some(message)
    }

    /// Answers a message that nothing can be made of.
    pub async fn refuse(&self, refusal: &Refusal) {
        tracing::warn!(target: "agentlane::mcp", fault = %refusal.fault, "a message was refused");
        let answer = error::fault_response(refusal.id.as_deref(), &refusal.fault);
        let _ = self.outbox.push(answer).await;
    }

    /// Nothing is said any more: `next` ends with what is there.
    pub fn close(&self) {
        self.outbox.close();
    }

    /// The client has left: the session ends, and what still runs for it, since nobody could hear the answers.
    pub fn end(&self, shard: &Rc<Shard>) {
        if let Some(session) = self.hang_up() {
            close::end(shard, &session);
        }
    }

    /// The same, and waits until the targets know.
    pub async fn finish(&self, shard: &Rc<Shard>) {
        if let Some(session) = self.hang_up() {
            close::end_and_wait(shard, &session).await;
        }
    }

    fn hang_up(&self) -> Option<Rc<Session>> {
        self.close();
        let session = self.session()?;
        for request in session.in_flight.borrow().iter() {
            request.cancelled.set(true);
            if let Some(socket) = request.socket.take() {
                socket.end();
            }
        }
        Some(session)
    }
}
