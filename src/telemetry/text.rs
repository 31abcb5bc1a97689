//! Values written into a line of log: numbers and escaped strings, without allocating. Knows no field names.

/// Bytes of one string value that a record keeps; a longer one is cut at a character and marked with `...`.
pub(super) const VALUE_BYTES_MAX: usize = 2048;

/// Appends a decimal number.
pub(super) fn number(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends thousandths as a decimal number with three places: 1234 gives `1.234`.
pub(super) fn thousandths(value: u64, out: &mut Vec<u8>) {
    number(value / 1000, out);
    let part = value % 1000;
    out.extend_from_slice(&[b'.', b'0' + (part / 100) as u8, b'0' + (part / 10 % 10) as u8, b'0' + (part % 10) as u8]);
}

/// Appends sixteen hexadecimal digits.
pub(super) fn hex(value: u64, out: &mut Vec<u8>) {
    out.extend((0..16).rev().map(|place| HEX[(value >> (4 * place) & 15) as usize]));
}

/// Appends a quoted JSON string.
pub(super) fn quoted(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escaped(value, out);
    out.push(b'"');
}

/// Appends a logfmt value: bare where that is unambiguous, else quoted with the escapes of JSON.
pub(super) fn logfmt(value: &str, out: &mut Vec<u8>) {
    let bare = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'=' | b'\\');
    if !value.is_empty() && value.len() <= VALUE_BYTES_MAX && value.bytes().all(bare) {
        return out.extend_from_slice(value.as_bytes());
    }
    quoted(value, out);
}

/// Control characters of both ranges are escaped, so that a value can neither end its line nor drive a terminal.
fn escaped(value: &str, out: &mut Vec<u8>) {
    let kept = &value[..value.floor_char_boundary(VALUE_BYTES_MAX)];
    let bytes = kept.as_bytes();
    let mut copied = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        // U+0080 to U+009F are the two bytes C2 80 to C2 9F.
        let second_range = byte == 0xC2 && bytes.get(index + 1).is_some_and(|next| *next < 0xA0);
        if byte >= 0x20 && byte != 0x7F && byte != b'"' && byte != b'\\' && !second_range {
            continue;
        }
        out.extend_from_slice(&bytes[copied..index]);
        copied = index + 1 + usize::from(second_range);
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let code = if second_range { bytes[index + 1] } else { byte };
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(code >> 4)], HEX[usize::from(code & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    if kept.len() < value.len() {
        out.extend_from_slice(b"...");
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("what is written is UTF-8")
    }

    #[test]
    fn numbers() {
        for (value, text) in [(0, "0"), (7, "7"), (10, "10"), (u64::MAX, "18446744073709551615")] {
            assert_eq!(written(|out| number(value, out)), text);
        }
        assert_eq!(written(|out| thousandths(1_234, out)), "1.234");
        assert_eq!(written(|out| thousandths(7, out)), "0.007");
        assert_eq!(written(|out| hex(0xAB, out)), "00000000000000ab");
    }

    #[test]
    fn json_strings_read_back() {
        let long = "é".repeat(VALUE_BYTES_MAX);
        for value in ["", "plain", "q\"b\\n\nr\rt\t", "\u{0}\u{1b}[31m\u{7f}\u{85}\u{9b}\u{a0}é日\u{1F600}"] {
            let text = written(|out| quoted(value, out));
            assert_eq!(serde_json::from_str::<String>(&text).expect("valid JSON"), value);
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        let text = written(|out| quoted(&long, out));
        let cut = serde_json::from_str::<String>(&text).expect("valid JSON");
        assert_eq!(cut.len(), VALUE_BYTES_MAX + 3);
    }

    #[test]
    fn logfmt_quotes_what_is_ambiguous() {
        for (value, text) in
            [("plain/x?y", "plain/x?y"), ("", "\"\""), ("a b", "\"a b\""), ("a=b", "\"a=b\""), ("é", "\"é\"")]
        {
            assert_eq!(written(|out| logfmt(value, out)), text);
        }
    }
}
