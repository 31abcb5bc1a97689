//! Where an MCP answer goes: to the connection, to the shard that holds it, or into one answer of a batch. The rooms that
//! make answers do not know which.

use std::rc::Rc;

use agentlane_link::server::{ConnError, Connection};
use agentlane_runtime::channel::Sender;
use agentlane_runtime::local::{self, Event};
use agentlane_wire::h1::{Framing, HeadWriter};
use agentlane_wire::json;
use bytes::{BufMut, Bytes, BytesMut};

use super::outbox::Outbox;
use crate::limits::MESH_WATCH_EVERY;
use crate::mesh::{ReplyHeaders, ReplyPart};
use crate::protocol::mcp::streams::{EventId, STANDALONE};
use crate::request::HeaderEdits;
use crate::session::Session;

/// The client has left, or does not take what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

pub struct Responder<'a> {
    out: Out<'a>,
    /// Headers that policies add to every answer.
    edits: HeaderEdits,
    session: Option<Bytes>,
    began: bool,
    gone: bool,
    status: u16,
    bytes_out: u64,
    /// Reused for the framing of events.
    scratch: BytesMut,
}

enum Out<'a> {
    Connection(&'a mut Connection),
    Mesh(Sender<ReplyPart>),
    Collect {
        session: Rc<Session>,
        response: Option<Bytes>,
    },
    /// Whole messages, whatever they are.
    Outbox {
        outbox: Rc<Outbox>,
        cancelled: Event,
    },
    /// Every message by itself, to a task that translates them.
    Bridge(local::Sender<Bytes>),
}

const JSON: &[u8] = b"application/json";
const EVENTS: &[u8] = b"text/event-stream";

impl<'a> Responder<'a> {
    pub fn connection(connection: &'a mut Connection, edits: HeaderEdits) -> Self {
        Self::new(Out::Connection(connection), edits)
    }

    /// For a request that another shard forwarded; that one writes the policies' headers.
    pub fn mesh(reply: Sender<ReplyPart>) -> Self {
        Self::new(Out::Mesh(reply), HeaderEdits::default())
    }

    /// For one element of a batch. What is no answer goes to the session's own stream.
    pub fn collect(session: Rc<Session>) -> Self {
        Self::new(Out::Collect { session, response: None }, HeaderEdits::default())
    }

    /// For a client that gets all its messages one way; `cancelled`: nothing more of this request.
    pub fn outbox(outbox: Rc<Outbox>, cancelled: Event) -> Self {
        Self::new(Out::Outbox { outbox, cancelled }, HeaderEdits::default())
    }

    /// For a call that another task made and reads the messages of.
    pub fn bridge(messages: local::Sender<Bytes>) -> Self {
        Self::new(Out::Bridge(messages), HeaderEdits::default())
    }

    fn new(out: Out<'a>, edits: HeaderEdits) -> Self {
        Responder {
            out,
            edits,
            session: None,
            began: false,
            gone: false,
            status: 0,
            bytes_out: 0,
            scratch: BytesMut::new(),
        }
    }

    /// Adds the session's id to the answer.
    pub fn set_session(&mut self, id: &Bytes) {
        self.session = Some(id.clone());
    }

    /// Whether bytes go to a client as they are written, rather than into a message of their own.
    pub fn is_direct(&self) -> bool {
        matches!(self.out, Out::Connection(_) | Out::Mesh(_))
    }

    /// Whether the head of an answer is out, or on its way.
    pub fn has_begun(&self) -> bool {
        self.began
    }

