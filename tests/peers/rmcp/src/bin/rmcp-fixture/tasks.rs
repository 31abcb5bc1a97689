//! Tools that may become tasks of `io.modelcontextprotocol/tasks`.

use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::*;
use rmcp::task_manager::{TaskContext, TaskExit, TaskManager, TaskOptions};
use serde_json::{Value, json};

use super::{Outcome, completed, parse, tools};

const POLL_MS: u64 = 100;
const FORM: &str = r#"{"type": "object", "properties": {"confirmed": {"type": "boolean"}}}"#;

/// Begins the tool as a task, or runs it to its end where its client knows no tasks.
pub async fn call(tasks: &TaskManager, name: String, given: Value, declared: bool) -> Outcome<CallToolResponse> {
    let needs_task = matches!(name.as_str(), "failing_job" | "protocol_error_job" | "confirm_delete" | "multi_input");
    if !declared {
        if needs_task {
            return Err(ErrorData::missing_required_client_capability(needed()));
        }
        let result = run(None, &name, &given).await.map_err(|exit| match exit {
            TaskExit::Error(error) => error,
            TaskExit::Cancelled => ErrorData::internal_error("cancelled", None),
        });
        return Ok(result?.into());
    }
    Ok(begin(tasks, move |context| Box::pin(async move { run(Some(&context), &name, &given).await })))
}

/// A task that ends with this text.
pub fn said(tasks: &TaskManager, text: String) -> CallToolResponse {
    begin(tasks, move |_| Box::pin(async move { completed(tools::text(text)).map_err(TaskExit::Error) }))
}

pub fn needed() -> ClientCapabilities {
    ClientCapabilities::builder().enable_tasks().build()
}

fn begin(tasks: &TaskManager, work: impl FnOnce(TaskContext) -> rmcp::task_manager::TaskFuture) -> CallToolResponse {
    let options = TaskOptions::new().with_poll_interval_ms(POLL_MS);
    CreateTaskResult::new(tasks.spawn(options, work)).into()
}

async fn run(context: Option<&TaskContext>, name: &str, given: &Value) -> Result<CallToolResult, TaskExit> {
    let ask = async |key: &str, message: String| match context {
        Some(context) => {
            let form: Value = serde_json::from_str(FORM).expect("JSON");
            let params = json!({ "message": message, "requestedSchema": form });
            let request = parse(json!({ "method": "elicitation/create", "params": params }))?;
            context.request_input(key, request).await
        }
        None => Err(TaskExit::Error(ErrorData::internal_error("no task", None))),
    };
    match name {
        "slow_compute" => {
            let wait = tokio::time::sleep(Duration::from_secs_f64(given["seconds"].as_f64().unwrap_or(0.0)));
            match context {
                None => wait.await,
                Some(context) => tokio::select! {
                    () = wait => {}
                    () = context.cancelled() => return Err(TaskExit::Cancelled),
                },
            }
            Ok(completed(tools::text(format!("computed {}", given["label"])))?)
        }
        "failing_job" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(completed(tools::failure("the job failed"))?)
        }
        "protocol_error_job" => Err(TaskExit::Error(ErrorData::internal_error("the job broke", None))),
        "confirm_delete" => {
            let answer = ask("confirm", format!("Delete {}?", given["filename"])).await?;
            Ok(completed(tools::text(format!("deleted: {}", answer["action"])))?)
        }
        "multi_input" => {
            let (one, two) = (ask("one", "One?".to_owned()), ask("two", "Two?".to_owned()));
            let (one, two) = tokio::join!(one, two);
            Ok(completed(tools::text(format!("heard {} and {}", one?["action"], two?["action"])))?)
        }
        _ => Err(TaskExit::Error(ErrorData::invalid_params(format!("unknown tool {name}"), None))),
    }
}
