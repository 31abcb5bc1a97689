//! Counters, gauges and the registry that renders them for Prometheus. Knows no metric by name: each owner registers
//! its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::histogram::Histogram;

/// Series that a registry keeps. Past it a registration gets a cell that works but is not rendered, and is counted.
pub const SERIES_MAX: usize = 65_536;

/// The content type of what [`Registry::render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A number that only grows. One thread writes, any thread reads.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`: a relaxed load and a relaxed store, so a second writer would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The present value.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down. One thread writes, any thread reads.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Replaces the value.
    #[inline]
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `n`, which may be negative.
    #[inline]
    pub fn add(&self, n: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    #[inline]
    pub fn dec(&self) {
        self.add(-1);
    }

    /// The present value.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Every metric of the process, by name and labels.
///
/// Registering takes a lock and belongs to the moment when a shard applies a snapshot; the handle it gives is then used
/// without one. A shard registers on its own thread, so that its cells lie in memory of its own.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Families>);

#[derive(Debug, Default)]
struct Families {
    by_name: BTreeMap<&'static str, Family>,
    series: usize,
    refused: u64,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: Kind,
    /// By the rendered labels, without braces.
    series: BTreeMap<String, Cell>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Debug)]
enum Cell {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The counter of this name and these labels, made at the first call. By convention `name` ends in `_total`.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Counter {
        match self.cell(name, help, labels, Kind::Counter) {
            Some(Cell::Counter(counter)) => counter,
            _ => Counter::default(),
        }
    }

    /// The gauge of this name and these labels, made at the first call.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        match self.cell(name, help, labels, Kind::Gauge) {
            Some(Cell::Gauge(gauge)) => gauge,
            _ => Gauge::default(),
        }
    }

    /// The latency histogram of this name and these labels, made at the first call. By convention `name` ends in
    /// `_seconds`.
    pub fn histogram(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Histogram {
        match self.cell(name, help, labels, Kind::Histogram) {
            Some(Cell::Histogram(histogram)) => histogram,
            _ => Histogram::detached(),
        }
    }

    /// The present value of a counter or gauge; `None`: there is no such series.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<i64> {
        let families = self.lock();
        match families.by_name.get(name)?.series.get(&render_labels(labels))? {
            Cell::Counter(counter) => i64::try_from(counter.value()).ok(),
            Cell::Gauge(gauge) => Some(gauge.value()),
            Cell::Histogram(_) => None,
        }
    }

    /// Forgets every series whose handles are all gone: call it after all shards have dropped an old snapshot, so that
    /// reloads with new names do not grow the registry for ever. Gives the number of series forgotten.
    pub fn retire(&self) -> usize {
        let mut families = self.lock();
        let before = families.series;
        for family in families.by_name.values_mut() {
            family.series.retain(|_, cell| cell.handles() > 1);
        }
        families.by_name.retain(|_, family| !family.series.is_empty());
        families.series = families.by_name.values().map(|family| family.series.len()).sum();
        before - families.series
    }

    /// Everything in the Prometheus text format 0.0.4, families and series in a stable order.
    pub fn render(&self) -> String {
        let families = self.lock();
        let mut out = String::with_capacity(families.series * 96);
        for (name, family) in &families.by_name {
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", Help(family.help), family.kind.word());
            for (labels, cell) in &family.series {
                cell.render(name, labels, &mut out);
            }
        }
        let _ = writeln!(
            out,
            "# HELP agentlane_metrics_refused_total Series that were not kept because the registry is full.\n\
             # TYPE agentlane_metrics_refused_total counter\nagentlane_metrics_refused_total {}",
            families.refused
        );
        out
    }

    fn cell(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)], kind: Kind) -> Option<Cell> {
        debug_assert!(is_name(name), "not a metric name: {name}");
        debug_assert!(
            labels.iter().all(|(label, _)| is_name(label) && !label.contains(':')),
            "not a label name in {labels:?}"
        );
        let labels = render_labels(labels);
        let mut families = self.lock();
        let full = families.series >= SERIES_MAX;
        let family = families.by_name.entry(name).or_insert_with(|| Family { help, kind, series: BTreeMap::new() });
        if family.kind != kind {
            debug_assert!(false, "{name} is registered as a {}", family.kind.word());
            return None;
        }
        if let Some(cell) = family.series.get(&labels) {
            return Some(cell.clone());
        }
        if full {
            families.refused += 1;
            return None;
        }
        let cell = kind.cell();
        family.series.insert(labels, cell.clone());
        families.series += 1;
        Some(cell)
    }

    /// A panic while the lock was held leaves the maps usable: nothing here is half done between two statements.
    fn lock(&self) -> MutexGuard<'_, Families> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    fn cell(self) -> Cell {
        match self {
            Self::Counter => Cell::Counter(Counter::default()),
            Self::Gauge => Cell::Gauge(Gauge::default()),
            Self::Histogram => Cell::Histogram(Histogram::detached()),
        }
    }
}

