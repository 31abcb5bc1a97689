//! A response on its way in: interim heads, the final head, the body. Knows nothing of the request but its method.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use agentlane_runtime::{Parts, now};
use agentlane_wire::h1::{BodyDecoder, Decoded, Framing, H1Error, HeadParser, Known, Method, ResponseHead, list};
use bytes::{BufMut, Bytes, BytesMut};

use super::{ClientError, ClientErrorKind, ClientLimits, Progress};
use crate::source::{Source, Taken};

/// The receiving side of an upstream connection.
pub struct ResponseReader {
    pub(super) source: Source,
    limits: Rc<ClientLimits>,
    parser: HeadParser,
    decoder: BodyDecoder,
    method: Method,
    state: State,
    /// The connection may serve again after this message.
    keep_alive: bool,
    /// What the server says in Keep-Alive.
    pub(super) idle_hint: Option<Duration>,
    /// A byte of the current answer has come.
    answered: bool,
    pub(super) reused: bool,
    /// When the head must have come; the default is the limit's time after the reading begins.
    response_due: Option<Instant>,
    body_idle: Option<Duration>,
    /// When the whole response must have come.
    ends_by: Option<Instant>,
    /// 101 may come.
    pub(super) expects_upgrade: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No final head has come.
    Head,
    Body,
    Failed,
}

impl ResponseReader {
    pub(super) fn new(source: Source, limits: Rc<ClientLimits>, reused: bool) -> Self {
        ResponseReader {
            source,
            parser: HeadParser::default(),
            decoder: BodyDecoder::new(Framing::None),
            method: Method::Get,
            state: State::Head,
            keep_alive: false,
            idle_hint: None,
            answered: false,
            reused,
            response_due: None,
            body_idle: limits.body_idle,
            ends_by: None,
            expects_upgrade: false,
            limits,
        }
    }

    pub(super) fn reset(&mut self) {
        self.state = State::Head;
        self.answered = false;
        self.response_due = None;
        self.body_idle = self.limits.body_idle;
        self.ends_by = None;
        self.expects_upgrade = false;
    }

    pub(super) fn begin(&mut self, method: Method) {
        self.method = method;
    }

    /// Whether the response was read to its end.
    pub fn is_done(&self) -> bool {
        self.state == State::Body && self.decoder.is_done()
    }

    /// Whether the connection can serve again: a whole message, the server's consent, and no byte too many.
    pub(super) fn is_reusable(&self) -> bool {
        self.is_done()
            && self.keep_alive
            && self.source.buf.is_empty()
            && !self.source.is_over()
            && self.source.half.stream().is_none()
    }

    /// When the response head must have come, in place of the limit's time.
    pub fn set_response_deadline(&mut self, due: Option<Instant>) {
        self.response_due = due;
    }

    /// The limit on the time to the response head.
    pub(crate) fn response_time(&self) -> Duration {
        self.limits.response_time
    }

    /// How long the body may be silent, in place of the limit's time.
    pub fn set_body_idle(&mut self, idle: Option<Duration>) {
        self.body_idle = idle;
    }

    /// When the whole response must have come; for ever without one.
    pub fn set_end(&mut self, due: Option<Instant>) {
        self.ends_by = due;
    }

    /// The final response head. Interim ones are skipped, up to a limit.
    pub async fn head(&mut self) -> Result<ResponseHead, ClientError> {
        if self.state != State::Head {
            return Err(self.fail(ClientErrorKind::Request("response head was read")));
        }
        let due = self.response_due.or_else(|| now().checked_add(self.limits.response_time));
        let mut interim = 0;
        loop {
            match self.parser.response(&mut self.source.buf, &self.limits.head, self.method) {
                Err(error) => return Err(self.fail(ClientErrorKind::Malformed(error))),
                Ok(Some(head)) if head.is_interim() => {
                    interim += 1;
                    if interim > self.limits.interim_max {
                        return Err(self.fail(ClientErrorKind::TooManyInterim));
                    }
                }
                Ok(Some(head)) if head.status == 101 && self.expects_upgrade => {
                    // What follows is no HTTP: the connection never serves again.
                    self.state = State::Failed;
                    return Ok(head);
                }
                Ok(Some(head)) if head.status == 101 => return Err(self.fail(ClientErrorKind::UnexpectedUpgrade)),
                Ok(Some(head)) => {
                    self.begin_body(&head);
                    return Ok(head);
                }
                Ok(None) => self.fill(due, ClientErrorKind::ResponseTimeout).await?,
            }
        }
    }

