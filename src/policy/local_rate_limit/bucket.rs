//! A token bucket in one number that any thread may change: the tokens taken since the beginning. Pure: time is given.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How a bucket fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Most tokens that it holds, and what it begins with. At least 1.
    pub burst: u64,
    /// Tokens that each fill adds. At least 1.
    pub per_fill: u64,
    /// The time between two fills. Above zero.
    pub interval: Duration,
}

/// A bucket.
///
/// After `n` fills, `burst + n * per_fill` tokens may have been taken in all; and what would not have fitted is lost, so
/// that at least `n * per_fill` count as taken.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    /// When the interval before the first fill began.
    start: Instant,
    taken: AtomicU64,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate, start: Instant) -> Self {
        Bucket { rate, start, taken: AtomicU64::new(0) }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes tokens, all or none. None: how long it takes until there are so many, if the bucket can hold them.
    pub fn take(&self, tokens: u64, at: Instant) -> Result<(), Duration> {
        let (since, fills) = self.fills(at);
        let lost = fills.saturating_mul(self.rate.per_fill);
        let most = lost.saturating_add(self.rate.burst);
        let mut taken = self.taken.load(Relaxed);
        loop {
            let next = taken.max(lost).saturating_add(tokens);
            if next > most {
                return Err(self.wait(next - most, fills, since));
            }
            match self.taken.compare_exchange_weak(taken, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => taken = now,
            }
        }
    }

    /// How old it is, and how often it was filled.
    fn fills(&self, at: Instant) -> (Duration, u64) {
        let since = at.saturating_duration_since(self.start);
        (since, u64::try_from(since.as_nanos() / self.rate.interval.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Gives a token back that was taken and not used.
    pub fn give_back(&self) {
        // It never fails: there is a next value for each.
        let _ = self.taken.fetch_update(Relaxed, Relaxed, |taken| Some(taken.saturating_sub(1)));
    }

    /// Whether it holds as much as it can: a new one would be the same.
    pub fn is_full(&self, at: Instant) -> bool {
        self.taken.load(Relaxed) <= self.fills(at).1.saturating_mul(self.rate.per_fill)
    }

    /// Until so many tokens more have been added.
    fn wait(&self, missing: u64, fills: u64, since: Duration) -> Duration {
        let fill = fills.saturating_add(missing.div_ceil(self.rate.per_fill));
        let nanos = self.rate.interval.as_nanos().saturating_mul(u128::from(fill)).saturating_sub(since.as_nanos());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one token after the other at each moment (milliseconds), and tells how many there were.
    fn counts(rate: Rate, moments: &[u64]) -> Vec<u64> {
        let start = Instant::now();
        let bucket = Bucket::new(rate, start);
        let all = |at| (0..1_000).take_while(|_| bucket.take(1, at).is_ok()).count() as u64;
        moments.iter().map(|&moment| all(start + Duration::from_millis(moment))).collect()
    }

    #[test]
    fn it_fills_in_steps_and_never_above_its_size() {
        let rate = Rate { burst: 5, per_fill: 2, interval: Duration::from_millis(100) };
        assert_eq!(counts(rate, &[0, 50, 99, 100, 100, 350, 10_000, 10_099]), [5, 0, 0, 2, 0, 4, 5, 0]);
        // A fill above the size adds what fits.
        let rate = Rate { burst: 3, per_fill: 10, interval: Duration::from_secs(1) };
        assert_eq!(counts(rate, &[0, 999, 1_000, 1_001]), [3, 0, 3, 0]);
    }

    #[test]
    fn it_says_how_long_to_wait() {
        let start = Instant::now();
        let bucket = Bucket::new(Rate { burst: 5, per_fill: 2, interval: Duration::from_millis(100) }, start);
        assert_eq!(bucket.take(6, start), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(5, start), Ok(()));
        let at = start + Duration::from_millis(30);
        assert_eq!(bucket.take(1, at), Err(Duration::from_millis(70)));
        assert_eq!(bucket.take(5, at), Err(Duration::from_millis(270)));
    }

    #[test]
    fn a_long_life_overflows_nothing() {
        let start = Instant::now();
        // The most that a configuration may ask for.
        let bucket =
            Bucket::new(Rate { burst: 100_000_000, per_fill: 100_000_000, interval: Duration::from_millis(10) }, start);
        let late = start + Duration::from_secs(10 * 365 * 24 * 3_600);
        assert_eq!(bucket.take(100_000_000, late), Ok(()));
        assert_eq!(bucket.take(1, late), Err(Duration::from_millis(10)));
        assert_eq!(bucket.take(1, late + Duration::from_millis(10)), Ok(()));
    }
}
