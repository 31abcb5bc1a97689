//! Sends the client to another URL.

use bytes::Bytes;

use super::url_rewrite::{AuthorityRewrite, PathRewrite, with_query};
use super::{Matched, Verdict};
use crate::request::{Changes, LocalReply, RequestView};

#[derive(Clone, Debug)]
pub struct RequestRedirect {
    pub scheme: Option<String>,
    pub authority: Option<AuthorityRewrite>,
    pub path: Option<PathRewrite>,
    pub status: u16,
}

impl RequestRedirect {
    pub(super) fn request(&self, request: &RequestView<'_>, matched: &Matched<'_>, _: &mut Changes) -> Verdict {
        Verdict::Reply(Box::new(self.reply(request, matched)))
    }

    /// The answer that sends the client on.
    pub fn reply(&self, request: &RequestView<'_>, matched: &Matched<'_>) -> LocalReply {
        let scheme = self.scheme.as_deref().unwrap_or(if request.tls.is_some() { "https" } else { "http" });
        let authority = match &self.authority {
            Some(authority) if *authority != AuthorityRewrite::Backend => authority.apply(request.authority),
            _ => request.authority.to_owned(),
        };
        let path = self.path.as_ref().and_then(|path| path.apply(request.path, matched));
        let target = with_query(path.unwrap_or_else(|| request.path.to_owned()), request.query);
        LocalReply::new(self.status).header("location", Bytes::from(format!("{scheme}://{authority}{target}")))
    }
}
