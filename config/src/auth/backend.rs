//! With what the gateway itself comes to a backend.

use serde_json::{Value as Json, json};

use super::{KeyText, Location, wrong};
use crate::context::{Context, KeyRule};
use crate::form::{Form, record, union};
use crate::scalar::Secret;
use crate::schema::Definitions;
use crate::tree::{Node, Value};

union! {
    /// With which credential the gateway comes to a backend.
    pub enum BackendAuth {
        /// The client's own, as it came in the header authorization. Only for backends that take the same tokens: what a
        /// client gave to the gateway can then be used by the backend.
        Passthrough(Passthrough) = "passthrough";
        /// A secret of the gateway's.
        Key(BackendKey) = "key" as BackendKeyForm;
    }
    later "gcp", "aws", "azure", "copilot", "jwtSign", "oauthTokenExchange", "crossAppAccess", "credentials";
}

/// Passes the client's credential on, without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passthrough;

impl Form for Passthrough {
    type Out = Passthrough;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Passthrough> {
        let table = cx.table(node, &[KeyRule::guard("location")])?;
        (!table.unusable).then_some(Passthrough)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "object", "additionalProperties": false, "properties": {"location": crate::schema::not_built()}})
    }
}

record! {
    /// A secret that a backend wants to see.
    #[derive(Eq)]
    pub struct BackendKey {
        /// The secret.
        pub value: Secret = must "value" as KeyText;
        /// Where it is written. Default: the header authorization, after `Bearer `.
        pub location: Location = or(Location::after("Bearer ")) "location";
    }
}

/// The secret alone, or with its place.
struct BackendKeyForm;

impl Form for BackendKeyForm {
    type Out = BackendKey;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<BackendKey> {
        let key = match &node.value {
            Value::Mapping(entries) if entries.iter().any(|entry| entry.key == "value") => {
                BackendKey::decode(node, cx)?
            }
            _ => BackendKey { value: KeyText::decode(node, cx)?, location: Location::after("Bearer ") },
        };
        let is_a_value = key.value.expose().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if !is_a_value {
            return wrong(node, cx, "a secret that can stand in a header: printable ASCII");
        }
        Some(key)
    }

    fn schema(defs: &mut Definitions) -> Json {
        json!({"anyOf": [Secret::schema(defs), BackendKey::schema(defs)]})
    }
}
