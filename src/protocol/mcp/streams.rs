//! The server-to-client streams of one session and what was sent on them, so that a client can come back for the rest
//! (`Last-Event-ID`, MCP 2025-03-26 to 2025-11-25, "Resumability and Redelivery"). Pure and bounded: the oldest event
//! and the oldest ended stream leave first; a live stream stays. It knows neither connections nor what a message says.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::limits::{SESSION_STREAMS_MAX, STREAM_BYTES_MAX, STREAM_EVENTS_MAX};

/// The stream that a GET opens: messages that belong to no request.
pub const STANDALONE: u32 = 0;

/// Where a reader stands: it has seen every event of `stream` up to `seq`. As text: `<stream>-<seq>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    pub stream: u32,
    pub seq: u64,
}

impl EventId {
    pub fn parse(text: &[u8]) -> Option<EventId> {
        let text = std::str::from_utf8(text).ok()?;
        let (stream, seq) = text.split_once('-')?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(stream) || !digits(seq) {
            return None;
        }
        Some(EventId { stream: stream.parse().ok()?, seq: seq.parse().ok()? })
    }

    pub fn render(self) -> String {
        format!("{}-{}", self.stream, self.seq)
    }
}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Event(EventId, Bytes),
    /// Nothing yet.
    Wait,
    /// The stream has ended, and everything on it was read.
    End,
    /// Another reader took the stream over, or the stream is forgotten.
    Gone,
}

/// A reader's claim on a stream: the newest one wins, so that a client that reconnects is served at once and a message
/// is never written twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub stream: u32,
    generation: u32,
}

impl Claim {
    /// The claim of a writer whose reader has left: it holds nothing.
    pub fn absent(stream: u32) -> Self {
        Claim { stream, generation: 0 }
    }
}

struct Stream {
    id: u32,
    events: VecDeque<(u64, Bytes)>,
    bytes: usize,
    last_seq: u64,
    /// The newest event that was handed to a reader.
    read_seq: u64,
    ended: bool,
    generation: u32,
    claimed: bool,
}

/// All streams of one session.
#[derive(Default)]
pub struct Streams {
    streams: VecDeque<Stream>,
    last_id: u32,
}

impl Streams {
    /// A new stream, for one POST.
    pub fn open(&mut self) -> u32 {
        self.last_id += 1;
        self.insert(self.last_id);
        self.last_id
    }

    /// Appends a message; gives the id of its event. Events that do not fit the bounds push the oldest ones out, and
    /// the count of unread ones lost that way is told.
    pub fn push(&mut self, stream: u32, message: Bytes) -> (EventId, usize) {
        let stream = self.entry(stream);
        stream.last_seq += 1;
        stream.bytes += message.len();
        stream.events.push_back((stream.last_seq, message));
        let mut lost = 0;
        while stream.events.len() > STREAM_EVENTS_MAX || (stream.bytes > STREAM_BYTES_MAX && stream.events.len() > 1) {
            let Some((seq, message)) = stream.events.pop_front() else { break };
            stream.bytes -= message.len();
            lost += usize::from(seq > stream.read_seq);
        }
        (EventId { stream: stream.id, seq: stream.last_seq }, lost)
    }

    /// No more events will come.
    pub fn end(&mut self, stream: u32) {
        if let Some(stream) = self.find(stream) {
            stream.ended = true;
        }
    }

    /// Takes a stream over. `after`: the last event that the client has; without it the reader begins at what no reader
    /// was given yet. `None` when the stream or the events after that place are not there any more.
    pub fn claim(&mut self, stream: u32, after: Option<u64>) -> Option<Claim> {
        let stream = if stream == STANDALONE { self.entry(STANDALONE) } else { self.find(stream)? };
        if let Some(seq) = after {
            let oldest = stream.events.front().map_or(stream.last_seq + 1, |&(oldest, _)| oldest);
            if seq > stream.last_seq || seq + 1 < oldest {
                return None;
            }
            stream.read_seq = seq;
        }
        stream.generation += 1;
        stream.claimed = true;
        Some(Claim { stream: stream.id, generation: stream.generation })
    }

    /// The next event for a reader.
    pub fn next(&mut self, claim: Claim) -> Next {
        let Some(stream) = self.find(claim.stream) else { return Next::Gone };
        if stream.generation != claim.generation {
            return Next::Gone;
        }
        let unread = stream.events.partition_point(|&(seq, _)| seq <= stream.read_seq);
        match stream.events.get(unread) {
            Some((seq, message)) => {
                stream.read_seq = *seq;
                Next::Event(EventId { stream: claim.stream, seq: *seq }, message.clone())
            }
            None if stream.ended => Next::End,
            None => Next::Wait,
        }
    }

    /// The reader left; what it was given counts as read.
    pub fn release(&mut self, claim: Claim) {
        if let Some(stream) = self.find(claim.stream)
            && stream.generation == claim.generation
        {
            stream.claimed = false;
        }
    }

    /// Events that a present reader has yet to take; a writer that sees many waits.
    pub fn unread(&self, stream: u32) -> usize {
        self.streams
            .iter()
            .find(|candidate| candidate.id == stream && candidate.claimed)
            .map_or(0, |stream| stream.events.len() - stream.events.partition_point(|&(seq, _)| seq <= stream.read_seq))
    }

    /// Whether anything waits on a stream, whoever may come to read it.
    pub fn has_unread(&self, stream: u32) -> bool {
        let found = self.streams.iter().find(|candidate| candidate.id == stream);
        found.is_some_and(|stream| stream.events.back().is_some_and(|&(seq, _)| seq > stream.read_seq))
    }

