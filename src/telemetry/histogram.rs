//! A latency histogram with fixed, log-spaced buckets and one writer. Knows nothing of names, labels or clocks.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Finite buckets. Bucket `i` holds what took at most `16 << i` microseconds: 16 us, 32 us, ... 33.6 s.
pub const BUCKETS: usize = 22;
const FIRST_BOUND_LOG2_US: u32 = 4;

/// A handle to one latency distribution.
///
/// Exactly one thread records (its shard); any thread may read. Recording is an index by leading zeros and two relaxed
/// loads and stores: no lock, no read-modify-write, no floating point.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Cells>);

#[derive(Debug)]
pub(super) struct Cells {
    /// The last one is the bucket of `+Inf`.
    counts: [AtomicU64; BUCKETS + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// A distribution that no registry renders.
    pub fn detached() -> Self {
        Self(Arc::new(Cells { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum_ns: AtomicU64::new(0) }))
    }

    /// Counts one measurement.
    #[inline]
    pub fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &self.0.counts[bucket_of(ns)];
        bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
        let sum = &self.0.sum_ns;
        sum.store(sum.load(Relaxed).saturating_add(ns), Relaxed);
    }

    /// How many measurements were recorded.
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|cell| cell.load(Relaxed)).sum()
    }

    pub(super) fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Appends the `_bucket`, `_sum` and `_count` lines; `labels` is rendered already, without braces, possibly empty.
    pub(super) fn render(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut seen = 0;
        for (index, cell) in self.0.counts.iter().enumerate() {
            seen += cell.load(Relaxed);
            let _ = match index < BUCKETS {
                true => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{}\"}} {seen}", Seconds(bound_ns(index))),
                false => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {seen}"),
            };
        }
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let sum = Seconds(self.0.sum_ns.load(Relaxed));
        let _ = writeln!(out, "{name}_sum{open}{labels}{close} {sum}\n{name}_count{open}{labels}{close} {seen}");
    }
}

/// Nanoseconds written as a decimal number of seconds without trailing zeros.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, mut part) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if part == 0 {
            return write!(f, "{whole}");
        }
        let mut digits = 9;
        while part % 10 == 0 {
            part /= 10;
            digits -= 1;
        }
        write!(f, "{whole}.{part:0digits$}")
    }
}

/// The bucket of a measurement: bounds are inclusive, so `ns` is rounded up to whole microseconds first.
#[inline]
fn bucket_of(ns: u64) -> usize {
    let below = ns.div_ceil(1000).saturating_sub(1);
    let bits = u64::BITS - below.leading_zeros();
    (bits.saturating_sub(FIRST_BOUND_LOG2_US) as usize).min(BUCKETS)
}

fn bound_ns(index: usize) -> u64 {
    1000 << (FIRST_BOUND_LOG2_US as usize + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        for index in 0..BUCKETS {
            assert_eq!(bucket_of(bound_ns(index)), index, "at bound {index}");
            assert_eq!(bucket_of(bound_ns(index) + 1), index + 1, "past bound {index}");
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS);
    }

    #[test]
    fn buckets_are_cumulative() {
        let latency = Histogram::detached();
        for us in [1, 16, 17, 1_000_000, 60_000_000] {
            latency.record(Duration::from_micros(us));
        }
        let mut out = String::new();
        latency.render("t", "shard=\"0\"", &mut out);
        assert!(out.contains("t_bucket{shard=\"0\",le=\"0.000016\"} 2\n"), "{out}");
        assert!(out.contains("t_bucket{shard=\"0\",le=\"0.000032\"} 3\n"), "{out}");
        assert!(out.contains("t_bucket{shard=\"0\",le=\"33.554432\"} 4\n"), "{out}");
        assert!(out.contains("t_bucket{shard=\"0\",le=\"+Inf\"} 5\n"), "{out}");
        assert!(out.contains("t_sum{shard=\"0\"} 61.000034\n"), "{out}");
        assert!(out.ends_with("t_count{shard=\"0\"} 5\n"), "{out}");
    }

    #[test]
    fn renders_without_labels() {
        let mut out = String::new();
        Histogram::detached().render("t", "", &mut out);
        assert!(out.starts_with("t_bucket{le=\"0.000016\"} 0\n"), "{out}");
        assert!(out.ends_with("t_sum 0\nt_count 0\n"), "{out}");
    }

    #[test]
    fn seconds_print_as_short_decimals() {
        for (ns, text) in [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (61_000_034_000, "61.000034")] {
            assert_eq!(Seconds(ns).to_string(), text);
        }
    }
}
