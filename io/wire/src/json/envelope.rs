//! The envelope of one JSON-RPC message: where its routing members lie, and what kind of message they make. Holds ranges only;
//! the bytes stay with the caller.

use super::range::Range32;
use super::text;

/// Ranges are of whole JSON values: a string's includes its quotes. Those of `params.*` are set whatever the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Envelope {
    /// Request, notification, response, or why it is none.
    pub kind: MessageKind,
    /// `id`, with its type.
    pub id: Option<Id>,
    /// `jsonrpc`
    pub jsonrpc: Option<Range32>,
    /// `method`
    pub method: Option<Range32>,
    /// `params`
    pub params: Option<Range32>,
    /// `result`
    pub result: Option<Range32>,
    /// `error`
    pub error: Option<Range32>,

    /// `params.name`: tool or prompt.
    pub name: Option<Range32>,
    /// `params.uri`
    pub uri: Option<Range32>,
    /// `params.arguments`
    pub arguments: Option<Range32>,
    /// `params.cursor`
    pub cursor: Option<Range32>,
    /// `params.ref` of `completion/complete`.
    pub reference: Option<Range32>,
    /// `params.level` of `logging/setLevel`.
    pub level: Option<Range32>,
    /// `params.requestId` of `notifications/cancelled`.
    pub request_id: Option<Range32>,
    /// `params.taskId`
    pub task_id: Option<Range32>,
    /// `params.progressToken` of `notifications/progress`.
    pub progress_token: Option<Range32>,
    /// `params.protocolVersion` of `initialize`, and the next two.
    pub protocol_version: Option<Range32>,
    /// `params.capabilities`
    pub capabilities: Option<Range32>,
    /// `params.clientInfo`
    pub client_info: Option<Range32>,
    /// `params.inputResponses` of a retried request (2026-07-28).
    pub input_responses: Option<Range32>,
    /// `params.requestState` of a retried request (2026-07-28).
    pub request_state: Option<Range32>,

    /// `params._meta`, and the members of it below.
    pub meta: Option<Range32>,
    /// `progressToken`
    pub meta_progress_token: Option<Range32>,
    /// `io.modelcontextprotocol/protocolVersion`
    pub meta_protocol_version: Option<Range32>,
    /// `io.modelcontextprotocol/clientCapabilities`
    pub meta_client_capabilities: Option<Range32>,
    /// `io.modelcontextprotocol/clientInfo`
    pub meta_client_info: Option<Range32>,
    /// `io.modelcontextprotocol/logLevel`
    pub meta_log_level: Option<Range32>,
    /// `io.modelcontextprotocol/subscriptionId`
    pub meta_subscription_id: Option<Range32>,
    /// `io.modelcontextprotocol/related-task`
    pub meta_related_task: Option<Range32>,
}

/// The kinds of JSON-RPC message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// `method` and an id.
    Request,
    /// `method` without an id.
    Notification,
    /// A response with `result`.
    Response,
    /// A response with `error`; its id may be null or absent.
    ErrorResponse,
    /// JSON, but no JSON-RPC message: answer with -32600 and the id, if there is one.
    Invalid(InvalidReason),
}

impl Default for MessageKind {
    fn default() -> Self {
        MessageKind::Invalid(InvalidReason::VersionMissing)
    }
}

/// Why an object is no JSON-RPC 2.0 message (sections 4, 4.1, 4.2, 5), or none that MCP admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InvalidReason {
    /// No `jsonrpc`.
    VersionMissing,
    /// `jsonrpc` is not `"2.0"`.
    VersionUnsupported,
    /// The id is neither string nor number nor null.
    IdKind,
    /// A request or a result whose id is null: MCP forbids what JSON-RPC discourages.
    IdNull,
    /// A result without an id.
    IdMissing,
    /// Neither `method` nor `result` nor `error`.
    MethodMissing,
    /// `method` is no string.
    MethodNotString,
    /// `params` is no object; MCP has no positional ones.
    ParamsNotObject,
    /// `method` beside `result` or `error`.
    MethodAndOutcome,
    /// `result` beside `error`.
    ResultAndError,
    /// `error` is no object.
    ErrorNotObject,
}

impl InvalidReason {
    /// JSON-RPC 2.0 section 5.1.
    pub const RPC_CODE: i32 = -32600;

    /// One static phrase, safe to show to a peer.
    pub fn message(self) -> &'static str {
        match self {
            InvalidReason::VersionMissing => "jsonrpc version missing",
            InvalidReason::VersionUnsupported => "jsonrpc version is not 2.0",
            InvalidReason::IdKind => "id is neither string nor number",
            InvalidReason::IdNull => "id is null",
            InvalidReason::IdMissing => "result without id",
            InvalidReason::MethodMissing => "neither method nor result nor error",
            InvalidReason::MethodNotString => "method is not a string",
            InvalidReason::ParamsNotObject => "params is not an object",
            InvalidReason::MethodAndOutcome => "method beside result or error",
            InvalidReason::ResultAndError => "result beside error",
            InvalidReason::ErrorNotObject => "error is not an object",
        }
    }
}

/// A message id, kept as the bytes it came in: `1`, `1.0` and `"1"` are three ids, and no integer is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id {
    /// String, number, null or none of them.
    pub kind: IdKind,
    /// The raw value, a string's quotes included.
    pub range: Range32,
}

/// The type of an id's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdKind {
    /// A JSON string.
    String,
    /// A number without fraction and exponent, of any length.
    Integer,
    /// With a fraction or an exponent.
    Number,
    /// `null`
    Null,
    /// An object, array or boolean: no id at all.
    Other,
}