impl Cell {
    fn handles(&self) -> usize {
        match self {
            Self::Counter(counter) => Arc::strong_count(&counter.0),
            Self::Gauge(gauge) => Arc::strong_count(&gauge.0),
            Self::Histogram(histogram) => histogram.handles(),
        }
    }

    fn render(&self, name: &str, labels: &str, out: &mut String) {
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let _ = match self {
            Self::Counter(counter) => {
                writeln!(out, "{name}{open}{labels}{close} {}", counter.value())
            }
            Self::Gauge(gauge) => writeln!(out, "{name}{open}{labels}{close} {}", gauge.value()),
            Self::Histogram(histogram) => {
                histogram.render(name, labels, out);
                Ok(())
            }
        };
    }
}

/// `a="x",b="y"`: sorted by name, so that the order of the caller makes no second series.
fn render_labels(labels: &[(&str, &str)]) -> String {
    let mut sorted = labels.to_vec();
    sorted.sort_unstable();
    let mut out = String::new();
    for (index, (name, value)) in sorted.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{name}=\"{}\"", LabelValue(value));
    }
    out
}

/// A label value: backslash, quote and line feed are escaped.
struct LabelValue<'a>(&'a str);

impl std::fmt::Display for LabelValue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

/// A help text: backslash and line feed are escaped, quotes are not.
struct Help(&'static str);

impl std::fmt::Display for Help {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn same_name_and_labels_share_a_cell() {
        let registry = Registry::new();
        let one = registry.counter("a_total", "help", &[("shard", "0"), ("route", "r")]);
        let two = registry.counter("a_total", "help", &[("route", "r"), ("shard", "0")]);
        let other = registry.counter("a_total", "help", &[("route", "r"), ("shard", "1")]);
        one.inc();
        two.add(2);
        assert_eq!((one.value(), other.value()), (3, 0));
        assert_eq!(registry.value("a_total", &[("route", "r"), ("shard", "0")]), Some(3));
        assert_eq!(registry.value("a_total", &[("route", "r")]), None);
    }

    #[test]
    fn renders_the_text_format() {
        let registry = Registry::new();
        registry.counter("requests_total", "Requests.\nAll \\ of \"them\".", &[("shard", "0")]).add(7);
        registry.counter("requests_total", "ignored", &[("shard", "1"), ("path", "a\\b\"c\nd")]).add(1);
        registry.gauge("sessions", "Open sessions.", &[]).set(-2);
        registry.histogram("latency_seconds", "Latency.", &[("shard", "0")]).record(Duration::from_millis(1));
        let text = registry.render();
        assert!(
            text.contains("# HELP requests_total Requests.\\nAll \\\\ of \"them\".\n# TYPE requests_total counter\n"),
            "{text}"
        );
        assert!(text.contains("requests_total{shard=\"0\"} 7\n"), "{text}");
        assert!(text.contains("requests_total{path=\"a\\\\b\\\"c\\nd\",shard=\"1\"} 1\n"), "{text}");
        assert!(text.contains("# TYPE sessions gauge\nsessions -2\n"), "{text}");
        assert!(text.contains("latency_seconds_count{shard=\"0\"} 1\n"), "{text}");
        assert_eq!(text.matches("# TYPE requests_total").count(), 1);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn a_full_registry_gives_cells_that_work_and_says_so() {
        let registry = Registry::new();
        let kept: Vec<_> =
            (0..SERIES_MAX).map(|n| registry.counter("n_total", "n", &[("n", &n.to_string())])).collect();
        let refused = registry.counter("n_total", "n", &[("n", "one more")]);
        refused.inc();
        assert_eq!(refused.value(), 1);
        let text = registry.render();
        assert!(!text.contains("one more"));
        assert!(text.contains("agentlane_metrics_refused_total 1\n"));
        drop(kept);
        assert_eq!(registry.retire(), SERIES_MAX);
        registry.counter("n_total", "n", &[("n", "one more")]);
        assert!(registry.render().contains("one more"));
    }

    #[test]
    fn retire_keeps_what_is_held() {
        let registry = Registry::new();
        let held = registry.gauge("held", "h", &[]);
        registry.gauge("gone", "g", &[]);
        assert_eq!(registry.retire(), 1);
        held.set(4);
        let text = registry.render();
        assert!(text.contains("held 4\n") && !text.contains("gone"), "{text}");
    }

    #[test]
    fn cells_are_read_while_written() {
        let registry = Registry::new();
        let counter = registry.counter("c_total", "c", &[]);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..10_000).for_each(|_| counter.inc()));
            (0..50).for_each(|_| assert!(registry.render().contains("c_total ")));
        });
        assert_eq!(counter.value(), 10_000);
    }
}
