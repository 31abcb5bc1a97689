//! Secrets that are written into a definition: a default or an example with somebody's key goes to every client.

use std::sync::LazyLock;

use regex::Regex;

use super::text::Place;
use super::{Class, Finding};

/// Forms that only keys have, by who gives them out.
static KEYS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let forms = [
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        r"\bgh[pousr]_[A-Za-z0-9]{30,}",
        r"\bgithub_pat_[A-Za-z0-9_]{40,}",
        r"\bglpat-[A-Za-z0-9_-]{18,}",
        r"\bsk-(?:ant-|proj-|live-)?[A-Za-z0-9_-]{20,}",
        r"\bsk_(?:live|test)_[A-Za-z0-9]{16,}",
        r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
        r"\bAIza[A-Za-z0-9_-]{30,}",
        r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
        r"\b[a-z][a-z0-9+]*://[^\s:/@]+:[^\s:/@]{6,}@",
        r"(?i)\bbearer [a-z0-9._~+/-]{24,}",
        r"\bnpm_[A-Za-z0-9]{30,}",
    ];
    forms.iter().filter_map(|form| Regex::new(form).ok()).collect()
});

/// Properties whose default is a secret whatever it looks like.
static SECRETIVE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)(?:password|passwd|secret|api_?key|token|private_?key)[a-z_]*\.default$").ok());

pub fn find(place: Place, path: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut add = |weight, what: &str| {
        // Never the secret itself.
        let quote = format!("{what} of {} characters", text.chars().count());
        findings.push(Finding { class: Class::Secret, weight, path: path.to_owned(), quote });
    };
    if KEYS.iter().any(|form| form.is_match(text)) {
        let weight = if place == Place::Data { 65 } else { 45 };
        return add(weight, "a key in a text");
    }
    let secretive = SECRETIVE.as_ref().is_some_and(|form| form.is_match(path));
    let random =
        text.len() >= 12 && text.bytes().any(|b| b.is_ascii_digit()) && text.bytes().any(|b| b.is_ascii_alphabetic());
    if secretive && random && !text.contains([' ', '<', '$', '{']) {
        add(60, "a secret as default");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_and_not_shown() {
        assert_eq!(KEYS.len(), 13, "every form is a form");
        for (path, text, expected) in [
            ("inputSchema.properties.k.default", "AKIAABCDEFGHIJKLMNOP", true),
            ("description", "use ghp_0123456789abcdefghijABCDEFGHIJ012345", true),
            ("inputSchema.properties.url.default", "postgres://admin:hunter22@db/x", true),
            ("inputSchema.properties.api_key.default", "a8f5f167f44f4964e6c998dee827110c", true),
            ("inputSchema.properties.api_key.default", "<your key here 123>", false),
            ("inputSchema.properties.id.default", "a8f5f167f44f4964e6c998dee827110c", false),
            ("description", "the sk-… key", false),
            ("description", "https://example.com/a:b", false),
        ] {
            let mut findings = Vec::new();
            find(Place::Data, path, text, &mut findings);
            assert_eq!(!findings.is_empty(), expected, "{text}");
            assert!(findings.iter().all(|finding| !finding.quote.contains(text)));
        }
    }
}
