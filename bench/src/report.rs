//! What the samples say: medians, ranges, and ratios to the forward of the same round. It measures nothing.

use crate::compare::{Plan, Sample};
use crate::peers::{Scenario, forward};
use agentlane_perf::Host;
use serde::Serialize;
use std::fmt::Write;

/// The median and the extremes of a figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// One peer in one scenario, over all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub scenario: Scenario,
    pub peer: &'static str,
    /// CPU microseconds per request.
    pub cpu_us: Spread,
    /// To the forward of the same bytes in the same round; `None` if there was no forward.
    pub ratio: Option<Spread>,
    /// The least CPU time of all rounds to the forward's least: noise only ever adds, so this is the ratio of a quieter machine.
    pub ratio_of_least: Option<f64>,
    pub requests_per_second: Spread,
    pub p50_us: Spread,
    pub p99_us: Spread,
    pub failed: u64,
    pub failures: Vec<(&'static str, u64)>,
}

/// Everything about one comparison, as it is written to a file.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    pub version: &'static str,
    pub host: String,
    pub plan: &'a Plan,
    pub summary: &'a [Line],
    pub samples: &'a [Sample],
}

impl<'a> Record<'a> {
    pub fn new(host: &Host, plan: &'a Plan, summary: &'a [Line], samples: &'a [Sample]) -> Record<'a> {
        Record { version: env!("CARGO_PKG_VERSION"), host: host.to_string(), plan, summary, samples }
    }
}

/// One line per scenario and peer, in the order of the scenarios and of the peers' first appearance.
pub fn summarize(samples: &[Sample]) -> Vec<Line> {
    let mut peers: Vec<&'static str> = Vec::new();
    for sample in samples {
        if !peers.contains(&sample.peer) {
            peers.push(sample.peer);
        }
    }
    // The rounds shift their order: the forward is the floor, and stands first wherever it began.
    peers.sort_by_key(|peer| (*peer != forward::NAME, *peer));
    let lines = Scenario::ALL.into_iter().flat_map(|scenario| peers.iter().map(move |peer| (scenario, *peer)));
    lines.filter_map(|(scenario, peer)| line(samples, scenario, peer)).collect()
}

/// Above this share of waiting, figures of different proxies can no longer be told apart by tenths.
const WAITED_MAX: f64 = 0.03;

/// A sentence about the machine, if it was too busy for the figures to hold.
pub fn noise(samples: &[Sample]) -> Option<String> {
    let waited = Spread::of(samples.iter().map(|sample| sample.waited).collect())?;
    (waited.median > WAITED_MAX).then(|| {
        let (median, max) = (waited.median * 100.0, waited.max * 100.0);
        format!("WARNING: something else had the proxy's CPU for {median:.0} % of the time (up to {max:.0} %): run this on a quiet machine")
    })
}

/// A table for people.
pub fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<16} {:<10} {:>20} {:>20} {:>8} {:>9} {:>9} {:>9} {:>7}\n",
        "scenario", "proxy", "CPU us/request", "ratio to forward", "of least", "req/s", "p50 us", "p99 us", "failed"
    );
    for line in lines {
        let ratio = line.ratio.map_or_else(|| "-".into(), |ratio| spread(ratio, 2));
        let _ = writeln!(
            text,
            "{:<16} {:<10} {:>20} {:>20} {:>8} {:>9.0} {:>9.0} {:>9.0} {:>7}",
            line.scenario.name(),
            line.peer,
            spread(line.cpu_us, 1),
            ratio,
            line.ratio_of_least.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
            line.requests_per_second.median,
            line.p50_us.median,
            line.p99_us.median,
            line.failed
        );
        if line.failed > 0 {
            let kinds: Vec<String> = line.failures.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            let _ = writeln!(text, "{:<16} {:<10} FAILED REQUESTS: {}", "", "", kinds.join(", "));
        }
    }
    text
}

