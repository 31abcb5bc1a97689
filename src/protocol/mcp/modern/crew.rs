//! How many processes serve the calls of one caller at once where each call has one to itself: few, because calls are mostly
//! short and a process takes long to start, and more where the calls are long. Pure: whoever asks says what time it is.

use std::time::{Duration, Instant};

use crate::limits::{
    CREW_FEW as FEW, CREW_MAX as MOST, CREW_PATIENCE as PATIENCE, CREW_STARTING as STARTING, CREW_WAITING_MAX,
};

/// How often a call that waits looks again, whatever it is told.
const AGAIN: Duration = Duration::from_millis(250);

/// The processes that calls have to themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crew {
    busy: usize,
    /// Of them, those that have not answered their first request.
    starting: usize,
    /// Calls that have none yet.
    waiting: usize,
}

/// What a call does that finds no process free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Start,
    /// Looks again, then at the latest.
    Wait(Instant),
}

impl Crew {
    /// For a call that has waited since `since`. `shards`: so many have crews of the same caller, and share the bounds.
    pub fn turn(&self, shards: usize, since: Instant, now: Instant) -> Turn {
        let own = |bound: usize| (bound / shards).max(1);
        let patient = since + PATIENCE;
        let is_free =
            self.busy < own(FEW) || (self.busy < own(MOST) && self.starting < own(STARTING) && now >= patient);
        match is_free {
            true => Turn::Start,
            false if now < patient => Turn::Wait(patient.min(now + AGAIN)),
            false => Turn::Wait(now + AGAIN),
        }
    }

    /// A call begins to wait. False: too many do.
    pub fn queue(&mut self) -> bool {
        let has_room = self.waiting < CREW_WAITING_MAX;
        self.waiting += usize::from(has_room);
        has_room
    }

    /// It waits no more.
    pub fn unqueue(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// A call has a process now; `fresh`: one that is being started.
    pub fn enter(&mut self, fresh: bool) {
        self.busy += 1;
        self.starting += usize::from(fresh);
    }

    /// A process that was being started works.
    pub fn started(&mut self) {
        self.starting = self.starting.saturating_sub(1);
    }

    /// A call has no process any more.
    pub fn leave(&mut self) {
        self.busy = self.busy.saturating_sub(1);
    }

    pub fn is_empty(&self) -> bool {
        self.busy == 0 && self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_gets_few_processes_and_a_long_wait_more() {
        let (since, mut crew) = (Instant::now(), Crew::default());
        for _ in 0..FEW {
            assert_eq!(crew.turn(1, since, since), Turn::Start);
            crew.enter(true);
        }
        assert_eq!(crew.turn(1, since, since), Turn::Wait(since + AGAIN));
        assert_eq!(crew.turn(1, since, since + AGAIN), Turn::Wait(since + PATIENCE));
        let late = since + PATIENCE;
        assert_eq!(crew.turn(1, since, late), Turn::Wait(late + AGAIN), "enough are being started");
        (0..FEW).for_each(|_| crew.started());
        assert_eq!(crew.turn(1, late, late), Turn::Wait(late + AGAIN), "it has only come");
        for _ in FEW..MOST {
            assert_eq!(crew.turn(1, since, late), Turn::Start);
            crew.enter(true);
            crew.started();
        }
        assert_eq!(crew.turn(1, since, late), Turn::Wait(late + AGAIN));
        crew.leave();
        assert_eq!(crew.turn(1, since, late), Turn::Start);
        assert_eq!(crew.turn(64, since, late), Turn::Wait(late + AGAIN), "others have theirs");
        (1..MOST).for_each(|_| crew.leave());
        assert_eq!(crew.turn(64, since, since), Turn::Start);
        assert!(crew.is_empty());
    }
}
