//! Request targets and hosts: which form a method allows, and which bytes (RFC 9112 3.2, RFC 9110 7.2). Knows no routing.

use super::head::Span;
use super::{H1Error, Method};

/// The form of a request target (RFC 9112 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `host:port`, CONNECT only.
    Authority,
    /// `*`, OPTIONS only.
    Asterisk,
}

/// The parts of a target, as ranges inside it.
pub(super) struct Target {
    pub form: TargetForm,
    pub authority: Span,
    pub path: Span,
    pub query: Span,
    /// The port that the scheme implies.
    pub default_port: &'static [u8],
}

/// Checks `target` byte by byte and finds its parts.
pub(super) fn parse(method: Method, target: &[u8]) -> Result<Target, H1Error> {
    if method == Method::Connect {
        return authority_form(target);
    }
    if target == b"*" {
        let path = Span { start: 0, end: 1 };
        return match method {
            Method::Options => Ok(origin(TargetForm::Asterisk, Span::default(), path, Span { start: 1, end: 1 }, b"")),
            _ => Err(H1Error::Target),
        };
    }
    if target.first() == Some(&b'/') {
        let (path, query) = path_and_query(target, 0)?;
        return Ok(origin(TargetForm::Origin, Span::default(), path, query, b""));
    }
    absolute_form(target)
}

fn origin(form: TargetForm, authority: Span, path: Span, query: Span, default_port: &'static [u8]) -> Target {
    Target { form, authority, path, query, default_port }
}

fn authority_form(target: &[u8]) -> Result<Target, H1Error> {
    let (host, port) = split_port(target);
    if host.is_empty() || port.is_none_or(<[u8]>::is_empty) || !is_host(target) {
        return Err(H1Error::Target);
    }
    let end = target.len() as u32;
    let nothing = Span { start: end, end };
    Ok(origin(TargetForm::Authority, Span { start: 0, end }, nothing, nothing, b""))
}

fn absolute_form(target: &[u8]) -> Result<Target, H1Error> {
    let (scheme_len, default_port): (usize, &'static [u8]) = if starts_with_ignore_case(target, b"http://") {
        (7, b"80")
    } else if starts_with_ignore_case(target, b"https://") {
        (8, b"443")
    } else {
        return Err(H1Error::Target);
    };
    let rest = &target[scheme_len..];
    let host_len = rest.iter().position(|&byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    // A query right after the host has no origin form that could be forwarded as it stands.
    if rest.get(host_len).is_some_and(|&byte| byte != b'/') || !is_host(&rest[..host_len]) {
        return Err(H1Error::Target);
    }
    let host_end = scheme_len + host_len;
    let (path, query) = path_and_query(target, host_end)?;
    let authority = Span { start: scheme_len as u32, end: host_end as u32 };
    Ok(origin(TargetForm::Absolute, authority, path, query, default_port))
}

/// Visible ASCII without the delimiters that no URI has. `\` is refused in a path, where some parsers read it as `/`.
fn path_and_query(target: &[u8], from: usize) -> Result<(Span, Span), H1Error> {
    let mut question = None;
    for (at, &byte) in target.iter().enumerate().skip(from) {
        let class = CLASS[byte as usize];
        if class == PLAIN {
            continue;
        }
        match (class, question) {
            (QUESTION, None) => question = Some(at),
            (QUESTION, Some(_)) | (BACKSLASH, Some(_)) => {}
            _ => return Err(H1Error::Target),
        }
    }
    let end = target.len();
    let path_end = question.unwrap_or(end);
    let query_start = question.map_or(end, |at| at + 1);
    Ok((Span { start: from as u32, end: path_end as u32 }, Span { start: query_start as u32, end: end as u32 }))
}

const PLAIN: u8 = 0;
const QUESTION: u8 = 1;
const BACKSLASH: u8 = 2;
const REFUSED: u8 = 3;

static CLASS: [u8; 256] = {
    let mut table = [REFUSED; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = match byte as u8 {
            b'?' => QUESTION,
            b'\\' => BACKSLASH,
            b'#' | b'"' | b'<' | b'>' => REFUSED,
            _ => PLAIN,
        };
        byte += 1;
    }
    table
};

/// Whether `value` is `uri-host [":" port]` with a non-empty host (RFC 9110 4.2.1).
///
/// Narrower than the grammar on purpose: no percent-encoding and no comma, which no host name in use has and which
/// would let two lists or two spellings pass for one name.
pub fn is_host(value: &[u8]) -> bool {
    let (host, port) = split_port(value);
    if let Some(port) = port {
        let number = port.iter().try_fold(0u32, |sum, byte| {
            byte.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u32::from(byte - b'0')))
        });
        if number.is_none_or(|number| number > 65535) {
            return false;
        }
    }
    if let Some(address) = host.strip_prefix(b"[") {
        let Some(address) = address.strip_suffix(b"]") else {
            return false;
        };
        return std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
    }
    !host.is_empty() && host.iter().all(|&byte| is_host_byte(byte))
}

const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
        )
}

/// Whether two authorities name the same place: hosts without case, the default port equal to none.
pub(super) fn same_authority(left: &[u8], right: &[u8], default_port: &[u8]) -> bool {
    let (left_host, left_port) = split_port(left);
    let (right_host, right_port) = split_port(right);
    left_host.eq_ignore_ascii_case(right_host)
        && explicit_port(left_port, default_port) == explicit_port(right_port, default_port)
}

/// Whether a Host says what `:authority` says, in HTTP/2 (RFC 9113, 8.3.1).
pub(crate) fn same_host(authority: &str, host: &[u8], scheme: Option<&str>) -> bool {
    let default_port: &[u8] = match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => b"443",
        Some(_) => b"80",
        None => b"",
    };
    same_authority(authority.as_bytes(), host, default_port)
}

fn explicit_port<'a>(port: Option<&'a [u8]>, default_port: &[u8]) -> &'a [u8] {
    port.filter(|&digits| digits != default_port).unwrap_or_default()
}

fn split_port(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    let from = value.iter().rposition(|&byte| byte == b']').unwrap_or(0);
    match value[from..].iter().position(|&byte| byte == b':') {
        Some(at) => (&value[..from + at], Some(&value[from + at + 1..])),
        None => (value, None),
    }
}

fn starts_with_ignore_case(text: &[u8], prefix: &[u8]) -> bool {
    text.len() >= prefix.len() && text[..prefix.len()].eq_ignore_ascii_case(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in ["a", "a:80", "a.example", "[::1]", "[::1]:8080", "127.0.0.1:3000", "a_b", "a:"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in
            ["", ":80", "a b", "a,b", "a@b", "a/b", "a:b", "a:1:2", "[::1", "::1", "a:70000", "a%20b", "[x]", "\u{e9}"]
        {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn default_ports_agree() {
        assert!(same_authority(b"A.b:80", b"a.B", b"80"));
        assert!(!same_authority(b"a:81", b"a", b"80"));
        assert!(!same_authority(b"a", b"b", b"80"));
    }
}
