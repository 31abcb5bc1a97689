//! Adds, sets and removes headers of requests and of answers.

use super::{Matched, Verdict};
use crate::request::{Changes, HeaderEdit, RequestView};

#[derive(Clone, Debug)]
pub struct RequestHeaderModifier(pub Vec<HeaderEdit>);

#[derive(Clone, Debug)]
pub struct ResponseHeaderModifier(pub Vec<HeaderEdit>);

impl RequestHeaderModifier {
    pub(super) fn request(&self, _: &RequestView<'_>, _: &Matched<'_>, changes: &mut Changes) -> Verdict {
        changes.request.extend(&self.0);
        Verdict::Continue
    }
}

impl ResponseHeaderModifier {
    pub(super) fn request(&self, _: &RequestView<'_>, _: &Matched<'_>, changes: &mut Changes) -> Verdict {
        changes.response.extend(&self.0);
        Verdict::Continue
    }
}
