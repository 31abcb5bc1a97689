//! What is compared with a lock file, and what becomes of differences. Must not know what a lock file holds.

use std::path::PathBuf;

use crate::context::{Context, Table};
use crate::fault::FaultKind;
use crate::form::{Form, record, words};
use crate::scalar::{FilePath, Int};
use crate::schema::Definitions;
use crate::tree::Node;

record! {
    /// The tool lock: what targets offer is scanned, and compared with what was approved.
    pub struct Lock {
        /// The lock file, which `agentlane lock` writes. Read again when it changes. Default: none; then things are scanned only.
        pub file: Option<PathBuf> = opt "file" as Option<WatchedFile>;
        /// What becomes of a tool, prompt, template or instructions that differ from the lock file. Default: quarantine.
        pub mode: LockMode = or(LockMode::Quarantine) "mode";
        /// The most risk, 0 to 100, that may be served of what nobody approved; what is riskier is hidden and refused.
        /// Default: any.
        pub risk_max: Option<u8> = opt "riskMax" as Option<Int<u8, 0, 100>>;
    }
    check mode_needs_a_file;
}

words! {
    /// What becomes of what differs.
    pub enum LockMode {
        /// It is told in the log and in metrics.
        Warn = "warn",
        /// It is hidden and refused until it is approved.
        Quarantine = "quarantine",
        /// Its target is not served at all.
        Block = "block",
    }
}

words! {
    /// The same for one target.
    pub enum TargetLockMode {
        /// It is neither scanned nor compared.
        Off = "off",
        /// It is told in the log and in metrics.
        Warn = "warn",
        /// It is hidden and refused until it is approved.
        Quarantine = "quarantine",
        /// The target is not served at all.
        Block = "block",
    }
}

fn mode_needs_a_file(lock: &Lock, table: &Table<'_>, cx: &mut Context<'_>) -> bool {
    if lock.file.is_none()
        && let Some(entry) = table.entry(&["mode"])
    {
        let message = "without `file` there is nothing that could differ".to_owned();
        cx.at_key("mode", |cx| cx.fault_at(entry.mark, FaultKind::Conflict, message));
    }
    true
}

/// A file whose change is a change of the configuration; it need not be there yet.
struct WatchedFile;

impl Form for WatchedFile {
    type Out = PathBuf;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<PathBuf> {
        let path = FilePath::decode(node, cx)?;
        if !cx.files.contains(&path) {
            cx.files.push(path.clone());
        }
        Some(path)
    }

    fn schema(defs: &mut Definitions) -> serde_json::Value {
        FilePath::schema(defs)
    }
}
