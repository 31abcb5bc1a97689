//! Who is using one child: written by the shards that call it, read by control, which puts the caller's name beside what
//! the child writes to its standard error. It also shuts the door behind a child that is ended because nobody uses it,
//! so that no call slips in meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agentlane_runtime as runtime;
use bytes::Bytes;

/// What a child writes comes over another way than its answers: a line that is read so soon after the only call's end
/// is taken for that call's.
const LATE: Duration = Duration::from_millis(100);

/// A client's request, as the log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallMark {
    /// See [`Session::serial`](super::Session).
    pub session: u64,
    /// The client's id, as JSON text.
    pub id: Bytes,
    pub method: &'static str,
}

/// The requests under way on one child.
#[derive(Debug, Default)]
pub struct Board(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    shut: bool,
    /// By the number that the child knows them by; the gateway's own have no mark.
    under_way: Vec<(u64, Option<CallMark>)>,
    /// The last one that ended when no other was under way, and when.
    last: Option<(Instant, CallMark)>,
}

/// A request on the board, until it is dropped.
#[derive(Debug)]
pub struct UnderWay {
    board: Arc<Board>,
    id: u64,
}

impl Board {
    /// Puts a request on the board; `None` when the child takes no more.
    pub fn begin(self: &Arc<Self>, id: u64, mark: Option<CallMark>) -> Option<UnderWay> {
        let mut state = self.lock();
        if state.shut {
            return None;
        }
        state.under_way.push((id, mark));
        drop(state);
        Some(UnderWay { board: Arc::clone(self), id })
    }

    /// Lets no more requests in, if none is under way. From then on none ever is.
    pub fn shut_if_unused(&self) -> bool {
        let mut state = self.lock();
        state.shut |= state.under_way.is_empty();
        state.shut
    }

    /// The one request that what is happening now belongs to.
    pub fn only(&self, now: Instant) -> Option<CallMark> {
        let state = self.lock();
        match state.under_way.as_slice() {
            [(_, mark)] => mark.clone(),
            [] => state.last.as_ref().filter(|(ended, _)| now < *ended + LATE).map(|(_, mark)| mark.clone()),
            _ => None,
        }
    }

    fn end(&self, id: u64, now: Instant) {
        let mut state = self.lock();
        let Some(place) = state.under_way.iter().position(|(other, _)| *other == id) else { return };
        let (_, mark) = state.under_way.swap_remove(place);
        let alone = state.under_way.is_empty();
        state.last = mark.filter(|_| alone).map(|mark| (now, mark));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.board.end(self.id, runtime::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(session: u64) -> CallMark {
        CallMark { session, id: Bytes::from_static(b"1"), method: "tools/call" }
    }

    #[test]
    fn the_only_one_is_named() {
        let (board, now) = (Arc::<Board>::default(), runtime::now());
        assert_eq!(board.only(now), None);
        let first = board.begin(1, Some(mark(7)));
        assert_eq!(board.only(now), Some(mark(7)));
        let second = board.begin(2, Some(mark(8)));
        assert_eq!(board.only(now), None, "either could be meant");
        drop(first);
        assert_eq!(board.only(now), Some(mark(8)));
        let own = board.begin(3, None);
        assert_eq!(board.only(now), None, "the gateway's own counts as well");
        drop(own);
        drop(second);
        let now = runtime::now();
        assert_eq!(board.only(now), Some(mark(8)), "what was written before the answer may be read after it");
        assert_eq!(board.only(now + LATE), None);
    }

    #[test]
    fn a_child_in_use_is_not_shut() {
        let board = Arc::<Board>::default();
        let call = board.begin(1, None);
        assert!(!board.shut_if_unused());
        assert!(board.begin(2, None).is_some());
        drop(call);
        assert!(board.shut_if_unused());
        assert!(board.begin(3, None).is_none());
    }
}
