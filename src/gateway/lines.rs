//! The process's standard streams as messages, one a line: a thread each, because files, pipes and terminals alike must do.
//! It knows nothing of what the lines say.

use std::io::{self, BufRead, Write};

use agentlane_runtime::channel::{self, Receiver, Sender};
use bytes::Bytes;

use crate::limits::STDIO_LINE_BYTES_MAX;
use crate::mesh::TooLong;

/// Sends every line of standard input, to its end.
pub fn read(lines: Sender<Result<Bytes, TooLong>>) -> io::Result<()> {
    let runtime = tokio::runtime::Handle::current();
    // Not joined: a read of a terminal ends when it likes.
    let reader = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            match next_line(&mut input) {
                Ok(Some(line)) => {
                    if runtime.block_on(lines.send(line)).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return tracing::warn!(%error, "standard input broke"),
            }
        }
    });
    reader.map(drop)
}

/// Writes messages to standard output, until there are no more or nobody takes them; then the channel that it gives closes.
pub fn write(messages: Receiver<Bytes>) -> io::Result<Receiver<()>> {
    let runtime = tokio::runtime::Handle::current();
    let (done, written) = channel::bounded::<()>(1);
    let writer = std::thread::Builder::new().name("stdout".to_owned()).spawn(move || {
        let _done = done;
        let mut output = io::stdout().lock();
        while let Some(message) = runtime.block_on(messages.recv()) {
            if let Err(error) = write_line(&mut output, &message) {
                return tracing::warn!(%error, "standard output broke");
            }
        }
    });
    writer.map(|_| written)
}

/// The next line that is not empty, without its end; `None` at the end of the input. What follows the last line break is
/// no line.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Result<Bytes, TooLong>>> {
    let mut line = Vec::new();
    let mut is_too_long = false;
    loop {
        let ready = match input.fill_buf() {
            Ok(ready) => ready,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if ready.is_empty() {
            return Ok(None);
        }
        let end = memchr::memchr(b'\n', ready);
        let part = &ready[..end.unwrap_or(ready.len())];
        is_too_long |= line.len() + part.len() > STDIO_LINE_BYTES_MAX;
        match is_too_long {
            true => line = Vec::new(),
            false => line.extend_from_slice(part),
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_none() {
            continue;
        }
        if is_too_long {
            return Ok(Some(Err(TooLong)));
        }
        if !line.trim_ascii().is_empty() {
            return Ok(Some(Ok(Bytes::from(line))));
        }
        line.clear();
    }
}

/// One message is one line: what JSON text has of line breaks is white space between tokens.
fn write_line(output: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let mut rest = message;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        output.write_all(&rest[..at])?;
        output.write_all(b" ")?;
        rest = &rest[at + 1..];
    }
    output.write_all(rest)?;
    output.write_all(b"\n")?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_their_ends() {
        let text = [b"{}\r\n\n  \n[1,\t2]\n".to_vec(), vec![b'x'; STDIO_LINE_BYTES_MAX + 1], b"\nlast\nrest".to_vec()]
            .concat();
        for capacity in [1 << 20, 8 * 1024] {
            let mut input = io::BufReader::with_capacity(capacity, &text[..]);
            let mut next = || next_line(&mut input).unwrap();
            assert_eq!(next(), Some(Ok(Bytes::from_static(b"{}\r"))));
            assert_eq!(next(), Some(Ok(Bytes::from_static(b"[1,\t2]"))));
            assert_eq!(next(), Some(Err(TooLong)));
            assert_eq!(next(), Some(Ok(Bytes::from_static(b"last"))));
            assert_eq!(next(), None);
        }
    }

    #[test]
    fn a_message_is_one_line() {
        let mut out = Vec::new();
        write_line(&mut out, b"{\r\n \"a\": 1\n}").unwrap();
        write_line(&mut out, b"{}").unwrap();
        assert_eq!(out, b"{   \"a\": 1 }\n{}\n");
    }
}
