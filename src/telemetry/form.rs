//! The two forms of a line of log: `key=value` pairs and one JSON object. Knows no field.

use super::text;

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
