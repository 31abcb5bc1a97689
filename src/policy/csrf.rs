//! Cross-site request forgery: what a browser sends for a page of another origin is refused, where it could change
//! something. Browsers say so in `Sec-Fetch-Site` (Fetch Metadata, 2.4), older ones in `Origin` alone (RFC 6454, 7); what is
//! no browser sends neither and passes.

use agentlane_wire::h1::{Known, Method};

use super::{Matched, Refusal, Verdict};
use crate::fault::{Fault, Kind};
use crate::request::{Changes, RequestView};

#[derive(Clone, Debug, Default)]
pub struct Csrf {
    /// Origins beside the request's own, in lower case.
    pub additional_origins: Vec<String>,
}

impl Csrf {
    pub(super) fn request(&self, request: &RequestView<'_>, _: &Matched<'_>, _: &mut Changes) -> Verdict {
        let is_safe = matches!(request.head.method, Method::Get | Method::Head | Method::Options);
        // A page of another site may open a WebSocket, and then say what it likes.
        if is_safe && !request.asks_for_websocket() {
            return Verdict::Continue;
        }
        let headers = &request.head.headers;
        let mut origins = headers.known_all(Known::Origin);
        let origin = match (origins.next(), origins.next()) {
            (origin, None) => origin.map(|origin| std::str::from_utf8(origin).unwrap_or_default()),
            (_, Some(_)) => return refused(),
        };
        match self.allows(headers.get("sec-fetch-site"), origin, request.authority) {
            true => Verdict::Continue,
            false => refused(),
        }
    }

    fn allows(&self, site: Option<&[u8]>, origin: Option<&str>, authority: &str) -> bool {
        let is_own = match (site, origin) {
            (Some(site), _) => matches!(site, b"same-origin" | b"none"),
            (None, None) => true,
            // The scheme is not compared: TLS may end in front of us.
            (None, Some(origin)) => {
                origin.split_once("://").is_some_and(|(_, own)| own.eq_ignore_ascii_case(authority))
            }
        };
        is_own
            || origin.is_some_and(|origin| self.additional_origins.iter().any(|one| one.eq_ignore_ascii_case(origin)))
    }
}

fn refused() -> Verdict {
    Verdict::Refuse(Box::new(Refusal::new(Fault::new(Kind::Forbidden, "request of another site").by("csrf"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_and_trusted_pages_pass() {
        let csrf = Csrf { additional_origins: vec!["https://app.example".to_owned()] };
        let cases = [
            (None, None, true),
            (Some("same-origin"), Some("https://a.example"), true),
            (Some("none"), None, true),
            (Some("cross-site"), Some("https://evil.example"), false),
            (Some("same-site"), Some("https://b.a.example"), false),
            (Some("cross-site"), None, false),
            (Some("cross-site"), Some("https://APP.example"), true),
            // What a browser says of the site stands above the origin.
            (Some("cross-site"), Some("https://a.example"), false),
            (None, Some("https://a.example"), true),
            (None, Some("http://A.example"), true),
            (None, Some("https://a.example:8443"), false),
            (None, Some("https://a.example.evil.example"), false),
            (None, Some("https://app.example"), true),
            (None, Some("null"), false),
            (None, Some(""), false),
        ];
        for (site, origin, expected) in cases {
            let allowed = csrf.allows(site.map(str::as_bytes), origin, "a.example");
            assert_eq!(allowed, expected, "{site:?} {origin:?}");
        }
    }
}
