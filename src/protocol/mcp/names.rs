//! Names of tools and prompts across a federation: `<target>__<name>` outward, back again inward. It knows strings only.

use std::borrow::Cow;

use ring::digest::{SHA256, digest};

/// Between a target's name and a tool's own. Two characters of the alphabet that every client accepts; a target's name
/// may not hold them, so the first occurrence always ends it, whatever underscores the tool's own name has.
pub const SEPARATOR: &str = "__";

/// The front of an outward name: `notes__`.
pub fn prefix(target: &str) -> String {
    format!("{target}{SEPARATOR}")
}

/// Splits an outward name at its first separator: `(target, own name)`.
pub fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memmem::find(name, SEPARATOR.as_bytes())?;
    (at > 0).then(|| (&name[..at], &name[at + SEPARATOR.len()..]))
}

/// How a shortened name ends: `_` and so many characters of [`MARK`].
const MARK_CHARS: usize = 8;
/// What a shortened name's mark is written in (RFC 4648, section 6, in lower case).
const MARK: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A name of more than `limit` characters as one of exactly so many: its front, and a mark that is made of the whole name
/// and says nothing else, so that restarts and replicas agree. Another `attempt` gives another mark, for a name whose
/// shortened form is taken. `None`: it is short enough.
pub fn shortened(name: &str, limit: usize, attempt: u32) -> Option<String> {
    // No character is shorter than a byte: most names need no counting.
    if name.len() <= limit || name.chars().count() <= limit {
        return None;
    }
    let mut whole = name.as_bytes().to_vec();
    if attempt > 0 {
        whole.extend_from_slice(&attempt.to_le_bytes());
    }
    let digest = digest(&SHA256, &whole);
    let front: String = name.chars().take(limit.saturating_sub(MARK_CHARS + 1)).collect();
    let mark = digest.as_ref().iter().take(MARK_CHARS).map(|byte| char::from(MARK[usize::from(byte & 31)]));
    Some(front + "_" + &mark.collect::<String>())
}

/// Whether a name could be a shortened one: its length and its end are those of one.
pub fn may_be_shortened(name: &str, limit: usize) -> bool {
    if name.len() < limit || name.chars().count() != limit {
        return false;
    }
    let Some((_, mark)) = name.rsplit_once('_') else { return false };
    mark.len() == MARK_CHARS && mark.bytes().all(|byte| MARK.contains(&byte))
}

/// A collided resource URI, marked with its target: `memo:x` of `notes` becomes `x-notes+memo:x`. The scheme `ui`
/// keeps its place (clients look at it), the target goes in front of the authority: `ui://notes+app/x`. Underscores are no
/// scheme characters (RFC 3986, 3.1): they are written as `.`, which a target's name cannot hold.
pub fn mark_uri(target: &str, uri: &str) -> String {
    let target = target.replace('_', ".");
    match uri.strip_prefix("ui://") {
        Some(rest) => format!("ui://{target}+{rest}"),
        None => format!("x-{target}+{uri}"),
    }
}

/// The target and the original of a marked URI.
pub fn unmark_uri(uri: &str) -> Option<(Cow<'_, str>, String)> {
    let (marked, ui) = match uri.strip_prefix("ui://") {
        Some(rest) => (rest, true),
        None => (uri.strip_prefix("x-")?, false),
    };
    let (target, rest) = marked.split_once('+')?;
    let well_formed = !target.is_empty() && target.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if !well_formed {
        return None;
    }
    let target = if target.contains('.') { Cow::Owned(target.replace('.', "_")) } else { Cow::Borrowed(target) };
    Some((target, if ui { format!("ui://{rest}") } else { rest.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_ends_the_target() {
        let cases: [(&str, Option<(&str, &str)>); 7] = [
            ("a__b", Some(("a", "b"))),
            ("a__b__c", Some(("a", "b__c"))),
            ("a___b", Some(("a", "_b"))),
            ("my_target__my_tool", Some(("my_target", "my_tool"))),
            ("__b", None),
            ("plain_name", None),
            ("a__", Some(("a", ""))),
        ];
        for (name, expected) in cases {
            let got = split(name.as_bytes());
            let expected = expected.map(|(t, n)| (t.as_bytes(), n.as_bytes()));
            assert_eq!(got, expected, "{name}");
        }
    }

    #[test]
    fn outward_and_inward_agree_for_every_legal_target() {
        for target in ["a", "a-b", "a_b", "A1", "x_y_z"] {
            for own in ["t", "_t", "__t", "t_", "t__u", ""] {
                let outward = format!("{}{own}", prefix(target));
                assert_eq!(split(outward.as_bytes()), Some((target.as_bytes(), own.as_bytes())), "{outward}");
            }
        }
    }

    #[test]
    fn long_names_are_shortened_and_short_ones_are_not() {
        let long = format!("notes__{}", "x".repeat(80));
        let umlauts = format!("notes__{}", "ü".repeat(80));
        for (name, limit) in [(&long, 64), (&umlauts, 64), (&long, 48)] {
            let short = shortened(name, limit, 0).expect("it is too long");
            assert_eq!(short.chars().count(), limit, "{short}");
            assert!(may_be_shortened(&short, limit), "{short}");
            assert_eq!(split(short.as_bytes()).map(|(target, _)| target), Some(&b"notes"[..]), "{short}");
            assert_ne!(shortened(name, limit, 1), Some(short), "another attempt is another name");
        }
        // Written down: a name that changes with a version of the gateway breaks what clients remember.
        assert_eq!(shortened(&long, 48, 0).as_deref(), Some("notes__xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx_abpguwe3"));
        for name in ["", "a", &"x".repeat(64), &"ü".repeat(64)] {
            assert_eq!(shortened(name, 64, 0), None, "{name}");
        }
    }

    #[test]
    fn one_character_of_difference_is_another_mark() {
        let names: Vec<String> = (0..1_000).map(|n| format!("t__{}{n}", "same_".repeat(20))).collect();
        let short: std::collections::HashSet<String> = names.iter().filter_map(|name| shortened(name, 64, 0)).collect();
        assert_eq!(short.len(), names.len());
    }

    #[test]
    fn usual_names_do_not_look_shortened() {
        let x = |length| "x".repeat(length);
        for name in
            ["echo", "notes__add_note", &x(64), &format!("{}_{}", x(54), "ABCDEFGH1"), &format!("{}_abcdefgh", x(50))]
        {
            assert!(!may_be_shortened(name, 64), "{name}");
        }
        assert!(may_be_shortened(&format!("{}_abcdefgh", x(55)), 64));
    }

    #[test]
    fn marked_uris_come_back() {
        for target in ["a", "a-b", "a_b"] {
            for uri in ["memo:x", "test://static-text", "file:///a+b", "ui://app/x", "https://e.org/?a=b+c"] {
                let marked = mark_uri(target, uri);
                let (back, original) = unmark_uri(&marked).expect(&marked);
                assert_eq!((back.as_ref(), original.as_str()), (target, uri), "{marked}");
            }
        }
        assert!(mark_uri("a", "ui://app/x").starts_with("ui://"));
        assert_eq!(unmark_uri("memo:x"), None);
        assert_eq!(unmark_uri("x-:y"), None);
    }
}
