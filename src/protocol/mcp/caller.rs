//! Who sent a request, as a digest: of the identity that was verified, or else of the credentials that came along. Whatever
//! is kept between two requests of a modern client is bound to it. It knows bytes only, not what was verified.

use agentlane_wire::h1::{Headers, Known};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

/// The headers by which servers tell callers apart.
const CREDENTIALS: [&str; 4] = ["authorization", "cookie", "x-api-key", "api-key"];

/// One caller. Requests without any credential are all of [`Caller::NOBODY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller([u8; SHA256_OUTPUT_LEN]);

impl Caller {
    /// Whoever sends no credential.
    pub const NOBODY: Caller = Caller([0; SHA256_OUTPUT_LEN]);

    /// The caller of a request with these headers.
    pub fn of(headers: &Headers) -> Caller {
        let is_credential = |name: &str| CREDENTIALS.iter().any(|known| known.eq_ignore_ascii_case(name));
        let mut digest: Option<Context> = None;
        let present = headers.iter().filter(|header| {
            matches!(header.known, Known::Authorization | Known::Cookie)
                || (header.known == Known::Other && is_credential(header.name))
        });
        for header in present {
            let digest = digest.get_or_insert_with(|| Context::new(&SHA256));
            // Lengths keep two values from reading as one.
            for part in [header.name.to_ascii_lowercase().as_bytes(), header.value] {
                digest.update(&(part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
        digest.map_or(Caller::NOBODY, Caller::finish)
    }

    /// Somebody whose identity was verified. `kind`: how, so that a user never is a token of the same name.
    pub fn verified(kind: &str, parts: &[&[u8]]) -> Caller {
        let mut digest = Context::new(&SHA256);
        digest.update(b"verified\0");
        for part in [kind.as_bytes()].iter().chain(parts) {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Caller::finish(digest)
    }

    /// Both at once.
    pub fn and(&self, other: &Caller) -> Caller {
        Caller::verified("and", &[&self.0, &other.0])
    }

    fn finish(digest: Context) -> Caller {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest.finish().as_ref());
        Caller(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; SHA256_OUTPUT_LEN] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use agentlane_wire::h1::{HeadLimits, parse_request};
    use bytes::BytesMut;

    use super::*;

    fn caller(headers: &str) -> Caller {
        let mut buffer = BytesMut::from(format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n").as_bytes());
        let head = parse_request(&mut buffer, &HeadLimits::default()).unwrap().unwrap();
        Caller::of(&head.headers)
    }

    #[test]
    fn credentials_alone_tell_callers_apart() {
        assert_eq!(caller(""), Caller::NOBODY);
        assert_eq!(caller("user-agent: x\r\n"), Caller::NOBODY);
        assert_eq!(caller("Authorization: Bearer a\r\n"), caller("x-y: z\r\nauthorization: Bearer a\r\n"));
        let different = [
            "authorization: Bearer a\r\n",
            "authorization: Bearer b\r\n",
            "cookie: a\r\n",
            "x-api-key: a\r\n",
            "Api-Key: a\r\n",
            "api-key: ab\r\n",
            "api-key: a\r\nauthorization: Bearer a\r\n",
        ];
        for (place, one) in different.iter().enumerate() {
            assert!(different[place + 1..].iter().all(|other| caller(one) != caller(other)), "{one}");
        }
    }

    #[test]
    fn a_verified_identity_is_no_digest_of_headers() {
        let a = Caller::verified("jwt", &[b"issuer", b"subject"]);
        assert_ne!(a, Caller::verified("jwt", &[b"issuers", b"ubject"]));
        assert_ne!(a, Caller::verified("basic", &[b"issuer", b"subject"]));
        assert_ne!(a.and(&Caller::NOBODY), a);
    }
}
