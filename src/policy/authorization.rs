//! Who may send a request at all: the rules of the listener and of the route.

use std::sync::Arc;

use agentlane_expression::Variables;

use super::rules::facts::Facts;
use super::rules::{Denied, RuleSet};
use super::{Matched, Refusal, Verdict};
use crate::fault::{Fault, Kind};
use crate::request::{Changes, RequestView};

/// Each set must let pass.
#[derive(Clone, Debug)]
pub struct Authorization(pub Vec<Arc<RuleSet>>);

impl Authorization {
    pub(super) fn request(&self, request: &RequestView<'_>, _: &Matched<'_>, changes: &mut Changes) -> Verdict {
        let facts = Facts::new(Some(*request), &changes.principal);
        match self.0.iter().try_for_each(|set| set.decide(&facts, Variables::NONE)) {
            Ok(()) => Verdict::Continue,
            Err(Denied(rule)) => {
                Verdict::Refuse(Box::new(Refusal::new(Fault::new(Kind::Forbidden, "not authorized").by(rule))))
            }
        }
    }
}
