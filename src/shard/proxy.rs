//! Plain HTTP: a request to one backend and its answer back, both streamed. The heads are rewritten here, the bytes are
//! moved by `link`.

use std::rc::Rc;

use agentlane_link::client::{ClientConnection, Spoken};
use agentlane_link::proxy::{Forward, ForwardError};
use agentlane_link::server::Connection;
use agentlane_link::upgrade::{self, Opened};
use agentlane_runtime as runtime;
use agentlane_wire::h1::{EncodeError, Framing, HeadWriter, Known, Method, ResponseHead, request_head};
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::Shard;
use super::attempts::{self, Choice, Going, Tries};
use super::metrics::RouteCells;
use super::record::Record;
use super::responder::write_headers;
use crate::backend::http::HttpBackend;
use crate::fault::Kind;
use crate::policy::auth::backend as credentials;
use crate::request::permit::Permit;
use crate::request::{Changes, HeaderEdit, HeaderEdits, RequestView};
use crate::snapshot::{Route, Timeouts};

/// Forwards one request. False when the connection cannot serve another one.
#[allow(clippy::too_many_arguments, reason = "the parts of one request")]
pub async fn forward(
    shard: &Rc<Shard>,
    cells: &RouteCells,
    connection: &mut Connection,
    view: &RequestView<'_>,
    route: &Route,
    (place, backend): (usize, &HttpBackend),
    mut changes: Changes,
    record: &mut Record,
) -> bool {
    let now = runtime::now();
    let choice = match attempts::choose(shard, route, place, backend, now) {
        Ok(choice) => choice,
        Err(wait) => {
            // Every address rests.
            if let Some(wait) = wait {
                let seconds = wait.as_millis().div_ceil(1000).max(1).to_string();
                changes.response.push(HeaderEdit::Set(Bytes::from_static(b"retry-after"), seconds.into()));
            }
            return fail(connection, 503, Kind::NoBackend, &changes.response, record).await;
        }
    };
    let going = &Going::new(choice, route, changes);
    let Timeouts { request: whole, backend: attempt } = route.timeouts;
    let due = attempt.into_iter().chain(whole).min();
    let options = Forward {
        method: view.head.method,
        is_repeatable: is_idempotent(view.head.method),
        response_due: due.map(|limit| now + limit),
        body_idle: None,
        ends_by: due.map(|limit| now + limit),
    };
    let endpoint = choice.backend.endpoint.of(&shard.pool, choice.address);
    let request = |out: &mut BytesMut, framing| {
        write_request(out, framing, view, going.choice().backend, &going.changes(), false)
    };
    let response =
        |answer: &ResponseHead, head: &mut HeadWriter<'_>| write_response(answer, head, &going.changes().response);
    let tries = &mut Tries::new(shard, route, cells, going, whole.map(|limit| now + limit));
    let framing = view.head.framing;
    let forwarded =
        agentlane_link::proxy::forward(connection, &endpoint, options, framing, request, response, tries).await;
    let Choice { place, backend, .. } = going.choice();
    record.backend = Some(place);
    match forwarded {
        Ok(forwarded) => {
            record.status = forwarded.status;
            record.bytes_out = forwarded.response_bytes;
            true
        }
        Err(error) => failed(connection, error, route, backend, going, record).await,
    }
}

/// Opens a WebSocket to a backend. What becomes of the connection: `Err` says whether it can serve another request.
pub async fn open_websocket(
    shard: &Rc<Shard>,
    connection: &mut Connection,
    view: &RequestView<'_>,
    route: &Route,
    (place, backend): (usize, &HttpBackend),
    changes: Changes,
    record: &mut Record,
) -> Result<WebSocket, bool> {
    let now = runtime::now();
    let choice = match attempts::choose(shard, route, place, backend, now) {
        Ok(choice) => choice,
        Err(_) => return Err(fail(connection, 503, Kind::NoBackend, &changes.response, record).await),
    };
    let going = &Going::new(choice, route, changes);
    record.backend = Some(choice.place);
    let trial = shard.judgements.trial(&shard.metrics, &choice.backend.endpoint, choice.address);
    let due = route.timeouts.backend.into_iter().chain(route.timeouts.request).min().map(|limit| now + limit);
    let mut head = BytesMut::with_capacity(512);
    let written = write_request(&mut head, Framing::None, view, choice.backend, &going.changes(), true);
    let outcome = match written {
        Ok(_) => {
            let endpoint = shard.pool.endpoint(choice.address, choice.backend.endpoint.tls.as_ref(), Spoken::Http1);
            let response = |answer: &ResponseHead, head: &mut HeadWriter<'_>| {
                write_response(answer, head, &going.changes().response);
                if answer.status == 101 {
                    head.header("connection", "upgrade").header("upgrade", "websocket");
                }
            };
            upgrade::open(connection, &endpoint, due, head.freeze(), response).await
        }
        Err(error) => Err(ForwardError::Encode(error)),
    };
    if let Some(trial) = trial {
        match &outcome {
            Ok(Opened::Switched(_)) => trial.ended(Ok(101)),
            Ok(Opened::Answered(forwarded)) => trial.ended(Ok(forwarded.status)),
            Err(ForwardError::Upstream(error)) => trial.ended(Err(error)),
            Err(_) => {}
        }
    }
    match outcome {
        Ok(Opened::Switched(up)) => {
            record.status = 101;
            Ok(WebSocket { up, permits: going.take_permits() })
        }
        Ok(Opened::Answered(forwarded)) => {
            record.status = forwarded.status;
            record.bytes_out = forwarded.response_bytes;
            Err(true)
        }
        Err(error) => Err(failed(connection, error, route, choice.backend, going, record).await),
    }
}

