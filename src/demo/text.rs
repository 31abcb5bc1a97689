//! The `text` server: tools that work on text, and one each for progress, elicitation and sampling. Knows no transport.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::offer::{
    Answer, Client, Error, Event, Job, Notice, Notices, Offer, Step, named, text_of, tool_failure, tool_text,
};

const SAMPLE_URI: &str = "text://sample";
const SAMPLE: &str = "The quick brown fox jumps over the lazy dog.";
const COUNT_MAX: u64 = 100;
const COUNT_INTERVAL_MAX_MS: u64 = 1000;

/// The text server; it keeps nothing.
pub(super) struct Text;

impl Offer for Text {
    fn identity(&self) -> Value {
        json!({ "name": "agentlane-demo-text", "title": "Text", "version": env!("CARGO_PKG_VERSION") })
    }

    fn capabilities(&self) -> Value {
        json!({ "tools": {}, "resources": {}, "prompts": {}, "logging": {} })
    }

    fn instructions(&self) -> &'static str {
        "Works on text. slow_count shows progress, ask_name asks the user, sample_summary asks the client's model."
    }

    fn answer(
        &mut self,
        method: &str,
        params: &Map<String, Value>,
        client: &Client,
        _: &mut Notices,
    ) -> Option<Answer> {
        Some(match method {
            "tools/list" => Answer::Now(Ok(tools())),
            "tools/call" => call(params, client).unwrap_or_else(|error| Answer::Now(Err(error))),
            "resources/list" => Answer::Now(Ok(json!({ "resources": [{
                "uri": SAMPLE_URI, "name": "sample", "title": "A sentence", "mimeType": "text/plain",
            }] }))),
            "resources/templates/list" => Answer::Now(Ok(json!({ "resourceTemplates": [] }))),
            "resources/read" => Answer::Now(match text_of(params, "uri") {
                Some(SAMPLE_URI) => {
                    Ok(json!({ "contents": [{ "uri": SAMPLE_URI, "mimeType": "text/plain", "text": SAMPLE }] }))
                }
                Some(uri) => Err(Error::no_resource(uri)),
                None => Err(Error::invalid_params("uri is missing")),
            }),
            "prompts/list" => Answer::Now(Ok(json!({ "prompts": [{
                "name": "proofread", "title": "Proofread", "description": "Asks for corrections of a text.",
                "arguments": [{ "name": "text", "description": "The text to correct.", "required": true }],
            }] }))),
            "prompts/get" => Answer::Now(prompt(params)),
            _ => return None,
        })
    }
}

fn call(params: &Map<String, Value>, client: &Client) -> Result<Answer, Error> {
    let (name, arguments) = named(params)?;
    let text = text_of(&arguments, "text");
    Ok(match (name, text) {
        ("word_count" | "reverse" | "sample_summary", None) => Answer::tool_failure("text must be a string"),
        ("word_count", Some(text)) => Answer::Now(Ok(word_count(text))),
        ("reverse", Some(text)) => Answer::tool(text.chars().rev().collect::<String>()),
        ("slow_count", _) => slow_count(&arguments),
        ("ask_name", _) if !client.elicits_forms() => {
            Answer::tool_failure("the client cannot be asked: it declares no form elicitation")
        }
        ("ask_name", _) => Answer::Later(Box::new(AskName)),
        ("sample_summary", _) if !client.samples() => Answer::tool_failure("the client declares no sampling"),
        ("sample_summary", Some(text)) => Answer::Later(Box::new(SampleSummary(text.into()))),
        _ => return Err(Error::invalid_params(format!("unknown tool: {name}"))),
    })
}

fn word_count(text: &str) -> Value {
    let counts = json!({
        "words": text.split_whitespace().count(), "characters": text.chars().count(), "lines": text.lines().count(),
    });
    let mut result = tool_text(counts.to_string());
    result["structuredContent"] = counts;
    result
}

fn slow_count(arguments: &Map<String, Value>) -> Answer {
    let number = |name, default| arguments.get(name).map_or(Some(default), Value::as_u64);
    match (number("to", 5), number("interval_ms", 200)) {
        (Some(to @ 1..=COUNT_MAX), Some(interval @ 1..=COUNT_INTERVAL_MAX_MS)) => {
            Answer::Later(Box::new(SlowCount { at: 0, to, interval: Duration::from_millis(interval) }))
        }
        _ => Answer::tool_failure(format!("to must be 1 to {COUNT_MAX}, interval_ms 1 to {COUNT_INTERVAL_MAX_MS}")),
    }
}

struct SlowCount {
    at: u64,
    to: u64,
    interval: Duration,
}

