//! How many requests may be under way at once, over all shards: a number that requests hold a part of while they run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A limit and how far it is used up.
#[derive(Debug)]
pub struct Concurrency {
    max: usize,
    under_way: AtomicUsize,
    /// What the audit log calls it.
    pub name: Arc<str>,
}

/// One request's part of a limit, given back when it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Concurrency>);

impl Concurrency {
    pub fn new(max: usize, name: Arc<str>) -> Self {
        Concurrency { max, under_way: AtomicUsize::new(0), name }
    }

    /// `None`: so many are under way already.
    pub fn enter(self: &Arc<Self>) -> Option<Permit> {
        let enter = |under_way| (under_way < self.max).then_some(under_way + 1);
        self.under_way.fetch_update(Relaxed, Relaxed, enter).ok().map(|_| Permit(self.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_comes_back() {
        let limit = Arc::new(Concurrency::new(2, "test".into()));
        let first = limit.enter().unwrap();
        let _second = limit.enter().unwrap();
        assert!(limit.enter().is_none());
        drop(first);
        assert!(limit.enter().is_some());
        assert!(limit.enter().is_some());
    }
}