/// An open WebSocket, with what it holds as long as it is open.
pub struct WebSocket {
    pub up: Box<ClientConnection>,
    pub permits: SmallVec<[Permit; 2]>,
}

/// Answers where an exchange failed. False when the connection cannot serve another one.
async fn failed(
    connection: &mut Connection,
    error: ForwardError,
    route: &Route,
    backend: &HttpBackend,
    going: &Going<'_>,
    record: &mut Record,
) -> bool {
    let edits = || going.changes().response.clone();
    match error {
        ForwardError::Downstream(error) => {
            record.fault = Some(Kind::InvalidRequest.label());
            record.status = error.status().unwrap_or(499);
            let _ = connection.refuse(&error).await;
            false
        }
        ForwardError::Upstream(error) => {
            tracing::debug!(%error, backend = backend.endpoint.authority, "upstream failed");
            let kind = if error.is_timeout() { Kind::UpstreamTimeout } else { Kind::UpstreamBroken };
            fail(connection, error.status(), kind, &edits(), record).await
        }
        ForwardError::Encode(error) => {
            tracing::warn!(%error, route = route.name, "a rewritten request cannot be written");
            fail(connection, 500, Kind::Internal, &edits(), record).await
        }
    }
}

fn write_request(
    out: &mut BytesMut,
    framing: Framing,
    view: &RequestView<'_>,
    backend: &HttpBackend,
    changes: &Changes,
    upgrade: bool,
) -> Result<usize, EncodeError> {
    let edits = &changes.request;
    let target = changes.target.as_deref().unwrap_or(view.head.path_and_query());
    let authority = match changes.authority.as_deref() {
        Some("") => &backend.endpoint.authority,
        Some(authority) => authority,
        // HTTP/1.0 may name none.
        None if view.authority.is_empty() => &backend.endpoint.authority,
        None => view.authority,
    };
    let mut head = request_head(out, view.head.method_str(), target);
    head.header("host", authority);
    head.forward(&view.head.headers, |header| {
        matches!(header.known, Known::Host | Known::Expect) || (!edits.is_empty() && !edits.keeps(header.name))
    });
    // Authentication took it off; this backend gets it all the same, unless something else stands in its place.
    let is_set = || edits.written().any(|(name, _)| name == credentials::AUTHORIZATION.as_bytes());
    if backend.passes_credential
        && !edits.keeps(credentials::AUTHORIZATION)
        && !is_set()
        && let Some(value) = credentials::credential(&view.head.headers)
    {
        head.header(credentials::AUTHORIZATION, &value);
    }
    for (name, value) in edits.written() {
        head.header(std::str::from_utf8(name).unwrap_or_default(), value);
    }
    if upgrade {
        head.header("connection", "upgrade").header("upgrade", "websocket");
    }
    head.framing(framing);
    head.finish()
}

fn write_response(answer: &ResponseHead, head: &mut HeadWriter<'_>, edits: &HeaderEdits) {
    head.forward(&answer.headers, |header| !edits.is_empty() && !edits.keeps(header.name));
    for (name, value) in edits.written() {
        head.header(std::str::from_utf8(name).unwrap_or_default(), value);
    }
}

/// Answers where nothing was answered yet; a broken answer can only be cut.
async fn fail(connection: &mut Connection, status: u16, kind: Kind, edits: &HeaderEdits, record: &mut Record) -> bool {
    record.fault = Some(kind.label());
    if connection.has_responded() {
        return false;
    }
    record.status = status;
    let headers = [(Bytes::from_static(b"content-type"), Bytes::from_static(b"text/plain; charset=utf-8"))];
    let body = Bytes::from_static(kind.label().as_bytes());
    let parts = [body].into_iter().collect();
    connection.respond(status, |head| write_headers(head, &headers, edits), parts).await.is_ok()
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: Method) -> bool {
    matches!(method, Method::Get | Method::Head | Method::Options | Method::Put | Method::Delete | Method::Trace)
}
