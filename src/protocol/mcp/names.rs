//! Names of tools and prompts across a federation: `<target>__<name>` outward, back again inward. It knows strings only.

use std::borrow::Cow;

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
