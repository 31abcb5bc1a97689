//! The protocol of a demo server as a state machine: messages and time in, messages and a deadline out. Knows no
//! transport.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::offer::{Answer, Client, Error, Event, Job, Notice, Notices, Offer, Step};

/// Calls that run at one time in one session.
const JOBS_MAX: usize = 32;
/// How long the client may take to answer a request of the server.
const ASK_TIMEOUT: Duration = Duration::from_secs(120);
/// Steps that a job may take without a wait in between.
const STEPS_MAX: usize = 16;
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// The revisions spoken, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Revision {
    V20250326,
    V20250618,
    V20251125,
}

impl Revision {
    const ALL: [Self; 3] = [Self::V20250326, Self::V20250618, Self::V20251125];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V20250326 => "2025-03-26",
            Self::V20250618 => "2025-06-18",
            Self::V20251125 => "2025-11-25",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.name() == name)
    }
}

/// Where an outgoing message belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To the answer of this request, named by its id as JSON text.
    Request(String),
    /// To nothing in particular.
    General,
}

/// A message for the client.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outgoing {
    pub(super) route: Route,
    pub(super) message: Value,
}

/// One session of one server.
pub(super) struct Server<O> {
    offer: O,
    revision: Option<Revision>,
    client: Client,
    /// An index into [`LEVELS`]: what is below is not sent.
    level: usize,
    jobs: Vec<Running>,
    next_ask: u64,
}

struct Running {
    id: Value,
    /// The id as JSON text.
    key: String,
    token: Option<Value>,
    job: Box<dyn Job + Send>,
    waits: Wait,
}

#[derive(Clone, Copy)]
enum Wait {
    Time(Instant),
    Answer { ask: u64, deadline: Instant },
}

impl<O: Offer> Server<O> {
    pub(super) fn new(offer: O) -> Self {
        Self { offer, revision: None, client: Client::default(), level: 1, jobs: Vec::new(), next_ask: 1 }
    }

    /// The negotiated revision, once initialized.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// Takes one message, or a batch where the revision knows batches.
    pub(super) fn handle(&mut self, message: Value, now: Instant) -> Vec<Outgoing> {
        let mut out = Vec::new();
        match message {
            Value::Object(message) => self.take(message, now, &mut out),
            Value::Array(batch) if self.revision == Some(Revision::V20250326) && !batch.is_empty() => {
                for item in batch {
                    match item {
                        Value::Object(item) if item.get("method") != Some(&json!("initialize")) => {
                            self.take(item, now, &mut out)
                        }
                        _ => out.push(refusal("not a message that a batch may hold")),
                    }
                }
            }
            _ => out.push(refusal("not a JSON-RPC message")),
        }
        out
    }

    /// Lets time pass: to be called at [`Self::deadline`].
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Outgoing> {
        let mut out = Vec::new();
        while let Some(index) = self.jobs.iter().position(|running| running.waits.deadline() <= now) {
            let running = self.jobs.swap_remove(index);
            let event = match running.waits {
                Wait::Time(_) => Event::Elapsed,
                Wait::Answer { .. } => Event::Answered(Err("the client did not answer in time".into())),
            };
            self.advance(running, event, now, &mut out);
        }
        out
    }