impl Job for SlowCount {
    fn step(&mut self, event: Event, notices: &mut Notices) -> Step {
        match event {
            Event::Started => notices.0.push(Notice::Log(json!(format!("counting to {}", self.to)))),
            _ => {
                self.at += 1;
                let message = format!("{} of {}", self.at, self.to);
                notices.0.push(Notice::Progress { progress: self.at, total: self.to, message });
            }
        }
        match self.at < self.to {
            true => Step::Wait(self.interval),
            false => Step::Done(Ok(tool_text(format!("counted to {}", self.to)))),
        }
    }
}

struct AskName;

impl Job for AskName {
    fn step(&mut self, event: Event, _: &mut Notices) -> Step {
        let Event::Answered(answer) = event else {
            let schema = json!({ "type": "object", "required": ["name"], "properties": {
                "name": { "type": "string", "title": "Name", "minLength": 1, "maxLength": 100 },
            } });
            return Step::Ask {
                method: "elicitation/create",
                params: json!({ "message": "What is your name?", "requestedSchema": schema }),
            };
        };
        let text = match &answer {
            Err(reason) => return Step::Done(Ok(tool_failure(format!("could not ask: {reason}")))),
            Ok(answer) => match (answer["action"].as_str(), answer["content"]["name"].as_str()) {
                (Some("accept"), Some(name)) => format!("Hello, {name}!"),
                (Some("accept"), None) => {
                    return Step::Done(Ok(tool_failure("the answer has no name")));
                }
                (Some("decline"), _) => "You would rather not say.".into(),
                _ => "The question was dismissed.".into(),
            },
        };
        Step::Done(Ok(tool_text(text)))
    }
}

struct SampleSummary(String);

impl Job for SampleSummary {
    fn step(&mut self, event: Event, _: &mut Notices) -> Step {
        let Event::Answered(answer) = event else {
            let content = json!({ "type": "text", "text": format!("Summarize in one sentence:\n\n{}", self.0) });
            return Step::Ask {
                method: "sampling/createMessage",
                params: json!({ "messages": [{ "role": "user", "content": content }], "maxTokens": 200 }),
            };
        };
        Step::Done(Ok(match &answer {
            Err(reason) => tool_failure(format!("could not sample: {reason}")),
            Ok(answer) => {
                // One block, or since 2025-11-25 perhaps several.
                let blocks = answer["content"].as_array().cloned().unwrap_or_else(|| vec![answer["content"].clone()]);
                match blocks.iter().find_map(|block| block["text"].as_str()) {
                    Some(text) => tool_text(text),
                    None => tool_failure("the model gave no text"),
                }
            }
        }))
    }
}

fn prompt(params: &Map<String, Value>) -> Result<Value, Error> {
    let (name, arguments) = named(params)?;
    if name != "proofread" {
        return Err(Error::invalid_params(format!("unknown prompt: {name}")));
    }
    let text = text_of(&arguments, "text").ok_or_else(|| Error::invalid_params("text is missing"))?;
    let text = format!("Correct spelling and grammar, and keep the meaning:\n\n{text}");
    Ok(json!({
        "description": "Corrections of a text",
        "messages": [{ "role": "user", "content": { "type": "text", "text": text } }],
    }))
}

fn tools() -> Value {
    let text = json!({ "type": "object", "required": ["text"], "properties": { "text": { "type": "string" } } });
    let number = json!({ "type": "integer", "minimum": 0 });
    let read_only = json!({ "readOnlyHint": true });
    json!({ "tools": [
        {
            "name": "word_count", "title": "Count words", "description": "Counts words, characters and lines.",
            "inputSchema": text, "annotations": read_only,
            "outputSchema": { "type": "object", "required": ["words", "characters", "lines"], "properties": {
                "words": number, "characters": number, "lines": number,
            } },
        },
        {
            "name": "reverse", "title": "Reverse", "description": "Gives the characters in reverse order.",
            "inputSchema": text, "annotations": read_only,
        },
        {
            "name": "slow_count", "title": "Count slowly",
            "description": "Counts with a pause at each step, and tells its progress.",
            "inputSchema": { "type": "object", "properties": {
                "to": { "type": "integer", "minimum": 1, "maximum": COUNT_MAX, "default": 5 },
                "interval_ms": { "type": "integer", "minimum": 1, "maximum": COUNT_INTERVAL_MAX_MS, "default": 200 },
            } },
            "annotations": read_only,
        },
        {
            "name": "ask_name", "title": "Ask for a name", "description": "Asks the user for a name and greets.",
            "inputSchema": { "type": "object", "properties": {} }, "annotations": read_only,
        },
        {
            "name": "sample_summary", "title": "Summarize", "description": "Has the client's model summarize a text.",
            "inputSchema": text, "annotations": read_only,
        },
    ] })
}
