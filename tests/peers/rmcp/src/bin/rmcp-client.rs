//! Drives the demo servers (`rmcp`, `fastmcp`, or both through a federation) with the client of the Rust SDK.
//!
//! `rmcp-client [--discover] URL [PREFIX]...`: a prefix is what a federation puts before a target's tool and prompt
//! names; none means the bare names. `--discover`: speaks 2026-07-28 and nothing else. Prints one JSON line per
//! feature, then `N passed, N failed`; exit code 1 if anything failed.
// Sampling, roots and logging are deprecated by the newest revision, and exactly what is driven here.
#![allow(deprecated)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::model::*;
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, NotificationContext, RequestContext, RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ErrorData};
use serde_json::{Value, from_value, json};

const ROOT: &str = "file:///project/one";
const WAIT: Duration = Duration::from_secs(5);
const PARALLEL: usize = 20;

type Failure = Box<dyn std::error::Error>;
type Outcome = Result<String, Failure>;

/// Answers what a server asks, keeps what it announces.
#[derive(Clone, Default)]
struct Driver {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    progress: Vec<f64>,
    logs: Vec<String>,
    tools_changed: usize,
}

impl Driver {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        if let Ok(mut seen) = self.seen.lock() {
            change(&mut seen);
        }
    }

    /// Waits until `ready` holds of what was seen.
    async fn until(&self, what: &str, ready: impl Fn(&Seen) -> bool) -> Result<(), Failure> {
        let end = tokio::time::Instant::now() + WAIT;
        while tokio::time::Instant::now() < end {
            if self.seen.lock().is_ok_and(|seen| ready(&seen)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("{what} did not happen within {WAIT:?}").into())
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    from_value(value).map_err(|cause| ErrorData::internal_error(cause.to_string(), None))
}

impl ClientHandler for Driver {
    fn get_info(&self) -> ClientConfig {
        let info = json!({
            "protocolVersion": ProtocolVersion::V_2025_11_25,
            "capabilities": {"sampling": {}, "elicitation": {"form": {}}, "roots": {"listChanged": true}},
            "clientInfo": {"name": "agentlane-driver-rmcp", "version": "1.0.0"},
        });
        from_value(info).expect("a valid InitializeRequestParams")
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let asked = serde_json::to_value(&params.messages).unwrap_or_default();
        let last = asked.as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
        let text = last.pointer("/content/text").or(last.pointer("/content/0/text")).and_then(Value::as_str);
        let content = json!({"type": "text", "text": format!("reply to {}", text.unwrap_or("nothing"))});
        parse(json!({"role": "assistant", "model": "driver", "content": content}))
    }

    async fn create_elicitation(
        &self,
        params: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let ElicitRequestParams::FormElicitationParams { message, .. } = params else {
            return parse(json!({"action": "decline"}));
        };
        parse(json!({"action": "accept", "content": {"answer": format!("answer to {message}")}}))
    }

    async fn list_roots(&self, _: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        parse(json!({"roots": [{"uri": ROOT, "name": "one"}]}))
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.note(|seen| seen.progress.push(params.progress));
    }

    async fn on_logging_message(&self, params: LoggingMessageNotificationParam, _: NotificationContext<RoleClient>) {
        self.note(|seen| seen.logs.push(params.data.to_string()));
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.note(|seen| seen.tools_changed += 1);
    }
}

/// One target behind the connection.
struct Target<'a> {
    client: &'a RunningService<RoleClient, Driver>,
    modern: bool,
    driver: &'a Driver,
    prefix: &'a str,
}

