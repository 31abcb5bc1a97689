//! The `text` server over streamable HTTP, at every path. Knows nothing of what it offers.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::MESSAGE_BYTES_MAX;
use super::server::{Outgoing, Revision, Route, Server, id_less_error};
use super::text::Text;

const SESSIONS_MAX: usize = 1024;
/// A session without a stream ends after so long without a message.
const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);
/// Events that wait for a client that reads slowly; at the next one its stream is closed.
const STREAM_EVENTS_MAX: usize = 256;
/// Messages kept until the client opens its stream; the oldest are dropped.
const BACKLOG_MAX: usize = 64;
/// Answers under way at the end get so long.
const STOP_GRACE: Duration = Duration::from_secs(1);

const SESSION: &str = "mcp-session-id";
const REVISION: &str = "mcp-protocol-version";

/// Serves until `stop` becomes true or its sender is gone. Sessions end with it.
pub async fn serve(listener: std::net::TcpListener, stop: watch::Receiver<bool>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let hub = Arc::new(Hub::default());
    let router = Router::new()
        .route("/", any(answer))
        .route("/{*path}", any(answer))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
        .with_state(Arc::clone(&hub));
    let ending = {
        let mut stop = stop.clone();
        async move {
            let _ = stop.wait_for(|stop| *stop).await;
            // Dropping the sessions ends their streams, which would hold their connections open.
            hub.lock().clear();
        }
    };
    let serving = axum::serve(tokio::net::TcpListener::from_std(listener)?, router).with_graceful_shutdown(ending);
    let mut stop = stop;
    tokio::select! {
        result = async { serving.await } => result,
        () = async {
            let _ = stop.wait_for(|stop| *stop).await;
            tokio::time::sleep(STOP_GRACE).await;
        } => Ok(()),
    }
}

/// All sessions by id.
#[derive(Default)]
struct Hub(Mutex<HashMap<String, Arc<Session>>>);

struct Session {
    state: Mutex<SessionState>,
    /// Told when a deadline may have come nearer, and when the session is gone.
    timed: Arc<Notify>,
}

struct SessionState {
    server: Server<Text>,
    /// The answers that are still open, by request id as JSON text.
    answers: HashMap<String, Stream>,
    general: Option<Stream>,
    backlog: VecDeque<Bytes>,
    used: Instant,
}

type Stream = flume::Sender<Result<Bytes, Infallible>>;

async fn answer(State(hub): State<Arc<Hub>>, request: axum::extract::Request) -> Response {
    let (head, body) = request.into_parts();
    if !is_local_origin(&head.headers) {
        return refuse(StatusCode::FORBIDDEN, "the origin is not local").into_response();
    }
    if let Some(name) = text(&head.headers, REVISION)
        && Revision::parse(name).is_none()
    {
        return refuse(StatusCode::BAD_REQUEST, "unsupported protocol version").into_response();
    }
    let result = match head.method.as_str() {
        "POST" => match axum::body::to_bytes(body, MESSAGE_BYTES_MAX).await {
            Ok(body) => post(&hub, &head.headers, &body),
            Err(_) => Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "the message is too long")),
        },
        "GET" => open_stream(&hub, &head.headers),
        "DELETE" => end_session(&hub, &head.headers),
        _ => {
            let refusal = refuse(StatusCode::METHOD_NOT_ALLOWED, "no such method");
            Ok(([(header::ALLOW, "GET, POST, DELETE")], refusal).into_response())
        }
    };
    result.unwrap_or_else(Refusal::into_response)
}

type Outcome = Result<Response, Refusal>;

/// A request that reaches no session: its status, and the code and text of its JSON-RPC error.
struct Refusal(StatusCode, i64, &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        respond(self.0, &id_less_error(self.1, self.2))
    }
}

