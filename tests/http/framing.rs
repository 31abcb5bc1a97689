//! Requests and answers that two readers could understand in two ways: nothing of them goes on.

use crate::in_front_of;
use crate::support::upstream::{Upstream, reply};
use crate::support::wire::Peer;

/// Requests that two readers could understand in two ways. Each is followed by what a smuggler would want to be read as a
/// request of its own.
const AMBIGUOUS: [(&str, &str); 30] = [
    (
        "length and chunks",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunks and length",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    ),
    ("two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde"),
    ("a list of lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4, 5\r\n\r\nabcde"),
    ("a signed length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nabcd"),
    ("a negative length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n"),
    ("a hexadecimal length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x4\r\n\r\nabcd"),
    ("an empty length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\nabcd"),
    ("a length past 64 bits", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551620\r\n\r\nabcd"),
    ("another coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked is not last", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a quoted coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("a space before the colon", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("a tab before the colon", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded header", "POST / HTTP/1.1\r\nhost: a\r\nx: 1\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("a space before the first header", "POST / HTTP/1.1\r\n host: a\r\ncontent-length: 0\r\n\r\n"),
    ("bare line feeds", "POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n0\n\n"),
    ("a bare line feed in a value", "POST / HTTP/1.1\r\nhost: a\r\nx: 1\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a bare carriage return", "POST / HTTP/1.1\r\nhost: a\r\nx: 1\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a NUL", "POST / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n"),
    ("a control character in a name", "POST / HTTP/1.1\r\nhost: a\r\ntransfer\x0bencoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a header without a colon", "POST / HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n"),
    ("an empty name", "POST / HTTP/1.1\r\nhost: a\r\n: chunked\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\nx: a\r\n\r\n"),
    ("another host in the target", "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("chunks in 1.0", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("spaces in the target", "GET / x HTTP/1.1\r\nhost: a\r\n\r\n"),
];

/// Bodies in chunks that are broken after a good head.
const BROKEN_CHUNKS: [(&str, &str); 9] = [
    ("no size", "\r\nabcd\r\n0\r\n\r\n"),
    ("a size past 64 bits", "10000000000000004\r\nabcd\r\n0\r\n\r\n"),
    ("a signed size", "+4\r\nabcd\r\n0\r\n\r\n"),
    ("0x", "0x4\r\nabcd\r\n0\r\n\r\n"),
    ("a space before the size", " 4\r\nabcd\r\n0\r\n\r\n"),
    ("a bare line feed", "4\nabcd\r\n0\r\n\r\n"),
    ("a size too small", "3\r\nabcd\r\n0\r\n\r\n"),
    ("a line feed in an extension", "4;a\nb\r\nabcd\r\n0\r\n\r\n"),
    ("a broken trailer", "4\r\nabcd\r\n0\r\nbad trailer\r\n\r\n"),
];

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn ambiguous_heads_are_refused_and_nothing_of_them_goes_on() {
    let upstream = Upstream::named("ok");
    let (_gateway, address) = in_front_of(&upstream);
    for (what, bytes) in AMBIGUOUS {
        let mut peer = Peer::connect(address);
        peer.send(format!("{bytes}{SMUGGLED}"));
        let response = peer.response("POST");
        assert!([400, 501].contains(&response.status), "{what}: {}", response.status);
        assert!(peer.closes(), "{what}: the connection goes on");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn broken_chunks_never_reach_another_request() {
    let upstream = Upstream::answering(|request| Some(reply(200, &[], request.head.target())));
    let (_gateway, address) = in_front_of(&upstream);
    for (what, chunks) in BROKEN_CHUNKS {
        let mut peer = Peer::connect(address);
        peer.send(format!("POST /broken HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{SMUGGLED}"));
        let text = String::from_utf8_lossy(&peer.rest().unwrap_or_else(|| panic!("{what}: not closed"))).into_owned();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{what}: {text}");
        assert_eq!(Peer::connect(address).get("/next").text(), "/next", "{what}: a poisoned connection");
    }
    let smuggled = |request: &crate::support::upstream::Request| request.head.target() == "/smuggled";
    assert!(!upstream.requests().iter().any(smuggled));
}

#[test]
fn a_doubtful_answer_ends_its_connection() {
    // More bytes than the answer has: the next answer would be theirs.
    let upstream = Upstream::answering(|request| match request.head.target() {
        "/trap" => {
            let mut bytes = reply(200, &[], "ok");
            bytes.extend(reply(200, &[], "poisoned"));
            Some(bytes)
        }
        target => Some(reply(200, &[], target)),
    });
    let (_gateway, address) = in_front_of(&upstream);
    let mut peer = Peer::connect(address);
    for _ in 0..10 {
        assert_eq!(peer.get("/trap").text(), "ok");
        assert_eq!(peer.get("/next").text(), "/next");
    }
    let both = Upstream::answering(|_| {
        Some(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec())
    });
    let (_gateway, address) = in_front_of(&both);
    assert_eq!(Peer::connect(address).get("/").status, 502);
}
