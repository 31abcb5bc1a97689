//! Whether a child is well: it owes answers and has fallen silent, or nobody has used it for long. Looked at from time to
//! time; knows no child, no message and no clock.
//!
//! Silence alone is no sickness: a long call may have nothing to say. So a silent child is asked (`ping`, which every
//! revision with `initialize` has, and which is an answer even as the error that the method is unknown), and only one
//! that does not answer that either has hung.

use std::time::{Duration, Instant};

/// Looks per [`Vigil::hung_after`], and per idle time.
const LOOKS: u32 = 8;
const EVERY_MIN: Duration = Duration::from_millis(10);
const EVERY_MAX: Duration = Duration::from_secs(5);

/// What was seen of a child since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// It said something, whatever it was.
    pub heard: bool,
    /// It was sent a request.
    pub used: bool,
    /// Requests wait for it.
    pub owes: bool,
    /// It has asked something and waits for the answer.
    pub asks: bool,
    /// It must not be ended: somebody subscribed to what it has.
    pub held: bool,
}

/// What to do about a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    Nothing,
    Ping,
    /// It has hung.
    Replace,
    /// Nobody uses it.
    Rest,
}

/// The watch over one child.
#[derive(Debug)]
pub struct Vigil {
    hung_after: Duration,
    idle_after: Option<Duration>,
    used: Instant,
    /// A request that it was sent is followed by nothing so far.
    unanswered: bool,
    silent: Option<Instant>,
    pinged: Option<Instant>,
}

impl Vigil {
    pub fn new(hung_after: Duration, idle_after: Option<Duration>, now: Instant) -> Self {
        Vigil { hung_after, idle_after, used: now, unanswered: false, silent: None, pinged: None }
    }

    /// The time between two looks.
    pub fn every(&self) -> Duration {
        let least = self.idle_after.map_or(self.hung_after, |idle| idle.min(self.hung_after));
        (least / LOOKS).clamp(EVERY_MIN, EVERY_MAX)
    }

    pub fn look(&mut self, seen: Seen, now: Instant) -> Duty {
        // Beside what waits: a caller who gave up does not make the silence less.
        self.unanswered = (self.unanswered && !seen.heard) || seen.used;
        if seen.used {
            self.used = now;
        }
        if seen.heard || seen.asks || !(seen.owes || self.unanswered) {
            (self.silent, self.pinged) = (None, None);
        } else if let Some(duty) = self.silence(now) {
            return duty;
        }
        let unused = now.saturating_duration_since(self.used);
        match self.idle_after {
            Some(idle) if unused >= idle && !(seen.owes || seen.asks || seen.held) => Duty::Rest,
            _ => Duty::Nothing,
        }
    }

    /// Half of the time until the question, the other half for the answer. The second is counted from the question, since
    /// it may be the gateway that did not run meanwhile.
    fn silence(&mut self, now: Instant) -> Option<Duty> {
        let half = self.hung_after / 2;
        let silent = *self.silent.get_or_insert(now);
        match self.pinged {
            Some(pinged) if now.saturating_duration_since(pinged) >= half => Some(Duty::Replace),
            Some(_) => None,
            None if now.saturating_duration_since(silent) >= half => {
                self.pinged = Some(now);
                Some(Duty::Ping)
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Seen = Seen { heard: false, used: false, owes: false, asks: false, held: false };
    const OWES: Seen = Seen { owes: true, ..QUIET };

    /// Looks at these seconds with what is seen then, and compares the duties.
    fn check(idle: Option<u64>, looks: &[(u64, Seen, Duty)]) {
        let start = Instant::now();
        let mut vigil = Vigil::new(Duration::from_secs(8), idle.map(Duration::from_secs), start);
        for &(at, seen, duty) in looks {
            assert_eq!(vigil.look(seen, start + Duration::from_secs(at)), duty, "at {at} s, {seen:?}");
        }
    }

    #[test]
    fn a_silent_child_is_asked_and_then_replaced() {
        use Duty::*;
        check(None, &[(1, OWES, Nothing), (4, OWES, Nothing), (5, OWES, Ping), (8, OWES, Nothing), (9, OWES, Replace)]);
        // Whatever it says is a sign of life, and the next silence begins anew.
        let heard = Seen { heard: true, ..OWES };
        check(None, &[(1, OWES, Nothing), (5, OWES, Ping), (6, heard, Nothing), (7, OWES, Nothing), (11, OWES, Ping)]);
        // It waits for the client, and whoever owes nothing may be silent.
        check(None, &[(1, OWES, Nothing), (5, Seen { asks: true, ..OWES }, Nothing), (6, OWES, Nothing)]);
        check(None, &[(1, QUIET, Nothing), (60, QUIET, Nothing)]);
        // The gateway slept: the answer has its time all the same.
        check(None, &[(1, OWES, Nothing), (900, OWES, Ping), (901, OWES, Nothing), (904, OWES, Replace)]);
    }

    #[test]
    fn callers_who_give_up_do_not_hide_a_hung_child() {
        use Duty::*;
        let asked = Seen { used: true, owes: true, ..QUIET };
        check(None, &[(1, asked, Nothing), (2, QUIET, Nothing), (5, QUIET, Ping), (9, QUIET, Replace)]);
        check(None, &[(1, asked, Nothing), (2, Seen { heard: true, ..QUIET }, Nothing), (9, QUIET, Nothing)]);
    }

    #[test]
    fn an_unused_child_rests() {
        use Duty::*;
        let used = Seen { used: true, heard: true, ..QUIET };
        check(Some(3), &[(1, QUIET, Nothing), (2, used, Nothing), (4, QUIET, Nothing), (5, QUIET, Rest)]);
        let held = Seen { held: true, ..QUIET };
        let asks = Seen { asks: true, ..QUIET };
        check(Some(3), &[(3, held, Nothing), (4, asks, Nothing), (5, OWES, Nothing), (6, QUIET, Rest)]);
        check(None, &[(1_000, QUIET, Nothing)]);
    }

    #[test]
    fn looks_are_neither_too_many_nor_too_few() {
        let every = |hung, idle: Option<u64>| {
            Vigil::new(Duration::from_millis(hung), idle.map(Duration::from_millis), Instant::now()).every()
        };
        assert_eq!(every(60_000, None), EVERY_MAX);
        assert_eq!(every(60_000, Some(800)), Duration::from_millis(100));
        assert_eq!(every(1, None), EVERY_MIN);
    }
}
