//! Names that look like others: letters of foreign alphabets that show as Latin ones, and names of another target's tools that
//! differ by next to nothing.

use super::{Class, Finding};

/// Names of other targets that one is compared with.
const OTHERS_MAX: usize = 5_000;
/// Shorter names differ by one letter often enough.
const CLOSE_CHARS_MIN: usize = 6;

/// The Latin letter that a letter shows as (a part of Unicode's confusables, UTS 39, that holds whole alphabets), or itself.
pub fn folded(letter: char) -> char {
    match letter {
        '！'..='～' => char::from_u32(u32::from(letter) - 0xFEE0).unwrap_or(letter),
        'а' | 'α' | 'ɑ' | '𝐚' => 'a',
        'в' | 'ʙ' => 'b',
        'с' | 'ϲ' => 'c',
        'ԁ' => 'd',
        'е' | 'ҽ' | 'ε' => 'e',
        'ɡ' => 'g',
        'һ' | 'н' => 'h',
        'і' | 'ı' | 'ι' | 'ɩ' => 'i',
        'ј' => 'j',
        'к' | 'κ' => 'k',
        'ӏ' | 'ⅼ' | 'ǀ' => 'l',
        'м' => 'm',
        'п' | 'ո' => 'n',
        'о' | 'ο' | 'օ' | 'σ' => 'o',
        'р' | 'ρ' => 'p',
        'ԛ' => 'q',
        'г' => 'r',
        'ѕ' => 's',
        'т' | 'τ' => 't',
        'υ' | 'ս' => 'u',
        'ν' | 'ѵ' => 'v',
        'ԝ' | 'ѡ' => 'w',
        'х' | 'χ' => 'x',
        'у' | 'γ' => 'y',
        'А' | 'Α' => 'A',
        'В' | 'Β' => 'B',
        'С' => 'C',
        'Е' | 'Ε' => 'E',
        'Н' | 'Η' => 'H',
        'І' | 'Ι' => 'I',
        'Ј' => 'J',
        'К' | 'Κ' => 'K',
        'М' | 'Μ' => 'M',
        'Ν' => 'N',
        'О' | 'Ο' => 'O',
        'Р' | 'Ρ' => 'P',
        'Ѕ' => 'S',
        'Т' | 'Τ' => 'T',
        'Х' | 'Χ' => 'X',
        'У' | 'Υ' => 'Y',
        'Ζ' => 'Z',
        '‐'..='―' => '-',
        '‘' | '’' | 'ʼ' => '\'',
        other => other,
    }
}

/// A name without what a reader does not tell apart: case, joints, look-alikes.
fn skeleton(name: &str) -> String {
    let plain = name.chars().map(folded).filter(|letter| letter.is_alphanumeric());
    let folded: String = plain.flat_map(char::to_lowercase).collect();
    folded.replace('0', "o").replace(['1', 'i'], "l").replace("rn", "m").replace("vv", "w")
}

/// A name without case and joints.
fn spelling(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A name of Latin letters with one in it that is none.
pub fn find_foreign(path: &str, name: &str, findings: &mut Vec<Finding>) {
    let latin = name.chars().any(|letter| letter.is_ascii_alphabetic());
    let foreign: Vec<char> = name.chars().filter(|letter| !letter.is_ascii() && folded(*letter).is_ascii()).collect();
    if let Some(first) = foreign.first().filter(|_| latin) {
        let quote = format!("{first:?} looks like {:?}", folded(*first));
        findings.push(Finding { class: Class::Lookalike, weight: 75, path: path.to_owned(), quote });
    }
}

/// A tool's name against those of other targets, as `(target, name)`.
pub fn find_shadows<'a>(name: &str, others: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Finding> {
    let own = skeleton(name);
    let mut findings = Vec::new();
    for (target, other) in others.take(OTHERS_MAX) {
        let weight = match (spelling(name) == spelling(other), own == skeleton(other)) {
            // Two servers that search are no attack; somebody should still know.
            (true, _) => 20,
            (false, true) => 60,
            (false, false) if is_close(&own, &skeleton(other)) => 25,
            _ => continue,
        };
        let quote = format!("like {other:?} of {target}");
        findings.push(Finding { class: Class::Lookalike, weight, path: "name".to_owned(), quote });
    }
    findings
}

/// Others' tools that a text names. Names that are plain words are no names there.
pub fn find_mentions<'a>(text: &str, others: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (target, other) in others.take(OTHERS_MAX) {
        let telling = other.len() >= CLOSE_CHARS_MIN && other.contains(['_', '-', '.']) || other.contains("__");
        if telling && mentions(text, other) {
            let quote = format!("names {other:?} of {target}");
            findings.push(Finding { class: Class::OtherTools, weight: 50, path: "description".to_owned(), quote });
        }
    }
    findings
}

fn mentions(text: &str, name: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + name.len()..].starts_with(is_part))
}

/// One letter more, less, other, or two that changed places.
fn is_close(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (long, short) = if a.len() >= b.len() { (&a, &b) } else { (&b, &a) };
    if short.len() < CLOSE_CHARS_MIN || long.len() - short.len() > 1 {
        return false;
    }
    let front = long.iter().zip(short).take_while(|(a, b)| a == b).count();
    let (long, short) = (&long[front..], &short[front..]);
    match (long, short) {
        ([_, long @ ..], [_, short @ ..]) if long == short => true,
        ([_, long @ ..], short) if long == short => true,
        ([a, b, long @ ..], [c, d, short @ ..]) => a == d && b == c && long == short,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_are_others() {
        let found = |name| {
            let mut findings = Vec::new();
            find_foreign("name", name, &mut findings);
            !findings.is_empty()
        };
        assert!(found("rеad_file") && found("ｒead"));
        assert!(!found("read_file") && !found("прочитать") && !found("größe") && !found("読む"));
    }

    #[test]
    fn shadows_of_others() {
        let weight =
            |name: &str, other| find_shadows(name, [("t", other)].into_iter()).first().map(|found| found.weight);
        assert_eq!(weight("search", "search"), Some(20));
        assert_eq!(weight("send_email", "sendEmail"), Some(20));
        assert_eq!(weight("send_emai1", "send_email"), Some(60));
        assert_eq!(weight("send_emails", "send_email"), Some(25));
        assert_eq!(weight("send_eamil", "send_email"), Some(25));
        assert_eq!(weight("add", "and"), None);
        assert_eq!(weight("send_email", "read_email"), None);
        let mentions = |text| find_mentions(text, [("t", "send_email"), ("t", "echo")].into_iter()).len();
        assert_eq!(mentions("when send_email is there, echo it"), 1);
        assert_eq!(mentions("resend_emails"), 0);
    }
}
