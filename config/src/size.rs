//! Amounts of a host's resources as they are written: bytes (`512Mi`, `1.5G`, `65536`) and processors (`2`, `0.5`).

use serde_json::{Value as Json, json};

use crate::context::Context;
use crate::form::Form;
use crate::schema::Definitions;
use crate::tree::Node;

/// Suffixes of bytes, the longer ones first.
const UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];
/// The least memory that anything can start in.
const BYTES_MIN: u64 = 1 << 20;
const BYTES_MAX: u64 = 1 << 50;
/// Thousandths of a processor.
const CPU_MILLIS_MAX: u64 = 1_024_000;

/// At least a mebibyte: `512Mi`, `2G`, or a number of bytes. Gives bytes.
pub(crate) struct ByteSize;

impl Form for ByteSize {
    type Out = u64;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<u64> {
        amount(node, cx, "an amount of at least 1Mi, like 512Mi, 2G or 1073741824", bytes)
    }

    fn schema(_: &mut Definitions) -> Json {
        let text = json!({"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?([KMGT]i|[kMGT])?$|\\$"});
        json!({"anyOf": [text, {"type": "integer", "minimum": BYTES_MIN}]})
    }
}

/// Processors, above zero: `2`, `0.5`. Gives thousandths of one.
pub(crate) struct Cpus;

impl Form for Cpus {
    type Out = u32;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<u32> {
        amount(node, cx, "a number of processors from 0.01 to 1024, like 2 or 0.5", |text| {
            let millis = thousandths(text).filter(|millis| (10..=CPU_MILLIS_MAX).contains(millis))?;
            millis.try_into().ok()
        })
    }

    fn schema(_: &mut Definitions) -> Json {
        let text = json!({"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?$|\\$"});
        json!({"anyOf": [{"type": "number", "minimum": 0.01, "maximum": 1024}, text]})
    }
}

/// Decodes a number or a text by a function.
fn amount<T>(node: &Node, cx: &mut Context<'_>, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let (text, _) = cx.scalar(node, expected)?;
    let out = parse(&text);
    if out.is_none() {
        cx.invalid(node, expected);
    }
    out
}

fn bytes(text: &str) -> Option<u64> {
    let unit = UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let bytes = thousandths(number)?.checked_mul(unit)? / 1_000;
    (BYTES_MIN..=BYTES_MAX).contains(&bytes).then_some(bytes)
}

/// A decimal number in thousandths; further digits are cut off.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(part.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let cases = [
            ("512Mi", Some(512 << 20)),
            ("1.5Gi", Some(3 << 29)),
            ("2G", Some(2_000_000_000)),
            ("1048576", Some(1 << 20)),
            ("1048575", None),
            ("1Ki", None),
            ("Mi", None),
            ("-1Mi", None),
            ("1 Mi", None),
            ("1.Mi", None),
            ("1e9", None),
            ("99999999999Ti", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), expected, "{text}");
        }
        for (text, expected) in
            [("2", Some(2_000)), ("0.5", Some(500)), ("1.2345", Some(1_234)), (".5", None), ("", None)]
        {
            assert_eq!(thousandths(text), expected, "{text}");
        }
    }
}
