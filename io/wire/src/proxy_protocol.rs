//! The PROXY protocol (HAProxy, "The PROXY protocol", versions 1 and 2): who a connection is really from, in front of its
//! first byte. What follows the addresses in version 2 is skipped. No socket, no clock.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Most bytes of a header of either version. The specification asks for 536 at least; what balancers add fits.
pub const HEADER_BYTES_MAX: usize = 4096;
/// Most bytes of a header of version 1, its CRLF included (section 2.1).
const V1_BYTES_MAX: usize = 107;
const V1_PREFIX: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED: usize = 16;

/// Which versions are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// The line of text.
    V1,
    /// The binary one.
    V2,
    /// Either.
    All,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A header.
    Header(Header),
    /// The beginning of one, perhaps. `certain`: nothing else begins like that.
    NeedMore {
        /// See above.
        certain: bool,
    },
    /// Of another protocol.
    Other,
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its bytes.
    pub length: usize,
    /// Who connected, and to where. `None`: the proxy speaks for itself (LOCAL), or knows no addresses of ours.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

/// Why bytes that begin like a header are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFault {
    /// It goes on for too long.
    TooLong,
    /// A line of version 1 that breaks its rules.
    Line,
    /// A version, command or family of version 2 that there is not.
    Unknown,
    /// Fewer bytes than its addresses take.
    TooShort,
}

impl fmt::Display for ProxyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyFault::TooLong => "PROXY header is too long",
            ProxyFault::Line => "malformed PROXY line",
            ProxyFault::Unknown => "unknown PROXY version, command or family",
            ProxyFault::TooShort => "PROXY header is shorter than its addresses",
        })
    }
}

impl std::error::Error for ProxyFault {}

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8], versions: Versions) -> Result<Parsed, ProxyFault> {
    let (takes_v1, takes_v2) = (versions != Versions::V2, versions != Versions::V1);
    if takes_v2 && begins_like(bytes, V2_SIGNATURE) {
        return match bytes.len() >= V2_FIXED {
            true => v2(bytes),
            false => Ok(Parsed::NeedMore { certain: bytes.len() >= V2_SIGNATURE.len() }),
        };
    }
    if takes_v1 && begins_like(bytes, V1_PREFIX) {
        return match bytes.len() >= V1_PREFIX.len() {
            true => v1(bytes),
            false => Ok(Parsed::NeedMore { certain: false }),
        };
    }
    Ok(Parsed::Other)
}

/// Whether one is the beginning of the other.
fn begins_like(bytes: &[u8], prefix: &[u8]) -> bool {
    let length = bytes.len().min(prefix.len());
    bytes[..length] == prefix[..length]
}

fn v1(bytes: &[u8]) -> Result<Parsed, ProxyFault> {
    let window = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() >= V1_BYTES_MAX {
            Err(ProxyFault::TooLong)
        } else {
            Ok(Parsed::NeedMore { certain: true })
        };
    };
    let line =
        window[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok()).ok_or(ProxyFault::Line)?;
    let length = end + 1;
    let mut words = line.split(' ').skip(1);
    let addresses = match words.next() {
        // Whatever stands behind it is not looked at (section 2.1).
        Some("UNKNOWN") => return Ok(Parsed::Header(Header { length, addresses: None })),
        Some("TCP4") => v1_addresses::<Ipv4Addr>(words),
        Some("TCP6") => v1_addresses::<Ipv6Addr>(words),
        _ => None,
    };
    Ok(Parsed::Header(Header { length, addresses: Some(addresses.ok_or(ProxyFault::Line)?) }))
}

fn v1_addresses<'a, A: std::str::FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a str>,
) -> Option<(SocketAddr, SocketAddr)> {
    let mut address = || words.next()?.parse::<A>().ok().map(Into::into);
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse::<u16>().ok().filter(|_| plain)
    };
    let (from, to) = (port()?, port()?);
    words.next().is_none().then(|| (SocketAddr::new(source, from), SocketAddr::new(destination, to)))
}

fn v2(bytes: &[u8]) -> Result<Parsed, ProxyFault> {
    let (version_and_command, family) = (bytes[12], bytes[13]);
    let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let length = V2_FIXED + rest;
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyFault::Unknown),
    };
    if length > HEADER_BYTES_MAX {
        return Err(ProxyFault::TooLong);
    }
    let needed = match family {
        // Not named; its bytes, if any, are skipped. A datagram does not come over a connection.
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ if is_local => 0,
        _ => return Err(ProxyFault::Unknown),
    };
    if !is_local && rest < needed {
        return Err(ProxyFault::TooShort);
    }
    let Some(rest) = bytes.get(V2_FIXED..length) else { return Ok(Parsed::NeedMore { certain: true }) };
    let addresses = match family {
        _ if is_local => None,
        0x11 => v2_addresses::<4>(rest),
        0x21 => v2_addresses::<16>(rest),
        _ => None,
    };
    Ok(Parsed::Header(Header { length, addresses }))
}