    fn begin_body(&mut self, head: &ResponseHead) {
        self.state = State::Body;
        self.keep_alive = head.keep_alive;
        self.decoder = BodyDecoder::with_limits(head.framing, self.limits.chunks);
        if let Some(value) = head.headers.known(Known::KeepAlive) {
            self.idle_hint = list(value).find_map(timeout_parameter).map(Duration::from_secs);
        }
    }

    /// The next piece of the body, `None` at its end. Pieces share the read buffer and are never empty.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.step()? {
                Decoded::Data(data) => return Ok(Some(data)),
                Decoded::End => return Ok(None),
                Decoded::NeedMore => self.fill_body().await?,
            }
        }
    }

    /// The whole body in one piece, or [`H1Error::BodyTooLarge`] beyond `max` bytes.
    pub async fn all(&mut self, max: u64) -> Result<Bytes, ClientError> {
        if self.decoder.remaining() > max {
            return Err(self.fail(ClientErrorKind::Malformed(H1Error::BodyTooLarge)));
        }
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(data) = self.chunk().await? {
            if (first.len() + joined.len() + data.len()) as u64 > max {
                return Err(self.fail(ClientErrorKind::Malformed(H1Error::BodyTooLarge)));
            }
            if joined.is_empty() && first.is_empty() {
                first = data;
                continue;
            }
            if joined.is_empty() {
                joined.reserve(first.len() + data.len() + self.decoder.remaining().min(64 * 1024) as usize);
                joined.put(std::mem::take(&mut first));
            }
            joined.put(data);
        }
        Ok(if joined.is_empty() { first } else { joined.freeze() })
    }

    /// Takes what has come of the body, without waiting, up to `max` pieces.
    pub(crate) fn take_buffered(&mut self, parts: &mut Parts, max: usize) -> Result<Taken, ClientError> {
        while parts.len() < max {
            match self.step()? {
                Decoded::Data(data) => parts.push(data),
                Decoded::End => return Ok(Taken::Complete),
                Decoded::NeedMore => return Ok(Taken::Starved),
            }
        }
        Ok(if self.is_done() { Taken::Complete } else { Taken::Full })
    }

    /// Receives more of the body.
    pub(crate) async fn fill_body(&mut self) -> Result<(), ClientError> {
        let idle = self.body_idle.and_then(|idle| now().checked_add(idle));
        let due = idle.into_iter().chain(self.ends_by).min();
        self.fill(due, ClientErrorKind::BodyTimeout).await
    }

    fn step(&mut self) -> Result<Decoded, ClientError> {
        if self.state != State::Body {
            return Err(self.fail(ClientErrorKind::Request("response head was not read")));
        }
        let step = self.decoder.decode(&mut self.source.buf);
        step.map_err(|error| self.fail(ClientErrorKind::Malformed(error)))
    }

    async fn fill(&mut self, due: Option<Instant>, timeout: ClientErrorKind) -> Result<(), ClientError> {
        match self.source.fill(due, self.decoder.remaining()).await {
            Ok(0) if self.state == State::Body && self.decoder.eof().is_ok() => Ok(()),
            Ok(0) => Err(self.fail(ClientErrorKind::Closed)),
            Ok(_) => {
                self.answered = true;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(self.fail(timeout)),
            Err(error) => Err(self.fail(ClientErrorKind::Read(error.kind()))),
        }
    }

    /// An error of this exchange at its present progress; the connection will not serve again.
    pub(super) fn fail(&mut self, kind: ClientErrorKind) -> ClientError {
        self.state = State::Failed;
        let progress = match self.source.half.stream() {
            _ if self.answered => Progress::Answered,
            Some(stream) if stream.is_unprocessed() => Progress::NotSent,
            _ => Progress::Unanswered { reused: self.reused },
        };
        ClientError { kind, progress }
    }
}

/// `timeout=5` (RFC 2068 19.7.1.1).
fn timeout_parameter(item: &[u8]) -> Option<u64> {
    let (name, value) = item.split_at_checked(8)?;
    if !name.eq_ignore_ascii_case(b"timeout=") {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}
