//! The ways in which a peer's HTTP/1 bytes can be refused, each with the answer that it deserves. Knows no parser.

use std::fmt;

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident => $status:literal, $message:literal;)*) => {
        /// Why a head, a chunk or a body was refused.
        ///
        /// After any of these the byte stream has no trustworthy position: the connection must be closed once the
        /// answer is written, and must never be reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum H1Error {
            $($(#[$doc])* $variant,)*
        }

        impl H1Error {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [H1Error] = &[$(H1Error::$variant,)*];

            /// The status with which a server answers a request that has this error. For an upstream's response the
            /// gateway answers 502 whatever the kind.
            pub const fn status(self) -> u16 {
                match self { $(H1Error::$variant => $status,)* }
            }

            /// What was wrong, without a byte of what the peer sent.
            pub const fn message(self) -> &'static str {
                match self { $(H1Error::$variant => $message,)* }
            }

            /// The kind as a word for metrics and tables.
            pub const fn name(self) -> &'static str {
                match self { $(H1Error::$variant => stringify!($variant),)* }
            }
        }
    };
}

errors! {
    /// The request line is not `method SP target SP HTTP-version` (RFC 9112 3).
    RequestLine => 400, "malformed request line";
    /// The status line is not `HTTP-version SP 3DIGIT SP [reason]`, or the code is outside 100..=599 (RFC 9112 4).
    StatusLine => 502, "malformed status line";
    /// The method is not a token, or longer than any method in use.
    Method => 400, "malformed method";
    /// The target has a form that its method does not allow, or bytes that no URI has (RFC 9112 3.2).
    Target => 400, "malformed request target";
    /// The request line is longer than the limit.
    TargetTooLong => 414, "request target too long";
    /// A well-formed version other than HTTP/1.0 and HTTP/1.1.
    Version => 505, "unsupported HTTP version";
    /// Line feed without carriage return (RFC 9112 2.2 lets a recipient accept it; two parsers then disagree).
    BareLf => 400, "line feed without carriage return";
    /// Carriage return without line feed (RFC 9112 2.2).
    BareCr => 400, "carriage return without line feed";
    /// A NUL byte anywhere in a head.
    Nul => 400, "NUL in head";
    /// A header line that continues the line before (RFC 9112 5.2).
    ObsFold => 400, "folded header line";
    /// White space between a header's name and its colon (RFC 9112 5.1).
    SpaceBeforeColon => 400, "space before the colon of a header";
    /// A header name that is empty or not a token.
    HeaderName => 400, "malformed header name";
    /// A control character in a header value.
    HeaderValue => 400, "malformed header value";
    /// The head is longer than the limit.
    HeadTooLarge => 431, "head too large";
    /// More header lines than the limit.
    TooManyHeaders => 431, "too many headers";
    /// Content-Length is not one plain decimal number that fits 64 bits (RFC 9112 6.3).
    ContentLength => 400, "malformed content-length";
    /// More than one Content-Length, or a list of them, even when they agree.
    DuplicateContentLength => 400, "repeated content-length";
    /// Content-Length together with Transfer-Encoding (RFC 9112 6.1).
    LengthWithTransferEncoding => 400, "content-length with transfer-encoding";
    /// A Transfer-Encoding other than exactly `chunked`.
    TransferEncoding => 501, "unsupported transfer-encoding";
    /// More than one Transfer-Encoding line.
    DuplicateTransferEncoding => 400, "repeated transfer-encoding";
    /// Transfer-Encoding in an HTTP/1.0 message (RFC 9112 6.1: faulty framing).
    TransferEncodingInHttp10 => 400, "transfer-encoding in HTTP/1.0";
    /// A body on a method that has none (CONNECT, TRACE), or on an interim response.
    UnexpectedBody => 400, "body where none is allowed";
    /// HTTP/1.1 without Host (RFC 9112 3.2).
    MissingHost => 400, "missing host";
    /// More than one Host.
    DuplicateHost => 400, "repeated host";
    /// A Host that is not `uri-host [":" port]`.
    Host => 400, "malformed host";
    /// The authority of an absolute target differs from Host.
    HostMismatch => 400, "host differs from the request target";
    /// More connection options than any honest peer has; each is compared with every header when forwarding.
    ConnectionOptions => 400, "too many connection options";
    /// An Expect other than `100-continue` (RFC 9110 10.1.1).
    Expectation => 417, "unsupported expectation";
    /// A chunk-size line that is not hexadecimal digits, extensions and CRLF (RFC 9112 7.1).
    ChunkSize => 400, "malformed chunk size";
    /// A chunk size that does not fit 64 bits.
    ChunkSizeOverflow => 400, "chunk size too large";
    /// A chunk's data is not followed by CRLF.
    ChunkEnd => 400, "chunk not ended by CRLF";
    /// Chunk extensions longer than the limit.
    ChunkExtensionTooLarge => 400, "chunk extensions too large";
    /// A malformed trailer section.
    Trailer => 400, "malformed trailer";
    /// A trailer section longer than the limit.
    TrailerTooLarge => 431, "trailer section too large";
    /// The body is longer than the limit of who reads it.
    BodyTooLarge => 413, "body too large";
    /// The peer closed before the message was complete.
    Truncated => 400, "message ended early";
}

impl fmt::Display for H1Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for H1Error {}
