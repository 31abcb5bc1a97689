//! Server-sent events on the wire (HTML Standard 9.2): an incremental decoder and an encoder, both without copying the
//! usual single-line payload. Knows nothing of what an event carries.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The content type of an event stream.
pub const CONTENT_TYPE: &str = "text/event-stream";
/// A comment that keeps a silent stream alive and that every client ignores.
pub const KEEP_ALIVE: &[u8] = b":\n\n";
/// What one event may hold by default, in bytes.
pub const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One block of fields up to an empty line. A field that did not occur is `None`.
///
/// A browser dispatches a block only when it has `data` (an empty `data:` counts); one without data may still set the
/// last event id or the retry time, so it is given too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The last event id that this block sets; empty resets it.
    pub id: Option<Bytes>,
    /// The event type; `message` when absent.
    pub event: Option<Bytes>,
    /// The lines of data, joined by LF. A single line shares the buffer in which it arrived.
    pub data: Option<Bytes>,
    /// The reconnection time in milliseconds.
    pub retry: Option<u64>,
}

impl Event {
    /// An event that has only data.
    pub fn data(data: impl Into<Bytes>) -> Self {
        Event { data: Some(data.into()), ..Event::default() }
    }

    fn is_empty(&self) -> bool {
        self.id.is_none() && self.event.is_none() && self.data.is_none() && self.retry.is_none()
    }
}

/// Why a stream was refused, or an event not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SseError {
    /// An event is larger than the decoder's limit.
    EventTooLarge,
    /// An id or event type to be written holds a line break or NUL.
    Field,
}

impl fmt::Display for SseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SseError::EventTooLarge => "event too large",
            SseError::Field => "event field holds a line break",
        })
    }
}

impl std::error::Error for SseError {}

/// Decodes an event stream, cut anywhere.
///
/// Give it bytes with [`SseDecoder::push`], then take events with [`SseDecoder::next_event`] until it has none. What an
/// end of the stream leaves unfinished is dropped, as the standard says.
#[derive(Debug)]
pub struct SseDecoder {
    event_bytes_max: usize,
    /// Input not yet looked at.
    input: Bytes,
    /// The start of a line whose end has not come.
    line: BytesMut,
    event: Event,
    /// Second and later data lines; `event.data` is then unused.
    joined: BytesMut,
    /// Bytes held for the current event, the unfinished line aside.
    held: usize,
    /// The last line ended with CR: a LF that follows belongs to it.
    after_cr: bool,
    /// Bytes of the byte order mark seen, or `None` when the start of the stream is past.
    mark: Option<usize>,
}

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

impl Default for SseDecoder {
    fn default() -> Self {
        SseDecoder::new(EVENT_BYTES_MAX)
    }
}

impl SseDecoder {
    /// A decoder at the start of a stream that holds at most `event_bytes_max` bytes of one event.
    pub fn new(event_bytes_max: usize) -> Self {
        SseDecoder {
            event_bytes_max,
            input: Bytes::new(),
            line: BytesMut::new(),
            event: Event::default(),
            joined: BytesMut::new(),
            held: 0,
            after_cr: false,
            mark: Some(0),
        }
    }

    /// Adds the next bytes of the stream. Without a copy when all events were taken before.
    pub fn push(&mut self, bytes: Bytes) {
        if self.input.is_empty() {
            self.input = bytes;
        } else if !bytes.is_empty() {
            let mut both = BytesMut::with_capacity(self.input.len() + bytes.len());
            both.extend_from_slice(&self.input);
            both.extend_from_slice(&bytes);
            self.input = both.freeze();
        }
    }

