//! The locks of all targets. A reload keeps those of which nothing has changed, with their verdicts.

use std::collections::HashMap;
use std::sync::Arc;

use agentlane_config as config;

use crate::backend::lock::TargetLock;
use crate::protocol::mcp::lock::drift::{Mode, Rules};
use crate::protocol::mcp::lock::file::{LockFile, LockedTarget};

/// By the targets' names in the lock file.
#[derive(Default)]
pub struct Locks(HashMap<String, Entry>);

struct Entry {
    /// Another server under the same name begins anew.
    server: config::Transport,
    lock: Arc<TargetLock>,
}

/// The targets of a document with their names in a lock file: the target's own, or, where the same name is borne by
/// different servers, with the backend's in front.
pub fn keys(document: &config::Document) -> Vec<(&config::Backend, &config::Target, String)> {
    let targets = || {
        document.backends.iter().flat_map(|backend| match &backend.kind {
            config::BackendKind::Mcp(mcp) => mcp.targets.iter().map(|target| (backend, target)).collect(),
            config::BackendKind::Http(_) => Vec::new(),
        })
    };
    let is_unique = |target: &config::Target| {
        targets().all(|(_, other)| other.name != target.name || other.transport == target.transport)
    };
    let key = |backend: &config::Backend, target: &config::Target| match is_unique(target) {
        true => target.name.clone(),
        false => format!("{}/{}", backend.name, target.name),
    };
    targets().map(|(backend, target)| (backend, target, key(backend, target))).collect()
}

impl Locks {
    /// Follows a document and its lock file, where it names one.
    pub fn follow(&mut self, document: &config::Document, file: Option<&LockFile>) {
        let before = std::mem::take(&mut self.0);
        let Some(lock) = &document.lock else { return };
        for (_, target, key) in keys(document) {
            let Some(mode) = mode(lock.mode, target.lock) else { continue };
            let rules = Rules { mode, risk_max: lock.risk_max };
            let locked = file.map(|file| file.targets.get(&key).cloned().unwrap_or_default());
            let known = before.get(&key).filter(|known| {
                let same =
                    known.lock.locked.as_ref().map(LockedTarget::hashes) == locked.as_ref().map(LockedTarget::hashes);
                known.server == target.transport && known.lock.rules == rules && same
            });
            let lock = match known {
                Some(known) => known.lock.clone(),
                None => Arc::new(TargetLock::new(key.clone(), rules, locked)),
            };
            self.0.insert(key, Entry { server: target.transport.clone(), lock });
        }
    }

    /// The lock of a backend's target.
    pub fn of(&self, backend: &str, target: &str) -> Option<Arc<TargetLock>> {
        let entry = self.0.get(target).or_else(|| self.0.get(&format!("{backend}/{target}")));
        entry.map(|entry| entry.lock.clone())
    }
}

fn mode(of_all: config::LockMode, own: Option<config::TargetLockMode>) -> Option<Mode> {
    Some(match (own, of_all) {
        (Some(config::TargetLockMode::Off), _) => return None,
        (Some(config::TargetLockMode::Warn), _) | (None, config::LockMode::Warn) => Mode::Warn,
        (Some(config::TargetLockMode::Quarantine), _) | (None, config::LockMode::Quarantine) => Mode::Quarantine,
        (Some(config::TargetLockMode::Block), _) | (None, config::LockMode::Block) => Mode::Block,
    })
}
