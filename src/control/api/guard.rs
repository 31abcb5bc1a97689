//! Who may ask: nobody whose browser was led here, and nobody without the key where one is configured.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agentlane_config::Secret;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::hmac;

pub struct Guard {
    /// Only this host can be meant.
    loopback: bool,
    key: Option<Key>,
}

/// A key of which no more is kept than is needed to recognise it.
struct Key {
    hash: hmac::Key,
    tag: hmac::Tag,
}

impl Guard {
    pub fn new(address: SocketAddr, key: Option<&Secret>) -> Self {
        let key = key.and_then(|key| {
            // A key of this process alone: comparing its tags takes as long whatever is sent.
            let hash = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new()).ok()?;
            Some(Key { tag: hmac::sign(&hash, key.expose().as_bytes()), hash })
        });
        Guard { loopback: address.ip().to_canonical().is_loopback(), key }
    }

    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        // A page whose name was made to mean this address sends its own name (DNS rebinding).
        if self.loopback && !is_loopback(host) {
            return Err((StatusCode::FORBIDDEN, "the host is not this one"));
        }
        let is_foreign = |origin: &str| origin.split_once("://").is_none_or(|(_, authority)| authority != host);
        if headers.contains_key(header::ORIGIN) && text(header::ORIGIN).is_none_or(is_foreign) {
            return Err((StatusCode::FORBIDDEN, "the origin is another"));
        }
        if let Some(key) = &self.key {
            let sent = text(header::AUTHORIZATION).and_then(|value| value.split_once(' '));
            let sent = sent.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim());
            if hmac::verify(&key.hash, sent.unwrap_or_default().as_bytes(), key.tag.as_ref()).is_err() {
                return Err((StatusCode::UNAUTHORIZED, "the key is missing or wrong"));
            }
        }
        // What a page may send without asking is no JSON (CSRF).
        let is_json = |kind: &str| kind.split(';').next().unwrap_or_default().trim() == "application/json";
        if *method == Method::POST && !text(header::CONTENT_TYPE).is_some_and(is_json) {
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type is not application/json"));
        }
        Ok(())
    }
}

/// Lets a request through, or answers why not.
pub async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => {
            tracing::warn!(path = request.uri().path(), why, "an admin request was refused");
            let answer = super::respond(Err((status, why.to_owned())));
            match status {
                StatusCode::UNAUTHORIZED => ([(header::WWW_AUTHENTICATE, "Bearer")], answer).into_response(),
                _ => answer,
            }
        }
    }
}

/// Whether an authority can only be this host.
fn is_loopback(authority: &str) -> bool {
    let host = crate::request::host_of(authority);
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(guard: &Guard, method: Method, headers: &[(&'static str, &str)]) -> u16 {
        let headers =
            headers.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()));
        guard.check(&method, &headers.collect()).map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn who_may_ask() {
        let secret = Secret::new("a key of sixteen bytes");
        let loopback = Guard::new("127.0.0.1:15000".parse().unwrap(), None);
        let open = Guard::new("0.0.0.0:15000".parse().unwrap(), Some(&secret));
        let ask = |guard, headers: &[(&'static str, &str)]| status(guard, Method::GET, headers);
        for host in ["localhost:15000", "127.0.0.1", "127.9.9.9:1", "[::1]:15000", "LOCALHOST"] {
            assert_eq!(ask(&loopback, &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example:15000", "localhost.evil.example", "10.0.0.1", ""] {
            assert_eq!(ask(&loopback, &[("host", host)]), 403, "{host}");
        }
        assert_eq!(ask(&loopback, &[("host", "localhost:1"), ("origin", "http://localhost:1")]), 200);
        assert_eq!(ask(&loopback, &[("host", "localhost:1"), ("origin", "http://localhost:2")]), 403);
        assert_eq!(ask(&loopback, &[("host", "localhost:1"), ("origin", "null")]), 403);
        let with = |value| ask(&open, &[("host", "admin.internal"), ("authorization", value)]);
        assert_eq!(ask(&open, &[("host", "admin.internal")]), 401);
        assert_eq!(with("Bearer a key of sixteen byteS"), 401);
        assert_eq!(with("Basic a key of sixteen bytes"), 401);
        assert_eq!(with("bearer a key of sixteen bytes"), 200);
    }

    #[test]
    fn what_a_page_can_send_changes_nothing() {
        let guard = Guard::new("[::1]:15000".parse().unwrap(), None);
        let post = |kind| status(&guard, Method::POST, &[("host", "localhost"), ("content-type", kind)]);
        assert_eq!(post("text/plain"), 415);
        assert_eq!(post("application/x-www-form-urlencoded"), 415);
        assert_eq!(post("application/json; charset=utf-8"), 200);
        assert_eq!(status(&guard, Method::POST, &[("host", "localhost")]), 415);
    }
}
