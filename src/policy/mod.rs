//! Policies: what a route does to a request besides sending it on. One file each, and one ordered registry: the position
//! in the table is the order of execution. Policies do no I/O; they return a verdict.

pub mod auth;
pub mod authorization;
pub mod concurrency_limit;
pub mod cors;
pub mod csrf;
pub mod direct_response;
pub mod header_modifier;
pub mod local_rate_limit;
pub mod request_redirect;
pub mod rules;
pub mod url_rewrite;

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::fault::Fault;
use crate::request::{Changes, LocalReply, RequestView};

/// What a policy says of a request.
#[derive(Debug)]
pub enum Verdict {
    Continue,
    /// The gateway answers; policies behind this one are not asked.
    Reply(Box<LocalReply>),
    /// The same with a fault, which is told as the route's clients read faults.
    Refuse(Box<Refusal>),
    /// Something is not known yet that the verdict depends on: all policies are asked again after that.
    Wait(Pending),
}

/// A wait for somebody else's work.
pub struct Pending(Pin<Box<dyn Future<Output = ()>>>);

impl Pending {
    pub fn new(work: impl Future<Output = ()> + 'static) -> Self {
        Pending(Box::pin(work))
    }

    pub async fn done(self) {
        self.0.await;
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pending")
    }
}

/// A fault and the headers that go with it.
#[derive(Debug)]
pub struct Refusal {
    pub fault: Fault,
    /// Names in lower case.
    pub headers: SmallVec<[(Bytes, Bytes); 4]>,
}

impl Refusal {
    pub fn new(fault: Fault) -> Self {
        Refusal { fault, headers: SmallVec::new() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<Bytes>) -> Self {
        self.headers.push((Bytes::from_static(name.as_bytes()), value.into()));
        self
    }
}

macro_rules! registry {
    ($($variant:ident($type:ty),)*) => {
        /// Every policy there is, in the order of execution.
        #[derive(Clone, Debug)]
        pub enum Policy { $($variant($type),)* }

        impl Policy {
            /// Its name in the table.
            pub fn name(&self) -> &'static str {
                match self { $(Policy::$variant(_) => stringify!($variant),)* }
            }

            fn rank(&self) -> usize {
                #[repr(usize)]
                enum Rank { $($variant,)* }
                match self { $(Policy::$variant(_) => Rank::$variant as usize,)* }
            }

            fn request(&self, request: &RequestView<'_>, route: &Matched<'_>, changes: &mut Changes) -> Verdict {
                match self { $(Policy::$variant(policy) => policy.request(request, route, changes),)* }
            }
        }
    };
}

registry! {
    Cors(cors::Cors),
    Csrf(csrf::Csrf),
    JwtAuth(auth::jwt::JwtAuth),
    BasicAuth(auth::basic::BasicAuth),
    ApiKeys(auth::api_key::ApiKeys),
    McpAuthentication(auth::mcp::McpAuthentication),
    Authorization(authorization::Authorization),
    LocalRateLimit(local_rate_limit::LocalRateLimit),
    ConcurrencyLimit(concurrency_limit::ConcurrencyLimit),
    RequestRedirect(request_redirect::RequestRedirect),
    DirectResponse(direct_response::DirectResponse),
    RequestHeaderModifier(header_modifier::RequestHeaderModifier),
    UrlRewrite(url_rewrite::UrlRewrite),
    ResponseHeaderModifier(header_modifier::ResponseHeaderModifier),
}

/// How a route was matched, for the policies that replace the part that matched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Matched<'a> {
    /// The path prefix that matched, where a prefix did.
    pub prefix: Option<&'a str>,
}

/// The policies of one route, in order.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    policies: Vec<Policy>,
}

impl Chain {
    pub fn new(mut policies: Vec<Policy>) -> Self {
        policies.sort_by_key(Policy::rank);
        Chain { policies }
    }

    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Asks each policy in turn, until one replies.
    pub fn request(&self, request: &RequestView<'_>, matched: &Matched<'_>, changes: &mut Changes) -> Verdict {
        for policy in &self.policies {
            match policy.request(request, matched, changes) {
                Verdict::Continue => {}
                verdict => return verdict,
            }
        }
        Verdict::Continue
    }

    /// In the order of execution.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.policies.iter()
    }

    /// The rules over requests.
    pub fn authorization(&self) -> Option<&authorization::Authorization> {
        self.policies.iter().find_map(|policy| match policy {
            Policy::Authorization(authorization) => Some(authorization),
            _ => None,
        })
    }

    /// The CORS policy, which also says which origins may use an MCP endpoint.
    pub fn cors(&self) -> Option<&cors::Cors> {
        self.policies.iter().find_map(|policy| match policy {
            Policy::Cors(cors) => Some(cors),
            _ => None,
        })
    }
}

/// `path` with its matched prefix replaced, segment-wise, as Gateway API's ReplacePrefixMatch does: no doubled or missing
/// slash at the seam.
pub(crate) fn replace_prefix(path: &str, prefix: &str, replacement: &str) -> String {
    let rest = path.strip_prefix(prefix.trim_end_matches('/')).unwrap_or(path).trim_start_matches('/');
    let replacement = replacement.trim_end_matches('/');
    match (replacement.is_empty(), rest.is_empty()) {
        (true, _) => format!("/{rest}"),
        (false, true) if path.ends_with('/') && path != prefix => format!("{replacement}/"),
        (false, true) => replacement.to_owned(),
        (false, false) => format!("{replacement}/{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_replaced_without_doubled_slashes() {
        let cases = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
        ];
        for (path, prefix, replacement, expected) in cases {
            assert_eq!(replace_prefix(path, prefix, replacement), expected, "{path} {prefix} {replacement}");
        }
    }
}
