//! Durations as they are written: `500ms`, `5m`, `1h30m`, `1m30.5s`.

use std::time::Duration;

/// Longest duration: a year.
const MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads a sequence of numbers with units (`ns`, `us`, `µs`, `ms`, `s`, `m`, `h`, `d`). Zero is none, nor is more than a year.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number_end = rest.find(|next: char| !next.is_ascii_digit() && next != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|next: char| next.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total = total.checked_add(part(number, unit)?)?;
        rest = tail;
    }
    (total > Duration::ZERO && total <= MAX).then_some(total)
}

fn part(number: &str, unit: &str) -> Option<Duration> {
    let nanos_per_unit: u64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        "d" => 24 * 3600 * 1_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u64 = fraction.parse().ok()?;
    let part = u64::try_from(u128::from(nanos_per_unit) * u128::from(fraction) / u128::from(scale)).ok()?;
    let nanos = whole.checked_mul(nanos_per_unit)?.checked_add(part)?;
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse;

    #[test]
    fn reads_durations() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let cases = [
            ("500ms", ms(500)),
            ("5m", ms(300_000)),
            ("1h30m", ms(5_400_000)),
            ("1m30.5s", ms(90_500)),
            ("10m0s", ms(600_000)),
            ("0.5s", ms(500)),
            ("2d", ms(2 * 86_400_000)),
            ("1us", Some(Duration::from_micros(1))),
            ("0s", None),
            ("", None),
            ("5", None),
            ("s", None),
            ("5 s", None),
            ("-5s", None),
            ("5.s", None),
            (".5s", None),
            ("1.2.3s", None),
            ("5sec", None),
            ("9999999999999999999999s", None),
            ("400d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
