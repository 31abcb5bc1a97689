//! How many requests a route takes: token buckets that hold for all shards together. A shard borrows tokens in blocks, so
//! that what the shards share is touched once for a block and not once for a request.

mod bucket;
mod keyed;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use bucket::{Bucket, Rate};
use keyed::Key;
pub use keyed::Keyed;

use super::rules::facts::Facts;
use super::{Matched, Refusal, Verdict};
use crate::fault::{Fault, Kind};
use crate::principal::Principal;
use crate::request::{Changes, RequestView};

/// Of a full bucket, the part that may lie in the shards' shares in all: how inexact the limit is at most.
const SHARES_PART: u64 = 64;
/// Most tokens of one block.
const BLOCK_MAX: u64 = 256;

/// Every limit of one route, in the order written. A request must pass all.
#[derive(Clone, Debug)]
pub struct LocalRateLimit(pub Vec<Arc<Limiter>>);

/// One limit.
#[derive(Debug)]
pub struct Limiter {
    bucket: Bucket,
    /// Tokens that a shard takes at once.
    block: u64,
    shares: Box<[Share]>,
    /// Where each of several has a bucket of its own; the one above is for the rest.
    keyed: Option<Keyed>,
    /// What the audit log calls it.
    name: Arc<str>,
}

/// The tokens that one shard has borrowed and not used. The shard is its only writer.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Share(AtomicU64);

impl Limiter {
    /// A full bucket, for so many shards.
    pub fn new(rate: Rate, shards: usize, name: Arc<str>, at: Instant) -> Self {
        let shards = shards.max(1);
        let block = (rate.burst / (SHARES_PART * shards as u64)).clamp(1, BLOCK_MAX);
        let shares = (0..shards).map(|_| Share::default()).collect();
        Limiter { bucket: Bucket::new(rate, at), block, shares, keyed: None, name }
    }

    /// The same with a bucket for each value of a key.
    pub fn keyed(self, keyed: Option<Keyed>) -> Self {
        Limiter { keyed, ..self }
    }

    /// Takes one token for a request; else how long it takes until there is one.
    fn admit(&self, request: &RequestView<'_>, principal: &Principal, at: Instant) -> Result<(), Duration> {
        match self.place(request, principal) {
            Some((keyed, key)) => keyed.take(key, self.bucket.rate(), at),
            None => self.take(request.shard, at),
        }
    }

    /// Gives a token back that its request did not need.
    fn give_back(&self, request: &RequestView<'_>, principal: &Principal) {
        match self.place(request, principal) {
            Some((keyed, key)) => keyed.give_back(&key),
            None => {
                let share = &self.shares[request.shard % self.shares.len()].0;
                share.store(share.load(Relaxed) + 1, Relaxed);
            }
        }
    }

    /// The bucket of a request, where it has one of its own.
    fn place(&self, request: &RequestView<'_>, principal: &Principal) -> Option<(&Keyed, Key)> {
        let keyed = self.keyed.as_ref()?;
        Some((keyed, keyed.key_of(&Facts::new(Some(*request), principal))?))
    }

    /// Takes one token of the bucket for all on this shard; else how long it takes until there is one.
    pub fn take(&self, shard: usize, at: Instant) -> Result<(), Duration> {
        let share = &self.shares[shard % self.shares.len()].0;
        let borrowed = share.load(Relaxed);
        if borrowed > 0 {
            share.store(borrowed - 1, Relaxed);
            return Ok(());
        }
        if self.block > 1 && self.bucket.take(self.block, at).is_ok() {
            share.store(self.block - 1, Relaxed);
            return Ok(());
        }
        // The last tokens go one by one: none is left lying while another shard needs it.
        self.bucket.take(1, at)
    }
}

impl LocalRateLimit {
    pub(super) fn request(&self, request: &RequestView<'_>, _: &Matched<'_>, changes: &mut Changes) -> Verdict {
        // Another shard has counted it.
        if request.again {
            return Verdict::Continue;
        }
        let now = agentlane_runtime::now();
        for (place, limiter) in self.0.iter().enumerate() {
            if let Err(wait) = limiter.admit(request, &changes.principal, now) {
                self.0[..place].iter().for_each(|passed| passed.give_back(request, &changes.principal));
                return Verdict::Refuse(Box::new(limiter.refusal(wait)));
            }
        }
        Verdict::Continue
    }
}

impl Limiter {
    fn refusal(&self, wait: Duration) -> Refusal {
        let seconds = (wait.as_millis().div_ceil(1000)).max(1).to_string();
        let fault = Fault::new(Kind::RateLimited, "too many requests").by(self.name.clone());
        Refusal::new(fault)
            .header("retry-after", seconds.clone())
            .header("x-ratelimit-limit", self.bucket.rate().burst.to_string())
            .header("x-ratelimit-remaining", Bytes::from_static(b"0"))
            .header("x-ratelimit-reset", seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(burst: u64, shards: usize, at: Instant) -> Limiter {
        let rate = Rate { burst, per_fill: burst, interval: Duration::from_secs(1) };
        Limiter::new(rate, shards, "test".into(), at)
    }

    #[test]
    fn shares_are_exact_within_their_part() {
        let start = Instant::now();
        for (burst, shards) in [(1, 4), (10, 1), (1_000, 4), (100_000, 8)] {
            let limiter = limiter(burst, shards, start);
            for second in 0..20 {
                let at = start + Duration::from_secs(second);
                // Shards of very different load.
                let passed = (0..4 * burst).filter(|n| limiter.take(n.trailing_zeros() as usize, at).is_ok()).count();
                let passed = passed as f64 / burst as f64;
                assert!((0.95..=1.05).contains(&passed), "{burst} over {shards} shards: {passed} in second {second}");
            }
        }
    }

    #[test]
    fn threads_share_one_bucket() {
        let start = Instant::now();
        let limiter = limiter(100_000, 4, start);
        let passed: usize = std::thread::scope(|scope| {
            let work = |shard| {
                let limiter = &limiter;
                scope.spawn(move || (0..100_000).filter(|_| limiter.take(shard, start).is_ok()).count())
            };
            let threads: Vec<_> = (0..4).map(work).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 100_000);
    }
}
