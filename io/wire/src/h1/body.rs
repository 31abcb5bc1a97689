//! Finds the end of a body and unwraps chunks without copying (RFC 9112 6.3, 7.1). Knows nothing of heads.

use bytes::{Buf, Bytes, BytesMut};

use super::{Framing, H1Error, scan};

/// The limits of what a chunked body carries beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Bytes of one chunk-size line without CRLF.
    pub line_bytes: usize,
    /// Bytes of all chunk extensions of one body.
    pub extension_bytes: usize,
    /// Bytes of the trailer section.
    pub trailer_bytes: usize,
}

impl Default for ChunkLimits {
    fn default() -> Self {
        ChunkLimits { line_bytes: 1024, extension_bytes: 16 * 1024, trailer_bytes: 8 * 1024 }
    }
}

/// One step of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Body bytes, never empty, sharing the read buffer.
    Data(Bytes),
    /// The buffer holds no further body byte: read more.
    NeedMore,
    /// The message is complete. What is left in the buffer belongs to the next one.
    End,
}

/// Decodes one body from a read buffer.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    limits: ChunkLimits,
    /// Extension bytes of this body so far.
    extensions: usize,
    /// Trailer bytes of this body so far.
    trailers: usize,
    /// Bytes of the unfinished line already searched for its end.
    searched: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    ChunkLine,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
    Done,
}

impl BodyDecoder {
    /// A decoder for a body that is framed as a head said.
    pub fn new(framing: Framing) -> Self {
        Self::with_limits(framing, ChunkLimits::default())
    }

    /// Like [`BodyDecoder::new`] with other limits.
    pub fn with_limits(framing: Framing, limits: ChunkLimits) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkLine,
            Framing::UntilClose => State::UntilClose,
        };
        BodyDecoder { state, limits, extensions: 0, trailers: 0, searched: 0 }
    }

    /// Takes the next step from the front of `buf`.
    ///
    /// After an error the position in the stream is lost and the decoder must not be used again.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, H1Error> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::End),
                State::UntilClose if buf.is_empty() => return Ok(Decoded::NeedMore),
                State::UntilClose => return Ok(Decoded::Data(buf.split().freeze())),
                State::Length(left) => return Ok(self.data(buf, left, State::Length, State::Done)),
                State::ChunkData(left) => {
                    return Ok(self.data(buf, left, State::ChunkData, State::ChunkEnd));
                }
                State::ChunkLine => {
                    let Some(line) = self.line(buf, self.limits.line_bytes, H1Error::ChunkExtensionTooLarge)? else {
                        return Ok(Decoded::NeedMore);
                    };
                    let (size, extension) = chunk_line(&buf[..line])?;
                    self.extensions += extension;
                    if self.extensions > self.limits.extension_bytes {
                        return Err(H1Error::ChunkExtensionTooLarge);
                    }
                    buf.advance(line + 2);
                    self.state = if size == 0 { State::Trailer } else { State::ChunkData(size) };
                }
                State::ChunkEnd => {
                    match &buf[..] {
                        [] | [b'\r'] => return Ok(Decoded::NeedMore),
                        [b'\r', b'\n', ..] => buf.advance(2),
                        _ => return Err(H1Error::ChunkEnd),
                    }
                    self.state = State::ChunkLine;
                }
                State::Trailer => {
                    let room = self.limits.trailer_bytes - self.trailers;
                    let Some(line) = self.line(buf, room, H1Error::TrailerTooLarge)? else {
                        return Ok(Decoded::NeedMore);
                    };
                    if line == 0 {
                        self.state = State::Done;
                    } else {
                        trailer_line(&buf[..line])?;
                        // Checked against the room above, so that the subtraction there cannot wrap.
                        self.trailers = self.limits.trailer_bytes.min(self.trailers + line + 2);
                    }
                    buf.advance(line + 2);
                }
            }
        }
    }

    /// Tells that the peer closed its side. Ends a body that lasts until then; an error for any other incomplete body.
    pub fn eof(&mut self) -> Result<(), H1Error> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(H1Error::Truncated),
        }
    }

    /// Whether the message is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether only the peer's close ends this body.
    pub fn is_until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Body bytes known to be still to come: of the body when it has a length, of the current chunk otherwise. A hint
    /// for the size of the next read.
    pub fn remaining(&self) -> u64 {
        match self.state {
            State::Length(left) | State::ChunkData(left) => left,
            _ => 0,
        }
    }

    fn data(&mut self, buf: &mut BytesMut, left: u64, more: fn(u64) -> State, after: State) -> Decoded {
        if buf.is_empty() {
            return Decoded::NeedMore;
        }
        let take = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let left = left - take as u64;
        self.state = if left == 0 { after } else { more(left) };
        Decoded::Data(buf.split_to(take).freeze())
    }

    /// The length of the next line without its CRLF. Lines end with CRLF and hold neither CR nor LF.
    fn line(&mut self, buf: &[u8], max: usize, too_long: H1Error) -> Result<Option<usize>, H1Error> {
        let Some(offset) = memchr::memchr2(b'\r', b'\n', &buf[self.searched..]) else {
            self.searched = buf.len();
            return if buf.len() > max { Err(too_long) } else { Ok(None) };
        };
        let end = self.searched + offset;
        if end > max {
            return Err(too_long);
        }
        if buf[end] == b'\n' {
            return Err(H1Error::BareLf);
        }
        match buf.get(end + 1) {
            None => {
                self.searched = end;
                Ok(None)
            }
            Some(b'\n') => {
                self.searched = 0;
                Ok(Some(end))
            }
            Some(_) => Err(H1Error::BareCr),
        }
    }
}

/// `1*HEXDIG [";" extensions]`: the size and the bytes of the extensions. No white space around the size, which
/// parsers are known to read differently.
fn chunk_line(line: &[u8]) -> Result<(u64, usize), H1Error> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    if digits == 0 {
        return Err(H1Error::ChunkSize);
    }
    // 16 digits fill 64 bits; longer ones overflow or hide behind zeros.
    if digits > 16 {
        return Err(H1Error::ChunkSizeOverflow);
    }
    let size = line[..digits].iter().fold(0u64, |size, &byte| size << 4 | u64::from(hex(byte)));
    let extension = &line[digits..];
    let sound = match extension {
        [] => true,
        [b';', rest @ ..] => rest.iter().all(|&byte| scan::is_value_byte(byte)),
        _ => false,
    };
    if !sound {
        return Err(H1Error::ChunkSize);
    }
    Ok((size, extension.len()))
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Trailers are checked like headers and then dropped: none of them may change what the head said (RFC 9110 6.5.1).
fn trailer_line(line: &[u8]) -> Result<(), H1Error> {
    let colon = line.iter().position(|&byte| byte == b':').ok_or(H1Error::Trailer)?;
    let sound = scan::is_token(&line[..colon]) && line[colon + 1..].iter().all(|&byte| scan::is_value_byte(byte));
    if sound { Ok(()) } else { Err(H1Error::Trailer) }
}
