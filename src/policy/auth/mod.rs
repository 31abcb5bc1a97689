//! Authentication: who a request is from. Each policy looks at one kind of credential, says in
//! [`Changes::principal`](crate::request::Changes) what it verified, and takes the credential off the request: no upstream
//! sees it, unless `backendAuth` puts it there again. Must not know routes, sessions or sockets.

pub mod api_key;
pub mod backend;
pub mod basic;
mod cache;
mod crypto;
pub mod jwt;
pub mod keys;
pub mod mcp;
pub mod remote;
pub mod token;

use agentlane_wire::h1::Headers;
use bytes::Bytes;

use crate::fault::{Fault, Kind};
use crate::policy::{Refusal, Verdict};
use crate::request::{Changes, HeaderEdit};

/// What becomes of requests without a valid credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are refused.
    Strict,
    /// Those without any pass.
    Optional,
    /// They pass.
    Permissive,
}

/// Where a credential stands: a header, and in it behind a prefix.
#[derive(Clone, Debug)]
pub struct Location {
    /// In lower case.
    pub header: Bytes,
    pub prefix: String,
}

/// What was found there.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Nothing,
    Credential(&'a str),
    /// More than one, or none that is text: nobody can say which counts.
    Unclear,
}

impl Location {
    pub fn find<'a>(&self, headers: &'a Headers) -> Found<'a> {
        let mut values = headers.iter().filter(|header| header.name.as_bytes().eq_ignore_ascii_case(&self.header));
        let Some(first) = values.next() else { return Found::Nothing };
        let Ok(value) = std::str::from_utf8(first.value) else { return Found::Unclear };
        if values.next().is_some() {
            return Found::Unclear;
        }
        let has_prefix = value.get(..self.prefix.len()).is_some_and(|front| front.eq_ignore_ascii_case(&self.prefix));
        match value[if has_prefix { self.prefix.len() } else { 0 }..].trim() {
            // Another scheme's credential is none of this one.
            _ if !has_prefix => Found::Nothing,
            "" => Found::Nothing,
            credential => Found::Credential(credential),
        }
    }

    /// The same, and takes whatever stands there off the request.
    pub fn take<'a>(&self, headers: &'a Headers, changes: &mut Changes) -> Found<'a> {
        let found = self.find(headers);
        if found != Found::Nothing {
            self.strip(changes);
        }
        found
    }

    /// Takes the credential off the request.
    pub fn strip(&self, changes: &mut Changes) {
        changes.request.push(HeaderEdit::Remove(self.header.clone()));
    }
}

/// What a policy makes of a request.
enum Outcome {
    /// Somebody, or nobody where that is allowed.
    Admitted,
    /// Without a credential.
    Missing,
    /// With a wrong one; why, as the client reads it.
    Wrong(&'static str),
}

/// 401 with a challenge. `rule`: the policy that refuses, for the audit log.
fn unauthenticated(rule: &'static str, message: &'static str, challenge: impl Into<Bytes>) -> Verdict {
    let fault = Fault::new(Kind::Unauthenticated, message).by(rule);
    Verdict::Refuse(Box::new(Refusal::new(fault).header("www-authenticate", challenge)))
}

#[cfg(test)]
mod tests {
    use agentlane_wire::h1::{HeadLimits, parse_request};
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn credentials_are_found_where_they_stand() {
        let bearer = Location { header: Bytes::from_static(b"authorization"), prefix: "Bearer ".to_owned() };
        let key = Location { header: Bytes::from_static(b"x-key"), prefix: String::new() };
        let cases = [
            (&bearer, "", Found::Nothing),
            (&bearer, "Authorization: Bearer a\r\n", Found::Credential("a")),
            (&bearer, "authorization: bearer  a \r\n", Found::Credential("a")),
            (&bearer, "authorization: Basic a\r\n", Found::Nothing),
            (&bearer, "authorization: Bearer\r\n", Found::Nothing),
            (&bearer, "authorization: Bearer a\r\nauthorization: Bearer b\r\n", Found::Unclear),
            (&bearer, "authorization: B\u{e9}arer a\r\n", Found::Nothing),
            (&key, "X-Key: a\r\n", Found::Credential("a")),
            (&key, "x-key:\r\n", Found::Nothing),
        ];
        for (location, headers, expected) in cases {
            let mut text = BytesMut::from(format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n").as_bytes());
            let head = parse_request(&mut text, &HeadLimits::default()).unwrap().unwrap();
            assert_eq!(location.find(&head.headers), expected, "{headers:?}");
        }
    }
}
