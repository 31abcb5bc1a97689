//! A map that holds so many entries and bytes and no more: the oldest leave first. It knows nothing of what it holds.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// How much is held.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub entries: usize,
    pub bytes: usize,
}

pub struct Bounded<K, V> {
    bounds: Bounds,
    entries: HashMap<K, Held<V>>,
    /// Keys by the number of their insertion.
    order: BTreeMap<u64, K>,
    next: u64,
    bytes: usize,
}

struct Held<V> {
    value: V,
    bytes: usize,
    number: u64,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    pub fn new(bounds: Bounds) -> Self {
        Bounded { bounds, entries: HashMap::new(), order: BTreeMap::new(), next: 0, bytes: 0 }
    }

    /// Puts a value in the place of the one before, as the newest of all. One that would push out more than half of the
    /// others is not taken; the one before goes nevertheless.
    pub fn insert(&mut self, key: K, value: V, bytes: usize) {
        self.remove(&key);
        if bytes > self.bounds.bytes / 2 {
            return;
        }
        self.order.insert(self.next, key.clone());
        self.entries.insert(key, Held { value, bytes, number: self.next });
        self.next += 1;
        self.bytes += bytes;
        while self.entries.len() > self.bounds.entries || self.bytes > self.bounds.bytes {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.remove(&oldest);
        }
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|held| &held.value)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn remove(&mut self, key: &K) {
        if let Some(held) = self.entries.remove(key) {
            self.order.remove(&held.number);
            self.bytes -= held.bytes;
        }
    }
}