fn post(hub: &Hub, headers: &HeaderMap, body: &[u8]) -> Outcome {
    if !media_types(headers, header::CONTENT_TYPE).any(|name| name == "application/json") {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json"));
    }
    if !accepts(headers, "application/json") || !accepts(headers, "text/event-stream") {
        return Err(refuse(StatusCode::NOT_ACCEPTABLE, "both application/json and text/event-stream must be accepted"));
    }
    let message: Value =
        serde_json::from_slice(body).map_err(|_| Refusal(StatusCode::BAD_REQUEST, -32700, "not JSON"))?;
    if message.get("method").and_then(Value::as_str) == Some("initialize") && message.get("id").is_some() {
        return hub.begin(message);
    }
    let session = hub.session(headers)?;
    let is_batch = message.is_array();
    let requests = requests(&message);
    let mut state = session.lock();
    state.used = Instant::now();
    if requests.iter().any(|id| state.server.is_running(id)) {
        return Err(refuse(StatusCode::BAD_REQUEST, "the request id is in use"));
    }
    let out = state.server.handle(message, Instant::now());
    if let [Outgoing { message: refusal, route: Route::General }] = &out[..]
        && refusal.get("error").is_some()
    {
        return Ok(respond(StatusCode::BAD_REQUEST, refusal));
    }
    let answer = if requests.is_empty() {
        state.send(out);
        StatusCode::ACCEPTED.into_response()
    } else if requests.iter().any(|id| state.server.is_running(id)) {
        state.answer_as_stream(&requests, out)
    } else {
        let (replies, others): (Vec<_>, Vec<_>) = out.into_iter().partition(is_reply);
        state.send(others);
        let mut replies: Vec<Value> = replies.into_iter().map(|reply| reply.message).collect();
        let body = if is_batch { Value::Array(replies) } else { replies.pop().unwrap_or_default() };
        respond(StatusCode::OK, &body)
    };
    drop(state);
    session.timed.notify_one();
    Ok(answer)
}

fn open_stream(hub: &Hub, headers: &HeaderMap) -> Outcome {
    if !accepts(headers, "text/event-stream") {
        return Err(refuse(StatusCode::NOT_ACCEPTABLE, "text/event-stream must be accepted"));
    }
    let session = hub.session(headers)?;
    let mut state = session.lock();
    state.used = Instant::now();
    if state.general.as_ref().is_some_and(|stream| !stream.is_disconnected()) {
        return Err(refuse(StatusCode::CONFLICT, "the session has a stream already"));
    }
    let (sender, receiver) = flume::bounded(STREAM_EVENTS_MAX);
    for event in std::mem::take(&mut state.backlog) {
        let _ = sender.try_send(Ok(event));
    }
    state.general = Some(sender);
    Ok(stream(receiver))
}

fn end_session(hub: &Hub, headers: &HeaderMap) -> Outcome {
    hub.session(headers)?;
    hub.lock().remove(text(headers, SESSION).unwrap_or_default());
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl Hub {
    /// Answers `initialize`, with a session when it succeeds.
    fn begin(&self, message: Value) -> Outcome {
        let mut server = Server::new(Text);
        let Some(reply) = server.handle(message, Instant::now()).pop() else {
            return Err(refuse(StatusCode::BAD_REQUEST, "not a request"));
        };
        if server.revision().is_none() {
            let status = if is_reply(&reply) { StatusCode::OK } else { StatusCode::BAD_REQUEST };
            return Ok(respond(status, &reply.message));
        }
        let mut sessions = self.lock();
        if sessions.len() >= SESSIONS_MAX {
            sessions.retain(|_, session| !session.lock().is_idle());
        }
        if sessions.len() >= SESSIONS_MAX {
            return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "too many sessions"));
        }
        let id = fresh_id().ok_or_else(|| refuse(StatusCode::INTERNAL_SERVER_ERROR, "no random numbers"))?;
        let state = SessionState {
            server,
            answers: HashMap::new(),
            general: None,
            backlog: VecDeque::new(),
            used: Instant::now(),
        };
        let timed = Arc::new(Notify::new());
        let session = Arc::new(Session { state: Mutex::new(state), timed: Arc::clone(&timed) });
        tokio::spawn(keep_time(Arc::downgrade(&session), timed));
        let mut answer = respond(StatusCode::OK, &reply.message);
        if let Ok(value) = id.parse() {
            answer.headers_mut().insert(SESSION, value);
        }
        sessions.insert(id, session);
        Ok(answer)
    }

    fn session(&self, headers: &HeaderMap) -> Result<Arc<Session>, Refusal> {
        let id = text(headers, SESSION).ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "the session id is missing"))?;
        self.lock().get(id).cloned().ok_or_else(|| refuse(StatusCode::NOT_FOUND, "no such session"))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    /// Wakes the time keeper, which then ends.
    fn drop(&mut self) {
        self.timed.notify_one();
    }
}

