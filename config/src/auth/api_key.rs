//! Keys that clients are given.

use serde_json::{Value as Json, json};

use super::{AuthMode, Free, KeyText, Location, wrong};
use crate::context::Context;
use crate::form::{Form, record};
use crate::scalar::Secret;
use crate::schema::Definitions;
use crate::tree::Node;

record! {
    /// Keys that clients are given.
    pub struct ApiKeyAuth {
        /// The keys.
        pub keys: Vec<ApiKey> = must "keys";
        /// What becomes of requests without a known key. Default: optional.
        pub mode: AuthMode = or(AuthMode::Optional) "mode";
        /// Where the key stands. Default: the header authorization, after `Bearer `.
        pub location: Location = or(Location::after("Bearer ")) "location";
    }
}

record! {
    /// A key that is accepted: itself, or its hash.
    pub struct ApiKey {
        /// The key.
        pub key: Option<Secret> = opt "key" as Option<KeyText>;
        /// The hash of the key, as `sha256:` and 64 hexadecimal digits.
        pub key_hash: Option<KeyHash> = opt "keyHash";
        /// What rules and logs may know of whoever has the key.
        pub metadata: Json = or(Json::Null) "metadata" as Free;
    }
    one of "key", "keyHash";
    guard "allowedModels";
}

/// SHA-256 of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHash(pub [u8; 32]);

impl Form for KeyHash {
    type Out = KeyHash;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<KeyHash> {
        let expected = "sha256: and 64 hexadecimal digits";
        let text = cx.string(node, expected)?;
        let hash = text.strip_prefix("sha256:").and_then(crate::scalar::from_hex);
        match hash.and_then(|hash| hash.try_into().ok()) {
            Some(hash) => Some(KeyHash(hash)),
            None => wrong(node, cx, expected),
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$|\\$"})
    }
}
