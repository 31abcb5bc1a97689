//! The nearest known word to one that is not known.

/// The nearest of `names` to `word`, when it is near enough to be what was meant.
pub(crate) fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // Long keys are no suggestion's business, and bound the work.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let allowed = (word.chars().count() / 4).max(1);
    names
        .map(|name| (distance(&word.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits between two words: insert, remove, replace, or swap two neighbours (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (index, row) in rows.iter_mut().enumerate() {
        row[0] = index;
    }
    for (index, cell) in rows[0].iter_mut().enumerate() {
        *cell = index;
    }
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let replace = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn suggests_what_is_near_and_nothing_else() {
        let names = ["port", "listeners", "requestHeaderModifier", "hostname"];
        let cases = [
            ("prot", Some("port")),
            ("listener", Some("listeners")),
            ("request_header_modifier", Some("requestHeaderModifier")),
            ("hostName", Some("hostname")),
            ("kind", None),
            ("zebra", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, names.into_iter()), expected, "{word}");
        }
    }
}
