//! `apiKey`: who brings one of the keys that are written in the configuration, or whose hashes are.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::{Found, Location, Mode, Outcome, unauthenticated};
use crate::policy::{Matched, Verdict};
use crate::protocol::mcp::caller::Caller;
use crate::request::{Changes, RequestView};

/// The policy of a route.
#[derive(Clone, Debug)]
pub struct ApiKeys {
    pub mode: Mode,
    pub location: Location,
    pub keys: Arc<[KnownKey]>,
}

/// A key, by its SHA-256.
pub struct KnownKey {
    pub hash: [u8; 32],
    pub metadata: Arc<Value>,
}

impl std::fmt::Debug for KnownKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl KnownKey {
    pub fn new(key: &str, metadata: Value) -> Self {
        KnownKey { hash: hash_of(key), metadata: Arc::new(metadata) }
    }
}

fn hash_of(key: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    hash
}

impl ApiKeys {
    /// All keys are compared, each in constant time: how long it takes says nothing of how near a guess was.
    fn known(&self, key: &str) -> Option<&KnownKey> {
        let hash = hash_of(key);
        let mut found = None;
        for known in self.keys.iter() {
            if is_equal(&known.hash, &hash) {
                found = Some(known);
            }
        }
        found
    }

    pub(in crate::policy) fn request(
        &self,
        request: &RequestView<'_>,
        _: &Matched<'_>,
        changes: &mut Changes,
    ) -> Verdict {
        let outcome = match self.location.take(&request.head.headers, changes) {
            Found::Nothing => Outcome::Missing,
            Found::Unclear => Outcome::Wrong("more than one key"),
            Found::Credential(text) => match self.known(text) {
                None => Outcome::Wrong("unknown key"),
                Some(known) => {
                    let identity = Caller::verified("api key", &[&known.hash]);
                    changes.principal.set_api_key(known.metadata.clone(), identity);
                    Outcome::Admitted
                }
            },
        };
        match (outcome, self.mode) {
            (Outcome::Admitted, _) | (_, Mode::Permissive) | (Outcome::Missing, Mode::Optional) => Verdict::Continue,
            (Outcome::Missing, _) => unauthenticated("apiKey", "a key is missing", "Bearer"),
            (Outcome::Wrong(why), _) => unauthenticated("apiKey", why, "Bearer error=\"invalid_token\""),
        }
    }
}

/// Compares without stopping at the first difference.
pub(super) fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && std::hint::black_box(one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b))) == 0
}