    pub fn is_gone(&self) -> bool {
        self.gone
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn bytes_out(&self) -> u64 {
        self.bytes_out
    }

    /// The answer of a batch's element.
    pub fn into_collected(self) -> Option<Bytes> {
        match self.out {
            Out::Collect { response, .. } => response,
            _ => None,
        }
    }

    /// A JSON answer.
    pub async fn json(&mut self, status: u16, body: Bytes) -> Result<(), Gone> {
        self.whole(status, Some(JSON), body).await
    }

    /// An answer as JSON, or as the last event where events have begun.
    pub async fn answer(&mut self, body: Bytes) -> Result<(), Gone> {
        self.conclude(200, body).await
    }

    /// An answer as the one event of a stream that the client can come back to.
    pub async fn event_answer(&mut self, session: &Session, body: Bytes) -> Result<(), Gone> {
        // Complete before anything is awaited: a client that leaves must not leave a live stream behind.
        let (position, id) = {
            let mut streams = session.streams.borrow_mut();
            let stream = streams.open();
            let position = streams.position(stream);
            let (id, _) = streams.push(stream, body.clone());
            streams.end(stream);
            (position, id)
        };
        self.begin_events().await?;
        if session.revision.has_priming_events() {
            self.prime(position).await?;
        }
        self.event(id, &body).await?;
        self.end().await
    }

    /// 202 without a body.
    pub async fn accepted(&mut self) -> Result<(), Gone> {
        self.whole(202, None, Bytes::new()).await
    }

    /// A whole answer in one write.
    pub async fn whole(&mut self, status: u16, content_type: Option<&'static [u8]>, body: Bytes) -> Result<(), Gone> {
        self.note(status);
        self.bytes_out += body.len() as u64;
        if let Out::Outbox { outbox, cancelled } = &self.out {
            let outcome = if body.is_empty() { Ok(()) } else { say(outbox, cancelled, body).await };
            return self.noted(outcome);
        }
        let headers = self.headers(content_type);
        let outcome = match &mut self.out {
            Out::Connection(connection) => {
                let edits = &self.edits;
                let parts = if body.is_empty() { Default::default() } else { [body].into_iter().collect() };
                connection.respond(status, |head| write_headers(head, &headers, edits), parts).await.map_err(drop)
            }
            Out::Mesh(reply) => reply.send(ReplyPart::Whole { status, headers, body }).await.map_err(drop),
            Out::Collect { response, .. } => {
                if !body.is_empty() {
                    *response = Some(body);
                }
                Ok(())
            }
            Out::Outbox { .. } => Ok(()),
            Out::Bridge(_) if body.is_empty() => Ok(()),
            Out::Bridge(messages) => messages.send(body).await.map_err(drop),
        };
        self.noted(outcome)
    }

    /// Begins an answer whose body follows; `length` where it is known.
    pub fn begin(&mut self, status: u16, content_type: &'static [u8], length: Option<u64>) {
        self.note(status);
        if let Out::Connection(connection) = &mut self.out
            && content_type == JSON
            && self.session.is_none()
        {
            // The usual one, straight into the head.
            let framing = length.map_or(Framing::Chunked, Framing::Length);
            let edits = &self.edits;
            let begun = connection.start(status, framing, |head| write_json_headers(head, edits));
            self.gone |= begun.is_err();
            return;
        }
        let headers = self.headers(Some(content_type));
        match &mut self.out {
            Out::Connection(connection) => {
                let framing = length.map_or(Framing::Chunked, Framing::Length);
                let edits = &self.edits;
                let begun = connection.start(status, framing, |head| write_headers(head, &headers, edits));
                self.gone |= begun.is_err();
            }
            Out::Mesh(reply) => self.gone |= reply.try_send(ReplyPart::Head { status, headers, length }).is_err(),
            Out::Collect { .. } | Out::Outbox { .. } | Out::Bridge(_) => {}
        }
    }

    /// A part of the body.
    pub async fn data(&mut self, data: Bytes) -> Result<(), Gone> {
        if self.gone {
            return Err(Gone);
        }
        self.bytes_out += data.len() as u64;
        let outcome = match &mut self.out {
            Out::Connection(connection) => connection.write_chunk([data].into_iter().collect()).await.map_err(drop),
            Out::Mesh(reply) => reply.send(ReplyPart::Data(data)).await.map_err(drop),
            Out::Collect { .. } | Out::Outbox { .. } | Out::Bridge(_) => Ok(()),
        };
        self.noted(outcome)
    }

    /// The end of the body.
    pub async fn end(&mut self) -> Result<(), Gone> {
        if self.gone {
            return Err(Gone);
        }
        let outcome = match &mut self.out {
            Out::Connection(connection) => connection.finish().await.map_err(drop),
            Out::Mesh(reply) => reply.send(ReplyPart::End).await.map_err(drop),
            Out::Collect { .. } | Out::Outbox { .. } | Out::Bridge(_) => Ok(()),
        };
        self.noted(outcome)
    }

    /// Begins a stream of events.
    pub async fn begin_events(&mut self) -> Result<(), Gone> {
        self.begin(200, EVENTS, None);
        if self.gone {
            return Err(Gone);
        }
        let outcome = match &mut self.out {
            Out::Connection(connection) => connection.flush().await.map_err(drop),
            _ => Ok(()),
        };
        self.noted(outcome)
    }

    /// An event that a client can come back to.
    pub async fn event(&mut self, id: EventId, message: &Bytes) -> Result<(), Gone> {
        self.event_parts(Some(id), message).await
    }

    /// An event that nobody can come back to.
    pub async fn message(&mut self, message: &Bytes) -> Result<(), Gone> {
        if !self.began {
            self.begin_events().await?;
        }
        self.event_parts(None, message).await
    }

    /// A whole answer with its status, or the last event where events have begun.
    pub async fn conclude(&mut self, status: u16, body: Bytes) -> Result<(), Gone> {
        if !self.began {
            return self.json(status, body).await;
        }
        self.event_parts(None, &body).await?;
        self.end().await
    }

    async fn event_parts(&mut self, id: Option<EventId>, message: &Bytes) -> Result<(), Gone> {
        if let Out::Bridge(messages) = &self.out {
            let outcome = messages.send(message.clone()).await.map_err(drop);
            return self.noted(outcome);
        }
        if let Out::Collect { session, response } = &mut self.out {
            let is_answer =
                json::scan(message, &super::mcp::SCAN_LIMITS).is_ok_and(|envelope| envelope.method.is_none());
            match is_answer {
                true => *response = Some(message.clone()),
                false => {
                    session.streams.borrow_mut().push(STANDALONE, message.clone());
                    session.changed.notify_all();
                }
            }
            return Ok(());
        }
        if let Out::Outbox { outbox, cancelled } = &self.out {
            let outcome = say(outbox, cancelled, message.clone()).await;
            return self.noted(outcome);
        }
        self.scratch.clear();
        if let Some(id) = id {
            self.scratch.put_slice(b"id: ");
            self.scratch.put_slice(id.render().as_bytes());
            self.scratch.put_slice(b"\n");
        }
        self.put_data(message).await
    }

    /// An event of another kind than `message`, or of that kind by name.
    pub async fn named_event(&mut self, name: &'static str, data: &[u8]) -> Result<(), Gone> {
        self.scratch.clear();
        self.scratch.put_slice(b"event: ");
        self.scratch.put_slice(name.as_bytes());
        self.scratch.put_slice(b"\n");
        self.put_data(data).await
    }

    async fn put_data(&mut self, message: &[u8]) -> Result<(), Gone> {
        self.scratch.put_slice(b"data: ");
        // JSON text has line breaks only between tokens: a line of its own for each piece, joined again by the reader.
        for (at, line) in message.split(|&byte| byte == b'\n' || byte == b'\r').enumerate() {
            if at > 0 {
                self.scratch.put_slice(b"\ndata: ");
            }
            self.scratch.put_slice(line);
        }
        self.scratch.put_slice(b"\n\n");
        let event = self.scratch.split().freeze();
        self.data(event).await
    }

    /// An event without a message, so that the client knows where to come back to.
    pub async fn prime(&mut self, id: EventId) -> Result<(), Gone> {
        if !self.is_direct() {
            return Ok(());
        }
        self.data(Bytes::from(format!("id: {}\ndata: \n\n", id.render()))).await
    }

    /// How long the client shall wait before it comes back.
    pub async fn retry(&mut self, milliseconds: u64) -> Result<(), Gone> {
        if !self.is_direct() {
            return Ok(());
        }
        self.data(Bytes::from(format!("retry: {milliseconds}\n\n"))).await
    }

    /// Says nothing, so that nothing in between takes the stream for dead.
    pub async fn comment(&mut self) -> Result<(), Gone> {
        if !self.is_direct() {
            return Ok(());
        }
        self.data(Bytes::from_static(b": keep-alive\n\n")).await
    }

    /// Resolves when the client has left; may never. May be dropped.
    pub async fn left(&self) {
        match &self.out {
            Out::Connection(connection) => connection.closed().await,
            // The other shard drops its end.
            Out::Mesh(reply) => {
                while !reply.is_closed() {
                    agentlane_runtime::sleep(MESH_WATCH_EVERY).await;
                }
            }
            Out::Collect { .. } | Out::Bridge(_) => std::future::pending().await,
            Out::Outbox { outbox, cancelled } => {
                let (closed, cancelled) = (std::pin::pin!(outbox.closed()), std::pin::pin!(cancelled.wait()));
                agentlane_runtime::race(closed, cancelled).await;
            }
        }
    }

    /// The answer cannot be completed: the client must see that it was cut.
    pub fn abort(&mut self) {
        self.gone = true;
    }

    fn note(&mut self, status: u16) {
        self.began = true;
        self.status = status;
    }

    fn noted(&mut self, outcome: Result<(), ()>) -> Result<(), Gone> {
        outcome.map_err(|()| {
            self.gone = true;
            Gone
        })
    }

    fn headers(&mut self, content_type: Option<&'static [u8]>) -> ReplyHeaders {
        let mut headers = ReplyHeaders::new();
        if let Some(content_type) = content_type {
            headers.push((Bytes::from_static(b"content-type"), Bytes::from_static(content_type)));
            if content_type == EVENTS {
                headers.push((Bytes::from_static(b"cache-control"), Bytes::from_static(b"no-cache, no-transform")));
                headers.push((Bytes::from_static(b"x-accel-buffering"), Bytes::from_static(b"no")));
            }
        }
        if let Some(session) = self.session.take() {
            headers.push((Bytes::from_static(b"mcp-session-id"), session));
        }
        headers
    }
}

/// Says a message, unless the request was cancelled.
async fn say(outbox: &Outbox, cancelled: &Event, message: Bytes) -> Result<(), ()> {
    match cancelled.is_set() {
        true => Err(()),
        false => outbox.push(message).await.map_err(drop),
    }
}

fn write_json_headers(head: &mut HeadWriter<'_>, edits: &HeaderEdits) {
    if edits.is_empty() {
        head.header("content-type", JSON).header("date", agentlane_link::date());
        return;
    }
    write_headers(head, &[(Bytes::from_static(b"content-type"), Bytes::from_static(JSON))], edits);
}

/// Writes an answer's own headers and what policies make of them.
pub fn write_headers(head: &mut HeadWriter<'_>, headers: &[(Bytes, Bytes)], edits: &HeaderEdits) {
    for (name, value) in headers {
        let name = std::str::from_utf8(name).unwrap_or_default();
        if edits.is_empty() || edits.keeps(name) {
            head.header(name, value);
        }
    }
    for (name, value) in edits.written() {
        head.header(std::str::from_utf8(name).unwrap_or_default(), value);
    }
    head.header("date", agentlane_link::date());
}

/// Relays a forwarded request's answer to the connection here. An error: the connection cannot be used any more. `watched`:
/// the client's leaving ends it, which the other shard sees.
pub async fn relay_parts(
    connection: &mut Connection,
    edits: &HeaderEdits,
    parts: &agentlane_runtime::channel::Receiver<ReplyPart>,
    watched: bool,
) -> Result<(u16, u64), ConnError> {
    let (mut noted, mut sent) = (0, 0);
    loop {
        let part = match watched {
            true => match agentlane_runtime::race(parts.recv(), connection.closed()).await {
                agentlane_runtime::Either::Left(part) => part,
                agentlane_runtime::Either::Right(()) => None,
            },
            false => parts.recv().await,
        };
        let Some(part) = part else { break };
        match part {
            ReplyPart::Whole { status, headers, body } => {
                sent += body.len() as u64;
                let body = if body.is_empty() { Default::default() } else { [body].into_iter().collect() };
                connection.respond(status, |head| write_headers(head, &headers, edits), body).await?;
                return Ok((status, sent));
            }
            ReplyPart::Head { status, headers, length } => {
                noted = status;
                let framing = length.map_or(Framing::Chunked, Framing::Length);
                connection.start(status, framing, |head| write_headers(head, &headers, edits))?;
                connection.flush().await?;
            }
            ReplyPart::Data(data) => {
                sent += data.len() as u64;
                connection.write_chunk([data].into_iter().collect()).await?;
            }
            ReplyPart::End => {
                connection.finish().await?;
                return Ok((noted, sent));
            }
        }
    }
    // The other shard gave up in the middle.
    Ok((0, sent))
}
