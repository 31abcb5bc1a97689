//! What a demo server offers, as the protocol core asks for it. Knows no transport and no message envelope.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// One personality: the answers to everything that is not protocol.
pub(super) trait Offer {
    /// `name`, `title` and so on.
    fn identity(&self) -> Value;
    /// Server capabilities as of the newest revision.
    fn capabilities(&self) -> Value;
    /// A hint to the model.
    fn instructions(&self) -> &'static str;
    /// Answers a request; `None` when there is no such method. Results are written for the newest revision.
    fn answer(
        &mut self,
        method: &str,
        params: &Map<String, Value>,
        client: &Client,
        notices: &mut Notices,
    ) -> Option<Answer>;
}

/// What the client has declared.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    pub(super) capabilities: Value,
}

impl Client {
    /// Whether the client answers `sampling/createMessage`.
    pub(super) fn samples(&self) -> bool {
        self.capabilities.get("sampling").is_some_and(Value::is_object)
    }

    /// Whether the client answers form elicitation; an empty declaration means forms.
    pub(super) fn elicits_forms(&self) -> bool {
        let declared = self.capabilities.get("elicitation").and_then(Value::as_object);
        declared.is_some_and(|modes| modes.is_empty() || modes.contains_key("form"))
    }
}

/// The answer to a request.
pub(super) enum Answer {
    Now(Result<Value, Error>),
    Later(Box<dyn Job + Send>),
}

impl Answer {
    /// A tool's result of one text.
    pub(super) fn tool(text: impl Into<String>) -> Self {
        Self::Now(Ok(tool_text(text)))
    }

    /// A tool that failed: a result, so that the model sees why.
    pub(super) fn tool_failure(text: impl Into<String>) -> Self {
        Self::Now(Ok(tool_failure(text)))
    }
}

/// A call that takes time or asks the client something.
pub(super) trait Job {
    /// Goes on after `event`, up to the next wait.
    fn step(&mut self, event: Event, notices: &mut Notices) -> Step;
}

/// Why a job goes on.
#[derive(Debug)]
pub(super) enum Event {
    Started,
    /// The wait is over.
    Elapsed,
    /// The client's result, or what went wrong.
    Answered(Result<Value, String>),
}

/// What a job does next.
pub(super) enum Step {
    Wait(Duration),
    Ask { method: &'static str, params: Value },
    Done(Result<Value, Error>),
}

/// Notifications that an answer gives rise to.
#[derive(Debug, Default)]
pub(super) struct Notices(pub(super) Vec<Notice>);

/// One notification.
#[derive(Debug)]
pub(super) enum Notice {
    /// Sent when the request carries a progress token.
    Progress { progress: u64, total: u64, message: String },
    /// A log message of level `info`.
    Log(Value),
    /// Belongs to no request.
    General { method: &'static str },
}

/// A JSON-RPC error.
#[derive(Debug)]
pub(super) struct Error {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Option<Value>,
}

impl Error {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    pub(super) fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    pub(super) fn no_resource(uri: &str) -> Self {
        Self { data: Some(json!({ "uri": uri })), ..Self::new(-32002, "resource not found") }
    }
}

pub(super) fn tool_text(text: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": text.into() }] })
}

pub(super) fn tool_failure(text: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": text.into() }], "isError": true })
}

/// A string member of `params`.
pub(super) fn text_of<'a>(params: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    params.get(name).and_then(Value::as_str)
}

/// The name and arguments of `tools/call` or `prompts/get`.
pub(super) fn named(params: &Map<String, Value>) -> Result<(&str, Map<String, Value>), Error> {
    let name = text_of(params, "name").ok_or_else(|| Error::invalid_params("name is missing"))?;
    match params.get("arguments") {
        None | Some(Value::Null) => Ok((name, Map::new())),
        Some(Value::Object(arguments)) => Ok((name, arguments.clone())),
        Some(_) => Err(Error::invalid_params("arguments must be an object")),
    }
}
