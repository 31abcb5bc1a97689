//! What has been verified already, by a digest: a second request with the same credential costs a look-up. Two generations
//! stand for the order of use: what is used stays, what is not goes with its generation.

use std::collections::HashMap;

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

/// Names a credential and whoever verified it.
pub type Digest = [u8; SHA256_OUTPUT_LEN];

/// The digest of a credential; `verifier` keeps two policies apart.
pub fn digest(verifier: u64, parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(&verifier.to_le_bytes());
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut out = [0; SHA256_OUTPUT_LEN];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// At most twice the limits that it was made with.
pub struct Cache<T> {
    young: HashMap<Digest, (T, usize)>,
    old: HashMap<Digest, (T, usize)>,
    entries_max: usize,
    bytes_max: usize,
    bytes: usize,
}

impl<T: Clone> Cache<T> {
    /// The limits of one generation.
    pub fn new(entries_max: usize, bytes_max: usize) -> Self {
        Cache { young: HashMap::new(), old: HashMap::new(), entries_max, bytes_max, bytes: 0 }
    }

    pub fn get(&mut self, digest: &Digest) -> Option<T> {
        if let Some((value, _)) = self.young.get(digest) {
            return Some(value.clone());
        }
        let (value, bytes) = self.old.remove(digest)?;
        self.insert(*digest, value.clone(), bytes);
        Some(value)
    }

    /// `bytes`: what the value takes.
    pub fn insert(&mut self, digest: Digest, value: T, bytes: usize) {
        if self.young.len() >= self.entries_max || self.bytes + bytes > self.bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        if let Some((_, before)) = self.young.insert(digest, (value, bytes)) {
            self.bytes -= before;
        }
    }

    pub fn remove(&mut self, digest: &Digest) {
        if let Some((_, bytes)) = self.young.remove(digest) {
            self.bytes -= bytes;
        }
        self.old.remove(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays() {
        let mut cache = Cache::new(2, 1_000);
        let key = |number: u8| digest(1, &[&[number]]);
        for number in 0..100 {
            cache.insert(key(number), number, 1);
            assert_eq!(cache.get(&key(0)), Some(0), "after {number}");
            assert!(cache.young.len() <= 2 && cache.old.len() <= 2);
        }
        assert_eq!(cache.get(&key(50)), None);
        cache.remove(&key(0));
        assert_eq!(cache.get(&key(0)), None);
        let mut cache = Cache::new(100, 10);
        (0..100).for_each(|number| cache.insert(key(number), number, 4));
        assert!(cache.young.len() + cache.old.len() <= 4, "bytes count as well");
    }
}