impl SessionState {
    fn is_idle(&self) -> bool {
        let streams = self.general.as_ref().is_some_and(|stream| !stream.is_disconnected()) || !self.answers.is_empty();
        !streams && self.used.elapsed() >= SESSION_IDLE
    }

    /// Opens one stream for the answers to `requests`, which ends with the last of them.
    fn answer_as_stream(&mut self, requests: &[String], out: Vec<Outgoing>) -> Response {
        let (sender, receiver) = flume::bounded(STREAM_EVENTS_MAX);
        self.answers.extend(requests.iter().map(|id| (id.clone(), sender.clone())));
        drop(sender);
        self.send(out);
        stream(receiver)
    }

    /// Sends each message on its stream, and closes the streams of requests that are done.
    fn send(&mut self, out: Vec<Outgoing>) {
        for Outgoing { route, message } in out {
            let event = Bytes::from(format!("event: message\ndata: {message}\n\n"));
            match route {
                Route::General => self.send_general(event),
                Route::Request(id) => {
                    // The stream of a client that has gone away, or that does not read, is given up; the call goes on.
                    if self.answers.get(&id).is_some_and(|stream| stream.try_send(Ok(event)).is_err()) {
                        self.answers.remove(&id);
                    }
                }
            }
        }
        self.answers.retain(|id, _| self.server.is_running(id));
    }

    fn send_general(&mut self, event: Bytes) {
        let event = match &self.general {
            Some(stream) => match stream.try_send(Ok(event)) {
                Ok(()) => return,
                Err(refused) => refused.into_inner().unwrap_or_default(),
            },
            None => event,
        };
        self.general = None;
        if self.backlog.len() >= BACKLOG_MAX {
            self.backlog.pop_front();
        }
        self.backlog.push_back(event);
    }
}

/// Lets time pass for one session until it is gone. Between two looks only the notifier is held, not the session.
async fn keep_time(session: Weak<Session>, timed: Arc<Notify>) {
    loop {
        let Some(deadline) = session.upgrade().map(|session| session.lock().server.deadline()) else {
            return;
        };
        let is_due = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), timed.notified()).await.is_err(),
            None => {
                timed.notified().await;
                false
            }
        };
        if is_due && let Some(session) = session.upgrade() {
            let mut state = session.lock();
            let out = state.server.tick(Instant::now());
            state.send(out);
        }
    }
}

fn is_reply(out: &Outgoing) -> bool {
    out.message.get("method").is_none() && out.message.get("id").is_some()
}

/// The ids of the requests in a message or batch, as JSON text.
fn requests(message: &Value) -> Vec<String> {
    let items = message.as_array().map_or(std::slice::from_ref(message), Vec::as_slice);
    let id = |item: &Value| item.get("method").and(item.get("id")).map(Value::to_string);
    items.iter().filter_map(id).collect()
}

fn fresh_id() -> Option<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn stream(receiver: flume::Receiver<Result<Bytes, Infallible>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(receiver.into_stream())).into_response()
}

fn respond(status: StatusCode, message: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], message.to_string()).into_response()
}

fn refuse(status: StatusCode, message: &'static str) -> Refusal {
    Refusal(status, -32600, message)
}

fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn media_types(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = String> {
    let values =
        headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    values.map(|item| item.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let family = wanted.split('/').next().unwrap_or_default();
    media_types(headers, header::ACCEPT)
        .any(|name| name == wanted || name == "*/*" || name.strip_suffix("/*") == Some(family))
}

/// Pages from elsewhere must not reach a server on the loopback interface by way of a browser.
fn is_local_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let Some((_, authority)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let is_port =
        |text: &str| text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| authority.strip_prefix(host).is_some_and(is_port))
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
