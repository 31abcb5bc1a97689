//! A hashed timer wheel: who is to be woken at which tick. Pure: knows no clock, no driver and no shard.
//!
//! Insert, cancel and fire are O(1). A slot holds every timer whose tick is equal modulo [`SLOTS`]; one that is due in a
//! later round is looked at once per round (about ten seconds) and left where it is.

use std::task::Waker;

/// Slots of the wheel: one round is `SLOTS` ticks.
const SLOTS: usize = 1024;
const WORDS: usize = SLOTS / 64;
/// End of a list, and "in no list".
const NIL: u32 = u32::MAX;

/// A timer of one wheel. Its owner gives it back with [`Wheel::remove`], fired or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(u32);

struct Entry {
    due: u64,
    /// None: fired, or the entry is free.
    waker: Option<Waker>,
    previous: u32,
    next: u32,
}

pub(crate) struct Wheel {
    entries: Vec<Entry>,
    /// First free entry; free ones are linked through `next`.
    free: u32,
    /// First entry of each slot's list.
    heads: Box<[u32; SLOTS]>,
    /// Which slots are not empty.
    occupied: [u64; WORDS],
    /// The last tick that was advanced to.
    now: u64,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), free: NIL, heads: Box::new([NIL; SLOTS]), occupied: [0; WORDS], now: 0 }
    }

    /// Adds a timer. A tick that has passed already fires at the next advance.
    pub(crate) fn insert(&mut self, due: u64, waker: Waker) -> Key {
        let due = due.max(self.now + 1);
        let entry = Entry { due, waker: Some(waker), previous: NIL, next: NIL };
        let index = match self.free {
            NIL => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
            index => {
                self.free = self.entries[index as usize].next;
                self.entries[index as usize] = entry;
                index
            }
        };
        self.link(index);
        Key(index)
    }

    /// True once the timer has fired. Until then the waker is replaced when it is another task's.
    pub(crate) fn has_fired(&mut self, key: Key, waker: &Waker) -> bool {
        match &mut self.entries[key.0 as usize].waker {
            None => true,
            Some(known) => {
                known.clone_from(waker);
                false
            }
        }
    }

    /// Takes the timer out, fired or not.
    pub(crate) fn remove(&mut self, key: Key) {
        if self.entries[key.0 as usize].waker.take().is_some() {
            self.unlink(key.0);
        }
        self.entries[key.0 as usize].next = self.free;
        self.free = key.0;
    }

    /// The tick of the first slot that is not empty: no timer fires before it. None: no timer.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let start = (self.now + 1) as usize % SLOTS;
        let (first_word, bit) = (start / 64, start % 64);
        // The first word comes twice: its upper bits first, its lower bits at the end of the round.
        for step in 0..=WORDS {
            let index = (first_word + step) % WORDS;
            let mask = match step {
                0 => !0 << bit,
                WORDS => !(!0 << bit),
                _ => !0,
            };
            let word = self.occupied[index] & mask;
            if word != 0 {
                let slot = index * 64 + word.trailing_zeros() as usize;
                return Some(self.now + 1 + ((slot + SLOTS - start) % SLOTS) as u64);
            }
        }
        None
    }

    /// Fires everything that is due at `now`: the wakers are added to `fired`.
    pub(crate) fn advance(&mut self, now: u64, fired: &mut Vec<Waker>) {
        if now <= self.now {
            return;
        }
        let rounds = now - self.now;
        let first = self.now + 1;
        self.now = now;
        for tick in first..first + rounds.min(SLOTS as u64) {
            let slot = tick as usize % SLOTS;
            if self.occupied[slot / 64] & (1 << (slot % 64)) != 0 {
                self.fire(slot, fired);
            }
        }
    }

    fn fire(&mut self, slot: usize, fired: &mut Vec<Waker>) {
        let mut index = self.heads[slot];
        while index != NIL {
            let entry = &mut self.entries[index as usize];
            let next = entry.next;
            if entry.due <= self.now {
                fired.extend(entry.waker.take());
                self.unlink(index);
            }
            index = next;
        }
    }

    fn link(&mut self, index: u32) {
        let slot = self.entries[index as usize].due as usize % SLOTS;
        let head = self.heads[slot];
        self.entries[index as usize].next = head;
        if head != NIL {
            self.entries[head as usize].previous = index;
        }
        self.heads[slot] = index;
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    fn unlink(&mut self, index: u32) {
        let Entry { due, previous, next, .. } = self.entries[index as usize];
        let slot = due as usize % SLOTS;
        if next != NIL {
            self.entries[next as usize].previous = previous;
        }
        if previous != NIL {
            self.entries[previous as usize].next = next;
            return;
        }
        self.heads[slot] = next;
        if next == NIL {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn fired_at(wheel: &mut Wheel, tick: u64) -> usize {
        let mut fired = Vec::new();
        wheel.advance(tick, &mut fired);
        fired.len()
    }

    #[test]
    fn fires_at_its_tick_and_not_before() {
        let waker = Waker::from(Arc::new(Count::default()));
        for due in [1, 2, 63, 64, 65, 1023, 1024, 1025, 5000, 100_000] {
            let mut wheel = Wheel::new();
            let key = wheel.insert(due, waker.clone());
            assert!(wheel.next_due().is_some_and(|tick| tick <= due), "{due}");
            assert_eq!(fired_at(&mut wheel, due - 1), 0, "{due}");
            assert!(!wheel.has_fired(key, &waker));
            assert_eq!(wheel.next_due(), Some(due), "{due}");
            assert_eq!(fired_at(&mut wheel, due), 1, "{due}");
            assert!(wheel.has_fired(key, &waker));
            wheel.remove(key);
            assert_eq!(wheel.next_due(), None);
        }
    }

    #[test]
    fn a_jump_of_many_rounds_fires_everything_once() {
        let waker = Waker::from(Arc::new(Count::default()));
        let mut wheel = Wheel::new();
        for due in 1..=5000 {
            wheel.insert(due, waker.clone());
        }
        assert_eq!(fired_at(&mut wheel, 4999), 4999);
        assert_eq!(fired_at(&mut wheel, 90_000), 1);
    }

    #[test]
    fn cancelled_timers_are_gone_and_their_places_are_used_again() {
        let waker = Waker::from(Arc::new(Count::default()));
        let mut wheel = Wheel::new();
        for round in 0..100u64 {
            let keys: Vec<Key> = (0..100).map(|i| wheel.insert(round + 1 + i * 7 % 20, waker.clone())).collect();
            for key in keys {
                wheel.remove(key);
            }
            assert_eq!(wheel.next_due(), None);
            assert_eq!(fired_at(&mut wheel, round), 0);
        }
        assert_eq!(wheel.entries.len(), 100);
    }

    #[test]
    fn a_timer_of_the_past_fires_at_the_next_tick() {
        let waker = Waker::from(Arc::new(Count::default()));
        let mut wheel = Wheel::new();
        fired_at(&mut wheel, 50);
        wheel.insert(10, waker);
        assert_eq!(wheel.next_due(), Some(51));
        assert_eq!(fired_at(&mut wheel, 51), 1);
    }
}
