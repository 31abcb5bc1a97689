//! A client of HTTP/2 that writes its frames by hand (RFC 9113, 4.1), to say what no library would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or a GOAWAY.
    pub fn code(&self) -> u32 {
        let code = if self.kind == GOAWAY { &self.payload[4..8] } else { &self.payload[..4] };
        u32::from_be_bytes(code.try_into().expect("four bytes"))
    }

    /// Whether the status of an answer is 200, which is one byte of the static table (RFC 7541, A).
    pub fn is_ok(&self) -> bool {
        self.kind == HEADERS && self.payload.first() == Some(&0x88)
    }
}

pub struct Client {
    stream: TcpStream,
}

impl Client {
    /// Says the preface with these settings, each a number and a value.
    pub fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let mut client = Client { stream };
        client.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("a preface");
        let mut payload = Vec::new();
        for (number, value) in settings {
            payload.extend(number.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        client.send(SETTINGS, 0, 0, &payload);
        client
    }

    /// The other side: reads the preface, and allows what the protocol allows.
    pub fn accept(stream: TcpStream) -> Self {
        let mut server = Client { stream };
        let mut preface = [0; 24];
        server.stream.read_exact(&mut preface).expect("a preface");
        server.send(SETTINGS, 0, 0, &[]);
        server
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.try_send(&frame(kind, flags, stream, payload)).expect("the gateway takes the bytes");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame; `None` at the end, however it comes.
    pub fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the gateway says nothing")
            }
            Err(_) => return None,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().expect("four bytes")) & 0x7fff_ffff;
        Some(Frame { kind: head[3], stream, payload })
    }

    /// The next frame that is one of these; settings, pings and windows are passed over.
    #[track_caller]
    pub fn expect(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        while let Some(frame) = self.frame() {
            if wanted(&frame) {
                return frame;
            }
        }
        panic!("the connection ended")
    }

    /// Reads to the end; gives the code of the last GOAWAY.
    pub fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.frame() {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The head of a request to a path (RFC 7541): from the static table, and the path and authority as literals.
pub fn head(method: &str, path: &str) -> Vec<u8> {
    let mut head = vec![if method == "POST" { 0x83 } else { 0x82 }, 0x86];
    literal(&mut head, 4, path);
    literal(&mut head, 1, "a.test");
    head
}

/// A field whose name has this place in the static table, not to be remembered.
fn literal(head: &mut Vec<u8>, place: u8, value: &str) {
    assert!(place < 15 && value.len() < 127);
    head.extend([place, value.len() as u8]);
    head.extend(value.as_bytes());
}
