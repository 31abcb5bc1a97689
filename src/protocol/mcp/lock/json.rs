//! JSON as the lock reads it: strictly, with the place of every value, and written again in one canonical form. A text that
//! two readers could take differently (a key that is there twice, half a surrogate pair) is no JSON here.

use std::fmt::Write as _;

/// Deepest nesting that is read.
pub const DEPTH_MAX: usize = 128;

/// A value and where it begins, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub at: usize,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// As it was written.
    Number(String),
    String(String),
    Array(Vec<Node>),
    /// In the order written; keys are unique.
    Object(Vec<(String, Node)>),
}

/// Why a text is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// In bytes.
    pub at: usize,
    pub message: &'static str,
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.members().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Of an object; none of anything else.
    pub fn members(&self) -> &[(String, Node)] {
        match &self.value {
            Value::Object(members) => members,
            _ => &[],
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The canonical form (after RFC 8785): no white space, members by the UTF-16 units of their keys, the shortest escapes,
    /// whole numbers without fraction or exponent.
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        self.write_canonical(&mut out);
        out
    }

    fn write_canonical(&self, out: &mut String) {
        match &self.value {
            Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Number(text) => out.push_str(&canonical_number(text)),
            Value::String(text) => quote(text, false, out),
            Value::Array(elements) => {
                for (place, element) in elements.iter().enumerate() {
                    out.push(if place == 0 { '[' } else { ',' });
                    element.write_canonical(out);
                }
                out.push_str(if elements.is_empty() { "[]" } else { "]" });
            }
            Value::Object(members) => {
                for (place, (key, member)) in sorted(members).into_iter().enumerate() {
                    out.push(if place == 0 { '{' } else { ',' });
                    quote(key, false, out);
                    out.push(':');
                    member.write_canonical(out);
                }
                out.push_str(if members.is_empty() { "{}" } else { "}" });
            }
        }
    }

    /// For people and Git: one member a line, members in canonical order, and everything that cannot be seen as an escape.
    pub fn pretty(&self, indent: usize, out: &mut String) {
        match &self.value {
            Value::String(text) => quote(text, true, out),
            Value::Array(elements) if elements.iter().any(Node::is_container) => {
                for (place, element) in elements.iter().enumerate() {
                    out.push_str(if place == 0 { "[\n" } else { ",\n" });
                    pad(indent + 1, out);
                    element.pretty(indent + 1, out);
                }
                out.push('\n');
                pad(indent, out);
                out.push(']');
            }
            Value::Array(elements) => {
                out.push('[');
                for (place, element) in elements.iter().enumerate() {
                    out.push_str(if place == 0 { "" } else { ", " });
                    element.pretty(indent, out);
                }
                out.push(']');
            }
            Value::Object(members) if !members.is_empty() => {
                for (place, (key, member)) in sorted(members).into_iter().enumerate() {
                    out.push_str(if place == 0 { "{\n" } else { ",\n" });
                    pad(indent + 1, out);
                    quote(key, true, out);
                    out.push_str(": ");
                    member.pretty(indent + 1, out);
                }
                out.push('\n');
                pad(indent, out);
                out.push('}');
            }
            _ => self.write_canonical(out),
        }
    }

    fn is_container(&self) -> bool {
        match &self.value {
            Value::Array(elements) => !elements.is_empty(),
            Value::Object(members) => !members.is_empty(),
            _ => false,
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    (0..indent).for_each(|_| out.push_str("  "));
}

fn sorted(members: &[(String, Node)]) -> Vec<&(String, Node)> {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    sorted
}

/// Whole numbers that a double holds exactly are written as such, others as the shortest text of their double.
fn canonical_number(text: &str) -> String {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Ok(whole) = text.parse::<i64>() {
        return whole.to_string();
    }
    match text.parse::<f64>() {
        Ok(number) if number.fract() == 0.0 && number.abs() < EXACT => (number as i64).to_string(),
        Ok(number) => format!("{number:?}"),
        // It was read as a number.
        Err(_) => text.to_owned(),
    }
}

/// A JSON string. `visible`: what shows nothing, or changes how the rest shows, is escaped as well.
pub fn quote(text: &str, visible: bool, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            letter if letter < ' ' || (visible && super::scan::hidden::is_unseen(letter)) => {
                let mut units = [0; 2];
                for unit in letter.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

/// Reads a whole text.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(text: &str) -> Result<Node, Broken> {
    let mut parser = Parser { text, at: 0 };
    let node = parser.value(0)?;
    parser.space();
    match parser.at == text.len() {
        true => Ok(node),
        false => Err(parser.broken("something follows the value")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn broken(&self, message: &'static str) -> Broken {
        Broken { at: self.at, message }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is no space, taken if it is this one.
    fn takes(&mut self, byte: u8) -> bool {
        self.space();
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn value(&mut self, depth: usize) -> Result<Node, Broken> {
        self.space();
        if depth > DEPTH_MAX {
            return Err(self.broken("nested too deep"));
        }
        let at = self.at;
        let value = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Value::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            _ => return Err(self.broken("a value is missing")),
        };
        Ok(Node { at, value })
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Broken> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.broken("an unknown word"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Result<Value, Broken> {
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        let digits = text.strip_prefix('-').unwrap_or(text);
        let leading = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
        let bare = digits.starts_with('.') || digits.ends_with('.') || text.contains(".e") || text.contains(".E");
        match text.parse::<f64>() {
            // One that no double holds is a number to some parsers and none to others.
            Ok(number) if number.is_finite() && !leading && !bare && !text.starts_with('+') => {
                Ok(Value::Number(text.to_owned()))
            }
            _ => Err(Broken { at: start, message: "not a number" }),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Broken> {
        self.at += 1;
        let mut elements = Vec::new();
        if self.takes(b']') {
            return Ok(Value::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            if self.takes(b']') {
                return Ok(Value::Array(elements));
            }
            if !self.takes(b',') {
                return Err(self.broken("a comma or the end of the array is missing"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Broken> {
        self.at += 1;
        let mut members: Vec<(String, Node)> = Vec::new();
        let mut keys = std::collections::HashSet::new();
        if self.takes(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            let at = self.at;
            let key = self.string()?;
            if !keys.insert(key.clone()) {
                return Err(Broken { at, message: "a key that is there twice" });
            }
            if !self.takes(b':') {
                return Err(self.broken("a colon is missing"));
            }
            members.push((key, self.value(depth + 1)?));
            if self.takes(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.takes(b',') {
                return Err(self.broken("a comma or the end of the object is missing"));
            }
        }
    }

    fn string(&mut self) -> Result<String, Broken> {
        if self.peek() != Some(b'"') {
            return Err(self.broken("a string is missing"));
        }
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|letter: char| letter == '"' || letter == '\\' || letter < ' ');
            let Some(plain) = plain else {
                self.at = self.text.len();
                return Err(self.broken("a string without end"));
            };
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                _ => return Err(self.broken("a control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Broken> {
        self.at += 1;
        let letter = match self.peek() {
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(letter @ (b'"' | b'\\' | b'/')) => char::from(letter),
            Some(b'u') => return self.unicode(),
            _ => return Err(self.broken("an unknown escape")),
        };
        self.at += 1;
        Ok(letter)
    }

    fn unicode(&mut self) -> Result<char, Broken> {
        let half = Broken { at: self.at, message: "half a surrogate pair" };
        let first = self.unit()?;
        let code = match first {
            0xD800..=0xDBFF => {
                if !self.text[self.at..].starts_with("\\u") {
                    return Err(half);
                }
                self.at += 1;
                match self.unit()? {
                    second @ 0xDC00..=0xDFFF => 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00),
                    _ => return Err(half),
                }
            }
            other => other,
        };
        char::from_u32(code).ok_or(half)
    }

    /// Four hexadecimal digits behind the `u` that is next.
    fn unit(&mut self) -> Result<u32, Broken> {
        let digits = self.text.get(self.at + 1..self.at + 5).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.broken("an escape needs four digits"))?;
        self.at += 5;
        Ok(unit)
    }
}

/// 1-based line and column, in characters, of a place in a text.
pub fn line_and_column(text: &str, at: usize) -> (u32, u32) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        parse(text).unwrap_or_else(|broken| panic!("{text}: {broken:?}")).canonical()
    }

    #[test]
    fn one_form_for_equal_values() {
        for (text, expected) in [
            (r#" { "b" : 1.0 , "a" : [ 1e2, -0, 0.50 ] } "#, r#"{"a":[100,0,0.5],"b":1}"#),
            (
                r#"{"\u20ac":1,"\r":2,"1":3,"\ud83d\ude00":4,"\ufb33":5}"#,
                "{\"\\r\":2,\"1\":3,\"€\":1,\"😀\":4,\"\u{fb33}\":5}",
            ),
            (r#""a\/b\u0041\u200b\u0001""#, "\"a/bA\u{200b}\\u0001\""),
            ("[]", "[]"),
            ("{}", "{}"),
            ("[true,false,null]", "[true,false,null]"),
            ("12345678901234567890", "1.2345678901234567e19"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        for (text, at) in [
            (r#"{"a":1,"a":2}"#, 7),
            (r#"{"a":1,"\u0061":2}"#, 7),
            (r#""\ud800""#, 2),
            (r#""\udc00x""#, 2),
            ("01", 0),
            ("1e999", 0),
            ("1.", 0),
            ("-", 0),
            ("[1,]", 3),
            ("{\"a\"}", 4),
            ("\"a\nb\"", 2),
            ("1 2", 2),
            ("", 0),
            ("\"", 1),
            ("nul", 0),
        ] {
            assert_eq!(parse(text).map_err(|broken| broken.at), Err(at), "{text}");
        }
        let deep = "[".repeat(DEPTH_MAX + 2);
        assert_eq!(parse(&deep).unwrap_err().message, "nested too deep");
    }

    #[test]
    fn what_is_unseen_is_written_as_an_escape() {
        let node = parse("{\"b\":[1,2],\"a\":{\"x\":\"hi\u{200b}\u{e0041}\"},\"c\":[{}]}").unwrap();
        let mut out = String::new();
        node.pretty(0, &mut out);
        assert_eq!(
            out,
            "{\n  \"a\": {\n    \"x\": \"hi\\u200b\\udb40\\udc41\"\n  },\n  \"b\": [1, 2],\n  \"c\": [{}]\n}"
        );
        assert_eq!(parse(&out).unwrap().canonical(), node.canonical());
    }

    #[test]
    fn places_are_lines_and_columns() {
        assert_eq!(line_and_column("a\nüb", 4), (2, 2));
        assert_eq!(line_and_column("", 0), (1, 1));
    }
}
