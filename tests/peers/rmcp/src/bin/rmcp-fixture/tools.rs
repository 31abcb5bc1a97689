//! The tools of fixture.json whose result is not fixed and that ask nothing.

use std::io::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rmcp::ErrorData;
use serde_json::{Value, json};

use super::{Context, Fixture, Outcome, internal, parse};

const STEP: Duration = Duration::from_millis(50);
pub const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

impl Fixture {
    pub async fn run(&self, name: &str, given: &Value, ctx: &Context) -> Outcome<Value> {
        match name {
            "test_tool_with_logging" => {
                for said in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                    self.log(said, ctx).await?;
                    tokio::time::sleep(STEP).await;
                }
                Ok(text("logged three messages"))
            }
            "test_logging_tool" => {
                self.log("logged once", ctx).await?;
                Ok(text("logged one message"))
            }
            "test_error_handling" => Ok(failure("This tool intentionally returns an error for testing")),
            "test_tool_with_progress" => {
                for value in [0, 50, 100] {
                    progress(value, 100, ctx).await?;
                    tokio::time::sleep(STEP).await;
                }
                Ok(text(format!("progress token {}", json!(ctx.meta.get_progress_token()))))
            }
            "test_reconnection" => {
                tokio::time::sleep(2 * STEP).await;
                Ok(text("Answered after the stream was closed"))
            }
            "test_structured" => {
                let sum = json!({ "sum": given["a"].as_f64().unwrap_or(0.0) + given["b"].as_f64().unwrap_or(0.0) });
                let mut result = text(sum.to_string());
                result["structuredContent"] = sum;
                Ok(result)
            }
            "test_custom_header" => Ok(text(format!("region {}", given["region"].as_str().unwrap_or_default()))),
            "test_slow" => self.slow(given["seconds"].as_f64().unwrap_or(1.0), ctx).await,
            "test_cancellations" => Ok(text(self.cancellations())),
            "test_touch" => {
                let heard = self.shared.updated(&format!("{}://watched-resource", self.shared.scheme)).await;
                Ok(text(if heard { "announced" } else { "nobody subscribed" }))
            }
            "test_toggle" => {
                let added = !self.shared.extra.fetch_xor(true, Relaxed);
                self.shared.changed("tools").await;
                Ok(text(if added { "added" } else { "removed" }))
            }
            "test_trigger_tool_change" | "test_trigger_prompt_change" => {
                self.shared.changed(if name.contains("tool") { "tools" } else { "prompts" }).await;
                Ok(text("announced"))
            }
            "greet" => Ok(text(format!("Hello, {}!", given["name"].as_str().unwrap_or_default()))),
            _ => Err(ErrorData::invalid_params(format!("unknown tool {name}"), None)),
        }
    }

    /// At info level.
    async fn log(&self, said: &str, ctx: &Context) -> Outcome<()> {
        let level = match super::is_modern(ctx) {
            true => {
                let meta = serde_json::to_value(&ctx.meta).map_err(internal)?;
                match meta[LOG_LEVEL].as_str() {
                    Some(level) => LEVELS.iter().position(|known| *known == level).unwrap_or_default(),
                    None => return Ok(()),
                }
            }
            false => usize::from(self.session.level.load(Relaxed)),
        };
        if level > 1 {
            return Ok(());
        }
        let params = json!({ "level": "info", "logger": "fixture", "data": said });
        ctx.peer.notify_logging_message(parse(params)?).await.map_err(internal)
    }

    async fn slow(&self, seconds: f64, ctx: &Context) -> Outcome<Value> {
        let steps = (seconds / STEP.as_secs_f64()).ceil() as u64;
        for step in 1..=steps {
            tokio::select! {
                () = tokio::time::sleep(STEP) => {}
                () = ctx.ct.cancelled() => {
                    self.shared.cancelled.fetch_add(1, Relaxed);
                    if let Some(path) = &self.shared.cancelled_file
                        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
                    {
                        file.write_all(b".").map_err(internal)?;
                    }
                    return Err(internal("cancelled"));
                }
            }
            progress(step, steps, ctx).await?;
        }
        Ok(text(format!("slept {seconds} s")))
    }

    fn cancellations(&self) -> String {
        match &self.shared.cancelled_file {
            Some(path) => std::fs::metadata(path).map_or(0, |about| about.len()).to_string(),
            None => self.shared.cancelled.load(Relaxed).to_string(),
        }
    }
}

pub async fn progress(value: u64, total: u64, ctx: &Context) -> Outcome<()> {
    let Some(token) = ctx.meta.get_progress_token() else { return Ok(()) };
    let message = format!("step {value} of {total}");
    let params = json!({ "progressToken": token, "progress": value, "total": total, "message": message });
    ctx.peer.notify_progress(parse(params)?).await.map_err(internal)
}

pub fn text(value: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": value.into() }] })
}

pub fn failure(value: &str) -> Value {
    let mut result = text(value);
    result["isError"] = json!(true);
    result
}
