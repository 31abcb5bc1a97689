//! Letters to tokens (CEL language definition, "Syntax"). Places are counted in characters.

use crate::Fault;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Name(String),
    Text(String),
    Int(u64),
    Uint(u64),
    Double(f64),
    /// An operator, a bracket, a comma or a dot.
    Sign(&'static str),
    End,
}

/// The longer ones first.
const SIGNS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "[?", "?.", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", ",", ".", "(",
    ")", "[", "]", "{", "}",
];

/// Where tokens are read from.
pub(crate) struct Lexer<'a> {
    rest: &'a str,
    offset: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Lexer { rest: text, offset: 0 }
    }

    fn fault<T>(&self, message: &str) -> Result<T, Fault> {
        Err(Fault { offset: self.offset, message: message.to_owned() })
    }

    fn skip(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.offset += taken.chars().count();
        taken
    }

    fn take_while(&mut self, taken: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|letter| !taken(letter)).unwrap_or(self.rest.len());
        self.skip(end)
    }

    /// The next token and where it begins.
    pub(crate) fn next(&mut self) -> Result<(Token, usize), Fault> {
        loop {
            self.take_while(char::is_whitespace);
            if !self.rest.starts_with("//") {
                break;
            }
            self.take_while(|letter| letter != '\n');
        }
        let at = self.offset;
        let mut letters = self.rest.chars();
        let (first, second) = (letters.next(), letters.next());
        let token = match first {
            None => Token::End,
            Some('"' | '\'') => Token::Text(self.string(false)?),
            Some('r' | 'R') if matches!(second, Some('"' | '\'')) => {
                self.skip(1);
                Token::Text(self.string(true)?)
            }
            Some('b' | 'B') if matches!(second, Some('"' | '\'')) => return self.fault("not built: bytes"),
            Some(first) if first.is_ascii_alphabetic() || first == '_' => {
                Token::Name(self.take_while(|letter| letter.is_ascii_alphanumeric() || letter == '_').to_owned())
            }
            Some(first) if first.is_ascii_digit() => self.number()?,
            Some('.') if second.is_some_and(|second| second.is_ascii_digit()) => self.number()?,
            Some(first) => match SIGNS.iter().find(|sign| self.rest.starts_with(**sign)) {
                Some(sign) => {
                    self.skip(sign.len());
                    Token::Sign(sign)
                }
                None => return self.fault(&format!("not an expression: unexpected {first:?}")),
            },
        };
        Ok((token, at))
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let start = Lexer { rest: self.rest, offset: self.offset };
        if let Some(front @ ("0x" | "0X")) = self.rest.get(..2) {
            self.skip(front.len());
            let digits = self.take_while(|letter| letter.is_ascii_hexdigit());
            return self.whole(u64::from_str_radix(digits, 16).ok(), &start);
        }
        let digits = self.take_while(|letter| letter.is_ascii_digit());
        let mut is_whole = true;
        if self.rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit())) {
            self.skip(1);
            self.take_while(|letter| letter.is_ascii_digit());
            is_whole = false;
        }
        if self.rest.starts_with(['e', 'E']) {
            let sign = usize::from(self.rest[1..].starts_with(['+', '-']));
            if self.rest[1 + sign..].starts_with(|letter: char| letter.is_ascii_digit()) {
                self.skip(1 + sign);
                self.take_while(|letter| letter.is_ascii_digit());
                is_whole = false;
            }
        }
        if is_whole {
            return self.whole(digits.parse().ok(), &start);
        }
        let text = &start.rest[..start.rest.len() - self.rest.len()];
        match text.parse() {
            Ok(double) => self.ends(Token::Double(double)),
            Err(_) => start.fault("not a number"),
        }
    }

    fn whole(&mut self, number: Option<u64>, start: &Lexer<'_>) -> Result<Token, Fault> {
        let Some(number) = number else { return start.fault("not a number of 64 bits") };
        if self.rest.starts_with(['u', 'U']) {
            self.skip(1);
            return self.ends(Token::Uint(number));
        }
        self.ends(Token::Int(number))
    }

    /// A number does not run into a name.
    fn ends(&self, token: Token) -> Result<Token, Fault> {
        match self.rest.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_') {
            true => self.fault("not a number"),
            false => Ok(token),
        }
    }

    fn string(&mut self, raw: bool) -> Result<String, Fault> {
        let start = Lexer { rest: self.rest, offset: self.offset };
        let quote = &self.rest[..1];
        let triple = quote.repeat(3);
        let quote = if self.rest.starts_with(&triple) { triple } else { quote.to_owned() };
        self.skip(quote.len());
        let mut text = String::new();
        loop {
            if self.rest.starts_with(&quote) {
                self.skip(quote.len());
                return Ok(text);
            }
            match self.rest.chars().next() {
                None => return start.fault("a string without its end"),
                Some('\n' | '\r') if quote.len() == 1 => return start.fault("a string without its end"),
                Some('\\') if !raw => text.push(self.escape()?),
                Some(letter) => {
                    self.skip(letter.len_utf8());
                    text.push(letter);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let start = Lexer { rest: self.rest, offset: self.offset };
        let wrong = "an escape that there is not";
        self.skip(1);
        let Some(letter) = self.rest.chars().next() else { return start.fault(wrong) };
        let coded = |this: &mut Self, front: usize, digits: usize, radix: u32| {
            let code = this.rest.get(front..front + digits).filter(|code| code.chars().all(|c| c.is_digit(radix)));
            let letter = code.and_then(|code| u32::from_str_radix(code, radix).ok()).and_then(char::from_u32);
            let Some(letter) = letter else { return start.fault(wrong) };
            this.skip(front + digits);
            Ok(letter)
        };
        let plain = match letter {
            'x' | 'X' => return coded(self, 1, 2, 16),
            'u' => return coded(self, 1, 4, 16),
            'U' => return coded(self, 1, 8, 16),
            '0'..='3' => return coded(self, 0, 3, 8),
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '?' | '"' | '\'' | '`' => letter,
            _ => return start.fault(wrong),
        };
        self.skip(letter.len_utf8());
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
        let mut lexer = Lexer::new(text);
        let mut tokens = Vec::new();
        loop {
            match lexer.next()?.0 {
                Token::End => return Ok(tokens),
                token => tokens.push(token),
            }
        }
    }

    #[test]
    fn strings_in_all_their_forms() {
        for (text, expected) in [
            (r#"'a"b'"#, "a\"b"),
            (r#""a'b""#, "a'b"),
            ("\"\"\"a\"b\"\"\"", "a\"b"),
            ("'''a\n'b'''", "a\n'b"),
            (r"r'\d'", r"\d"),
            (r"'\x41\u00fc\U0001f600\101\n\\\''", "Aü😀A\n\\'"),
        ] {
            assert_eq!(tokens(text).unwrap(), [Token::Text(expected.to_owned())], "{text}");
        }
        for wrong in ["'a", "\"a\n\"", r"'\q'", r"'\x4'", r"'\ud800'", "'''a''", r"'\"] {
            assert!(tokens(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers() {
        let expected = [
            Token::Int(12),
            Token::Int(255),
            Token::Uint(7),
            Token::Double(1.5),
            Token::Double(1000.0),
            Token::Double(0.5),
        ];
        assert_eq!(tokens("12 0xff 7u 1.5 1e3 .5 // and no more").unwrap(), expected);
        for wrong in ["18446744073709551616", "0x", "1a", "7ux", "1.5u"] {
            assert!(tokens(wrong).is_err(), "{wrong}");
        }
    }
}
