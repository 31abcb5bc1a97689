//! A small MCP server on the Rust SDK: every feature of the revisions with sessions, once.
//!
//! `rmcp-server [--port N | --stdio] [--prefix PREFIX]`: the prefix is put before every tool and prompt name, so
//! that the same program serves as the other member of a federation.
// Sampling, roots and logging are deprecated by the newest revision, and exactly what this peer is for.
#![allow(deprecated)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::*;
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, ServiceExt};
use serde_json::{Value, from_value, json};

const STEP: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_millis(50);
/// Largest `big` result, bytes.
const BIG_MAX: u64 = 64 << 20;
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
const NAMES: [&str; 3] = ["ada", "alan", "grace"];
const TEXT_URI: &str = "rmcp://text";
const BINARY_URI: &str = "rmcp://binary";
const WATCHED_URI: &str = "rmcp://watched";
const ITEM_URI: &str = "rmcp://item/";

type Context = RequestContext<RoleServer>;
type Outcome<T> = Result<T, ErrorData>;

/// One session's server.
struct Demo {
    prefix: Arc<str>,
    /// Index into `LEVELS` below which nothing is logged.
    level: AtomicU8,
    subscribed: Mutex<HashSet<String>>,
    cancelled: AtomicU64,
    extra: AtomicBool,
}

