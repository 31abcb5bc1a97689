//! Changes the path and the authority that the backend sees.

use super::{Matched, Verdict, replace_prefix};
use crate::request::{Changes, RequestView, host_of};

/// A new path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    Full(String),
    /// Replaces the prefix that the route matched; without one it replaces nothing.
    Prefix(String),
}

/// A new authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityRewrite {
    Full(String),
    Host(String),
    Port(u16),
    /// The backend's own.
    Backend,
}

#[derive(Clone, Debug, Default)]
pub struct UrlRewrite {
    pub path: Option<PathRewrite>,
    pub authority: Option<AuthorityRewrite>,
}

impl UrlRewrite {
    pub(super) fn request(&self, request: &RequestView<'_>, matched: &Matched<'_>, changes: &mut Changes) -> Verdict {
        if let Some(path) = self.path.as_ref().and_then(|path| path.apply(request.path, matched)) {
            changes.target = Some(with_query(path, request.query));
        }
        if let Some(authority) = &self.authority {
            changes.authority = Some(authority.apply(request.authority));
        }
        Verdict::Continue
    }
}

impl PathRewrite {
    pub(super) fn apply(&self, path: &str, matched: &Matched<'_>) -> Option<String> {
        match self {
            PathRewrite::Full(full) => Some(full.clone()),
            PathRewrite::Prefix(replacement) => Some(replace_prefix(path, matched.prefix?, replacement)),
        }
    }
}

impl AuthorityRewrite {
    pub(super) fn apply(&self, authority: &str) -> String {
        match self {
            AuthorityRewrite::Full(full) => full.clone(),
            AuthorityRewrite::Host(host) => match authority.strip_prefix(host_of(authority)) {
                Some(port) => format!("{host}{port}"),
                None => host.clone(),
            },
            // Empty stands for whatever the backend is called.
            AuthorityRewrite::Backend => String::new(),
            AuthorityRewrite::Port(port) => format!("{}:{port}", host_of(authority)),
        }
    }
}

pub(super) fn with_query(path: String, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_keep_what_is_not_named() {
        assert_eq!(AuthorityRewrite::Host("b".into()).apply("a:80"), "b:80");
        assert_eq!(AuthorityRewrite::Host("b".into()).apply("a"), "b");
        assert_eq!(AuthorityRewrite::Port(81).apply("[::1]:80"), "[::1]:81");
        assert_eq!(AuthorityRewrite::Full("c:1".into()).apply("a"), "c:1");
    }
}
