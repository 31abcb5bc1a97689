//! What operators and auditors see of the real binary: the audit log, the admin server, and no secrets.

mod api;
mod audit;
mod explained;
mod secrets;
#[path = "../support/mod.rs"]
mod support;
