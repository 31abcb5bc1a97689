//! Key sets (RFC 7517): which keys tokens of an issuer are signed with, and for which algorithms each may be used. A key is
//! held to what it says of itself, so that a token cannot choose another use for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::crypto;

/// Keys of one set; more are left out.
const KEYS_MAX: usize = 256;

/// The keys of one issuer at one time.
#[derive(Debug)]
pub struct KeySet {
    /// Another for each set that was read: what was verified with the keys of another one counts no more.
    pub id: u64,
    keys: Vec<Key>,
}

/// One public key.
#[derive(Debug)]
pub struct Key {
    kid: Option<String>,
    /// What it may be used for; never empty.
    algorithms: Vec<Algorithm>,
    pub decoding: DecodingKey,
}

impl KeySet {
    /// Reads a set. Keys of kinds that are not known are left out (RFC 7517, 5).
    pub fn read(set: &Value) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        crypto::install();
        let keys = set.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let keys = keys.iter().filter_map(key).take(KEYS_MAX).collect();
        KeySet { id: LAST.fetch_add(1, Relaxed) + 1, keys }
    }

    /// A set that is still to come.
    pub fn none() -> Arc<Self> {
        Arc::new(KeySet { id: 0, keys: Vec::new() })
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that a token may be signed with that names this one, or none. A token that names a key means that one.
    pub fn candidates<'a>(&'a self, kid: Option<&'a str>) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(move |key| kid.is_none() || key.kid.as_deref() == kid)
    }
}

impl Key {
    pub fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

fn key(jwk: &Value) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let is_for_signatures = text("use").is_none_or(|of| of == "sig");
    let operations = jwk.get("key_ops").and_then(Value::as_array);
    let may_verify = operations.is_none_or(|all| all.iter().any(|one| one == "verify"));
    // One for encryption, or one that only signs, verifies nothing.
    if !is_for_signatures || !may_verify {
        return None;
    }
    let (decoding, usable) = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let key = DecodingKey::from_rsa_components(text("n")?, text("e")?).ok()?;
            (without_zeros(key), &RSA[..])
        }
        ("EC", Some("P-256")) => {
            (DecodingKey::from_ec_components(text("x")?, text("y")?).ok()?, &[Algorithm::ES256][..])
        }
        ("EC", Some("P-384")) => {
            (DecodingKey::from_ec_components(text("x")?, text("y")?).ok()?, &[Algorithm::ES384][..])
        }
        ("OKP", Some("Ed25519")) => (DecodingKey::from_ed_components(text("x")?).ok()?, &[Algorithm::EdDSA][..]),
        _ => return None,
    };
    let algorithms: Vec<Algorithm> = match text("alg") {
        None => usable.to_vec(),
        // RFC 9864 names what it is to be verified with more exactly.
        Some("Ed25519") => usable.iter().copied().filter(|&one| one == Algorithm::EdDSA).collect(),
        Some(name) => name.parse().into_iter().filter(|one| usable.contains(one)).collect(),
    };
    (!algorithms.is_empty()).then(|| Key { kid: text("kid").map(str::to_owned), algorithms, decoding })
}

const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// Some publish numbers with a zero in front, which ring refuses.
fn without_zeros(key: DecodingKey) -> DecodingKey {
    use jsonwebtoken::DecodingKeyKind::RsaModulusExponent;
    fn trimmed(number: &[u8]) -> &[u8] {
        let zeros = number.iter().take_while(|&&byte| byte == 0).count();
        &number[zeros..]
    }
    match key.kind() {
        RsaModulusExponent { n, e } => DecodingKey::from_rsa_raw_components(trimmed(n), trimmed(e)),
        _ => key,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_held_to_what_it_says() {
        let ec = |more: Value| {
            let mut key = json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"});
            for (name, value) in more.as_object().unwrap() {
                key[name] = value.clone();
            }
            KeySet::read(&json!({"keys": [key]})).keys.first().map(|key| key.algorithms.clone())
        };
        assert_eq!(ec(json!({})), Some(vec![Algorithm::ES256]));
        assert_eq!(ec(json!({"use": "sig", "alg": "ES256"})), Some(vec![Algorithm::ES256]));
        for wrong in [
            json!({"use": "enc"}),
            json!({"key_ops": ["sign"]}),
            json!({"alg": "ES384"}),
            json!({"alg": "HS256"}),
            json!({"alg": "none"}),
            json!({"kty": "oct", "k": "AA"}),
            json!({"crv": "secp256k1"}),
        ] {
            assert_eq!(ec(wrong.clone()), None, "{wrong}");
        }
    }
}
