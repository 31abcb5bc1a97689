//! Conformance fixture on the Rust SDK: what servers/fixture.json describes, in both eras, and tools that become tasks.
//!
//! `rmcp-fixture --fixture FILE [--port N | --stdio] [--era both|modern|legacy] [--scheme NAME] [--cancelled FILE]`:
//! modern answers nothing but 2026-07-28, legacy knows no other revisions than those with `initialize`; the last two as
//! in servers/offer.mjs.
// Sampling, roots and logging are deprecated by the newest revision, and part of what this peer is for.
#![allow(deprecated)]

mod dialog;
mod tasks;
mod tools;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use dialog::{Dialog, Place, Places, Step};
use futures::future::try_join_all;
use rmcp::model::*;
use rmcp::service::{Peer, RequestContext, RoleServer, SubscriptionContext, SubscriptionSink};
use rmcp::task_manager::TaskManager;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler, ServiceExt};
use serde_json::{Value, from_value, json};

const RETRY: Duration = Duration::from_millis(50);
const INSTRUCTIONS: &str = "Fixture of the conformance suite.";

type Context = RequestContext<RoleServer>;
type Outcome<T> = Result<T, ErrorData>;

/// What all clients of the process share.
struct Shared {
    fixture: Value,
    dialogs: BTreeMap<String, Dialog>,
    scheme: String,
    era: String,
    extra: AtomicBool,
    cancelled: AtomicU64,
    cancelled_file: Option<String>,
    tasks: TaskManager,
    places: Places,
    /// Sessions, with what each subscribed to.
    sessions: Mutex<Vec<(Peer<RoleServer>, Arc<Session>)>>,
    /// Listens of clients without.
    listens: Mutex<Vec<SubscriptionSink>>,
}

#[derive(Default)]
struct Session {
    /// Index into `tools::LEVELS` below which nothing is logged.
    level: AtomicU8,
    subscribed: Mutex<HashSet<String>>,
}

struct Fixture {
    shared: Arc<Shared>,
    session: Arc<Session>,
}

impl Shared {
    /// Announces that a kind of list has changed.
    async fn changed(&self, kind: &str) {
        let method = format!("notifications/{kind}/list_changed");
        self.tell(|_| true, json!({ "method": method })).await;
    }

    /// Announces a change of a resource; whether anybody asked for it.
    async fn updated(&self, uri: &str) -> bool {
        let said = json!({ "method": "notifications/resources/updated", "params": { "uri": uri } });
        self.tell(|session| session.subscribed.lock().is_ok_and(|uris| uris.contains(uri)), said).await
    }

    async fn tell(&self, wants: impl Fn(&Session) -> bool, said: Value) -> bool {
        let Ok(said) = from_value::<ServerNotification>(said) else { return false };
        let mut heard = false;
        let sessions = self.sessions.lock().map(|kept| kept.clone()).unwrap_or_default();
        for (peer, _) in sessions.iter().filter(|(_, session)| wants(session)) {
            heard |= peer.send_notification(said.clone()).await.is_ok();
        }
        let listens = self.listens.lock().map(|kept| kept.clone()).unwrap_or_default();
        for sink in listens {
            heard |= sink.send(said.clone()).await.is_ok();
        }
        heard
    }
}

impl Fixture {
    fn new(shared: Arc<Shared>) -> Self {
        Fixture { shared, session: Arc::default() }
    }

    fn tools(&self) -> Vec<&Value> {
        let fixture = &self.shared.fixture;
        let listed = [&fixture["tools"], &fixture["task_tools"]].into_iter().filter_map(Value::as_array).flatten();
        let mut tools: Vec<&Value> = listed.map(|tool| &tool["definition"]).collect();
        if self.shared.extra.load(Relaxed) {
            tools.push(&fixture["extra_tool"]);
        }
        tools
    }