    /// The next complete event, or `None` when more bytes are needed. After an error the decoder must not be used again.
    pub fn next_event(&mut self) -> Result<Option<Event>, SseError> {
        self.skip_mark();
        while let Some(line) = self.next_line()? {
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Ok(Some(event));
                }
            } else {
                self.field(&line)?;
            }
        }
        Ok(None)
    }

    /// Whether nothing is half received: the stream may end here without loss.
    pub fn is_idle(&self) -> bool {
        self.input.is_empty() && self.line.is_empty() && self.event.is_empty() && self.joined.is_empty()
    }

    /// One leading byte order mark is ignored; the start of one that is none begins the first line.
    fn skip_mark(&mut self) {
        while let Some(seen) = self.mark {
            let Some(&byte) = self.input.first() else {
                return;
            };
            if byte == BYTE_ORDER_MARK[seen] {
                self.input.advance(1);
                self.mark = (seen < 2).then_some(seen + 1);
            } else {
                self.line.extend_from_slice(&BYTE_ORDER_MARK[..seen]);
                self.mark = None;
            }
        }
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, SseError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        if std::mem::take(&mut self.after_cr) && self.input[0] == b'\n' {
            self.input.advance(1);
        }
        let Some(end) = memchr::memchr2(b'\r', b'\n', &self.input) else {
            self.check(self.line.len() + self.input.len())?;
            self.line.extend_from_slice(&self.input);
            self.input.clear();
            return Ok(None);
        };
        self.check(self.line.len() + end)?;
        let mut line = self.input.split_to(end);
        self.after_cr = self.input[0] == b'\r';
        self.input.advance(1);
        if !self.line.is_empty() {
            self.line.extend_from_slice(&line);
            line = self.line.split().freeze();
        }
        Ok(Some(line))
    }

    fn check(&self, line: usize) -> Result<(), SseError> {
        if self.held + line > self.event_bytes_max { Err(SseError::EventTooLarge) } else { Ok(()) }
    }

    fn field(&mut self, line: &Bytes) -> Result<(), SseError> {
        let colon = line.iter().take(6).position(|&byte| byte == b':').unwrap_or(line.len());
        let value = match line.get(colon + 1) {
            None => Bytes::new(),
            Some(b' ') => line.slice(colon + 2..),
            Some(_) => line.slice(colon + 1..),
        };
        match &line[..colon] {
            b"data" => self.data(value),
            b"event" => self.keep(|event| &mut event.event, value),
            b"id" if !value.contains(&0) => self.keep(|event| &mut event.id, value),
            b"retry" => {
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(&value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
                self.event.retry = number.or(self.event.retry);
            }
            // Comments and unknown fields hold no memory.
            _ => {}
        }
        // A field of one byte costs two: the joined line break.
        self.check(0)
    }

    fn keep(&mut self, slot: fn(&mut Event) -> &mut Option<Bytes>, value: Bytes) {
        self.held += value.len();
        if let Some(before) = slot(&mut self.event).replace(value) {
            self.held -= before.len();
        }
    }

    fn data(&mut self, value: Bytes) {
        self.held += value.len() + 1;
        match &self.event.data {
            None => self.event.data = Some(value),
            Some(first) => {
                if self.joined.is_empty() {
                    self.joined.reserve(first.len() + value.len() + 2);
                    self.joined.extend_from_slice(first);
                }
                self.joined.put_u8(b'\n');
                self.joined.extend_from_slice(&value);
            }
        }
    }

    fn dispatch(&mut self) -> Option<Event> {
        self.held = 0;
        let mut event = std::mem::take(&mut self.event);
        if !self.joined.is_empty() {
            event.data = Some(self.joined.split().freeze());
        }
        (!event.is_empty()).then_some(event)
    }
}

/// Appends `event` to `out` as parts to be sent in order and gives their bytes in sum.
///
/// The payload goes out as it is, between two small parts; data of several lines is copied, each line with its own
/// field name. `scratch` lends the memory of the small parts; what it holds already goes out, and counts, first.
pub fn encode(event: &Event, scratch: &mut BytesMut, out: &mut impl Extend<Bytes>) -> Result<usize, SseError> {
    for field in [&event.id, &event.event].into_iter().flatten() {
        if field.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(SseError::Field);
        }
    }
    for (name, value) in [(&b"id: "[..], &event.id), (&b"event: "[..], &event.event)] {
        if let Some(value) = value {
            scratch.extend_from_slice(name);
            scratch.extend_from_slice(value);
            scratch.put_u8(b'\n');
        }
    }
    if let Some(retry) = event.retry {
        scratch.extend_from_slice(b"retry: ");
        scratch.extend_from_slice(retry.to_string().as_bytes());
        scratch.put_u8(b'\n');
    }
    match &event.data {
        Some(data) if memchr::memchr2(b'\r', b'\n', data).is_none() => {
            scratch.extend_from_slice(b"data: ");
            let prefix = scratch.split().freeze();
            let bytes = prefix.len() + data.len() + 2;
            out.extend([prefix, data.clone(), Bytes::from_static(b"\n\n")]);
            return Ok(bytes);
        }
        Some(data) => lines(data, |line| {
            scratch.extend_from_slice(b"data: ");
            scratch.extend_from_slice(line);
            scratch.put_u8(b'\n');
        }),
        None => {}
    }
    scratch.put_u8(b'\n');
    let whole = scratch.split().freeze();
    let bytes = whole.len();
    out.extend([whole]);
    Ok(bytes)
}

