//! Response heads and bodies, by the method that they answer.

use super::Case;

pub const TO_GET: &[Case] = &[
    ("200 with length", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 length(2) keep [hi]"),
    (
        "200 chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "200 chunked keep [hi]",
    ),
    ("200 until close", b"HTTP/1.1 200 OK\r\n\r\nhi", "200 close-delimited close [hi]"),
    (
        "200 until close with keep-alive",
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nhi",
        "200 close-delimited close [hi]",
    ),
    (
        "1.0 keep-alive",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        "200 length(2) keep [hi]",
    ),
    ("1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 length(2) close [hi]"),
    ("1.0 chunked", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!TransferEncodingInHttp10"),
    (
        "connection: close in a response",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        "200 length(2) close [hi]",
    ),
    ("204", b"HTTP/1.1 204 No Content\r\n\r\n", "204 none keep"),
    ("204 with length 0", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204 none keep"),
    ("204 with a length is a doubt", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", "204 none close"),
    ("204 chunked is a doubt", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "204 none close"),
    ("304 with a length has no body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 20\r\n\r\n", "304 none keep"),
    (
        "100 then 200",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "100 none keep; 200 length(0) keep []",
    ),
    (
        "103 with headers then 200",
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "103 none keep; 200 length(0) keep []",
    ),
    ("100 with a body", b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nhi", "!UnexpectedBody"),
    ("100 chunked", b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!UnexpectedBody"),
    ("101 ends HTTP", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "101 none close"),
    (
        "two responses",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 404 \r\nContent-Length: 1\r\n\r\nb",
        "200 length(1) keep [a]; 404 length(1) keep [b]",
    ),
    (
        "left-over bytes before a response",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n",
        "200 length(1) keep [a]; !StatusLine",
    ),
    ("an empty line before a response", b"\r\nHTTP/1.1 200 OK\r\n\r\n", "!StatusLine"),
    ("no reason", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200 length(0) keep []"),
    ("empty reason", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "200 length(0) keep []"),
    ("reason with high bytes", b"HTTP/1.1 200 \xe9\r\nContent-Length: 0\r\n\r\n", "200 length(0) keep []"),
    ("reason with a control byte", b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n", "!StatusLine"),
    ("status of two digits", b"HTTP/1.1 20 OK\r\n\r\n", "!StatusLine"),
    ("status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n", "!StatusLine"),
    ("status below 100", b"HTTP/1.1 099 OK\r\n\r\n", "!StatusLine"),
    ("status above 599", b"HTTP/1.1 600 OK\r\n\r\n", "!StatusLine"),
    ("status that is no number", b"HTTP/1.1 2x0 OK\r\n\r\n", "!StatusLine"),
    ("version 2 in a response", b"HTTP/2.0 200 OK\r\n\r\n", "!Version"),
    ("another protocol", b"ICY 200 OK\r\n\r\n", "!StatusLine"),
    ("bare LF in a response", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "!BareLf"),
    ("folded line in a response", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", "!ObsFold"),
    ("space before colon in a response", b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", "!SpaceBeforeColon"),
    ("NUL in a response", b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 0\r\n\r\n", "!Nul"),
    (
        "length and chunked in a response",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "!LengthWithTransferEncoding",
    ),
    (
        "two lengths in a response",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "!DuplicateContentLength",
    ),
    ("malformed length in a response", b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello", "!ContentLength"),
    ("gzip in a response", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "!TransferEncoding"),
    (
        "response cut in its body",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        "200 length(5) keep [hel]; !Truncated",
    ),
    (
        "response cut in its chunks",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "200 chunked keep [hel]; !Truncated",
    ),
    ("response cut in its head", b"HTTP/1.1 200 OK\r\nContent-", "..."),
];

pub const TO_HEAD: &[Case] = &[
    (
        "length without a body to HEAD",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nHTTP/1.1 404 \r\n\r\n",
        "200 none keep; 404 none keep",
    ),
    ("chunked without a body to HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 none keep"),
    (
        "length and chunked to HEAD",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "!LengthWithTransferEncoding",
    ),
    ("a body to HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 none keep; !StatusLine"),
];

pub const TO_CONNECT: &[Case] = &[
    ("a tunnel", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ntunnel", "200 close-delimited close [tunnel]"),
    ("a refused tunnel", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "403 length(2) keep [no]"),
];