    /// The text at the end of a dialog, or the requests that come first.
    async fn converse(
        &self,
        name: &str,
        given: &Value,
        retry: (Option<InputResponses>, Option<String>),
        ctx: &Context,
    ) -> Outcome<Result<String, InputRequiredResult>> {
        let dialog = &self.shared.dialogs[name];
        let declared = serde_json::to_value(ctx.client_capabilities()).map_err(internal)?;
        let unknown = || ErrorData::invalid_params("not our state", None);
        let (mut responses, place) = retry;
        let mut place = match place {
            Some(name) => self.shared.places.find(&name).ok_or_else(unknown)?,
            None => Place::default(),
        };
        loop {
            let answers = serde_json::to_value(responses.unwrap_or_default()).map_err(internal)?;
            let ask = match dialog.advance(given, place, &answers, &declared) {
                Step::Over(text) => return Ok(Ok(text)),
                Step::Ask(ask, next) => {
                    place = next;
                    ask
                }
            };
            if let Some(request) = ask.values().find(|request| !dialog::is_allowed(request, &declared)) {
                let needed = parse(dialog::needed(request))?;
                return Err(ErrorData::missing_required_client_capability(needed));
            }
            if is_modern(ctx) {
                let mut result = json!({ "resultType": "input_required", "inputRequests": identified(ask) });
                if dialog.state {
                    result["requestState"] = self.shared.places.keep(place).into();
                }
                return parse(result).map(Err);
            }
            let asked =
                identified(ask).into_iter().map(|(key, request)| async { Ok((key, ask_now(request, ctx).await?)) });
            responses = Some(try_join_all(asked).await?.into_iter().collect());
        }
    }
}

/// URLs have an id in the revisions with sessions, and in the types of the SDK always.
fn identified(mut ask: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    for (key, request) in ask.iter_mut().filter(|(_, request)| request["params"]["mode"] == "url") {
        request["params"]["elicitationId"] = key.as_str().into();
    }
    ask
}

