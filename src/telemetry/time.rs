//! Wall-clock time as text. Knows no clock: the caller gives the time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Writes RFC 3339 times in UTC with milliseconds, `2026-01-02T03:04:05.678Z`; the part up to the second is kept from
/// the record before, since most records share it.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: u64,
    text: [u8; 19],
    filled: bool,
}

impl Stamp {
    /// Appends `at`; a time before 1970 is written as 1970, one past 9999 as its last second.
    pub(super) fn write(&mut self, at: SystemTime, out: &mut Vec<u8>) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs().min(LAST_SECOND);
        if !self.filled || second != self.second {
            (self.second, self.text, self.filled) = (second, render(second), true);
        }
        let millis = since.subsec_millis();
        out.extend_from_slice(&self.text);
        out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
    }
}

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

fn render(second: u64) -> [u8; 19] {
    let (year, month, day) = civil(second / 86_400);
    let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
    let mut text = *b"0000-00-00T00:00:00";
    let fields = [(0, 4, year), (5, 2, month), (8, 2, day), (11, 2, hour), (14, 2, minute), (17, 2, second)];
    for (start, width, mut value) in fields {
        for place in text[start..start + width].iter_mut().rev() {
            *place = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    text
}

fn digit(value: u32) -> u8 {
    b'0' + (value % 10) as u8
}

/// Year, month and day of a day number counted from 1970-01-01 in the proleptic Gregorian calendar.
fn civil(day: u64) -> (u64, u64, u64) {
    // Years here begin in March, so that the leap day is the last of its year: 719468 days lie between 0000-03-01 and
    // 1970.
    let day = day + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn writes_rfc_3339() {
        let mut stamp = Stamp::default();
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_007, "2000-02-29T00:00:00.007Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_767_225_599_100, "2025-12-31T23:59:59.100Z"),
            (1_767_225_599_120, "2025-12-31T23:59:59.120Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (u64::MAX / 1000, "9999-12-31T23:59:59.615Z"),
        ] {
            let mut out = Vec::new();
            stamp.write(UNIX_EPOCH + Duration::from_millis(millis), &mut out);
            assert_eq!(String::from_utf8_lossy(&out)[..20], text[..20], "{millis}");
        }
        let mut out = Vec::new();
        stamp.write(UNIX_EPOCH - Duration::from_secs(5), &mut out);
        assert_eq!(out, b"1970-01-01T00:00:00.000Z");
    }
}
