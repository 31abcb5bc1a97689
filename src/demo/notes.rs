//! The `notes` server: a few tools over a list of notes in memory, each of which is a resource. Knows no transport.

use serde_json::{Map, Value, json};

use super::offer::{Answer, Client, Error, Notice, Notices, Offer, named, text_of, tool_text};

const NOTES_MAX: usize = 1000;
const NOTE_BYTES_MAX: usize = 16 * 1024;
const TITLE_BYTES_MAX: usize = 200;
/// Notes on one page of `resources/list`.
const PAGE: usize = 50;
/// Bytes of note text that the prompt carries.
const PROMPT_BYTES_MAX: usize = 64 * 1024;
/// Values that a completion may hold, by the specification.
const COMPLETIONS_MAX: usize = 100;

/// The notes of one session.
pub(super) struct Notes {
    notes: Vec<Note>,
}

struct Note {
    id: u64,
    title: String,
    text: String,
}

impl Notes {
    /// Begins with one note, so that the resource list is not empty.
    pub(super) fn new() -> Self {
        let text = "These notes live in the memory of the demo server and end with it.";
        Self { notes: vec![Note { id: 1, title: "Welcome".into(), text: text.into() }] }
    }
}

impl Offer for Notes {
    fn identity(&self) -> Value {
        json!({ "name": "agentlane-demo-notes", "title": "Notes", "version": env!("CARGO_PKG_VERSION") })
    }

    fn capabilities(&self) -> Value {
        json!({ "tools": {}, "resources": { "listChanged": true }, "prompts": {}, "completions": {} })
    }

    fn instructions(&self) -> &'static str {
        "Keeps short notes. Every note is also a resource, note://{id}."
    }

    fn answer(
        &mut self,
        method: &str,
        params: &Map<String, Value>,
        _: &Client,
        notices: &mut Notices,
    ) -> Option<Answer> {
        Some(match method {
            "tools/list" => Answer::Now(Ok(tools())),
            "tools/call" => self.call(params, notices),
            "resources/list" => Answer::Now(self.resources(params)),
            "resources/templates/list" => Answer::Now(Ok(json!({ "resourceTemplates": [{
                "uriTemplate": "note://{id}", "name": "note", "title": "A note", "mimeType": "text/plain",
            }] }))),
            "resources/read" => Answer::Now(self.read(params)),
            "prompts/list" => Answer::Now(Ok(json!({ "prompts": [{
                "name": "summarize_notes", "title": "Summarize notes",
                "description": "Asks for a summary of the notes.",
                "arguments": [{ "name": "about", "description": "Only notes that mention this.", "required": false }],
            }] }))),
            "prompts/get" => Answer::Now(self.prompt(params)),
            "completion/complete" => Answer::Now(self.complete(params)),
            _ => return None,
        })
    }
}

impl Notes {
    fn call(&mut self, params: &Map<String, Value>, notices: &mut Notices) -> Answer {
        let (name, arguments) = match named(params) {
            Ok(named) => named,
            Err(error) => return Answer::Now(Err(error)),
        };
        match name {
            "add_note" => self.add(&arguments, notices),
            "list_notes" => Answer::Now(Ok(found(self.notes.iter()))),
            "search_notes" => match text_of(&arguments, "query") {
                Some(query) => Answer::Now(Ok(found(self.mentioning(query)))),
                None => Answer::tool_failure("query must be a string"),
            },
            _ => Answer::Now(Err(Error::invalid_params(format!("unknown tool: {name}")))),
        }
    }

    fn add(&mut self, arguments: &Map<String, Value>, notices: &mut Notices) -> Answer {
        let Some(text) = text_of(arguments, "text").filter(|text| !text.is_empty()) else {
            return Answer::tool_failure("text must be a string that is not empty");
        };
        if text.len() > NOTE_BYTES_MAX {
            return Answer::tool_failure(format!("a note holds {NOTE_BYTES_MAX} bytes at most"));
        }
        if self.notes.len() >= NOTES_MAX {
            return Answer::tool_failure(format!("there are {NOTES_MAX} notes already"));
        }
        let title = text_of(arguments, "title").or(text.lines().next()).unwrap_or_default();
        let title = title[..title.floor_char_boundary(TITLE_BYTES_MAX)].to_owned();
        let id = self.notes.last().map_or(1, |last| last.id + 1);
        let note = Note { id, title, text: text.into() };
        notices.0.push(Notice::General { method: "notifications/resources/list_changed" });
        let mut link = note.resource();
        link["type"] = "resource_link".into();
        self.notes.push(note);
        Answer::Now(Ok(json!({ "content": [{ "type": "text", "text": format!("saved as note {id}") }, link] })))
    }

    fn resources(&self, params: &Map<String, Value>) -> Result<Value, Error> {
        let after = match params.get("cursor") {
            None | Some(Value::Null) => 0,
            Some(cursor) => {
                let number = cursor.as_str().and_then(|cursor| cursor.parse().ok());
                number.ok_or_else(|| Error::invalid_params("no such cursor"))?
            }
        };
        let mut rest = self.notes.iter().filter(|note| note.id > after);
        let page: Vec<&Note> = rest.by_ref().take(PAGE).collect();
        let mut result = json!({ "resources": page.iter().map(|note| note.resource()).collect::<Vec<_>>() });
        if let (Some(last), Some(_)) = (page.last(), rest.next()) {
            result["nextCursor"] = last.id.to_string().into();
        }
        Ok(result)
    }

