//! A fixed answer.

use bytes::Bytes;

use super::{Matched, Verdict};
use crate::request::{Changes, LocalReply, RequestView};

#[derive(Clone, Debug)]
pub struct DirectResponse {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(Bytes, Bytes)>,
    pub body: Bytes,
}

impl DirectResponse {
    pub(super) fn request(&self, _: &RequestView<'_>, _: &Matched<'_>, _: &mut Changes) -> Verdict {
        let mut reply = LocalReply::new(self.status);
        let typed = self.headers.iter().any(|(name, _)| name == "content-type");
        if !self.body.is_empty() && !typed {
            reply = reply.header("content-type", Bytes::from_static(b"text/plain; charset=utf-8"));
        }
        reply.headers.extend(self.headers.iter().cloned());
        reply.body = self.body.clone();
        Verdict::Reply(Box::new(reply))
    }
}
