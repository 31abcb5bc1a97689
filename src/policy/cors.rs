//! Cross-origin resource sharing (Fetch standard, "CORS protocol"): answers preflights, marks answers for the origins
//! that are allowed, and says nothing to others.

use bytes::Bytes;

use agentlane_wire::h1::{Known, Method};

use super::{Matched, Verdict};
use crate::request::{Changes, HeaderEdit, LocalReply, RequestView};

#[derive(Clone, Debug, Default)]
pub struct Cors {
    pub allow_origins: Vec<OriginPattern>,
    /// Joined lists, ready to be written; empty where nothing was configured.
    pub allow_methods: Bytes,
    pub allow_headers: Bytes,
    pub expose_headers: Bytes,
    pub allow_credentials: bool,
    pub max_age_seconds: Option<u64>,
}

/// `*`, `https://example.org`, or `https://*.example.org`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    Any,
    Exact(String),
    /// Scheme with `://`, and the suffix with its leading dot.
    Subdomains(String, String),
}

impl OriginPattern {
    pub fn parse(text: &str) -> Self {
        if text == "*" {
            return OriginPattern::Any;
        }
        match text.split_once("*.") {
            Some((scheme, suffix)) => {
                OriginPattern::Subdomains(scheme.to_ascii_lowercase(), format!(".{}", suffix.to_ascii_lowercase()))
            }
            None => OriginPattern::Exact(text.trim_end_matches('/').to_ascii_lowercase()),
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            OriginPattern::Any => true,
            OriginPattern::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            OriginPattern::Subdomains(scheme, suffix) => {
                let origin = origin.to_ascii_lowercase();
                origin
                    .strip_prefix(scheme.as_str())
                    .and_then(|host| host.strip_suffix(suffix.as_str()))
                    .is_some_and(|label| !label.is_empty() && !label.contains(['/', ':', '@']))
            }
        }
    }
}

impl Cors {
    /// Whether an `Origin` header's value is one of the configured ones.
    pub fn allows(&self, origin: &str) -> bool {
        self.allow_origins.iter().any(|pattern| pattern.matches(origin))
    }

    pub(super) fn request(&self, request: &RequestView<'_>, _: &Matched<'_>, changes: &mut Changes) -> Verdict {
        let headers = &request.head.headers;
        let Some(origin) = headers.known_str(Known::Origin) else { return Verdict::Continue };
        let asked_method = headers.get("access-control-request-method");
        let preflight = request.head.method == Method::Options && asked_method.is_some();
        if !self.allows(origin) {
            // No CORS headers: the browser refuses. A preflight has nothing behind it to be sent to.
            return if preflight { Verdict::Reply(Box::new(LocalReply::new(204))) } else { Verdict::Continue };
        }
        let origin = self.allowed_origin(origin);
        if preflight {
            return Verdict::Reply(Box::new(self.preflight(
                origin,
                headers.get("access-control-request-headers"),
                asked_method,
            )));
        }
        let mut set = |name: &'static str, value: Bytes| {
            changes.response.push(HeaderEdit::Set(Bytes::from_static(name.as_bytes()), value));
        };
        if &origin[..] != b"*" {
            set("vary", Bytes::from_static(b"Origin"));
        }
        set("access-control-allow-origin", origin);
        if self.allow_credentials {
            set("access-control-allow-credentials", Bytes::from_static(b"true"));
        }
        if !self.expose_headers.is_empty() {
            set("access-control-expose-headers", self.expose_headers.clone());
        }
        Verdict::Continue
    }

    /// `*` unless credentials are allowed: then the standard wants the origin itself.
    fn allowed_origin(&self, origin: &str) -> Bytes {
        if self.allow_origins.contains(&OriginPattern::Any) && !self.allow_credentials {
            return Bytes::from_static(b"*");
        }
        Bytes::copy_from_slice(origin.as_bytes())
    }

    fn preflight(&self, origin: Bytes, asked_headers: Option<&[u8]>, asked_method: Option<&[u8]>) -> LocalReply {
        let mut reply = LocalReply::new(204).header("access-control-allow-origin", origin).header(
            "vary",
            Bytes::from_static(b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
        );
        let methods = listed_or_asked(&self.allow_methods, asked_method, self.allow_credentials);
        if !methods.is_empty() {
            reply = reply.header("access-control-allow-methods", methods);
        }
        let headers = listed_or_asked(&self.allow_headers, asked_headers, self.allow_credentials);
        if !headers.is_empty() {
            reply = reply.header("access-control-allow-headers", headers);
        }
        if self.allow_credentials {
            reply = reply.header("access-control-allow-credentials", Bytes::from_static(b"true"));
        }
        if let Some(seconds) = self.max_age_seconds {
            reply = reply.header("access-control-max-age", Bytes::from(seconds.to_string()));
        }
        reply
    }
}

/// A configured `*` means "whatever is asked" where credentials take the wildcard's meaning away.
fn listed_or_asked(listed: &Bytes, asked: Option<&[u8]>, credentials: bool) -> Bytes {
    match asked {
        Some(asked) if credentials && &listed[..] == b"*" => Bytes::copy_from_slice(asked),
        _ => listed.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_whole() {
        let cases = [
            ("*", "https://a.org", true),
            ("https://a.org", "https://a.org", true),
            ("https://a.org", "https://A.org", true),
            ("https://a.org", "http://a.org", false),
            ("https://a.org", "https://a.org.evil.org", false),
            ("https://*.a.org", "https://x.a.org", true),
            ("https://*.a.org", "https://a.org", false),
            ("https://*.a.org", "https://evil.org/.a.org", false),
            ("https://*.a.org", "https://x.a.org.evil.org", false),
        ];
        for (pattern, origin, expected) in cases {
            assert_eq!(OriginPattern::parse(pattern).matches(origin), expected, "{pattern} {origin}");
        }
    }
}
