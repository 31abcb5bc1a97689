//! Whether an address of a backend is asked at all. One that fails again and again is let rest, longer each time, and is
//! then tried with one request. Pure: outcomes and time are given; each shard judges by what it sees itself.

use std::time::{Duration, Instant};

/// How an address is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Failures in a row that evict it.
    pub failures: u32,
    /// How long it rests the first time.
    pub rest: Duration,
    /// Of the addresses of one host, how many may rest at once, in hundredths.
    pub rest_percent: u8,
}

/// Rests do not get longer than so many times the first one.
const REST_FACTOR_MAX: u32 = 10;

/// One address, as a shard sees it.
#[derive(Debug, Default)]
pub struct Circuit {
    /// Failures in a row.
    failures: u32,
    /// Rests in a row, which make the next one longer.
    rests: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Serving,
    Resting {
        until: Instant,
    },
    /// One request tries it; others wait for how it ends, or until then.
    Tried {
        until: Instant,
    },
}

impl Circuit {
    /// Whether a request may go there.
    pub fn is_open(&self, now: Instant) -> bool {
        match self.state {
            State::Serving => true,
            State::Resting { until } | State::Tried { until } => now >= until,
        }
    }

    /// Whether it rests, or has yet to prove itself.
    pub fn is_evicted(&self) -> bool {
        self.state != State::Serving
    }

    /// A request goes there. The first one after a rest is the trial.
    pub fn enter(&mut self, health: &Health, now: Instant) {
        if self.is_evicted() {
            self.state = State::Tried { until: now + health.rest };
        }
    }

    /// It answered. True: it has just come back.
    pub fn succeeded(&mut self) -> bool {
        self.failures = 0;
        let is_back = matches!(self.state, State::Tried { .. });
        if is_back {
            self.state = State::Serving;
        } else if self.state == State::Serving {
            self.rests = 0;
        }
        is_back
    }

    /// It failed. `may_rest`: not too many others rest. True: it has just been evicted.
    pub fn failed(&mut self, health: &Health, may_rest: bool, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        let is_due = match self.state {
            State::Serving => self.failures >= health.failures && may_rest,
            State::Tried { .. } => true,
            // An answer to what was asked before.
            State::Resting { .. } => false,
        };
        if is_due {
            self.rests = (self.rests + 1).min(REST_FACTOR_MAX);
            self.state = State::Resting { until: now + health.rest * self.rests };
        }
        is_due
    }

    /// A request ended without saying anything of it: its client left.
    pub fn unknown(&mut self, now: Instant) {
        if let State::Tried { .. } = self.state {
            self.state = State::Resting { until: now };
        }
    }

    /// How long until it may be tried.
    pub fn rests_for(&self, now: Instant) -> Duration {
        match self.state {
            State::Serving => Duration::ZERO,
            State::Resting { until } | State::Tried { until } => until.saturating_duration_since(now),
        }
    }
}

impl Health {
    /// Whether one more of `all` addresses may rest beside those that do.
    pub fn may_rest(&self, resting: usize, all: usize) -> bool {
        (resting + 1) * 100 <= all * usize::from(self.rest_percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTH: Health = Health { failures: 3, rest: Duration::from_secs(10), rest_percent: 100 };

    #[test]
    fn failures_in_a_row_evict_and_one_request_tries_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut circuit = Circuit::default();
        assert!(!circuit.failed(&HEALTH, true, at(0)) && !circuit.failed(&HEALTH, true, at(0)));
        assert!(!circuit.succeeded());
        assert!(!circuit.failed(&HEALTH, true, at(0)) && !circuit.failed(&HEALTH, true, at(0)));
        assert!(circuit.is_open(at(0)) && circuit.failed(&HEALTH, true, at(0)));
        assert!(!circuit.is_open(at(9)) && circuit.is_open(at(10)));
        circuit.enter(&HEALTH, at(10));
        assert!(!circuit.is_open(at(11)), "one tries it");
        assert!(circuit.failed(&HEALTH, true, at(11)), "one failure of the trial is enough");
        assert!(!circuit.is_open(at(30)) && circuit.is_open(at(31)), "the second rest is longer");
        circuit.enter(&HEALTH, at(31));
        assert!(circuit.succeeded() && !circuit.is_evicted());
        // Another fall is the third rest, a success on the way forgives.
        (0..2).for_each(|_| assert!(!circuit.failed(&HEALTH, true, at(40))));
        assert!(circuit.failed(&HEALTH, true, at(40)) && !circuit.is_open(at(69)));
        circuit.enter(&HEALTH, at(70));
        circuit.succeeded();
        circuit.succeeded();
        assert_eq!([80; 3].map(|second| circuit.failed(&HEALTH, true, at(second))), [false, false, true]);
        assert_eq!(circuit.rests_for(at(80)), Duration::from_secs(10));
    }

    #[test]
    fn a_trial_whose_client_leaves_is_followed_by_another() {
        let start = Instant::now();
        let mut circuit = Circuit::default();
        assert_eq!([start; 3].map(|at| circuit.failed(&HEALTH, true, at)), [false, false, true]);
        let later = start + HEALTH.rest;
        circuit.enter(&HEALTH, later);
        assert!(!circuit.is_open(later));
        circuit.unknown(later);
        assert!(circuit.is_open(later));
        // And one that never ends does not close it for ever.
        circuit.enter(&HEALTH, later);
        assert!(circuit.is_open(later + HEALTH.rest));
    }

    #[test]
    fn no_more_rest_than_may() {
        let start = Instant::now();
        let mut circuit = Circuit::default();
        (0..10).for_each(|_| assert!(!circuit.failed(&HEALTH, false, start)));
        assert!(circuit.is_open(start));
        let half = Health { rest_percent: 50, ..HEALTH };
        let allowed = |all| (0..all).take_while(|&resting| half.may_rest(resting, all)).count();
        assert_eq!([1, 2, 3, 4].map(allowed), [0, 1, 1, 2]);
        assert!(HEALTH.may_rest(0, 1));
    }
}
