//! The two forms of a line of log: `key=value` pairs and one JSON object. Knows no field.

use std::fmt::Display;
use std::io;
use std::time::{Duration, SystemTime};

use super::text;
use super::time::Stamp;

/// One of the two forms of a line.
pub(super) trait Line {
    fn open(out: &mut Vec<u8>);
    fn close(out: &mut Vec<u8>);
    /// The first key, without a separator before it.
    fn literal(name: &str, out: &mut Vec<u8>);
    fn key(name: &str, out: &mut Vec<u8>);
    /// The mark around a value that needs no escape.
    fn quote(out: &mut Vec<u8>);
    fn value(value: &str, out: &mut Vec<u8>);

    fn string(name: &str, value: &str, out: &mut Vec<u8>) {
        Self::key(name, out);
        Self::value(value, out);
    }

    fn optional(name: &str, value: Option<&str>, out: &mut Vec<u8>) {
        if let Some(value) = value {
            Self::string(name, value, out);
        }
    }

    fn number(name: &str, value: u64, out: &mut Vec<u8>) {
        Self::key(name, out);
        text::number(value, out);
    }

    /// What needs no escape, like an address.
    fn plain(name: &str, value: impl Display, out: &mut Vec<u8>) {
        Self::key(name, out);
        Self::quote(out);
        // Writing into a Vec cannot fail.
        let _ = io::Write::write_fmt(out, format_args!("{value}"));
        Self::quote(out);
    }

    /// The value of a key that was written already.
    fn time(at: SystemTime, stamp: &mut Stamp, out: &mut Vec<u8>) {
        Self::quote(out);
        stamp.write(at, out);
        Self::quote(out);
    }

    /// A session's number, as sixteen hexadecimal digits.
    fn session(session: Option<u64>, out: &mut Vec<u8>) {
        let Some(session) = session else { return };
        Self::key("session", out);
        Self::quote(out);
        text::hex(session, out);
        Self::quote(out);
    }

    /// In milliseconds, with microseconds behind the point.
    fn duration(taken: Duration, out: &mut Vec<u8>) {
        Self::key("duration_ms", out);
        text::thousandths(u64::try_from(taken.as_micros()).unwrap_or(u64::MAX), out);
    }
}

pub(super) struct Json;

impl Line for Json {
    fn open(out: &mut Vec<u8>) {
        out.push(b'{');
    }

    fn close(out: &mut Vec<u8>) {
        out.extend_from_slice(b"}\n");
    }

    fn literal(name: &str, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
    }

    fn key(name: &str, out: &mut Vec<u8>) {
        out.push(b',');
        Self::literal(name, out);
    }

    fn quote(out: &mut Vec<u8>) {
        out.push(b'"');
    }

    fn value(value: &str, out: &mut Vec<u8>) {
        text::quoted(value, out);
    }
}

pub(super) struct Logfmt;

impl Line for Logfmt {
    fn open(_: &mut Vec<u8>) {}

    fn close(out: &mut Vec<u8>) {
        out.push(b'\n');
    }

    fn literal(name: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
    }

    fn key(name: &str, out: &mut Vec<u8>) {
        out.push(b' ');
        Self::literal(name, out);
    }

    fn quote(_: &mut Vec<u8>) {}

    fn value(value: &str, out: &mut Vec<u8>) {
        text::logfmt(value, out);
    }
}