impl Demo {
    fn new(prefix: Arc<str>) -> Self {
        Demo {
            prefix,
            level: AtomicU8::new(0),
            subscribed: Mutex::default(),
            cancelled: AtomicU64::new(0),
            extra: AtomicBool::new(false),
        }
    }

    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn tools(&self) -> Value {
        let tool = |name: &str, about: &str, properties: Value| {
            let required: Vec<&String> = properties.as_object().into_iter().flat_map(|map| map.keys()).collect();
            json!({"name": self.named(name), "description": about,
                "inputSchema": {"type": "object", "properties": properties, "required": required}})
        };
        let mut tools = vec![
            tool("echo", "Returns its text", json!({"text": {"type": "string"}})),
            tool("add", "Adds, with structured content", json!({"a": {"type": "number"}, "b": {"type": "number"}})),
            tool("slow", "Takes its time, reports progress", json!({"seconds": {"type": "number"}})),
            tool("cancellations", "Cancelled calls of slow in this session", json!({})),
            tool("ask", "Asks the client's user", json!({"message": {"type": "string"}})),
            tool("sample", "Asks the client's model", json!({"prompt": {"type": "string"}})),
            tool("roots", "Asks the client for its roots", json!({})),
            tool("log", "Logs one message per level", json!({})),
            tool("big", "Returns that many bytes of text", json!({"bytes": {"type": "integer"}})),
            tool("touch", "Announces an update of rmcp://watched to a subscribed session", json!({})),
            tool("toggle", "Adds or removes a tool and announces it", json!({})),
            tool("crash", "Ends the process in the middle of the call", json!({})),
        ];
        tools[1]["outputSchema"] =
            json!({"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]});
        if self.extra.load(Relaxed) {
            tools.push(tool("extra", "Comes and goes with toggle", json!({})));
        }
        json!({ "tools": tools })
    }

    async fn call(&self, name: &str, given: Value, ctx: Context) -> Outcome<Value> {
        match name {
            "echo" => Ok(text(given["text"].as_str().unwrap_or_default())),
            "add" => {
                let sum = json!({"sum": given["a"].as_f64().unwrap_or(0.0) + given["b"].as_f64().unwrap_or(0.0)});
                Ok(json!({"content": [{"type": "text", "text": sum.to_string()}], "structuredContent": sum}))
            }
            "slow" => self.slow(given["seconds"].as_f64().unwrap_or(1.0), ctx).await,
            "cancellations" => Ok(text(self.cancelled.load(Relaxed).to_string())),
            "ask" => ask(&given, ctx).await,
            "sample" => sample(&given, ctx).await,
            "roots" => roots(ctx).await,
            "log" => self.log(ctx).await,
            "big" => {
                let bytes = given["bytes"].as_u64().unwrap_or(0).min(BIG_MAX);
                Ok(text("x".repeat(bytes as usize)))
            }
            "touch" => self.touch(ctx).await,
            "toggle" => {
                let added = !self.extra.fetch_xor(true, Relaxed);
                ctx.peer.notify_tool_list_changed().await.map_err(internal)?;
                Ok(text(if added { "added" } else { "removed" }))
            }
            "crash" => std::process::exit(70),
            "extra" if self.extra.load(Relaxed) => Ok(text("extra")),
            _ => Err(ErrorData::invalid_params(format!("unknown tool {name}"), None)),
        }
    }

    async fn slow(&self, seconds: f64, ctx: Context) -> Outcome<Value> {
        let steps = (seconds / STEP.as_secs_f64()).ceil() as u64;
        for step in 1..=steps {
            tokio::select! {
                () = tokio::time::sleep(STEP) => {}
                () = ctx.ct.cancelled() => {
                    self.cancelled.fetch_add(1, Relaxed);
                    return Err(internal("cancelled"));
                }
            }
            if let Some(token) = ctx.meta.get_progress_token() {
                let params = json!({"progressToken": token, "progress": step, "total": steps});
                ctx.peer.notify_progress(parse(params)?).await.map_err(internal)?;
            }
        }
        Ok(text(format!("slept {seconds} s")))
    }

    async fn log(&self, ctx: Context) -> Outcome<Value> {
        let lowest = usize::from(self.level.load(Relaxed));
        for level in &LEVELS[lowest..] {
            let params = json!({"level": level, "logger": "demo", "data": format!("at {level}")});
            ctx.peer.notify_logging_message(parse(params)?).await.map_err(internal)?;
        }
        Ok(text(format!("logged {}", LEVELS.len() - lowest)))
    }

    async fn touch(&self, ctx: Context) -> Outcome<Value> {
        if !self.subscribed.lock().map_err(internal)?.contains(WATCHED_URI) {
            return Ok(text("nobody subscribed"));
        }
        ctx.peer.notify_resource_updated(parse(json!({"uri": WATCHED_URI}))?).await.map_err(internal)?;
        Ok(text("announced"))
    }
}

impl ServerHandler for Demo {
    fn get_info(&self) -> ServerConfig {
        let info = json!({
            "protocolVersion": ProtocolVersion::V_2025_11_25,
            "capabilities": {
                "tools": {"listChanged": true}, "prompts": {"listChanged": true},
                "resources": {"subscribe": true, "listChanged": true}, "logging": {}, "completions": {},
            },
            "serverInfo": {"name": self.named("rmcp"), "version": "1.0.0"},
            "instructions": "Demo server on the Rust SDK.",
        });
        from_value(info).expect("a valid InitializeResult")
    }

    async fn list_tools(&self, _: Option<PaginatedRequestParams>, _: Context) -> Outcome<ListToolsResult> {
        parse(self.tools())
    }

    async fn call_tool(&self, request: CallToolRequestParams, ctx: Context) -> Outcome<CallToolResponse> {
        let Some(name) = request.name.strip_prefix(&*self.prefix) else {
            return Err(ErrorData::invalid_params(format!("unknown tool {}", request.name), None));
        };
        let result = self.call(name, Value::Object(request.arguments.unwrap_or_default()), ctx).await?;
        Ok(parse::<CallToolResult>(result)?.into())
    }

    async fn list_resources(&self, _: Option<PaginatedRequestParams>, _: Context) -> Outcome<ListResourcesResult> {
        let one = |uri: &str, name: &str, mime: &str| json!({"uri": uri, "name": name, "mimeType": mime, "description": name});
        parse(json!({"resources": [
            one(TEXT_URI, "a text", "text/plain"),
            one(BINARY_URI, "some bytes", "application/octet-stream"),
            one(WATCHED_URI, "a text to subscribe to", "text/plain"),
        ]}))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Outcome<ListResourceTemplatesResult> {
        parse(json!({"resourceTemplates": [
            {"uriTemplate": "rmcp://item/{id}", "name": "item", "description": "an item by id", "mimeType": "text/plain"},
        ]}))
    }

    async fn read_resource(&self, request: ReadResourceRequestParams, _: Context) -> Outcome<ReadResourceResponse> {
        let uri = request.uri.as_str();
        let contents = match uri {
            TEXT_URI | WATCHED_URI => {
                json!({"uri": uri, "mimeType": "text/plain", "text": format!("content of {uri}")})
            }
            BINARY_URI => {
                json!({"uri": uri, "mimeType": "application/octet-stream", "blob": "AAEC/w=="})
            }
            _ => match uri.strip_prefix(ITEM_URI) {
                Some(id) => {
                    json!({"uri": uri, "mimeType": "text/plain", "text": format!("item {id}")})
                }
                None => {
                    return Err(ErrorData::resource_not_found("resource not found", Some(json!({"uri": uri}))));
                }
            },
        };
        Ok(parse::<ReadResourceResult>(json!({"contents": [contents]}))?.into())
    }

    async fn subscribe(&self, request: SubscribeRequestParams, _: Context) -> Outcome<()> {
        self.subscribed.lock().map_err(internal)?.insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(&self, request: UnsubscribeRequestParams, _: Context) -> Outcome<()> {
        self.subscribed.lock().map_err(internal)?.remove(&request.uri);
        Ok(())
    }

    async fn list_prompts(&self, _: Option<PaginatedRequestParams>, _: Context) -> Outcome<ListPromptsResult> {
        parse(json!({"prompts": [
            {"name": self.named("hello"), "description": "no arguments"},
            {"name": self.named("greet"), "description": "greets somebody",
             "arguments": [{"name": "name", "description": "whom", "required": true}]},
        ]}))
    }

    async fn get_prompt(&self, request: GetPromptRequestParams, _: Context) -> Outcome<GetPromptResponse> {
        let given = request.arguments.unwrap_or_default();
        let said = match request.name.strip_prefix(&*self.prefix) {
            Some("hello") => "Hello.".to_owned(),
            Some("greet") => match given.get("name").and_then(Value::as_str) {
                Some(name) => format!("Greet {name}."),
                None => return Err(ErrorData::invalid_params("missing argument name", None)),
            },
            _ => {
                return Err(ErrorData::invalid_params(format!("unknown prompt {}", request.name), None));
            }
        };
        let messages = json!([{"role": "user", "content": {"type": "text", "text": said}}]);
        Ok(parse::<GetPromptResult>(json!({ "messages": messages }))?.into())
    }

    async fn complete(&self, request: CompleteRequestParams, _: Context) -> Outcome<CompleteResult> {
        let values: Vec<_> = NAMES.iter().filter(|name| name.starts_with(&request.argument.value)).collect();
        parse(json!({"completion": {"values": values, "total": values.len(), "hasMore": false}}))
    }

    async fn set_level(&self, request: SetLevelRequestParams, _: Context) -> Outcome<()> {
        let level = serde_json::to_value(request.level).map_err(internal)?;
        let index = LEVELS.iter().position(|name| level == *name).unwrap_or(0);
        self.level.store(index as u8, Relaxed);
        Ok(())
    }
}

async fn ask(given: &Value, ctx: Context) -> Outcome<Value> {
    let form = json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]});
    let params = json!({"mode": "form", "message": given["message"], "requestedSchema": form});
    let answer = ctx.peer.create_elicitation(parse(params)?).await.map_err(internal)?;
    Ok(text(serde_json::to_string(&answer).map_err(internal)?))
}

async fn sample(given: &Value, ctx: Context) -> Outcome<Value> {
    let messages = json!([{"role": "user", "content": {"type": "text", "text": given["prompt"]}}]);
    let params = json!({"messages": messages, "maxTokens": 100});
    let answer = ctx.peer.create_message(parse(params)?).await.map_err(internal)?;
    Ok(text(serde_json::to_string(&answer).map_err(internal)?))
}

async fn roots(ctx: Context) -> Outcome<Value> {
    let answer = ctx.peer.list_roots().await.map_err(internal)?;
    Ok(text(serde_json::to_string(&answer.roots).map_err(internal)?))
}

fn text(value: impl Into<String>) -> Value {
    json!({"content": [{"type": "text", "text": value.into()}]})
}

fn internal(cause: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(cause.to_string(), None)
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Outcome<T> {
    from_value(value).map_err(internal)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option =
        |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).map(String::as_str);
    let prefix: Arc<str> = option("--prefix").unwrap_or_default().into();
    if args.iter().any(|arg| arg == "--stdio") {
        let server = Demo::new(prefix).serve(rmcp::transport::stdio()).await?;
        server.waiting().await?;
        return Ok(());
    }

    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = None;
    sessions.session_config.sse_retry = Some(RETRY);
    let config = StreamableHttpServerConfig::default().with_sse_retry(Some(RETRY));
    let service = StreamableHttpService::new(move || Ok(Demo::new(prefix.clone())), Arc::new(sessions), config);
    let port: u16 = option("--port").unwrap_or("0").parse()?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening {}", listener.local_addr()?.port());

    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let app = axum::Router::new().nest_service("/mcp", service);
    tokio::select! {
        served = axum::serve(listener, app) => served?,
        _ = term.recv() => {}
    }
    Ok(())
}