impl Target<'_> {
    async fn call(&self, tool: &str, arguments: Value) -> Result<Value, Failure> {
        self.call_with(tool, arguments, json!({})).await
    }

    async fn call_with(&self, tool: &str, arguments: Value, meta: Value) -> Result<Value, Failure> {
        let params = json!({"name": format!("{}{tool}", self.prefix), "arguments": arguments, "_meta": meta});
        // The service, not its peer: it answers what a target of 2026-07-28 asks back.
        let result = serde_json::to_value(self.client.call_tool(from_value(params)?).await?)?;
        match result["isError"].as_bool() {
            Some(true) => Err(format!("{tool}: {}", result["content"]).into()),
            _ => Ok(result),
        }
    }

    async fn expect(&self, tool: &str, arguments: Value, text: &str) -> Outcome {
        let result = self.call(tool, arguments).await?;
        let got = result["content"][0]["text"].as_str().unwrap_or_default();
        if got.contains(text) { Ok(String::new()) } else { Err(format!("{got:?} does not contain {text:?}").into()) }
    }

    async fn feature(&self, name: &str) -> Outcome {
        match name {
            "tools" => {
                let wanted = format!("{}echo", self.prefix);
                let tools = self.client.peer().list_all_tools().await?;
                let found = tools.iter().any(|tool| tool.name == wanted);
                if found { Ok(format!("{} tools", tools.len())) } else { Err(format!("{wanted} is missing").into()) }
            }
            "prompts" => Ok(format!("{} prompts", self.client.peer().list_all_prompts().await?.len())),
            "resources" => Ok(format!("{} resources", self.client.peer().list_all_resources().await?.len())),
            "templates" => Ok(format!("{} templates", self.client.peer().list_all_resource_templates().await?.len())),
            "call" => self.expect("echo", json!({"text": "zażółć 🦀"}), "zażółć 🦀").await,
            "structured" => {
                let result = self.call("add", json!({"a": 2, "b": 3})).await?;
                let sum = &result["structuredContent"]["sum"];
                if sum.as_f64() == Some(5.0) { Ok(String::new()) } else { Err(format!("got {sum}").into()) }
            }
            "sampling" => self.expect("sample", json!({"prompt": "marco"}), "reply to marco").await,
            "elicitation" => self.expect("ask", json!({"message": "your colour"}), "answer to your colour").await,
            "roots" => self.expect("roots", json!({}), ROOT).await,
            "progress" => self.progress().await,
            "logging" => {
                self.driver.note(|seen| seen.logs.clear());
                let mut meta = json!({});
                if self.modern {
                    meta["io.modelcontextprotocol/logLevel"] = json!("error");
                } else {
                    self.client.peer().set_level(from_value(json!({"level": "error"}))?).await?;
                }
                self.call_with("log", json!({}), meta).await?;
                self.driver.until("four log messages", |seen| seen.logs.len() >= 4).await?;
                Ok(String::new())
            }
            "list_changed" => self.list_changed().await,
            "prompt" => {
                let params = json!({"name": format!("{}greet", self.prefix), "arguments": {"name": "ada"}});
                let got = serde_json::to_string(&self.client.peer().get_prompt(from_value(params)?).await?)?;
                if got.contains("Greet ada.") { Ok(String::new()) } else { Err(got.into()) }
            }
            "parallel" => {
                let calls: Vec<_> = (0..PARALLEL).map(|index| format!("call {index}.")).collect();
                let mut running = tokio::task::JoinSet::new();
                for words in calls {
                    let peer = self.client.peer().clone();
                    let name = format!("{}echo", self.prefix);
                    running.spawn(async move {
                        let params = json!({"name": name, "arguments": {"text": words}});
                        let params = from_value(params).map_err(|cause| cause.to_string())?;
                        let result = peer.call_tool(params).await.map_err(|cause| cause.to_string())?;
                        let got = serde_json::to_string(&result).map_err(|cause| cause.to_string())?;
                        if got.contains(&words) { Ok(()) } else { Err(got) }
                    });
                }
                while let Some(done) = running.join_next().await {
                    done??;
                }
                Ok(format!("{PARALLEL} calls"))
            }
            _ => Err("no such feature".into()),
        }
    }

    async fn list_changed(&self) -> Outcome {
        if self.modern {
            let filter = SubscriptionFilter::builder().tools_list_changed().build();
            let mut changes = self.client.peer().listen(filter).await?;
            self.call("toggle", json!({})).await?;
            tokio::time::timeout(WAIT, changes.next()).await??.ok_or("the listening ended")?;
        } else {
            let before = self.driver.seen.lock().map_or(0, |seen| seen.tools_changed);
            self.call("toggle", json!({})).await?;
            self.driver.until("list_changed", |seen| seen.tools_changed > before).await?;
        }
        self.call("toggle", json!({})).await?;
        Ok(String::new())
    }

    async fn progress(&self) -> Outcome {
        self.driver.note(|seen| seen.progress.clear());
        // The client gives every request a progress token of its own.
        self.call("slow", json!({"seconds": 0.3})).await?;
        self.driver.until("six progress notifications", |seen| seen.progress.len() >= 6).await?;
        let seen = self.driver.seen.lock().map_err(|cause| cause.to_string())?.progress.clone();
        if seen == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] { Ok(String::new()) } else { Err(format!("got {seen:?}").into()) }
    }
}

const FEATURES: [&str; 14] = [
    "tools",
    "prompts",
    "resources",
    "templates",
    "call",
    "structured",
    "parallel",
    "prompt",
    "sampling",
    "elicitation",
    "roots",
    "progress",
    "logging",
    "list_changed",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let (options, args): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|arg| arg == "--discover");
    let modern = !options.is_empty();
    let mut args = args.into_iter();
    let url = args.next().ok_or("usage: rmcp-client [--discover] URL [PREFIX]...")?;
    let mut prefixes: Vec<String> = args.collect();
    if prefixes.is_empty() {
        prefixes.push(String::new());
    }
    let driver = Driver::default();
    let lifecycle = if modern {
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
    } else {
        ClientLifecycleMode::Initialize
    };
    let transport = StreamableHttpClientTransport::from_uri(url);
    let client = driver.clone().serve_with_lifecycle(transport, lifecycle).await?;
    let (mut passed, mut failed) = (0, 0);
    for prefix in &prefixes {
        let target = Target { client: &client, modern, driver: &driver, prefix };
        for name in FEATURES {
            let feature = format!("{prefix}{}{name}", if prefix.is_empty() { "" } else { "/" });
            let line = match tokio::time::timeout(WAIT * 2, target.feature(name)).await {
                Ok(Ok(detail)) => json!({"feature": feature, "ok": true, "detail": detail}),
                Ok(Err(cause)) => {
                    json!({"feature": feature, "ok": false, "detail": cause.to_string()})
                }
                Err(_) => json!({"feature": feature, "ok": false, "detail": "no answer in time"}),
            };
            if line["ok"] == true {
                passed += 1
            } else {
                failed += 1
            }
            println!("{line}");
        }
    }
    client.cancel().await?;
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}