fn line(samples: &[Sample], scenario: Scenario, peer: &'static str) -> Option<Line> {
    let own: Vec<&Sample> =
        samples.iter().filter(|sample| sample.scenario == scenario && sample.peer == peer).collect();
    let of = |figure: fn(&Sample) -> f64| Spread::of(own.iter().map(|sample| figure(sample)).collect());
    let least = |samples: &mut dyn Iterator<Item = &Sample>| samples.map(|sample| sample.cpu_us).reduce(f64::min);
    let floors =
        &mut samples.iter().filter(|other| other.scenario == scenario.baseline() && other.peer == forward::NAME);
    let ratio_of_least = least(&mut own.iter().copied()).zip(least(floors)).map(|(own, floor)| own / floor);
    let ratios = own.iter().filter_map(|sample| Some(sample.cpu_us / floor(samples, sample)?.cpu_us)).collect();
    Some(Line {
        scenario,
        peer,
        cpu_us: of(|sample| sample.cpu_us)?,
        ratio: Spread::of(ratios),
        ratio_of_least,
        requests_per_second: of(|sample| sample.requests_per_second)?,
        p50_us: of(|sample| sample.p50_us)?,
        p99_us: of(|sample| sample.p99_us)?,
        failed: own.iter().map(|sample| sample.failed).sum(),
        failures: add_up(&own),
    })
}

/// The forward's sample that this one is measured by: the same bytes, the same round.
fn floor<'a>(samples: &'a [Sample], sample: &Sample) -> Option<&'a Sample> {
    let same = |other: &&Sample| {
        other.round == sample.round && other.scenario == sample.scenario.baseline() && other.peer == forward::NAME
    };
    samples.iter().find(same)
}

fn add_up(samples: &[&Sample]) -> Vec<(&'static str, u64)> {
    let mut sums: Vec<(&'static str, u64)> = Vec::new();
    for (kind, count) in samples.iter().flat_map(|sample| &sample.failures) {
        match sums.iter_mut().find(|(known, _)| known == kind) {
            Some((_, sum)) => *sum += count,
            None => sums.push((kind, *count)),
        }
    }
    sums
}

impl Spread {
    /// `None` without figures.
    pub fn of(mut figures: Vec<f64>) -> Option<Spread> {
        figures.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median =
            if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 };
        Some(Spread { median, min, max })
    }
}

fn spread(spread: Spread, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$}-{:.digits$})", spread.median, spread.min, spread.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(peer: &'static str, scenario: Scenario, round: usize, cpu_us: f64) -> Sample {
        Sample {
            peer,
            scenario,
            round,
            cpu_us,
            waited: 0.0,
            requests: 1,
            requests_per_second: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            failed: 1,
            failures: vec![("status", 1)],
        }
    }

    #[test]
    fn a_busy_machine_is_told() {
        let mut samples = vec![sample("forward", Scenario::Plain, 0, 1.0)];
        assert_eq!(noise(&samples), None);
        samples[0].waited = 0.25;
        assert!(noise(&samples).is_some_and(|text| text.contains("25 %")));
    }

    #[test]
    fn medians() {
        let check = |figures: &[f64], median: f64| {
            assert_eq!(Spread::of(figures.to_vec()).map(|spread| spread.median), Some(median))
        };
        check(&[3.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 2.0, 3.0], 2.5);
        check(&[7.0], 7.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn ratios_pair_rounds_and_a_federation_is_measured_by_the_call() {
        let samples = [
            sample("gateway", Scenario::FederatedCall, 0, 30.0),
            sample("forward", Scenario::Call, 0, 10.0),
            sample("forward", Scenario::Plain, 0, 5.0),
            sample("gateway", Scenario::FederatedCall, 1, 30.0),
            sample("forward", Scenario::Call, 1, 20.0),
            sample("gateway", Scenario::Plain, 1, 9.0),
        ];
        let lines = summarize(&samples);
        let order: Vec<_> = lines.iter().map(|line| (line.scenario, line.peer)).collect();
        let expected = [
            (Scenario::Plain, "forward"),
            (Scenario::Plain, "gateway"),
            (Scenario::Call, "forward"),
            (Scenario::FederatedCall, "gateway"),
        ];
        assert_eq!(order, expected);
        assert_eq!(lines[3].ratio, Some(Spread { median: 2.25, min: 1.5, max: 3.0 }));
        assert_eq!(lines[1].ratio, None, "no forward of plain bytes in that round");
        assert_eq!(lines[3].failures, [("status", 2)]);
        assert!(table(&lines).contains("2.25 (1.50-3.00)"), "{}", table(&lines));
    }
}
