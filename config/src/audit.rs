//! What may be written of the audit log and of the admin server's key. Must not know who writes records.

use std::path::PathBuf;

use crate::context::{Context, Table};
use crate::fault::FaultKind;
use crate::form::{record, words};
use crate::scalar::{FilePath, Secret};

/// Shortest key that is one, in bytes.
const KEY_BYTES_MIN: usize = 16;

record! {
    /// The audit log: a record for each decision that denies, and for each call when asked. It is read at start.
    pub struct Audit {
        /// The file that records are appended to, one JSON object a line. Default: the standard output.
        pub file: Option<PathBuf> = opt "file" as Option<FilePath>;
        /// A record as well for each call of a tool, prompt read and resource read that was served. Default: false.
        pub calls: bool = or(false) "calls";
        /// The claims of a verified identity that are written. Default: iss and sub.
        pub claims: Vec<String> = or(vec!["iss".to_owned(), "sub".to_owned()]) "claims" as Vec<String>;
        /// Chains each shard's records by their hashes, so that `agentlane audit verify` finds what was changed, removed or
        /// moved. Default: false, or true with a key.
        pub chain: Option<bool> = opt "chain" as Option<bool>;
        /// A key for the chain, of 16 bytes at least: without it nobody can make the chain anew.
        pub key: Option<Secret> = opt "key";
        /// What happens when records cannot be written as fast as they come. Default: drop.
        pub when_behind: WhenBehind = or(WhenBehind::Drop) "whenBehind";
    }
    check audit_fits;
}

words! {
    /// What happens when records cannot be written as fast as they come.
    pub enum WhenBehind {
        /// Records are lost; they are counted, and the next one that is written says how many.
        Drop = "drop",
        /// Nothing is lost: requests are refused (503) until the records are out.
        Refuse = "refuse",
    }
}

impl Audit {
    /// Whether records are chained.
    pub fn is_chained(&self) -> bool {
        self.chain.unwrap_or(self.key.is_some())
    }
}

fn audit_fits(audit: &Audit, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    if audit.key.is_some() && audit.chain == Some(false) {
        let mark = table.entry(&["key"]).map_or(table.mark, |entry| entry.mark);
        let message = "cannot stand beside chain: false; it is the chain's".to_owned();
        cx.at_key("key", |cx| cx.fault_at(mark, FaultKind::Conflict, message));
    }
    long_enough(audit.key.as_ref(), "key", table, cx)
}

/// A key that can be guessed is none.
pub(crate) fn long_enough(key: Option<&Secret>, name: &str, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    if key.is_some_and(|key| key.expose().len() < KEY_BYTES_MIN) {
        let mark = table.entry(&[name]).map_or(table.mark, |entry| entry.node.mark);
        let message = format!("expected a key of {KEY_BYTES_MIN} bytes at least, got a shorter one");
        cx.at_key(name, |cx| cx.fault_at(mark, FaultKind::Invalid, message));
    }
    true
}
