//! Who is using one child, for whoever is not its owner: the shards that call it keep it from being ended for idling, and
//! control reads whose call a line of its standard error belongs to. No lock: a counter that every caller moves, and a
//! note that the child's owner alone writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

/// What a child writes comes over another way than its answers: a line that is read so soon after the only call's end
/// is taken for that call's.
const LATE: Duration = Duration::from_millis(100);
/// Set in the counter when the child takes no more.
const SHUT: usize = 1 << (usize::BITS - 1);

/// A client's request, as the log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallMark {
    /// See [`Session::serial`](super::Session); of a request without a session nothing.
    pub session: Option<u64>,
    /// The client's id, as JSON text.
    pub id: Bytes,
    pub method: &'static str,
}

/// The requests under way on one child.
#[derive(Debug, Default)]
pub struct Board {
    /// How many there are, and [`SHUT`].
    calls: AtomicUsize,
    only: ArcSwapOption<Only>,
}

/// The one request that what happens now belongs to.
#[derive(Debug)]
struct Only {
    mark: CallMark,
    /// It is answered, and counts until then.
    until: Option<Instant>,
}

/// A request on the board, until it is dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<Board>);

impl Board {
    /// Puts a request on the board; `None` when the child takes no more.
    pub fn begin(self: &Arc<Self>) -> Option<UnderWay> {
        let one_more = |calls: usize| (calls & SHUT == 0).then_some(calls + 1);
        self.calls.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(UnderWay(Arc::clone(self)))
    }

    /// Lets no more requests in, if none is under way. From then on none ever is.
    pub fn shut_if_unused(&self) -> bool {
        self.calls.compare_exchange(0, SHUT, Ordering::AcqRel, Ordering::Acquire).is_ok()
            || self.calls.load(Ordering::Acquire) == SHUT
    }

    /// The child's owner says whose request alone the child works on; `None`: nobody's, or not one's alone.
    pub fn works_on(&self, mark: Option<CallMark>) {
        self.only.store(mark.map(|mark| Arc::new(Only { mark, until: None })));
    }

    /// The child's owner says that the child works on nothing any more, and on whose request it did alone.
    pub fn rests_after(&self, mark: Option<CallMark>, now: Instant) {
        self.only.store(mark.map(|mark| Arc::new(Only { mark, until: Some(now + LATE) })));
    }

    /// The one request that what is happening now belongs to.
    pub fn only(&self, now: Instant) -> Option<CallMark> {
        let only = self.only.load();
        only.as_ref().filter(|only| only.until.is_none_or(|until| now < until)).map(|only| only.mark.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answered_request_counts_for_a_moment() {
        let (board, now) = (Board::default(), Instant::now());
        let mark = CallMark { session: Some(7), id: Bytes::from_static(b"1"), method: "tools/call" };
        assert_eq!(board.only(now), None);
        board.works_on(Some(mark.clone()));
        assert_eq!(board.only(now + 10 * LATE), Some(mark.clone()));
        board.rests_after(Some(mark.clone()), now);
        assert_eq!(board.only(now), Some(mark), "what was written before the answer may be read after it");
        assert_eq!(board.only(now + LATE), None);
        board.works_on(None);
        assert_eq!(board.only(now), None);
    }

    #[test]
    fn a_child_in_use_is_not_shut() {
        let board = Arc::<Board>::default();
        let call = board.begin();
        assert!(!board.shut_if_unused());
        assert!(board.begin().is_some());
        drop(call);
        assert!(board.shut_if_unused());
        assert!(board.shut_if_unused(), "it stays so");
        assert!(board.begin().is_none());
    }

    #[test]
    fn a_call_is_on_the_board_or_finds_it_shut() {
        for _ in 0..200 {
            let board = Arc::<Board>::default();
            let (mut shut, mut calls) = (false, 0);
            std::thread::scope(|scope| {
                let callers = [(); 2].map(|()| scope.spawn(|| board.begin()));
                let shutter = scope.spawn(|| board.shut_if_unused());
                // Held until everybody is done: a call that ended would let it be shut.
                let held = callers.map(|caller| caller.join().expect("no panic"));
                shut = shutter.join().expect("no panic");
                calls = held.iter().flatten().count();
            });
            assert!(if shut { calls == 0 } else { calls > 0 }, "shut {shut} with {calls} calls");
        }
    }
}
