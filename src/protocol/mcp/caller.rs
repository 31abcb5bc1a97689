//! Who sent a request, as far as the gateway can tell without authenticating anybody: a digest of the credentials that came
//! along. Whatever is kept between two requests of a modern client is bound to it. It knows header values only.

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
        let Some(digest) = digest else { return Caller::NOBODY };
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
}
