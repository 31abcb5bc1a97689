//! Sealed identifiers: what the gateway hands to a client and wants back unchanged (session ids, list cursors). AEAD, so
//! that nobody can read, forge or alter one; the context is authenticated, so that one kind never passes for another.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// A key's length in bytes.
pub const KEY_LEN: usize = 32;

/// Seals and opens. One per gateway; the same key on every shard, replica and restart that shall understand each other.
pub struct Sealer {
    key: LessSafeKey,
    /// Makes the nonces of [`Sealer::seal_same`].
    nonces: hmac::Key,
    random: SystemRandom,
}

/// The host gave no randomness.
#[derive(Debug, PartialEq, Eq)]
pub struct NoRandomness;

/// What a session id says of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId {
    /// The shard that owned the session when it began.
    pub shard: u16,
    /// Unique per session, random.
    pub serial: u64,
}

const SESSION: &[u8] = b"agentlane session v1";

impl Sealer {
    pub fn new(key: &[u8; KEY_LEN]) -> Self {
        // Another key for another purpose.
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"agentlane nonces v1");
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the algorithm's length");
        Sealer { key: LessSafeKey::new(key), nonces, random: SystemRandom::new() }
    }

    /// A key made at start, for gateways that were given none.
    pub fn fresh_key() -> Result<[u8; KEY_LEN], NoRandomness> {
        let mut key = [0; KEY_LEN];
        SystemRandom::new().fill(&mut key).map_err(|_| NoRandomness)?;
        Ok(key)
    }

    /// `nonce | ciphertext | tag` in base64url: visible ASCII, as session ids must be.
    pub fn seal(&self, context: &[u8], payload: &[u8]) -> Result<String, NoRandomness> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| NoRandomness)?;
        self.seal_with(nonce, context, payload)
    }

    /// The same text each time for the same payload in the same context: for names that clients compare. The nonce is made
    /// of both, so that no two payloads have one.
    pub fn seal_same(&self, context: &[u8], payload: &[u8]) -> Result<String, NoRandomness> {
        let mut digest = hmac::Context::with_key(&self.nonces);
        digest.update(&(context.len() as u64).to_le_bytes());
        digest.update(context);
        digest.update(payload);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&digest.sign().as_ref()[..NONCE_LEN]);
        self.seal_with(nonce, context, payload)
    }

    fn seal_with(&self, nonce: [u8; NONCE_LEN], context: &[u8], payload: &[u8]) -> Result<String, NoRandomness> {
        let mut sealed = Vec::with_capacity(NONCE_LEN + payload.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&nonce);
        let mut body = payload.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body)
            .map_err(|_| NoRandomness)?;
        sealed.extend_from_slice(&body);
        Ok(base64url::encode(&sealed))
    }

    /// The payload, if the text was sealed with this key for this context.
    pub fn open(&self, context: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = base64url::decode(text)?;
        if sealed.len() < NONCE_LEN + AES_256_GCM.tag_len() {
            return None;
        }
        let nonce: [u8; NONCE_LEN] = sealed[..NONCE_LEN].try_into().ok()?;
        let opened = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut sealed[NONCE_LEN..])
            .ok()?;
        Some(opened.to_vec())
    }

    /// A random number, unique for all that matters.
    pub fn serial(&self) -> Result<u64, NoRandomness> {
        let mut serial = [0; 8];
        self.random.fill(&mut serial).map_err(|_| NoRandomness)?;
        Ok(u64::from_le_bytes(serial))
    }

    /// A new session's id for `shard`.
    pub fn session_id(&self, shard: u16) -> Result<(SessionId, String), NoRandomness> {
        let id = SessionId { shard, serial: self.serial()? };
        let mut payload = [0; 10];
        payload[..2].copy_from_slice(&shard.to_le_bytes());
        payload[2..].copy_from_slice(&id.serial.to_le_bytes());
        Ok((id, self.seal(SESSION, &payload)?))
    }

    /// What a session id says; `None` for one that was not made with this key.
    pub fn open_session_id(&self, text: &[u8]) -> Option<SessionId> {
        let payload = self.open(SESSION, text)?;
        let shard = u16::from_le_bytes(payload.get(..2)?.try_into().ok()?);
        let serial = u64::from_le_bytes(payload.get(2..10)?.try_into().ok()?);
        Some(SessionId { shard, serial })
    }
}

/// RFC 4648, section 5, without padding.
mod base64url {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    pub fn encode(bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let group = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
            let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
            for place in 0..=chunk.len() {
                out.push(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63] as char);
            }
        }
        out
    }

    /// Canonical text only: one value has one spelling, so that an id cannot be altered and still open.
    pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
        if text.len() % 4 == 1 {
            return None;
        }
        let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
        for chunk in text.chunks(4) {
            let mut bits = 0u32;
            for (place, &byte) in chunk.iter().enumerate() {
                bits |= u32::from(value(byte)?) << (18 - 6 * place);
            }
            let group = bits.to_be_bytes();
            let bytes = chunk.len() - 1;
            if group[1 + bytes..].iter().any(|&spare| spare != 0) {
                return None;
            }
            out.extend_from_slice(&group[1..1 + bytes]);
        }
        Some(out)
    }

    fn value(byte: u8) -> Option<u8> {
        Some(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_says_its_shard_and_cannot_be_altered() {
        let sealer = Sealer::new(&[7; KEY_LEN]);
        let (id, text) = sealer.session_id(3).unwrap();
        assert_eq!(sealer.open_session_id(text.as_bytes()), Some(id));
        assert_eq!(id.shard, 3);
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
        for at in 0..text.len() {
            for replacement in *b"Aa0-_z!" {
                let mut forged = text.clone().into_bytes();
                if forged[at] != replacement {
                    forged[at] = replacement;
                    assert_eq!(sealer.open_session_id(&forged), None, "byte {at}");
                }
            }
            assert_eq!(sealer.open_session_id(&text.as_bytes()[..at]), None);
        }
    }

    #[test]
    fn another_key_and_another_context_open_nothing() {
        let sealer = Sealer::new(&[7; KEY_LEN]);
        let (_, text) = sealer.session_id(0).unwrap();
        assert_eq!(Sealer::new(&[8; KEY_LEN]).open_session_id(text.as_bytes()), None);
        assert_eq!(sealer.open(b"another context", text.as_bytes()), None);
    }

    #[test]
    fn base64url_round_trips_every_length() {
        for length in 0..70u8 {
            let bytes: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(37)).collect();
            assert_eq!(base64url::decode(base64url::encode(&bytes).as_bytes()), Some(bytes));
        }
    }
}
