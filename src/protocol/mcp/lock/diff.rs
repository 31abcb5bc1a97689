//! Two texts compared word by word: Myers' greedy algorithm ("An O(ND) Difference Algorithm and Its Variations", 1986), given up
//! where texts have next to nothing in common.

/// Words of one text that are compared; longer texts differ as a whole.
const WORDS_MAX: usize = 20_000;
/// Differences that are looked for.
const EDITS_MAX: usize = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Same(&'a str),
    Removed(&'a str),
    Added(&'a str),
}

impl<'a> Piece<'a> {
    pub const fn text(&self) -> &'a str {
        match self {
            Piece::Same(text) | Piece::Removed(text) | Piece::Added(text) => text,
        }
    }
}

/// The pieces of both texts, in their order.
pub fn words<'a>(old: &'a str, new: &'a str) -> Vec<Piece<'a>> {
    let (a, b) = (split(old), split(new));
    let front = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (rest_a, rest_b) = (&a[front..], &b[front..]);
    let back = rest_a.iter().rev().zip(rest_b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (mid_a, mid_b) = (&rest_a[..rest_a.len() - back], &rest_b[..rest_b.len() - back]);
    let mut pieces: Vec<Piece<'a>> = a[..front].iter().map(|word| Piece::Same(word)).collect();
    pieces.extend(middle(mid_a, mid_b));
    pieces.extend(rest_a[rest_a.len() - back..].iter().map(|word| Piece::Same(word)));
    pieces
}

/// Words, runs of white space and every other character by itself.
fn split(text: &str) -> Vec<&str> {
    let class = |letter: char| match letter {
        letter if letter.is_alphanumeric() || letter == '_' => 0,
        letter if letter.is_whitespace() => 1,
        _ => 2,
    };
    let mut words = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (at, letter) in text.char_indices() {
        let now = class(letter);
        if before.is_some_and(|before| before != now || now == 2) {
            words.push(&text[start..at]);
            start = at;
        }
        before = Some(now);
    }
    if start < text.len() {
        words.push(&text[start..]);
    }
    words
}

fn middle<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<Piece<'a>> {
    let whole = || {
        let removed = a.iter().map(|word| Piece::Removed(word));
        removed.chain(b.iter().map(|word| Piece::Added(word))).collect()
    };
    if a.is_empty() || b.is_empty() || a.len().max(b.len()) > WORDS_MAX {
        return whole();
    }
    match trace(a, b) {
        Some(trace) => walk(a, b, &trace),
        None => whole(),
    }
}

/// The furthest points reached with each number of edits, by their diagonals from `-edits` to `edits`.
fn trace(a: &[&str], b: &[&str]) -> Option<Vec<Vec<usize>>> {
    let mut trace: Vec<Vec<usize>> = Vec::new();
    for edits in 0..=EDITS_MAX.min(a.len() + b.len()) {
        let mut reached = vec![0; 2 * edits + 1];
        for place in (0..=2 * edits).step_by(2) {
            let mut x = match trace.last() {
                None => 0,
                Some(last) => furthest(last, edits, place).0,
            };
            while (x + edits).checked_sub(place).is_some_and(|y| x < a.len() && y < b.len() && a[x] == b[y]) {
                x += 1;
            }
            reached[place] = x;
            if x >= a.len() && (x + edits).checked_sub(place).is_some_and(|y| y >= b.len()) {
                trace.push(reached);
                return Some(trace);
            }
        }
        trace.push(reached);
    }
    None
}

/// Where diagonal `place` begins with one edit more than `last`, and whether by adding a word.
fn furthest(last: &[usize], edits: usize, place: usize) -> (usize, bool) {
    // Places of one edit less are shifted by one.
    let above = last.get(place).copied().filter(|_| place <= 2 * (edits - 1));
    let left = place.checked_sub(2).and_then(|left| last.get(left)).copied();
    match (above, left) {
        (Some(above), Some(left)) if left < above => (above, true),
        (Some(above), None) => (above, true),
        (_, left) => (left.unwrap_or_default() + 1, false),
    }
}

fn walk<'a>(a: &[&'a str], b: &[&'a str], trace: &[Vec<usize>]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let (mut x, mut y) = (a.len(), b.len());
    for edits in (1..trace.len()).rev() {
        // Diagonal x - y, counted from `-edits`.
        let Some(place) = (x + edits).checked_sub(y) else { break };
        let (from, added) = furthest(&trace[edits - 1], edits, place);
        while x > from && y > 0 && a[x - 1] == b[y - 1] {
            pieces.push(Piece::Same(a[x - 1]));
            (x, y) = (x - 1, y - 1);
        }
        if added && y > 0 {
            y -= 1;
            pieces.push(Piece::Added(b[y]));
        } else if x > 0 {
            x -= 1;
            pieces.push(Piece::Removed(a[x]));
        }
    }
    while x > 0 && y > 0 {
        (x, y) = (x - 1, y - 1);
        pieces.push(Piece::Same(a[x]));
    }
    pieces.reverse();
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> String {
        let mut out = String::new();
        for piece in words(old, new) {
            match piece {
                Piece::Same(word) => out.push_str(word),
                Piece::Removed(word) => out.push_str(&format!("[-{word}-]")),
                Piece::Added(word) => out.push_str(&format!("{{+{word}+}}")),
            }
        }
        out
    }

    #[test]
    fn words_that_changed() {
        for (old, new, expected) in [
            ("adds two numbers", "adds two numbers", "adds two numbers"),
            ("adds two numbers", "adds three numbers", "adds [-two-]{+three+} numbers"),
            ("adds", "adds and sends", "adds{+ +}{+and+}{+ +}{+sends+}"),
            ("a b c", "c", "[-a-][- -][-b-][- -]c"),
            ("", "x", "{+x+}"),
            ("x", "", "[-x-]"),
            ("a.b", "a,b", "a[-.-]{+,+}b"),
        ] {
            assert_eq!(shown(old, new), expected, "{old} > {new}");
        }
    }

    #[test]
    fn both_texts_come_out_of_the_pieces() {
        let words_of = ["a", " ", "b", "c", ",", "the", "x"];
        let mut state = 7u64;
        let mut text = |length: usize| {
            let mut out = String::new();
            for _ in 0..length {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                out.push_str(words_of[(state >> 33) as usize % words_of.len()]);
            }
            out
        };
        for round in 0..300 {
            let (old, new) = (text(round % 23), text(round % 19));
            let (mut removed, mut added) = (String::new(), String::new());
            for piece in words(&old, &new) {
                match piece {
                    Piece::Same(word) => [&mut removed, &mut added].into_iter().for_each(|text| text.push_str(word)),
                    Piece::Removed(word) => removed.push_str(word),
                    Piece::Added(word) => added.push_str(word),
                }
            }
            assert_eq!((removed, added), (old, new));
        }
    }
}
