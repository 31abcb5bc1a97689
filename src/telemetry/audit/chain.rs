//! The chain of one shard's audit records: each line ends in the hash of the line before and in its own, which covers all of
//! the line in front of it. Without a key anybody who may write the file can make the chain anew from a place on; with one,
//! only who has the key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ring::{digest, hmac};

/// SHA-256, or HMAC-SHA-256 with a key.
pub type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// What stands between a line and its hash.
const BEFORE_HASH: &str = ",\"hash\":\"";
/// From there to the end of the line, without the line break: the hash in hexadecimal, a quote and a brace.
pub(super) const TAIL: usize = BEFORE_HASH.len() + 2 * digest::SHA256_OUTPUT_LEN + 2;
/// Bytes at the end of a file in which its last line is looked for; longer than any line.
const LAST_LINE_BYTES: u64 = 128 * 1024;

/// How lines are hashed.
#[derive(Clone)]
pub enum Seal {
    Plain,
    Keyed(hmac::Key),
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Seal::Plain => "Plain",
            Seal::Keyed(_) => "Keyed(***)",
        })
    }
}

impl Seal {
    pub fn keyed(key: &[u8]) -> Self {
        Seal::Keyed(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Ends the line that begins at `begin` of `out`, up to its closing brace; gives its hash.
    pub(super) fn close(&self, begin: usize, before: &Digest, out: &mut Vec<u8>) -> Digest {
        // Writing into a Vec cannot fail.
        let _ = write!(out, ",\"prev\":\"{}\"", Hex(before));
        let hash = self.hash(&out[begin..]);
        let _ = write!(out, "{BEFORE_HASH}{}\"", Hex(&hash));
        hash
    }

    pub(super) fn hash(&self, line: &[u8]) -> Digest {
        let mut hash = Digest::default();
        match self {
            Seal::Plain => hash.copy_from_slice(digest::digest(&digest::SHA256, line).as_ref()),
            Seal::Keyed(key) => hash.copy_from_slice(hmac::sign(key, line).as_ref()),
        }
        hash
    }
}

/// A line without its own hash, and that hash as written; `None`: it does not end as chained lines do.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], &str)> {
    let (body, tail) = line.split_at_checked(line.len().checked_sub(TAIL)?)?;
    let hash = tail.strip_prefix(BEFORE_HASH.as_bytes())?.strip_suffix(b"\"}")?;
    Some((body, std::str::from_utf8(hash).ok()?))
}

/// The hash of a whole line, by which the next run of the process says what the file ended in.
pub(super) fn of_line(line: &[u8]) -> Digest {
    Seal::Plain.hash(line)
}

/// What the last line of a file hashes to; `None` where there is none.
pub fn last_line(path: &Path) -> io::Result<Option<Digest>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        outcome => outcome?,
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_LINE_BYTES)))?;
    let mut end = Vec::new();
    file.take(LAST_LINE_BYTES).read_to_end(&mut end)?;
    let text = end.strip_suffix(b"\n").unwrap_or(&end);
    let line = text.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok((!line.is_empty()).then(|| of_line(line)))
}

/// Bytes in hexadecimal.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
