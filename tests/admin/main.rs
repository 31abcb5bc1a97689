//! What operators and auditors see of the real binary: the audit log, the admin server, and no secrets.

mod audit;
#[path = "../support/mod.rs"]
mod support;
