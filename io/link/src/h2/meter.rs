//! How much of what a peer says is talk about the connection rather than work: frames that cost an answer or a look and
//! carry nothing. It reads the heads of frames (RFC 9113, 4.1) and nothing else; their meaning is the h2 crate's.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use smallvec::SmallVec;

/// Bytes that a client sends before its first frame (RFC 9113, 3.4).
const PREFACE_BYTES: u64 = 24;
/// A frame's head.
const HEAD_BYTES: usize = 9;
/// Sent bytes that give a peer one more frame of its own: it says how much of them it has read.
const BYTES_PER_FRAME: usize = 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// How much talk a peer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterLimits {
    /// Frames without work in a row: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, what is unknown.
    pub control_burst: u32,
    /// And how many are forgotten in a second.
    pub control_per_second: u32,
    /// Streams that the peer resets in a row,
    pub resets_burst: u32,
    /// and how many are forgotten in a second.
    pub resets_per_second: u32,
}

impl Default for MeterLimits {
    fn default() -> Self {
        MeterLimits { control_burst: 1_000, control_per_second: 100, resets_burst: 500, resets_per_second: 50 }
    }
}

/// One connection's count.
pub(super) struct Meter {
    limits: MeterLimits,
    state: RefCell<State>,
    sent: Cell<usize>,
    excess: Cell<bool>,
}

struct State {
    /// Bytes to pass over before the next head.
    skip: u64,
    head: SmallVec<[u8; HEAD_BYTES]>,
    control: u32,
    resets: u32,
    /// When the counts were lowered last.
    lowered: Option<Instant>,
}

impl Meter {
    pub(super) fn new(limits: MeterLimits) -> Self {
        let state = State { skip: PREFACE_BYTES, head: SmallVec::new(), control: 0, resets: 0, lowered: None };
        Meter { limits, state: RefCell::new(state), sent: Cell::new(0), excess: Cell::new(false) }
    }

    /// Whether there was more than may be.
    pub(super) fn is_exceeded(&self) -> bool {
        self.excess.get()
    }

    /// Notes bytes that went to the peer.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get().saturating_add(bytes));
    }

    /// Notes bytes that came, all of them and in order.
    pub(super) fn received(&self, mut bytes: &[u8], now: Instant) {
        let mut state = self.state.borrow_mut();
        let sent = self.sent.replace(0);
        self.sent.set(sent % BYTES_PER_FRAME);
        state.control = state.control.saturating_sub(u32::try_from(sent / BYTES_PER_FRAME).unwrap_or(u32::MAX));
        self.forget(&mut state, now);
        while !bytes.is_empty() {
            let skipped = state.skip.min(bytes.len() as u64);
            state.skip -= skipped;
            bytes = &bytes[skipped as usize..];
            let wanted = (HEAD_BYTES - state.head.len()).min(bytes.len());
            state.head.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if state.head.len() == HEAD_BYTES {
                let head: [u8; HEAD_BYTES] = std::array::from_fn(|at| state.head[at]);
                state.head.clear();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                state.skip = u64::from(length);
                self.count(&mut state, length, head[3], head[4]);
            }
        }
    }

    fn count(&self, state: &mut State, length: u32, kind: u8, flags: u8) {
        match kind {
            HEADERS | CONTINUATION => {}
            DATA if length > 0 || flags & END_STREAM != 0 => {}
            RST_STREAM => state.resets += 1,
            _ => state.control += 1,
        }
        if state.control > self.limits.control_burst || state.resets > self.limits.resets_burst {
            self.excess.set(true);
        }
    }

    fn forget(&self, state: &mut State, now: Instant) {
        let Some(before) = state.lowered else { return state.lowered = Some(now) };
        let millis = now.saturating_duration_since(before).as_millis();
        let forgotten = |per_second: u32| u32::try_from(millis * u128::from(per_second) / 1000).unwrap_or(u32::MAX);
        // In steps that leave no fraction behind.
        if millis >= 100 {
            state.control = state.control.saturating_sub(forgotten(self.limits.control_per_second));
            state.resets = state.resets.saturating_sub(forgotten(self.limits.resets_per_second));
            state.lowered = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: MeterLimits =
        MeterLimits { control_burst: 10, control_per_second: 10, resets_burst: 3, resets_per_second: 1 };

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + payload, 4);
        frame
    }

    fn meter(now: Instant) -> Meter {
        let meter = Meter::new(LIMITS);
        meter.received(&[b'x'; PREFACE_BYTES as usize], now);
        meter
    }

    #[test]
    fn talk_has_an_end_and_work_has_none() {
        let now = Instant::now();
        // PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, PRIORITY_UPDATE.
        for (kind, payload) in [(6, 8), (4, 0), (2, 5), (8, 4), (0, 0), (16, 9)] {
            let meter = meter(now);
            (0..10).for_each(|_| meter.received(&frame(kind, 0, payload), now));
            assert!(!meter.is_exceeded(), "{kind}");
            meter.received(&frame(kind, 0, payload), now);
            assert!(meter.is_exceeded(), "{kind}");
        }
        for (kind, flags, payload) in [(1, 5, 20), (0, 0, 3), (0, 1, 0), (9, 4, 100)] {
            let meter = meter(now);
            (0..1000).for_each(|_| meter.received(&frame(kind, flags, payload), now));
            assert!(!meter.is_exceeded(), "{kind}");
        }
        let meter = meter(now);
        (0..4).for_each(|_| meter.received(&frame(3, 0, 4), now));
        assert!(meter.is_exceeded());
    }

    #[test]
    fn time_and_sent_bytes_forgive() {
        let mut now = Instant::now();
        let slow = meter(now);
        for _ in 0..100 {
            now += Duration::from_millis(100);
            slow.received(&frame(6, 0, 8), now);
        }
        assert!(!slow.is_exceeded());
        let reader = meter(now);
        for _ in 0..1000 {
            reader.sent(4096);
            reader.received(&frame(8, 0, 4), now);
        }
        assert!(!reader.is_exceeded());
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let now = Instant::now();
        for size in 1..40 {
            let meter = Meter::new(LIMITS);
            let mut bytes = vec![b'x'; PREFACE_BYTES as usize];
            (0..3).for_each(|_| bytes.extend(frame(3, 0, 4)));
            (0..10).for_each(|_| bytes.extend(frame(6, 0, 8)));
            bytes.chunks(size).for_each(|chunk| meter.received(chunk, now));
            assert!(!meter.is_exceeded(), "{size}");
            frame(3, 0, 4).chunks(size).for_each(|chunk| meter.received(chunk, now));
            assert!(meter.is_exceeded(), "{size}");
        }
    }
}
