//! One request at a time on one blocking connection: what sessions are opened and closed with. It knows HTTP, not MCP.

use crate::message::{self, Message, Parsed};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer taken, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A blocking connection on which nothing is under way between calls.
pub struct Caller {
    socket: TcpStream,
}

/// An answer with its body out of the chunks.
pub struct Answer {
    pub status: u16,
    pub session: Option<String>,
    pub event_stream: bool,
    pub body: String,
}

impl Caller {
    pub fn connect(to: SocketAddr) -> io::Result<Caller> {
        let socket = TcpStream::connect_timeout(&to, TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        Ok(Caller { socket })
    }

    /// Sends a whole request and waits for its whole answer.
    pub fn call(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.send(request)?;
        let mut inbox = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            match message::answer(&inbox)
                .map_err(|malformed| io::Error::other(format!("malformed answer: {}", malformed.0)))?
            {
                Parsed::Complete(answer) => return Ok(Answer::new(&answer, &inbox)),
                Parsed::Partial { .. } if inbox.len() > ANSWER_BYTES_MAX => {
                    return Err(io::Error::other("answer too long"));
                }
                Parsed::Partial { .. } => {}
            }
            match self.socket.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => inbox.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Sends without waiting for an answer: after that, no other call is possible.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.socket.write_all(request)
    }

    pub fn into_socket(self) -> TcpStream {
        self.socket
    }
}

impl Answer {
    fn new(answer: &Message, bytes: &[u8]) -> Answer {
        let mut scratch = Vec::new();
        Answer {
            status: answer.status(),
            session: answer.session.clone().map(|range| String::from_utf8_lossy(&bytes[range]).into_owned()),
            event_stream: answer.event_stream,
            body: String::from_utf8_lossy(answer.body(bytes, &mut scratch)).into_owned(),
        }
    }
}
