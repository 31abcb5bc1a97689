//! Characters that a person does not see and a model reads (Unicode 16.0; the classes are those of UTS 39 and of UTR 36,
//! "Bidirectional Text Spoofing", and the tag block E0000 to E007F that hides whole sentences).

/// What sort of unseen character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unseen {
    /// A letter of the tag block: invisible ASCII.
    Tag,
    /// Turns the direction of what follows.
    Bidi,
    /// Of no width, or a filler that looks like nothing.
    ZeroWidth,
    /// Chooses a glyph; a run of them can hold bytes.
    Variation,
    /// Means what somebody agreed on.
    PrivateUse,
    /// A control character that is no line end and no tab.
    Control,
}

/// The class of an unseen character.
pub fn class(letter: char) -> Option<Unseen> {
    Some(match letter {
        '\u{E0000}'..='\u{E007F}' => Unseen::Tag,
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}' | '\u{061C}' => Unseen::Bidi,
        '\u{200B}'..='\u{200D}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206A}'..='\u{206F}'
        | '\u{FEFF}'
        | '\u{00AD}'
        | '\u{034F}'
        | '\u{115F}'
        | '\u{1160}'
        | '\u{17B4}'
        | '\u{17B5}'
        | '\u{180B}'..='\u{180F}'
        | '\u{3164}'
        | '\u{FFA0}'
        | '\u{FFF9}'..='\u{FFFB}'
        | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}' => Unseen::ZeroWidth,
        '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' => Unseen::Variation,
        '\u{E000}'..='\u{F8FF}' | '\u{F0000}'..='\u{FFFFD}' | '\u{100000}'..='\u{10FFFD}' => Unseen::PrivateUse,
        letter if letter.is_control() && !matches!(letter, '\n' | '\r' | '\t') => Unseen::Control,
        _ => return None,
    })
}

/// Whether a person cannot see it.
pub fn is_unseen(letter: char) -> bool {
    class(letter).is_some()
}

/// What the tag letters of a text spell.
pub fn tagged(text: &str) -> String {
    text.chars()
        .filter_map(|letter| {
            char::from_u32(u32::from(letter).checked_sub(0xE0000)?).filter(|l| (' '..='~').contains(l))
        })
        .collect()
}

/// The unseen characters of a text, without those that make good emoji and good words: a joiner between two pictures, a
/// variation selector behind something that has variants, a byte order mark in front of all.
pub fn found(text: &str) -> Vec<(Unseen, char)> {
    let letters: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    for (place, &letter) in letters.iter().enumerate() {
        let Some(class) = class(letter) else { continue };
        let before = place.checked_sub(1).map(|before| letters[before]);
        let after = letters.get(place + 1).copied();
        let excused = match letter {
            '\u{200D}' => before.is_some_and(joins) && after.is_some_and(joins),
            // Persian, Arabic and Indic words need it.
            '\u{200C}' => before.is_some_and(needs_joiners) && after.is_some_and(needs_joiners),
            '\u{FE0E}' | '\u{FE0F}' => before.is_some_and(|before| !is_unseen(before) && has_variants(before)),
            '\u{FEFF}' => place == 0,
            _ => false,
        };
        if !excused {
            found.push((class, letter));
        }
    }
    found
}

fn joins(letter: char) -> bool {
    has_variants(letter) || letter == '\u{FE0F}' || needs_joiners(letter)
}

fn needs_joiners(letter: char) -> bool {
    matches!(letter, '\u{0600}'..='\u{06FF}' | '\u{0750}'..='\u{077F}' | '\u{0900}'..='\u{0DFF}')
}

fn has_variants(letter: char) -> bool {
    matches!(letter, '#' | '*' | '0'..='9' | '©' | '®' | '\u{203C}' | '\u{2049}' | '\u{2100}'..='\u{2BFF}' | '\u{3030}' | '\u{303D}'
        | '\u{3297}' | '\u{3299}' | '\u{1F000}'..='\u{1FAFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_is_found_and_what_belongs_is_not() {
        for good in
            ["plain", "ünïcödé 漢字 עברית", "⚠️ careful", "👩‍💻 and 🏳️‍🌈", "1️⃣", "می‌خواهم", "\u{FEFF}text", "a\tb\r\nc"]
        {
            assert_eq!(found(good), [], "{good}");
        }
        for (bad, class) in [
            ("a\u{200B}b", Unseen::ZeroWidth),
            ("a\u{200D}b", Unseen::ZeroWidth),
            ("a\u{FEFF}b", Unseen::ZeroWidth),
            ("\u{202E}evil", Unseen::Bidi),
            ("\u{2067}evil", Unseen::Bidi),
            ("x\u{E0061}", Unseen::Tag),
            ("a\u{FE0F}", Unseen::Variation),
            ("😀\u{E0101}\u{E0102}", Unseen::Variation),
            ("\u{E123}", Unseen::PrivateUse),
            ("\u{1b}[8m", Unseen::Control),
            ("\u{3164}", Unseen::ZeroWidth),
        ] {
            assert_eq!(found(bad).first().map(|(class, _)| *class), Some(class), "{bad:?}");
        }
        assert_eq!(tagged("x\u{E0068}\u{E0069}"), "hi");
    }
}
