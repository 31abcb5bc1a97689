//! A document that another server has, and that control keeps here: keys of an issuer, metadata of an authorization server.
//! Shards read what there is, and ask for more when a request needs what is not there. No I/O: control does the fetching.

use std::sync::{Arc, Mutex, PoisonError};

use agentlane_config::Url;
use agentlane_runtime::channel::{self, Receiver, Sender};
use arc_swap::ArcSwap;
use serde_json::Value;

use super::keys::KeySet;
use crate::limits::REMOTE_ASKERS_MAX;
use crate::policy::Pending;

/// A document at a URL.
pub struct Remote {
    /// Tried in this order.
    pub urls: Vec<Url>,
    /// It is wanted before anybody asks.
    pub eager: bool,
    now: ArcSwap<Fetched>,
    asks: Sender<Asker>,
    asked: Mutex<Option<Receiver<Asker>>>,
}

/// Whoever waits for the next look at a document; told, or dropped, when that is over.
pub type Asker = Sender<()>;

/// The document as it was last.
pub struct Fetched {
    /// Null before it has come.
    pub document: Value,
    /// The keys in it.
    pub keys: Arc<KeySet>,
}

impl Remote {
    pub fn new(urls: Vec<Url>, eager: bool) -> Self {
        let (asks, asked) = channel::bounded(REMOTE_ASKERS_MAX);
        let now = ArcSwap::from_pointee(Fetched { document: Value::Null, keys: KeySet::none() });
        Remote { urls, eager, now, asks, asked: Mutex::new(Some(asked)) }
    }

    pub fn now(&self) -> Arc<Fetched> {
        self.now.load_full()
    }

    /// The keys as they are now.
    pub fn keys(&self) -> Arc<KeySet> {
        self.now.load().keys.clone()
    }

    /// Waits for control to look again, or to say that it did so lately. `None`: too many wait already.
    pub fn ask(&self) -> Option<Pending> {
        let (asker, told) = channel::bounded(1);
        self.asks.try_send(asker).ok()?;
        Some(Pending::new(async move {
            told.recv().await;
        }))
    }

    /// Puts a document in the place of the one before; equal ones change nothing. Whether it was another.
    pub fn put(&self, document: Value) -> bool {
        if self.now.load().document == document {
            return false;
        }
        let keys = Arc::new(KeySet::read(&document));
        self.now.store(Arc::new(Fetched { document, keys }));
        true
    }

    /// The askers, for the one who fetches; `None` when somebody does already.
    pub fn askers(&self) -> Option<Receiver<Asker>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.urls.iter().map(|url| &url.text)).finish()
    }
}
