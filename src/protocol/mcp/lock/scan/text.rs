//! The texts of an item with their places, and a text as it is compared with phrases.

use super::super::json::{Node, Value};
use super::{hidden, names};

/// What a text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Written for whoever chooses or fills in: descriptions, titles, comments.
    Prose,
    /// A name: of the tool, of a property.
    Name,
    /// A value that may be sent: defaults, choices, examples.
    Data,
}

/// Texts that are looked at, of one item.
const TEXTS_MAX: usize = 10_000;
/// Characters of one text that are looked at.
const CHARS_MAX: usize = 100_000;
/// A run of white space after which a window shows nothing any more.
const BLANKS: usize = 60;
const BLANK_LINES: usize = 12;

/// Every text of an item.
pub struct Texts(Vec<(Place, String, String)>);

impl Texts {
    pub fn of(item: &Node) -> Texts {
        let mut texts = Texts(Vec::new());
        texts.walk(item, "", Place::Prose);
        texts
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Place, String, String)> {
        self.0.iter()
    }

    fn push(&mut self, place: Place, path: &str, text: &str) {
        if self.0.len() < TEXTS_MAX && !text.is_empty() {
            let cut = text.char_indices().nth(CHARS_MAX).map_or(text.len(), |(at, _)| at);
            self.0.push((place, path.to_owned(), text[..cut].to_owned()));
        }
    }

    fn walk(&mut self, node: &Node, path: &str, place: Place) {
        match &node.value {
            Value::String(text) => self.push(place, path, text),
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    self.walk(element, &format!("{path}[{index}]"), place);
                }
            }
            Value::Object(members) => {
                for (key, member) in members {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    let below = match (key.as_str(), &member.value) {
                        ("name" | "uriTemplate", Value::String(_)) => Place::Name,
                        ("default" | "const" | "enum" | "examples" | "pattern" | "required", _) => Place::Data,
                        _ => place,
                    };
                    if !KEYWORDS.contains(&key.as_str()) {
                        self.push(Place::Name, &path, key);
                    }
                    self.walk(member, &path, below);
                }
            }
            _ => {}
        }
    }
}

/// Keys that the protocol and JSON Schema give: they say nothing of themselves.
const KEYWORDS: [&str; 24] = [
    "name",
    "title",
    "description",
    "inputSchema",
    "outputSchema",
    "annotations",
    "execution",
    "_meta",
    "icons",
    "type",
    "properties",
    "required",
    "items",
    "default",
    "enum",
    "const",
    "examples",
    "anyOf",
    "oneOf",
    "allOf",
    "$defs",
    "$schema",
    "additionalProperties",
    "arguments",
];

/// A text as phrases are looked for in it: small letters, look-alikes of Latin ones as those, nothing unseen, white space as
/// one space, words of a joined name apart.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut small = false;
    for letter in text.chars() {
        if hidden::is_unseen(letter) {
            // What tag letters spell is read as well.
            if let Some(spelt) =
                u32::from(letter).checked_sub(0xE0000).and_then(char::from_u32).filter(|l| (' '..='~').contains(l))
            {
                out.extend(spelt.to_lowercase());
            }
            continue;
        }
        let hump = small && letter.is_ascii_uppercase();
        small = letter.is_ascii_lowercase();
        let letter = names::folded(letter);
        match letter.is_whitespace() {
            true if out.ends_with(' ') => {}
            true => out.push(' '),
            false => {
                if hump {
                    out.push(' ');
                }
                out.extend(letter.to_lowercase());
            }
        }
    }
    out
}

/// What comes after so much white space that nobody scrolls there.
pub fn pushed_out_of_sight(text: &str) -> Option<&str> {
    let (mut blanks, mut lines) = (0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '\n' => (blanks, lines) = (0, lines + 1),
            letter if letter.is_whitespace() => blanks += 1,
            _ if at > 0 && (blanks >= BLANKS || lines >= BLANK_LINES) => return Some(&text[at..]),
            _ => (blanks, lines) = (0, 0),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::super::json;
    use super::*;

    #[test]
    fn every_text_has_a_place() {
        let node = json::parse(
            r#"{"name":"n","description":"d","inputSchema":{"properties":{"arg":{"description":"p","default":"v","enum":["e"]}}}}"#,
        );
        let texts = Texts::of(&node.unwrap());
        let shown: Vec<String> = texts.iter().map(|(place, path, text)| format!("{place:?} {path} {text}")).collect();
        assert_eq!(
            shown,
            [
                "Name name n",
                "Prose description d",
                "Name inputSchema.properties.arg arg",
                "Prose inputSchema.properties.arg.description p",
                "Data inputSchema.properties.arg.default v",
                "Data inputSchema.properties.arg.enum[0] e",
            ]
        );
    }

    #[test]
    fn plain_texts() {
        assert_eq!(plain("Ｄｏ\u{200b} nоt\n\n  TELL"), "do not tell");
        assert_eq!(plain("contentOfSshKey"), "content of ssh key");
        assert_eq!(plain("a\u{E0068}\u{E0069}"), "ahi");
    }

    #[test]
    fn what_is_pushed_out_of_sight() {
        assert_eq!(pushed_out_of_sight(&format!("a{}b", " ".repeat(60))), Some("b"));
        assert_eq!(pushed_out_of_sight(&format!("a{}b", "\n".repeat(12))), Some("b"));
        assert_eq!(pushed_out_of_sight("a\n\n    b\n\n    c"), None);
        assert_eq!(pushed_out_of_sight(&format!("{}b", " ".repeat(0))), None);
    }
}
