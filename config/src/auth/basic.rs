//! Users with passwords, as htpasswd writes them.

use serde_json::{Value as Json, json};

use super::{Location, file_schema, list_text, wrong};
use crate::context::Context;
use crate::fault::FaultKind;
use crate::form::{Form, record, words};
use crate::schema::Definitions;
use crate::tree::Node;

record! {
    /// Users with passwords (RFC 7617).
    pub struct BasicAuth {
        /// The users: lines of `name:hash`, as htpasswd writes them. Hashes are of bcrypt, or SHA-1 (`{SHA}`).
        pub htpasswd: Vec<(String, PasswordHash)> = must "htpasswd" as Htpasswd;
        /// What a client is told that it logs in to. Default: agentlane.
        pub realm: String = or("agentlane".to_owned()) "realm" as Realm;
        /// What becomes of requests without a password. Default: optional.
        pub mode: BasicAuthMode = or(BasicAuthMode::Optional) "mode";
        /// Where user and password stand. Default: the header authorization, after `Basic `.
        pub location: Location = or(Location::after("Basic ")) "authorizationLocation";
    }
}

words! {
    /// What becomes of a request without a password.
    pub enum BasicAuthMode {
        /// It is refused.
        Strict = "strict",
        /// It passes, and counts as nobody's; with a wrong one it is refused.
        Optional = "optional",
    }
}

/// The hash of a password. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// bcrypt, the whole text.
    Bcrypt(String),
    /// SHA-1 without salt.
    Sha1([u8; 20]),
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl PasswordHash {
    fn parse(text: &str) -> Option<Self> {
        if let Some(base64) = text.strip_prefix("{SHA}") {
            return crate::scalar::from_base64(base64)?.try_into().ok().map(PasswordHash::Sha1);
        }
        // $2y$05$ and 53 characters: 22 of salt, 31 of hash.
        let rest = ["$2y$", "$2a$", "$2b$"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
        let (cost, hash) = rest.split_once('$')?;
        let is_cost = cost.len() == 2 && cost.parse::<u8>().is_ok_and(|cost| (4..=16).contains(&cost));
        let is_hash =
            hash.len() == 53 && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
        (is_cost && is_hash).then(|| PasswordHash::Bcrypt(text.to_owned()))
    }
}

struct Htpasswd;

impl Form for Htpasswd {
    type Out = Vec<(String, PasswordHash)>;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Self::Out> {
        let text = list_text(node, cx, "lines of name:hash, or a mapping with the key file")?;
        let mut users: Vec<(String, PasswordHash)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let user = line.split_once(':').filter(|(name, _)| !name.is_empty());
            let parsed = user.and_then(|(name, hash)| Some((name.to_owned(), PasswordHash::parse(hash)?)));
            let Some(user) = parsed else {
                // Not repeated: there is a hash in it.
                let message = format!(
                    "line {number} is not name:hash with a hash of bcrypt (cost 4 to 16, as htpasswd -B writes it) or {{SHA}}"
                );
                cx.fault_at(node.mark, FaultKind::Invalid, message);
                return None;
            };
            if users.iter().any(|(name, _)| *name == user.0) {
                cx.fault_at(node.mark, FaultKind::Duplicate, format!("the user {:?} is there twice", user.0));
                return None;
            }
            users.push(user);
        }
        Some(users)
    }

    fn schema(defs: &mut Definitions) -> Json {
        let description = "Users, each a line of `name:hash`, as text or in a file.";
        defs.define("Htpasswd", description, |_| json!({"oneOf": [{"type": "string"}, file_schema()]}))
    }
}

/// What may stand in a quoted string (RFC 9110, 5.6.4) as it is.
struct Realm;

impl Form for Realm {
    type Out = String;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<String> {
        let text = cx.string(node, "a string")?;
        let fits = text.bytes().all(|byte| (byte.is_ascii_graphic() || byte == b' ') && !b"\"\\".contains(&byte));
        if !fits {
            return wrong(node, cx, "printable ASCII without quotes and backslashes");
        }
        Some(text.into_owned())
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({"type": "string"})
    }
}