impl IdKind {
    /// The kind of a whole, well-formed value.
    #[inline(always)]
    pub(super) fn of(raw: &[u8]) -> IdKind {
        match raw.first() {
            Some(b'"') => IdKind::String,
            Some(b'-' | b'0'..=b'9') => {
                let integer = !raw.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
                if integer { IdKind::Integer } else { IdKind::Number }
            }
            Some(b'n') => IdKind::Null,
            _ => IdKind::Other,
        }
    }
}

impl Envelope {
    /// The id to put into an answer: none where it was absent, null, or of no allowed kind.
    pub fn answer_id(&self) -> Option<Range32> {
        self.id.filter(|id| !matches!(id.kind, IdKind::Null | IdKind::Other)).map(|id| id.range)
    }

    /// True if `method` is this one. Much cheaper than decoding.
    #[inline]
    pub fn method_is(&self, bytes: &[u8], method: &str) -> bool {
        self.method.is_some_and(|range| text::raw_eq(bytes, range, method))
    }

    /// The field of a member of the message, save `id`. By length first, so that a key is compared with one or two names.
    #[inline(always)]
    pub(super) fn top_slot(&mut self, name: &[u8]) -> Option<&mut Option<Range32>> {
        match name.len() {
            5 if name == b"error" => Some(&mut self.error),
            6 if name == b"method" => Some(&mut self.method),
            6 if name == b"params" => Some(&mut self.params),
            6 if name == b"result" => Some(&mut self.result),
            7 if name == b"jsonrpc" => Some(&mut self.jsonrpc),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) fn params_slot(&mut self, name: &[u8]) -> Option<&mut Option<Range32>> {
        match name.len() {
            3 if name == b"uri" => Some(&mut self.uri),
            3 if name == b"ref" => Some(&mut self.reference),
            4 if name == b"name" => Some(&mut self.name),
            5 if name == b"_meta" => Some(&mut self.meta),
            5 if name == b"level" => Some(&mut self.level),
            6 if name == b"cursor" => Some(&mut self.cursor),
            6 if name == b"taskId" => Some(&mut self.task_id),
            9 if name == b"arguments" => Some(&mut self.arguments),
            9 if name == b"requestId" => Some(&mut self.request_id),
            10 if name == b"clientInfo" => Some(&mut self.client_info),
            12 if name == b"capabilities" => Some(&mut self.capabilities),
            12 if name == b"requestState" => Some(&mut self.request_state),
            13 if name == b"progressToken" => Some(&mut self.progress_token),
            14 if name == b"inputResponses" => Some(&mut self.input_responses),
            15 if name == b"protocolVersion" => Some(&mut self.protocol_version),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) fn meta_slot(&mut self, name: &[u8]) -> Option<&mut Option<Range32>> {
        if name == b"progressToken" {
            return Some(&mut self.meta_progress_token);
        }
        let name = name.strip_prefix(b"io.modelcontextprotocol/")?;
        match name.len() {
            8 if name == b"logLevel" => Some(&mut self.meta_log_level),
            10 if name == b"clientInfo" => Some(&mut self.meta_client_info),
            12 if name == b"related-task" => Some(&mut self.meta_related_task),
            14 if name == b"subscriptionId" => Some(&mut self.meta_subscription_id),
            15 if name == b"protocolVersion" => Some(&mut self.meta_protocol_version),
            18 if name == b"clientCapabilities" => Some(&mut self.meta_client_capabilities),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) fn classify(&mut self, bytes: &[u8]) {
        self.kind = self.judge(bytes).unwrap_or_else(MessageKind::Invalid);
    }

    #[inline(always)]
    fn judge(&self, bytes: &[u8]) -> Result<MessageKind, InvalidReason> {
        let version = self.jsonrpc.ok_or(InvalidReason::VersionMissing)?;
        if version.of(bytes) != Some(b"\"2.0\"") && !text::raw_eq(bytes, version, "2.0") {
            return Err(InvalidReason::VersionUnsupported);
        }
        let id = self.id.map(|id| id.kind);
        if id == Some(IdKind::Other) {
            return Err(InvalidReason::IdKind);
        }
        match (self.method, self.result, self.error) {
            (Some(method), None, None) => self.judge_call(bytes, method, id),
            (Some(_), _, _) => Err(InvalidReason::MethodAndOutcome),
            (None, Some(_), Some(_)) => Err(InvalidReason::ResultAndError),
            (None, Some(_), None) => match id {
                None => Err(InvalidReason::IdMissing),
                Some(IdKind::Null) => Err(InvalidReason::IdNull),
                Some(_) => Ok(MessageKind::Response),
            },
            (None, None, Some(error)) if starts_with(bytes, error, b'{') => Ok(MessageKind::ErrorResponse),
            (None, None, Some(_)) => Err(InvalidReason::ErrorNotObject),
            (None, None, None) => Err(InvalidReason::MethodMissing),
        }
    }

    #[inline(always)]
    fn judge_call(&self, bytes: &[u8], method: Range32, id: Option<IdKind>) -> Result<MessageKind, InvalidReason> {
        if !starts_with(bytes, method, b'"') {
            return Err(InvalidReason::MethodNotString);
        }
        if self.params.is_some_and(|params| !starts_with(bytes, params, b'{')) {
            return Err(InvalidReason::ParamsNotObject);
        }
        match id {
            None => Ok(MessageKind::Notification),
            Some(IdKind::Null) => Err(InvalidReason::IdNull),
            Some(_) => Ok(MessageKind::Request),
        }
    }
}

fn starts_with(bytes: &[u8], range: Range32, first: u8) -> bool {
    bytes.get(range.start()) == Some(&first)
}
