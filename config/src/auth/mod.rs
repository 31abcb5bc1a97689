//! Who may come in, and with what the gateway itself comes to others: tokens, keys, passwords. Files are read and checked
//! here, so that what is wrong with them is told with its place. Must not know how anything is verified.

mod api_key;
mod backend;
mod basic;
mod jwt;
mod mcp;

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use crate::context::{Context, KeyRule};
use crate::form::{Form, record, union, words};
use crate::http::HeaderName;
use crate::scalar::{Secret, secret_text};
use crate::schema::{Definitions, single};
use crate::tree::{Node, Value};

pub use api_key::{ApiKey, ApiKeyAuth, KeyHash};
pub use backend::{BackendAuth, BackendKey};
pub use basic::{BasicAuth, BasicAuthMode, PasswordHash};
pub use jwt::{Jwks, JwtAuth, JwtProvider, JwtValidation, RequiredClaim, Url};
pub use mcp::{McpAuthentication, Provider};

/// Longest file of keys or users, in bytes.
const LIST_BYTES_MAX: u64 = 1 << 20;
/// How far clocks may be apart, where nothing says.
const LEEWAY: Duration = Duration::from_secs(60);

words! {
    /// What becomes of a request without valid credentials.
    pub enum AuthMode {
        /// It is refused.
        Strict = "strict",
        /// Without any it passes, and counts as nobody's; with wrong ones it is refused.
        Optional = "optional",
        /// It passes, and counts as nobody's.
        Permissive = "permissive",
    }
}

union! {
    /// Where a credential stands in a request.
    pub enum Location {
        /// In a header.
        Header(HeaderLocation) = "header";
    }
    later "queryParameter", "cookie", "expression";
}

record! {
    /// A header with a credential.
    #[derive(Eq)]
    pub struct HeaderLocation {
        /// The header.
        pub name: HeaderName = must "name";
        /// What stands before the credential; its case does not count. Default: nothing.
        pub prefix: String = or(String::new()) "prefix";
    }
}

impl Location {
    /// The header authorization, after a scheme.
    pub(crate) fn after(prefix: &str) -> Self {
        Location::Header(HeaderLocation { name: HeaderName::authorization(), prefix: prefix.to_owned() })
    }
}

/// A secret with something in it.
struct KeyText;

impl Form for KeyText {
    type Out = Secret;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Secret> {
        let secret = Secret::decode(node, cx)?;
        if secret.expose().is_empty() {
            return wrong(node, cx, "a key that is not empty");
        }
        Some(secret)
    }

    fn schema(defs: &mut Definitions) -> Json {
        Secret::schema(defs)
    }
}

/// Anything, as it is written.
struct Free;

impl Form for Free {
    type Out = Json;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Json> {
        match &node.value {
            Value::Sequence(items) => items.iter().map(|item| Free::decode(item, cx)).collect(),
            Value::Mapping(entries) => {
                let mut object = Map::new();
                for entry in entries {
                    let value = cx.at_key(&entry.key, |cx| Free::decode(&entry.node, cx))?;
                    object.insert(entry.key.clone(), value);
                }
                Some(Json::Object(object))
            }
            Value::Scalar(_) if node.is_null() => Some(Json::Null),
            Value::Scalar(scalar) => {
                let (text, _) = cx.scalar(node, "a value")?;
                let bare = scalar.plain.then(|| serde_json::from_str::<Json>(&text).ok()).flatten();
                Some(bare.filter(|value| !value.is_object() && !value.is_array()).unwrap_or_else(|| json!(text)))
            }
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({})
    }
}

fn file_schema() -> Json {
    single("file", json!({"type": "string", "minLength": 1}), "A file, relative to the folder of the document.")
}

/// A text that is written here, or in a file. Written here it is read as it is, unless it is one variable: hashes and keys
/// are full of dollars.
fn list_text(node: &Node, cx: &mut Context<'_>, expected: &str) -> Option<String> {
    match &node.value {
        Value::Scalar(scalar) => {
            let name = scalar.text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            let name = name.or_else(|| scalar.text.strip_prefix('$')).unwrap_or_default();
            let is_variable = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if is_variable { secret_text(node, cx) } else { Some(scalar.text.clone()) }
        }
        Value::Mapping(_) => {
            let table = cx.table(node, &[KeyRule::built("file")])?;
            let name = table.must::<String>(cx, &["file"])?;
            let file = &table.entry(&["file"])?.node;
            cx.at_key("file", |cx| cx.read_within(file, &name, LIST_BYTES_MAX))
        }
        Value::Sequence(_) => {
            cx.invalid(node, expected);
            None
        }
    }
}

/// A fault that does not repeat what is written: it may be secret.
fn wrong<T>(node: &Node, cx: &mut Context<'_>, expected: &str) -> Option<T> {
    cx.invalid_at(node.mark, expected, "something else");
    None
}
