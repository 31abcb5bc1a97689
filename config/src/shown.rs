//! A document as it may be shown to an operator: as written, variables not expanded, and what may be secret replaced. Which
//! nodes hold secrets is known from decoding; what only looks like one is replaced as well.

use serde_json::{Map, Value as Json};

use crate::fault::Mark;
use crate::tree::{Node, Scalar, Value};

/// In the place of a secret.
const HIDDEN: &str = "***";
/// Parts of names whose values are taken for secrets.
const SECRET_WORDS: [&str; 9] =
    ["authorization", "cookie", "token", "secret", "passw", "api-key", "apikey", "credential", "htpasswd"];

/// The document below `node`. `secrets`: where those of its scalars stand that were decoded as secrets.
pub(crate) fn shown(node: &Node, secrets: &[Mark]) -> Json {
    match &node.value {
        Value::Sequence(items) => {
            let mut after_flag = false;
            let show = |item: &Node| match &item.value {
                Value::Scalar(scalar) => {
                    let text = if std::mem::take(&mut after_flag) { hidden(scalar) } else { argument(scalar) };
                    after_flag = is_secret_flag(&scalar.text) && !scalar.text.contains('=');
                    if secrets.contains(&item.mark) { hidden(scalar) } else { text }
                }
                _ => shown(item, secrets),
            };
            items.iter().map(show).collect()
        }
        Value::Mapping(entries) => {
            let named = entries.iter().find_map(|entry| match &entry.node.value {
                Value::Scalar(name) if entry.key == "name" => Some(is_secret_name(&name.text)),
                _ => None,
            });
            let pair = |entry: &crate::tree::Entry| {
                // Policies like `authorization` are mappings with names of their own; secrets in them are decoded as such.
                let value = match named == Some(true) && entry.key == "value" {
                    true => hide(&entry.node),
                    false if entry.node.is_scalar() && is_secret_name(&entry.key) => hide(&entry.node),
                    false => shown(&entry.node, secrets),
                };
                (entry.key.clone(), value)
            };
            Json::Object(entries.iter().map(pair).collect::<Map<_, _>>())
        }
        Value::Scalar(scalar) if secrets.contains(&node.mark) => hidden(scalar),
        Value::Scalar(_) if node.is_null() => Json::Null,
        Value::Scalar(scalar) => plain(scalar),
    }
}

/// All scalars of a node, hidden; files that are named stay, since their names are no secret.
fn hide(node: &Node) -> Json {
    match &node.value {
        Value::Sequence(items) => items.iter().map(hide).collect(),
        Value::Mapping(entries) => {
            let pair = |entry: &crate::tree::Entry| match (&entry.node.value, entry.key.as_str()) {
                (Value::Scalar(scalar), "file") => (entry.key.clone(), plain(scalar)),
                _ => (entry.key.clone(), hide(&entry.node)),
            };
            Json::Object(entries.iter().map(pair).collect::<Map<_, _>>())
        }
        Value::Scalar(_) if node.is_null() => Json::Null,
        Value::Scalar(scalar) => hidden(scalar),
    }
}

/// A variable alone says where the secret is, not what it is. Numbers and booleans are none.
fn hidden(scalar: &Scalar) -> Json {
    let text = scalar.text.as_str();
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).or_else(|| text.strip_prefix('$'));
    let is_variable = name
        .is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
    match plain(scalar) {
        value @ (Json::Number(_) | Json::Bool(_)) => value,
        value if is_variable => value,
        _ => Json::String(HIDDEN.to_owned()),
    }
}

/// A command's argument like `--api-key=...`.
fn argument(scalar: &Scalar) -> Json {
    match scalar.text.split_once('=') {
        Some((flag, _)) if is_secret_flag(flag) => Json::String(format!("{flag}={HIDDEN}")),
        _ => plain(scalar),
    }
}

fn plain(scalar: &Scalar) -> Json {
    if scalar.plain {
        match scalar.text.as_str() {
            "true" | "True" | "TRUE" => return Json::Bool(true),
            "false" | "False" | "FALSE" => return Json::Bool(false),
            text => {
                if let Ok(number) = text.parse::<i64>() {
                    return Json::from(number);
                }
            }
        }
    }
    Json::String(without_credentials(&scalar.text))
}

/// A URL without user, password and the values of its query.
fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or_else(|| authority.to_owned(), |(_, host)| format!("{HIDDEN}@{host}"));
    match path.split_once('?') {
        Some((path, _)) => format!("{scheme}://{host}{path}?{HIDDEN}"),
        None => format!("{scheme}://{host}{path}"),
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn is_secret_flag(text: &str) -> bool {
    let flag = text.to_ascii_lowercase();
    flag.starts_with('-') && (is_secret_name(&flag) || flag.ends_with("key") || flag.trim_start_matches('-') == "auth")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Json {
        let env = |name: &str| match name {
            "PORT" => Some("3000".to_owned()),
            "AGENTLANE_SESSION_KEY" => Some("00".repeat(32)),
            "TRACKER_TOKEN" => Some("mark-of-a-variable".to_owned()),
            _ => None,
        };
        let options = crate::LoadOptions { lenient: false, env: &env };
        crate::parse(text, "t.yaml", &options).unwrap_or_else(|faults| panic!("{faults:#?}")).written
    }

    #[test]
    fn secrets_are_hidden_and_all_else_is_as_written() {
        let shown = load(
            "config: {adminKey: mark-of-an-admin-key, session: {key: $AGENTLANE_SESSION_KEY}}
mcp:
  port: $PORT
  targets:
  - name: a
    mcp: {host: \"http://a/mcp?key=mark-of-a-query\"}
    policies: {requestHeaderModifier: {set: {x-any: mark-of-a-header}, remove: [x-b]}}
  - name: b
    stdio:
      cmd: x
      args: [--verbose, --api-key=mark-of-an-argument, --token, mark-of-another, plain]
      env: {A: mark-of-env, B: $TRACKER_TOKEN}
",
        );
        let text = shown.to_string();
        assert!(!text.contains("mark-of"), "{text}");
        assert_eq!(shown["mcp"]["port"], "$PORT");
        assert_eq!(shown["config"]["session"]["key"], "$AGENTLANE_SESSION_KEY");
        assert_eq!(shown["config"]["adminKey"], HIDDEN);
        let args = &shown["mcp"]["targets"][1]["stdio"]["args"];
        assert_eq!(args, &serde_json::json!(["--verbose", "--api-key=***", "--token", HIDDEN, "plain"]));
        assert_eq!(shown["mcp"]["targets"][1]["stdio"]["env"], serde_json::json!({"A": HIDDEN, "B": "$TRACKER_TOKEN"}));
        assert_eq!(shown["mcp"]["targets"][0]["mcp"]["host"], "http://a/mcp?***");
    }

    #[test]
    fn a_header_that_is_compared_may_be_a_password() {
        let shown = load(
            "binds: [{port: 80, listeners: [{routes: [{matches: [{headers: [
  {name: X-Api-Key, value: {exact: mark-of-a-key}}, {name: x-version, value: {exact: v1}}]}],
  policies: {directResponse: {status: 200}}}]}]}]",
        );
        let headers = &shown["binds"][0]["listeners"][0]["routes"][0]["matches"][0]["headers"];
        assert_eq!(headers[0]["value"]["exact"], HIDDEN);
        assert_eq!(headers[1]["value"]["exact"], "v1");
    }
}
