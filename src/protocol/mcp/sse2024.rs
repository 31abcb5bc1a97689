//! The transport of 2024-11-05 ("HTTP with SSE"): where the messages of a client go. The server names the place in the first
//! event of its stream, as a URI that is read relative to the stream's own. Pure; it knows no connection.

use crate::limits::ENDPOINT_BYTES_MAX;

/// The query parameter by which our own endpoint tells conversations apart.
pub const SESSION_PARAMETER: &str = "sessionId";
/// How the path of our own endpoint ends.
const PATH_END: &str = "/sse";

/// Whether a path is one where this transport is served.
pub fn is_served_at(path: &str) -> bool {
    path.ends_with(PATH_END)
}

/// The conversation that a query names.
pub fn session_of(query: Option<&str>) -> Option<&str> {
    query?.split('&').find_map(|pair| pair.strip_prefix(SESSION_PARAMETER)?.strip_prefix('='))
}

/// Where the client of a stream posts to: the stream's own path and query, and the conversation's id. A path from the root,
/// because there are clients that only put it behind the host.
pub fn message_endpoint(path: &str, query: Option<&str>, id: &str) -> String {
    match query.filter(|query| !query.is_empty()) {
        Some(query) => format!("{path}?{query}&{SESSION_PARAMETER}={id}"),
        None => format!("{path}?{SESSION_PARAMETER}={id}"),
    }
}

/// Path and query that a server's `endpoint` event names; `authority` and `stream` (path and query) are those of its stream,
/// `secure` whether that is spoken over TLS.
/// RFC 3986, section 5.2. Another origin is refused: messages carry what was meant for this server.
pub fn resolve(secure: bool, authority: &str, stream: &str, event: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(event).unwrap_or_default().trim();
    if text.is_empty() || text.len() > ENDPOINT_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("endpoint is no URI");
    }
    let text = text.split('#').next().unwrap_or_default();
    let stream_path = stream.split('?').next().unwrap_or_default();
    if let Some(rest) = after_scheme(secure, text)? {
        let (named, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !same_authority(secure, named, authority) {
            return Err("endpoint is of another origin");
        }
        return Ok(without_dots(target));
    }
    Ok(match text.as_bytes().first() {
        None => stream.to_owned(),
        Some(b'/') => without_dots(text),
        Some(b'?') => format!("{stream_path}{text}"),
        Some(_) => {
            let folder = stream_path.rsplit_once('/').map_or("", |(folder, _)| folder);
            without_dots(&format!("{folder}/{text}"))
        }
    })
}

/// What follows the stream's own scheme, or `//`; `None` for a reference without an authority.
fn after_scheme(secure: bool, text: &str) -> Result<Option<&str>, &'static str> {
    if let Some(rest) = text.strip_prefix("//") {
        return Ok(Some(rest));
    }
    let Some((scheme, rest)) = text.split_once(':') else { return Ok(None) };
    if scheme.contains(['/', '?']) {
        return Ok(None);
    }
    match rest.strip_prefix("//") {
        Some(rest) if scheme.eq_ignore_ascii_case(if secure { "https" } else { "http" }) => Ok(Some(rest)),
        _ => Err("endpoint is of another origin"),
    }
}

fn same_authority(secure: bool, one: &str, other: &str) -> bool {
    let usual = if secure { ":443" } else { ":80" };
    let bare = |authority: &str| authority.strip_suffix(usual).unwrap_or(authority).to_ascii_lowercase();
    bare(one) == bare(other)
}

/// A path from the root without `.` and `..` segments, its query as it is (RFC 3986, section 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut kept: Vec<&str> = Vec::new();
    let segments = path.strip_prefix('/').unwrap_or(path).split('/');
    let mut ends_in_folder = false;
    for segment in segments {
        ends_in_folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    if ends_in_folder {
        kept.push("");
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_relative_to_the_stream() {
        let cases = [
            ("/message?sessionId=1", "/message?sessionId=1"),
            ("message?sessionId=1", "/a/message?sessionId=1"),
            ("?sessionId=1", "/a/sse?sessionId=1"),
            ("../m", "/m"),
            ("./m/../n/.", "/a/n/"),
            ("/../../m?x=/../y", "/m?x=/../y"),
            ("http://Host.example:80/m?x", "/m?x"),
            ("http://host.example?x", "/?x"),
            ("//host.example/m", "/m"),
            (" /m ", "/m"),
            ("/m#part", "/m"),
            ("/m?url=http://b.example", "/m?url=http://b.example"),
        ];
        for (event, expected) in cases {
            assert_eq!(
                resolve(false, "host.example", "/a/sse?k=v", event.as_bytes()).as_deref(),
                Ok(expected),
                "{event}"
            );
        }
        assert_eq!(resolve(false, "h:8080", "/sse", b"http://h:8080/m").as_deref(), Ok("/m"));
        assert_eq!(resolve(true, "h", "/sse", b"https://h:443/m").as_deref(), Ok("/m"));
        assert!(resolve(true, "h", "/sse", b"http://h/m").is_err());
    }

    #[test]
    fn another_origin_or_nonsense_is_refused() {
        let long = format!("/{}", "x".repeat(ENDPOINT_BYTES_MAX));
        let cases = [
            "http://other.example/m",
            "http://host.example:81/m",
            "https://host.example/m",
            "//other.example/m",
            "http://user@host.example/m",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "",
            "/a b",
            "/a\r\nhost: other",
            "/ü",
            &long,
        ];
        for event in cases {
            assert!(resolve(false, "host.example", "/sse", event.as_bytes()).is_err(), "{event}");
        }
        assert!(resolve(false, "host.example", "/sse", b"\xff").is_err());
    }

    #[test]
    fn our_own_endpoint_reads_back() {
        for (query, expected) in [(None, "/x/sse?sessionId=ID"), (Some("a=b"), "/x/sse?a=b&sessionId=ID")] {
            let endpoint = message_endpoint("/x/sse", query, "ID");
            assert_eq!(endpoint, expected);
            assert_eq!(session_of(endpoint.split_once('?').map(|(_, query)| query)), Some("ID"));
        }
        assert!(is_served_at("/sse") && is_served_at("/a/sse") && !is_served_at("/sse/") && !is_served_at("/mcp"));
        assert_eq!(session_of(Some("sessionIdx=1")), None);
    }
}