/// Two addresses of `N` bytes and two ports.
fn v2_addresses<const N: usize>(rest: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let address = |at: usize| -> Option<IpAddr> {
        let bytes = rest.get(at..at + N)?;
        <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
    };
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    let source = SocketAddr::new(address(0)?, port(2 * N)?);
    Some((source, SocketAddr::new(address(N)?, port(2 * N + 2)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: usize, addresses: Option<(&str, &str)>) -> Result<Parsed, ProxyFault> {
        let addresses = addresses.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap()));
        Ok(Parsed::Header(Header { length, addresses }))
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    /// What every beginning of a header says, until all of it has come.
    fn grows(bytes: &[u8]) {
        let whole = parse(bytes, Versions::All);
        for end in 0..bytes.len() {
            assert!(matches!(parse(&bytes[..end], Versions::All), Ok(Parsed::NeedMore { .. })), "{end} of {bytes:?}");
        }
        let more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&more, Versions::All), whole);
    }

    #[test]
    fn lines() {
        let good = [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", Some(("192.0.2.1:56324", "198.51.100.1:443"))),
            ("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", Some(("[2001:db8::1]:1", "[::1]:65535"))),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
        ];
        for (line, addresses) in good {
            assert_eq!(parse(line.as_bytes(), Versions::V1), header(line.len(), addresses), "{line}");
            grows(line.as_bytes());
        }
        let bad = [
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1  1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\u{e9}\r\n",
        ];
        for line in bad {
            assert_eq!(parse(line.as_bytes(), Versions::V1), Err(ProxyFault::Line), "{line}");
        }
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(parse(&endless[..106], Versions::V1), Ok(Parsed::NeedMore { certain: true }));
        assert_eq!(parse(&endless[..107], Versions::V1), Err(ProxyFault::TooLong));
    }

    #[test]
    fn binary_headers() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 1, 0xbb];
        let tlv = [v4.as_slice(), &[3, 0, 4, 1, 2, 3, 4]].concat();
        let v6 = [[0x20; 16], [0; 16]].concat();
        let v6 = [v6.as_slice(), &[0, 1, 0xff, 0xff]].concat();
        let addresses = Some(("192.0.2.1:56324", "198.51.100.1:443"));
        let good = [
            (binary(0x21, 0x11, &v4), addresses),
            (binary(0x21, 0x11, &tlv), addresses),
            (binary(0x21, 0x21, &v6), Some(("[2020:2020:2020:2020:2020:2020:2020:2020]:1", "[::]:65535"))),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, &v4), None),
            (binary(0x20, 0xff, &[1, 2, 3]), None),
            (binary(0x21, 0x00, &[1, 2, 3]), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ];
        for (bytes, addresses) in good {
            assert_eq!(parse(&bytes, Versions::V2), header(bytes.len(), addresses), "{bytes:?}");
            grows(&bytes);
        }
        let bad = [
            (binary(0x11, 0x11, &v4), ProxyFault::Unknown),
            (binary(0x22, 0x11, &v4), ProxyFault::Unknown),
            (binary(0x21, 0x12, &v4), ProxyFault::Unknown),
            (binary(0x21, 0x41, &v4), ProxyFault::Unknown),
            (binary(0x21, 0x11, &v4[..11]), ProxyFault::TooShort),
            (binary(0x21, 0x21, &v4), ProxyFault::TooShort),
            (binary(0x21, 0x11, &[0; 4081]), ProxyFault::TooLong),
        ];
        for (bytes, fault) in bad {
            assert_eq!(parse(&bytes, Versions::V2), Err(fault), "{bytes:?}");
        }
    }

    #[test]
    fn other_protocols_and_other_versions() {
        let line = b"PROXY UNKNOWN\r\n";
        assert_eq!(parse(line, Versions::V2), Ok(Parsed::Other));
        assert_eq!(parse(&binary(0x20, 0, &[]), Versions::V1), Ok(Parsed::Other));
        assert_eq!(parse(b"GET / HTTP/1.1\r\n", Versions::All), Ok(Parsed::Other));
        assert_eq!(parse(b"PUT / HTTP/1.1\r\n", Versions::All), Ok(Parsed::Other));
        assert_eq!(parse(b"\x16\x03\x01", Versions::All), Ok(Parsed::Other));
        for beginning in [b"".as_slice(), b"P", b"\r", b"PROXY"] {
            assert_eq!(parse(beginning, Versions::All), Ok(Parsed::NeedMore { certain: false }), "{beginning:?}");
        }
    }
}