    /// When to call [`Self::tick`] next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.jobs.iter().map(|running| running.waits.deadline()).min()
    }

    /// Whether the request of this id, as JSON text, is not answered yet.
    pub(super) fn is_running(&self, id: &str) -> bool {
        self.jobs.iter().any(|running| running.key == id)
    }

    fn take(&mut self, mut message: Map<String, Value>, now: Instant, out: &mut Vec<Outgoing>) {
        if message.get("jsonrpc") != Some(&json!("2.0")) {
            return out.push(refusal("jsonrpc must be \"2.0\""));
        }
        let params = match message.remove("params") {
            None => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return out.push(refusal("params must be an object")),
        };
        match (message.get("method"), message.get("id")) {
            (Some(Value::String(method)), Some(id @ (Value::String(_) | Value::Number(_)))) => {
                self.request(method, id, &params, now, out);
            }
            (Some(Value::String(method)), None) => self.notification(method, &params, out),
            (None, Some(Value::Number(id))) => self.response(id.as_u64(), &message, now, out),
            (None, Some(_)) => {}
            _ => out.push(refusal("neither a request, a notification nor a response")),
        }
    }

    fn request(
        &mut self,
        method: &str,
        id: &Value,
        params: &Map<String, Value>,
        now: Instant,
        out: &mut Vec<Outgoing>,
    ) {
        let key = id.to_string();
        if self.is_running(&key) {
            return out.push(reply(id, Err(Error::new(-32600, "the request id is in use"))));
        }
        let result = match method {
            "ping" => Ok(json!({})),
            "initialize" => self.initialize(params),
            _ if self.revision.is_none() => Err(Error::new(-32600, "not initialized")),
            "logging/setLevel" if self.logs() => self.set_level(params),
            _ => return self.offered(method, id, params, now, out),
        };
        out.push(reply(id, result));
    }

    fn offered(
        &mut self,
        method: &str,
        id: &Value,
        params: &Map<String, Value>,
        now: Instant,
        out: &mut Vec<Outgoing>,
    ) {
        let mut notices = Notices::default();
        let token = params.get("_meta").and_then(|meta| meta.get("progressToken")).cloned();
        let answer = self.offer.answer(method, params, &self.client, &mut notices);
        self.notify(notices, id, token.as_ref(), out);
        match answer {
            None => out.push(reply(id, Err(Error::new(-32601, format!("method not found: {method}"))))),
            Some(Answer::Now(result)) => self.finish(id, result, out),
            Some(Answer::Later(_)) if self.jobs.len() >= JOBS_MAX => {
                out.push(reply(id, Err(Error::new(-32603, "too many calls at one time"))));
            }
            Some(Answer::Later(job)) => {
                let running = Running { id: id.clone(), key: id.to_string(), token, job, waits: Wait::Time(now) };
                self.advance(running, Event::Started, now, out);
            }
        }
    }

    /// Lets a job, which is not in the table at that moment, go on to its next wait.
    fn advance(&mut self, mut running: Running, mut event: Event, now: Instant, out: &mut Vec<Outgoing>) {
        for _ in 0..STEPS_MAX {
            let mut notices = Notices::default();
            let step = running.job.step(event, &mut notices);
            self.notify(notices, &running.id, running.token.as_ref(), out);
            match step {
                Step::Done(result) => return self.finish(&running.id, result, out),
                Step::Wait(time) if time.is_zero() => event = Event::Elapsed,
                Step::Wait(time) => {
                    running.waits = Wait::Time(now + time);
                    return self.jobs.push(running);
                }
                Step::Ask { method, params } => {
                    let ask = self.next_ask;
                    self.next_ask += 1;
                    let message = json!({ "jsonrpc": "2.0", "id": ask, "method": method, "params": params });
                    out.push(Outgoing { route: Route::Request(running.key.clone()), message });
                    running.waits = Wait::Answer { ask, deadline: now + ASK_TIMEOUT };
                    return self.jobs.push(running);
                }
            }
        }
        debug_assert!(false, "a job does not wait");
    }

    fn finish(&self, id: &Value, mut result: Result<Value, Error>, out: &mut Vec<Outgoing>) {
        if let (Ok(result), Some(Revision::V20250326)) = (&mut result, self.revision) {
            fit_to_2025_03_26(result);
        }
        out.push(reply(id, result));
    }

    fn notify(&self, notices: Notices, id: &Value, token: Option<&Value>, out: &mut Vec<Outgoing>) {
        for notice in notices.0 {
            let (route, method, params) = match notice {
                Notice::General { method } => (Route::General, method, None),
                Notice::Progress { progress, total, message } => {
                    let Some(token) = token else { continue };
                    let params =
                        json!({ "progressToken": token, "progress": progress, "total": total, "message": message });
                    (Route::Request(id.to_string()), "notifications/progress", Some(params))
                }
                Notice::Log(_) if self.level > 1 => continue,
                Notice::Log(data) => (
                    Route::Request(id.to_string()),
                    "notifications/message",
                    Some(json!({ "level": "info", "data": data })),
                ),
            };
            let mut message = json!({ "jsonrpc": "2.0", "method": method });
            if let Some(params) = params {
                message["params"] = params;
            }
            out.push(Outgoing { route, message });
        }
    }

    fn initialize(&mut self, params: &Map<String, Value>) -> Result<Value, Error> {
        if self.revision.is_some() {
            return Err(Error::new(-32600, "initialized already"));
        }
        let asked = params.get("protocolVersion").and_then(Value::as_str);
        let asked = asked.ok_or_else(|| Error::invalid_params("protocolVersion is missing"))?;
        let revision = Revision::parse(asked).unwrap_or(Revision::V20251125);
        self.revision = Some(revision);
        self.client = Client { capabilities: params.get("capabilities").cloned().unwrap_or_default() };
        if revision < Revision::V20250618
            && let Some(capabilities) = self.client.capabilities.as_object_mut()
        {
            // Elicitation came with 2025-06-18.
            capabilities.remove("elicitation");
        }
        Ok(json!({
            "protocolVersion": revision.name(),
            "capabilities": self.offer.capabilities(),
            "serverInfo": self.offer.identity(),
            "instructions": self.offer.instructions(),
        }))
    }

    fn logs(&self) -> bool {
        self.offer.capabilities().get("logging").is_some()
    }

    fn set_level(&mut self, params: &Map<String, Value>) -> Result<Value, Error> {
        let level = params.get("level").and_then(Value::as_str);
        let index = LEVELS.iter().position(|known| Some(*known) == level);
        self.level = index.ok_or_else(|| Error::invalid_params("no such log level"))?;
        Ok(json!({}))
    }

    /// A cancelled request gets no answer.
    fn notification(&mut self, method: &str, params: &Map<String, Value>, out: &mut Vec<Outgoing>) {
        let Some(id) = params.get("requestId").filter(|_| method == "notifications/cancelled") else {
            return;
        };
        let Some(index) = self.jobs.iter().position(|running| running.id == *id) else {
            return;
        };
        if let Wait::Answer { ask, .. } = self.jobs.swap_remove(index).waits {
            let params = json!({ "requestId": ask, "reason": "the call was cancelled" });
            let message = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
            out.push(Outgoing { route: Route::Request(id.to_string()), message });
        }
    }

    fn response(&mut self, id: Option<u64>, message: &Map<String, Value>, now: Instant, out: &mut Vec<Outgoing>) {
        let asked = |running: &Running| matches!(running.waits, Wait::Answer { ask, .. } if Some(ask) == id);
        let Some(index) = self.jobs.iter().position(asked) else {
            return;
        };
        let running = self.jobs.swap_remove(index);
        let result = match (message.get("result"), message.get("error")) {
            (Some(result), None) => Ok(result.clone()),
            (_, Some(error)) => {
                Err(error.get("message").and_then(Value::as_str).unwrap_or("an error without a message").into())
            }
            (None, None) => Err("neither a result nor an error".into()),
        };
        self.advance(running, Event::Answered(result), now, out);
    }
}