    /// Whether the same message waits for a reader already.
    pub fn is_unread(&self, stream: u32, message: &[u8]) -> bool {
        let stream = self.streams.iter().find(|candidate| candidate.id == stream);
        stream.is_some_and(|stream| {
            let unread = stream.events.iter().rev().take_while(|(seq, _)| *seq > stream.read_seq);
            unread.into_iter().any(|(_, waiting)| waiting[..] == *message)
        })
    }

    /// Whether `claim` is still the newest one.
    pub fn holds(&self, claim: Claim) -> bool {
        self.streams.iter().any(|stream| stream.id == claim.stream && stream.generation == claim.generation)
    }

    /// Whether a reader of this stream is there.
    pub fn is_claimed(&self, stream: u32) -> bool {
        self.streams.iter().any(|known| known.id == stream && known.claimed)
    }

    /// Whether any reader is there.
    pub fn any_claimed(&self) -> bool {
        self.streams.iter().any(|stream| stream.claimed)
    }

    /// The place just before the next event of a stream: the id of a priming event.
    pub fn position(&mut self, stream: u32) -> EventId {
        let stream = self.entry(stream);
        EventId { stream: stream.id, seq: stream.last_seq }
    }

    fn find(&mut self, id: u32) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    fn entry(&mut self, id: u32) -> &mut Stream {
        let place = match self.streams.iter().position(|stream| stream.id == id) {
            Some(place) => place,
            None => self.insert(id),
        };
        &mut self.streams[place]
    }

    fn insert(&mut self, id: u32) -> usize {
        // Live streams stay: each belongs to a request in flight, and those are bounded.
        let over = |stream: &Stream| stream.ended && !stream.claimed;
        if self.streams.iter().filter(|stream| over(stream)).count() >= SESSION_STREAMS_MAX
            && let Some(oldest) = self.streams.iter().position(over)
        {
            self.streams.remove(oldest);
        }
        self.streams.push_back(Stream {
            id,
            events: VecDeque::new(),
            bytes: 0,
            last_seq: 0,
            read_seq: 0,
            ended: false,
            generation: 0,
            claimed: false,
        });
        self.streams.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(next: Next) -> String {
        match next {
            Next::Event(id, message) => format!("{} {}", id.render(), String::from_utf8_lossy(&message)),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_reader_that_returns_gets_exactly_the_rest() {
        let mut streams = Streams::default();
        let id = streams.open();
        let first = streams.claim(id, None).unwrap();
        streams.push(id, Bytes::from_static(b"a"));
        streams.push(id, Bytes::from_static(b"b"));
        assert_eq!(text(streams.next(first)), "1-1 a");
        assert_eq!(text(streams.next(first)), "1-2 b");
        assert_eq!(streams.next(first), Next::Wait);
        // The connection broke: `b` never arrived.
        streams.push(id, Bytes::from_static(b"c"));
        let second = streams.claim(id, Some(1)).unwrap();
        assert_eq!(streams.next(first), Next::Gone);
        assert_eq!(text(streams.next(second)), "1-2 b");
        assert_eq!(text(streams.next(second)), "1-3 c");
        streams.end(id);
        assert_eq!(streams.next(second), Next::End);
    }

    #[test]
    fn the_standalone_stream_queues_while_nobody_reads() {
        let mut streams = Streams::default();
        streams.push(STANDALONE, Bytes::from_static(b"a"));
        let claim = streams.claim(STANDALONE, None).unwrap();
        assert_eq!(text(streams.next(claim)), "0-1 a");
        streams.release(claim);
        streams.push(STANDALONE, Bytes::from_static(b"b"));
        let claim = streams.claim(STANDALONE, None).unwrap();
        assert_eq!(text(streams.next(claim)), "0-2 b");
        assert_eq!(streams.next(claim), Next::Wait);
    }

    #[test]
    fn bounds_push_the_oldest_out_and_say_so() {
        let mut streams = Streams::default();
        let id = streams.open();
        let lost: usize = (0..STREAM_EVENTS_MAX + 10).map(|_| streams.push(id, Bytes::from_static(b"x")).1).sum();
        assert_eq!(lost, 10);
        assert!(streams.claim(id, Some(3)).is_none(), "the events after 3 are gone");
        assert!(streams.claim(id, Some(10)).is_some());
        assert!(streams.claim(id, Some(10_000)).is_none(), "never sent");
        for _ in 0..3 * SESSION_STREAMS_MAX {
            let id = streams.open();
            streams.end(id);
        }
        assert!(streams.streams.len() <= SESSION_STREAMS_MAX + 2, "the live one, the newest, and the remembered ones");
        let big = Bytes::from(vec![0; STREAM_BYTES_MAX]);
        let id = streams.open();
        streams.push(id, big.clone());
        streams.push(id, big);
        assert!(streams.find(id).unwrap().bytes <= STREAM_BYTES_MAX);
    }

    #[test]
    fn streams_in_use_are_never_pushed_out() {
        let mut streams = Streams::default();
        let claims: Vec<Claim> = (0..4 * SESSION_STREAMS_MAX)
            .map(|_| {
                let stream = streams.open();
                streams.claim(stream, None).unwrap()
            })
            .collect();
        assert!(claims.iter().all(|&claim| streams.holds(claim)));
    }

    #[test]
    fn event_ids_are_read_strictly() {
        assert_eq!(EventId::parse(b"3-17"), Some(EventId { stream: 3, seq: 17 }));
        for bad in ["", "3", "-", "3-", "-3", "a-1", "1-+1", "+1-1", "99999999999-1", "1-2-3"] {
            assert_eq!(EventId::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
