//! What the audit log tells: who was refused what, and why. Knows neither requests nor sessions.

use std::sync::Arc;

/// Why somebody was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The kind of fault, by its label.
    pub kind: &'static str,
    /// What decided: the policy, and where there is one, its rule with its place in the configuration.
    pub rule: Option<Arc<str>>,
}
