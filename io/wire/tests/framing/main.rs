//! The framing corpus: what each stream of bytes means, or why it is refused. Every case runs whole, cut once at every
//! position, and byte by byte; the verdict must not depend on the cuts.
//!
//! An expectation lists the messages in order, separated by `; `: the head (`GET / none keep`), then the body in
//! brackets when there is one. `!Kind` is a refusal, `...` an incomplete head at the end of the stream.

mod chunked;
mod requests;
mod responses;

use agentlane_wire::h1::{BodyDecoder, Decoded, Framing, H1Error, HeadLimits, HeadParser, Method};
use bytes::BytesMut;

/// A name, the stream, and what it means.
type Case = (&'static str, &'static [u8], &'static str);

const LIMITS: HeadLimits = HeadLimits { bytes: 512, start_line_bytes: 128, headers: 8 };

#[derive(Clone, Copy)]
enum Side {
    Requests,
    Responses(Method),
}

/// One direction of a connection, fed piece by piece.
struct Reader {
    side: Side,
    heads: HeadParser,
    body: Option<BodyDecoder>,
    buf: BytesMut,
    said: String,
    failed: bool,
}

impl Reader {
    fn feed(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        while !self.failed && self.step().unwrap_or_else(|error| self.fail(error)) {}
    }

    fn fail(&mut self, error: H1Error) -> bool {
        if self.body.take().is_some() {
            self.said.push(']');
        }
        self.separate();
        self.said.push('!');
        self.said.push_str(error.name());
        self.failed = true;
        false
    }

    fn separate(&mut self) {
        if !self.said.is_empty() {
            self.said.push_str("; ");
        }
    }

    /// Whether another step may be possible without more bytes.
    fn step(&mut self) -> Result<bool, H1Error> {
        let Some(body) = &mut self.body else {
            return self.head();
        };
        match body.decode(&mut self.buf)? {
            Decoded::Data(data) => {
                assert!(!data.is_empty());
                self.said.push_str(&String::from_utf8_lossy(&data));
            }
            Decoded::NeedMore => return Ok(false),
            Decoded::End => {
                self.said.push(']');
                self.body = None;
            }
        }
        Ok(true)
    }

    fn head(&mut self) -> Result<bool, H1Error> {
        let (text, framing, keep) = match self.side {
            Side::Requests => {
                let Some(head) = self.heads.request(&mut self.buf, &LIMITS)? else {
                    return Ok(false);
                };
                let go = if head.expect_continue { " continue" } else { "" };
                (format!("{} {}{go}", head.method_str(), head.path_and_query()), head.framing, head.keep_alive)
            }
            Side::Responses(method) => {
                let Some(head) = self.heads.response(&mut self.buf, &LIMITS, method)? else {
                    return Ok(false);
                };
                (head.status.to_string(), head.framing, head.keep_alive)
            }
        };
        self.separate();
        let framing_text = match framing {
            Framing::None => "none".into(),
            Framing::Length(length) => format!("length({length})"),
            Framing::Chunked => "chunked".into(),
            Framing::UntilClose => "close-delimited".into(),
        };
        self.said.push_str(&format!("{text} {framing_text} {}", if keep { "keep" } else { "close" }));
        if framing != Framing::None {
            self.said.push_str(" [");
            self.body = Some(BodyDecoder::new(framing));
        }
        Ok(true)
    }

    fn finish(mut self) -> String {
        if self.failed {
            return self.said;
        }
        match self.body.as_mut().map(BodyDecoder::eof) {
            Some(Err(error)) => {
                self.fail(error);
            }
            Some(Ok(())) => self.said.push(']'),
            None if !self.buf.is_empty() => {
                self.separate();
                self.said.push_str("...");
            }
            None => {}
        }
        self.said
    }
}

fn read(side: Side, pieces: &[&[u8]]) -> String {
    let mut reader = Reader {
        side,
        heads: HeadParser::default(),
        body: None,
        buf: BytesMut::new(),
        said: String::new(),
        failed: false,
    };
    for piece in pieces {
        reader.feed(piece);
    }
    reader.finish()
}

#[track_caller]
fn check(side: Side, cases: &[Case]) {
    check_after(b"", "", side, cases);
}

/// Like [`check`], each stream behind `prefix` and each expectation behind what that says.
#[track_caller]
fn check_after(prefix: &[u8], prefix_says: &str, side: Side, cases: &[Case]) {
    let mut wrong = Vec::new();
    for &(name, stream, expected) in cases {
        let stream = [prefix, stream].concat();
        let stream = stream.as_slice();
        let expected = format!("{prefix_says}{expected}");
        let mut verdicts = vec![("whole".to_string(), read(side, &[stream]))];
        for cut in 1..stream.len() {
            verdicts.push((format!("cut at {cut}"), read(side, &[&stream[..cut], &stream[cut..]])));
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        verdicts.push(("byte by byte".into(), read(side, &bytes)));
        if let Some((how, said)) = verdicts.into_iter().find(|(_, said)| *said != expected) {
            wrong.push(format!("{name} ({how})\n  expected {expected}\n  said     {said}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn requests() {
    check(Side::Requests, requests::START_LINES);
    check(Side::Requests, requests::HOSTS);
    check(Side::Requests, requests::HEADERS);
    check(Side::Requests, requests::FRAMING);
    check(Side::Requests, requests::LIMITS);
}

#[test]
fn chunked_bodies() {
    check_after(chunked::HEAD, chunked::HEAD_SAYS, Side::Requests, chunked::CASES);
}

#[test]
fn responses() {
    check(Side::Responses(Method::Get), responses::TO_GET);
    check(Side::Responses(Method::Head), responses::TO_HEAD);
    check(Side::Responses(Method::Connect), responses::TO_CONNECT);
}

#[test]
fn the_corpus_is_as_large_as_it_claims() {
    let tables = [
        requests::START_LINES,
        requests::HOSTS,
        requests::HEADERS,
        requests::FRAMING,
        requests::LIMITS,
        chunked::CASES,
        responses::TO_GET,
        responses::TO_HEAD,
        responses::TO_CONNECT,
    ];
    assert!(tables.iter().map(|table| table.len()).sum::<usize>() >= 150);
    let mut names: Vec<_> = tables.iter().flat_map(|table| table.iter().map(|case| case.0)).collect();
    names.sort_unstable();
    names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1], "two cases of one name"));
}

#[test]
fn a_slow_head_is_searched_once() {
    // 64 KiB, one byte at a time: a search from the start each time would look at two thousand million bytes.
    let limits = HeadLimits { bytes: 1 << 20, ..HeadLimits::default() };
    let mut heads = HeadParser::default();
    let mut buf = BytesMut::from("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    for _ in 0..65_536 {
        buf.extend_from_slice(b"y");
        assert!(heads.request(&mut buf, &limits).unwrap().is_none());
    }
    buf.extend_from_slice(b"\r\n\r\n");
    assert_eq!(heads.request(&mut buf, &limits).unwrap().unwrap().headers.len(), 2);
}

#[test]
fn huge_lengths_are_counted_not_allocated() {
    for framing in [Framing::Length(u64::MAX), Framing::Chunked] {
        let mut body = BodyDecoder::new(framing);
        let mut buf = BytesMut::new();
        if framing == Framing::Chunked {
            buf.extend_from_slice(b"ffffffffffffffff\r\n");
        }
        buf.extend_from_slice(b"abc");
        assert_eq!(body.decode(&mut buf).unwrap(), Decoded::Data("abc".into()));
        assert_eq!(body.remaining(), u64::MAX - 3);
        assert_eq!(body.eof(), Err(H1Error::Truncated));
    }
}

#[test]
fn drops_nothing_of_a_body_in_the_same_buffer() {
    let mut buf = BytesMut::from("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET");
    let head = HeadParser::default().request(&mut buf, &LIMITS).unwrap().unwrap();
    assert_eq!(&head.raw()[..], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(&buf[..], b"hiGET");
}

#[test]
fn every_error_has_a_status_and_a_message() {
    for error in H1Error::ALL {
        assert!(matches!(error.status(), 400 | 413 | 414 | 417 | 431 | 501 | 502 | 505), "{error:?}");
        assert!(!error.message().is_empty());
    }
}
