//! A request as routes and policies see it, and what they decided to change. It borrows the head; it knows no socket.

pub mod permit;

use std::net::SocketAddr;
use std::sync::Arc;

use agentlane_link::tls::ClientIdentity;
use agentlane_wire::h1::{self, RequestHead};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::principal::Principal;

use crate::fault::Kind;
use crate::telemetry::audit::Denial;

/// What routes and policies may read.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    pub head: &'a RequestHead,
    /// The authority without its port, in lower case where it matters to compare without case.
    pub host: &'a str,
    /// The authority with its port, as sent.
    pub authority: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub local: SocketAddr,
    pub peer: Option<SocketAddr>,
    /// What TLS says of the connection; `None`: it is plain.
    pub tls: Option<&'a Arc<TlsClient>>,
    /// The shard that serves it.
    pub shard: usize,
    /// Another shard has asked its policies already: what is counted was counted there.
    pub again: bool,
    /// Whether a policy may have the request wait for what it needs to know.
    pub may_wait: bool,
}

/// What the handshake of a client's connection came to.
#[derive(Debug)]
pub struct TlsClient {
    /// The listener that the client's server name chose; requests for others do not belong on the connection.
    pub listener: String,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Who the client is, where the listener asks for a certificate.
    pub principal: Principal,
}

impl TlsClient {
    pub fn identity(&self) -> Option<&ClientIdentity> {
        self.principal.certificate.as_deref()
    }

    /// Who the client is by its certificate.
    pub fn subject(&self) -> Option<&str> {
        self.principal.subject()
    }
}

impl<'a> RequestView<'a> {
    pub fn new(
        head: &'a RequestHead,
        local: SocketAddr,
        peer: Option<SocketAddr>,
        tls: Option<&'a Arc<TlsClient>>,
    ) -> Self {
        let authority = head.authority();
        let (host, path, query) = (host_of(authority), head.path(), head.query());
        RequestView { head, host, authority, path, query, local, peer, tls, shard: 0, again: false, may_wait: true }
    }

    /// Whether it asks for the WebSocket protocol (RFC 6455, 4.1).
    pub fn asks_for_websocket(&self) -> bool {
        let names = |known, wanted: &[u8]| {
            let mut options = self.head.headers.known_all(known).flat_map(h1::list);
            options.any(|option| option.eq_ignore_ascii_case(wanted))
        };
        self.head.method == h1::Method::Get
            && self.head.version == h1::Version::Http11
            && self.head.framing.is_empty()
            && names(h1::Known::Upgrade, b"websocket")
            && names(h1::Known::Connection, b"upgrade")
    }

    /// Says where it is served, and whether another shard had it first.
    pub fn on(mut self, shard: usize, again: bool) -> Self {
        (self.shard, self.again) = (shard, again);
        self
    }
}

/// The host of an authority, without its port; IPv6 brackets stay.
pub fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => {
            if host.contains(':') && !host.ends_with(']') { authority } else { host }
        }
        _ => authority,
    }
}

/// One change of a header section. Names are lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    Set(Bytes, Bytes),
    Add(Bytes, Bytes),
    Remove(Bytes),
}

/// Changes in their order; nothing for most requests.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdits {
    /// Without allocation while there is none: the state of a request stays small.
    edits: Vec<HeaderEdit>,
}

impl HeaderEdits {
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    pub fn push(&mut self, edit: HeaderEdit) {
        self.edits.push(edit);
    }

    pub fn extend(&mut self, edits: &[HeaderEdit]) {
        self.edits.extend(edits.iter().cloned());
    }

    /// Whether a header that the message came with stays: neither removed nor set anew.
    pub fn keeps(&self, name: &str) -> bool {
        !self.edits.iter().any(|edit| match edit {
            HeaderEdit::Set(edited, _) | HeaderEdit::Remove(edited) => name.as_bytes().eq_ignore_ascii_case(edited),
            HeaderEdit::Add(..) => false,
        })
    }

    /// The headers to write besides the ones that stay. An edit that a later one takes back is left out.
    pub fn written(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.edits.iter().enumerate().filter_map(|(place, edit)| {
            let (HeaderEdit::Set(name, value) | HeaderEdit::Add(name, value)) = edit else { return None };
            let undone = self.edits[place + 1..].iter().any(|later| match later {
                HeaderEdit::Set(other, _) | HeaderEdit::Remove(other) => other == name,
                HeaderEdit::Add(..) => false,
            });
            (!undone).then_some((&name[..], &value[..]))
        })
    }
}

/// What the policies of a route decided for one request.
#[derive(Debug, Default)]
pub struct Changes {
    pub request: HeaderEdits,
    pub response: HeaderEdits,
    /// A new path and query.
    pub target: Option<String>,
    /// A new authority; empty: the backend's own.
    pub authority: Option<String>,
    /// Who the request is from. Authentication says it, policies behind it read it.
    pub principal: Principal,
    /// Places among the requests that may be under way, held to the request's end.
    pub permits: SmallVec<[permit::Permit; 2]>,
}

/// An answer that the gateway gives itself.
#[derive(Debug)]
pub struct LocalReply {
    pub status: u16,
    /// Names in lower case.
    pub headers: SmallVec<[(Bytes, Bytes); 4]>,
    pub body: Bytes,
    /// There when the answer refuses what was asked.
    pub denial: Option<Box<Denial>>,
}

impl LocalReply {
    pub fn new(status: u16) -> Self {
        LocalReply { status, headers: SmallVec::new(), body: Bytes::new(), denial: None }
    }

    /// Says that the answer refuses, and what decided so: `rule` is the policy, and its rule with its place.
    pub fn denied(mut self, kind: Kind, rule: impl Into<Arc<str>>) -> Self {
        self.denial = Some(Box::new(Denial { kind: kind.label(), rule: Some(rule.into()) }));
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<Bytes>) -> Self {
        self.headers.push((Bytes::from_static(name.as_bytes()), value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_loses_its_port_only() {
        let cases = [
            ("example.org", "example.org"),
            ("example.org:80", "example.org"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:3000", "127.0.0.1"),
            ("", ""),
        ];
        for (authority, host) in cases {
            assert_eq!(host_of(authority), host, "{authority}");
        }
    }

    #[test]
    fn later_edits_win() {
        let name = Bytes::from_static(b"x-a");
        let mut edits = HeaderEdits::default();
        edits.push(HeaderEdit::Add(name.clone(), Bytes::from_static(b"1")));
        edits.push(HeaderEdit::Set(name.clone(), Bytes::from_static(b"2")));
        edits.push(HeaderEdit::Add(name.clone(), Bytes::from_static(b"3")));
        assert!(!edits.keeps("X-A"));
        assert!(edits.keeps("x-b"));
        let written: Vec<_> = edits.written().map(|(_, value)| value.to_vec()).collect();
        assert_eq!(written, [b"2".to_vec(), b"3".to_vec()]);
        edits.push(HeaderEdit::Remove(name));
        assert_eq!(edits.written().count(), 0);
    }
}