impl Wait {
    fn deadline(self) -> Instant {
        match self {
            Self::Time(deadline) | Self::Answer { deadline, .. } => deadline,
        }
    }
}

/// An error that answers no request in particular. The schema wants `id` left out, not null.
pub(super) fn refusal(message: &str) -> Outgoing {
    Outgoing { route: Route::General, message: id_less_error(-32600, message) }
}

/// The message of [`refusal`], with any code.
pub(super) fn id_less_error(code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "error": { "code": code, "message": message } })
}

fn reply(id: &Value, result: Result<Value, Error>) -> Outgoing {
    let message = match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => {
            let mut body = json!({ "code": error.code, "message": error.message });
            if let Some(data) = error.data {
                body["data"] = data;
            }
            json!({ "jsonrpc": "2.0", "id": id, "error": body })
        }
    };
    Outgoing { route: Route::Request(id.to_string()), message }
}

/// Takes out what came with 2025-06-18: structured output, titles, resource links.
fn fit_to_2025_03_26(result: &mut Value) {
    let Some(result) = result.as_object_mut() else {
        return;
    };
    result.remove("structuredContent");
    for list in ["tools", "prompts", "resources", "resourceTemplates"] {
        for item in
            result.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
        {
            item.remove("title");
            item.remove("outputSchema");
        }
    }
    for block in result.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
        if block["type"] == "resource_link" {
            *block = json!({ "type": "text", "text": block["uri"] });
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