/// A request to a client with a session.
async fn ask_now(request: Value, ctx: &Context) -> Outcome<Value> {
    let params = request["params"].clone();
    let answer = match request["method"].as_str() {
        Some("roots/list") => serde_json::to_value(ctx.peer.list_roots().await.map_err(internal)?),
        Some("sampling/createMessage") => {
            serde_json::to_value(ctx.peer.create_message(parse(params)?).await.map_err(internal)?)
        }
        _ => serde_json::to_value(ctx.peer.create_elicitation(parse(params)?).await.map_err(internal)?),
    };
    answer.map_err(internal)
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let info = json!({
            "protocolVersion": ProtocolVersion::V_2025_11_25,
            "capabilities": {
                "tools": {"listChanged": true}, "prompts": {"listChanged": true},
                "resources": {"subscribe": true, "listChanged": true}, "logging": {}, "completions": {},
                "extensions": { TASKS_EXTENSION_ID: {} },
            },
            "serverInfo": {"name": "fixture-rmcp", "version": "1.0.0"},
            "instructions": INSTRUCTIONS,
        });
        from_value(info).expect("a valid InitializeResult")
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        let is_modern = |version: &ProtocolVersion| *version >= ProtocolVersion::V_2026_07_28;
        let known = ProtocolVersion::KNOWN_VERSIONS.iter();
        let era = self.shared.era.as_str();
        known.filter(|version| era == "both" || is_modern(version) == (era == "modern")).cloned().collect()
    }

    async fn initialize(&self, request: InitializeRequestParams, ctx: Context) -> Outcome<InitializeResult> {
        ctx.peer.set_peer_info(request.clone());
        let mut info = self.negotiate_initialize(&request)?;
        // The extension has no meaning there.
        info.capabilities.extensions = None;
        Ok(info)
    }

    async fn on_initialized(&self, ctx: rmcp::service::NotificationContext<RoleServer>) {
        if let Ok(mut sessions) = self.shared.sessions.lock() {
            sessions.retain(|(peer, _)| !peer.is_transport_closed());
            sessions.push((ctx.peer, self.session.clone()));
        }
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, ctx: SubscriptionContext) -> Outcome<()> {
        let id = ctx.sink().id().clone();
        self.shared.listens.lock().map_err(internal)?.push(ctx.sink().clone());
        ctx.cancelled().await;
        self.shared.listens.lock().map_err(internal)?.retain(|sink| *sink.id() != id);
        Ok(())
    }

    async fn list_tools(&self, _: Option<PaginatedRequestParams>, _: Context) -> Outcome<ListToolsResult> {
        completed(json!({ "tools": self.tools() }))
    }

    /// The SDK compares mirrored headers of the tools that it is shown here.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        let found = self.tools().into_iter().find(|tool| tool["name"] == name)?;
        from_value(found.clone()).ok()
    }

    async fn call_tool(&self, request: CallToolRequestParams, ctx: Context) -> Outcome<CallToolResponse> {
        let given = Value::Object(request.arguments.unwrap_or_default());
        let fixture = &self.shared.fixture;
        let find = |kind: &str| {
            fixture[kind].as_array().into_iter().flatten().find(|tool| tool["definition"]["name"] == *request.name)
        };
        let (plain, tasked) = (find("tools"), find("task_tools"));
        let extra = request.name == "test_extra" && self.shared.extra.load(Relaxed);
        if extra {
            return Ok(completed::<CallToolResult>(tools::text("extra"))?.into());
        }
        let entry = plain
            .or(tasked)
            .ok_or_else(|| ErrorData::invalid_params(format!("unknown tool {}", request.name), None))?;
        if let Some(result) = entry.get("result") {
            return Ok(completed::<CallToolResult>(result.clone())?.into());
        }
        let declared = ctx.client_capabilities().is_some_and(|declared| declared.supports_tasks());
        if entry.get("dialog").is_some() {
            if tasked.is_some() && !declared {
                return Err(ErrorData::missing_required_client_capability(tasks::needed()));
            }
            let dialog = &self.shared.dialogs[&*request.name];
            if let Some(progress) = dialog.progress {
                tools::progress(progress as u64, 2, &ctx).await?;
            }
            let retry = (request.input_responses, request.request_state);
            return match self.converse(&request.name, &given, retry, &ctx).await {
                Ok(Ok(text)) if tasked.is_some() => Ok(tasks::said(&self.shared.tasks, text)),
                Ok(Ok(text)) => Ok(completed::<CallToolResult>(tools::text(text))?.into()),
                Ok(Err(ask)) => Ok(ask.into()),
                Err(fault) if !is_modern(&ctx) => {
                    Ok(completed::<CallToolResult>(tools::failure(&fault.message))?.into())
                }
                Err(fault) => Err(fault),
            };
        }
        if tasked.is_some_and(|entry| entry["task"] == true) {
            return tasks::call(&self.shared.tasks, request.name.into_owned(), given, declared).await;
        }
        Ok(completed::<CallToolResult>(self.run(&request.name, &given, &ctx).await?)?.into())
    }

    async fn get_task(&self, request: GetTaskParams, _: Context) -> Outcome<GetTaskResult> {
        self.shared.tasks.get_task(&request.task_id).map(GetTaskResult::new)
    }

    async fn update_task(&self, request: UpdateTaskParams, _: Context) -> Outcome<()> {
        self.shared.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: Context) -> Outcome<()> {
        self.shared.tasks.cancel_task(&request.task_id)
    }

    async fn list_resources(&self, _: Option<PaginatedRequestParams>, _: Context) -> Outcome<ListResourcesResult> {
        completed(json!({ "resources": self.shared.fixture["resources"] }))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Outcome<ListResourceTemplatesResult> {
        completed(json!({ "resourceTemplates": self.shared.fixture["templates"] }))
    }

    async fn read_resource(&self, request: ReadResourceRequestParams, _: Context) -> Outcome<ReadResourceResponse> {
        let uri = request.uri.as_str();
        let kept = &self.shared.fixture["contents"][uri];
        let id =
            uri.strip_prefix(&format!("{}://template/", self.shared.scheme)).and_then(|id| id.strip_suffix("/data"));
        let contents = match id {
            _ if !kept.is_null() => kept.clone(),
            Some(id) if !id.contains('/') && !id.is_empty() => {
                let body = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
                json!({ "uri": uri, "mimeType": "application/json", "text": body.to_string() })
            }
            _ => return Err(ErrorData::resource_not_found("resource not found", Some(json!({ "uri": uri })))),
        };
        Ok(completed::<ReadResourceResult>(json!({ "contents": [contents] }))?.into())
    }

    async fn subscribe(&self, request: SubscribeRequestParams, _: Context) -> Outcome<()> {
        self.session.subscribed.lock().map_err(internal)?.insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(&self, request: UnsubscribeRequestParams, _: Context) -> Outcome<()> {
        self.session.subscribed.lock().map_err(internal)?.remove(&request.uri);
        Ok(())
    }

    async fn list_prompts(&self, _: Option<PaginatedRequestParams>, _: Context) -> Outcome<ListPromptsResult> {
        completed(json!({ "prompts": self.shared.fixture["prompts"] }))
    }

    async fn get_prompt(&self, request: GetPromptRequestParams, ctx: Context) -> Outcome<GetPromptResponse> {
        let given = Value::Object(request.arguments.unwrap_or_default());
        let prompts = self.shared.fixture["prompts"].as_array().into_iter().flatten();
        let found = prompts.into_iter().find(|prompt| prompt["name"] == *request.name);
        let found = found.ok_or_else(|| ErrorData::invalid_params(format!("unknown prompt {}", request.name), None))?;
        let arguments = found["arguments"].as_array().into_iter().flatten();
        if let Some(missing) = arguments.into_iter().find(|each| given[each["name"].as_str().unwrap_or("")].is_null()) {
            return Err(ErrorData::invalid_params(format!("missing argument {}", missing["name"]), None));
        }
        let text = |key: &str| given[key].as_str().unwrap_or_default();
        let content = match request.name.as_str() {
            "test_simple_prompt" => vec![said("This is a simple prompt for testing.".into())],
            "test_prompt_with_arguments" => {
                vec![said(format!("Prompt with arguments: arg1='{}', arg2='{}'", text("arg1"), text("arg2")))]
            }
            "test_prompt_with_embedded_resource" => {
                let about = "Embedded resource content for testing.";
                let resource = json!({ "uri": text("resourceUri"), "mimeType": "text/plain", "text": about });
                let embedded = json!({ "type": "resource", "resource": resource });
                vec![embedded, said("Please process the embedded resource above.".into())]
            }
            "test_prompt_with_image" => {
                vec![self.shared.fixture["image"].clone(), said("Please analyze the image above.".into())]
            }
            name => {
                let retry = (request.input_responses, request.request_state);
                match self.converse(name, &given, retry, &ctx).await? {
                    Ok(text) => vec![said(text)],
                    Err(ask) => return Ok(ask.into()),
                }
            }
        };
        let messages: Vec<Value> = content.into_iter().map(|each| json!({ "role": "user", "content": each })).collect();
        Ok(completed::<GetPromptResult>(json!({ "messages": messages }))?.into())
    }

    async fn complete(&self, request: CompleteRequestParams, _: Context) -> Outcome<CompleteResult> {
        let known = self.shared.fixture["completions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let values: Vec<_> = known.filter(|name| name.starts_with(&request.argument.value)).collect();
        completed(json!({"completion": {"values": values, "total": values.len(), "hasMore": false}}))
    }

    async fn set_level(&self, request: SetLevelRequestParams, _: Context) -> Outcome<()> {
        let level = serde_json::to_value(request.level).map_err(internal)?;
        let index = tools::LEVELS.iter().position(|name| level == *name).unwrap_or(0);
        self.session.level.store(index as u8, Relaxed);
        Ok(())
    }
}

fn said(text: String) -> Value {
    json!({ "type": "text", "text": text })
}

fn is_modern(ctx: &Context) -> bool {
    ctx.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

fn internal(cause: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(cause.to_string(), None)
}

/// A complete result; clients with sessions are not told so by the SDK.
fn completed<T: serde::de::DeserializeOwned>(mut value: Value) -> Outcome<T> {
    value["resultType"] = json!("complete");
    parse(value)
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Outcome<T> {
    from_value(value).map_err(internal)
}

/// Refuses what is not of this fixture's era, which the SDK would serve in whatever revision it likes.
async fn of_era(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let version = request.headers().get("mcp-protocol-version").and_then(|version| version.to_str().ok());
    let version = version.unwrap_or_default();
    let newest = ProtocolVersion::V_2026_07_28.to_string();
    match shared.era.as_str() {
        "modern" if request.method() != Method::POST => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        "modern" if version < newest.as_str() => {
            let data = json!({ "supported": [newest], "requested": version });
            refusal(json!({ "code": -32022, "message": "unsupported protocol version", "data": data }))
        }
        "legacy" if version >= newest.as_str() => {
            refusal(json!({ "code": -32000, "message": "unsupported protocol version" }))
        }
        _ => next.run(request).await,
    }
}

fn refusal(error: Value) -> Response {
    let body = json!({ "jsonrpc": "2.0", "error": error }).to_string();
    (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn load(option: &dyn Fn(&str) -> Option<String>) -> Result<Shared, Box<dyn std::error::Error>> {
    let scheme = option("--scheme").unwrap_or_else(|| "test".to_owned());
    let text = std::fs::read_to_string(option("--fixture").ok_or("--fixture is missing")?)?;
    let text = text.replace("test://", &format!("{scheme}://")).replace("ui://fixture/", &format!("ui://{scheme}/"));
    let mut fixture: Value = serde_json::from_str(&text)?;
    let era = option("--era").unwrap_or_else(|| "both".to_owned());
    if era == "legacy" {
        // They are for clients of the newest revision.
        fixture["task_tools"] = json!([]);
    }
    let mut dialogs = BTreeMap::new();
    for tool in [&fixture["tools"], &fixture["task_tools"]].into_iter().filter_map(Value::as_array).flatten() {
        if let (Some(name), Some(dialog)) = (tool["definition"]["name"].as_str(), tool.get("dialog")) {
            dialogs.insert(name.to_owned(), from_value(dialog.clone())?);
        }
    }
    for (name, dialog) in fixture["prompt_dialogs"].as_object().into_iter().flatten() {
        dialogs.insert(name.clone(), from_value(dialog.clone())?);
    }
    Ok(Shared {
        fixture,
        dialogs,
        scheme,
        era,
        extra: AtomicBool::new(false),
        cancelled: AtomicU64::new(0),
        cancelled_file: option("--cancelled"),
        tasks: TaskManager::new(),
        places: Places::default(),
        sessions: Mutex::default(),
        listens: Mutex::default(),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let shared = Arc::new(load(&option)?);
    if args.iter().any(|arg| arg == "--stdio") {
        let server = Fixture::new(shared).serve(rmcp::transport::stdio()).await?;
        server.waiting().await?;
        return Ok(());
    }

    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = None;
    sessions.session_config.sse_retry = Some(RETRY);
    let config =
        StreamableHttpServerConfig::default().with_sse_retry(Some(RETRY)).with_legacy_session_mode(shared.era != "modern");
    let served = shared.clone();
    let service = StreamableHttpService::new(move || Ok(Fixture::new(served.clone())), Arc::new(sessions), config);
    let port: u16 = option("--port").unwrap_or_default().parse().unwrap_or(0);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening {}", listener.local_addr()?.port());

    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let app = axum::Router::new().nest_service("/mcp", service).layer(from_fn_with_state(shared, of_era));
    tokio::select! {
        served = axum::serve(listener, app) => served?,
        _ = term.recv() => {}
    }
    Ok(())
}
