//! Variables in a scalar: `$NAME`, `${NAME}`, `${NAME:-default}`, and `$$` for a dollar. Knows no YAML.

use std::borrow::Cow;

use crate::context::Lookup;

/// Expands the variables of one scalar. A dollar that begins no name stays (so that a regular expression may end in one).
/// Borrowed when there was nothing to expand. What a variable holds is not expanded again. The error is the fault's message.
pub(crate) fn expand<'t>(text: &'t str, env: Lookup<'_>) -> Result<Cow<'t, str>, String> {
    let mut out = String::new();
    let mut rest = text;
    let mut changed = false;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            (rest, changed) = (tail, true);
        } else if let Some(tail) = after.strip_prefix('{') {
            let Some(end) = tail.find('}') else { return Err("a variable begins with ${ and has no }".to_owned()) };
            out.push_str(&braced(&tail[..end], env)?);
            (rest, changed) = (&tail[end + 1..], true);
        } else {
            let end = name_end(after);
            if end == 0 {
                out.push('$');
                rest = after;
                continue;
            }
            out.push_str(&value(&after[..end], env)?);
            (rest, changed) = (&after[end..], true);
        }
    }
    if !changed {
        return Ok(Cow::Borrowed(text));
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

fn braced(inside: &str, env: Lookup<'_>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if name.is_empty() || name_end(name) != name.len() {
        return Err(format!("{name:?} is not the name of a variable; write $$ for a dollar"));
    }
    match default {
        Some(default) => Ok(env(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())),
        None => value(name, env),
    }
}

fn value(name: &str, env: Lookup<'_>) -> Result<String, String> {
    env(name).ok_or_else(|| format!("the variable {name} is not set"))
}

/// Where a name that starts the text ends; 0 when none does.
fn name_end(text: &str) -> usize {
    let starts = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !starts {
        return 0;
    }
    text.find(|next: char| !next.is_ascii_alphanumeric() && next != '_').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn expands_names_and_leaves_dollars() {
        let env = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "B_2" => Some("$A".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let cases = [
            ("plain", Ok("plain")),
            ("$A", Ok("one")),
            ("${A}", Ok("one")),
            ("x-${A}-$B_2!", Ok("x-one-$A!")),
            ("$$A", Ok("$A")),
            ("$$$A", Ok("$one")),
            ("^/v1$", Ok("^/v1$")),
            ("^(a|b$)$|c", Ok("^(a|b$)$|c")),
            ("$5", Ok("$5")),
            ("${NONE:-fall back}", Ok("fall back")),
            ("${EMPTY:-fall back}", Ok("fall back")),
            ("${EMPTY}", Ok("")),
            ("$NONE", Err("the variable NONE is not set")),
            ("a ${NONE}", Err("the variable NONE is not set")),
            ("${A", Err("a variable begins with ${ and has no }")),
            ("${}", Err("\"\" is not the name of a variable; write $$ for a dollar")),
            ("${A B}", Err("\"A B\" is not the name of a variable; write $$ for a dollar")),
        ];
        for (text, expected) in cases {
            let got = expand(text, &env);
            assert_eq!(got.as_deref().map_err(String::as_str), expected, "{text}");
        }
    }
}
