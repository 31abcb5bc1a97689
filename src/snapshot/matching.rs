//! Which route a request takes. Precedence as in Gateway API's HTTPRoute: host, then path (exact, longest prefix, regular
//! expression), then method, headers, query, and last the order of writing.

use std::cmp::Reverse;

use agentlane_wire::h1::Headers;
use regex::Regex;

use super::{Bind, Listener, Route};
use crate::policy::Matched;
use crate::request::RequestView;

/// A host, `*.suffix`, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    Any,
    Exact(String),
    /// With its leading dot.
    Suffix(String),
}

#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    /// Whole segments; without a trailing slash unless it is the root.
    Prefix(String),
    Regex(Regex),
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    Exact(String),
    Regex(Regex),
}

#[derive(Clone, Debug)]
pub struct RouteMatch {
    pub path: PathMatch,
    pub method: Option<String>,
    pub headers: Vec<(String, ValueMatch)>,
    pub query: Vec<(String, ValueMatch)>,
}

impl HostPattern {
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix('*') {
            Some("") => HostPattern::Any,
            Some(suffix) => HostPattern::Suffix(suffix.to_ascii_lowercase()),
            None => HostPattern::Exact(text.to_ascii_lowercase()),
        }
    }

    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Any => true,
            HostPattern::Exact(exact) => host.eq_ignore_ascii_case(exact),
            HostPattern::Suffix(suffix) => {
                host.len() > suffix.len()
                    && host.as_bytes()[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
            }
        }
    }

    /// Greater is more specific.
    pub fn specificity(&self) -> (u8, usize) {
        match self {
            HostPattern::Any => (0, 0),
            HostPattern::Suffix(suffix) => (1, suffix.len()),
            HostPattern::Exact(exact) => (2, exact.len()),
        }
    }
}

impl ValueMatch {
    fn matches(&self, value: &str) -> bool {
        match self {
            ValueMatch::Exact(exact) => value == exact,
            ValueMatch::Regex(regex) => regex.is_match(value),
        }
    }
}

impl PathMatch {
    pub fn prefix(text: &str) -> Self {
        let trimmed = text.trim_end_matches('/');
        PathMatch::Prefix(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            PathMatch::Exact(exact) => path == exact,
            PathMatch::Prefix(prefix) if prefix == "/" => path.starts_with('/'),
            PathMatch::Prefix(prefix) => {
                path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathMatch::Regex(regex) => regex.is_match(path),
        }
    }
}

impl RouteMatch {
    /// Everything.
    pub fn any() -> Self {
        RouteMatch { path: PathMatch::prefix("/"), method: None, headers: Vec::new(), query: Vec::new() }
    }

    /// A sort key: smaller is tried first.
    pub fn precedence(&self) -> impl Ord + use<> {
        let path = match &self.path {
            PathMatch::Exact(path) => (2, path.len()),
            PathMatch::Prefix(prefix) => (1, prefix.len()),
            // Like a prefix, the longer the more exact: else one catch-all route would hide every pattern.
            PathMatch::Regex(regex) => (1, regex.as_str().len()),
        };
        Reverse((path, self.method.is_some(), self.headers.len(), self.query.len()))
    }

    fn matches(&self, request: &RequestView<'_>) -> bool {
        self.path.matches(request.path)
            && self.method.as_deref().is_none_or(|method| request.head.method_str() == method)
            && self.headers.iter().all(|(name, value)| header_matches(&request.head.headers, name, value))
            && self.query.iter().all(|(name, value)| query_matches(request.query, name, value))
    }
}

fn header_matches(headers: &Headers, name: &str, value: &ValueMatch) -> bool {
    headers.get_str(name).is_some_and(|text| value.matches(text))
}

fn query_matches(query: Option<&str>, name: &str, value: &ValueMatch) -> bool {
    query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| percent_decoded(key) == name)
        .is_some_and(|(_, text)| value.matches(&percent_decoded(text)))
}

/// Query text with `+` and percent escapes decoded; what does not decode stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|&digit| (digit as char).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &tail[2..];
                continue;
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
        rest = tail;
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

impl Bind {
    /// The listener for a host: the most specific one.
    pub fn listener(&self, host: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.host.matches(host)).map(AsRef::as_ref)
    }
}

impl Listener {
    /// The route for a request, with what matched.
    pub fn route<'a>(&'a self, request: &RequestView<'_>) -> Option<(&'a std::sync::Arc<Route>, Matched<'a>)> {
        let rule = self.rules.iter().find(|rule| {
            rule.matches.matches(request)
                && (rule.hosts.is_empty() || rule.hosts.iter().any(|host| host.matches(request.host)))
        })?;
        let prefix = match &rule.matches.path {
            PathMatch::Prefix(prefix) => Some(prefix.as_str()),
            _ => None,
        };
        Some((&rule.route, Matched { prefix }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_match_whole_segments() {
        let cases = [
            ("/", "/anything", true),
            ("/mcp", "/mcp", true),
            ("/mcp", "/mcp/", true),
            ("/mcp", "/mcp/x", true),
            ("/mcp", "/mcpx", false),
            ("/mcp/", "/mcp", true),
        ];
        for (prefix, path, expected) in cases {
            assert_eq!(PathMatch::prefix(prefix).matches(path), expected, "{prefix} {path}");
        }
    }

    #[test]
    fn hosts_match_without_case_and_wildcards_need_a_label() {
        assert!(HostPattern::parse("*.a.org").matches("X.A.org"));
        assert!(!HostPattern::parse("*.a.org").matches("a.org"));
        assert!(HostPattern::parse("a.org").matches("A.ORG"));
        assert!(HostPattern::parse("*").matches(""));
    }

    #[test]
    fn queries_are_decoded_before_they_are_compared() {
        assert!(query_matches(Some("a=1&b=x%20y"), "b", &ValueMatch::Exact("x y".into())));
        assert!(query_matches(Some("b=x+y"), "b", &ValueMatch::Exact("x y".into())));
        assert!(!query_matches(None, "b", &ValueMatch::Exact(String::new())));
        assert_eq!(percent_decoded("%zz%4"), "%zz%4");
    }
}
