//! Why something would be allowed or refused by the configuration in use. It only reads; it is a POST because a question is
//! a document.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::StatusCode;
use serde_json::Value;

use super::{Admin, Answer, Ask};
use crate::policy::rules::access::ItemKind;
use crate::principal::Principal;
use crate::snapshot::Snapshot;
use crate::snapshot::explain::{self, Question, Thing, asked};

/// Members of a question that are texts.
const TEXTS: [&str; 8] = ["route", "tool", "prompt", "resource", "target", "method", "path", "source"];

pub fn explain(admin: &Admin, ask: &Ask) -> Answer {
    let snapshot = admin.in_use.load().snapshot.clone();
    answer(&snapshot, &ask.body).map_err(|fault| (StatusCode::BAD_REQUEST, fault))
}

fn answer(snapshot: &Snapshot, body: &Value) -> Result<Value, String> {
    let members = body.as_object().ok_or("the body is not a JSON object")?;
    for (name, value) in members {
        let is_right = match name.as_str() {
            "principal" | "headers" => value.is_object(),
            name => TEXTS.contains(&name) && value.is_string(),
        };
        if !is_right {
            return Err(format!("{name:?} is no member of a question, or of another type"));
        }
    }
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let principal = members.get("principal").map_or_else(|| Ok(Principal::default()), asked::principal)?;
    let none = serde_json::Map::new();
    let headers = members.get("headers").and_then(Value::as_object).unwrap_or(&none);
    let headers = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    let head = asked::head(text("method").unwrap_or("POST"), text("path").unwrap_or("/mcp"), headers)?;
    let peer = match text("source") {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(source) => source.parse().map_err(|_| "source is not an address".to_owned())?,
    };
    let kinds = [(ItemKind::Tool, "tool"), (ItemKind::Prompt, "prompt"), (ItemKind::Resource, "resource")];
    let mut things = kinds
        .into_iter()
        .filter_map(|(kind, member)| Some(Thing { kind, name: text(member)?, target: text("target") }));
    let thing = things.next();
    if things.next().is_some() {
        return Err("more than one of tool, prompt and resource".to_owned());
    }
    let route = text("route").ok_or("route is missing")?;
    let question = Question { route, principal: &principal, head: &head, peer, session: None, thing };
    explain::explain(snapshot, &question).map(|said| said.to_json())
}
