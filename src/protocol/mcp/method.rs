//! The methods of all revisions, sorted by how a gateway must treat them.

use agentlane_wire::json::{Range32, raw_eq};

pub use agentlane_wire::json::ListKind;

/// A client's request or notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Initialize,
    Ping,
    List(ListKind),
    ToolsCall,
    PromptsGet,
    ResourcesRead,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
    Complete,
    SetLevel,
    /// `tasks/*` of 2025-11-25: belongs to the one target that made the task.
    Tasks,
    /// `server/discover` of 2026-07-28.
    Discover,
    /// `subscriptions/listen` of 2026-07-28.
    Listen,
    Initialized,
    Cancelled,
    Progress,
    /// Any other notification: every target may want it.
    OtherNotification,
    Other,
}

/// The severity of a log message (RFC 5424), the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl LogLevel {
    const ALL: [LogLevel; 8] = [
        LogLevel::Debug,
        LogLevel::Info,
        LogLevel::Notice,
        LogLevel::Warning,
        LogLevel::Error,
        LogLevel::Critical,
        LogLevel::Alert,
        LogLevel::Emergency,
    ];

    /// The level that a JSON string names.
    pub fn of(message: &[u8], range: Range32) -> Option<LogLevel> {
        LogLevel::ALL.into_iter().find(|level| raw_eq(message, range, level.as_str()))
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Notice => "notice",
            LogLevel::Warning => "warning",
            LogLevel::Error => "error",
            LogLevel::Critical => "critical",
            LogLevel::Alert => "alert",
            LogLevel::Emergency => "emergency",
        }
    }
}

/// The method that asks for a list.
pub const fn list_method(kind: ListKind) -> &'static str {
    match kind {
        ListKind::Tools => "tools/list",
        ListKind::Prompts => "prompts/list",
        ListKind::Resources => "resources/list",
        ListKind::ResourceTemplates => "resources/templates/list",
    }
}

impl Method {
    /// `text` is the raw string between its quotes; a method that needs escapes is none that we know.
    pub fn parse(text: &[u8]) -> Method {
        match text {
            b"tools/call" => Method::ToolsCall,
            b"tools/list" => Method::List(ListKind::Tools),
            b"prompts/list" => Method::List(ListKind::Prompts),
            b"resources/list" => Method::List(ListKind::Resources),
            b"resources/templates/list" => Method::List(ListKind::ResourceTemplates),
            b"prompts/get" => Method::PromptsGet,
            b"resources/read" => Method::ResourcesRead,
            b"resources/subscribe" => Method::ResourcesSubscribe,
            b"resources/unsubscribe" => Method::ResourcesUnsubscribe,
            b"completion/complete" => Method::Complete,
            b"logging/setLevel" => Method::SetLevel,
            b"initialize" => Method::Initialize,
            b"ping" => Method::Ping,
            b"server/discover" => Method::Discover,
            b"subscriptions/listen" => Method::Listen,
            b"notifications/initialized" => Method::Initialized,
            b"notifications/cancelled" => Method::Cancelled,
            b"notifications/progress" => Method::Progress,
            text if text.starts_with(b"tasks/") => Method::Tasks,
            text if text.starts_with(b"notifications/") => Method::OtherNotification,
            _ => Method::Other,
        }
    }

    /// A label of bounded cardinality for metrics and records.
    pub const fn label(self) -> &'static str {
        match self {
            Method::Initialize => "initialize",
            Method::Ping => "ping",
            Method::List(kind) => list_method(kind),
            Method::ToolsCall => "tools/call",
            Method::PromptsGet => "prompts/get",
            Method::ResourcesRead => "resources/read",
            Method::ResourcesSubscribe => "resources/subscribe",
            Method::ResourcesUnsubscribe => "resources/unsubscribe",
            Method::Complete => "completion/complete",
            Method::SetLevel => "logging/setLevel",
            Method::Tasks => "tasks",
            Method::Discover => "server/discover",
            Method::Listen => "subscriptions/listen",
            Method::Initialized => "notifications/initialized",
            Method::Cancelled => "notifications/cancelled",
            Method::Progress => "notifications/progress",
            Method::OtherNotification => "notifications/other",
            Method::Other => "other",
        }
    }
}