    fn read(&self, params: &Map<String, Value>) -> Result<Value, Error> {
        let uri = text_of(params, "uri").ok_or_else(|| Error::invalid_params("uri is missing"))?;
        let id = uri.strip_prefix("note://").and_then(|id| id.parse::<u64>().ok());
        let note = self.notes.iter().find(|note| Some(note.id) == id).ok_or_else(|| Error::no_resource(uri))?;
        Ok(json!({ "contents": [{ "uri": uri, "mimeType": "text/plain", "text": note.text }] }))
    }

    fn prompt(&self, params: &Map<String, Value>) -> Result<Value, Error> {
        let (name, arguments) = named(params)?;
        if name != "summarize_notes" {
            return Err(Error::invalid_params(format!("unknown prompt: {name}")));
        }
        let mut text = String::from("Summarize these notes in a few sentences.\n");
        for note in self.mentioning(text_of(&arguments, "about").unwrap_or_default()) {
            if text.len() + note.text.len() > PROMPT_BYTES_MAX {
                break;
            }
            text.push_str(&format!("\n# {}\n{}\n", note.title, note.text));
        }
        Ok(json!({
            "description": "A summary of the notes",
            "messages": [{ "role": "user", "content": { "type": "text", "text": text } }],
        }))
    }

    fn complete(&self, params: &Map<String, Value>) -> Result<Value, Error> {
        let member =
            |object: &str, name: &str| params.get(object).and_then(|value| value.get(name)).and_then(Value::as_str);
        let (Some(argument), Some(typed)) = (member("argument", "name"), member("argument", "value")) else {
            return Err(Error::invalid_params("argument is missing"));
        };
        let mut values: Vec<String> =
            match (member("ref", "type"), member("ref", "name").or(member("ref", "uri")), argument) {
                (Some("ref/prompt"), Some("summarize_notes"), "about") => {
                    let typed = typed.to_lowercase();
                    self.notes
                        .iter()
                        .map(|note| note.title.clone())
                        .filter(|title| title.to_lowercase().starts_with(&typed))
                        .collect()
                }
                (Some("ref/resource"), Some("note://{id}"), "id") => {
                    self.notes.iter().map(|note| note.id.to_string()).filter(|id| id.starts_with(typed)).collect()
                }
                (Some("ref/prompt" | "ref/resource"), Some(name), _) => {
                    return Err(Error::invalid_params(format!("nothing to complete in {name}")));
                }
                _ => return Err(Error::invalid_params("ref is missing")),
            };
        let total = values.len();
        values.truncate(COMPLETIONS_MAX);
        Ok(json!({ "completion": { "values": values, "total": total, "hasMore": total > COMPLETIONS_MAX } }))
    }

    fn mentioning(&self, query: &str) -> impl Iterator<Item = &Note> {
        let query = query.to_lowercase();
        self.notes
            .iter()
            .filter(move |note| note.title.to_lowercase().contains(&query) || note.text.to_lowercase().contains(&query))
    }
}

impl Note {
    fn uri(&self) -> String {
        format!("note://{}", self.id)
    }

    fn resource(&self) -> Value {
        json!({ "uri": self.uri(), "name": format!("note {}", self.id), "title": self.title, "mimeType": "text/plain" })
    }
}

/// A tool's result that lists notes, as text and as data.
fn found<'a>(notes: impl Iterator<Item = &'a Note>) -> Value {
    let notes: Vec<&Note> = notes.collect();
    let lines: Vec<String> = notes.iter().map(|note| format!("{}: {}", note.id, note.title)).collect();
    let mut result = tool_text(if lines.is_empty() { "no notes".into() } else { lines.join("\n") });
    let items: Vec<Value> =
        notes.iter().map(|note| json!({ "id": note.id, "title": note.title, "uri": note.uri() })).collect();
    result["structuredContent"] = json!({ "notes": items });
    result
}

fn tools() -> Value {
    let note = json!({ "type": "object", "required": ["id", "title", "uri"], "properties": {
        "id": { "type": "integer" }, "title": { "type": "string" }, "uri": { "type": "string" },
    } });
    let notes = json!({ "type": "array", "items": note });
    let list = json!({ "type": "object", "required": ["notes"], "properties": { "notes": notes } });
    json!({ "tools": [
        {
            "name": "add_note", "title": "Add a note", "description": "Saves a note and makes it a resource.",
            "inputSchema": { "type": "object", "required": ["text"], "properties": {
                "text": { "type": "string", "description": "What to remember." },
                "title": { "type": "string", "description": "Absent: the first line of the text." },
            } },
            "annotations": { "readOnlyHint": false, "destructiveHint": false },
        },
        {
            "name": "list_notes", "title": "List notes", "description": "Lists all notes by number and title.",
            "inputSchema": { "type": "object", "properties": {} }, "outputSchema": list,
            "annotations": { "readOnlyHint": true },
        },
        {
            "name": "search_notes", "title": "Search notes",
            "description": "Lists the notes that mention a text, whatever its case.",
            "inputSchema": { "type": "object", "required": ["query"], "properties": { "query": { "type": "string" } } },
            "outputSchema": list, "annotations": { "readOnlyHint": true },
        },
    ] })
}