/// The lines of `data`, ended by CRLF, LF or CR; the last one may be empty.
fn lines(mut data: &[u8], mut each: impl FnMut(&[u8])) {
    while let Some(end) = memchr::memchr2(b'\r', b'\n', data) {
        each(&data[..end]);
        let skip = if data[end..].starts_with(b"\r\n") { 2 } else { 1 };
        data = &data[end + skip..];
    }
    each(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<Event> {
        let mut decoder = SseDecoder::new(1024);
        let mut events = Vec::new();
        for piece in pieces {
            decoder.push(Bytes::copy_from_slice(piece));
            while let Some(event) = decoder.next_event().unwrap() {
                events.push(event);
            }
        }
        events
    }

    /// `id|event|data|retry`, a field that did not occur as `-`.
    #[track_caller]
    fn check(stream: &str, expected: &[&str]) {
        let show = |field: &Option<Bytes>| {
            field.as_ref().map_or("-".into(), |value| String::from_utf8_lossy(value).into_owned())
        };
        let text = |events: Vec<Event>| -> Vec<String> {
            let line = |e: &Event| {
                let retry = e.retry.map_or("-".into(), |retry| retry.to_string());
                format!("{}|{}|{}|{retry}", show(&e.id), show(&e.event), show(&e.data))
            };
            events.iter().map(line).collect()
        };
        let stream = stream.as_bytes();
        assert_eq!(text(decode(&[stream])), expected, "whole");
        for cut in 0..=stream.len() {
            assert_eq!(text(decode(&[&stream[..cut], &stream[cut..]])), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(text(decode(&bytes)), expected, "byte by byte");
    }

    #[test]
    fn fields_and_line_ends() {
        check("data: a\n\n", &["-|-|a|-"]);
        check("data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", &["-|-|a|-", "-|-|b|-", "-|-|c|-"]);
        check("data:a\r\rdata: b\r\n\r\n", &["-|-|a|-", "-|-|b|-"]);
        check("id: 7\r\nevent: message\r\ndata: {}\r\n\r\n", &["7|message|{}|-"]);
        check("data: a\ndata\ndata:  b\n\n", &["-|-|a\n\n b|-"]);
        check("data: YHOO\ndata: +2\ndata: 10\n\n", &["-|-|YHOO\n+2\n10|-"]);
        check("data:\n\ndata\ndata\n\n", &["-|-||-", "-|-|\n|-"]);
        check("id: 1\ndata:\n\n", &["1|-||-"]);
    }

    #[test]
    fn what_is_ignored() {
        check("\u{feff}data: a\n\n", &["-|-|a|-"]);
        check("\u{feff}\u{feff}data: a\n\n", &[]);
        check(": comment\n\n:\n:\n\ndata: a\n: in between\n\n", &["-|-|a|-"]);
        check("dat: x\ndatabase: y\nretry: 1x\nretry:\nid: a\0b\n\n", &[]);
        check("data: never finished\n", &[]);
        check("retry: 3000\n\nid\n\n", &["-|-|-|3000", "|-|-|-"]);
        check("event: a\nevent: b\nid: 1\nid: 2\n\n", &["2|b|-|-"]);
    }

    #[test]
    fn one_line_is_not_copied() {
        let stream = Bytes::from_static(b"data: payload\n\n");
        let mut decoder = SseDecoder::default();
        decoder.push(stream.clone());
        let data = decoder.next_event().unwrap().unwrap().data.unwrap();
        assert_eq!(data.as_ptr(), stream[6..].as_ptr());
        assert!(decoder.is_idle());
    }

    #[test]
    fn an_event_is_bounded_however_it_grows() {
        for piece in ["x", "data: 12345678\n", "data:\n", "event: 12345678\nid: 12345678\ndata: 1\n"] {
            let mut decoder = SseDecoder::new(64);
            let failed = (0..200).any(|_| {
                decoder.push(Bytes::from(piece));
                decoder.next_event().is_err()
            });
            assert!(failed, "{piece}");
        }
        let mut decoder = SseDecoder::new(64);
        for _ in 0..200 {
            decoder.push(Bytes::from_static(b": comment\ndata: 1\n\nevent: 12345678\n\n"));
            while decoder.next_event().unwrap().is_some() {}
        }
    }

    #[test]
    fn encoding_comes_back() {
        let some = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        for event in [
            Event::data("{}"),
            Event::data(""),
            Event::data("a\nb\n"),
            Event { id: some("1-2"), event: some("message"), data: some("x"), retry: Some(5) },
            Event { id: some(""), retry: Some(0), ..Event::default() },
        ] {
            let mut parts = Vec::new();
            let bytes = encode(&event, &mut BytesMut::new(), &mut parts).unwrap();
            let stream = parts.concat();
            assert_eq!(stream.len(), bytes);
            assert_eq!(decode(&[&stream]), [event]);
        }
        let crlf = Event::data("a\r\nb\rc");
        let mut parts = Vec::new();
        encode(&crlf, &mut BytesMut::new(), &mut parts).unwrap();
        assert_eq!(decode(&[&parts.concat()]), [Event::data("a\nb\nc")]);
        let bad = Event { id: some("a\ndata: b"), ..Event::default() };
        assert_eq!(encode(&bad, &mut BytesMut::new(), &mut Vec::new()), Err(SseError::Field));
    }
}
