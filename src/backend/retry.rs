//! When a request is sent again, and how many of them may be: a budget keeps retries from being the load that keeps a
//! backend down. Pure: time is given.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::limits::{RETRY_RESERVE, RETRY_RESERVE_MAX};

/// How requests of a route are sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often in all, the first time included.
    pub attempts: u8,
    /// The pause before each but the first.
    pub backoff: Duration,
    /// Statuses that are asked again for.
    pub codes: Vec<u16>,
    /// Retries for a hundred requests, beside the reserve.
    pub budget_percent: u32,
}

/// What one shard may still send again for one route: a hundred is one retry.
#[derive(Debug)]
pub struct Budget {
    hundredths: Cell<u32>,
    filled: Cell<Option<Instant>>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { hundredths: Cell::new(RETRY_RESERVE * 100), filled: Cell::new(None) }
    }
}

impl Budget {
    /// A request came, by which the budget grows.
    pub fn request(&self, retry: &Retry) {
        self.add(retry.budget_percent);
    }

    /// Takes one retry, if there is one. One comes each second whatever the load, up to the reserve.
    pub fn take(&self, now: Instant) -> bool {
        let filled = self.filled.get().unwrap_or(now);
        let seconds = u32::try_from(now.saturating_duration_since(filled).as_secs()).unwrap_or(u32::MAX);
        self.filled.set(Some(filled + Duration::from_secs(u64::from(seconds))));
        let missing = (RETRY_RESERVE * 100).saturating_sub(self.hundredths.get());
        self.add(missing.min(seconds.saturating_mul(100)));
        match self.hundredths.get().checked_sub(100) {
            Some(left) => {
                self.hundredths.set(left);
                true
            }
            None => false,
        }
    }

    fn add(&self, hundredths: u32) {
        self.hundredths.set(self.hundredths.get().saturating_add(hundredths).min(RETRY_RESERVE_MAX * 100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_reserve_and_a_part_of_the_requests() {
        let retry = Retry { attempts: 2, backoff: Duration::ZERO, codes: Vec::new(), budget_percent: 20 };
        let budget = Budget::default();
        let start = Instant::now();
        let taken = |at| (0..1_000).take_while(|_| budget.take(at)).count();
        assert_eq!(taken(start), RETRY_RESERVE as usize);
        (0..50).for_each(|_| budget.request(&retry));
        assert_eq!(taken(start), 10);
        assert_eq!(taken(start + Duration::from_millis(2_500)), 2);
        assert_eq!(taken(start + Duration::from_millis(3_000)), 1);
        assert_eq!(taken(start + Duration::from_secs(3_600)), RETRY_RESERVE as usize);
        (0..100_000).for_each(|_| budget.request(&retry));
        assert_eq!(taken(start + Duration::from_secs(3_600)), RETRY_RESERVE_MAX as usize);
    }
}
